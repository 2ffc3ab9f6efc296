//! What the store holds, as a table in memory.
//!
//! Invariants, kept by every method:
//! - `used_bytes` is the sum of `charged_bytes` over all files, and a file's charge is the blocks that its resident
//!   chunks touch, each counted once;
//! - `resident_bytes` is the sum of the lengths of all resident chunks;
//! - `used_bytes + reserved_bytes` never exceeds the capacity (whoever adds reserves first, under the same lock);
//! - `by_path` lists every file once, under its path, in order of admission.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use foretide_flow::{ChunkId, FilePath, Timestamp, VolumeId};

use super::bits::Bits;
use super::evict::{Candidate, Claim, EvictionPolicy, Proof};
use super::index::Place;
use super::record::Record;
use super::{Census, Evicted, FileKey};
use crate::ChunkMap;

/// File systems give space in blocks of this size, bytes.
const BLOCK_BYTES: u64 = 4096;
/// Evictions that nobody has drained yet; beyond that the oldest are only counted.
const EVICTED_LIMIT: usize = 100_000;

/// A file version in the store.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) map: Option<Arc<ChunkMap>>,
    /// Chunks that were hashed since this process started.
    pub(super) proven: Bits,
    pub(super) resident_bytes: u64,
    pub(super) charged_bytes: u64,
    /// Held by fills and by open whole files: more than one owner means in use.
    pub(super) lease: Arc<()>,
}

#[derive(Debug)]
struct Pin {
    volume: VolumeId,
    path: FilePath,
    until: Timestamp,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) files: HashMap<u64, Held>,
    by_path: BTreeMap<(VolumeId, FilePath), Vec<u64>>,
    pins: Vec<Pin>,
    pub(super) next_no: u64,
    pub(super) used_bytes: u64,
    pub(super) reserved_bytes: u64,
    pub(super) resident_bytes: u64,
    pub(super) map_bytes: usize,
    evicted: VecDeque<Evicted>,
    /// What became of what moves brought.
    pub(super) proof: Proof,
    /// Evictions that were forgotten because nobody drained them (promise J).
    pub(super) evicted_lost: u64,
    // Since the last checkpoint:
    pub(super) places: HashMap<ChunkId, Place>,
    pub(super) dirty: HashSet<u64>,
    pub(super) new_manifests: HashSet<u64>,
    pub(super) gone: Vec<(u64, Vec<ChunkId>)>,
    pub(super) written_bytes: u64,
}

fn blocks_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES)
}

/// Bytes that these chunks occupy, each block once.
pub(super) fn charge(map: &ChunkMap, has: impl Fn(u32) -> bool) -> u64 {
    charge_among(map, 0..map.count(), has)
}

fn charge_among(map: &ChunkMap, among: Range<u32>, has: impl Fn(u32) -> bool) -> u64 {
    let (mut blocks, mut counted_to) = (0, 0);
    for i in among.filter(|i| has(*i)) {
        let b = blocks_of(&map.range(i));
        blocks += b.end.saturating_sub(b.start.max(counted_to));
        counted_to = b.end;
    }
    blocks * BLOCK_BYTES
}

/// What these further chunks add to the charge. Only blocks that they touch can change it, so only the chunks in these are
/// looked at: of a file of a hundred gigabytes a dozen, not a million.
pub(super) fn charge_of_more(map: &ChunkMap, have: &Bits, more: &Range<u32>) -> u64 {
    if more.is_empty() {
        return 0;
    }
    let blocks = blocks_of(&(map.range(more.start).start..map.range(more.end - 1).end));
    let near = map.covering(&(blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES));
    let after = charge_among(map, near.clone(), |i| have.has(i) || more.contains(&i));
    after - charge_among(map, near, |i| have.has(i))
}

/// What one more chunk adds to the charge: the blocks that it does not share with a resident neighbour.
fn charge_of_one_more(map: &ChunkMap, have: &Bits, i: u32) -> u64 {
    let mut b = blocks_of(&map.range(i));
    if i > 0 && have.has(i - 1) {
        b.start = b.start.max(blocks_of(&map.range(i - 1)).end);
    }
    if i + 1 < map.count() && have.has(i + 1) {
        b.end = b.end.min(blocks_of(&map.range(i + 1)).start);
    }
    b.end.saturating_sub(b.start) * BLOCK_BYTES
}

