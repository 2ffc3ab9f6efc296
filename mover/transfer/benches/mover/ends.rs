//! Our two ends, each a process of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_chunk::{DomainKey, FileKey, Store};
use foretide_flow::{
    Assignment, BitsPerSecond, Entry, FilePath, ForecastId, Move, MoveCause, NodeId, Outcome, Priority, Ruleset,
    SiteId, Timestamp, Topology, VolumeId, WorkloadId,
};
use foretide_transfer::{
    Authority, Borders, Credentials, Identity, Issued, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Tls,
    Token,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{Result, cpu_s};

/// How old connections are in a row that is about warm ones: an agent's are older. They have opened their windows by then,
/// and BBR does not look for the shortest round trip in the middle of the transfer: it does after ten seconds, by sending
/// nothing for a third of one.
const WARM_UP: Duration = Duration::from_secs(12);
/// A prefetch gets so long to fill the link before demands are measured.
const FILL_UP: Duration = Duration::from_millis(1500);

/// Certificates as an installation would make them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Papers {
    authority_pem: String,
    certificate_pem: String,
    key_pem: String,
}

fn identity(site: &str) -> Result<Identity> {
    Ok(Identity { site: SiteId::new(site)?, node: NodeId::new("n1")? })
}

impl Papers {
    /// For the agents of two sites.
    pub fn issue() -> Result<[Self; 2]> {
        let authority = Authority::new()?;
        let to = |site: &str| -> Result<Self> {
            let Issued { certificate_pem, key_pem } = authority.issue(&identity(site)?)?;
            Ok(Self { authority_pem: authority.kept().certificate_pem.clone(), certificate_pem, key_pem })
        };
        Ok([to("store")?, to("gpu")?])
    }

    fn credentials(self, site: &str) -> Result<Credentials> {
        let own = Issued { certificate_pem: self.certificate_pem, key_pem: self.key_pem };
        Ok(Credentials::with_tls(Token::new("bench"), Tls::new(&self.authority_pem, &own, &identity(site)?)?))
    }
}

/// What the receiver is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fetch {
    pub server: String,
    pub papers: Papers,
    pub cache: PathBuf,
    /// Whether connections are made and warmed up before the clock starts, as an agent does when it starts.
    pub warm: bool,
    pub work: Work,
    pub config: MoverConfig,
}

/// Files to move, or reads while they move.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Brings these files (path, bytes), each group when the one before is here and the bench says so; the last is
    /// measured.
    Move(Vec<Vec<(String, u64)>>),
    /// Reads files of `demand/` alone, then others while these move.
    Demand { meanwhile: Vec<(String, u64)> },
}

/// What it measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fetched {
    pub seconds: f64,
    pub cpu_s: f64,
    /// What the receiver's sockets took and gave, bytes: chunks, deltas, manifests, requests, signatures.
    pub wire_bytes: u64,
    /// Milliseconds of each demand on the idle link.
    pub idle_ms: Vec<f64>,
    /// And while moves fill it.
    pub loaded_ms: Vec<f64>,
}

fn volume() -> VolumeId {
    VolumeId::new("bench").expect("a name")
}

fn borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), Topology::default())
}

/// The sender: until it is killed.
#[tokio::main]
pub async fn serve(source: &Path, listen: &str, papers: Papers, rate_bits_per_s: Option<u64>) -> Result<()> {
    let config = ServerConfig {
        listen: listen.parse()?,
        rate_limit: rate_bits_per_s.map(BitsPerSecond),
        ..ServerConfig::default()
    };
    let volumes: Vec<(VolumeId, Box<dyn foretide_transfer::Source>)> =
        vec![(volume(), Box::new(LocalDirectory::open(source)?))];
    let _server = Server::start(config, DomainKey::default(), papers.credentials("store")?, volumes, borders()).await?;
    println!("ready");
    std::io::stdout().flush()?;
    std::future::pending().await
}

