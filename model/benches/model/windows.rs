//! Whether what the model says of running runs is kept: arrival times and probabilities, on recorded jobs.
//!
//! The recordings are fed to a model as an agent would send them, 50 ms at a time, with what there was at each start as
//! listings. Every forecast of a running run is held against what the run then read: probabilities in held-back time, which
//! is the later half of each job's runs, arrival times in all of it. Beside the rows a table is printed of what each
//! forecaster said of each job in all of its runs and what came of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use foretide_flow::{
    Access, AccessBatch, AccessOp, Entry, EntryKind, FilePath, FileVersion, Forecast, Found, Listing, Losses, NodeId,
    RunEnd, RunStart, SiteId, Timestamp, VolumeId,
};
use foretide_model::import::{RequestOp, Trace, read_trace};
use foretide_model::recurrence::{PlayedRun, read_series};
use foretide_model::{Config, Model};

use crate::{Figure, Outcome, Table};

/// How often agents send, and what 50 and 90 % may be off by.
const BATCH_US: i64 = 50_000;
const OFF: f64 = 0.05;
/// Bins of probability.
const BINS: usize = 10;

/// What was said and what came of it.
#[derive(Default)]
struct Kept {
    told: f64,
    by_p50: f64,
    by_p90: f64,
    bins: [(f64, f64, f64); BINS],
}

impl Kept {
    fn take(&mut self, probability: f64, came: Option<Timestamp>, p50: Timestamp, p90: Timestamp) {
        let bin = &mut self.bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += probability;
        bin.1 += f64::from(u8::from(came.is_some()));
        bin.2 += 1.0;
        if let Some(at) = came {
            self.told += 1.0;
            self.by_p50 += f64::from(u8::from(at <= p50));
            self.by_p90 += f64::from(u8::from(at <= p90));
        }
    }

    fn error(&self) -> f64 {
        self.bins.iter().map(|b| (b.0 - b.1).abs()).sum::<f64>() / self.reads().max(1.0)
    }

    fn reads(&self) -> f64 {
        self.bins.iter().map(|b| b.2).sum()
    }

    fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.by_p50 += other.by_p50;
        self.by_p90 += other.by_p90;
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            *bin = (bin.0 + other.0, bin.1 + other.1, bin.2 + other.2);
        }
    }

    fn print(&self, who: &str) {
        let bins = self.bins.iter().filter(|b| b.2 > 0.0);
        let bins: Vec<String> = bins.map(|b| format!("{:.2}: {:.2} of {}", b.0 / b.2, b.1 / b.2, b.2)).collect();
        let by = |n: f64| n / self.told.max(1.0);
        let (error, p50, p90) = (self.error(), by(self.by_p50), by(self.by_p90));
        println!("{who:<40} ECE {error:.3}, by p50 {p50:.3}, by p90 {p90:.3}; said: came {}", bins.join(", "));
    }
}

/// See the module.
pub fn windows(table: &mut Table, root: &Path) -> Outcome {
    let (mut all, mut held_back) = (Kept::default(), Kept::default());
    for name in crate::jobs::FOLDERS {
        let (mut earlier, mut later) = (BTreeMap::new(), BTreeMap::new());
        let folder = root.join("jobs").join(name);
        let trace = read_trace(&folder.join("trace.csv.zst"), None, None)?;
        for series in read_series(&folder)? {
            let mut model = Model::new(Config::default())?;
            for (nth, run) in series.runs.iter().enumerate() {
                let kept = if 2 * nth < series.runs.len() { &mut earlier } else { &mut later };
                play(&mut model, &trace, run, nth as u64 * 1_000_000, kept)?;
            }
        }
        later.values().for_each(|kept| held_back.add(kept));
        for (who, kept) in later {
            earlier.entry(who).or_default().add(&kept);
        }
        for (who, kept) in &earlier {
            kept.print(&format!("{name}, {who}"));
            all.add(kept);
        }
    }
    all.print("all");
    held_back.print("all, the later half of each job's runs");
    let figure = |ours, unit| Figure { ours, unit, reference: 0.0, name: "-" };
    table.at_most("probabilities of files, recorded jobs", figure(held_back.error(), "ECE"), OFF);
    for (share, name, at) in [(all.by_p50 / all.told, "p50", 0.5), (all.by_p90 / all.told, "p90", 0.9)] {
        let work = format!("arrival times, share by {name}, off by");
        table.at_most(&work, figure((share - at).abs(), "share"), OFF);
    }
    Ok(())
}

fn names() -> Result<(VolumeId, NodeId, SiteId), Box<dyn std::error::Error>> {
    Ok((VolumeId::new("trace")?, NodeId::new("node")?, SiteId::new("site")?))
}

