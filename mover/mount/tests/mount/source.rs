//! A source and a store in memory, with the delays and failures that a test asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foretide_chunk::{FileKey, ReadNote};
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Found, Listing, Priority, Timestamp, VolumeId};
use foretide_mount::{Origin, Place, Whole};
use foretide_transfer::{Answer, Change, Listed, Liveness, News, TransferError};
use tempfile::TempDir;
use tokio::sync::mpsc;

#[derive(Clone)]
pub struct Item {
    pub kind: EntryKind,
    pub content: Arc<Vec<u8>>,
    pub mode: u32,
    pub links: u32,
    pub version: FileVersion,
    /// User and group; who runs the test if none.
    pub owner: Option<(u32, u32)>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<FilePath, Item>,
    resident: HashMap<FileKey, Resident>,
    wanted: Vec<(FilePath, Range<u64>, Priority)>,
    watch: Option<Watch>,
    news: Option<mpsc::Receiver<News>>,
}

/// What tells the mount of changes.
struct Watch {
    lives: Arc<AtomicBool>,
    news: mpsc::Sender<News>,
}

struct Resident {
    file: std::path::PathBuf,
    /// Blocks of 4 KiB that are here; all of them if `whole`.
    blocks: BTreeSet<u64>,
    whole: bool,
    moved_at: Option<Timestamp>,
}

/// What went wrong, if something is to go wrong.
#[derive(Default)]
pub struct Faults {
    pub unreachable: AtomicBool,
    pub silent: AtomicBool,
    pub short_reads: AtomicBool,
}

pub struct Source {
    pub volume: VolumeId,
    state: Mutex<State>,
    store: TempDir,
    pub delay_ms: AtomicU64,
    pub faults: Faults,
    pub lists: AtomicU64,
    pub stats: AtomicU64,
    pub reads: AtomicU64,
    next: AtomicU64,
    /// Whether what is read is kept.
    pub keeps: AtomicBool,
}

const BLOCK: u64 = 4096;

pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

