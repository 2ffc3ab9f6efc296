//! Carrying moves out, in order, within the window.

use std::ops::Range;
use std::sync::Arc;

use foretide_chunk::{Arrival, ChunkMap, FileKey};
use foretide_flow::{Move, Outcome};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::fetch::{Fetcher, Purpose, blocking};
use super::flight::{Flight, Registered, Split};
use super::{Inner, MAX_SLEEP, SEGMENT_BYTES, lock, now, segments, wanted};
use crate::TransferError;

/// Rounds of looking and fetching: what was joined may have been given up, the file may have changed meanwhile.
const ROUNDS: usize = 3;
/// A move's first request takes at least this much of the window, KiB.
const MIN_SHARE_KIB: usize = 4;

/// A move that ended well.
#[derive(Debug, Default)]
struct Carried {
    bytes: u64,
    wire_bytes: u64,
}

/// Starts moves as they become due and the window has room.
pub(super) async fn run_moves(inner: Arc<Inner>) {
    let mut moves = JoinSet::new();
    loop {
        while moves.try_join_next().is_some() {}
        // Room first, then the choice: so what is started is what is most urgent then.
        let Ok(slot) = inner.slots.clone().acquire_owned().await else { return };
        let Ok(mut room) = acquire(&inner, SEGMENT_BYTES).await else { return };
        let Some(m) = lock(&inner.desk).next(now()) else {
            drop((slot, room));
            wait_for_work(&inner).await;
            continue;
        };
        let share_kib = (m.length.div_ceil(1024) as usize).clamp(MIN_SHARE_KIB, room.num_permits());
        let surplus = room.split(room.num_permits() - share_kib);
        drop(surplus);
        let (id, cause) = (m.id.clone(), m.cause.clone());
        // Registered before it can end: it takes itself off under the same lock.
        let mut running = lock(&inner.running);
        let task = moves.spawn(run_move(inner.clone(), m, room, slot));
        running.insert(id, (cause, task));
    }
}

async fn acquire(inner: &Inner, bytes: u64) -> Result<OwnedSemaphorePermit, TransferError> {
    let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).clamp(1, inner.window_kib);
    inner.window.clone().acquire_many_owned(kib as u32).await.map_err(|_| TransferError::Cancelled)
}

async fn wait_for_work(inner: &Inner) {
    let next = lock(&inner.desk).next_start();
    let sleep = next.map_or(MAX_SLEEP, |at| at.since(now()).min(MAX_SLEEP));
    tokio::select! {
        () = inner.wake.notified() => {}
        () = tokio::time::sleep(sleep) => {}
    }
}

async fn run_move(inner: Arc<Inner>, m: Move, room: OwnedSemaphorePermit, _slot: OwnedSemaphorePermit) {
    let carried = inner.carry_out(&m, room).await;
    lock(&inner.running).remove(&m.id);
    let at = now();
    let outcome = match carried {
        Ok(c) => Outcome::Moved { id: m.id, at, bytes: c.bytes, wire_bytes: c.wire_bytes },
        Err(e) => {
            tracing::debug!(id = %m.id, path = %m.path, error = %e, "move failed");
            if let TransferError::Refused(refusal) = &e {
                let _ = inner.outcomes.send(Outcome::Refused((**refusal).clone())).await;
            }
            Outcome::Failed { id: m.id, at, why: e.to_string() }
        }
    };
    let _ = inner.outcomes.send(outcome).await;
}

