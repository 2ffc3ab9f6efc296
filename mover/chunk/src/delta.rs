//! Changed bytes as a difference against older bytes that the receiver holds.
//!
//! Content-defined chunks find what did not change, down to a chunk; a chunk of 64 KiB in which one sector changed
//! would cross whole all the same. So the receiver describes the bytes that lie between the same neighbours in its older
//! version by a [`Signature`] (8 bytes for a block of about 1 KiB). The sender slides a window over the new bytes, finds
//! the blocks that are still there, wherever they lie now, and answers with a delta: which blocks to copy, and the bytes
//! between them. It is rsync's way, inside changed chunks only and in one round trip.
//!
//! Whoever applies a delta checks the result by the digests of its chunks, so a block that collides and a peer that lies
//! cost a further round trip, never a wrong byte.

use crate::DomainKey;
use crate::encoding::{EncodingError, Reader, put_bytes};

/// Blocks are at least this long, bytes. Half as long would save 250 bytes for each change and cost 8 bytes for each
/// KiB that is compared: about the same where one KiB in thirty changes, which is where chunks of 64 KiB leave it.
const BLOCK_BYTES: usize = 1024;
/// A signature longer than this is refused: 64 MiB of older bytes.
const MAX_BLOCKS: usize = 1 << 16;
/// Blocks of the same weak hash that are compared at one place: bounds the time that repetitive bytes can cost.
const MAX_CANDIDATES: usize = 8;

/// What the sender needs to know of the receiver's older bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    block_bytes: usize,
    /// Weak and strong hash of each block.
    blocks: Vec<(u32, u32)>,
}

impl Signature {
    /// Of the older bytes. They are divided evenly, so that hardly any are left over at their end.
    pub fn of(key: &DomainKey, older: &[u8]) -> Self {
        let count = (older.len() / BLOCK_BYTES).min(MAX_BLOCKS);
        let block_bytes = older.len().checked_div(count).map_or(BLOCK_BYTES, |n| n.min(2 * BLOCK_BYTES));
        let blocks = older.chunks_exact(block_bytes).take(count);
        Self { block_bytes, blocks: blocks.map(|b| (Window::over(b).weak(), key.block_hash(b))).collect() }
    }

    /// Whether there is nothing that could be copied.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Writes it down.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 8 * self.blocks.len());
        out.extend_from_slice(&(self.block_bytes as u32).to_le_bytes());
        for (weak, strong) in &self.blocks {
            out.extend_from_slice(&weak.to_le_bytes());
            out.extend_from_slice(&strong.to_le_bytes());
        }
        out
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`EncodingError`] for anything that [`Signature::encode`] does not write.
    pub fn decode(record: &[u8]) -> Result<Self, EncodingError> {
        let mut r = Reader::new(record);
        let block_bytes = r.u32("block length")? as usize;
        if !(BLOCK_BYTES..=2 * BLOCK_BYTES).contains(&block_bytes) || r.rest().len() / 8 > MAX_BLOCKS {
            return Err(EncodingError::Impossible("block length"));
        }
        let mut blocks = Vec::with_capacity(r.rest().len() / 8);
        while !r.rest().is_empty() {
            blocks.push((r.u32("weak hash")?, r.u32("strong hash")?));
        }
        Ok(Self { block_bytes, blocks })
    }
}

/// A hash of a window that slides: a polynomial in the bytes, modulo 2^64.
#[derive(Clone, Copy)]
struct Window(u64);