impl State {
    pub(super) fn find(&self, key: &FileKey) -> Option<u64> {
        let versions = self.by_path.get(&(key.volume.clone(), key.path.clone()))?;
        versions.iter().copied().find(|no| self.files[no].record.key.version == key.version)
    }

    /// Takes a file in, as the newest version of its path.
    pub(super) fn insert(&mut self, no: u64, record: Record, map: Option<Arc<ChunkMap>>) {
        let versions = self.by_path.entry((record.key.volume.clone(), record.key.path.clone())).or_default();
        let at = versions.partition_point(|v| self.files[v].record.admitted < record.admitted);
        versions.insert(at, no);
        let (resident_bytes, charged_bytes) = match (&record.have, &map) {
            (Bits::None, _) => (0, 0),
            (Bits::Some(_), Some(map)) => {
                let resident = (0..map.count()).filter(|i| record.have.has(*i));
                let bytes = resident.map(|i| u64::from(map.manifest().chunks[i as usize].length)).sum();
                (bytes, charge(map, |i| record.have.has(i)))
            }
            _ => (record.size, record.size.div_ceil(BLOCK_BYTES) * BLOCK_BYTES),
        };
        self.used_bytes += charged_bytes;
        self.resident_bytes += resident_bytes;
        self.map_bytes += map.as_ref().map_or(0, |m| m.weight_bytes());
        if record.prefetched != Bits::None && record.read != Bits::None {
            self.proof.read(resident_bytes);
        }
        self.next_no = self.next_no.max(no + 1);
        let held = Held { record, map, proven: Bits::None, resident_bytes, charged_bytes, lease: Arc::new(()) };
        self.files.insert(no, held);
    }

    /// Notes that a verified chunk is here now; what it added to the charge.
    pub(super) fn arrived(&mut self, no: u64, map: &ChunkMap, i: u32, by_move: bool) -> u64 {
        let Some(held) = self.files.get_mut(&no) else { return 0 };
        let count = map.count();
        held.proven.insert(i, count);
        if held.record.have.has(i) {
            return 0;
        }
        let added = charge_of_one_more(map, &held.record.have, i);
        let chunk = map.manifest().chunks[i as usize];
        held.record.have.insert(i, count);
        if by_move {
            held.record.prefetched.insert(i, count);
        }
        held.charged_bytes += added;
        held.resident_bytes += u64::from(chunk.length);
        self.used_bytes += added;
        self.resident_bytes += u64::from(chunk.length);
        self.written_bytes += u64::from(chunk.length);
        self.places.insert(chunk.id, Place { no, chunk: i });
        self.dirty.insert(no);
        added
    }

    /// Drops one chunk that was found bad.
    pub(super) fn drop_chunk(&mut self, no: u64, map: &ChunkMap, i: u32) {
        let Some(held) = self.files.get_mut(&no).filter(|h| h.record.have.has(i)) else { return };
        let count = map.count();
        for bits in [&mut held.record.have, &mut held.record.prefetched, &mut held.proven] {
            bits.remove(i, count);
        }
        let length = u64::from(map.manifest().chunks[i as usize].length);
        let charged = charge(map, |i| held.record.have.has(i));
        self.used_bytes -= held.charged_bytes - charged;
        self.resident_bytes -= length;
        held.resident_bytes -= length;
        held.charged_bytes = charged;
        self.dirty.insert(no);
    }

