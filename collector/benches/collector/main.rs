//! What observing costs, and what it misses: `make bench-collector`; `BENCH="--only pread"` runs one of [`PARTS`].
//!
//! Each row does the same work under several conditions in turn (nothing, an empty hook, the agent), in processes of
//! their own, and compares their CPU or wall time; a ratio is the median over interleaved rounds. Prints a table and
//! writes `target/bench/collector.json`.

mod agent;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use foretide_collector::probe::Tier;
use serde::Serialize;

use self::agent::{Agent, Condition};
use self::worker::{Cost, JOB_FILES, SEQUENTIAL_BYTES, SMALL_READS, STEADY_READS_PER_S};

const FULL: Condition = Condition::On(Tier::Full);
const LIGHT: Condition = Condition::On(Tier::Light);
const ROUNDS: usize = 9;
/// The training job takes seconds.
const JOB_ROUNDS: usize = 3;
/// As long as three seconds each.
const STEADY_ROUNDS: usize = 5;

#[derive(Serialize)]
struct Row {
    work: String,
    ours: f64,
    unit: &'static str,
    reference: f64,
    reference_name: String,
    ratio: f64,
    bar: String,
    holds: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let role = |name: &str| arguments.iter().position(|a| a == name).map(|at| &arguments[at + 1..]);
    if let Some([kind, dir, ..]) = role("worker") {
        worker::work(kind, Path::new(dir));
        return ExitCode::SUCCESS;
    }
    if let Some([kind, dir, ..]) = role("agent") {
        agent::run(kind, Path::new(dir));
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in(target_dir()).expect("a directory under target");
    let only = role("--only").and_then(|rest| rest.first());
    match worker::make_data(dir.path()).map_err(|e| e.to_string()).and_then(|()| bench(dir.path(), only)) {
        Ok(rows) => rows.write(),
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

/// Measures some rows on the data below a directory.
type Part = fn(&Path, &mut Rows) -> Result<(), String>;

/// In the order of the table.
const PARTS: [(&str, Part); 9] = [
    ("training", training_job),
    ("job", file_job),
    ("trouble", trouble),
    ("pread", watched_reads),
    ("elsewhere", other_reads),
    ("getppid", other_calls),
    ("others", others),
    ("told", told),
    ("itself", agent_itself),
];

fn bench(dir: &Path, only: Option<&String>) -> Result<Rows, String> {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut rows = Rows::begin();
    for (_, part) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        part(dir, &mut rows)?;
    }
    Ok(rows)
}

const JOB: Work = Work { kind: "job", processes: 2, figure: |c| c.cpu_ns };
const PREAD: Work = Work { kind: "pread", processes: 1, figure: |c| c.cpu_ns };

fn file_job(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let costs = JOB.under(dir, &[Condition::Off, FULL])?;
    rows.push(costs.row(&format!("2 processes, {JOB_FILES} files: CPU a file"), FULL, Condition::Off, 1.05));
    Ok(())
}

/// Whatever befalls the agent, who reads does not wait for it.
fn trouble(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let wall = Work { figure: |c| c.wall_ns, ..JOB };
    let troubles = [Condition::Stopped, Condition::Killed, Condition::Full, Condition::Alone];
    let costs = wall.under(dir, &[&[Condition::Off][..], &troubles].concat())?;
    rows.push(costs.row("the same, agent stopped: wall a file", Condition::Stopped, Condition::Off, 1.10));
    rows.push(costs.row("the same, agent killed: wall a file", Condition::Killed, Condition::Off, 1.05));
    rows.push(costs.row("the same, ring full: wall a file", Condition::Full, Condition::Off, 1.10));
    rows.push(costs.row("the same, control plane gone: wall a file", Condition::Alone, Condition::Off, 1.10));
    Ok(())
}

fn watched_reads(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let costs = PREAD.under(dir, &[Condition::Off, Condition::Empty, FULL, LIGHT])?;
    rows.push(costs.row("cached 4 KiB pread, watched: CPU a call, full tier", FULL, Condition::Off, 1.25));
    rows.push(costs.row("... light tier", LIGHT, Condition::Off, 1.13));
    rows.push(costs.row("... an empty hook, for comparison", Condition::Empty, Condition::Off, f64::INFINITY));
    Ok(())
}

fn other_reads(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let elsewhere = Work { kind: "pread elsewhere", ..PREAD };
    let costs = elsewhere.under(dir, &[Condition::Off, Condition::Empty, FULL, LIGHT])?;
    rows.push(costs.row("cached 4 KiB pread, not watched: light tier", LIGHT, Condition::Off, 1.12));
    rows.push(costs.row("... full tier beside an empty hook", FULL, Condition::Empty, 1.05));
    Ok(())
}

fn other_calls(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let getppid = Work { kind: "getppid", ..PREAD };
    let costs = getppid.under(dir, &[Condition::Off, Condition::Empty, FULL, LIGHT])?;
    rows.push(costs.row("getppid: light tier", LIGHT, Condition::Off, 1.005));
    rows.push(costs.row("... full tier beside an empty hook", FULL, Condition::Empty, 1.05));
    Ok(())
}

/// Something to do and what to look at.
#[derive(Clone, Copy)]
struct Work {
    kind: &'static str,
    processes: usize,
    figure: fn(Cost) -> f64,
}

/// By condition, one figure a round, in the order of the rounds.
struct Costs(Vec<(Condition, Vec<f64>)>);

impl Work {
    /// Interleaved, each round beginning with another condition.
    fn under(&self, dir: &Path, conditions: &[Condition]) -> Result<Costs, String> {
        let mut costs: Vec<(Condition, Vec<f64>)> = conditions.iter().map(|c| (*c, Vec::new())).collect();
        worker::run(self.kind, dir, self.processes, &[]);
        for round in 0..ROUNDS {
            for i in 0..conditions.len() {
                let (condition, figures) = &mut costs[(round + i) % conditions.len()];
                let agent = Agent::start(*condition, dir)?;
                figures.push((self.figure)(worker::run(self.kind, dir, self.processes, &[])));
                drop(agent);
            }
        }
        Ok(Costs(costs))
    }
}

impl Costs {
    fn of(&self, condition: Condition) -> &[f64] {
        self.0.iter().find(|(c, _)| *c == condition).map_or(&[], |(_, figures)| figures)
    }

    fn row(&self, work: &str, ours: Condition, reference: Condition, bar: f64) -> Row {
        let (on, off) = (self.of(ours), self.of(reference));
        let ratio = median(on.iter().zip(off).map(|(on, off)| on / off).collect());
        Row {
            work: work.into(),
            ours: median(on.to_vec()),
            unit: "ns",
            reference: median(off.to_vec()),
            reference_name: if reference == Condition::Empty { "an empty hook".into() } else { "off".into() },
            ratio,
            bar: if bar.is_finite() { format!("ratio <= {bar}") } else { "none".into() },
            holds: ratio <= bar,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The demo's job over the same files: mostly the time of its accelerator.
fn training_job(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let program = target_dir().join("release/training-job");
    if !program.exists() {
        eprintln!("{} is not there: `make bench-collector` builds it", program.display());
        return Ok(());
    }
    let once = || {
        let began = Instant::now();
        let data = dir.join("data/job");
        let ended = Command::new(&program)
            .args(["--epochs", "2", "--compute-ms", "10", "--workers", "4", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .status();
        ended.is_ok_and(|s| s.success()).then(|| began.elapsed().as_nanos() as f64).ok_or("the training job failed")
    };
    let mut costs = Costs(vec![(Condition::Off, Vec::new()), (FULL, Vec::new())]);
    once()?;
    for round in 0..JOB_ROUNDS {
        for i in 0..2 {
            let (condition, figures) = &mut costs.0[(round + i) % 2];
            let agent = Agent::start(*condition, dir)?;
            figures.push(once()?);
            drop(agent);
        }
    }
    rows.push(costs.row("the demo's training job, local files: wall", FULL, Condition::Off, 1.01));
    Ok(())
}

/// The loop of small reads under other tracers, where they are installed.
fn others(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let tracers: &[(&str, &[&str])] = &[("strace", &["strace", "-f", "-e", "trace=pread64", "-o", "/dev/null"])];
    for (name, through) in tracers {
        if Command::new(name).arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("{name} is not installed: no row for it");
            continue;
        }
        let (off, under) = (worker::run("pread", dir, 1, &[]), worker::run("pread", dir, 1, through));
        rows.push(Row {
            work: format!("cached 4 KiB pread under {name}: wall a call, for comparison"),
            ours: under.wall_ns,
            unit: "ns",
            reference: off.wall_ns,
            reference_name: "off".into(),
            ratio: under.wall_ns / off.wall_ns,
            bar: "none".into(),
            holds: true,
        });
    }
    Ok(())
}

/// Rows about what was told.
fn told(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let agent = Agent::start(FULL, dir)?;
    worker::run("sequential", dir, 1, &[]);
    let seen = agent.stop();
    let calls = (SEQUENTIAL_BYTES / 4096) as f64;
    let extents = seen.accesses as f64;
    rows.push(Row {
        work: "1 GiB in 4 KiB reads: accesses told".into(),
        ours: extents,
        unit: "accesses",
        reference: calls,
        reference_name: "calls".into(),
        ratio: extents / calls,
        bar: "<= 100, all bytes told".into(),
        holds: extents <= 100.0 && seen.bytes == SEQUENTIAL_BYTES,
    });
    let processes = std::thread::available_parallelism().map_or(2, usize::from);
    let agent = Agent::start(FULL, dir)?;
    let cost = worker::run("pread", dir, processes, &[]);
    let seen = agent.stop();
    let done = SMALL_READS * processes as u64;
    rows.push(Row {
        work: format!("reads lost at {:.2} M reads/s", processes as f64 * 1e3 / cost.wall_ns),
        ours: seen.lost as f64,
        unit: "calls",
        reference: done as f64,
        reference_name: "calls made".into(),
        ratio: seen.lost as f64 / done as f64,
        bar: "0, all bytes told".into(),
        holds: seen.lost == 0 && seen.bytes == done * 4096,
    });
    Ok(())
}

/// Rows about the agent's own process.
fn agent_itself(dir: &Path, rows: &mut Rows) -> Result<(), String> {
    let (mut shares, mut memories, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STEADY_ROUNDS {
        let agent = Agent::start(FULL, dir)?;
        let (before, began) = (agent.usage().0, Instant::now());
        worker::run("steady", dir, 1, &[]);
        let (cpu, memory, peak) = agent.usage();
        shares.push((cpu - before) / began.elapsed().as_secs_f64() * 100.0);
        memories.push(memory);
        peaks.push(peak);
        agent.stop();
    }
    let (share, memory, peak) = (median(shares), median(memories), median(peaks));
    let row = |what: &str, ours: f64, unit, bar: f64| Row {
        work: format!("agent at {STEADY_READS_PER_S} scattered reads/s: {what}"),
        ours,
        unit,
        reference: bar,
        reference_name: "bar".into(),
        ratio: ours / bar,
        bar: format!("<= {bar} {unit}"),
        holds: ours <= bar,
    };
    let peak =
        Row { bar: "none".into(), holds: true, ..row("memory while it loaded, for comparison", peak, "MB", 40.0) };
    [row("CPU", share, "% of a core", 3.0), row("memory", memory, "MB", 40.0), peak]
        .into_iter()
        .for_each(|r| rows.push(r));
    Ok(())
}

/// The table, each row printed when it is measured.
struct Rows(Vec<Row>);

impl Rows {
    fn begin() -> Self {
        println!("{:64} {:>10} {:>10} {:>7}  {:24} holds", "work", "ours", "reference", "ratio", "bar");
        Self(Vec::new())
    }

    fn push(&mut self, r: Row) {
        let holds = if r.holds { "yes" } else { "NO" };
        println!("{:64} {:>10.1} {:>10.1} {:>7.3}  {:24} {holds}", r.work, r.ours, r.reference, r.ratio, r.bar);
        self.0.push(r);
    }

    fn write(&self) -> ExitCode {
        let dir = target_dir().join("bench");
        let json = serde_json::json!({ "rows": self.0 });
        let written =
            fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("collector.json"), format!("{json:#}")));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("cannot write {}: {e}", dir.display());
                ExitCode::FAILURE
            }
        }
    }
}
