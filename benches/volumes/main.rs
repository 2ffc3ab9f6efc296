//! The part of `make bench-mount` with all processes: from `foretide volume add` on a tree of a million files until a file
//! deep inside has been read through the mount of a site that is 150 ms and 1 Gbit/s away from tree and control plane.
//! `target/bench/volumes.json` gets the rows.

#[path = "../../tests/house/mod.rs"]
mod house;
#[path = "../../mover/mount/benches/mount/link.rs"]
mod link;
#[path = "../../mover/mount/benches/mount/million.rs"]
mod million;
#[path = "../../mover/mount/benches/mount/table.rs"]
#[expect(dead_code, reason = "the mount's own bench uses the rest of it")]
mod table;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use house::House;
use table::{Row, median, show};

const RTT: Duration = Duration::from_millis(150);
const LINK_BITS_PER_S: u64 = 1_000_000_000;
/// Each adds the tree under another name.
const TIMES: usize = 5;
/// Files that may be known when the first one is read, of a million: the directories that lead there and their neighbours.
const KNOWN_MAX: f64 = 100_000.0;

/// Seconds from the command's start until the file has been read.
fn added_and_read(house: &House, tree: &str, name: &str) -> f64 {
    let deep = house.at("mnt").join(name).join(million::deep());
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| house.foretide(&["volume", "add", name, tree, "--at", "storage"]).expect("it is added"));
        while fs::read(&deep).map_or(0, |read| read.len() as u64) != million::DEEP_BYTES {
            assert!(started.elapsed() < Duration::from_secs(60), "it is never read");
            std::thread::sleep(Duration::from_millis(1));
        }
        started.elapsed().as_secs_f64()
    })
}

/// Files of a volume that the control plane knows.
fn known(house: &House, name: &str) -> f64 {
    let told = house.foretide(&["where", name, "--json"]).expect("it answers");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    told["files"].as_f64().expect("a count")
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; there is nothing to test here.
    if std::env::args().any(|a| a == "--test") {
        return ExitCode::SUCCESS;
    }
    if !Path::new("/dev/fuse").exists() || !nix::unistd::geteuid().is_root() {
        eprintln!("this bench mounts: it needs root, and /dev/fuse (`modprobe fuse`)");
        return ExitCode::FAILURE;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tree = million::make(target);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let over_the_link = |port: u16| {
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (link, here) = runtime.block_on(link::Link::start(there));
        link.shape(RTT, LINK_BITS_PER_S);
        here.port()
    };
    let house = House::start(target, &tree, over_the_link);
    let tree = tree.display().to_string();
    let name = |i: usize| format!("million-{i}");
    let times: Vec<f64> = (0..TIMES).map(|i| added_and_read(&house, &tree, &name(i))).collect();
    let known = median((0..TIMES).map(|i| known(&house, &name(i))).collect());
    let bar = |work, ours, unit, bar| {
        let reference_name = "bar";
        Row { work, ours, unit, reference: bar, reference_name, ratio: ours / bar, bar: 1.0, at_least: false }
    };
    let work = "from `volume add` of 1,000,000 files to a file five levels deep, read 150 ms away";
    let rows = [
        bar(work, median(times), "s", 1.0),
        bar("files of it that are known then: the tree is not walked", known, "files", KNOWN_MAX),
    ];
    let json = target.parent().map(|target| target.join("bench/volumes.json"));
    if show(&rows, json.as_deref()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
