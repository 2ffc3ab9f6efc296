//! A source and two sites: what stands in several files is planned to cross a link once, and what is there in another file
//! crosses no more.

#[allow(dead_code, reason = "a house without a mount")]
mod house;
mod meter;

use std::collections::BTreeMap;
use std::fs;

use foretide_catalog::{SqliteConfig, open_sqlite};
use house::{House, eventually, free_port};
use meter::{Meter, noise};
use serde_json::Value;

/// Bytes that several files have.
const SAME_BYTES: u64 = 3_000_000;
/// Bytes of a file that has them behind some of its own.
const LONGER_BYTES: u64 = SAME_BYTES + 1_000_000;
/// What a chunk may have at most: where what is shared begins, one is cut that is not.
const CHUNK_BYTES: u64 = 256 << 10;
/// Money for a million bytes toward `b`.
const COST_PER_MB: f64 = 1.0;

/// The link toward `b` is slow, so that its moves can be looked at.
const SITES: &str = r#"
    [site.store]
    [site.a]
    cache = "1 GB"
    [site.b]
    cache = "1 GB"
    [[link]]
    from = "store"
    to = "a"
    rate = "1 Gbit/s"
    rtt = "1ms"
    [[link]]
    from = "store"
    to = "b"
    rate = "10 Mbit/s"
    rtt = "1ms"
    cost_per_gb = 1000.0
    [volume.data]
    at = "store"
"#;

/// Has files, or folders of one file, moved to a site; what each cost there as the plan had it.
fn warm(house: &House, site: &str, paths: &[&str]) -> BTreeMap<String, f64> {
    let asked = [&["warm", "ask", "data"], paths, &["--site", site, "--within", "60s", "--json"]].concat();
    let asked: Vec<Value> = serde_json::from_str(&house.foretide(&asked).unwrap()).unwrap();
    let mut costs = BTreeMap::new();
    eventually("it is ready", || {
        for path in paths {
            let planned = house.foretide(&["plan", "explain", path]).unwrap_or_default();
            let there = planned.split("move ").filter(|m| m.contains(&format!(" to {site}\n")));
            let cost = there.filter_map(|m| m.split_once("costs ")?.1.lines().next()?.parse().ok()).next();
            if let Some(cost) = cost {
                costs.entry((*path).to_owned()).or_insert(cost);
            }
        }
        let told = house.foretide(&["warm", "list", "--json"]).unwrap_or_default();
        let told: Vec<Value> = serde_json::from_str(&told).unwrap_or_default();
        told.iter().any(|w| w["id"] == asked[0]["id"] && w["state"] == "READY")
    });
    costs
}

/// Waits until the control plane knows that so many files share something.
fn await_shared(house: &House, files: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let at = SqliteConfig::at(house.at("control/catalog.sqlite"));
    let catalog = runtime.block_on(open_sqlite(&at)).unwrap();
    eventually("the source has told what its files share", || {
        runtime.block_on(catalog.shared(0, 100)).unwrap().len() == files
    });
}

#[test]
fn what_stands_in_several_files_is_planned_to_cross_once() {
    let control_port = free_port();
    let mut house = House::open(&std::env::temp_dir(), control_port, SITES);
    let (same, own) = (noise(1, SAME_BYTES), noise(2, LONGER_BYTES - SAME_BYTES));
    for (name, bytes) in [("one", same.clone()), ("longer", [own, same.clone()].concat()), ("twin", same)] {
        fs::create_dir_all(house.at(&format!("data/{name}"))).unwrap();
        fs::write(house.at(&format!("data/{name}/file")), bytes).unwrap();
    }
    let port = free_port();
    let (store, data) = (Meter::before(port), house.at("data").display().to_string());
    let source = format!(
        "[source]\nlisten = \"127.0.0.1:{port}\"\nadvertise = \"127.0.0.1:{}\"\n[source.volumes]\ndata = \"{data}\"\n",
        store.port
    );
    house.agent("store-1", "store", control_port, &source);
    for site in ["a", "b"] {
        let folder = house.at(&format!("cache-{site}")).display().to_string();
        let cache =
            format!("[cache]\npath = \"{folder}\"\ncapacity = \"1 GB\"\n[cache.mover.client]\nwarm_bytes = 0\n");
        house.agent(&format!("{site}-1"), site, control_port, &cache);
    }

    // Nobody knows what they share before they have been cut.
    warm(&house, "a", &["one/file", "longer/file"]);
    await_shared(&house, 2);
    let before = store.given();
    let costs = warm(&house, "b", &["one", "longer"]);
    let crossed = store.given() - before;
    let once = LONGER_BYTES..LONGER_BYTES + 2 * CHUNK_BYTES;
    assert!(once.contains(&crossed), "{crossed} bytes crossed: once, {once:?}");
    let planned: f64 = costs.values().sum();
    let crossing = LONGER_BYTES as f64 / 1e6 * COST_PER_MB..(LONGER_BYTES + CHUNK_BYTES) as f64 / 1e6 * COST_PER_MB;
    assert!(costs.len() == 2 && crossing.contains(&planned), "{costs:?}: once, {crossing:?}");

    // Of what is there in other files, nothing is planned to cross but the chunk that `one` alone had before: it is not told
    // again so soon. And nothing does, once the file's list of chunks is there.
    warm(&house, "a", &["twin"]);
    await_shared(&house, 3);
    let before = store.given();
    let costs = warm(&house, "b", &["twin"]);
    assert!(costs["twin"] < CHUNK_BYTES as f64 / 1e6 * COST_PER_MB, "{costs:?}");
    let crossed = store.given() - before;
    assert!(crossed < SAME_BYTES / 2, "{crossed} bytes crossed");
}
