//! What agents report and take.

use std::sync::atomic::Ordering;
use std::time::Duration;

use foretide_api::{Assigned, Config, Hello, Scope, Welcome};
use foretide_catalog::in_memory;
use foretide_flow::{
    Assignment, Entry, EntryKind, FilePath, FileVersion, LearnRequest, Listing, Move, MoveCause, MoveId, Plan, PlanId,
    Priority, Timestamp, WarmupId,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Served, node, problem, serve, serve_with, site, topology, volume};

pub fn hello(name: &str, at: &str, volumes: &[&str]) -> Value {
    json!(Hello {
        node: node(name),
        site: site(at),
        chunk_address: Some(format!("{name}:7701")),
        volumes: volumes.iter().map(|v| volume(v)).collect(),
        offers: if at == "store" { vec!["/data".into()] } else { Vec::new() },
        passes_on: false,
        probes: vec!["ebpf".into()],
        clock_ahead_us: Some(1500),
    })
}

pub fn a_move(id: &str, to: &str) -> Move {
    let now = Timestamp::now();
    Move {
        id: MoveId::from(id),
        volume: volume("images"),
        path: FilePath::parse("train/1.jpg").unwrap(),
        offset: 0,
        length: 1000,
        from: site("store"),
        to: site(to),
        start_at: now,
        due_at: now + Duration::from_secs(60),
        keep_until: now + Duration::from_secs(600),
        priority: Priority::Deadline,
        probability: 1.0,
        benefit_s: 0.3,
        cost: 0.0,
        cause: MoveCause::Warmup { warmup: WarmupId::from("w-1") },
        reason: "asked for".into(),
        shared_bytes: 0,
    }
}

pub fn plan(id: &str, moves: Vec<Move>) -> Plan {
    let now = Timestamp::now();
    let horizon = now + Duration::from_secs(3600);
    Plan { id: PlanId::from(id), made_at: now, horizon, moves, refused: vec![], left_out: vec![] }
}

pub fn plan_of_one(id: &str, mv: &str, to: &str) -> Plan {
    plan(id, vec![a_move(mv, to)])
}

async fn assignment(served: &Served, query: &str, etag: Option<&str>) -> (Assignment, String) {
    let mut request = served.ask(Scope::Agent, Method::GET, &format!("/v1/agent/assignment?{query}"));
    if let Some(etag) = etag {
        request = request.header("if-none-match", etag);
    }
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{query}: {}", response.status());
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    (response.json().await.unwrap(), etag)
}

#[tokio::test]
async fn hello_is_answered_with_all_that_an_agent_needs() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &["images", "scans"])).await;
    let body = served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-eu", &[])).await;
    let welcome: Welcome = serde_json::from_value(body).unwrap();
    assert_eq!(welcome.topology, topology());
    assert_eq!(welcome.rules.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["phi-stays-in-eu", "secret-stays"]);
    assert_eq!(welcome.peers.len(), 1, "itself is no peer");
    assert_eq!((welcome.peers[0].chunk_address.as_str(), welcome.peers[0].alive), ("store-1:7701", true));
    assert_eq!((welcome.next.accesses, welcome.prefetch_off), (0, false));
    let sites = served.got(Scope::Read, "/v1/sites").await;
    assert_eq!(sites["items"][0]["agents"][0]["node"], "gpu-1");
}

#[tokio::test]
async fn who_says_which_fleet_it_knows_is_welcomed_anew_when_it_is_another() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-eu", &[])).await;
    let ask = async |query: &str, etag: &str| {
        let path = format!("/v1/agent/assignment?node=gpu-1{query}");
        let answer = served.ask(Scope::Agent, Method::GET, &path).header("if-none-match", etag).send().await.unwrap();
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        (answer.json::<Assigned>().await.unwrap(), etag)
    };
    let (first, etag) = ask("", "").await;
    let known = first.assignment.fleet.clone().unwrap();
    assert_eq!(first.welcome.map(|w| w.topology), Some(topology()), "it knew none");
    assert_eq!(ask(&format!("&fleet={known}"), &etag).await.0.welcome, None, "nothing is new");
    let waiting = format!("&wait_s=30&fleet={known}");
    let ((another, _), ()) = tokio::join!(ask(&waiting, &etag), async {
        served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &["images"])).await;
    });
    let welcome = another.welcome.unwrap();
    assert_eq!(welcome.peers.iter().map(|p| p.node.as_str()).collect::<Vec<_>>(), ["store-1"]);
    assert_ne!(another.assignment.fleet, Some(known));
}

