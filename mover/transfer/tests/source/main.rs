//! One suite for every kind of source: what the server may count on, wherever the bytes lie.

#[allow(dead_code, reason = "each of the test programs uses a part")]
#[path = "../rig/mod.rs"]
mod rig;
mod s3;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use foretide_flow::{BitsPerSecond, EntryKind, FilePath, Move, VolumeId};
use foretide_transfer::{Bucket, Faulty, LocalDirectory, Manners, MoverConfig, Source, Token};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use rig::{Node, TOKEN, a_move, identity, loopback, no_borders, noise, path, serve_with, store, volume};

/// A source with a way behind it, by which others change it.
trait Fixture {
    fn source(&self) -> &dyn Source;
    fn put(&self, path: &str, bytes: &[u8]);
    fn remove(&self, path: &str);
}

fn content(source: &dyn Source, at: &str) -> io::Result<Vec<u8>> {
    let file = source.open(&path(at))?;
    let mut bytes = vec![0; file.stamp()?.size as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn kind<T>(done: io::Result<T>) -> ErrorKind {
    done.err().expect("an error").kind()
}

/// The suite.
fn conforms(fixture: &dyn Fixture) {
    names_are_found_listed_and_told_apart(fixture);
    bytes_are_those_of_one_version(fixture);
    what_is_not_there_is_said_to_be_so(fixture);
    ranges_are_exact(fixture);
}

fn names_are_found_listed_and_told_apart(fixture: &dyn Fixture) {
    let names = ["a", "dir/x", "dir/y and more", "dir/sub/deep", "äöü/ß"];
    names.iter().for_each(|name| fixture.put(name, name.as_bytes()));
    let source = fixture.source();
    let list = |at: &FilePath| -> Vec<(String, bool)> {
        let entries = source.list(at).unwrap();
        assert!(entries.is_sorted_by(|a, b| a.path < b.path));
        entries.into_iter().map(|e| (e.path.to_string(), e.kind == EntryKind::Directory)).collect()
    };
    let told = |name: &str, is_directory: bool| (path(name).to_string(), is_directory);
    assert_eq!(list(&FilePath::root()), [told("a", false), told("dir", true), told("äöü", true)]);
    assert_eq!(list(&path("dir")), [told("dir/sub", true), told("dir/x", false), told("dir/y and more", false)]);
    for name in names {
        let entry = source.stat(&path(name)).unwrap();
        assert_eq!((entry.kind, entry.size), (EntryKind::File, name.len() as u64), "{name}");
        assert_eq!(content(source, name).unwrap(), name.as_bytes());
        let parent = path(name).parent().unwrap();
        let listed = source.list(&parent).unwrap().into_iter().find(|e| e.path == path(name)).unwrap();
        assert_eq!(listed.version, entry.version, "{name}: listing and stat agree");
        assert_eq!(source.open(&path(name)).unwrap().stamp().unwrap().version, entry.version, "{name}");
    }
    assert_eq!(source.stat(&path("dir/sub")).unwrap().kind, EntryKind::Directory);
    assert_eq!(source.stat(&FilePath::root()).unwrap().kind, EntryKind::Directory);
}

fn bytes_are_those_of_one_version(fixture: &dyn Fixture) {
    let source = fixture.source();
    fixture.put("changing", &[1; 20_000]);
    let before = source.stat(&path("changing")).unwrap().version;
    let open = source.open(&path("changing")).unwrap();
    let mut half = [0; 10_000];
    open.read_exact_at(&mut half, 0).unwrap();
    fixture.put("changing", &[2; 20_000]);
    assert_ne!(source.stat(&path("changing")).unwrap().version, before);
    // Either the old bytes still come, or it shows: the stamp is another, or the read fails.
    let read = open.read_exact_at(&mut half, 10_000);
    let shows = open.stamp().is_ok_and(|s| s.version != before);
    assert!(half == [1; 10_000] || shows || kind(read) == ErrorKind::UnexpectedEof, "two versions mixed");
    assert_eq!(content(source, "changing").unwrap(), [2; 20_000]);
}

fn what_is_not_there_is_said_to_be_so(fixture: &dyn Fixture) {
    let source = fixture.source();
    fixture.put("gone", b"soon");
    fixture.remove("gone");
    for name in ["gone", "never", "dir/never", "never/x"] {
        assert_eq!(kind(source.stat(&path(name))), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(source.open(&path(name))), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(source.list(&path(name))), ErrorKind::NotFound, "{name}");
    }
    assert_eq!(kind(source.open(&path("dir"))), ErrorKind::InvalidInput);
    assert_eq!(kind(source.open(&FilePath::root())), ErrorKind::InvalidInput);
    assert_eq!(kind(source.list(&path("a"))), ErrorKind::NotADirectory);
}

fn ranges_are_exact(fixture: &dyn Fixture) {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 31 % 251) as u8).collect();
    fixture.put("large", &bytes);
    fixture.put("empty", b"");
    let file = fixture.source().open(&path("large")).unwrap();
    for (at, length) in [(0, 1), (0, 1000), (1000, 1000), (2000, 500_000), (2_999_999, 1), (7, 0), (100, 2_999_900)] {
        let mut read = vec![0; length];
        file.read_exact_at(&mut read, at as u64).unwrap();
        assert!(read == bytes[at..at + length], "{length} bytes at {at}");
    }
    assert_eq!(kind(file.read_exact_at(&mut [0; 2], 2_999_999)), ErrorKind::UnexpectedEof);
    assert_eq!(content(fixture.source(), "empty").unwrap(), b"");
}

