//! What is read without having been opened: with [`Opens::Silent`](crate::Opens::Silent) the kernel tells of neither open nor
//! close, so a file counts as open from its first read until nothing of it was read for a while. A synchronous table;
//! time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Files open at the same time, so bounded because each holds its file in the store; the one that was not read for
/// longest is closed when there are more.
const OPEN_MAX: usize = 1024;

/// A file counts as closed when nothing of it was read for so long.
pub const IDLE: Duration = Duration::from_secs(1);

/// The table, by inode number. `H` is what is kept of an open file.
pub struct Silent<H> {
    open: HashMap<u64, (H, (Instant, u64))>,
    /// By when they were read last, oldest first; invariant: one entry for each of `open`.
    by_age: BTreeMap<(Instant, u64), ()>,
}

impl<H> Default for Silent<H> {
    fn default() -> Self {
        Self { open: HashMap::new(), by_age: BTreeMap::new() }
    }
}

impl<H: Clone> Silent<H> {
    /// What is open under a number, if it is; takes note of the read.
    pub fn read(&mut self, ino: u64, now: Instant) -> Option<H> {
        let (handle, age) = self.open.get_mut(&ino)?;
        self.by_age.remove(age);
        *age = (now, ino);
        self.by_age.insert(*age, ());
        Some(handle.clone())
    }

    /// Opens; answers what is open under the number now (somebody may have been faster), and what had to be closed.
    pub fn open(&mut self, ino: u64, handle: H, now: Instant) -> (H, Option<H>) {
        if let Some(there) = self.read(ino, now) {
            return (there, None);
        }
        self.open.insert(ino, (handle.clone(), (now, ino)));
        self.by_age.insert((now, ino), ());
        let oldest = if self.open.len() > OPEN_MAX { self.by_age.pop_first() } else { None };
        (handle, oldest.and_then(|((_, ino), ())| self.open.remove(&ino)).map(|(handle, _)| handle))
    }

    /// Closes what was not read for [`IDLE`].
    pub fn close_idle(&mut self, now: Instant) -> Vec<H> {
        let mut closed = Vec::new();
        while let Some((&(read_at, ino), ())) = self.by_age.first_key_value()
            && now.saturating_duration_since(read_at) >= IDLE
        {
            self.by_age.pop_first();
            closed.extend(self.open.remove(&ino).map(|(handle, _)| handle));
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_while_it_is_read_and_closed_once_when_it_is_not() {
        let start = Instant::now();
        let mut silent = Silent::default();
        assert_eq!(silent.read(7, start), None);
        assert_eq!(silent.open(7, "a", start), ("a", None));
        assert_eq!(silent.open(7, "b", start), ("a", None), "the first stays");
        silent.open(8, "c", start);
        assert_eq!(silent.read(7, start + IDLE / 2), Some("a"));
        assert_eq!(silent.close_idle(start + IDLE), ["c"]);
        assert_eq!(silent.close_idle(start + IDLE), [""; 0]);
        assert_eq!(silent.close_idle(start + IDLE * 2), ["a"]);
        assert_eq!(silent.read(7, start + IDLE * 2), None);
    }

    #[test]
    fn beyond_the_bound_the_one_that_rested_longest_is_closed_k() {
        let start = Instant::now();
        let at = |n: u64| start + Duration::from_micros(n);
        let mut silent = Silent::default();
        (0..OPEN_MAX as u64).for_each(|ino| assert_eq!(silent.open(ino, ino, at(ino)).1, None));
        silent.read(0, at(OPEN_MAX as u64));
        assert_eq!(silent.open(9_999, 9_999, at(OPEN_MAX as u64 + 1)), (9_999, Some(1)));
        assert_eq!((silent.open.len(), silent.by_age.len()), (OPEN_MAX, OPEN_MAX));
    }
}
