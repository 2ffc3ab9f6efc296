//! The store against a plain model, on a disk that dies, lies or is full.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use foretide_flow::{FilePath, FileVersion, Manifest, MoveId, Timestamp, VolumeId};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::*;
use crate::{CutConfig, Cutter, manifest_of};

const AVERAGE_BYTES: u32 = 4096;

fn cutter() -> Cutter {
    Cutter::new(CutConfig { average_bytes: AVERAGE_BYTES }, DomainKey::default()).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn key(path: &str, version: &str) -> FileKey {
    FileKey {
        volume: VolumeId::new("v").unwrap(),
        path: FilePath::parse(path).unwrap(),
        version: FileVersion(version.into()),
    }
}

fn manifest(bytes: &[u8], version: &str) -> Arc<Manifest> {
    Arc::new(manifest_of(&DomainKey::default(), FileVersion(version.into()), cutter().cut(bytes)))
}

fn demand(at: i64) -> Arrival {
    Arrival { by: None, claim: Claim::Demand, keep_until: None, at: Timestamp(at) }
}

fn by_move(at: i64) -> Arrival {
    Arrival { by: Some(MoveId::from("m1")), claim: Claim::Asked, keep_until: None, at: Timestamp(at) }
}

fn open(root: &Path, capacity_bytes: u64) -> Arc<Store> {
    open_on(root, capacity_bytes, Arc::new(RealDisk))
}

fn open_on(root: &Path, capacity_bytes: u64, disk: Arc<dyn Disk>) -> Arc<Store> {
    let config = Config { capacity_bytes, checkpoint_interval_s: 3600, ..Config::default() };
    Store::open_with(root, config, DomainKey::default(), Box::new(EpochAware), disk).unwrap()
}

/// Brings a whole file; how many bytes had to come from outside.
fn bring(store: &Arc<Store>, key: &FileKey, bytes: &[u8], arrival: &Arrival) -> Result<u64, StoreError> {
    let fill = store.fill(key, &manifest(bytes, &key.version.0), 0..u64::MAX, arrival)?;
    let mut fetched = 0;
    for i in fill.missing() {
        let r = fill.map().range(*i);
        fill.put(*i, &bytes[r.start as usize..r.end as usize])?;
        fetched += r.end - r.start;
    }
    Ok(fetched)
}

fn content(store: &Store, key: &FileKey, len: usize) -> Result<Vec<u8>, StoreError> {
    let mut buf = vec![0; len + 1];
    let n = store.read(key, 0, &mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

/// Bytes that the content really takes on disk.
fn on_disk(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let folders = std::fs::read_dir(root.join("data")).unwrap();
    let files = folders.flat_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap());
    files.map(|f| f.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// In memory where the machine has such a place: these run hundreds of times and mean no real power loss.
fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn data_file(root: &Path) -> PathBuf {
    let mut folders = std::fs::read_dir(root.join("data")).unwrap();
    folders.find_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().next()).unwrap().unwrap().path()
}

#[test]
fn what_came_is_read_back_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(1, 100_000);
    let k = key("a/1", "1");
    {
        let store = open(dir.path(), 1 << 20);
        assert!(store.lookup(&k).is_none());
        bring(&store, &k, &bytes, &demand(1)).unwrap();
        assert_eq!(content(&store, &k, bytes.len()).unwrap(), bytes);
    }
    let store = open(dir.path(), 1 << 20);
    let resident = store.lookup(&k).unwrap();
    assert!(resident.whole && resident.resident_bytes == 100_000);
    let whole = store.open_whole(&k).unwrap();
    let mut read = vec![0; 100_000];
    whole.file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!((read, whole.size), (bytes, 100_000));
}

#[test]
fn an_empty_file_is_whole_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    bring(&store, &key("e", "1"), b"", &demand(1)).unwrap();
    assert!(store.lookup(&key("e", "1")).unwrap().whole);
    assert_eq!(store.open_whole(&key("e", "1")).unwrap().size, 0);
    assert_eq!(store.census(&VolumeId::new("v").unwrap(), &[FilePath::root()]).files, 1);
}

#[test]
fn what_another_file_holds_is_copied_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    let bytes = noise(1, 300_000);
    bring(&store, &key("a", "1"), &bytes, &demand(1)).unwrap();
    assert_eq!(bring(&store, &key("b", "1"), &bytes, &demand(2)).unwrap(), 0);
    store.checkpoint().unwrap();
    let mut second = bytes.clone();
    second[150_000] ^= 1;
    let fetched = bring(&store, &key("a", "2"), &second, &demand(3)).unwrap();
    assert!(fetched > 0 && fetched <= 2 * 16_384, "{fetched}");
    assert_eq!(content(&store, &key("a", "2"), second.len()).unwrap(), second);
}