    /// Takes a file out; `map` is its own, where it could be had.
    pub(super) fn remove(&mut self, no: u64, map: Option<&ChunkMap>, now: Timestamp) {
        let Some(held) = self.files.remove(&no) else { return };
        let record = held.record;
        let path = (record.key.volume.clone(), record.key.path.clone());
        if let Some(versions) = self.by_path.get_mut(&path) {
            versions.retain(|v| *v != no);
            if versions.is_empty() {
                self.by_path.remove(&path);
            }
        }
        self.used_bytes -= held.charged_bytes;
        self.resident_bytes -= held.resident_bytes;
        self.map_bytes -= held.map.as_ref().map_or(0, |m| m.weight_bytes());
        self.dirty.remove(&no);
        self.new_manifests.remove(&no);
        let ids: Vec<ChunkId> = map.map(|m| m.manifest().chunks.iter().map(|c| c.id).collect()).unwrap_or_default();
        for id in &ids {
            if self.places.get(id).is_some_and(|p| p.no == no) {
                self.places.remove(id);
            }
        }
        self.gone.push((no, ids));
        if held.resident_bytes > 0 {
            let unread = map.map_or(0, |m| {
                let waste = |i: &u32| record.prefetched.has(*i) && !record.read.has(*i);
                let lengths = (0..m.count()).filter(waste).map(|i| m.manifest().chunks[i as usize].length);
                lengths.map(u64::from).sum()
            });
            self.proof.left_unread(unread);
            self.tell_evicted(Evicted {
                key: record.key,
                at: now,
                bytes: held.resident_bytes,
                unread_prefetched_bytes: unread,
            });
        }
    }

    fn tell_evicted(&mut self, evicted: Evicted) {
        if self.evicted.len() >= EVICTED_LIMIT {
            self.evicted.pop_front();
            self.evicted_lost += 1;
        }
        self.evicted.push_back(evicted);
    }

    pub(super) fn drain_evicted(&mut self) -> Vec<Evicted> {
        self.evicted.drain(..).collect()
    }

    /// Whether the chunk still is where the hint says.
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.files.get(&place.no).is_some_and(|h| place.chunk < h.record.chunks && h.record.have.has(place.chunk))
    }

    /// What a claim is worth now.
    pub(super) fn weighed(&self, claim: Claim) -> Claim {
        if claim == Claim::Guess && self.proof.holds() { Claim::ProvenGuess } else { claim }
    }

    /// Files to take out so that at least `bytes` and `files` of them get free; none if that cannot be.
    /// A little more is taken than asked, so that a full store does not sort its files for each chunk.
    pub(super) fn victims(
        &self,
        policy: &dyn EvictionPolicy,
        claim: Claim,
        now: Timestamp,
        (bytes, files): (u64, usize),
        spare_bytes: u64,
    ) -> Option<Vec<u64>> {
        let claim = self.weighed(claim);
        let mut ranked: Vec<_> = self
            .files
            .iter()
            .filter(|(_, h)| Arc::strong_count(&h.lease) == 1)
            .filter_map(|(no, h)| policy.rank(&self.candidate(*no, h, now), claim, now).map(|r| (r, *no)))
            .collect();
        ranked.sort_unstable();
        let (mut freed, mut chosen) = (0, Vec::new());
        for (rank, no) in ranked {
            let enough = freed >= bytes && chosen.len() >= files;
            if enough && (rank.class >= 3 || freed >= bytes + spare_bytes) {
                break;
            }
            freed += self.files[&no].charged_bytes;
            chosen.push(no);
        }
        (freed >= bytes && chosen.len() >= files).then_some(chosen)
    }

    fn candidate<'a>(&'a self, no: u64, held: &'a Held, now: Timestamp) -> Candidate<'a> {
        let r = &held.record;
        Candidate {
            key: &r.key,
            no,
            superseded: self.newest(&r.key.volume, &r.key.path) != Some(no),
            pinned: self.is_pinned(&r.key, now),
            keep_until: r.keep_until,
            arrived_at: r.arrived_at,
            last_used: r.last_used,
            was_read: r.read != Bits::None,
            bytes: held.charged_bytes,
        }
    }

    pub(super) fn newest(&self, volume: &VolumeId, path: &FilePath) -> Option<u64> {
        self.by_path.get(&(volume.clone(), path.clone())).and_then(|v| v.last().copied())
    }

    /// The newest version of which anything is here, other than this one.
    pub(super) fn former(&self, key: &FileKey) -> Option<u64> {
        let versions = self.by_path.get(&(key.volume.clone(), key.path.clone()))?;
        let is_other = |no: &&u64| self.files[no].record.key.version != key.version;
        versions.iter().rev().filter(is_other).find(|no| self.files[no].resident_bytes > 0).copied()
    }

    /// Sets or lifts the pin of a path and all below it.
    pub(super) fn pin(&mut self, volume: &VolumeId, path: &FilePath, until: Option<Timestamp>, now: Timestamp) {
        self.pins.retain(|p| p.until > now && !(&p.volume == volume && &p.path == path));
        if let Some(until) = until {
            self.pins.push(Pin { volume: volume.clone(), path: path.clone(), until });
        }
    }

    fn is_pinned(&self, key: &FileKey, now: Timestamp) -> bool {
        self.pins.iter().any(|p| p.until > now && p.volume == key.volume && key.path.is_within(&p.path))
    }

    /// Newest version of each file below `path`.
    fn below<'a>(&'a self, volume: &'a VolumeId, path: &'a FilePath) -> impl Iterator<Item = &'a Held> {
        self.by_path
            .range((volume.clone(), path.clone())..)
            .take_while(move |((v, p), _)| v == volume && p.as_bytes().starts_with(path.as_bytes()))
            .filter(move |((_, p), _)| p.is_within(path))
            .filter_map(|(_, versions)| versions.last().map(|no| &self.files[no]))
    }

    /// Counts what is below any of `paths` and wanted, each file once.
    pub(super) fn census(&self, volume: &VolumeId, paths: &[FilePath], wanted: &dyn Fn(&FilePath) -> bool) -> Census {
        let mut census = Census::default();
        for (i, path) in paths.iter().enumerate() {
            let others = &paths[..i];
            let counted = |h: &Held| others.iter().any(|o| h.record.key.path.is_within(o));
            for held in self.below(volume, path).filter(|h| !counted(h) && wanted(&h.record.key.path)) {
                census.files += u64::from(held.is_whole());
                census.bytes += held.resident_bytes;
            }
        }
        census
    }
}

