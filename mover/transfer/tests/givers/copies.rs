//! A copy of the volume at another site: it gives what the source would have given, and nothing else.

use std::net::SocketAddr;
use std::sync::Mutex;

use foretide_chunk::FileKey;
use foretide_flow::{Move, Outcome};
use foretide_transfer::TransferError;

use super::rig::{path, volume};
use super::site::{Door, Mirror, Node, Source, Unaware, World, a_move, borders, noise, sum_of};

/// Small files and a large one, which travels in parts.
const FILES: [(&str, u64); 4] = [("a", 200_000), ("b", 50_000), ("c", 120_000), ("large", 6_000_000)];

async fn with_a_mirror() -> (World, Mirror) {
    with_a_mirror_reached_at(|address| address).await
}

async fn with_a_mirror_reached_at(reached_at: impl Fn(SocketAddr) -> SocketAddr) -> (World, Mirror) {
    let world = World::new(Source::quick()).await;
    FILES.iter().for_each(|(name, length)| world.write(name, *length));
    let mirror = world.mirror(reached_at).await;
    (world, mirror)
}

fn all_bytes() -> u64 {
    sum_of(&FILES.map(|(name, length)| (name.to_owned(), length)))
}

fn take_all(node: &Node, to: &str) {
    node.take(FILES.iter().map(|(name, length)| a_move(name, *length, "mirror", to)).collect());
}

/// What of all moves fell back on the source.
async fn fell_back(node: &mut Node) -> u64 {
    let mut bytes = 0;
    for _ in FILES {
        bytes += node.fell_back().await;
    }
    bytes
}

async fn assert_all_here(node: &Node) {
    for (name, _) in FILES {
        assert!(node.holds(name).await, "{name}");
    }
    assert_all_right(node).await;
}

