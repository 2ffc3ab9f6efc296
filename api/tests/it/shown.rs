//! What is written down is shown as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use foretide_api::Scope;
use foretide_flow::{
    AccessBatch, FilePath, Forecast, ForecastId, LeftOut, Losses, Plan, PredictedRead, RunEnd, RunId, TimeWindow,
    Timestamp, WorkloadId,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::agents::{hello, plan_of_one};
use crate::harness::{Served, begun, problem, serve, site, volume};

async fn a_run(served: &Served, name: &str, began: Timestamp, lasted: Duration) {
    let batch = AccessBatch {
        ended: vec![RunEnd { run: RunId::from(name), at: began + lasted }],
        losses: Losses { dropped_events: 3, ..Losses::default() },
        ..begun(name, "train", began)
    };
    served.catalog.record_batch(&batch, "lake/1.parquet", began).await.unwrap();
}

#[tokio::test]
async fn plans_and_moves() {
    let served = serve().await;
    let (first, second) = (plan_of_one("p1", "m1", "gpu-eu"), plan_of_one("p2", "m2", "gpu-us"));
    served.catalog.put_plan(&first).await.unwrap();
    let response = served.get(Scope::Read, "/v1/plans/latest").await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.json::<Value>().await.unwrap(), json!(first));
    let waiting = served.ask(Scope::Read, Method::GET, "/v1/plans/latest?wait_s=50").header("if-none-match", &etag);
    let (next, _) = tokio::join!(waiting.send(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        served.catalog.put_plan(&second).await.unwrap();
    });
    assert_eq!(next.unwrap().json::<Value>().await.unwrap(), json!(second));

    let page = served.got(Scope::Read, "/v1/plans?limit=1").await;
    assert_eq!((&page["items"][0]["id"], &page["items"][0]["bytes"]), (&json!("p2"), &json!(1000)));
    let rest = served.got(Scope::Read, &format!("/v1/plans?cursor={}", page["next"])).await;
    assert_eq!(rest["items"][0]["id"], "p1");
    assert_eq!(served.got(Scope::Read, "/v1/plans/p1").await, json!(first));
    let said = served.got(Scope::Read, "/v1/plans/p1/explain?path=a").await;
    assert_eq!(said, json!({ "plan": "p1", "text": "1 moves, asked about a" }));
    let changes = served.got(Scope::Read, "/v1/plans/p2/changes?since=p1").await;
    assert_eq!((&changes["added"][0]["id"], &changes["removed"][0]["id"]), (&json!("m2"), &json!("m1")));
    problem(served.get(Scope::Read, "/v1/plans/p2/changes?since=gone").await, 404, "not-found").await;

    let moves = served.got(Scope::Read, "/v1/moves?site=gpu-us").await;
    assert_eq!(moves["items"].as_array().unwrap().len(), 1);
    assert_eq!((&moves["items"][0]["id"], &moves["items"][0]["state"]), (&json!("m2"), &json!("planned")));
    let cancelled = served.got(Scope::Read, "/v1/moves?state=cancelled,failed").await;
    assert_eq!(cancelled["items"][0]["id"], "m1");
    let later = second.moves[0].due_at.0 + 1;
    assert_eq!(served.got(Scope::Read, &format!("/v1/moves?since={later}")).await["items"], json!([]));
}

#[tokio::test]
async fn forecasts_with_and_without_their_reads() {
    let served = serve().await;
    let now = Timestamp::now();
    let read = PredictedRead {
        path: "a".parse_path(),
        offset: 0,
        length: 10,
        probability: 0.9,
        window: TimeWindow { p10: now, p50: now, p90: now },
    };
    let forecast = Forecast {
        id: ForecastId::from("f1"),
        workload: WorkloadId::from("train"),
        run: None,
        site: site("gpu-eu"),
        volume: volume("images"),
        made_at: now,
        expires_at: now + Duration::from_secs(60),
        forecaster: "recurrence".into(),
        reason: "came back 5 times".into(),
        reads: vec![read],
    };
    let expired = Forecast { id: ForecastId::from("f0"), expires_at: Timestamp(1), ..forecast.clone() };
    served.catalog.put_forecasts(&[forecast.clone(), expired]).await.unwrap();
    let listed = served.got(Scope::Read, "/v1/forecasts?workload=train").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "what expired holds no longer");
    assert_eq!(listed["items"][0]["reads"], json!([]));
    let full = served.got(Scope::Read, "/v1/forecasts?reads=true").await;
    assert_eq!(full["items"][0], json!(forecast));
    assert_eq!(served.got(Scope::Read, "/v1/forecasts?past=true").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(served.got(Scope::Read, "/v1/forecasts/f1").await, json!(forecast));
}

