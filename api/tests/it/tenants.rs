//! What one tenant has is not there for another: every route that a tenant's token may call is asked for it.

use foretide_api::Scope;
use foretide_flow::{
    Calendar, ExtentHabit, FilePath, Forecast, LeftOut, Move, MoveCause, OrderHabit, Plan, PredictedRead, Profile,
    Refusal, TimeWindow, Timestamp, WarmupId,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{a_move, plan};
use crate::harness::{Served, begun, problem, serve, site, volume};
use crate::scopes::ROUTES;

/// What the other tenant is answered.
enum Answer {
    /// As for what nobody has.
    NotFound,
    /// As for a volume that nobody has.
    Unknown,
    /// That there is nothing of it to act on.
    Nothing,
    /// A list without it.
    Without,
    /// That this is not for tenants.
    NotTold,
    /// What all share, and nothing of the volume.
    Shared,
}

use Answer::{NotFound, NotTold, Nothing, Shared, Unknown, Without};

/// Method, path as documented, path that asks for what tenant `a` has, body, answer to tenant `b`.
fn asked() -> Vec<(&'static str, &'static str, &'static str, Value, Answer)> {
    let none = || Value::Null;
    vec![
        ("GET", "/metrics", "/metrics", none(), NotTold),
        ("GET", "/v1/warmups", "/v1/warmups", none(), Without),
        ("GET", "/v1/warmups/{id}", "/v1/warmups/w-a", none(), NotFound),
        ("POST", "/v1/warmups", "/v1/warmups", json!({ "volume": "of-a", "paths": [""], "site": "gpu-eu" }), Unknown),
        ("POST", "/v1/warmups/{id}/release", "/v1/warmups/w-a/release", none(), NotFound),
        ("DELETE", "/v1/warmups/{id}", "/v1/warmups/w-a", none(), NotFound),
        ("PATCH", "/v1/warmups/{id}", "/v1/warmups/w-a", json!({ "label": "mine" }), NotFound),
        ("GET", "/v1/plans", "/v1/plans", none(), Shared),
        ("GET", "/v1/plans/latest", "/v1/plans/latest", none(), Shared),
        ("GET", "/v1/plans/{id}", "/v1/plans/p", none(), Shared),
        ("GET", "/v1/plans/{id}/explain", "/v1/plans/p/explain", none(), Shared),
        ("GET", "/v1/plans/{id}/changes", "/v1/plans/p/changes?since=p", none(), Shared),
        ("GET", "/v1/plans/{id}/proposals", "/v1/plans/p/proposals", none(), Without),
        ("POST", "/v1/plans/{id}/approve", "/v1/plans/p/approve", json!({}), Nothing),
        ("GET", "/v1/moves", "/v1/moves", none(), Without),
        ("GET", "/v1/forecasts", "/v1/forecasts", none(), Without),
        ("GET", "/v1/forecasts/{id}", "/v1/forecasts/f-a", none(), NotFound),
        ("GET", "/v1/profiles", "/v1/profiles", none(), Without),
        ("GET", "/v1/profiles/{workload}", "/v1/profiles/train-a", none(), NotFound),
        ("GET", "/v1/runs", "/v1/runs", none(), Without),
        ("GET", "/v1/volumes", "/v1/volumes", none(), Shared),
        ("GET", "/v1/sites", "/v1/sites", none(), Shared),
        ("GET", "/v1/refusals", "/v1/refusals", none(), Without),
        ("GET", "/v1/switch", "/v1/switch", none(), Shared),
        ("GET", "/v1/mode", "/v1/mode", none(), Shared),
        ("GET", "/v1/me", "/v1/me", none(), Shared),
        ("POST", "/v1/announcements", "/v1/announcements", order(), Unknown),
        ("POST", "/v1/advise", "/v1/advise", json!({ "volume": "of-a", "paths": [""] }), Unknown),
        ("POST", "/v1/what-if", "/v1/what-if", json!({}), NotTold),
        ("GET", "/v1/files", "/v1/files", none(), Without),
        ("GET", "/v1/where", "/v1/where?volume=of-a", none(), Unknown),
        ("GET", "/v1/policy", "/v1/policy", none(), Shared),
        ("GET", "/v1/policy/verdicts", "/v1/policy/verdicts?volume=of-a", none(), Unknown),
    ]
}

fn order() -> Value {
    json!({ "volume": "of-a", "site": "gpu-eu", "paths": ["1"], "files_per_second": 1.0 })
}

async fn token(served: &Served, tenant: &str) -> String {
    let wanted = json!({ "name": tenant, "scopes": ["read", "warm"], "tenant": tenant });
    served.posted(Scope::Admin, "/v1/tokens", &wanted).await["secret"].as_str().unwrap().to_owned()
}

/// Everything that there can be of one tenant's volume.
async fn fill(served: &Served) {
    let added = json!({ "name": "of-a", "at": "store", "sources": ["/srv/a"], "tags": { "tenant": "a" } });
    served.posted(Scope::Admin, "/v1/volumes", &added).await;
    let of_a = || volume("of-a");
    let path = |text: &str| FilePath::parse(text).unwrap();
    let warmup = foretide_flow::Warmup::new(
        "w-a".into(),
        foretide_flow::WarmupRequest::new(of_a(), vec![path("1")], site("gpu-eu")),
        Timestamp::now(),
    );
    let catalog = &served.catalog;
    catalog.put_warmup(&warmup, None).await.unwrap();
    let moved =
        Move { volume: of_a(), cause: MoveCause::Warmup { warmup: WarmupId::from("w-a") }, ..a_move("m-a", "gpu-eu") };
    let refusal = Refusal {
        volume: of_a(),
        path: path("2"),
        to: site("gpu-us"),
        rule: "r".into(),
        by: "planner".into(),
        at: Timestamp(1),
    };
    let left_out =
        LeftOut { volume: of_a(), path: path("3"), to: site("gpu-eu"), files: 1, bytes: 1, why: "proposed".into() };
    let plan = Plan { refused: vec![refusal], left_out: vec![left_out], ..plan("p", vec![moved]) };
    catalog.put_plan(&plan).await.unwrap();
    let at = Timestamp::now() + std::time::Duration::from_secs(60);
    let read = PredictedRead {
        path: path("1"),
        offset: 0,
        length: 1,
        probability: 1.0,
        window: TimeWindow { p10: at, p50: at, p90: at },
    };
    let forecast = Forecast {
        id: "f-a".into(),
        workload: "train-a".into(),
        run: None,
        site: site("gpu-eu"),
        volume: of_a(),
        made_at: Timestamp::now(),
        expires_at: at,
        forecaster: "recurrence".into(),
        reason: "comes back".into(),
        reads: vec![read],
    };
    catalog.put_forecasts(&[forecast]).await.unwrap();
    let profile = Profile {
        workload: "train-a".into(),
        command: "train".into(),
        updated_at: Timestamp(1),
        runs: 1,
        accesses: 1,
        volume: Some(of_a()),
        root: FilePath::root(),
        files_per_epoch: 1,
        bytes_per_epoch: 1,
        epochs_per_run: 1.0,
        order: OrderHabit::Unknown,
        extent: ExtentHabit::Unknown,
        bytes_per_second: 1.0,
        readers: 1.0,
        reuse: 0.0,
        templates: vec![],
        calendar: Calendar::default(),
        drawn: None,
    };
    catalog.put_profile(&profile).await.unwrap();
    catalog.record_batch(&begun("run-a", "train-a", Timestamp(1)), "1.parquet", Timestamp(1)).await.unwrap();
    let entry = json!({ "path": "1", "kind": "file", "size": 5, "modified_at": 1, "mode": 420, "uid": 0, "gid": 0, "links": 1, "version": "1" });
    let listing = json!({ "volume": "of-a", "directory": "", "seen_at": 1, "entries": [entry] });
    let hello = json!({ "node": "store-1", "site": "store", "volumes": ["of-a"] });
    served.posted(Scope::Agent, "/v1/agent/hello", &hello).await;
    served.posted(Scope::Agent, "/v1/agent/listings", &json!({ "node": "store-1", "listings": [listing] })).await;
}

#[tokio::test]
async fn what_another_tenant_has_is_not_there() {
    let served = serve().await;
    fill(&served).await;
    let (own, other) = (token(&served, "a").await, token(&served, "b").await);
    let ask = |secret: &str, method: &str, path: &str, body: &Value| {
        let method: Method = method.parse().unwrap();
        let request = served.client.request(method, format!("{}{path}", served.base)).bearer_auth(secret);
        if body.is_null() { request.send() } else { request.json(body).send() }
    };
    for (method, documented, path, body, answer) in asked() {
        let told = ask(&other, method, path, &body).await.unwrap();
        let what = format!("{method} {documented}");
        match answer {
            Nothing => drop(problem(told, 409, "conflict").await),
            NotFound => {
                assert_eq!(told.status(), 404, "{what}");
            }
            Unknown => {
                let told = problem(told, 422, "unknown-volume").await;
                let known = told["detail"].as_str().unwrap().split("known are").nth(1).unwrap().to_owned();
                assert!(!known.contains("of-a"), "{what}: {told}");
            }
            Without => {
                assert_eq!(told.status(), 200, "{what}");
                let told: Value = told.json().await.unwrap();
                assert_eq!(told["items"], json!([]), "{what}");
            }
            NotTold => drop(problem(told, 403, "not-yours").await),
            Shared => {
                assert_eq!(told.status(), 200, "{what}");
                let told = told.text().await.unwrap();
                for secret in ["of-a", "w-a", "m-a", "train-a"] {
                    assert!(!told.contains(secret), "{what} tells of {secret}: {told}");
                }
            }
        }
    }
    // The owner sees all of it, so that the lists above were not empty for another reason.
    for path in ["/v1/warmups", "/v1/moves", "/v1/forecasts", "/v1/profiles", "/v1/runs", "/v1/refusals", "/v1/files"] {
        let told: Value = ask(&own, "GET", path, &Value::Null).await.unwrap().json().await.unwrap();
        assert_eq!(told["items"].as_array().unwrap().len(), 1, "{path}: {told}");
    }
    for path in ["/v1/plans/latest", "/v1/volumes", "/v1/sites"] {
        let told = ask(&own, "GET", path, &Value::Null).await.unwrap().text().await.unwrap();
        assert!(told.contains("of-a"), "{path}: {told}");
    }
    let none = ask(&other, "GET", "/v1/plans", &Value::Null).await.unwrap().json::<Value>().await.unwrap();
    assert_eq!((&none["items"][0]["moves"], &none["items"][0]["refused"]), (&json!(0), &json!(0)), "not even counts");
    let shared = json!({ "volume": "images", "paths": [""], "site": "gpu-eu" });
    assert_eq!(ask(&other, "POST", "/v1/warmups", &shared).await.unwrap().status(), 202, "what nobody owns is shared");
    let by_workload = json!({ "workload": "train-a", "site": "gpu-eu" });
    let told = problem(ask(&other, "POST", "/v1/warmups", &by_workload).await.unwrap(), 422, "refused").await;
    assert!(told["detail"].as_str().unwrap().contains("has not been seen"), "{told}");
}

#[test]
fn every_route_that_a_tenant_may_call_is_in_the_table() {
    let asked: Vec<(&str, &str)> = asked().iter().map(|(method, path, ..)| (*method, *path)).collect();
    // It never ends, and has a test of its own.
    for (method, path, _, scope) in ROUTES.iter().filter(|route| route.1 != "/v1/events") {
        if matches!(scope, Some(Scope::Read | Scope::Warm)) {
            assert!(asked.contains(&(*method, *path)), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_tenant_hears_of_its_own_data_alone() {
    let served = serve().await;
    fill(&served).await;
    let (own, other) = (token(&served, "a").await, token(&served, "b").await);
    let ask = json!({ "volume": "of-a", "paths": ["1"], "site": "gpu-eu" });
    served.posted(Scope::Warm, "/v1/warmups", &ask).await;
    served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": true })).send().await.unwrap();
    let heard = |secret: String| {
        let request = served.client.get(format!("{}/v1/events?after=0", served.base)).bearer_auth(secret);
        async move {
            let mut response = request.send().await.unwrap();
            let mut text = String::new();
            while !text.contains("event: switch") {
                text += &String::from_utf8_lossy(&response.chunk().await.unwrap().expect("the stream goes on"));
            }
            text
        }
    };
    assert!(heard(own).await.contains("of-a"));
    let strange = heard(other).await;
    assert!(!strange.contains("of-a") && !strange.contains("event: agent"), "{strange}");
}

#[tokio::test]
async fn a_tenants_token_is_made_for_reading_and_warming_alone() {
    let served = serve().await;
    for scopes in [json!(["admin"]), json!(["read", "agent"])] {
        let wanted = json!({ "name": "t", "scopes": scopes, "tenant": "a" });
        problem(served.post(Scope::Admin, "/v1/tokens", &wanted).await, 422, "wrong-shape").await;
    }
    let blank = json!({ "name": "t", "scopes": ["read"], "tenant": "a b" });
    problem(served.post(Scope::Admin, "/v1/tokens", &blank).await, 422, "wrong-shape").await;
    let secret = token(&served, "a").await;
    let me = served.client.get(format!("{}/v1/me", served.base)).bearer_auth(secret).send().await.unwrap();
    assert_eq!(me.json::<Value>().await.unwrap()["tenant"], "a");
    let listed = served.got(Scope::Admin, "/v1/tokens").await;
    assert!(listed["items"].as_array().unwrap().iter().any(|t| t["name"] == "a" && t["tenant"] == "a"), "{listed}");
}
