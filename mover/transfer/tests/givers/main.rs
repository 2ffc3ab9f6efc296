//! A source and sites of several nodes on loopback: who gives to whom, how often bytes cross, and what happens when
//! givers have not got something, lie, hang or die.

mod copies;
#[allow(dead_code, reason = "each of the test programs uses a part")]
#[path = "../rig/mod.rs"]
mod rig;
mod site;
mod trouble;

use std::time::Duration;

use foretide_flow::{Found, Move, Priority, Timestamp};

use rig::{path, volume};
use site::{Source, World, a_move, noise, sum_of};

#[tokio::test(flavor = "multi_thread")]
async fn what_two_nodes_of_a_site_are_told_to_move_crosses_once() {
    let world = World::new(Source::quick()).await;
    let files: Vec<_> = (0..40).map(|n| (format!("f{n}"), 10_000 + 7_919 * n)).collect();
    files.iter().for_each(|(name, length)| world.write(name, *length));
    world.write("large", 6_000_000);
    let mut nodes = world.site("gpu", 2).await;
    let all: Vec<_> = files.iter().cloned().chain([("large".to_owned(), 6_000_000)]).collect();
    for node in &nodes {
        node.take(all.iter().map(|(name, length)| a_move(name, *length, "store", "gpu")).collect());
    }
    let mut wire_bytes = 0;
    for node in &mut nodes {
        for _ in &all {
            wire_bytes += node.moved().await.1;
        }
    }
    let bytes = sum_of(&all);
    assert_eq!(world.given(), bytes, "each byte crossed once");
    assert!((bytes..bytes + bytes / 50).contains(&wire_bytes), "and is counted once: {wire_bytes} of {bytes}");
    for node in &nodes {
        for (name, length) in &all {
            assert!(node.holds(name).await, "{name}");
            assert!(node.content(name).await.unwrap() == noise(name, *length), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_on_all_nodes_of_a_site_who_want_a_file_at_once_cause_one_crossing() {
    let world = World::new(Source::slow(Duration::from_millis(50))).await;
    world.write("f", 700_000);
    let nodes = world.site("gpu", 3).await;
    let keys = futures::future::join_all(nodes.iter().map(|node| node.key("f"))).await;
    let reads = nodes.iter().zip(&keys).map(|(node, key)| node.mover.read(key, 0..700_000));
    for answer in futures::future::join_all(reads).await {
        let answer = answer.unwrap();
        // Where it is fetched for another already, it is on its way.
        assert!(answer.bytes == noise("f", 700_000) && answer.found != Found::Hit);
    }
    assert_eq!(world.given(), 700_000);
    assert_eq!(nodes[1].content("f").await.unwrap().len(), 700_000);
    assert_eq!(world.given(), 700_000, "and later readers cause none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_one_node_has_is_given_and_the_rest_is_fetched_for_the_other() {
    let world = World::new(Source::quick()).await;
    world.write("f", 3_000_000);
    let nodes = world.site("gpu", 2).await;
    for (node, range) in [(0, 0..1_000_000u64), (1, 500_000..2_500_000), (0, 0..3_000_000), (1, 0..3_000_000)] {
        let key = nodes[node].key("f").await;
        let answer = nodes[node].mover.read(&key, range.clone()).await.unwrap();
        assert!(answer.bytes == noise("f", 3_000_000)[range.start as usize..range.end as usize], "{range:?}");
    }
    let most = 3_000_000 + 3 * 256 * 1024;
    assert!(world.given() <= most, "whole chunks at the seams may cross twice: {} of {most}", world.given());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_fetched_from_the_site_that_the_plan_names() {
    let world = World::new(Source::quick()).await;
    let files: Vec<_> = (0..10).map(|n| (format!("f{n}"), 200_000)).collect();
    files.iter().for_each(|(name, length)| world.write(name, *length));
    let mut a = world.site("a", 1).await.remove(0);
    a.take(files.iter().map(|(name, length)| a_move(name, *length, "store", "a")).collect());
    for _ in &files {
        a.moved().await;
    }
    let (bytes, crossed) = (sum_of(&files), world.given());
    assert_eq!(crossed, bytes);
    let mut b = world.site("b", 1).await.remove(0);
    b.take(files.iter().map(|(name, length)| a_move(name, *length, "a", "b")).collect());
    let mut wire_bytes = 0;
    for _ in &files {
        wire_bytes += b.moved().await.1;
    }
    assert_eq!((world.given(), a.given()), (crossed, bytes), "the source gave no byte more");
    assert!(wire_bytes >= bytes, "they crossed the link from a, and are counted: {wire_bytes}");
    assert!(b.content("f3").await.unwrap() == noise("f3", 200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_named_site_has_not_got_yet_it_fetches_and_passes_on_as_it_comes() {
    let world = World::new(Source::slow(Duration::from_millis(50))).await;
    world.write("f", 2_500_000);
    let mut a = world.site("a", 1).await.remove(0);
    let mut b = world.site("b", 2).await;
    a.take(vec![a_move("f", 2_500_000, "store", "a")]);
    b.iter().for_each(|node| node.take(vec![a_move("f", 2_500_000, "a", "b")]));
    a.moved().await;
    b[0].moved().await;
    b[1].moved().await;
    assert_eq!(world.given(), 2_500_000, "the source's link is crossed once");
    assert_eq!(a.given(), 2_500_000, "and so is the one between the two sites");
    assert!(b[1].content("f").await.unwrap() == noise("f", 2_500_000));
}

/// Found by thinking: each node's window full of moves that wait for the other, and what the other would fetch for them
/// waiting for room in that one's window.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_full_windows_do_not_wait_for_each_other_for_ever() {
    let world = World::with_window(Source::slow(Duration::from_millis(2)), 2 << 20).await;
    let files: Vec<_> = (0..120).map(|n| (format!("f{n}"), 900_000)).collect();
    files.iter().for_each(|(name, length)| world.write(name, *length));
    let mut nodes = world.site("gpu", 2).await;
    // In opposite orders, so that each wants first what the other wants last.
    nodes[0].take(files.iter().map(|(name, length)| a_move(name, *length, "store", "gpu")).collect());
    let later = |n: usize| a_move(&files[n].0, files[n].1, "store", "gpu");
    nodes[1].take((0..files.len()).rev().map(|n| Move { benefit_s: n as f64, ..later(n) }).collect());
    for node in &mut nodes {
        for _ in &files {
            node.moved().await;
        }
    }
    assert_eq!(world.given(), sum_of(&files));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_g_a_reader_raises_what_another_node_is_fetching_for_his() {
    let world = World::new(Source::slow(Duration::from_millis(30))).await;
    world.write("f", 2_000_000);
    let mut nodes = world.site("gpu", 2).await;
    nodes.iter().for_each(|node| node.take(vec![a_move("f", 2_000_000, "store", "gpu")]));
    tokio::time::sleep(Duration::from_millis(30)).await;
    for node in &nodes {
        let key = node.key("f").await;
        let answer = node.mover.read(&key, 1_500_000..1_600_000).await.unwrap();
        assert!(answer.bytes == noise("f", 2_000_000)[1_500_000..1_600_000]);
    }
    for node in &mut nodes {
        node.moved().await;
    }
    assert!(world.given() <= 2_000_000 + 256 * 1024, "{}", world.given());
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_h_what_is_fetched_for_anothers_move_counts_as_prefetched_and_for_its_reader_as_read() {
    let world = World::new(Source::quick()).await;
    world.write("f", 100_000);
    world.write("g", 100_000);
    let mut nodes = world.site("gpu", 2).await;
    for (name, is_moved) in [("f", true), ("g", false)] {
        let first = world.first_of("gpu", 2, name);
        let other = &mut nodes[1 - first];
        if is_moved {
            other.take(vec![a_move(name, 100_000, "store", "gpu")]);
            other.moved().await;
        } else {
            assert_eq!(other.content(name).await.unwrap().len(), 100_000);
        }
        let key = nodes[first].key(name).await;
        let note = nodes[first].mover.store().note_read(&key, 0..100_000, Timestamp::now());
        assert_eq!(note.prefetched_bytes, if is_moved { 100_000 } else { 0 }, "{name}");
    }
    assert_eq!(world.given(), 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_version_that_the_source_has_no_more_is_given_by_who_holds_it_and_never_as_the_new_one() {
    let world = World::new(Source::quick()).await;
    world.write("f", 100_000);
    let nodes = world.site("gpu", 2).await;
    let (first, second) = (world.first_of("gpu", 2, "f"), 1 - world.first_of("gpu", 2, "f"));
    let old = nodes[first].key("f").await;
    assert!(nodes[first].content("f").await.unwrap() == noise("f", 100_000));
    world.rewrite("f", "other", 120_000);
    let new = nodes[second].key("f").await;
    assert_ne!(old.version, new.version);
    let answer = nodes[second].mover.read(&old, 0..100_000).await.unwrap();
    assert!(answer.bytes == noise("f", 100_000), "a handle that is open on the old version reads it");
    let answer = nodes[second].mover.read(&new, 0..120_000).await.unwrap();
    assert!(answer.bytes == noise("other", 120_000));
    nodes[second].take(vec![a_move("f", 120_000, "store", "gpu")]);
    assert!(nodes[first].content("f").await.unwrap() == noise("other", 120_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_where_the_source_is_at_the_site() {
    let world = World::new(Source::quick()).await;
    world.write("f", 100_000);
    let nodes = world.site("store", 2).await;
    for node in &nodes {
        assert_eq!(node.content("f").await.unwrap().len(), 100_000);
    }
    assert_eq!((world.given(), nodes[0].given() + nodes[1].given()), (200_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn read_ahead_is_shared_too() {
    let world = World::new(Source::quick()).await;
    world.write("f", 400_000);
    let nodes = world.site("gpu", 2).await;
    for node in &nodes {
        let key = node.key("f").await;
        node.mover.want(&key, 0..400_000, Priority::Background);
    }
    for node in &nodes {
        assert!(node.content("f").await.unwrap() == noise("f", 400_000));
    }
    assert_eq!(world.given(), 400_000);
    let paths = [path("f")];
    assert!(nodes.iter().all(|n| n.mover.store().census(&volume(), &paths).files == 1));
}