struct Folder {
    root: PathBuf,
    source: Box<dyn Source>,
}

impl Fixture for Folder {
    fn source(&self) -> &dyn Source {
        self.source.as_ref()
    }
    fn put(&self, path: &str, bytes: &[u8]) {
        let at = self.root.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, bytes).unwrap();
    }
    fn remove(&self, path: &str) {
        std::fs::remove_file(self.root.join(path)).unwrap();
    }
}

#[test]
fn a_local_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let source = LocalDirectory::open(dir.path()).unwrap();
    conforms(&Folder { root: dir.path().to_owned(), source: Box::new(source) });
}

/// Objects below one prefix of a store.
struct Objects {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn ObjectStore>,
    prefix: &'static str,
    source: Bucket,
}

impl Objects {
    fn new(runtime: tokio::runtime::Runtime, store: Arc<dyn ObjectStore>, prefix: &'static str) -> Self {
        let inside = runtime.enter();
        let source = Bucket::over(store.clone(), prefix.into());
        drop(inside);
        Self { runtime, store, prefix, source }
    }

    fn key(&self, path: &str) -> object_store::path::Path {
        object_store::path::Path::parse(format!("{}/{path}", self.prefix)).unwrap()
    }
}

impl Fixture for Objects {
    fn source(&self) -> &dyn Source {
        &self.source
    }
    fn put(&self, path: &str, bytes: &[u8]) {
        self.runtime.block_on(self.store.put(&self.key(path), bytes.to_vec().into())).unwrap();
    }
    fn remove(&self, path: &str) {
        self.runtime.block_on(self.store.delete(&self.key(path))).unwrap();
    }
}

