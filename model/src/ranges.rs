//! The byte ranges of a file that were read: sorted, disjoint, bounded.

use serde::{Deserialize, Serialize};

/// A set of bytes as half-open ranges `(start, end)`, ascending, neither touching nor overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// One range; nothing if it is empty.
    pub fn one(start: u64, end: u64) -> Self {
        Self(if start < end { vec![(start, end)] } else { Vec::new() })
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in the set.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(s, e)| e - s).sum()
    }

    /// The byte after the last; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |r| r.1)
    }

    /// Adds a range. If there are then more than `most`, the two closest are joined (promise K).
    pub fn add(&mut self, start: u64, end: u64, most: usize) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|r| r.1 < start);
        let last = self.0.partition_point(|r| r.0 <= end);
        if first == last {
            self.0.insert(first, (start, end));
        } else {
            let joined = (start.min(self.0[first].0), end.max(self.0[last - 1].1));
            self.0[first] = joined;
            self.0.drain(first + 1..last);
        }
        if self.0.len() > most.max(1) {
            self.join_closest();
        }
    }

    /// What of a range is in the set.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.partition_point(|r| r.1 <= start);
        self.0[first..].iter().take_while(move |r| r.0 < end).map(move |r| (r.0.max(start), r.1.min(end)))
    }

    /// Adds a range that was read: to `again` what of it had been read before.
    pub fn read(&mut self, again: &mut Self, start: u64, end: u64, most: usize) {
        self.within(start, end).for_each(|(from, to)| again.add(from, to, most));
        self.add(start, end, most);
    }

    fn join_closest(&mut self) {
        let gap = |i: &usize| self.0[i + 1].0 - self.0[*i].1;
        if let Some(i) = (0..self.0.len() - 1).min_by_key(gap) {
            self.0[i].1 = self.0[i + 1].1;
            self.0.remove(i + 1);
        }
    }

    /// Bytes that are in both sets.
    pub fn overlap(&self, other: &Self) -> u64 {
        let (mut i, mut j, mut sum) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            sum += a.1.min(b.1).saturating_sub(a.0.max(b.0));
            if a.1 <= b.1 { i += 1 } else { j += 1 }
        }
        sum
    }

    /// What lies below `end`.
    pub fn cut(&self, end: u64) -> Self {
        Self(self.0.iter().filter(|r| r.0 < end).map(|r| (r.0, r.1.min(end))).collect())
    }

    /// Everything that is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match out.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => out.push((start, end)),
            }
        }
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_once_more_is_told_apart() {
        let (mut read, mut again) = (Ranges::default(), Ranges::default());
        for (start, end) in [(0, 10), (20, 30), (5, 25), (40, 50)] {
            read.read(&mut again, start, end, 100);
        }
        assert_eq!((read.as_slice(), again.as_slice()), (&[(0, 30), (40, 50)][..], &[(5, 10), (20, 25)][..]));
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_of_bytes(adds in proptest::collection::vec((0u64..200, 0u64..40), 0..30)) {
            let mut ranges = Ranges::default();
            let mut plain = std::collections::BTreeSet::new();
            for (start, length) in adds {
                ranges.add(start, start + length, 1000);
                plain.extend(start..start + length);
            }
            prop_assert_eq!(ranges.bytes(), plain.len() as u64);
            prop_assert!(ranges.as_slice().windows(2).all(|w| w[0].1 < w[1].0));
            let low = Ranges::one(50, 120);
            prop_assert_eq!(ranges.overlap(&low), plain.iter().filter(|b| (50..120).contains(*b)).count() as u64);
            prop_assert_eq!(ranges.union(&low).bytes(), ranges.bytes() + 70 - ranges.overlap(&low));
            prop_assert_eq!(ranges.cut(100).bytes(), plain.iter().filter(|b| **b < 100).count() as u64);
        }

        #[test]
        fn k_never_more_than_the_bound_and_nothing_lost(starts in proptest::collection::vec(0u64..10_000, 1..60)) {
            let mut ranges = Ranges::default();
            for s in &starts {
                ranges.add(*s, s + 3, 8);
                prop_assert!(ranges.as_slice().len() <= 8);
            }
            for s in &starts {
                prop_assert_eq!(ranges.overlap(&Ranges::one(*s, s + 3)), 3);
            }
        }
    }
}
