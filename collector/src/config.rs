//! What an admin may say about observing.

use std::path::PathBuf;

use foretide_flow::{NodeId, SiteId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::probe::Tier;

/// How this node is observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Where batches wait for the control plane; made if it is not there.
    pub spool_dir: PathBuf,
    /// Bytes that may wait there. An hour of a busy loader is about 50 MiB.
    #[serde(default = "defaults::spool_bytes")]
    pub spool_bytes: u64,
    /// A batch is given out after this time, milliseconds, if anything happened; a run's start or end goes at once.
    #[serde(default = "defaults::batch_interval_ms")]
    pub batch_interval_ms: u64,
    /// Accesses in one batch at most: bounds memory and the size of one request.
    #[serde(default = "defaults::batch_accesses")]
    pub batch_accesses: usize,
    /// The kernel's buffers are read this often, milliseconds. Each look costs some 40 us, and the ring holds what two busy
    /// cores tell in five times that.
    #[serde(default = "defaults::poll_interval_ms")]
    pub poll_interval_ms: u64,
    /// How reads are seen.
    #[serde(default)]
    pub tier: Tier,
    /// Bytes of the ring between kernel and agent, a power of two: 4 MiB hold 40,000 events, far more than arrive
    /// between two polls.
    #[serde(default = "defaults::ring_bytes")]
    pub ring_bytes: u32,
    /// Files whose path is kept in memory, about 150 bytes each. The kernel tells the path of others again.
    #[serde(default = "defaults::paths_kept")]
    pub paths_kept: usize,
    /// Whether numbers that stand alone in command lines are told: seeds and the like, by which the order of reads follows.
    #[serde(default = "defaults::numbers")]
    pub numbers: bool,
    /// Processes that are not observed besides the agent itself.
    #[serde(default)]
    pub ignore_processes: Vec<u32>,
}

impl Config {
    /// With everything but the names left to its default.
    pub fn new(node: NodeId, site: SiteId, spool_dir: PathBuf) -> Self {
        Self {
            node,
            site,
            spool_dir,
            spool_bytes: defaults::spool_bytes(),
            batch_interval_ms: defaults::batch_interval_ms(),
            batch_accesses: defaults::batch_accesses(),
            poll_interval_ms: defaults::poll_interval_ms(),
            tier: Tier::default(),
            ring_bytes: defaults::ring_bytes(),
            paths_kept: defaults::paths_kept(),
            numbers: defaults::numbers(),
            ignore_processes: Vec::new(),
        }
    }
}

mod defaults {
    pub(super) fn spool_bytes() -> u64 {
        256 << 20
    }
    pub(super) fn batch_interval_ms() -> u64 {
        200
    }
    pub(super) fn batch_accesses() -> usize {
        20_000
    }
    pub(super) fn poll_interval_ms() -> u64 {
        20
    }
    pub(super) fn ring_bytes() -> u32 {
        4 << 20
    }
    pub(super) fn paths_kept() -> usize {
        100_000
    }
    pub(super) fn numbers() -> bool {
        true
    }
}

/// A directory that stands for a volume: what is read below it becomes accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Its directory, or the mount point where it appears.
    pub root: PathBuf,
}
