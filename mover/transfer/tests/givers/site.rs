//! The rig: one source, and as many sites of as many nodes as a test wants. Every node keeps a store and gives of it.

use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foretide_flow::{
    Effect, Entry, FilePath, FileVersion, Move, NodeId, Outcome, Rule, Ruleset, Site, Timestamp, Topology, Volume,
    VolumeId,
};
use foretide_transfer::{Borders, ClientConfig, Giver, LocalDirectory, MoverConfig, Server, SourceFile, Stamp, Token};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{self, TOKEN, hasty, identity, loopback, serve_with, site_id, store, volume, with_client};

/// Room for all files of a test.
const CACHE_BYTES: u64 = 1 << 30;

/// Bytes that follow from a text.
pub fn noise(seed: &str, length: u64) -> Vec<u8> {
    let seed = seed.bytes().fold(7, |sum: u64, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
    rig::noise(seed, length as usize)
}

pub fn sum_of(files: &[(String, u64)]) -> u64 {
    files.iter().map(|(_, length)| length).sum()
}

pub fn a_move(name: &str, length: u64, from: &str, to: &str) -> Move {
    let id = format!("move-{name}-{to}").into();
    Move { id, from: site_id(from), to: site_id(to), ..rig::a_move(name, length) }
}

/// A folder of which each read takes a while.
pub struct Source {
    folder: TempDir,
    delay: Duration,
}

impl Source {
    pub fn quick() -> Self {
        Self::slow(Duration::ZERO)
    }

    pub fn slow(delay: Duration) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), delay }
    }
}

struct Slow {
    inner: LocalDirectory,
    delay: Duration,
}

struct SlowFile {
    inner: Box<dyn SourceFile>,
    delay: Duration,
}

impl foretide_transfer::Source for Slow {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.inner.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(SlowFile { inner: self.inner.open(path)?, delay: self.delay }))
    }
}

impl SourceFile for SlowFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.inner.stamp()
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::thread::sleep(self.delay);
        self.inner.read_exact_at(bytes, offset)
    }
}

/// A folder whose files never seem to change.
pub struct Unaware(pub LocalDirectory);

struct UnawareFile(Box<dyn SourceFile>);

impl foretide_transfer::Source for Unaware {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.0.list(directory)
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.0.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(UnawareFile(self.0.open(path)?)))
    }
}

impl SourceFile for UnawareFile {
    fn stamp(&self) -> io::Result<Stamp> {
        Ok(Stamp { version: FileVersion("ever".into()), changed_at: Timestamp(0), ..self.0.stamp()? })
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    for (name, jurisdiction) in [("store", "eu"), ("mirror", "eu"), ("gpu", "us"), ("a", "us"), ("b", "us")] {
        let site = Site {
            jurisdiction: jurisdiction.into(),
            labels: Default::default(),
            cache: None,
            accelerator_per_hour: 0.0,
        };
        topology.sites.insert(site_id(name), site);
    }
    let copies = vec![site_id("mirror")];
    topology.volumes.insert(volume(), Volume { copies, ..Volume::at(site_id("store")) });
    topology
}

/// Rules under which everything may go everywhere, but for the sites named.
pub fn borders(closed: &[&str]) -> Arc<Borders> {
    let rule = Rule {
        name: "closed".into(),
        effect: Effect::Deny,
        volume: None,
        paths: None,
        tags: Default::default(),
        sites: closed.iter().map(|s| site_id(s)).collect(),
        jurisdictions: Vec::new(),
        outside_jurisdictions: Vec::new(),
        until: None,
    };
    let rules = if closed.is_empty() { Vec::new() } else { vec![rule] };
    Borders::new(Ruleset::new(rules, Effect::Allow, &topology()).unwrap(), topology())
}

/// The source, what it has given, and who else gives.
pub struct World {
    source: Source,
    pub server: Option<Server>,
    address: SocketAddr,
    window_bytes: u64,
    givers: std::sync::Mutex<Vec<Giver>>,
}

impl World {
    pub async fn new(source: Source) -> Self {
        Self::with_window(source, MoverConfig::default().window_bytes).await
    }

    pub async fn with_window(source: Source, window_bytes: u64) -> Self {
        let inner = LocalDirectory::open(source.folder.path()).unwrap();
        let slow: Box<dyn foretide_transfer::Source> = Box::new(Slow { inner, delay: source.delay });
        let server = serve(vec![(volume(), slow)], borders(&[])).await;
        let address = server.address();
        Self { source, server: Some(server), address, window_bytes, givers: Default::default() }
    }

    pub fn write(&self, name: &str, length: u64) {
        self.rewrite(name, name, length);
    }

    /// Writes the bytes that follow from `seed`.
    pub fn rewrite(&self, name: &str, seed: &str, length: u64) {
        std::fs::write(self.source.folder.path().join(name), noise(seed, length)).unwrap();
    }

    /// Chunk bytes that the source has given.
    pub fn given(&self) -> u64 {
        self.server.as_ref().map_or(0, |server| server.stats().data_bytes)
    }

    /// A copy of what the source has now, at the site `mirror`; sites made from now on know of it.
    pub async fn mirror(&self, reached_at: impl Fn(SocketAddr) -> SocketAddr) -> Mirror {
        self.mirror_of(|folder| Box::new(folder), reached_at).await
    }

    /// The same, read as `reader` reads it.
    pub async fn mirror_of(
        &self,
        reader: impl Fn(LocalDirectory) -> Box<dyn foretide_transfer::Source>,
        reached_at: impl Fn(SocketAddr) -> SocketAddr,
    ) -> Mirror {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.source.folder.path()).unwrap().flatten() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let copy = reader(LocalDirectory::open(folder.path()).unwrap());
        let server = serve(vec![(volume(), copy)], borders(&[])).await;
        self.givers.lock().unwrap().push(Giver {
            site: site_id("mirror"),
            node: NodeId::new("mirror-copy").unwrap(),
            address: reached_at(server.address()).to_string(),
            passes_on: false,
            copies: vec![volume()],
        });
        Mirror { folder, server }
    }

