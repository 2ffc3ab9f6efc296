//! Who is let in: tokens, certificates, and what strangers may send.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_dead_address_are_told_apart() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(local(source.path()), open_borders()).await;
    let address = server.address().to_string();
    {
        let gpu = gpu_with(cache.path(), 1 << 20, &address, open_borders(), Token::new("other"));
        let told = gpu.mover.stat(&volume(), &path("f")).await.unwrap_err();
        assert!(matches!(told, TransferError::Token { .. }), "{told}");
        assert!(matches!(
            gpu.mover.stat(&VolumeId::new("none").unwrap(), &path("f")).await,
            Err(TransferError::NoSource(_))
        ));
    }
    drop(server);
    let gpu = gpu(cache.path(), 1 << 20, &address);
    let told = gpu.mover.stat(&volume(), &path("f")).await.unwrap_err();
    assert!(matches!(told, TransferError::Unreachable { .. }) && told.to_string().contains(&address), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_talks_nonsense_harms_nobody() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("f"), b"fine").unwrap();
    let server = serve(local(source.path()), open_borders()).await;
    for seed in 0..20 {
        let mut stranger = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let _ = stranger.write_all(&noise(seed, 3000)).await;
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(answer.len() < 200);
    }
    let gpu = gpu(cache.path(), 1 << 20, &server.address().to_string());
    assert_eq!(gpu.content("f").await.unwrap(), b"fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_both_ends_show_a_certificate_of_the_same_authority_and_their_own_name() {
    let source = tempfile::tempdir().unwrap();
    let bytes = noise(1, 3_000_000);
    std::fs::write(source.path().join("f"), &bytes).unwrap();
    let authority = Authority::new().unwrap();
    let authority = Authority::load(authority.kept().clone()).unwrap();
    let stranger = Authority::new().unwrap();
    let (at_store, at_gpu) = (identity("store", "s1"), identity("gpu", "n1"));
    let shown = |by: &Authority, who: &Identity| {
        let tls = Tls::new(&by.kept().certificate_pem, &by.issue(who).unwrap(), who).unwrap();
        Credentials::with_tls(Token::new(TOKEN), tls)
    };
    let volumes = vec![(volume(), local(source.path()))];
    let server = serve_with(loopback(), shown(&authority, &at_store), volumes, open_borders()).await;
    let address = server.address().to_string();
    let ask = async |credentials: Credentials| {
        let cache = tempfile::tempdir().unwrap();
        gpu_with(cache.path(), 1 << 30, &address, open_borders(), credentials).content("f").await
    };
    assert!(ask(shown(&authority, &at_gpu)).await.unwrap() == bytes);
    assert!(ask(shown(&stranger, &at_gpu)).await.is_err(), "another authority");
    assert!(ask(shown(&authority, &at_store)).await.is_err(), "a name that is not its own");
    assert!(ask(Token::new(TOKEN).into()).await.is_err(), "no TLS at all");
    let own = authority.issue(&at_gpu).unwrap();
    let told = Tls::new(&authority.kept().certificate_pem, &own, &at_store).unwrap_err().to_string();
    assert!(told.contains("does not bear the name") && told.contains("node s1 at site store"), "{told}");
    let other =
        Credentials::with_tls(Token::new("other"), Tls::new(&authority.kept().certificate_pem, &own, &at_gpu).unwrap());
    assert!(matches!(ask(other).await, Err(TransferError::Token { .. })), "another token");
}