async fn assert_all_right(node: &Node) {
    for (name, length) in FILES {
        assert!(node.content(name).await.unwrap() == noise(name, length), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_fetched_from_the_copy_that_the_plan_names_once_for_all_nodes() {
    let (world, mirror) = with_a_mirror().await;
    let mut nodes = world.site("gpu", 2).await;
    nodes.iter().for_each(|node| take_all(node, "gpu"));
    for node in &mut nodes {
        assert_eq!(fell_back(node).await, 0);
    }
    assert_eq!((world.given(), mirror.given()), (0, all_bytes()), "the source told manifests and gave no byte");
    for node in &nodes {
        assert_all_here(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_what_a_copy_has_otherwise_or_lacks_comes_from_the_source() {
    let (world, mirror) = with_a_mirror().await;
    std::fs::write(mirror.at("a"), noise("other", 200_000)).unwrap();
    std::fs::remove_file(mirror.at("b")).unwrap();
    let mut bytes = noise("large", 6_000_000);
    bytes[3_000_000] ^= 1;
    std::fs::write(mirror.at("large"), bytes).unwrap();
    let mut gpu = world.site("gpu", 1).await.remove(0);
    take_all(&gpu, "gpu");
    let source_bytes = 200_000 + 50_000 + 6_000_000;
    let fallback_bytes = fell_back(&mut gpu).await;
    assert!(fallback_bytes >= source_bytes, "it is told: {fallback_bytes} of {source_bytes}");
    assert_eq!((world.given(), mirror.given()), (source_bytes, 120_000));
    assert_all_here(&gpu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_copy_that_rots_unnoticed_is_found_out() {
    let world = World::new(Source::quick()).await;
    world.write("c", 120_000);
    let mirror = world.mirror_of(|folder| Box::new(Unaware(folder)), |address| address).await;
    let mut first = world.site("a", 1).await.remove(0);
    first.take(vec![a_move("c", 120_000, "mirror", "a")]);
    assert_eq!((first.fell_back().await, mirror.given()), (0, 120_000), "it has cut the file, and remembers how");
    std::fs::write(mirror.at("c"), noise("rot", 120_000)).unwrap();
    let mut gpu = world.site("gpu", 1).await.remove(0);
    gpu.take(vec![a_move("c", 120_000, "mirror", "gpu")]);
    assert!(gpu.fell_back().await >= 120_000);
    assert!(gpu.content("c").await.unwrap() == noise("c", 120_000));
    assert_eq!((world.given(), mirror.given()), (120_000, 240_000), "it gave bytes that nobody believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_dies_half_way_has_given_half_and_the_source_gives_the_rest() {
    let door = Mutex::new(None);
    let reached_at = |address| {
        let (made, at) = Door::before(address, u64::MAX);
        *door.lock().unwrap() = Some(made);
        at
    };
    let (world, mirror) = with_a_mirror_reached_at(reached_at).await;
    door.lock().unwrap().as_ref().unwrap().close_after(2_000_000);
    let mut gpu = world.site("gpu", 1).await.remove(0);
    gpu.take(vec![a_move("large", 6_000_000, "mirror", "gpu")]);
    let fallback_bytes = gpu.fell_back().await;
    assert!(mirror.given() > 0 && fallback_bytes > 0);
    assert!(world.given() < 6_000_000, "what the copy gave was kept: {} came from the source", world.given());
    assert!(gpu.content("large").await.unwrap() == noise("large", 6_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_gone_costs_a_moment_and_all_comes_from_the_source() {
    let (world, mirror) = with_a_mirror().await;
    drop(mirror);
    let mut gpu = world.site("gpu", 1).await.remove(0);
    take_all(&gpu, "gpu");
    assert!(fell_back(&mut gpu).await >= all_bytes());
    assert_eq!(world.given(), all_bytes());
    assert_all_here(&gpu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_i_a_copy_is_asked_for_nothing_that_a_rule_forbids_at_its_site() {
    let (world, mirror) = with_a_mirror().await;
    let mut gpu = world.site_with("gpu", 1, |_| borders(&["mirror"]), |address| address).await.remove(0);
    take_all(&gpu, "gpu");
    fell_back(&mut gpu).await;
    assert_eq!((world.given(), mirror.given()), (all_bytes(), 0));
    assert_all_here(&gpu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_without_the_source_a_copy_gives_what_is_known_by_its_manifest() {
    let (mut world, mirror) = with_a_mirror().await;
    let gpu = world.site("gpu", 1).await.remove(0);
    let key = gpu.key("large").await;
    assert_eq!(gpu.mover.read(&key, 0..100_000).await.unwrap().bytes.len(), 100_000);
    world.server = None;
    let answer = gpu.mover.read(&key, 100_000..6_000_000).await.unwrap();
    assert!(answer.bytes == noise("large", 6_000_000)[100_000..]);
    assert!(mirror.given() > 5_000_000, "{}", mirror.given());
    // What the source has never told the digests of, nobody can tell to be right.
    let unknown = FileKey { path: path("a"), ..key };
    assert!(matches!(gpu.mover.read(&unknown, 0..10).await, Err(TransferError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_without_the_source_a_move_brings_from_a_copy_what_is_known_by_its_manifest() {
    let (mut world, mirror) = with_a_mirror().await;
    let mut gpu = world.site("gpu", 1).await.remove(0);
    let key = gpu.key("large").await;
    assert_eq!(gpu.mover.read(&key, 0..100_000).await.unwrap().bytes.len(), 100_000);
    // What the source has told of is one version; that the copy has another now is found out, and nothing is mixed.
    let mut bytes = noise("large", 6_000_000);
    bytes[5_000_000] ^= 1;
    std::fs::write(mirror.at("large"), &bytes).unwrap();
    world.server = None;
    gpu.take(vec![Move { id: "other".into(), ..a_move("large", 6_000_000, "mirror", "gpu") }]);
    let failed = gpu.next().await;
    assert!(matches!(&failed, Outcome::Failed { why, .. } if why.contains("cannot be reached")), "{failed:?}");
    assert_eq!(mirror.given(), 0);
    bytes[5_000_000] ^= 1;
    std::fs::write(mirror.at("large"), bytes).unwrap();
    gpu.take(vec![a_move("large", 6_000_000, "mirror", "gpu"), a_move("a", 200_000, "mirror", "gpu")]);
    let mut ended = [gpu.next().await, gpu.next().await];
    ended.sort_by_key(|outcome| matches!(outcome, Outcome::Failed { .. }));
    assert!(matches!(ended[0], Outcome::Moved { bytes: 6_000_000, fallback_bytes: 0, .. }), "{:?}", ended[0]);
    assert!(matches!(ended[1], Outcome::Failed { .. }), "what the source has never told nobody can tell to be right");
    assert!(gpu.mover.store().lookup(&key).is_some_and(|resident| resident.whole));
    assert!(gpu.mover.read(&key, 0..6_000_000).await.unwrap().bytes == noise("large", 6_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_copy_stands_readers_make_no_byte_cross_and_see_the_names_of_the_source() {
    let (world, mirror) = with_a_mirror().await;
    let here = world.site("mirror", 1).await.remove(0);
    assert_all_right(&here).await;
    assert_eq!((world.given(), mirror.given()), (0, all_bytes()));
    world.rewrite("a", "newer", 210_000);
    std::fs::write(mirror.at("only-there"), b"x").unwrap();
    assert!(here.content("a").await.unwrap() == noise("newer", 210_000), "the source's word counts");
    assert_eq!(world.given(), 210_000);
    let missing = here.mover.stat(&volume(), &path("only-there")).await;
    assert!(matches!(missing, Err(TransferError::NotFound { .. })), "{missing:?}");
}
