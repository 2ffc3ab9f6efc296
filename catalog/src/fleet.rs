//! Which agents there are, which runs they saw, and what was lost on the way.

use async_trait::async_trait;
use foretide_flow::{AccessBatch, Losses, NodeId, RunId, RunStart, SiteId, Timestamp, VolumeId, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::{Page, Result, Topic};

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Where it serves chunks, as `host:port`, if it does.
    pub chunk_address: Option<String>,
    /// Volumes whose source it serves.
    pub volumes: Vec<VolumeId>,
    /// Folders and prefixes of object stores of which volumes may be made there.
    #[serde(default)]
    pub offers: Vec<String>,
    /// Whether it passes on what its cache holds.
    #[serde(default)]
    pub passes_on: bool,
    /// How it observes, in its own words: `ebpf`, `mount`, …
    pub probes: Vec<String>,
    /// By how much its clock is ahead of the control plane's, microseconds, as it measured that last; below zero it is behind.
    #[serde(default)]
    pub clock_ahead_us: Option<i64>,
    /// When it last said so.
    pub seen_at: Timestamp,
}

impl Agent {
    /// What a change of this agent changed: whoever follows settings hears of what others can have of it, and need not
    /// wake up for each sign of life.
    pub(crate) fn topics(&self, before: Option<&Self>) -> &'static [Topic] {
        let gives = |a: &Self| (a.chunk_address.clone(), a.volumes.clone(), a.passes_on);
        if before.map(gives) == Some(gives(self)) { &[Topic::Fleet] } else { &[Topic::Fleet, Topic::Settings] }
    }
}

/// The numbers with which an agent that lost its own count goes on: one above the highest ever recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextSequences {
    /// Of access batches.
    pub accesses: u64,
    /// Of outcome batches.
    pub outcomes: u64,
}

/// Whether a batch was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// False if it had been recorded before: nothing was changed.
    pub new: bool,
}

/// A run, and its end if it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// How it began.
    #[serde(flatten)]
    pub start: RunStart,
    /// When its last process was gone; none while it runs.
    pub ended_at: Option<Timestamp>,
}

/// Which runs are wanted. Absent conditions match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// This one.
    pub run: Option<RunId>,
    /// Of this workload.
    pub workload: Option<WorkloadId>,
    /// At this site.
    pub site: Option<SiteId>,
    /// Begun at or after this.
    pub started_from: Option<Timestamp>,
    /// Only those that have not ended.
    pub running: bool,
}

/// What is known of one node's batches, and what is known to be missing (promise J).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLosses {
    /// The node.
    pub node: NodeId,
    /// Access batches recorded.
    pub batches: u64,
    /// Numbers between the first and the last that never came.
    pub missing_batches: u64,
    /// Accesses in them.
    pub accesses: u64,
    /// What they said was missing, added up.
    pub losses: Losses,
}

/// Agents, runs, and accounts of what they sent.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Keeps what an agent says of itself, in place of what it said before. Whether others can have more or less of it now is
    /// told as a change of settings, too.
    async fn put_agent(&self, agent: &Agent) -> Result<()>;

    /// All agents, by node.
    async fn agents(&self) -> Result<Vec<Agent>>;

    /// See [`NextSequences`].
    async fn next_sequences(&self, node: &NodeId) -> Result<NextSequences>;

    /// Writes down that a batch came: its runs, its counts, its losses, and the lake file (relative to the lake)
    /// that holds its accesses.
    async fn record_batch(&self, batch: &AccessBatch, lake_file: &str, at: Timestamp) -> Result<Recorded>;

    /// Lake files of batches recorded at or after `from`, oldest first, at most
    /// [`PAGE_ITEMS`](crate::limits::PAGE_ITEMS) after `cursor`: what a model that starts anew reads again. The last
    /// [`LAKE_FILES`](crate::limits::LAKE_FILES) are known.
    async fn lake_files(&self, from: Timestamp, cursor: Option<u64>) -> Result<Page<String>>;

    /// Runs, those recorded last first.
    async fn runs(&self, filter: &RunFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Run>>;

    /// Accounts by node.
    async fn losses(&self) -> Result<Vec<NodeLosses>>;
}
