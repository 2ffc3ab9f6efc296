//! What a file version consists of: made by mover/chunk, kept in the catalog, taken by the other site.

use serde::{Deserialize, Serialize};

use crate::{ChunkId, FileVersion, ManifestId};

/// One chunk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChunkRef {
    /// Its digest.
    pub id: ChunkId,
    /// Its bytes. Its offset is the sum of the lengths before it.
    pub length: u32,
}

/// A file version, cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Manifest {
    /// Digest of the list of chunks.
    pub id: ManifestId,
    /// Which version of the source's file was cut.
    pub version: FileVersion,
    /// Bytes of the file: the sum of its chunks' lengths.
    pub size: u64,
    /// Its chunks in order.
    pub chunks: Vec<ChunkRef>,
}
