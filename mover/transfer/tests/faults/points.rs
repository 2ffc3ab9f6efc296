//! A thousand points at which somebody dies: the sender, the receiver, or the receiver's store in the middle of a call to the
//! disk. A seed names the victim and the point: so many bytes over the link, or so many calls.
//!
//! The dead come back at once. Then: what was said to be there is there, every resident chunk is right, nothing verified is
//! sent again, and in the end all content is that of the source.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foretide_chunk::{Config, Disk, DomainKey, EpochAware, Store, Subset};
use foretide_flow::Outcome;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::{content, mover_with, noise, serve, take};

const POINTS: u64 = 1_000;
/// Runs side by side.
const AT_A_TIME: u64 = 32;
const SIZES: [usize; 4] = [5_000, 60_000, 150_000, 400_000];
/// Calls to the disk that bringing all of it takes, about.
const CALLS: u64 = 16;
/// Per file: names, versions, lists of chunks, frames.
const OVERHEAD_BYTES: u64 = 8_000;
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

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
    died: AtomicBool,
}

impl DyingDisk {
    fn after(calls: u64) -> Arc<Self> {
        Arc::new(Self { calls_left: AtomicU64::new(calls), died: AtomicBool::new(false) })
    }

    /// Whether this is the last call.
    fn call(&self) -> io::Result<bool> {
        if self.died.load(Ordering::SeqCst) {
            return Err(io::Error::other("killed"));
        }
        let left = self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let dies = left.is_err();
        self.died.fetch_or(dies, Ordering::SeqCst);
        Ok(dies)
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

/// A link that breaks once, when it has carried so many bytes in both directions.
struct Link {
    address: SocketAddr,
    broke: Arc<Notify>,
}

impl Link {
    async fn to(to: SocketAddr, breaks_at: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, broke) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
        let (left, tell) = (Arc::new(AtomicU64::new(breaks_at)), Arc::clone(&broke));
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (left, tell) = (Arc::clone(&left), Arc::clone(&tell));
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((near_r, near_w), (far_r, far_w)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = carry(far_r, near_w, &left, &tell) => {},
                        () = carry(near_r, far_w, &left, &tell) => {},
                    }
                });
            }
        });
        Self { address, broke }
    }
}

/// Ends at the end, and with the byte at which the link breaks. Whoever carries afterwards is not held up.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    left: &AtomicU64,
    broke: &Notify,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |b| Some(b.saturating_sub(n as u64)));
        let before = before.unwrap_or(0);
        let breaks = before > 0 && before <= n as u64;
        let whole = if breaks { before as usize } else { n };
        if to.write_all(&bytes[..whole]).await.is_err() {
            return;
        }
        if breaks {
            broke.notify_one();
            return;
        }
    }
}

/// The outcomes of moves until all have ended or somebody died.
async fn until_over(outcomes: &mut mpsc::Receiver<Outcome>, died: Option<&Notify>) -> (Vec<String>, u64) {
    let (mut moved, mut ended, mut wire) = (Vec::new(), 0, 0);
    while ended < SIZES.len() {
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(PATIENCE, outcomes.recv()) => outcome.expect("a move never ended").unwrap(),
            () = async { match died { Some(died) => died.notified().await, None => std::future::pending().await } } => break,
        };
        ended += 1;
        if let Outcome::Moved { id, wire_bytes, .. } = outcome {
            moved.push(id.as_str().trim_start_matches("move-").to_owned());
            wire += wire_bytes;
        }
    }
    (moved, wire)
}

/// What became of one run, for the counts.
struct Told {
    victim: Victim,
    died: bool,
    kept_bytes: u64,
}

