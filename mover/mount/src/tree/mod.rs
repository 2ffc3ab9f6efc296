//! The tree as far as it is known: one synchronous table, no waiting, no kernel, no network.
//!
//! Invariants, checked by the tests against a plain map of maps:
//! 1. A directory is either known, complete and in order of name, until its lease ends, or it is not known; what is
//!    known of single names in a directory that is not stands in `loose`.
//! 2. A node is shown by its directory (`attached`), or the kernel refers to it, or a node that lives refers to it as
//!    its parent; otherwise its slot is free.
//! 3. `by_ino` leads from every number in use to one node; further names of a hard-linked file stand in `aliases`, and
//!    then that node is shown.
//!
//! Time is an argument. Memory is bounded by [`Tree::shrink`], which forgets the directories that were not used for
//! longest; the kernel's references are counted and their nodes outlive that.
//!
//! What is asked of the table stands here, how it learns in `learn.rs`, its slots in `slots.rs`, and what it would be
//! good to know soon in `ahead.rs`.

mod ahead;
mod learn;
mod node;
mod owners;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Timestamp, VolumeId};

pub use node::Attributes;
use node::Node;
pub use owners::Owners;

/// The number of the mount's root, as the kernel wants it.
pub const ROOT_INO: u64 = 1;

/// What volumes and the root look like before the source has told.
const ROOT_MODE: u32 = 0o755;

/// A node as a directory refers to it: a slot, and which of its tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    slot: u32,
    generation: u32,
}

/// A directory's children at one moment, in order of name.
pub type Snapshot = Arc<[Child]>;

/// Which file or directory, in words the source understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The volume.
    pub volume: VolumeId,
    /// The path in it.
    pub path: FilePath,
}

/// The answer to "what is called so in there?".
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// This, for so long.
    Here(Attributes, Duration),
    /// Nothing, for so long.
    Absent(Duration),
    /// The source must be asked.
    Unknown,
    /// The directory is none, or is gone.
    NoDirectory,
}

/// One name of a directory that is not known as a whole.
struct Loose {
    child: Option<Child>,
    valid_until: Instant,
}

#[derive(Default)]
struct Directory {
    children: Snapshot,
    loose: BTreeMap<Box<[u8]>, Loose>,
    /// Until when `children` may be believed; none if they never were learned, or were forgotten.
    valid_until: Option<Instant>,
    /// Nodes that have this one as their parent, attached or not.
    pins: u32,
    /// When it was last looked into, milliseconds since the tree was made.
    used_at_ms: AtomicU64,
    /// When it was last learned, on the same scale.
    learned_at_ms: u64,
    /// When directories were last asked for ahead because of this one, on the same scale.
    ahead_at_ms: AtomicU64,
    /// Whether the kernel's own copy of the list, if it has one, is of an earlier `children`.
    listing_changed: AtomicBool,
}

/// Inode numbers are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h << 8) ^ u64::from(*b));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What is known of the namespace. See the module.
pub struct Tree {
    slots: Vec<Option<Node>>,
    free: Vec<u32>,
    by_ino: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    aliases: HashMap<u64, Vec<u32>>,
    /// Directories of which something is known that can be forgotten.
    known: BTreeSet<u32>,
    next_generation: u32,
    owners: Owners,
    started: Instant,
}

