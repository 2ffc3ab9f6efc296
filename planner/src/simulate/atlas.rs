//! Files by number, cut into blocks; which of them may be at a site.

use std::collections::HashMap;

use foretide_flow::{FilePath, Ruleset, SiteId, Timestamp, Topology, Verdict, VolumeId};

use super::world::File;

/// Bytes that are fetched, kept and evicted together.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// A file's number, and the block's in it.
pub(super) type Block = (u32, u32);

/// Files that jobs read or forecasts name.
#[derive(Clone, Debug)]
pub(super) struct Atlas {
    files: Vec<File>,
    by_name: HashMap<VolumeId, HashMap<FilePath, u32>>,
}

impl Atlas {
    pub(super) fn new(files: &[File]) -> Self {
        let mut by_name: HashMap<VolumeId, HashMap<FilePath, u32>> = HashMap::new();
        for (file, number) in files.iter().zip(0..) {
            by_name.entry(file.volume.clone()).or_default().insert(file.path.clone(), number);
        }
        Self { files: files.to_vec(), by_name }
    }

    pub(super) fn file(&self, number: u32) -> &File {
        &self.files[number as usize]
    }

    pub(super) fn number(&self, volume: &VolumeId, path: &FilePath) -> Option<u32> {
        self.by_name.get(volume)?.get(path).copied()
    }

    /// The number of a file; one that nobody reads gets one too.
    pub(super) fn intern(&mut self, volume: &VolumeId, path: &FilePath, bytes: u64) -> u32 {
        if let Some(known) = self.number(volume, path) {
            return known;
        }
        let number = self.files.len() as u32;
        self.files.push(File { volume: volume.clone(), path: path.clone(), bytes });
        self.by_name.entry(volume.clone()).or_default().insert(path.clone(), number);
        number
    }

    /// Blocks of an extent as far as the file goes.
    pub(super) fn blocks(&self, file: u32, offset: u64, length: u64) -> impl Iterator<Item = Block> + use<> {
        let end = offset.saturating_add(length).min(self.file(file).bytes);
        let range = if offset < end { offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) } else { 0..0 };
        range.map(move |block| (file, block as u32))
    }

    pub(super) fn bytes(&self, block: Block) -> u64 {
        let from = u64::from(block.1) * BLOCK_BYTES;
        (self.file(block.0).bytes - from).min(BLOCK_BYTES)
    }

    /// Bytes that a block and an extent share.
    pub(super) fn shared(&self, block: Block, offset: u64, length: u64) -> u64 {
        let from = u64::from(block.1) * BLOCK_BYTES;
        let end = offset.saturating_add(length).min(from + self.bytes(block));
        end.saturating_sub(from.max(offset))
    }

    /// What the rules say of a file at a site.
    pub(super) fn verdict(
        &self,
        rules: &Ruleset,
        topology: &Topology,
        file: u32,
        (site, now_us): (&SiteId, i64),
    ) -> Verdict {
        let file = self.file(file);
        rules.verdict(topology, &file.volume, &file.path, site, Timestamp(now_us))
    }
}
