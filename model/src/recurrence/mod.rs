//! The judge of recurrence: several runs of one job, learned from all but the last, which is then played.
//!
//! *Before* the last run starts, what it will read is told out of what there is then; its command line is known
//! at that moment, and nothing else of it. *While* it runs, what it makes itself is known as soon as it is made,
//! and what of that it reads again is told too. Beside ours stand three plain baselines: `replay` (what the run
//! before read), `history` (what any earlier run read), `template` (every file there is whose name, with each run of
//! digits as `#`, is that of one read before). *Before* counts only what was there at the start, for all four:
//! intermediates that a run makes for itself are neither told nor read. Bytes are counted once each.

mod jobs;
pub mod picture;
mod season;
mod timeline;
mod workflows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use foretide_flow::Timestamp;
use serde::Serialize;

use crate::drawn::Recognised;
use crate::error::ModelError;
use crate::evaluate::site::Link;
use crate::evaluate::{CacheSize, Options, Report};
use crate::habit::{Candidate, Habit, Occasion, Outlook, Weighed, argument_slots, fresh, habits};
use crate::history::PastUse;
use crate::ranges::Ranges;
use crate::run::FileKey;
use crate::train::Ranker;

/// One run, as it was recorded.
#[derive(Clone, Debug)]
pub struct PlayedRun {
    /// Its name.
    pub run: String,
    /// When it started.
    pub at: Timestamp,
    /// Its command line, in words.
    pub arguments: Vec<String>,
    /// What there was when it started.
    pub listing: Vec<Candidate>,
    /// What it read and made, in order of first use.
    pub uses: Vec<PastUse>,
    /// In which drawn order it was recognised to read, by what is known when it has ended.
    pub drawn: Option<Recognised>,
}

impl PlayedRun {
    /// The run as habits see it; with `known`, what it read as well.
    fn occasion(&self, known: bool) -> Occasion<'_> {
        Occasion {
            at: self.at,
            arguments: argument_slots(&self.arguments),
            candidates: self.listing.clone(),
            uses: if known { &self.uses } else { &[] },
            drawn: self.drawn.as_ref().filter(|_| known),
        }
    }
}

/// The runs of one job, oldest first.
#[derive(Clone, Debug)]
pub struct Series {
    /// The job.
    pub job: String,
    /// Its runs.
    pub runs: Vec<PlayedRun>,
}

/// How one way of telling did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The way.
    pub name: String,
    /// Told and read / read, by bytes.
    pub byte_coverage: f64,
    /// Told and read / told, by bytes; 1 where nothing was told.
    pub byte_precision: f64,
    /// Told and read / read, by files.
    pub file_coverage: f64,
    /// Told and read / told, by files; 1 where nothing was told.
    pub file_precision: f64,
    /// Bytes told.
    pub told_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

/// How the last run of a job was told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobReport {
    /// The job.
    pub job: String,
    /// Its last run.
    pub run: String,
    /// Runs learned from.
    pub learned_from: usize,
    /// Before it started.
    pub before: Vec<Row>,
    /// While it ran.
    pub during: Vec<Row>,
    /// What ours went by.
    pub reasons: Vec<String>,
    /// Its whole calendar played through a site, where the recording tells single reads.
    pub season: Option<Report>,
    /// Whether the learned ranker had earned its place and spoke, instead of the rules.
    pub ranked: bool,
}

/// All jobs of a folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecurrenceReport {
    /// By name.
    pub jobs: Vec<JobReport>,
}

/// What is told or read of each file.
type Extents = HashMap<FileKey, Ranges>;

/// The site that calendars are played at where nothing else is asked: a fifth of the data in the cache, 1 Gbit/s and
/// 150 ms away.
pub const SITE: Options = Options {
    cache: CacheSize::Share(0.2),
    link: Link::Wire { bits_per_s: 1_000_000_000, rtt_us: 150_000 },
    first_only: false,
    // What a fault maps at once, and less than most reads of files.
    block_bytes: Some(64 << 10),
    charge_model: false,
    opaque: false,
};