/// An odd number without pattern (the 64 bits of the golden ratio).
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Window {
    fn over(bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(0, |h: u64, b| h.wrapping_mul(BASE).wrapping_add(u64::from(*b) + 1)))
    }

    /// One byte on; `leaving` is the weight of the byte that leaves.
    fn slide(&mut self, out: u8, into: u8, leaving: u64) {
        let without = self.0.wrapping_sub(leaving.wrapping_mul(u64::from(out) + 1));
        self.0 = without.wrapping_mul(BASE).wrapping_add(u64::from(into) + 1);
    }

    /// The high half: the low bits of a product depend on the low bits of its factors alone.
    fn weak(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The signature's blocks, to be found by their weak hash.
struct Blocks<'a> {
    key: &'a DomainKey,
    signature: &'a Signature,
    by_weak: Vec<(u32, u32)>,
    /// Whether any weak hash has these upper 16 bits: spares nearly all searches.
    filter: Vec<u64>,
}

impl<'a> Blocks<'a> {
    fn new(key: &'a DomainKey, signature: &'a Signature) -> Self {
        let mut by_weak: Vec<(u32, u32)> = (0u32..).zip(&signature.blocks).map(|(i, (weak, _))| (*weak, i)).collect();
        by_weak.sort_unstable();
        let mut filter = vec![0; 1 << 10];
        for (weak, _) in &by_weak {
            filter[(weak >> 22) as usize] |= 1 << (weak >> 16 & 63);
        }
        Self { key, signature, by_weak, filter }
    }

    /// The block that these bytes are; `next` if it is that one, so that copies run on.
    fn find(&self, weak: u32, bytes: &[u8], next: Option<u32>) -> Option<u32> {
        if self.filter[(weak >> 22) as usize] >> (weak >> 16 & 63) & 1 == 0 {
            return None;
        }
        let from = self.by_weak.partition_point(|(w, _)| *w < weak);
        let same = self.by_weak[from..].iter().take_while(|(w, _)| *w == weak).map(|(_, i)| *i);
        let mut same = next.filter(|n| self.block(*n).is_some_and(|b| b.0 == weak)).into_iter().chain(same).peekable();
        same.peek()?;
        let strong = self.key.block_hash(bytes);
        same.take(MAX_CANDIDATES).find(|i| self.block(*i).is_some_and(|b| b.1 == strong))
    }

    fn block(&self, i: u32) -> Option<&(u32, u32)> {
        self.signature.blocks.get(i as usize)
    }
}

/// Writes `newer` as a difference: as often as needed, literal bytes with their length before them, then the first
/// block to copy and how many.
pub fn delta(key: &DomainKey, signature: &Signature, newer: &[u8]) -> Vec<u8> {
    let (blocks, n) = (Blocks::new(key, signature), signature.block_bytes);
    let leaving = (1..n).fold(1u64, |w, _| w.wrapping_mul(BASE));
    let mut out = Out::default();
    let (mut at, mut literal_from) = (0, 0);
    let mut window = newer.get(..n).map(Window::over);
    while let Some(w) = &mut window {
        let seen = &newer[at..at + n];
        if let Some(block) = blocks.find(w.weak(), seen, out.next_block()) {
            out.copy(&newer[literal_from..at], block);
            at += n;
            literal_from = at;
            window = newer.get(at..at + n).map(Window::over);
        } else if at + n < newer.len() {
            w.slide(newer[at], newer[at + n], leaving);
            at += 1;
        } else {
            window = None;
        }
    }
    out.end(&newer[literal_from..])
}

/// A delta being written; the copy that may still grow is held back.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    open: Option<(u32, u32)>,
}

impl Out {
    fn next_block(&self) -> Option<u32> {
        self.open.map(|(first, count)| first + count)
    }

    fn copy(&mut self, literal: &[u8], block: u32) {
        if let Some((_, count)) = self.open.as_mut().filter(|(f, c)| literal.is_empty() && f.wrapping_add(*c) == block)
        {
            *count += 1;
            return;
        }
        self.close();
        put_bytes(&mut self.bytes, literal);
        self.open = Some((block, 1));
    }

    fn close(&mut self) {
        if let Some((first, count)) = self.open.take() {
            self.bytes.extend_from_slice(&first.to_le_bytes());
            self.bytes.extend_from_slice(&count.to_le_bytes());
        }
    }

