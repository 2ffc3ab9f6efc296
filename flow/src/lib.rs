//! The values that pass from stage to stage, and nothing else.
//!
//! Foretide is one way: kernel events become an [`AccessBatch`], accesses a [`Profile`], a profile a
//! [`Forecast`], forecasts and [`WarmupRequest`]s a [`Plan`] of [`Move`]s, a move a warmed file and an
//! [`Outcome`], and outcomes train the model again. A value belongs here if one stage makes it and another
//! takes it. A helper never qualifies: parsing of configuration, encoding for a wire, arithmetic on plans live
//! in the room that needs them.
//!
//! Values are checked where they are made (`FilePath::new`, `SiteId::new`, …), so the rooms never check twice.

mod access;
mod forecast;
mod ids;
mod manifest;
mod namespace;
#[cfg(feature = "openapi")]
mod openapi;
mod outcome;
mod path;
mod plan;
mod policy;
mod profile;
mod selection;
mod shared;
mod topology;
mod units;
mod warmup;

pub use access::{Access, AccessBatch, AccessOp, Found, Losses, RunEnd, RunStart};
pub use forecast::{Forecast, PredictedRead, TimeWindow};
pub use ids::{
    ChunkId, FileVersion, ForecastId, IdError, ManifestId, MoveId, NodeId, PlanId, RunId, SiteId, VolumeId, WarmupId,
    WorkloadId,
};
pub use manifest::{ChunkRef, Manifest};
pub use namespace::{Entry, EntryKind, Listing};
pub use outcome::{Census, Outcome, OutcomeBatch, ReadSummary};
pub use path::{FilePath, PathError};
pub use plan::{Assignment, CensusRequest, LearnRequest, LeftOut, Move, MoveCause, MoveState, Plan, Priority, Refusal};
pub use policy::{Effect, Mode, Rule, Ruleset, RulesetError, Verdict};
pub use profile::{Calendar, ExtentHabit, OrderHabit, PathTemplate, Profile};
pub use selection::{Selector, SelectorError};
pub use shared::{SharedChunk, SharedFile};
pub use topology::{CacheSpec, Link, Site, Topology, TopologyError, Volume};
pub use units::{BitsPerSecond, Timestamp};
pub use warmup::{MoveFailures, OnUnready, Promised, Warmup, WarmupRequest, WarmupState};
