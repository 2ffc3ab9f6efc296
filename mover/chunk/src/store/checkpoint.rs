//! Opening, recovering, and the checkpoint that makes recovery short.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use foretide_flow::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use super::bits::Bits;
use super::disk::{DataFiles, Disk, RealDisk, open_folder};
use super::evict::{EpochAware, EvictionPolicy};
use super::index::{Change, Index};
use super::journal::{Journal, Told, remove_until};
use super::state::State;
use super::{Claim, Config, Store, StoreError};
use crate::{ChunkMap, DomainKey, decode_manifest, encode_manifest};

/// A process that is just ending may hold the store a little longer, seconds.
const LOCK_WAIT_S: u64 = 3;
/// Between two tries to get it.
const LOCK_RETRY_MS: u64 = 20;

/// Wakes the checkpoint thread.
#[derive(Debug, Default)]
pub(super) struct Signal {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Debug, Default, PartialEq)]
enum Asked {
    #[default]
    Nothing,
    Checkpoint,
    Stop,
}

impl Signal {
    fn tell(&self, what: Asked) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if *asked != Asked::Stop {
            *asked = what;
        }
        self.wake.notify_one();
    }

    /// Whether to go on, after `interval` or when asked.
    fn wait(&self, interval: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut asked, _) = self
            .wake
            .wait_timeout_while(asked, interval, |a| *a == Asked::Nothing)
            .unwrap_or_else(PoisonError::into_inner);
        if *asked == Asked::Stop {
            return false;
        }
        *asked = Asked::Nothing;
        true
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.signal.tell(Asked::Stop);
        if let Err(e) = self.checkpoint() {
            tracing::warn!(error = %e, "the last checkpoint failed; what it missed is hashed again at the next start");
        }
    }
}

fn take_lock(root: &Path) -> Result<Flock<File>, StoreError> {
    let path = root.join("lock");
    let failed = |e: io::Error| StoreError::Io { what: "lock", path: path.clone(), source: e };
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
    let until = Instant::now() + Duration::from_secs(LOCK_WAIT_S);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EAGAIN)) if Instant::now() < until => {
                file = back;
                std::thread::sleep(Duration::from_millis(LOCK_RETRY_MS));
            }
            Err((_, nix::errno::Errno::EAGAIN)) => return Err(StoreError::InUse(root.to_owned())),
            Err((_, e)) => return Err(failed(e.into())),
        }
    }
}

impl Store {
    /// Opens or makes a store of one dedup domain. What was written since the last checkpoint is hashed here
    /// (promises D and E).
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be used, is in use, or was made by a newer Foretide.
    pub fn open(root: &Path, config: Config, key: DomainKey) -> Result<Arc<Self>, StoreError> {
        Self::open_with(root, config, key, Box::new(EpochAware), Arc::new(RealDisk))
    }

