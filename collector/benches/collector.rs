//! What observing costs, and what it misses: `make bench-collector`.
//!
//! Each row runs the same work with the probes off and on in turn, in a process of its own (the agent does not observe
//! itself), and compares the CPU time of that process; the ratio is the median over the rounds. Prints a table and
//! writes `target/bench/collector.json`.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use foretide_collector::{Collector, Config, WatchedVolume};
use foretide_flow::{AccessBatch, NodeId, SiteId, VolumeId};
use serde::Serialize;

const ROUNDS: usize = 15;
const SMALL_READS: u64 = 200_000;
const JOB_FILES: usize = 4000;
const SEQUENTIAL_BYTES: u64 = 1 << 30;

#[derive(Serialize)]
struct Row {
    work: String,
    ours: f64,
    unit: &'static str,
    reference: f64,
    reference_name: &'static str,
    ratio: f64,
    bar: String,
    holds: bool,
}

/// What a worker measured of itself.
#[derive(Clone, Copy)]
struct Cost {
    cpu_ns: f64,
    wall_ns: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "worker") {
        work(&arguments[at + 1], Path::new(&arguments[at + 2]));
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in(target_dir()).expect("a directory under target");
    match bench(dir.path()) {
        Ok(rows) => report(&rows),
        Err(why) => {
            eprintln!("bench-collector: {why}");
            ExitCode::FAILURE
        }
    }
}

fn target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    fs::create_dir_all(&target).expect("target can be made");
    target.canonicalize().expect("target is there")
}

/// What the worker processes do.
fn work(kind: &str, dir: &Path) {
    let before = usage();
    let began = Instant::now();
    let count = match kind {
        "pread" => small_reads(&dir.join("small")),
        "getppid" => system_calls(),
        "job" => read_files(dir),
        "sequential" => sequential(&dir.join("big")),
        "rate" => steady_rate(&dir.join("small")),
        other => panic!("no work is called {other}"),
    };
    println!("cost {} {} {count}", usage() - before, began.elapsed().as_nanos());
}

fn usage() -> u128 {
    let u = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("own usage");
    let ns = |t: nix::sys::time::TimeVal| t.tv_sec() as u128 * 1_000_000_000 + t.tv_usec() as u128 * 1000;
    ns(u.user_time()) + ns(u.system_time())
}

fn small_reads(path: &Path) -> u64 {
    let (file, mut buffer) = (File::open(path).unwrap(), [0; 4096]);
    for i in 0..SMALL_READS {
        file.read_exact_at(&mut buffer, i % 2048 * 4096).unwrap();
    }
    SMALL_READS
}

fn system_calls() -> u64 {
    for _ in 0..SMALL_READS * 4 {
        // SAFETY: takes nothing and touches nothing.
        std::hint::black_box(unsafe { libc::getppid() });
    }
    SMALL_READS * 4
}

fn read_files(dir: &Path) -> u64 {
    let mut buffer = vec![0; 65_536];
    for i in 0..JOB_FILES {
        let mut file = File::open(dir.join(format!("job/{:02}/f{i:05}", i % 40))).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    }
    JOB_FILES as u64
}

fn sequential(path: &Path) -> u64 {
    let (mut file, mut buffer) = (File::open(path).unwrap(), [0; 4096]);
    let mut calls = 0;
    while file.read(&mut buffer).unwrap() > 0 {
        calls += 1;
    }
    calls
}

/// 100,000 scattered reads a second for three seconds.
fn steady_rate(path: &Path) -> u64 {
    let (file, mut buffer) = (File::open(path).unwrap(), [0; 512]);
    let began = Instant::now();
    for i in 0u64..300_000 {
        file.read_exact_at(&mut buffer, i.wrapping_mul(7919) % 2048 * 4096).unwrap();
        if i % 100 == 0 {
            std::thread::sleep(Duration::from_millis(i / 100).saturating_sub(began.elapsed()));
        }
    }
    300_000
}

fn run(kind: &str, dir: &Path, processes: usize) -> Cost {
    let me = std::env::current_exe().expect("own path");
    let children: Vec<_> = (0..processes)
        .map(|_| Command::new(&me).args(["worker", kind]).arg(dir).stdout(Stdio::piped()).spawn().expect("a worker"))
        .collect();
    let mut sum = Cost { cpu_ns: 0.0, wall_ns: 0.0 };
    for child in children {
        let out = child.wait_with_output().expect("a worker's end");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        assert_eq!(numbers.len(), 3, "worker {kind}: {text}");
        sum.cpu_ns += numbers[0] / numbers[2] / processes as f64;
        sum.wall_ns += numbers[1] / numbers[2] / processes as f64;
    }
    sum
}

fn start(dir: &Path, watched: &str) -> Result<Collector, String> {
    let config = Config::new(NodeId::new("bench").unwrap(), SiteId::new("bench").unwrap(), dir.join("spool"));
    let watch = WatchedVolume { volume: VolumeId::new("bench").unwrap(), root: dir.join(watched) };
    let (collector, _) = Collector::start(config, vec![watch]).map_err(|e| e.to_string())?;
    Ok(collector)
}