#[test]
fn promise_d_wrong_bytes_under_a_right_id_are_refused_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let (bytes, k) = (noise(1, 20_000), key("a", "1"));
    let fill = store.fill(&k, &manifest(&bytes, "1"), 0..u64::MAX, &demand(1)).unwrap();
    let r = fill.map().range(0);
    let mut lie = bytes[r.start as usize..r.end as usize].to_vec();
    lie[7] ^= 1;
    assert!(matches!(fill.put(0, &lie), Err(StoreError::Corrupt { index: 0, .. })));
    assert!(matches!(fill.put(0, &lie[1..]), Err(StoreError::Corrupt { .. })));
    assert!(matches!(fill.put(9999, &lie), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.resident_bytes(), 0);
    assert!(matches!(store.open_whole(&k), Err(StoreError::Missing(_))));
}

#[test]
fn of_chunks_that_come_together_those_before_a_wrong_one_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let (mut bytes, k) = (noise(1, 40_000), key("a", "1"));
    let fill = store.fill(&k, &manifest(&bytes, "1"), 0..u64::MAX, &demand(1)).unwrap();
    let (wrong, count) = (fill.map().range(2), fill.map().count());
    assert!(count > 4);
    bytes[wrong.start as usize] ^= 1;
    assert!(matches!(fill.put(0, &bytes), Err(StoreError::Corrupt { index: 2, .. })));
    assert_eq!(store.lookup(&k).unwrap().missing, (2..count).collect::<Vec<_>>());
    bytes[wrong.start as usize] ^= 1;
    fill.put(2, &bytes[wrong.start as usize..]).unwrap();
    assert_eq!(content(&store, &k, bytes.len()).unwrap(), bytes);
    assert!(matches!(fill.put(count - 1, &bytes[..0]), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_chunk_that_rots_on_disk_is_dropped_at_its_first_read_and_by_check() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, k) = (noise(1, 50_000), key("a", "1"));
    bring(&open(dir.path(), 1 << 20), &k, &bytes, &demand(1)).unwrap();
    let rot = |at| {
        let file = File::options().write(true).open(data_file(dir.path())).unwrap();
        file.write_all_at(b"rot", at).unwrap();
    };
    rot(30_000);
    let store = open(dir.path(), 1 << 20);
    assert!(matches!(content(&store, &k, 50_000), Err(StoreError::Corrupt { .. })));
    assert!(matches!(content(&store, &k, 50_000), Err(StoreError::Missing(_))));
    let fetched = bring(&store, &k, &bytes, &demand(2)).unwrap();
    assert!(fetched > 0 && fetched <= 16_384);
    rot(10);
    let report = store.check(Subset::ALL).unwrap();
    assert_eq!((report.corrupt, report.bytes), (1, 50_000));
    assert!(!store.lookup(&k).unwrap().whole);
    assert_eq!(store.used_bytes() % 4096, 0);
}

#[test]
fn a_check_of_all_parts_reads_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    for i in 0..10u64 {
        bring(&store, &key(&format!("f{i}"), "1"), &noise(i, 10_000), &demand(1)).unwrap();
    }
    let parts = (1..=3).map(|part| store.check(Subset { part, of: 3 }).unwrap().bytes);
    assert_eq!(parts.sum::<u64>(), 100_000);
}

#[test]
fn promise_k_the_capacity_holds_and_pins_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 200_000);
    let volume = VolumeId::new("v").unwrap();
    let far = Timestamp(Timestamp::now().0 + 1_000_000_000);
    store.pin(&volume, &[FilePath::parse("pinned").unwrap()], Some(far));
    bring(&store, &key("pinned/1", "1"), &noise(0, 50_000), &by_move(1)).unwrap();
    for i in 1..20 {
        bring(&store, &key(&format!("f{i}"), "1"), &noise(i, 40_000), &by_move(1)).unwrap();
        assert!(store.used_bytes() <= 200_000);
        assert!(on_disk(dir.path()) <= 200_000 + 4096, "{}", on_disk(dir.path()));
    }
    assert!(store.lookup(&key("pinned/1", "1")).unwrap().whole);
    let evicted = store.drain_evicted();
    assert!(evicted.len() >= 15 && evicted.iter().all(|e| e.unread_prefetched_bytes == 40_000));
    let error = bring(&store, &key("big", "1"), &noise(99, 180_000), &demand(1)).unwrap_err();
    assert!(error.to_string().contains("raise capacity_bytes"), "{error}");
    assert!(store.lookup(&key("big", "1")).is_none());
    store.pin(&volume, &[FilePath::parse("pinned").unwrap()], None);
    bring(&store, &key("big", "1"), &noise(99, 180_000), &demand(1)).unwrap();
}