    /// The same with another eviction policy or another way to the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        root: &Path,
        config: Config,
        key: DomainKey,
        policy: Box<dyn EvictionPolicy>,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, StoreError> {
        let failed = |what, e| StoreError::Io { what, path: root.to_owned(), source: e };
        std::fs::create_dir_all(root).map_err(|e| failed("make", e))?;
        let lock = take_lock(root)?;
        let data = DataFiles::new(root, config.open_files).map_err(|e| failed("make", e))?;
        let index = Index::open(&root.join("index.redb"))?;
        let (journal, told) = Journal::open(root, disk.clone()).map_err(|e| failed("read the journal of", e))?;
        let store = Arc::new(Self {
            root: root.to_owned(),
            key,
            policy,
            disk,
            data,
            index,
            journal: Mutex::new(journal),
            state: Mutex::default(),
            checkpointing: Mutex::default(),
            signal: Arc::default(),
            _lock: lock,
            config,
        });
        store.recover(told)?;
        store.checkpoint()?;
        let interval = Duration::from_secs(store.config.checkpoint_interval_s.max(1));
        let (weak, signal) = (Arc::downgrade(&store), store.signal.clone());
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || run_checkpoints(&weak, &signal, interval))
            .map_err(|e| failed("start the checkpoints of", e))?;
        Ok(store)
    }

    /// Index, then journal, then what is really on disk.
    fn recover(&self, told: Vec<Told>) -> Result<(), StoreError> {
        let (records, next_no) = self.index.load()?;
        let on_disk: std::collections::HashSet<u64> =
            self.data.present().map_err(|e| self.io_error("list", self.root.join("data"), e))?.into_iter().collect();
        let mut state = self.lock();
        state.next_no = next_no;
        for (no, record) in records {
            let partly = matches!(record.have, Bits::Some(_));
            let map = if partly { self.stored_map(no)? } else { None };
            state.insert(no, record, map);
        }
        let claimed = self.replay(&mut state, told);
        let lost: Vec<u64> = state.files.keys().filter(|no| !on_disk.contains(no)).copied().collect();
        for no in lost {
            if state.files[&no].resident_bytes > 0 {
                tracing::warn!(file = no, "a data file has vanished from the store");
            }
            let map = self.map_of(&mut state, no).ok();
            state.remove(no, map.as_deref(), Timestamp::now());
        }
        let orphans: Vec<u64> = on_disk.iter().filter(|no| !state.files.contains_key(no)).copied().collect();
        state.next_no = state.next_no.max(on_disk.iter().max().map_or(0, |no| no + 1));
        let over = self.make_room(&mut state, 0, Claim::Demand, Timestamp::now()).unwrap_or_default();
        drop(state);
        self.remove_data(orphans)?;
        self.remove_data(over)?;
        self.prove_claims(claimed);
        Ok(())
    }

    fn stored_map(&self, no: u64) -> Result<Option<Arc<ChunkMap>>, StoreError> {
        let Some(encoded) = self.index.manifest(no)? else { return Ok(None) };
        Ok(decode_manifest(&self.key, &encoded).ok().map(|m| Arc::new(ChunkMap::new(Arc::new(m)))))
    }

    /// Applies what the journals tell; the chunks that only they claim.
    fn replay(&self, state: &mut State, told: Vec<Told>) -> Vec<(u64, u32, bool)> {
        let mut claimed = Vec::new();
        for event in told {
            match event {
                Told::Admitted { no, record, manifest } if !state.files.contains_key(&no) => {
                    let Ok(manifest) = decode_manifest(&self.key, &manifest) else { continue };
                    if manifest.chunks.len() != record.chunks as usize || manifest.size != record.size {
                        continue;
                    }
                    state.insert(no, *record, Some(Arc::new(ChunkMap::new(Arc::new(manifest)))));
                    state.new_manifests.insert(no);
                    state.dirty.insert(no);
                }
                Told::Arrived { no, chunk, by_move } => {
                    let known = state.files.get(&no).is_some_and(|h| chunk < h.record.chunks);
                    if known && !state.files[&no].record.have.has(chunk) {
                        claimed.push((no, chunk, by_move));
                    }
                }
                Told::Gone { no } => {
                    let map = self.map_of(state, no).ok();
                    state.remove(no, map.as_deref(), Timestamp::now());
                    claimed.retain(|(n, _, _)| *n != no);
                }
                Told::Admitted { .. } => {}
            }
        }
        claimed
    }

    fn prove_claims(&self, claimed: Vec<(u64, u32, bool)>) {
        for (no, chunk, by_move) in claimed {
            let map = {
                let mut state = self.lock();
                self.map_of(&mut state, no)
            };
            let (Ok(map), Ok(file)) = (map, self.data.get(no, false)) else { continue };
            let c = map.manifest().chunks[chunk as usize];
            let mut bytes = vec![0; c.length as usize];
            let read = super::disk::read_exact_at(&*self.disk, &file, &mut bytes, map.range(chunk).start);
            if read.is_ok() && self.key.chunk_id(&bytes) == c.id {
                self.lock().arrived(no, &map, chunk, by_move);
            }
        }
    }

    /// Makes what was stored so far survive power loss: content first, then the index, then the journals go.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails; nothing is lost then, the journals stay.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let _one = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let (change, done) = {
            let mut state = self.lock();
            if state.dirty.is_empty() && state.gone.is_empty() && self.journal().length_bytes() == 0 {
                return Ok(());
            }
            let done = self.journal().rotate().map_err(|e| self.io_error("write", self.root.join("journal"), e))?;
            (take_change(&mut state), done)
        };
        let folder = open_folder(&self.root).map_err(|e| self.io_error("open", self.root.clone(), e))?;
        let synced = self.disk.sync(&folder).map_err(|e| self.io_error("sync", self.root.clone(), e));
        if let Err(e) = synced.and_then(|()| self.index.commit(&change)) {
            give_back(&mut self.lock(), change);
            return Err(e);
        }
        self.trim_maps(&mut self.lock());
        remove_until(&self.root, done).map_err(|e| self.io_error("remove", self.root.join("journal"), e))
    }

    pub(super) fn wake_checkpoint(&self) {
        self.signal.tell(Asked::Checkpoint);
    }

    /// Forgets manifests that the index has, down to half of what may be held.
    fn trim_maps(&self, state: &mut State) {
        if state.map_bytes <= self.config.manifest_memory_bytes {
            return;
        }
        let State { files, new_manifests, map_bytes, .. } = state;
        for (_, held) in files.iter_mut().filter(|(no, _)| !new_manifests.contains(no)) {
            if *map_bytes <= self.config.manifest_memory_bytes / 2 {
                break;
            }
            if let Some(map) = held.map.take() {
                *map_bytes -= map.weight_bytes();
            }
        }
    }
}

/// What changed since the last checkpoint, taken out of the table.
fn take_change(state: &mut State) -> Change {
    let mut change = Change {
        places: std::mem::take(&mut state.places),
        gone: std::mem::take(&mut state.gone),
        next_no: state.next_no,
        ..Change::default()
    };
    for no in std::mem::take(&mut state.dirty) {
        if let Some(held) = state.files.get(&no) {
            change.records.push((no, held.record.encode()));
        }
    }
    for no in std::mem::take(&mut state.new_manifests) {
        if let Some(map) = state.files.get(&no).and_then(|h| h.map.as_ref()) {
            change.manifests.push((no, encode_manifest(map.manifest())));
        }
    }
    state.written_bytes = 0;
    change
}

/// A checkpoint failed: what it took is due again.
fn give_back(state: &mut State, change: Change) {
    state.dirty.extend(change.records.iter().map(|(no, _)| *no));
    state.new_manifests.extend(change.manifests.iter().map(|(no, _)| *no));
    state.gone.extend(change.gone);
    for (id, place) in change.places {
        state.places.entry(id).or_insert(place);
    }
}

fn run_checkpoints(store: &Weak<Store>, signal: &Signal, interval: Duration) {
    while signal.wait(interval) {
        let Some(store) = store.upgrade() else { return };
        if let Err(e) = store.checkpoint() {
            tracing::error!(error = %e, "checkpoint failed");
        }
    }
}
