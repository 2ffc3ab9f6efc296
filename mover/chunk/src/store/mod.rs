//! The chunk store of a cache site.
//!
//! Content lies as **one sparse file per file version**, so that a file that is wholly here can be handed to the
//! kernel as the backing of a FUSE passthrough; what is here of it is known chunk by chunk. Chunks that another
//! file holds already are copied, not fetched: dedup saves the link. (Disk space it does not save: chunks do not
//! start on block borders, so no file system could share them.)
//!
//! Three layers keep it honest:
//! - a table in memory ([`state`]) is the truth while the process runs;
//! - a journal ([`journal`]) tells each admission and arrival with one unsynced write: it survives kill -9;
//! - a checkpoint (every few seconds) syncs the content, then commits the index ([`index`], redb), then removes the
//!   older journals: it survives power loss.
//!
//! At start, whatever only the journal claims is hashed before it counts (promise D); what the checkpoint knows
//! was synced before it was written down, is hashed again at its first read, and by [`Store::check`].
//!
//! A file that leaves is emptied and used again for the next that comes ([`disk`]).
//!
//! Room is reserved before a byte is written, so `capacity_bytes` holds at all times; which file leaves is a pure
//! order ([`evict`]). The index and the journal lie beside the content and are not counted: about 0.2 % of it.

mod bits;
mod check;
mod checkpoint;
mod disk;
mod evict;
mod fill;
mod index;
mod journal;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod types;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foretide_flow::{FilePath, Timestamp, VolumeId};

pub use disk::{Disk, RealDisk};
pub use evict::{Candidate, Claim, EpochAware, EvictionPolicy, Rank};
pub use fill::Fill;
pub use types::{
    Arrival, Census, CheckReport, Config, Evicted, Expelled, FileKey, Lost, ReadNote, Resident, StoreError, Subset,
    WholeFile,
};

use crate::{ChunkMap, DomainKey, decode_manifest};
use checkpoint::Signal;
use disk::{DataFiles, read_exact_at};
use index::Index;
use journal::{Event, Journal};
use state::{Held, State};

/// The store. Share it as `Arc<Store>`; every method may block on disk. Dropping the last one makes a checkpoint.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    config: Config,
    key: DomainKey,
    policy: Box<dyn EvictionPolicy>,
    disk: Arc<dyn Disk>,
    data: DataFiles,
    index: Index,
    /// Locked only while `state` is.
    journal: Mutex<Journal>,
    /// Held for table work and single small writes, never while content is read or written.
    state: Mutex<State>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    signal: Arc<Signal>,
    /// Keeps a second process out; released by the kernel however this one ends.
    _lock: nix::fcntl::Flock<File>,
}

/// An opened whole file up to this size is hashed first if that has not happened since the process started: bytes;
/// at 5 GB/s 13 ms. Larger ones are trusted since their checkpoint, lest an open wait (promise A).
const PROVE_AT_OPEN_BYTES: u64 = 64 << 20;