/// Everything in the spool, which is empty then.
fn take(collector: &mut Collector) -> Vec<AccessBatch> {
    std::thread::sleep(Duration::from_millis(50));
    collector.stop();
    let batches: Vec<AccessBatch> =
        std::iter::from_fn(|| collector.next_batch(Duration::ZERO).ok().flatten()).collect();
    if let Some(last) = batches.last() {
        let _ = collector.acknowledge(last.sequence);
    }
    batches
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Off and on in turn; medians of both and of the ratio.
fn pairs(kind: &str, dir: &Path, watched: &str, processes: usize, wall: bool) -> Result<(f64, f64, f64), String> {
    let figure = |c: Cost| if wall { c.wall_ns } else { c.cpu_ns };
    run(kind, dir, processes);
    let (mut off, mut on, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = figure(run(kind, dir, processes));
        let mut collector = start(dir, watched)?;
        let with = figure(run(kind, dir, processes));
        take(&mut collector);
        off.push(without);
        on.push(with);
        ratio.push(with / without);
    }
    Ok((median(off), median(on), median(ratio)))
}

fn bench(dir: &Path) -> Result<Vec<Row>, String> {
    make_data(dir).map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    let cost = |work: &str, unit, (off, on, ratio): (f64, f64, f64), bar: f64| Row {
        work: work.into(),
        ours: on,
        unit,
        reference: off,
        reference_name: "off",
        ratio,
        bar: format!("ratio <= {bar}"),
        holds: ratio <= bar,
    };
    rows.push(cost("2 processes, 4,000 files, CPU a file", "ns", pairs("job", dir, "data", 2, false)?, 1.05));
    rows.push(cost("cached 4 KiB pread, watched, CPU", "ns", pairs("pread", dir, "data", 1, false)?, 1.25));
    rows.push(cost("cached 4 KiB pread, not watched, CPU", "ns", pairs("pread", dir, "other", 1, false)?, 1.25));
    rows.push(cost("getppid, CPU", "ns", pairs("getppid", dir, "other", 1, false)?, 1.8));
    rows.extend(exactness(dir)?);
    rows.extend(agent(dir)?);
    Ok(rows)
}

fn make_data(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir.join("other"))?;
    let data = dir.join("data");
    for i in 0..40 {
        fs::create_dir_all(data.join(format!("job/{i:02}")))?;
    }
    let bytes = vec![7u8; 200 << 10];
    for i in 0..JOB_FILES {
        fs::write(data.join(format!("job/{:02}/f{i:05}", i % 40)), &bytes[..(100 << 10) + i * 25])?;
    }
    fs::write(data.join("small"), vec![3u8; 8 << 20])?;
    let big = File::create(data.join("big"))?;
    big.set_len(SEQUENTIAL_BYTES)?;
    for name in ["small", "big", "job"] {
        // Workers are given the directory above, so that the same files can be watched or not.
        std::os::unix::fs::symlink(data.join(name), dir.join(name))?;
    }
    Ok(())
}

/// Rows about what was told.
fn exactness(dir: &Path) -> Result<Vec<Row>, String> {
    let mut collector = start(dir, "data")?;
    run("sequential", dir, 1);
    let batches = take(&mut collector);
    let extents = batches.iter().map(|b| b.accesses.iter().filter(|a| a.length > 0).count()).sum::<usize>() as f64;
    let bytes = batches.iter().flat_map(|b| &b.accesses).map(|a| a.length).sum::<u64>();
    let calls = (SEQUENTIAL_BYTES / 4096) as f64;
    let mut rows = vec![Row {
        work: "1 GiB in 4 KiB reads: accesses told".into(),
        ours: extents,
        unit: "accesses",
        reference: calls,
        reference_name: "calls",
        ratio: extents / calls,
        bar: "<= 100, all bytes told".into(),
        holds: extents <= 100.0 && bytes == SEQUENTIAL_BYTES,
    }];
    let mut collector = start(dir, "data")?;
    let processes = std::thread::available_parallelism().map_or(2, usize::from);
    let cost = run("pread", dir, processes);
    let batches = take(&mut collector);
    let told: u64 = batches.iter().flat_map(|b| &b.accesses).map(|a| a.length / 4096).sum();
    let lost: u64 = batches.iter().map(|b| b.losses.dropped_events + b.losses.unresolved).sum();
    let done = SMALL_READS * processes as u64;
    rows.push(Row {
        work: format!("reads lost at {:.2} M reads/s", processes as f64 * 1e3 / cost.wall_ns),
        ours: lost as f64,
        unit: "calls",
        reference: done as f64,
        reference_name: "calls made",
        ratio: lost as f64 / done as f64,
        bar: "0, all told".into(),
        holds: lost == 0 && told == done,
    });
    Ok(rows)
}

/// Rows about the agent itself, in a process with nothing else in it: this one.
fn agent(dir: &Path) -> Result<Vec<Row>, String> {
    let mut collector = start(dir, "data")?;
    let (before, began) = (usage(), Instant::now());
    run("rate", dir, 1);
    let share = (usage() - before) as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    let memory = memory_bytes() / 1e6;
    take(&mut collector);
    let row = |work: &str, ours: f64, unit, bar: f64| Row {
        work: work.into(),
        ours,
        unit,
        reference: bar,
        reference_name: "bar",
        ratio: ours / bar,
        bar: format!("<= {bar} {unit}"),
        holds: ours <= bar,
    };
    Ok(vec![
        row("agent at 100 k scattered reads/s, CPU", share, "% of a core", 3.0),
        row("agent at 100 k scattered reads/s, memory", memory, "MB", 40.0),
    ])
}

fn memory_bytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|p| p.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}

fn report(rows: &[Row]) -> ExitCode {
    println!("{:46} {:>10} {:>10} {:>7}  {:24} holds", "work", "ours", "reference", "ratio", "bar");
    for r in rows {
        let holds = if r.holds { "yes" } else { "NO" };
        println!("{:46} {:>10.1} {:>10.1} {:>7.3}  {:24} {holds}", r.work, r.ours, r.reference, r.ratio, r.bar);
    }
    let dir = target_dir().join("bench");
    let json = serde_json::json!({ "rows": rows });
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("collector.json"), format!("{json:#}")));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot write {}: {e}", dir.display());
            ExitCode::FAILURE
        }
    }
}
