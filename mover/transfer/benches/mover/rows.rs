//! What is measured, group by group.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Instant;

use foretide_transfer::{ClientConfig, MoverConfig};

use crate::ends::{Fetch, Fetched, Papers, Work};
use crate::link::{Link, SENDER, Shape};
use crate::peers::{self, Peer};
use crate::table::{Row, Wanted, median, percentile, report};
use crate::{Order, Result, cpu_s, cut, fill_memory, noise, start};

const WAN: Shape = Shape { rate_mbit: 1000.0, rtt_ms: 150, loss: 0.0 };
const SMALL_FILES: u64 = 2000;
const SMALL_BYTES: u64 = 100_000;
const LARGE_FILES: u64 = 4;
const LARGE_BYTES: u64 = 200_000_000;
const DEMAND_FILES: u64 = 200;
const PORT: u16 = 7430;
/// Of 1,500 bytes on the wire 1,448 are a TCP stream's.
const PAYLOAD_SHARE: f64 = 1448.0 / 1500.0;
/// A sender is told this share of the link's payload, so that no queue builds up in the link.
const PACE_SHARE: f64 = 0.99;

type Files = Vec<(String, u64)>;
type Group = fn(&Bench) -> Result<Vec<Row>>;

/// The bench's own folder: the source tree and what receivers make.
struct Bench {
    folder: tempfile::TempDir,
    papers: [Papers; 2],
    rounds: usize,
    /// Without the peers, to see quickly what a change does.
    alone: bool,
    config: MoverConfig,
    caches: std::cell::Cell<u64>,
}

/// Runs the groups that are wanted and reports.
pub fn all(rounds: usize, alone: bool, config: MoverConfig, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let folder = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into()))?;
    let bench = Bench { folder, papers: Papers::issue()?, rounds, alone, config, caches: std::cell::Cell::new(0) };
    std::fs::create_dir_all(bench.source())?;
    let mut rows = Vec::new();
    let groups: [(&str, Group); 9] = [
        ("cut", |b| cut::rows(b.folder.path())),
        ("small", small),
        ("large", large),
        ("loss", loss),
        ("fast", fast),
        ("demand", demand),
        ("rate", rate),
        ("delta", difference),
        ("text", text),
    ];
    for (name, group) in groups {
        if wanted(name) {
            eprintln!("{name} …");
            rows.extend(group(&bench)?);
        }
    }
    report(&rows)
}

impl Bench {
    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn fresh(&self) -> PathBuf {
        self.caches.set(self.caches.get() + 1);
        self.folder.path().join(format!("receiver-{}", self.caches.get()))
    }

    /// Files of noise below one folder of the source, made once.
    fn files(&self, folder: &str, count: u64, bytes: u64) -> Result<Files> {
        let at = self.source().join(folder);
        let made = at.exists();
        std::fs::create_dir_all(&at)?;
        let mut files = Vec::new();
        for i in 0..count {
            if !made {
                std::fs::write(at.join(i.to_string()), noise(i ^ bytes << 20, bytes as usize))?;
            }
            files.push((format!("{folder}/{i}"), bytes));
        }
        Ok(files)
    }

    fn small(&self) -> Result<Files> {
        self.files("small", SMALL_FILES, SMALL_BYTES)
    }

    fn large(&self) -> Result<Files> {
        self.files("large", LARGE_FILES, LARGE_BYTES)
    }

    fn serve(&self, link: &Link, shape: Shape) -> Result<Peer> {
        self.serve_at(link, shape.rate_mbit * 1e6 * PAYLOAD_SHARE * PACE_SHARE)
    }

    fn serve_at(&self, link: &Link, rate_bits_per_s: f64) -> Result<Peer> {
        let rate_bits_per_s = Some(rate_bits_per_s as u64);
        let (source, papers) = (self.source(), self.papers[0].clone());
        Peer::start(link, &Order::Serve { source, listen: format!("{SENDER}:{PORT}"), papers, rate_bits_per_s })
    }

    /// One receiver's run; `between` is done at the source before each further group of files.
    fn fetch(&self, link: &Link, warm: bool, work: Work, between: &mut dyn FnMut() -> Result<()>) -> Result<Fetched> {
        self.fetch_by(self.config.clone(), link, warm, work, between)
    }

