//! Which chunks stand in several files: found as files are cut, for whoever plans what crosses a link.
//!
//! A chunk that stands in one file says nothing. It is told of when a second file with it has been cut, with both of them;
//! and a file is told whole, in place of what was told of it before. So whoever listens needs one file's last word only.
//!
//! Known are the files whose manifests are remembered and no others: the table is bounded as those are, and a source of any
//! number of files tells no more than it remembers. What was told of a file that is no longer remembered stays true until
//! the file changes, and is not taken back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foretide_chunk::ChunkMap;
use foretide_flow::{ChunkId, FilePath, SharedChunk, SharedFile, VolumeId};
use tokio::sync::Notify;

/// Chunks below this size are not told of: a thousand of them cross 1 Gbit/s in an eighth of a second.
const WORTH_BYTES: u32 = 16 << 10;
/// What is found in so short a time is told together.
const GATHER: Duration = Duration::from_secs(1);
/// A file that was told is told again after this at the soonest: one that shares a chunk with each file that is cut would
/// be told with each of them.
const REST: Duration = Duration::from_secs(30);
/// Chunks told at once: 2 MB of JSON.
const CHUNKS_AT_ONCE: usize = SharedFile::CHUNKS_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    table: Mutex<Table>,
    begun: Notify,
}

impl Sharing {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file was cut.
    pub(super) fn cut(&self, volume: &VolumeId, path: &FilePath, map: &Arc<ChunkMap>) {
        self.table().cut((volume.clone(), path.clone()), map, Instant::now());
        self.begun.notify_one();
    }

    /// A file's manifest is no longer remembered.
    pub(super) fn forgotten(&self, volume: &VolumeId, path: &FilePath) {
        self.table().forget(&(volume.clone(), path.clone()));
    }

    /// No manifest of a volume is remembered any more.
    pub(super) fn forgotten_all(&self, volume: &VolumeId) {
        let mut table = self.table();
        let places: Vec<Place> = table.numbers.keys().filter(|(of, _)| of == volume).cloned().collect();
        places.iter().for_each(|place| drop(table.forget(place)));
    }

    /// Waits until there is more to tell, and gathers for a while: so no more than [`CHUNKS_AT_ONCE`] are told in [`GATHER`].
    pub(super) async fn next(&self) -> Vec<SharedFile> {
        loop {
            if self.table().due.is_empty() {
                self.begun.notified().await;
                continue;
            }
            tokio::time::sleep(GATHER).await;
            let told = self.table().take(Instant::now());
            if !told.is_empty() {
                return told;
            }
        }
    }
}

type Place = (VolumeId, FilePath);

/// A file that is remembered.
#[derive(Debug)]
struct Known {
    place: Place,
    map: Arc<ChunkMap>,
    told_at: Option<Instant>,
}

/// Where a chunk stands.
#[derive(Debug)]
struct Standing {
    /// The file that had it first, if that is still remembered: by number.
    first: u32,
    /// In how many remembered files.
    files: u32,
}

/// `chunks` counts each chunk of `files` once a file; `due` holds numbers of `files` alone.
#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<Place, u32>,
    files: HashMap<u32, Known>,
    /// By the beginning of a chunk's name. Of four million chunks two begin alike once in a million tables, and then a chunk
    /// is told of that nobody else has.
    chunks: HashMap<u64, Standing>,
    /// Files that are to be told, each not before its moment.
    due: HashMap<u32, Instant>,
    /// They come again when the file that had them first is long forgotten.
    next: u32,
}

fn beginning(id: &ChunkId) -> u64 {
    let (first, _) = id.0.split_first_chunk().expect("a digest is longer");
    u64::from_le_bytes(*first)
}

