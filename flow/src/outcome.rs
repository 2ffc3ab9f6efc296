//! What came of it: made by the mover, kept in the catalog, learned from by the model.

use serde::{Deserialize, Serialize};

use crate::{FilePath, Found, MoveId, NodeId, Refusal, RunId, SiteId, Timestamp, VolumeId, WarmupId, WorkloadId};

/// One thing that happened at a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Outcome {
    /// A move ended well: its bytes are resident and verified.
    Moved {
        /// Which.
        id: MoveId,
        /// When its last byte was verified.
        at: Timestamp,
        /// Bytes of the extent.
        bytes: u64,
        /// Bytes that crossed the link; less than `bytes` where chunks were here already or were compressed.
        wire_bytes: u64,
        /// Of these, bytes that the volume's source gave although the plan had named another site: that one had not got
        /// them, had another content, or was gone.
        #[serde(default)]
        fallback_bytes: u64,
    },
    /// A move was given up.
    Failed {
        /// Which.
        id: MoveId,
        /// When.
        at: Timestamp,
        /// Why, in words.
        why: String,
    },
    /// A file was read through the mount, from open to close.
    Read {
        /// By which run, where it is known.
        run: Option<RunId>,
        /// By which process.
        process: u32,
        /// From which volume.
        volume: VolumeId,
        /// Which file.
        path: FilePath,
        /// When it was opened.
        at: Timestamp,
        /// Different bytes of it that were read.
        bytes: u64,
        /// Of these, bytes that a move had brought before they were read.
        prefetched_bytes: u64,
        /// Time that the readers waited for bytes to come, microseconds.
        waited_us: u64,
        /// Where the bytes were: the worst of its reads.
        found: Found,
        /// Arrival to first read, microseconds, where a move had brought it.
        lead_us: Option<u64>,
    },
    /// Bytes left the store.
    Evicted {
        /// From which volume.
        volume: VolumeId,
        /// Which file.
        path: FilePath,
        /// When.
        at: Timestamp,
        /// Bytes that were resident.
        bytes: u64,
        /// Of these, bytes that a move had brought and nobody read: waste.
        unread_prefetched_bytes: u64,
    },
    /// A rule was upheld.
    Refused(Refusal),
}

/// The store's own answer to a [`CensusRequest`](crate::CensusRequest): what is resident, whole and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Census {
    /// For which warm-up.
    pub warmup: WarmupId,
    /// Files of it that are wholly resident and verified.
    pub resident_files: u64,
    /// Bytes of it that are resident and verified.
    pub resident_bytes: u64,
}

/// What one agent reports at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomeBatch {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub site: SiteId,
    /// Grows by one per batch of a node, so that a batch sent twice counts once.
    pub sequence: u64,
    /// What happened, oldest first.
    pub outcomes: Vec<Outcome>,
    /// Counts that changed.
    pub census: Vec<Census>,
    /// Bytes in the store that are resident and verified.
    pub resident_bytes: u64,
    /// Bytes that the store may hold.
    pub capacity_bytes: u64,
}

/// The reads of one run at one site, added up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadSummary {
    /// The run.
    pub run: RunId,
    /// Its workload.
    pub workload: WorkloadId,
    /// Its command, for people.
    pub command: String,
    /// Where.
    pub site: SiteId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// Files read, opens counted.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Of these, bytes that a move had brought in time: coverage is this share.
    pub prefetched_bytes: u64,
    /// Reads that found their bytes.
    pub hits: u64,
    /// Reads that found them on their way.
    pub late: u64,
    /// Reads that nobody had foreseen.
    pub misses: u64,
    /// Waiting of all its readers added up, seconds.
    pub waited_s: f64,
}
