//! What is on its way: so that two who want the same bytes cause one fetch.
//!
//! A [`Flight`] brings one byte range of one file. Who wants bytes looks here under one lock: what flights cover he
//! waits for, the rest becomes flights of his own. A move waits, too, for chunks that a flight brings in another file, and
//! copies them from there; a reader does not, for whom a flight of his own is sooner there than somebody else's.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use foretide_chunk::ChunkMap;
use foretide_flow::{ChunkId, FilePath, FileVersion, Priority, VolumeId};
use tokio::sync::{Notify, watch};

use crate::TransferError;
use crate::client::Handle;

/// One fetch in progress.
#[derive(Debug)]
pub(super) struct Flight {
    /// Bytes that it brings; its end may lie beyond the file's.
    pub(super) range: Range<u64>,
    priority: Priority,
    /// Which version: known from the start, or from the source's answer.
    version: OnceLock<FileVersion>,
    pub(super) map: OnceLock<Arc<ChunkMap>>,
    /// What the file begins with, where the source told that before it knew the whole.
    pub(super) beginning: OnceLock<Arc<ChunkMap>>,
    /// Bytes that the store cannot take (yet), by offset, whole chunks: handed to who waits for them (promise A).
    held: Mutex<BTreeMap<u64, Bytes>>,
    /// How far it is.
    progress: watch::Sender<Progress>,
    handle: Mutex<Option<Handle>>,
    pub(super) is_raised: AtomicBool,
    /// Wakes who keeps back what has come of it.
    pub(super) raised: Notify,
    /// It need not wait for room in the window.
    pub(super) let_go: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Bytes up to here (from the flight's start) have come.
    pub(super) upto: u64,
    pub(super) done: Option<Result<(), TransferError>>,
}

impl Flight {
    pub(super) fn new(
        range: Range<u64>,
        priority: Priority,
        version: Option<FileVersion>,
        map: Option<Arc<ChunkMap>>,
    ) -> Arc<Self> {
        let progress = Progress { upto: range.start, done: None };
        let flight = Self {
            range,
            priority,
            version: OnceLock::new(),
            map: OnceLock::new(),
            beginning: OnceLock::new(),
            held: Mutex::default(),
            progress: watch::channel(progress).0,
            handle: Mutex::default(),
            is_raised: AtomicBool::new(false),
            raised: Notify::new(),
            let_go: Notify::new(),
        };
        if let Some(v) = version {
            flight.set_version(v);
        }
        if let Some(m) = map {
            let _ = flight.map.set(m);
        }
        Arc::new(flight)
    }

    pub(super) fn set_version(&self, version: FileVersion) {
        let _ = self.version.set(version);
    }

    /// Which version it brings, if that is known.
    pub(super) fn version(&self) -> Option<&FileVersion> {
        self.version.get()
    }

    /// Whether it may bring this version.
    fn fits(&self, version: Option<&FileVersion>) -> bool {
        match (self.version.get(), version) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }

    /// Bytes that come with it: chunks travel whole, so once they are known it reaches to the borders of the outermost.
    fn covers(&self) -> Range<u64> {
        let Some(map) = self.known() else { return self.range.clone() };
        let chunks = map.covering(&self.range);
        if chunks.is_empty() {
            return self.range.clone();
        }
        map.range(chunks.start).start..map.range(chunks.end - 1).end.max(self.range.end)
    }

    /// What is known of what the file consists of: all of it, or its beginning.
    pub(super) fn known(&self) -> Option<&Arc<ChunkMap>> {
        self.map.get().or(self.beginning.get())
    }

    pub(super) fn hold(&self, offset: u64, bytes: Bytes) {
        self.held().insert(offset, bytes);
    }

    /// What is held from `offset` to the end of its chunk.
    pub(super) fn held_at(&self, offset: u64) -> Option<Bytes> {
        let held = self.held();
        let (start, chunk) = held.range(..=offset).next_back()?;
        let from = usize::try_from(offset - start).ok()?;
        (from < chunk.len()).then(|| chunk.slice(from..))
    }

    pub(super) fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Bytes>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn came(&self, upto: u64) {
        self.progress.send_modify(|p| p.upto = p.upto.max(upto));
    }

    /// What the file consists of, once that is known; none if it was over before.
    pub(super) async fn mapped(&self) -> Option<Arc<ChunkMap>> {
        let mut progress = self.progress.subscribe();
        // An error says that it is over.
        let _ = progress.wait_for(|p| self.map.get().is_some() || p.done.is_some()).await;
        self.map.get().cloned()
    }

