//! A thousand points at which somebody dies: the sender, the receiver, or the receiver in the middle of a call to its disk. A
//! seed names the victim and the point: so many bytes over the link, or so many calls.
//!
//! Each run is a world of its own: a link of 150 ms between two ends in one process, on a clock that stands still while
//! anybody works, and a time of day that jumps by minutes meanwhile. The dead come back. Then: what was said to be there is
//! there, every resident chunk is right, nothing verified is sent again, and in the end all content is that of the source.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use foretide_chunk::{Config, Disk, DomainKey, EpochAware, FileKey, Store, Subset};
use foretide_flow::{
    Assignment, FilePath, ForecastId, Move, MoveCause, NodeId, Outcome, Priority, SiteId, Timestamp, VolumeId,
    WorkloadId,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::Unlisted;
use crate::socket::Certain;
use crate::surroundings::{Reached, Surroundings};
use crate::tls::{Shown, Tls};
use crate::{Borders, ClientConfig, Identity, LocalDirectory, Mover, MoverConfig, ServerConfig, Token, TransferError};

const POINTS: u64 = 1_000;
/// Worlds side by side.
const THREADS: u64 = 2;
const SIZES: [usize; 4] = [5_000, 60_000, 150_000, 400_000];
/// Calls to the disk that bringing all of it takes, about.
const CALLS: u64 = 16;
/// Per file: names, versions, lists of chunks, frames.
const OVERHEAD_BYTES: u64 = 8_000;
/// Longest wait for what must come, by the virtual clock.
const PATIENCE: Duration = Duration::from_secs(3600);
const ONE_WAY: Duration = Duration::from_millis(75);
/// On its way in one direction of a connection, bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// A dead sender is back within this, milliseconds.
const AWAY_MS: u64 = 3_000;
/// The time of day jumps this often, milliseconds, and this far, seconds.
const JUMPS_EVERY_MS: u64 = 200;
const JUMP_S: i64 = 600;
const START_OF_TIME: Timestamp = Timestamp(1_700_000_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sender,
    Receiver,
    Store,
}

/// A disk whose process dies at a call: the write is half done, and nothing is done any more. A kill is no power loss, so
/// that nothing need be synced.
#[derive(Debug)]
struct DyingDisk {
    calls_left: AtomicU64,
    is_dead: AtomicBool,
    died: Arc<Notify>,
}

impl DyingDisk {
    fn after(calls: u64, died: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { calls_left: AtomicU64::new(calls), is_dead: AtomicBool::new(false), died })
    }

    fn immortal() -> Arc<Self> {
        Self::after(u64::MAX, Arc::default())
    }

    fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Whether this is the last call.
    fn call(&self) -> io::Result<bool> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("killed"));
        }
        let left = self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            self.die();
        }
        Ok(left.is_err())
    }
}

impl Disk for DyingDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.call()? {
            file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("killed"));
        }
        file.write_at(bytes, offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.call()? { Err(io::Error::other("killed")) } else { file.read_at(bytes, offset) }
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        if self.call()? { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

/// The link, the sender behind it, and the receiver's time of day.
struct World {
    sender: Mutex<Option<Arc<Unlisted>>>,
    /// What the sender's process does.
    answering: Mutex<JoinSet<()>>,
    /// Bytes, in both directions together, until somebody dies.
    left_bytes: AtomicU64,
    died: Arc<Notify>,
    began: Instant,
    jumped_s: AtomicI64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    fn new(dies_after_bytes: u64, source: &Path) -> Arc<Self> {
        Arc::new(Self {
            sender: Mutex::new(Some(sender(source))),
            answering: Mutex::default(),
            left_bytes: AtomicU64::new(dies_after_bytes),
            died: Arc::default(),
            began: Instant::now(),
            jumped_s: AtomicI64::new(0),
        })
    }

    /// Of so many bytes, those that pass before somebody dies.
    fn pass(&self, bytes: usize) -> usize {
        let spent = |left: u64| Some(left.saturating_sub(bytes as u64));
        let before = self.left_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent).unwrap_or(0);
        if before == 0 || before > bytes as u64 {
            return bytes;
        }
        self.died.notify_one();
        before as usize
    }

    /// The sender's process is killed, and another one takes its place a while later.
    async fn replace_sender(&self, source: &Path, after: Duration) {
        *self.sender.lock().unwrap() = None;
        let mut answering = std::mem::take(&mut *self.answering.lock().unwrap());
        answering.shutdown().await;
        tokio::time::sleep(after).await;
        *self.sender.lock().unwrap() = Some(sender(source));
    }
}

fn sender(source: &Path) -> Arc<Unlisted> {
    let config = ServerConfig { watched_directories: 0, ..ServerConfig::default() };
    let source = Box::new(LocalDirectory::open(source).unwrap());
    Arc::new(Unlisted::new(config, token(), volume(), source))
}

#[async_trait]
impl Surroundings for Arc<World> {
    async fn connect(&self, _: &str, _: Option<&Tls>) -> io::Result<Reached> {
        tokio::time::sleep(ONE_WAY * 2).await;
        let Some(sender) = self.sender.lock().unwrap().clone() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let ((near, near_end), (far_end, far)) = (duplex(WINDOW_BYTES), duplex(WINDOW_BYTES));
        let ((near_r, near_w), (far_r, far_w)) = (split(near_end), split(far_end));
        tokio::spawn(carry(near_r, far_w, self.clone()));
        tokio::spawn(carry(far_r, near_w, self.clone()));
        let (read, write) = split(far);
        let answered = async move { sender.converse(Box::new(read), Box::new(write)).await };
        self.answering.lock().unwrap().spawn(answered);
        let (read, write) = split(near);
        let (read, write) = (Box::new(read), Box::new(write));
        Ok(Reached { read, write, shown: Shown::default(), certain: Certain::default() })
    }

    fn now(&self) -> Timestamp {
        let jumped_us = self.jumped_s.load(Ordering::SeqCst) * 1_000_000;
        Timestamp(START_OF_TIME.0 + self.began.elapsed().as_micros() as i64 + jumped_us)
    }
}

/// Carries one direction of a connection until its end, or until somebody dies of a byte. What is on its way arrives.
async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, world: Arc<World>) {
    let (sent, mut arriving) = mpsc::unbounded_channel();
    let leaving = async move {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut bytes).await {
            let passed = world.pass(n);
            let _ = sent.send((Instant::now() + ONE_WAY, bytes[..passed].to_vec()));
            if passed < n {
                return;
            }
        }
    };
    let arriving = async move {
        while let Some((at, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(leaving, arriving);
}

/// The time of day is set, again and again.
async fn jump(world: Arc<World>, mut random: StdRng) {
    loop {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..JUMPS_EVERY_MS))).await;
        world.jumped_s.store(random.random_range(-JUMP_S..JUMP_S), Ordering::SeqCst);
    }
}

