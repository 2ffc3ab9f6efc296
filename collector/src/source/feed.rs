//! The mount as collector: it knows every read that passes it, and tells through a bounded queue.
//!
//! Where the kernel refuses probes, this is what is left. A full queue costs the mount nothing but the observation,
//! which is counted (promises A and J).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};

use foretide_flow::{FilePath, Found, Timestamp, VolumeId};

use super::{Observation, Source};
use crate::CollectorError;

/// Observations that may wait: about 10 MiB, and 100 ms of the most that a mount serves.
const QUEUE_OBSERVATIONS: usize = 65_536;

/// The end that the mount holds. Cheap to clone; never waits.
#[derive(Clone)]
pub struct Feed {
    queue: SyncSender<Observation>,
    dropped: Arc<AtomicU64>,
    known: Arc<Mutex<HashSet<u64>>>,
}

/// The end that the collector polls.
pub struct FeedSource {
    queue: Receiver<Observation>,
    dropped: Arc<AtomicU64>,
    known: Arc<Mutex<HashSet<u64>>>,
}

/// A queue from the mount to the collector.
pub fn feed() -> (Feed, FeedSource) {
    let (sender, queue) = sync_channel(QUEUE_OBSERVATIONS);
    let dropped = Arc::new(AtomicU64::new(0));
    let known = Arc::new(Mutex::new(HashSet::new()));
    (Feed { queue: sender, dropped: dropped.clone(), known: known.clone() }, FeedSource { queue, dropped, known })
}

impl Feed {
    /// `process` opened the file for reading.
    pub fn opened(&self, process: u32, volume: &VolumeId, path: &FilePath) {
        let file = self.number(volume, path);
        self.tell(Observation::Open { at: Timestamp::now(), process, parent: 0, file, writable: false });
    }

    /// `process` read bytes that were where `found` says, and was blocked for `blocked_us` microseconds.
    pub fn read(
        &self,
        process: u32,
        (volume, path): (&VolumeId, &FilePath),
        (offset, length): (u64, u64),
        blocked_us: u32,
        found: Found,
    ) {
        let file = self.number(volume, path);
        let at = Timestamp::now();
        self.tell(Observation::Extent {
            at,
            process,
            parent: 0,
            file,
            offset,
            length,
            calls: 1,
            blocked_us,
            found,
            mapped: false,
        });
    }

    /// `process` closed the file.
    pub fn closed(&self, process: u32, volume: &VolumeId, path: &FilePath) {
        let file = self.number(volume, path);
        self.tell(Observation::Close { at: Timestamp::now(), process, file });
    }

    /// The file's number, its path told if that is new.
    fn number(&self, volume: &VolumeId, path: &FilePath) -> u64 {
        let mut hasher = DefaultHasher::new();
        (volume, path).hash(&mut hasher);
        let file = hasher.finish();
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        if !known.contains(&file) && self.tell(Observation::Path { file, volume: volume.clone(), path: path.clone() }) {
            known.insert(file);
        }
        file
    }

    fn tell(&self, seen: Observation) -> bool {
        match self.queue.try_send(seen) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Source for FeedSource {
    fn poll(&mut self, out: &mut Vec<Observation>) -> Result<(), CollectorError> {
        out.extend(self.queue.try_iter().take(QUEUE_OBSERVATIONS));
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            out.push(Observation::Loss { calls: dropped, processes: 0, unresolved: 0 });
        }
        Ok(())
    }

    fn forget(&mut self, file: u64) {
        self.known.lock().unwrap_or_else(|e| e.into_inner()).remove(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_j_a_full_queue_counts_what_it_could_not_take() {
        let (feed, mut source) = feed();
        let volume = VolumeId::new("v").unwrap();
        let path = FilePath::parse("a").unwrap();
        for i in 0..QUEUE_OBSERVATIONS as u64 + 10 {
            feed.read(1, (&volume, &path), (i, 1), 0, Found::Hit);
        }
        let mut out = Vec::new();
        source.poll(&mut out).unwrap();
        // One place went to the path.
        assert_eq!(out.last(), Some(&Observation::Loss { calls: 11, processes: 0, unresolved: 0 }));
        assert_eq!(out.len(), QUEUE_OBSERVATIONS + 1);
    }

    #[test]
    fn a_path_is_told_once_and_again_when_it_was_forgotten() {
        let (feed, mut source) = feed();
        let volume = VolumeId::new("v").unwrap();
        let path = FilePath::parse("a/b").unwrap();
        let told = |source: &mut FeedSource| {
            let mut out = Vec::new();
            source.poll(&mut out).unwrap();
            out.iter().filter(|o| matches!(o, Observation::Path { .. })).count()
        };
        feed.opened(1, &volume, &path);
        feed.closed(1, &volume, &path);
        assert_eq!(told(&mut source), 1);
        feed.opened(1, &volume, &path);
        assert_eq!(told(&mut source), 0);
        source.forget(feed.number(&volume, &path));
        feed.opened(1, &volume, &path);
        assert_eq!(told(&mut source), 1);
    }
}
