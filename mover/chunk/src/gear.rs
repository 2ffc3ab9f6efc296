//! Where chunks end: the gear hash of FastCDC (2020), gone through in four places at once.
//!
//! Each byte doubles the hash and adds what stands for that byte in a table, so a byte is out of its 64 bits 64 bytes on, and
//! whoever begins 64 bytes before a place has the same hash there as who came from the chunk's start. One hash after the
//! other is a chain in which each step waits for the last; four of them, a stretch apart, keep the processor busy. A stretch
//! in which a chunk may end is gone through once more byte by byte, which finds the first such place: the same chunks as
//! the `fastcdc` crate cuts, whose tables these are.

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// Bytes that a hash tells of.
const WINDOW: usize = u64::BITS as usize;
/// Places that are hashed side by side.
const LANES: usize = 4;
/// Bytes of each in one go: the window before it, gone through to begin there, costs a quarter more, and what is gone through
/// twice is a small part of a chunk.
const LANE_BYTES: usize = 256;
const STRETCH_BYTES: usize = LANES * LANE_BYTES;

/// A domain's table, and what a hash must look like at a chunk's end.
#[derive(Clone, Debug)]
pub(crate) struct Gear {
    table: Box<[u64; 256]>,
    /// Before the average length, where few ends are wanted.
    strict: u64,
    /// After it.
    loose: u64,
}

impl Gear {
    pub(crate) fn new(seed: u64, average: usize) -> Self {
        let (table, _) = get_gear_with_seed(seed);
        let (strict, loose) = select_masks(average, Normalization::Level1);
        let table = <[u64; 256]>::try_from(&*table).expect("a value for each byte");
        Self { table: Box::new(table), strict, loose }
    }

    /// Length of the first chunk of `bytes`: between `min` and `max`, which are even as `average` is, or all of them.
    pub(crate) fn first(&self, bytes: &[u8], min: usize, average: usize, max: usize) -> usize {
        let end = bytes.len().min(max);
        if end <= min {
            return end;
        }
        // The crate looks at bytes in pairs, so the last one of an odd number is no end.
        let (even, middle) = (end & !1, end.min(average) & !1);
        let mut hash = 0;
        let strictly = self.find(&bytes[..middle], min, min, self.strict, &mut hash);
        strictly.or_else(|| self.find(&bytes[..even], middle, min, self.loose, &mut hash)).unwrap_or(end)
    }

    /// The first place from `at` on, before which `hash` tells of the bytes since `start`, that ends a chunk by `mask`.
    fn find(&self, bytes: &[u8], mut at: usize, start: usize, mask: u64, hash: &mut u64) -> Option<usize> {
        while bytes.len() - at >= STRETCH_BYTES {
            let passed =
                if at - start >= WINDOW { self.pass(&bytes[at - WINDOW..at + STRETCH_BYTES], mask) } else { None };
            match passed {
                Some(after) => *hash = after,
                None => {
                    if let Some(end) = self.step(&bytes[at..at + STRETCH_BYTES], mask, hash) {
                        return Some(at + end);
                    }
                }
            }
            at += STRETCH_BYTES;
        }
        self.step(&bytes[at..], mask, hash).map(|end| at + end)
    }

    /// The hash after a stretch that follows on a window's bytes; none if a chunk may end in it.
    fn pass(&self, bytes: &[u8], mask: u64) -> Option<u64> {
        let lane = |n: usize| bytes[n * LANE_BYTES..][..WINDOW + LANE_BYTES].split_at(WINDOW);
        let [(w0, l0), (w1, l1), (w2, l2), (w3, l3)] = [lane(0), lane(1), lane(2), lane(3)];
        let [mut h0, mut h1, mut h2, mut h3] = [0; LANES];
        for (((a, b), c), d) in w0.iter().zip(w1).zip(w2).zip(w3) {
            (h0, h1, h2, h3) = (self.next(h0, *a), self.next(h1, *b), self.next(h2, *c), self.next(h3, *d));
        }
        for (((a, b), c), d) in l0.iter().zip(l1).zip(l2).zip(l3) {
            (h0, h1, h2, h3) = (self.next(h0, *a), self.next(h1, *b), self.next(h2, *c), self.next(h3, *d));
            if h0 & mask == 0 || h1 & mask == 0 || h2 & mask == 0 || h3 & mask == 0 {
                return None;
            }
        }
        Some(h3)
    }

    /// The first place that ends a chunk.
    fn step(&self, bytes: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
        bytes.iter().position(|byte| {
            *hash = self.next(*hash, *byte);
            *hash & mask == 0
        })
    }

    fn next(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.table[usize::from(byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::cut_gear;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    /// The crate's own answer.
    fn crate_first(seed: u64, bytes: &[u8], min: usize, average: usize, max: usize) -> usize {
        let (gear, gear_ls) = get_gear_with_seed(seed);
        let (s, l) = select_masks(average, Normalization::Level1);
        cut_gear(bytes, min, average, max, s, l, s << 1, l << 1, &gear, &gear_ls).1
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn chunks_end_where_the_crate_ends_them(
            seed: u64, noise: u64, length in 0usize..300_000, log in 12u32..18, repeats in 1usize..40_000,
        ) {
            let average = 1 << log;
            let (min, max) = (average / 2, average * 4);
            let mut bytes = vec![0; length];
            rand_chacha::ChaCha8Rng::seed_from_u64(noise).fill_bytes(&mut bytes);
            // What repeats, and is all alike with a repeat of 1, hardly ends a chunk or ends one in many places.
            let bytes: Vec<u8> = if noise % 4 == 0 { (0..length).map(|i| bytes[i % repeats]).collect() } else { bytes };
            let gear = Gear::new(seed, average);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let end = gear.first(rest, min, average, max);
                prop_assert_eq!(end, crate_first(seed, rest, min, average, max));
                rest = &rest[end..];
            }
        }
    }
}
