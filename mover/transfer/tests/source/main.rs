//! One suite for every kind of source: what the server may count on, wherever the bytes lie.

mod s3;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use foretide_flow::{BitsPerSecond, EntryKind, FilePath};
use foretide_transfer::{Bucket, Faulty, LocalDirectory, Manners, Source};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// A source with a way behind it, by which others change it.
trait Fixture {
    fn source(&self) -> &dyn Source;
    fn put(&self, path: &str, bytes: &[u8]);
    fn remove(&self, path: &str);
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
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

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_the_remedy() {
    for bad in ["bucket", "ftp://bucket"] {
        let told = Bucket::open(bad, &Default::default()).unwrap_err().to_string();
        assert!(told.contains(bad), "{told}");
    }
}
