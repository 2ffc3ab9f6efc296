//! What an admin may set of the planner.

use std::collections::BTreeSet;

use foretide_flow::{Link, Mode, SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::brakes::{Budget, ModeRule};

/// The planner's settings. Every default is meant to be left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Plans look no further than this, seconds. A day holds the next run of most daily workloads; beyond it
    /// forecasts are too wide to reserve a link for.
    pub horizon_s: f64,
    /// Forecast reads less probable than this are left out. Below one in ten even a free link is better kept for
    /// what comes next: each such move wastes ten bytes for one that is read.
    pub min_probability: f64,
    /// Only moves due within this many seconds are pulled forward into idle bandwidth. Ten minutes absorbs a link
    /// that slows down; what is due later can still be displaced by something better.
    pub pull_forward_s: f64,
    /// Round trips that a read of a file that is not here costs: one to look it up, one for its first bytes.
    pub cold_read_round_trips: f64,
    /// Time between the last byte on the link and the byte being trusted (verify, write), milliseconds.
    pub settle_ms: f64,
    /// Part of a link's rate that plans may count on. The rest absorbs protocol overhead and rate estimates that
    /// are a little high.
    pub link_share: f64,
    /// Part of a link's rate that plans may count on even if demand traffic takes all of it now: demand goes first
    /// in the mover, and a plan that never moves anything could never end the demand traffic.
    pub link_share_under_demand: f64,
    /// Demand traffic seen now is expected to last this long, seconds.
    pub demand_lasts_s: f64,
    /// Part of a cache that forecasts may fill; the rest is for what readers fetch themselves. Warm-ups may fill
    /// all of it.
    pub forecast_cache_share: f64,
    /// Value of an accelerator hour where the topology names none, money. Stall seconds become money by it, to be
    /// compared with what crossing a link costs.
    pub accelerator_per_hour: f64,
    /// A move of the previous plan counts this much more than a new one of the same worth, so that plans do not
    /// thrash for a hair's difference.
    pub stickiness: f64,
    /// A start time of the previous plan is kept if the best one differs by less than this part of the time until
    /// then.
    pub start_tolerance: f64,
    /// Bytes of a warm-up without `pin_until` are kept at least this long after `need_by`, seconds: a job that
    /// starts late still finds them.
    pub warmup_hold_s: f64,
    /// A workload's prefetch is muted when more than this part of what it had brought within `waste_window_s` left
    /// unread.
    pub waste_share: f64,
    /// Waste up to this many bytes mutes nobody: a gigabyte costs little, and few moves say little.
    pub waste_free_bytes: u64,
    /// Waste is counted over this time, seconds; a workload that was muted is heard again when it has passed.
    pub waste_window_s: f64,
    /// Forecasts displace what readers brought to a cache once so much of what was prefetched to it within
    /// `waste_window_s`, and has been read or has left, was read.
    pub proof_share: f64,
    /// Until then they may fill what is free, and at least this part of the cache.
    pub trial_cache_share: f64,
    /// What forecasts may spend.
    pub budgets: Vec<Budget>,
    /// How far forecasts are acted on, by site and workload; the first that matches decides.
    pub modes: Vec<ModeRule>,
    /// The mode where none matches: the control plane's own.
    #[serde(skip)]
    pub mode: Mode,
    /// When links carry less than their rate.
    pub link_hours: Vec<LinkHours>,
    /// What may leave and enter sites over all their links together.
    pub site_limits: Vec<SiteLimit>,
}

/// What may leave and enter a site, over all its links together: an uplink that they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteLimit {
    /// Which.
    pub site: SiteId,
    /// What may leave, bits a second; no limit if absent.
    #[serde(default)]
    pub egress_bits_per_s: Option<u64>,
    /// What may enter, bits a second; no limit if absent.
    #[serde(default)]
    pub ingress_bits_per_s: Option<u64>,
}

/// Hours of the week in which a link carries only a part of its rate for us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkHours {
    /// Whence; any site if absent.
    #[serde(default)]
    pub from: Option<SiteId>,
    /// Whither; any site if absent.
    #[serde(default)]
    pub to: Option<SiteId>,
    /// From this hour of the day; 7.5 is half past seven.
    pub from_hour: f64,
    /// To this hour; past midnight if it is the lesser one.
    pub to_hour: f64,
    /// Days of the week on which the hours begin, Monday is 1; every day if empty.
    #[serde(default)]
    pub days: Vec<u8>,
    /// Hours that the clock on the wall is ahead of UTC.
    #[serde(default)]
    pub utc_offset_h: f64,
    /// Part of the rate that plans may count on meanwhile.
    pub share: f64,
}