#[test]
fn what_is_open_is_not_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    bring(&store, &key("a", "1"), &noise(1, 50_000), &demand(1)).unwrap();
    let held = store.open_whole(&key("a", "1")).unwrap();
    assert!(matches!(bring(&store, &key("b", "1"), &noise(2, 60_000), &demand(2)), Err(StoreError::Full { .. })));
    drop(held);
    bring(&store, &key("b", "1"), &noise(2, 60_000), &demand(2)).unwrap();
}

fn spares(root: &Path) -> usize {
    std::fs::read_dir(root.join("spare")).unwrap().count()
}

#[test]
fn files_that_left_are_emptied_and_used_again_unless_somebody_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let (a, b) = (key("a", "1"), key("b", "1"));
    bring(&store, &a, &noise(1, 20_000), &demand(1)).unwrap();
    bring(&store, &b, &noise(2, 20_000), &demand(1)).unwrap();
    // As the kernel does for a job whose agent was killed.
    let read_by_a_job = File::open(data_file(dir.path())).unwrap();
    store.expel(Timestamp(2), |_| true).unwrap();
    assert_eq!((spares(dir.path()), on_disk(dir.path())), (1, 0));
    let mut still = vec![0; 20_000];
    read_by_a_job.read_exact_at(&mut still, 0).unwrap();
    assert!(still == noise(1, 20_000) || still == noise(2, 20_000));
    drop(store);
    let store = open(dir.path(), 1 << 20);
    bring(&store, &b, &noise(3, 9_000), &demand(3)).unwrap();
    assert_eq!(spares(dir.path()), 0);
    assert_eq!(content(&store, &b, 9_000).unwrap(), noise(3, 9_000));
    // A spare that was left full, or taken away, does no harm.
    std::fs::write(dir.path().join("spare/0000000000000099"), [7; 30_000]).unwrap();
    drop(store);
    let store = open(dir.path(), 1 << 20);
    std::fs::rename(dir.path().join("spare/0000000000000099"), dir.path().join("gone")).unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("gone")).unwrap().len(), 0);
    bring(&store, &a, &noise(4, 9_000), &demand(4)).unwrap();
    assert_eq!(content(&store, &a, 9_000).unwrap(), noise(4, 9_000));
}

#[test]
fn open_files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { open_files: 8, checkpoint_interval_s: 3600, ..Config::default() };
    let store = Store::open(dir.path(), config, DomainKey::default()).unwrap();
    for i in 0..40 {
        bring(&store, &key(&format!("f{i}"), "1"), &noise(i, 5_000), &demand(1)).unwrap();
        assert!(store.data.open_count() <= 8);
    }
}

#[test]
fn promise_c_the_census_counts_newest_versions_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    let v = VolumeId::new("v").unwrap();
    for (path, version, len) in [("d/a", "1", 10_000), ("d/a", "2", 12_000), ("d/b", "1", 5_000), ("d2/c", "1", 7_000)]
    {
        bring(&store, &key(path, version), &noise(len, len as usize), &demand(1)).unwrap();
    }
    let paths = |list: &[&str]| list.iter().map(|p| FilePath::parse(p).unwrap()).collect::<Vec<_>>();
    assert_eq!(store.census(&v, &paths(&["d"])), Census { files: 2, bytes: 17_000 });
    assert_eq!(store.census(&v, &paths(&["d", "d/a", ""])), Census { files: 3, bytes: 24_000 });
    assert_eq!(store.census(&v, &paths(&["d/a"])), Census { files: 1, bytes: 12_000 });
    let but_a = |path: &FilePath| *path != FilePath::parse("d/a").unwrap();
    assert_eq!(store.census_where(&v, &paths(&["d", ""]), &but_a), Census { files: 2, bytes: 12_000 });
    std::fs::remove_file(data_file(dir.path())).unwrap();
}

