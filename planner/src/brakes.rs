//! What holds prefetch back: the one switch, mutes, modes, budgets. Forecasts alone are held back; what somebody asked
//! for is that person's decision, and only borders and room can refuse it (promise H).

use std::collections::{BTreeMap, BTreeSet};

use foretide_flow::{Mode, SiteId, WorkloadId};
use serde::{Deserialize, Serialize};

/// What holds prefetch back now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brakes {
    /// The one switch: no forecast moves anything; warm-ups go on.
    pub prefetch_off: bool,
    /// Workloads whose prefetch is muted, and why, in words (promise H).
    pub muted: BTreeMap<WorkloadId, String>,
    /// Sites where most of what was prefetched was read: there, forecasts may displace what readers brought.
    pub proven: BTreeSet<SiteId>,
    /// What is left to spend; each budget holds by itself.
    pub budgets: Vec<BudgetLeft>,
    /// Sites whose clock is wrong, and by how many seconds it is ahead of ours: what is told there of times is not
    /// believed, and what moves there starts at once.
    pub clocks: BTreeMap<SiteId, f64>,
}

/// What became of prefetched bytes, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) read_bytes: u64,
    pub(crate) wasted_bytes: u64,
}

impl Proof {
    pub(crate) fn holds(self, share: f64) -> bool {
        let known = self.read_bytes + self.wasted_bytes;
        known > 0 && self.read_bytes as f64 >= known as f64 * share
    }
}

/// How far forecasts of some workloads at some sites are acted on. Absent conditions match everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRule {
    /// Only at this site.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// Only of this workload.
    #[serde(default)]
    pub workload: Option<WorkloadId>,
    /// So far.
    pub mode: Mode,
}

/// The mode of a workload at a site: that of the first rule that matches, as with borders.
pub(crate) fn mode_of(rules: &[ModeRule], default: Mode, site: &SiteId, workload: &WorkloadId) -> Mode {
    let matches =
        |r: &&ModeRule| r.site.as_ref().is_none_or(|s| s == site) && r.workload.as_ref().is_none_or(|w| w == workload);
    rules.iter().find(matches).map_or(default, |r| r.mode)
}

/// What forecasts may spend within a time. Absent conditions match everything, absent amounts are no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Named where it stops a move.
    pub name: String,
    /// Only moves to this site.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// Only moves for this workload.
    #[serde(default)]
    pub workload: Option<WorkloadId>,
    /// Bytes on the link.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Money for links.
    #[serde(default)]
    pub money: Option<f64>,
    /// Within this time, which moves on, seconds.
    pub per_s: f64,
}

/// What is left of a budget; below zero if it was overdrawn.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetLeft {
    /// Which.
    pub budget: Budget,
    /// Bytes left, where they are limited.
    pub bytes: Option<i64>,
    /// Money left, where it is limited.
    pub money: Option<f64>,
}

impl Budget {
    pub(crate) fn covers(&self, site: &SiteId, workload: &WorkloadId) -> bool {
        self.site.as_ref().is_none_or(|s| s == site) && self.workload.as_ref().is_none_or(|w| w == workload)
    }

    /// What is left after so much was spent.
    pub fn left(&self, spent_bytes: u64, spent_money: f64) -> BudgetLeft {
        let spent = i64::try_from(spent_bytes).unwrap_or(i64::MAX);
        let bytes = self.bytes.map(|b| i64::try_from(b).unwrap_or(i64::MAX).saturating_sub(spent));
        BudgetLeft { bytes, money: self.money.map(|m| m - spent_money), budget: self.clone() }
    }
}

impl BudgetLeft {
    /// Whether so much more may be spent.
    pub(crate) fn affords(&self, bytes: u64, money: f64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes.is_none_or(|left| bytes <= left) && self.money.is_none_or(|left| money <= left)
    }

    /// Spends, or takes back what is negative.
    pub(crate) fn spend(&mut self, bytes: i64, money: f64) {
        self.bytes = self.bytes.map(|left| left.saturating_sub(bytes));
        self.money = self.money.map(|left| left - money);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_says_the_mode() {
        let (here, there) = (SiteId::new("here").unwrap(), SiteId::new("there").unwrap());
        let (train, other) = (WorkloadId::from("train"), WorkloadId::from("other"));
        let rules = [
            ModeRule { site: Some(here.clone()), workload: Some(train.clone()), mode: Mode::Enforce },
            ModeRule { site: Some(here.clone()), workload: None, mode: Mode::Shadow },
        ];
        let of = |site, workload| mode_of(&rules, Mode::Advise, site, workload);
        assert_eq!(of(&here, &train), Mode::Enforce);
        assert_eq!(of(&here, &other), Mode::Shadow);
        assert_eq!(of(&there, &train), Mode::Advise);
    }

    #[test]
    fn a_budget_is_spent_and_a_budget_of_zero_affords_nothing() {
        let budget =
            |bytes, money| Budget { name: "b".into(), site: None, workload: None, bytes, money, per_s: 3_600.0 };
        let mut left = budget(Some(100), Some(1.0)).left(40, 0.25);
        assert!(left.affords(60, 0.75) && !left.affords(61, 0.0) && !left.affords(1, 0.8));
        left.spend(60, 0.75);
        assert!(!left.affords(1, 0.0));
        assert!(!budget(Some(0), None).left(0, 0.0).affords(1, 0.0));
        assert!(budget(None, None).left(u64::MAX, 1e9).affords(u64::MAX, 1e9));
    }
}
