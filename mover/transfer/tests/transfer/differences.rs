//! What is here already, in this file or another, in this version or an older one, does not cross again.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_another_file_or_version_holds_does_not_cross_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(1, 6_000_000);
    std::fs::write(source.path().join("a"), &bytes).unwrap();
    std::fs::write(source.path().join("copy"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
async fn of_a_changed_file_little_more_than_the_changed_bytes_crosses() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(1, 12_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
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
        let gpu = gpu(cache.path(), 1 << 30, &address);
        let key = gpu.key("f").await;
        gpu.mover.read(&key, 0..3_000_000).await.unwrap();
    }
    drop(server);
    bytes[1_000_000] ^= 1;
    bytes[6_000_000] ^= 1;
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    let mut gpu = gpu(cache.path(), 1 << 30, &server.address().to_string());
    gpu.take(vec![a_move("f", 8_000_000)]);
    let (_, wire) = gpu.moved().await;
    assert!((4_500_000..5_700_000).contains(&wire), "{wire}");
    assert!(gpu.content("f").await.unwrap() == bytes);
}
