//! Filling a file: room first, then what is here already under another name, then what arrives.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use foretide_flow::{ChunkId, Manifest};

use super::bits::Bits;
use super::disk::{is_full, read_exact_at, write_all_at};
use super::evict::Claim;
use super::index::Place;
use super::journal::Event;
use super::record::Record;
use super::state::{State, charge_of_more};
use super::{Arrival, FileKey, Store, StoreError};
use crate::{ChunkMap, encode_manifest};

/// One fill in progress: room is reserved and it is known what is missing. Several may fill one file at a time;
/// dropping it gives back the room that it did not use.
#[derive(Debug)]
pub struct Fill {
    store: Arc<Store>,
    no: u64,
    map: Arc<ChunkMap>,
    file: Arc<File>,
    missing: Vec<u32>,
    copied_bytes: u64,
    arrival: Arrival,
    reserved_bytes: Mutex<u64>,
    /// Keeps the file from being evicted meanwhile.
    _lease: Arc<()>,
}

impl Drop for Fill {
    fn drop(&mut self) {
        let left = *self.reserved_bytes.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.store.lock().reserved_bytes -= left;
    }
}

impl Fill {
    /// Chunks of the asked range that are not here and in no other file either, in order.
    pub fn missing(&self) -> &[u32] {
        &self.missing
    }

    /// Bytes that were here in other files and have been copied: they need not cross the link.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// What is being filled.
    pub fn map(&self) -> &Arc<ChunkMap> {
        &self.map
    }

    /// Takes whole chunks, from chunk `first` on one after the other: each verified against its id first (promise D),
    /// then all written at once, then visible. Chunks that are here already are left as they are.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first bytes that are not their chunk's: what came before them is kept.
    /// [`StoreError::DiskFull`] if the disk has less room than was promised: nothing is stored then.
    pub fn put(&self, first: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let (mut next, mut rest) = (first, bytes);
        while let Some(after) = self.verified(next, rest) {
            (next, rest) = (next + 1, after);
        }
        for run in self.absent(first..next) {
            let at = |offset: u64| (offset - self.map.range(first).start) as usize;
            let part = at(self.map.range(run.start).start)..at(self.map.range(run.end - 1).end);
            self.store_verified(run, &bytes[part])?;
        }
        if rest.is_empty() && next > first { Ok(()) } else { Err(self.corrupt(next)) }
    }

    /// What follows the chunk with which `bytes` begin; none if they do not begin with it.
    fn verified<'a>(&self, index: u32, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let chunk = self.map.manifest().chunks.get(index as usize)?;
        let (bytes, after) = bytes.split_at_checked(chunk.length as usize)?;
        (self.store.key.chunk_id(bytes) == chunk.id).then_some(after)
    }

    /// Of these chunks those that are not here, in runs.
    fn absent(&self, chunks: Range<u32>) -> Vec<Range<u32>> {
        let state = self.store.lock();
        let Some(held) = state.files.get(&self.no) else { return Vec::new() };
        let mut runs: Vec<Range<u32>> = Vec::new();
        for i in chunks.filter(|i| !held.record.have.has(*i)) {
            match runs.last_mut() {
                Some(last) if last.end == i => last.end = i + 1,
                _ => runs.push(i..i + 1),
            }
        }
        runs
    }

    fn corrupt(&self, index: u32) -> StoreError {
        let state = self.store.lock();
        let path = state.files.get(&self.no).map(|h| h.record.key.path.clone()).unwrap_or_default();
        StoreError::Corrupt { path, index }
    }

    fn store_verified(&self, chunks: Range<u32>, bytes: &[u8]) -> Result<(), StoreError> {
        let offset = self.map.range(chunks.start).start;
        let store = &self.store;
        store
            .with_room(self.arrival.claim, self.arrival.at, || write_all_at(&*store.disk, &self.file, bytes, offset))?;
        let by_move = self.arrival.by.is_some();
        let arrived: Vec<_> = chunks.clone().map(|chunk| Event::Arrived { no: self.no, chunk, by_move }).collect();
        // Journal and table change under one lock, so that a checkpoint sees both or neither.
        let due = store.with_room(self.arrival.claim, self.arrival.at, || {
            let mut state = store.lock();
            store.journal().append(&arrived)?;
            let added: u64 = chunks.clone().map(|i| state.arrived(self.no, &self.map, i, by_move)).sum();
            let mut reserved = self.reserved_bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let from_reserve = added.min(*reserved);
            *reserved -= from_reserve;
            state.reserved_bytes -= from_reserve;
            Ok(state.written_bytes >= store.config.checkpoint_bytes)
        })?;
        if due {
            store.wake_checkpoint();
        }
        Ok(())
    }

    /// Copies what other files hold; what turns out to be bad there stays missing here.
    fn copy_local(&mut self, places: Vec<(u32, Place)>) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        for (index, place) in places {
            let chunk = self.map.manifest().chunks[index as usize];
            buffer.resize(chunk.length as usize, 0);
            if self.store.read_chunk(place, chunk.id, &mut buffer) {
                self.store_verified(index..index + 1, &buffer)?;
                self.copied_bytes += u64::from(chunk.length);
            } else {
                self.missing.push(index);
            }
        }
        self.missing.sort_unstable();
        Ok(())
    }
}

