//! The blocks that are known: a dense id each, given in order of first appearance and given anew when forgotten.
//!
//! Invariant: an id is in use while the log names it, while a proposal of it is followed, or while it is on its way
//! or waits here unused; else it is free.

use hashbrown::HashTable;

use super::candidates::Past;
use super::followed::NOT_FOLLOWED;
use super::log::{NONE, Place};

/// An id.
pub(super) type Id = u32;

/// How often proposals came true, lately: two counts of four bits that are halved when one is full.
#[derive(Clone, Copy, Default)]
pub(super) struct Record(u8);

impl Record {
    /// Above this, older ones fade.
    const FULL: u8 = 12;

    pub(super) fn count(&mut self, came: bool) {
        let (mut yes, mut no) = (self.0 >> 4, self.0 & 15);
        let count = if came { &mut yes } else { &mut no };
        *count += 1;
        if *count > Self::FULL {
            (yes, no) = (yes / 2, no / 2);
        }
        self.0 = yes << 4 | no;
    }

    /// Both counts as one number.
    pub(super) fn code(self) -> u8 {
        self.0
    }
}

/// Bits that a number takes.
pub(super) fn log2(n: u32) -> u8 {
    (u32::BITS - n.leading_zeros()) as u8
}

/// Stands for the bits of a time that is not known.
pub(super) const NEVER: u8 = 33;
/// Stands for when a block was asked for beside another, where either never was.
pub(super) const NOT_NEAR: u8 = 63;

/// When something was, beside something else: below 32 before it, else after it, by the bits of how many requests.
fn nearness(last: Place, other: Place) -> u8 {
    const AFTER: u8 = 32;
    match (last, other) {
        (NONE, _) | (_, NONE) => NOT_NEAR,
        _ if last >= other => AFTER + log2(last - other).min(NOT_NEAR - AFTER - 1),
        _ => log2(other - last).min(AFTER - 1),
    }
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Not here; its id is in use.
    Away,
    /// Asked for ahead of use, and not come yet.
    Coming,
    /// Come, and not used so far.
    Waiting,
    /// Here because it was used.
    Here,
    /// Its id is free.
    Forgotten,
}

impl Whereabouts {
    /// Whether it was asked for ahead of a use that has not come.
    pub(super) fn is_ahead(self) -> bool {
        matches!(self, Self::Coming | Self::Waiting)
    }
}

/// What is known of a block. Half a line of the processor's caches, so that a candidate costs one look at the memory.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Object {
    pub(super) block: u64,
    /// Where it stands last in the log; [`NONE`] if it does not.
    pub(super) last: Place,
    /// When it was asked for last ahead of use.
    pub(super) asked_at: Place,
    /// The number under which a proposal of it is followed.
    pub(super) followed: u32,
    /// Times it was asked for.
    pub(super) seen: u16,
    /// Blocks that were asked for with it the last time.
    pub(super) blocks: u16,
    /// Bits of the requests between its last two; [`NEVER`] where there were no two.
    pub(super) gap: u8,
    /// How proposals of it did.
    pub(super) proposed: Record,
    pub(super) whereabouts: Whereabouts,
    /// How often it was named as a candidate, and when last: the lower bits of the place.
    named: u8,
    named_at: u16,
}

/// Requests after which it is forgotten that a block was named.
const NAMED_WITHIN: u16 = 32;

impl Object {
    /// Takes that it is named as a candidate, by a request that was made at these two places `before`; returns what is known of it.
    #[inline]
    pub(super) fn name(&mut self, now: Place, before: [Place; 2]) -> Past {
        Past {
            age: if self.last == NONE { NEVER } else { log2(now.saturating_sub(self.last)) },
            gap: self.gap,
            seen: log2(u32::from(self.seen)),
            record: self.proposed.code(),
            named: self.count_name(now),
            near: before.map(|before| nearness(self.last, before)),
            followed: self.followed != NOT_FOLLOWED,
        }
    }

    /// How often it was named before, each time soon after the one before. What several requests name one after the other is
    /// surer than what any of them knows.
    fn count_name(&mut self, now: Place) -> u8 {
        let soon = (now as u16).wrapping_sub(self.named_at) <= NAMED_WITHIN;
        let before = if soon { self.named } else { 0 };
        (self.named, self.named_at) = (before.saturating_add(1), now as u16);
        before
    }
}

