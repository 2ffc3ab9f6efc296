//! Brings chunks to this site's store: moves as planned, demand reads at once.
//!
//! - Moves wait at a [`desk`] and start in order of priority and deadline as long as the window has room: what is
//!   asked for but has not come, in bytes, is bounded, so memory and the backlog at the sender are, too.
//! - A reader never waits for the window (promise G). If what he wants is on its way already he joins that
//!   [`flight`] and raises it; otherwise he starts his own.
//! - Who is asked says [`givers`]: neighbours, the site that the plan names, the source. What is here is given in the same
//!   way to others ([`passing`]).
//! - A [`fetch`] verifies every chunk and stores it before anybody is told. What is here is not fetched again:
//!   that is also how an interrupted move resumes.
//!
//! A reader who wants bytes of a long file that its source has not cut yet gets them by the manifest of the file's beginning,
//! while the source is still at the rest; what came so goes to the store when the whole manifest is known.
//!
//! A small file that the store knows nothing of is asked for in one round trip (manifest and chunks in one answer), and so
//! is the first part of a large one; the rest of it follows in segments over all connections. Where other versions or
//! copies are here the manifest is asked for first, as a difference if the peer remembers the one that is here, and then
//! what is missing: as deltas where an older version's bytes lie in the same place.

mod carry;
mod desk;
mod fetch;
mod flight;
mod givers;
mod land;
mod news;
mod passing;
mod read;
mod repair;
mod uphold;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, FileKey, Store};
use foretide_flow::{
    Assignment, Entry, FilePath, Found, Move, MoveCause, MoveId, Outcome, SiteId, Timestamp, VolumeId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Client, ClientConfig, Listed};
use crate::handshake::Identity;
use crate::message::Effort;
use crate::surroundings::{Machine, Surroundings};
use crate::tls::Credentials;
use crate::{Borders, TransferError};
use desk::Desk;
use fetch::{Duplicates, Fetcher, Learning, SOON_BYTES};
use flight::Flights;
pub use givers::Giver;
use givers::{Errand, Givers};
pub use news::News;
pub(crate) use passing::Passage;
pub use repair::Repaired;
pub use uphold::Upheld;

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
    around: Arc<dyn Surroundings>,
    config: MoverConfig,
    identity: Identity,
    credentials: Credentials,
    store: Arc<Store>,
    borders: Arc<Borders>,
    outcomes: mpsc::Sender<Outcome>,
    clients: Mutex<HashMap<VolumeId, Arc<Client>>>,
    givers: Arc<Givers>,
    news: Mutex<Option<mpsc::Sender<News>>>,
    flights: Arc<Flights>,
    duplicates: Mutex<HashMap<VolumeId, Arc<Duplicates>>>,
    desk: Arc<Mutex<Desk>>,
    running: Mutex<HashMap<MoveId, Running>>,
    learning: Arc<Learning>,
    /// KiB that readers may still ask for by the manifest of a file's beginning.
    soon: Arc<Semaphore>,
    wake: Notify,
    /// KiB that moves may still ask for.
    window: Arc<Semaphore>,
    window_kib: usize,
    slots: Arc<Semaphore>,
    /// Where flights run: whoever asks for one may stand on a thread of the kernel's.
    runtime: tokio::runtime::Handle,
}

