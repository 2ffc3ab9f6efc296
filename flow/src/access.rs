//! What was read: made by the collector, taken by the model.

use serde::{Deserialize, Serialize};

use crate::{FilePath, NodeId, RunId, SiteId, Timestamp, VolumeId, WorkloadId};

/// What a process did to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessOp {
    /// Opened for reading.
    Open,
    /// Opened for writing or truncated: what it holds was made here.
    Create,
    /// Bytes returned by a read call of any kind.
    Read,
    /// A window of a mapped file touched for the first time.
    Fault,
    /// Closed.
    Close,
}

/// Where the bytes of a read were, as the mount or the page cache tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Nobody could tell.
    #[default]
    Unknown,
    /// Here, and the reader did not wait.
    Hit,
    /// On its way: the reader waited for the rest.
    Late,
    /// Not asked for before the reader came.
    Miss,
}

/// One access. Consecutive reads that continue each other are folded into one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// When the first of the folded calls was entered.
    pub at: Timestamp,
    /// Which run of which workload. See [`RunStart`].
    pub run: RunId,
    /// The process as its kernel numbers it: tells the workers of one run apart.
    pub process: u32,
    /// The volume.
    pub volume: VolumeId,
    /// The file in it.
    pub path: FilePath,
    /// What was done.
    pub op: AccessOp,
    /// First byte, in bytes from the start; 0 for open, create and close.
    pub offset: u64,
    /// Bytes; 0 for open, create and close.
    pub length: u64,
    /// Time the caller was blocked in the folded calls, microseconds: what a prefetch could have saved.
    pub blocked_us: u32,
    /// Where the bytes were.
    pub found: Found,
}

/// A run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    /// The run.
    pub run: RunId,
    /// What comes back.
    pub workload: WorkloadId,
    /// The command with its variable parts (numbers, dates, hashes) as `#`, for people. No secrets.
    pub command: String,
    /// When its first process started, or was first seen.
    pub at: Timestamp,
    /// Where it runs.
    pub site: SiteId,
    /// On which node.
    pub node: NodeId,
    /// The first numbers of its command line, at most [`RunStart::NUMBERS`]: of each argument, or value behind a `=`, that is
    /// a number and nothing else. None where the agent keeps it to itself, so that the places of the others are the same
    /// in each run of the workload; empty where it tells none, and in batches of an older Foretide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<Option<u32>>,
}

impl RunStart {
    /// Numbers told of one command line. Seeds, epochs and sizes of batches are few.
    pub const NUMBERS: usize = 8;
}

/// A run ended: its last process is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// When.
    pub at: Timestamp,
}

/// What is known to be missing from a batch (promise J).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Kernel events that found their buffer full.
    pub dropped_events: u64,
    /// Accesses to files in no watched volume, or whose path could not be told.
    pub unresolved: u64,
    /// Accesses summarised away because the spool was full.
    pub summarised: u64,
}

/// What one node saw in one interval, in order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessBatch {
    /// The observing node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Grows by one per batch of a node; a gap is a loss.
    pub sequence: u64,
    /// Runs that began.
    pub started: Vec<RunStart>,
    /// What was accessed.
    pub accesses: Vec<Access>,
    /// Runs that ended.
    pub ended: Vec<RunEnd>,
    /// What is missing.
    pub losses: Losses,
}
