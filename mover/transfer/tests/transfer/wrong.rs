//! Rules that refuse, peers that lie, links that are cut, disks that rot: right bytes or a clear error.

use super::*;

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
        let mut gpu = gpu_with(root, 1 << 30, &server.address().to_string(), receiver, Token::new(TOKEN));
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

#[tokio::test(flavor = "multi_thread")]
async fn promise_i_what_a_changed_rule_forbids_stops_and_leaves() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(source.path().join("patients")).unwrap();
    for name in ["patients/1", "patients/2", "public"] {
        std::fs::write(source.path().join(name), noise(1, 300_000)).unwrap();
    }
    let server = serve(local(source.path()), open_borders()).await;
    let borders = open_borders();
    let mut gpu = gpu_with(cache.path(), 1 << 30, &server.address().to_string(), borders.clone(), Token::new(TOKEN));
    for name in ["patients/1", "patients/2", "public"] {
        gpu.content(name).await.unwrap();
    }
    let read_on = gpu.mover.store().open_whole(&gpu.key("patients/2").await).unwrap();
    assert!(!borders.replace(Ruleset::default(), topology()), "the same rules are no change");
    assert_eq!(gpu.mover.uphold().await.unwrap().gone, []);

    assert!(borders.replace(phi_stays(), topology()));
    let upheld = gpu.mover.uphold().await.unwrap();
    assert_eq!((upheld.gone.len(), upheld.in_use), (1, 1), "{upheld:?}");
    assert_eq!(upheld.gone[0].path, path("patients/1"));
    let mut told = Vec::new();
    while told.len() < 3 {
        match gpu.next().await {
            Outcome::Refused(r) => told.push(format!("{} {}", r.rule, r.path)),
            Outcome::Evicted { path, bytes, .. } => told.push(format!("evicted {path} {bytes}")),
            _ => {}
        }
    }
    told.sort();
    let expected = ["evicted patients/1 300000", "phi-stays-in-eu patients/1", "phi-stays-in-eu patients/2"];
    assert_eq!(told, expected, "each is on record with the rule's name");
    let held = gpu.key("patients/2").await;
    assert!(!gpu.mover.may_rest(&held) && gpu.mover.may_rest(&gpu.key("public").await));
    drop(read_on);
    assert_eq!(gpu.mover.uphold().await.unwrap().gone, [held], "it leaves when nobody reads it any more");
    assert_eq!(gpu.mover.store().resident_bytes(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_i_a_move_under_way_is_stopped_by_a_changed_rule() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(source.path().join("patients")).unwrap();
    std::fs::write(source.path().join("patients/1"), noise(1, 300_000)).unwrap();
    let (slow, _) = Odd::new(source.path(), Duration::from_secs(2));
    let server = serve(slow, open_borders()).await;
    let borders = open_borders();
    let mut gpu = gpu_with(cache.path(), 1 << 30, &server.address().to_string(), borders.clone(), Token::new(TOKEN));
    gpu.take(vec![a_move("patients/1", 300_000)]);
    while gpu.mover.counts().1 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    borders.replace(phi_stays(), topology());
    assert_eq!(gpu.mover.uphold().await.unwrap().stopped, 1);
    assert!(matches!(gpu.next().await, Outcome::Failed { why, .. } if why.contains("phi-stays-in-eu")));
    assert_eq!(gpu.mover.counts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_peer_that_lies_is_named_and_nothing_is_stored() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 3_000_000)).unwrap();
    let (odd, lie) = Odd::new(source.path(), Duration::ZERO);
    let server = serve(odd, open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
async fn promise_a_bytes_come_even_if_the_store_has_no_room() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 3_000_000)).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 100_000, &server.address().to_string());
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
    let mut gpu = gpu(cache.path(), 1 << 20, &server.address().to_string());
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
    let listing = gpu.mover.list(&volume(), &FilePath::root(), false).await.unwrap().listing;
    assert_eq!(listing.entries.len(), 1);
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
    let mut gpu = gpu(cache.path(), 1 << 30, &proxy.to_string());
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
        let gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 20_000_000)]);
    let (moved, wire) = gpu.moved().await;
    assert_eq!(moved, 20_000_000);
    // The manifest may cross again; of the chunks only what was missing.
    assert!(wire <= 20_000_000 - before + 100_000, "{wire} after {before}");
    assert!(gpu.content("f").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rotted_on_the_disk_is_found_and_fetched_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 3_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
