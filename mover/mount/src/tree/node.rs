//! One name in the tree, in as few bytes as a million of them ask for, and the number that the kernel knows it by.
//!
//! **A version is an inode.** The inode number is a hash of volume, path and the source's version, so it is the same
//! after a restart, and a file that changed at the source is a new inode, as if its writer had renamed a new file over
//! the old name. What follows from that is most of this crate's semantics: a handle that was opened on the old version
//! reads the old version to its end (promise D), cached pages can never belong to another version and are always kept,
//! and nothing needs to be invalidated. Two names of one hard-linked file share a number: they have the version, which
//! holds the source's device and inode, in common, and the path is left out of the hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foretide_flow::{Entry, EntryKind, FileVersion, Timestamp};

use super::Directory;

/// What `stat` tells, and the version that it tells it of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// When the content last changed, by the source's clock.
    pub modified_at: Timestamp,
    /// Kind and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
}

impl Attributes {
    /// The kind alone: one of `S_IFREG`, `S_IFDIR`, `S_IFLNK`.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

/// A node of the tree. 96 bytes and its text; `tests::a_million_known_files_fit` holds us to it.
pub(super) struct Node {
    pub(super) ino: u64,
    size: u64,
    modified_at: Timestamp,
    /// Name, version and link target, one after another: one allocation instead of three.
    text: Box<[u8]>,
    /// Children and lease; directories only.
    pub(super) directory: Option<Box<Directory>>,
    /// References that the kernel holds; a node without any is ours to drop.
    lookups: AtomicU64,
    /// Slot of the directory that holds it.
    pub(super) parent: u32,
    /// Tells this tenant of the slot from earlier ones.
    pub(super) generation: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mode: u16,
    name_bytes: u16,
    version_bytes: u16,
    /// Whether its directory still shows it. What is not shown lives on while the kernel refers to it.
    pub(super) attached: bool,
    /// Whether the source has said that it has another version by now.
    pub(super) outdated: bool,
}

impl Node {
    /// `owner` is user and group as they are here.
    pub(super) fn new(entry: &Entry, owner: (u32, u32), name: &[u8], ino: u64, parent: u32, generation: u32) -> Self {
        let target = link_target(&entry.kind);
        let version = entry.version.0.as_bytes();
        let version = &version[..version.len().min(usize::from(u16::MAX))];
        Self {
            ino,
            size: length_of(entry, target.len()),
            modified_at: entry.modified_at,
            text: [name, version, &target].concat().into(),
            directory: (entry.kind == EntryKind::Directory).then(Box::default),
            lookups: AtomicU64::new(0),
            parent,
            generation,
            uid: owner.0,
            gid: owner.1,
            links: entry.links,
            mode: mode_of(entry),
            name_bytes: name.len() as u16,
            version_bytes: version.len() as u16,
            attached: true,
            outdated: false,
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.text[..usize::from(self.name_bytes)]
    }

    fn version_text(&self) -> &[u8] {
        let start = usize::from(self.name_bytes);
        &self.text[start..start + usize::from(self.version_bytes)]
    }

    pub(super) fn version(&self) -> FileVersion {
        FileVersion(Arc::from(String::from_utf8_lossy(self.version_text()).as_ref()))
    }

    pub(super) fn target(&self) -> &[u8] {
        &self.text[usize::from(self.name_bytes) + usize::from(self.version_bytes)..]
    }

    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            ino: self.ino,
            size: self.size,
            modified_at: self.modified_at,
            mode: u32::from(self.mode),
            uid: self.uid,
            gid: self.gid,
            links: self.links,
        }
    }

    /// Whether `entry` is this inode still: a directory whatever its content, anything else in the same version.
    pub(super) fn is_still(&self, entry: &Entry) -> bool {
        let same_kind = u32::from(self.mode) & libc::S_IFMT == kind_bits(&entry.kind);
        same_kind && (entry.kind == EntryKind::Directory || self.version_text() == entry.version.0.as_bytes())
    }

    /// Takes over what may change without making another inode of it.
    pub(super) fn refresh(&mut self, entry: &Entry, owner: (u32, u32)) {
        self.modified_at = entry.modified_at;
        self.mode = mode_of(entry);
        (self.uid, self.gid, self.links) = (owner.0, owner.1, entry.links);
        (self.attached, self.outdated) = (true, false);
    }

    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    pub(super) fn look(&self, times: u64) {
        self.lookups.fetch_add(times, Ordering::Relaxed);
    }

    pub(super) fn forget(&self, times: u64) {
        let less = |held: u64| Some(held.saturating_sub(times));
        // The closure always answers, so the update cannot fail.
        let _ = self.lookups.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Heap and slot, in bytes, with what the allocator adds.
    pub(super) fn memory_bytes(&self) -> usize {
        const ALLOCATION_BYTES: usize = 16;
        std::mem::size_of::<Self>() + self.text.len() + ALLOCATION_BYTES
    }
}

/// The number of an entry: the same wherever and whenever it is computed. The caller resolves collisions.
pub(super) fn inode_number(volume: &str, entry: &Entry) -> u64 {
    let kind = kind_bits(&entry.kind).to_le_bytes();
    let version: &[u8] = if entry.kind == EntryKind::Directory { b"" } else { entry.version.0.as_bytes() };
    let linked = entry.kind == EntryKind::File && entry.links > 1;
    let path: &[u8] = if linked { b"" } else { entry.path.as_bytes() };
    let hash = [volume.as_bytes(), &kind, path, version].iter().fold(FNV_OFFSET, |h, part| fnv(h, part));
    // Numbers 0 to 1023 are kept for the root, the volumes and "none".
    mix(hash).max(1024)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a over the part and its length, so that the parts cannot run into each other.
fn fnv(hash: u64, part: &[u8]) -> u64 {
    let length = (part.len() as u32).to_le_bytes();
    part.iter().chain(&length).fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finaliser of splitmix64: FNV's low bits alone are weak.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn kind_bits(kind: &EntryKind) -> u32 {
    match kind {
        EntryKind::File => libc::S_IFREG,
        EntryKind::Directory => libc::S_IFDIR,
        EntryKind::Symlink { .. } => libc::S_IFLNK,
    }
}

fn mode_of(entry: &Entry) -> u16 {
    (kind_bits(&entry.kind) | (entry.mode & 0o7777)) as u16
}

/// A link is as long as its target, whatever the source says.
fn length_of(entry: &Entry, target_bytes: usize) -> u64 {
    if matches!(entry.kind, EntryKind::Symlink { .. }) { target_bytes as u64 } else { entry.size }
}

/// The target's bytes: `%XX` in its text stands for one.
fn link_target(kind: &EntryKind) -> Vec<u8> {
    let EntryKind::Symlink { target } = kind else { return Vec::new() };
    let mut bytes = Vec::with_capacity(target.len());
    let mut rest = target.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |i: usize| tail.get(i).and_then(|c| (*c as char).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}
