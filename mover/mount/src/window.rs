//! How far ahead of a reader to fetch: a pure decision, one [`Window`] per open file.
//!
//! A link of rate r and round trip t is full only while r * t bytes are on their way, and one process reading through
//! the kernel asks for 128 KiB at a time. So a sequential reader gets a window: at first small, since a reader that looks
//! at a header should cost little, and the whole bound once it has read on for a while: with steps between the two the
//! link would fall idle for a round trip at each of them. A reader that jumps gets what it asks for and starts again
//! small; one that jumps twice gets nothing ahead.

use std::ops::Range;

/// A read may skip so much and still count as going on: the kernel's own read-ahead comes slightly out of order.
const SLACK_BYTES: u64 = 1 << 20;

/// Who has read so much in sequence will most likely read on.
const TRUSTED_BYTES: u64 = 2 << 20;

/// Reads out of sequence after which nothing is fetched ahead any more, until the reader goes on in sequence again.
const JUMPS_MAX: u32 = 2;

/// Where a reader is and how far ahead of it bytes were asked for.
#[derive(Clone, Debug)]
pub struct Window {
    size_bytes: u64,
    first_bytes: u64,
    max_bytes: u64,
    /// Where the sequence began.
    began_at: u64,
    /// End of what was read.
    read_to: u64,
    /// End of what was asked for.
    asked_to: u64,
    jumps: u32,
}

impl Window {
    /// For a file of `size_bytes`.
    pub fn new(size_bytes: u64, first_bytes: u64, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.max(first_bytes);
        Self { size_bytes, first_bytes, max_bytes, began_at: 0, read_to: 0, asked_to: 0, jumps: 0 }
    }

    /// Takes note of a read and says what to ask for now, beyond the read itself.
    pub fn read(&mut self, offset: u64, length: u64) -> Option<Range<u64>> {
        let end = (offset + length).min(self.size_bytes);
        let goes_on = offset <= self.read_to + SLACK_BYTES && end + SLACK_BYTES >= self.read_to;
        if goes_on {
            self.read_to = self.read_to.max(end);
            self.jumps = self.jumps.saturating_sub(u32::from(offset > 0));
        } else {
            self.jumps += 1;
            (self.began_at, self.read_to, self.asked_to) = (offset, end, end);
        }
        if self.jumps >= JUMPS_MAX {
            return None;
        }
        let trusted = self.read_to.saturating_sub(self.began_at) >= TRUSTED_BYTES;
        let ahead_bytes = if trusted { self.max_bytes } else { self.first_bytes };
        let target = (self.read_to + ahead_bytes).min(self.size_bytes);
        let from = self.asked_to.max(self.read_to);
        // Half of the window is the mark: ask rarely, and long before the reader is through.
        let left = self.asked_to.saturating_sub(self.read_to);
        if from >= target || (left > ahead_bytes / 2 && target < self.size_bytes) {
            return None;
        }
        self.asked_to = target;
        Some(from..target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_sequential_reader_gets_a_growing_window_that_never_runs_dry() {
        let mut window = Window::new(1024 * MIB, 8 * MIB, 64 * MIB);
        let mut asked = 0;
        for at in (0..1024 * MIB).step_by(128 << 10) {
            if let Some(range) = window.read(at, 128 << 10) {
                assert_eq!(range.start, asked.max(at + (128 << 10)), "asked twice or left a hole");
                asked = range.end;
            }
            assert!(asked >= (at + 4 * MIB).min(1024 * MIB), "ran dry at {at}");
            assert!(asked <= at + 66 * MIB, "ran away at {at}");
        }
        assert_eq!(asked, 1024 * MIB);
    }

    #[test]
    fn a_reader_that_jumps_about_gets_nothing_ahead_and_wins_it_back() {
        let mut window = Window::new(1024 * MIB, 8 * MIB, 64 * MIB);
        let jumps = [900, 100, 700, 300, 500].map(|at| window.read(at * MIB, 4096));
        assert!(jumps[2..].iter().all(Option::is_none), "{jumps:?}");
        let on: Vec<_> = (0..64).filter_map(|i| window.read(500 * MIB + 4096 + i * 131_072, 131_072)).collect();
        assert!(!on.is_empty());
    }

    proptest! {
        #[test]
        fn it_never_asks_beyond_the_end_nor_for_more_than_its_bound(
            reads in proptest::collection::vec((0u64..200, 1u64..2), 1..60), size in 1u64..200
        ) {
            let mut window = Window::new(size * MIB, 2 * MIB, 16 * MIB);
            for (at, length) in reads {
                if let Some(range) = window.read(at * MIB, length * MIB) {
                    prop_assert!(range.start < range.end && range.end <= size * MIB);
                    prop_assert!(range.end - range.start <= 16 * MIB);
                }
            }
        }
    }
}
