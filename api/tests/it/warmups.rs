//! Warm-ups over HTTP: what is taken, what is refused at the door, how one waits.

use std::time::Duration;

use foretide_api::Scope;
use foretide_catalog::WarmupUpdate;
use foretide_flow::{
    AccessBatch, Census, FilePath, Move, MoveCause, Outcome, OutcomeBatch, Timestamp, WarmupId, WarmupState,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::agents::{a_move, plan};
use crate::harness::{Served, begun, node, problem, serve, site};

fn wanted() -> Value {
    json!({ "volume": "images", "paths": ["train"], "site": "gpu-eu", "label": "job 7" })
}

fn in_future(seconds: u64) -> i64 {
    (Timestamp::now() + Duration::from_secs(seconds)).0
}

async fn learn_size(served: &Served, id: &str, bytes: u64) {
    let update = WarmupUpdate { required: Some((bytes, 1)), ..WarmupUpdate::default() };
    served.catalog.update_warmup(&WarmupId::from(id), &update, Timestamp::now()).await.unwrap();
}

/// What the site's store counts, told by its agent.
async fn count(served: &Served, id: &str, sequence: u64, resident_bytes: u64) {
    let batch = OutcomeBatch {
        node: node("gpu-1"),
        site: site("gpu-eu"),
        sequence,
        outcomes: vec![],
        census: vec![Census { warmup: WarmupId::from(id), resident_files: 1, resident_bytes }],
        resident_bytes,
        capacity_bytes: 1 << 30,
    };
    let taken = served.posted(Scope::Agent, "/v1/agent/outcomes", &json!(batch)).await;
    assert_eq!(taken["new"], true);
}

#[tokio::test]
async fn one_asks_sees_and_takes_back() {
    let served = serve().await;
    let mut body = wanted();
    body["need_by"] = json!(in_future(600));
    let response = served.post(Scope::Warm, "/v1/warmups", &body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let taken: Value = response.json().await.unwrap();
    assert_eq!(taken["state"], "QUEUED");
    assert_eq!(taken["request"], body);
    assert_eq!(location, format!("/v1/warmups/{}", taken["id"].as_str().unwrap()));

    assert_eq!(served.got(Scope::Read, &location).await, taken);
    let second = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await;
    let first_page = served.got(Scope::Read, "/v1/warmups?limit=1&site=gpu-eu").await;
    assert_eq!(first_page["items"], json!([second]), "newest first");
    let rest = served.got(Scope::Read, &format!("/v1/warmups?limit=1&cursor={}", first_page["next"])).await;
    assert_eq!(rest, json!({ "items": [taken], "next": null }));
    let none = served.got(Scope::Read, "/v1/warmups?state=READY,MOVING").await;
    assert_eq!(none["items"], json!([]));

    let cancelled = served.ask(Scope::Warm, Method::DELETE, &location).send().await.unwrap();
    assert_eq!(cancelled.json::<Value>().await.unwrap()["state"], "CANCELLED");
    let again = served.ask(Scope::Warm, Method::DELETE, &location).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK, "a second time is no error");
    problem(served.ask(Scope::Warm, Method::DELETE, "/v1/warmups/x").send().await.unwrap(), 404, "not-found").await;
    problem(served.get(Scope::Read, "/v1/warmups/x").await, 404, "not-found").await;
}

#[tokio::test]
async fn what_can_never_be_is_refused_at_the_door() {
    let served = serve().await;
    let past = in_future(0) - 2_000_000;
    for (field, value, kind, named) in [
        ("volume", json!("imgaes"), "unknown-volume", "images"),
        ("site", json!("mars"), "unknown-site", "gpu-eu"),
        ("site", json!("store"), "no-cache", "store"),
        ("paths", json!([]), "no-paths", "paths"),
        ("paths", json!(["../etc"]), "wrong-shape", "../etc"),
        ("need_by", json!(past), "in-the-past", "need_by"),
        ("pin_until", json!(past), "in-the-past", "pin_until"),
        ("label", json!("x".repeat(2000)), "wrong-shape", "label"),
        ("needed_by", json!(1), "wrong-shape", "needed_by"),
        ("expire_at", json!(past), "in-the-past", "expire_at"),
        ("min_fraction", json!(0), "wrong-shape", "min_fraction"),
        ("min_fraction", json!(1.5), "wrong-shape", "min_fraction"),
        ("max_cost", json!(-1), "wrong-shape", "max_cost"),
        ("workload", json!("train"), "wrong-shape", "not several"),
        ("run", json!("trained"), "wrong-shape", "not several"),
        ("globs", json!(["a["]), "wrong-shape", "a["),
        ("globs", json!(vec!["*"; 65]), "wrong-shape", "at most 64"),
        ("except", json!(["train"]), "wrong-shape", "except"),
        ("tags", json!({ "set": "none" }), "refused", "carries these tags"),
        ("priority", json!(101), "wrong-shape", "priority"),
        ("pin_for_s", json!(400 * 86_400), "wrong-shape", "pin_for_s"),
        ("run_after", json!(["w-none"]), "refused", "w-none"),
        ("jurisdictions", json!(["us"]), "refused", "gpu-eu"),
        ("starts", json!({ "p10": 3, "p50": 2, "p90": 9 }), "wrong-shape", "p10 <= p50"),
        ("starts", json!({ "p10": 1, "p50": 2, "p90": 3 }), "in-the-past", "starts.p90"),
        ("labels", json!({ "": "x" }), "wrong-shape", "labels"),
    ] {
        let mut body = wanted();
        body[field] = value;
        let told = problem(served.post(Scope::Warm, "/v1/warmups", &body).await, 422, kind).await;
        assert!(told["detail"].as_str().unwrap().contains(named), "{told}");
    }
    assert_eq!(served.got(Scope::Read, "/v1/warmups").await["items"], json!([]));
}

/// Promise I: the border holds at the door, and the refusal is written down with its rule.
#[tokio::test]
async fn promise_i_data_that_a_rule_forbids_is_refused_by_the_rule_s_name() {
    let served = serve().await;
    let phi = json!({ "volume": "scans", "paths": [""], "site": "gpu-us" });
    let told = problem(served.post(Scope::Warm, "/v1/warmups", &phi).await, 403, "forbidden-by-rule").await;
    assert_eq!(told["rule"], "phi-stays-in-eu");
    let audit = served.got(Scope::Admin, "/v1/audit").await;
    assert_eq!(audit["items"][0]["what"], "warmup.refused");
    assert_eq!(audit["items"][0]["detail"]["rule"], "phi-stays-in-eu");

    let inside = json!({ "volume": "scans", "paths": [""], "site": "gpu-eu" });
    served.posted(Scope::Warm, "/v1/warmups", &inside).await;
    let partly = json!({ "volume": "images", "paths": ["secret/a"], "site": "gpu-us" });
    let taken = served.posted(Scope::Warm, "/v1/warmups", &partly).await;
    assert_eq!(taken["state"], "QUEUED", "a rule that speaks of paths is the planner's, file by file");
}

#[tokio::test]
async fn a_request_sent_twice_counts_once() {
    let served = serve().await;
    let send = |scope, key: &'static str, body: Value| {
        served.ask(scope, Method::POST, "/v1/warmups").header("idempotency-key", key).json(&body).send()
    };
    let first: Value = send(Scope::Warm, "k1", wanted()).await.unwrap().json().await.unwrap();
    let same: Value = send(Scope::Warm, "k1", wanted()).await.unwrap().json().await.unwrap();
    assert_eq!(first, same);
    let mut other = wanted();
    other["paths"] = json!(["test"]);
    problem(send(Scope::Warm, "k1", other.clone()).await.unwrap(), 409, "key-reused").await;
    let elsewhere: Value = send(Scope::Admin, "k1", other).await.unwrap().json().await.unwrap();
    assert_ne!(elsewhere["id"], first["id"], "a key is its caller's own");
    assert_eq!(served.got(Scope::Read, "/v1/warmups").await["items"].as_array().unwrap().len(), 2);
    problem(send(Scope::Warm, "", wanted()).await.unwrap(), 400, "bad-parameter").await;

    let mut soon = wanted();
    soon["need_by"] = json!(Timestamp::now().0 + 300_000);
    let taken: Value = send(Scope::Warm, "k2", soon.clone()).await.unwrap().json().await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let later: Value = send(Scope::Warm, "k2", soon).await.unwrap().json().await.unwrap();
    assert_eq!(later["id"], taken["id"], "a replay is answered after its deadline too");
}