/// Learns from all runs of each job but the last, and plays the last; and plays the whole calendar of each job through
/// `site`, where the recording tells single reads.
///
/// `directory` holds `trace.csv`, `runs.csv` and `listing-RUN.txt` of one or more jobs, or WfCommons instances
/// as JSON; each plain or as `.zst`. `seed` is that of the learned ranker.
///
/// # Errors
/// [`ModelError::Trace`] names the file and where it stops making sense; [`ModelError::Setting`] for a site that cannot
/// be meant.
pub fn evaluate_recurrence(directory: &Path, site: &Options, seed: u64) -> Result<RecurrenceReport, ModelError> {
    let series = read_series(directory)?;
    let reads_are_known = directory.join("runs.csv").exists();
    let mut jobs = Vec::new();
    for series in series.iter().filter(|s| s.runs.len() > 1) {
        let season = if reads_are_known { Some(season::play(directory, series, site, seed)?) } else { None };
        jobs.push(JobReport { season, ..judge(series, seed) });
    }
    if jobs.is_empty() {
        let why = "it holds no job with two runs or more".to_owned();
        return Err(ModelError::Trace { path: directory.to_owned(), why });
    }
    Ok(RecurrenceReport { jobs })
}

/// The runs of every job in a folder.
///
/// # Errors
/// [`ModelError::Trace`] names the file and where it stops making sense.
pub fn read_series(directory: &Path) -> Result<Vec<Series>, ModelError> {
    if directory.join("runs.csv").exists() { jobs::read(directory) } else { workflows::read(directory) }
}

/// What a file or its `.zst` holds, as text.
fn read_text(path: &Path) -> Result<String, ModelError> {
    let error = |why: String| ModelError::Trace { path: path.to_owned(), why };
    let packed = path.extension().is_some_and(|e| e == "zst");
    let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
    let bytes = if packed { zstd::decode_all(&bytes[..]).map_err(|e| error(format!("zstd: {e}")))? } else { bytes };
    String::from_utf8(bytes).map_err(|e| error(format!("byte {} is no UTF-8", e.utf8_error().valid_up_to())))
}

fn judge(series: &Series, seed: u64) -> JobReport {
    let (last, past) = series.runs.split_last().expect("a job has two runs or more here");
    let occasions: Vec<Occasion<'_>> =
        series.runs.iter().enumerate().map(|(i, run)| run.occasion(i < past.len())).collect();
    let plain = habits(&occasions);
    let ranker = Ranker::learn(&occasions, seed).filter(|r| r.held_back.earned());
    let outlook = ranker.as_ref().map_or_else(|| plain.clone(), |r| r.outlook(&occasions, &plain));
    let before = told(&outlook);
    let external = read(last, false);
    let all = read(last, true);
    let there: HashMap<&FileKey, u64> = last.listing.iter().map(|c| (&c.key, c.size)).collect();
    let made: HashMap<&FileKey, u64> =
        last.uses.iter().filter(|u| u.created).map(|u| (&u.key, u.size.max(u.extents.end()))).collect();
    let mut now_there = there.clone();
    now_there.extend(&made);
    let mut during = before.clone();
    let habit = fresh(past.iter().map(|r| r.uses.as_slice()));
    for (key, size) in &made {
        if habit.reads(key) {
            during.insert((*key).clone(), Ranges::one(0, *size));
        }
    }
    JobReport {
        job: series.job.clone(),
        run: last.run.clone(),
        learned_from: past.len(),
        before: rows(past, &there, before, &external, false),
        during: rows(past, &now_there, during, &all, true),
        reasons: ranker
            .is_some()
            .then(|| Weighed::words(&outlook.weighed))
            .into_iter()
            .chain(plain.habits.iter().filter(|h| h.files > 0).map(reason))
            .collect(),
        season: None,
        ranked: ranker.is_some(),
    }
}

fn reason(habit: &Habit) -> String {
    let share = |s: Option<f64>| s.map_or("untried".to_owned(), |s| format!("{:.0} %", 100.0 * s));
    format!(
        "{}: {} ({} files; of earlier runs' bytes it told right {}, and told {} of what they read)",
        habit.shape,
        habit.rule,
        habit.files,
        share(habit.precision),
        share(habit.coverage)
    )
}

