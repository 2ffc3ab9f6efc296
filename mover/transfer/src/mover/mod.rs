//! Brings chunks to this site's store: moves as planned, demand reads at once.
//!
//! - Moves wait at a [`desk`] and start in order of priority and deadline as long as the window has room: what is
//!   asked for but has not come, in bytes, is bounded, so memory and the backlog at the sender are, too.
//! - A reader never waits for the window (promise G). If what he wants is on its way already he joins that
//!   [`flight`] and raises it; otherwise he starts his own.
//! - A [`fetch`] verifies every chunk and stores it before anybody is told. What is here is not fetched again:
//!   that is also how an interrupted move resumes.
//!
//! A small file that the store knows nothing of is asked for in one round trip (manifest and chunks in one answer).
//! For a large one, or where other versions or copies are here, the manifest is asked for first, then what is
//! missing, in segments over all connections.

mod carry;
mod desk;
mod fetch;
mod flight;
mod news;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{Arrival, ChunkMap, FileKey, Store, StoreError};
use foretide_flow::{
    Assignment, Entry, FilePath, Found, Move, MoveCause, MoveId, Outcome, Priority, Timestamp, VolumeId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Client, ClientConfig, Listed};
use crate::handshake::Identity;
use crate::tls::Credentials;
use crate::{Borders, TransferError};
use desk::Desk;
use fetch::{Duplicates, Fetcher, Purpose, blocking};
use flight::{Flight, Flights, Split};
pub use news::News;

/// How moves and reads are carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MoverConfig {
    /// How peers are reached.
    pub client: ClientConfig,
    /// Bytes that moves may have asked for and not received: three times what 1 Gbit/s carries in 150 ms. A 10 Gbit/s
    /// link of that length wants 512 MiB.
    pub window_bytes: u64,
    /// Moves that run at a time.
    pub max_running: usize,
}

impl Default for MoverConfig {
    fn default() -> Self {
        Self { client: ClientConfig::default(), window_bytes: 64 << 20, max_running: 2048 }
    }
}

/// One request for chunks is about this long, bytes: eight connections share a file evenly, and a request costs
/// nothing beside its answer.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;
/// Rounds of looking, fetching and looking again before a reader is told an error: flights that he joined may
/// be given up, chunks evicted.
const READ_ROUNDS: usize = 16;
/// A reader who wants more than this of a file whose chunks are not known asks for its manifest first, bytes: the
/// further round trip is little beside the transfer.
const LONG_RANGE_BYTES: u64 = 4 << 20;
/// What one reader may have asked for and not received, bytes.
const READER_WINDOW_BYTES: u64 = 64 << 20;
/// Evictions are told this often.
const EVICTED_INTERVAL: Duration = Duration::from_millis(500);
/// The move loop looks at the clock at least this often, so that a clock that is set does not stall it.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Bytes of a file, as asked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// From the asked offset; shorter than asked only at the file's end.
    pub bytes: Bytes,
    /// `Hit`: was here; `Late`: was on its way; `Miss`: nobody had asked.
    pub found: Found,
}

