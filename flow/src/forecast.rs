//! What will be read: made by the model, taken by the planner.

use serde::{Deserialize, Serialize};

use crate::{FilePath, ForecastId, RunId, SiteId, Timestamp, VolumeId, WorkloadId};

/// When something is expected. `p50 <= p90`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimeWindow {
    /// With probability 0.1 it has happened by then.
    pub p10: Timestamp,
    /// With probability 0.5.
    pub p50: Timestamp,
    /// With probability 0.9.
    pub p90: Timestamp,
}

/// One extent that is expected to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PredictedRead {
    /// The file.
    pub path: FilePath,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Probability that it is read within the horizon, between 0 and 1, calibrated.
    pub probability: f64,
    /// When, if it is.
    pub window: TimeWindow,
}

/// What one forecaster says of one workload at one moment. A new forecast of the same workload by the same
/// forecaster replaces the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forecast {
    /// Its name.
    pub id: ForecastId,
    /// Whose reads.
    pub workload: WorkloadId,
    /// Of which run, if it is running; none if it has yet to come.
    pub run: Option<RunId>,
    /// Where it will read.
    pub site: SiteId,
    /// From which volume.
    pub volume: VolumeId,
    /// When this was said.
    pub made_at: Timestamp,
    /// Void after this.
    pub expires_at: Timestamp,
    /// The expert that said it, such as `remaining_set` or `recurrence`.
    pub forecaster: String,
    /// Why, in words for people.
    pub reason: String,
    /// The reads, soonest first.
    pub reads: Vec<PredictedRead>,
}
