//! Where each chunk of a file lies.

use std::ops::Range;
use std::sync::Arc;

use foretide_flow::Manifest;

/// A manifest with the offsets that its lengths add up to.
#[derive(Clone, Debug)]
pub struct ChunkMap {
    manifest: Arc<Manifest>,
    ends: Box<[u64]>,
}

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
        Self { manifest, ends }
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
}
