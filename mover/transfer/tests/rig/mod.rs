//! What every test of transfers needs: a folder that is served on loopback, and a node with a store that fetches from it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foretide_chunk::{Config, DomainKey, FileKey, Store};
use foretide_flow::{
    Assignment, FilePath, ForecastId, Move, MoveCause, NodeId, Outcome, Priority, Ruleset, SiteId, Timestamp, Topology,
    VolumeId, WorkloadId,
};
use foretide_transfer::{
    Borders, ClientConfig, Credentials, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Source,
    Token, TransferError,
};
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

/// What all agents know.
pub const TOKEN: &str = "secret";
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Outcomes that wait for the test to look.
const OUTCOMES: usize = 100_000;

/// Bytes that follow from a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

pub fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

pub fn site_id(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub fn identity(site: &str, node: &str) -> Identity {
    Identity { site: site_id(site), node: NodeId::new(node).unwrap() }
}

/// Everything may go everywhere.
pub fn no_borders() -> Arc<Borders> {
    Borders::new(Ruleset::default(), Topology::default())
}

/// A background move that is due, from `store` to `gpu`.
pub fn a_move(name: &str, length: u64) -> Move {
    Move {
        id: format!("move-{name}").into(),
        volume: volume(),
        path: path(name),
        offset: 0,
        length,
        from: site_id("store"),
        to: site_id("gpu"),
        start_at: Timestamp(0),
        due_at: Timestamp(1),
        keep_until: Timestamp::now() + Duration::from_secs(3600),
        priority: Priority::Background,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
        reason: String::new(),
        shared_bytes: 0,
    }
}

pub fn local(folder: &Path) -> Box<dyn Source> {
    Box::new(LocalDirectory::open(folder).unwrap())
}

/// On a port that is free.
pub fn loopback() -> ServerConfig {
    ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() }
}

/// Serves the volume on loopback to who knows the token.
pub async fn serve(source: Box<dyn Source>, borders: Arc<Borders>) -> Server {
    serve_with(loopback(), Token::new(TOKEN), vec![(volume(), source)], borders).await
}

pub async fn serve_with(
    config: ServerConfig,
    credentials: impl Into<Credentials>,
    volumes: Vec<(VolumeId, Box<dyn Source>)>,
    borders: Arc<Borders>,
) -> Server {
    Server::start(config, DomainKey::default(), credentials, volumes, borders).await.unwrap()
}

pub fn store(root: &Path, capacity_bytes: u64) -> Arc<Store> {
    Store::open(root, Config { capacity_bytes, ..Config::default() }, DomainKey::default()).unwrap()
}

/// Few connections, and little patience with peers on this very machine.
pub fn hasty() -> ClientConfig {
    ClientConfig { connections: 3, warm_bytes: 0, dial_timeout_s: 1, ..ClientConfig::default() }
}

pub fn with_client(client: ClientConfig) -> MoverConfig {
    MoverConfig { client, ..MoverConfig::default() }
}

/// A node that fetches.
pub struct Node {
    pub identity: Identity,
    pub mover: Arc<Mover>,
    outcomes: mpsc::Receiver<Outcome>,
}

impl Node {
    /// Which has the volume from an agent at `source`.
    pub fn start(
        source: &str,
        identity: Identity,
        store: Arc<Store>,
        config: MoverConfig,
        credentials: impl Into<Credentials>,
        borders: Arc<Borders>,
    ) -> Self {
        let (tell, outcomes) = mpsc::channel(OUTCOMES);
        let mover = Mover::new(config, identity.clone(), credentials, store, borders, tell);
        mover.set_source(&volume(), source);
        Self { identity, mover, outcomes }
    }

    /// The file as the source has it now.
    pub async fn look(&self, name: &str) -> Result<FileKey, TransferError> {
        let entry = self.mover.stat(&volume(), &path(name)).await?;
        Ok(FileKey { volume: volume(), path: path(name), version: entry.version })
    }

    /// The same of a file that is there.
    pub async fn key(&self, name: &str) -> FileKey {
        self.look(name).await.unwrap()
    }

    pub async fn content(&self, name: &str) -> Result<Vec<u8>, TransferError> {
        let key = self.look(name).await?;
        Ok(self.mover.read(&key, 0..u64::MAX).await?.bytes.to_vec())
    }

    pub fn take(&self, run: Vec<Move>) {
        self.mover.take(&Assignment { run, ..Assignment::default() });
    }

    pub async fn next(&mut self) -> Outcome {
        let waited = tokio::time::timeout(PATIENCE, self.outcomes.recv()).await;
        waited.expect("an outcome").expect("the mover lives")
    }

    /// The outcome of a move, which must have ended well: bytes, and bytes that crossed a link between sites.
    pub async fn moved(&mut self) -> (u64, u64) {
        match self.next().await {
            Outcome::Moved { bytes, wire_bytes, .. } => (bytes, wire_bytes),
            other => panic!("{other:?}"),
        }
    }
}
