//! What is to be moved: made by the planner, carried out by the mover.

use serde::{Deserialize, Serialize};

use crate::{FilePath, ForecastId, MoveId, PlanId, SiteId, Timestamp, VolumeId, WarmupId, WorkloadId};

/// Who goes first, on the link, on the disk and in the cache (promise G).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for it now.
    Demand,
    /// Somebody asked for it by a time.
    Deadline,
    /// A forecast.
    Background,
}

/// Why a move is in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MoveCause {
    /// A forecast said so.
    Forecast {
        /// Which.
        forecast: ForecastId,
        /// Of which workload.
        workload: WorkloadId,
    },
    /// A warm-up request asked for it.
    Warmup {
        /// Which.
        warmup: WarmupId,
    },
}

/// One extent, from one site to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Move {
    /// Its name; stays over plans as long as extent, destination and cause do.
    pub id: MoveId,
    /// From which volume.
    pub volume: VolumeId,
    /// Which file.
    pub path: FilePath,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whence.
    pub from: SiteId,
    /// Whither.
    pub to: SiteId,
    /// Not before this.
    pub start_at: Timestamp,
    /// Should be there by this.
    pub due_at: Timestamp,
    /// Keep at least until this: the expected last use.
    pub keep_until: Timestamp,
    /// Who goes first.
    pub priority: Priority,
    /// Probability that the bytes are read.
    pub probability: f64,
    /// Stall that it is expected to save, seconds.
    pub benefit_s: f64,
    /// What it costs, money.
    pub cost: f64,
    /// Why.
    pub cause: MoveCause,
    /// In words, for people.
    pub reason: String,
    /// Of its bytes, those that are expected to be there in other files by then, or to come with them: they need not
    /// cross.
    #[serde(default)]
    pub shared_bytes: u64,
}

/// A move that a rule forbids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// From which volume.
    pub volume: VolumeId,
    /// Which file.
    pub path: FilePath,
    /// Whither it may not go.
    pub to: SiteId,
    /// The rule, or `default` where none matched.
    pub rule: String,
    /// Who refused: `planner`, `sender` or `receiver`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A demand that the plan could not serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftOut {
    /// From which volume.
    pub volume: VolumeId,
    /// Which file; a directory if several below it were left out for one reason.
    pub path: FilePath,
    /// Whither it was wanted.
    pub to: SiteId,
    /// Files that this stands for.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why, in words: no link, no room, no rate before the deadline, not worth its cost.
    pub why: String,
}

/// Moves and what was decided against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Its name.
    pub id: PlanId,
    /// The `now` that it was made for.
    pub made_at: Timestamp,
    /// It looks no further than this.
    pub horizon: Timestamp,
    /// Moves, in the order in which they should start.
    pub moves: Vec<Move>,
    /// What rules forbid.
    pub refused: Vec<Refusal>,
    /// What did not fit.
    pub left_out: Vec<LeftOut>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// In the plan, not started.
    Planned,
    /// Handed to the destination's agent.
    Running,
    /// All its bytes are resident and verified.
    Done,
    /// Given up; the outcome says why.
    Failed,
    /// No longer wanted.
    Cancelled,
}

/// A directory that the control plane wants to know: asked of an agent at the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LearnRequest {
    /// Of which volume.
    pub volume: VolumeId,
    /// Which directory.
    pub directory: FilePath,
    /// Whether everything below it is wanted too.
    pub recursive: bool,
}

/// A count that the control plane wants of a site's own store (promise C).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CensusRequest {
    /// For which warm-up.
    pub warmup: WarmupId,
    /// Of which volume.
    pub volume: VolumeId,
    /// Files, or directories with all below.
    pub paths: Vec<FilePath>,
    /// Of what is below `paths`, not this; see [`Selector`](crate::Selector).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<FilePath>,
    /// Of that, only what matches one of these globs; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<String>,
    /// Pinned until then, so that nothing of it is evicted.
    pub pin_until: Option<Timestamp>,
}

/// What an agent takes when it asks for its work: the change since it last asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Assignment {
    /// Ask for changes after this number next time.
    pub cursor: u64,
    /// Moves to carry out, new or changed.
    pub run: Vec<Move>,
    /// Moves to stop.
    pub cancel: Vec<MoveId>,
    /// Directories to tell the control plane about.
    pub learn: Vec<LearnRequest>,
    /// Warm-ups to count in the own store whenever it changes: the whole list, each time.
    pub census: Vec<CensusRequest>,
    /// Whether all prefetch is switched off: demand reads and warm-ups alone go on.
    pub prefetch_off: bool,
    /// Another value when volumes, rules, or those who serve are others than before.
    #[serde(default)]
    pub fleet: Option<String>,
}
