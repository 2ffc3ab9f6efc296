//! A peer, over a pool of warm connections.
//!
//! Connections are dialled at once and dialled again when they break, and a new one is warmed up with meaningless
//! bytes: on a link of 150 ms a cold connection needs four round trips for 100 KB, a warm one needs one. The first
//! connection takes demands while it is free; everything else goes to the connection that has least outstanding.

mod connection;
mod watching;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::encoding::EncodingError;
use foretide_flow::{Entry, FilePath, Listing, Priority, Refusal, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::TransferError;
use crate::frame::FrameReader;
use crate::handshake::Identity;
use crate::message::{Failure, ReadRequest, Request, below as read_below, entries};
use crate::socket::may_force_buffers;
use crate::surroundings::{Machine, Reached, Surroundings};
use crate::tls::{Credentials, ReadHalf, WriteHalf};
use connection::{Carried, Connection, open};
pub(crate) use connection::{Event, Handle, Incoming};
use watching::OpenWatch;
pub(crate) use watching::Said;
pub use watching::{Listed, Liveness};

/// How peers are reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// Connections to each peer, one of them kept free for demands. Each further one makes packets shorter and costs the
    /// processor more, so there are three where this process may give them buffers for 150 ms at 1 Gbit/s, and eight
    /// where it may not: with the kernel's usual buffers fewer cannot fill such a link. 10 Gbit/s want eight.
    pub connections: usize,
    /// Bytes without meaning that a new connection asks for, to open its window where nothing else does: half of 1 Gbit/s
    /// at 150 ms needs 9.4 MB in flight, and as much again is sent on the way there.
    pub warm_bytes: u32,
    /// A peer that answers no dial for this long is unreachable, seconds: two retransmissions of a lost SYN.
    pub dial_timeout_s: u64,
    /// A request waits this long for a connection before it fails, seconds.
    pub patience_s: u64,
    /// Tries of a request whose connection broke.
    pub attempts: u32,
    /// A peer that says nothing at all for this long, although it is asked four times, is gone, seconds: well before the
    /// kernel would notice, and longer than a route takes to change.
    pub silence_limit_s: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connections: if may_force_buffers() { 3 } else { 8 },
            warm_bytes: 16 << 20,
            dial_timeout_s: 8,
            patience_s: 10,
            attempts: 4,
            silence_limit_s: 20,
        }
    }
}

/// Between two dials: doubled from the first to the last, and scattered so that peers do not come back in step.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// Dials that were begun together end within this much of each other, unless one lost a packet.
const GATHERING: Duration = Duration::from_millis(50);
/// What an answer without chunks is reckoned as when connections are chosen, bytes.
const SMALL_ANSWER_BYTES: u64 = 4096;

/// A peer that serves volumes. Dropping it closes its connections.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Pool>,
    _dialling: JoinSet<()>,
    watching: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Pool {
    around: Arc<dyn Surroundings>,
    address: String,
    config: ClientConfig,
    credentials: Credentials,
    identity: Identity,
    slots: Mutex<Vec<Option<Arc<Connection>>>>,
    start: Mutex<Start>,
    /// Grows whenever a slot changes or a dial fails.
    changes: watch::Sender<u64>,
    last_error: Mutex<Option<TransferError>>,
    watch: OpenWatch,
    carried: Arc<Carried>,
}

/// How far the first round of dials is.
#[derive(Debug)]
struct Start {
    undecided: usize,
    first_opened: Option<Instant>,
}

impl Client {
    /// Begins to dial `address` (`host:port`); must be called inside a tokio runtime.
    pub fn new(
        config: ClientConfig,
        address: &str,
        credentials: impl Into<Credentials>,
        identity: Identity,
    ) -> Arc<Self> {
        Self::within(Arc::new(Machine), config, address, credentials.into(), identity)
    }

    /// The same in surroundings.
    pub(crate) fn within(
        around: Arc<dyn Surroundings>,
        config: ClientConfig,
        address: &str,
        credentials: Credentials,
        identity: Identity,
    ) -> Arc<Self> {
        let connections = config.connections.max(1);
        let shared = Arc::new(Pool {
            around,
            address: address.to_owned(),
            config,
            credentials,
            identity,
            slots: Mutex::new(vec![None; connections]),
            start: Mutex::new(Start { undecided: connections, first_opened: None }),
            changes: watch::channel(0).0,
            last_error: Mutex::default(),
            watch: OpenWatch::default(),
            carried: Arc::default(),
        });
        let mut dialling = JoinSet::new();
        for slot in 0..connections {
            dialling.spawn(keep_connected(shared.clone(), slot));
        }
        Arc::new(Self { shared, _dialling: dialling, watching: Mutex::default() })
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Bytes received, frames included.
    pub fn received_bytes(&self) -> u64 {
        self.shared.carried.received.load(Ordering::Relaxed)
    }

    /// Bytes sent: requests, and what they tell of bytes that are held here.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.carried.sent.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn connected(&self) -> usize {
        self.shared.slots().iter().flatten().filter(|c| !c.is_broken()).count()
    }

