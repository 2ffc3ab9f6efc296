//! Where the bench's names and bytes come from: a real chunk store for what is cached, and a link emulated in this
//! process (round trip and rate, one queue) for what is not. So the cold rows measure the mount over an ideal
//! transport; the transport has its own bench.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use foretide_chunk::{Arrival, CutConfig, Cutter, DomainKey, FileKey, ReadNote, Store, manifest_of};
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Found, Listing, MoveId, Priority, Timestamp, VolumeId};
use foretide_mount::{Origin, Place, Whole};
use foretide_transfer::{Answer, TransferError};

use crate::table::until;

/// Bytes that cross the link as one.
const PIECE_BYTES: u64 = 256 << 10;

pub struct Site {
    pub volume: VolumeId,
    store: Arc<Store>,
    cutter: Cutter,
    directories: Mutex<BTreeMap<FilePath, Vec<Entry>>>,
    pub rtt_ms: AtomicU64,
    pub bits_per_s: AtomicU64,
    link_free: Mutex<Option<Instant>>,
    /// When each piece of a file that is not in the store has come, or will have.
    coming: Mutex<HashMap<FileKey, BTreeMap<u64, Instant>>>,
}

pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a relative path")
}

/// What every cold file holds at a place: cheap to make, and different everywhere.
pub fn content(range: Range<u64>) -> Vec<u8> {
    let words = range.start / 8..range.end.div_ceil(8);
    let bytes: Vec<u8> = words.flat_map(|w| w.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let skip = (range.start % 8) as usize;
    bytes[skip..skip + (range.end - range.start) as usize].to_vec()
}

impl Site {
    pub fn new(folder: &Path) -> Arc<Self> {
        let key = DomainKey::default();
        let store = Store::open(folder, foretide_chunk::Config::default(), key).expect("a store can be opened");
        let cutter = Cutter::new(CutConfig::default(), DomainKey::default()).expect("the default sizes are even");
        Arc::new(Self {
            volume: VolumeId::new("data").expect("a name"),
            store,
            cutter,
            directories: Mutex::new(BTreeMap::from([(FilePath::root(), Vec::new())])),
            rtt_ms: AtomicU64::new(0),
            bits_per_s: AtomicU64::new(u64::MAX / 8),
            link_free: Mutex::new(None),
            coming: Mutex::default(),
        })
    }

    fn entry(at: &FilePath, kind: EntryKind, size: u64) -> Entry {
        let version = FileVersion(format!("fe01:{at}:{size}:1763823000.123456789").into());
        let modified_at = Timestamp(1_763_823_000_000_000);
        Entry { path: at.clone(), kind, size, modified_at, mode: 0o755, uid: 0, gid: 0, links: 1, version }
    }

    fn show(&self, at: &FilePath, kind: EntryKind, size: u64) {
        let mut directories = self.directories.lock().expect("no panics");
        let (mut at, mut kind, mut size) = (at.clone(), kind, size);
        while let Some(parent) = at.parent() {
            let is_new = !directories.contains_key(&parent);
            directories.entry(parent.clone()).or_default().push(Self::entry(&at, kind, size));
            if !is_new {
                return;
            }
            (at, kind, size) = (parent, EntryKind::Directory, 4096);
        }
    }

    /// A file that is only at the source.
    pub fn put_cold(&self, at: &str, size: u64) {
        self.show(&path(at), EntryKind::File, size);
    }

    /// A file that a move has brought.
    pub fn put_cached(&self, at: &str, bytes: &[u8]) {
        let at = path(at);
        self.show(&at, EntryKind::File, bytes.len() as u64);
        let entry = Self::entry(&at, EntryKind::File, bytes.len() as u64);
        let key = FileKey { volume: self.volume.clone(), path: at, version: entry.version.clone() };
        let manifest = Arc::new(manifest_of(&DomainKey::default(), entry.version, self.cutter.cut(bytes)));
        let arrival = Arrival { by: Some(MoveId::from("bench")), keep_until: None, at: Timestamp::now() };
        let fill = self.store.fill(&key, &manifest, 0..bytes.len() as u64, &arrival).expect("there is room");
        for index in fill.missing().to_vec() {
            let range = fill.map().range(index);
            fill.put(index, &bytes[range.start as usize..range.end as usize]).expect("the chunk's own bytes");
        }
    }

    fn rtt(&self) -> Duration {
        Duration::from_millis(self.rtt_ms.load(Ordering::Relaxed))
    }

    /// Asks for the pieces of a range that were not asked for; when the last of it comes, and whether all of it was
    /// here, on its way, or not foreseen.
    fn ask(&self, key: &FileKey, range: &Range<u64>) -> (Instant, Found) {
        let now = Instant::now();
        let mut coming = self.coming.lock().expect("no panics");
        let pieces = coming.entry(key.clone()).or_default();
        let (mut last, mut found) = (now, Found::Hit);
        for piece in range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES) {
            let at = match pieces.get(&piece) {
                Some(at) => {
                    found = if *at > now && found == Found::Hit { Found::Late } else { found };
                    *at
                }
                None => {
                    found = Found::Miss;
                    let at = self.cross(now, PIECE_BYTES);
                    pieces.insert(piece, at);
                    at
                }
            };
            last = last.max(at);
        }
        (last, found)
    }

    /// When bytes that are asked for now have crossed the link.
    fn cross(&self, now: Instant, bytes: u64) -> Instant {
        let rate = self.bits_per_s.load(Ordering::Relaxed) as f64;
        let mut free = self.link_free.lock().expect("no panics");
        let start = free.map_or(now + self.rtt(), |f| f.max(now + self.rtt()));
        let end = start + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        *free = Some(end);
        end
    }
}