#[test]
fn a_source_that_fails_now_and_then_conforms_when_it_is_asked_with_patience() {
    let dir = tempfile::tempdir().unwrap();
    let source = LocalDirectory::open(dir.path()).unwrap();
    let faulty = Faulty::new(Box::new(source), 11, 5, ErrorKind::TimedOut);
    let counts = faulty.counts();
    let source = Manners { rate: Some(BitsPerSecond(10_000_000_000)), tries: 8 }.wrap(Box::new(faulty));
    conforms(&Folder { root: dir.path().to_owned(), source });
    let (asked, failed) = counts();
    println!("{failed} of {asked} questions failed");
    assert!(failed > 3);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn objects_in_memory_conform() {
    let store = Arc::new(InMemory::new());
    let outside = runtime();
    outside.block_on(store.put(&"elsewhere/a".into(), b"not ours".to_vec().into())).unwrap();
    conforms(&Objects::new(outside, store, s3::PREFIX));
}

#[test]
fn s3_conforms() {
    let (server, store) = s3::start(runtime());
    conforms(&Objects::new(server, store, s3::PREFIX));
}

#[test]
fn google_cloud_storage_conforms() {
    let (server, store) = s3::start_for_google(runtime());
    conforms(&Objects::new(server, store, s3::PREFIX));
}

/// With what `tests/azurite` puts into the environment.
#[ignore = "wants an Azurite, as `make test-azure` starts one"]
#[test]
fn azure_blob_storage_conforms() {
    let container = std::env::var("AZURE_CONTAINER").unwrap();
    let (store, _) = Bucket::connect(&format!("az://{container}/{}", s3::PREFIX), &Default::default()).unwrap();
    conforms(&Objects::new(runtime(), store, s3::PREFIX));
}

/// With what `tests/ceph` puts into the environment.
#[ignore = "wants a Ceph RGW, as `make test-ceph` starts one"]
#[test]
fn a_ceph_rgw_conforms() {
    let bucket = std::env::var("AWS_BUCKET").unwrap();
    let (store, _) = Bucket::connect(&format!("s3://{bucket}/{}", s3::PREFIX), &Default::default()).unwrap();
    conforms(&Objects::new(runtime(), store, s3::PREFIX));
}

/// Files of a data set.
const FILES: usize = 20;
const FILE_BYTES: usize = 400_000;
/// In the later version so many files have a few bytes changed in the middle, and one is new.
const CHANGED: usize = 3;

/// A version of a data set: names and contents.
fn version(number: usize) -> Vec<(String, Vec<u8>)> {
    let file = |n: usize| {
        let mut bytes = noise(n as u64, FILE_BYTES);
        if number > 1 && n < CHANGED {
            bytes[FILE_BYTES / 2..FILE_BYTES / 2 + 100].fill(number as u8);
        }
        (format!("part-{n}"), bytes)
    };
    (0..FILES + number - 1).map(file).collect()
}

#[test]
fn of_a_data_set_that_two_object_stores_hold_in_two_versions_only_the_differences_move() {
    let (runtime, s3) = s3::start(runtime());
    let stores: [Arc<dyn ObjectStore>; 2] = [s3, Arc::new(InMemory::new())];
    let names = [volume(), VolumeId::new("elsewhere").unwrap()];
    let cache = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let kept = store(cache.path(), 1 << 30);
        let (config, own) = (MoverConfig::default(), identity("gpu", "n1"));
        let mut node = Node::start("127.0.0.1:1", own, kept, config, Token::new(TOKEN), no_borders());
        let mut given = Vec::new();
        for (number, (bucket, name)) in stores.into_iter().zip(names).enumerate() {
            let files = version(number + 1);
            for (at, bytes) in &files {
                let key = object_store::path::Path::parse(format!("{}/{at}", s3::PREFIX)).unwrap();
                bucket.put(&key, bytes.clone().into()).await.unwrap();
            }
            let source: Box<dyn Source> = Box::new(Bucket::over(bucket, s3::PREFIX.into()));
            let served = vec![(name.clone(), source)];
            let server = serve_with(loopback(), Token::new(TOKEN), served, no_borders()).await;
            node.mover.set_source(&name, &server.address().to_string());
            let wanted = |(at, bytes): &(String, Vec<u8>)| Move {
                id: format!("{name}-{at}").into(),
                volume: name.clone(),
                ..a_move(at, bytes.len() as u64)
            };
            node.take(files.iter().map(wanted).collect());
            for _ in &files {
                node.moved().await;
            }
            for (at, bytes) in &files {
                let version = node.mover.stat(&name, &path(at)).await.unwrap().version;
                let key = foretide_chunk::FileKey { volume: name.clone(), path: path(at), version };
                assert!(node.mover.read(&key, 0..u64::MAX).await.unwrap().bytes == bytes[..], "{at}");
            }
            given.push(server.stats().data_bytes);
        }
        let all = (FILES * FILE_BYTES) as u64;
        println!("{} bytes of the first version crossed, {} of the second", given[0], given[1]);
        assert_eq!(given[0], all);
        assert!(given[1] < all / 5, "{} of {all} bytes crossed again", given[1]);
    });
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_the_remedy() {
    for bad in ["bucket", "ftp://bucket"] {
        let told = Bucket::open(bad, &Default::default()).unwrap_err().to_string();
        assert!(told.contains(bad), "{told}");
    }
}
