//! Carrying one flight out: ask, verify, store; try again where that can help.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{Arrival, ChunkMap, FileKey, Fill, Store, StoreError, decode_manifest};
use foretide_flow::{FilePath, FileVersion, Manifest, MoveId, Priority, Timestamp, VolumeId};

use super::flight::Flight;
use crate::TransferError;
use crate::client::{Client, Event, Incoming, jitter};
use crate::message::{ReadRequest, Want};

/// What a fetch is for.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    pub(super) priority: Priority,
    /// The move; none for a reader.
    pub(super) by: Option<MoveId>,
    pub(super) keep_until: Option<Timestamp>,
}

/// What the end of an answer says if the asker has the source's version.
const SAME_VERSION: u32 = 1;
/// Tries of one flight: broken connections, and one more for bytes that did not fit their ids.
const ATTEMPTS: u32 = 4;
/// Before the second try; doubled and scattered from there.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// How much of what came was here already: tells whether asking for the manifest first would pay.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    came_bytes: AtomicU64,
    known_bytes: AtomicU64,
}

impl Duplicates {
    /// One chunk in fifty known already pays for a further round trip, which overlaps with other transfers anyway.
    const WORTH_ONE_IN: u64 = 50;
    /// Old counts fade once this much has come, bytes.
    const FADE_BYTES: u64 = 256 << 20;

    pub(super) fn are_likely(&self) -> bool {
        let known = self.known_bytes.load(Ordering::Relaxed);
        known > 0 && known * Self::WORTH_ONE_IN >= self.came_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, came_bytes: u64, known_bytes: u64) {
        self.known_bytes.fetch_add(known_bytes, Ordering::Relaxed);
        if self.came_bytes.fetch_add(came_bytes + known_bytes, Ordering::Relaxed) > Self::FADE_BYTES {
            for counter in [&self.came_bytes, &self.known_bytes] {
                counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }
}

/// Whom and what it takes.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) client: Arc<Client>,
    pub(super) store: Arc<Store>,
    pub(super) volume: VolumeId,
    pub(super) path: FilePath,
    pub(super) duplicates: Arc<Duplicates>,
}

/// Where verified chunks go: the store, or, if it cannot take them and somebody waits, the flight itself.
enum Sink {
    Store(Arc<Fill>),
    Hold,
}

/// What came of one try.
struct Try {
    wire_bytes: u64,
    result: Result<(), TransferError>,
}

impl Fetcher {
    /// Brings a flight's bytes; how many bytes crossed the link for it.
    pub(super) async fn fetch(&self, flight: &Arc<Flight>, purpose: &Purpose) -> (u64, Result<(), TransferError>) {
        let (mut wire_bytes, mut recut) = (0, false);
        let mut pause = FIRST_RETRY;
        for attempt in 1.. {
            let tried = self.fetch_once(flight, purpose, recut).await;
            wire_bytes += tried.wire_bytes;
            match tried.result {
                Err(TransferError::WrongBytes { .. }) if !recut => recut = true,
                Err(e) if e.is_transient() && attempt < ATTEMPTS => {
                    tracing::debug!(path = %self.path, error = %e, attempt, "trying again");
                    tokio::time::sleep(jitter(pause)).await;
                    pause *= 2;
                }
                done => return (wire_bytes, done),
            }
        }
        unreachable!("attempts are counted")
    }

    async fn fetch_once(&self, flight: &Arc<Flight>, purpose: &Purpose, recut: bool) -> Try {
        let mut wire_bytes = 0;
        let result = self.fetch_counted(flight, purpose, recut, &mut wire_bytes).await;
        Try { wire_bytes, result }
    }

