//! Slots: who lives in them, who refers to whom, and when one is free again.

use foretide_flow::{Entry, FilePath, VolumeId};

use super::node::{Node, inode_number};
use super::{Child, Directory, Place, Tree};

impl Tree {
    /// Puts an entry under its number, or adopts the node that stands for it still.
    pub(super) fn insert(&mut self, parent: u32, volume: &str, name: &[u8], entry: &Entry) -> Child {
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
        // First, so that the parent outlives whom the new node may replace.
        if let Some(directory) = self.directory_mut(parent) {
            directory.pins += 1;
        }
        let slot = self.place_node(Node::new(entry, self.owners.of(entry), name, ino, parent, generation));
        Child { slot, generation }
    }

    pub(super) fn place_node(&mut self, node: Node) -> u32 {
        let ino = node.ino;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(node);
        match self.by_ino.get(&ino).copied() {
            None => drop(self.by_ino.insert(ino, slot)),
            Some(holder) if self.at(holder).is_some_and(|n| n.attached) => {
                self.aliases.entry(ino).or_default().push(slot);
            }
            Some(holder) => {
                self.hand_over(holder, slot);
                self.release(holder);
            }
        }
        slot
    }

    /// Another name of the same file takes over number and references.
    pub(super) fn hand_over(&mut self, from: u32, to: u32) {
        let Some((ino, lookups)) = self.at(from).map(|n| (n.ino, n.lookups())) else { return };
        self.by_ino.insert(ino, to);
        if let Some(heir) = self.at(to) {
            heir.look(lookups);
        }
        if let Some(node) = self.at(from) {
            node.forget(lookups);
        }
    }

    /// Its directory does not show it any more.
    pub(super) fn detach(&mut self, slot: u32) {
        let Some(node) = self.slots[slot as usize].as_mut() else { return };
        node.attached = false;
        let ino = node.ino;
        if self.by_ino.get(&ino) == Some(&slot)
            && let Some(heir) = self.aliases.get_mut(&ino).and_then(Vec::pop)
        {
            self.hand_over(slot, heir);
        }
        self.release(slot);
    }

    /// Frees a slot that nobody needs, and then perhaps its parent's.
    pub(super) fn release(&mut self, slot: u32) {
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

    pub(super) fn root(&self) -> u32 {
        0
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Node> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn node(&self, ino: u64) -> Option<&Node> {
        self.at(*self.by_ino.get(&ino)?)
    }

    pub(super) fn of_child(&self, child: Child) -> Option<&Node> {
        self.at(child.slot).filter(|n| n.generation == child.generation)
    }

    pub(super) fn name_of(&self, child: Child) -> &[u8] {
        self.of_child(child).map_or(&[], Node::name)
    }

    pub(super) fn directory(&self, ino: u64) -> Option<(u32, &Directory)> {
        let slot = *self.by_ino.get(&ino)?;
        Some((slot, self.at(slot)?.directory.as_deref()?))
    }

    pub(super) fn directory_mut(&mut self, slot: u32) -> Option<&mut Directory> {
        self.slots.get_mut(slot as usize)?.as_mut()?.directory.as_deref_mut()
    }

    pub(super) fn child_named(&self, slot: u32, name: &[u8]) -> Option<Child> {
        let children = &self.at(slot)?.directory.as_deref()?.children;
        let found = children.binary_search_by(|c| self.name_of(*c).cmp(name)).ok()?;
        Some(children[found])
    }

    pub(super) fn place_of_slot(&self, slot: u32) -> Option<Place> {
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

    /// Slot of the volume that a slot lies in; of the root, the root's.
    pub(super) fn volume_of(&self, slot: u32) -> u32 {
        let mut at = slot;
        while let Some(node) = self.at(at).filter(|n| at != self.root() && n.parent != self.root()) {
            at = node.parent;
        }
        at
    }
}