/// Chunks that are worth telling of, each once.
fn worthy(map: &ChunkMap) -> Vec<u64> {
    let chunks = map.manifest().chunks.iter().filter(|chunk| chunk.length >= WORTH_BYTES);
    let mut names: Vec<u64> = chunks.map(|chunk| beginning(&chunk.id)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Table {
    fn cut(&mut self, place: Place, map: &Arc<ChunkMap>, now: Instant) {
        let told_at = self.forget(&place).and_then(|before| before.told_at);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(place.clone(), number);
        self.files.insert(number, Known { place, map: map.clone(), told_at });
        // What was told of the version before is taken back.
        let mut is_news = told_at.is_some();
        for name in worthy(map) {
            let standing = self.chunks.entry(name).or_insert(Standing { first: number, files: 0 });
            standing.files += 1;
            is_news |= standing.files > 1;
            if standing.files == 2 {
                let first = standing.first;
                self.is_due(first, now);
            }
        }
        if is_news {
            self.is_due(number, now);
        }
    }

    fn is_due(&mut self, number: u32, now: Instant) {
        let Some(known) = self.files.get(&number) else { return };
        let rested = known.told_at.map_or(now, |told_at| now.max(told_at + REST));
        self.due.entry(number).or_insert(rested);
    }

    fn forget(&mut self, place: &Place) -> Option<Known> {
        let number = self.numbers.remove(place)?;
        let known = self.files.remove(&number)?;
        self.due.remove(&number);
        for name in worthy(&known.map) {
            if let Some(standing) = self.chunks.get_mut(&name) {
                standing.files -= 1;
                if standing.files == 0 {
                    self.chunks.remove(&name);
                }
            }
        }
        Some(known)
    }

    /// Those whose time has come, as many as are told at once; they are not due any more.
    fn take(&mut self, now: Instant) -> Vec<SharedFile> {
        let mut ready: Vec<u32> = self.due.iter().filter(|(_, at)| **at <= now).map(|(number, _)| *number).collect();
        ready.sort_unstable();
        let (mut told, mut chunks) = (Vec::new(), 0);
        for number in ready {
            let Some(file) = self.tell(number) else { continue };
            chunks += file.chunks.len();
            if chunks > CHUNKS_AT_ONCE && !told.is_empty() {
                break;
            }
            self.due.remove(&number);
            if let Some(known) = self.files.get_mut(&number) {
                known.told_at = Some(now);
            }
            told.push(file);
        }
        told
    }

    /// What of a file stands in others too.
    fn tell(&self, number: u32) -> Option<SharedFile> {
        let Known { place: (volume, path), map, .. } = self.files.get(&number)?;
        let is_shared = |name: &u64| self.chunks.get(name).is_some_and(|standing| standing.files > 1);
        let chunks = map.manifest().chunks.iter().zip(0..).filter(|(chunk, _)| {
            // In this order: the table of chunks is large.
            chunk.length >= WORTH_BYTES && is_shared(&beginning(&chunk.id))
        });
        let told =
            chunks.map(|(chunk, n)| SharedChunk { id: chunk.id, offset: map.range(n).start, length: chunk.length });
        let version = map.manifest().version.clone();
        let chunks = told.take(SharedFile::CHUNKS_MAX).collect();
        Some(SharedFile { volume: volume.clone(), path: path.clone(), version, chunks })
    }
}

#[cfg(test)]
mod tests {
    use foretide_chunk::{DomainKey, manifest_of};
    use foretide_flow::{ChunkRef, FileVersion};

    use super::*;

    fn place(name: &str) -> Place {
        (VolumeId::new("v").unwrap(), FilePath::parse(name).unwrap())
    }

    /// A file of chunks of 64 KiB.
    fn map(version: &str, ids: &[u8]) -> Arc<ChunkMap> {
        let chunks = ids.iter().map(|id| ChunkRef { id: ChunkId([*id; 32]), length: 64 << 10 }).collect();
        Arc::new(ChunkMap::new(Arc::new(manifest_of(&DomainKey::default(), FileVersion(version.into()), chunks))))
    }

    /// What is told now: each file with its version and, in order, the chunks that others have, by index in the file.
    fn told(table: &mut Table, now: Instant) -> Vec<(String, String, Vec<u64>)> {
        let index = |c: &SharedChunk| c.offset / u64::from(c.length);
        let text = |f: SharedFile| (f.path.to_string(), f.version.0.to_string(), f.chunks.iter().map(index).collect());
        table.take(now).into_iter().map(text).collect()
    }

    fn said(path: &str, version: &str, chunks: &[u64]) -> (String, String, Vec<u64>) {
        (path.into(), version.into(), chunks.to_vec())
    }

    #[test]
    fn a_chunk_is_told_of_when_a_second_file_has_it_and_with_both() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.cut(place("a"), &map("1", &[1, 2, 3, 2]), now);
        assert_eq!(told(&mut table, now), [], "twice in one file says nothing of another");
        table.cut(place("b"), &map("1", &[9, 2]), now);
        assert_eq!(told(&mut table, now), [said("a", "1", &[1, 3]), said("b", "1", &[1])]);
        table.cut(place("c"), &map("1", &[2, 8]), now);
        assert_eq!(told(&mut table, now), [said("c", "1", &[0])], "of the others it is known");
        table.cut(place("d"), &map("1", &[7]), now);
        assert_eq!(told(&mut table, now), []);
    }

    #[test]
    fn a_file_that_was_told_rests_and_is_told_as_it_is_then() {
        let (mut table, now) = (Table::default(), Instant::now());
        for (name, ids) in [("a", [1, 2, 3]), ("b", [1, 8, 9])] {
            table.cut(place(name), &map("1", &ids), now);
        }
        assert_eq!(told(&mut table, now).len(), 2);
        table.cut(place("c"), &map("1", &[2]), now);
        assert_eq!(told(&mut table, now), [said("c", "1", &[0])]);
        table.cut(place("d"), &map("1", &[3]), now);
        assert_eq!(told(&mut table, now + REST), [said("a", "1", &[0, 1, 2]), said("d", "1", &[0])]);
    }

    #[test]
    fn a_newer_version_takes_the_place_of_what_was_told() {
        let (mut table, now) = (Table::default(), Instant::now());
        for name in ["a", "b"] {
            table.cut(place(name), &map("1", &[1, 2]), now);
        }
        assert_eq!(told(&mut table, now).len(), 2);
        table.cut(place("a"), &map("2", &[3, 4]), now);
        assert_eq!(told(&mut table, now + REST), [said("a", "2", &[])], "it shares nothing any more");
        table.cut(place("a"), &map("3", &[3, 2]), now + REST);
        let both = [said("a", "3", &[1])];
        assert_eq!(told(&mut table, now + REST + REST), both, "and of b it was told that its chunks are shared");
    }

    #[test]
    fn promise_k_what_is_forgotten_leaves_nothing_behind() {
        let (mut table, now) = (Table::default(), Instant::now());
        for (name, ids) in [("a", [1, 2]), ("b", [2, 3]), ("c", [3, 1])] {
            table.cut(place(name), &map("1", &ids), now);
        }
        let known = table.forget(&place("a")).unwrap();
        assert_eq!(known.place, place("a"));
        assert_eq!(told(&mut table, now), [said("b", "1", &[1]), said("c", "1", &[0])], "one that left is not told");
        for name in ["b", "c"] {
            table.forget(&place(name));
        }
        assert!(table.chunks.is_empty() && table.files.is_empty() && table.numbers.is_empty() && table.due.is_empty());
    }

    #[test]
    fn promise_k_little_chunks_are_not_told_nor_too_many_at_once() {
        let (mut table, now) = (Table::default(), Instant::now());
        let little = ChunkRef { id: ChunkId([1; 32]), length: WORTH_BYTES - 1 };
        let long = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_le_bytes());
            ChunkRef { id: ChunkId(id), length: WORTH_BYTES }
        };
        let many: Vec<_> = (0..SharedFile::CHUNKS_MAX as u32 + 5).map(long).chain([little]).collect();
        for (name, chunks) in [("a", vec![little]), ("b", vec![little]), ("c", many.clone()), ("d", many)] {
            let manifest = manifest_of(&DomainKey::default(), FileVersion("1".into()), chunks);
            table.cut(place(name), &Arc::new(ChunkMap::new(Arc::new(manifest))), now);
        }
        for name in ["c", "d"] {
            let told = table.take(now);
            assert_eq!((told.len(), told[0].path.to_string().as_str()), (1, name), "as much as fits at once");
            assert_eq!(told[0].chunks.len(), SharedFile::CHUNKS_MAX);
        }
        assert!(table.take(now).is_empty());
    }
}