impl Source {
    pub fn new(volume: &str) -> Arc<Self> {
        Arc::new(Self {
            volume: VolumeId::new(volume).unwrap(),
            state: Mutex::default(),
            store: TempDir::new().unwrap(),
            delay_ms: AtomicU64::new(0),
            faults: Faults::default(),
            lists: AtomicU64::new(0),
            stats: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            next: AtomicU64::new(0),
            keeps: AtomicBool::new(true),
        })
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn put_item(&self, at: FilePath, kind: EntryKind, content: Vec<u8>, mode: u32) {
        let version = FileVersion(format!("v{}", self.fresh()).into());
        let item = Item { kind, content: Arc::new(content), mode, links: 1, version, owner: None };
        let mut state = self.state.lock().unwrap();
        let mut above = at.parent();
        while let Some(directory) = above.filter(|d| !d.is_root()) {
            let version = FileVersion("d".into());
            let (kind, content) = (EntryKind::Directory, Arc::default());
            let made = Item { kind, content, mode: 0o755, links: 2, version, owner: None };
            state.items.entry(directory.clone()).or_insert(made);
            above = directory.parent();
        }
        state.items.insert(at, item);
    }

    pub fn put(&self, at: &str, content: impl Into<Vec<u8>>) {
        self.put_item(path(at), EntryKind::File, content.into(), 0o644);
    }

    pub fn put_bytes_name(&self, at: &[u8], content: impl Into<Vec<u8>>) {
        self.put_item(FilePath::new(at).unwrap(), EntryKind::File, content.into(), 0o644);
    }

    pub fn put_mode(&self, at: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.put_item(path(at), EntryKind::File, content.into(), mode);
    }

    pub fn put_owned(&self, at: &str, content: impl Into<Vec<u8>>, owner: (u32, u32)) {
        self.put(at, content);
        self.state.lock().unwrap().items.get_mut(&path(at)).unwrap().owner = Some(owner);
    }

    pub fn make_directory(&self, at: &str, mode: u32) {
        self.put_item(path(at), EntryKind::Directory, Vec::new(), mode);
    }

    pub fn link(&self, at: &str, target: &str) {
        self.put_item(path(at), EntryKind::Symlink { target: target.to_owned() }, Vec::new(), 0o777);
    }

    pub fn hard_link(&self, from: &str, to: &str) {
        let mut state = self.state.lock().unwrap();
        let item = state.items.get_mut(&path(from)).unwrap();
        item.links += 1;
        item.version = FileVersion(format!("v{}", self.fresh()).into());
        let item = item.clone();
        state.items.insert(path(to), item);
    }

    pub fn remove(&self, at: &str) {
        let gone = path(at);
        self.state.lock().unwrap().items.retain(|p, _| !p.is_within(&gone));
    }

    pub fn rename(&self, from: &str, to: &str) {
        let mut state = self.state.lock().unwrap();
        let item = state.items.remove(&path(from)).unwrap();
        state.items.insert(path(to), item);
    }

    /// From now on changes are told with [`Source::tell`]; to be called before the mount is made.
    pub fn begin_to_tell(&self) {
        let (news, receiver) = mpsc::channel(1000);
        let mut state = self.state.lock().unwrap();
        state.watch = Some(Watch { lives: Arc::new(AtomicBool::new(true)), news });
        state.news = Some(receiver);
    }

    /// Tells what a name stands for now.
    pub fn tell(&self, at: &str) {
        let path = path(at);
        let entry = self.item(&path).map(|item| self.entry(&path, &item));
        self.send(News::Changed(Change::Name { volume: self.volume.clone(), path, entry }));
    }

    /// The watch is lost.
    pub fn stop_telling(&self) {
        if let Some(watch) = &self.state.lock().unwrap().watch {
            watch.lives.store(false, Ordering::Release);
        }
        self.send(News::Lost(vec![self.volume.clone()]));
    }

    fn send(&self, news: News) {
        let sender = self.state.lock().unwrap().watch.as_ref().map(|watch| watch.news.clone());
        sender.expect("it tells").blocking_send(news).expect("the mount listens");
    }

    pub fn item(&self, at: &FilePath) -> Option<Item> {
        self.state.lock().unwrap().items.get(at).cloned()
    }

    pub fn wanted(&self) -> Vec<(FilePath, Range<u64>, Priority)> {
        self.state.lock().unwrap().wanted.clone()
    }

    fn key(&self, at: &FilePath, version: &FileVersion) -> FileKey {
        FileKey { volume: self.volume.clone(), path: at.clone(), version: version.clone() }
    }

    /// As if a move had brought it.
    pub fn bring(&self, at: &str) {
        let item = self.item(&path(at)).unwrap();
        let key = self.key(&path(at), &item.version);
        self.keep(&key, &item.content, 0..item.content.len() as u64, Some(Timestamp::now()));
    }

    /// The store loses everything.
    pub fn evict_all(&self) {
        self.state.lock().unwrap().resident.clear();
    }

    fn keep(&self, key: &FileKey, content: &[u8], range: Range<u64>, moved_at: Option<Timestamp>) {
        let size = content.len() as u64;
        let mut state = self.state.lock().unwrap();
        let file = self.store.path().join(format!("c{}", self.fresh()));
        let held = state.resident.entry(key.clone()).or_insert_with(|| {
            File::create(&file).unwrap().set_len(size).unwrap();
            Resident { file, blocks: BTreeSet::new(), whole: false, moved_at }
        });
        let out = File::options().write(true).open(&held.file).unwrap();
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        for block in blocks {
            let bytes = block * BLOCK..((block + 1) * BLOCK).min(size);
            out.write_all_at(&content[bytes.start as usize..bytes.end as usize], bytes.start).unwrap();
            held.blocks.insert(block);
        }
        held.whole = held.blocks.len() as u64 == size.div_ceil(BLOCK);
    }

    async fn answer(&self) -> Result<(), TransferError> {
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))).await;
        if self.faults.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.faults.unreachable.load(Ordering::Relaxed) {
            return Err(TransferError::Unreachable { peer: "source:7000".into(), why: "connection refused".into() });
        }
        Ok(())
    }

    fn entry(&self, at: &FilePath, item: &Item) -> Entry {
        // SAFETY: neither call takes anything nor can fail.
        let (uid, gid) = item.owner.unwrap_or_else(|| unsafe { (libc::geteuid(), libc::getegid()) });
        Entry {
            path: at.clone(),
            kind: item.kind.clone(),
            size: item.content.len() as u64,
            modified_at: Timestamp(1_700_000_000_000_000),
            mode: item.mode,
            uid,
            gid,
            links: item.links,
            version: item.version.clone(),
        }
    }

    fn not_found(&self, at: &FilePath) -> TransferError {
        TransferError::NotFound { volume: self.volume.clone(), path: at.clone() }
    }
}