/// Sends a run to the model, and holds each forecast of it against what came later.
fn play(
    model: &mut Model,
    trace: &Trace,
    run: &PlayedRun,
    sequence: u64,
    kept: &mut BTreeMap<String, Kept>,
) -> Outcome {
    let (volume, node, site) = names()?;
    listings(run, &volume)?.iter().for_each(|listing| model.learn(listing));
    let accesses = accesses(trace, run, &volume)?;
    let mut comes: HashMap<&FilePath, Vec<Timestamp>> = HashMap::new();
    for access in accesses.iter().filter(|a| a.op == AccessOp::Open) {
        comes.entry(&access.path).or_default().push(access.at);
    }
    let mut started = vec![RunStart {
        run: run.run.as_str().into(),
        workload: "w".into(),
        command: run.arguments.join(" "),
        at: run.at,
        site: site.clone(),
        node: node.clone(),
        numbers: run.arguments.iter().filter_map(|a| a.parse().ok()).map(Some).take(RunStart::NUMBERS).collect(),
    }];
    let last = accesses.last().map_or(run.at, |a| a.at);
    let (mut from, mut now, mut batches) = (0, run.at, sequence);
    while from < accesses.len() {
        now = now + Duration::from_micros(BATCH_US as u64);
        let to = from + accesses[from..].partition_point(|a| a.at < now);
        let ended = if to == accesses.len() { vec![RunEnd { run: run.run.as_str().into(), at: last }] } else { vec![] };
        batches += 1;
        model.observe(&AccessBatch {
            node: node.clone(),
            site: site.clone(),
            sequence: batches,
            started: std::mem::take(&mut started),
            accesses: accesses[from..to].to_vec(),
            ended,
            losses: Losses::default(),
        });
        from = to;
        for forecast in model.advise(now).forecasts.iter().filter(|f| f.run.is_some()) {
            hold_against(forecast, &comes, kept.entry(forecast.forecaster.clone()).or_default());
        }
    }
    Ok(())
}

/// The next visit of a file answers for what a forecast tells of it first, the visit after that for what it tells of the
/// same bytes once more. Parts of a file that are told for one visit count once.
fn hold_against(forecast: &Forecast, comes: &HashMap<&FilePath, Vec<Timestamp>>, kept: &mut Kept) {
    let mut told: HashMap<(&FilePath, u64), usize> = HashMap::new();
    let mut held: HashSet<(&FilePath, usize)> = HashSet::new();
    for read in &forecast.reads {
        let again = told.entry((&read.path, read.offset)).or_default();
        let visit = *again;
        *again += 1;
        if held.insert((&read.path, visit)) {
            let visits = comes.get(&read.path).map(Vec::as_slice).unwrap_or_default();
            let next = visits.partition_point(|at| *at <= forecast.made_at) + visit;
            kept.take(read.probability, visits.get(next).copied(), read.window.p50, read.window.p90);
        }
    }
}

fn accesses(trace: &Trace, run: &PlayedRun, volume: &VolumeId) -> Result<Vec<Access>, Box<dyn std::error::Error>> {
    let of_run = trace.requests.iter().filter(|r| trace.streams[r.stream as usize].run == run.run);
    of_run
        .map(|r| {
            Ok(Access {
                at: Timestamp(r.at_us),
                run: run.run.as_str().into(),
                process: trace.streams[r.stream as usize].process,
                volume: volume.clone(),
                path: FilePath::new(trace.files[r.file as usize].path.as_slice())?,
                op: match r.op {
                    RequestOp::Open => AccessOp::Open,
                    RequestOp::Create | RequestOp::Write => AccessOp::Create,
                    RequestOp::Read => AccessOp::Read,
                    RequestOp::Close => AccessOp::Close,
                },
                offset: r.offset,
                length: r.length,
                blocked_us: 0,
                found: Found::Unknown,
            })
        })
        .collect()
}

/// What there was at the start, a listing for each directory.
fn listings(run: &PlayedRun, volume: &VolumeId) -> Result<Vec<Listing>, Box<dyn std::error::Error>> {
    let mut directories: BTreeMap<FilePath, Vec<Entry>> = BTreeMap::new();
    for file in &run.listing {
        let directory = file.key.path.parent().ok_or("a file has a directory")?;
        directories.entry(directory).or_default().push(Entry {
            path: file.key.path.clone(),
            kind: EntryKind::File,
            size: file.size,
            modified_at: file.modified_at,
            mode: 0o644,
            uid: 0,
            gid: 0,
            links: 1,
            version: FileVersion("v1".into()),
        });
    }
    let listing = |(directory, entries)| Listing { volume: volume.clone(), directory, seen_at: run.at, entries };
    Ok(directories.into_iter().map(listing).collect())
}
