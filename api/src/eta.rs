//! How true the plan's times turn out, and what that says of the next one.
//!
//! Each warm-up remembers the first time that was named for it ([`Promised`](foretide_flow::Promised)). When it is
//! ready, the time that it took against the time that was named is one sample. A new time is stretched by the median
//! of these samples (p50) and by their ninth decile (p90). While there are few samples, the plan's word is taken as
//! the median, and a link at 70 % of its rate as the slowest that one expects nine times in ten.

use std::time::{Duration, Instant};

use foretide_catalog::{Catalog, CatalogError, WarmupFilter};
use foretide_flow::{SiteId, Timestamp, Topology, Warmup, WarmupState};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::wanted::price_per_gb;

/// Samples below which the plan's word is taken: the ninth decile of fewer is their largest.
const SAMPLES_MIN: usize = 10;
/// Samples looked at, newest: what links and planner are like now.
const SAMPLES_MAX: usize = 200;
/// Warm-ups looked through for them: not each was ever ready.
const LOOKED_AT: usize = 1000;
/// They are read again after this long: a status must not cost a list.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// Stretch of a time nine times in ten, while nothing better is known.
const STRETCH_P90_UNKNOWN: f64 = 1.0 / 0.7;
/// A sample is no more than this: a machine that slept says nothing of a link.
const STRETCH_MAX: f64 = 20.0;

/// A warm-up with what is derived from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WarmupView {
    /// The warm-up.
    #[serde(flatten)]
    pub warmup: Warmup,
    /// The site of its source, whose link it crosses and costs at most, though a copy may give it for less; null where the
    /// data is already.
    pub from: Option<SiteId>,
    /// Ready by then with even odds, as earlier warm-ups turned out; null if nobody can say, or it is over or ready.
    pub eta_p50: Option<Timestamp>,
    /// Ready by then nine times in ten.
    pub eta_p90: Option<Timestamp>,
    /// Time between `eta_p50` (or when it was ready) and when it is due (`need_by`, or p10 of `starts`), seconds; below zero
    /// it is late.
    pub slack_s: Option<f64>,
    /// Money for all its bytes at the link's price; null until they are known.
    pub cost: Option<f64>,
    /// Of `moved_bytes`, those that needed not cross a link: chunks that were there already, and what compression spared.
    pub deduplicated_bytes: u64,
}

/// Stretch of a named time: its median and its ninth decile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch {
    p50: f64,
    p90: f64,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { p50: 1.0, p90: STRETCH_P90_UNKNOWN }
    }
}

impl Stretch {
    /// What these warm-ups teach, those of them that were ready.
    fn of<'w>(warmups: impl Iterator<Item = &'w Warmup>) -> Self {
        let mut samples: Vec<f64> = warmups.filter_map(sample).take(SAMPLES_MAX).collect();
        if samples.len() < SAMPLES_MIN {
            return Self::default();
        }
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).ceil() as usize];
        Self { p50: at(0.5), p90: at(0.9) }
    }

    /// The warm-up as it is at `now`, with what is derived.
    pub(crate) fn view(self, warmup: Warmup, topology: &Topology, now: Timestamp) -> WarmupView {
        let warmup = as_of(warmup, now);
        let request = &warmup.request;
        let away = topology.volumes.get(&request.volume).filter(|v| !v.stands_at(&request.site));
        let eta = |stretch: f64| {
            let (eta, promised) = warmup.eta.zip(warmup.promised)?;
            let named = eta.since(promised.at);
            Some(promised.at + named.mul_f64(stretch))
        };
        let expected = warmup.ready_at.filter(|_| warmup.state == WarmupState::Ready).or_else(|| eta(self.p50));
        let slack_s = request.due().zip(expected).map(|(by, at)| (by.0 - at.0) as f64 / 1e6);
        let price = price_per_gb(&request.volume, &request.site, topology);
        WarmupView {
            from: away.map(|v| v.at.clone()),
            eta_p50: eta(self.p50),
            eta_p90: eta(self.p90),
            slack_s,
            deduplicated_bytes: warmup.moved_bytes.saturating_sub(warmup.wire_bytes),
            cost: warmup.required_bytes.map(|bytes| bytes as f64 / 1e9 * price),
            warmup,
        }
    }
}

