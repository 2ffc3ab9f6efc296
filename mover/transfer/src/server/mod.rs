//! The agent at a source: lists, cuts and sends, to peers that know the token and as far as the rules allow. Of volumes whose
//! source is elsewhere it passes on what its cache holds.

mod answer;
mod content;
mod opening;
mod queue;
mod sharing;
mod volume;
mod watch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use foretide_chunk::{CutConfig, Cutter, DomainKey};
use foretide_flow::{BitsPerSecond, SharedFile, SiteId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::frame::{Frame, FrameError, FrameReader, FrameWriter, Kind};
use crate::handshake::{Identity, PROTOCOL, Token, decode_hello, encode_challenge, fresh_nonce};
use crate::message::Request;
use crate::mover::Mover;
use crate::source::Source;
use crate::tls::{self, Credentials, ReadHalf, Shown, WriteHalf};
use crate::{Borders, TransferError};
use answer::{Answer, Urgency};
use opening::Opening;
use queue::{Link, OutQueue};
use sharing::Sharing;
use volume::Volume;
use watch::Watches;

/// How a source is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The most that is sent to one site, payload and frames, bits per second. If none is given: what the link between
    /// the two sites carries besides headers, where the control plane knows that link; then no queue builds up in it,
    /// and demands keep their latency.
    pub rate_limit: Option<BitsPerSecond>,
    /// Chunks whose names are remembered so that a file is cut once, of each volume: at 44 bytes each, 176 MiB; and some 34
    /// more, to find those that stand in several files.
    pub remembered_chunks: usize,
    /// Connections from all peers together.
    pub max_connections: usize,
    /// Threads that read and cut for answers that can wait. Demands are not counted.
    pub readers: usize,
    /// Directories whose changes are told to the peers that listed them; each costs about 1 KB of the kernel's memory
    /// and one of `fs.inotify.max_user_watches`. 0 tells nothing: then leases alone serve.
    pub watched_directories: usize,
    /// How files are cut. All agents of a dedup domain must cut alike to find what they share.
    pub cut: CutConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7420)),
            rate_limit: None,
            remembered_chunks: 4 << 20,
            max_connections: 256,
            readers: 4,
            watched_directories: 65_536,
            cut: CutConfig::default(),
        }
    }
}

/// Of a link's rate, what is sent: of 1,500 bytes on the wire 1,448 are a TCP stream's, and one in a hundred is left
/// so that the link's queue drains.
const PAYLOAD_SHARE: f64 = 0.99 * 1448.0 / 1500.0;
/// A stranger gets this long to prove itself.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that one connection may have open; a well-behaved peer's window keeps it far below.
const MAX_OPEN_REQUESTS: usize = 8192;

/// Bytes sent since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Chunk bytes.
    pub data_bytes: u64,
    /// Requests answered.
    pub requests: u64,
}

#[derive(Debug, Default)]
struct Counts {
    data_bytes: AtomicU64,
    requests: AtomicU64,
}

/// What all connections share.
struct Shared {
    config: ServerConfig,
    credentials: Credentials,
    volumes: RwLock<HashMap<VolumeId, Arc<Volume>>>,
    /// Where it stands.
    site: OnceLock<SiteId>,
    passing: OnceLock<Arc<Mover>>,
    cutter: Arc<Cutter>,
    sharing: Arc<Sharing>,
    borders: Arc<Borders>,
    readers: Arc<Semaphore>,
    links: Mutex<HashMap<SiteId, Arc<Link>>>,
    watches: Option<Watches>,
    opening: Option<Opening>,
    counts: Counts,
}

/// Who is connected.
struct Peer {
    identity: Identity,
}

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Begins to serve volumes.
    ///
    /// # Errors
    /// [`TransferError::Serve`] if the address cannot be listened on or the cut is impossible.
    pub async fn start(
        config: ServerConfig,
        key: DomainKey,
        credentials: impl Into<Credentials>,
        volumes: Vec<(VolumeId, Box<dyn Source>)>,
        borders: Arc<Borders>,
    ) -> Result<Self, TransferError> {
        let failed = |why: String| TransferError::Serve { what: config.listen.to_string(), why };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|e| failed(format!("{e}; choose another address or port")))?;
        let address = listener.local_addr().map_err(|e| failed(e.to_string()))?;
        let shared = Arc::new(Shared::new(config, key, credentials.into(), borders, opening(address.port()))?);
        shared.tell_opening();
        volumes.into_iter().for_each(|(name, source)| shared.serve(name, source));
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Serves one more volume, in place of one of that name.
    pub fn serve(&self, name: VolumeId, source: Box<dyn Source>) {
        self.shared.serve(name, source);
    }

    /// Says where it stands: then what it sends to a site keeps to the rate of the link between the two, as the topology has
    /// it, unless the configuration sets one.
    pub fn stands_at(&self, site: SiteId) {
        if self.shared.site.set(site).is_err() {
            tracing::warn!("it was told where this server stands; it stays there");
        }
        self.shared.tell_opening();
    }

    /// Passes on what a mover's store holds of other volumes, and fetches for its neighbours what it does not.
    pub fn pass_on(&self, mover: Arc<Mover>) {
        if self.shared.passing.set(mover).is_err() {
            tracing::warn!("the cache of this server is given already; it stays that one");
        }
    }

    /// What there is to tell of chunks that stand in several files.
    pub fn sharing(&self) -> SharingNews {
        SharingNews(self.shared.clone())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has sent.
    pub fn stats(&self) -> ServerStats {
        let counts = &self.shared.counts;
        ServerStats {
            data_bytes: counts.data_bytes.load(Ordering::Relaxed),
            requests: counts.requests.load(Ordering::Relaxed),
        }
    }
}

