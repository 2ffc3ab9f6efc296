//! Caches of the simulated site: which blocks stay.
//!
//! Blocks are numbered densely, so all lists are threaded through one table. One file per policy; this one holds the
//! trait and the table. Sizes are bytes; blocks of one size make them counts.

mod clairvoyant;
mod foreseen;
mod guarded;
mod lru;

pub use clairvoyant::Clairvoyant;
pub use foreseen::Foreseen;
pub use guarded::Guarded;
pub use lru::Lru;

/// The number of a block at the site.
pub type Unit = u32;
/// No block.
const NIL: Unit = Unit::MAX;

/// A cache of blocks.
pub trait Cache {
    /// Whether it is here, or a place is kept for it.
    fn holds(&self, unit: Unit) -> bool;

    /// It is used now; it is here.
    fn used(&mut self, unit: Unit);

    /// Takes it in. What had to go is appended to `gone`; a block larger than the cache goes at once.
    fn insert(&mut self, unit: Unit, bytes: u64, ahead_of_use: bool, gone: &mut Vec<Unit>);

    /// It is here ahead of its use, and was proposed again.
    fn refresh(&mut self, _unit: Unit) {}

    /// Sets the capacity, bytes.
    fn resize(&mut self, bytes: u64, gone: &mut Vec<Unit>);

    /// The requests so far: the clock of policies that have one.
    fn tick(&mut self, _requests: u32) {}
}

/// A list threaded through a table: newest first.
#[derive(Clone, Copy, Debug)]
struct List {
    newest: Unit,
    oldest: Unit,
    bytes: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { newest: NIL, oldest: NIL, bytes: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    newer: Unit,
    older: Unit,
    bytes: u32,
    list: u8,
    /// Uses since it was last passed over.
    uses: u8,
}

const NOWHERE: u8 = u8::MAX;

/// `N` lists over one table.
#[derive(Debug)]
struct Lists<const N: usize> {
    nodes: Vec<Node>,
    lists: [List; N],
}

impl<const N: usize> Lists<N> {
    fn new() -> Self {
        Self { nodes: Vec::new(), lists: [List::default(); N] }
    }

    fn list(&self, unit: Unit) -> Option<usize> {
        self.nodes.get(unit as usize).map(|n| n.list).filter(|l| *l != NOWHERE).map(usize::from)
    }

    fn node(&mut self, unit: Unit) -> &mut Node {
        &mut self.nodes[unit as usize]
    }

    fn push(&mut self, unit: Unit, list: usize, bytes: u64) {
        if self.nodes.len() <= unit as usize {
            let empty = Node { newer: NIL, older: NIL, bytes: 0, list: NOWHERE, uses: 0 };
            self.nodes.resize(unit as usize + 1, empty);
        }
        let older = self.lists[list].newest;
        let uses = self.nodes[unit as usize].uses;
        self.nodes[unit as usize] = Node { newer: NIL, older, bytes: bytes as u32, list: list as u8, uses };
        match older {
            NIL => self.lists[list].oldest = unit,
            older => self.nodes[older as usize].newer = unit,
        }
        self.lists[list].newest = unit;
        self.lists[list].bytes += bytes;
    }

    /// Takes a block out of its list; returns its bytes.
    fn remove(&mut self, unit: Unit) -> u64 {
        let node = self.nodes[unit as usize];
        let list = &mut self.lists[node.list as usize];
        list.bytes -= u64::from(node.bytes);
        if node.newer == NIL {
            list.newest = node.older;
        }
        if node.older == NIL {
            list.oldest = node.newer;
        }
        if node.newer != NIL {
            self.nodes[node.newer as usize].older = node.older;
        }
        if node.older != NIL {
            self.nodes[node.older as usize].newer = node.newer;
        }
        self.nodes[unit as usize].list = NOWHERE;
        u64::from(node.bytes)
    }

    fn oldest(&self, list: usize) -> Option<Unit> {
        Some(self.lists[list].oldest).filter(|u| *u != NIL)
    }

    fn bytes(&self) -> u64 {
        self.lists.iter().map(|l| l.bytes).sum()
    }
}
