//! The real probes in the real kernel against what a program says that it did.
//!
//! Needs root; where the kernel refuses, each test says so and why, and passes.

mod reader;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use foretide_collector::{Collector, Config, WatchedVolume, probe::Report};
use foretide_flow::{AccessBatch, AccessOp, NodeId, SiteId, VolumeId};

/// Only one observation at a time: tests share the machine's probes.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn config(dir: &Path) -> Config {
    Config::new(NodeId::new("n1").unwrap(), SiteId::new("s1").unwrap(), dir.join("spool"))
}

fn start(config: Config, roots: &[(&str, &Path)]) -> Option<(Collector, Report)> {
    let watch = roots
        .iter()
        .map(|(name, root)| WatchedVolume { volume: VolumeId::new(name).unwrap(), root: root.to_path_buf() })
        .collect();
    match Collector::start(config, watch) {
        Ok(started) => Some(started),
        Err(error) => {
            println!("SKIPPED, the kernel's probes cannot be used here: {error}");
            None
        }
    }
}

/// Everything until the collector is stopped.
fn stop_and_take(mut collector: Collector) -> Vec<AccessBatch> {
    std::thread::sleep(Duration::from_millis(60));
    collector.stop();
    std::iter::from_fn(|| collector.next_batch(Duration::ZERO).unwrap()).collect()
}

/// How often each byte of each file was read, as steps: offset -> change.
type Coverage = BTreeMap<String, BTreeMap<u64, i64>>;

fn cover(coverage: &mut Coverage, path: &str, offset: u64, length: u64) {
    let steps = coverage.entry(path.to_owned()).or_default();
    for (at, change) in [(offset, 1), (offset + length, -1)] {
        let step = steps.entry(at).or_default();
        *step += change;
        if *step == 0 {
            steps.remove(&at);
        }
    }
}

fn covered(batches: &[AccessBatch], op: AccessOp) -> Coverage {
    let mut coverage = Coverage::new();
    for access in batches.iter().flat_map(|b| &b.accesses).filter(|a| a.op == op) {
        cover(&mut coverage, &access.path.to_string(), access.offset, access.length);
    }
    coverage
}

/// Runs the reader on `dir`, and gives what it says it read.
fn read_by(way: &str, dir: &Path) -> (u32, Coverage) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_reader", "--nocapture", "--test-threads", "1"])
        .env("FORETIDE_TEST_READER", way)
        .env("FORETIDE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    let mut coverage = Coverage::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("did ")) {
        let mut words = line.split(' ');
        let path = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        cover(&mut coverage, path, number(), number());
    }
    (process, coverage)
}

/// The other process: does what `FORETIDE_TEST_READER` names and prints it. Not a test when run by itself.
#[test]
fn the_reader() {
    if let (Ok(way), Some(dir)) = (std::env::var("FORETIDE_TEST_READER"), std::env::var_os("FORETIDE_TEST_DIR")) {
        reader::run(&way, Path::new(&dir));
    }
}

#[test]
fn every_call_that_reads_is_seen_with_its_bytes_and_offsets() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let Some((collector, report)) = start(config(dir.path()), &[("v", &data)]) else { return };
    println!("{report}");
    let (process, did) = read_by("calls", &data);
    let batches = stop_and_take(collector);
    let seen = covered(&batches, AccessOp::Read);
    for (path, steps) in &did {
        assert_eq!(seen.get(path), Some(steps), "{path}");
    }
    assert_eq!(seen, did);
    let losses: u64 = batches.iter().map(|b| b.losses.dropped_events).sum();
    assert_eq!(losses, 0);
    // Threads and forked workers are of one run, which began and ended.
    let starts: Vec<_> = batches.iter().flat_map(|b| &b.started).collect();
    assert_eq!(starts.len(), 1, "{starts:#?}");
    assert!(starts[0].run.as_str().contains(&format!("-{process}-")), "{starts:#?}");
    assert!(batches.iter().flat_map(|b| &b.accesses).all(|a| a.run == starts[0].run));
    let ends: Vec<_> = batches.iter().flat_map(|b| &b.ended).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].run, starts[0].run);
    // Each open has its close.
    let count = |op| batches.iter().flat_map(|b| &b.accesses).filter(|a| a.op == op).count();
    assert!(count(AccessOp::Open) >= did.len() - 1, "opens {}", count(AccessOp::Open));
}

#[test]
fn a_fresh_run_is_told_at_once() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let Some((collector, _)) = start(config(dir.path()), &[("v", &data)]) else { return };
    let mut child =
        Command::new("tail").args(["-f", "-n", "1"]).arg(data.join("pread")).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let batch = collector.next_batch(Duration::from_secs(5)).unwrap().expect("a batch");
    println!("first batch {:?} after the start of the program", began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(batch.started.len(), 1);
    assert!(batch.started[0].command.starts_with("tail -f -n # "), "{}", batch.started[0].command);
    assert!(batch.accesses.iter().any(|a| a.path.to_string() == "pread"));
}

#[test]
fn only_what_lies_below_a_watched_root_is_seen() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    reader::make_files(&inside);
    reader::make_files(&outside);
    let Some((collector, _)) = start(config(dir.path()), &[("v", &inside)]) else { return };
    read_by("calls", &outside);
    // Our own reads are not seen either.
    std::fs::read(inside.join("pread")).unwrap();
    let batches = stop_and_take(collector);
    assert!(batches.iter().all(|b| b.accesses.is_empty()), "{batches:#?}");
}