/// Brings chunks to this site's store. Dropping it stops its moves; what they verified stays.
#[derive(Debug)]
pub struct Mover {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    config: MoverConfig,
    identity: Identity,
    credentials: Credentials,
    store: Arc<Store>,
    borders: Arc<Borders>,
    outcomes: mpsc::Sender<Outcome>,
    clients: Mutex<HashMap<VolumeId, Arc<Client>>>,
    news: Mutex<Option<mpsc::Sender<News>>>,
    flights: Arc<Flights>,
    duplicates: Arc<Duplicates>,
    desk: Mutex<Desk>,
    running: Mutex<HashMap<MoveId, (MoveCause, AbortHandle)>>,
    wake: Notify,
    /// KiB that moves may still ask for.
    window: Arc<Semaphore>,
    window_kib: usize,
    slots: Arc<Semaphore>,
    /// Where flights run: whoever asks for one may stand on a thread of the kernel's.
    runtime: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mover {
    /// A mover for the site and node of `identity`; what it brings about is told on `outcomes`, which must be
    /// drained. To be called inside a tokio runtime.
    pub fn new(
        config: MoverConfig,
        identity: Identity,
        credentials: impl Into<Credentials>,
        store: Arc<Store>,
        borders: Arc<Borders>,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Arc<Self> {
        let window_kib = (config.window_bytes / 1024).clamp(SEGMENT_BYTES / 1024, Semaphore::MAX_PERMITS as u64);
        let inner = Arc::new(Inner {
            window: Arc::new(Semaphore::new(window_kib as usize)),
            window_kib: window_kib as usize,
            slots: Arc::new(Semaphore::new(config.max_running.max(1))),
            config,
            identity,
            credentials: credentials.into(),
            store,
            borders,
            outcomes,
            clients: Mutex::default(),
            news: Mutex::default(),
            flights: Arc::default(),
            duplicates: Arc::default(),
            desk: Mutex::default(),
            running: Mutex::default(),
            wake: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(carry::run_moves(inner.clone()));
        tasks.spawn(tell_evictions(inner.clone()));
        Arc::new(Self { inner, _tasks: tasks })
    }

    /// Whom to ask for a volume (`host:port`); dials at once. Call it again when the address changes. Volumes of one
    /// address share its connections.
    pub fn set_source(&self, volume: &VolumeId, address: &str) {
        let mut clients = lock(&self.inner.clients);
        let known = clients.values().find(|c| c.address() == address).cloned();
        let client = known.unwrap_or_else(|| {
            let Inner { config, credentials, identity, runtime, .. } = &*self.inner;
            let _inside = runtime.enter();
            let client = Client::new(config.client.clone(), address, credentials.clone(), identity.clone());
            self.inner.watch(&client);
            client
        });
        let before = clients.insert(volume.clone(), client.clone());
        if before.is_some_and(|before| !Arc::ptr_eq(&before, &client)) {
            self.inner.source_changed(volume);
        }
    }

    /// The peer that serves a volume.
    ///
    /// # Errors
    /// [`TransferError::NoSource`] if none is known.
    pub fn source(&self, volume: &VolumeId) -> Result<Arc<Client>, TransferError> {
        self.inner.client(volume)
    }

    /// The store that it fills.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// Takes moves to run and to stop, and the switch for all prefetch; the rest of an assignment is the agent's.
    pub fn take(&self, assignment: &Assignment) {
        let inner = &self.inner;
        for id in &assignment.cancel {
            lock(&inner.desk).remove(id);
            if let Some((_, task)) = lock(&inner.running).remove(id) {
                task.abort();
            }
        }
        let forecast = |cause: &MoveCause| matches!(cause, MoveCause::Forecast { .. });
        if assignment.prefetch_off {
            lock(&inner.desk).drop_forecasts();
            lock(&inner.running).retain(|_, (cause, task)| {
                let stop = forecast(cause);
                if stop {
                    task.abort();
                }
                !stop
            });
        }
        for m in assignment.run.iter().filter(|m| !(assignment.prefetch_off && forecast(&m.cause))) {
            if !lock(&inner.running).contains_key(&m.id) {
                lock(&inner.desk).put(m.clone());
            }
        }
        inner.wake.notify_one();
    }

    /// Moves that wait and that run.
    pub fn counts(&self) -> (usize, usize) {
        (lock(&self.inner.desk).ids().count(), lock(&self.inner.running).len())
    }

    /// One directory at the source, complete.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn list(&self, volume: &VolumeId, directory: &FilePath) -> Result<Listed, TransferError> {
        self.inner.client(volume)?.list(volume, directory).await
    }

    /// One name at the source; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn stat(&self, volume: &VolumeId, path: &FilePath) -> Result<Entry, TransferError> {
        self.inner.client(volume)?.stat(volume, path).await
    }

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
        let (mut found, mut flights, mut alone) = (Found::Hit, Vec::new(), false);
        for _ in 0..READ_ROUNDS {
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
        if let Ok(client) = self.inner.client(&key.volume) {
            drop(self.inner.launch(key, &gaps, client, priority, false));
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
    fn client(&self, volume: &VolumeId) -> Result<Arc<Client>, TransferError> {
        lock(&self.clients).get(volume).cloned().ok_or_else(|| TransferError::NoSource(volume.clone()))
    }

    fn fetcher(&self, client: Arc<Client>, volume: &VolumeId, path: &FilePath) -> Fetcher {
        let (volume, path) = (volume.clone(), path.clone());
        Fetcher { client, store: self.store.clone(), volume, path, duplicates: self.duplicates.clone() }
    }

    fn borders_allow(&self, key: &FileKey) -> Result<(), TransferError> {
        let allowed = self.borders.check(&key.volume, &key.path, &self.identity.site, "receiver");
        allowed.map_err(|refusal| {
            // Best effort here: each further read of the file is refused and told again.
            let _ = self.outcomes.try_send(Outcome::Refused((*refusal).clone()));
            TransferError::Refused(refusal)
        })
    }

    /// Bytes of the range that are not here, whole chunks where the file's chunks are known.
    fn gaps(&self, key: &FileKey, range: &Range<u64>) -> Vec<Range<u64>> {
        let Some(resident) = self.store.lookup(key) else { return vec![range.clone()] };
        let wanted = resident.map.covering(range);
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for i in resident.missing.iter().filter(|i| wanted.contains(i)) {
            let chunk = resident.map.range(*i);
            match gaps.last_mut() {
                Some(last) if last.end == chunk.start => last.end = chunk.end,
                _ => gaps.push(chunk),
            }
        }
        gaps
    }

    /// Starts flights for what is not on its way yet.
    fn launch(
        &self,
        key: &FileKey,
        gaps: &[Range<u64>],
        client: Arc<Client>,
        priority: Priority,
        alone: bool,
    ) -> (Vec<Arc<Flight>>, Vec<Arc<Flight>>) {
        let map = self.store.lookup(key).map(|r| r.map);
        let file = (&key.volume, &key.path);
        let cut = |range| segments(map.as_deref(), range);
        let Split { joined, own } = self.flights.split(file, Some(&key.version), map.as_ref(), gaps, alone, cut);
        let fetcher = self.fetcher(client, &key.volume, &key.path);
        let purpose = Purpose { priority, by: None, keep_until: None };
        let mut started = Vec::with_capacity(own.len());
        for registered in own {
            started.push(registered.flight.clone());
            let (fetcher, purpose) = (fetcher.clone(), purpose.clone());
            self.runtime.spawn(async move {
                let (_, result) = fetcher.fetch(&registered.flight, &purpose).await;
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
    /// comes in segments over all connections.
    async fn bring_all(
        &self,
        key: &FileKey,
        range: &Range<u64>,
        flights: &mut Vec<Arc<Flight>>,
        alone: bool,
    ) -> Result<Brought, TransferError> {
        let is_long = range.end.saturating_sub(range.start) > LONG_RANGE_BYTES;
        if is_long && self.store.lookup(key).is_none() {
            self.borders_allow(key)?;
            self.learn_chunks(key).await?;
        }
        let Some(resident) = self.store.lookup(key) else { return self.bring(key, range, flights, alone).await };
        let end = range.end.min(resident.map.manifest().size).max(range.start);
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

    /// Asks for a file's manifest and admits it to the store, without content yet.
    async fn learn_chunks(&self, key: &FileKey) -> Result<(), TransferError> {
        let fetcher = self.fetcher(self.client(&key.volume)?, &key.volume, &key.path);
        let manifest = fetcher.ask_manifest(None, Priority::Demand).await?;
        let manifest = manifest.filter(|m| m.version == key.version);
        let manifest = Arc::new(manifest.ok_or_else(|| TransferError::Changed { path: key.path.clone() })?);
        let (store, key) = (self.store.clone(), key.clone());
        let arrival = Arrival { by: None, keep_until: None, at: now() };
        // A store that cannot even take the name is no reason to fail: the bytes are read past it.
        blocking(move || drop(store.fill(&key, &manifest, 0..0, &arrival))).await
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
        let client = self.client(&key.volume)?;
        let (joined, own) = self.launch(key, &gaps, client, Priority::Demand, alone);
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
    async fn assemble(
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
    let flown = || flights.iter().filter_map(|f| f.map.get()).find(|m| m.manifest().version == key.version).cloned();
    let map = store.lookup(key).map(|r| r.map).or_else(flown)?;
    let end = range.end.min(map.manifest().size);
    let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
    match store.read(key, range.start, &mut bytes) {
        Ok(_) => return Some(bytes.into()),
        Err(StoreError::Missing(_) | StoreError::Corrupt { .. }) => {}
        Err(e) => tracing::warn!(path = %key.path, error = %e, "the store cannot be read"),
    }
    let ours = |f: &&Arc<Flight>| f.map.get().is_some_and(|m| m.manifest().version == key.version);
    let flights: Vec<_> = flights.iter().filter(ours).collect();
    for i in map.covering(range) {
        let chunk = map.range(i);
        let part = chunk.start.max(range.start)..chunk.end.min(end);
        let to = &mut bytes[(part.start - range.start) as usize..(part.end - range.start) as usize];
        let held = flights.iter().find_map(|f| f.held().get(&chunk.start).cloned());
        match held {
            Some(held) => {
                to.copy_from_slice(&held[(part.start - chunk.start) as usize..(part.end - chunk.start) as usize])
            }
            None => drop(store.read(key, part.start, to).ok()?),
        }
    }
    Some(bytes.into())
}

/// A range in requests of a good size, cut between chunks; in one where the chunks are not known.
fn segments(map: Option<&ChunkMap>, range: Range<u64>) -> Vec<Range<u64>> {
    let Some(map) = map else { return vec![range] };
    let mut segments: Vec<Range<u64>> = Vec::new();
    for i in map.covering(&range) {
        let chunk = map.range(i);
        match segments.last_mut() {
            Some(last) if chunk.end - last.start <= SEGMENT_BYTES => last.end = chunk.end,
            _ => segments.push(chunk),
        }
    }
    segments
}

async fn tell_evictions(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(EVICTED_INTERVAL).await;
        for evicted in inner.store.drain_evicted() {
            let outcome = Outcome::Evicted {
                volume: evicted.key.volume,
                path: evicted.key.path,
                at: evicted.at,
                bytes: evicted.bytes,
                unread_prefetched_bytes: evicted.unread_prefetched_bytes,
            };
            if inner.outcomes.send(outcome).await.is_err() {
                return;
            }
        }
    }
}

/// What a move wants of its file.
fn wanted(m: &Move) -> Range<u64> {
    m.offset..m.offset.saturating_add(m.length)
}

/// The clock; decisions take it as an argument.
fn now() -> Timestamp {
    Timestamp::now()
}