    fn finish(&self, result: Result<(), TransferError>) {
        self.progress.send_modify(|p| {
            if p.done.is_none() {
                p.done = Some(result);
            }
        });
    }

    /// Waits until bytes up to `end` have come, or it is over; its error, if it has one.
    pub(super) async fn wait(&self, end: u64) -> Result<(), TransferError> {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|p| p.upto >= end || p.done.is_some()).await;
        match seen {
            Ok(p) => p.done.clone().unwrap_or(Ok(())),
            Err(_) => Err(TransferError::Cancelled),
        }
    }

    fn is_asked(&self) -> bool {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The request that serves it now.
    pub(super) fn served_by(&self, handle: &Handle) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
        if self.is_raised.load(Ordering::Acquire) {
            handle.raise();
        }
    }

    /// Another agent's move waits for it: that one's window bounds it, and two that wait for each other's would wait for ever.
    pub(super) fn let_go(&self) {
        self.let_go.notify_one();
    }

    /// Somebody waits for it now.
    pub(super) fn raise(&self) {
        if self.is_raised.swap(true, Ordering::AcqRel) {
            return;
        }
        self.let_go();
        self.raised.notify_one();
        if let Some(handle) = &*self.handle.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.raise();
        }
    }
}

type File = (VolumeId, FilePath);

/// All flights.
#[derive(Debug, Default)]
pub(super) struct Flights {
    table: Mutex<HashMap<File, Vec<Arc<Flight>>>>,
}

/// A registered flight: taken off the table when dropped, and whoever still waits for it is told.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) flight: Arc<Flight>,
    file: File,
    flights: Arc<Flights>,
}

impl Registered {
    pub(super) fn finish(self, result: Result<(), TransferError>) {
        // Off the table first: who is told must not find it there again.
        self.flights.remove(&self.file, &self.flight);
        self.flight.finish(result);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.flights.remove(&self.file, &self.flight);
        self.flight.finish(Err(TransferError::Cancelled));
    }
}

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) file: (&'a VolumeId, &'a FilePath),
    pub(super) version: Option<&'a FileVersion>,
    pub(super) map: Option<&'a Arc<ChunkMap>>,
    pub(super) gaps: &'a [Range<u64>],
    pub(super) join: Join,
    pub(super) priority: Priority,
}

/// Which flights one may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Nobody,
    SameFile,
    /// Those that bring the same chunks in other files, too, if they are at least as urgent.
    SameChunks,
}

/// What is wanted, told apart. What is neither on its way in this file nor to be fetched comes again in it, or in other
/// files that are joined: it is copied when that is here.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// On its way.
    pub(super) joined: Vec<Arc<Flight>>,
    /// To be fetched, registered.
    pub(super) own: Vec<Registered>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<File, Vec<Arc<Flight>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, file: &File, flight: &Arc<Flight>) {
        let mut table = self.lock();
        if let Some(list) = table.get_mut(file) {
            list.retain(|f| !Arc::ptr_eq(f, flight));
            if list.is_empty() {
                table.remove(file);
            }
        }
    }

    /// Joins what brings the gaps and registers flights for the rest, cut by `cut` (into requests of a good size).
    pub(super) fn split(self: &Arc<Self>, wish: &Wish<'_>, cut: impl Fn(Range<u64>) -> Vec<Range<u64>>) -> Split {
        let file = (wish.file.0.clone(), wish.file.1.clone());
        let mut table = self.lock();
        let mut split = Split::default();
        let gaps = match wish.map {
            Some(map) if wish.join == Join::SameChunks => told_apart(&table, &file, wish, map, &mut split.joined),
            _ => wish.gaps.to_vec(),
        };
        let list = table.entry(file.clone()).or_default();
        for gap in gaps {
            let mut rest = vec![gap];
            for flight in list.iter().filter(|f| wish.join != Join::Nobody && f.fits(wish.version)) {
                let covers = flight.covers();
                let before = rest.len() as u64 + rest.iter().map(|r| r.end - r.start).sum::<u64>();
                rest = rest.iter().flat_map(|r| without(r, &covers)).collect();
                let after = rest.len() as u64 + rest.iter().map(|r| r.end - r.start).sum::<u64>();
                if before != after && !split.joined.iter().any(|f| Arc::ptr_eq(f, flight)) {
                    split.joined.push(flight.clone());
                }
            }
            for range in rest.into_iter().flat_map(&cut) {
                let flight = Flight::new(range, wish.priority, wish.version.cloned(), wish.map.cloned());
                split.own.push(Registered { flight, file: file.clone(), flights: self.clone() });
            }
        }
        list.extend(split.own.iter().map(|r| r.flight.clone()));
        if list.is_empty() {
            table.remove(&file);
        }
        split
    }

    /// Waits until it is known which chunks those flights of other files bring that have been asked for: a round trip.
    pub(super) async fn known_of_others(&self, file: (&VolumeId, &FilePath)) {
        let others: Vec<Arc<Flight>> = {
            let table = self.lock();
            let others = table.iter().filter(|((volume, path), _)| (volume, path) != file);
            others.flat_map(|(_, list)| list).filter(|f| f.map.get().is_none() && f.is_asked()).cloned().collect()
        };
        for flight in others {
            flight.mapped().await;
        }
    }
}

