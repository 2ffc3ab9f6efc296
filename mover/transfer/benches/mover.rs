//! `make bench-mover`: how near the wide-area link's floor chunks travel, and what it costs.
//!
//! ```text
//! cargo bench -p foretide-transfer --bench mover -- [--nets A,B --address IP] [--rate-mbit N] [--quick]
//! ```
//! With `--nets` the sender runs in network namespace A and the receiver in B (made by `foretide link`); without, both
//! are on loopback and the rows that need a link are left out. The floor of a row is its bytes at the link's rate;
//! headers alone cost 3.6 % of that. Prints a table and writes `target/bench/mover.json`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_chunk::{CutConfig, Cutter, DomainKey, FileKey, Store};
use foretide_flow::{
    Assignment, BitsPerSecond, FilePath, ForecastId, Move, MoveCause, NodeId, Outcome, Priority, Ruleset, SiteId,
    Timestamp, Topology, VolumeId, WorkloadId,
};
use foretide_transfer::{Borders, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Token};
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One line of the table.
struct Row {
    work: String,
    ours: f64,
    unit: &'static str,
    reference: f64,
    reference_name: &'static str,
    bar: f64,
    /// Whether smaller than the bar (times the reference) is good.
    smaller_is_better: bool,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.reference
    }

    fn holds(&self) -> bool {
        if self.smaller_is_better { self.ratio() <= self.bar } else { self.ratio() >= self.bar }
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    match args.first().map(String::as_str) {
        Some("serve") => return serve(Path::new(&args[1]), &args[2], args[3].parse()?),
        Some("fetch") => return fetch(&args[1], &args[2..]),
        _ => {}
    }
    let rate_mbit: f64 = value("--rate-mbit").map_or(Ok(1000.0), |v| v.parse())?;
    let nets = value("--nets").and_then(|n| n.split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let address = value("--address").unwrap_or_else(|| "127.0.0.1".into());
    let quick = args.iter().any(|a| a == "--quick");
    let mut rows = vec![fused_cut_and_hash()?];
    match nets {
        Some(nets) => rows.extend(over_link(&nets, &address, rate_mbit, quick)?),
        None => println!("no --nets: the rows over the link are left out (make bench-mover makes the link)"),
    }
    report(&rows)
}

fn report(rows: &[Row]) -> Result<()> {
    println!("{:<52} {:>10} {:<6} {:>10} {:<34} {:>6} {:>6}", "work", "ours", "unit", "reference", "", "ratio", "bar");
    for r in rows {
        println!(
            "{:<52} {:>10.3} {:<6} {:>10.3} {:<34} {:>6.2} {:>6.2} {}",
            r.work,
            r.ours,
            r.unit,
            r.reference,
            r.reference_name,
            r.ratio(),
            r.bar,
            if r.holds() { "holds" } else { "MISSED" }
        );
    }
    let json: Vec<_> = rows
        .iter()
        .map(|r| {
            serde_json::json!({
                "work": r.work, "ours": r.ours, "unit": r.unit, "reference": r.reference,
                "reference_name": r.reference_name, "ratio": r.ratio(), "bar": r.bar, "holds": r.holds(),
            })
        })
        .collect();
    let folder = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("mover.json"), serde_json::to_vec_pretty(&serde_json::json!({ "rows": json }))?)?;
    Ok(())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Cutting alone and hashing alone against both at once, one thread, the same bytes.
fn fused_cut_and_hash() -> Result<Row> {
    let bytes = noise(7, 128 << 20);
    let cutter = Cutter::new(CutConfig::default(), DomainKey::default())?;
    let lengths: Vec<u32> = cutter.cut(&bytes).iter().map(|c| c.length).collect();
    let (mut fused, mut hash, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    let gbps = |t: Duration| bytes.len() as f64 / t.as_secs_f64() / 1e9;
    for _ in 0..5 {
        let t = Instant::now();
        std::hint::black_box(cutter.cut(&bytes));
        fused.push(gbps(t.elapsed()));
        let t = Instant::now();
        let mut at = 0;
        for length in &lengths {
            std::hint::black_box(cutter.key().chunk_id(&bytes[at..at + *length as usize]));
            at += *length as usize;
        }
        hash.push(gbps(t.elapsed()));
        let t = Instant::now();
        std::hint::black_box(fastcdc::v2020::FastCDC::new(&bytes, 32 << 10, 64 << 10, 256 << 10).count());
        cut.push(gbps(t.elapsed()));
    }
    let (fused, hash, cut) = (median(fused), median(hash), median(cut));
    Ok(Row {
        work: format!("cut + hash, one thread (cdc {cut:.1}, blake3 {hash:.1} GB/s)"),
        ours: fused,
        unit: "GB/s",
        reference: 1.0 / (1.0 / cut + 1.0 / hash),
        reference_name: "1/(1/cdc + 1/blake3)",
        bar: 0.95,
        smaller_is_better: false,
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn percentile(mut all: Vec<f64>, p: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * p).round() as usize]
}

/// This program again, in a namespace.
fn again(net: &str, args: &[&str]) -> Result<Child> {
    let me = std::env::current_exe()?;
    let child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{net}"))
        .arg(me)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn over_link(nets: &(String, String), address: &str, rate_mbit: f64, quick: bool) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into()))?;
    let source = dir.path().join("source");
    let (small, large) = if quick { (500u64, 2u64) } else { (2000, 4) };
    std::fs::create_dir_all(source.join("small"))?;
    std::fs::create_dir_all(source.join("large"))?;
    std::fs::create_dir_all(source.join("demand"))?;
    for i in 0..small {
        std::fs::write(source.join(format!("small/{i:05}")), noise(i, 100_000))?;
    }
    for i in 0..large {
        std::fs::write(source.join(format!("large/{i}")), noise(100_000 + i, 200_000_000))?;
    }
    for i in 0..200 {
        std::fs::write(source.join(format!("demand/{i}")), noise(200_000 + i, 100_000))?;
    }
    let listen = format!("{address}:7420");
    let mut server =
        again(&nets.0, &["serve", &source.to_string_lossy(), &listen, &format!("{}", rate_mbit * 1e6 * 0.955)])?;
    let mut ready = String::new();
    std::io::BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut ready)?;
    let mut rows = Vec::new();
    let seconds = |bytes: u64| bytes as f64 * 8.0 / (rate_mbit * 1e6);
    let (small_bytes, large_bytes) = (small * 100_000, large * 200_000_000);
    let base = dir.path().to_string_lossy().into_owned();
    let n = |n: u64| n.to_string();
    for (work, how, folder, files, bytes, bar) in [
        ("small files, cold connections", "cold", "small", small, small_bytes, 1.6),
        ("small files, warm connections", "warm", "small", small, small_bytes, 1.15),
        ("200 MB files, cold connections", "cold", "large", large, large_bytes, 1.3),
        ("200 MB files, warm connections", "warm", "large", large, large_bytes, 1.04),
    ] {
        let size = n(bytes / files);
        let told = run_fetch(&nets.1, &listen, &[&base, how, folder, &n(files), &size])?;
        let work = format!("{files} x {} KB {work}", bytes / files / 1000);
        rows.push(Row {
            work,
            ours: told[0],
            unit: "s",
            reference: seconds(bytes),
            reference_name: "bytes / link rate",
            bar,
            smaller_is_better: true,
        });
        if how == "warm" && folder == "large" {
            rows.push(Row {
                work: "CPU of both ends, no TLS".into(),
                ours: (told[1] + cpu_of(server.id())?) / (told[2] / 1e9).max(1e-9),
                unit: "s/GB",
                reference: 0.52,
                reference_name: "HTTP/2 batches, measured before",
                bar: 0.9 / 0.52,
                smaller_is_better: true,
            });
        }
    }
    let told = run_fetch(&nets.1, &listen, &[&base, "demand", "large", &n(large), "200000000"])?;
    rows.push(Row {
        work: "demand read of 100 KB while prefetch fills the link, p99".into(),
        ours: told[1],
        unit: "ms",
        reference: told[0],
        reference_name: "the same on an idle link, p50",
        bar: 1.3,
        smaller_is_better: true,
    });
    let _ = server.kill();
    let _ = server.wait();
    Ok(rows)
}