/// A move that is being carried out.
#[derive(Debug)]
struct Running {
    volume: VolumeId,
    path: FilePath,
    cause: MoveCause,
    task: AbortHandle,
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
        Self::within(Arc::new(Machine), config, identity, credentials.into(), store, borders, outcomes)
    }

    /// The same in surroundings.
    pub(crate) fn within(
        around: Arc<dyn Surroundings>,
        config: MoverConfig,
        identity: Identity,
        credentials: Credentials,
        store: Arc<Store>,
        borders: Arc<Borders>,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Arc<Self> {
        let (own, client) = (identity.clone(), config.client.clone());
        let givers = Givers::new(around.clone(), own, borders.clone(), credentials.clone(), client);
        let window_kib = (config.window_bytes / 1024).clamp(SEGMENT_BYTES / 1024, Semaphore::MAX_PERMITS as u64);
        let inner = Arc::new(Inner {
            window: Arc::new(Semaphore::new(window_kib as usize)),
            window_kib: window_kib as usize,
            slots: Arc::new(Semaphore::new(config.max_running.max(1))),
            around,
            config,
            identity,
            credentials,
            store,
            borders,
            outcomes,
            clients: Mutex::default(),
            givers: Arc::new(givers),
            news: Mutex::default(),
            flights: Arc::default(),
            duplicates: Mutex::default(),
            desk: Arc::default(),
            running: Mutex::default(),
            learning: Arc::default(),
            soon: Arc::new(Semaphore::new((SOON_BYTES / 1024) as usize)),
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
            let Inner { around, config, credentials, identity, runtime, .. } = &*self.inner;
            let _inside = runtime.enter();
            let (around, config, credentials) = (around.clone(), config.client.clone(), credentials.clone());
            let client = Client::within(around, config, address, credentials, identity.clone());
            self.inner.watch(&client);
            client
        });
        let before = clients.insert(volume.clone(), client.clone());
        if before.is_some_and(|before| !Arc::ptr_eq(&before, &client)) {
            self.inner.source_changed(volume);
        }
    }

    /// Who else gives bytes: neighbours are dialled at once, the others when a plan names their site.
    pub fn set_givers(&self, givers: Vec<Giver>) {
        self.inner.givers.set(givers);
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
            if let Some(running) = lock(&inner.running).remove(id) {
                inner.stop(id, &running);
            }
        }
        let forecast = |cause: &MoveCause| matches!(cause, MoveCause::Forecast { .. });
        if assignment.prefetch_off {
            lock(&inner.desk).drop_forecasts();
            lock(&inner.running).retain(|id, running| {
                let stop = forecast(&running.cause);
                if stop {
                    inner.stop(id, running);
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

    /// Whether a file may be here by the rules as they are now.
    pub fn may_rest(&self, key: &FileKey) -> bool {
        self.inner.borders.check(&key.volume, &key.path, &self.inner.identity.site, "receiver").is_ok()
    }

    /// One directory at the source, complete; with `below`, small ones right below it too.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn list(&self, volume: &VolumeId, directory: &FilePath, below: bool) -> Result<Listed, TransferError> {
        self.inner.client(volume)?.list(volume, directory, below).await
    }

    /// One name at the source; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn stat(&self, volume: &VolumeId, path: &FilePath) -> Result<Entry, TransferError> {
        self.inner.client(volume)?.stat(volume, path).await
    }
}

impl Inner {
    fn client(&self, volume: &VolumeId) -> Result<Arc<Client>, TransferError> {
        lock(&self.clients).get(volume).cloned().ok_or_else(|| TransferError::NoSource(volume.clone()))
    }

    fn duplicates(&self, volume: &VolumeId) -> Arc<Duplicates> {
        lock(&self.duplicates).entry(volume.clone()).or_default().clone()
    }

    /// What fetches one file from the source of the errand's volume, and from givers before it.
    fn fetcher(&self, errand: Errand) -> Result<Fetcher, TransferError> {
        let client = self.client(&errand.volume)?;
        Ok(Fetcher {
            around: self.around.clone(),
            client,
            givers: self.givers.clone(),
            duplicates: self.duplicates(&errand.volume),
            errand,
            store: self.store.clone(),
            learning: self.learning.clone(),
            soon: self.soon.clone(),
            behind: Arc::default(),
        })
    }

    /// For somebody here, as a plan says where one does.
    fn fetcher_of(
        &self,
        volume: &VolumeId,
        path: &FilePath,
        planned: Option<SiteId>,
    ) -> Result<Fetcher, TransferError> {
        self.fetcher(Errand { volume: volume.clone(), path: path.clone(), planned, effort: Effort::Own })
    }

    /// The clock; decisions take it as an argument.
    fn now(&self) -> Timestamp {
        self.around.now()
    }

    fn stop(&self, id: &MoveId, running: &Running) {
        running.task.abort();
        lock(&self.desk).ended(id, &running.volume, &running.path);
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
        let Some((map, missing)) = self.store.missing(key, range) else { return vec![range.clone()] };
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for i in missing {
            let chunk = map.range(i);
            match gaps.last_mut() {
                Some(last) if last.end == chunk.start => last.end = chunk.end,
                _ => gaps.push(chunk),
            }
        }
        gaps
    }
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
