//! What the forecasters reach, one row for each figure that was set, and one table of what each part adds.
//!
//! `cargo bench -p foretide-model` (or `make bench-model`) wants the recorded traces beside the checkout, or where
//! `FORETIDE_TRACES` says. Reference is the best of what is known on the same trace in the same run: LRU, S3-FIFO and
//! a Mithril-like association; for jobs, replay of the last run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use foretide_model::ModelError;
use foretide_model::blocks::{BlockForecaster, BlockRequest, BlockSettings, Sources};
use foretide_model::evaluate::contender::{Name, Parts};
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{CacheSize, Options, Report, Row, evaluate_some};
use foretide_model::import::{Trace, read_trace};
use foretide_model::recurrence::evaluate_recurrence;
use serde_json::{Value, json};

/// A block trace and what was set: hit ratios at a cache of 1 % and 10 %, with fetches that take no time and with
/// fetches that take 16 requests.
struct Set {
    file: &'static str,
    instant: [f64; 2],
    lead: [f64; 2],
}

const SETS: [Set; 5] = [
    Set { file: "arc/OLTP.lis.zst", instant: [0.51, 0.69], lead: [0.52, 0.70] },
    Set { file: "lirs/sprite.trace.gz", instant: [0.79, 0.93], lead: [0.29, 0.89] },
    Set { file: "lirs/multi2.trace.gz", instant: [0.73, 0.77], lead: [0.33, 0.75] },
    Set { file: "cloudphysics/cloudPhysicsIO.csv.zst", instant: [0.80, 0.84], lead: [0.65, 0.70] },
    Set { file: "arc/P6.lis.zst", instant: [0.79, 0.86], lead: [0.71, 0.83] },
];
const CACHES: [f64; 2] = [0.01, 0.1];
/// Precision under which a hit ratio does not count.
const LEAST_PRECISION: f64 = 0.5;
const KNOWN: [Name; 3] = [Name::None, Name::S3Fifo, Name::Association];

/// The rows, as they are written and printed.
#[derive(Default)]
struct Table(Vec<Value>);

impl Table {
    #[expect(clippy::too_many_arguments, reason = "the columns of one row")]
    fn row(&mut self, work: &str, ours: f64, unit: &str, reference: f64, name: &str, bar: f64, holds: bool) {
        let ratio = if reference == 0.0 { Value::Null } else { json!(ours / reference) };
        println!("{work:<58} {ours:>9.3} {unit:<12} {reference:>9.3} {name:<12} bar {bar:>6.3} {holds}");
        self.0.push(json!({"work": work, "ours": ours, "unit": unit, "reference": reference,
            "reference_name": name, "ratio": ratio, "bar": bar, "holds": holds}));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = traces()?;
    let mut table = Table::default();
    let traces: Vec<Trace> =
        SETS.iter().map(|s| read_trace(&root.join(s.file), None, None)).collect::<Result<_, ModelError>>()?;
    for (set, trace) in SETS.iter().zip(&traces) {
        for (i, share) in CACHES.into_iter().enumerate() {
            block_rows(&mut table, set, trace, i, share)?;
        }
    }
    learning(&mut table, &root)?;
    recurring(&mut table, &root)?;
    traces.iter().for_each(|trace| calibration(&mut table, trace));
    cost(&mut table, &traces[0]);
    ablation(&traces)?;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("model.json"), format!("{:#}\n", json!({ "rows": table.0 })))?;
    let missed = table.0.iter().filter(|r| r["holds"] != true).count();
    println!("{} rows, {missed} below their bar", table.0.len());
    Ok(())
}

fn traces() -> Result<PathBuf, String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces");
    let root = std::env::var("FORETIDE_TRACES").map_or_else(|_| PathBuf::from(beside), PathBuf::from);
    if root.is_dir() { Ok(root) } else { Err(format!("{}: no traces; set FORETIDE_TRACES", root.display())) }
}

fn options(share: f64) -> Options {
    Options { cache: CacheSize::Share(share), first_only: true, ..Options::default() }
}

fn of(report: &Report, name: Name) -> Result<&Row, String> {
    report.rows.iter().find(|r| r.name == name.text()).ok_or_else(|| format!("{} did not play", name.text()))
}

fn best<'r>(report: &'r Report, names: &[Name]) -> Result<&'r Row, String> {
    let rows: Vec<&Row> = names.iter().map(|n| of(report, *n)).collect::<Result<_, _>>()?;
    rows.into_iter().max_by(|a, b| a.hit_ratio.total_cmp(&b.hit_ratio)).ok_or_else(|| "nobody played".into())
}

