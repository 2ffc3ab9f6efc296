//! Two sites on loopback: what moves, what is refused, and what happens when things break.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foretide_chunk::{Config, DomainKey, FileKey, Store, Subset};
use foretide_flow::{
    Assignment, BitsPerSecond, Effect, Entry, FilePath, ForecastId, Found, Link, Move, MoveCause, NodeId, Outcome,
    Priority, Rule, Ruleset, Site, SiteId, Timestamp, Topology, Volume, VolumeId, WarmupId, WorkloadId,
};
use foretide_transfer::{
    Authority, Borders, ClientConfig, Credentials, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig,
    Source, SourceFile, Stamp, Tls, Token, TransferError,
};
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const TOKEN: &str = "secret";

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

fn identity() -> Identity {
    Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new("n1").unwrap() }
}

fn topology() -> Topology {
    let mut t = Topology::default();
    let site = |jurisdiction: &str| Site {
        jurisdiction: jurisdiction.into(),
        labels: Default::default(),
        cache: None,
        accelerator_per_hour: 0.0,
    };
    t.sites.insert(SiteId::new("store").unwrap(), site("eu"));
    t.sites.insert(SiteId::new("gpu").unwrap(), site("us"));
    t.volumes.insert(volume(), Volume { at: SiteId::new("store").unwrap(), tags: Default::default() });
    t
}

fn open_borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), topology())
}

fn closed_borders() -> Arc<Borders> {
    let rule = Rule {
        name: "phi-stays-in-eu".into(),
        effect: Effect::Deny,
        volume: None,
        paths: Some("patients/**".into()),
        tags: Default::default(),
        sites: Vec::new(),
        jurisdictions: Vec::new(),
        outside_jurisdictions: vec!["eu".into()],
        until: None,
    };
    Borders::new(Ruleset::new(vec![rule], Effect::Allow, &topology()).unwrap(), topology())
}

async fn serve(source: Box<dyn Source>, borders: Arc<Borders>) -> Server {
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    let volumes = vec![(volume(), source)];
    Server::start(config, DomainKey::default(), Token::new(TOKEN), volumes, borders).await.unwrap()
}

fn local(dir: &Path) -> Box<dyn Source> {
    Box::new(LocalDirectory::open(dir).unwrap())
}

/// The cache site.
struct Gpu {
    mover: Arc<Mover>,
    outcomes: mpsc::Receiver<Outcome>,
}

fn config() -> MoverConfig {
    let client =
        ClientConfig { connections: 3, warm_bytes: 1000, patience_s: 2, dial_timeout_s: 1, ..ClientConfig::default() };
    MoverConfig { client, ..MoverConfig::default() }
}

impl Gpu {
    fn start(root: &Path, capacity_bytes: u64, address: &str) -> Self {
        Self::start_with(root, capacity_bytes, address, open_borders(), TOKEN)
    }

    fn start_with(root: &Path, capacity_bytes: u64, address: &str, borders: Arc<Borders>, token: &str) -> Self {
        let config_ = Config { capacity_bytes, ..Config::default() };
        let store = Store::open(root, config_, DomainKey::default()).unwrap();
        let (tell, outcomes) = mpsc::channel(10_000);
        let mover = Mover::new(config(), identity(), Token::new(token), store, borders, tell);
        mover.set_source(&volume(), address);
        Self { mover, outcomes }
    }

    async fn key(&self, p: &str) -> FileKey {
        let entry = self.mover.stat(&volume(), &path(p)).await.unwrap();
        FileKey { volume: volume(), path: path(p), version: entry.version }
    }

    fn take(&self, run: Vec<Move>) {
        self.mover.take(&Assignment { run, ..Assignment::default() });
    }

    async fn next(&mut self) -> Outcome {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.outcomes.recv()).await;
        waited.expect("an outcome").expect("the mover lives")
    }

    /// The outcome of a move, which must have ended well: bytes and bytes on the wire.
    async fn moved(&mut self) -> (u64, u64) {
        match self.next().await {
            Outcome::Moved { bytes, wire_bytes, .. } => (bytes, wire_bytes),
            other => panic!("{other:?}"),
        }
    }

    async fn content(&self, p: &str) -> Result<Vec<u8>, TransferError> {
        let key = self.key(p).await;
        Ok(self.mover.read(&key, 0..u64::MAX).await?.bytes.to_vec())
    }
}

