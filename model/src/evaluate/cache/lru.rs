//! Least recently used goes first: what everybody has.

use super::{Cache, Lists, Unit};

/// See the module.
pub struct Lru {
    lists: Lists<1>,
    capacity: u64,
}

impl Lru {
    /// An empty cache of so many bytes.
    pub fn new(capacity: u64) -> Self {
        Self { lists: Lists::new(), capacity }
    }

    fn make_room(&mut self, for_bytes: u64, gone: &mut Vec<Unit>) {
        while self.lists.bytes() + for_bytes > self.capacity {
            let Some(oldest) = self.lists.oldest(0) else { return };
            self.lists.remove(oldest);
            gone.push(oldest);
        }
    }
}

impl Cache for Lru {
    fn holds(&self, unit: Unit) -> bool {
        self.lists.list(unit).is_some()
    }

    fn used(&mut self, unit: Unit) {
        let bytes = self.lists.remove(unit);
        self.lists.push(unit, 0, bytes);
    }

    fn insert(&mut self, unit: Unit, bytes: u64, _ahead_of_use: bool, gone: &mut Vec<Unit>) {
        if bytes > self.capacity {
            gone.push(unit);
            return;
        }
        self.make_room(bytes, gone);
        self.lists.push(unit, 0, bytes);
    }

    fn resize(&mut self, bytes: u64, gone: &mut Vec<Unit>) {
        self.capacity = bytes;
        self.make_room(0, gone);
    }
}
