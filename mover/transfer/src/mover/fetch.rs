//! Carrying one flight out: ask, verify, store; try again where that can help. Givers are asked first, each once, and
//! whatever they say, the source is asked for what has not come then.

use std::collections::{HashMap, HashSet};
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{Arrival, ChunkMap, Claim, FileKey, Signature, Store, decode_difference, decode_manifest};
use foretide_flow::{FileVersion, Manifest, MoveId, NodeId, Priority, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::flight::Flight;
use super::givers::{Errand, Givers, Way, is_its_fault};
use super::land::{Base, Landed, Landing, Parcel};
use super::{SEGMENT_BYTES, lock};
use crate::TransferError;
use crate::client::{Client, Event, Incoming, jitter};
use crate::message::{Effort, ReadRequest, Want};
use crate::surroundings::Surroundings;

/// What a fetch is for.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    pub(super) priority: Priority,
    /// The move; none for a reader.
    pub(super) by: Option<MoveId>,
    pub(super) keep_until: Option<Timestamp>,
}

impl Purpose {
    /// What the store is told of the bytes that come now.
    pub(super) fn arrival(&self, at: Timestamp) -> Arrival {
        let claim = match (&self.by, self.priority) {
            (Some(_), Priority::Background) => Claim::Guess,
            (Some(_), Priority::Deadline) => Claim::Asked,
            (Some(_), Priority::Demand) | (None, _) => Claim::Demand,
        };
        Arrival { by: self.by.clone(), claim, keep_until: self.keep_until, at }
    }
}

/// What the end of an answer says if the asker has the source's version.
const SAME_VERSION: u32 = 1;
/// Tries of one flight: broken connections, and one more for bytes that did not fit their ids.
const ATTEMPTS: u32 = 4;
/// Before the second try; doubled and scattered from there.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// While somebody waits, a giver that says nothing for so long is given up for the source: longer than it takes itself to
/// fetch from there, unless that is broken.
const PATIENCE_WITH_GIVERS: Duration = Duration::from_secs(1);

/// What readers may have asked for, all together, that the store cannot take before its file's whole manifest is known: it
/// waits in memory. 1 Gbit/s brings as much in the time in which a source cuts 4 GB.
pub(super) const SOON_BYTES: u64 = 256 << 20;

/// Files whose chunks are being asked for: who wants them too waits instead of asking.
pub(super) type Learning = Mutex<HashMap<FileKey, Arc<tokio::sync::Mutex<()>>>>;

/// How much of what came of a volume was here already: tells whether asking for the manifest first would pay.
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

    /// Of a volume from which nothing has come yet, they are as long as there is anything here that it could be a copy or
    /// another version of.
    pub(super) fn are_likely(&self, store_is_empty: bool) -> bool {
        let (came, known) = (self.came_bytes.load(Ordering::Relaxed), self.known_bytes.load(Ordering::Relaxed));
        match came {
            0 => !store_is_empty,
            _ => known > 0 && known * Self::WORTH_ONE_IN >= came,
        }
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

/// Bytes that crossed a link between sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crossed {
    pub(super) bytes: u64,
    /// Of these, what the source gave in place of the site that the plan names.
    pub(super) fallback_bytes: u64,
}

impl AddAssign for Crossed {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.fallback_bytes += more.fallback_bytes;
    }
}

/// Whom and what it takes.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) around: Arc<dyn Surroundings>,
    /// Who is asked: the source, or a giver in its stead.
    pub(super) client: Arc<Client>,
    pub(super) givers: Arc<Givers>,
    pub(super) errand: Errand,
    pub(super) store: Arc<Store>,
    pub(super) duplicates: Arc<Duplicates>,
    pub(super) learning: Arc<Learning>,
    /// KiB of [`SOON_BYTES`] that are left.
    pub(super) soon: Arc<Semaphore>,
    /// Nodes whose copies were found not to have this file as the source has it: its other parts are not asked for there.
    pub(super) behind: Arc<Mutex<HashSet<NodeId>>>,
}

/// How one try is made.
#[derive(Clone, Copy, Debug)]
struct Terms<'a> {
    /// Bytes did not fit their ids: cut anew, and no delta.
    wary: bool,
    /// Who is asked in the source's stead.
    giver: Option<&'a Way>,
}

