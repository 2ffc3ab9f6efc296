//! A workload that comes back: what it will read, and when.
//!
//! *What* is the outlook that the habits of its past runs give (see [`crate::habit`]): replay where names stay,
//! ranks and command-line numbers where they move on, checked against what there is. *When* is the calendar's
//! next start, with its jitter, plus each file's own time after the start where the order is known. While a run
//! of the workload goes on, the same outlook tells what is left of its first pass, and how far the run has come tells when:
//! where the order stays, what lies ahead of it comes as long after now as it did in the last run, stretched as this
//! run is; where it does not, anywhere in what is left of the pass.

use std::collections::BTreeMap;
use std::time::Duration;

use foretide_flow::{OrderHabit, PredictedRead, TimeWindow, Timestamp, VolumeId};

use super::{Claim, Forecaster, View, grouped, size_told};
use crate::calendar::window;
use crate::habit::{Expected, Outlook, Weighed};
use crate::history::RunRecord;

/// See the module.
pub struct Recurrence;

impl Forecaster for Recurrence {
    fn name(&self) -> &'static str {
        "recurrence"
    }

    fn claim(&self, view: &View<'_>) -> Vec<Claim> {
        view.outlook.map(|o| claims(view, o)).unwrap_or_default()
    }
}

/// When the run starts, or started.
#[derive(Clone, Copy)]
struct Start {
    at: Timestamp,
    jitter_s: f64,
    confidence: f64,
    period_s: Option<f64>,
}

/// An outlook as claims, one per volume.
pub fn claims(view: &View<'_>, outlook: &Outlook) -> Vec<Claim> {
    let Some(last) = view.workload.records.back() else { return Vec::new() };
    let Some(start) = start(view) else { return Vec::new() };
    let pass_s = pass_seconds(last);
    let progress = progress(view, outlook, pass_s);
    let mut reads: BTreeMap<&VolumeId, Vec<PredictedRead>> = BTreeMap::new();
    for expected in outlook.expected.iter().filter(|e| wanted(view, e)) {
        let probability = (expected.probability * start.confidence).clamp(0.0, 1.0);
        if probability < view.config.least_probability {
            continue;
        }
        let window = match progress {
            Some(progress) => progress.when(last, expected),
            None => when(start, last, expected, pass_s),
        };
        let of_volume = reads.entry(&expected.key.volume).or_default();
        of_volume.extend(expected.extents.as_slice().iter().map(|(from, to)| PredictedRead {
            path: expected.key.path.clone(),
            offset: *from,
            length: to - from,
            probability,
            window,
        }));
    }
    reads.into_iter().map(|(volume, reads)| claim(view, outlook, start, volume, reads)).collect()
}

fn claim(view: &View<'_>, outlook: &Outlook, start: Start, volume: &VolumeId, mut reads: Vec<PredictedRead>) -> Claim {
    reads.sort_by(|a, b| a.window.p50.cmp(&b.window.p50).then_with(|| (&a.path, a.offset).cmp(&(&b.path, b.offset))));
    reads.truncate(view.config.forecast_files);
    let last = reads.iter().map(|r| r.window.p90).max().unwrap_or(view.now);
    Claim {
        run: view.run.map(|r| r.run.clone()),
        site: view.run.map_or(&view.workload.site, |r| &r.site).clone(),
        volume: volume.clone(),
        expires_at: last.max(view.now) + Duration::from_secs_f64((3.0 * start.jitter_s).clamp(5.0, 7200.0)),
        reason: reason(view, outlook, start),
        reads,
    }
}

/// The start that the claim is about; none if none is expected within the horizon.
fn start(view: &View<'_>) -> Option<Start> {
    if let Some(run) = view.run {
        return Some(Start { at: run.started_at, jitter_s: 0.0, confidence: 1.0, period_s: None });
    }
    let calendar = view.workload.calendar(view.now);
    let at = calendar.next_start?;
    let due = at <= view.now + Duration::from_secs_f64(view.config.horizon_s);
    due.then_some(Start {
        at,
        jitter_s: calendar.jitter_s,
        confidence: calendar.confidence,
        period_s: calendar.period_s,
    })
}

