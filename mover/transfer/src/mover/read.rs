//! What a reader gets: bytes that are here, joined on their way, or fetched for him.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foretide_chunk::{FileKey, Store, StoreError};
use foretide_flow::{Found, Priority};

use super::fetch::{Fetcher, Purpose, blocking};
use super::flight::{Flight, Join, Split, Wish};
use super::{Answer, Inner, Mover, lock, segments};
use crate::TransferError;

/// Rounds of looking, fetching and looking again before a reader is told an error: flights that he joined may
/// be given up, chunks evicted.
const READ_ROUNDS: usize = 16;
/// A reader who wants more than this of a file whose chunks are not known asks for its manifest first, bytes: the
/// further round trip is little beside the transfer.
const LONG_RANGE_BYTES: u64 = 4 << 20;
/// What one reader may have asked for and not received, bytes.
const READER_WINDOW_BYTES: u64 = 64 << 20;

impl Mover {
    /// Bytes of a file version, from the store or fetched now (joining a move that is bringing them). If the store
    /// cannot take them they are handed out all the same (promise A).
    ///
    /// # Errors
    /// [`TransferError`]; [`TransferError::Changed`] means that the source has another version by now.
    pub async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError> {
        let (mut found, mut flights, mut alone) = (Found::Hit, Vec::new(), false);
        let mut failed = self.inner.came_short(key);
        for _ in 0..READ_ROUNDS {
            if let Some(bytes) = self.inner.assemble(key, &range, &flights).await? {
                return Ok(Answer { bytes, found });
            }
            match self.inner.bring_all(key, &range, &mut flights, alone).await {
                Ok(brought) => {
                    found = worse(found, brought.found);
                    alone |= brought.left_alone;
                }
                Err(TransferError::Cancelled) => failed = TransferError::Cancelled,
                Err(e) => return Err(e),
            }
        }
        let is_other = |f: &Arc<Flight>| f.map.get().is_some_and(|m| m.manifest().version != key.version);
        match self.inner.assemble(key, &range, &flights).await? {
            Some(bytes) => Ok(Answer { bytes, found }),
            None if flights.iter().any(is_other) => Err(TransferError::Changed { path: key.path.clone() }),
            None => Err(failed),
        }
    }

    /// Sees that bytes of a file version are resident, as [`Mover::read`] does, without handing them out: before a
    /// passthrough open.
    ///
    /// # Errors
    /// [`TransferError`]; [`TransferError::Store`] if the store cannot take them.
    pub async fn ensure(&self, key: &FileKey, range: Range<u64>) -> Result<Found, TransferError> {
        let (mut found, mut flights, mut alone) = (Found::Hit, Vec::<Arc<Flight>>::new(), false);
        for _ in 0..READ_ROUNDS {
            // What came may wait for the whole manifest before it is resident.
            for flight in flights.drain(..) {
                let _ = flight.wait(u64::MAX).await;
            }
            if self.inner.gaps(key, &range).is_empty() {
                return Ok(found);
            }
            match self.inner.bring_all(key, &range, &mut flights, alone).await {
                Ok(brought) => {
                    found = worse(found, brought.found);
                    alone |= brought.left_alone;
                }
                Err(TransferError::Cancelled) => {}
                Err(e) => return Err(e),
            }
        }
        if self.inner.gaps(key, &range).is_empty() {
            return Ok(found);
        }
        Err(TransferError::Store("it has no room for this file; the bytes can still be read".into()))
    }

    /// Asks for bytes without waiting for them: a reader's read-ahead. What is here or on its way is not asked for.
    pub fn want(&self, key: &FileKey, range: Range<u64>, priority: Priority) {
        let gaps = self.inner.gaps(key, &range);
        if gaps.is_empty() || self.inner.borders_allow(key).is_err() {
            return;
        }
        if let Ok(fetcher) = self.inner.fetcher_of(&key.volume, &key.path, None) {
            let purpose = Purpose { priority, by: None, keep_until: None };
            drop(self.inner.launch(key, &gaps, &fetcher, &purpose, false));
        }
    }
}

/// `Miss` is worse than `Late`, `Late` than `Hit`.
fn worse(a: Found, b: Found) -> Found {
    let badness = |f| match f {
        Found::Unknown => 0,
        Found::Hit => 1,
        Found::Late => 2,
        Found::Miss => 3,
    };
    if badness(a) >= badness(b) { a } else { b }
}

/// What became of bringing a range.
struct Brought {
    found: Found,
    /// A flight that was joined failed or was given up: its failure is its owner's, and the reader now fetches for
    /// himself. (Else a move that is cancelled and planned anew again and again would leave him with nothing.)
    left_alone: bool,
}

impl Inner {
    /// Starts flights for what is not on its way yet.
    pub(super) fn launch(
        &self,
        key: &FileKey,
        gaps: &[Range<u64>],
        fetcher: &Fetcher,
        purpose: &Purpose,
        alone: bool,
    ) -> (Vec<Arc<Flight>>, Vec<Arc<Flight>>) {
        let map = self.store.map(key);
        let cut = |range| segments(map.as_deref(), range);
        let wish = Wish {
            file: (&key.volume, &key.path),
            version: Some(&key.version),
            map: map.as_ref(),
            gaps,
            join: if alone { Join::Nobody } else { Join::SameFile },
            priority: purpose.priority,
        };
        let Split { joined, own } = self.flights.split(&wish, cut);
        let mut started = Vec::with_capacity(own.len());
        for registered in own {
            started.push(registered.flight.clone());
            let (fetcher, purpose, desk) = (fetcher.clone(), purpose.clone(), self.desk.clone());
            self.runtime.spawn(async move {
                let (crossed, result) = fetcher.fetch(&registered.flight, &purpose).await;
                if let Some(id) = &purpose.by {
                    lock(&desk).crossed(id, &fetcher.errand.volume, &fetcher.errand.path, crossed);
                }
                registered.finish(result);
            });
        }
        (joined, started)
    }

