//! Every part real: files on a disk, an agent that serves them over TCP, a link, the mover, its store, the mount. The native
//! files beside which ours are measured are the source's own.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foretide_chunk::{DomainKey, Store};
use foretide_flow::{NodeId, Outcome, Ruleset, Site, SiteId, Topology, Volume, VolumeId};
use foretide_mount::{Config, MountHandle, Sinks, mount};
use foretide_transfer::{Borders, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Source, Token};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::link::Link;

pub struct House {
    pub source: PathBuf,
    pub link: Arc<Link>,
    pub runtime: Runtime,
    pub volume: VolumeId,
    mover: Arc<Mover>,
    _server: Server,
    mounts: RefCell<Vec<PathBuf>>,
    _outcomes: mpsc::Receiver<Outcome>,
    outcomes: mpsc::Sender<Outcome>,
    folder: TempDir,
}

fn topology(volume: &VolumeId) -> Topology {
    let mut topology = Topology::default();
    let [store, gpu] = ["store", "gpu"].map(|name| SiteId::new(name).expect("a name"));
    for site in [store.clone(), gpu] {
        let (jurisdiction, labels) = ("eu".into(), Default::default());
        topology.sites.insert(site, Site { jurisdiction, labels, cache: None, accelerator_per_hour: 0.0 });
    }
    topology.volumes.insert(volume.clone(), Volume::at(store));
    topology
}

/// The kernel drops what it keeps of a file's content.
pub fn forget(at: &Path) {
    let file = fs::File::open(at).expect("it is there");
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).expect("advice is taken");
}

impl House {
    /// Serves what `fill` makes, given a fresh folder and the one for what is kept between runs.
    pub fn start(target: &Path, fill: impl FnOnce(&Path, &Path) -> PathBuf) -> Self {
        let folder = TempDir::with_prefix_in("mount-bench-", target).expect("a folder under target");
        let [fresh, store] = ["source", "store"].map(|name| folder.path().join(name));
        fs::create_dir(&fresh).expect("a fresh folder");
        let source = fill(&fresh, target);
        // Written back now, not while something is measured.
        nix::unistd::sync();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let guard = runtime.enter();
        let volume = VolumeId::new("data").expect("a name");
        let borders = Borders::new(Ruleset::default(), topology(&volume));
        let listen = ServerConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..ServerConfig::default() };
        let served: Box<dyn Source> = Box::new(LocalDirectory::open(&source).expect("it is there"));
        let served = vec![(volume.clone(), served)];
        let start = Server::start(listen, DomainKey::default(), Token::new("bench"), served, Arc::clone(&borders));
        let server = runtime.block_on(start).expect("a server");
        let (link, address) = runtime.block_on(Link::start(server.address()));
        let store = Store::open(&store, foretide_chunk::Config::default(), DomainKey::default()).expect("a store");
        let identity =
            Identity { site: SiteId::new("gpu").expect("a name"), node: NodeId::new("gpu-1").expect("a name") };
        let (outcomes, kept) = mpsc::channel(1 << 17);
        let mover = Mover::new(MoverConfig::default(), identity, Token::new("bench"), store, borders, outcomes.clone());
        mover.set_source(&volume, &address.to_string());
        drop(guard);
        let house = Self {
            source,
            link,
            runtime,
            volume,
            mover,
            _server: server,
            mounts: RefCell::default(),
            _outcomes: kept,
            outcomes,
            folder,
        };
        house.wait_for_connections();
        house
    }

    /// Agents that are up are connected, whatever is mounted when.
    fn wait_for_connections(&self) {
        let client = self.mover.source(&self.volume).expect("it was set");
        while client.connected() < MoverConfig::default().client.connections {
            std::thread::sleep(Duration::from_millis(5));
        }
        // And their windows have opened.
        std::thread::sleep(Duration::from_millis(500));
    }

    /// The kernel drops what it keeps of the files of source and store: they are read from the disk next.
    pub fn forget_pages(&self) {
        nix::unistd::sync();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            // A mount point is no file of ours.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let kind = entry.file_type().expect("a kind");
                if kind.is_dir() && !self.mounts.borrow().contains(&entry.path()) {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    forget(&entry.path());
                }
            }
        }
    }

    /// A fresh mount over the same store.
    pub fn mount(&self, name: &str, change: impl FnOnce(&mut Config)) -> MountHandle {
        let point = self.folder.path().join(name);
        fs::create_dir(&point).expect("a fresh folder");
        self.mounts.borrow_mut().push(point.clone());
        let mut config = Config::at(point, vec![self.volume.clone()]);
        change(&mut config);
        let _guard = self.runtime.enter();
        let sinks = Sinks { outcomes: self.outcomes.clone(), events: None };
        mount(config, self.mover.clone(), sinks).unwrap_or_else(|e| panic!("{e}"))
    }
}