fn token() -> Token {
    Token::new("secret")
}

fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

fn name(file: usize) -> FilePath {
    FilePath::parse(&format!("f{file}")).unwrap()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn a_move(file: usize) -> Move {
    Move {
        id: file.to_string().as_str().into(),
        volume: volume(),
        path: name(file),
        offset: 0,
        length: SIZES[file] as u64,
        from: SiteId::new("store").unwrap(),
        to: SiteId::new("gpu").unwrap(),
        start_at: START_OF_TIME + Duration::from_millis(10),
        due_at: START_OF_TIME + Duration::from_secs(1),
        keep_until: Timestamp(i64::MAX),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
        reason: String::new(),
        shared_bytes: 0,
    }
}

/// The receiver, told to bring everything.
struct Receiver {
    mover: Arc<Mover>,
    outcomes: mpsc::Receiver<Outcome>,
}

impl Receiver {
    fn start(store: Arc<Store>, world: &Arc<World>) -> Self {
        let (tell, outcomes) = mpsc::channel(1000);
        let client = ClientConfig { connections: 3, warm_bytes: 0, ..ClientConfig::default() };
        let config = MoverConfig { client, ..MoverConfig::default() };
        let own = Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new("n1").unwrap() };
        let borders = Borders::new(Default::default(), Default::default());
        let around = Arc::new(world.clone());
        let mover = Mover::within(around, config, own, token().into(), store, borders, tell);
        mover.set_source(&volume(), "store:7420");
        mover.take(&Assignment { run: (0..SIZES.len()).map(a_move).collect(), ..Assignment::default() });
        Self { mover, outcomes }
    }

    /// The files that were brought, and bytes that crossed for them, once all moves have ended.
    async fn all_moved(&mut self) -> (Vec<usize>, u64) {
        let (mut moved, mut wire_bytes) = (Vec::new(), 0);
        for _ in SIZES {
            self.next(&mut moved, &mut wire_bytes).await;
        }
        (moved, wire_bytes)
    }

    async fn next(&mut self, moved: &mut Vec<usize>, wire_bytes: &mut u64) {
        let outcome = tokio::time::timeout(PATIENCE, self.outcomes.recv()).await;
        match outcome.expect("a move never ended").unwrap() {
            Outcome::Moved { id, wire_bytes: crossed, .. } => {
                moved.push(id.as_str().parse().unwrap());
                *wire_bytes += crossed;
            }
            Outcome::Failed { why, .. } => assert!(why.len() > 10, "{why:?} tells nothing"),
            other => panic!("{other:?}"),
        }
    }

    async fn content(&self, file: usize) -> Result<Vec<u8>, TransferError> {
        let version = self.mover.stat(&volume(), &name(file)).await?.version;
        let key = FileKey { volume: volume(), path: name(file), version };
        Ok(self.mover.read(&key, 0..u64::MAX).await?.bytes.to_vec())
    }

    /// Killed, or at its end: nobody holds the store any more.
    async fn end(self) {
        let store = self.mover.store().clone();
        drop(self);
        while Arc::strong_count(&store) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// What became of one run, for the counts.
struct Told {
    victim: Victim,
    died: bool,
    kept_bytes: u64,
    lasted: Duration,
}

async fn one_run(seed: u64, source: &Path) -> Told {
    let mut random = StdRng::seed_from_u64(seed);
    let victim = [Victim::Sender, Victim::Receiver, Victim::Store][random.random_range(0..3)];
    let cache = tempfile::tempdir().unwrap();
    let total: u64 = SIZES.iter().map(|size| *size as u64).sum();
    let of_bytes = victim != Victim::Store;
    let world = World::new(if of_bytes { random.random_range(1..total) } else { 0 }, source);
    let disk = match of_bytes {
        true => DyingDisk::immortal(),
        false => DyingDisk::after(random.random_range(0..CALLS), world.died.clone()),
    };
    let away = Duration::from_millis(random.random_range(0..AWAY_MS));
    let mut clock = JoinSet::new();
    clock.spawn(jump(world.clone(), random));
    let open = |disk: &Arc<DyingDisk>| {
        let (config, key) = (Config::default(), DomainKey::default());
        Store::open_with(cache.path(), config, key, Box::new(EpochAware), disk.clone())
    };

    let (mut moved, mut crossed, mut died) = (Vec::new(), 0, true);
    if let Ok(store) = open(&disk) {
        let mut receiver = Receiver::start(store, &world);
        let mut ended = 0;
        while ended < SIZES.len() {
            tokio::select! {
                biased;
                () = world.died.notified() => match victim {
                    Victim::Sender => world.replace_sender(source, away).await,
                    Victim::Receiver | Victim::Store => break,
                },
                () = receiver.next(&mut moved, &mut crossed) => ended += 1,
            }
        }
        died = ended < SIZES.len() || victim == Victim::Sender;
        if victim != Victim::Sender {
            disk.die();
        }
        receiver.end().await;
    }
    world.left_bytes.store(0, Ordering::SeqCst);

    let disk = DyingDisk::immortal();
    let store = open(&disk).unwrap_or_else(|e| panic!("seed {seed}, {victim:?}: {e}"));
    let report = store.check(Subset::ALL).unwrap();
    assert_eq!(report.corrupt, 0, "seed {seed}, {victim:?}: half a chunk became visible");
    let kept_bytes = store.resident_bytes();
    let said: u64 = moved.iter().map(|file| SIZES[*file] as u64).sum();
    assert!(kept_bytes >= said, "seed {seed}, {victim:?}: {said} bytes were said to be here, {kept_bytes} are");
    let mut receiver = Receiver::start(store, &world);
    let (moved, wire_bytes) = receiver.all_moved().await;
    assert_eq!(moved.len(), SIZES.len(), "seed {seed}, {victim:?}: not all came");
    let most = total - kept_bytes + OVERHEAD_BYTES * SIZES.len() as u64;
    assert!(
        wire_bytes <= most,
        "seed {seed}, {victim:?}: {kept_bytes} of {total} bytes were here, and {wire_bytes} crossed"
    );
    for (file, size) in SIZES.iter().enumerate() {
        let bytes = receiver.content(file).await.unwrap_or_else(|e| panic!("seed {seed}, {victim:?}: {e}"));
        assert!(bytes == noise(file as u64, *size), "seed {seed}, {victim:?}: wrong bytes in {}", name(file));
    }
    receiver.end().await;
    Told { victim, died, kept_bytes, lasted: world.began.elapsed() }
}

/// A run in a runtime of its own, whose clock moves only when everybody waits.
fn in_a_world(seed: u64, source: &Path) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(one_run(seed, source))
}

#[test]
fn promise_e_a_thousand_points_of_death_lose_nothing_that_was_verified() {
    let source = tempfile::tempdir().unwrap();
    for (file, size) in SIZES.iter().enumerate() {
        std::fs::write(source.path().join(name(file).to_string()), noise(file as u64, *size)).unwrap();
    }
    let told: Vec<Told> = std::thread::scope(|scope| {
        let source = source.path();
        let part = |first: u64| (first..POINTS).step_by(THREADS as usize).map(|seed| in_a_world(seed, source));
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || part(first).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let died = |victim| told.iter().filter(|t| t.victim == victim && t.died).count();
    let (senders, receivers, stores) = (died(Victim::Sender), died(Victim::Receiver), died(Victim::Store));
    let kept: u64 = told.iter().filter(|t| t.died).map(|t| t.kept_bytes).sum();
    let lasted: Duration = told.iter().map(|t| t.lasted).sum();
    println!(
        "{POINTS} runs of {} s in all; died: {senders} senders, {receivers} receivers, {stores} in a call to the disk; \
         {kept} bytes were kept",
        lasted.as_secs()
    );
    assert!(senders > 200 && receivers > 200 && stores > 200 && kept > 0);
}
