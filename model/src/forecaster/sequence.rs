//! Files in a known order: by name, or as in the pass before.
//!
//! Speaks when the recent visits follow the order of names (or that of the last pass) in most steps. Says the
//! files that follow, as far as the horizon and the measured rate reach, each at its own time.

use foretide_flow::{FilePath, PredictedRead, TimeWindow, Timestamp};

use super::{Claim, Forecaster, View, grouped, told};
use crate::history::common_directory;
use crate::order::FOLLOWED;
use crate::run::{FileUse, LiveRun, Rate};
use crate::shape::shape;

/// See the module.
pub struct Sequence;

/// Standard deviation of the logarithm of a run's pace: recorded trainings changed theirs by a third to a half within seconds.
const PACE_CHANGES: f64 = 0.45;
/// Most by which the logarithm of a time is said to vary.
const SPREAD_MOST: f64 = 1.5;

/// What follows, in order.
struct Following<'a> {
    files: Vec<(&'a FilePath, u64)>,
    why: String,
    share: f64,
}

impl Forecaster for Sequence {
    fn name(&self) -> &'static str {
        "sequence"
    }

    fn claim(&self, view: &View<'_>) -> Vec<Claim> {
        let Some(run) = view.run else { return Vec::new() };
        let Some(rate) = run.rate() else { return Vec::new() };
        let most = ((rate.files_per_second * view.config.horizon_s).ceil() as usize).min(view.config.forecast_files);
        let following = match (view.order.as_before, view.order.by_name) {
            (Some(share), _) if share >= FOLLOWED => as_before(view, run, share, most),
            (_, Some(share)) if share >= FOLLOWED => by_name(view, run, share, most),
            _ => None,
        };
        following.filter(|f| !f.files.is_empty()).map(|f| claim(view, run, rate, f)).into_iter().collect()
    }
}

fn claim(view: &View<'_>, run: &LiveRun, rate: Rate, following: Following<'_>) -> Claim {
    let probability = following.share.min(0.99);
    let reads: Vec<PredictedRead> = following
        .files
        .iter()
        .enumerate()
        .map(|(i, (path, size))| PredictedRead {
            path: (*path).clone(),
            offset: 0,
            length: *size,
            // The further ahead, the more often the habit could end before.
            probability: probability * (1.0 - 0.2 * i as f64 / following.files.len() as f64),
            window: arrival(run.last_at, i, rate),
        })
        .collect();
    let last = reads.last().map_or(view.now, |r| r.window.p90);
    let volume = run.recent().back().map(|v| run.files()[v.file as usize].key.volume.clone());
    Claim {
        run: Some(run.run.clone()),
        site: run.site.clone(),
        volume: volume.unwrap_or_else(|| run.files()[0].key.volume.clone()),
        expires_at: last + std::time::Duration::from_secs(60),
        reason: following.why,
        reads,
    }
}

/// The `i`-th file from now comes after i gaps. Gaps vary, by more where files come in bursts; and a run does not stay as
/// fast as it is now ([`PACE_CHANGES`]). It is half as fast as often as twice: the logarithm of the time spreads evenly.
pub(super) fn arrival(last: Timestamp, i: usize, rate: Rate) -> TimeWindow {
    /// Standard deviations to a tenth and to nine tenths.
    const TENTH: f64 = 1.2816;
    let files = (i + 1) as f64;
    let mean_s = files / rate.files_per_second.max(1e-9);
    let spread = (rate.dispersion.max(1.0) / files + PACE_CHANGES.powi(2)).sqrt().min(SPREAD_MOST);
    let at = |factor: f64| Timestamp::from_secs_f64(last.as_secs_f64() + mean_s * factor);
    TimeWindow { p10: at((-TENTH * spread).exp()), p50: at(1.0), p90: at((TENTH * spread).exp()) }
}

/// The files after the furthest recent one in order of name, of the shapes that are read.
fn by_name<'a>(view: &View<'a>, run: &'a LiveRun, share: f64, most: usize) -> Option<Following<'a>> {
    let recent: Vec<&FileUse> = run.recent().iter().rev().take(32).map(|v| &run.files()[v.file as usize]).collect();
    let furthest = recent.iter().map(|u| &u.key).max()?;
    let directory = common_directory(&recent.iter().map(|u| &u.key.path).collect::<Vec<_>>());
    let shapes: std::collections::BTreeSet<String> = recent.iter().map(|u| shape(u.key.path.as_bytes()).text).collect();
    let files: Vec<(&FilePath, u64)> = view
        .names
        .after(&furthest.volume, &furthest.path)
        .take_while(|(p, _)| p.is_within(&directory))
        .filter(|(p, _)| shapes.contains(&shape(p.as_bytes()).text))
        .filter(|(p, _)| {
            let key = crate::run::FileKey { volume: furthest.volume.clone(), path: (*p).clone() };
            run.file(&key).is_none_or(|u| u.visits < run.pass())
        })
        .map(|(p, f)| (p, f.size))
        .take(most)
        .collect();
    let why = format!("files under {} read in order of name; {} follow", told(&directory), grouped(files.len()));
    Some(Following { files, why, share })
}

/// What came after the present place in the pass before.
fn as_before<'a>(view: &View<'a>, run: &'a LiveRun, share: f64, most: usize) -> Option<Following<'a>> {
    let pass = run.pass();
    let before = run.order(pass.checked_sub(1)?)?;
    let current = run.order(pass)?;
    let last = current.iter().rev().take(16).filter_map(|f| before.iter().position(|b| b == f)).max()?;
    let files: Vec<(&FilePath, u64)> = before[last + 1..]
        .iter()
        .map(|f| &run.files()[*f as usize])
        .filter(|u| u.visits < pass && !u.created)
        .map(|u| (&u.key.path, view.names.file(&u.key.volume, &u.key.path).map_or(u.extents.end(), |f| f.size)))
        .take(most)
        .collect();
    let why = format!("pass {pass} takes its files in the order of the pass before; {} follow", grouped(files.len()));
    Some(Following { files, why, share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_spread_by_the_pace_s_changes_and_soon_ones_by_bursts_too() {
        let after = |files: usize, dispersion: f64| {
            let rate = Rate { files_per_second: 100.0, bytes_per_second: 0.0, dispersion };
            let window = arrival(Timestamp(0), files - 1, rate);
            [window.p10, window.p50, window.p90].map(Timestamp::as_secs_f64)
        };
        let [p10, p50, p90] = after(1000, 1.0);
        assert_eq!(p50, 10.0);
        assert!((5.0..6.0).contains(&p10) && (17.0..19.0).contains(&p90), "{p10} {p90}");
        assert!(after(1000, 30.0)[2] - p90 < 1.0, "over a thousand files bursts even out");
        assert!(after(10, 30.0)[2] > 2.0 * after(10, 1.0)[2], "over ten they do not");
    }
}