    /// Whether no connection is open and the last that was tried came to nothing.
    pub(crate) fn is_lost(&self) -> bool {
        let failed = self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        failed && self.connected() == 0
    }

    /// One directory, complete, as it is now; with `below`, small ones right below it too, in the same round trip.
    ///
    /// # Errors
    /// [`TransferError`]; broken connections are retried first.
    pub async fn list(&self, volume: &VolumeId, directory: &FilePath, below: bool) -> Result<Listed, TransferError> {
        let names_below = if below { NAMES_BELOW } else { 0 };
        let request = Request::List { volume: volume.clone(), directory: directory.clone(), names_below };
        let seen_at = self.shared.around.now();
        let Told { entries, below, argument: watch } = self.entries(&request, volume, directory).await?;
        let listing = |directory, entries| Listing { volume: volume.clone(), directory, seen_at, entries };
        let live = |watch| self.shared.watch.liveness(watch);
        let below = below.into_iter().filter(|(path, _, _)| path.parent().as_ref() == Some(directory));
        let below = below.map(|(path, watch, entries)| (listing(path, entries), live(watch))).collect();
        Ok(Listed { listing: listing(directory.clone(), entries), live: live(watch), below })
    }

    /// One name as it is now; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`TransferError`]; broken connections are retried first.
    pub async fn stat(&self, volume: &VolumeId, path: &FilePath) -> Result<Entry, TransferError> {
        let request = Request::Stat { volume: volume.clone(), path: path.clone() };
        let entry = self.entries(&request, volume, path).await?.entries.pop();
        entry.ok_or_else(|| TransferError::Protocol { peer: self.address().into(), why: "an empty answer".into() })
    }

    /// The entries of an answer.
    async fn entries(&self, request: &Request, volume: &VolumeId, path: &FilePath) -> Result<Told, TransferError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.entries_once(request, volume, path).await {
                Err(TransferError::Disconnected { .. }) if attempt < self.shared.config.attempts => {
                    tokio::time::sleep(jitter(FIRST_BACKOFF)).await;
                }
                done => return done,
            }
        }
    }

    async fn entries_once(&self, request: &Request, volume: &VolumeId, path: &FilePath) -> Result<Told, TransferError> {
        let mut incoming = self.shared.ask(request, Priority::Demand, SMALL_ANSWER_BYTES).await?;
        let mut told = Told::default();
        loop {
            match incoming.next().await {
                Event::Entries(part) => told.entries.extend(self.decode_entries(&part)?),
                Event::Below(record) => told.below.push(read_below(&record).map_err(|e| self.malformed(&e))?),
                Event::End { argument } => return Ok(Told { argument, ..told }),
                other => return Err(self.failure(other, volume, path)),
            }
        }
    }

    fn decode_entries(&self, part: &Bytes) -> Result<Vec<Entry>, TransferError> {
        entries(part).map_err(|e| self.malformed(&e))
    }

    fn malformed(&self, why: &EncodingError) -> TransferError {
        TransferError::Protocol { peer: self.address().into(), why: why.to_string() }
    }

    /// Asks for a file's content; `expected_bytes` is what the answer will be long about.
    pub(crate) async fn read(
        &self,
        request: ReadRequest,
        priority: Priority,
        expected_bytes: u64,
    ) -> Result<Incoming, TransferError> {
        self.shared.ask(&Request::Read(request), priority, expected_bytes.saturating_add(SMALL_ANSWER_BYTES)).await
    }

    /// What an event that ends an answer badly means to the asker.
    pub(crate) fn failure(&self, event: Event, volume: &VolumeId, path: &FilePath) -> TransferError {
        let peer = self.address().to_owned();
        match event {
            Event::Failed(Failure::NotFound) => TransferError::NotFound { volume: volume.clone(), path: path.clone() },
            Event::Failed(Failure::Changed) => TransferError::Changed { path: path.clone() },
            Event::Failed(Failure::Refused(refusal)) => TransferError::Refused(Box::new(told(*refusal, volume, path))),
            Event::Failed(Failure::NoVolume) => TransferError::NoSource(volume.clone()),
            Event::Failed(Failure::NotHeld) => TransferError::NotHeld { peer, path: path.clone() },
            Event::Failed(Failure::Denied(why)) => TransferError::Denied { peer, path: path.clone(), why },
            Event::Failed(Failure::Other(why)) => TransferError::Source { peer, path: path.clone(), why },
            Event::Lost(why) => why,
            other => TransferError::Protocol { peer, why: format!("an answer of the wrong kind: {other:?}") },
        }
    }
}

/// Names of directories below a listed one that are taken in without asking: 100 KB, of which little is wasted.
const NAMES_BELOW: u32 = 2000;