/// The gaps without the chunks that flights of other files bring, which are joined, and without those that come a second
/// time in the gaps themselves.
fn told_apart(
    table: &HashMap<File, Vec<Arc<Flight>>>,
    file: &File,
    wish: &Wish<'_>,
    map: &ChunkMap,
    joined: &mut Vec<Arc<Flight>>,
) -> Vec<Range<u64>> {
    // Which place of a chunk is fetched: the first one.
    let mut fetched: HashMap<ChunkId, u32> = HashMap::new();
    for i in wish.gaps.iter().flat_map(|gap| map.covering(gap)) {
        fetched.entry(map.manifest().chunks[i as usize].id).or_insert(i);
    }
    let others = table.iter().filter(|(other, _)| *other != file).flat_map(|(_, list)| list);
    for flight in others.filter(|f| f.priority <= wish.priority) {
        let Some(brings) = flight.map.get() else { continue };
        let before = fetched.len();
        for i in brings.covering(&flight.range) {
            fetched.remove(&brings.manifest().chunks[i as usize].id);
        }
        if fetched.len() < before {
            joined.push(flight.clone());
        }
    }
    let mut left: Vec<Range<u64>> = Vec::new();
    for gap in wish.gaps {
        for i in map.covering(gap).filter(|i| fetched.get(&map.manifest().chunks[*i as usize].id) == Some(i)) {
            let chunk = map.range(i);
            let part = chunk.start.max(gap.start)..chunk.end.min(gap.end);
            match left.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => left.push(part),
            }
        }
    }
    left
}

