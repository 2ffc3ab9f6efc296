//! Byte ranges of a file, merged.

/// Start and end (exclusive); in order, none empty, none touching the next.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// Adds `start..end`, merging what it overlaps or touches.
pub(crate) fn add(ranges: &mut Ranges, start: u64, end: u64) {
    if start >= end {
        return;
    }
    let first = ranges.partition_point(|r| r.1 < start);
    let last = ranges.partition_point(|r| r.0 <= end);
    let merged = ranges[first..last].iter().fold((start, end), |m, r| (m.0.min(r.0), m.1.max(r.1)));
    ranges.splice(first..last, [merged]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the plain model: a set of bytes.
        #[test]
        fn ranges_hold_the_bytes_that_were_added(adds in proptest::collection::vec((0u64..60, 0u64..20), 0..30)) {
            let mut ranges = Ranges::new();
            let mut bytes = std::collections::BTreeSet::new();
            for (start, length) in adds {
                add(&mut ranges, start, start + length);
                bytes.extend(start..start + length);
            }
            let held: Vec<u64> = ranges.iter().flat_map(|r| r.0..r.1).collect();
            prop_assert_eq!(held, bytes.into_iter().collect::<Vec<_>>());
            prop_assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0) && ranges.iter().all(|r| r.0 < r.1));
        }
    }
}
