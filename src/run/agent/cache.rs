//! The cache side of an agent: the store, the mover that fills it, the mount in front of it.

use std::sync::Arc;

use foretide_api::Welcome;
use foretide_chunk::{DomainKey, Store};
use foretide_collector::WatchedVolume;
use foretide_flow::{Listing, Outcome};
use foretide_mount::{MountEvent, MountHandle, Sinks};
use foretide_transfer::{Borders, Credentials, Identity, Mover};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::hydrate::Hydrator;
use super::origin::Telling;
use super::talk::set_peers;
use crate::config::{AgentConfig, CacheConfig};
use crate::run::RunError;

/// Outcomes between who carries moves out and the mount on one side and the sender on the other.
pub const OUTCOMES_QUEUED: usize = 1 << 17;
/// Events of the mount on the way to the collector, where the kernel refuses its probes.
const EVENTS_WAITING: usize = 1 << 16;

/// The running cache.
pub struct Cache {
    /// What is here.
    pub store: Arc<Store>,
    /// What brings it.
    pub mover: Arc<Mover>,
    /// Where it is seen.
    pub mount: Option<MountHandle>,
    /// What lays it down as plain files, if that is configured.
    pub hydrator: Option<Hydrator>,
    /// What happened.
    pub happened: mpsc::Receiver<Outcome>,
    /// The mount as collector.
    pub events: Option<mpsc::Receiver<MountEvent>>,
}

impl Cache {
    /// Opens the store, and mounts if a mount point is configured.
    ///
    /// # Errors
    /// A folder that cannot be used, a mount point that is taken.
    pub fn start(
        config: &AgentConfig,
        cache: &CacheConfig,
        welcome: &Welcome,
        borders: &Arc<Borders>,
        credentials: Credentials,
        learned: mpsc::Sender<Listing>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, RunError> {
        let store_config = foretide_chunk::Config { capacity_bytes: cache.capacity, ..cache.store.clone() };
        let store = Store::open(&cache.path, store_config, DomainKey::default())?;
        let (outcomes, happened) = mpsc::channel(OUTCOMES_QUEUED);
        let mover = Mover::new(
            cache.mover.clone(),
            Identity { site: config.site.clone(), node: config.node.clone() },
            credentials,
            Arc::clone(&store),
            Arc::clone(borders),
            outcomes.clone(),
        );
        set_peers(&mover, welcome);
        let (happened, hydrator) = match &cache.hydrate {
            Some(folder) => {
                let hydrator = Hydrator::start(folder, Arc::clone(&mover))?;
                let (onward, passed_on) = mpsc::channel(OUTCOMES_QUEUED);
                tasks.spawn(hydrator.clone().follow(happened, onward));
                (passed_on, Some(hydrator))
            }
            None => (happened, None),
        };
        let Some(mount_point) = &cache.mount else {
            return Ok(Self { store, mover, mount: None, hydrator, happened, events: None });
        };
        let volumes = welcome.topology.volumes.keys().cloned().collect();
        let mounting = foretide_mount::Config { mount_point: mount_point.clone(), volumes, ..cache.mounting.clone() };
        let (events, seen) = mpsc::channel(EVENTS_WAITING);
        let sinks = Sinks { outcomes, events: Some(events) };
        let origin = Arc::new(Telling { mover: Arc::clone(&mover), learned });
        let mount = foretide_mount::mount(mounting, origin, sinks)?;
        Ok(Self { store, mover, mount: Some(mount), hydrator, happened, events: Some(seen) })
    }

    /// The volumes as the mount shows them.
    pub fn watched(&self, welcome: &Welcome) -> Vec<WatchedVolume> {
        let Some(mount) = &self.mount else { return Vec::new() };
        let volumes = welcome.topology.volumes.keys();
        volumes.map(|v| WatchedVolume { volume: v.clone(), root: mount.path().join(v.as_str()) }).collect()
    }
}