/// Promise C: READY follows the store's count and nothing else, and is taken back when the count falls.
#[tokio::test]
async fn promise_c_one_waits_until_it_is_ready_and_hears_when_it_no_longer_is() {
    let served = serve().await;
    let taken = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await;
    let id = taken["id"].as_str().unwrap().to_owned();
    let at = format!("/v1/warmups/{id}");
    learn_size(&served, &id, 1000).await;
    count(&served, &id, 1, 999).await;
    let partly = served.got(Scope::Read, &at).await;
    assert_eq!((&partly["state"], &partly["resident_bytes"]), (&json!("QUEUED"), &json!(999)));

    let waiting = {
        let request = served.ask(Scope::Read, Method::GET, &format!("{at}?wait_s=50"));
        tokio::spawn(async move { request.send().await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "999 of 1000 bytes are not READY");
    count(&served, &id, 2, 1000).await;
    let ready = waiting.await.unwrap();
    let etag = ready.headers()["etag"].to_str().unwrap().to_owned();
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["state"], "READY");
    assert!(ready["ready_at"].is_i64());

    let unchanged = served.ask(Scope::Read, Method::GET, &at).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    let waiting = {
        let request = served.ask(Scope::Read, Method::GET, &format!("{at}?wait_s=50")).header("if-none-match", &etag);
        tokio::spawn(async move { request.send().await.unwrap() })
    };
    count(&served, &id, 3, 400).await;
    let degraded: Value = waiting.await.unwrap().json().await.unwrap();
    assert_eq!((&degraded["state"], &degraded["resident_bytes"]), (&json!("DEGRADED"), &json!(400)));
}

#[tokio::test]
async fn a_job_that_can_begin_with_a_part_is_told_when_that_is_there() {
    let served = serve().await;
    let mut body = wanted();
    body["min_fraction"] = json!(0.5);
    let id = served.posted(Scope::Warm, "/v1/warmups", &body).await["id"].as_str().unwrap().to_owned();
    learn_size(&served, &id, 1000).await;
    count(&served, &id, 1, 499).await;
    assert_eq!(served.got(Scope::Read, &format!("/v1/warmups/{id}")).await["state"], "QUEUED");
    count(&served, &id, 2, 500).await;
    let partial = served.got(Scope::Read, &format!("/v1/warmups/{id}?wait_s=50")).await;
    assert_eq!((&partial["state"], &partial["resident_bytes"]), (&json!("PARTIAL"), &json!(500)));
    count(&served, &id, 3, 300).await;
    assert_eq!(served.got(Scope::Read, &format!("/v1/warmups/{id}")).await["state"], "DEGRADED");
}

#[tokio::test]
async fn a_hard_end_is_an_end() {
    let served = serve().await;
    let mut body = wanted();
    body["expire_at"] = json!(Timestamp::now().0 + 300_000);
    let id = served.posted(Scope::Warm, "/v1/warmups", &body).await["id"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(350)).await;
    let at = format!("/v1/warmups/{id}");
    assert_eq!(served.got(Scope::Read, &at).await["state"], "EXPIRED");
    let later = served.ask(Scope::Warm, Method::PATCH, &at).json(&json!({ "expire_at": in_future(60) }));
    problem(later.send().await.unwrap(), 409, "conflict").await;
}

#[tokio::test]
async fn other_terms_are_taken_while_it_is_not_over() {
    let served = serve().await;
    let mut body = wanted();
    body["need_by"] = json!(in_future(600));
    let id = served.posted(Scope::Warm, "/v1/warmups", &body).await["id"].as_str().unwrap().to_owned();
    let at = format!("/v1/warmups/{id}");
    let patch = |change: Value| served.ask(Scope::Warm, Method::PATCH, &at).json(&change).send();
    let pin = in_future(900);
    let changed: Value = patch(json!({ "need_by": null, "pin_until": pin })).await.unwrap().json().await.unwrap();
    assert_eq!((&changed["request"]["need_by"], &changed["request"]["pin_until"]), (&Value::Null, &json!(pin)));
    assert_eq!(changed["request"]["label"], "job 7", "what is not named stays");
    problem(patch(json!({ "need_by": 5 })).await.unwrap(), 422, "in-the-past").await;
    problem(patch(json!({ "site": "gpu-us" })).await.unwrap(), 422, "wrong-shape").await;
    served.ask(Scope::Warm, Method::DELETE, &at).send().await.unwrap();
    problem(patch(json!({ "label": "x" })).await.unwrap(), 409, "conflict").await;
    let absent = served.ask(Scope::Warm, Method::PATCH, "/v1/warmups/x").json(&json!({})).send().await.unwrap();
    problem(absent, 404, "not-found").await;
}

#[tokio::test]
async fn the_cost_is_told_before_anything_is_asked_for() {
    let served = serve().await;
    let mut body = wanted();
    body["dry_run"] = json!(true);
    let response = served.post(Scope::Warm, "/v1/warmups", &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let preview: Value = response.json().await.unwrap();
    assert_eq!((&preview["advice"]["bytes"], &preview["advice"]["sites"][0]["site"]), (&json!(1000), &json!("gpu-eu")));
    assert_eq!(served.got(Scope::Read, "/v1/warmups").await["items"], json!([]));
    let phi = json!({ "volume": "scans", "paths": [""], "site": "gpu-us", "dry_run": true });
    problem(served.post(Scope::Warm, "/v1/warmups", &phi).await, 403, "forbidden-by-rule").await;
}

#[tokio::test]
async fn who_names_no_site_gets_the_best_of_those_that_may_be() {
    let served = serve().await;
    let site_of = |body: Value| {
        let served = &served;
        async move { served.posted(Scope::Warm, "/v1/warmups", &body).await["request"]["site"].clone() }
    };
    assert_eq!(site_of(json!({ "volume": "images", "paths": [""] })).await, "gpu-us");
    assert_eq!(site_of(json!({ "volume": "images", "paths": [""], "sites": ["gpu-eu"] })).await, "gpu-eu");
    let nowhere = json!({ "volume": "images", "paths": [""], "sites": ["mars"] });
    problem(served.post(Scope::Warm, "/v1/warmups", &nowhere).await, 422, "unknown-site").await;
    let unseen = json!({ "workload": "nobody", "site": "gpu-eu" });
    problem(served.post(Scope::Warm, "/v1/warmups", &unseen).await, 422, "refused").await;
}

#[tokio::test]
async fn a_wait_ends_with_its_time_and_with_the_server() {
    let served = serve().await;
    let id = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await["id"].as_str().unwrap().to_owned();
    let still = served.got(Scope::Read, &format!("/v1/warmups/{id}?wait_s=1")).await;
    assert_eq!(still["state"], "QUEUED");
    problem(served.get(Scope::Read, &format!("/v1/warmups/{id}?wait_s=61")).await, 400, "bad-parameter").await;

    let request = served.ask(Scope::Read, Method::GET, &format!("/v1/warmups/{id}?wait_s=50"));
    let waiting = tokio::spawn(async move { request.send().await.unwrap().status() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    served.stop.send(true).unwrap();
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    served.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_warm_up_says_why_and_is_not_taken_back() {
    let served = serve().await;
    let id = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await["id"].as_str().unwrap().to_owned();
    let why = "rule secret-stays forbids all 3 files";
    let update = WarmupUpdate { state: Some(WarmupState::Failed), why: Some(why.into()), ..WarmupUpdate::default() };
    served.catalog.update_warmup(&WarmupId::from(id.as_str()), &update, Timestamp::now()).await.unwrap();
    let failed = served.got(Scope::Read, &format!("/v1/warmups/{id}?wait_s=50")).await;
    assert_eq!((&failed["state"], &failed["why"]), (&json!("FAILED"), &json!(why)));
    let cancel = served.ask(Scope::Warm, Method::DELETE, &format!("/v1/warmups/{id}")).send().await.unwrap();
    problem(cancel, 409, "conflict").await;
}

async fn asked(served: &Served, body: Value) -> Value {
    served.posted(Scope::Warm, "/v1/warmups", &body).await["request"].clone()
}

#[tokio::test]
async fn data_is_selected_by_glob_tag_and_run_and_the_request_keeps_what_was_found() {
    let served = serve().await;
    let globbed = asked(&served, json!({ "volume": "images", "globs": ["train/*.tar"], "site": "gpu-eu" })).await;
    assert_eq!((&globbed["paths"], &globbed["globs"]), (&json!([""]), &json!(["train/*.tar"])));

    let tag = |path: &str, set: &str| {
        let body = json!({ "volume": "images", "path": path, "tags": { "set": set } });
        served.ask(Scope::Admin, Method::PUT, "/v1/tags").json(&body).send()
    };
    for (path, set) in [("train", "1"), ("train/old", "0")] {
        assert!(tag(path, set).await.unwrap().status().is_success());
    }
    let by_tag = json!({ "tags": { "set": "1" }, "site": "gpu-eu" });
    let tagged = asked(&served, by_tag.clone()).await;
    assert_eq!(
        (&tagged["volume"], &tagged["paths"], &tagged["except"]),
        (&json!("images"), &json!(["train"]), &json!(["train/old"]))
    );
    tag("train", "2").await.unwrap();
    problem(served.post(Scope::Warm, "/v1/warmups", &by_tag).await, 422, "refused").await;
    let phi = asked(&served, json!({ "tags": { "class": "phi" }, "site": "gpu-eu" })).await;
    assert_eq!((&phi["volume"], &phi["paths"]), (&json!("scans"), &json!([""])), "a volume's own tags count");

    for run in ["trained", "forgotten"] {
        let sequence = if run == "trained" { 1 } else { 2 };
        let batch = AccessBatch { sequence, ..begun(run, "w", Timestamp(1)) };
        served.catalog.record_batch(&batch, run, Timestamp(2)).await.unwrap();
    }
    let read = asked(&served, json!({ "run": "trained", "site": "gpu-eu" })).await;
    assert_eq!((&read["volume"], &read["paths"]), (&json!("images"), &json!(["train/1", "train/2"])));
    for (run, why) in [("forgotten", "no longer kept"), ("never", "has not been seen")] {
        let wanted = json!({ "run": run, "site": "gpu-eu" });
        let told = problem(served.post(Scope::Warm, "/v1/warmups", &wanted).await, 422, "refused").await;
        assert!(told["detail"].as_str().unwrap().contains(why), "{told}");
    }
}

#[tokio::test]
async fn a_jurisdiction_chooses_among_sites() {
    let served = serve().await;
    let anywhere = json!({ "volume": "images", "paths": [""], "jurisdictions": ["eu"] });
    assert_eq!(asked(&served, anywhere).await["site"], "gpu-eu", "though gpu-us is better");
    let nowhere = json!({ "volume": "images", "paths": [""], "jurisdictions": ["jp"] });
    problem(served.post(Scope::Warm, "/v1/warmups", &nowhere).await, 422, "refused").await;
}

#[tokio::test]
async fn a_status_says_what_moved_what_needed_not_and_why_moves_failed() {
    let served = serve().await;
    let id = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await["id"].as_str().unwrap().to_owned();
    let by_it = |name: &str| Move {
        cause: MoveCause::Warmup { warmup: WarmupId::from(id.as_str()) },
        path: FilePath::parse(name).unwrap(),
        ..a_move(name, "gpu-eu")
    };
    served.catalog.put_plan(&plan("p", ["a", "b", "c"].map(by_it).into())).await.unwrap();
    let failed = |id: &str, at: i64| Outcome::Failed { id: id.into(), at: Timestamp(at), why: "link cut".into() };
    let outcomes = vec![
        Outcome::Moved { id: "a".into(), at: Timestamp(5), bytes: 1000, wire_bytes: 300, fallback_bytes: 0 },
        failed("b", 6),
        failed("c", 7),
    ];
    let batch = OutcomeBatch {
        node: node("gpu-1"),
        site: site("gpu-eu"),
        sequence: 1,
        outcomes,
        census: vec![],
        resident_bytes: 1000,
        capacity_bytes: 1 << 30,
    };
    served.posted(Scope::Agent, "/v1/agent/outcomes", &json!(batch)).await;
    let eta = WarmupUpdate { eta: Some(Some(Timestamp::now())), plan: Some("p".into()), ..WarmupUpdate::default() };
    served.catalog.update_warmup(&WarmupId::from(id.as_str()), &eta, Timestamp(8)).await.unwrap();
    let status = served.got(Scope::Read, &format!("/v1/warmups/{id}")).await;
    assert_eq!(status["state"], "MOVING");
    let bytes = [&status["moved_bytes"], &status["wire_bytes"], &status["deduplicated_bytes"]];
    assert_eq!(bytes, [&json!(1000), &json!(300), &json!(700)]);
    assert_eq!(status["failures"], json!([{ "why": "link cut", "moves": 2, "last_path": "c", "last_at": 7 }]));
    assert_eq!(status["plan"], "p");
}

/// A warm-up that served is not remembered as one that nobody wanted.
#[tokio::test]
async fn a_job_that_has_run_releases_its_warm_up() {
    let served = serve().await;
    let mut body = wanted();
    body["pin_for_s"] = json!(3600);
    let id = served.posted(Scope::Warm, "/v1/warmups", &body).await["id"].as_str().unwrap().to_owned();
    learn_size(&served, &id, 1000).await;
    count(&served, &id, 1, 1000).await;
    let hello = json!({ "node": "gpu-1", "site": "gpu-eu", "chunk_address": null, "volumes": [], "probes": [] });
    served.posted(Scope::Agent, "/v1/agent/hello", &hello).await;
    let assigned = || async { served.got(Scope::Agent, "/v1/agent/assignment?node=gpu-1").await["census"].clone() };
    let ready_at = served.got(Scope::Read, &format!("/v1/warmups/{id}")).await["ready_at"].as_i64().unwrap();
    assert_eq!(assigned().await[0]["pin_until"], json!(ready_at + 3_600_000_000), "pinned from READY on");
    let release = || served.ask(Scope::Warm, Method::POST, &format!("/v1/warmups/{id}/release")).send();
    let released: Value = release().await.unwrap().json().await.unwrap();
    assert_eq!((&released["state"], &released["why"]), (&json!("EXPIRED"), &json!("released: its job has run")));
    assert_eq!(assigned().await, json!([]), "its pin ends");
    assert_eq!(release().await.unwrap().status(), StatusCode::OK, "a second time is no error");

    let early = served.posted(Scope::Warm, "/v1/warmups", &wanted()).await["id"].as_str().unwrap().to_owned();
    let early = served.posted(Scope::Warm, &format!("/v1/warmups/{early}/release"), &Value::Null).await;
    assert_eq!(early["state"], "CANCELLED", "nothing was there yet");
    let absent = served.ask(Scope::Warm, Method::POST, "/v1/warmups/x/release").send().await.unwrap();
    problem(absent, 404, "not-found").await;
}
