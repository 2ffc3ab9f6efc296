//! The real probes in the real kernel against what a program says that it did.
//!
//! Needs root; where the kernel refuses, each test says so and why, and passes. What a file system, a kernel or a
//! missing program does not allow is printed as skipped.

mod reader;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foretide_collector::probe::{ProbeState, Report, Tier};
use foretide_collector::source::{Observation, Replay, Source};
use foretide_collector::{Collector, Config, WatchedVolume};
use foretide_flow::{AccessBatch, AccessOp, Found, NodeId, SiteId, VolumeId};

/// Only one observation at a time: tests share the machine's probes.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn config(dir: &Path) -> Config {
    Config::new(NodeId::new("n1").unwrap(), SiteId::new("s1").unwrap(), dir.join("spool"))
}

fn watch(root: &Path) -> Vec<WatchedVolume> {
    vec![WatchedVolume { volume: VolumeId::new("v").unwrap(), root: root.to_path_buf() }]
}

fn start(config: Config, root: &Path) -> Option<(Collector, Report)> {
    match Collector::start(config, watch(root)) {
        Ok(started) => Some(started),
        Err(error) => {
            println!("SKIPPED, the kernel's probes cannot be used here: {error}");
            None
        }
    }
}

fn loaded(report: &Report, hook: &str) -> bool {
    report.probes.iter().any(|p| p.hook.starts_with(hook) && p.state == ProbeState::Loaded)
}

