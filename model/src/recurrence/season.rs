//! A job's whole calendar, played through a site.
//!
//! What is expected of each run is told from the runs before it, what there was when it started, and its command line.
//! Where the calendar of the earlier starts told this one, fetching begins before it: then the command line of the
//! run before stands for the one that nobody knows yet, and only files that were there by then are asked for. In which
//! order blocks are visited, and how often, is told by [`timeline`].

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use foretide_flow::Timestamp;

use super::timeline::{Timelines, expected};
use super::{PlayedRun, Series};
use crate::calendar::calendar;
use crate::error::ModelError;
use crate::evaluate::contender::Expectation;
use crate::evaluate::demand::Demand;
use crate::evaluate::{Options, Report, evaluate_recurring};
use crate::habit::{Occasion, Outlook, habits};
use crate::import::{Trace, TracedFile, read_trace};
use crate::train::Ranker;

/// A start is awaited where the calendar is at least this sure of it.
const SURE: f64 = 0.5;
/// Fetching begins so many times the jitter before an awaited start, and at least this long, seconds.
const AHEAD_JITTERS: f64 = 3.0;
const AHEAD_LEAST_S: f64 = 10.0;

/// Plays the season of one job of a folder.
///
/// # Errors
/// [`ModelError::Trace`] names the file and where it stops making sense; those of [`evaluate_recurring`].
pub(super) fn play(directory: &Path, series: &Series, site: &Options, seed: u64) -> Result<Report, ModelError> {
    let trace = of_series(read_trace(&super::jobs::trace_file(directory), None, None)?, series);
    let report = evaluate_recurring(&trace, site, |demand| {
        let timelines = Timelines::new(demand);
        (0..series.runs.len()).flat_map(|i| of_run(series, i, demand, &timelines, seed)).collect()
    })?;
    Ok(Report { trace: series.job.clone(), ..report })
}

/// The requests of one job, and all files that there ever were: what is fetched in vain needs a place too.
fn of_series(mut trace: Trace, series: &Series) -> Trace {
    trace.requests.retain(|r| trace.streams[r.stream as usize].job == series.job);
    let mut known: HashMap<Vec<u8>, usize> = trace.files.iter().enumerate().map(|(i, f)| (f.path.clone(), i)).collect();
    for candidate in series.runs.iter().flat_map(|r| &r.listing) {
        let path = candidate.key.path.as_bytes();
        let at = *known.entry(path.to_vec()).or_insert_with(|| {
            trace.files.push(TracedFile { path: path.to_vec(), size: 0 });
            trace.files.len() - 1
        });
        trace.files[at].size = trace.files[at].size.max(candidate.size);
    }
    trace
}

/// What is expected of run `i`: before its start, if that was awaited, and at its start.
fn of_run(series: &Series, i: usize, demand: &Demand<'_>, timelines: &Timelines<'_>, seed: u64) -> Vec<Expectation> {
    let (past, run) = (&series.runs[..i], &series.runs[i]);
    let timelines = timelines.of(past);
    let expectation = |name: &str, from_us: i64, known: &PlayedRun| {
        let outlook = outlook(past, known, seed);
        let files = known.listing.iter().filter_map(|c| demand.file(c.key.path.as_bytes())).collect();
        Expectation { run: name.to_owned(), from_us, expected: expected(&outlook, &timelines, demand), files }
    };
    let mut out = Vec::new();
    if let Some(from) = awaited(past, run.at) {
        let known = PlayedRun {
            arguments: series.runs[i - 1].arguments.clone(),
            listing: run.listing.iter().filter(|c| c.modified_at <= from).cloned().collect(),
            uses: Vec::new(),
            ..run.clone()
        };
        // Not the run's own name: its start then takes up what is told with its command line.
        out.push(expectation("", from.0, &known));
    }
    out.push(expectation(&run.run, i64::MAX, run));
    out
}

/// When fetching begins for the run after these, if the calendar told its start `at`.
fn awaited(past: &[PlayedRun], at: Timestamp) -> Option<Timestamp> {
    let starts: Vec<Timestamp> = past.iter().map(|r| r.at).collect();
    let last = *starts.last()?;
    let told = calendar(&starts, last);
    let next = told.next_start.filter(|_| told.confidence >= SURE)?;
    let ahead = Duration::from_secs_f64((AHEAD_JITTERS * told.jitter_s).max(AHEAD_LEAST_S));
    // One that starts before that is not awaited but met.
    Some((next - ahead).max(last)).filter(|from| *from < at)
}

fn outlook(past: &[PlayedRun], run: &PlayedRun, seed: u64) -> Outlook {
    let occasions: Vec<Occasion<'_>> = past.iter().map(|r| r.occasion(true)).chain([run.occasion(false)]).collect();
    let plain = habits(&occasions);
    match Ranker::learn(&occasions, seed).filter(|r| r.held_back.earned()) {
        Some(ranker) => ranker.outlook(&occasions, &plain),
        None => plain,
    }
}