/// Spreads block numbers over a table. They are no secrets and nobody chooses them to collide.
#[inline]
fn spread(block: u64) -> u64 {
    let mixed = block.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

/// Makes room for one more, by an eighth and not by twice: memory is what the bound is about.
pub(super) fn grow<T>(all: &mut Vec<T>) {
    if all.len() == all.capacity() {
        all.reserve_exact((all.len() / 8).max(64));
    }
}

/// The known blocks.
pub(super) struct Objects {
    /// The ids by block. The blocks themselves stand with the objects, so that the table takes five bytes a slot and most
    /// of it stays in the processor's caches.
    ids: HashTable<Id>,
    objects: Vec<Object>,
    free: Vec<Id>,
    most: usize,
}

impl Objects {
    pub(super) fn new(most: usize) -> Self {
        Self { ids: HashTable::new(), objects: Vec::new(), free: Vec::new(), most }
    }

    /// The id of a block that is known.
    #[inline]
    pub(super) fn known(&self, block: u64) -> Option<Id> {
        self.ids.find(spread(block), |id| self.objects[*id as usize].block == block).copied()
    }

    /// Gives a block that is not known an id.
    pub(super) fn add(&mut self, block: u64) -> Id {
        let object = Object {
            block,
            last: NONE,
            asked_at: NONE,
            followed: NOT_FOLLOWED,
            seen: 0,
            blocks: 1,
            gap: NEVER,
            proposed: Record::default(),
            whereabouts: Whereabouts::Away,
            named: 0,
            named_at: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.objects[id as usize] = object;
                id
            }
            None => {
                grow(&mut self.objects);
                self.objects.push(object);
                self.objects.len() as Id - 1
            }
        };
        let objects = &self.objects;
        self.ids.insert_unique(spread(block), id, |id| spread(objects[*id as usize].block));
        id
    }

    pub(super) fn get(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id as usize]
    }

    /// The number under which it is followed; from now on it is not.
    pub(super) fn take_followed(&mut self, id: Id) -> u32 {
        std::mem::replace(&mut self.get_mut(id).followed, NOT_FOLLOWED)
    }

    /// The proposal with this number is over.
    pub(super) fn unfollow(&mut self, id: Id, number: u32) {
        let object = self.get_mut(id);
        if object.followed == number {
            object.followed = NOT_FOLLOWED;
            self.release(id);
        }
    }

    /// The log has written over this place, where this id stood.
    pub(super) fn forget(&mut self, id: Id, place: Place) {
        let object = self.get_mut(id);
        if object.last == place {
            object.last = NONE;
            self.release(id);
        }
    }

    /// Frees an id that nothing names any more.
    pub(super) fn release(&mut self, id: Id) {
        let object = &mut self.objects[id as usize];
        let named = object.last != NONE || object.followed != NOT_FOLLOWED;
        if named || object.whereabouts.is_ahead() || object.whereabouts == Whereabouts::Forgotten {
            return;
        }
        object.whereabouts = Whereabouts::Forgotten;
        if let Ok(entry) = self.ids.find_entry(spread(object.block), |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
    }

    /// Whether as many blocks are known as may be.
    pub(super) fn full(&self) -> bool {
        self.ids.len() >= self.most
    }

    pub(super) fn bytes(&self) -> usize {
        self.objects.capacity() * size_of::<Object>()
            + self.free.capacity() * size_of::<Id>()
            + self.ids.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_to_have_been_named_by_the_requests_before_and_that_fades() {
        let mut objects = Objects::new(10);
        let id = objects.add(1);
        let mut named = |now| objects.get_mut(id).count_name(now);
        assert_eq!([named(1000), named(1001), named(1032)], [0, 1, 2]);
        assert_eq!(named(1065), 0, "a request more than it is remembered");
        assert_eq!([named(65_530), named(65_540)], [0, 1], "across the lower bits");
    }

    #[test]
    fn what_was_asked_for_soon_after_another_is_told_from_what_was_soon_before() {
        assert_eq!([nearness(100, 99), nearness(100, 97), nearness(100, 36)], [33, 34, 39]);
        assert_eq!([nearness(99, 100), nearness(97, 100), nearness(36, 100)], [1, 2, 7]);
        assert_eq!([nearness(NONE, 1), nearness(1, NONE)], [NOT_NEAR; 2]);
        let most = NONE - 1;
        assert_eq!([nearness(0, most), nearness(most, 0)], [31, NOT_NEAR - 1], "all fit six bits");
    }

    #[test]
    fn a_block_takes_no_more_than_was_reckoned_with() {
        assert_eq!(size_of::<Object>(), 32);
    }
}