/// Which chunks stand in several files of the volumes whose truth is at a server's site.
pub struct SharingNews(Arc<Shared>);

impl SharingNews {
    /// Waits until there is more to tell: files with all that is to be told of them now, each in place of what was told of it
    /// before. What is answered is not told again by itself.
    pub async fn next(&self) -> Vec<SharedFile> {
        loop {
            let mut files = self.0.sharing.next().await;
            files.retain(|file| self.0.is_source_of(&file.volume));
            if !files.is_empty() {
                return files;
            }
        }
    }
}

impl std::fmt::Debug for SharingNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharingNews")
    }
}

/// A machine that cannot tell of changes serves all the same: leases do.
fn watches(directories_max: usize) -> Option<Watches> {
    if directories_max == 0 {
        return None;
    }
    Watches::start(directories_max)
        .inspect_err(|error| {
            tracing::warn!(%error, "changes are not told to peers; raise fs.inotify.max_user_instances");
        })
        .ok()
}

/// A machine that does not let us opens connections as TCP does.
fn opening(port: u16) -> Option<Opening> {
    Opening::of_port(port).inspect_err(|error| tracing::debug!(%error, "connections open with the usual window")).ok()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let limit = Arc::new(Semaphore::new(shared.config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        connections.spawn(async move {
            if let Err(e) = connection(stream, shared).await {
                tracing::debug!(error = %e, "connection ended");
            }
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) -> Result<(), FrameError> {
    crate::socket::tune(&stream)?;
    let credentials = shared.credentials.clone();
    converse(tls::accept(stream, credentials.tls.as_ref()), shared).await
}

/// Answers whoever is let in, over whatever brought him here.
async fn converse(
    accepted: impl Future<Output = std::io::Result<(ReadHalf, WriteHalf, Shown)>>,
    shared: Arc<Shared>,
) -> Result<(), FrameError> {
    let handshake = async {
        let (read, write, shown) = accepted.await?;
        let (mut reader, mut write) = (FrameReader::new(read), FrameWriter::new(write));
        let identity = let_in(&mut reader, &mut write, &shared.credentials.token, &shown).await?;
        Ok::<_, FrameError>((reader, write, identity))
    };
    let let_in = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let (mut reader, write, identity) = let_in.map_err(|_| FrameError::Closed)??;
    tracing::debug!(site = %identity.site, node = %identity.node, "peer connected");
    reader.trust();
    let link = shared.link(&identity.site);
    let queue = Arc::new(OutQueue::new(link));
    let peer = Arc::new(Peer { identity });
    queue.push(Frame::new(Kind::Welcome, 0, Vec::new()), None);
    let writing = {
        let queue = queue.clone();
        async move { queue.write_to(write).await }
    };
    tokio::select! {
        written = writing => Ok(written?),
        read = take_requests(reader, queue, shared, peer) => read,
    }
}

impl Shared {
    fn new(
        config: ServerConfig,
        key: DomainKey,
        credentials: Credentials,
        borders: Arc<Borders>,
        opening: Option<Opening>,
    ) -> Result<Self, TransferError> {
        let cutter = Cutter::new(config.cut, key)
            .map_err(|e| TransferError::Serve { what: "files".into(), why: e.to_string() })?;
        Ok(Self {
            credentials,
            volumes: RwLock::default(),
            site: OnceLock::new(),
            passing: OnceLock::new(),
            cutter: Arc::new(cutter),
            sharing: Arc::default(),
            borders,
            readers: Arc::new(Semaphore::new(config.readers.max(1))),
            links: Mutex::default(),
            watches: watches(config.watched_directories),
            opening,
            counts: Counts::default(),
            config,
        })
    }

    fn serve(&self, name: VolumeId, source: Box<dyn Source>) {
        let (cutter, sharing) = (self.cutter.clone(), self.sharing.clone());
        let volume = Volume::new(name.clone(), source, cutter, self.config.remembered_chunks, sharing);
        let before = self.volumes.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), volume.into());
        if before.is_some() {
            self.sharing.forgotten_all(&name);
        }
    }

    /// Whether the truth of a volume is here, as the topology has it: what a copy's files share is no word on the volume.
    fn is_source_of(&self, volume: &VolumeId) -> bool {
        self.site.get().is_none_or(|here| self.borders.source_site(volume).as_ref() == Some(here))
    }

    fn volume(&self, name: &VolumeId) -> Option<Arc<Volume>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn link(&self, site: &SiteId) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(site.clone()).or_insert_with(|| Arc::new(Link::new(None))).clone();
        link.limiter.set(self.config.rate_limit.or_else(|| self.known_rate(site)));
        self.tell_opening();
        link
    }

    fn passing(&self) -> Option<&Arc<Mover>> {
        self.passing.get()
    }

    /// Connections open for the slowest link that is known: whose they will be is not known then.
    fn tell_opening(&self) {
        let Some(opening) = &self.opening else { return };
        let slowest = || self.borders.slowest_rate_from(self.site.get()?);
        if let Err(error) = opening.set(self.config.rate_limit.or_else(slowest)) {
            tracing::debug!(%error, "connections go on opening as before");
        }
    }

    /// What may be sent over the link to a site, if the topology has it.
    fn known_rate(&self, to: &SiteId) -> Option<BitsPerSecond> {
        let rate = self.borders.link_rate(self.site.get()?, to)?;
        Some(BitsPerSecond((rate.0 as f64 * PAYLOAD_SHARE) as u64))
    }
}

async fn let_in<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    write: &mut FrameWriter<W>,
    token: &Token,
    shown: &Shown,
) -> Result<Identity, FrameError> {
    let hello = expect(reader.next().await?, Kind::Hello)?;
    let (protocol, theirs, identity) = decode_hello(&hello.payload).map_err(|_| FrameError::Damaged)?;
    let nonce = fresh_nonce();
    let ours = shown.session.unwrap_or(nonce);
    let challenge = encode_challenge(&nonce, &token.listener_mac(&theirs, &ours));
    write.send(&[Frame::new(Kind::Challenge, 0, challenge)]).await?;
    let proof = expect(reader.next().await?, Kind::Proof)?;
    let right = token.dialler_mac(&theirs, &ours, &identity);
    // Compared by blake3's own constant-time equality.
    let told: [u8; 32] = proof.payload.as_ref().try_into().map_err(|_| FrameError::Damaged)?;
    if protocol != PROTOCOL || right != told || !shown.may_be(&identity) {
        write.send(&[Frame::new(Kind::Failed, 0, Vec::new())]).await?;
        return Err(FrameError::Closed);
    }
    Ok(identity)
}