/// Everything until the collector is stopped.
fn stop_and_take(mut collector: Collector) -> Vec<AccessBatch> {
    std::thread::sleep(Duration::from_millis(60));
    collector.stop();
    std::iter::from_fn(|| collector.next_batch(Duration::ZERO).unwrap()).map(|batch| batch.decode().unwrap()).collect()
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

/// The pages of each file that a coverage touches.
fn pages(coverage: &Coverage) -> BTreeMap<String, BTreeSet<u64>> {
    let mut pages = BTreeMap::<String, BTreeSet<u64>>::new();
    for (path, steps) in coverage {
        let (mut depth, mut since) = (0, 0);
        for (at, change) in steps {
            if depth > 0 {
                pages.entry(path.clone()).or_default().extend(since / 4096..at.div_ceil(4096));
            }
            (depth, since) = (depth + change, *at);
        }
    }
    pages
}

/// This program again, as something else.
fn again(entry: &str, way: &str, dir: &Path) -> Child {
    again_through(Command::new(std::env::current_exe().unwrap()), entry, way, dir)
}

fn again_through(mut command: Command, entry: &str, way: &str, dir: &Path) -> Child {
    command
        .args(["--exact", entry, "--nocapture", "--test-threads", "1"])
        .env("FORETIDE_TEST_WAY", way)
        .env("FORETIDE_TEST_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a reader says that it read; what it could not is printed.
fn told(mut reader: Child) -> (u32, Coverage) {
    let mut coverage = Coverage::new();
    for line in BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap) {
        if line.starts_with("cannot ") {
            println!("SKIPPED: {line}");
        }
        let Some(did) = line.strip_prefix("did ") else { continue };
        let mut words = did.split(' ');
        let path = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        cover(&mut coverage, path, number(), number());
    }
    assert!(reader.wait().unwrap().success());
    (reader.id(), coverage)
}

fn read_by(way: &str, dir: &Path) -> (u32, Coverage) {
    told(again("the_reader", way, dir))
}

fn wait_for_line(child: &mut Child, wanted: &str) {
    let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != wanted {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the other process ended before it said {wanted:?}");
    }
    child.stdout = Some(out.into_inner());
}

/// The other process: does what `FORETIDE_TEST_WAY` names and prints it. Not a test when run by itself.
#[test]
fn the_reader() {
    if let (Ok(way), Some(dir)) = (std::env::var("FORETIDE_TEST_WAY"), std::env::var_os("FORETIDE_TEST_DIR")) {
        reader::run(&way, Path::new(&dir));
    }
}

/// An agent in a process of its own, in trouble as `FORETIDE_TEST_WAY` says; tells at its end how many bytes it saw read,
/// and how many events it says that it lost. Not a test when run by itself.
#[test]
fn the_agent() {
    let Some(dir) = std::env::var_os("FORETIDE_TEST_DIR") else { return };
    let (dir, trouble) = (Path::new(&dir), std::env::var("FORETIDE_TEST_WAY").unwrap_or_default());
    let beside = dir.parent().unwrap();
    let config = match trouble.as_str() {
        "the ring is full" => Config { ring_bytes: 4096, poll_interval_ms: 60_000, ..config(beside) },
        "nobody takes what it saw" => Config { spool_bytes: 8192, ..config(beside) },
        _ => config(beside),
    };
    let (spool, limit) = (config.spool_dir.clone(), config.spool_bytes);
    let observing = start(config, dir);
    if trouble == "the spool cannot be written" {
        // As a disk that is full or gone: nothing can be made there.
        std::fs::rename(&spool, beside.join("gone")).unwrap();
    }
    println!("{}", if observing.is_some() { "\nup" } else { "\nrefused" });
    if trouble == "out of memory" {
        leave_no_memory();
    }
    let _ = std::io::stdin().read_line(&mut String::new());
    if trouble == "the spool cannot be written" {
        std::fs::rename(beside.join("gone"), &spool).unwrap();
    }
    let held = observing.as_ref().map_or(0, |(collector, _)| collector.backlog().1);
    assert!(held <= limit, "{held} bytes wait in a spool of {limit}");
    let batches = observing.map_or(Vec::new(), |(collector, _)| stop_and_take(collector));
    let bytes: u64 = batches.iter().flat_map(|b| &b.accesses).map(|a| a.length).sum();
    let lost: u64 = batches.iter().map(|b| b.losses.dropped_events + b.losses.summarised).sum();
    println!("saw {bytes}\nlost {}", lost > 0);
}

/// From here on this process gets no more memory, as under a limit that is reached.
fn leave_no_memory() {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_DATA, 0, 0).unwrap();
}

/// Compares, and tells the first file that differs.
fn assert_same<T: PartialEq + std::fmt::Debug>(seen: &BTreeMap<String, T>, did: &BTreeMap<String, T>, on: &str) {
    for (path, steps) in did {
        assert_eq!(seen.get(path), Some(steps), "{path} on {on}");
    }
    let more: Vec<_> = seen.keys().filter(|k| !did.contains_key(*k)).collect();
    assert!(more.is_empty(), "seen on {on}, and nobody read it: {more:?}");
}

fn dropped(batches: &[AccessBatch]) -> u64 {
    batches.iter().map(|b| b.losses.dropped_events).sum()
}

#[test]
fn every_call_that_reads_is_seen_with_its_bytes_and_offsets_on_every_file_system() {
    let _alone = alone();
    for kind in volumes::KINDS {
        let Some(volume) = volumes::volume(kind, reader::make_files) else { continue };
        let spool = tempfile::tempdir().unwrap();
        let Some((collector, report)) = start(config(spool.path()), &volume.data) else { return };
        let (process, mut did) = read_by("calls", &volume.data);
        let batches = stop_and_take(collector);
        if !loaded(&report, "io_uring_complete") {
            println!("SKIPPED: reads through io_uring\n{report}");
            did.retain(|path, _| !path.starts_with("uring"));
        }
        assert_same(&covered(&batches, AccessOp::Read), &did, volume.kind);
        assert_eq!(dropped(&batches), 0);
        // Nobody waited inside the call for what was only asked for: that is no hit.
        let asked = |path: &str| path.starts_with("uring") || path.starts_with("aio");
        let reads = batches.iter().flat_map(|b| &b.accesses).filter(|a| a.op == AccessOp::Read);
        assert!(reads.filter(|a| asked(&a.path.to_string())).all(|a| a.found == Found::Unknown));
        // Threads and forked workers are of one run, which began and ended.
        let starts: Vec<_> = batches.iter().flat_map(|b| &b.started).collect();
        assert_eq!(starts.len(), 1, "{starts:#?}");
        assert!(starts[0].run.as_str().contains(&format!("-{process}-")), "{starts:#?}");
        assert!(batches.iter().flat_map(|b| &b.accesses).all(|a| a.run == starts[0].run));
        let ends: Vec<_> = batches.iter().flat_map(|b| &b.ended).collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].run, starts[0].run);
        let count = |op| batches.iter().flat_map(|b| &b.accesses).filter(|a| a.op == op).count();
        assert!(count(AccessOp::Open) >= did.len() - 1, "opens {}", count(AccessOp::Open));
        println!("{}: {} files, {} reads told", volume.kind, did.len(), count(AccessOp::Read));
    }
}

