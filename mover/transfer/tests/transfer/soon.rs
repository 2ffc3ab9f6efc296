//! Readers of a long file that its source is still cutting.

use std::sync::{Condvar, Mutex};

use foretide_chunk::FileKey;
use foretide_flow::Priority;
use foretide_transfer::Server;

use super::*;

/// Longer than what is cut before anybody would notice.
const FILE_BYTES: usize = 72 << 20;
/// What lies behind it is not read before the gate opens.
const GATE_AT: u64 = 20 << 20;

#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |open| !*open).unwrap());
    }
}

struct Gated {
    inner: LocalDirectory,
    gate: Arc<Gate>,
}

struct GatedFile {
    inner: Box<dyn SourceFile>,
    gate: Arc<Gate>,
}

impl Source for Gated {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.inner.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(GatedFile { inner: self.inner.open(path)?, gate: self.gate.clone() }))
    }
}

impl SourceFile for GatedFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.inner.stamp()
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > GATE_AT {
            self.gate.pass();
        }
        self.inner.read_exact_at(bytes, offset)
    }
}

/// A cache site whose source has a long file and cannot cut it to its end yet.
struct Stage {
    source: tempfile::TempDir,
    _cache: tempfile::TempDir,
    gate: Arc<Gate>,
    server: Server,
    gpu: Node,
    bytes: Vec<u8>,
}

/// The source's threads end with the test, however it ends.
impl Drop for Stage {
    fn drop(&mut self) {
        self.gate.open();
    }
}

impl Stage {
    async fn set(capacity_bytes: u64) -> Self {
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = noise(1, FILE_BYTES);
        std::fs::write(source.path().join("f"), &bytes).unwrap();
        let gate = Arc::new(Gate::default());
        let gated = Gated { inner: LocalDirectory::open(source.path()).unwrap(), gate: gate.clone() };
        let server = serve(Box::new(gated), open_borders()).await;
        let gpu = gpu(cache.path(), capacity_bytes, &server.address().to_string());
        Self { source, _cache: cache, gate, server, gpu, bytes }
    }

    async fn read(&self, key: &FileKey, range: std::ops::Range<u64>) -> Result<(), TransferError> {
        let answer = self.gpu.mover.read(key, range.clone()).await?;
        assert!(answer.bytes == self.bytes[range.start as usize..range.end as usize], "{range:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_a_reader_does_not_wait_until_a_long_file_is_cut() {
    let stage = Stage::set(1 << 30).await;
    let key = stage.gpu.key("f").await;
    stage.read(&key, 0..256 << 10).await.unwrap();
    stage.gpu.mover.want(&key, 256 << 10..8 << 20, Priority::Deadline);
    for at in (256 << 10..8 << 20).step_by(1 << 20) {
        stage.read(&key, at..at + 100_000).await.unwrap();
    }
    // The gate is shut: the store cannot know the file yet.
    assert_eq!(stage.gpu.mover.store().resident_bytes(), 0);
    stage.gate.open();
    assert_ne!(stage.gpu.mover.ensure(&key, 0..8 << 20).await.unwrap(), Found::Miss);
    let resident = stage.gpu.mover.store().resident_bytes();
    assert!(resident >= 8 << 20, "{resident}: what came soon is kept");
    let sent = stage.server.stats().data_bytes;
    assert!(sent < resident + (1 << 20), "{sent} were sent for {resident}: what came soon was asked for again");
    stage.read(&key, 0..FILE_BYTES as u64).await.unwrap();
    assert!(stage.gpu.mover.store().open_whole(&key).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_d_a_file_that_changes_while_it_is_cut_gives_its_old_bytes_or_an_error() {
    let stage = Stage::set(1 << 30).await;
    let key = stage.gpu.key("f").await;
    stage.read(&key, 0..256 << 10).await.unwrap();
    std::fs::write(stage.source.path().join("f"), noise(2, FILE_BYTES)).unwrap();
    let told = stage.gpu.mover.read(&key, 4 << 20..5 << 20).await.unwrap_err();
    assert!(matches!(told, TransferError::Changed { .. }), "{told}");
    stage.gate.open();
    let newer = stage.gpu.key("f").await;
    let answer = stage.gpu.mover.read(&newer, 4 << 20..5 << 20).await.unwrap();
    assert!(answer.bytes == noise(2, FILE_BYTES)[4 << 20..5 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_a_what_comes_soon_is_read_though_the_store_has_no_room() {
    let stage = Stage::set(100_000).await;
    let key = stage.gpu.key("f").await;
    stage.read(&key, 0..256 << 10).await.unwrap();
    stage.gate.open();
    stage.read(&key, 1 << 20..2 << 20).await.unwrap();
    assert_eq!(stage.gpu.mover.store().resident_bytes(), 0);
}
