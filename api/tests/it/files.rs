//! Files are found, located and tagged; volumes are added.

use std::time::Duration;

use foretide_api::Scope;
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Found, Listing, Outcome, OutcomeBatch, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{hello, plan_of_one};
use crate::harness::{Served, node, problem, serve, site, volume};

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

fn entry(at: &str, kind: EntryKind, size: u64) -> Entry {
    let version = FileVersion(format!("{size}").into());
    let modified_at = Timestamp(1_000_000 * size as i64);
    Entry { path: path(at), kind, size, modified_at, mode: 0o644, uid: 0, gid: 0, links: 1, version }
}

/// `images:` holds `train/{a.jpg (100 B), b.PNG (200 B)}` and `secret/x.jpg (300 B)`; `a.jpg` was read at `gpu-eu`.
async fn some_files(served: &Served) {
    let listing = |directory: &str, entries| Listing {
        volume: volume("images"),
        directory: path(directory),
        seen_at: Timestamp(1),
        entries,
    };
    let file = |at: &str, size| entry(at, EntryKind::File, size);
    let folder = |at: &str| entry(at, EntryKind::Directory, 0);
    for told in [
        listing("", vec![folder("secret"), folder("train")]),
        listing("train", vec![file("train/a.jpg", 100), file("train/b.PNG", 200)]),
        listing("secret", vec![file("secret/x.jpg", 300)]),
    ] {
        served.catalog.put_listing(&told).await.unwrap();
    }
    let read = Outcome::Read {
        run: None,
        process: 1,
        volume: volume("images"),
        path: path("train/a.jpg"),
        at: Timestamp(5),
        bytes: 100,
        prefetched_bytes: 0,
        waited_us: 0,
        found: Found::Miss,
        lead_us: None,
    };
    let batch = OutcomeBatch {
        node: node("gpu-1"),
        site: site("gpu-eu"),
        sequence: 1,
        outcomes: vec![read],
        census: vec![],
        resident_bytes: 100,
        capacity_bytes: 1000,
    };
    served.catalog.record_outcomes(&batch, Timestamp(6)).await.unwrap();
}

