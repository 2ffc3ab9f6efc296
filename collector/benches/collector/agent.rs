//! The observing side, in a process of its own as in life: it takes and acknowledges each batch at once.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};
use foretide_collector::probe::Tier;
use foretide_collector::{Collector, Config, WatchedVolume, parquet};
use foretide_flow::{AccessBatch, NodeId, SiteId, VolumeId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// What observes while work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Off,
    /// A program at `sys_exit` that does nothing.
    Empty,
    /// The agent.
    On(Tier),
    /// The agent, stopped by a signal right after its start.
    Stopped,
    /// The agent was killed right after its start.
    Killed,
    /// The agent, with a ring that is full at once and that nobody empties.
    Full,
    /// The agent, with a small spool that nobody takes batches from: the control plane is gone.
    Alone,
}

/// What an agent saw over its life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub accesses: u64,
    pub bytes: u64,
    pub lost: u64,
}

/// A running agent, or the absence of one.
pub struct Agent(Option<Child>);

impl Agent {
    pub fn start(condition: Condition, dir: &Path) -> Result<Self, String> {
        let kind = match condition {
            Condition::Off => return Ok(Self(None)),
            Condition::Empty => "empty",
            Condition::On(Tier::Light) => "light",
            Condition::On(Tier::Full) | Condition::Stopped | Condition::Killed => "full",
            Condition::Full => "with a full ring",
            Condition::Alone => "alone",
        };
        let me = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(me)
            .args(["agent", kind])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut out = BufReader::with_capacity(1, child.stdout.take().ok_or("no pipe")?);
        let mut line = String::new();
        out.read_line(&mut line).map_err(|e| e.to_string())?;
        child.stdout = Some(out.into_inner());
        if line.trim() != "up" {
            return Err(format!("the {kind} agent: {}", line.trim()));
        }
        let agent = Self(Some(child));
        match condition {
            Condition::Stopped => agent.signal(Signal::SIGSTOP),
            Condition::Killed => agent.signal(Signal::SIGKILL),
            _ => {}
        }
        Ok(agent)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.0.as_ref().map_or(0, Child::id);
        kill(Pid::from_raw(pid as i32), signal).expect("a child of ours");
    }

    /// CPU time so far, seconds; memory resident now and at most since the start, megabytes.
    pub fn usage(&self) -> (f64, f64, f64) {
        let pid = self.0.as_ref().map_or(0, Child::id);
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        // To the nanosecond; the process' own sum is in ticks.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let ns: f64 = threads
            .filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok())
            .map(|s| number(s.split(' ').next().unwrap_or_default()))
            .sum();
        let status = read("status");
        let memory = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            number(line.trim().trim_end_matches(" kB")) * 1024.0 / 1e6
        };
        (ns / 1e9, memory("VmRSS:"), memory("VmHWM:"))
    }

    /// Ends it; what it saw.
    pub fn stop(mut self) -> Seen {
        let Some(mut child) = self.0.take() else { return Seen::default() };
        drop(child.stdin.take());
        let mut text = String::new();
        if let Some(mut out) = child.stdout.take() {
            let _ = out.read_to_string(&mut text);
        }
        let _ = child.wait();
        serde_json::from_str(text.trim()).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What an agent process does: says `up` or why not, observes until its standard input ends, says what it saw.
pub fn run(kind: &str, dir: &Path) {
    let told = match kind {
        "empty" => attach_nothing().map(|_programs| {
            println!("up");
            wait();
        }),
        _ => observe(kind, dir),
    };
    if let Err(why) = told {
        println!("{}", why.replace('\n', "; "));
    }
}

fn wait() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn attach_nothing() -> Result<Ebpf, String> {
    let mut programs = Ebpf::load(foretide_ebpf::EMPTY).map_err(|e| e.to_string())?;
    let program: &mut BtfTracePoint = programs
        .program_mut("empty")
        .ok_or("no program")?
        .try_into()
        .map_err(|e: aya::programs::ProgramError| e.to_string())?;
    let types = Btf::from_sys_fs().map_err(|e| e.to_string())?;
    program.load("sys_exit", &types).map_err(|e| e.to_string())?;
    program.attach().map_err(|e| e.to_string())?;
    Ok(programs)
}

fn observe(kind: &str, dir: &Path) -> Result<(), String> {
    let name = |e: foretide_flow::IdError| e.to_string();
    let spool = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (node, site) = (NodeId::new("bench").map_err(name)?, SiteId::new("bench").map_err(name)?);
    let usual = Config::new(node, site, spool.path().join("spool"));
    let config = match kind {
        "light" => Config { tier: Tier::Light, ..usual },
        "with a full ring" => Config { ring_bytes: 4096, poll_interval_ms: 60_000, ..usual },
        "alone" => Config { spool_bytes: 256 << 10, ..usual },
        _ => usual,
    };
    let watch = WatchedVolume { volume: VolumeId::new("bench").map_err(name)?, root: dir.join("data") };
    let (mut collector, _) = Collector::start(config, vec![watch]).map_err(|e| e.to_string())?;
    println!("up");
    let taken = spool.path().join("taken");
    std::fs::create_dir(&taken).map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| if kind == "alone" { Ok(()) } else { take(&collector, &taken) });
        wait();
        // What was read last lies in shared memory until the next look.
        std::thread::sleep(Duration::from_millis(300));
        STOP.store(true, std::sync::atomic::Ordering::Relaxed);
        taker.join().unwrap_or_else(|_| Err("the taker failed".into()))
    })?;
    collector.stop();
    while take_one(&collector, &taken, Duration::ZERO)? {}
    let seen = seen_in(&taken)?;
    println!("{}", serde_json::to_string(&seen).map_err(|e| e.to_string())?);
    Ok(())
}

static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn take(collector: &Collector, to: &Path) -> Result<(), String> {
    while !STOP.load(std::sync::atomic::Ordering::Relaxed) {
        take_one(collector, to, Duration::from_millis(100))?;
    }
    Ok(())
}

/// As an agent ships: the bytes as they are. A file stands for the control plane.
fn take_one(collector: &Collector, to: &Path, max_wait: Duration) -> Result<bool, String> {
    let Some(batch) = collector.next_batch(max_wait).map_err(|e| e.to_string())? else { return Ok(false) };
    let number = batch.sequence();
    std::fs::write(to.join(format!("{number}.parquet")), batch.bytes()).map_err(|e| e.to_string())?;
    collector.acknowledge(number).map_err(|e| e.to_string())?;
    Ok(true)
}

fn seen_in(taken: &Path) -> Result<Seen, String> {
    let files = std::fs::read_dir(taken).map_err(|e| e.to_string())?;
    files.flatten().try_fold(Seen::default(), |seen, file| {
        let bytes = std::fs::read(file.path()).map_err(|e| e.to_string())?;
        Ok(add(seen, parquet::decode(&bytes).map_err(|e| e.to_string())?))
    })
}

fn add(seen: Seen, batch: AccessBatch) -> Seen {
    let reads = batch.accesses.iter().filter(|a| a.length > 0);
    Seen {
        accesses: seen.accesses + reads.clone().count() as u64,
        bytes: seen.bytes + reads.map(|a| a.length).sum::<u64>(),
        lost: seen.lost + batch.losses.dropped_events + batch.losses.unresolved,
    }
}
