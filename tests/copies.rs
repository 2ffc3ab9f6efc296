//! A source, a mirror of it and a site with GPUs: bytes come from the mirror while it has them as the source has them, and
//! from the source where it has not, or is gone.

#[allow(dead_code, reason = "a house without a mount")]
mod house;
mod meter;

use std::fs;

use house::{House, eventually, free_port};
use meter::{Meter, noise};
use serde_json::Value;

/// Files of each set.
const FILES: u64 = 10;
/// Bytes of each.
const FILE_BYTES: u64 = 400_000;
/// What connections, names and manifests come to at most for one set: one part in so many of its bytes.
const BESIDE: u64 = 20;

/// The mirror's link costs nothing.
const SITES: &str = r#"
    [site.store]
    [site.mirror]
    [site.gpu]
    cache = "1 GB"
    [[link]]
    from = "store"
    to = "gpu"
    rate = "1 Gbit/s"
    rtt = "100ms"
    cost_per_gb = 0.05
    [[link]]
    from = "mirror"
    to = "gpu"
    rate = "1 Gbit/s"
    rtt = "1ms"
    [volume.data]
    at = "store"
    copies = ["mirror"]
"#;

/// An agent that serves a folder of the house as the volume `data`.
fn serve(house: &mut House, control_port: u16, (node, site, folder): (&str, &str, &str)) -> Meter {
    let port = free_port();
    let (meter, folder) = (Meter::before(port), house.at(folder).display().to_string());
    let source = format!(
        "[source]\nlisten = \"127.0.0.1:{port}\"\nadvertise = \"127.0.0.1:{}\"\n[source.volumes]\ndata = \"{folder}\"\n",
        meter.port
    );
    house.agent(node, site, control_port, &source);
    meter
}

/// Has a set moved to the GPU site, where it then is as the source has it; what the plan said of it.
fn warm(house: &House, set: &str) -> String {
    let asked = house.foretide(&["warm", "ask", "data", set, "--site", "gpu", "--within", "30s", "--json"]).unwrap();
    let asked: Vec<Value> = serde_json::from_str(&asked).unwrap();
    let mut planned = String::new();
    eventually("the set is ready", || {
        if !planned.contains(" from ") {
            planned = house.foretide(&["plan", "explain", set]).unwrap_or_default();
        }
        let told = house.foretide(&["warm", "list", "--json"]).unwrap_or_default();
        let told: Vec<Value> = serde_json::from_str(&told).unwrap_or_default();
        told.iter().any(|w| w["id"] == asked[0]["id"] && w["state"] == "READY")
    });
    for n in 0..FILES {
        let (here, there) = (house.at(&format!("plain/data/{set}/{n}")), house.at(&format!("data/{set}/{n}")));
        eventually("it is the source's", || fs::read(&here).is_ok_and(|read| read == fs::read(&there).unwrap()));
    }
    planned
}

#[test]
fn bytes_come_from_a_mirror_while_it_has_what_the_source_has() {
    let control_port = free_port();
    let mut house = House::open(&std::env::temp_dir(), control_port, SITES);
    for (number, set) in ["one", "two", "three"].iter().enumerate() {
        for tree in ["data", "copy"] {
            fs::create_dir_all(house.at(&format!("{tree}/{set}"))).unwrap();
            for n in 0..FILES {
                let bytes = noise(1 + number as u64 * FILES + n, FILE_BYTES);
                fs::write(house.at(&format!("{tree}/{set}/{n}")), bytes).unwrap();
            }
        }
    }
    let store = serve(&mut house, control_port, ("store-1", "store", "data"));
    let mirror = serve(&mut house, control_port, ("mirror-1", "mirror", "copy"));
    let (cache, plain) = (house.at("cache").display().to_string(), house.at("plain").display().to_string());
    let gpu = format!(
        "[cache]\npath = \"{cache}\"\ncapacity = \"1 GB\"\nhydrate = \"{plain}\"\n\
         [cache.mover.client]\nwarm_bytes = 0\npatience_s = 1\n"
    );
    house.agent("gpu-1", "gpu", control_port, &gpu);
    let told = house.foretide(&["volume", "list"]).unwrap();
    assert!(told.contains("served by store-1, copy at mirror served by mirror-1"), "{told}");
    let set_bytes = FILES * FILE_BYTES;

    let planned = warm(&house, "one");
    assert!(planned.contains("from mirror to gpu") && !planned.contains("from store"), "{planned}");
    assert!(store.given() < set_bytes / BESIDE, "the source told names and manifests: {}", store.given());
    assert!(mirror.given() >= set_bytes, "and the mirror gave the bytes: {}", mirror.given());

    fs::write(house.at("copy/two/7"), noise(1_000, FILE_BYTES)).unwrap();
    let before = (store.given(), mirror.given());
    warm(&house, "two");
    let given = (store.given() - before.0, mirror.given() - before.1);
    assert!((FILE_BYTES..FILE_BYTES + set_bytes / BESIDE).contains(&given.0), "one file from the source: {given:?}");
    assert!(given.1 >= set_bytes - FILE_BYTES, "and the others from the mirror: {given:?}");

    house.kill("mirror-1");
    let before = store.given();
    warm(&house, "three");
    assert!(store.given() - before >= set_bytes, "all of it from the source");
}