/// `a` without `b`: none, one or two ranges.
fn without(a: &Range<u64>, b: &Range<u64>) -> Vec<Range<u64>> {
    let parts = [a.start..a.end.min(b.start), a.start.max(b.end)..a.end];
    parts.into_iter().filter(|r| r.start < r.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_chunk::{DomainKey, manifest_of};
    use foretide_flow::{ChunkId, ChunkRef};
    use proptest::prelude::*;

    fn split(flights: &Arc<Flights>, gaps: &[Range<u64>], version: &str) -> Split {
        let (volume, path) = (VolumeId::new("v").unwrap(), FilePath::root());
        let version = FileVersion(version.into());
        let (join, priority) = (Join::SameFile, Priority::Background);
        let wish = Wish { file: (&volume, &path), version: Some(&version), map: None, gaps, join, priority };
        flights.split(&wish, |r| vec![r])
    }

    #[test]
    fn who_comes_second_joins_and_fetches_only_the_rest() {
        let flights = Arc::new(Flights::default());
        let first = split(&flights, std::slice::from_ref(&(0..100)), "1");
        assert_eq!((first.own.len(), first.joined.len()), (1, 0));
        let second = split(&flights, std::slice::from_ref(&(50..150)), "1");
        assert_eq!((second.own[0].flight.range.clone(), second.joined.len()), (100..150, 1));
        assert_eq!(split(&flights, std::slice::from_ref(&(0..150)), "1").own.len(), 0);
        assert_eq!(split(&flights, std::slice::from_ref(&(0..150)), "2").joined.len(), 0);
        drop((first, second));
        assert_eq!(split(&flights, std::slice::from_ref(&(0..150)), "1").joined.len(), 0);
    }

    fn map_of(version: &str, chunks: &[u8]) -> Arc<ChunkMap> {
        let chunks = chunks.iter().map(|id| ChunkRef { id: ChunkId([*id; 32]), length: 10 }).collect();
        Arc::new(ChunkMap::new(Arc::new(manifest_of(&DomainKey::default(), FileVersion(version.into()), chunks))))
    }

    #[test]
    fn a_move_waits_for_chunks_that_come_in_other_files_and_a_reader_does_not() {
        let flights = Arc::new(Flights::default());
        let volume = VolumeId::new("v").unwrap();
        let split = |name: &str, map: &Arc<ChunkMap>, gap: Range<u64>, join, priority| {
            let path = FilePath::parse(name).unwrap();
            let (file, gaps) = ((&volume, &path), [gap]);
            let version = Some(&map.manifest().version);
            flights.split(&Wish { file, version, map: Some(map), gaps: &gaps, join, priority }, |r| vec![r])
        };
        let ranges =
            |split: &Split| split.own.iter().map(|r| (r.flight.range.start, r.flight.range.end)).collect::<Vec<_>>();
        use Priority::{Background, Deadline};
        let (one, other) = (map_of("1", &[1, 2, 3]), map_of("2", &[9, 2, 3, 8, 9]));
        let first = split("one", &one, 0..20, Join::SameChunks, Background);
        let second = split("other", &other, 0..50, Join::SameChunks, Background);
        assert_eq!(ranges(&second), [(0, 10), (20, 40)], "2 is on its way, and 9 comes once");
        assert!(second.joined.len() == 1 && Arc::ptr_eq(&second.joined[0], &first.own[0].flight));
        drop(second);
        let reader = split("other", &other, 0..50, Join::SameFile, Background);
        assert_eq!((ranges(&reader), reader.joined.len()), (vec![(0, 50)], 0));
        drop(reader);
        let urgent = split("other", &other, 5..45, Join::SameChunks, Deadline);
        assert_eq!((ranges(&urgent), urgent.joined.len()), (vec![(5, 40)], 0), "what is less urgent is not waited for");
        drop((first, urgent));
        assert_eq!(ranges(&split("other", &other, 5..25, Join::SameChunks, Deadline)), [(5, 25)]);
    }

    /// Found by counting bytes: the chunk at the end of a large file's first part was fetched twice.
    #[test]
    fn a_chunk_that_a_flight_ends_in_comes_with_it() {
        let flights = Arc::new(Flights::default());
        let first = split(&flights, std::slice::from_ref(&(0..15)), "1").own.pop().unwrap();
        let chunks = [10, 10, 10].map(|length| ChunkRef { id: ChunkId([0; 32]), length }).to_vec();
        let manifest = manifest_of(&DomainKey::default(), FileVersion("1".into()), chunks);
        let _ = first.flight.map.set(Arc::new(ChunkMap::new(Arc::new(manifest))));
        let rest = split(&flights, std::slice::from_ref(&(0..30)), "1");
        assert_eq!((rest.own.len(), rest.own[0].flight.range.clone(), rest.joined.len()), (1, 20..30, 1));
    }

    #[tokio::test]
    async fn who_waits_for_a_flight_that_is_given_up_is_told() {
        let flights = Arc::new(Flights::default());
        let own = split(&flights, std::slice::from_ref(&(0..100)), "1").own.pop().unwrap();
        let flight = own.flight.clone();
        flight.came(40);
        assert!(flight.wait(40).await.is_ok());
        drop(own);
        assert!(matches!(flight.wait(100).await, Err(TransferError::Cancelled)));
    }

    proptest! {
        #[test]
        fn nothing_is_fetched_twice_and_nothing_forgotten(wants in prop::collection::vec((0u64..100, 1u64..50), 1..8)) {
            let flights = Arc::new(Flights::default());
            let mut fetched = [0u8; 200];
            let mut kept = Vec::new();
            for (start, len) in &wants {
                let own = split(&flights, std::slice::from_ref(&(*start..start + len)), "1").own;
                for r in &own {
                    fetched[r.flight.range.start as usize..r.flight.range.end as usize].iter_mut().for_each(|n| *n += 1);
                }
                kept.push(own);
            }
            for i in 0..200u64 {
                let wanted = wants.iter().any(|(s, l)| (*s..s + l).contains(&i));
                prop_assert_eq!(fetched[i as usize], u8::from(wanted));
            }
        }
    }
}
