//! The budget of waste: how sure a proposal has to be.
//!
//! While the share of accepted proposals that came true stays well above what the budget asks, little is asked of
//! the next one; as the share nears the budget, more and more is. Counted are doubts as well as certainties, so that
//! waste is felt when it begins and not when it is over.

use super::followed::Verdict;

/// Asked while there is room in the budget: below it, more proposals only push each other out.
const THRESHOLD_AT_EASE: f32 = 0.2;
/// Asked when the budget is used up.
const THRESHOLD_AT_LIMIT: f32 = 0.5;
/// Asked at most, when it is overdrawn.
const THRESHOLD_MOST: f32 = 0.65;
/// The share above the budget's from which on there is ease.
const EASE: f64 = 0.04;
/// Proposals taken as given before the first, as many of them come true as the budget asks: at the start there is no
/// ease.
const PRIOR: f64 = 100.0;
/// Proposals that are remembered: older ones fade.
const MEMORY: f64 = 100_000.0;

/// See the module.
pub(super) struct Budget {
    least_share: f64,
    came: f64,
    not: f64,
}

impl Budget {
    /// A budget that lets this share go to waste.
    pub(super) fn new(waste: f64) -> Self {
        Self { least_share: 1.0 - waste, came: PRIOR * (1.0 - waste), not: PRIOR * waste }
    }

    /// Takes a doubt, a certainty, or a doubt taken back.
    pub(super) fn take(&mut self, verdict: &Verdict) {
        if !verdict.accepted {
            return;
        }
        match (verdict.doubted, verdict.came) {
            (true, true) => {
                self.came += 1.0;
                self.not = (self.not - 1.0).max(0.0);
            }
            (true, false) => {}
            (false, true) => self.came += 1.0,
            (false, false) => self.not += 1.0,
        }
        if self.came + self.not > MEMORY {
            self.came /= 2.0;
            self.not /= 2.0;
        }
    }

    /// The least probability that passes.
    pub(super) fn threshold(&self) -> f32 {
        let share = self.came / (self.came + self.not).max(1.0);
        let short = (((self.least_share + EASE - share) / EASE) as f32).max(0.0);
        (THRESHOLD_AT_EASE + short * (THRESHOLD_AT_LIMIT - THRESHOLD_AT_EASE)).min(THRESHOLD_MOST)
    }
}
