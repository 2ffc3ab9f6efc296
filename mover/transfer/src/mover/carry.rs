//! Carrying moves out, in order, within the window.

use std::ops::Range;
use std::sync::Arc;

use foretide_chunk::{ChunkMap, FileKey};
use foretide_flow::{Move, Outcome};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::fetch::{Crossed, Fetcher, Purpose, blocking};
use super::flight::{Join, Registered, Split, Wish};
use super::{Inner, MAX_SLEEP, Running, SEGMENT_BYTES, lock, segments, wanted};
use crate::TransferError;

/// Rounds of looking and fetching: what was joined may have been given up, the file may have changed meanwhile.
const ROUNDS: usize = 3;
/// What one pass over a large file asks for, bytes: bounds the segments that wait for the window side by side.
const PASS_BYTES: u64 = 1 << 30;
/// What is asked for of a large file before its chunks are known, bytes: three such files fill 1 Gbit/s for the 150 ms
/// that it takes to ask for the rest.
const FIRST_PART_BYTES: u64 = 8 << 20;
/// A move's first request takes at least this much of the window, KiB.
const MIN_SHARE_KIB: usize = 4;

/// A move that ended well.
#[derive(Debug, Default)]
struct Carried {
    bytes: u64,
    crossed: Crossed,
}

/// Starts moves as they become due and the window has room.
pub(super) async fn run_moves(inner: Arc<Inner>) {
    let mut moves = JoinSet::new();
    loop {
        while moves.try_join_next().is_some() {}
        // Room first, then the choice: so what is started is what is most urgent then.
        let Ok(slot) = inner.slots.clone().acquire_owned().await else { return };
        let Ok(mut room) = acquire(&inner, SEGMENT_BYTES).await else { return };
        let Some(m) = lock(&inner.desk).next(inner.now()) else {
            drop((slot, room));
            wait_for_work(&inner).await;
            continue;
        };
        let share_kib = (m.length.div_ceil(1024) as usize).clamp(MIN_SHARE_KIB, room.num_permits());
        let surplus = room.split(room.num_permits() - share_kib);
        drop(surplus);
        tracing::debug!(id = %m.id, path = %m.path, shared_bytes = m.shared_bytes, "a move starts");
        let (id, volume, path, cause) = (m.id.clone(), m.volume.clone(), m.path.clone(), m.cause.clone());
        // Registered before it can end: it takes itself off under the same lock.
        let mut running = lock(&inner.running);
        let task = moves.spawn(run_move(inner.clone(), m, room, slot));
        running.insert(id, Running { volume, path, cause, task });
    }
}

async fn acquire(inner: &Inner, bytes: u64) -> Result<OwnedSemaphorePermit, TransferError> {
    let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).clamp(1, inner.window_kib);
    inner.window.clone().acquire_many_owned(kib as u32).await.map_err(|_| TransferError::Cancelled)
}

async fn wait_for_work(inner: &Inner) {
    let next = lock(&inner.desk).next_start();
    let sleep = next.map_or(MAX_SLEEP, |at| at.since(inner.now()).min(MAX_SLEEP));
    tokio::select! {
        () = inner.wake.notified() => {}
        () = tokio::time::sleep(sleep) => {}
    }
}