/// The receiver.
#[tokio::main]
pub async fn fetch(order: Fetch) -> Result<Fetched> {
    let store = Store::open(&order.cache, foretide_chunk::Config::default(), DomainKey::default())?;
    let (tell, mut outcomes) = mpsc::channel(100_000);
    let mover = Mover::new(order.config, identity("gpu")?, order.papers.credentials("gpu")?, store, borders(), tell);
    let groups = match order.work {
        Work::Move(groups) => groups,
        Work::Demand { meanwhile } => return demand(&mover, &order.server, &meanwhile).await,
    };
    let mut measured = Fetched::default();
    for (n, group) in groups.iter().enumerate() {
        if n > 0 {
            println!("next");
            std::io::stdin().read_line(&mut String::new())?;
        }
        if order.warm {
            mover.set_source(&volume(), &order.server);
            mover.stat(&volume(), &FilePath::root()).await?;
            tokio::time::sleep(WARM_UP).await;
        }
        let carried = |m: &Mover| m.source(&volume()).map_or(0, |c| c.received_bytes() + c.sent_bytes());
        let (cpu, before, began) = (cpu_s(std::process::id())?, carried(&mover), Instant::now());
        mover.set_source(&volume(), &order.server);
        bring(&mover, group, &mut outcomes).await?;
        measured = Fetched {
            seconds: began.elapsed().as_secs_f64(),
            cpu_s: cpu_s(std::process::id())? - cpu,
            wire_bytes: carried(&mover) - before,
            ..Fetched::default()
        };
    }
    Ok(measured)
}

async fn bring(mover: &Mover, files: &[(String, u64)], outcomes: &mut mpsc::Receiver<Outcome>) -> Result<()> {
    mover.take(&assignment(files)?);
    for _ in files {
        match outcomes.recv().await {
            Some(Outcome::Moved { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

async fn demand(mover: &Mover, server: &str, meanwhile: &[(String, u64)]) -> Result<Fetched> {
    mover.set_source(&volume(), server);
    mover.stat(&volume(), &FilePath::root()).await?;
    tokio::time::sleep(WARM_UP).await;
    let files = demanded(mover).await?;
    let (first, second) = files.split_at(files.len() / 2);
    let idle_ms = demands(mover, first).await?;
    mover.take(&assignment(meanwhile)?);
    tokio::time::sleep(FILL_UP).await;
    let loaded_ms = demands(mover, second).await?;
    if mover.counts() == (0, 0) {
        return Err("the prefetch ended before the demands did".into());
    }
    Ok(Fetched { idle_ms, loaded_ms, ..Fetched::default() })
}

/// The files to read, as a mount knows them when somebody opens one: by name, version and size.
async fn demanded(mover: &Mover) -> Result<Vec<(FileKey, u64)>> {
    let listing = mover.list(&volume(), &FilePath::parse("demand")?, false).await?.listing;
    let file = |e: Entry| (FileKey { volume: volume(), path: e.path, version: e.version }, e.size);
    Ok(listing.entries.into_iter().map(file).collect())
}

/// Milliseconds of each read of a whole file, one after the other.
async fn demands(mover: &Mover, files: &[(FileKey, u64)]) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for (key, bytes) in files {
        let began = Instant::now();
        mover.read(key, 0..*bytes).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

fn assignment(files: &[(String, u64)]) -> Result<Assignment> {
    let run = files.iter().map(|(path, length)| a_move(path, *length)).collect::<Result<_>>()?;
    Ok(Assignment { run, ..Assignment::default() })
}

fn a_move(path: &str, length: u64) -> Result<Move> {
    Ok(Move {
        id: path.into(),
        volume: volume(),
        path: FilePath::parse(path)?,
        offset: 0,
        length,
        from: SiteId::new("store")?,
        to: SiteId::new("gpu")?,
        start_at: Timestamp(0),
        due_at: Timestamp(0),
        keep_until: Timestamp(i64::MAX),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("b"), workload: WorkloadId::from("b") },
        reason: String::new(),
        shared_bytes: 0,
    })
}