#[async_trait]
impl Origin for Site {
    async fn list(&self, place: &Place) -> Result<Listing, TransferError> {
        until(Instant::now() + self.rtt()).await;
        let missing = || TransferError::NotFound { volume: self.volume.clone(), path: place.path.clone() };
        let entries = self.directories.lock().expect("no panics").get(&place.path).cloned().ok_or_else(missing)?;
        let (volume, directory) = (self.volume.clone(), place.path.clone());
        Ok(Listing { volume, directory, seen_at: Timestamp::now(), entries })
    }

    async fn stat(&self, place: &Place) -> Result<Entry, TransferError> {
        until(Instant::now() + self.rtt()).await;
        let directories = self.directories.lock().expect("no panics");
        let Some(parent) = place.path.parent() else {
            return Ok(Self::entry(&place.path, EntryKind::Directory, 4096));
        };
        let found = directories.get(&parent).and_then(|d| d.iter().find(|e| e.path == place.path)).cloned();
        found.ok_or_else(|| TransferError::NotFound { volume: self.volume.clone(), path: place.path.clone() })
    }

    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError> {
        let (at, found) = self.ask(key, &range);
        until(at).await;
        Ok(Answer { bytes: Bytes::from(content(range)), found })
    }

    fn want(&self, key: &FileKey, range: Range<u64>, _: Priority) {
        self.ask(key, &range);
    }

    fn open_whole(&self, key: &FileKey) -> Option<Box<dyn Whole>> {
        self.store.open_whole(key).ok().map(|whole| Box::new(whole) as Box<dyn Whole>)
    }

    fn read_resident(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Option<usize> {
        if let Ok(read) = self.store.read(key, offset, buf) {
            return Some(read);
        }
        let range = offset..offset + buf.len() as u64;
        let now = Instant::now();
        let here = {
            let coming = self.coming.lock().expect("no panics");
            let pieces = coming.get(key)?;
            let mut of_range = range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES);
            of_range.all(|piece| pieces.get(&piece).is_some_and(|at| *at <= now))
        };
        here.then(|| buf.copy_from_slice(&content(range)))?;
        Some(buf.len())
    }

    fn note_read(&self, key: &FileKey, range: Range<u64>, at: Timestamp) -> ReadNote {
        self.store.note_read(key, range, at)
    }
}