fn paths(found: &Value) -> Vec<&str> {
    let mut paths: Vec<_> = found["items"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn each_condition_finds_its_files() {
    let served = serve().await;
    some_files(&served).await;
    let tagging = json!({ "volume": "images", "path": "train", "tags": { "set": "small", "kind": "photo" } });
    let put = served.ask(Scope::Admin, Method::PUT, "/v1/tags").json(&tagging).send().await.unwrap();
    assert_eq!(put.json::<Value>().await.unwrap(), tagging);
    for (query, found) in [
        ("", vec!["secret/x.jpg", "train/a.jpg", "train/b.PNG"]),
        ("volume=scans", vec![]),
        ("volume=images&below=train", vec!["train/a.jpg", "train/b.PNG"]),
        ("name_part=b.p", vec!["train/b.PNG"]),
        ("suffix=.JPG", vec!["secret/x.jpg", "train/a.jpg"]),
        ("min_bytes=200&max_bytes=250", vec!["train/b.PNG"]),
        ("modified_from=150000000&modified_before=250000000", vec!["train/b.PNG"]),
        ("tags=set=small,kind=photo&suffix=.jpg", vec!["train/a.jpg"]),
        ("tags=set=large", vec![]),
        ("resident_at=gpu-eu", vec!["train/a.jpg"]),
    ] {
        let answer = served.got(Scope::Read, &format!("/v1/files?{query}")).await;
        assert_eq!(paths(&answer), found, "{query}");
    }
    let first = served.got(Scope::Read, "/v1/files?limit=1").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    assert!(first["next"].is_string());
    for bad in ["below=train", "tags=x", "limit=0", "cursor=x", "colour=red"] {
        let refused = served.get(Scope::Read, &format!("/v1/files?{bad}")).await;
        assert!(refused.status().is_client_error(), "{bad}: {}", refused.status());
    }
}

#[tokio::test]
async fn where_says_how_much_is_there_and_why() {
    let served = serve().await;
    some_files(&served).await;
    let at = |answer: &Value, name: &str| -> Value {
        answer["sites"].as_array().unwrap().iter().find(|s| s["site"] == name).unwrap().clone()
    };
    let file = served.got(Scope::Read, "/v1/where?volume=images&path=train/a.jpg").await;
    assert_eq!((&file["files"], &file["bytes"], &file["complete"]), (&json!(1), &json!(100), &json!(true)));
    assert_eq!((&file["source"], at(&file, "store")["why"][0].clone()), (&json!("store"), json!("the source is here")));
    assert_eq!(file["copies"], json!([{ "site": "gpu-eu", "resident_bytes": 100 }]));
    assert_eq!(
        (&at(&file, "gpu-eu")["resident_files"], &at(&file, "gpu-us")["resident_files"]),
        (&json!(1), &json!(0))
    );
    assert!(at(&file, "gpu-us")["why"][0].as_str().unwrap().contains("no read of it is expected"), "{file}");

    let folder = served.got(Scope::Read, "/v1/where?volume=images&path=train").await;
    assert_eq!((&folder["files"], &folder["bytes"]), (&json!(2), &json!(300)));
    assert_eq!(at(&folder, "gpu-eu")["resident_files"], 1);

    let secret = served.got(Scope::Read, "/v1/where?volume=images&path=secret/x.jpg").await;
    assert!(at(&secret, "gpu-us")["why"].to_string().contains("secret-stays"), "{secret}");

    let plan = plan_of_one("p1", "m1", "gpu-us");
    served.catalog.put_plan(&plan).await.unwrap();
    let moved = &plan.moves[0];
    let planned = served.got(Scope::Read, &format!("/v1/where?volume={}", moved.volume)).await;
    assert!(at(&planned, "gpu-us")["why"].to_string().contains("1 moves of"), "{planned}");

    let nothing = served.got(Scope::Read, "/v1/where?volume=images&path=none/here").await;
    assert_eq!((&nothing["bytes"], &nothing["copies"]), (&Value::Null, &json!([])));
    problem(served.get(Scope::Read, "/v1/where?volume=none").await, 422, "unknown-volume").await;
}

#[tokio::test]
async fn bad_tags_are_refused_with_what_is_wrong() {
    let served = serve().await;
    for tags in [json!({ "": "x" }), json!({ "a=b": "x" }), json!({ "a": "x,y" }), json!({ "a": "x".repeat(300) })] {
        let body = json!({ "volume": "images", "tags": tags });
        let refused = served.ask(Scope::Admin, Method::PUT, "/v1/tags").json(&body).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 422, "{body}");
    }
    let body = json!({ "volume": "none", "tags": {} });
    let refused = served.ask(Scope::Admin, Method::PUT, "/v1/tags").json(&body).send().await.unwrap();
    problem(refused, 422, "unknown-volume").await;
}

#[tokio::test]
async fn an_added_volume_reaches_agents_at_once_and_is_served_by_who_says_so() {
    let served = serve().await;
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &[])).await;
    let first = served.ask(Scope::Agent, Method::GET, "/v1/agent/assignment?node=store-1").send().await.unwrap();
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let fleet = first.json::<Value>().await.unwrap()["fleet"].clone();
    let waiting = served
        .ask(Scope::Agent, Method::GET, "/v1/agent/assignment?node=store-1&wait_s=50")
        .header("if-none-match", &etag);
    let wanted = json!({ "name": "late", "at": "store", "sources": ["/data/late", "s3://data/late"], "tags": { "class": "phi" } });
    let (woken, added) = tokio::join!(waiting.send(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        served.posted(Scope::Admin, "/v1/volumes", &wanted).await
    });
    assert_eq!((&added["name"], &added["served_by"]), (&json!("late"), &json!([])));
    let woken: Value = woken.unwrap().json().await.unwrap();
    assert_ne!(woken["fleet"], fleet);
    let to_serve = json!([{ "volume": "late", "sources": ["/data/late", "s3://data/late"] }]);
    assert_eq!(woken["welcome"]["serve"], to_serve, "who names no fleet may have said hello before the change");

    let welcome = served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &[])).await;
    assert_eq!(welcome["serve"], to_serve);
    let elsewhere = served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-eu", &[])).await;
    assert_eq!(elsewhere["serve"], json!([]));
    assert!(elsewhere["topology"]["volume"]["late"].is_object(), "{elsewhere}");
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("store-1", "store", &["late"])).await;
    let all = served.got(Scope::Read, "/v1/volumes").await;
    let late = all["items"].as_array().unwrap().iter().find(|v| v["name"] == "late").unwrap().clone();
    assert_eq!((&late["served_by"], &late["sources"]), (&json!(["store-1"]), &json!(["/data/late", "s3://data/late"])));
    let tags = served.got(Scope::Read, "/v1/where?volume=late").await["tags"].clone();
    assert_eq!(tags, json!({ "class": "phi" }));

    let placed =
        served.posted(Scope::Admin, "/v1/volumes", &json!({ "name": "placed", "sources": ["/data/set"] })).await;
    assert_eq!(placed["at"], "store", "where an agent offers it");

    for (bad, status) in [
        (json!({ "name": "late", "at": "store", "sources": ["/x"] }), 409),
        (json!({ "name": "images", "at": "store", "sources": ["/x"] }), 409),
        (json!({ "name": "new", "at": "mars", "sources": ["/x"] }), 422),
        (json!({ "name": "new", "at": "store", "sources": ["/x", "relative"] }), 422),
        (json!({ "name": "new", "at": "store", "sources": [] }), 422),
        (json!({ "name": "new", "at": "store", "sources": ["/x"], "copies": ["mars"] }), 422),
        (json!({ "name": "new", "at": "store", "sources": ["/x"], "copies": ["store"] }), 422),
        (json!({ "name": "new", "at": "store", "sources": ["/x"], "copies": ["gpu-eu", "gpu-eu"] }), 422),
        (json!({ "name": "new", "sources": ["/nobody/offers/this"] }), 422),
        (json!({ "name": "new/er", "at": "store", "sources": ["/x"] }), 422),
    ] {
        let refused = served.post(Scope::Admin, "/v1/volumes", &bad).await;
        assert_eq!(refused.status().as_u16(), status, "{bad}");
    }
}
