//! What was learned and what is expected: profiles, models, forecasts.

use async_trait::async_trait;
use foretide_flow::{Forecast, ForecastId, Profile, SiteId, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::{CatalogError, Page, Result, limits};

/// A model as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSnapshot {
    /// Which model.
    pub name: String,
    /// Its version: grows with each snapshot.
    pub version: u64,
    /// When it was saved.
    pub at: Timestamp,
    /// What the model wrote, verified by digest.
    pub bytes: Vec<u8>,
}

/// Which forecasts are wanted. Absent conditions match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForecastFilter {
    /// Of this workload.
    pub workload: Option<WorkloadId>,
    /// For this site.
    pub site: Option<SiteId>,
    /// Only those that hold at this moment: neither withdrawn nor expired.
    pub holding_at: Option<Timestamp>,
}

/// Profiles, models, forecasts.
#[async_trait]
pub trait Learned: Send + Sync {
    /// Keeps a profile in place of the workload's former one.
    async fn put_profile(&self, profile: &Profile) -> Result<()>;

    /// One workload's.
    async fn profile(&self, workload: &WorkloadId) -> Result<Option<Profile>>;

    /// Profiles, those updated last first.
    async fn profiles(&self, cursor: Option<u64>, limit: usize) -> Result<Page<Profile>>;

    /// Keeps a snapshot under the next version, which it returns; the oldest beyond
    /// [`MODEL_SNAPSHOTS`](crate::limits::MODEL_SNAPSHOTS) goes.
    ///
    /// # Errors
    /// `Full` above [`MODEL_BYTES`](crate::limits::MODEL_BYTES).
    async fn put_model(&self, name: &str, bytes: &[u8], at: Timestamp) -> Result<u64>;

    /// The newest snapshot whose digest holds; a damaged one is passed over and logged.
    async fn model(&self, name: &str) -> Result<Option<ModelSnapshot>>;

    /// Keeps forecasts, each in place of the one of the same id.
    async fn put_forecasts(&self, forecasts: &[Forecast]) -> Result<()>;

    /// Takes forecasts back. Unknown ones are no error: they may have been dropped already.
    async fn withdraw_forecasts(&self, ids: &[ForecastId], at: Timestamp) -> Result<()>;

    /// One forecast with its reads.
    async fn forecast(&self, id: &ForecastId) -> Result<Option<Forecast>>;

    /// Forecasts, those put last first; `reads` is left empty unless wanted (they can be many).
    async fn forecasts(
        &self,
        filter: &ForecastFilter,
        with_reads: bool,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Page<Forecast>>;
}

/// Whether a snapshot is small enough to keep.
pub(crate) fn check_model(bytes: &[u8]) -> Result<()> {
    if bytes.len() > limits::MODEL_BYTES {
        let remedy = "save a smaller model";
        return Err(CatalogError::Full { what: "bytes of one model snapshot", limit: limits::MODEL_BYTES, remedy });
    }
    Ok(())
}