/// Whether the file is still to be read: in a running run, what it has read already is not, and what it takes in a drawn
/// order is told by `drawn`.
fn wanted(view: &View<'_>, expected: &Expected) -> bool {
    let drawn = view.following.is_some_and(|f| f.recognised.set.holds(&expected.key));
    !drawn && view.run.and_then(|r| r.file(&expected.key)).is_none_or(|u| u.visits == 0)
}

/// Seconds that one pass of this run takes where nothing waits.
fn pass_seconds(record: &RunRecord) -> f64 {
    let files = record.external().count() as f64;
    let measured = record.ended_at.since(record.started_at).as_secs_f64() / f64::from(record.epochs.max(1));
    record.rate.map_or(measured, |r| files / r.files_per_second.max(1e-9)).min(measured.max(1e-3))
}

/// When a file of a run to come is read: at its own time after the start where the order stays, anywhere in the pass
/// where it does not.
fn when(start: Start, last: &RunRecord, expected: &Expected, pass_s: f64) -> TimeWindow {
    let [p10, p50, p90] = window(start.at, start.jitter_s);
    let after = |s: f64| Duration::from_secs_f64(s.max(0.0));
    if let Some(at) = drawn_seconds(last, expected) {
        return TimeWindow { p10: p10 + after(0.8 * at), p50: p50 + after(at), p90: p90 + after(1.2 * at) };
    }
    match expected.first_s {
        Some(first_s) if last.order.habit() != OrderHabit::Shuffled => {
            let at = first_s.min(pass_s);
            TimeWindow { p10: p10 + after(0.8 * at), p50: p50 + after(at), p90: p90 + after(1.2 * at) }
        }
        _ => TimeWindow {
            p10: p10 + after(0.1 * pass_s),
            p50: p50 + after(0.5 * pass_s),
            p90: p90 + after(0.9 * pass_s),
        },
    }
}

/// Seconds after the start at which a file of a drawn order is read, if it is one: the share of the run that comes before it,
/// of what lay between the last run's first read and its end.
fn drawn_seconds(last: &RunRecord, expected: &Expected) -> Option<f64> {
    let began_s = last.external().next().map_or(0.0, |first| first.first_s);
    let lasted_s = last.ended_at.since(last.started_at).as_secs_f64();
    expected.turns.first().map(|turn| began_s + turn * (lasted_s - began_s).max(0.0))
}

/// How far a running run has come in what was expected of it. Times are seconds after the start, of this run or of the
/// last.
#[derive(Clone, Copy)]
struct Progress {
    started_at: Timestamp,
    now_s: f64,
    /// Visits of expected files, and expected files that were not visited.
    visits: usize,
    left: usize,
    /// Seconds between two visits, by this run's pace and the last one's.
    gap_s: f64,
    /// Where the last run was when it had visited as far as this one now.
    then_s: f64,
    /// How many times longer than the last run it took to get there.
    stretch: f64,
    /// When the last run had visited a tenth, a half and nine tenths of what is left.
    spread_s: [f64; 3],
}

/// Visits of expected files from which on they tell the pace, and visits that the last run's pace weighs as much as.
const PACE_VISITS: usize = 8;
const PACE_PRIOR: f64 = 32.0;
/// Most that a run is believed to be slower or faster than the last.
const STRETCH_MOST: f64 = 8.0;