async fn one_run(seed: u64) -> Told {
    let mut random = StdRng::seed_from_u64(seed);
    let victim = [Victim::Sender, Victim::Receiver, Victim::Store][random.random_range(0..3)];
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = |i: usize| format!("f{i}");
    for (i, size) in SIZES.iter().enumerate() {
        std::fs::write(source.path().join(name(i)), noise(seed ^ i as u64, *size)).unwrap();
    }
    let files: Vec<_> = SIZES.iter().enumerate().map(|(i, size)| (name(i), *size as u64)).collect();
    let total: u64 = files.iter().map(|f| f.1).sum();
    let server = serve(source.path(), "127.0.0.1:0").await;
    let on_link = victim != Victim::Store;
    let link = Link::to(server.address(), if on_link { random.random_range(1..total) } else { 0 }).await;
    let disk = DyingDisk::after(if on_link { u64::MAX } else { random.random_range(0..CALLS) });
    let open = |disk: Arc<DyingDisk>| {
        Store::open_with(cache.path(), Config::default(), DomainKey::default(), Box::new(EpochAware), disk)
    };

    let mut moved = Vec::new();
    if let Ok(store) = open(Arc::clone(&disk)) {
        let (mover, mut outcomes) = mover_with(store, &link.address.to_string());
        take(&mover, &files);
        // A sender that comes back is waited for by the receiver itself.
        let died = (victim == Victim::Receiver).then_some(&*link.broke);
        (moved, _) = until_over(&mut outcomes, died).await;
        let store = Arc::clone(mover.store());
        drop((mover, outcomes));
        while Arc::strong_count(&store) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let died =
        if on_link { moved.len() < SIZES.len() || victim == Victim::Sender } else { disk.died.load(Ordering::SeqCst) };

    let store = open(DyingDisk::after(u64::MAX)).unwrap_or_else(|e| panic!("seed {seed}, {victim:?}: {e}"));
    let report = store.check(Subset::ALL).unwrap();
    assert_eq!(report.corrupt, 0, "seed {seed}, {victim:?}: half a chunk became visible");
    let kept_bytes = store.resident_bytes();
    let said: u64 = files.iter().filter(|f| moved.contains(&f.0)).map(|f| f.1).sum();
    assert!(kept_bytes >= said, "seed {seed}, {victim:?}: {said} bytes were said to be here, {kept_bytes} are");
    let (mover, mut outcomes) = mover_with(store, &server.address().to_string());
    take(&mover, &files);
    let (moved, wire) = until_over(&mut outcomes, None).await;
    assert_eq!(moved.len(), SIZES.len(), "seed {seed}, {victim:?}: not all came");
    let most = total - kept_bytes + OVERHEAD_BYTES * files.len() as u64;
    assert!(wire <= most, "seed {seed}, {victim:?}: {kept_bytes} of {total} bytes were here, and {wire} crossed");
    for (i, size) in SIZES.iter().enumerate() {
        let bytes = content(&mover, &name(i)).await.unwrap_or_else(|e| panic!("seed {seed}, {victim:?}: {e}"));
        assert!(bytes == noise(seed ^ i as u64, *size), "seed {seed}, {victim:?}: wrong bytes in {}", name(i));
    }
    Told { victim, died, kept_bytes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_e_a_thousand_points_of_death_lose_nothing_that_was_verified() {
    let mut told = Vec::new();
    for first in (0..POINTS).step_by(AT_A_TIME as usize) {
        let mut runs = tokio::task::JoinSet::new();
        (first..POINTS.min(first + AT_A_TIME)).for_each(|seed| drop(runs.spawn(one_run(seed))));
        while let Some(run) = runs.join_next().await {
            told.push(run.unwrap());
        }
    }
    let died = |victim| told.iter().filter(|t| t.victim == victim && t.died).count();
    let (senders, receivers, stores) = (died(Victim::Sender), died(Victim::Receiver), died(Victim::Store));
    let kept: u64 = told.iter().filter(|t| t.died).map(|t| t.kept_bytes).sum();
    println!("{POINTS} runs; died: {senders} senders, {receivers} receivers, {stores} stores; {kept} bytes were kept");
    assert!(senders > 200 && receivers > 200 && stores > 200 && kept > 0);
}
