//! A site's cache: what was read against what may be read.
//!
//! A move takes free room, then that of prefetched bytes whose time has passed, then, once moves have proved themselves here,
//! that of what was read longest ago. A reader takes that of prefetched bytes that nobody has read before what was read.

use std::collections::{BTreeSet, HashMap};

use super::atlas::{Atlas, Block};
use crate::brakes::Proof;

/// A block in the cache.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    touched_us: i64,
    /// Brought by a move and not read yet; of use until then.
    unread_until_us: Option<i64>,
    /// Passed on to another site.
    passed_on: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    capacity_bytes: u64,
    proof_share: f64,
    held: HashMap<Block, Held>,
    /// Held blocks in the order in which they leave: unread ones by their end, then read ones by their last touch.
    leaving: BTreeSet<(bool, i64, Block)>,
    used_bytes: u64,
    /// Most bytes that were in it.
    pub(super) peak_bytes: u64,
    /// Prefetched bytes that left unread.
    pub(super) wasted_bytes: u64,
    /// Prefetched bytes that were read.
    proved_bytes: u64,
}

impl Cache {
    pub(super) fn new(capacity_bytes: u64, proof_share: f64) -> Self {
        Self { capacity_bytes, proof_share, ..Self::default() }
    }

    /// What became of the bytes that moves brought.
    pub(super) fn proof(&self) -> Proof {
        Proof { read_bytes: self.proved_bytes, wasted_bytes: self.wasted_bytes }
    }

    pub(super) fn holds(&self, block: &Block) -> bool {
        self.held.contains_key(block)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.held.keys().copied()
    }

    /// A block was passed on: it was not brought in vain.
    pub(super) fn passed_on(&mut self, block: &Block) {
        if let Some(held) = self.held.get_mut(block) {
            held.passed_on = true;
        }
    }

    /// Whether a block is here only for as long as it takes to pass it on.
    pub(super) fn passes(&self, block: &Block, now_us: i64) -> bool {
        self.held.get(block).is_some_and(|h| h.unread_until_us.is_some_and(|until| now_us <= until))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// All of it is lost, with its disk.
    pub(super) fn lose(&mut self) {
        self.held.clear();
        self.leaving.clear();
        self.used_bytes = 0;
    }

    /// Keeps a block that a reader fetched, if there is room for it.
    pub(super) fn fetched(&mut self, block: Block, bytes: u64, now_us: i64) {
        if !self.holds(&block) && self.make_room(bytes, true, now_us) {
            self.hold(block, Held { bytes, touched_us: now_us, unread_until_us: None, passed_on: false });
        }
    }

    /// Keeps a block that a move brought; without room for it, it was brought in vain.
    pub(super) fn brought(&mut self, block: Block, bytes: u64, keep_until_us: i64, now_us: i64) {
        if self.make_room(bytes, false, now_us) {
            let unread_until_us = Some(keep_until_us);
            self.hold(block, Held { bytes, touched_us: now_us, unread_until_us, passed_on: false });
        } else {
            self.wasted_bytes += bytes;
        }
    }

    /// A block was read now.
    pub(super) fn touch(&mut self, block: Block, now_us: i64) {
        if let Some(held) = self.release(block) {
            self.proved_bytes += held.unread_until_us.map_or(0, |_| held.bytes);
            self.hold(block, Held { touched_us: now_us, unread_until_us: None, ..held });
        }
    }

    pub(super) fn evict(&mut self, block: Block) {
        if let Some(held) = self.release(block)
            && held.unread_until_us.is_some()
            && !held.passed_on
        {
            self.wasted_bytes += held.bytes;
        }
    }

    /// Bytes of an extent that are here.
    pub(super) fn resident_bytes(&self, atlas: &Atlas, file: u32, offset: u64, length: u64) -> u64 {
        let here = atlas.blocks(file, offset, length).filter(|b| self.holds(b));
        here.map(|b| atlas.shared(b, offset, length)).sum()
    }

    /// Prefetched bytes that nobody has read so far.
    pub(super) fn unread_bytes(&self) -> u64 {
        self.held.values().filter(|h| h.unread_until_us.is_some() && !h.passed_on).map(|h| h.bytes).sum()
    }

    /// What is wrong with it, if anything is.
    pub(super) fn broken(&self) -> Option<String> {
        let used: u64 = self.held.values().map(|h| h.bytes).sum();
        let wrong = used != self.used_bytes || used > self.capacity_bytes || self.held.len() != self.leaving.len();
        wrong.then(|| format!("{used} bytes in a cache of {}, {} counted", self.capacity_bytes, self.used_bytes))
    }

    fn make_room(&mut self, bytes: u64, reader: bool, now_us: i64) -> bool {
        let may_displace = reader || self.proof().holds(self.proof_share);
        while self.used_bytes + bytes > self.capacity_bytes {
            let unread = self.leaving.first().filter(|(read, until, _)| !read && (reader || *until < now_us));
            let read_first = || self.leaving.range((true, i64::MIN, (0, 0))..).next().filter(|_| may_displace);
            match unread.or_else(read_first).copied() {
                Some((_, _, block)) => self.evict(block),
                None => return false,
            }
        }
        true
    }

    fn hold(&mut self, block: Block, held: Held) {
        self.leaving.insert(place(block, &held));
        self.used_bytes += held.bytes;
        self.held.insert(block, held);
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    fn release(&mut self, block: Block) -> Option<Held> {
        let held = self.held.remove(&block)?;
        self.leaving.remove(&place(block, &held));
        self.used_bytes -= held.bytes;
        Some(held)
    }
}

fn place(block: Block, held: &Held) -> (bool, i64, Block) {
    match held.unread_until_us {
        Some(until) => (false, until, block),
        None => (true, held.touched_us, block),
    }
}
