//! The tree as far as it is known: one synchronous table, no waiting, no kernel, no network.
//!
//! Invariants, checked by the tests against a plain map of maps:
//! 1. A directory is either known, complete and in order of name, until its lease ends, or it is not known; what is
//!    known of single names in a directory that is not stands in `loose`.
//! 2. A node is shown by its directory (`attached`), or the kernel refers to it, or a node that lives refers to it as
//!    its parent; otherwise its slot is free.
//! 3. `by_ino` leads from every number in use to one node; further names of a hard-linked file stand in `aliases`.
//!
//! Time is an argument. Memory is bounded by [`Tree::shrink`], which forgets the directories that were not used for
//! longest; the kernel's references are counted and their nodes outlive that.

mod node;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Listing, Timestamp, VolumeId};

pub use node::Attributes;
use node::{Node, inode_number};

/// The number of the mount's root, as the kernel wants it.
pub const ROOT_INO: u64 = 1;

/// Single names remembered of a directory that is not known as a whole. Beyond it the oldest in name order go: such a
/// directory is being learned, and the listing will replace them.
const LOOSE_NAMES_MAX: usize = 4096;

/// Directories of more names than this are learned again only when somebody looks: listing them in the background
/// every lease would take a good part of a thin link (about 100 bytes a name).
const REFRESH_NAMES_MAX: usize = 20_000;

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
            started: now,
        };
        let directory = Entry {
            path: FilePath::root(),
            kind: EntryKind::Directory,
            size: 0,
            modified_at: Timestamp::now(),
            mode: ROOT_MODE,
            uid: owner.0,
            gid: owner.1,
            links: 2,
            version: FileVersion("".into()),
        };
        let root = tree.place_node(Node::new(&directory, b"", ROOT_INO, 0, 0));
        let mut names: Vec<_> = volumes.to_vec();
        names.sort();
        names.dedup();
        let children: Vec<_> =
            names.iter().map(|v| tree.insert(root, v.as_str(), v.as_str().as_bytes(), &directory)).collect();
        tree.directory_mut(root).expect("the root is a directory").children = children.into();
        tree
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

    /// Takes over a complete listing: `ino`'s children are these until `now + lease`. Returns the names that stand
    /// for another inode now, or for none.
    pub fn learn(&mut self, ino: u64, listing: &Listing, now: Instant, lease: Duration) -> Vec<Box<[u8]>> {
        let Some(volume) = self.place(ino).map(|p| p.volume) else { return Vec::new() };
        let Some(&slot) = self.by_ino.get(&ino) else { return Vec::new() };
        let Some(directory) = self.directory_mut(slot) else { return Vec::new() };
        let loose = std::mem::take(&mut directory.loose);
        let mut before: Vec<Child> = directory.children.iter().copied().collect();
        before.extend(loose.into_values().filter_map(|l| l.child));
        let mut before: Vec<Child> = before.into_iter().filter(|c| self.of_child(*c).is_some()).collect();
        before.sort_by(|a, b| self.name_of(*a).cmp(self.name_of(*b)));
        before.dedup();

        let mut entries: Vec<&Entry> = listing.entries.iter().filter(|e| !e.path.is_root()).collect();
        entries.sort_by(|a, b| a.path.name().cmp(b.path.name()));
        entries.dedup_by(|a, b| a.path.name() == b.path.name());

        let mut changed = Vec::new();
        let mut old = before.into_iter().peekable();
        let mut children = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.path.name();
            let mut kept = None;
            while let Some(child) = old.next_if(|c| self.name_of(*c) <= name) {
                if self.name_of(child) == name && self.of_child(child).is_some_and(|n| n.is_still(entry)) {
                    kept = Some(child);
                } else {
                    changed.push(self.name_of(child).into());
                    self.detach(child.slot);
                }
            }
            children.push(match kept {
                Some(child) => self.refreshed(child, entry),
                None => self.insert(slot, volume.as_str(), name, entry),
            });
        }
        for child in old {
            changed.push(self.name_of(child).into());
            self.detach(child.slot);
        }
        let learned_at_ms = self.ms(now);
        if let Some(directory) = self.directory_mut(slot) {
            if *directory.children != *children {
                directory.children = children.into();
                directory.listing_changed.store(true, Ordering::Relaxed);
            }
            directory.valid_until = Some(now + lease);
            directory.learned_at_ms = learned_at_ms;
            self.known.insert(slot);
        }
        changed
    }

    /// Takes over what is known of one name, until `now + lease`; no entry means that there is none.
    pub fn learn_one(&mut self, ino: u64, name: &[u8], entry: Option<&Entry>, now: Instant, lease: Duration) {
        let Some(volume) = self.place(ino).map(|p| p.volume) else { return };
        let Some(&slot) = self.by_ino.get(&ino) else { return };
        let Some(directory) = self.directory(ino).map(|(_, d)| d) else { return };
        let before = directory.loose.get(name).and_then(|l| l.child).or_else(|| self.child_named(slot, name));
        let same = |c: &Child| entry.is_some_and(|e| self.of_child(*c).is_some_and(|n| n.is_still(e)));
        let kept = before.filter(same);
        let child = match (kept, entry) {
            (Some(child), Some(entry)) => Some(self.refreshed(child, entry)),
            (None, Some(entry)) => Some(self.insert(slot, volume.as_str(), name, entry)),
            (_, None) => None,
        };
        if let Some(gone) = before.filter(|b| Some(*b) != child) {
            // The list of children stays in order and without holes (invariant 1).
            if let Some(directory) = self.directory_mut(slot) {
                directory.children = directory.children.iter().copied().filter(|c| *c != gone).collect();
            }
            self.detach(gone.slot);
        }
        let Some(directory) = self.directory_mut(slot) else { return };
        directory.loose.insert(name.into(), Loose { child, valid_until: now + lease });
        self.known.insert(slot);
        let Some(directory) = self.directory_mut(slot) else { return };
        if directory.loose.len() > LOOSE_NAMES_MAX
            && let Some((name, loose)) = directory.loose.pop_first()
            && let Some(child) = loose.child.filter(|c| self.child_named(slot, &name) != Some(*c))
        {
            self.detach(child.slot);
        }
    }

    /// Takes over a directory's own attributes.
    pub fn learn_attributes(&mut self, ino: u64, entry: &Entry) {
        if let Some(&slot) = self.by_ino.get(&ino)
            && let Some(node) = self.slots[slot as usize].as_mut()
            && node.is_still(entry)
        {
            node.refresh(entry);
        }
    }

    /// Believes what is known of a directory for longer: its source does not answer (promise A).
    pub fn extend(&mut self, ino: u64, until: Instant) {
        if let Some(&slot) = self.by_ino.get(&ino)
            && let Some(directory) = self.directory_mut(slot)
            && let Some(valid) = directory.valid_until.as_mut()
        {
            *valid = (*valid).max(until);
        }
    }

    /// Ends a directory's lease: the source says that it changed.
    pub fn expire(&mut self, ino: u64, now: Instant) {
        if let Some(&slot) = self.by_ino.get(&ino)
            && let Some(directory) = self.directory_mut(slot)
        {
            directory.loose.values_mut().for_each(|l| l.valid_until = now);
            if let Some(valid) = directory.valid_until.as_mut() {
                *valid = now;
            }
        }
    }

    /// Marks a version that the source does not have any more, and ends its directory's lease.
    pub fn outdate(&mut self, ino: u64, now: Instant) {
        let Some(&slot) = self.by_ino.get(&ino) else { return };
        let Some(node) = self.slots[slot as usize].as_mut() else { return };
        node.outdated = true;
        if let Some(parent) = self.parent(ino) {
            self.expire(parent, now);
        }
    }

    /// Whether the source has said that it has another version by now.
    pub fn is_outdated(&self, ino: u64) -> bool {
        self.node(ino).is_some_and(|node| node.outdated)
    }

    /// Directories that were used since they were learned and whose lease ends within `horizon`.
    pub fn due(&self, now: Instant, horizon: Duration) -> Vec<u64> {
        let due = |slot: &u32| {
            let node = self.at(*slot)?;
            let directory = node.directory.as_deref()?;
            directory.valid_until.filter(|_| directory.children.len() <= REFRESH_NAMES_MAX)?;
            let used = directory.used_at_ms.load(Ordering::Relaxed) > directory.learned_at_ms;
            (used && remaining(directory.valid_until, now).is_none_or(|left| left < horizon)).then_some(node.ino)
        };
        self.known.iter().filter_map(due).collect()
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

    /// Forgets the directories that were not used for longest until at most `nodes_max` nodes are left, or nothing
    /// more can go because the kernel refers to it.
    pub fn shrink(&mut self, nodes_max: usize) {
        let mut by_age: Vec<(u64, u32)> = self.known.iter().filter_map(|s| Some((self.used_at(*s)?, *s))).collect();
        by_age.sort_unstable();
        for (_, slot) in by_age {
            if self.len() <= nodes_max {
                return;
            }
            self.forget_directory(slot);
        }
    }

    fn forget_directory(&mut self, slot: u32) {
        self.known.remove(&slot);
        let Some(directory) = self.directory_mut(slot) else { return };
        directory.valid_until = None;
        let children = std::mem::take(&mut directory.children);
        let loose = std::mem::take(&mut directory.loose);
        for child in children.iter().copied().chain(loose.into_values().filter_map(|l| l.child)) {
            if self.of_child(child).is_some() {
                self.detach(child.slot);
            }
        }
    }

    fn refreshed(&mut self, child: Child, entry: &Entry) -> Child {
        if let Some(node) = self.slots[child.slot as usize].as_mut() {
            node.refresh(entry);
        }
        child
    }

    /// Puts an entry under its number, or adopts the node that stands for it still.
    fn insert(&mut self, parent: u32, volume: &str, name: &[u8], entry: &Entry) -> Child {
        let mut ino = inode_number(volume, entry);
        while let Some(&first) = self.by_ino.get(&ino) {
            let others = self.aliases.get(&ino).map_or(&[][..], Vec::as_slice);
            let ours =
                |s: &&u32| self.at(**s).is_some_and(|n| n.parent == parent && n.name() == name && n.is_still(entry));
            if let Some(&slot) = std::iter::once(&first).chain(others).find(ours) {
                let generation = self.at(slot).map_or(0, |n| n.generation);
                return self.refreshed(Child { slot, generation }, entry);
            }
            let hard_link = entry.links > 1
                && self.at(first).is_some_and(|n| n.is_still(entry))
                && self.place_of_slot(first).is_some_and(|p| p.volume.as_str() == volume);
            if hard_link {
                break;
            }
            ino = ino.wrapping_add(1).max(1024);
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let slot = self.place_node(Node::new(entry, name, ino, parent, generation));
        if let Some(directory) = self.directory_mut(parent) {
            directory.pins += 1;
        }
        Child { slot, generation }
    }

    fn place_node(&mut self, node: Node) -> u32 {
        let ino = node.ino;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(node);
        match self.by_ino.entry(ino) {
            hash_map::Entry::Occupied(_) => self.aliases.entry(ino).or_default().push(slot),
            hash_map::Entry::Vacant(vacant) => drop(vacant.insert(slot)),
        }
        slot
    }

    /// Its directory does not show it any more.
    fn detach(&mut self, slot: u32) {
        let Some(node) = self.slots[slot as usize].as_mut() else { return };
        node.attached = false;
        let (ino, lookups) = (node.ino, node.lookups());
        // Another name of the same file takes over number and references.
        if self.by_ino.get(&ino) == Some(&slot)
            && let Some(heir) = self.aliases.get_mut(&ino).and_then(Vec::pop)
        {
            self.by_ino.insert(ino, heir);
            if let Some(heir) = self.at(heir) {
                heir.look(lookups);
            }
            if let Some(node) = self.at(slot) {
                node.forget(lookups);
            }
        }
        self.release(slot);
    }

    /// Frees a slot that nobody needs, and then perhaps its parent's.
    fn release(&mut self, slot: u32) {
        let Some(node) = self.at(slot) else { return };
        if slot == self.root() || node.attached || node.lookups() > 0 {
            return;
        }
        if self.known.contains(&slot) {
            self.forget_directory(slot);
        }
        let Some(node) = self.at(slot) else { return };
        if node.directory.as_deref().is_some_and(|d| d.pins > 0) {
            return;
        }
        let (ino, parent) = (node.ino, node.parent);
        self.slots[slot as usize] = None;
        self.free.push(slot);
        self.known.remove(&slot);
        if self.by_ino.get(&ino) == Some(&slot) {
            self.by_ino.remove(&ino);
        }
        if let Some(others) = self.aliases.get_mut(&ino) {
            others.retain(|s| *s != slot);
            if others.is_empty() {
                self.aliases.remove(&ino);
            }
        }
        if let Some(directory) = self.directory_mut(parent) {
            directory.pins -= 1;
        }
        self.release(parent);
    }

    fn root(&self) -> u32 {
        0
    }

    fn at(&self, slot: u32) -> Option<&Node> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn node(&self, ino: u64) -> Option<&Node> {
        self.at(*self.by_ino.get(&ino)?)
    }

    fn of_child(&self, child: Child) -> Option<&Node> {
        self.at(child.slot).filter(|n| n.generation == child.generation)
    }

    fn name_of(&self, child: Child) -> &[u8] {
        self.of_child(child).map_or(&[], Node::name)
    }

    fn directory(&self, ino: u64) -> Option<(u32, &Directory)> {
        let slot = *self.by_ino.get(&ino)?;
        Some((slot, self.at(slot)?.directory.as_deref()?))
    }

    fn directory_mut(&mut self, slot: u32) -> Option<&mut Directory> {
        self.slots.get_mut(slot as usize)?.as_mut()?.directory.as_deref_mut()
    }

    fn child_named(&self, slot: u32, name: &[u8]) -> Option<Child> {
        let children = &self.at(slot)?.directory.as_deref()?.children;
        let found = children.binary_search_by(|c| self.name_of(*c).cmp(name)).ok()?;
        Some(children[found])
    }

    fn place_of_slot(&self, slot: u32) -> Option<Place> {
        let mut names = Vec::new();
        let mut at = slot;
        while at != self.root() {
            let node = self.at(at)?;
            names.push(node.name());
            at = node.parent;
        }
        let volume = VolumeId::new(std::str::from_utf8(names.pop()?).ok()?).ok()?;
        names.reverse();
        Some(Place { volume, path: FilePath::new(&names.join(&b'/')).ok()? })
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
}

/// The lease of what only a new start of the mount changes.
const FOREVER: Duration = Duration::from_secs(3600);

fn remaining(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.and_then(|u| u.checked_duration_since(now)).filter(|left| !left.is_zero())
}
