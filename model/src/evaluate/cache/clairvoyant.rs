//! Belady's rule: what is used again last goes first. It knows the future, so it is a bound and no policy.

use std::collections::{BTreeSet, HashMap};

use super::{Cache, Unit};

/// Never again.
const NEVER: u64 = u64::MAX;

/// See the module.
pub struct Clairvoyant {
    /// When each touch's block is touched again.
    next: Vec<u64>,
    /// Touches so far.
    touch: usize,
    here: HashMap<Unit, (u64, u64)>,
    by_next: BTreeSet<(u64, Unit)>,
    bytes: u64,
    capacity: u64,
}

impl Clairvoyant {
    /// An empty cache of so many bytes. `touches` are all touches to come.
    pub fn new(capacity: u64, touches: &[Unit]) -> Self {
        let mut next = vec![NEVER; touches.len()];
        let mut seen: HashMap<Unit, usize> = HashMap::new();
        for (at, unit) in touches.iter().enumerate().rev() {
            next[at] = seen.insert(*unit, at).map_or(NEVER, |later| later as u64);
        }
        Self { next, touch: 0, here: HashMap::new(), by_next: BTreeSet::new(), bytes: 0, capacity }
    }

    /// When the block that would go first is used again; none if the cache is empty.
    pub fn farthest(&self) -> Option<u64> {
        self.by_next.last().map(|(next, _)| *next)
    }

    /// Whether there is room without sending anything away.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.capacity
    }

    /// Takes a block in ahead of its use at touch `at`.
    pub fn insert_for(&mut self, unit: Unit, bytes: u64, at: u64, gone: &mut Vec<Unit>) {
        self.make_room(bytes, gone);
        self.here.insert(unit, (at, bytes));
        self.by_next.insert((at, unit));
        self.bytes += bytes;
    }

    /// The present touch is over.
    fn step(&mut self) -> u64 {
        let next = self.next.get(self.touch).copied().unwrap_or(NEVER);
        self.touch += 1;
        next
    }

    fn make_room(&mut self, for_bytes: u64, gone: &mut Vec<Unit>) {
        while self.bytes + for_bytes > self.capacity {
            let Some((_, unit)) = self.by_next.pop_last() else { return };
            if let Some((_, bytes)) = self.here.remove(&unit) {
                self.bytes -= bytes;
            }
            gone.push(unit);
        }
    }
}

impl Cache for Clairvoyant {
    fn holds(&self, unit: Unit) -> bool {
        self.here.contains_key(&unit)
    }

    fn used(&mut self, unit: Unit) {
        let next = self.step();
        if let Some((before, bytes)) = self.here.get(&unit).copied() {
            self.by_next.remove(&(before, unit));
            self.by_next.insert((next, unit));
            self.here.insert(unit, (next, bytes));
        }
    }

    fn insert(&mut self, unit: Unit, bytes: u64, _ahead_of_use: bool, gone: &mut Vec<Unit>) {
        let next = self.step();
        if bytes > self.capacity {
            gone.push(unit);
            return;
        }
        self.insert_for(unit, bytes, next, gone);
    }

    fn resize(&mut self, bytes: u64, gone: &mut Vec<Unit>) {
        self.capacity = bytes;
        self.make_room(0, gone);
    }
}