/// Time that it took against the time that was named.
fn sample(warmup: &Warmup) -> Option<f64> {
    let (promised, ready_at) = warmup.promised.zip(warmup.ready_at)?;
    let (named, took) = (promised.eta.since(promised.at), ready_at.since(promised.at));
    (!named.is_zero()).then(|| (took.as_secs_f64() / named.as_secs_f64()).clamp(0.0, STRETCH_MAX))
}

/// A hard end holds from its moment on, whoever writes it down when.
pub(crate) fn as_of(warmup: Warmup, now: Timestamp) -> Warmup {
    let past = warmup.request.expire_at.is_some_and(|end| end <= now) && !warmup.state.is_over();
    if past { Warmup { state: WarmupState::Expired, eta: None, ..warmup } } else { warmup }
}

/// The stretch that holds now, read from the catalog now and then.
#[derive(Default)]
pub(crate) struct Calibration(Mutex<Option<(Instant, Stretch)>>);

impl Calibration {
    /// One caller reads, the others wait for it: it is one page.
    pub(crate) async fn stretch(&self, catalog: &dyn Catalog) -> Result<Stretch, CatalogError> {
        let mut known = self.0.lock().await;
        if let Some((_, stretch)) = known.filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return Ok(stretch);
        }
        // What was released, taken back or has expired since it was ready says as much.
        let ended = vec![WarmupState::Ready, WarmupState::Degraded, WarmupState::Expired, WarmupState::Cancelled];
        let filter = WarmupFilter { site: None, states: ended };
        let stretch = Stretch::of(catalog.warmups(&filter, None, LOOKED_AT).await?.items.iter());
        *known = Some((Instant::now(), stretch));
        Ok(stretch)
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{FilePath, Promised, VolumeId, WarmupId, WarmupRequest};

    use super::*;

    fn warmup(named_s: i64, took_s: Option<i64>) -> Warmup {
        let (volume, site) = (VolumeId::new("v").unwrap(), SiteId::new("gpu").unwrap());
        let eta = Timestamp(named_s * 1_000_000);
        Warmup {
            state: if took_s.is_some() { WarmupState::Ready } else { WarmupState::Moving },
            required_bytes: Some(1),
            required_files: Some(1),
            eta: took_s.is_none().then_some(eta),
            promised: Some(Promised { at: Timestamp(0), eta }),
            ready_at: took_s.map(|s| Timestamp(s * 1_000_000)),
            ..Warmup::new(WarmupId::from("w"), WarmupRequest::new(volume, vec![FilePath::root()], site), Timestamp(0))
        }
    }

    fn etas(stretch: Stretch) -> (Option<Timestamp>, Option<Timestamp>) {
        let view = stretch.view(warmup(100, None), &Topology::default(), Timestamp(1));
        (view.eta_p50, view.eta_p90)
    }

    #[test]
    fn times_are_stretched_as_earlier_ones_were() {
        let earlier: Vec<Warmup> = (0..20).map(|i| warmup(100, Some(110 + 10 * i))).collect();
        let (p50, p90) = etas(Stretch::of(earlier.iter()));
        assert_eq!((p50, p90), (Some(Timestamp(210_000_000)), Some(Timestamp(290_000_000))));
    }

    #[test]
    fn few_samples_teach_nothing() {
        let earlier: Vec<Warmup> = (0..9).map(|_| warmup(100, Some(300))).collect();
        assert_eq!(Stretch::of(earlier.iter()), Stretch::default());
        let (p50, p90) = etas(Stretch::default());
        assert_eq!(p50, Some(Timestamp(100_000_000)));
        assert!(p90 > p50);
    }

    #[test]
    fn a_hard_end_holds_from_its_moment_on() {
        let mut w = warmup(100, None);
        w.request.expire_at = Some(Timestamp(50));
        assert_eq!(as_of(w.clone(), Timestamp(49)).state, WarmupState::Moving);
        assert_eq!(as_of(w.clone(), Timestamp(50)).state, WarmupState::Expired);
        w.state = WarmupState::Cancelled;
        assert_eq!(as_of(w, Timestamp(60)).state, WarmupState::Cancelled, "what is over stays as it ended");
    }
}
