//! A rate that all connections to one peer share.
//!
//! Kept a little under the link's own rate it leaves no standing queue in the link, which is what keeps a demand's
//! latency near its idle one while prefetch fills the rest. Demands never wait: they take their share as debt,
//! which whoever can wait pays.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foretide_flow::BitsPerSecond;

/// A virtual-scheduling rate limit (GCRA): one moment is all that it remembers.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None for no limit.
    rate: Option<BitsPerSecond>,
    /// When everything taken so far will have been sent at the rate.
    clear_at: Option<Instant>,
}

/// What may be sent in a burst after a pause: timers are about this coarse.
const BURST: Duration = Duration::from_millis(5);

impl Limiter {
    pub(crate) fn new(rate: Option<BitsPerSecond>) -> Self {
        Self { state: Mutex::new(State { rate, clear_at: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another rate from now on.
    pub(crate) fn set(&self, rate: Option<BitsPerSecond>) {
        self.lock().rate = rate;
    }

    /// Takes `bytes`; from when they may be sent.
    pub(crate) fn take(&self, bytes: usize, now: Instant) -> Instant {
        let mut state = self.lock();
        let Some(rate) = state.rate else { return now };
        let floor = now.checked_sub(BURST).unwrap_or(now);
        let start = state.clear_at.map_or(floor, |c| c.max(floor));
        state.clear_at = Some(start + Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second().max(1.0)));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a virtual clock: the rate holds within 3 % for frames of any size, and a pause earns no more than a burst.
    #[test]
    fn the_rate_holds_within_three_percent() {
        for size in [100, 10_000, 262_144] {
            let limiter = Limiter::new(Some(BitsPerSecond(1_000_000_000)));
            let begin = Instant::now() + Duration::from_secs(60);
            let (mut now, mut sent) = (begin, 0usize);
            while now - begin < Duration::from_secs(2) {
                now = now.max(limiter.take(size, now));
                sent += size;
            }
            let rate = sent as f64 * 8.0 / (now - begin).as_secs_f64();
            assert!((rate / 1e9 - 1.0).abs() < 0.03, "{rate} with frames of {size}");
        }
    }

    #[test]
    fn who_does_not_wait_leaves_a_debt() {
        let limiter = Limiter::new(Some(BitsPerSecond(8_000_000)));
        let now = Instant::now() + Duration::from_secs(60);
        limiter.take(1_000_000, now);
        let next = limiter.take(1, now);
        assert!(next > now + Duration::from_millis(900), "{:?}", next - now);
    }
}