#[test]
fn reads_are_told_apart_by_what_brought_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let (k, bytes) = (key("a", "1"), noise(1, 50_000));
    bring(&store, &k, &bytes, &by_move(5)).unwrap();
    let note = store.note_read(&k, 100..600, Timestamp(9));
    assert_eq!((note.prefetched_bytes, note.first, note.arrived_at), (500, true, Some(Timestamp(5))));
    assert!(!store.note_read(&k, 100..600, Timestamp(10)).first);
    store.expel(Timestamp(11), |_| true).unwrap();
    let evicted = store.drain_evicted();
    assert!(evicted[0].unread_prefetched_bytes > 20_000 && evicted[0].unread_prefetched_bytes < 50_000);
    assert_eq!((store.resident_bytes(), store.used_bytes(), on_disk(dir.path())), (0, 0, 0));
}

#[test]
fn a_second_process_is_kept_out_and_a_newer_format_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let told = Store::open(dir.path(), Config::default(), DomainKey::default()).unwrap_err().to_string();
    assert!(told.contains("in use by another process"), "{told}");
    drop(store);
    let db = redb::Database::open(dir.path().join("index.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 99).unwrap();
    txn.commit().unwrap();
    drop(db);
    let told = Store::open(dir.path(), Config::default(), DomainKey::default()).unwrap_err().to_string();
    assert!(told.contains("99") && told.contains("update this agent"), "{told}");
}

/// A disk with a given number of bytes.
#[derive(Debug)]
struct SmallDisk {
    left_bytes: AtomicI64,
}

impl Disk for SmallDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.left_bytes.fetch_sub(bytes.len() as i64, Ordering::SeqCst) < bytes.len() as i64 {
            self.left_bytes.fetch_add(bytes.len() as i64, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        file.write_at(bytes, offset)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }
    fn sync(&self, folder: &File) -> io::Result<()> {
        RealDisk.sync(folder)
    }
}

#[test]
fn a_disk_smaller_than_promised_gives_one_clear_error_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SmallDisk { left_bytes: AtomicI64::new(60_000) });
    let store = open_on(dir.path(), 10 << 20, disk.clone());
    let first = noise(1, 30_000);
    bring(&store, &key("a", "1"), &first, &demand(1)).unwrap();
    let held = store.open_whole(&key("a", "1")).unwrap();
    let told = bring(&store, &key("b", "1"), &noise(2, 50_000), &demand(2)).unwrap_err().to_string();
    assert!(told.contains("full below its capacity") && told.contains("lower capacity_bytes"), "{told}");
    assert_eq!(content(&store, &key("a", "1"), 30_000).unwrap(), first);
    drop(held);
    disk.left_bytes.store(1 << 20, Ordering::SeqCst);
    bring(&store, &key("b", "1"), &noise(2, 50_000), &demand(3)).unwrap();
    assert_eq!(content(&store, &key("b", "1"), 50_000).unwrap(), noise(2, 50_000));
}

/// A disk on which the process dies at a chosen call, in the middle of the write; it remembers what was not synced.
#[derive(Debug)]
struct DyingDisk {
    calls_left: AtomicU64,
    unsynced: Mutex<Vec<(PathBuf, u64, usize)>>,
}

impl DyingDisk {
    fn alive(&self) -> io::Result<()> {
        let left = self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map(|_| ()).map_err(|_| io::Error::other("killed"))
    }
}

impl Disk for DyingDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let was_alive = self.calls_left.load(Ordering::SeqCst) > 0;
        let alive = self.alive();
        if was_alive {
            // The last write of a dying process is half done, and short writes happen to the living, too.
            let n = if alive.is_ok() && bytes.len() < 5_000 { bytes.len() } else { bytes.len().div_ceil(2) };
            self.unsynced.lock().unwrap().push((path, offset, n));
            let n = file.write_at(&bytes[..n], offset)?;
            return if self.calls_left.load(Ordering::SeqCst) == 0 { Err(io::Error::other("killed")) } else { Ok(n) };
        }
        Err(io::Error::other("killed"))
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.calls_left.load(Ordering::SeqCst) == 0 {
            Err(io::Error::other("killed"))
        } else {
            file.read_at(bytes, offset)
        }
    }
    fn sync(&self, _folder: &File) -> io::Result<()> {
        self.alive()?;
        self.unsynced.lock().unwrap().clear();
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Chunks of a file arrive: all, three at a time, or every second.
    Bring {
        file: u8,
        half: bool,
    },
    Check,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..8, any::<bool>()).prop_map(|(file, half)| Step::Bring { file, half }),
        1 => Just(Step::Check),
        2 => Just(Step::Checkpoint),
    ];
    proptest::collection::vec(step, 1..24)
}