async fn run_move(inner: Arc<Inner>, m: Move, room: OwnedSemaphorePermit, _slot: OwnedSemaphorePermit) {
    let carried = inner.carry_out(&m, room).await;
    lock(&inner.running).remove(&m.id);
    let for_others = lock(&inner.desk).ended(&m.id, &m.volume, &m.path).map(|told| told.crossed);
    let at = inner.now();
    let outcome = match carried {
        Ok(Carried { bytes, mut crossed }) => {
            crossed += for_others.unwrap_or_default();
            let Crossed { bytes: wire_bytes, fallback_bytes } = crossed;
            Outcome::Moved { id: m.id, at, bytes, wire_bytes, fallback_bytes }
        }
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
    async fn carry_out(self: &Arc<Self>, m: &Move, room: OwnedSemaphorePermit) -> Result<Carried, TransferError> {
        self.borders.check(&m.volume, &m.path, &self.identity.site, "receiver").map_err(TransferError::Refused)?;
        let fetcher = self.fetcher_of(&m.volume, &m.path, Some(m.from.clone()))?;
        let purpose = Purpose { priority: m.priority, by: Some(m.id.clone()), keep_until: Some(m.keep_until) };
        let mut carried = Carried::default();
        // Who else gives is asked for a version, and which one it is now the source says.
        let is_new = self.store.newest(&m.volume, &m.path).is_none()
            && !fetcher.duplicates.are_likely(self.store.resident_bytes() == 0)
            && !fetcher.asks_others_first()
            && m.shared_bytes == 0;
        let mut room = Some(room);
        if is_new && m.length <= SEGMENT_BYTES && self.in_one(m, &fetcher, &purpose, &mut carried).await? {
            return Ok(carried);
        }
        let (mut map, mut futile, mut first) = (None, 0, JoinSet::new());
        if is_new && m.length > SEGMENT_BYTES {
            map = self.first_part(m, &fetcher, &purpose, &mut room, &mut first).await;
        }
        while futile < ROUNDS {
            match self.in_segments(m, &fetcher, &purpose, &mut room, &mut carried, &mut map).await {
                Ok(Pass::Done) => {
                    // Everything is here, so how the first part ended does not matter.
                    while let Some(Ok((crossed, _))) = first.join_next().await {
                        carried.crossed += crossed;
                    }
                    return Ok(carried);
                }
                Ok(Pass::Some) => futile = 0,
                Ok(Pass::Nothing) => futile += 1,
                Err(TransferError::Changed { .. }) => (map, futile) = (None, futile + 1),
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
        let Split { joined, mut own } = self.flights.split(&blind(m, &gaps), |r| vec![r]);
        let (Some(registered), true) = (own.pop(), joined.is_empty() && own.is_empty()) else { return Ok(false) };
        let flight = registered.flight.clone();
        let (crossed, result) = fetcher.fetch(&flight, purpose).await;
        registered.finish(result.clone());
        carried.crossed += crossed;
        result?;
        carried.bytes = flight.map.get().map_or(0, |map| bytes_of(map, m));
        Ok(true)
    }

    /// Asks for the first part of a large file with its manifest in the same answer, and waits for the manifest alone: so
    /// the link is not idle for the round trip that it takes. None if it did not come; then asking again tells why.
    async fn first_part(
        self: &Arc<Self>,
        m: &Move,
        fetcher: &Fetcher,
        purpose: &Purpose,
        room: &mut Option<OwnedSemaphorePermit>,
        tasks: &mut JoinSet<(Crossed, Result<(), TransferError>)>,
    ) -> Option<Arc<ChunkMap>> {
        let part = m.offset..m.offset.saturating_add(m.length.min(FIRST_PART_BYTES));
        let Split { joined, mut own } = self.flights.split(&blind(m, &[part]), |r| vec![r]);
        let (Some(registered), true) = (own.pop(), joined.is_empty() && own.is_empty()) else { return None };
        let flight = registered.flight.clone();
        // Its room is too small for this part, and must not be held while waiting for more.
        tasks.spawn(self.clone().fetch_one(registered, room.take(), fetcher.clone(), purpose.clone()));
        flight.mapped().await
    }

    /// The manifest, unless an earlier pass brought it, then some of what is missing.
    async fn in_segments(
        self: &Arc<Self>,
        m: &Move,
        fetcher: &Fetcher,
        purpose: &Purpose,
        room: &mut Option<OwnedSemaphorePermit>,
        carried: &mut Carried,
        known: &mut Option<Arc<ChunkMap>>,
    ) -> Result<Pass, TransferError> {
        let map = match known {
            Some(map) => map.clone(),
            None => known.insert(self.current_map(m, fetcher).await?).clone(),
        };
        carried.bytes = bytes_of(&map, m);
        let version = map.manifest().version.clone();
        let key = FileKey { volume: m.volume.clone(), path: m.path.clone(), version };
        self.copy_local(&key, &map, m, purpose).await?;
        let gaps = first_bytes(self.gaps(&key, &wanted(m)), PASS_BYTES);
        if gaps.is_empty() {
            return Ok(Pass::Done);
        }
        let before = self.store.lookup(&key).map_or(0, |r| r.resident_bytes);
        let cut = |range| segments(Some(&map), range);
        let wish = Wish { version: Some(&key.version), map: Some(&map), join: Join::SameChunks, ..blind(m, &gaps) };
        if m.shared_bytes > 0 {
            self.flights.known_of_others(wish.file).await;
        }
        let Split { joined, own } = self.flights.split(&wish, cut);
        carried.crossed += self.fetch_all(own, fetcher, purpose, room).await?;
        for flight in joined {
            let _ = flight.wait(flight.range.end).await;
        }
        let after = self.store.lookup(&key).map_or(0, |r| r.resident_bytes);
        Ok(if after > before { Pass::Some } else { Pass::Nothing })
    }

    /// The file's chunks as the source has them now; while it cannot be reached, as it told them last, if that is known here:
    /// then whoever else has them can give them, and no reader is told that they are newer than they are.
    async fn current_map(&self, m: &Move, fetcher: &Fetcher) -> Result<Arc<ChunkMap>, TransferError> {
        let newest = self.store.newest(&m.volume, &m.path);
        let holds = newest.as_ref().map(|(_, resident)| resident.map.clone());
        let here = newest.filter(|(key, _)| self.gaps(key, &wanted(m)).is_empty());
        let unless = here.as_ref().map(|(key, _)| key.version.clone());
        match (fetcher.ask_manifest(unless, holds.as_deref(), m.priority).await, here, holds) {
            (Ok(Some(manifest)), _, _) => Ok(Arc::new(ChunkMap::new(Arc::new(manifest)))),
            (Ok(None), Some((_, resident)), _) => Ok(resident.map),
            (Ok(None), None, _) => {
                let (peer, why) = (fetcher.client.address().to_owned(), "an answer to nothing".to_owned());
                Err(TransferError::Protocol { peer, why })
            }
            (Err(gone), _, Some(told)) if gone.is_transient() => {
                tracing::info!(volume = %m.volume, path = %m.path, error = %gone,
                    "the source cannot be reached; others are asked for the version that it told last");
                Ok(told)
            }
            (Err(e), ..) => Err(e),
        }
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
        let arrival = purpose.arrival(self.now());
        let (store, key, manifest, range) = (self.store.clone(), key.clone(), map.manifest().clone(), wanted(m));
        let (copied, missing) = blocking(move || {
            store.fill(&key, &manifest, range, &arrival).map(|fill| (fill.copied_bytes(), fill.missing().len()))
        })
        .await?
        .map_err(|e| TransferError::Store(e.to_string()))?;
        if copied > 0 || missing > 0 {
            self.duplicates(&m.volume).count(0, copied);
        }
        Ok(())
    }

    /// Fetches segments side by side, each as the window has room; what crossed a link.
    async fn fetch_all(
        self: &Arc<Self>,
        own: Vec<Registered>,
        fetcher: &Fetcher,
        purpose: &Purpose,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Crossed, TransferError> {
        let mut tasks = JoinSet::new();
        let mut crossed = Crossed::default();
        for registered in own {
            let fetch = self.clone().fetch_one(registered, room.take(), fetcher.clone(), purpose.clone());
            tasks.spawn(fetch);
        }
        while let Some(done) = tasks.join_next().await {
            crossed += counted(done)?;
        }
        Ok(crossed)
    }

    /// Waits for room in the window, in order of asking, unless a reader waits for this segment (promise G) or another agent.
    async fn fetch_one(
        self: Arc<Self>,
        registered: Registered,
        room: Option<OwnedSemaphorePermit>,
        fetcher: Fetcher,
        purpose: Purpose,
    ) -> (Crossed, Result<(), TransferError>) {
        let flight = registered.flight.clone();
        let bytes = flight.range.end - flight.range.start;
        let enough = room.filter(|r| r.num_permits() as u64 * 1024 >= bytes);
        let permit = match enough {
            Some(room) => Ok(Some(room)),
            None => tokio::select! {
                biased;
                () = flight.let_go.notified() => Ok(None),
                permit = acquire(&self, bytes) => permit.map(Some),
            },
        };
        let (crossed, result) = match permit {
            Ok(_permit) => fetcher.fetch(&flight, &purpose).await,
            Err(e) => (Crossed::default(), Err(e)),
        };
        registered.finish(result.clone());
        (crossed, result)
    }
}

/// What a move wants of a file of which nothing is known.
fn blind<'a>(m: &'a Move, gaps: &'a [Range<u64>]) -> Wish<'a> {
    let (version, map, join) = (None, None, Join::SameFile);
    Wish { file: (&m.volume, &m.path), version, map, gaps, join, priority: m.priority }
}

/// What a pass over a file achieved.
enum Pass {
    /// Everything is here.
    Done,
    /// Some of it came.
    Some,
    /// Nothing came: what was joined was given up, or the peer sent less than asked.
    Nothing,
}

/// Of these ranges, from the first on, as much as one pass takes.
fn first_bytes(gaps: Vec<Range<u64>>, mut bytes: u64) -> Vec<Range<u64>> {
    let mut first = Vec::new();
    for gap in gaps {
        if bytes == 0 {
            break;
        }
        let part = gap.start..gap.end.min(gap.start.saturating_add(bytes));
        bytes -= part.end - part.start;
        first.push(part);
    }
    first
}

fn counted(
    done: Result<(Crossed, Result<(), TransferError>), tokio::task::JoinError>,
) -> Result<Crossed, TransferError> {
    let (crossed, result) = done.map_err(|_| TransferError::Cancelled)?;
    result.map(|()| crossed)
}

/// Bytes of the file that the move wants.
fn bytes_of(map: &ChunkMap, m: &Move) -> u64 {
    let r = wanted(m);
    r.end.min(map.manifest().size).saturating_sub(r.start)
}