    /// The same by a receiver that is configured otherwise.
    fn fetch_by(
        &self,
        config: MoverConfig,
        link: &Link,
        warm: bool,
        work: Work,
        between: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Fetched> {
        let fetch = Fetch {
            server: format!("{SENDER}:{PORT}"),
            papers: self.papers[1].clone(),
            cache: self.fresh(),
            warm,
            work,
            config,
        };
        // The cache stays until the end: a file system that has just lost thousands of files is slow to make new ones.
        self.receive(link, &Order::Fetch(Box::new(fetch)), between)
    }

    fn receive(&self, link: &Link, order: &Order, between: &mut dyn FnMut() -> Result<()>) -> Result<Fetched> {
        fill_memory(&self.fresh().with_extension("memory"))?;
        let mut child = start(Some(&link.receiver()), order)?;
        let mut input = child.stdin.take().ok_or("no input")?;
        let mut last = String::new();
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            last = line?;
            if last == "next" {
                between()?;
                writeln!(input)?;
            }
        }
        if !child.wait()?.success() {
            return Err("the receiver failed".into());
        }
        Ok(serde_json::from_str(&last)?)
    }

    /// Seconds of moving these files, cold or warm.
    fn moved(&self, link: &Link, warm: bool, files: &Files) -> Result<Fetched> {
        self.fetch(link, warm, Work::Move(vec![files.clone()]), &mut || Ok(()))
    }
}

fn row(work: String, ours: f64, reference: f64, reference_name: &str, bar: f64) -> Row {
    let reference_name = reference_name.to_owned();
    Row { work, ours, unit: "s", reference, reference_name, bar, wanted: Wanted::AtMost }
}

fn bytes_of(files: &Files) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

/// Medians of several rounds of cold and warm moves, and of the peers, in turn.
struct Beside {
    cold: f64,
    warm: f64,
    /// Seconds of both ends' CPU per GB of the warm moves.
    cpu_s_per_gb: f64,
    peers: Option<PeersBeside>,
}

struct PeersBeside {
    curl: f64,
    rsync: f64,
    /// Of plain TCP, seconds per GB.
    raw_cpu_s_per_gb: f64,
    /// Of plain TCP into files.
    written_cpu_s_per_gb: f64,
}

fn beside(bench: &Bench, files: &Files, folder: &str, connections: usize) -> Result<Beside> {
    let link = Link::start(WAN)?;
    let server = bench.serve(&link, WAN)?;
    let (mut cold, mut warm, mut cpu) = (vec![], vec![], vec![]);
    let mut peers = (!bench.alone).then(|| PeersRunning::start(bench, &link)).transpose()?;
    for _ in 0..bench.rounds {
        cold.push(bench.moved(&link, false, files)?.seconds);
        let before = (cpu_s(server.id())?, cpu_s(link.id())?);
        let told = bench.moved(&link, true, files)?;
        let per_gb = |cpu_s: f64| cpu_s / (bytes_of(files) as f64 / 1e9);
        let (sender, emulator) = (per_gb(cpu_s(server.id())? - before.0), per_gb(cpu_s(link.id())? - before.1));
        let receiver = per_gb(told.cpu_s);
        cpu.push(sender + receiver);
        warm.push(told.seconds);
        eprintln!("  cold {cold:.2?} warm {warm:.2?} s; CPU {sender:.2} + {receiver:.2}, the link {emulator:.2} s/GB");
        if let Some(peers) = &mut peers {
            peers.round(bench, files, folder, connections)?;
        }
    }
    let peers = peers.map(PeersRunning::told);
    Ok(Beside { cold: median(cold), warm: median(warm), cpu_s_per_gb: median(cpu), peers })
}

/// The peers on a link, and what they took so far.
struct PeersRunning<'a> {
    link: &'a Link,
    _http: Peer,
    _rsync: Peer,
    raw: Peer,
    curl_s: Vec<f64>,
    rsync_s: Vec<f64>,
    raw_cpu: Vec<f64>,
    written_cpu: Vec<f64>,
}

impl<'a> PeersRunning<'a> {
    fn start(bench: &Bench, link: &'a Link) -> Result<Self> {
        let _http = Peer::start(link, &Order::Http { folder: bench.source() })?;
        let _rsync = peers::rsync_daemon(link, &bench.source(), bench.folder.path())?;
        let raw = Peer::start(link, &Order::RawSend)?;
        Ok(Self { link, _http, _rsync, raw, curl_s: vec![], rsync_s: vec![], raw_cpu: vec![], written_cpu: vec![] })
    }