impl Inner {
    async fn carry_out(&self, m: &Move, room: OwnedSemaphorePermit) -> Result<Carried, TransferError> {
        self.borders.check(&m.volume, &m.path, &self.identity.site, "receiver").map_err(TransferError::Refused)?;
        let fetcher = self.fetcher(self.client(&m.volume)?, &m.volume, &m.path);
        let purpose = Purpose { priority: m.priority, by: Some(m.id.clone()), keep_until: Some(m.keep_until) };
        let mut carried = Carried::default();
        let newest = self.store.newest(&m.volume, &m.path);
        let fresh = newest.is_none() && m.length <= SEGMENT_BYTES && !self.duplicates.are_likely();
        let mut room = Some(room);
        if fresh && self.in_one(m, &fetcher, &purpose, &mut carried).await? {
            return Ok(carried);
        }
        for _ in 0..ROUNDS {
            match self.in_segments(m, &fetcher, &purpose, &mut room, &mut carried).await {
                Ok(true) => return Ok(carried),
                Ok(false) | Err(TransferError::Changed { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(TransferError::Changed { path: m.path.clone() })
    }

    /// Manifest and chunks in one answer; whether that did it.
    async fn in_one(
        &self,
        m: &Move,
        fetcher: &Fetcher,
        purpose: &Purpose,
        carried: &mut Carried,
    ) -> Result<bool, TransferError> {
        let gaps = [wanted(m)];
        let Split { joined, mut own } = self.flights.split((&m.volume, &m.path), None, None, &gaps, |r| vec![r]);
        let (Some(registered), true) = (own.pop(), joined.is_empty() && own.is_empty()) else { return Ok(false) };
        let flight = registered.flight.clone();
        let (wire_bytes, result) = fetcher.fetch(&flight, purpose).await;
        registered.finish(result.clone());
        carried.wire_bytes += wire_bytes;
        result?;
        carried.bytes = flight.map.get().map_or(0, |map| bytes_of(map, m));
        Ok(true)
    }

    /// The manifest, then what is missing; whether everything is here now.
    async fn in_segments(
        &self,
        m: &Move,
        fetcher: &Fetcher,
        purpose: &Purpose,
        room: &mut Option<OwnedSemaphorePermit>,
        carried: &mut Carried,
    ) -> Result<bool, TransferError> {
        let newest = self.store.newest(&m.volume, &m.path);
        let here = newest.filter(|(key, _)| self.gaps(key, &wanted(m)).is_empty());
        let unless = here.as_ref().map(|(key, _)| key.version.clone());
        let map = match (fetcher.ask_manifest(unless, m.priority).await?, here) {
            (Some(manifest), _) => Arc::new(ChunkMap::new(Arc::new(manifest))),
            (None, Some((_, resident))) => resident.map,
            (None, None) => {
                let (peer, why) = (fetcher.client.address().to_owned(), "an answer to nothing".to_owned());
                return Err(TransferError::Protocol { peer, why });
            }
        };
        carried.bytes = bytes_of(&map, m);
        let version = map.manifest().version.clone();
        let key = FileKey { volume: m.volume.clone(), path: m.path.clone(), version };
        self.copy_local(&key, &map, m, purpose).await?;
        let gaps = self.gaps(&key, &wanted(m));
        let cut = |range| segments(Some(&map), range);
        let file = (&m.volume, &m.path);
        let Split { joined, own } = self.flights.split(file, Some(&key.version), Some(&map), &gaps, cut);
        carried.wire_bytes += self.fetch_all(own, fetcher, purpose, room).await?;
        for flight in joined {
            let _ = flight.wait(flight.range.end).await;
        }
        Ok(self.gaps(&key, &wanted(m)).is_empty())
    }

    /// Admits the file and copies what other files hold, before anything is asked for; it also notes how long to
    /// keep it.
    async fn copy_local(
        &self,
        key: &FileKey,
        map: &Arc<ChunkMap>,
        m: &Move,
        purpose: &Purpose,
    ) -> Result<(), TransferError> {
        let arrival = Arrival { by: purpose.by.clone(), keep_until: purpose.keep_until, at: now() };
        let (store, key, manifest, range) = (self.store.clone(), key.clone(), map.manifest().clone(), wanted(m));
        let (copied, missing) = blocking(move || {
            store.fill(&key, &manifest, range, &arrival).map(|fill| (fill.copied_bytes(), fill.missing().len()))
        })
        .await?
        .map_err(|e| TransferError::Store(e.to_string()))?;
        if copied > 0 || missing > 0 {
            self.duplicates.count(0, copied);
        }
        Ok(())
    }

    /// Fetches segments side by side, each as the window has room; bytes that crossed the link.
    async fn fetch_all(
        &self,
        own: Vec<Registered>,
        fetcher: &Fetcher,
        purpose: &Purpose,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<u64, TransferError> {
        let mut tasks = JoinSet::new();
        let mut wire_bytes = 0;
        for registered in own {
            let permit = self.room_for(&registered.flight, room).await?;
            let (fetcher, purpose) = (fetcher.clone(), purpose.clone());
            tasks.spawn(async move {
                let (wire_bytes, result) = fetcher.fetch(&registered.flight, &purpose).await;
                registered.finish(result.clone());
                drop(permit);
                (wire_bytes, result)
            });
            while let Some(done) = tasks.try_join_next() {
                wire_bytes += counted(done)?;
            }
        }
        while let Some(done) = tasks.join_next().await {
            wire_bytes += counted(done)?;
        }
        Ok(wire_bytes)
    }

    /// What the move has of the window already, or more of it; none if a reader waits for this segment (promise G).
    async fn room_for(
        &self,
        flight: &Flight,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Option<OwnedSemaphorePermit>, TransferError> {
        let Range { start, end } = flight.range;
        let kib = (end - start).div_ceil(1024) as usize;
        if room.as_ref().is_some_and(|r| r.num_permits() >= kib) {
            return Ok(room.take());
        }
        drop(room.take());
        tokio::select! {
            biased;
            () = flight.raised.notified() => Ok(None),
            permit = acquire(self, end - start) => permit.map(Some),
        }
    }
}

fn counted(done: Result<(u64, Result<(), TransferError>), tokio::task::JoinError>) -> Result<u64, TransferError> {
    let (wire_bytes, result) = done.map_err(|_| TransferError::Cancelled)?;
    result.map(|()| wire_bytes)
}

/// Bytes of the file that the move wants.
fn bytes_of(map: &ChunkMap, m: &Move) -> u64 {
    let r = wanted(m);
    r.end.min(map.manifest().size).saturating_sub(r.start)
}
