//! What a person or a scheduler asks for: taken by the API, planned by the planner.

use serde::{Deserialize, Serialize};

use crate::{FilePath, SiteId, Timestamp, VolumeId, WarmupId};

/// "Have this there by then."
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WarmupRequest {
    /// From which volume.
    pub volume: VolumeId,
    /// Files or directories (with all below); the root alone means the whole volume.
    pub paths: Vec<FilePath>,
    /// Where.
    pub site: SiteId,
    /// By when. A soft deadline: late is better than never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need_by: Option<Timestamp>,
    /// Kept at least until then, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_until: Option<Timestamp>,
    /// Free text for people, such as a job's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

/// How far a warm-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WarmupState {
    /// Taken; its files are being learned or it waits for room or rate.
    Queued,
    /// Its moves are in a plan.
    Planned,
    /// Bytes are arriving.
    Moving,
    /// All bytes resident and verified, counted in the site's store (promise C).
    Ready,
    /// Was ready; bytes have since been evicted or found corrupt.
    Degraded,
    /// A rule, an error or missing files prevent it; `why` says which.
    Failed,
    /// Taken back.
    Cancelled,
}

/// A warm-up and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warmup {
    /// Its name.
    pub id: WarmupId,
    /// What was asked.
    pub request: WarmupRequest,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// How far it is.
    pub state: WarmupState,
    /// Why it is in this state, in words, where that is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that the request covers; none until its files are known.
    pub required_bytes: Option<u64>,
    /// Files that the request covers.
    pub required_files: Option<u64>,
    /// Bytes of it that are in the site's store and verified.
    pub resident_bytes: u64,
    /// When it is expected to be ready.
    pub eta: Option<Timestamp>,
    /// When it first was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
}
