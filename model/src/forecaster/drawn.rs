//! Files in an order that was drawn, once it is recognised (see [`crate::drawn`]).
//!
//! Which file comes next is then no question, only whether the run goes on: it is believed to read as many bytes of the
//! set as past runs did; before there are any, as sets are read out once so many files of them were as a set is recognised
//! by, and passes followed by others. Until two epochs were
//! seen, nobody knows how the next one is drawn: its files come in any order. What past runs read besides the set is told
//! with it, as one forecaster speaks for a volume.

use std::time::Duration;

use foretide_flow::{PredictedRead, TimeWindow};

use super::recurrence::claims;
use super::sequence::arrival;
use super::{Claim, Forecaster, View, grouped, told, uniform};
use crate::drawn::ahead::goes_on;
use crate::drawn::follow::Following;
use crate::run::{LiveRun, Rate};

/// See the module.
pub struct Drawn;

/// What a file that is due is believed, of a run that goes on.
const SURE: f64 = 0.99;
/// An order holds this long after its last file was due.
const HOLDS: Duration = Duration::from_secs(60);

impl Forecaster for Drawn {
    fn name(&self) -> &'static str {
        "drawn"
    }

    fn claim(&self, view: &View<'_>) -> Vec<Claim> {
        let (Some(run), Some(following)) = (view.run, view.following) else { return Vec::new() };
        run.rate().and_then(|rate| claim(view, run, following, rate)).into_iter().collect()
    }
}

fn claim(view: &View<'_>, run: &LiveRun, following: &Following, rate: Rate) -> Option<Claim> {
    let reach = (rate.files_per_second * view.config.horizon_s).ceil() as usize;
    let lengths = lengths(view);
    let another = view.workload.another_pass(run.pass().max(1));
    let known = !lengths.is_empty();
    if !known && (run.visited(1) as usize) < view.config.recognise_files {
        return None;
    }
    let mut read = read_so_far(run, following);
    let coming = following.coming(run, reach.min(view.config.forecast_files));
    let left = coming.iter().filter(|file| file.epochs == 0).count();
    let mut reads: Vec<PredictedRead> = coming
        .into_iter()
        .map(|file| {
            read += file.bytes as f64;
            let untried = if file.epochs > 0 { another } else { view.sets_read_out };
            PredictedRead {
                path: file.path.clone(),
                offset: 0,
                length: file.bytes,
                probability: SURE * if known { goes_on(&lengths, read) } else { untried },
                window: match file.after {
                    Some(after) => arrival(run.last_at, after, rate),
                    None => any_time(run, following, left, rate),
                },
            }
        })
        .take_while(|read| read.probability >= view.config.least_probability)
        .collect();
    let set = &following.recognised.set;
    let others = view.outlook.map(|outlook| claims(view, outlook)).unwrap_or_default();
    reads.extend(others.into_iter().filter(|claim| claim.volume == set.volume).flat_map(|claim| claim.reads));
    reads.sort_by_key(|read| read.window.p50);
    let last = reads.iter().map(|read| read.window.p90).max()?;
    let (done, all) = following.progress();
    Some(Claim {
        run: Some(run.run.clone()),
        site: run.site.clone(),
        volume: set.volume.clone(),
        expires_at: last.max(view.now) + HOLDS,
        reason: format!(
            "{} files under {} in an order {}; {} of this epoch's are behind it",
            grouped(all as usize),
            told(&set.directory),
            following.recognised.words(),
            grouped(done as usize)
        ),
        reads,
    })
}

/// In an epoch of which nobody knows yet how it is drawn.
fn any_time(run: &LiveRun, following: &Following, left: usize, rate: Rate) -> TimeWindow {
    let (from, files) = (left as f64, f64::from(following.recognised.files));
    uniform(run.last_at, from / rate.files_per_second, (from + files) / rate.files_per_second)
}

/// Bytes that past runs read of such a set, ascending.
fn lengths(view: &View<'_>) -> Vec<f64> {
    let past = view.workload.records.iter().filter_map(|r| r.drawn.as_ref());
    let mut lengths: Vec<f64> = past.map(|d| d.read.bytes as f64).collect();
    lengths.sort_by(f64::total_cmp);
    lengths
}

fn read_so_far(run: &LiveRun, following: &Following) -> f64 {
    run.files().iter().filter(|used| following.recognised.set.holds(&used.key)).map(|used| used.bytes as f64).sum()
}
