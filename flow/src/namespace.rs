//! What files there are: told by the site of the source, kept in the catalog, shown by the mount.

use serde::{Deserialize, Serialize};

use crate::{FilePath, FileVersion, Timestamp, VolumeId};

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its target as the source has it.
    Symlink {
        /// Bytes of the target, hex-free: as text with `%XX` for what is no UTF-8.
        target: String,
    },
}

/// One name in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Where.
    pub path: FilePath,
    /// What.
    #[serde(flatten)]
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// When its content last changed, by the source's clock.
    pub modified_at: Timestamp,
    /// Permission bits, `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner at the source.
    pub uid: u32,
    /// Group at the source.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// The source's own word for this version.
    pub version: FileVersion,
}

/// A directory as it was at one moment: complete, in order of name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Listing {
    /// The volume.
    pub volume: VolumeId,
    /// The directory.
    pub directory: FilePath,
    /// When the source was asked.
    pub seen_at: Timestamp,
    /// Its entries.
    pub entries: Vec<Entry>,
}