    fn round(&mut self, bench: &Bench, files: &Files, folder: &str, connections: usize) -> Result<()> {
        let (link, bytes) = (self.link, bytes_of(files));
        let into = bench.fresh();
        for (written, told) in [(None, &mut self.raw_cpu), (Some(into.join("raw")), &mut self.written_cpu)] {
            let before = cpu_s(self.raw.id())?;
            let receiver = bench.receive(link, &Order::RawFetch { bytes, into: written }, &mut || Ok(()))?;
            // It sends everything twice, and the second time counts.
            let cpu = receiver.cpu_s + (cpu_s(self.raw.id())? - before) / 2.0;
            told.push(cpu / (bytes as f64 / 1e9));
        }
        self.curl_s.push(peers::curl(link, files, connections, &into.join("curl"))?);
        self.rsync_s.push(peers::rsync(link, folder, &into.join("rsync"))?.0);
        let Self { curl_s, rsync_s, raw_cpu, written_cpu, .. } = self;
        eprintln!(
            "  curl {curl_s:.2?} rsync {rsync_s:.2?} s; plain TCP {raw_cpu:.2?}, into files {written_cpu:.2?} s/GB"
        );
        Ok(())
    }

    fn told(self) -> PeersBeside {
        PeersBeside {
            curl: median(self.curl_s),
            rsync: median(self.rsync_s),
            raw_cpu_s_per_gb: median(self.raw_cpu),
            written_cpu_s_per_gb: median(self.written_cpu),
        }
    }
}

const FLOOR: &str = "bytes / link rate";

fn small(bench: &Bench) -> Result<Vec<Row>> {
    let files = bench.small()?;
    let floor = WAN.floor_s(bytes_of(&files));
    let told = beside(bench, &files, "small", 256)?;
    let what = |how: &str| format!("{SMALL_FILES} x 100 KB, {how}");
    let mut rows = vec![
        row(what("cold connections"), told.cold, floor, FLOOR, 1.6),
        row(what("warm connections"), told.warm, floor, FLOOR, 1.15),
    ];
    if let Some(peers) = told.peers {
        rows.push(row(what("cold, beside curl"), told.cold, peers.curl, "curl -Z, 256 connections", 1.0));
        rows.push(row(what("cold, beside rsync"), told.cold, peers.rsync, "rsync daemon", 1.0));
    }
    Ok(rows)
}

fn large(bench: &Bench) -> Result<Vec<Row>> {
    let files = bench.large()?;
    let floor = WAN.floor_s(bytes_of(&files));
    let told = beside(bench, &files, "large", LARGE_FILES as usize)?;
    let what = |how: &str| format!("{LARGE_FILES} x 200 MB, {how}");
    let possible = floor / PAYLOAD_SHARE + WAN.rtt_ms as f64 / 1e3;
    let cpu = |reference, name, bar| Row {
        unit: "s/GB",
        ..row("CPU of both ends, TLS on".into(), told.cpu_s_per_gb, reference, name, bar)
    };
    let mut rows = vec![
        row(what("cold connections"), told.cold, floor, FLOOR, 1.3),
        row(what("warm connections"), told.warm, floor, FLOOR, 1.04),
        row(what("warm, beside what is possible"), told.warm, possible, "headers and one round trip counted", 1.04),
        cpu(1.0, "1 s/GB", 0.9),
    ];
    if let Some(peers) = told.peers {
        rows.push(row(what("cold, beside curl"), told.cold, peers.curl, "curl -Z, 4 connections", 1.0));
        rows.push(row(what("cold, beside rsync"), told.cold, peers.rsync, "rsync daemon", 1.0));
        // A busy or virtual machine needs more for everything: the bar as it stands to plain TCP on a quiet one.
        rows.push(cpu(peers.raw_cpu_s_per_gb, "plain TCP, 8 connections, no TLS", 0.9 / 0.54));
        // What arrives is to stay, and the kernel's part in that is the larger one on a machine whose memory is another's.
        rows.push(cpu(peers.written_cpu_s_per_gb, "the same into files", 0.9 / 0.54));
    }
    Ok(rows)
}

