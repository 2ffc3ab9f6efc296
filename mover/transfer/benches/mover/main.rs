//! `make bench-mover`: how near the wide-area link's floor chunks travel, and what it costs, with the peers beside.
//!
//! ```text
//! cargo bench -p foretide-transfer --bench mover -- [--rounds N] [--only GROUP,…] [--alone] [--config JSON]
//! ```
//! Groups: cut, small, large, loss, fast, demand, rate, delta, text. Sender and receiver are processes of their own in
//! two network namespaces joined by an emulated link of 150 ms (so it needs root), with TLS between them. Each group
//! runs several rounds, ours and the peers in turn; medians count. `--alone` leaves the peers out of small and large,
//! `--config` replaces parts of the receiver's own. Prints a table and writes `target/bench/mover.json`.

mod cut;
mod ends;
mod link;
mod peers;
mod rows;
mod table;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use foretide_transfer::MoverConfig;

use ends::{Fetch, Fetched, Papers};
use link::Shape;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What this program does when it starts itself again.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    /// Emulates the link.
    Link {
        name: String,
        shape: Shape,
    },
    /// Our sender.
    Serve {
        source: PathBuf,
        listen: String,
        papers: Papers,
        rate_bits_per_s: Option<u64>,
    },
    /// Our receiver.
    Fetch(Box<Fetch>),
    /// The small HTTP server.
    Http {
        folder: PathBuf,
    },
    /// Plain TCP, either end.
    RawSend,
    RawFetch {
        bytes: u64,
        into: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    if let Some(order) = value("--order") {
        return obey(serde_json::from_str(order)?);
    }
    let rounds = value("--rounds").map_or(Ok(3), |n| n.parse())?;
    let only: Vec<&str> = value("--only").map_or_else(Vec::new, |o| o.split(',').collect());
    let config = value("--config").map_or(Ok(MoverConfig::default()), |text| serde_json::from_str(text))?;
    let alone = args.iter().any(|a| a == "--alone");
    rows::all(rounds, alone, config, &|group| only.is_empty() || only.contains(&group))
}

fn obey(order: Order) -> Result<()> {
    match order {
        Order::Link { name, shape } => link::run(&name, shape),
        Order::Serve { source, listen, papers, rate_bits_per_s } => {
            ends::serve(&source, &listen, papers, rate_bits_per_s)
        }
        Order::Fetch(fetch) => say(&ends::fetch(*fetch)?),
        Order::Http { folder } => peers::http(&folder),
        Order::RawSend => peers::raw_send(),
        Order::RawFetch { bytes, into } => say(&peers::raw_fetch(bytes, into.as_deref())?),
    }
}

fn say(fetched: &Fetched) -> Result<()> {
    println!("{}", serde_json::to_string(fetched)?);
    Ok(std::io::stdout().flush()?)
}

/// A program in a network namespace.
fn inside(namespace: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command
}

/// This program again.
fn start(namespace: Option<&Path>, order: &Order) -> Result<Child> {
    let me = std::env::current_exe()?;
    let mut command = namespace.map_or_else(|| Command::new(&me), |n| inside(n, &me));
    command.args(["--order", &serde_json::to_string(order)?]).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// User and system time of a process, seconds, all its threads.
fn cpu_s(pid: u32) -> Result<f64> {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_S)
}

/// Fills what memory is free with clean pages of the page cache, as it is on a machine that has run for a while: what is
/// written next takes their place. A virtual machine gives memory that is free back to its host within seconds, and each page
/// of it that is taken again costs more than everything that is measured here. The file has no content and takes no disk; its
/// pages stay as long as it does.
fn fill_memory(file: &Path) -> Result<()> {
    let told = std::fs::read_to_string("/proc/meminfo")?;
    let free = told.lines().find_map(|line| line.strip_prefix("MemFree:")).ok_or("no MemFree")?;
    let free_kib: u64 = free.split_whitespace().next().ok_or("no MemFree")?.parse()?;
    let mut file = std::fs::File::create_new(file)
        .and_then(|f| f.set_len(free_kib * 1024))
        .and_then(|()| std::fs::File::open(file))?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