fn resident(held: &Held, map: Arc<ChunkMap>) -> Resident {
    let have = &held.record.have;
    let missing = if held.is_whole() { Vec::new() } else { (0..map.count()).filter(|i| !have.has(*i)).collect() };
    Resident { whole: held.is_whole(), resident_bytes: held.resident_bytes, missing, map }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io_error(&self, what: &'static str, path: PathBuf, e: io::Error) -> StoreError {
        if disk::is_full(&e) {
            StoreError::DiskFull { path: self.root.clone(), capacity_bytes: self.config.capacity_bytes }
        } else {
            StoreError::Io { what, path, source: e }
        }
    }

    /// Where it lives.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The dedup domain of its content.
    pub fn key(&self) -> &DomainKey {
        &self.key
    }

    /// What a file consists of, from memory or from the index.
    fn map_of(&self, state: &mut State, no: u64) -> Result<Arc<ChunkMap>, StoreError> {
        let held = state.files.get(&no).ok_or_else(|| StoreError::Index(format!("file {no} is not in it")))?;
        if let Some(map) = &held.map {
            return Ok(map.clone());
        }
        let encoded = self.index.manifest(no)?.ok_or_else(|| StoreError::Index(format!("no manifest of file {no}")))?;
        let manifest = decode_manifest(&self.key, &encoded).map_err(|e| StoreError::Index(e.to_string()))?;
        let map = Arc::new(ChunkMap::new(Arc::new(manifest)));
        state.map_bytes += map.weight_bytes();
        if let Some(held) = state.files.get_mut(&no) {
            held.map = Some(map.clone());
        }
        Ok(map)
    }

    /// What is here of a file version; none if it was never admitted or has left.
    pub fn lookup(&self, key: &FileKey) -> Option<Resident> {
        let mut state = self.lock();
        let no = state.find(key)?;
        let map = self.map_of(&mut state, no).ok()?;
        Some(resident(&state.files[&no], map))
    }

    /// What a file version consists of, if the store knows it.
    pub fn map(&self, key: &FileKey) -> Option<Arc<ChunkMap>> {
        let mut state = self.lock();
        let no = state.find(key)?;
        self.map_of(&mut state, no).ok()
    }

    /// The same, with those of its chunks that hold bytes of a range and are not here, in order. What it costs grows with
    /// the range, where [`Store::lookup`] goes through the whole file.
    pub fn missing(&self, key: &FileKey, range: &Range<u64>) -> Option<(Arc<ChunkMap>, Vec<u32>)> {
        let mut state = self.lock();
        let no = state.find(key)?;
        let map = self.map_of(&mut state, no).ok()?;
        let have = &state.files[&no].record.have;
        let missing = map.covering(range).filter(|i| !have.has(*i)).collect();
        Some((map, missing))
    }

    /// The newest version of a path that the store knows.
    pub fn newest(&self, volume: &VolumeId, path: &FilePath) -> Option<(FileKey, Resident)> {
        let mut state = self.lock();
        let no = state.newest(volume, path)?;
        let map = self.map_of(&mut state, no).ok()?;
        let held = &state.files[&no];
        Some((held.record.key.clone(), resident(held, map)))
    }

    /// The newest other version of the same path of which anything is here: what differences can be made against.
    pub fn former(&self, key: &FileKey) -> Option<(FileKey, Arc<ChunkMap>)> {
        let mut state = self.lock();
        let no = state.former(key)?;
        let map = self.map_of(&mut state, no).ok()?;
        Some((state.files[&no].record.key.clone(), map))
    }

    /// Opens a wholly resident file for reading.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is not whole (any more), also when its data file has vanished.
    pub fn open_whole(&self, key: &FileKey) -> Result<WholeFile, StoreError> {
        let missing = || StoreError::Missing(0..u64::MAX);
        let (no, map, unproven, lease) = {
            let mut state = self.lock();
            let no = state.find(key).filter(|no| state.files[no].is_whole()).ok_or_else(missing)?;
            let map = self.map_of(&mut state, no)?;
            let held = &state.files[&no];
            let unproven: Vec<u32> = (0..map.count()).filter(|i| !held.proven.has(*i)).collect();
            (no, map, unproven, held.lease.clone())
        };
        let file = match self.data.open_for_reading(no) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.drop_file(no, lease);
                return Err(missing());
            }
            opened => opened.map_err(|e| self.io_error("open", self.data.path(no), e))?,
        };
        if map.manifest().size <= PROVE_AT_OPEN_BYTES {
            for i in unproven {
                if !self.prove(no, &map, &file, i) {
                    return Err(StoreError::Missing(map.range(i)));
                }
            }
        }
        Ok(WholeFile { file, size: map.manifest().size, _lease: lease })
    }

    /// Reads resident bytes into `buf`; returns how many (fewer only at the file's end).
    ///
    /// # Errors
    /// [`StoreError::Missing`] with the first bytes that are not here; [`StoreError::Corrupt`] if a chunk turned out
    /// bad: it has been dropped, fetch it again.
    pub fn read(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Result<usize, StoreError> {
        let asked = offset..offset.saturating_add(buf.len() as u64);
        let (no, map, unproven, lease) = {
            let mut state = self.lock();
            let no = state.find(key).ok_or_else(|| StoreError::Missing(asked.clone()))?;
            let map = self.map_of(&mut state, no)?;
            let held = &state.files[&no];
            let chunks = map.covering(&asked);
            if let Some(i) = chunks.clone().find(|i| !held.record.have.has(*i)) {
                let chunk = map.range(i);
                return Err(StoreError::Missing(chunk.start.max(asked.start)..chunk.end.min(asked.end)));
            }
            let unproven: Vec<u32> = chunks.filter(|i| !held.proven.has(*i)).collect();
            (no, map, unproven, held.lease.clone())
        };
        let end = asked.end.min(map.manifest().size);
        let length = end.saturating_sub(offset) as usize;
        if length == 0 {
            return Ok(0);
        }
        let file = match self.data.get(no, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.drop_file(no, lease);
                return Err(StoreError::Missing(asked));
            }
            opened => opened.map_err(|e| self.io_error("open", self.data.path(no), e))?,
        };
        let corrupt = |index| StoreError::Corrupt { path: key.path.clone(), index };
        if let Some(bad) = unproven.into_iter().find(|i| !self.prove(no, &map, &file, *i)) {
            return Err(corrupt(bad));
        }
        if read_exact_at(&*self.disk, &file, &mut buf[..length], offset).is_err() {
            let bad = map.covering(&asked).find(|i| !self.prove(no, &map, &file, *i));
            return Err(corrupt(bad.unwrap_or(map.covering(&asked).start)));
        }
        Ok(length)
    }

    /// Notes that a range was read (through a passthrough, too): for eviction, coverage and waste.
    pub fn note_read(&self, key: &FileKey, range: Range<u64>, at: Timestamp) -> ReadNote {
        let mut state = self.lock();
        let Some(no) = state.find(key) else { return ReadNote::default() };
        let Ok(map) = self.map_of(&mut state, no) else { return ReadNote::default() };
        let held = state.files.get_mut(&no).expect("just found");
        let record = &mut held.record;
        record.last_used = record.last_used.max(at);
        let (mut note, mut proved_bytes) = (ReadNote::default(), 0);
        for i in map.covering(&range) {
            if record.prefetched.has(i) {
                let chunk = map.range(i);
                note.prefetched_bytes += chunk.end.min(range.end) - chunk.start.max(range.start);
                let first = !record.read.has(i);
                note.first |= first;
                proved_bytes += if first { chunk.end - chunk.start } else { 0 };
            }
            record.read.insert(i, map.count());
        }
        if note.prefetched_bytes > 0 {
            note.arrived_at = Some(record.arrived_at);
            note.by.clone_from(&record.by);
        }
        state.proof.read(proved_bytes);
        state.dirty.insert(no);
        note
    }

    /// Pins what is and what will be below `paths` until then; none lifts their pins.
    pub fn pin(&self, volume: &VolumeId, paths: &[FilePath], until: Option<Timestamp>) {
        let mut state = self.lock();
        for path in paths {
            state.pin(volume, path, until, Timestamp::now());
        }
    }

    /// Counts what is resident below any of `paths`, the newest version of each file (promise C).
    pub fn census(&self, volume: &VolumeId, paths: &[FilePath]) -> Census {
        self.census_where(volume, paths, &|_| true)
    }

    /// The same of those files alone for which `wanted` says so.
    pub fn census_where(&self, volume: &VolumeId, paths: &[FilePath], wanted: &dyn Fn(&FilePath) -> bool) -> Census {
        self.lock().census(volume, paths, wanted)
    }

    /// Bytes resident and verified.
    pub fn resident_bytes(&self) -> u64 {
        self.lock().resident_bytes
    }

    /// Bytes on disk, blocks counted, reservations of running fills included: never above the capacity.
    pub fn used_bytes(&self) -> u64 {
        let state = self.lock();
        state.used_bytes + state.reserved_bytes
    }

    /// Bytes that may be held.
    pub fn capacity_bytes(&self) -> u64 {
        self.config.capacity_bytes
    }

    /// What left the store since last asked.
    pub fn drain_evicted(&self) -> Vec<Evicted> {
        self.lock().drain_evicted()
    }

    /// Evictions that could not be told because nobody drained them (promise J).
    pub fn evicted_lost(&self) -> u64 {
        self.lock().evicted_lost
    }

    /// Takes out every file of which that is said, pinned ones too; those in use stay. The files are judged outside the
    /// lock, so that readers do not wait for many judgements.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn expel(&self, now: Timestamp, mut leaves: impl FnMut(&FileKey) -> bool) -> Result<Expelled, StoreError> {
        let mut judged: Vec<(u64, FileKey)> =
            self.lock().files.iter().map(|(no, h)| (*no, h.record.key.clone())).collect();
        judged.retain(|(_, key)| leaves(key));
        let mut state = self.lock();
        let before = state.resident_bytes;
        let (mut gone, mut expelled) = (Vec::new(), Expelled::default());
        for (no, key) in judged {
            match state.files.get(&no).filter(|h| h.record.key == key) {
                Some(held) if Arc::strong_count(&held.lease) > 1 => expelled.in_use.push(key),
                Some(_) => {
                    gone.push(no);
                    expelled.gone.push(key);
                }
                None => {}
            }
        }
        self.take_out(&mut state, &gone, now)?;
        expelled.bytes = before - state.resident_bytes;
        drop(state);
        self.remove_data(gone).map(|()| expelled)
    }

    /// Evicts until `need` bytes fit; the files whose data is to be removed once the lock is free.
    fn make_room(
        &self,
        state: &mut State,
        need_bytes: u64,
        claim: Claim,
        now: Timestamp,
    ) -> Result<Vec<u64>, StoreError> {
        let capacity_bytes = self.config.capacity_bytes;
        let over = (state.used_bytes + state.reserved_bytes + need_bytes).saturating_sub(capacity_bytes);
        let files_over = state.files.len().saturating_sub(self.config.max_files);
        if over == 0 && files_over == 0 {
            return Ok(Vec::new());
        }
        let victims = state.victims(&*self.policy, claim, now, (over, files_over), capacity_bytes / 100);
        let gone = victims.ok_or(StoreError::Full { need_bytes, capacity_bytes })?;
        self.take_out(state, &gone, now)?;
        Ok(gone)
    }

    /// The disk is full before the capacity is: gives back what the policy lets go, one part in 64.
    fn shed(&self, claim: Claim, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.lock();
        let some = (state.used_bytes / 64).max(1);
        let gone = state.victims(&*self.policy, claim, now, (some, 0), 0).ok_or_else(|| StoreError::DiskFull {
            path: self.root.clone(),
            capacity_bytes: self.config.capacity_bytes,
        })?;
        self.take_out(&mut state, &gone, now)?;
        drop(state);
        self.remove_data(gone)
    }

    fn take_out(&self, state: &mut State, gone: &Vec<u64>, now: Timestamp) -> Result<(), StoreError> {
        for no in gone {
            let map = self.map_of(state, *no).ok();
            // Best effort: a data file without its record is swept at the next start, one that is missing is noticed.
            if let Err(e) = self.journal().append(&[Event::Gone { no: *no }]) {
                tracing::warn!(error = %e, "the journal could not be written");
            }
            state.remove(*no, map.as_deref(), now);
        }
        Ok(())
    }

    fn remove_data(&self, gone: Vec<u64>) -> Result<(), StoreError> {
        gone.into_iter()
            .try_for_each(|no| self.data.remove(no).map_err(|e| self.io_error("remove", self.data.path(no), e)))
    }

    fn forget_if_empty(&self, state: &mut State, no: u64, now: Timestamp) {
        if state.files.get(&no).is_some_and(|h| h.resident_bytes == 0 && Arc::strong_count(&h.lease) <= 2) {
            state.remove(no, None, now);
        }
    }

    /// Its data file is not there any more: somebody removed it.
    fn drop_file(&self, no: u64, lease: Arc<()>) {
        drop(lease);
        tracing::warn!(file = no, "a data file has vanished from the store");
        let mut state = self.lock();
        let map = self.map_of(&mut state, no).ok();
        state.remove(no, map.as_deref(), Timestamp::now());
    }
}
