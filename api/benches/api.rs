//! A scheduler's load on the control plane: many statuses asked for, many listeners told, 100,000 warm-ups stored.
//!
//! The API and the catalog (SQLite) run on two worker threads, the askers on others of the same machine. Statuses are
//! asked for at a fixed rate whatever comes back, and each is timed from the moment at which it should have been
//! sent, so that a stall counts against all that it held up. Then as many are asked for as are answered. The
//! reference is the same load on a bare axum route that answers a constant of the same size: what the web stack
//! leaves. Both are run in turn, three times; the medians are told.
//!
//! `FORETIDE_BENCH_WARMUPS` sets the number of warm-ups; `target/bench/api.json` gets the rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use foretide_api::{
    Accepted, AccessSink, AddedVolume, Advice, Adviser, Api, Config, Courier, Directory, FilesRead, Listener,
    NotReplayed, PlanChanges, Ports, Question, Reader, Recordings, Rejected, Replayed, Scope, Told, WhatIf, digest_of,
    mint, tell,
};
use foretide_catalog::{Catalog, CatalogError, ResidentFile, Run};
use foretide_flow::{
    BitsPerSecond, CacheSpec, FilePath, Forecast, LeftOut, Link, Listing, Mode, NodeId, OutcomeBatch, Plan, Ruleset,
    Site, SiteId, Timestamp, Topology, Volume, VolumeId, Warmup, WarmupId, WarmupRequest,
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

const WARMUPS: u64 = 100_000;
const STATUSES_PER_S: u32 = 2_000;
const P99_MAX_MS: f64 = 50.0;
const LISTENERS: usize = 500;
const EVENTS_PER_S: u64 = 10;
/// Connections that statuses are asked over: the pollers of a busy cluster.
const CONNECTIONS: u32 = 64;
/// Of one measurement.
const LASTS: Duration = Duration::from_secs(8);
const TURNS: usize = 3;

fn topology() -> Topology {
    let site = |cache| Site { jurisdiction: "eu".into(), labels: [].into(), cache, accelerator_per_hour: 2.0 };
    let (store, gpu) = (SiteId::new("store").expect("a name"), SiteId::new("gpu").expect("a name"));
    let link =
        Link { from: store.clone(), to: gpu.clone(), rate: BitsPerSecond(1 << 30), rtt_ms: 150.0, cost_per_gb: 0.02 };
    Topology {
        sites: [(store.clone(), site(None)), (gpu, site(Some(CacheSpec { capacity_bytes: 1 << 40 })))].into(),
        links: vec![link],
        volumes: [(VolumeId::new("data").expect("a name"), Volume::at(store))].into(),
    }
}

/// The other rooms, which are asked for nothing here.
struct Quiet(Arc<Topology>);

impl Directory for Quiet {
    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.0)
    }
    fn rules(&self) -> Arc<Ruleset> {
        Arc::default()
    }
    fn digest(&self) -> blake3::Hash {
        digest_of(&self.topology(), &self.rules())
    }
    fn mode(&self) -> Mode {
        Mode::Enforce
    }
    fn volumes_added(&self, _: &BTreeMap<VolumeId, AddedVolume>) {}
}

#[async_trait]
impl AccessSink for Quiet {
    async fn accept(&self, _: &NodeId, _: bytes::Bytes) -> Result<Accepted, Rejected> {
        Err(Rejected::TryAgain("not here".into()))
    }
}

#[async_trait]
impl Listener for Quiet {
    async fn listings(&self, _: Vec<Listing>) {}
    async fn outcomes(&self, _: OutcomeBatch, _: Vec<ResidentFile>) {}
    async fn announced(&self, _: Forecast) {}
}

#[async_trait]
impl Adviser for Quiet {
    fn explain(&self, _: &Plan, _: &FilePath) -> String {
        String::new()
    }
    fn proposals(&self, _: &Plan) -> Vec<LeftOut> {
        Vec::new()
    }
    fn changes(&self, _: &Plan, _: &Plan) -> PlanChanges {
        PlanChanges { added: Vec::new(), removed: Vec::new(), changed: Vec::new(), kept: 0 }
    }
    async fn advise(&self, _: Question, _: Timestamp) -> Result<Advice, CatalogError> {
        Ok(Advice { files: 0, bytes: 0, complete: true, sites: Vec::new() })
    }
}

#[async_trait]
impl Recordings for Quiet {
    async fn files_read(&self, _: &Run, _: usize) -> FilesRead {
        Err("nothing is recorded here".into())
    }
    async fn what_if(&self, _: WhatIf) -> Result<Replayed, NotReplayed> {
        Err(NotReplayed::Busy)
    }
}

#[async_trait]
impl Reader for Quiet {
    async fn get(&self, _: &str) -> Result<Vec<u8>, String> {
        Err("not here".into())
    }
}

