//! Checking what is on disk against its ids, and dropping what is not it.

use super::disk::read_exact_at;
use super::{CheckReport, Lost, Store, StoreError, Subset};
use crate::ChunkMap;
use std::fs::File;

impl Store {
    /// Reads and hashes one subset of what is resident; what is corrupt is dropped, to be fetched again.
    ///
    /// # Errors
    /// [`StoreError::Index`] if a manifest cannot be read; a chunk that cannot be read counts as corrupt.
    pub fn check(&self, subset: Subset) -> Result<CheckReport, StoreError> {
        let chosen: Vec<u64> = {
            let state = self.lock();
            let mut all: Vec<u64> = state.files.keys().copied().collect();
            all.retain(|no| no % u64::from(subset.of.max(1)) == u64::from(subset.part.saturating_sub(1)));
            all.sort_unstable();
            all
        };
        let mut report = CheckReport::default();
        for no in chosen {
            self.check_file(no, &mut report)?;
        }
        Ok(report)
    }

    pub(super) fn check_file(&self, no: u64, report: &mut CheckReport) -> Result<(), StoreError> {
        let (key, map, have) = {
            let mut state = self.lock();
            let Some(held) = state.files.get(&no) else { return Ok(()) };
            let (key, have) = (held.record.key.clone(), held.record.have.clone());
            (key, self.map_of(&mut state, no)?, have)
        };
        let file = self.data.get(no, false).ok();
        for i in (0..map.count()).filter(|i| have.has(*i)) {
            report.chunks += 1;
            report.bytes += u64::from(map.manifest().chunks[i as usize].length);
            let good = file.as_ref().is_some_and(|f| self.prove(no, &map, f, i));
            if !good {
                report.corrupt += 1;
                report.lost.push(Lost { key: key.clone(), bytes: map.range(i) });
            }
        }
        Ok(())
    }

    /// Hashes one chunk on disk: proven from now on if it is what its id says, dropped if not.
    pub(super) fn prove(&self, no: u64, map: &ChunkMap, file: &File, i: u32) -> bool {
        let chunk = map.manifest().chunks[i as usize];
        let mut bytes = vec![0; chunk.length as usize];
        let read = read_exact_at(&*self.disk, file, &mut bytes, map.range(i).start);
        let good = read.is_ok() && self.key.chunk_id(&bytes) == chunk.id;
        let mut state = self.lock();
        if good {
            if let Some(held) = state.files.get_mut(&no) {
                held.proven.insert(i, map.count());
            }
        } else {
            tracing::warn!(file = no, chunk = i, "corrupt chunk dropped from the store");
            state.drop_chunk(no, map, i);
        }
        good
    }
}