    fn end(mut self, literal: &[u8]) -> Vec<u8> {
        self.close();
        if !literal.is_empty() {
            put_bytes(&mut self.bytes, literal);
            self.open = Some((0, 0));
            self.close();
        }
        self.bytes
    }
}

/// Makes the newer bytes, of which there are `length`, from the older ones that `signature` is of.
///
/// # Errors
/// [`EncodingError`] if the delta is none of that signature, or makes more or fewer bytes.
pub fn apply(older: &[u8], signature: &Signature, delta: &[u8], length: usize) -> Result<Vec<u8>, EncodingError> {
    let impossible = || EncodingError::Impossible("copy");
    let mut newer = Vec::with_capacity(length);
    let mut r = Reader::new(delta);
    while !r.rest().is_empty() {
        let literal = r.bytes("literal")?;
        let (first, count) = (r.u32("first block")? as usize, r.u32("blocks")? as usize);
        let end = first.checked_add(count).filter(|e| *e <= signature.blocks.len()).ok_or_else(impossible)?;
        let copied = older.get(first * signature.block_bytes..end * signature.block_bytes).ok_or_else(impossible)?;
        if newer.len() + literal.len() + copied.len() > length {
            return Err(impossible());
        }
        newer.extend_from_slice(literal);
        newer.extend_from_slice(copied);
    }
    if newer.len() == length { Ok(newer) } else { Err(EncodingError::Short("delta")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn sent(older: &[u8], newer: &[u8]) -> usize {
        let key = DomainKey::default();
        let signature = Signature::decode(&Signature::of(&key, older).encode()).unwrap();
        let delta = delta(&key, &signature, newer);
        assert!(apply(older, &signature, &delta, newer.len()).unwrap() == newer);
        delta.len()
    }

    #[test]
    fn one_changed_sector_costs_its_blocks_and_no_more() {
        let older = noise(1, 100_000);
        let mut newer = older.clone();
        newer[40_000..40_512].copy_from_slice(&noise(2, 512));
        assert!(sent(&older, &newer) < 512 + 2 * 1100, "{}", sent(&older, &newer));
        assert!(sent(&older, &older) < 200);
    }

    #[test]
    fn what_moved_is_found_where_it_lies_now() {
        let older = noise(1, 100_000);
        let mut newer = older.clone();
        newer.splice(30_000..30_000, *b"inserted");
        newer.drain(60_000..60_500);
        assert!(sent(&older, &newer) < 4 * 1100, "{}", sent(&older, &newer));
    }

    #[test]
    fn what_shares_nothing_costs_itself() {
        let (older, newer) = (noise(1, 70_000), noise(2, 70_000));
        assert!(sent(&older, &newer) < 70_100);
        assert!(sent(b"", &newer) < 70_100 && sent(&older, b"") == 0);
    }

    #[test]
    fn the_same_byte_again_and_again_takes_no_long_time() {
        let began = std::time::Instant::now();
        assert!(sent(&vec![0; 1 << 20], &vec![0; (1 << 20) + 777]) < 20_000);
        assert!(began.elapsed().as_secs() < 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_edits_read_back(
            seed: u64, len in 0usize..20_000,
            edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..3000, 0usize..3000), 0..5),
        ) {
            let older = noise(seed, len);
            let mut newer = older.clone();
            for (at, gone, added) in edits {
                let at = at.index(newer.len() + 1);
                let end = (at + gone).min(newer.len());
                newer.splice(at..end, noise(seed ^ added as u64, added));
            }
            sent(&older, &newer);
        }

        #[test]
        fn any_bytes_are_applied_or_refused(delta in proptest::collection::vec(any::<u8>(), 0..100), length in 0usize..9000) {
            let older = noise(3, 5000);
            let signature = Signature::of(&DomainKey::default(), &older);
            if let Ok(newer) = apply(&older, &signature, &delta, length) {
                prop_assert_eq!(newer.len(), length);
            }
            let _ = Signature::decode(&delta);
        }
    }
}