/// See [`Progress`]; none if no run is running.
fn progress(view: &View<'_>, outlook: &Outlook, pass_s: f64) -> Option<Progress> {
    let run = view.run?;
    let after_start = |at: Timestamp| at.since(run.started_at).as_secs_f64();
    let (mut now_at, mut then) = (Vec::new(), Vec::new());
    let mut left_s = Vec::new();
    for expected in &outlook.expected {
        match run.file(&expected.key).filter(|u| u.visits > 0) {
            Some(used) => {
                now_at.push(after_start(used.first_at));
                then.extend(expected.first_s);
            }
            None => left_s.push(expected.first_s.unwrap_or(pass_s)),
        }
    }
    left_s.sort_by(f64::total_cmp);
    let at = |share: f64| left_s.get((share * left_s.len() as f64) as usize).copied().unwrap_or(pass_s);
    let span = |times: &[f64]| {
        let (first, last) = times.iter().fold((f64::MAX, 0.0_f64), |(first, last), t| (first.min(*t), last.max(*t)));
        (last - first).max(0.0)
    };
    let (now_span, then_span) = (span(&now_at), span(&then));
    let weight = now_at.len() as f64 / (now_at.len() as f64 + PACE_PRIOR);
    let gap_s = |span: f64, visits: usize| span / visits.saturating_sub(1).max(1) as f64;
    let (now_gap_s, then_gap_s) = (gap_s(now_span, now_at.len()), gap_s(span(&left_s), left_s.len()));
    let stretch = if then_span > 0.0 { (now_span / then_span).clamp(1.0 / STRETCH_MOST, STRETCH_MOST) } else { 1.0 };
    Some(Progress {
        started_at: run.started_at,
        now_s: after_start(view.now.max(run.last_at)),
        visits: now_at.len(),
        left: left_s.len(),
        gap_s: weight * now_gap_s + (1.0 - weight) * then_gap_s,
        then_s: then.iter().copied().fold(0.0, f64::max),
        stretch: stretch.powf(weight),
        spread_s: [at(0.1), at(0.5), at(0.9)],
    })
}

impl Progress {
    /// When a file that has not been visited is, if it is.
    fn when(&self, last: &RunRecord, expected: &Expected) -> TimeWindow {
        let [p10, p50, p90] = self.when_s(last, expected);
        let at = |s: f64| self.started_at + Duration::from_secs_f64(s.max(self.now_s));
        TimeWindow { p10: at(p10), p50: at(p50), p90: at(p90) }
    }

    fn when_s(&self, last: &RunRecord, expected: &Expected) -> [f64; 3] {
        let known = self.visits >= PACE_VISITS;
        // Before a drawn order shows itself.
        if let Some(at) = drawn_seconds(last, expected) {
            return [0.8, 1.0, 1.2].map(|s| s * at);
        }
        match expected.first_s {
            Some(first_s) if last.order.habit() != OrderHabit::Shuffled => {
                if !known {
                    return [0.8, 1.0, 1.2].map(|s| s * first_s);
                }
                let ahead = (first_s - self.then_s).max(0.0) * self.stretch;
                [self.now_s + 0.6 * ahead, self.now_s + ahead, self.now_s + 1.6 * ahead + 2.0 * self.gap_s]
            }
            // Every moment of what is left is as likely.
            _ if known => [0.1, 0.5, 0.9].map(|share| self.now_s + share * self.left as f64 * self.gap_s),
            _ => self.spread_s,
        }
    }
}

fn reason(view: &View<'_>, outlook: &Outlook, start: Start) -> String {
    let runs = view.workload.records.len();
    let comes = match start.period_s {
        Some(period) => format!(
            "comes back every {}, give or take {} ({:.0} % sure after {} starts)",
            seconds(period),
            seconds(start.jitter_s),
            100.0 * start.confidence,
            view.workload.starts.len()
        ),
        None => "has come back and is running".to_owned(),
    };
    let files = outlook.expected.len();
    let bytes: u64 = outlook.expected.iter().map(|e| e.extents.bytes()).sum();
    let ranker = (!outlook.weighed.is_empty()).then(|| Weighed::words(&outlook.weighed));
    let rules = outlook.habits.iter().filter(|h| h.files > 0).take(3).map(|h| match h.precision {
        Some(p) => format!("of {} {} (right for {:.0} % of bytes so far)", h.shape, h.rule, 100.0 * p),
        None => format!("of {} {}", h.shape, h.rule),
    });
    let by: Vec<String> = ranker.map_or_else(|| rules.collect(), |told| vec![told]);
    format!(
        "{comes}; {} files, {}, from {runs} run{}: {}",
        grouped(files),
        size_told(bytes),
        if runs == 1 { "" } else { "s" },
        by.join("; ")
    )
}

/// A span of time as people say it.
fn seconds(s: f64) -> String {
    match s {
        s if s >= 172_800.0 => format!("{:.1} days", s / 86_400.0),
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s => format!("{s:.1} s"),
    }
}