fn block_rows(
    table: &mut Table,
    set: &Set,
    trace: &Trace,
    i: usize,
    share: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = trace.path.file_stem().unwrap_or_default().to_string_lossy();
    let work = |how: &str| format!("{name} {:.0} %, {how}", 100.0 * share);
    let names = [&KNOWN[..], &[Name::Foretide]].concat();
    let instant = evaluate_some(trace, &options(share), &names)?;
    let known = best(&instant, &KNOWN)?;
    let ours = of(&instant, Name::Foretide)?;
    let sure = ours.byte_precision >= LEAST_PRECISION;
    let bar = set.instant[i];
    table.row(
        &work("instant"),
        ours.hit_ratio,
        "hit ratio",
        known.hit_ratio,
        &known.name,
        bar,
        ours.hit_ratio >= bar && sure,
    );
    table.row(&work("instant"), ours.byte_precision, "precision", 0.0, "-", LEAST_PRECISION, sure);
    let lead = evaluate_some(trace, &Options { link: Link::Lead(16), ..options(share) }, &names)?;
    let (late, bar) = (of(&lead, Name::Foretide)?, set.lead[i]);
    let sure = late.byte_precision >= LEAST_PRECISION;
    let with_lead = best(&lead, &KNOWN)?;
    table.row(
        &work("lead 16"),
        late.hit_ratio,
        "hit ratio",
        with_lead.hit_ratio,
        &with_lead.name,
        bar,
        late.hit_ratio >= bar && sure,
    );
    table.row(&work("lead 16"), late.byte_precision, "precision", 0.0, "-", LEAST_PRECISION, sure);
    let charged = evaluate_some(trace, &Options { charge_model: true, ..options(share) }, &[Name::Foretide])?;
    let charged = of(&charged, Name::Foretide)?;
    // At 1 % never below LRU; at 10 % above the best that is known, whose tables are not charged.
    let reference = if share < 0.05 { of(&instant, Name::None)? } else { known };
    let holds = charged.hit_ratio >= reference.hit_ratio;
    table.row(
        &work("charged"),
        charged.hit_ratio,
        "hit ratio",
        reference.hit_ratio,
        &reference.name,
        reference.hit_ratio,
        holds,
    );
    Ok(())
}

/// The data loader of a training on images: whole files, read by many workers.
fn learning(table: &mut Table, root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let trace = read_trace(&root.join("dftracer/test-trace.pfw.gz"), None, None)?;
    let names = [Name::None, Name::Stride, Name::Foretide, Name::Oracle];
    let options = Options { cache: CacheSize::Share(0.2), ..Options::default() };
    let instant = evaluate_some(&trace, &options, &names)?;
    let (ours, stride) = (of(&instant, Name::Foretide)?, of(&instant, Name::Stride)?);
    let (coverage, precision) = (ours.byte_coverage, ours.byte_precision);
    table.row("deep learning, instant", coverage, "coverage", stride.byte_coverage, "stride", 0.95, coverage >= 0.95);
    table.row(
        "deep learning, instant",
        precision,
        "precision",
        stride.byte_precision,
        "stride",
        0.97,
        precision >= 0.97,
    );
    let link = Link::Wire { bits_per_s: 10_000_000_000, rtt_us: 150_000 };
    let wire = evaluate_some(&trace, &Options { link, ..options }, &names)?;
    let gap = |name| of(&wire, name).map(|r| r.gap_closed.unwrap_or(0.0));
    let (ours, stride) = (gap(Name::Foretide)?, gap(Name::Stride)?);
    table.row("deep learning, 10 Gbit/s and 150 ms", ours, "gap closed", stride, "stride", 0.85, ours >= 0.85);
    Ok(())
}

/// Job, coverage and precision that were set for its last run before it starts.
const JOBS: [(&str, &str, f64, f64); 9] = [
    ("nightly-parquet", "nightly", 0.97, 0.95),
    ("bwa-align", "align", 0.97, 0.95),
    ("resume-train", "pretrain", 0.95, 0.95),
    ("leveldb-mapped", "lookup", 0.90, 0.90),
    ("rocksdb-zipf", "serve", 0.45, 0.50),
    ("fio-patterns", "seq", 0.99, 0.99),
    ("fio-patterns", "stride", 0.99, 0.99),
    ("fio-patterns", "zipf", 0.329, 0.324),
    ("fio-patterns", "rand", 0.0, 0.99),
];

