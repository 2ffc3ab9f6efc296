//! What a person or a scheduler asks for: taken by the API, planned by the planner.

use std::collections::BTreeMap;

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
    /// Void from then on, whatever is there: a hard end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<Timestamp>,
    /// Kept at least until then, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_until: Option<Timestamp>,
    /// The share of the bytes, above 0 and at most 1, with which the job can begin: PARTIAL from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_fraction: Option<f64>,
    /// It fails if it covers more bytes than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// What its job does if the data is not there when it could start: for those who start it.
    #[serde(default, skip_serializing_if = "OnUnready::is_default")]
    pub on_unready: OnUnready,
    /// Free text for people, such as a job's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Names and values for programs, such as a job's number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl WarmupRequest {
    /// As soon as possible, without conditions.
    pub fn new(volume: VolumeId, paths: Vec<FilePath>, site: SiteId) -> Self {
        Self {
            volume,
            paths,
            site,
            need_by: None,
            expire_at: None,
            pin_until: None,
            min_fraction: None,
            max_bytes: None,
            on_unready: OnUnready::default(),
            label: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// What a job does whose data is not there when it could start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnUnready {
    /// It starts, and reads over the link what is missing.
    #[default]
    RunCold,
    /// It waits.
    Wait,
    /// It does not run.
    Fail,
}

impl OnUnready {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
    /// At least `min_fraction` of the bytes are resident and verified, counted in the site's store.
    Partial,
    /// All bytes resident and verified, counted in the site's store (promise C).
    Ready,
    /// Was ready, or partly so; bytes have since been evicted or found corrupt.
    Degraded,
    /// A rule, an error or missing files prevent it; `why` says which.
    Failed,
    /// Taken back.
    Cancelled,
    /// Its `expire_at` has passed.
    Expired,
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
    /// When the plan expects it to be ready.
    pub eta: Option<Timestamp>,
    /// The first `eta` that was told, and when: what the truth of later ones is learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Promised>,
    /// When it first was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
}

/// A time that was named for a warm-up to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Promised {
    /// When it was named.
    pub at: Timestamp,
    /// The time named.
    pub eta: Timestamp,
}
