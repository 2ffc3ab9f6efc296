//! The work whose cost is measured, each in a process of its own: the agent does not observe itself.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Reads of the loops of small reads.
pub const SMALL_READS: u64 = 400_000;
/// Calls of the loop of calls that nobody wants to see.
const SYSTEM_CALLS: u64 = 2_000_000;
/// Files of the job.
pub const JOB_FILES: usize = 4000;
/// Bytes of the file that is read from end to end.
pub const SEQUENTIAL_BYTES: u64 = 1 << 30;
/// Reads a second of the steady reader, and for how long.
pub const STEADY_READS_PER_S: u64 = 100_000;
const STEADY_S: u64 = 3;

/// Time that one unit of work took, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cpu_ns: f64,
    pub wall_ns: f64,
}

/// Makes the files that the work reads: `data` below `dir` is watched, `other` never.
pub fn make_data(dir: &Path) -> std::io::Result<()> {
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
    fs::write(dir.join("other/small"), vec![3u8; 8 << 20])?;
    File::create(data.join("big"))?.set_len(SEQUENTIAL_BYTES)
}

/// Does `kind` on the files below `dir` and prints what it cost.
pub fn work(kind: &str, dir: &Path) {
    let data = dir.join("data");
    let (before, began) = (cpu_ns(), Instant::now());
    let units = match kind {
        "pread" => small_reads(&data.join("small")),
        "pread elsewhere" => small_reads(&dir.join("other/small")),
        "getppid" => system_calls(),
        "job" => read_files(&data),
        "sequential" => sequential(&data.join("big")),
        "steady" => steady(&data.join("small")),
        other => panic!("no work is called {other}"),
    };
    println!("cost {} {} {units}", cpu_ns() - before, began.elapsed().as_nanos());
}

/// Runs `kind` in `processes` processes at the same time, below `through` (a program and its arguments, if any).
pub fn run(kind: &str, dir: &Path, processes: usize, through: &[&str]) -> Cost {
    let me = std::env::current_exe().expect("own path");
    let spawn = |_| {
        let mut command = match through.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&me);
                command
            }
            None => Command::new(&me),
        };
        command.args(["worker", kind]).arg(dir).stdout(Stdio::piped()).spawn().expect("a worker starts")
    };
    let children: Vec<Child> = (0..processes).map(spawn).collect();
    let mut sum = Cost::default();
    for child in children {
        let out = child.wait_with_output().expect("a worker ends");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let [cpu, wall, units] = numbers[..] else { panic!("worker {kind} said {text:?}") };
        sum.cpu_ns += cpu / units / processes as f64;
        sum.wall_ns += wall / units / processes as f64;
    }
    sum
}

fn cpu_ns() -> u128 {
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
    for _ in 0..SYSTEM_CALLS {
        // SAFETY: takes nothing and touches nothing.
        std::hint::black_box(unsafe { libc::getppid() });
    }
    SYSTEM_CALLS
}

fn read_files(data: &Path) -> u64 {
    let mut buffer = vec![0; 65_536];
    for i in 0..JOB_FILES {
        let mut file = File::open(data.join(format!("job/{:02}/f{i:05}", i % 40))).unwrap();
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

/// Scattered reads at a steady rate.
fn steady(path: &Path) -> u64 {
    let (file, mut buffer) = (File::open(path).unwrap(), [0; 512]);
    let (began, per_ms) = (Instant::now(), STEADY_READS_PER_S / 1000);
    for i in 0..STEADY_READS_PER_S * STEADY_S {
        file.read_exact_at(&mut buffer, i.wrapping_mul(7919) % 2048 * 4096).unwrap();
        if i % per_ms == 0 {
            std::thread::sleep(Duration::from_millis(i / per_ms).saturating_sub(began.elapsed()));
        }
    }
    STEADY_READS_PER_S * STEADY_S
}