fn recurring(table: &mut Table, root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for (folder, job, coverage, precision) in JOBS {
        let report = evaluate_recurrence(&root.join("jobs").join(folder), 1)?;
        let job = report.jobs.iter().find(|j| j.job == job).ok_or_else(|| format!("{folder} has no job {job}"))?;
        let row = |name: &str| job.before.iter().find(|r| r.name == name).ok_or(format!("no row {name}"));
        let (ours, replay) = (row("foretide")?, row("replay")?);
        let work = format!("{folder} {}, before the last run", job.job);
        let (c, p) = (ours.byte_coverage, ours.byte_precision);
        table.row(&work, c, "coverage", replay.byte_coverage, "replay", coverage, c >= coverage);
        table.row(&work, p, "precision", replay.byte_precision, "replay", precision, p >= precision);
    }
    for family in ["epigenomics", "montage", "srasearch"] {
        let report = evaluate_recurrence(&root.join("wfinstances").join(family), 1)?;
        let least = |during: bool, of: fn(&foretide_model::recurrence::Row) -> f64, name: &str| {
            let rows = report.jobs.iter().flat_map(|j| if during { &j.during } else { &j.before });
            rows.filter(|r| r.name == name).map(of).fold(1.0, f64::min)
        };
        for (during, when, bar) in [(false, "before", 0.98), (true, "while it runs", 0.90)] {
            let work = format!("{family}, {when}, worst series");
            let (c, r) = (least(during, |r| r.byte_coverage, "foretide"), least(during, |r| r.byte_coverage, "replay"));
            table.row(&work, c, "coverage", r, "replay", bar, c >= bar);
            let (p, r) =
                (least(during, |r| r.byte_precision, "foretide"), least(during, |r| r.byte_precision, "replay"));
            table.row(&work, p, "precision", r, "replay", bar, p >= bar);
        }
    }
    Ok(())
}

/// Proposals that stay at one time where calibration is measured.
const STAY: usize = 1000;

/// Whether probabilities said in the second half of a trace were kept. What is fetched stays until [`STAY`] others were.
fn calibration(table: &mut Table, trace: &Trace) {
    let name = trace.path.file_stem().unwrap_or_default().to_string_lossy();
    let addresses = trace.numbers == foretide_model::import::Numbers::Addresses;
    let mut model = forecaster(addresses);
    let (mut asked, mut proposals) = (std::collections::VecDeque::new(), Vec::new());
    let mut halfway = model.calibration();
    for (i, r) in trace.requests.iter().enumerate() {
        if i == trace.requests.len() / 2 {
            halfway = model.calibration();
        }
        model.observe(BlockRequest { offset: r.offset, length: r.length, hit: true }, &mut proposals);
        model.evicted(r.offset / 4096);
        for proposal in proposals.drain(..).filter(|p| !p.here) {
            asked.push_back(proposal.block);
            if asked.len() > STAY
                && let Some(oldest) = asked.pop_front()
            {
                model.evicted(oldest);
            }
        }
    }
    let error = model.calibration().since(&halfway).error();
    table.row(&format!("{name}, second half"), error, "ECE", 0.0, "-", 0.05, error <= 0.05);
}

fn forecaster(addresses: bool) -> BlockForecaster {
    BlockForecaster::new(BlockSettings {
        block_bytes: 4096,
        addresses,
        memory_bytes: 1 << 30,
        waste: 0.48,
        sources: Sources::ALL,
    })
}

/// The forecaster alone on the longest trace: time an access, and bytes a block that it knows.
fn cost(table: &mut Table, trace: &Trace) {
    let mut model = forecaster(false);
    let mut proposals = Vec::new();
    let different: std::collections::HashSet<u64> = trace.requests.iter().map(|r| r.offset).collect();
    let began = Instant::now();
    for r in &trace.requests {
        model.observe(BlockRequest { offset: r.offset, length: r.length, hit: false }, &mut proposals);
        proposals.clear();
    }
    let us = began.elapsed().as_secs_f64() * 1e6 / trace.requests.len() as f64;
    table.row("OLTP, the forecaster of blocks alone", us, "us an access", 0.0, "-", 2.0, us <= 2.0);
    let bytes = model.bytes() as f64 / different.len() as f64;
    table.row("OLTP, tables", bytes, "bytes a block", 0.0, "-", 200.0, bytes <= 200.0);
}

/// What each source adds: the sum of the ten hit ratios without it and with it alone.
fn ablation(traces: &[Trace]) -> Result<(), Box<dyn std::error::Error>> {
    let sum = |name: Name| -> Result<f64, Box<dyn std::error::Error>> {
        let mut sum = 0.0;
        for trace in traces {
            for share in CACHES {
                sum += of(&evaluate_some(trace, &options(share), &[name])?, name)?.hit_ratio;
            }
        }
        Ok(sum)
    };
    println!("sum of the ten hit ratios: none {:.2}, S3-FIFO {:.2}", sum(Name::None)?, sum(Name::S3Fifo)?);
    let parts = |name, sources| Name::Ours(name, Parts { sources, opened: false });
    let all = Sources::ALL;
    for (without, alone) in [
        (parts("no replay", Sources { replay: false, ..all }), Name::Ours("replay", Parts::REPLAY)),
        (parts("no rows", Sources { association: false, ..all }), Name::Ours("rows", Parts::ROWS)),
        (parts("no spatial", Sources { spatial: false, ..all }), Name::Ours("spatial", Parts::SPATIAL)),
    ] {
        println!("{:<12} {:.2}   {:<12} {:.2}", without.text(), sum(without)?, alone.text(), sum(alone)?);
    }
    println!("all {:.2}", sum(Name::Foretide)?);
    Ok(())
}
