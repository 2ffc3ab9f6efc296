//! Where each chunk of a file lies.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use foretide_flow::{ChunkId, Manifest};

/// A manifest with the offsets that its lengths add up to.
#[derive(Clone, Debug)]
pub struct ChunkMap {
    manifest: Arc<Manifest>,
    ends: Box<[u64]>,
    /// Made when first asked for.
    places: OnceLock<HashMap<ChunkId, u32>>,
}

/// A neighbour that two versions share is looked for this many chunks to either side.
const NEIGHBOURS: u32 = 32;
/// Older bytes are compared with newer ones up to this many times as many, and up to this much more: a long stretch
/// that was replaced by a short one shares little with it.
const REGION_TIMES: u64 = 4;
const REGION_MORE_BYTES: u64 = 1 << 20;

impl ChunkMap {
    /// Adds the lengths up.
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let ends = manifest
            .chunks
            .iter()
            .scan(0u64, |end, c| {
                *end += u64::from(c.length);
                Some(*end)
            })
            .collect();
        Self { manifest, ends, places: OnceLock::new() }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// How many chunks.
    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The bytes of chunk `index`.
    pub fn range(&self, index: u32) -> Range<u64> {
        let i = index as usize;
        (if i == 0 { 0 } else { self.ends[i - 1] })..self.ends[i]
    }

    /// The chunks that hold a byte range, cut off at the file's end.
    pub fn covering(&self, bytes: &Range<u64>) -> Range<u32> {
        let end = bytes.end.min(self.manifest.size);
        if bytes.start >= end {
            return 0..0;
        }
        let first = self.ends.partition_point(|e| *e <= bytes.start);
        let last = self.ends.partition_point(|e| *e < end);
        first as u32..last as u32 + 1
    }

    /// The bytes of this older version that lie where `chunks` of a newer one do: between the nearest neighbours that
    /// both have, or the file's ends. None if there are none, or far too many to be the same.
    pub fn region_before(&self, newer: &Self, chunks: &Range<u32>) -> Option<Range<u64>> {
        let nearest = |mut candidates: Box<dyn Iterator<Item = u32>>| candidates.find_map(|i| self.find(newer, i));
        let lowest = chunks.start.saturating_sub(NEIGHBOURS);
        let highest = chunks.end.saturating_add(NEIGHBOURS).min(newer.count());
        let start = match nearest(Box::new((lowest..chunks.start).rev())) {
            Some(left) => self.range(left).end,
            None if lowest == 0 => 0,
            None => return None,
        };
        let end = match nearest(Box::new(chunks.end..highest)) {
            Some(right) => self.range(right).start,
            None if highest == newer.count() => self.manifest.size,
            None => return None,
        };
        let length = newer.range(chunks.end.checked_sub(1)?).end - newer.range(chunks.start).start;
        (start < end && end - start <= REGION_TIMES * length + REGION_MORE_BYTES).then_some(start..end)
    }

    fn find(&self, newer: &Self, i: u32) -> Option<u32> {
        let places = self.places.get_or_init(|| self.manifest.chunks.iter().map(|c| c.id).zip(0..).collect());
        places.get(&newer.manifest.chunks[i as usize].id).copied()
    }

    /// Memory that it takes, bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.ends.len() * (8 + std::mem::size_of::<foretide_flow::ChunkRef>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DomainKey, manifest_of};
    use foretide_flow::{ChunkId, ChunkRef, FileVersion};

    #[test]
    fn ranges_and_coverings_agree() {
        let chunks = [3, 5, 2].map(|length| ChunkRef { id: ChunkId([0; 32]), length }).to_vec();
        let map = ChunkMap::new(Arc::new(manifest_of(&DomainKey::default(), FileVersion("v".into()), chunks)));
        assert_eq!((map.range(0), map.range(2)), (0..3, 8..10));
        for (bytes, chunks) in
            [(0..1, 0..1), (0..3, 0..1), (2..4, 0..2), (3..8, 1..2), (0..99, 0..3), (8..8, 0..0), (10..12, 0..0)]
        {
            assert_eq!(map.covering(&bytes), chunks, "{bytes:?}");
        }
    }

    fn map(ids: &[u8]) -> ChunkMap {
        let chunks = ids.iter().map(|id| ChunkRef { id: ChunkId([*id; 32]), length: 10 }).collect();
        ChunkMap::new(Arc::new(manifest_of(&DomainKey::default(), FileVersion("v".into()), chunks)))
    }

    #[test]
    fn what_lay_between_the_same_neighbours_is_what_changed() {
        let older = map(&[1, 2, 3, 4, 5]);
        assert_eq!(older.region_before(&map(&[1, 2, 9, 4, 5]), &(2..3)), Some(20..30));
        assert_eq!(older.region_before(&map(&[1, 8, 9, 5]), &(1..3)), Some(10..40));
        assert_eq!(older.region_before(&map(&[9, 2, 3, 4, 5]), &(0..1)), Some(0..10));
        assert_eq!(older.region_before(&map(&[1, 2, 3, 4, 9]), &(4..5)), Some(40..50));
        assert_eq!(older.region_before(&map(&[1, 2, 9, 3, 4, 5]), &(2..3)), None, "an insertion between chunks");
        assert_eq!(older.region_before(&map(&[6, 7, 8]), &(1..2)), Some(0..50), "nothing is shared but the ends");
        assert_eq!(older.region_before(&map(&[5, 9, 1]), &(1..2)), None, "neighbours that changed places");
        assert_eq!(map(&[7; 90]).region_before(&map(&[8; 90]), &(45..46)), None, "no neighbour near");
    }
}