#[test]
fn touches_of_a_mapping_are_told_apart_from_reads_and_cover_what_was_touched() {
    let _alone = alone();
    for kind in volumes::KINDS {
        let Some(volume) = volumes::volume(kind, reader::make_files) else { continue };
        let spool = tempfile::tempdir().unwrap();
        let Some((collector, report)) = start(config(spool.path()), &volume.data) else { return };
        if !loaded(&report, "mm_filemap_fault") && !loaded(&report, "filemap_fault") {
            println!("SKIPPED: touches of mappings\n{report}");
            return;
        }
        let (_, did) = read_by("mmap", &volume.data);
        let batches = stop_and_take(collector);
        assert_eq!(covered(&batches, AccessOp::Read), Coverage::new(), "on {kind}");
        if *kind == "ext4" && loaded(&report, "sched_switch") {
            let waited =
                |a: &&foretide_flow::Access| a.op == AccessOp::Fault && a.found == Found::Miss && a.blocked_us > 0;
            assert!(batches.iter().flat_map(|b| &b.accesses).any(|a| waited(&a)), "no touch waited: {batches:#?}");
        }
        let (seen, did) = (pages(&covered(&batches, AccessOp::Fault)), pages(&did));
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["mmap"], "on {kind}");
        // What lies in memory in large pieces is mapped in such pieces, and later touches are no faults.
        assert!(seen["mmap"].is_superset(&did["mmap"]) || *kind == "tmpfs", "on {kind}: {seen:?}");
        // The kernel maps at most 16 pages around each touch, and none beyond the end of the file.
        assert!(seen["mmap"].len() <= 16 * did["mmap"].len(), "on {kind}: {seen:?}");
        assert!(seen["mmap"].iter().all(|p| p * 4096 < reader::SIZE as u64), "on {kind}: {seen:?}");
    }
}

#[test]
fn the_light_tier_tells_the_pages_of_every_buffered_read() {
    let _alone = alone();
    // Not on FUSE: a page that is brought in alone passes the hook by, and there that happens.
    for kind in ["here", "xfs", "btrfs", "overlay"] {
        let Some(volume) = volumes::volume(kind, reader::make_files) else { continue };
        let spool = tempfile::tempdir().unwrap();
        let light = Config { tier: Tier::Light, ..config(spool.path()) };
        let Some((collector, _)) = start(light, &volume.data) else { return };
        let (_, mut did) = read_by("calls", &volume.data);
        let batches = stop_and_take(collector);
        // Direct reads pass the page cache by; where a file system cannot do them, it does what it likes.
        did.retain(|path, _| !path.contains("direct"));
        // Of a file with several names the page cache knows one.
        let mut seen = pages(&covered(&batches, AccessOp::Read));
        seen.retain(|path, _| !path.contains("direct"));
        if let Some(same) = seen.remove("linked") {
            seen.insert("pread".into(), same);
        }
        assert_same(&seen, &pages(&did), volume.kind);
        assert_eq!(dropped(&batches), 0);
    }
}

