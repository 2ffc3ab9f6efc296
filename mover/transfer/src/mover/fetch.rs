//! Carrying one flight out: ask, verify, store; try again where that can help.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, FileKey, Signature, Store, decode_difference, decode_manifest};
use foretide_flow::{FilePath, FileVersion, Manifest, MoveId, Priority, Timestamp, VolumeId};

use super::SEGMENT_BYTES;
use super::flight::Flight;
use super::land::{Base, Landed, Landing, Parcel};
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

/// What came of one try.
struct Try {
    wire_bytes: u64,
    result: Result<(), TransferError>,
}

impl Fetcher {
    /// Brings a flight's bytes; how many bytes crossed the link for it.
    pub(super) async fn fetch(&self, flight: &Arc<Flight>, purpose: &Purpose) -> (u64, Result<(), TransferError>) {
        let (mut wire_bytes, mut wary) = (0, false);
        let mut pause = FIRST_RETRY;
        for attempt in 1.. {
            let tried = self.fetch_once(flight, purpose, wary).await;
            wire_bytes += tried.wire_bytes;
            match tried.result {
                // Cut anew, and no delta: whichever of the two was wrong.
                Err(TransferError::WrongBytes { .. }) if !wary => wary = true,
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

    async fn fetch_once(&self, flight: &Arc<Flight>, purpose: &Purpose, wary: bool) -> Try {
        let mut wire_bytes = 0;
        let result = self.fetch_counted(flight, purpose, wary, &mut wire_bytes).await;
        Try { wire_bytes, result }
    }

    async fn fetch_counted(
        &self,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        wary: bool,
        wire_bytes: &mut u64,
    ) -> Result<(), TransferError> {
        let (mut landing, mut base) = (None, None);
        let mut request = self.request(Want::Bytes(flight.range.clone()));
        let mut expected = flight.range.end.saturating_sub(flight.range.start);
        if let Some(map) = flight.map.get().cloned() {
            let mut begun = Landing::new(self, map.clone(), flight, purpose);
            let (begun, missing) = blocking(move || begun.missing().map(|missing| (begun, missing))).await??;
            let Some(missing) = missing else { return Ok(()) };
            let (manifest, chunks) = (map.manifest().id, map.covering(&missing));
            if !wary {
                base = self.base(&map, &chunks).await?;
            }
            request.version = Some(map.manifest().version.clone());
            request.want = match &base {
                Some(base) => Want::Delta { manifest, chunks, signature: base.signature.encode().into() },
                None => Want::Chunks { manifest, chunks },
            };
            expected = missing.end - missing.start;
            landing = Some(begun);
        }
        request.recut = wary;
        *wire_bytes += request.signature_bytes();
        let mut incoming = self.client.read(request, purpose.priority, expected).await?;
        flight.served_by(incoming.handle());
        loop {
            let parcel = match incoming.next().await {
                Event::Head(record) => {
                    *wire_bytes += record.len() as u64;
                    let map = Arc::new(ChunkMap::new(Arc::new(self.manifest(&incoming, &record)?)));
                    flight.set_version(map.manifest().version.clone());
                    let map = flight.map.get_or_init(|| map).clone();
                    let mut begun = Landing::new(self, map, flight, purpose);
                    // A small file's chunks are right behind; of a long part it is worth knowing that nothing need come.
                    if expected > SEGMENT_BYTES {
                        let looked = blocking(move || begun.all_was_here().map(|all| (begun, all))).await??;
                        if looked.1 {
                            return Ok(());
                        }
                        begun = looked.0;
                    }
                    landing = Some(begun);
                    // Wakes who waits for the manifest.
                    flight.came(flight.range.start);
                    continue;
                }
                Event::Data { first, bytes, packed } => Parcel { first, payload: bytes, packed, base: None },
                Event::Delta { first, delta, packed } => {
                    let base = Some(base.take().ok_or_else(|| self.broke("a delta that was not asked for"))?);
                    Parcel { first, payload: delta, packed, base }
                }
                Event::End { .. } => match landing {
                    Some(mut landing) => return blocking(move || landing.end()).await?,
                    None => return Err(self.broke("an answer to nothing")),
                },
                other => return Err(self.client.failure(other, &self.volume, &self.path)),
            };
            let Some(mut to) = landing.take() else { return Err(self.broke("chunks before their manifest")) };
            *wire_bytes += parcel.payload.len() as u64;
            let (to, landed) = blocking(move || to.take(parcel).map(|landed| (to, landed))).await??;
            match landed {
                Landed::Upto(upto) => flight.came(upto),
                Landed::AllWasHere => return Ok(()),
            }
            landing = Some(to);
        }
    }

    fn request(&self, want: Want) -> ReadRequest {
        let (volume, path) = (self.volume.clone(), self.path.clone());
        ReadRequest { volume, path, version: None, unless: None, holds: None, recut: false, want }
    }

    /// What the store has of an older version where these chunks lie, if it has all of it.
    async fn base(&self, map: &Arc<ChunkMap>, chunks: &Range<u32>) -> Result<Option<Base>, TransferError> {
        let Some((former, older_map)) = self.store.former(&self.key(map)) else { return Ok(None) };
        let Some(region) = older_map.region_before(map, chunks) else { return Ok(None) };
        let (store, length) = (self.store.clone(), span_of(map, chunks));
        blocking(move || {
            let mut older = vec![0; (region.end - region.start) as usize];
            store.read(&former, region.start, &mut older).ok()?;
            let signature = Signature::of(store.key(), &older);
            (!signature.is_empty()).then_some(Base { older, signature, length })
        })
        .await
    }

    pub(super) fn broke(&self, why: &str) -> TransferError {
        TransferError::Protocol { peer: self.client.address().to_owned(), why: why.to_owned() }
    }

    fn manifest(&self, incoming: &Incoming, record: &Bytes) -> Result<Manifest, TransferError> {
        decode_manifest(self.store.key(), record)
            .map_err(|e| TransferError::Protocol { peer: incoming.peer().to_owned(), why: e.to_string() })
    }

    /// The file's manifest as it is now, told as a difference where the peer remembers the one that is held here; none
    /// if `unless` still is its version.
    pub(super) async fn ask_manifest(
        &self,
        unless: Option<FileVersion>,
        holds: Option<&ChunkMap>,
        priority: Priority,
    ) -> Result<Option<Manifest>, TransferError> {
        let mut pause = FIRST_RETRY;
        for attempt in 1.. {
            match self.ask_manifest_once(unless.clone(), holds, priority).await {
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
        holds: Option<&ChunkMap>,
        priority: Priority,
    ) -> Result<Option<Manifest>, TransferError> {
        let holds_id = holds.map(|m| m.manifest().id);
        let request = ReadRequest { unless, holds: holds_id, ..self.request(Want::Manifest) };
        let mut incoming = self.client.read(request, priority, 0).await?;
        let mut manifest = None;
        loop {
            match incoming.next().await {
                Event::Head(record) => manifest = Some(self.manifest(&incoming, &record)?),
                Event::HeadDifference(record) => {
                    let held = holds.ok_or_else(|| self.broke("a difference against nothing"))?;
                    let read = decode_difference(self.store.key(), held.manifest(), &record);
                    manifest = Some(read.map_err(|e| self.broke(&e.to_string()))?);
                }
                Event::End { argument: SAME_VERSION } => return Ok(None),
                Event::End { .. } if manifest.is_some() => return Ok(manifest),
                other => return Err(self.client.failure(other, &self.volume, &self.path)),
            }
        }
    }

    pub(super) fn key(&self, map: &ChunkMap) -> FileKey {
        let version = map.manifest().version.clone();
        FileKey { volume: self.volume.clone(), path: self.path.clone(), version }
    }
}

/// Bytes of these chunks, of which there is at least one.
pub(super) fn span_of(map: &ChunkMap, chunks: &Range<u32>) -> usize {
    (map.range(chunks.end - 1).end - map.range(chunks.start).start) as usize
}

/// Runs something that blocks on disk or hashes.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TransferError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TransferError::Cancelled)
}
