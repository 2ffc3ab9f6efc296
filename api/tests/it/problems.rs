//! Bad input: one clear problem that names the thing and the remedy.

use foretide_api::{Config, Scope};
use foretide_catalog::in_memory;
use reqwest::Method;
use serde_json::json;

use crate::harness::{problem, serve, serve_with};

#[tokio::test]
async fn what_is_not_there_and_what_is_asked_the_wrong_way() {
    let served = serve().await;
    let told = problem(served.get(Scope::Read, "/v1/warmth").await, 404, "no-route").await;
    assert!(told["detail"].as_str().unwrap().contains("/v1/warmth"));
    problem(served.get(Scope::Read, "/nowhere").await, 404, "no-route").await;
    let wrong = served.ask(Scope::Warm, Method::PATCH, "/v1/warmups").send().await.unwrap();
    assert!(wrong.headers().contains_key("allow"), "405 names the methods");
    problem(wrong, 405, "wrong-method").await;
    for (path, kind) in [("/v1/plans/p", "plan"), ("/v1/forecasts/f", "forecast"), ("/v1/profiles/w", "profile")] {
        let told = problem(served.get(Scope::Read, path).await, 404, "not-found").await;
        assert!(told["detail"].as_str().unwrap().contains(kind), "{told}");
    }
    problem(served.get(Scope::Read, "/v1/plans/latest").await, 404, "not-found").await;
}

#[tokio::test]
async fn a_body_that_cannot_be_taken() {
    let served = serve_with(Config { body_max_bytes: 200, ..Config::default() }, in_memory()).await;
    let post = || served.ask(Scope::Warm, Method::POST, "/v1/warmups");
    let typed = |text: &'static str| post().header("content-type", "application/json").body(text);
    problem(typed("{").send().await.unwrap(), 400, "not-json").await;
    problem(typed("").send().await.unwrap(), 400, "not-json").await;
    let told = problem(typed(r#"{"volum":"images"}"#).send().await.unwrap(), 422, "wrong-shape").await;
    assert!(told["detail"].as_str().unwrap().contains("volum"), "{told}");
    let bad_name = typed(r#"{"volume":"IMAGES","paths":[""],"site":"gpu-eu"}"#).send().await.unwrap();
    let told = problem(bad_name, 422, "wrong-shape").await;
    assert!(told["detail"].as_str().unwrap().contains("IMAGES"), "{told}");
    let told = problem(post().body("{}").send().await.unwrap(), 415, "wrong-type").await;
    assert!(told["remedy"].as_str().unwrap().contains("application/json"));

    let large = json!({ "volume": "images", "paths": ["x".repeat(300)], "site": "gpu-eu" });
    let told = problem(post().json(&large).send().await.unwrap(), 413, "too-large").await;
    assert!(told["detail"].as_str().unwrap().contains("200"), "{told}");
    let parts = futures::stream::iter((0..30).map(|_| Ok::<_, std::io::Error>("0123456789".to_owned())));
    let chunked = post().header("content-type", "application/json").body(reqwest::Body::wrap_stream(parts));
    problem(chunked.send().await.unwrap(), 413, "too-large").await;
}

#[tokio::test]
async fn parameters_that_cannot_be_meant() {
    let served = serve().await;
    for path in [
        "/v1/warmups?limit=0",
        "/v1/warmups?limit=1001",
        "/v1/warmups?limit=many",
        "/v1/warmups?cursor=9223372036854775808",
        "/v1/events?after=9223372036854775808",
        "/v1/warmups?state=ASLEEP",
        "/v1/warmups?site=NOT%20A%20SITE",
        "/v1/warmups?sites=gpu-eu",
        "/v1/moves?since=yesterday",
        "/v1/events?after=x",
        "/v1/plans/latest?wait_s=-1",
        "/v1/profiles/%FF",
    ] {
        problem(served.get(Scope::Read, path).await, 400, "bad-parameter").await;
    }
    let header = served.ask(Scope::Read, Method::GET, "/v1/events").header("last-event-id", "abc");
    problem(header.send().await.unwrap(), 400, "bad-parameter").await;
    let told = problem(served.get(Scope::Read, "/v1/warmups?limit=0").await, 400, "bad-parameter").await;
    assert!(told["detail"].as_str().unwrap().contains("limit is 0: give 1 to 1000"), "{told}");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_go_on() {
    let config = Config { burst_requests: 3, rate_requests_per_s: 1, ..Config::default() };
    let served = serve_with(config, in_memory()).await;
    for _ in 0..3 {
        assert!(served.get(Scope::Read, "/v1/switch").await.status().is_success());
    }
    let slowed = served.get(Scope::Read, "/v1/switch").await;
    let after: u64 = slowed.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    problem(slowed, 429, "too-many-requests").await;
    assert!(served.get(Scope::Admin, "/v1/switch").await.status().is_success(), "another token has its own rate");
}