impl Store {
    /// Begins to fill a byte range of a file version: reserves room (evicting if need be) and copies chunks that are
    /// here in other files.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the policy lets nothing (more) leave for it.
    pub fn fill(
        self: &Arc<Self>,
        key: &FileKey,
        manifest: &Arc<Manifest>,
        range: Range<u64>,
        arrival: &Arrival,
    ) -> Result<Fill, StoreError> {
        let mut state = self.lock();
        let no = match state.find(key) {
            Some(no) => no,
            None => self.admit(&mut state, key, manifest, arrival)?,
        };
        let map = self.map_of(&mut state, no)?;
        let held = state.files.get_mut(&no).expect("just found");
        held.record.keep_until = held.record.keep_until.max(arrival.keep_until);
        let lease = held.lease.clone();
        let have = held.record.have.clone();
        state.dirty.insert(no);
        let wanted = map.covering(&range);
        let missing: Vec<u32> = wanted.clone().filter(|i| !have.has(*i)).collect();
        if let Some(held) = state.files.get_mut(&no).filter(|_| !missing.is_empty()) {
            held.record.arrives(arrival);
        }
        let need = charge_of_more(&map, &have, &wanted);
        let (here, missing) = self.split_local(&state, &map, missing)?;
        let gone = match self.make_room(&mut state, need, arrival.claim, arrival.at) {
            Ok(gone) => gone,
            Err(e) => {
                self.forget_if_empty(&mut state, no, arrival.at);
                return Err(e);
            }
        };
        state.reserved_bytes += need;
        drop(state);
        let file = self.remove_data(gone).and_then(|()| self.data_file(no));
        let file = file.inspect_err(|_| self.lock().reserved_bytes -= need)?;
        let mut fill = Fill {
            store: self.clone(),
            no,
            map,
            file,
            missing,
            copied_bytes: 0,
            arrival: arrival.clone(),
            reserved_bytes: Mutex::new(need),
            _lease: lease,
        };
        fill.copy_local(here)?;
        Ok(fill)
    }

    fn data_file(&self, no: u64) -> Result<Arc<File>, StoreError> {
        self.data.get(no, true).map_err(|e| self.io_error("open", self.data.path(no), e))
    }

    fn admit(
        &self,
        state: &mut State,
        key: &FileKey,
        manifest: &Arc<Manifest>,
        arrival: &Arrival,
    ) -> Result<u64, StoreError> {
        let no = state.next_no;
        let record = Record {
            key: key.clone(),
            size: manifest.size,
            chunks: manifest.chunks.len() as u32,
            have: Bits::None,
            prefetched: Bits::None,
            read: Bits::None,
            arrived_at: arrival.at,
            last_used: arrival.at,
            keep_until: arrival.keep_until,
            by: arrival.by.clone(),
            admitted: no,
        };
        let encoded = encode_manifest(manifest);
        let event = Event::Admitted { no, record: &record, manifest: &encoded };
        self.journal().append(&[event]).map_err(|e| self.io_error("write", self.root.join("journal"), e))?;
        state.insert(no, record, Some(Arc::new(ChunkMap::new(manifest.clone()))));
        state.new_manifests.insert(no);
        state.dirty.insert(no);
        Ok(no)
    }

    /// Tells chunks that other files hold from those that must be fetched.
    #[expect(clippy::type_complexity, reason = "two lists, named where they are taken")]
    fn split_local(
        &self,
        state: &State,
        map: &ChunkMap,
        wanted: Vec<u32>,
    ) -> Result<(Vec<(u32, Place)>, Vec<u32>), StoreError> {
        let ids: Vec<ChunkId> = wanted.iter().map(|i| map.manifest().chunks[*i as usize].id).collect();
        let kept = self.index.places(&ids)?;
        let (mut here, mut missing) = (Vec::new(), Vec::new());
        for ((i, id), kept) in wanted.into_iter().zip(&ids).zip(kept) {
            let place = state.places.get(id).copied().or(kept).filter(|p| state.is_at(*p));
            match place {
                Some(place) => here.push((i, place)),
                None => missing.push(i),
            }
        }
        Ok((here, missing))
    }

    /// Whether the chunk at `place` could be read and is what it should be.
    fn read_chunk(&self, place: Place, id: ChunkId, buffer: &mut [u8]) -> bool {
        let map = {
            let mut state = self.lock();
            if !state.is_at(place) {
                return false;
            }
            match self.map_of(&mut state, place.no) {
                Ok(map) if map.manifest().chunks[place.chunk as usize].id == id => map,
                _ => return false,
            }
        };
        let Ok(file) = self.data.get(place.no, false) else { return false };
        let offset = map.range(place.chunk).start;
        read_exact_at(&*self.disk, &file, buffer, offset).is_ok() && self.key.chunk_id(buffer) == id
    }

    /// Runs a write; if the disk is full although the capacity is not, sheds content once and tries again.
    fn with_room<T>(
        &self,
        claim: Claim,
        now: foretide_flow::Timestamp,
        write: impl Fn() -> std::io::Result<T>,
    ) -> Result<T, StoreError> {
        match write() {
            Err(e) if is_full(&e) => {
                self.shed(claim, now)?;
                write().map_err(|e| self.io_error("write", self.root.clone(), e))
            }
            done => done.map_err(|e| self.io_error("write", self.root.clone(), e)),
        }
    }
}
