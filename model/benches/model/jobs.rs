//! Recorded programs: a data loader, jobs that come back, workflows.

use std::path::Path;

use foretide_model::evaluate::contender::Name;
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{CacheSize, Options, evaluate_some};
use foretide_model::import::read_trace;
use foretide_model::recurrence::{JobReport, Row, SITE, evaluate_recurrence};

use crate::blocks::of;
use crate::{Figure, Outcome, Table};

/// The data loader of a training on images: whole files, read by many workers.
pub fn loader(table: &mut Table, root: &Path) -> Outcome {
    let trace = read_trace(&root.join("dftracer/test-trace.pfw.gz"), None, None)?;
    let names = [Name::None, Name::Stride, Name::Foretide, Name::Oracle];
    let options = Options { cache: CacheSize::Share(0.2), ..Options::default() };
    let instant = evaluate_some(&trace, &options, &names)?;
    let (ours, stride) = (of(&instant, Name::Foretide)?, of(&instant, Name::Stride)?);
    let figure = |ours, unit, reference| Figure { ours, unit, reference, name: "stride" };
    let work = "deep learning, instant";
    table.at_least(work, figure(ours.byte_coverage, "coverage", stride.byte_coverage), 0.95);
    table.at_least(work, figure(ours.byte_precision, "precision", stride.byte_precision), 0.97);
    let link = Link::Wire { bits_per_s: 10_000_000_000, rtt_us: 150_000 };
    let wire = evaluate_some(&trace, &Options { link, ..options }, &names)?;
    let gap = |name| of(&wire, name).map(|r| r.gap_closed.unwrap_or(0.0));
    let (ours, stride) = (gap(Name::Foretide)?, gap(Name::Stride)?);
    table.at_least("deep learning, 10 Gbit/s and 150 ms", figure(ours, "gap closed", stride), 0.85);
    Ok(())
}

/// Job, and coverage and precision that were set for its last run before it starts.
const SET: [(&str, f64, f64); 9] = [
    ("nightly", 0.97, 0.95),
    ("align", 0.97, 0.95),
    ("pretrain", 0.95, 0.95),
    ("lookup", 0.90, 0.90),
    ("serve", 0.45, 0.50),
    ("seq", 0.99, 0.99),
    ("stride", 0.99, 0.99),
    ("zipf", 0.329, 0.324),
    ("rand", 0.0, 0.99),
];
/// Folders of recorded jobs.
pub const FOLDERS: [&str; 7] = [
    "nightly-parquet",
    "bwa-align",
    "resume-train",
    "leveldb-mapped",
    "rocksdb-zipf",
    "fio-patterns",
    "torch-imagefolder",
];

/// The gap that was set for the mean of all calendars.
const MEAN_GAP: f64 = 0.85;

/// Each recorded job: its last run before it starts, and its whole calendar through a site, of which all contenders are
/// printed beside the rows.
pub fn recorded(table: &mut Table, root: &Path) -> Outcome {
    let mut gaps = Vec::new();
    for folder in FOLDERS {
        for job in evaluate_recurrence(&root.join("jobs").join(folder), &SITE, 1)?.jobs {
            before(table, &job)?;
            gaps.push(calendar(table, &job)?);
        }
    }
    let mean = |of: fn(&(f64, f64)) -> f64| gaps.iter().map(of).sum::<f64>() / gaps.len() as f64;
    let figure = Figure { ours: mean(|g| g.0), unit: "gap closed", reference: mean(|g| g.1), name: "last-run" };
    table.at_least("whole calendars, mean", figure, MEAN_GAP);
    Ok(())
}

fn before(table: &mut Table, job: &JobReport) -> Outcome {
    let Some((_, coverage, precision)) = SET.iter().find(|(name, ..)| *name == job.job) else { return Ok(()) };
    let row = |name: &str| job.before.iter().find(|r| r.name == name).ok_or(format!("no row {name}"));
    let (ours, replay) = (row("foretide")?, row("replay")?);
    let work = format!("{}, before the last run", job.job);
    let figure = |ours, unit, reference| Figure { ours, unit, reference, name: "replay" };
    table.at_least(&work, figure(ours.byte_coverage, "coverage", replay.byte_coverage), *coverage);
    table.at_least(&work, figure(ours.byte_precision, "precision", replay.byte_precision), *precision);
    Ok(())
}

/// Ours and that of replaying the last run; a job must not be worse off than with nothing.
fn calendar(table: &mut Table, job: &JobReport) -> Result<(f64, f64), String> {
    let season = job.season.as_ref().ok_or("the recording tells no single reads")?;
    let gap = |name| of(season, name).map(|r| r.gap_closed.unwrap_or(0.0));
    let (ours, reference) = (gap(Name::Foretide)?, gap(Name::LastRun)?);
    let work = format!("{}, whole calendar", job.job);
    println!("{season}");
    table.at_least(&work, Figure { ours, unit: "gap closed", reference, name: "last-run" }, 0.0);
    Ok((ours, reference))
}

/// WfCommons families, the worst series of each.
pub fn workflows(table: &mut Table, root: &Path) -> Outcome {
    for family in ["epigenomics", "montage", "srasearch"] {
        let report = evaluate_recurrence(&root.join("wfinstances").join(family), &SITE, 1)?;
        let least = |during: bool, of: fn(&Row) -> f64, name: &str| {
            let rows = report.jobs.iter().flat_map(|j| if during { &j.during } else { &j.before });
            rows.filter(|r| r.name == name).map(of).fold(1.0, f64::min)
        };
        for (during, when, bar) in [(false, "before", 0.98), (true, "while it runs", 0.90)] {
            let work = format!("{family}, {when}, worst series");
            let mut row = |unit, of: fn(&Row) -> f64| {
                let (ours, reference) = (least(during, of, "foretide"), least(during, of, "replay"));
                table.at_least(&work, Figure { ours, unit, reference, name: "replay" }, bar);
            };
            row("coverage", |r| r.byte_coverage);
            row("precision", |r| r.byte_precision);
        }
    }
    Ok(())
}