/// Files 6 and 7 share most of their bytes with 0 and 1.
fn file_bytes(file: u8) -> Vec<u8> {
    let mut bytes = noise(u64::from(file % 6), 9_000 + 4_000 * usize::from(file % 6));
    if file >= 6 {
        bytes[4_000] ^= 1;
    }
    bytes
}

/// What the caller was told is stored: file -> chunks.
type Acknowledged = BTreeMap<u8, BTreeSet<u32>>;

fn run(store: &Arc<Store>, steps: &[Step]) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    for step in steps {
        match step {
            Step::Bring { file, half } => {
                let bytes = file_bytes(*file);
                let m = manifest(&bytes, "1");
                let Ok(fill) = store.fill(&key(&file.to_string(), "1"), &m, 0..u64::MAX, &demand(1)) else { continue };
                let map = fill.map();
                let mut here = acknowledged.remove(file).unwrap_or_default();
                here.extend((0..map.count()).filter(|i| !fill.missing().contains(i)));
                let (together, apart) = if *half { (1, 2) } else { (3, 3) };
                for first in (0..map.count()).step_by(apart) {
                    let end = map.count().min(first + together);
                    let r = map.range(first).start..map.range(end - 1).end;
                    if fill.put(first, &bytes[r.start as usize..r.end as usize]).is_ok() {
                        here.extend(first..end);
                    }
                }
                if !here.is_empty() {
                    acknowledged.insert(*file, here);
                }
            }
            Step::Check => drop(store.check(Subset::ALL)),
            Step::Checkpoint => drop(store.checkpoint()),
        }
    }
    acknowledged
}

/// Every chunk that the store claims is right; returns which.
fn verified(store: &Store) -> Acknowledged {
    let mut found = Acknowledged::new();
    for file in 0..8u8 {
        let (k, bytes) = (key(&file.to_string(), "1"), file_bytes(file));
        let Some(resident) = store.lookup(&k) else { continue };
        let mut counted = 0;
        for i in 0..resident.map.count() {
            let r = resident.map.range(i);
            let mut buf = vec![0; (r.end - r.start) as usize];
            match store.read(&k, r.start, &mut buf) {
                Ok(_) => {
                    assert_eq!(buf, bytes[r.start as usize..r.end as usize], "file {file} chunk {i}");
                    counted += r.end - r.start;
                    found.entry(file).or_default().insert(i);
                }
                Err(StoreError::Missing(_)) => {}
                Err(e) => panic!("file {file} chunk {i}: {e}"),
            }
        }
        assert_eq!(counted, resident.resident_bytes);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Promises D and E: killed at any call, the store has exactly what it acknowledged (and at most the chunks
    /// that were being acknowledged), all of it right.
    #[test]
    fn promise_e_kill_9_at_any_call_loses_nothing_acknowledged(steps in steps(), kill_at in 0u64..120) {
        let dir = fast_dir();
        let disk = Arc::new(DyingDisk { calls_left: AtomicU64::new(u64::MAX), unsynced: Mutex::default() });
        let store = open_on(dir.path(), 1 << 30, disk.clone());
        disk.calls_left.store(kill_at, Ordering::SeqCst);
        let acknowledged = run(&store, &steps);
        disk.calls_left.store(0, Ordering::SeqCst);
        drop(store);
        let found = verified(&open(dir.path(), 1 << 30));
        for (file, chunks) in &acknowledged {
            prop_assert!(found.get(file).is_some_and(|f| chunks.is_subset(f)), "file {} lost chunks", file);
        }
    }

    /// Promise D: after power loss, with everything unsynced gone at random, what the store claims is right.
    #[test]
    fn promise_d_power_loss_leaves_right_bytes_or_none(steps in steps(), kill_at in 0u64..120, seed: u64) {
        let dir = fast_dir();
        let disk = Arc::new(DyingDisk { calls_left: AtomicU64::new(u64::MAX), unsynced: Mutex::default() });
        let store = open_on(dir.path(), 1 << 30, disk.clone());
        disk.calls_left.store(kill_at, Ordering::SeqCst);
        run(&store, &steps);
        disk.calls_left.store(0, Ordering::SeqCst);
        drop(store);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        for (path, offset, len) in disk.unsynced.lock().unwrap().drain(..) {
            if rng.next_u32() % 2 == 0 && let Ok(file) = File::options().write(true).open(path) {
                file.write_all_at(&vec![0; len], offset).unwrap();
            }
        }
        let store = open(dir.path(), 1 << 30);
        verified(&store);
        prop_assert_eq!(store.check(Subset::ALL).unwrap().corrupt, 0);
    }
}
