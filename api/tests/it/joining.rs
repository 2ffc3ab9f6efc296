//! Nodes that join by a token which is for one of them, and good for once.

use std::time::Duration;

use foretide_api::Scope;
use foretide_flow::Timestamp;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Served, problem, serve};

async fn offered(served: &Served) -> (String, String) {
    let made = served.posted(Scope::Admin, "/v1/joins", &json!({ "node": "gpu-1", "site": "gpu-eu" })).await;
    let (secret, fingerprint) = made["token"].as_str().unwrap().split_once('.').unwrap();
    assert_eq!(fingerprint, "abcd", "the node learns whom to trust");
    (made["name"].as_str().unwrap().to_owned(), secret.to_owned())
}

async fn join(served: &Served, secret: &str, asked: &Value) -> Response {
    served.client.post(format!("{}/v1/agent/join", served.base)).bearer_auth(secret).json(asked).send().await.unwrap()
}

fn gpu_1() -> Value {
    json!({ "node": "gpu-1", "request": "key 1" })
}

#[tokio::test]
async fn a_node_joins_once_by_its_token() {
    let served = serve().await;
    let (name, secret) = offered(&served).await;
    let listed = served.got(Scope::Admin, "/v1/tokens").await;
    assert!(listed["items"].as_array().unwrap().iter().any(|t| t["name"] == *name && t["scopes"] == json!(["join"])));

    let joined = join(&served, &secret, &gpu_1()).await;
    assert_eq!(joined.status().as_u16(), 201);
    let papers: Value = joined.json().await.unwrap();
    let expected = json!({ "node": "gpu-1", "site": "gpu-eu", "certificate": "gpu-1 at gpu-eu by key 1",
                           "authority": "authority", "token": "agents'" });
    assert_eq!(papers, expected);
    let again = problem(join(&served, &secret, &gpu_1()).await, 401, "bad-token").await;
    assert!(again["detail"].as_str().unwrap().contains("once"), "{again}");

    let audit = served.got(Scope::Admin, "/v1/audit").await;
    let deeds: Vec<_> = audit["items"].as_array().unwrap().iter().map(|e| (&e["what"], &e["who"])).collect();
    assert_eq!(deeds, [(&json!("join.offer"), &json!("admin")), (&json!("agent.join"), &json!(name))]);
}

#[tokio::test]
async fn what_is_refused_spends_nothing() {
    let served = serve().await;
    let (_, secret) = offered(&served).await;
    for (asked, status, kind) in [
        (json!({ "node": "gpu-2", "request": "key 2" }), 403, "not-yours"),
        (json!({ "node": "gpu-1", "site": "gpu-us", "request": "key 2" }), 403, "not-yours"),
        (json!({ "node": "gpu-1", "request": "" }), 422, "refused"),
        (json!({ "node": "gpu-1", "request": "x".repeat(20_000) }), 422, "wrong-shape"),
        (json!({ "node": "gpu-1" }), 422, "wrong-shape"),
    ] {
        problem(join(&served, &secret, &asked).await, status, kind).await;
    }
    assert_eq!(join(&served, &secret, &gpu_1()).await.status().as_u16(), 201);
    let nobodys = problem(join(&served, &served.secrets[&Scope::Join], &gpu_1()).await, 403, "not-yours").await;
    assert!(nobodys["detail"].as_str().unwrap().contains("no node"), "{nobodys}");
}

#[tokio::test]
async fn of_many_that_come_at_once_one_joins() {
    let served = serve().await;
    let (_, secret) = offered(&served).await;
    let asked = gpu_1();
    let all = futures::future::join_all((0..20).map(|_| join(&served, &secret, &asked))).await;
    let mut answers: Vec<u16> = all.iter().map(|answer| answer.status().as_u16()).collect();
    answers.sort_unstable();
    assert_eq!((answers[0], answers[1..].iter().all(|status| *status == 401)), (201, true), "{answers:?}");
}

#[tokio::test]
async fn an_offer_ends_and_can_be_taken_back() {
    let served = serve().await;
    let soon = Timestamp::now() + Duration::from_millis(300);
    let short = json!({ "node": "gpu-1", "site": "gpu-eu", "expires_at": soon });
    let made = served.posted(Scope::Admin, "/v1/joins", &short).await;
    let secret = made["token"].as_str().unwrap().split_once('.').unwrap().0.to_owned();
    tokio::time::sleep(Duration::from_millis(400)).await;
    problem(join(&served, &secret, &gpu_1()).await, 401, "bad-token").await;

    let (name, secret) = offered(&served).await;
    let revoked =
        served.ask(Scope::Admin, reqwest::Method::DELETE, &format!("/v1/tokens/{name}")).send().await.unwrap();
    assert_eq!(revoked.status().as_u16(), 204);
    problem(join(&served, &secret, &gpu_1()).await, 401, "bad-token").await;

    let now = Timestamp::now();
    for (wanted, kind) in [
        (json!({ "node": "gpu-1", "site": "mars" }), "unknown-site"),
        (json!({ "node": "gpu-1", "site": "gpu-eu", "expires_at": now - Duration::from_secs(1) }), "in-the-past"),
        (
            json!({ "node": "gpu-1", "site": "gpu-eu", "expires_at": now + Duration::from_secs(8 * 86_400) }),
            "wrong-shape",
        ),
        (json!({ "node": "GPU 1", "site": "gpu-eu" }), "wrong-shape"),
    ] {
        problem(served.post(Scope::Admin, "/v1/joins", &wanted).await, 422, kind).await;
    }
    let plain = json!({ "name": "j", "scopes": ["join"] });
    problem(served.post(Scope::Admin, "/v1/tokens", &plain).await, 422, "wrong-shape").await;
}
