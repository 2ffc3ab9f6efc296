//! What an admin may set of the planner.

use serde::{Deserialize, Serialize};

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
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("planner.{key} is {value}, but must be {must}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What was given.
    pub value: f64,
    /// What is possible.
    pub must: &'static str,
}

impl Config {
    /// Whether every number is possible.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules: [(&'static str, f64, f64, f64, &'static str); 13] = [
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
        ];
        match rules.into_iter().find(|(_, v, low, high, _)| !(low..=high).contains(&v)) {
            Some((key, value, _, _, must)) => Err(ConfigError { key, value, must }),
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
    }
}
