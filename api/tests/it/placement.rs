//! Where data is, where it may be, and what a job says that it will read.

use foretide_api::Scope;
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Listing, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Served, node, problem, serve, volume};

fn file(name: &str, size: u64) -> Entry {
    let version = FileVersion("1".into());
    let path = FilePath::parse(name).unwrap();
    let modified_at = Timestamp(5);
    Entry { path, kind: EntryKind::File, size, modified_at, mode: 0o644, uid: 0, gid: 0, links: 1, version }
}

async fn learn(served: &Served) {
    let entries = vec![file("a.jpg", 100), file("b.jpg", 200), file("c.bin", 300)];
    let root = Listing { volume: volume("images"), directory: FilePath::root(), seen_at: Timestamp(9), entries };
    served.catalog.put_listing(&root).await.unwrap();
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn files_are_found_by_name_size_and_residency() {
    let served = serve().await;
    learn(&served).await;
    assert_eq!(names(&served.got(Scope::Read, "/v1/files?suffix=.jpg").await), ["a.jpg", "b.jpg"]);
    assert_eq!(names(&served.got(Scope::Read, "/v1/files?volume=images&min_bytes=150").await), ["b.jpg", "c.bin"]);
    let first = served.got(Scope::Read, "/v1/files?limit=1").await;
    let cursor = first["next"].as_str().unwrap();
    let rest = served.got(Scope::Read, &format!("/v1/files?cursor={cursor}")).await;
    assert_eq!(names(&first).len() + names(&rest).len(), 3);

    let read = json!({ "kind": "read", "run": null, "process": 1, "volume": "images", "path": "a.jpg", "at": 9, "bytes": 100,
                       "prefetched_bytes": 0, "waited_us": 0, "found": "miss", "lead_us": null });
    let batch = json!({ "node": "gpu-1", "site": "gpu-eu", "sequence": 1, "census": [], "resident_bytes": 100,
                        "capacity_bytes": 1000, "outcomes": [read] });
    served.posted(Scope::Agent, "/v1/agent/outcomes", &batch).await;
    let at = served.got(Scope::Read, "/v1/where?volume=images&path=a.jpg").await;
    let copies = json!([{ "site": "gpu-eu", "resident_bytes": 100 }]);
    assert_eq!((&at["source"], &at["bytes"], &at["copies"]), (&json!("store"), &json!(100), &copies));
    let nowhere = served.got(Scope::Read, "/v1/where?volume=images&path=zzz").await;
    assert_eq!((&nowhere["bytes"], &nowhere["copies"]), (&Value::Null, &json!([])));
    assert_eq!(names(&served.got(Scope::Read, "/v1/files?resident_at=gpu-eu").await), ["a.jpg"]);
    problem(served.get(Scope::Read, "/v1/where?volume=nope&path=a").await, 422, "unknown-volume").await;
    problem(served.get(Scope::Read, "/v1/files?below=x").await, 409, "conflict").await;
}

#[tokio::test]
async fn rules_are_shown_and_tried_on_a_file() {
    let served = serve().await;
    let policy = served.got(Scope::Read, "/v1/policy").await;
    assert_eq!((&policy["mode"], &policy["default_effect"]), (&json!("enforce"), &json!("allow")));
    assert_eq!(policy["rules"][0]["name"], "phi-stays-in-eu");
    let verdicts = served.got(Scope::Read, "/v1/policy/verdicts?volume=images&path=secret/x").await;
    let told: Vec<(&str, &str, &Value)> = verdicts["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["site"].as_str().unwrap(), v["effect"].as_str().unwrap(), &v["rule"]))
        .collect();
    let none = Value::Null;
    let rule = json!("secret-stays");
    assert_eq!(told, [("gpu-eu", "allow", &none), ("gpu-us", "deny", &rule), ("store", "allow", &none)]);
    problem(served.get(Scope::Read, "/v1/policy/verdicts?volume=nope").await, 422, "unknown-volume").await;
    problem(served.get(Scope::Read, "/v1/policy/verdicts").await, 400, "bad-parameter").await;
}

#[tokio::test]
async fn sites_are_ranked_for_a_job() {
    let served = serve().await;
    let wanted = json!({ "volume": "images", "paths": [""], "free_accelerators": { "gpu-us": 0 } });
    let advice = served.posted(Scope::Read, "/v1/advise", &wanted).await;
    assert_eq!((&advice["files"], &advice["sites"][0]["possible"]), (&json!(10), &json!(false)));
    for (wanted, kind) in [
        (json!({ "volume": "images", "paths": [] }), "no-paths"),
        (json!({ "paths": [""] }), "wrong-shape"),
        (json!({ "volume": "images", "paths": [""], "sites": ["mars"] }), "unknown-site"),
        (json!({ "workload": "never-seen" }), "refused"),
    ] {
        problem(served.post(Scope::Read, "/v1/advise", &wanted).await, 422, kind).await;
    }
}

#[tokio::test]
async fn an_announced_order_stands_beside_the_forecasts() {
    let served = serve().await;
    learn(&served).await;
    let order = json!({ "site": "gpu-eu", "volume": "images", "paths": ["c.bin", "gone/x.jpg", "a.jpg"], "files_per_second": 2.0,
                        "name": "epoch 3" });
    let taken = served.posted(Scope::Warm, "/v1/announcements", &order).await;
    assert_eq!((&taken["files"], &taken["bytes"], &taken["unknown"]), (&json!(2), &json!(400), &json!(1)));
    let forecast = served.got(Scope::Read, &format!("/v1/forecasts/{}", taken["forecast"].as_str().unwrap())).await;
    assert_eq!((&forecast["forecaster"], &forecast["reads"][0]["path"]), (&json!("announced"), &json!("c.bin")));
    let heard = served.ear.orders.lock().unwrap().clone();
    assert_eq!(json!(heard), json!([forecast]));
    for (field, value, kind) in [
        ("site", json!("store"), "no-cache"),
        ("volume", json!("nope"), "unknown-volume"),
        ("paths", json!([]), "wrong-shape"),
        ("files_per_second", json!(0), "wrong-shape"),
    ] {
        let mut bad = order.clone();
        bad[field] = value;
        problem(served.post(Scope::Warm, "/v1/announcements", &bad).await, 422, kind).await;
    }
}

/// The files that a forecast says, in its order.
async fn told(served: &Served, taken: &Value) -> Vec<String> {
    let forecast = served.got(Scope::Read, &format!("/v1/forecasts/{}", taken["forecast"].as_str().unwrap())).await;
    forecast["reads"].as_array().unwrap().iter().map(|read| read["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_order_is_drawn_from_a_sampler_s_parameters() {
    let served = serve().await;
    learn(&served).await;
    let sampler = json!({ "kind": "distributed", "seed": 1, "epoch": 5, "rank": 1, "world_size": 2 });
    let given = json!({ "site": "gpu-eu", "volume": "images", "files_per_second": 2.0, "sampler": sampler,
                        "paths": ["c.bin", "b.jpg", "a.jpg"] });
    let of_paths = served.posted(Scope::Warm, "/v1/announcements", &given).await;
    // torch.randperm(3) seeded with 6 is [2, 0, 1] and goes on from its front: rank 1 of 2 reads the second and the fourth.
    assert_eq!(told(&served, &of_paths).await, ["c.bin", "a.jpg"]);
    assert_eq!(of_paths["next"], Value::Null);

    let digest = sha256("a.jpg\nb.jpg\nc.bin\n");
    let dataset = json!({ "files": 3, "sha256": digest });
    let mut of_listing = given.clone();
    of_listing["paths"] = json!([]);
    of_listing["dataset"] = dataset.clone();
    of_listing["sampler"]["begins"] = json!([0, 2]);
    let taken = served.posted(Scope::Warm, "/v1/announcements", &of_listing).await;
    assert_eq!(told(&served, &taken).await, ["a.jpg", "c.bin"]);
    of_listing["skip"] = json!(1);
    let rest = served.posted(Scope::Warm, "/v1/announcements", &of_listing).await;
    assert_eq!(told(&served, &rest).await, ["c.bin"]);
    let mut only_pictures = of_listing.clone();
    only_pictures["dataset"] = json!({ "files": 2, "globs": ["*.jpg"] });
    only_pictures["skip"] = json!(0);
    only_pictures["sampler"] = json!({});
    let taken = served.posted(Scope::Warm, "/v1/announcements", &only_pictures).await;
    assert_eq!(told(&served, &taken).await, ["a.jpg", "b.jpg"]);

    let refused = [
        ("sampler", json!({ "begins": [1] }), 409, "conflict"),
        ("dataset", json!({ "files": 4 }), 409, "conflict"),
        ("dataset", json!({ "files": 2 }), 409, "conflict"),
        ("dataset", json!({ "files": 3, "sha256": "0".repeat(64) }), 409, "conflict"),
        ("dataset", json!({ "files": 3, "sha256": "x" }), 422, "wrong-shape"),
        ("dataset", json!({ "files": 3, "globs": ["["] }), 422, "wrong-shape"),
        ("dataset", json!({ "files": 0 }), 422, "wrong-shape"),
        ("sampler", json!({ "kind": "distributed", "rank": 2, "world_size": 2 }), 422, "wrong-shape"),
        ("sampler", Value::Null, 422, "wrong-shape"),
        ("paths", json!(["a.jpg"]), 422, "wrong-shape"),
    ];
    for (field, value, status, kind) in refused {
        let mut bad = of_listing.clone();
        bad[field] = value;
        problem(served.post(Scope::Warm, "/v1/announcements", &bad).await, status, kind).await;
    }
}

#[tokio::test]
async fn a_data_set_that_is_not_known_whole_is_asked_for() {
    let served = serve().await;
    let order = json!({ "site": "gpu-eu", "volume": "images", "files_per_second": 2.0, "sampler": {},
                        "dataset": { "below": "train", "files": 3 } });
    let told = problem(served.post(Scope::Warm, "/v1/announcements", &order).await, 409, "conflict").await;
    assert!(told["detail"].as_str().unwrap().contains("asked for"), "{told}");
    let (node, lease) = (node("store-1"), std::time::Duration::from_secs(60));
    let wishes = served.catalog.take_wishes(&[volume("images")], &node, Timestamp::now(), lease, 9).await.unwrap();
    let asked: Vec<_> = wishes.iter().map(|wish| (wish.directory.to_string(), wish.recursive)).collect();
    assert_eq!(asked, [("train".to_owned(), true)]);
}

#[tokio::test]
async fn what_would_have_been_is_asked_of_the_recordings_within_bounds() {
    let served = serve().await;
    let asked = json!({ "span_s": 60.0, "cache_bytes": 5000, "budget_bytes": 70 });
    let replayed = served.posted(Scope::Read, "/v1/what-if", &asked).await;
    let way = &replayed["ways"][0];
    assert_eq!(
        (&way["ended_s"], &way["peak_cache_bytes"], &way["moved_bytes"]),
        (&json!(60.0), &json!(5000), &json!(70))
    );
    let a_day = served.posted(Scope::Read, "/v1/what-if", &json!({})).await;
    assert_eq!(a_day["ways"][0]["ended_s"], json!(86_400.0));
    for (body, status, kind) in [
        (json!({ "span_s": 0 }), 422, "wrong-shape"),
        (json!({ "span_s": 15.0 * 86_400.0 }), 422, "wrong-shape"),
        (json!({ "link_bits_per_s": 999 }), 422, "wrong-shape"),
        (json!({ "at": "mars" }), 422, "unknown-site"),
        (json!({ "cache_bytes": 10 }), 422, "refused"),
        (json!({ "link_bits_per_s": 1_000_000_000_000_001_u64 }), 422, "wrong-shape"),
        (json!({ "budget_bytes": u64::MAX }), 422, "wrong-shape"),
        (json!({ "cache_bytes": 0 }), 429, "busy"),
    ] {
        problem(served.post(Scope::Read, "/v1/what-if", &body).await, status, kind).await;
    }
}
