//! A source, a site of two nodes and one beyond it: what is planned to cross once crosses once, and what the others get
//! comes from who has it. All of it over TLS, with certificates of the installation's own.

#[allow(dead_code, reason = "a house without a mount")]
mod house;
mod meter;

use std::process::Command;
use std::{fs, thread};

use house::{House, eventually, free_port};
use meter::{Meter, noise};
use serde_json::Value;

/// Files of the data set.
const FILES: u64 = 20;
/// Bytes of each.
const FILE_BYTES: u64 = 500_000;
/// What connections, names and lists of chunks add to the bytes of files, one part in so many.
const BESIDE: u64 = 20;

/// Sites `a` and `b` buy their bytes dearly from the store; between them they cost nothing.
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
    cost_per_gb = 0.02
    [[link]]
    from = "store"
    to = "b"
    rate = "50 Mbit/s"
    rtt = "1ms"
    cost_per_gb = 0.05
    [[link]]
    from = "a"
    to = "b"
    rate = "1 Gbit/s"
    rtt = "1ms"
    [volume.data]
    at = "store"
"#;

/// What `foretide certify` says that an agent's configuration needs.
fn certified(house: &House, node: &str, site: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
    command.args(["certify", node, "--site", site, "--authority"]).arg(house.at("authority"));
    let done = command.arg("--into").arg(house.at("papers")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn cache(house: &House, node: &str, listen: u16, advertise: u16) -> String {
    let folder = house.at(&format!("cache-{node}")).display().to_string();
    format!(
        "[cache]\npath = \"{folder}\"\ncapacity = \"1 GB\"\nlisten = \"127.0.0.1:{listen}\"\n\
         advertise = \"127.0.0.1:{advertise}\"\n[cache.mover.client]\nwarm_bytes = 0\n"
    )
}

#[test]
fn what_several_sites_and_nodes_want_crosses_the_dear_link_once() {
    let control_port = free_port();
    let mut house = House::open(&std::env::temp_dir(), control_port, SITES);
    fs::create_dir_all(house.at("data")).unwrap();
    for n in 0..FILES {
        fs::write(house.at(&format!("data/{n}")), noise(n + 1, FILE_BYTES)).unwrap();
    }
    let store_port = free_port();
    let store = Meter::before(store_port);
    let data = house.at("data").display().to_string();
    let source = format!(
        "[source]\nlisten = \"127.0.0.1:{store_port}\"\nadvertise = \"127.0.0.1:{}\"\n[source.volumes]\ndata = \"{data}\"\n",
        store.port
    );
    let source = certified(&house, "store-1", "store") + &source;
    house.agent("store-1", "store", control_port, &source);
    let ports = ["a-1", "a-2", "b-1"].map(|node| (node, free_port()));
    let meters = ports.map(|(_, port)| Meter::before(port));
    for ((node, port), meter) in ports.iter().zip(&meters) {
        let parts = certified(&house, node, &node[..1]) + &cache(&house, node, *port, meter.port);
        house.agent(node, &node[..1], control_port, &parts);
    }
    let mut again = Command::new(env!("CARGO_BIN_EXE_foretide"));
    again.args(["certify", "b-1", "--site", "b", "--authority"]).arg(house.at("authority"));
    let told = again.arg("--into").arg(house.at("papers")).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("remove it first"), "no key is written over");
    // Agents hear of each other when they next say hello, which they do at once.
    thread::sleep(std::time::Duration::from_secs(2));
    for site in ["a", "b"] {
        house.foretide(&["warm", "ask", "data", "--site", site, "--within", "15s"]).unwrap();
    }
    eventually("both sites are ready", || {
        let told = house.foretide(&["warm", "list", "--json"]).unwrap_or_default();
        let told: Vec<Value> = serde_json::from_str(&told).unwrap_or_default();
        told.len() == 2 && told.iter().all(|w| w["state"] == "READY")
    });
    let plans = house.foretide(&["plan", "show"]);
    let bytes = FILES * FILE_BYTES;
    let crossed = store.given();
    assert!((bytes..bytes + bytes / BESIDE).contains(&crossed), "{crossed} of {bytes} bytes left the store: {plans:?}");
    let passed_on: u64 = meters.iter().map(Meter::given).sum();
    assert!(passed_on >= bytes, "{passed_on} bytes were passed on by a and b");
}
