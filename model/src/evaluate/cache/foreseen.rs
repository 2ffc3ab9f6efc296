//! What is expected stays by how soon it is visited; the rest shares what is left.
//!
//! Blocks of which somebody foresees the next visit are *kept*: of them, the one that is visited last goes first, and
//! only for one that is visited sooner. They may take all of the cache but a tenth. Everything else lives in a
//! [`Guarded`] cache of whatever the kept ones leave.

use std::collections::BTreeSet;

use super::{Cache, Guarded, Unit};
use crate::foresight::Soon;

/// Share of the cache that what is expected never takes: what was used a moment ago is often used again.
const REST_SHARE: f64 = 0.1;
/// Not expected.
const NEVER: Soon = Soon::MAX;

/// See the module.
pub struct Foreseen {
    rest: Guarded,
    capacity: u64,
    soon: Vec<Soon>,
    kept: BTreeSet<(Soon, Unit)>,
    /// Bytes of each kept block; 0 for others.
    bytes: Vec<u64>,
    kept_bytes: u64,
}

impl Foreseen {
    /// An empty cache of so many bytes, for blocks of about `block_bytes`.
    pub fn new(capacity: u64, block_bytes: u64) -> Self {
        Self {
            rest: Guarded::patient(capacity, block_bytes),
            capacity,
            soon: Vec::new(),
            kept: BTreeSet::new(),
            bytes: Vec::new(),
            kept_bytes: 0,
        }
    }

    fn most_kept(&self) -> u64 {
        self.capacity - (REST_SHARE * self.capacity as f64) as u64
    }

    fn soon(&self, unit: Unit) -> Soon {
        self.soon.get(unit as usize).copied().unwrap_or(NEVER)
    }

    fn is_kept(&self, unit: Unit) -> bool {
        self.bytes.get(unit as usize).is_some_and(|bytes| *bytes > 0)
    }

    /// Whether a block that is visited this soon would be taken in.
    pub fn takes(&self, soon: Soon, bytes: u64) -> bool {
        self.kept_bytes + bytes <= self.most_kept() || self.kept.last().is_some_and(|(last, _)| *last > soon)
    }

    /// Tells how soon a block is visited, whether it is here or not; none if it is not expected.
    pub fn expect(&mut self, unit: Unit, soon: Option<Soon>, gone: &mut Vec<Unit>) {
        let soon = soon.unwrap_or(NEVER);
        let before = self.soon(unit);
        if self.soon.len() <= unit as usize {
            self.soon.resize(unit as usize + 1, NEVER);
            self.bytes.resize(unit as usize + 1, 0);
        }
        self.soon[unit as usize] = soon;
        if self.is_kept(unit) {
            self.kept.remove(&(before, unit));
            if soon == NEVER {
                let bytes = self.forget(unit);
                self.share_out(gone);
                self.rest.insert(unit, bytes, false, gone);
            } else {
                self.kept.insert((soon, unit));
            }
        } else if soon != NEVER
            && let Some(bytes) = self.rest.take(unit)
        {
            self.insert(unit, bytes, false, gone);
        }
    }

    /// A block is kept no longer; returns its bytes.
    fn forget(&mut self, unit: Unit) -> u64 {
        let bytes = std::mem::take(&mut self.bytes[unit as usize]);
        self.kept_bytes -= bytes;
        bytes
    }

    /// Makes room for a block that is visited this soon among the kept ones, if it is worth that.
    fn make_room(&mut self, soon: Soon, bytes: u64, gone: &mut Vec<Unit>) -> bool {
        while self.kept_bytes + bytes > self.most_kept() {
            match self.kept.last().copied() {
                Some((last, unit)) if last > soon => {
                    self.kept.pop_last();
                    self.forget(unit);
                    gone.push(unit);
                }
                _ => return false,
            }
        }
        true
    }

    /// Gives the rest what the kept ones leave.
    fn share_out(&mut self, gone: &mut Vec<Unit>) {
        self.rest.resize(self.capacity - self.kept_bytes, gone);
    }
}

impl Cache for Foreseen {
    fn holds(&self, unit: Unit) -> bool {
        self.is_kept(unit) || self.rest.holds(unit)
    }

    fn used(&mut self, unit: Unit) {
        if !self.is_kept(unit) {
            self.rest.used(unit);
        }
    }

    fn insert(&mut self, unit: Unit, bytes: u64, ahead_of_use: bool, gone: &mut Vec<Unit>) {
        let soon = self.soon(unit);
        if soon != NEVER && self.make_room(soon, bytes, gone) {
            self.kept.insert((soon, unit));
            self.bytes[unit as usize] = bytes;
            self.kept_bytes += bytes;
            self.share_out(gone);
        } else {
            self.rest.insert(unit, bytes, ahead_of_use, gone);
        }
    }

    fn refresh(&mut self, unit: Unit) {
        self.rest.refresh(unit);
    }

    fn resize(&mut self, bytes: u64, gone: &mut Vec<Unit>) {
        self.capacity = bytes;
        while self.kept_bytes > self.most_kept() {
            let Some((_, unit)) = self.kept.pop_last() else { break };
            self.forget(unit);
            gone.push(unit);
        }
        self.share_out(gone);
    }

    fn tick(&mut self, requests: u32) {
        self.rest.tick(requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_visited_last_goes_first_and_never_for_what_is_visited_later() {
        let (mut cache, mut gone) = (Foreseen::new(1000, 100), Vec::new());
        for unit in 0..9 {
            cache.expect(unit, Some(Soon::from(10 + unit)), &mut gone);
            cache.insert(unit, 100, true, &mut gone);
        }
        assert!(gone.is_empty() && !cache.takes(19, 100) && cache.takes(9, 100));
        cache.expect(20, Some(5), &mut gone);
        cache.insert(20, 100, true, &mut gone);
        assert_eq!(gone, [8], "that with the latest visit");
        cache.expect(0, None, &mut gone);
        assert!(cache.holds(0), "what is no longer expected is a block like others");
        cache.insert(30, 100, false, &mut gone);
        assert!(cache.holds(30));
    }

    #[test]
    fn never_more_than_the_cache_holds() {
        let (mut cache, mut here, mut state) = (Foreseen::new(2000, 100), std::collections::HashSet::new(), 1u64);
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (unit, what, soon) = (((state >> 33) % 60) as Unit, (state >> 50) % 4, (state >> 20) % 50);
            let mut gone = Vec::new();
            match what {
                0 => cache.expect(unit, Some(soon), &mut gone),
                1 => cache.expect(unit, None, &mut gone),
                _ if cache.holds(unit) => cache.used(unit),
                _ => {
                    here.insert(unit);
                    cache.insert(unit, 100, what == 2, &mut gone);
                }
            }
            here.retain(|unit| !gone.contains(unit));
            assert!(here.len() <= 20);
            assert!((0..60).all(|unit| cache.holds(unit) == here.contains(&unit)));
        }
    }
}
