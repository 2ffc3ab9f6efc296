//! How a workload reads: made by the model, kept in the catalog, shown to people.

use serde::{Deserialize, Serialize};

use crate::{FilePath, Timestamp, VolumeId, WorkloadId};

/// In which order the files of an epoch come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OrderHabit {
    /// Too little seen to say.
    Unknown,
    /// By name, or the same as last time.
    Sequential,
    /// The same files in a fresh random order each epoch.
    Shuffled,
    /// Neither: popularity, seeks by an index.
    Irregular,
}

/// How a file is read once it is open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ExtentHabit {
    /// Too little seen to say.
    Unknown,
    /// From start to end.
    Whole,
    /// Some byte ranges; on average this share of the file's bytes.
    Partial {
        /// Between 0 and 1.
        share: f64,
    },
}

/// A path shape: digit runs, dates and hashes replaced by `#`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathTemplate {
    /// The volume.
    pub volume: VolumeId,
    /// For instance `train/shard-#.tar`.
    pub shape: String,
    /// Files of this shape read.
    pub files: u64,
    /// Their bytes read.
    pub bytes: u64,
}

impl PathTemplate {
    /// A glob that matches every path of this shape, and perhaps some that only look like it.
    pub fn glob(&self) -> String {
        let between = |text: &str| globset::escape(text).replace(char::REPLACEMENT_CHARACTER, "*");
        self.shape.split('#').map(between).collect::<Vec<_>>().join("*")
    }
}

/// When runs start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Calendar {
    /// Starts seen, oldest first, at most [`Calendar::MAX_STARTS`].
    pub starts: Vec<Timestamp>,
    /// The interval at which it comes back, seconds, if there is one.
    pub period_s: Option<f64>,
    /// Standard deviation of the starts round that period, seconds.
    pub jitter_s: f64,
    /// Probability that the next run keeps to the period.
    pub confidence: f64,
    /// When the next run is expected, if it is.
    pub next_start: Option<Timestamp>,
}

impl Calendar {
    /// Enough for two years of weekly and two months of daily runs.
    pub const MAX_STARTS: usize = 100;
}

/// What is known of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Profile {
    /// Whose.
    pub workload: WorkloadId,
    /// Its command with variable parts as `#`, for people.
    pub command: String,
    /// From accesses up to here.
    pub updated_at: Timestamp,
    /// Runs seen.
    pub runs: u64,
    /// Accesses seen.
    pub accesses: u64,
    /// The directory below which nearly all of its files lie.
    pub volume: Option<VolumeId>,
    /// That directory; the root where there is no narrower one.
    pub root: FilePath,
    /// Different files read in one epoch, median.
    pub files_per_epoch: u64,
    /// Bytes read in one epoch, median.
    pub bytes_per_epoch: u64,
    /// Epochs per run, median.
    pub epochs_per_run: f64,
    /// Order of the files.
    pub order: OrderHabit,
    /// Extent of the reads in a file.
    pub extent: ExtentHabit,
    /// Bytes a second while it runs and does not wait, median.
    pub bytes_per_second: f64,
    /// Processes that read side by side, median.
    pub readers: f64,
    /// Share of the bytes of a run that the run before had read too.
    pub reuse: f64,
    /// Path shapes, most bytes first, at most [`Profile::MAX_TEMPLATES`].
    pub templates: Vec<PathTemplate>,
    /// When it runs.
    pub calendar: Calendar,
    /// How its order is drawn, in words, where that was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<String>,
}

impl Profile {
    /// Path shapes of one workload: as many as people look at.
    pub const MAX_TEMPLATES: usize = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_becomes_a_glob_that_matches_its_paths() {
        let volume = VolumeId::new("v").unwrap();
        let template = PathTemplate { volume, shape: "a[1]/day-#/part-#.tar".into(), files: 1, bytes: 1 };
        let selector = crate::Selector::new(&[FilePath::root()], &[], &[template.glob()]).unwrap();
        let covers = |path: &str| selector.covers(&FilePath::parse(path).unwrap());
        assert!(covers("a[1]/day-2026-11-25/part-003.tar"));
        assert!(!covers("a1/day-2026-11-25/part-003.tar") && !covers("a[1]/day-1/x/part-3.tar"));
    }
}