#[test]
fn other_views_of_a_directory_give_the_same_files() {
    let _alone = alone();
    for view in ["namespace", "chroot"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        reader::make_files(&data);
        let Some((collector, report)) = start(config(dir.path()), &data) else { return };
        let (_, mut did) = read_by(view, &data);
        if !loaded(&report, "io_uring_complete") {
            did.retain(|path, _| !path.starts_with("uring"));
        }
        assert_same(&covered(&stop_and_take(collector), AccessOp::Read), &did, view);
    }
}

#[test]
fn files_open_before_the_start_renamed_deleted_or_linked_keep_their_right_name() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let mut reader = again("the_reader", "held", &data);
    wait_for_line(&mut reader, "ready");
    let Some((collector, _)) = start(config(dir.path()), &data) else { return };
    std::fs::create_dir(data.join("moved")).unwrap();
    std::fs::rename(data.join("preadv"), data.join("moved/there")).unwrap();
    std::fs::remove_file(data.join("sendfile")).unwrap();
    reader.stdin.take().unwrap().write_all(b"g").unwrap();
    let (_, mut did) = told(reader);
    assert_eq!(did.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(reader::HELD));
    let moved = did.remove("preadv").unwrap();
    did.insert("moved/there".into(), moved);
    let batches = stop_and_take(collector);
    assert_same(&covered(&batches, AccessOp::Read), &did, "names");
}

/// The time that a read was blocked is what a prefetch could have saved.
#[test]
fn a_read_that_waits_for_the_disk_is_a_miss_and_the_next_one_a_hit() {
    let _alone = alone();
    for tier in [Tier::Full, Tier::Light] {
        // On a disk: what tests run on may be memory.
        let Some(volume) = volumes::volume("ext4", reader::make_files) else { return };
        let spool = tempfile::tempdir().unwrap();
        let Some((collector, report)) = start(Config { tier, ..config(spool.path()) }, &volume.data) else { return };
        assert!(loaded(&report, "sched_switch"), "{report}");
        read_by("cold", &volume.data);
        let batches = stop_and_take(collector);
        let reads: Vec<_> =
            batches.iter().flat_map(|b| &b.accesses).filter(|a| a.op == AccessOp::Read && a.length > 0).collect();
        println!("{tier}: {reads:#?}");
        let bytes: u64 = reads.iter().map(|a| a.length).sum();
        assert_eq!(bytes, 2 * reader::COLD_BYTES as u64, "{tier}");
        let (first, last) = (reads[0], reads[reads.len() - 1]);
        assert!(first.found == Found::Miss && first.blocked_us > 0, "{tier}: {first:?}");
        assert!(last.found == Found::Hit && last.blocked_us == 0, "{tier}: {last:?}");
    }
}

#[test]
fn a_fresh_run_is_told_at_once() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let Some((collector, _)) = start(config(dir.path()), &data) else { return };
    let mut child =
        Command::new("tail").args(["-f", "-n", "1"]).arg(data.join("pread")).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let batch = collector.next_batch(Duration::from_secs(5)).unwrap();
    println!("first batch {:?} after the start of the program", began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    let batch = batch.expect("a batch").decode().unwrap();
    assert_eq!(batch.started.len(), 1);
    assert!(batch.started[0].command.starts_with("tail -f -n # "), "{}", batch.started[0].command);
    assert!(batch.accesses.iter().any(|a| a.path.to_string() == "pread"));
}

/// As a batch system starts jobs: the script is a shell's, and no job by itself.
#[test]
fn a_script_is_known_by_what_it_runs() {
    use std::os::unix::fs::PermissionsExt;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\ncat \"$1\"\ntrue\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some((collector, _)) = start(config(dir.path()), &data) else { return };
    let ran = Command::new(&script).arg(data.join("pread")).stdout(Stdio::null()).status().unwrap();
    assert!(ran.success());
    let batches = stop_and_take(collector);
    let commands: Vec<_> = batches.iter().flat_map(|b| &b.started).map(|s| s.command.as_str()).collect();
    assert!(matches!(commands[..], [c] if c.starts_with("cat ")), "{commands:?}");
}

