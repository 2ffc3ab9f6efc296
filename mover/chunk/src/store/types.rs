//! What the store takes and gives.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use foretide_flow::{FilePath, FileVersion, MoveId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

use super::evict::Claim;
use crate::ChunkMap;

/// Which content: one version of one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// Of which volume.
    pub volume: VolumeId,
    /// Which file.
    pub path: FilePath,
    /// Which version of it.
    pub version: FileVersion,
}

/// How the store is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes that its content may occupy on disk, blocks counted.
    pub capacity_bytes: u64,
    /// File versions that it may know: each costs about 400 bytes of memory.
    pub max_files: usize,
    /// Data files that it holds open: well under the usual limit of 1,024 a process.
    pub open_files: usize,
    /// Seconds between two checkpoints: what arrived in between is hashed again after a crash.
    pub checkpoint_interval_s: u64,
    /// A checkpoint is made earlier once this much has arrived, bytes: bounds that hashing to a fraction of a second.
    pub checkpoint_bytes: u64,
    /// Manifests held in memory, bytes; beyond it those not just written are read from the index when needed.
    pub manifest_memory_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity_bytes: 100 << 30,
            max_files: 4 << 20,
            open_files: 256,
            checkpoint_interval_s: 5,
            checkpoint_bytes: 1 << 30,
            manifest_memory_bytes: 256 << 20,
        }
    }
}

/// Why a fill happens: told apart in the counts (coverage, waste) and in eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The move that brings the bytes; none for a demand read.
    pub by: Option<MoveId>,
    /// What it may displace.
    pub claim: Claim,
    /// Keep at least until then, where the planner said so.
    pub keep_until: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What the store holds of one file version.
#[derive(Clone, Debug)]
pub struct Resident {
    /// What it consists of, and where each chunk lies.
    pub map: Arc<ChunkMap>,
    /// Whether all of it is here.
    pub whole: bool,
    /// Bytes of it that are here, verified.
    pub resident_bytes: u64,
    /// Chunks that are not here, in order.
    pub missing: Vec<u32>,
}

/// A wholly resident file, open for reading: the backing file of a FUSE passthrough. It is not evicted while held.
#[derive(Debug)]
pub struct WholeFile {
    /// The data file; its bytes `0..size` are the file's. Never write to it.
    pub file: File,
    /// Bytes.
    pub size: u64,
    pub(super) _lease: Arc<()>,
}

/// What a read found, for its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadNote {
    /// Bytes of the range that are here because a move brought them.
    pub prefetched_bytes: u64,
    /// Whether some of these had not been read before.
    pub first: bool,
    /// When the file's bytes last arrived, if a move brought any of the range.
    pub arrived_at: Option<Timestamp>,
    /// The last move that brought any of the file, likewise.
    pub by: Option<MoveId>,
}

/// What is resident below some paths: newest version of each file only (promise C).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Files wholly resident.
    pub files: u64,
    /// Bytes resident.
    pub bytes: u64,
}

/// Bytes that left the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Whose.
    pub key: FileKey,
    /// When.
    pub at: Timestamp,
    /// Bytes that were resident.
    pub bytes: u64,
    /// Of these, bytes that a move had brought and nobody read.
    pub unread_prefetched_bytes: u64,
}

/// What [`Store::expel`](super::Store::expel) brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expelled {
    /// File versions that left.
    pub gone: Vec<FileKey>,
    /// Resident bytes of these.
    pub bytes: u64,
    /// Those that stay because somebody reads or fills them.
    pub in_use: Vec<FileKey>,
}

/// One part of several, to spread a check over days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// From 1 to `of`.
    pub part: u32,
    /// How many parts.
    pub of: u32,
}

impl Subset {
    /// Everything.
    pub const ALL: Self = Self { part: 1, of: 1 };
}

/// A chunk that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Of which file version.
    pub key: FileKey,
    /// Which bytes of it.
    pub bytes: Range<u64>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Chunks read and hashed.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were not what their id says: dropped, to be fetched again.
    pub corrupt: u64,
    /// Which ones.
    pub lost: Vec<Lost>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing (more) may be evicted for it.
    #[error(
        "store is full: {need_bytes} bytes wanted of {capacity_bytes}, the rest is pinned, kept or in use: raise capacity_bytes or unpin"
    )]
    Full {
        /// Wanted.
        need_bytes: u64,
        /// Allowed.
        capacity_bytes: u64,
    },
    /// The disk has less room than was promised.
    #[error(
        "the disk of store {path} is full below its capacity of {capacity_bytes} bytes: lower capacity_bytes or free space"
    )]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// Promised.
        capacity_bytes: u64,
    },
    /// The chunk's bytes do not hash to its id.
    #[error("chunk {index} of {path} is not what its id says: dropped, fetch it again")]
    Corrupt {
        /// Of which file.
        path: FilePath,
        /// Which chunk.
        index: u32,
    },
    /// Bytes that are not here.
    #[error("bytes {} to {} are not resident: fetch them first", .0.start, .0.end)]
    Missing(Range<u64>),
    /// Another process has it.
    #[error("store {0} is in use by another process: stop that one, or choose another folder")]
    InUse(PathBuf),
    /// Made by a newer Foretide.
    #[error(
        "store format {found} is newer than this build reads ({known}): update this agent, or choose another folder"
    )]
    Newer {
        /// What it says.
        found: u64,
        /// What is read.
        known: u64,
    },
    /// The index is damaged.
    #[error("the store's index cannot be used ({0}): remove the store's folder, its content will be fetched again")]
    Index(String),
    /// The disk said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's word.
        source: std::io::Error,
    },
}