    fn came_short(&self, key: &FileKey) -> TransferError {
        let peer = self.client(&key.volume).map_or_else(|_| key.volume.to_string(), |c| c.address().to_owned());
        TransferError::Protocol { peer, why: format!("it sends less of {} than it is asked for", key.path) }
    }

    /// Brings a range of any length, a window at a time; the manifest first where the range is long, so that it
    /// comes in segments over all connections, and where a copy is here, which is asked by it.
    async fn bring_all(
        &self,
        key: &FileKey,
        range: &Range<u64>,
        flights: &mut Vec<Arc<Flight>>,
        alone: bool,
    ) -> Result<Brought, TransferError> {
        let is_long = range.end.saturating_sub(range.start) > LONG_RANGE_BYTES;
        if (is_long || self.givers.has_copy_here(&key.volume)) && self.store.map(key).is_none() {
            self.borders_allow(key)?;
            self.fetcher_of(&key.volume, &key.path, None)?.learn_chunks(key, Priority::Demand).await?;
        }
        let Some(map) = self.store.map(key) else { return self.bring(key, range, flights, alone).await };
        let end = range.end.min(map.manifest().size).max(range.start);
        let (mut at, mut brought) = (range.start, Brought { found: Found::Hit, left_alone: false });
        loop {
            let part = at..end.min(at.saturating_add(READER_WINDOW_BYTES));
            at = part.end;
            let now = self.bring(key, &part, flights, alone).await?;
            brought.found = worse(brought.found, now.found);
            brought.left_alone |= now.left_alone;
            if at >= end {
                return Ok(brought);
            }
        }
    }

    /// Joins or starts what brings the range, and waits for it.
    async fn bring(
        &self,
        key: &FileKey,
        range: &Range<u64>,
        flights: &mut Vec<Arc<Flight>>,
        alone: bool,
    ) -> Result<Brought, TransferError> {
        let gaps = self.gaps(key, range);
        self.borders_allow(key)?;
        let fetcher = self.fetcher_of(&key.volume, &key.path, None)?;
        let purpose = Purpose { priority: Priority::Demand, by: None, keep_until: None };
        let (joined, own) = self.launch(key, &gaps, &fetcher, &purpose, alone);
        let found = match (joined.is_empty(), own.is_empty()) {
            (true, true) => Found::Hit,
            (false, true) => Found::Late,
            (_, false) => Found::Miss,
        };
        joined.iter().for_each(|f| f.raise());
        flights.extend(joined.iter().chain(&own).cloned());
        let mut left_alone = false;
        for flight in joined {
            left_alone |= flight.wait(range.end.min(flight.range.end)).await.is_err();
        }
        for flight in own {
            flight.wait(range.end.min(flight.range.end)).await?;
        }
        Ok(Brought { found, left_alone })
    }

    /// The range's bytes, if they are all in the store or held by these flights.
    pub(super) async fn assemble(
        &self,
        key: &FileKey,
        range: &Range<u64>,
        flights: &[Arc<Flight>],
    ) -> Result<Option<Bytes>, TransferError> {
        let (store, key, range, flights) = (self.store.clone(), key.clone(), range.clone(), flights.to_vec());
        blocking(move || assemble(&store, &key, &range, &flights)).await
    }
}

fn assemble(store: &Store, key: &FileKey, range: &Range<u64>, flights: &[Arc<Flight>]) -> Option<Bytes> {
    let ours = |f: &&Arc<Flight>| f.known().is_some_and(|m| m.manifest().version == key.version);
    let flights: Vec<_> = flights.iter().filter(ours).collect();
    let flown = || flights.iter().find_map(|f| f.map.get()).cloned();
    // None while only the file's beginning is known.
    let map = store.map(key).or_else(flown);
    let end = map.as_ref().map_or(range.end, |map| range.end.min(map.manifest().size));
    let held = |at| flights.iter().find_map(|f| f.held_at(at));
    if map.is_none() && held(range.start).is_none() {
        return None;
    }
    let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
    match store.read(key, range.start, &mut bytes) {
        Ok(_) => return Some(bytes.into()),
        Err(StoreError::Missing(_) | StoreError::Corrupt { .. }) => {}
        Err(e) => tracing::warn!(path = %key.path, error = %e, "the store cannot be read"),
    }
    let mut at = range.start;
    while at < end {
        let rest = &mut bytes[(at - range.start) as usize..];
        at += match held(at) {
            Some(held) => {
                let length = held.len().min(rest.len());
                rest[..length].copy_from_slice(&held[..length]);
                length as u64
            }
            None => {
                let map = map.as_ref()?;
                let length = map.range(map.covering(&(at..end)).start).end.min(end) - at;
                store.read(key, at, &mut rest[..length as usize]).ok()?;
                length
            }
        };
    }
    Some(bytes.into())
}
