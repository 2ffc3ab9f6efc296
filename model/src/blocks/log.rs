//! What was asked for, in order: a ring of ids, each entry knowing where its id stood before.

use super::objects::{Id, grow};

/// A place in the log, counted from its beginning.
pub(super) type Place = u32;
/// No place, no id.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    id: Id,
    before: Place,
}

/// The log: at most as many entries as were allowed, the oldest written over.
pub(super) struct Log {
    entries: Vec<Entry>,
    /// Length of the ring less one: lengths are powers of two.
    mask: usize,
    next: Place,
    /// Entries that are named, the newest ones.
    named: u32,
}

/// Entries kept at least: shorter than this, no company is remembered.
const LEAST_ENTRIES: usize = 64;

impl Log {
    pub(super) fn new(most: usize) -> Self {
        let ring = most.clamp(LEAST_ENTRIES, 1 << 30).next_power_of_two();
        Self { entries: Vec::new(), mask: ring - 1, next: 0, named: 0 }
    }

    /// The place that the next entry gets.
    pub(super) fn next(&self) -> Place {
        self.next
    }

    /// The id at a place that is still named.
    #[inline]
    pub(super) fn id(&self, place: Place) -> Option<Id> {
        self.entry(place).map(|e| e.id)
    }

    /// Where the id at this place stood before.
    pub(super) fn before(&self, place: Place) -> Option<Place> {
        self.entry(place).map(|e| e.before).filter(|b| *b != NONE)
    }

    /// The oldest place that is named. All from it on to the end are.
    #[inline]
    pub(super) fn oldest(&self) -> Place {
        self.next - self.named
    }

    /// The id at a place from [`oldest`](Self::oldest) on.
    #[inline]
    pub(super) fn named_id(&self, place: Place) -> Id {
        self.entries[place as usize & self.mask].id
    }

    #[inline]
    fn entry(&self, place: Place) -> Option<Entry> {
        let age = self.next.wrapping_sub(place);
        if age == 0 || age > self.named {
            return None;
        }
        self.entries.get(place as usize & self.mask).copied()
    }

    /// Takes an entry. Returns the id and place that it wrote over.
    pub(super) fn push(&mut self, id: Id, before: Place) -> Option<(Id, Place)> {
        let gone = if self.named as usize > self.mask { self.shorten() } else { None };
        let entry = Entry { id, before };
        let at = self.next as usize & self.mask;
        if at == self.entries.len() {
            grow(&mut self.entries);
            self.entries.push(entry);
        } else {
            self.entries[at] = entry;
        }
        self.next += 1;
        self.named += 1;
        gone
    }

    /// Forgets the oldest entry and returns its id and place; never the last [`LEAST_ENTRIES`].
    pub(super) fn shorten(&mut self) -> Option<(Id, Place)> {
        if self.named as usize <= LEAST_ENTRIES.min(self.mask) {
            return None;
        }
        let oldest = self.oldest();
        let id = self.named_id(oldest);
        self.named -= 1;
        Some((id, oldest))
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}