#[tokio::test]
async fn an_agent_that_says_what_cannot_be_is_refused() {
    let served = serve().await;
    for (body, kind, named) in [
        (hello("n", "mars", &[]), "unknown-site", "mars"),
        (hello("n", "store", &["movies"]), "unknown-volume", "movies"),
        (hello("n", "gpu-eu", &["images"]), "refused", "images"),
        (json!({ "node": "n", "site": "store", "chunk_address": "here" }), "refused", "here"),
        (json!({ "node": "n" }), "wrong-shape", "site"),
    ] {
        let told = problem(served.post(Scope::Agent, "/v1/agent/hello", &body).await, 422, kind).await;
        assert!(told["detail"].as_str().unwrap().contains(named), "{told}");
    }
    let told = problem(served.get(Scope::Agent, "/v1/agent/assignment?node=n").await, 404, "not-found").await;
    assert!(told["remedy"].as_str().unwrap().contains("hello"), "{told}");
}

#[tokio::test]
async fn a_copy_is_served_beside_the_source_and_told_apart_from_it() {
    let served = serve().await;
    let wanted = json!({ "name": "late", "at": "store", "sources": ["/data/late"], "copies": ["gpu-eu"] });
    let added = served.posted(Scope::Admin, "/v1/volumes", &wanted).await;
    assert_eq!(added["copies"], json!([{ "at": "gpu-eu", "served_by": [] }]));
    let agent = |node: &str, site: &str| hello(node, site, &["late"]);
    served.posted(Scope::Agent, "/v1/agent/hello", &agent("store-1", "store")).await;
    let mirror = served.posted(Scope::Agent, "/v1/agent/hello", &agent("mirror-1", "gpu-eu")).await;
    assert_eq!(mirror["serve"], json!([{ "volume": "late", "sources": ["/data/late"] }]), "its agents are told, too");
    let elsewhere = served.post(Scope::Agent, "/v1/agent/hello", &agent("n", "gpu-us")).await;
    let told = problem(elsewhere, 422, "refused").await;
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("source is at site store") && detail.contains("copies at gpu-eu"), "{detail}");

    let welcome = served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-us", &[])).await;
    let welcome: Welcome = serde_json::from_value(welcome).unwrap();
    let peers: Vec<_> = welcome.peers.iter().map(|p| (p.node.as_str(), p.volumes.len(), p.copies.len())).collect();
    assert_eq!(peers, [("mirror-1", 0, 1), ("store-1", 1, 0)], "nobody takes a copy for the source");
    assert_eq!(welcome.topology.volumes[&volume("late")].copies, [site("gpu-eu")]);
    let all = served.got(Scope::Read, "/v1/volumes").await;
    let late = all["items"].as_array().unwrap().iter().find(|v| v["name"] == "late").unwrap().clone();
    assert_eq!(late["served_by"], json!(["store-1"]));
    assert_eq!(late["copies"], json!([{ "at": "gpu-eu", "served_by": ["mirror-1"] }]));
    let gpu = served.got(Scope::Read, "/v1/sites").await["items"][0].clone();
    assert_eq!((&gpu["site"], &gpu["volumes"], &gpu["copies"]), (&json!("gpu-eu"), &json!([]), &json!(["late"])));
    let sites = served.got(Scope::Read, "/v1/where?volume=late").await["sites"].clone();
    assert_eq!(sites[0]["why"][0], "a copy is here");

    let warmup = json!({ "volume": "late", "paths": [""], "site": "gpu-eu" });
    let refused = served.post(Scope::Warm, "/v1/warmups", &warmup).await;
    let told = problem(refused, 422, "stands-there").await;
    assert!(told["remedy"].as_str().unwrap().contains("start the job there"), "{told}");

    let wish = LearnRequest { volume: volume("late"), directory: FilePath::root(), recursive: false };
    served.catalog.want_learned(std::slice::from_ref(&wish), 1.0, Timestamp::now()).await.unwrap();
    let (of_the_copy, _) = assignment(&served, "node=mirror-1", None).await;
    assert!(of_the_copy.learn.is_empty(), "names are the source's");
    let (of_the_source, _) = assignment(&served, "node=store-1", None).await;
    assert_eq!(of_the_source.learn, [wish]);
}

