//! What an operator may set. Every bound has its unit last and its reason beside it.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Settings of the model. All have defaults that suit a wide-area link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How far ahead forecasts look, seconds. One hour: long enough to move some 400 GB over 1 Gbit/s.
    pub horizon_s: f64,
    /// Least time between two forecasts for one running run, seconds. They change slowly; planning costs more.
    pub refresh_s: f64,
    /// Different files that a run must have read before its set of files is said to be recognised. Below this,
    /// order and shape cannot be told from chance.
    pub recognise_files: usize,
    /// Reads with a lower probability are left out of a forecast.
    pub least_probability: f64,
    /// Most reads in one forecast. Beyond this only groups of files that were seen are forecast.
    pub forecast_files: usize,
    /// Finished runs kept per workload.
    pub kept_runs: usize,
    /// Files kept per run; a run that reads more is profiled by its first ones.
    pub run_files: usize,
    /// Ranges kept per file and run; beyond this the closest are joined.
    pub file_ranges: usize,
    /// Files of the namespaces kept in memory, over all volumes.
    pub namespace_files: usize,
    /// Workloads kept; the longest unseen is forgotten first.
    pub workloads: usize,
    /// Runs followed at one time; the longest silent is taken as ended first.
    pub live_runs: usize,
    /// A run from which nothing was heard for this long has ended, seconds: its end was lost.
    pub silent_run_s: f64,
    /// What one read that finds nothing is taken to cost its reader besides the transfer, seconds.
    pub miss_s: f64,
    /// Rate at which bytes are taken to move, bytes a second: prices waste in the same coin as stall.
    pub link_bytes_per_second: f64,
    /// What a wasted byte costs, as a multiple of its time on the link.
    pub waste_price: f64,
    /// A forecaster whose claims come true for a smaller share of their bytes is muted (promise H).
    pub mute_precision: f64,
    /// Bytes that must have been wasted before a forecaster is muted: less proves nothing.
    pub mute_after_bytes: u64,
    /// Seed of whatever is drawn at random in training.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            horizon_s: 3600.0,
            refresh_s: 1.0,
            recognise_files: 16,
            least_probability: 0.25,
            forecast_files: 200_000,
            kept_runs: 8,
            run_files: 500_000,
            file_ranges: 4096,
            namespace_files: 5_000_000,
            workloads: 4096,
            live_runs: 1024,
            silent_run_s: 900.0,
            miss_s: 0.15,
            link_bytes_per_second: 125e6,
            waste_price: 1.0,
            mute_precision: 0.3,
            mute_after_bytes: 8 << 20,
            seed: 1,
        }
    }
}

impl Config {
    /// Whether every number can be meant.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for the first that cannot.
    pub fn check(&self) -> Result<(), ModelError> {
        let positive = [
            ("horizon_s", self.horizon_s),
            ("refresh_s", self.refresh_s),
            ("silent_run_s", self.silent_run_s),
            ("link_bytes_per_second", self.link_bytes_per_second),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(ModelError::Setting { name, value: value.to_string(), remedy: "use a number above 0" });
            }
        }
        for (name, value) in [("least_probability", self.least_probability), ("mute_precision", self.mute_precision)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ModelError::Setting { name, value: value.to_string(), remedy: "use a number from 0 to 1" });
            }
        }
        for (name, value) in [("miss_s", self.miss_s), ("waste_price", self.waste_price)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(ModelError::Setting {
                    name,
                    value: value.to_string(),
                    remedy: "use a number of 0 or more",
                });
            }
        }
        let bounds = [
            ("recognise_files", self.recognise_files),
            ("forecast_files", self.forecast_files),
            ("kept_runs", self.kept_runs),
            ("run_files", self.run_files),
            ("file_ranges", self.file_ranges),
            ("namespace_files", self.namespace_files),
            ("workloads", self.workloads),
            ("live_runs", self.live_runs),
        ];
        for (name, value) in bounds {
            if value == 0 {
                return Err(ModelError::Setting { name, value: "0".into(), remedy: "use 1 or more" });
            }
        }
        Ok(())
    }
}