/// An answer made of entries.
#[derive(Debug, Default)]
struct Told {
    entries: Vec<Entry>,
    /// Directories below: path, watch, entries.
    below: Vec<(FilePath, u32, Vec<Entry>)>,
    /// What its end says.
    argument: u32,
}

/// A refusal is of what we asked for, whatever the peer wrote.
fn told(refusal: Refusal, volume: &VolumeId, path: &FilePath) -> Refusal {
    Refusal { volume: volume.clone(), path: path.clone(), ..refusal }
}

impl Pool {
    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Option<Arc<Connection>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, slot: usize, connection: Option<Arc<Connection>>) {
        self.slots()[slot] = connection;
        self.changes.send_modify(|n| *n += 1);
    }

    fn start(&self) -> std::sync::MutexGuard<'_, Start> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a request that can wait should: all that wait for the first connection would go over that one, which
    /// has the smallest window it will ever have, while the others open in the next moments.
    fn gathering(&self, priority: Priority) -> Option<Instant> {
        let start = self.start();
        let until = start.first_opened? + GATHERING;
        (priority != Priority::Demand && start.undecided > 0 && Instant::now() < until).then_some(until)
    }

    fn choose(&self, priority: Priority) -> Option<Arc<Connection>> {
        let slots = self.slots();
        let sound = |c: &&Arc<Connection>| !c.is_broken();
        let kept_free = slots[0].as_ref().filter(sound);
        let free = kept_free.filter(|c| priority == Priority::Demand && c.outstanding_bytes() == 0);
        let others = slots.iter().skip(1).flatten().filter(sound).min_by_key(|c| c.outstanding_bytes());
        free.or(others).or(kept_free).cloned()
    }

    async fn ask(&self, request: &Request, priority: Priority, bytes: u64) -> Result<Incoming, TransferError> {
        let connection = self.connection(priority).await?;
        Ok(connection.ask(request, priority, bytes))
    }

    async fn connection(&self, priority: Priority) -> Result<Arc<Connection>, TransferError> {
        let until = Instant::now() + Duration::from_secs(self.config.patience_s);
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let gathering = self.gathering(priority);
            if let Some(connection) = self.choose(priority).filter(|_| gathering.is_none()) {
                return Ok(connection);
            }
            let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(hopeless) = last.clone().filter(TransferError::is_hopeless) {
                return Err(hopeless);
            }
            let look_again = gathering.map_or(until, |g| until.min(g));
            if tokio::time::timeout_at(look_again, changes.changed()).await.is_err() && gathering.is_none() {
                let why = last.map_or_else(|| "no answer".into(), |e| e.to_string());
                return Err(TransferError::Unreachable { peer: self.address.clone(), why });
            }
        }
    }
}

async fn keep_connected(pool: Arc<Pool>, slot: usize) {
    let mut backoff = FIRST_BACKOFF;
    let mut is_first = true;
    loop {
        let dialled = dial(&pool).await;
        if std::mem::take(&mut is_first) {
            let mut start = pool.start();
            start.undecided -= 1;
            if dialled.is_ok() {
                start.first_opened.get_or_insert_with(Instant::now);
            }
        }
        let why = match dialled {
            Ok(opened) => {
                *pool.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let connection = opened.connection.clone();
                let warming = Request::Warm { bytes: pool.config.warm_bytes };
                let warming = connection.ask(&warming, Priority::Background, 0);
                pool.set(slot, Some(connection));
                let why = opened.run(Duration::from_secs(pool.config.silence_limit_s.max(1))).await;
                drop(warming);
                if !why.is_hopeless() {
                    backoff = FIRST_BACKOFF;
                }
                why
            }
            Err(e) => e,
        };
        tracing::debug!(peer = %pool.address, slot, error = %why, "not connected");
        *pool.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        pool.set(slot, None);
        tokio::time::sleep(jitter(backoff)).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}

async fn dial(pool: &Pool) -> Result<connection::Opened<ReadHalf, WriteHalf>, TransferError> {
    let unreachable = |why: String| TransferError::Unreachable { peer: pool.address.clone(), why };
    let limit = Duration::from_secs(pool.config.dial_timeout_s);
    let dialled = async {
        let Credentials { token, tls } = &pool.credentials;
        let reached = pool.around.connect(&pool.address, tls.as_ref()).await;
        let Reached { read, write, shown, certain } = reached.map_err(|e| unreachable(e.to_string()))?;
        let reader = FrameReader::new(read).telling(certain);
        open(&pool.address, (reader, write), shown.session, token, &pool.identity, pool.carried.clone()).await
    };
    tokio::time::timeout(limit, dialled).await.map_err(|_| unreachable("no answer".into()))?
}

/// Between half and one and a half times as long.
pub(crate) fn jitter(d: Duration) -> Duration {
    d.mul_f64(0.5 + rand::random::<f64>())
}