#[tokio::test]
async fn access_batches_go_to_their_port_as_they_came() {
    let served = serve_with(Config { accesses_max_bytes: 100, ..Config::default() }, in_memory()).await;
    let send = |path: &str, kind: &str, body: Vec<u8>| {
        served.ask(Scope::Agent, Method::POST, path).header("content-type", kind.to_owned()).body(body).send()
    };
    let (path, parquet) = ("/v1/agent/accesses?node=gpu-1", "application/vnd.apache.parquet");
    let taken: Value = send(path, parquet, b"PAR1".to_vec()).await.unwrap().json().await.unwrap();
    assert_eq!(taken, json!({ "sequence": 1, "accesses": 1, "new": true }));
    let again: Value = send(path, parquet, b"PAR1".to_vec()).await.unwrap().json().await.unwrap();
    assert_eq!(again["new"], false);
    let kept = served.lake.kept();
    problem(send(path, "application/json", b"PAR1".to_vec()).await.unwrap(), 415, "wrong-type").await;
    problem(send(path, parquet, vec![0; 101]).await.unwrap(), 413, "too-large").await;
    problem(send(path, parquet, b"broken".to_vec()).await.unwrap(), 422, "refused").await;
    problem(send(path, parquet, b"of another".to_vec()).await.unwrap(), 403, "not-yours").await;
    let full = send(path, parquet, b"disk full".to_vec()).await.unwrap();
    assert!(full.headers().contains_key("retry-after"));
    problem(full, 503, "unavailable").await;
    problem(send("/v1/agent/accesses", parquet, vec![1]).await.unwrap(), 400, "bad-parameter").await;
    assert_eq!(served.lake.kept(), kept);
}

#[tokio::test]
async fn an_assignment_comes_as_soon_as_there_is_one() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-eu", &[])).await;
    let (first, etag) = assignment(&served, "node=gpu-1", None).await;
    assert!(first.run.is_empty() && first.census.is_empty());

    let query = format!("node=gpu-1&cursor={}&wait_s=50", first.cursor);
    let (waited, _) = tokio::join!(assignment(&served, &query, Some(&etag)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        served.catalog.put_plan(&plan_of_one("p1", "m1", "gpu-eu")).await.unwrap();
    });
    let (with_move, etag) = waited;
    assert_eq!(with_move.run.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["m1"]);
    assert!(with_move.cursor > first.cursor);

    let wanted = json!({ "volume": "images", "paths": ["train"], "site": "gpu-eu" });
    let query = format!("node=gpu-1&cursor={}&wait_s=50", with_move.cursor);
    let (waited, warmup) =
        tokio::join!(assignment(&served, &query, Some(&etag)), served.posted(Scope::Warm, "/v1/warmups", &wanted));
    let (with_census, etag) = waited;
    assert_eq!(json!(with_census.census[0].warmup), warmup["id"]);

    let (waited, _) = tokio::join!(
        assignment(&served, &query, Some(&etag)),
        served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": true })).send()
    );
    let (off, etag_off) = waited;
    assert!(off.prefetch_off, "promise H: the switch reaches the agent at once");
    assert_ne!(etag_off, etag);
    let (lost_answer, _) = assignment(&served, &query, Some(&etag)).await;
    assert!(lost_answer.prefetch_off, "an answer that got lost comes again");

    served.catalog.put_plan(&plan("p2", vec![])).await.unwrap();
    let (cancelled, _) = assignment(&served, &query, Some(&etag_off)).await;
    assert_eq!(cancelled.cancel, [MoveId::from("m1")]);
}

