//! Which bytes stand in several files: told by the site of the source, kept in the catalog, counted on by the planner.

use serde::{Deserialize, Serialize};

use crate::{ChunkId, FilePath, FileVersion, VolumeId};

/// A chunk that more than one file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedChunk {
    /// Its digest.
    pub id: ChunkId,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
}

/// What of a file stands in other files too, as far as its source has cut both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedFile {
    /// Of which volume.
    pub volume: VolumeId,
    /// Which file.
    pub path: FilePath,
    /// Of which version this is true.
    pub version: FileVersion,
    /// In order of offset, none over another; none at all if nothing is shared any more.
    pub chunks: Vec<SharedChunk>,
}

impl SharedFile {
    /// Chunks of one file that are told, the first ones: 1 GiB where chunks have 64 KiB, which is 2 MB of JSON. What is
    /// beyond is taken for the file's own.
    pub const CHUNKS_MAX: usize = 16_384;
}