trait ParsePath {
    fn parse_path(&self) -> foretide_flow::FilePath;
}

impl ParsePath for str {
    fn parse_path(&self) -> foretide_flow::FilePath {
        foretide_flow::FilePath::parse(self).unwrap()
    }
}

#[tokio::test]
async fn runs_with_what_their_reads_met() {
    let served = serve().await;
    let began = Timestamp::now() - Duration::from_secs(100);
    a_run(&served, "r1", began, Duration::from_secs(50)).await;
    let read = |path: &str, found: &str, prefetched: u64, waited_us: u64| {
        json!({ "kind": "read", "run": "r1", "process": 1, "volume": "images", "path": path, "at": began.0 + 5,
                "bytes": 100, "prefetched_bytes": prefetched, "waited_us": waited_us, "found": found, "lead_us": null })
    };
    let batch = json!({
        "node": "gpu-1", "site": "gpu-eu", "sequence": 1, "census": [], "resident_bytes": 10, "capacity_bytes": 100,
        "outcomes": [read("a", "hit", 100, 0), read("b", "late", 100, 1_000_000), read("c", "miss", 0, 4_000_000)],
    });
    served.posted(Scope::Agent, "/v1/agent/outcomes", &batch).await;
    let page = served.got(Scope::Read, "/v1/runs?workload=train").await;
    let run = &page["items"][0];
    assert_eq!((&run["run"], &run["command"]), (&json!("r1"), &json!("train.py --epochs #")));
    assert_eq!((&run["hits"], &run["late"], &run["misses"]), (&json!(1), &json!(1), &json!(1)));
    assert!((run["coverage"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
    assert!((run["stalled_share_at_most"].as_f64().unwrap() - 0.1).abs() < 1e-9, "5 s of 50");
    assert_eq!(served.got(Scope::Read, "/v1/runs?running=true").await["items"], json!([]));

    let metrics = served.get(Scope::Read, "/metrics").await;
    assert_eq!(metrics.status(), StatusCode::OK);
    let text = metrics.text().await.unwrap();
    for line in [
        "foretide_reads_total{site=\"gpu-eu\",found=\"miss\"} 1",
        "foretide_read_bytes_total{site=\"gpu-eu\"} 300",
        "foretide_cache_capacity_bytes{site=\"gpu-eu\"} 100",
        "foretide_events_dropped_total 3",
        "foretide_prefetch_off 0",
        "foretide_http_requests_total{method=\"GET\",route=\"/v1/runs\",status=\"200\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.trim_end().ends_with("# EOF"));
    for metric in metrics_of_the_board() {
        assert!(text.contains(&format!("\n{metric}")), "the Grafana board asks for {metric}, which is not in\n{text}");
    }
}

/// Names of metrics that the Grafana board's expressions ask for.
fn metrics_of_the_board() -> BTreeSet<String> {
    const BOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/foretide.json");
    let board: Value = serde_json::from_str(&std::fs::read_to_string(BOARD).unwrap()).unwrap();
    let targets = board["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
    let words =
        targets.flat_map(|t| t["expr"].as_str().unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let metrics: BTreeSet<String> = words.filter(|w| w.starts_with("foretide_")).map(str::to_owned).collect();
    assert!(metrics.len() > 10, "{metrics:?}");
    metrics
}

#[tokio::test]
async fn sites_and_the_switch() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &["images"])).await;
    let sites = served.got(Scope::Read, "/v1/sites").await;
    assert_eq!(sites["mode"], "enforce");
    let names: Vec<&str> = sites["items"].as_array().unwrap().iter().map(|s| s["site"].as_str().unwrap()).collect();
    assert_eq!(names, ["gpu-eu", "gpu-us", "store"]);
    let store = &sites["items"][2];
    assert_eq!(store["volumes"], json!(["images", "scans"]));
    assert_eq!((store["links_out"].as_array().unwrap().len(), &store["agents"][0]["alive"]), (2, &json!(true)));
    assert_eq!(store["coverage"], Value::Null, "nothing read is no coverage of zero");

    assert_eq!(served.got(Scope::Read, "/v1/switch").await, json!({ "prefetch_off": false }));
    let put = served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": true }));
    assert_eq!(put.send().await.unwrap().json::<Value>().await.unwrap(), json!({ "prefetch_off": true }));
    assert_eq!(served.got(Scope::Read, "/v1/switch").await, json!({ "prefetch_off": true }));
    let audit = served.got(Scope::Admin, "/v1/audit").await;
    assert_eq!((&audit["items"][0]["who"], &audit["items"][0]["what"]), (&json!("admin"), &json!("switch.put")));
    let word = served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": "yes" }));
    problem(word.send().await.unwrap(), 422, "wrong-shape").await;
}

#[tokio::test]
async fn refusals_are_evidence() {
    let served = serve().await;
    let refusal = |path: &str| {
        json!({ "kind": "refused", "volume": "scans", "path": path, "to": "gpu-us", "rule": "phi-stays-in-eu",
                "by": "sender", "at": 5 })
    };
    let batch = json!({
        "node": "store-1", "site": "store", "sequence": 1, "census": [], "resident_bytes": 0, "capacity_bytes": 0,
        "outcomes": [refusal("a"), refusal("b"), refusal("c")],
    });
    served.posted(Scope::Agent, "/v1/agent/outcomes", &batch).await;
    let page = served.got(Scope::Read, "/v1/refusals?limit=2").await;
    assert_eq!((&page["items"][0]["path"], &page["items"][0]["by"]), (&json!("a"), &json!("sender")));
    let rest = served.got(Scope::Read, &format!("/v1/refusals?limit=2&cursor={}", page["next"])).await;
    assert_eq!((&rest["items"][0]["path"], &rest["next"]), (&json!("c"), &Value::Null));
}

#[tokio::test]
async fn what_a_mode_holds_back_is_shown_and_approved_once() {
    let served = serve().await;
    let left = |path: &str, to: &str, why: &str| LeftOut {
        volume: volume("images"),
        path: FilePath::parse(path).unwrap(),
        to: site(to),
        files: 2,
        bytes: 10,
        why: why.into(),
    };
    let left_out =
        vec![left("a", "gpu-eu", "proposed"), left("b", "gpu-us", "proposed"), left("c", "gpu-eu", "no room")];
    let plan = Plan { left_out, ..plan_of_one("p", "m", "gpu-eu") };
    served.catalog.put_plan(&plan).await.unwrap();
    let proposed = served.got(Scope::Read, "/v1/plans/p/proposals").await;
    assert_eq!(proposed["items"].as_array().unwrap().len(), 2, "what does not fit is no proposal");

    let approve = |body: Value| {
        let served = &served;
        async move { served.posted(Scope::Warm, "/v1/plans/p/approve", &body).await["items"].clone() }
    };
    let at_one = approve(json!({ "site": "gpu-eu" })).await;
    assert_eq!((&at_one[0]["request"]["paths"], &at_one[0]["request"]["site"]), (&json!(["a"]), &json!("gpu-eu")));
    assert_eq!(at_one[0]["request"]["label"], "approved of plan p");
    let all = approve(json!({})).await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(all.as_array().unwrap().contains(&at_one[0]), "approved twice, it is one warm-up");
    assert_eq!(served.got(Scope::Read, "/v1/warmups").await["items"].as_array().unwrap().len(), 2);
    let nothing = served.post(Scope::Warm, "/v1/plans/p/approve", &json!({ "path": "c" })).await;
    problem(nothing, 409, "conflict").await;
    problem(served.post(Scope::Warm, "/v1/plans/x/approve", &json!({})).await, 404, "not-found").await;
}

#[tokio::test]
async fn a_mode_is_chosen_while_everything_runs_and_left_to_the_configuration_again() {
    let served = serve().await;
    assert_eq!(served.got(Scope::Read, "/v1/mode").await, json!({ "mode": "enforce", "configured": "enforce" }));
    let choose = |mode: Value| served.ask(Scope::Admin, Method::PUT, "/v1/mode").json(&json!({ "mode": mode })).send();
    assert!(choose(json!("advise")).await.unwrap().status().is_success());
    assert_eq!(served.got(Scope::Read, "/v1/mode").await, json!({ "mode": "advise", "configured": "enforce" }));
    assert_eq!(served.got(Scope::Read, "/v1/policy").await["mode"], "advise");
    assert_eq!(served.got(Scope::Read, "/v1/sites").await["mode"], "advise");
    assert_eq!(served.got(Scope::Admin, "/v1/audit").await["items"][0]["what"], "mode.put");
    assert!(choose(Value::Null).await.unwrap().status().is_success());
    assert_eq!(served.got(Scope::Read, "/v1/mode").await["mode"], "enforce");
    problem(choose(json!("yolo")).await.unwrap(), 422, "wrong-shape").await;
}