fn rows(
    past: &[PlayedRun],
    there: &HashMap<&FileKey, u64>,
    ours: Extents,
    real: &Extents,
    with_made: bool,
) -> Vec<Row> {
    let of = |runs: &[PlayedRun]| -> Extents {
        let mut out = Extents::new();
        for (key, ranges) in runs.iter().flat_map(|r| read(r, with_made)) {
            if let Some(size) = there.get(&key) {
                let sum = out.entry(key).or_default();
                *sum = sum.union(&ranges.cut(*size));
            }
        }
        out
    };
    let forms: BTreeSet<String> = past.iter().flat_map(|r| read(r, with_made).into_keys().map(|k| form(&k))).collect();
    let template: Extents = there
        .iter()
        .filter(|(k, _)| forms.contains(&form(k)))
        .map(|(k, size)| ((*k).clone(), Ranges::one(0, *size)))
        .collect();
    vec![
        row("replay", &of(&past[past.len() - 1..]), real),
        row("history", &of(past), real),
        row("template", &template, real),
        row("foretide", &ours, real),
    ]
}

/// The name with each run of digits as `#`: plainer than our shapes, as the baselines have it.
fn form(key: &FileKey) -> String {
    let mut out = String::new();
    for c in key.path.to_string().chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

fn told(outlook: &Outlook) -> Extents {
    outlook.expected.iter().map(|e| (e.key.clone(), e.extents.clone())).collect()
}

/// What a run read: of files that were there at its start, or of those that it made as well.
fn read(run: &PlayedRun, with_made: bool) -> Extents {
    let listed: BTreeSet<&FileKey> = run.listing.iter().map(|c| &c.key).collect();
    run.uses
        .iter()
        .filter(|u| u.visits > 0 && (with_made || (!u.created && listed.contains(&u.key))))
        .map(|u| (u.key.clone(), u.extents.clone()))
        .collect()
}

fn row(name: &str, told: &Extents, real: &Extents) -> Row {
    let bytes = |of: &Extents| of.values().map(Ranges::bytes).sum::<u64>();
    let hit_bytes: u64 = told.iter().filter_map(|(k, t)| real.get(k).map(|r| r.overlap(t))).sum();
    let hit_files = told.keys().filter(|k| real.contains_key(k)).count();
    let share = |hit: f64, of: f64| if of > 0.0 { hit / of } else { 1.0 };
    Row {
        name: name.to_owned(),
        byte_coverage: share(hit_bytes as f64, bytes(real) as f64),
        byte_precision: share(hit_bytes as f64, bytes(told) as f64),
        file_coverage: share(hit_files as f64, real.len() as f64),
        file_precision: share(hit_files as f64, told.len() as f64),
        told_bytes: bytes(told),
        read_bytes: bytes(real),
    }
}

impl RecurrenceReport {
    /// As a table for people: one line for each way, before and while the last run ran, and what ours went by.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "job                              way       before: coverage precision  while it runs: coverage precision\n",
        );
        for job in &self.jobs {
            let during: BTreeMap<&str, &Row> = job.during.iter().map(|r| (r.name.as_str(), r)).collect();
            for before in &job.before {
                let while_running = during[before.name.as_str()];
                out.push_str(&format!(
                    "{:<32} {:<9} {:>16.3} {:>9.3} {:>24.3} {:>9.3}\n",
                    job.job,
                    before.name,
                    before.byte_coverage,
                    before.byte_precision,
                    while_running.byte_coverage,
                    while_running.byte_precision
                ));
            }
            let by = if job.ranked { "the learned ranker" } else { "rules" };
            out.push_str(&format!("  {} runs learned from, told by {by}\n", job.learned_from));
            job.reasons.iter().for_each(|reason| out.push_str(&format!("  {reason}\n")));
            if let Some(season) = &job.season {
                out.push_str(&format!("  all {} runs, played through a site: {season}", job.learned_from + 1));
            }
        }
        out
    }
}
