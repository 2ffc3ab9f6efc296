//! Links that break and processes that die: right bytes or a clear error, every time.
//!
//! Each test prints how many faults it tried. Seeds are fixed; a seed that once failed stays in its list.

mod killed;
mod link;
mod points;

use std::path::Path;
use std::sync::Arc;

use foretide_chunk::{Config, DomainKey, FileKey, Store};
use foretide_flow::{
    Assignment, FilePath, ForecastId, Move, MoveCause, NodeId, Outcome, Priority, Ruleset, SiteId, Timestamp, Topology,
    VolumeId, WorkloadId,
};
use foretide_transfer::{
    Borders, ClientConfig, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Source, Token,
    TransferError,
};
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

fn borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), Topology::default())
}

async fn serve(folder: &Path, listen: &str) -> Server {
    let config = ServerConfig { listen: listen.parse().unwrap(), ..ServerConfig::default() };
    let source: Box<dyn Source> = Box::new(LocalDirectory::open(folder).unwrap());
    Server::start(config, DomainKey::default(), Token::new("t"), vec![(volume(), source)], borders()).await.unwrap()
}

fn mover(cache: &Path, address: &str) -> (Arc<Mover>, mpsc::Receiver<Outcome>) {
    mover_with(Store::open(cache, Config::default(), DomainKey::default()).unwrap(), address)
}

fn mover_with(store: Arc<Store>, address: &str) -> (Arc<Mover>, mpsc::Receiver<Outcome>) {
    let (tell, outcomes) = mpsc::channel(10_000);
    let client = ClientConfig {
        connections: 3,
        warm_bytes: 0,
        patience_s: 5,
        dial_timeout_s: 1,
        silence_limit_s: 1,
        ..ClientConfig::default()
    };
    let config = MoverConfig { client, ..MoverConfig::default() };
    let identity = Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new("n1").unwrap() };
    let mover = Mover::new(config, identity, Token::new("t"), store, borders(), tell);
    mover.set_source(&volume(), address);
    (mover, outcomes)
}

async fn content(mover: &Mover, at: &str) -> Result<Vec<u8>, TransferError> {
    let entry = mover.stat(&volume(), &path(at)).await?;
    let key = FileKey { volume: volume(), path: path(at), version: entry.version };
    Ok(mover.read(&key, 0..u64::MAX).await?.bytes.to_vec())
}

fn take(mover: &Mover, files: &[(String, u64)]) {
    let run = files.iter().map(|(p, length)| a_move(p, *length)).collect();
    mover.take(&Assignment { run, ..Assignment::default() });
}

fn a_move(p: &str, length: u64) -> Move {
    Move {
        id: format!("move-{p}").into(),
        volume: volume(),
        path: path(p),
        offset: 0,
        length,
        from: SiteId::new("store").unwrap(),
        to: SiteId::new("gpu").unwrap(),
        start_at: Timestamp(0),
        due_at: Timestamp(1),
        keep_until: Timestamp(i64::MAX),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
        reason: String::new(),
    }
}
