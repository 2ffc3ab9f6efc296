//! How the table learns, is told of changes, and forgets.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foretide_flow::{Entry, Listing, VolumeId};

use super::{Child, Loose, Tree};

/// Single names remembered of a directory that is not known as a whole. Beyond it the oldest in name order go: such a
/// directory is being learned, and the listing will replace them.
const LOOSE_NAMES_MAX: usize = 4096;

impl Tree {
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

    /// The source says what single names of a directory stand for now. What is known of the directory stays known,
    /// with these names changed; of a directory that is not, single names that were known are forgotten.
    /// Answers the names that stand for another inode now, or for none.
    pub fn amend(&mut self, ino: u64, names: &[(Box<[u8]>, Option<Entry>)], now: Instant) -> Vec<Box<[u8]>> {
        let Some(volume) = self.place(ino).map(|p| p.volume) else { return Vec::new() };
        let Some((slot, directory)) = self.directory(ino) else { return Vec::new() };
        if directory.valid_until.is_none() {
            return self.distrust_loose(slot, names, now);
        }
        let mut children: BTreeMap<Box<[u8]>, Child> =
            directory.children.iter().map(|c| (self.name_of(*c).into(), *c)).collect();
        let mut changed = Vec::new();
        for (name, entry) in names {
            let before = children.get(name).copied();
            let still = |c: &Child| entry.as_ref().is_some_and(|e| self.of_child(*c).is_some_and(|n| n.is_still(e)));
            match (before.filter(still), entry) {
                (Some(child), Some(entry)) => {
                    self.refreshed(child, entry);
                }
                (None, Some(entry)) => {
                    let child = self.insert(slot, volume.as_str(), name, entry);
                    children.insert(name.clone(), child);
                }
                (_, None) => {
                    children.remove(name);
                }
            }
            if before != children.get(name).copied() {
                changed.push(name.clone());
            }
            if let Some(gone) = before.filter(|b| children.get(name) != Some(b)) {
                self.detach(gone.slot);
            }
        }
        let Some(directory) = self.directory_mut(slot) else { return changed };
        let loose: Vec<Loose> = names.iter().filter_map(|(name, _)| directory.loose.remove(name)).collect();
        if !changed.is_empty() {
            directory.children = children.values().copied().collect();
            directory.listing_changed.store(true, Ordering::Relaxed);
        }
        for child in loose.into_iter().filter_map(|l| l.child).filter(|c| !children.values().any(|known| known == c)) {
            if self.of_child(child).is_some() {
                self.detach(child.slot);
            }
        }
        changed
    }

    fn distrust_loose(&mut self, slot: u32, names: &[(Box<[u8]>, Option<Entry>)], now: Instant) -> Vec<Box<[u8]>> {
        let Some(directory) = self.directory_mut(slot) else { return Vec::new() };
        let mut distrusted = Vec::new();
        for (name, _) in names {
            if let Some(loose) = directory.loose.get_mut(name) {
                loose.valid_until = now;
                distrusted.push(name.clone());
            }
        }
        distrusted
    }

    /// Nothing is told any more of what changes in these volumes: what is known of them is believed until `until` at
    /// the latest.
    pub fn cap(&mut self, volumes: &[VolumeId], until: Instant) {
        let named = |v: &VolumeId| self.child_named(self.root(), v.as_str().as_bytes()).map(|c| c.slot);
        let roots: Vec<u32> = volumes.iter().filter_map(named).collect();
        let capped: Vec<u32> = self.known.iter().copied().filter(|s| roots.contains(&self.volume_of(*s))).collect();
        for slot in capped {
            if let Some(valid) = self.directory_mut(slot).and_then(|d| d.valid_until.as_mut()) {
                *valid = (*valid).min(until);
            }
        }
    }

    /// Takes over a directory's own attributes.
    pub fn learn_attributes(&mut self, ino: u64, entry: &Entry) {
        let owner = self.owners.of(entry);
        if let Some(&slot) = self.by_ino.get(&ino)
            && let Some(node) = self.slots[slot as usize].as_mut()
            && node.is_still(entry)
        {
            node.refresh(entry, owner);
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

    pub(super) fn forget_directory(&mut self, slot: u32) {
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

    pub(super) fn refreshed(&mut self, child: Child, entry: &Entry) -> Child {
        let owner = self.owners.of(entry);
        if let Some(node) = self.slots[child.slot as usize].as_mut() {
            node.refresh(entry, owner);
        }
        child
    }
}
