//! Two sites on loopback: what moves, what is refused, and what happens when things break.

mod differences;
mod odd;
mod pace;
#[allow(dead_code, reason = "each of the test programs uses a part")]
#[path = "../rig/mod.rs"]
mod rig;
mod sharing;
mod soon;
mod strangers;
mod wrong;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foretide_chunk::Subset;
use foretide_flow::{
    Assignment, BitsPerSecond, Effect, Entry, FilePath, Found, Link, Move, MoveCause, Outcome, Rule, Ruleset, Site,
    Timestamp, Topology, Volume, VolumeId, WarmupId,
};
use foretide_transfer::{
    Authority, Borders, ClientConfig, Credentials, Identity, LocalDirectory, MoverConfig, ServerConfig, Source,
    SourceFile, Stamp, Tls, Token, TransferError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use odd::Odd;
use rig::{
    Node, TOKEN, a_move, hasty, identity, local, loopback, noise, path, serve, serve_with, site_id, store, volume,
    with_client,
};

fn topology() -> Topology {
    let mut t = Topology::default();
    let site = |jurisdiction: &str| Site {
        jurisdiction: jurisdiction.into(),
        labels: Default::default(),
        cache: None,
        accelerator_per_hour: 0.0,
    };
    t.sites.insert(site_id("store"), site("eu"));
    t.sites.insert(site_id("gpu"), site("us"));
    t.volumes.insert(volume(), Volume::at(site_id("store")));
    t
}

fn open_borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), topology())
}

fn phi_stays() -> Ruleset {
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
    Ruleset::new(vec![rule], Effect::Allow, &topology()).unwrap()
}

fn closed_borders() -> Arc<Borders> {
    Borders::new(phi_stays(), topology())
}

fn config() -> MoverConfig {
    with_client(ClientConfig { warm_bytes: 1000, patience_s: 2, ..hasty() })
}

/// The cache site.
fn gpu(root: &Path, capacity_bytes: u64, address: &str) -> Node {
    gpu_with(root, capacity_bytes, address, open_borders(), Token::new(TOKEN))
}

fn gpu_with(
    root: &Path,
    capacity_bytes: u64,
    address: &str,
    borders: Arc<Borders>,
    credentials: impl Into<Credentials>,
) -> Node {
    Node::start(address, identity("gpu", "n1"), store(root, capacity_bytes), config(), credentials, borders)
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_of_all_sizes_arrive_whole_and_are_told() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sizes = [0usize, 1, 4096, 100_000, 1 << 20, (1 << 20) + 1, 7_000_000];
    for (i, size) in sizes.iter().enumerate() {
        std::fs::write(source.path().join(format!("f{i}")), noise(i as u64, *size)).unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
    let gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
async fn a_reader_joins_the_move_that_brings_the_file() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 100_000)).unwrap();
    let (odd, _) = Odd::new(source.path(), Duration::from_millis(300));
    let server = serve(odd, open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    let key = gpu.key("f").await;
    gpu.take(vec![a_move("f", 100_000)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (a, b) = tokio::join!(gpu.mover.read(&key, 0..100_000), gpu.mover.read(&key, 5_000..6_000));
    assert_eq!((a.unwrap().found, b.unwrap().found), (Found::Late, Found::Late));
    gpu.moved().await;
    assert_eq!(server.stats().data_bytes, 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_names_is_complete() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..3000 {
        std::fs::write(source.path().join(format!("a-file-with-a-rather-long-name-{i:05}.jpg")), b"").unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let gpu = gpu(cache.path(), 1 << 20, &server.address().to_string());
    let listing = gpu.mover.list(&volume(), &FilePath::root(), false).await.unwrap().listing;
    assert!(listing.entries.len() == 3000 && listing.entries.is_sorted_by(|a, b| a.path < b.path));
}
