//! Clocks that disagree between sites.
//!
//! What an agent reports bears its own time and is heard a little later. Nothing is heard before it happened: a report from
//! the future shows a clock that is ahead, at once. A clock that is behind shows only by reports that are all late; one
//! that came in time shows that it was the way that was slow. So of the last reports the one that was heard soonest counts.

use std::collections::VecDeque;

use foretide_flow::Timestamp;

/// Reports of a site that are remembered. Agents report each second or so while they work.
const REMEMBERED_REPORTS: usize = 32;
/// Reports that must agree before a clock is held to be behind: less may be a backlog that was kept while the control plane
/// was away.
const AGREEING_REPORTS: usize = 16;
/// A clock may be ahead by this much, seconds: more than NTP leaves, less than the windows of forecasts.
const TOLERATED_AHEAD_S: f64 = 2.0;
/// A clock may be behind by this much, seconds: reports may take as long.
const TOLERATED_BEHIND_S: f64 = 60.0;

/// By how much each of a site's last reports was late, seconds; below zero if it came from the future.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteClock {
    late_s: VecDeque<f64>,
}

impl SiteClock {
    /// A report whose newest event bears `newest` was heard at `now`.
    pub(super) fn heard(&mut self, newest: Timestamp, now: Timestamp) {
        if self.late_s.len() == REMEMBERED_REPORTS {
            self.late_s.pop_front();
        }
        self.late_s.push_back((now.0 as f64 - newest.0 as f64) / 1e6);
    }

    /// Seconds that the clock is ahead, below zero if it is behind; none while it is right as far as one can tell.
    pub(super) fn ahead_s(&self) -> Option<f64> {
        let soonest = self.late_s.iter().copied().min_by(f64::total_cmp)?;
        let behind = self.late_s.len() >= AGREEING_REPORTS && soonest > TOLERATED_BEHIND_S;
        (soonest < -TOLERATED_AHEAD_S || behind).then_some(-soonest)
    }

    /// A time of that clock by ours.
    pub(super) fn by_ours(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_sub((self.ahead_s().unwrap_or(0.0) * 1e6) as i64))
    }
}