    /// Nodes at a site; they and all nodes of other sites know each other.
    pub async fn site(&self, name: &str, nodes: usize) -> Vec<Node> {
        self.site_with(name, nodes, |_| borders(&[]), |address| address).await
    }

    /// The same with rules of their own, each reached at the address that `reached_at` answers.
    pub async fn site_with(
        &self,
        name: &str,
        nodes: usize,
        rules: impl Fn(usize) -> Arc<Borders>,
        reached_at: impl Fn(SocketAddr) -> SocketAddr,
    ) -> Vec<Node> {
        let mut all = Vec::new();
        for number in 0..nodes {
            let node = Node::start(&self.address.to_string(), name, number, self.window_bytes, rules(number)).await;
            self.givers.lock().unwrap().push(Giver {
                site: node.identity.site.clone(),
                node: node.identity.node.clone(),
                address: reached_at(node.server.as_ref().unwrap().address()).to_string(),
                passes_on: true,
                copies: Vec::new(),
            });
            all.push(node);
        }
        for node in &all {
            node.mover.set_givers(self.givers.lock().unwrap().clone());
        }
        // Neighbours are dialled at once; only who is connected is asked.
        if nodes > 1 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        all
    }

    /// Which of a site's nodes fetches a file for the others: the lowest digest of the file's and the node's names.
    pub fn first_of(&self, site: &str, nodes: usize, name: &str) -> usize {
        let place = |number: &usize| {
            let mut hasher = blake3::Hasher::new_derive_key("foretide v1 order of nodes");
            for part in [volume().as_str(), name, &node_name(site, *number)] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            *hasher.finalize().as_bytes()
        };
        (0..nodes).min_by_key(place).unwrap()
    }
}

fn node_name(site: &str, number: usize) -> String {
    format!("{site}-{number}")
}

async fn serve(volumes: Vec<(VolumeId, Box<dyn foretide_transfer::Source>)>, borders: Arc<Borders>) -> Server {
    serve_with(loopback(), Token::new(TOKEN), volumes, borders).await
}

/// An agent that serves a copy.
pub struct Mirror {
    folder: TempDir,
    server: Server,
}

impl Mirror {
    /// Where its copy of a file is.
    pub fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Chunk bytes that it has given.
    pub fn given(&self) -> u64 {
        self.server.stats().data_bytes
    }
}

/// One agent with a cache, which gives of it.
pub struct Node {
    fetching: rig::Node,
    pub server: Option<Server>,
    pub store: TempDir,
}

impl Deref for Node {
    type Target = rig::Node;

    fn deref(&self) -> &rig::Node {
        &self.fetching
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut rig::Node {
        &mut self.fetching
    }
}

impl Node {
    async fn start(source: &str, site: &str, number: usize, window_bytes: u64, borders: Arc<Borders>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = ClientConfig { patience_s: 1, silence_limit_s: 5, ..hasty() };
        let config = MoverConfig { window_bytes, ..with_client(client) };
        let (own, kept) = (identity(site, &node_name(site, number)), store(folder.path(), CACHE_BYTES));
        let fetching = rig::Node::start(source, own, kept, config, Token::new(TOKEN), borders.clone());
        let server = serve(Vec::new(), borders).await;
        server.pass_on(fetching.mover.clone());
        Self { fetching, server: Some(server), store: folder }
    }

    /// Chunk bytes that it has given.
    pub fn given(&self) -> u64 {
        self.server.as_ref().map_or(0, |server| server.stats().data_bytes)
    }

    pub async fn holds(&self, name: &str) -> bool {
        let key = self.key(name).await;
        self.mover.store().lookup(&key).is_some_and(|resident| resident.whole)
    }

    /// Of the next move's bytes, those that the source gave in place of the site that the plan named.
    pub async fn fell_back(&mut self) -> u64 {
        match self.next().await {
            Outcome::Moved { fallback_bytes, .. } => fallback_bytes,
            other => panic!("{other:?}"),
        }
    }
}

/// Stands before a node: passes everything on until it is told to say nothing more, or has said so much.
pub struct Door {
    pub is_stuck: Arc<AtomicBool>,
    left_bytes: Arc<AtomicU64>,
}

impl Door {
    /// The door, and where it is reached.
    pub fn before(to: SocketAddr, bytes: u64) -> (Self, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (is_stuck, left_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(bytes)));
        let (stuck, left) = (is_stuck.clone(), left_bytes.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (stuck, left) = (stuck.clone(), left.clone());
                tokio::spawn(async move {
                    let Ok(far) = tokio::net::TcpStream::connect(to).await else { return };
                    let (mut near_read, mut near_write) = near.into_split();
                    let (mut far_read, mut far_write) = far.into_split();
                    let up = async { drop(tokio::io::copy(&mut near_read, &mut far_write).await) };
                    let down = async {
                        let mut buffer = vec![0; 16 << 10];
                        while let Ok(n @ 1..) = far_read.read(&mut buffer).await {
                            while stuck.load(Ordering::SeqCst) {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            let spent =
                                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |l| l.checked_sub(n as u64));
                            if spent.is_err() || near_write.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = up => {}, () = down => {} }
                });
            }
        });
        (Self { is_stuck, left_bytes }, address)
    }

    /// Closes for good after so many bytes more.
    pub fn close_after(&self, bytes: u64) {
        self.left_bytes.store(bytes, Ordering::SeqCst);
    }
}
