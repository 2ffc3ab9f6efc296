//! Rates, rooms and plans that change their mind.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn promise_h_the_switch_stops_forecasts_and_not_warmups() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), noise(1, 100_000)).unwrap();
    std::fs::write(source.path().join("w"), noise(2, 100_000)).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    let later = Move { start_at: Timestamp::now() + Duration::from_millis(300), ..a_move("f", 100_000) };
    gpu.take(vec![later]);
    let asked = Move { cause: MoveCause::Warmup { warmup: WarmupId::from("w1") }, ..a_move("w", 100_000) };
    gpu.mover.take(&Assignment { run: vec![asked, a_move("f", 1)], prefetch_off: true, ..Assignment::default() });
    gpu.moved().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gpu.mover.store().resident_bytes(), 100_000);
    assert_eq!(gpu.mover.counts(), (0, 0));
}

/// A plan that changes its mind ten times a second must not leave a reader with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn promise_a_a_reader_gets_his_bytes_while_the_move_he_joined_is_cancelled_again_and_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1, 12_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let (odd, _) = Odd::new(source.path(), Duration::from_millis(30));
    let server = serve(odd, open_borders()).await;
    let gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
async fn text_is_packed_where_the_link_is_the_limit_and_noise_is_not() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text: Vec<u8> = (0..400_000u32).flat_map(|i| format!("line {i} of a log\n").into_bytes()).collect();
    let noisy = noise(1, 4_000_000);
    std::fs::write(source.path().join("text"), &text).unwrap();
    std::fs::write(source.path().join("noise"), &noisy).unwrap();
    let config = ServerConfig { rate_limit: Some(BitsPerSecond(200_000_000)), ..loopback() };
    let volumes = vec![(volume(), local(source.path()))];
    let server = serve_with(config, Token::new(TOKEN), volumes, open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
    let (from, to) = (site_id("store"), site_id("gpu"));
    known.links.push(Link { from: from.clone(), to, rate: BitsPerSecond(40_000_000), rtt_ms: 1.0, cost_per_gb: 0.0 });
    let server = serve(local(source.path()), Borders::new(Ruleset::default(), known)).await;
    server.stands_at(from);
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    let began = std::time::Instant::now();
    gpu.take(vec![a_move("f", 5_000_000)]);
    gpu.moved().await;
    assert!(began.elapsed() > Duration::from_millis(950), "{:?} for a second's worth of bytes", began.elapsed());
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
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(names.iter().map(|name| a_move(name, 1_500_000)).collect());
    for _ in &names {
        assert_eq!(gpu.moved().await.0, 1_500_000);
    }
    assert!(gpu.content("f79").await.unwrap() == noise(79, 1_500_000));
}