/// Seconds of warm moves over another link.
fn over(bench: &Bench, shape: Shape, files: &Files) -> Result<f64> {
    let link = Link::start(shape)?;
    let _server = bench.serve(&link, shape)?;
    let took: Vec<f64> =
        (0..bench.rounds).map(|_| bench.moved(&link, true, files).map(|f| f.seconds)).collect::<Result<_>>()?;
    eprintln!("  {shape:?} {took:.2?}");
    Ok(median(took))
}

fn loss(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (files, what) in [(bench.small()?, "2000 x 100 KB"), (bench.large()?, "4 x 200 MB")] {
        // Without loss, but packet by packet too, so that the emulation is the same.
        let [lossless, lossy] = [1e-9, 0.001].map(|loss| over(bench, Shape { loss, ..WAN }, &files));
        rows.push(row(format!("{what}, 0.1 % of packets lost"), lossy?, lossless?, "the same without loss", 1.15));
    }
    Ok(rows)
}

/// With the window and the connections that such a link wants, as their documentation says.
fn fast(bench: &Bench) -> Result<Vec<Row>> {
    let shape = Shape { rate_mbit: 10_000.0, ..WAN };
    let client = ClientConfig { connections: 8, ..bench.config.client.clone() };
    let config = MoverConfig { window_bytes: 512 << 20, client, ..bench.config.clone() };
    let files = bench.large()?;
    let link = Link::start(shape)?;
    let _server = bench.serve(&link, shape)?;
    let _raw = Peer::start(&link, &Order::RawSend)?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let bytes = bytes_of(&files);
        let work = Work::Move(vec![files.clone()]);
        let told = bench.fetch_by(config.clone(), &link, true, work, &mut || Ok(()))?;
        ours.push(bytes as f64 / 1e9 / told.seconds);
        let told = bench.receive(&link, &Order::RawFetch { bytes, into: None }, &mut || Ok(()))?;
        raw.push(bytes as f64 / 1e9 / told.seconds);
        eprintln!("  ours {ours:.3?} raw {raw:.3?} GB/s");
    }
    let row =
        row("10 Gbit/s link, 4 x 200 MB, warm".into(), median(ours), median(raw), "plain TCP, 8 connections", 0.9);
    Ok(vec![Row { unit: "GB/s", wanted: Wanted::AtLeast, ..row }])
}

fn demand(bench: &Bench) -> Result<Vec<Row>> {
    bench.files("demand", DEMAND_FILES, SMALL_BYTES)?;
    let meanwhile = bench.files("meanwhile", 20, LARGE_BYTES)?;
    let link = Link::start(WAN)?;
    let _server = bench.serve(&link, WAN)?;
    let began = Instant::now();
    let told = bench.fetch(&link, true, Work::Demand { meanwhile }, &mut || Ok(()))?;
    let (idle, loaded) = (&told.idle_ms, &told.loaded_ms);
    let p = |all: &[f64], p| percentile(all.to_vec(), p);
    eprintln!(
        "  idle p50 {:.0} p99 {:.0} ms, loaded p50 {:.0} p90 {:.0} p99 {:.0} ms, {:.0} s",
        p(idle, 0.5),
        p(idle, 0.99),
        p(loaded, 0.5),
        p(loaded, 0.9),
        p(loaded, 0.99),
        began.elapsed().as_secs_f64()
    );
    let work = "demand read of 100 KB while prefetch fills the link, p99";
    let row = row(work.into(), p(loaded, 0.99), p(idle, 0.99), "the same on an idle link, p99", 1.3);
    Ok(vec![Row { unit: "ms", ..row }])
}

/// What a sender that is told a rate keeps to, from the first chunk's arrival to the last's.
fn rate(bench: &Bench) -> Result<Vec<Row>> {
    const TOLD_MBIT: f64 = 400.0;
    let files = bench.large()?;
    let link = Link::start(WAN)?;
    let _server = bench.serve_at(&link, TOLD_MBIT * 1e6)?;
    // Once before: cutting the files would count as waiting for the first chunk.
    bench.moved(&link, false, &files)?;
    let told = bench.moved(&link, true, &files)?;
    let seconds = told.seconds - WAN.rtt_ms as f64 / 1e3;
    let ours = told.wire_bytes as f64 * 8.0 / 1e6 / seconds;
    let within = |bar, wanted| Row {
        unit: "Mbit/s",
        wanted,
        ..row("rate limit, 4 x 200 MB".into(), ours, TOLD_MBIT, "the rate that was set", bar)
    };
    Ok(vec![within(1.03, Wanted::AtMost), within(0.97, Wanted::AtLeast)])
}

