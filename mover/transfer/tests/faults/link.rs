//! A link that cuts, bends, repeats, swaps, swallows and holds up what it carries, as a seed decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foretide_flow::Outcome;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::store;
use super::{moves, node, noise, serve};

const SEEDS: u64 = 48;
/// Runs side by side.
const AT_A_TIME: u64 = 48;
/// After so many faults a link is sound, so that a run ends.
const FAULTS_PER_RUN: i64 = 5;
/// Room for all files.
const CACHE_BYTES: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Cut,
    Bend,
    Repeat,
    Swap,
    Swallow,
    Hold,
}

/// Faults that were done, of each kind.
type Counts = Arc<Mutex<BTreeMap<Fault, u64>>>;

/// Listens and forwards to `to`, with faults in both directions.
async fn faulty(to: SocketAddr, seed: u64, counts: Counts) -> (SocketAddr, Arc<AtomicI64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicI64::new(FAULTS_PER_RUN));
    let ours = left.clone();
    tokio::spawn(async move {
        for n in 0.. {
            let (near, _) = listener.accept().await.unwrap();
            let (left, counts) = (ours.clone(), counts.clone());
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(to).await else { return };
                let ((near_r, near_w), (far_r, far_w)) = (near.into_split(), far.into_split());
                let down = carry(far_r, near_w, StdRng::seed_from_u64(seed << 20 | n << 1), left.clone(), &counts);
                let up = carry(near_r, far_w, StdRng::seed_from_u64(seed << 20 | n << 1 | 1), left, &counts);
                tokio::select! { () = down => {}, () = up => {} }
            });
        }
    });
    (address, left)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut random: StdRng,
    left: Arc<AtomicI64>,
    counts: &Counts,
) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let Ok(n @ 1..) = from.read(&mut bytes).await else { return };
        let mut piece = bytes[..n].to_vec();
        if random.random_bool(0.04) && left.fetch_sub(1, Ordering::SeqCst) > 0 {
            let kinds = [Fault::Cut, Fault::Bend, Fault::Repeat, Fault::Swap, Fault::Swallow, Fault::Hold];
            let fault = kinds[random.random_range(0..kinds.len())];
            *counts.lock().unwrap().entry(fault).or_default() += 1;
            match fault {
                Fault::Cut => {
                    let _ = to.write_all(&piece[..random.random_range(0..n)]).await;
                    return;
                }
                Fault::Bend => piece[random.random_range(0..n)] ^= 1 << random.random_range(0..8u32),
                Fault::Repeat => piece.extend_from_within(..),
                Fault::Swap => piece.rotate_left(random.random_range(0..n)),
                Fault::Swallow => piece.truncate(random.random_range(0..n)),
                Fault::Hold => tokio::time::sleep(Duration::from_millis(random.random_range(1..80))).await,
            }
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn one_run(seed: u64, counts: Counts) {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sizes = [0usize, 1, 5_000, 100_000, 300_000, 1_300_000];
    let name = |i: usize| format!("f{i}");
    for (i, size) in sizes.iter().enumerate() {
        std::fs::write(source.path().join(name(i)), noise(seed ^ i as u64, *size)).unwrap();
    }
    let server = serve(source.path(), "127.0.0.1:0").await;
    let (near, left) = faulty(server.address(), seed, counts).await;
    let mut node = node(store(cache.path(), CACHE_BYTES), &near.to_string());
    let files: Vec<_> = sizes.iter().enumerate().map(|(i, size)| (name(i), *size as u64)).collect();
    node.take(moves(&files[2..]));
    for (i, size) in sizes.iter().enumerate() {
        // An error is allowed while the link is bad; wrong bytes never are.
        if let Ok(bytes) = node.content(&name(i)).await {
            assert!(bytes == noise(seed ^ i as u64, *size), "seed {seed}: wrong bytes in {}", name(i));
        }
    }
    for _ in &files[2..] {
        match node.next().await {
            Outcome::Moved { .. } => {}
            Outcome::Failed { why, .. } => assert!(why.len() > 10, "seed {seed}: {why:?} tells nothing"),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    left.store(0, Ordering::SeqCst);
    for (i, size) in sizes.iter().enumerate() {
        let mut read = node.content(&name(i)).await;
        for _ in 0..8 {
            if read.is_err() {
                // A connection that broke is dialled again after a pause.
                tokio::time::sleep(Duration::from_millis(500)).await;
                read = node.content(&name(i)).await;
            }
        }
        let bytes = read.unwrap_or_else(|e| panic!("seed {seed}: the link is sound again, and yet: {e}"));
        assert!(bytes == noise(seed ^ i as u64, *size), "seed {seed}: wrong bytes in {}", name(i));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_d_a_bad_link_gives_right_bytes_or_an_error() {
    let counts = Counts::default();
    for first in (0..SEEDS).step_by(AT_A_TIME as usize) {
        let mut runs = tokio::task::JoinSet::new();
        (first..first + AT_A_TIME).for_each(|seed| drop(runs.spawn(one_run(seed, counts.clone()))));
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
    }
    let counts = counts.lock().unwrap();
    println!("{SEEDS} runs, faults: {counts:?}");
    assert!(counts.len() == 6 && counts.values().all(|n| *n >= 8), "{counts:?}: each kind was tried");
}