impl Held {
    pub(super) fn is_whole(&self) -> bool {
        self.record.have == Bits::All || self.record.chunks == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DomainKey, manifest_of};
    use foretide_flow::{ChunkRef, FileVersion};
    use proptest::prelude::*;

    fn map_of(lengths: &[u32]) -> ChunkMap {
        let key = DomainKey::default();
        let chunks = lengths.iter().map(|l| ChunkRef { id: key.chunk_id(&l.to_le_bytes()), length: *l }).collect();
        ChunkMap::new(Arc::new(manifest_of(&key, FileVersion("v".into()), chunks)))
    }

    proptest! {
        #[test]
        fn what_more_chunks_add_is_the_difference_of_the_whole_charges(
            lengths in proptest::collection::vec(1u32..20_000, 1..40),
            held in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
            ends: (prop::sample::Index, prop::sample::Index),
        ) {
            let (map, mut have) = (map_of(&lengths), Bits::None);
            held.iter().for_each(|i| have.insert(i.index(lengths.len()) as u32, map.count()));
            let [a, b] = [ends.0, ends.1].map(|end| end.index(lengths.len() + 1) as u32);
            let more = a.min(b)..a.max(b);
            let whole = |i: u32| have.has(i) || more.contains(&i);
            let difference = charge(&map, whole) - charge(&map, |i| have.has(i));
            prop_assert_eq!(charge_of_more(&map, &have, &more), difference);
        }

        #[test]
        fn the_charge_adds_up_in_any_order(
            lengths in proptest::collection::vec(1u32..20_000, 1..20),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let map = map_of(&lengths);
            let (mut have, mut sum) = (Bits::None, 0);
            // With chunks shorter than a block three can meet in one; the sum may then count a block less, never more.
            let tiny = lengths.iter().any(|l| u64::from(*l) < BLOCK_BYTES);
            for i in order {
                let i = i.index(lengths.len()) as u32;
                if !have.has(i) {
                    sum += charge_of_one_more(&map, &have, i);
                    have.insert(i, map.count());
                }
                let whole = charge(&map, |i| have.has(i));
                prop_assert!(sum == whole || tiny, "{} {}", sum, whole);
            }
        }
    }
}
