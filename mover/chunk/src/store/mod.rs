//! The chunk store of a cache site: public face (skeleton; bodies follow in the next commits).

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretide_flow::{FilePath, FileVersion, Manifest, MoveId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes that its content may occupy on disk, blocks counted.
    pub capacity_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { capacity_bytes: 100 << 30 }
    }
}

/// Why a fill happens: told apart in the counts (coverage, waste) and in eviction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The move that brings the bytes; none for a demand read.
    pub by: Option<MoveId>,
    /// Keep at least until then, where the planner said so.
    pub keep_until: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What the store holds of one file version.
#[derive(Clone, Debug)]
pub struct Resident {
    /// What it consists of.
    pub manifest: Arc<Manifest>,
    /// Whether all of it is here.
    pub whole: bool,
    /// Bytes of it that are here, verified.
    pub resident_bytes: u64,
}

/// A wholly resident file, open for reading: the backing file of a FUSE passthrough. It is not evicted while held.
#[derive(Debug)]
pub struct WholeFile {
    /// The sparse data file; its bytes `0..size` are the file's.
    pub file: File,
}

/// What a read found, for the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadNote {
    /// Bytes of the range that are resident because a move brought them.
    pub prefetched_bytes: u64,
    /// When the bytes arrived, the latest of them, if a move brought any.
    pub arrived_at: Option<Timestamp>,
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

/// The `n`th of `t` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// From 1 to `of`.
    pub part: u32,
    /// How many parts.
    pub of: u32,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Chunks read and hashed.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were not what their id says: dropped, to be fetched again.
    pub corrupt: u64,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing (more) may be evicted for it.
    #[error(
        "store is full: {need_bytes} bytes wanted, {capacity_bytes} allowed and all of it pinned or in use: raise capacity_bytes or unpin"
    )]
    Full {
        /// Wanted.
        need_bytes: u64,
        /// Allowed.
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
    /// Bytes of the range are not here.
    #[error("bytes {0:?} are not resident: fetch them first")]
    Missing(Range<u64>),
}

/// One fill in progress: room reserved, missing chunks known. Several may fill one file; dropping it gives back
/// the room it did not use.
#[derive(Debug)]
pub struct Fill {
    missing: Vec<u32>,
}

impl Fill {
    /// Chunks of the asked range that are not here and in no other file, in order.
    pub fn missing(&self) -> &[u32] {
        &self.missing
    }

    /// Takes one chunk: verified against its id first (promise D), then written. A chunk already here is no error.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes are not the chunk's; nothing is stored then.
    pub fn put(&self, _index: u32, _bytes: &[u8]) -> Result<(), StoreError> {
        unfilled()
    }
}

/// The store. Share it as `Arc<Store>`; every method may block on disk.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

fn unfilled() -> ! {
    panic!("the store's bodies follow in the next commit")
}

impl Store {
    /// Opens or makes a store. What was written since the last checkpoint is verified here (promises D and E).
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be used or was made by a newer Foretide.
    pub fn open(root: &Path, _config: Config) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self { root: root.to_owned() }))
    }

    /// Where it lives.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is here of a file version; none if nothing is.
    pub fn lookup(&self, _key: &FileKey) -> Option<Resident> {
        unfilled()
    }

    /// Opens a wholly resident file for reading.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is not whole.
    pub fn open_whole(&self, _key: &FileKey) -> Result<WholeFile, StoreError> {
        unfilled()
    }

    /// Reads resident bytes into `buf`; returns how many (fewer only at the file's end).
    ///
    /// # Errors
    /// [`StoreError::Missing`] with the first missing range; [`StoreError::Corrupt`] if a chunk was found bad and dropped.
    pub fn read(&self, _key: &FileKey, _offset: u64, _buf: &mut [u8]) -> Result<usize, StoreError> {
        unfilled()
    }

    /// Notes that a range was read (by passthrough too), for eviction and for coverage and waste.
    pub fn note_read(&self, _key: &FileKey, _range: Range<u64>, _at: Timestamp) -> ReadNote {
        unfilled()
    }

    /// Begins to fill a byte range of a file: reserves room (evicting if need be), copies chunks that are here in
    /// other files.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn fill(
        &self,
        _key: &FileKey,
        _manifest: &Arc<Manifest>,
        _range: Range<u64>,
        _arrival: &Arrival,
    ) -> Result<Fill, StoreError> {
        unfilled()
    }

    /// Pins what is and what will be resident below `paths` until then.
    pub fn pin(&self, _volume: &VolumeId, _paths: &[FilePath], _until: Option<Timestamp>) {
        unfilled()
    }

    /// Counts what is resident below `paths` (promise C).
    pub fn census(&self, _volume: &VolumeId, _paths: &[FilePath]) -> Census {
        unfilled()
    }

    /// Bytes resident and verified.
    pub fn resident_bytes(&self) -> u64 {
        unfilled()
    }

    /// Bytes that may be held.
    pub fn capacity_bytes(&self) -> u64 {
        unfilled()
    }

    /// What was evicted since last asked.
    pub fn drain_evicted(&self) -> Vec<Evicted> {
        unfilled()
    }

    /// Reads and hashes one subset of what is resident; what is corrupt is dropped.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn check(&self, _subset: Subset) -> Result<CheckReport, StoreError> {
        unfilled()
    }

    /// Makes what was stored so far survive power loss.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        unfilled()
    }
}