impl Config {
    /// Part of a link's rate that its hours leave at a moment.
    pub fn hours_leave(&self, link: &Link, at: Timestamp) -> f64 {
        let on = |site: &Option<SiteId>, end: &SiteId| site.as_ref().is_none_or(|s| s == end);
        let hours = self.link_hours.iter().filter(|h| on(&h.from, &link.from) && on(&h.to, &link.to));
        hours.filter(|h| h.holds(at)).map(|h| h.share).fold(1.0, f64::min)
    }
}

impl LinkHours {
    /// Whether `at` is within the hours.
    pub fn holds(&self, at: Timestamp) -> bool {
        let hours = at.0 as f64 / 3.6e9 + self.utc_offset_h;
        let hour = hours.rem_euclid(24.0);
        // 1970 began on a Thursday.
        let weekday = |hours: f64| ((hours / 24.0).floor() as i64 + 3).rem_euclid(7) as u8 + 1;
        let (within, began) = if self.from_hour <= self.to_hour {
            (self.from_hour <= hour && hour < self.to_hour, weekday(hours))
        } else if hour < self.to_hour {
            (true, weekday(hours - 24.0))
        } else {
            (self.from_hour <= hour, weekday(hours))
        };
        within && (self.days.is_empty() || self.days.contains(&began))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            horizon_s: 86_400.0,
            min_probability: 0.1,
            pull_forward_s: 600.0,
            cold_read_round_trips: 2.0,
            settle_ms: 100.0,
            link_share: 0.95,
            link_share_under_demand: 0.1,
            demand_lasts_s: 5.0,
            forecast_cache_share: 0.9,
            accelerator_per_hour: 2.0,
            stickiness: 0.1,
            start_tolerance: 0.25,
            warmup_hold_s: 3_600.0,
            waste_share: 0.5,
            waste_free_bytes: 1_000_000_000,
            waste_window_s: 3_600.0,
            proof_share: 0.75,
            trial_cache_share: 0.02,
            budgets: Vec::new(),
            modes: Vec::new(),
            mode: Mode::Enforce,
            link_hours: Vec::new(),
            site_limits: Vec::new(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A number that is not possible.
    #[error("planner.{key} is {value}, but must be {must}")]
    Impossible {
        /// The key.
        key: String,
        /// What was given.
        value: f64,
        /// What is possible.
        must: &'static str,
    },
    /// Two budgets of one name: a move that is left out could not say which stopped it.
    #[error("two planner.budgets are named {0:?}: give each its own name")]
    SameName(String),
}

impl Config {
    /// Whether every number is possible.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let own: [(&str, f64, f64, f64, &'static str); 17] = [
            ("horizon_s", self.horizon_s, 1.0, 31e6, "between 1 and 31000000 (a year)"),
            ("min_probability", self.min_probability, 0.0, 1.0, "between 0 and 1"),
            ("pull_forward_s", self.pull_forward_s, 0.0, 31e6, "0 or more"),
            ("cold_read_round_trips", self.cold_read_round_trips, 0.0, 1e3, "between 0 and 1000"),
            ("settle_ms", self.settle_ms, 0.0, 1e6, "between 0 and 1000000"),
            ("link_share", self.link_share, 0.01, 1.0, "between 0.01 and 1"),
            ("link_share_under_demand", self.link_share_under_demand, 0.0, 1.0, "between 0 and 1"),
            ("demand_lasts_s", self.demand_lasts_s, 0.0, 31e6, "0 or more"),
            ("forecast_cache_share", self.forecast_cache_share, 0.0, 1.0, "between 0 and 1"),
            ("accelerator_per_hour", self.accelerator_per_hour, 0.0, 1e9, "0 or more"),
            ("stickiness", self.stickiness, 0.0, 10.0, "between 0 and 10"),
            ("start_tolerance", self.start_tolerance, 0.0, 1.0, "between 0 and 1"),
            ("warmup_hold_s", self.warmup_hold_s, 0.0, 31e6, "0 or more"),
            ("waste_share", self.waste_share, 0.0, 1.0, "between 0 and 1"),
            ("proof_share", self.proof_share, 0.0, 1.0, "between 0 and 1"),
            ("trial_cache_share", self.trial_cache_share, 0.0, 1.0, "between 0 and 1"),
            ("waste_window_s", self.waste_window_s, 1.0, 31e6, "between 1 and 31000000 (a year)"),
        ];
        let own = own.into_iter().map(|(key, v, low, high, must)| (key.to_owned(), v, low, high, must));
        let mut all: Vec<(String, f64, f64, f64, &'static str)> = own.collect();
        for hours in &self.link_hours {
            let key = |name| format!("link_hours.{name}");
            all.push((key("from_hour"), hours.from_hour, 0.0, 24.0, "between 0 and 24"));
            all.push((key("to_hour"), hours.to_hour, 0.0, 24.0, "between 0 and 24"));
            all.push((key("share"), hours.share, 0.0, 1.0, "between 0 and 1"));
            all.push((key("utc_offset_h"), hours.utc_offset_h, -24.0, 24.0, "between -24 and 24"));
            let days = hours.days.iter().map(|d| (key("days"), f64::from(*d), 1.0, 7.0, "between 1 (Monday) and 7"));
            all.extend(days);
        }
        for limit in &self.site_limits {
            let key = |name| format!("site_limits.{}.{name}", limit.site);
            let rate = |bits: Option<u64>| bits.map_or(1.0, |b| b as f64);
            all.push((key("egress_bits_per_s"), rate(limit.egress_bits_per_s), 1.0, 1e18, "above 0"));
            all.push((key("ingress_bits_per_s"), rate(limit.ingress_bits_per_s), 1.0, 1e18, "above 0"));
        }
        let mut names = BTreeSet::new();
        for budget in &self.budgets {
            if !names.insert(&budget.name) {
                return Err(ConfigError::SameName(budget.name.clone()));
            }
            let key = |name| format!("budgets.{}.{name}", budget.name);
            all.push((key("per_s"), budget.per_s, 1.0, 31e6, "between 1 and 31000000 (a year)"));
            all.push((key("money"), budget.money.unwrap_or(0.0), 0.0, 1e18, "0 or more"));
        }
        match all.into_iter().find(|(_, v, low, high, _)| !(low..=high).contains(&v)) {
            Some((key, value, _, _, must)) => Err(ConfigError::Impossible { key, value, must }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_possible_and_nonsense_is_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let told = Config { link_share: 0.0, ..Config::default() }.check().unwrap_err().to_string();
        assert!(told.contains("planner.link_share is 0"), "{told}");
        assert!(Config { horizon_s: f64::NAN, ..Config::default() }.check().is_err());
        assert!(serde_json::from_str::<Config>(r#"{"horizont_s":1}"#).is_err());
        let budget = r#"{"budgets":[{"name":"x","per_s":0},{"name":"x","per_s":1}]}"#;
        let told = serde_json::from_str::<Config>(budget).unwrap().check().unwrap_err();
        assert_eq!(told, ConfigError::SameName("x".into()));
        let hours = r#"{"link_hours":[{"from_hour":8,"to_hour":18,"share":-0.5}]}"#;
        let told = serde_json::from_str::<Config>(hours).unwrap().check().unwrap_err().to_string();
        assert!(told.contains("planner.link_hours.share is -0.5"), "{told}");
        let limit = r#"{"site_limits":[{"site":"store","egress_bits_per_s":0}]}"#;
        let told = serde_json::from_str::<Config>(limit).unwrap().check().unwrap_err().to_string();
        assert!(told.contains("planner.site_limits.store.egress_bits_per_s is 0"), "{told}");
    }

    #[test]
    fn hours_of_the_week_are_those_of_the_wall_clock() {
        let hours = |from_hour, to_hour, days| LinkHours {
            from: None,
            to: None,
            from_hour,
            to_hour,
            days,
            utc_offset_h: 2.0,
            share: 0.5,
        };
        // Monday, 5 January 1970, 00:00 UTC, and hours from there.
        let at = |hour: f64| Timestamp(((4.0 * 24.0 + hour) * 3.6e9) as i64);
        let office = hours(8.0, 18.0, vec![1, 2, 3, 4, 5]);
        assert!(!office.holds(at(5.9)) && office.holds(at(6.0)) && office.holds(at(15.9)) && !office.holds(at(16.0)));
        assert!(!office.holds(at(5.0 * 24.0 + 10.0)), "Saturday");
        let night = hours(22.0, 6.0, vec![7]);
        assert!(night.holds(at(-3.0)) && night.holds(at(3.0)) && !night.holds(at(21.0)), "the night of Sunday");
    }
}