#[tokio::test]
async fn a_source_learns_what_is_wanted_and_tells_it() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &["images"])).await;
    let root = FilePath::root();
    let wish = LearnRequest { volume: volume("images"), directory: root.clone(), recursive: false };
    served.catalog.want_learned(std::slice::from_ref(&wish), 1.0, Timestamp::now()).await.unwrap();
    let (assigned, _) = assignment(&served, "node=store-1", None).await;
    assert_eq!(assigned.learn, [wish]);

    let entry = |name: &str| Entry {
        path: FilePath::parse(name).unwrap(),
        kind: EntryKind::File,
        size: 10,
        modified_at: Timestamp(1),
        mode: 0o644,
        uid: 0,
        gid: 0,
        links: 1,
        version: FileVersion("v1".into()),
    };
    let listing = |entries: Vec<Entry>, of: &str| {
        let seen_at = Timestamp::now();
        let listing = Listing { volume: volume(of), directory: root.clone(), seen_at, entries };
        json!({ "node": "store-1", "listings": [listing] })
    };
    let body = listing(vec![entry("a"), entry("b")], "images");
    let told = served.posted(Scope::Agent, "/v1/agent/listings", &body).await;
    assert_eq!(told, json!({ "added": 2, "changed": 0, "removed": 0 }));
    assert!(served.catalog.entry(&volume("images"), &FilePath::parse("b").unwrap()).await.unwrap().is_some());

    assert_eq!(served.ear.directories.load(Ordering::SeqCst), 1);
    let twice = listing(vec![entry("a"), entry("a")], "images");
    problem(served.post(Scope::Agent, "/v1/agent/listings", &twice).await, 409, "conflict").await;
    let strange = listing(vec![entry("a")], "movies");
    problem(served.post(Scope::Agent, "/v1/agent/listings", &strange).await, 422, "unknown-volume").await;
}

#[tokio::test]
async fn a_source_tells_what_files_share_as_often_as_it_likes() {
    let served = serve().await;
    let told = |path: &str, offsets: &[u64], of: &str| {
        let chunk = |offset: &u64| json!({ "id": "ab".repeat(32), "offset": offset, "length": 10 });
        let chunks: Vec<Value> = offsets.iter().map(chunk).collect();
        json!({ "node": "store-1", "files": [{ "volume": of, "path": path, "version": "v1", "chunks": chunks }] })
    };
    let route = "/v1/agent/shared";
    for _ in 0..2 {
        assert_eq!(served.post(Scope::Agent, route, &told("a", &[0, 20], "images")).await.status(), 204);
    }
    let kept = served.catalog.shared(0, 10).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].file.chunks.iter().map(|c| c.offset).collect::<Vec<_>>(), [0, 20]);
    problem(served.post(Scope::Agent, route, &told("a", &[20, 0], "images")).await, 409, "conflict").await;
    problem(served.post(Scope::Agent, route, &told("", &[0], "images")).await, 409, "conflict").await;
    problem(served.post(Scope::Agent, route, &told("a", &[0], "movies")).await, 422, "unknown-volume").await;
}

#[tokio::test]
async fn a_batch_of_outcomes_sent_twice_counts_once() {
    let served = serve().await;
    let batch = json!({
        "node": "gpu-1", "site": "gpu-eu", "sequence": 1, "census": [], "resident_bytes": 10, "capacity_bytes": 100,
        "outcomes": [{ "kind": "read", "run": null, "process": 1, "volume": "images", "path": "a", "at": 5,
                       "bytes": 10, "prefetched_bytes": 10, "waited_us": 0, "found": "hit", "lead_us": 7 }],
    });
    let path = "/v1/agent/outcomes";
    assert_eq!(served.posted(Scope::Agent, path, &batch).await, json!({ "new": true }));
    assert_eq!(served.posted(Scope::Agent, path, &batch).await, json!({ "new": false }));
    assert_eq!(served.ear.batches.load(Ordering::SeqCst), 1, "the planning loop hears of it once");
    let sites = served.got(Scope::Read, "/v1/sites").await;
    let gpu = &sites["items"][0];
    assert_eq!((&gpu["hits"], &gpu["read_bytes"], &gpu["coverage"]), (&json!(1), &json!(10), &json!(1.0)));
    let mut strange = batch;
    strange["site"] = json!("mars");
    problem(served.post(Scope::Agent, path, &strange).await, 422, "unknown-site").await;
}