#[test]
fn only_what_lies_below_a_watched_root_is_seen() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    reader::make_files(&inside);
    reader::make_files(&outside);
    let Some((collector, _)) = start(config(dir.path()), &inside) else { return };
    read_by("calls", &outside);
    // Our own reads are not seen either.
    std::fs::read(inside.join("pread")).unwrap();
    let batches = stop_and_take(collector);
    assert!(batches.iter().all(|b| b.accesses.is_empty()), "{batches:#?}");
}

/// Files made, written, renamed and deleted by others are told in order, with their path in the volume.
#[test]
fn changes_below_a_root_are_heard_and_others_are_not() {
    use foretide_collector::changes::{Change, Changes, What};
    for kind in ["here", "xfs", "btrfs", "tmpfs"] {
        let Some(volume) = volumes::volume(kind, |data| std::fs::create_dir_all(data).unwrap()) else { continue };
        let data = &volume.data;
        let (mut changes, deaf) = match Changes::start(&watch(data)) {
            Ok(started) => started,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        assert!(deaf.is_empty(), "{kind}: {deaf:?}");
        std::fs::write(data.with_file_name("outside"), b"x").unwrap();
        std::fs::create_dir(data.join("d")).unwrap();
        std::fs::write(data.join("d/f"), b"x").unwrap();
        std::fs::rename(data.join("d"), data.join("e")).unwrap();
        File::options().append(true).open(data.join("e/f")).unwrap().write_all(b"y").unwrap();
        File::open(data.join("e/f")).unwrap();
        std::fs::rename(data.join("e/f"), data.with_file_name("away")).unwrap();
        std::fs::write(data.join("last"), b"").unwrap();
        std::fs::remove_file(data.join("last")).unwrap();
        let mut heard = Vec::new();
        while heard.last() != Some(&("last".to_owned(), What::Gone, false)) {
            let fresh = changes.next(Duration::from_secs(5)).unwrap();
            assert!(!fresh.is_empty(), "{kind}: nothing more after {heard:?}");
            for change in fresh {
                let Change::Of { path, what, is_directory, .. } = change else { panic!("{change:?}") };
                heard.push((path.to_string(), what, is_directory));
            }
        }
        // A directory is named as it is when it is asked for, and all that happened to one name may come as one.
        let of = |what| heard.iter().filter(|h| h.1 == what).map(|h| h.0.as_str()).collect::<BTreeSet<_>>();
        assert_eq!(of(What::Gone), BTreeSet::from(["d", "e/f", "last"]), "{kind}: {heard:?}");
        assert!(of(What::Appeared).contains("e"), "{kind}: {heard:?}");
        let known = |path: &str| ["d", "d/f", "e", "e/f", "last"].contains(&path);
        assert!(heard.iter().all(|h| known(&h.0)), "{kind}: {heard:?}");
    }
}

/// A ring that holds three events, and nobody who empties it: what is not told is counted, call by call.
#[test]
fn promise_j_calls_that_find_the_ring_full_are_counted_exactly() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let tight = Config { ring_bytes: 4096, poll_interval_ms: 60_000, ..config(dir.path()) };
    let trace = dir.path().join("trace");
    let (mut collector, _) = match Collector::record(tight, watch(&data), &trace) {
        Ok(started) => started,
        Err(error) => return println!("SKIPPED, the kernel's probes cannot be used here: {error}"),
    };
    read_by("scattered", &data);
    collector.stop();
    let mut seen = Vec::new();
    let mut replay = Replay::open(&trace).unwrap();
    while !replay.ended() {
        let before = seen.len();
        replay.poll(&mut seen).unwrap();
        if seen.len() == before {
            break;
        }
    }
    let (mut told, mut lost) = (0, 0);
    for observation in &seen {
        match observation {
            Observation::Extent { calls, length, .. } => {
                assert_eq!(u64::from(*calls) * reader::SCATTERED_BYTES, *length);
                told += u64::from(*calls);
            }
            Observation::Loss { calls, .. } => lost += calls,
            _ => {}
        }
    }
    assert!(lost > reader::SCATTERED / 2 && told > 0, "{told} told, {lost} lost");
    // The one open is in the first filling, which was told or lost as a whole.
    assert!((reader::SCATTERED..=reader::SCATTERED + 1).contains(&(told + lost)), "{told} told, {lost} lost");
}