#[async_trait]
impl Origin for Source {
    async fn list(&self, place: &Place, _: bool) -> Result<Listed, TransferError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.answer().await?;
        let state = self.state.lock().unwrap();
        if !place.path.is_root() && !state.items.contains_key(&place.path) {
            return Err(self.not_found(&place.path));
        }
        let below = state.items.iter().filter(|(p, _)| p.parent().as_ref() == Some(&place.path));
        let entries = below.map(|(p, item)| self.entry(p, item)).collect();
        let (volume, directory) = (self.volume.clone(), place.path.clone());
        let listing = Listing { volume, directory, seen_at: Timestamp::now(), entries };
        let live = state.watch.as_ref().map(|watch| Liveness::of(watch.lives.clone())).unwrap_or_default();
        Ok(Listed { listing, live, below: Vec::new() })
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        self.state.lock().unwrap().news.take()
    }

    async fn stat(&self, place: &Place) -> Result<Entry, TransferError> {
        self.stats.fetch_add(1, Ordering::Relaxed);
        self.answer().await?;
        if place.path.is_root() {
            let version = FileVersion("root".into());
            let root = Item {
                kind: EntryKind::Directory,
                content: Arc::default(),
                mode: 0o755,
                links: 2,
                version,
                owner: None,
            };
            return Ok(self.entry(&place.path, &root));
        }
        let item = self.item(&place.path).ok_or_else(|| self.not_found(&place.path))?;
        Ok(self.entry(&place.path, &item))
    }

    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError> {
        let mut buf = vec![0; (range.end - range.start) as usize];
        if self.read_resident(key, range.start, &mut buf) == Some(buf.len()) {
            return Ok(Answer { bytes: buf.into(), found: Found::Hit });
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.answer().await?;
        let item = self.item(&key.path).ok_or_else(|| self.not_found(&key.path))?;
        if item.version != key.version {
            return Err(TransferError::Changed { path: key.path.clone() });
        }
        if self.keeps.load(Ordering::Relaxed) {
            self.keep(key, &item.content, range.clone(), None);
        }
        let mut bytes = item.content[range.start as usize..range.end as usize].to_vec();
        if self.faults.short_reads.load(Ordering::Relaxed) {
            bytes.pop();
        }
        Ok(Answer { bytes: Bytes::from(bytes), found: Found::Miss })
    }

    fn want(&self, key: &FileKey, range: Range<u64>, priority: Priority) {
        self.state.lock().unwrap().wanted.push((key.path.clone(), range, priority));
    }

    fn open_whole(&self, key: &FileKey) -> Option<Box<dyn Whole>> {
        let state = self.state.lock().unwrap();
        let held = state.resident.get(key).filter(|held| held.whole)?;
        Some(Box::new(File::open(&held.file).unwrap()))
    }

    fn read_resident(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let state = self.state.lock().unwrap();
        let held = state.resident.get(key)?;
        let blocks = offset / BLOCK..(offset + buf.len() as u64).div_ceil(BLOCK);
        blocks.into_iter().all(|b| held.blocks.contains(&b)).then_some(())?;
        File::open(&held.file).unwrap().read_exact_at(buf, offset).ok()?;
        Some(buf.len())
    }

    fn note_read(&self, key: &FileKey, range: Range<u64>, _: Timestamp) -> ReadNote {
        let state = self.state.lock().unwrap();
        match state.resident.get(key).and_then(|held| held.moved_at) {
            Some(at) => {
                let prefetched_bytes = range.end - range.start;
                ReadNote { prefetched_bytes, arrived_at: Some(at), ..ReadNote::default() }
            }
            None => ReadNote::default(),
        }
    }
}