#[async_trait]
impl Courier for Quiet {
    async fn post(&self, _: &str, _: &[(&'static str, String)], _: Vec<u8>) -> Result<u16, String> {
        Ok(200)
    }
}

fn warmup(n: u64) -> Warmup {
    let path = FilePath::parse(&format!("set-{:03}/shard-{n:06}", n % 500)).expect("a path");
    let (volume, site) = (VolumeId::new("data").expect("a name"), SiteId::new("gpu").expect("a name"));
    let request = WarmupRequest { label: format!("job {n}"), ..WarmupRequest::new(volume, vec![path], site) };
    Warmup::new(WarmupId::from(format!("w-{n}")), request, Timestamp(1_700_000_000_000_000))
}

/// What the askers need.
struct Target {
    address: String,
    secrets: Vec<String>,
    warmups: u64,
}

impl Target {
    fn request(&self, n: u64) -> String {
        let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.warmups.max(1);
        let secret = &self.secrets[(n % self.secrets.len() as u64) as usize];
        format!("GET /v1/warmups/w-{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n")
    }
}

/// One connection that is kept; an answer is read by its `content-length`.
struct Asker(BufReader<TcpStream>);

impl Asker {
    async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn ask(&mut self, request: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let (mut line, mut length, mut status) = (String::new(), 0usize, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).await?;
            if status.is_empty() {
                status.clone_from(&line);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        if status.contains(" 200 ") { Ok(()) } else { Err(std::io::Error::other(status)) }
    }
}

fn p99(mut ms: Vec<f64>) -> f64 {
    ms.sort_by(f64::total_cmp);
    ms[(ms.len() * 99).div_ceil(100) - 1]
}

/// The 99th percentile, milliseconds, at a fixed rate.
async fn at_fixed_rate(target: &Arc<Target>) -> f64 {
    let begin = Instant::now() + Duration::from_millis(200);
    let each = Duration::from_secs(1) * CONNECTIONS / STATUSES_PER_S;
    let askers = (0..CONNECTIONS).map(|c| {
        let target = Arc::clone(target);
        tokio::spawn(async move {
            let mut asker = Asker::open(&target.address).await.expect("a connection");
            let mut due = begin + each * c / CONNECTIONS;
            let (mut took, mut n) = (Vec::new(), u64::from(c) << 32);
            while due < begin + LASTS {
                sleep_until(due).await;
                asker.ask(&target.request(n)).await.expect("an answer");
                took.push(due.elapsed().as_secs_f64() * 1e3);
                due += each;
                n += 1;
            }
            took
        })
    });
    p99(futures::future::join_all(askers).await.into_iter().flat_map(|a| a.expect("no panic")).collect())
}

/// Statuses answered in a second, as fast as they come.
async fn as_fast_as_it_goes(target: &Arc<Target>) -> f64 {
    let begin = Instant::now();
    let askers = (0..CONNECTIONS).map(|c| {
        let target = Arc::clone(target);
        tokio::spawn(async move {
            let mut asker = Asker::open(&target.address).await.expect("a connection");
            let mut answered = 0u64;
            while begin.elapsed() < LASTS {
                asker.ask(&target.request((u64::from(c) << 32) + answered)).await.expect("an answer");
                answered += 1;
            }
            answered
        })
    });
    let answered: u64 = futures::future::join_all(askers).await.into_iter().map(|a| a.expect("no panic")).sum();
    answered as f64 / begin.elapsed().as_secs_f64()
}

/// Counts the events that one listener is told, and says when it is open.
async fn listen(target: Arc<Target>, n: usize, heard: Arc<AtomicU64>, open: Arc<AtomicU64>) {
    let stream = TcpStream::connect(&target.address).await.expect("a connection");
    let mut lines = BufReader::new(stream);
    let secret = &target.secrets[n % target.secrets.len()];
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n");
    lines.get_mut().write_all(request.as_bytes()).await.expect("a request");
    let mut line = String::new();
    while lines.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        if line.starts_with("HTTP/1.1 200") {
            open.fetch_add(1, Ordering::Relaxed);
        }
        if line.starts_with("id:") {
            heard.fetch_add(1, Ordering::Relaxed);
        }
        line.clear();
    }
}

/// Tells events at their rate until it is stopped; answers how many.
async fn keep_telling(catalog: Arc<dyn Catalog>, mut stop: watch::Receiver<bool>) -> u64 {
    let mut told = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_S as u32);
    while !*stop.borrow() {
        tokio::select! {
            _ = tick.tick() => {
                tell(catalog.as_ref(), &Told::Forecasts { changed: told }, Timestamp::now()).await.expect("it is told");
                told += 1;
            }
            _ = stop.changed() => {}
        }
    }
    told
}

struct Row {
    work: &'static str,
    ours: f64,
    unit: &'static str,
    reference: f64,
    reference_name: &'static str,
    bar: f64,
    at_most: bool,
}

impl Row {
    fn holds(&self) -> bool {
        if self.at_most { self.ours <= self.bar } else { self.ours >= self.bar }
    }
    fn json(&self) -> serde_json::Value {
        json!({
            "work": self.work, "ours": self.ours, "unit": self.unit, "reference": self.reference,
            "reference_name": self.reference_name, "ratio": self.ours / self.reference, "bar": self.bar,
            "holds": self.holds(),
        })
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn target_folder() -> PathBuf {
    // target/release/deps/api-… -> target
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

fn workers(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("threads")
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn main() {
    let warmups = std::env::var("FORETIDE_BENCH_WARMUPS").ok().and_then(|n| n.parse().ok()).unwrap_or(WARMUPS);
    let folder = tempfile::tempdir().expect("a folder");
    let (served, asking) = (workers(2), workers(2));
    let database = folder.path().join("catalog.sqlite").display().to_string();
    let catalog = served.block_on(foretide_catalog::open(&database)).expect("a catalog");
    let (stop, stopped) = watch::channel(false);

    let begun = std::time::Instant::now();
    let ours = served.block_on(async {
        for n in 0..warmups {
            catalog.put_warmup(&warmup(n), None).await.expect("a warm-up is kept");
        }
        let mut secrets = Vec::new();
        for n in 0..8 {
            let name = format!("scheduler-{n}");
            secrets.push(
                mint(catalog.as_ref(), &name, &[Scope::Read], None, Timestamp::now()).await.expect("a token is kept"),
            );
        }
        let quiet = Arc::new(Quiet(Arc::new(topology())));
        let ports = Ports {
            directory: quiet.clone(),
            accesses: quiet.clone(),
            listener: quiet.clone(),
            adviser: quiet.clone(),
            recordings: quiet.clone(),
            courier: quiet.clone(),
            reader: quiet,
            certifier: None,
        };
        // What one token may ask is bounded; here it is the machine that bounds.
        let config = Config { rate_requests_per_s: 1_000_000, burst_requests: 1_000_000, ..Config::default() };
        let api = Api::new(config, Arc::clone(&catalog), ports, stopped.clone());
        Arc::new(Target { address: serve(foretide_api::router(api)).await, secrets, warmups })
    });
    println!("{warmups} warm-ups stored in {:.0} s", begun.elapsed().as_secs_f64());
    let size = served.block_on(async {
        let one = catalog.warmup(&WarmupId::from("w-1")).await.expect("a catalog").expect("a warm-up");
        serde_json::to_vec(&one).expect("JSON").len()
    });
    let constant = "x".repeat(size);
    let bare = served.block_on(async {
        let app = Router::new().route("/v1/warmups/{id}", get(move || async move { constant.clone() }));
        Arc::new(Target { address: serve(app).await, secrets: ours.secrets.clone(), warmups })
    });

    let (heard, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    asking.block_on(async {
        for n in 0..LISTENERS {
            tokio::spawn(listen(Arc::clone(&ours), n, Arc::clone(&heard), Arc::clone(&open)));
        }
        while open.load(Ordering::Relaxed) < LISTENERS as u64 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let telling = served.spawn(keep_telling(Arc::clone(&catalog), stopped));
    let (mut late, mut late_bare, mut fast, mut fast_bare) = (vec![], vec![], vec![], vec![]);
    asking.block_on(async {
        for _ in 0..TURNS {
            late.push(at_fixed_rate(&ours).await);
            late_bare.push(at_fixed_rate(&bare).await);
            fast.push(as_fast_as_it_goes(&ours).await);
            fast_bare.push(as_fast_as_it_goes(&bare).await);
        }
    });
    stop.send_replace(true);
    let told = served.block_on(telling).expect("no panic");
    // The last events are on their way.
    std::thread::sleep(Duration::from_secs(2));
    let reached = heard.load(Ordering::Relaxed) as f64 / (told * LISTENERS as u64) as f64;

    let rows = [
        Row {
            work: "p99 of a status at 2,000/s, 500 listeners beside",
            ours: median(late),
            unit: "ms",
            reference: median(late_bare),
            reference_name: "bare axum route",
            bar: P99_MAX_MS,
            at_most: true,
        },
        Row {
            work: "statuses a second, 64 connections, 500 listeners beside",
            ours: median(fast),
            unit: "1/s",
            reference: median(fast_bare),
            reference_name: "bare axum route",
            bar: f64::from(STATUSES_PER_S),
            at_most: false,
        },
        Row {
            work: "events that reached each of 500 listeners, share",
            ours: reached,
            unit: "",
            reference: 1.0,
            reference_name: "all",
            bar: 1.0,
            at_most: false,
        },
    ];
    println!("{:<58} {:>10} {:<4} {:>10} {:>8}  holds", "work", "ours", "unit", "bare axum", "bar");
    for r in &rows {
        println!("{:<58} {:>10.2} {:<4} {:>10.2} {:>8}  {}", r.work, r.ours, r.unit, r.reference, r.bar, r.holds());
    }
    let out = target_folder().join("bench");
    std::fs::create_dir_all(&out).expect("target/bench");
    let report = json!({ "warmups": warmups, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() });
    std::fs::write(out.join("api.json"), format!("{report:#}")).expect("target/bench/api.json");
}
