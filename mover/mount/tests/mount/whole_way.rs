//! The whole way, every part real: files on a disk, an agent that serves them over TCP, the mover, its store, the mount.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretide_chunk::{DomainKey, Store};
use foretide_flow::{Entry, FilePath, NodeId, Ruleset, Site, SiteId, Topology, Volume, VolumeId};
use foretide_mount::{Config, MountHandle, Sinks, mount};
use foretide_transfer::{
    Borders, ClientConfig, Identity, LocalDirectory, Mover, MoverConfig, Server, ServerConfig, Source, SourceFile,
    Token,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::rig::{bytes, cannot_mount, errno, eventually};

struct Way {
    folder: TempDir,
    server: Option<Server>,
    mount: MountHandle,
    store: Arc<Store>,
    _outcomes: mpsc::Receiver<foretide_flow::Outcome>,
    _runtime: Runtime,
}

fn topology(volume: &VolumeId) -> Topology {
    let mut topology = Topology::default();
    let [store, gpu] = ["store", "gpu"].map(|name| SiteId::new(name).unwrap());
    for site in [store.clone(), gpu] {
        let (jurisdiction, labels) = ("eu".into(), Default::default());
        topology.sites.insert(site, Site { jurisdiction, labels, cache: None, accelerator_per_hour: 0.0 });
    }
    topology.volumes.insert(volume.clone(), Volume::at(store));
    topology
}

fn way() -> Way {
    way_with(1.0)
}

fn way_with(lease_s: f64) -> Way {
    way_over(lease_s, |folder| Box::new(LocalDirectory::open(folder).unwrap()))
}

fn way_over(lease_s: f64, open: impl FnOnce(&Path) -> Box<dyn Source>) -> Way {
    let folder = TempDir::new().unwrap();
    let [source, store, point] = ["source", "store", "mount"].map(|name| folder.path().join(name));
    [&source, &point].iter().for_each(|at| fs::create_dir(at).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let guard = runtime.enter();
    let volume = VolumeId::new("data").unwrap();
    let borders = Borders::new(Ruleset::default(), topology(&volume));
    let listen = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    let served = vec![(volume.clone(), open(&source))];
    let start = Server::start(listen, DomainKey::default(), Token::new("t"), served, Arc::clone(&borders));
    let server = runtime.block_on(start).unwrap();
    let store = Store::open(&store, foretide_chunk::Config::default(), DomainKey::default()).unwrap();
    let identity = Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new("gpu-1").unwrap() };
    let (outcomes, kept) = mpsc::channel(10_000);
    let client = ClientConfig { patience_s: 1, dial_timeout_s: 1, ..ClientConfig::default() };
    let config = MoverConfig { client, ..MoverConfig::default() };
    let mover = Mover::new(config, identity, Token::new("t"), Arc::clone(&store), borders, outcomes.clone());
    mover.set_source(&volume, &server.address().to_string());
    let config = Config { lease_s, whole_file_bytes: 1 << 20, ..Config::at(point, vec![volume]) };
    let mount = mount(config, mover, Sinks { outcomes, events: None }).unwrap();
    drop(guard);
    Way { folder, server: Some(server), mount, store, _outcomes: kept, _runtime: runtime }
}

impl Way {
    fn source(&self, at: &str) -> PathBuf {
        self.folder.path().join("source").join(at)
    }

    fn at(&self, at: &str) -> PathBuf {
        self.mount.path().join("data").join(at)
    }
}

#[test]
fn files_of_a_real_source_are_read_cold_then_warm_then_without_it_a() {
    if cannot_mount() {
        return;
    }
    let mut way = way();
    let (small, large) = (bytes(100_000, 1), bytes(9 << 20, 2));
    fs::create_dir(way.source("d")).unwrap();
    fs::write(way.source("d/small"), &small).unwrap();
    fs::write(way.source("d/large"), &large).unwrap();
    fs::write(way.source("d/never-read"), "x").unwrap();
    std::os::unix::fs::symlink("small", way.source("d/link")).unwrap();
    let sparse = File::create(way.source("d/sparse")).unwrap();
    sparse.set_len(6 << 20).unwrap();
    sparse.write_all_at(b"behind a hole", 5 << 20).unwrap();
    let holed = fs::read(way.source("d/sparse")).unwrap();
    for _ in 0..2 {
        assert!(fs::read(way.at("d/small")).unwrap() == small);
        assert!(fs::read(way.at("d/large")).unwrap() == large);
        assert!(fs::read(way.at("d/link")).unwrap() == small);
        assert!(fs::read(way.at("d/sparse")).unwrap() == holed);
    }
    let (here, there) = (fs::metadata(way.at("d/small")).unwrap(), fs::metadata(way.source("d/small")).unwrap());
    assert_eq!((here.mode(), here.uid(), here.mtime()), (there.mode(), there.uid(), there.mtime()));
    assert!(way.store.resident_bytes() >= (small.len() + large.len()) as u64);
    way.server.take();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(fs::read(way.at("d/small")).unwrap() == small, "what is cached stays readable");
    assert!(fs::read(way.at("d/large")).unwrap() == large, "what is cached stays readable");
    assert_eq!(errno(File::open(way.at("d/never-read"))), libc::EHOSTUNREACH);
}

#[test]
fn a_file_that_is_rewritten_at_a_real_source_is_never_a_mixture_d() {
    if cannot_mount() {
        return;
    }
    let way = way();
    let (old, new) = (bytes(6 << 20, 3), bytes(6 << 20, 4));
    fs::write(way.source("f"), &old).unwrap();
    let open = File::open(way.at("f")).unwrap();
    let mut part = vec![0; 65_536];
    open.read_exact_at(&mut part, 0).unwrap();
    assert!(part == old[..65_536]);
    fs::write(way.source("f"), &new).unwrap();
    eventually("the new version is opened", || fs::read(way.at("f")).is_ok_and(|read| read == new));
    for at in (0..6u64 << 20).step_by(1 << 20) {
        match open.read_exact_at(&mut part, at) {
            Ok(()) => assert!(part == old[at as usize..at as usize + 65_536], "a mixture at {at}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
        }
    }
}

#[test]
fn a_change_at_a_real_source_is_told_and_seen_though_no_lease_ends() {
    if cannot_mount() {
        return;
    }
    let way = way_with(3600.0);
    fs::create_dir(way.source("d")).unwrap();
    ["d/changes", "d/goes", "d/moves"].iter().for_each(|at| fs::write(way.source(at), "old").unwrap());
    let names = || {
        let shown = fs::read_dir(way.at("d")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = shown.collect();
        names.sort();
        names
    };
    // The watch opens beside the first listings; one that was listed before it is learned again when it is there.
    eventually("the directory's changes are told", || {
        let probe = format!("d/probe-{}", names().len());
        fs::write(way.source(&probe), "x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        fs::metadata(way.at(&probe)).is_ok()
    });
    assert_eq!(fs::read(way.at("d/changes")).unwrap(), b"old");
    fs::write(way.source("d/changes"), "new and longer").unwrap();
    fs::remove_file(way.source("d/goes")).unwrap();
    fs::rename(way.source("d/moves"), way.source("d/moved")).unwrap();
    fs::create_dir(way.source("d/folder")).unwrap();
    fs::write(way.source("d/folder/inside"), "x").unwrap();
    eventually("the content", || fs::read(way.at("d/changes")).is_ok_and(|c| c == b"new and longer"));
    eventually("the removal", || fs::metadata(way.at("d/goes")).is_err());
    eventually("the new name", || fs::read(way.at("d/moved")).is_ok_and(|c| c == b"old"));
    eventually("the old name's end", || !names().contains(&"moves".to_owned()));
    eventually("the new folder", || fs::read(way.at("d/folder/inside")).is_ok_and(|c| c == b"x"));
}

/// A source whose agent may neither list `closed` nor read `closed/secret`, as in a bucket without list permission.
struct Closed(LocalDirectory);

fn unless(denied: bool) -> io::Result<()> {
    if denied { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

impl Source for Closed {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        unless(directory.as_bytes() == b"closed").and_then(|()| self.0.list(directory))
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.0.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        unless(path.as_bytes() == b"closed/secret").and_then(|()| self.0.open(path))
    }
}

#[test]
fn what_the_source_may_not_list_or_read_is_eacces_and_the_rest_is_opened_by_name() {
    if cannot_mount() {
        return;
    }
    let way = way_over(1.0, |folder| Box::new(Closed(LocalDirectory::open(folder).unwrap())));
    fs::create_dir(way.source("closed")).unwrap();
    ["secret", "known"].iter().for_each(|name| fs::write(way.source("closed").join(name), *name).unwrap());
    assert_eq!(errno(fs::read_dir(way.at("closed"))), libc::EACCES);
    assert_eq!(fs::read(way.at("closed/known")).unwrap(), b"known");
    assert_eq!(errno(fs::read(way.at("closed/secret"))), libc::EACCES);
}