/// What has come of one answer, and where it goes.
#[derive(Debug, Default)]
struct Arrivals {
    /// None before the manifest has come.
    landing: Option<Landing>,
    /// Not landed yet: of what nobody waits for, several are gathered.
    parcels: Vec<Parcel>,
    bytes: usize,
}

/// Landed in one go of what nobody waits for, bytes: a thread is woken, and wakes in turn, for each.
const GATHERED_BYTES: usize = SEGMENT_BYTES as usize;

impl Arrivals {
    fn take(&mut self, parcel: Parcel) {
        self.bytes += parcel.payload.len();
        self.parcels.push(parcel);
    }
}

/// What came of one try.
struct Try {
    wire_bytes: u64,
    result: Result<(), TransferError>,
}

impl Fetcher {
    /// Whether anybody but the source is asked for a move of this file.
    pub(super) fn asks_others_first(&self) -> bool {
        !self.givers.before_the_source(&self.errand, false).is_empty()
    }

    /// Brings a flight's bytes, and tells what crossed a link for it.
    pub(super) async fn fetch(&self, flight: &Arc<Flight>, purpose: &Purpose) -> (Crossed, Result<(), TransferError>) {
        let mut given_bytes = 0;
        let before = self.givers.before_the_source(&self.errand, purpose.by.is_none());
        if let Some(done) = self.ask_givers(before, flight, purpose, &mut given_bytes).await {
            return (Crossed { bytes: given_bytes, fallback_bytes: 0 }, done);
        }
        let mut source_bytes = 0;
        let done = self.ask_source(flight, purpose, &mut source_bytes).await;
        let fallback_bytes = self.givers.named_site(&self.errand).map_or(0, |_| source_bytes);
        (Crossed { bytes: given_bytes + source_bytes, fallback_bytes }, done)
    }

    /// Asks one after the other; none if all of the flight's bytes have not come by that.
    async fn ask_givers(
        &self,
        ways: Vec<Way>,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        wire_bytes: &mut u64,
    ) -> Option<Result<(), TransferError>> {
        for way in &ways {
            // A giver is asked for a version; one that has a copy, for contents.
            let is_told = if way.has_a_copy { flight.map.get().is_some() } else { flight.version().is_some() };
            if !is_told || lock(&self.behind).contains(way.node()) {
                continue;
            }
            let asked = Self { client: way.client.clone(), ..self.clone() };
            let tried = asked.fetch_once(flight, purpose, Terms { wary: false, giver: Some(way) }).await;
            *wire_bytes += if way.is_near { 0 } else { tried.wire_bytes };
            match tried.result {
                Err(e @ (TransferError::Store(_) | TransferError::Cancelled)) => return Some(Err(e)),
                Err(e) => {
                    tracing::debug!(path = %self.errand.path, error = %e, "a giver did not give");
                    if is_its_fault(&e) {
                        way.shun();
                    } else if way.has_a_copy && lock(&self.behind).insert(way.node().clone()) {
                        let Errand { volume, path, .. } = &self.errand;
                        tracing::info!(%volume, %path, site = %way.site(), node = %way.node(), error = %e,
                            "a copy has this file not as the source has it; others are asked");
                    }
                }
                Ok(()) => return Some(Ok(())),
            }
        }
        None
    }