const TREE_FILES: u64 = 100;
const TREE_FILE_BYTES: u64 = 5_230_000;
const CHANGES: u64 = 500;
/// 1.5 % of the tree, in so many places.
const CHANGE_BYTES: u64 = TREE_FILES * TREE_FILE_BYTES * 15 / 1000 / CHANGES;

/// Overwrites scattered places of the tree.
fn change(bench: &Bench, files: &Files, seed: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut random = noise(seed, 16 * CHANGES as usize).into_iter();
    let mut number = || (0..8).fold(0u64, |n, _| n << 8 | u64::from(random.next().unwrap_or(0)));
    for i in 0..CHANGES {
        let (path, bytes) = &files[(number() % files.len() as u64) as usize];
        let file = std::fs::OpenOptions::new().write(true).open(bench.source().join(path))?;
        let at = number() % (bytes - CHANGE_BYTES);
        file.write_all_at(&noise(seed + 1000 + i, CHANGE_BYTES as usize), at)?;
    }
    Ok(())
}

fn difference(bench: &Bench) -> Result<Vec<Row>> {
    let files = bench.files("tree", TREE_FILES, TREE_FILE_BYTES)?;
    let link = Link::start(WAN)?;
    let server = bench.serve(&link, WAN)?;
    let _rsync = peers::rsync_daemon(&link, &bench.source(), bench.folder.path())?;
    let (mut ours, mut rsync, mut ours_mb, mut rsync_mb) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.rounds as u64 {
        let into = bench.fresh();
        peers::rsync(&link, "tree", &into)?;
        let work = Work::Move(vec![files.clone(), files.clone()]);
        let told = bench.fetch(&link, true, work, &mut || change(bench, &files, 7777 * (round + 1)))?;
        ours.push(told.seconds);
        ours_mb.push(told.wire_bytes as f64 / 1e6);
        let (took, bytes) = peers::rsync(&link, "tree", &into)?;
        rsync.push(took);
        rsync_mb.push(bytes as f64 / 1e6);
        std::fs::remove_dir_all(into)?;
        eprintln!("  ours {ours:.2?} s {ours_mb:.2?} MB, rsync {rsync:.2?} s {rsync_mb:.2?} MB");
    }
    drop(server);
    let work =
        format!("second version of {} MB, 1.5 % changed in {CHANGES} places", TREE_FILES * TREE_FILE_BYTES / 1_000_000);
    let moved = row(format!("{work}: both ways"), median(ours_mb), 12.0, "12 MB", 1.0);
    let beside = row(format!("{work}: time"), median(ours), median(rsync), "rsync daemon", 1.0);
    Ok(vec![Row { unit: "MB", ..moved }, beside])
}

/// Log lines: what packs well.
fn text(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.source().join("text");
    std::fs::create_dir_all(&folder)?;
    let mut files = Files::new();
    for i in 0..LARGE_FILES {
        let words = noise(i, LARGE_BYTES as usize / 40);
        let mut lines = String::with_capacity(LARGE_BYTES as usize + 100);
        for (n, word) in words.chunks(4).enumerate() {
            lines += &format!(
                "2026-01-01T00:00:{:02}.{:06} INFO worker-{} read block {} in {} us\n",
                n % 60,
                n,
                word[0] % 8,
                u32::from(word[1]) * 256 + u32::from(word[2]),
                u32::from(word[3]) * 11
            );
            if lines.len() as u64 >= LARGE_BYTES {
                break;
            }
        }
        std::fs::write(folder.join(i.to_string()), &lines)?;
        files.push((format!("text/{i}"), lines.len() as u64));
    }
    let link = Link::start(WAN)?;
    let _server = bench.serve(&link, WAN)?;
    let took: Vec<f64> =
        (0..bench.rounds).map(|_| bench.moved(&link, true, &files).map(|f| f.seconds)).collect::<Result<_>>()?;
    let logical = bytes_of(&files) as f64 * 8.0 / 1e6 / median(took);
    let row = row("log lines, warm: logical rate".into(), logical, WAN.rate_mbit, "the link's rate", 1.0);
    Ok(vec![Row { unit: "Mbit/s", wanted: Wanted::AtLeast, ..row }])
}
