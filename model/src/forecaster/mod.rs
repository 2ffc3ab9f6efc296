//! Ways to say what is read next: one trait, one file each, the simplest first.
//!
//! A forecaster is a pure function of what is known at one moment. It neither keeps state nor knows whether it
//! is believed: what it claims is scored against what then happens, and the selector decides who speaks.

mod drawn;
mod ranked;
mod recurrence;
mod remaining_set;
mod sequence;

use foretide_flow::{FilePath, PredictedRead, RunId, SiteId, TimeWindow, Timestamp, VolumeId};

use crate::config::Config;
use crate::drawn::follow::Following;
use crate::habit::Outlook;
use crate::history::Workload;
use crate::namespace::Namespace;
use crate::order::Order;
use crate::run::LiveRun;

pub use drawn::Drawn;
pub use ranked::Ranked;
pub use recurrence::Recurrence;
pub use remaining_set::{RemainingSet, read_out};
pub use sequence::Sequence;

/// What a forecaster may look at.
pub struct View<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Settings.
    pub config: &'a Config,
    /// The workload.
    pub workload: &'a Workload,
    /// Its running run; none when asked for the run to come.
    pub run: Option<&'a LiveRun>,
    /// The order of that run so far.
    pub order: Order,
    /// Where it is in the drawn orders that it was recognised to keep to, if it was.
    pub following: Option<&'a Following>,
    /// Files known to be there.
    pub names: &'a Namespace,
    /// What its past runs say of the next, by rules.
    pub outlook: Option<&'a Outlook>,
    /// The same by the learned ranker, where it has earned its place.
    pub ranked: Option<&'a Outlook>,
    /// Share of recognised sets, over all workloads, that were then read out.
    pub sets_read_out: f64,
}

/// What a forecaster says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Of which run, if it is running.
    pub run: Option<RunId>,
    /// Where it will read.
    pub site: SiteId,
    /// From which volume.
    pub volume: VolumeId,
    /// Void after this.
    pub expires_at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// The reads, soonest first.
    pub reads: Vec<PredictedRead>,
}

/// A way to say what is read next.
pub trait Forecaster: Send + Sync {
    /// Its name, as forecasts and scorecards show it.
    fn name(&self) -> &'static str;

    /// What it says now: at most one claim per volume, none where it knows nothing.
    fn claim(&self, view: &View<'_>) -> Vec<Claim>;
}

/// All forecasters. Of two that promise the same, the earlier speaks.
pub fn all() -> Vec<Box<dyn Forecaster>> {
    vec![Box::new(Drawn), Box::new(Sequence), Box::new(RemainingSet), Box::new(Recurrence), Box::new(Ranked)]
}

/// A window `from_s` to `to_s` seconds after `now`, within which every moment is as likely.
fn uniform(now: Timestamp, from_s: f64, to_s: f64) -> TimeWindow {
    let at = |share: f64| Timestamp::from_secs_f64(now.as_secs_f64() + from_s + share * (to_s - from_s));
    TimeWindow { p10: at(0.1), p50: at(0.5), p90: at(0.9) }
}

/// A number as people write it: groups of three digits, parted by a narrow space.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(d);
    }
    out
}

/// A directory as people name it.
fn told(directory: &FilePath) -> String {
    if directory.is_root() { "the volume".into() } else { directory.to_string() }
}

/// Bytes in words.
fn size_told(bytes: u64) -> String {
    match bytes {
        b if b >= 1_000_000_000 => format!("{:.1} GB", b as f64 / 1e9),
        b if b >= 1_000_000 => format!("{:.1} MB", b as f64 / 1e6),
        b => format!("{:.1} kB", b as f64 / 1e3),
    }
}