fn expect(frame: Frame, kind: Kind) -> Result<Frame, FrameError> {
    if frame.kind == kind { Ok(frame) } else { Err(FrameError::Kind(frame.kind as u8)) }
}

/// Aborts what is still being answered when the connection ends.
#[derive(Default)]
struct Open {
    tasks: JoinSet<u32>,
    by_id: HashMap<u32, (AbortHandle, Arc<Urgency>)>,
}

async fn take_requests<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    queue: Arc<OutQueue>,
    shared: Arc<Shared>,
    peer: Arc<Peer>,
) -> Result<(), FrameError> {
    let mut open = Open::default();
    loop {
        let frame = reader.next().await?;
        while let Some(done) = open.tasks.try_join_next() {
            if let Ok(id) = done {
                open.by_id.remove(&id);
            }
        }
        match frame.kind {
            Kind::Request => {
                let request = Request::decode(&frame.payload).map_err(|_| FrameError::Damaged)?;
                if open.by_id.len() >= MAX_OPEN_REQUESTS {
                    return Err(FrameError::TooLong(open.by_id.len()));
                }
                shared.counts.requests.fetch_add(1, Ordering::Relaxed);
                let (id, urgency) = (frame.request, Urgency::new(frame.priority));
                let (queue, shared, peer) = (queue.clone(), shared.clone(), peer.clone());
                let answer = Answer { id, urgency: urgency.clone(), queue, shared, peer };
                let task = open.tasks.spawn(async move {
                    answer.give(request).await;
                    id
                });
                open.by_id.insert(id, (task, urgency));
            }
            Kind::Cancel => {
                if let Some((task, _)) = open.by_id.remove(&frame.request) {
                    task.abort();
                }
            }
            Kind::Raise => {
                // Its answer may be given already, and wait to be written.
                queue.raise(frame.request, open.by_id.get(&frame.request).map(|(_, urgency)| &**urgency));
            }
            Kind::Ping => queue.push(Frame::new(Kind::Pong, frame.request, Vec::new()), None),
            other => return Err(FrameError::Kind(other as u8)),
        }
    }
}

/// A server without an address: a test brings it connections.
#[cfg(test)]
pub(crate) struct Unlisted(Arc<Shared>);

#[cfg(test)]
impl Unlisted {
    pub(crate) fn new(config: ServerConfig, token: Token, volume: VolumeId, source: Box<dyn Source>) -> Self {
        let borders = Borders::new(Default::default(), Default::default());
        let shared = Shared::new(config, DomainKey::default(), token.into(), borders, None).unwrap();
        shared.serve(volume, source);
        Self(Arc::new(shared))
    }

    /// Until the connection ends.
    pub(crate) async fn converse(&self, read: ReadHalf, write: WriteHalf) {
        let accepted = std::future::ready(Ok((read, write, Shown::default())));
        let _ = converse(accepted, self.0.clone()).await;
    }
}
