//! Events are carried to those who do not listen.

use std::time::Duration;

use foretide_api::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Served, problem, serve};

async fn throw(served: &Served, off: bool) {
    let put = served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": off }));
    assert!(put.send().await.unwrap().status().is_success());
}

/// Waits until so many messages were carried; the machine may be busy.
async fn carried(served: &Served, messages: usize) -> Vec<Value> {
    for _ in 0..600 {
        let carried = served.post.carried.lock().unwrap().clone();
        if carried.len() >= messages {
            return carried.iter().map(|(_, _, body)| serde_json::from_slice(body).unwrap()).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("fewer than {messages} messages were carried");
}

#[tokio::test]
async fn each_wanted_event_is_carried_once_it_is_taken_and_again_until_then() {
    let served = serve().await;
    throw(&served, true).await;
    let wanted = json!({ "name": "ci", "url": "http://receiver:80/hook", "kinds": ["switch"] });
    let made = served.posted(Scope::Admin, "/v1/webhooks", &wanted).await;
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    problem(served.post(Scope::Admin, "/v1/webhooks", &wanted).await, 409, "conflict").await;

    served.post.answers.lock().unwrap().push(503);
    throw(&served, false).await;
    let warm = json!({ "volume": "images", "paths": [""], "site": "gpu-eu" });
    served.posted(Scope::Warm, "/v1/warmups", &warm).await;
    throw(&served, true).await;
    let bodies = carried(&served, 3).await;
    let told: Vec<(&Value, &Value)> = bodies.iter().map(|b| (&b["id"], &b["body"]["prefetch_off"])).collect();
    let (second, fourth) = (json!(2), json!(4));
    let (off, on) = (json!(false), json!(true));
    assert_eq!(
        told,
        [(&second, &off), (&second, &off), (&fourth, &on)],
        "what came before, and other kinds, are not told"
    );
    {
        let carried = served.post.carried.lock().unwrap();
        assert_eq!(carried[0].0, "http://receiver:80/hook");
        let names: Vec<&str> = carried[0].1.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
        assert_eq!(carried[0].1[0].1, "evt_2");
    }

    let mut listed = served.got(Scope::Admin, "/v1/webhooks").await;
    for _ in 0..100 {
        if listed["items"][0]["delivered"] == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        listed = served.got(Scope::Admin, "/v1/webhooks").await;
    }
    assert_eq!((&listed["items"][0]["delivered"], &listed["items"][0]["dead_letters"]), (&json!(2), &json!([])));
    assert!(!listed.to_string().contains("whsec_"), "a secret is shown once");

    let gone = served.ask(Scope::Admin, Method::DELETE, "/v1/webhooks/ci").send().await.unwrap();
    assert_eq!(gone.status().as_u16(), 204);
    let again = served.ask(Scope::Admin, Method::DELETE, "/v1/webhooks/ci").send().await.unwrap();
    problem(again, 404, "not-found").await;
}

#[tokio::test]
async fn an_address_that_cannot_be_meant_is_refused() {
    let served = serve().await;
    for url in ["", "receiver", "ftp://receiver/", "http://", "http:///x", "https://receiver/", "http://a b/"] {
        let wanted = json!({ "name": "ci", "url": url });
        problem(served.post(Scope::Admin, "/v1/webhooks", &wanted).await, 422, "wrong-shape").await;
    }
}
