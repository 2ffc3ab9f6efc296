//! Givers that have not got it, may not give it, lie, hang or die; sources that are gone.

use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use foretide_chunk::Subset;
use foretide_transfer::TransferError;

use super::rig::{path, volume};
use super::site::{Door, Node, Source, World, a_move, borders, noise};

/// Two nodes, the first of which fetches `name` for both; the door stands before that one.
async fn with_a_door(world: &World, name: &str) -> (Vec<Node>, Door) {
    let door = Mutex::new(None);
    let first = world.first_of("gpu", 2, name);
    let mut count = 0;
    let numbered = Mutex::new(&mut count);
    let reached_at = |address| {
        let mut number = numbered.lock().unwrap();
        **number += 1;
        if **number - 1 != first {
            return address;
        }
        let (made, at) = Door::before(address, u64::MAX);
        *door.lock().unwrap() = Some(made);
        at
    };
    let mut nodes = world.site_with("gpu", 2, |_| borders(&[]), reached_at).await;
    if first == 1 {
        nodes.swap(0, 1);
    }
    (nodes, door.into_inner().unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_died_is_passed_over_and_nothing_is_lost() {
    let world = World::new(Source::quick()).await;
    let files: Vec<_> = (0..20).map(|n| (format!("f{n}"), 100_000)).collect();
    files.iter().for_each(|(name, length)| world.write(name, *length));
    let mut nodes = world.site("gpu", 3).await;
    drop(nodes.remove(0));
    for node in &nodes {
        node.take(files.iter().map(|(name, length)| a_move(name, *length, "store", "gpu")).collect());
    }
    for node in &mut nodes {
        for _ in &files {
            node.moved().await;
        }
    }
    for node in &nodes {
        for (name, length) in &files {
            assert!(node.content(name).await.unwrap() == noise(name, *length), "{name}");
        }
    }
    assert!(world.given() >= 2_000_000 && world.given() <= 4_000_000, "{}", world.given());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_dies_half_way_has_given_half_and_the_source_gives_the_rest() {
    let world = World::new(Source::quick()).await;
    world.write("f", 4_000_000);
    let (nodes, door) = with_a_door(&world, "f").await;
    assert_eq!(nodes[0].content("f").await.unwrap().len(), 4_000_000);
    let before = world.given();
    door.close_after(2_000_000);
    assert!(nodes[1].content("f").await.unwrap() == noise("f", 4_000_000));
    let again = world.given() - before;
    assert!((1..=3_500_000).contains(&again), "what the neighbour gave was kept: {again} came from the source");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_a_neighbour_that_hangs_holds_a_reader_up_for_a_moment_and_then_nobody() {
    let world = World::new(Source::quick()).await;
    world.write("f", 300_000);
    let (nodes, door) = with_a_door(&world, "f").await;
    assert_eq!(nodes[0].content("f").await.unwrap().len(), 300_000);
    let key = nodes[1].key("f").await;
    door.is_stuck.store(true, Ordering::SeqCst);
    let answer = nodes[1].mover.read(&key, 0..100_000).await.unwrap();
    assert!(answer.bytes == noise("f", 300_000)[..100_000]);
    let given = world.given();
    assert!(given > 300_000, "the source gave it: {given}");
    let answer = nodes[1].mover.read(&key, 200_000..300_000).await.unwrap();
    assert!(answer.bytes == noise("f", 300_000)[200_000..]);
    assert!(nodes[1].mover.store().lookup(&key).unwrap().resident_bytes >= 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_neighbour_whose_disk_lies_is_found_out_and_the_source_gives_the_right_bytes() {
    let world = World::new(Source::quick()).await;
    world.write("f", 500_000);
    let nodes = world.site("gpu", 2).await;
    let first = world.first_of("gpu", 2, "f");
    let (liar, reader) = (&nodes[first], &nodes[1 - first]);
    assert_eq!(liar.content("f").await.unwrap().len(), 500_000);
    liar.mover.store().checkpoint().unwrap();
    // It was hashed since the start, so its store trusts it; who asks does not.
    let bent = bend(liar.store.path());
    assert!(bent > 0, "the data file was found");
    let before = world.given();
    assert!(reader.content("f").await.unwrap() == noise("f", 500_000));
    assert!(world.given() > before, "from the source");
}

/// Turns a bit in every data file of a store; how many there were.
fn bend(folder: &std::path::Path) -> usize {
    let mut bent = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let at = entry.path();
        if at.is_dir() {
            bent += bend(&at);
        } else if entry.metadata().unwrap().len() == 500_000 {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&at).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 250_000).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 250_000).unwrap();
            bent += 1;
        }
    }
    bent
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_named_site_has_not_got_and_cannot_get_comes_from_the_source() {
    let world = World::new(Source::quick()).await;
    world.write("f", 200_000);
    world.write("g", 200_000);
    let rules = |_| borders(&["a"]);
    let a = world.site_with("a", 1, rules, |address| address).await.remove(0);
    let mut b = world.site("b", 1).await.remove(0);
    b.take(vec![a_move("f", 200_000, "a", "b")]);
    b.moved().await;
    assert_eq!((world.given(), a.given()), (200_000, 0), "a rule forbids that it rests at a, so a fetches nothing");
    drop(a);
    b.take(vec![a_move("g", 200_000, "a", "b")]);
    b.moved().await;
    assert_eq!(world.given(), 400_000);
    assert!(b.content("g").await.unwrap() == noise("g", 200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_i_a_giver_upholds_the_border_as_the_source_does() {
    let world = World::new(Source::quick()).await;
    world.write("f", 200_000);
    // What a's agent was told: nothing may go to b.
    let mut a = world.site_with("a", 1, |_| borders(&["b"]), |address| address).await.remove(0);
    a.take(vec![a_move("f", 200_000, "store", "a")]);
    a.moved().await;
    let mut b = world.site("b", 1).await.remove(0);
    b.take(vec![a_move("f", 200_000, "a", "b")]);
    b.moved().await;
    assert_eq!(
        (a.given(), world.given()),
        (0, 400_000),
        "a gave nothing; b asked the source, which knows of no such rule"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giver_serves_no_names_and_is_no_source() {
    let world = World::new(Source::quick()).await;
    world.write("f", 200_000);
    let (source, mut b) = (world.site("gpu", 1).await.remove(0), world.site("b", 1).await.remove(0));
    // Named as a giver, and it serves volumes only.
    let address = source.server.as_ref().unwrap().address().to_string();
    b.mover.set_source(&foretide_flow::VolumeId::new("other").unwrap(), &address);
    let told = b.mover.stat(&foretide_flow::VolumeId::new("other").unwrap(), &path("f")).await;
    assert!(matches!(told, Err(TransferError::NoSource(_))), "{told:?}");
    b.take(vec![a_move("f", 200_000, "gpu", "b")]);
    b.moved().await;
    assert_eq!(world.given(), 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_without_the_source_other_sites_give_what_they_hold() {
    let mut world = World::new(Source::quick()).await;
    world.write("f", 200_000);
    let a = world.site("a", 1).await.remove(0);
    let b = world.site("b", 2).await;
    let key = a.key("f").await;
    assert_eq!(a.content("f").await.unwrap().len(), 200_000);
    world.server = None;
    for node in &b {
        let answer = node.mover.read(&key, 0..200_000).await.unwrap();
        assert!(answer.bytes == noise("f", 200_000));
    }
    let gone = foretide_chunk::FileKey { path: path("never-read"), ..key };
    assert!(matches!(b[0].mover.read(&gone, 0..10).await, Err(TransferError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_repairs_from_a_neighbour_when_the_source_is_gone() {
    let mut world = World::new(Source::quick()).await;
    world.write("f", 500_000);
    let nodes = world.site("gpu", 2).await;
    for node in &nodes {
        assert_eq!(node.content("f").await.unwrap().len(), 500_000);
    }
    world.server = None;
    let census = |node: &Node| node.mover.store().census(&volume(), &[path("f")]);
    for node in &nodes {
        node.mover.store().checkpoint().unwrap();
        assert_eq!(bend(node.store.path()), 1);
        let repaired = node.mover.repair(Subset::ALL).await.unwrap();
        assert_eq!((repaired.checked.corrupt, repaired.fetched, repaired.left), (1, 1, None));
        assert_eq!((census(node).files, census(node).bytes), (1, 500_000));
    }
}