    async fn fetch_counted(
        &self,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        recut: bool,
        wire_bytes: &mut u64,
    ) -> Result<(), TransferError> {
        let known = flight.map.get().cloned();
        let mut sink = None;
        let mut range = flight.range.clone();
        if let Some(map) = &known {
            let begun = self.begin(map, flight.range.clone(), purpose).await?;
            if let Sink::Store(fill) = &begun {
                let Some(missing) = span(map, fill.missing()) else { return Ok(()) };
                range = missing;
            }
            sink = Some((map.clone(), begun));
        }
        let version = known.as_ref().map(|m| m.manifest().version.clone());
        let want = match &known {
            Some(map) => Want::Chunks { manifest: map.manifest().id, chunks: map.covering(&range) },
            None => Want::Bytes(range.clone()),
        };
        let expected = range.end.saturating_sub(range.start);
        let request = self.request(version, None, recut, want);
        let mut incoming = self.client.read(request, purpose.priority, expected).await?;
        flight.served_by(incoming.handle());
        loop {
            match incoming.next().await {
                Event::Head(record) => {
                    *wire_bytes += record.len() as u64;
                    let map = Arc::new(ChunkMap::new(Arc::new(self.manifest(&incoming, &record)?)));
                    flight.set_version(map.manifest().version.clone());
                    let map = flight.map.get_or_init(|| map).clone();
                    let begun = self.begin(&map, flight.range.clone(), purpose).await?;
                    if let Sink::Store(fill) = &begun
                        && fill.missing().is_empty()
                    {
                        self.duplicates.count(0, fill.copied_bytes());
                        return Ok(());
                    }
                    sink = Some((map, begun));
                }
                Event::Data { first, bytes } => {
                    let Some((map, sink)) = &sink else { return Err(self.broke("chunks before their manifest")) };
                    *wire_bytes += bytes.len() as u64;
                    self.land(flight, map, sink, first, bytes, purpose).await?;
                }
                Event::End { .. } if sink.is_some() => return Ok(()),
                other => return Err(self.client.failure(other, &self.volume, &self.path)),
            }
        }
    }

    fn request(
        &self,
        version: Option<FileVersion>,
        unless: Option<FileVersion>,
        recut: bool,
        want: Want,
    ) -> ReadRequest {
        let (volume, path) = (self.volume.clone(), self.path.clone());
        ReadRequest { volume, path, version, unless, recut, want }
    }

    fn broke(&self, why: &str) -> TransferError {
        TransferError::Protocol { peer: self.client.address().to_owned(), why: why.to_owned() }
    }

    fn manifest(&self, incoming: &Incoming, record: &Bytes) -> Result<Manifest, TransferError> {
        decode_manifest(self.store.key(), record)
            .map_err(|e| TransferError::Protocol { peer: incoming.peer().to_owned(), why: e.to_string() })
    }