    /// Asks the source, again where that can help; once it cannot be reached, others who may hold the bytes in between.
    async fn ask_source(
        &self,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        wire_bytes: &mut u64,
    ) -> Result<(), TransferError> {
        let (mut wary, mut pause) = (false, FIRST_RETRY);
        for attempt in 1.. {
            let tried = self.fetch_once(flight, purpose, Terms { wary, giver: None }).await;
            *wire_bytes += tried.wire_bytes;
            match tried.result {
                // Cut anew, and no delta: whichever of the two was wrong.
                Err(TransferError::WrongBytes { .. }) if !wary => wary = true,
                Err(e) if e.is_transient() && attempt < ATTEMPTS => {
                    if attempt == 1 {
                        let manifest_is_known = flight.map.get().is_some();
                        let instead = self.givers.instead_of_the_source(&self.errand, manifest_is_known);
                        if let Some(done) = self.ask_givers(instead, flight, purpose, wire_bytes).await {
                            return done;
                        }
                    }
                    tracing::debug!(path = %self.errand.path, error = %e, attempt, "trying again");
                    tokio::time::sleep(jitter(pause)).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        unreachable!("attempts are counted")
    }

    async fn fetch_once(&self, flight: &Arc<Flight>, purpose: &Purpose, terms: Terms<'_>) -> Try {
        let mut wire_bytes = 0;
        let result = self.fetch_counted(flight, purpose, terms, &mut wire_bytes).await;
        Try { wire_bytes, result }
    }

    async fn fetch_counted(
        &self,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        terms: Terms<'_>,
        wire_bytes: &mut u64,
    ) -> Result<(), TransferError> {
        let (mut arrivals, mut base) = (Arrivals::default(), None);
        let mut request = self.request(Want::Bytes(flight.range.clone()));
        let soon = self.room_for_soon(flight, purpose, terms);
        if soon.is_some() {
            request.want = Want::Soon(flight.range.clone());
            request.version = flight.version().cloned();
        }
        if let Some(way) = terms.giver {
            request.version = flight.version().cloned();
            request.effort = way.effort;
        }
        let mut expected = flight.range.end.saturating_sub(flight.range.start);
        if let Some(map) = flight.map.get().cloned() {
            let mut begun = Landing::new(self, map.clone(), flight, purpose);
            let (begun, missing) = blocking(move || begun.missing().map(|missing| (begun, missing))).await??;
            let Some(missing) = missing else { return Ok(()) };
            let (manifest, chunks) = (map.manifest().id, map.covering(&missing));
            // Within a site a delta costs more than it saves.
            if !terms.wary && terms.giver.is_none_or(|way| !way.is_near) {
                base = self.base(&map, &chunks).await?;
            }
            // Who has a copy knows its own versions, and contents by their manifests.
            let of_version = terms.giver.is_none_or(|way| !way.has_a_copy);
            request.version = of_version.then(|| map.manifest().version.clone());
            request.want = match &base {
                Some(base) => Want::Delta { manifest, chunks, signature: base.signature.encode().into() },
                None => Want::Chunks { manifest, chunks },
            };
            expected = missing.end - missing.start;
            arrivals.landing = Some(begun);
        }
        request.recut = terms.wary;
        *wire_bytes += request.signature_bytes();
        let asked = self.client.read(request, purpose.priority, expected);
        let mut incoming = match terms.giver {
            Some(_) if purpose.priority == Priority::Demand => {
                tokio::time::timeout(PATIENCE_WITH_GIVERS, asked).await.map_err(|_| self.silent())??
            }
            _ => asked.await?,
        };
        flight.served_by(incoming.handle());
        loop {
            let event = tokio::select! {
                biased;
                event = self.next(&mut incoming, terms, flight, purpose) => Some(event),
                () = flight.raised.notified(), if !arrivals.parcels.is_empty() => None,
            };
            let parcel = match event {
                Some(Ok(Event::Data { first, bytes, packed })) => Parcel { first, payload: bytes, packed, base: None },
                Some(Ok(Event::Delta { first, delta, packed })) => {
                    let base = Some(base.take().ok_or_else(|| self.broke("a delta that was not asked for"))?);
                    Parcel { first, payload: delta, packed, base }
                }
                other => {
                    // Whatever comes now, what came before it is landed.
                    if self.land(&mut arrivals, flight).await? == Landed::AllWasHere {
                        return Ok(());
                    }
                    match other.transpose()? {
                        None => {}
                        Some(Event::Head(record)) => {
                            *wire_bytes += record.len() as u64;
                            let manifest = self.manifest(&incoming, &record)?;
                            match self.begin_landing(manifest, flight, purpose, terms, expected).await? {
                                Some(begun) => arrivals.landing = Some(begun),
                                None => return Ok(()),
                            }
                        }
                        Some(Event::Beginning(record)) if soon.is_some() => {
                            let beginning = self.manifest(&incoming, &record)?;
                            arrivals.landing = Some(self.begin_beginning(beginning, flight, purpose)?);
                        }
                        Some(Event::End { .. }) if flight.map.get().is_none() && flight.beginning.get().is_some() => {
                            return self.settle(flight, purpose).await;
                        }
                        Some(Event::End { .. }) => match arrivals.landing {
                            Some(landing) if landing.has_room() => return Ok(()),
                            Some(mut landing) => return blocking(move || landing.end()).await?,
                            None => return Err(self.broke("an answer to nothing")),
                        },
                        Some(other) => return Err(self.client.failure(other, &self.errand.volume, &self.errand.path)),
                    }
                    continue;
                }
            };
            *wire_bytes += parcel.payload.len() as u64;
            arrivals.take(parcel);
            let is_awaited = purpose.priority == Priority::Demand || flight.is_raised.load(Ordering::Acquire);
            if (is_awaited || arrivals.bytes >= GATHERED_BYTES)
                && self.land(&mut arrivals, flight).await? == Landed::AllWasHere
            {
                return Ok(());
            }
        }
    }

    /// What a flight consists of has come; none if nothing of it need come.
    async fn begin_landing(
        &self,
        manifest: Manifest,
        flight: &Arc<Flight>,
        purpose: &Purpose,
        terms: Terms<'_>,
        expected_bytes: u64,
    ) -> Result<Option<Landing>, TransferError> {
        let map = Arc::new(ChunkMap::new(Arc::new(manifest)));
        flight.set_version(map.manifest().version.clone());
        if terms.giver.is_some() && flight.version() != Some(&map.manifest().version) {
            return Err(self.broke("another version than it was asked for"));
        }
        if flight.beginning.get().is_some_and(|b| b.manifest().version != map.manifest().version) {
            return Err(TransferError::Changed { path: self.errand.path.clone() });
        }
        let map = flight.map.get_or_init(|| map).clone();
        let mut begun = Landing::new(self, map, flight, purpose);
        // A small file's chunks are right behind; of a long part it is worth knowing that nothing need come.
        if expected_bytes > SEGMENT_BYTES {
            let looked = blocking(move || begun.all_was_here().map(|all| (begun, all))).await??;
            if looked.1 {
                return Ok(None);
            }
            begun = looked.0;
        }
        // Wakes who waits for the manifest.
        flight.came(flight.range.start);
        Ok(Some(begun))
    }

    /// What the file begins with has come.
    fn begin_beginning(
        &self,
        manifest: Manifest,
        flight: &Arc<Flight>,
        purpose: &Purpose,
    ) -> Result<Landing, TransferError> {
        let beginning = Arc::new(ChunkMap::new(Arc::new(manifest)));
        if flight.version().is_some_and(|v| *v != beginning.manifest().version) {
            return Err(TransferError::Changed { path: self.errand.path.clone() });
        }
        let beginning = flight.beginning.get_or_init(|| beginning).clone();
        Ok(Landing::of_beginning(self, beginning, flight, purpose))
    }

    /// Lands what has come, on one thread in one go.
    async fn land(&self, arrivals: &mut Arrivals, flight: &Flight) -> Result<Landed, TransferError> {
        let parcels = std::mem::take(&mut arrivals.parcels);
        arrivals.bytes = 0;
        if parcels.is_empty() {
            return Ok(Landed::Upto(flight.range.start));
        }
        let Some(mut to) = arrivals.landing.take() else { return Err(self.broke("chunks before their manifest")) };
        let (to, landed) = blocking(move || to.take_all(parcels).map(|landed| (to, landed))).await??;
        arrivals.landing = Some(to);
        if let Landed::Upto(upto) = landed {
            flight.came(upto);
        }
        Ok(landed)
    }

    /// An answer's next part. While somebody waits for it, a giver may take only so long.
    async fn next(
        &self,
        incoming: &mut Incoming,
        terms: Terms<'_>,
        flight: &Flight,
        purpose: &Purpose,
    ) -> Result<Event, TransferError> {
        match terms.giver {
            None => Ok(incoming.next().await),
            Some(_) => self.patiently(incoming, flight, purpose).await,
        }
    }

    /// Room for what a reader asks the source for before the file's manifest is known; none for anybody else.
    fn room_for_soon(&self, flight: &Flight, purpose: &Purpose, terms: Terms<'_>) -> Option<OwnedSemaphorePermit> {
        let known = flight.map.get().is_some() || flight.version().is_none();
        if known || purpose.by.is_some() || terms.wary || terms.giver.is_some() {
            return None;
        }
        let kib = u32::try_from((flight.range.end - flight.range.start).div_ceil(1024)).ok()?;
        self.soon.clone().try_acquire_many_owned(kib).ok()
    }

    /// What came by the manifest of the file's beginning goes to the store once the whole one is known.
    async fn settle(&self, flight: &Arc<Flight>, purpose: &Purpose) -> Result<(), TransferError> {
        let Some(beginning) = flight.beginning.get() else { return Ok(()) };
        let key = self.key(beginning);
        self.learn_chunks(&key, Priority::Deadline).await?;
        // A store that cannot even take the name: read past it.
        let Some(map) = self.store.map(&key) else { return Ok(()) };
        let map = flight.map.get_or_init(|| map).clone();
        let mut landing = Landing::new(self, map, flight, purpose);
        blocking(move || landing.take_held()).await?
    }

    /// A giver's next word. While nobody waits for it, it may take as long as its connection lives: it may wait itself.
    async fn patiently(
        &self,
        incoming: &mut Incoming,
        flight: &Flight,
        purpose: &Purpose,
    ) -> Result<Event, TransferError> {
        loop {
            match tokio::time::timeout(PATIENCE_WITH_GIVERS, incoming.next()).await {
                Ok(event) => return Ok(event),
                Err(_) if purpose.priority == Priority::Demand || flight.is_raised.load(Ordering::Acquire) => {
                    return Err(self.silent());
                }
                Err(_) => {}
            }
        }
    }

    fn silent(&self) -> TransferError {
        let why = format!("it says nothing for {} s", PATIENCE_WITH_GIVERS.as_secs());
        TransferError::Unreachable { peer: self.client.address().to_owned(), why }
    }

    fn request(&self, want: Want) -> ReadRequest {
        let Errand { volume, path, .. } = self.errand.clone();
        let (version, unless, holds) = (None, None, None);
        ReadRequest { volume, path, version, unless, holds, recut: false, effort: Effort::Own, want }
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

    /// Asks the source for a file's manifest, once for all who want it now, and admits it to the store, without content yet.
    pub(super) async fn learn_chunks(&self, key: &FileKey, priority: Priority) -> Result<(), TransferError> {
        let one = lock(&self.learning).entry(key.clone()).or_default().clone();
        let turn = one.lock().await;
        let learned = match self.store.map(key) {
            Some(_) => Ok(()),
            None => self.learn_chunks_alone(key, priority).await,
        };
        drop(turn);
        let mut learning = lock(&self.learning);
        // Here and in the table: nobody else waits.
        if Arc::strong_count(&one) == 2 {
            learning.remove(key);
        }
        learned
    }

    async fn learn_chunks_alone(&self, key: &FileKey, priority: Priority) -> Result<(), TransferError> {
        let newest = self.store.newest(&key.volume, &key.path);
        let holds = newest.as_ref().map(|(_, resident)| &*resident.map);
        let manifest = self.ask_manifest(None, holds, priority).await?;
        let manifest = manifest.filter(|m| m.version == key.version);
        let manifest = Arc::new(manifest.ok_or_else(|| TransferError::Changed { path: key.path.clone() })?);
        let (store, key) = (self.store.clone(), key.clone());
        let arrival = Arrival { by: None, claim: Claim::Demand, keep_until: None, at: self.around.now() };
        // A store that cannot even take the name is no reason to fail: the bytes are read past it.
        blocking(move || drop(store.fill(&key, &manifest, 0..0, &arrival))).await
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
                other => return Err(self.client.failure(other, &self.errand.volume, &self.errand.path)),
            }
        }
    }

    pub(super) fn key(&self, map: &ChunkMap) -> FileKey {
        let version = map.manifest().version.clone();
        FileKey { volume: self.errand.volume.clone(), path: self.errand.path.clone(), version }
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