/// Root is not needed: nothing beside what the documentation names.
#[test]
fn three_capabilities_are_enough_to_observe() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    reader::make_files(&data);
    let Some((whole, _)) = start(config(dir.path()), &data) else { return };
    drop(whole);
    if Command::new("setpriv").arg("--version").output().is_err() {
        return println!("SKIPPED: setpriv is not installed");
    }
    let mut setpriv = Command::new("setpriv");
    setpriv.arg("--bounding-set=-all,+bpf,+perfmon,+dac_read_search").arg(std::env::current_exe().unwrap());
    let mut agent = again_through(setpriv, "the_agent", "", &data);
    wait_for_line(&mut agent, "up");
    read_by("scattered", &data);
    drop(agent.stdin.take());
    wait_for_line(&mut agent, &format!("saw {}", reader::SCATTERED * reader::SCATTERED_BYTES));
    assert!(agent.wait().unwrap().success());
}

/// What may befall an agent, and whether it lives on.
const TROUBLES: [(&str, bool); 6] = [
    ("stopped", true),
    ("killed", false),
    ("out of memory", false),
    ("the ring is full", true),
    ("nobody takes what it saw", true),
    ("the spool cannot be written", true),
];

/// Whatever befalls an agent costs its node nothing but the observation, and what an agent that lives did not keep is
/// counted.
#[test]
fn promise_a_readers_go_on_whatever_befalls_the_agent() {
    let _alone = alone();
    for (trouble, lives) in TROUBLES {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        reader::make_files(&data);
        let timed = || {
            let began = Instant::now();
            let (_, did) = read_by("calls", &data);
            read_by("scattered", &data);
            (began.elapsed(), did)
        };
        let (off, did) = timed();
        let Some(mut agent) = troubled_agent(trouble, &data) else { return };
        let (with, same) = timed();
        assert_eq!(same, did, "{trouble}");
        println!("{trouble}: {with:?}, and {off:?} without an agent");
        assert!(with < off * 5 + Duration::from_secs(2), "{trouble}: {with:?}, and {off:?} without an agent");
        if trouble == "stopped" {
            signal(&agent, nix::sys::signal::Signal::SIGCONT);
        }
        drop(agent.stdin.take());
        let (mut said, mut out) = (String::new(), agent.stdout.take().unwrap());
        std::io::Read::read_to_string(&mut out, &mut said).unwrap();
        assert_eq!(agent.wait().unwrap().success(), lives, "{trouble}: {said}");
        if lives && trouble != "stopped" {
            assert!(said.contains("lost true"), "{trouble}: {said}");
        }
    }
}

/// An agent in such trouble; none where the kernel refuses it.
fn troubled_agent(trouble: &str, data: &Path) -> Option<Child> {
    use nix::sys::signal::Signal;
    let mut agent = again("the_agent", trouble, data);
    let out = agent.stdout.as_mut().unwrap();
    let up = BufReader::with_capacity(1, out).lines().map_while(Result::ok).find(|l| l == "up" || l == "refused");
    if up.as_deref() != Some("up") {
        println!("SKIPPED, the kernel's probes cannot be used here");
        agent.kill().unwrap();
        agent.wait().unwrap();
        return None;
    }
    match trouble {
        "stopped" => signal(&agent, Signal::SIGSTOP),
        "killed" => signal(&agent, Signal::SIGKILL),
        _ => {}
    }
    Some(agent)
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}