fn run_fetch(net: &str, listen: &str, args: &[&str]) -> Result<Vec<f64>> {
    let mut all = vec!["fetch", listen];
    all.extend(args);
    let output = again(net, &all)?.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("fetch {args:?} failed").into());
    }
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().ok_or("fetch said nothing")?;
    Ok(last.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
}

/// User and system time of a process, seconds, all its threads.
fn cpu_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn volume() -> VolumeId {
    VolumeId::new("bench").expect("a name")
}

fn borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), Topology::default())
}

#[tokio::main]
async fn serve(source: &Path, listen: &str, rate: f64) -> Result<()> {
    let config = ServerConfig {
        listen: listen.parse()?,
        rate_limit: Some(BitsPerSecond(rate as u64)),
        ..ServerConfig::default()
    };
    let source = Box::new(LocalDirectory::open(source)?);
    let token = Token::new("bench");
    let _server = Server::start(config, DomainKey::default(), token, vec![(volume(), source)], borders()).await?;
    println!("ready");
    std::io::stdout().flush()?;
    std::future::pending().await
}

/// The receiving end. Prints, as its last line, what was measured.
#[tokio::main]
async fn fetch(server: &str, args: &[String]) -> Result<()> {
    let [base, how, folder, files, size] = args else { return Err("fetch BASE HOW FOLDER FILES SIZE".into()) };
    let (files, size): (u64, u64) = (files.parse()?, size.parse()?);
    let store =
        Store::open(&Path::new(base).join(format!("cache-{how}-{folder}")), Default::default(), DomainKey::default())?;
    let identity = Identity { site: SiteId::new("gpu")?, node: NodeId::new("n1")? };
    let (tell, mut outcomes) = mpsc::channel(100_000);
    let config = MoverConfig::default();
    let mover = Mover::new(config, identity, Token::new("bench"), store.clone(), borders(), tell);
    mover.set_source(&volume(), server);
    if how != "cold" {
        // Connections are made and warmed up: an agent does that when it starts.
        mover.stat(&volume(), &FilePath::root()).await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let run: Vec<Move> = (0..files)
        .map(|i| a_move(&if folder == "small" { format!("small/{i:05}") } else { format!("{folder}/{i}") }, size))
        .collect();
    let idle = if how == "demand" { demands(&mover, 0..60).await? } else { Vec::new() };
    let cpu = cpu_of(std::process::id())?;
    let t = Instant::now();
    mover.take(&Assignment { run, ..Assignment::default() });
    if how == "demand" {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let loaded = demands(&mover, 60..120).await?;
        let still_moving = mover.counts().1 > 0;
        if !still_moving {
            return Err("the prefetch ended before the demands did".into());
        }
        println!("{} {}", percentile(idle, 0.5), percentile(loaded, 0.99));
        return Ok(());
    }
    let mut wire = 0;
    for _ in 0..files {
        match outcomes.recv().await {
            Some(Outcome::Moved { wire_bytes, .. }) => wire += wire_bytes,
            other => return Err(format!("{other:?}").into()),
        }
    }
    println!("{} {} {}", t.elapsed().as_secs_f64(), cpu_of(std::process::id())? - cpu, wire);
    Ok(())
}

/// Milliseconds of each of some reads of a whole file that nobody has asked for before, one after the other.
async fn demands(mover: &Mover, which: std::ops::Range<u32>) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for i in which {
        let path = FilePath::parse(&format!("demand/{i}"))?;
        let entry = mover.stat(&volume(), &path).await?;
        let key = FileKey { volume: volume(), path, version: entry.version };
        let t = Instant::now();
        mover.read(&key, 0..entry.size).await?;
        took.push(t.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

fn a_move(path: &str, length: u64) -> Move {
    let site = |s| SiteId::new(s).expect("a name");
    Move {
        id: path.into(),
        volume: volume(),
        path: FilePath::parse(path).expect("a path"),
        offset: 0,
        length,
        from: site("store"),
        to: site("gpu"),
        start_at: Timestamp(0),
        due_at: Timestamp(0),
        keep_until: Timestamp(i64::MAX),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("b"), workload: WorkloadId::from("b") },
        reason: String::new(),
    }
}