    /// The file's manifest as it is now; none if `unless` still is its version.
    pub(super) async fn ask_manifest(
        &self,
        unless: Option<FileVersion>,
        priority: Priority,
    ) -> Result<Option<Manifest>, TransferError> {
        let mut pause = FIRST_RETRY;
        for attempt in 1.. {
            match self.ask_manifest_once(unless.clone(), priority).await {
                Err(e) if e.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(jitter(pause)).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        unreachable!("attempts are counted")
    }

    async fn ask_manifest_once(
        &self,
        unless: Option<FileVersion>,
        priority: Priority,
    ) -> Result<Option<Manifest>, TransferError> {
        let request = self.request(None, unless, false, Want::Manifest);
        let mut incoming = self.client.read(request, priority, 0).await?;
        let mut manifest = None;
        loop {
            match incoming.next().await {
                Event::Head(record) => manifest = Some(self.manifest(&incoming, &record)?),
                Event::End { argument: SAME_VERSION } => return Ok(None),
                Event::End { .. } if manifest.is_some() => return Ok(manifest),
                other => return Err(self.client.failure(other, &self.volume, &self.path)),
            }
        }
    }

    /// Makes room; for a reader a store that has none is no reason to fail.
    async fn begin(&self, map: &Arc<ChunkMap>, range: Range<u64>, purpose: &Purpose) -> Result<Sink, TransferError> {
        let key = self.key(map);
        let (store, manifest) = (self.store.clone(), map.manifest().clone());
        let arrival = Arrival { by: purpose.by.clone(), keep_until: purpose.keep_until, at: Timestamp::now() };
        let filled = blocking(move || store.fill(&key, &manifest, range, &arrival)).await?;
        match filled {
            Ok(fill) => Ok(Sink::Store(Arc::new(fill))),
            Err(e) if purpose.by.is_none() => {
                tracing::debug!(path = %self.path, error = %e, "read past the store");
                Ok(Sink::Hold)
            }
            Err(e) => Err(TransferError::Store(e.to_string())),
        }
    }

    fn key(&self, map: &ChunkMap) -> FileKey {
        let version = map.manifest().version.clone();
        FileKey { volume: self.volume.clone(), path: self.path.clone(), version }
    }

    /// Takes whole chunks: each verified, stored (or held), and only then told to who waits.
    async fn land(
        &self,
        flight: &Arc<Flight>,
        map: &Arc<ChunkMap>,
        sink: &Sink,
        first: u32,
        bytes: Bytes,
        purpose: &Purpose,
    ) -> Result<(), TransferError> {
        let chunks = chunks_in(map, first, bytes.len()).ok_or_else(|| self.broke("chunks of the wrong length"))?;
        let upto = map.range(chunks.end - 1).end;
        let start = map.range(first).start;
        let wrong = |chunk| TransferError::WrongBytes {
            peer: self.client.address().to_owned(),
            path: self.path.clone(),
            chunk,
        };
        let (store, map, flight2) = (self.store.clone(), map.clone(), flight.clone());
        let fill = match sink {
            Sink::Store(fill) => Some(fill.clone()),
            Sink::Hold => None,
        };
        let (may_hold, duplicates) = (purpose.by.is_none(), self.duplicates.clone());
        let landed = blocking(move || {
            for i in chunks {
                let r = map.range(i);
                let chunk = bytes.slice((r.start - start) as usize..(r.end - start) as usize);
                let stored = fill.as_ref().map(|fill| put(fill, &duplicates, i, &chunk));
                match stored {
                    Some(Ok(())) => continue,
                    Some(Err(StoreError::Corrupt { .. })) => return Err(Landing::Wrong(i)),
                    Some(Err(e)) if !may_hold => return Err(Landing::Store(e.to_string())),
                    Some(Err(_)) | None => {}
                }
                if store.key().chunk_id(&chunk) != map.manifest().chunks[i as usize].id {
                    return Err(Landing::Wrong(i));
                }
                flight2.hold(r.start, chunk);
            }
            Ok(())
        });
        match landed.await? {
            Ok(()) => flight.came(upto),
            Err(Landing::Wrong(chunk)) => return Err(wrong(chunk)),
            Err(Landing::Store(why)) => return Err(TransferError::Store(why)),
        }
        Ok(())
    }
}

enum Landing {
    Wrong(u32),
    Store(String),
}

fn put(fill: &Fill, duplicates: &Duplicates, i: u32, chunk: &Bytes) -> Result<(), StoreError> {
    let was_missing = fill.missing().binary_search(&i).is_ok();
    fill.put(i, chunk)?;
    let length = chunk.len() as u64;
    if was_missing {
        duplicates.count(length, 0)
    } else {
        duplicates.count(0, length)
    }
    Ok(())
}

/// The chunks that these bytes are, if their lengths add up.
fn chunks_in(map: &ChunkMap, first: u32, length: usize) -> Option<Range<u32>> {
    if first >= map.count() || length == 0 {
        return None;
    }
    let end = map.range(first).start + length as u64;
    let chunks = map.covering(&(map.range(first).start..end));
    (map.range(chunks.end - 1).end == end && chunks.start == first).then_some(chunks)
}

/// From the first to the last of these chunks.
fn span(map: &ChunkMap, chunks: &[u32]) -> Option<Range<u64>> {
    Some(map.range(*chunks.first()?).start..map.range(*chunks.last()?).end)
}

/// Runs something that blocks on disk or hashes.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TransferError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TransferError::Cancelled)
}