impl Tree {
    /// A tree whose root holds `volumes`, of which nothing is known yet. `owner` is the root's user and group.
    pub fn new(volumes: &[VolumeId], owner: (u32, u32), now: Instant) -> Self {
        let mut tree = Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_ino: HashMap::default(),
            aliases: HashMap::new(),
            known: BTreeSet::new(),
            next_generation: 0,
            owners: Owners::default(),
            started: now,
        };
        tree.place_node(Node::new(&untold_directory(owner), owner, b"", ROOT_INO, 0, 0));
        for volume in volumes {
            tree.show(volume, owner);
        }
        tree
    }

    /// Shows what it learns from now on as these owners'.
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Shows one more volume, of which nothing is known yet. Answers whether it is new.
    pub fn show(&mut self, volume: &VolumeId, owner: (u32, u32)) -> bool {
        let (root, name) = (self.root(), volume.as_str().as_bytes());
        if self.child_named(root, name).is_some() {
            return false;
        }
        let child = self.insert(root, volume.as_str(), name, &untold_directory(owner));
        let mut children: Vec<Child> = self.directory(ROOT_INO).map_or(Vec::new(), |(_, d)| d.children.to_vec());
        let place = children.partition_point(|c| self.name_of(*c) < name);
        children.insert(place, child);
        if let Some(directory) = self.directory_mut(root) {
            directory.children = children.into();
            directory.listing_changed.store(true, Ordering::Relaxed);
        }
        true
    }

    /// What `stat` tells of a number; none if it is not in use.
    pub fn attributes(&self, ino: u64) -> Option<Attributes> {
        Some(self.node(ino)?.attributes())
    }

    /// The version that a number stands for.
    pub fn version(&self, ino: u64) -> Option<FileVersion> {
        Some(self.node(ino)?.version())
    }

    /// A link's target.
    pub fn target(&self, ino: u64) -> Option<Vec<u8>> {
        let node = self.node(ino)?;
        (node.attributes().kind() == libc::S_IFLNK).then(|| node.target().to_vec())
    }

    /// Volume and path of a number; none for the root and for what is not in use.
    pub fn place(&self, ino: u64) -> Option<Place> {
        self.place_of_slot(*self.by_ino.get(&ino)?)
    }

    /// The number of the directory that holds it.
    pub fn parent(&self, ino: u64) -> Option<u64> {
        Some(self.at(self.node(ino)?.parent)?.ino)
    }

    /// The number at a path, as far as it is known; leases do not matter.
    pub fn ino_at(&self, volume: &VolumeId, path: &FilePath) -> Option<u64> {
        let mut slot = self.child_named(self.root(), volume.as_str().as_bytes())?.slot;
        for name in path.as_bytes().split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            slot = self.child_named(slot, name)?.slot;
        }
        Some(self.at(slot)?.ino)
    }

    /// What `name` is in directory `parent`. The caller counts the kernel's reference with [`Tree::look`].
    pub fn find(&self, parent: u64, name: &[u8], now: Instant) -> Found {
        let Some((slot, directory)) = self.directory(parent) else { return Found::NoDirectory };
        self.mark_used(directory, now);
        let known = if slot == self.root() { Some(FOREVER) } else { remaining(directory.valid_until, now) };
        let (child, ttl) = match (known, directory.loose.get(name)) {
            (Some(ttl), _) => (self.child_named(slot, name), ttl),
            (None, Some(loose)) if loose.valid_until > now => (loose.child, loose.valid_until - now),
            _ => return Found::Unknown,
        };
        match child.and_then(|c| self.of_child(c)) {
            Some(node) => Found::Here(node.attributes(), ttl),
            None => Found::Absent(ttl),
        }
    }

    /// How long a number's attributes may be believed: as long as its directory is.
    pub fn lease(&self, ino: u64, now: Instant) -> Option<Duration> {
        let node = self.node(ino)?;
        let parent = self.at(node.parent)?.directory.as_deref()?;
        // Nothing will ever change about a version that nobody shows any more.
        if !node.attached || node.parent == self.root() {
            return Some(FOREVER);
        }
        let loose = parent.loose.get(node.name()).map(|l| l.valid_until);
        remaining(parent.valid_until.max(loose), now)
    }

    /// A directory's children, if it is known.
    pub fn snapshot(&self, ino: u64, now: Instant) -> Option<(Snapshot, Duration)> {
        let (slot, directory) = self.directory(ino)?;
        self.mark_used(directory, now);
        let ttl = if slot == self.root() { FOREVER } else { remaining(directory.valid_until, now)? };
        Some((Arc::clone(&directory.children), ttl))
    }

    /// Whether the list of children is the one that was last opened: the kernel may use its own copy.
    pub fn is_same_listing(&self, ino: u64) -> bool {
        self.directory(ino).is_some_and(|(_, d)| !d.listing_changed.swap(false, Ordering::Relaxed))
    }

    /// Whether a directory's children were ever learned and not forgotten since, lease or no lease.
    pub fn was_known(&self, ino: u64) -> bool {
        self.directory(ino).is_some_and(|(_, d)| d.valid_until.is_some())
    }

    /// One child of a snapshot: its name and attributes; none if it is gone since.
    pub fn child(&self, child: Child) -> Option<(&[u8], Attributes)> {
        let node = self.of_child(child)?;
        Some((node.name(), node.attributes()))
    }

    /// Counts a reference that the kernel takes.
    pub fn look(&self, ino: u64) {
        if let Some(node) = self.node(ino) {
            node.look(1);
        }
    }

    /// Counts references that the kernel gives back; what nobody needs any more goes.
    pub fn forget(&mut self, ino: u64, times: u64) {
        if let Some(&slot) = self.by_ino.get(&ino) {
            if let Some(node) = self.at(slot) {
                node.forget(times);
            }
            self.release(slot);
        }
    }

    /// Whether the source has said that it has another version by now.
    pub fn is_outdated(&self, ino: u64) -> bool {
        self.node(ino).is_some_and(|node| node.outdated)
    }

    /// Nodes in the tree, whatever their kind.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes that the table occupies.
    pub fn memory_bytes(&self) -> usize {
        let nodes: usize = self.slots.iter().flatten().map(Node::memory_bytes).sum();
        let children: usize = self
            .slots
            .iter()
            .flatten()
            .filter_map(|n| n.directory.as_deref())
            .map(|d| std::mem::size_of::<Directory>() + d.children.len() * std::mem::size_of::<Child>())
            .sum();
        let index = self.by_ino.capacity() * (std::mem::size_of::<(u64, u32)>() + 1) * 8 / 7;
        nodes + children + index + (self.slots.capacity() - self.slots.len()) * std::mem::size_of::<Option<Node>>()
    }

    fn used_at(&self, slot: u32) -> Option<u64> {
        Some(self.at(slot)?.directory.as_deref()?.used_at_ms.load(Ordering::Relaxed))
    }

    fn mark_used(&self, directory: &Directory, now: Instant) {
        directory.used_at_ms.store(self.ms(now), Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Names in a directory, as far as it is known.
    pub fn children_count(&self, ino: u64) -> usize {
        self.directory(ino).map_or(0, |(_, d)| d.children.len())
    }

    /// The number of a name in a directory, as far as it is known; leases do not matter.
    pub fn child_ino(&self, ino: u64, name: &[u8]) -> Option<u64> {
        let (slot, _) = self.directory(ino)?;
        Some(self.at(self.child_named(slot, name)?.slot)?.ino)
    }

    /// Whether a directory is known, complete, and believed still.
    pub fn is_known(&self, ino: u64, now: Instant) -> bool {
        self.directory(ino).is_some_and(|(_, d)| remaining(d.valid_until, now).is_some())
    }

    /// Takes note that a directory is wanted, as if somebody had looked into it.
    pub fn use_directory(&self, ino: u64, now: Instant) {
        if let Some((_, directory)) = self.directory(ino) {
            self.mark_used(directory, now);
        }
    }
}

/// What the root, and a volume whose source has not told yet, look like.
fn untold_directory(owner: (u32, u32)) -> Entry {
    Entry {
        path: FilePath::root(),
        kind: EntryKind::Directory,
        size: 0,
        modified_at: Timestamp::now(),
        mode: ROOT_MODE,
        uid: owner.0,
        gid: owner.1,
        links: 2,
        version: FileVersion("".into()),
    }
}

/// The lease of the root, which only the agent changes; the kernel is told when it does.
const FOREVER: Duration = Duration::from_secs(3600);

fn remaining(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.and_then(|u| u.checked_duration_since(now)).filter(|left| !left.is_zero())
}