fn a_move(p: &str, length: u64) -> Move {
    Move {
        id: format!("move-{p}").into(),
        volume: volume(),
        path: path(p),
        offset: 0,
        length,
        from: SiteId::new("store").unwrap(),
        to: SiteId::new("gpu").unwrap(),
        start_at: Timestamp(0),
        due_at: Timestamp(1),
        keep_until: Timestamp::now() + Duration::from_secs(3600),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
        reason: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_of_all_sizes_arrive_whole_and_are_told() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sizes = [0usize, 1, 4096, 100_000, 1 << 20, (1 << 20) + 1, 7_000_000];
    for (i, size) in sizes.iter().enumerate() {
        std::fs::write(source.path().join(format!("f{i}")), noise(i as u64, *size)).unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(sizes.iter().enumerate().map(|(i, s)| a_move(&format!("f{i}"), *s as u64)).collect());
    let mut bytes = 0;
    for _ in sizes {
        bytes += gpu.moved().await.0;
    }
    assert_eq!(bytes, sizes.iter().sum::<usize>() as u64);
    for (i, size) in sizes.iter().enumerate() {
        let key = gpu.key(&format!("f{i}")).await;
        assert!(gpu.mover.store().lookup(&key).unwrap().whole, "f{i}");
        let answer = gpu.mover.read(&key, 0..u64::MAX).await.unwrap();
        assert_eq!((answer.found, answer.bytes.len()), (Found::Hit, *size));
        assert!(answer.bytes == noise(i as u64, *size), "f{i}");
    }
    let census = gpu.mover.store().census(&volume(), &[FilePath::root()]);
    assert_eq!((census.files, census.bytes), (sizes.len() as u64, bytes));
    assert_eq!(gpu.mover.counts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_a_range_and_then_finds_it() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 5_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let key = gpu.key("f").await;
    for (range, found) in [
        (2_000_000..2_100_000u64, Found::Miss),
        (2_000_000..2_100_000, Found::Hit),
        (2_050_000..2_600_000, Found::Miss),
        (4_999_000..6_000_000, Found::Miss),
    ] {
        let answer = gpu.mover.read(&key, range.clone()).await.unwrap();
        assert_eq!(answer.found, found, "{range:?}");
        assert!(answer.bytes == bytes[range.start as usize..(range.end as usize).min(bytes.len())], "{range:?}");
    }
    assert!(server.stats().data_bytes < 2_000_000, "{:?}", server.stats());
    assert_eq!(gpu.mover.ensure(&key, 0..u64::MAX).await.unwrap(), Found::Miss);
    assert!(gpu.mover.store().open_whole(&key).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_file_or_version_holds_does_not_cross_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(1, 6_000_000);
    std::fs::write(source.path().join("a"), &bytes).unwrap();
    std::fs::write(source.path().join("copy"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("a", 6_000_000)]);
    gpu.moved().await;
    gpu.take(vec![a_move("copy", 6_000_000)]);
    let (moved, wire) = gpu.moved().await;
    assert!(moved == 6_000_000 && wire < 6_000, "{wire}: more than the list of chunks");
    gpu.take(vec![a_move("a", 6_000_000)]);
    assert_eq!(gpu.moved().await, (6_000_000, 0));
    bytes[3_000_000] ^= 1;
    std::fs::write(source.path().join("a"), &bytes).unwrap();
    gpu.take(vec![a_move("a", 6_000_000)]);
    let (moved, wire) = gpu.moved().await;
    assert!(moved == 6_000_000 && wire > 0 && wire < 1_000_000, "{wire}");
    assert!(gpu.content("a").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_i_sender_and_receiver_refuse_by_the_rules_name() {
    let (source, cache, cache2) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(source.path().join("patients")).unwrap();
    std::fs::write(source.path().join("patients/1"), b"private").unwrap();
    std::fs::write(source.path().join("public"), b"public").unwrap();
    for (sender, receiver, by) in
        [(closed_borders(), open_borders(), "sender"), (open_borders(), closed_borders(), "receiver")]
    {
        let root = if by == "sender" { cache.path() } else { cache2.path() };
        let server = serve(local(source.path()), sender).await;
        let mut gpu = Gpu::start_with(root, 1 << 30, &server.address().to_string(), receiver, TOKEN);
        gpu.take(vec![a_move("patients/1", 7)]);
        match gpu.next().await {
            Outcome::Refused(r) => assert_eq!((r.rule.as_str(), r.by.as_str()), ("phi-stays-in-eu", by)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(gpu.next().await, Outcome::Failed { why, .. } if why.contains("phi-stays-in-eu")));
        let key = gpu.key("patients/1").await;
        assert!(matches!(gpu.mover.read(&key, 0..7).await, Err(TransferError::Refused(r)) if r.by == by));
        assert_eq!((server.stats().data_bytes, gpu.mover.store().resident_bytes()), (0, 0));
        assert_eq!(gpu.content("public").await.unwrap(), b"public");
    }
}

/// Wraps a source: reads can be slow, and lie once the file has been cut.
struct Odd {
    inner: LocalDirectory,
    delay: Duration,
    lie: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

struct OddFile {
    inner: Box<dyn SourceFile>,
    delay: Duration,
    lie: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl Odd {
    fn new(dir: &Path, delay: Duration) -> (Box<Self>, Arc<AtomicBool>) {
        let lie = Arc::new(AtomicBool::new(false));
        let inner = LocalDirectory::open(dir).unwrap();
        (Box::new(Self { inner, delay, lie: lie.clone(), reads: Arc::default() }), lie)
    }
}

impl Source for Odd {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.inner.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        let inner = self.inner.open(path)?;
        Ok(Box::new(OddFile { inner, delay: self.delay, lie: self.lie.clone(), reads: self.reads.clone() }))
    }
}

impl SourceFile for OddFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.inner.stamp()
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::thread::sleep(self.delay);
        self.inner.read_exact_at(bytes, offset)?;
        let n = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.lie.load(Ordering::SeqCst) {
            bytes[0] ^= 1 + (n % 200) as u8;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_peer_that_lies_is_named_and_nothing_is_stored() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 3_000_000)).unwrap();
    let (odd, lie) = Odd::new(source.path(), Duration::ZERO);
    let server = serve(odd, open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let key = gpu.key("f").await;
    gpu.mover.read(&key, 0..10).await.unwrap();
    let before = gpu.mover.store().resident_bytes();
    lie.store(true, Ordering::SeqCst);
    let told = gpu.mover.read(&key, 2_000_000..2_000_010).await.unwrap_err();
    assert!(matches!(&told, TransferError::WrongBytes { .. } | TransferError::Changed { .. }), "{told}");
    assert_eq!(gpu.mover.store().resident_bytes(), before);
    gpu.take(vec![a_move("f", 3_000_000)]);
    assert!(matches!(gpu.next().await, Outcome::Failed { .. }));
    lie.store(false, Ordering::SeqCst);
    assert!(gpu.content("f").await.unwrap() == noise(1, 3_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_joins_the_move_that_brings_the_file() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 100_000)).unwrap();
    let (odd, _) = Odd::new(source.path(), Duration::from_millis(300));
    let server = serve(odd, open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let key = gpu.key("f").await;
    gpu.take(vec![a_move("f", 100_000)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (a, b) = tokio::join!(gpu.mover.read(&key, 0..100_000), gpu.mover.read(&key, 5_000..6_000));
    assert_eq!((a.unwrap().found, b.unwrap().found), (Found::Late, Found::Late));
    gpu.moved().await;
    assert_eq!(server.stats().data_bytes, 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_bytes_come_even_if_the_store_has_no_room() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 3_000_000)).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 100_000, &server.address().to_string());
    let key = gpu.key("f").await;
    let answer = gpu.mover.read(&key, 0..3_000_000).await.unwrap();
    assert!(answer.found == Found::Miss && answer.bytes == noise(1, 3_000_000));
    assert!(matches!(gpu.mover.ensure(&key, 0..3_000_000).await, Err(TransferError::Store(_))));
    gpu.take(vec![a_move("f", 3_000_000)]);
    assert!(matches!(gpu.next().await, Outcome::Failed { why, .. } if why.contains("raise capacity_bytes")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_is_told_and_one_that_vanished_too() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), b"one").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", source.path().join("out")).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 20, &server.address().to_string());
    let key = gpu.key("f").await;
    std::fs::write(source.path().join("f"), b"three").unwrap();
    assert!(matches!(gpu.mover.read(&key, 0..9).await, Err(TransferError::Changed { .. })));
    assert_eq!(gpu.content("f").await.unwrap(), b"three");
    std::fs::remove_file(source.path().join("f")).unwrap();
    assert!(matches!(gpu.mover.stat(&volume(), &path("f")).await, Err(TransferError::NotFound { .. })));
    for gone in ["g", "out"] {
        gpu.take(vec![a_move(gone, 10)]);
        assert!(matches!(gpu.next().await, Outcome::Failed { why, .. } if why.contains("is not in volume")), "{gone}");
    }
    let listing = gpu.mover.list(&volume(), &FilePath::root()).await.unwrap().listing;
    assert_eq!(listing.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_names_is_complete() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..3000 {
        std::fs::write(source.path().join(format!("a-file-with-a-rather-long-name-{i:05}.jpg")), b"").unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let gpu = Gpu::start(cache.path(), 1 << 20, &server.address().to_string());
    let listing = gpu.mover.list(&volume(), &FilePath::root()).await.unwrap().listing;
    assert!(listing.entries.len() == 3000 && listing.entries.is_sorted_by(|a, b| a.path < b.path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_dead_address_are_told_apart() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(local(source.path()), open_borders()).await;
    let address = server.address().to_string();
    {
        let gpu = Gpu::start_with(cache.path(), 1 << 20, &address, open_borders(), "other");
        let told = gpu.mover.stat(&volume(), &path("f")).await.unwrap_err();
        assert!(matches!(told, TransferError::Token { .. }), "{told}");
        assert!(matches!(
            gpu.mover.stat(&VolumeId::new("none").unwrap(), &path("f")).await,
            Err(TransferError::NoSource(_))
        ));
    }
    drop(server);
    let gpu = Gpu::start(cache.path(), 1 << 20, &address);
    let told = gpu.mover.stat(&volume(), &path("f")).await.unwrap_err();
    assert!(matches!(told, TransferError::Unreachable { .. }) && told.to_string().contains(&address), "{told}");
}

/// A connection that is cut again and again.
async fn cutting_proxy(to: SocketAddr, cut_after_bytes: usize, cuts: usize) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicU64::new(cuts as u64));
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let left = left.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let cut = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                let (mut near_read, mut near_write) = near.split();
                let (far_read, mut far_write) = far.split();
                let limit = if cut { cut_after_bytes as u64 } else { u64::MAX };
                let mut down = far_read.take(limit);
                tokio::select! {
                    _ = tokio::io::copy(&mut down, &mut near_write) => {}
                    _ = tokio::io::copy(&mut near_read, &mut far_write) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_e_a_link_that_is_cut_nine_times_still_brings_the_right_bytes_and_sends_little_twice() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 20_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let proxy = cutting_proxy(server.address(), 1_500_000, 9).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &proxy.to_string());
    gpu.take(vec![a_move("f", 20_000_000)]);
    while !matches!(gpu.next().await, Outcome::Moved { .. }) {
        gpu.take(vec![a_move("f", 20_000_000)]);
    }
    assert!(gpu.content("f").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_e_what_was_verified_is_not_fetched_again_after_a_restart() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 20_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let (odd, _) = Odd::new(source.path(), Duration::from_millis(20));
    let server = serve(odd, open_borders()).await;
    let before = {
        let gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
        gpu.take(vec![a_move("f", 20_000_000)]);
        while gpu.mover.store().resident_bytes() < 2_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gpu.mover.take(&Assignment { cancel: vec!["move-f".into()], ..Assignment::default() });
        let store = gpu.mover.store().clone();
        drop(gpu);
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.resident_bytes()
    };
    assert!((2_000_000..20_000_000).contains(&before), "{before}");
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 20_000_000)]);
    let (moved, wire) = gpu.moved().await;
    assert_eq!(moved, 20_000_000);
    // The manifest may cross again; of the chunks only what was missing.
    assert!(wire <= 20_000_000 - before + 100_000, "{wire} after {before}");
    assert!(gpu.content("f").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_h_the_switch_stops_forecasts_and_not_warmups() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 100_000)).unwrap();
    std::fs::write(source.path().join("w"), noise(2, 100_000)).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let later = Move { start_at: Timestamp::now() + Duration::from_millis(300), ..a_move("f", 100_000) };
    gpu.take(vec![later]);
    let asked = Move { cause: MoveCause::Warmup { warmup: WarmupId::from("w1") }, ..a_move("w", 100_000) };
    gpu.mover.take(&Assignment { run: vec![asked, a_move("f", 1)], prefetch_off: true, ..Assignment::default() });
    gpu.moved().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gpu.mover.store().resident_bytes(), 100_000);
    assert_eq!(gpu.mover.counts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_talks_nonsense_harms_nobody() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), b"fine").unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    for seed in 0..20 {
        let mut stranger = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let _ = stranger.write_all(&noise(seed, 3000)).await;
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(answer.len() < 200);
    }
    let gpu = Gpu::start(cache.path(), 1 << 20, &server.address().to_string());
    assert_eq!(gpu.content("f").await.unwrap(), b"fine");
}

async fn serve_with(source: Box<dyn Source>, credentials: Credentials) -> Server {
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    Server::start(config, DomainKey::default(), credentials, vec![(volume(), source)], open_borders()).await.unwrap()
}

fn mover_with(root: &Path, address: &str, credentials: Credentials) -> Arc<Mover> {
    let store = Store::open(root, Config::default(), DomainKey::default()).unwrap();
    let (tell, _) = mpsc::channel(100);
    let mover = Mover::new(config(), identity(), credentials, store, open_borders(), tell);
    mover.set_source(&volume(), address);
    mover
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_both_ends_show_a_certificate_of_the_same_authority_and_their_own_name() {
    let source = tempfile::tempdir().unwrap();
    let bytes = noise(1, 3_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let authority = Authority::new().unwrap();
    let authority = Authority::load(authority.kept().clone()).unwrap();
    let stranger = Authority::new().unwrap();
    let at_store = Identity { site: SiteId::new("store").unwrap(), node: NodeId::new("s1").unwrap() };
    let shown = |by: &Authority, who: &Identity| {
        let tls = Tls::new(&by.kept().certificate_pem, &by.issue(who).unwrap()).unwrap();
        Credentials::with_tls(Token::new(TOKEN), tls)
    };
    let server = serve_with(local(source.path()), shown(&authority, &at_store)).await;
    let address = server.address().to_string();
    let ask = async |credentials: Credentials| {
        let cache = tempfile::tempdir().unwrap();
        let mover = mover_with(cache.path(), &address, credentials);
        let entry = mover.stat(&volume(), &path("f")).await?;
        let key = FileKey { volume: volume(), path: path("f"), version: entry.version };
        Ok::<_, TransferError>(mover.read(&key, 0..u64::MAX).await?.bytes)
    };
    assert!(ask(shown(&authority, &identity())).await.unwrap() == bytes);
    assert!(ask(shown(&stranger, &identity())).await.is_err(), "another authority");
    assert!(ask(shown(&authority, &at_store)).await.is_err(), "a name that is not its own");
    assert!(ask(Token::new(TOKEN).into()).await.is_err(), "no TLS at all");
    let own = authority.issue(&identity()).unwrap();
    let other = Credentials::with_tls(Token::new("other"), Tls::new(&authority.kept().certificate_pem, &own).unwrap());
    assert!(matches!(ask(other).await, Err(TransferError::Token { .. })), "another token");
}

/// A plan that changes its mind ten times a second must not leave a reader with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn promise_a_a_reader_gets_his_bytes_while_the_move_he_joined_is_cancelled_again_and_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 12_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let (odd, _) = Odd::new(source.path(), Duration::from_millis(30));
    let server = serve(odd, open_borders()).await;
    let gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let key = gpu.key("f").await;
    let fickle = async {
        loop {
            gpu.take(vec![a_move("f", 12_000_000)]);
            tokio::time::sleep(Duration::from_millis(90)).await;
            gpu.mover.take(&Assignment { cancel: vec!["move-f".into()], ..Assignment::default() });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reader = async {
        let mut read = Vec::new();
        while read.len() < bytes.len() {
            let at = read.len() as u64;
            read.extend(gpu.mover.read(&key, at..at + 131_072).await.unwrap().bytes);
        }
        read
    };
    tokio::select! {
        () = fickle => unreachable!("it never ends"),
        read = reader => assert!(read == bytes),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_changed_file_little_more_than_the_changed_bytes_crosses() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(1, 12_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 12_000_000)]);
    gpu.moved().await;
    for at in [100_000, 3_000_000, 7_500_000] {
        bytes[at..at + 300].copy_from_slice(&noise(at as u64, 300));
    }
    bytes.splice(10_000_000..10_000_000, noise(9, 50));
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    gpu.take(vec![a_move("f", 12_000_050)]);
    let (moved, wire) = gpu.moved().await;
    // Of four places: the blocks that changed, the signatures of their chunks, and what changed of the chunk list.
    assert!(moved == 12_000_050 && wire < 4 * 8_000, "{wire}");
    assert!(gpu.content("f").await.unwrap() == bytes);
}

/// The receiver's older version was evicted in part, or is not what the source remembers: then chunks come whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_as_a_difference_comes_whole() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(1, 8_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let address = server.address().to_string();
    {
        let gpu = Gpu::start(cache.path(), 1 << 30, &address);
        let key = gpu.key("f").await;
        gpu.mover.read(&key, 0..3_000_000).await.unwrap();
    }
    drop(server);
    bytes[1_000_000] ^= 1;
    bytes[6_000_000] ^= 1;
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 8_000_000)]);
    let (_, wire) = gpu.moved().await;
    assert!((4_500_000..5_700_000).contains(&wire), "{wire}");
    assert!(gpu.content("f").await.unwrap() == bytes);
}

async fn serve_at(source: Box<dyn Source>, rate: BitsPerSecond, borders: Arc<Borders>) -> Server {
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), rate_limit: Some(rate), ..Default::default() };
    Server::start(config, DomainKey::default(), Token::new(TOKEN), vec![(volume(), source)], borders).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_packed_where_the_link_is_the_limit_and_noise_is_not() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text: Vec<u8> = (0..400_000u32).flat_map(|i| format!("line {i} of a log\n").into_bytes()).collect();
    let noisy = noise(1, 4_000_000);
    std::fs::write(source.path().join("text"), &text).unwrap();
    std::fs::write(source.path().join("noise"), &noisy).unwrap();
    let server = serve_at(local(source.path()), BitsPerSecond(200_000_000), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("text", text.len() as u64)]);
    let (moved, wire) = gpu.moved().await;
    assert!(moved == text.len() as u64 && wire < moved * 3 / 4, "{wire} of {moved}");
    gpu.take(vec![a_move("noise", 4_000_000)]);
    assert!(gpu.moved().await.1 >= 4_000_000);
    assert!(gpu.content("text").await.unwrap() == text && gpu.content("noise").await.unwrap() == noisy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_rate_is_known_is_not_sent_more() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 5_000_000)).unwrap();
    let mut known = topology();
    let (from, to) = (SiteId::new("store").unwrap(), SiteId::new("gpu").unwrap());
    known.links.push(Link { from, to, rate: BitsPerSecond(40_000_000), rtt_ms: 1.0, cost_per_gb: 0.0 });
    let server = serve(local(source.path()), Borders::new(Ruleset::default(), known)).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    let began = std::time::Instant::now();
    gpu.take(vec![a_move("f", 5_000_000)]);
    gpu.moved().await;
    assert!(began.elapsed() > Duration::from_millis(950), "{:?} for a second's worth of bytes", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rotted_on_the_disk_is_found_and_fetched_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 3_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 3_000_000)]);
    gpu.moved().await;
    let mut folders = std::fs::read_dir(cache.path().join("data")).unwrap();
    let folder = folders.next().unwrap().unwrap().path();
    let data = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut rotten = std::fs::read(&data).unwrap();
    rotten[1_500_000] ^= 1;
    std::fs::write(&data, rotten).unwrap();
    let repaired = gpu.mover.repair(Subset::ALL).await.unwrap();
    assert_eq!((repaired.checked.corrupt, repaired.fetched, repaired.left), (1, 1, None));
    assert!(std::fs::read(&data).unwrap() == bytes);
    assert_eq!(gpu.mover.repair(Subset::ALL).await.unwrap().checked.corrupt, 0);
}

/// More large files at once than the window has room for the first parts of: each must give room back to get some.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_files_do_not_wait_for_each_others_room() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names: Vec<String> = (0..80).map(|i| format!("f{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        std::fs::write(source.path().join(name), noise(i as u64, 1_500_000)).unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = Gpu::start(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(names.iter().map(|name| a_move(name, 1_500_000)).collect());
    for _ in &names {
        assert_eq!(gpu.moved().await.0, 1_500_000);
    }
    assert!(gpu.content("f79").await.unwrap() == noise(79, 1_500_000));
}
