//! A volume's files as chunks: cut once, remembered as manifests, read again when asked.
//!
//! A file's version is taken before and after it is read; only if both are the same was it one version, and
//! only that is served (never torn). A file that changed within the clock's tick is waited for first: a second change
//! in the same tick would not show.
//!
//! Chunks are cut from the front, so those of a file's beginning are known, for good, long before a large file's last one.
//! Who wants bytes soon is told the manifest of a beginning that holds them (never torn either: its bytes are read, and the
//! file's version looked at again, after it was cut).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, Cutter, DomainKey, manifest_of};
use foretide_flow::{ChunkRef, FilePath, FileVersion, ManifestId, Timestamp, VolumeId};
use tokio::sync::watch;

use super::sharing::Sharing;
use crate::buffer::Buffer;
use crate::source::{Source, SourceFile, Stamp};

/// Kernels stamp files with a clock that ticks at least every 10 ms; twice that, in microseconds.
const TICK_US: i64 = 20_000;
/// A file that changes while it is cut is cut again so often; then it is being written, and the asker is told.
const ATTEMPTS: usize = 4;
/// Files up to this size are read once, cut and sent from memory: bytes.
pub(crate) const IN_MEMORY_BYTES: u64 = 1 << 20;
/// A file shorter than this is cut in some 30 ms: nobody is told its beginning alone.
const LONG_BYTES: u64 = 64 << 20;
/// A beginning is at most so long: its manifest has 600 KB, which is 5 ms of 1 Gbit/s.
const BEGINNING_BYTES: u64 = 1 << 30;
/// Who waits for a beginning is woken so often, bytes.
const WAKE_BYTES: u64 = 1 << 20;

/// Why a file could not be served.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is not the version that was asked for.
    Changed,
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A file, cut; with its bytes if it was small.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) map: Arc<ChunkMap>,
    pub(crate) bytes: Option<Bytes>,
    /// Whether the map is of the file's beginning alone.
    pub(crate) is_beginning: bool,
}

/// A file that is being cut: who asks for it meanwhile waits instead of cutting it too.
#[derive(Debug, Default)]
struct Cutting {
    turn: Mutex<()>,
    progress: watch::Sender<Option<Progress>>,
}

/// What is known of a file that is being cut.
#[derive(Debug)]
struct Progress {
    stamp: Stamp,
    chunks: Vec<ChunkRef>,
    bytes: u64,
}

impl Progress {
    /// Takes the next chunk; answers whether those who wait should look.
    fn add(&mut self, chunk: ChunkRef) -> bool {
        let before = self.bytes;
        self.chunks.push(chunk);
        self.bytes += u64::from(chunk.length);
        before / WAKE_BYTES != self.bytes / WAKE_BYTES
    }

    fn holds_beginning(&self, version: &FileVersion, end: u64) -> bool {
        self.stamp.version == *version && self.stamp.size >= LONG_BYTES && end <= self.bytes.min(BEGINNING_BYTES)
    }

    /// The chunks that begin before `end`.
    fn beginning(&self, end: u64) -> Vec<ChunkRef> {
        let starts = self.chunks.iter().scan(0, |next, chunk| {
            let start = *next;
            *next += u64::from(chunk.length);
            Some(start)
        });
        self.chunks[..starts.take_while(|start| *start < end).count()].to_vec()
    }
}

/// Somebody's hold on a file that is being cut; with the last one it is forgotten.
pub(crate) struct Hold<'a> {
    volume: &'a Volume,
    path: &'a FilePath,
    cutting: Arc<Cutting>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut cutting = self.volume.cutting();
        // Here and in the table.
        if Arc::strong_count(&self.cutting) == 2 {
            cutting.remove(self.path);
        }
    }
}

impl Hold<'_> {
    /// The beginning of this version up to `end`, when it has been cut that far; never, if that is not so: the file is not
    /// long, has another version by now, or `end` lies far inside.
    pub(crate) async fn beginning(&self, version: &FileVersion, end: u64) -> Cut {
        let mut progress = self.cutting.progress.subscribe();
        let known = progress.wait_for(|p| p.as_ref().is_some_and(|p| p.holds_beginning(version, end))).await;
        let chunks = known.ok().and_then(|p| p.as_ref().map(|p| p.beginning(end)));
        let Some(chunks) = chunks else { return std::future::pending().await };
        let map = ChunkMap::new(Arc::new(manifest_of(self.volume.key(), version.clone(), chunks)));
        Cut { map: Arc::new(map), bytes: None, is_beginning: true }
    }
}

pub(crate) struct Volume {
    name: VolumeId,
    source: Box<dyn Source>,
    cutter: Arc<Cutter>,
    manifests: Mutex<Manifests>,
    /// Is told of every manifest that is remembered or forgotten, while those are locked.
    sharing: Arc<Sharing>,
    cutting: Mutex<HashMap<FilePath, Arc<Cutting>>>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Volume")
    }
}

/// Manifests of the files asked for last, up to a size.
#[derive(Debug)]
struct Manifests {
    kept: HashMap<FilePath, Versions>,
    order: VecDeque<FilePath>,
    chunks: usize,
    max_chunks: usize,
}

/// A file as it is and as it was: whoever has the older version is told the difference.
#[derive(Debug)]
struct Versions {
    current: Arc<ChunkMap>,
    former: Option<Arc<ChunkMap>>,
}

impl Versions {
    fn chunks(&self) -> usize {
        let of = |m: &Arc<ChunkMap>| m.count() as usize + 1;
        of(&self.current) + self.former.as_ref().map_or(0, of)
    }
}

impl Manifests {
    /// Answers which files are no longer remembered.
    fn keep(&mut self, path: &FilePath, map: &Arc<ChunkMap>) -> Vec<FilePath> {
        let former = match self.kept.remove(path) {
            Some(old) => {
                self.chunks -= old.chunks();
                // Cut again without a change, it is no further version.
                if old.current.manifest().id == map.manifest().id { old.former } else { Some(old.current) }
            }
            None => {
                self.order.push_back(path.clone());
                None
            }
        };
        let versions = Versions { current: map.clone(), former };
        self.chunks += versions.chunks();
        self.kept.insert(path.clone(), versions);
        let mut gone = Vec::new();
        while self.chunks > self.max_chunks && self.order.len() > 1 {
            let Some(path) = self.order.pop_front() else { break };
            self.chunks -= self.kept.remove(&path).map_or(0, |old| old.chunks());
            gone.push(path);
        }
        gone
    }
}

impl Volume {
    pub(crate) fn new(
        name: VolumeId,
        source: Box<dyn Source>,
        cutter: Arc<Cutter>,
        max_chunks: usize,
        sharing: Arc<Sharing>,
    ) -> Self {
        let manifests = Manifests { kept: HashMap::new(), order: VecDeque::new(), chunks: 0, max_chunks };
        Self { name, source, cutter, manifests: Mutex::new(manifests), sharing, cutting: Mutex::default() }
    }

    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn manifests(&self) -> MutexGuard<'_, Manifests> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cutting(&self) -> MutexGuard<'_, HashMap<FilePath, Arc<Cutting>>> {
        self.cutting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, path: &FilePath) -> Option<Arc<ChunkMap>> {
        self.manifests().kept.get(path).map(|v| v.current.clone())
    }

    /// A manifest of the file, if it is remembered.
    pub(crate) fn remembered(&self, path: &FilePath, id: ManifestId) -> Option<Arc<ChunkMap>> {
        let manifests = self.manifests();
        let versions = manifests.kept.get(path)?;
        [Some(&versions.current), versions.former.as_ref()]
            .into_iter()
            .flatten()
            .find(|m| m.manifest().id == id)
            .cloned()
    }

    /// What the chunks of this domain are named with.
    pub(crate) fn key(&self) -> &DomainKey {
        self.cutter.key()
    }

    /// The file's manifest as it is now: remembered, or cut, unless `recut` says that what is remembered is wrong.
    /// Small files come with their bytes if those were read, or if they are wanted.
    pub(crate) fn cut(&self, path: &FilePath, recut: bool, with_bytes: bool) -> Result<Cut, ReadError> {
        let hold = self.hold(path);
        let _turn = hold.cutting.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut_alone(path, recut, with_bytes, &hold.cutting.progress)
    }

    /// A hold on a file that is to be cut.
    pub(crate) fn hold<'a>(&'a self, path: &'a FilePath) -> Hold<'a> {
        Hold { volume: self, path, cutting: self.cutting().entry(path.clone()).or_default().clone() }
    }

    fn cut_alone(
        &self,
        path: &FilePath,
        recut: bool,
        with_bytes: bool,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<Cut, ReadError> {
        for _ in 0..ATTEMPTS {
            let file = self.source.open(path)?;
            let before = settled(&*file)?;
            let known = self.known(path).filter(|m| !recut && m.manifest().version == before.version);
            if let Some(map) = known.as_ref().filter(|_| !(with_bytes && before.size <= IN_MEMORY_BYTES)) {
                return Ok(Cut { map: map.clone(), bytes: None, is_beginning: false });
            }
            let (bytes, chunks) = match self.read_and_cut(&*file, &before, known.is_none(), progress) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue, // shorter than it was: changed
                read => read?,
            };
            if file.stamp()? == before {
                let map = known.unwrap_or_else(|| self.keep(path, before.version, chunks));
                return Ok(Cut { map, bytes, is_beginning: false });
            }
        }
        Err(ReadError::Io(io::Error::new(io::ErrorKind::ResourceBusy, "it changes faster than it can be read")))
    }

    fn keep(&self, path: &FilePath, version: FileVersion, chunks: Vec<ChunkRef>) -> Arc<ChunkMap> {
        let map = Arc::new(ChunkMap::new(Arc::new(manifest_of(self.cutter.key(), version, chunks))));
        let mut manifests = self.manifests();
        for forgotten in manifests.keep(path, &map) {
            self.sharing.forgotten(&self.name, &forgotten);
        }
        self.sharing.cut(&self.name, path, &map);
        map
    }

    /// The bytes of a small file; its chunks, if they are wanted.
    fn read_and_cut(
        &self,
        file: &dyn SourceFile,
        stamp: &Stamp,
        cut: bool,
        progress: &watch::Sender<Option<Progress>>,
    ) -> io::Result<(Option<Bytes>, Vec<ChunkRef>)> {
        if stamp.size > IN_MEMORY_BYTES {
            progress.send_replace(Some(Progress { stamp: stamp.clone(), chunks: Vec::new(), bytes: 0 }));
            let add = |chunk| {
                progress.send_if_modified(|p| p.as_mut().is_some_and(|p| p.add(chunk)));
            };
            let cut = self.cutter.cut_with(stamp.size, |bytes, at| file.read_exact_at(bytes, at), add);
            let known = progress.send_replace(None);
            return cut.map(|()| (None, known.map(|p| p.chunks).unwrap_or_default()));
        }
        let mut bytes = Buffer::new(stamp.size as usize);
        file.read_exact_at(&mut bytes, 0)?;
        let chunks = if cut { self.cutter.cut(&bytes) } else { Vec::new() };
        Ok((Some(bytes.freeze()), chunks))
    }

    /// Ranges of one version, as they are in the file.
    pub(crate) fn read(&self, path: &FilePath, map: &ChunkMap, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ReadError> {
        let file = self.source.open(path)?;
        if file.stamp()?.version != map.manifest().version {
            return Err(ReadError::Changed);
        }
        let read = |range: &Range<u64>| {
            let mut bytes = Buffer::new((range.end - range.start) as usize);
            match file.read_exact_at(&mut bytes, range.start) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
                done => Ok(done.map(|()| bytes.freeze())?),
            }
        };
        let read = ranges.iter().map(read).collect::<Result<_, _>>()?;
        if file.stamp()?.version != map.manifest().version {
            return Err(ReadError::Changed);
        }
        Ok(read)
    }
}

/// The stamp, once a further change would show in it.
fn settled(file: &dyn SourceFile) -> io::Result<Stamp> {
    let stamp = file.stamp()?;
    let age_us = Timestamp::now().0 - stamp.changed_at.0;
    // A time in the future is another machine's clock: nothing to wait for.
    if !(0..TICK_US).contains(&age_us) {
        return Ok(stamp);
    }
    std::thread::sleep(Duration::from_micros((TICK_US - age_us) as u64));
    file.stamp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_chunk::{CutConfig, DomainKey};
    use foretide_flow::Entry;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A file whose content and version change during the first reads.
    struct Restless {
        reads: Arc<AtomicU64>,
        calm_after: u64,
    }

    impl Restless {
        fn generation(&self) -> u64 {
            self.reads.load(Ordering::SeqCst).min(self.calm_after)
        }
    }

    impl Source for Restless {
        fn list(&self, _: &FilePath) -> io::Result<Vec<Entry>> {
            Ok(Vec::new())
        }
        fn stat(&self, _: &FilePath) -> io::Result<Entry> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn open(&self, _: &FilePath) -> io::Result<Box<dyn SourceFile>> {
            Ok(Box::new(Self { reads: self.reads.clone(), calm_after: self.calm_after }))
        }
    }

    impl SourceFile for Restless {
        fn stamp(&self) -> io::Result<Stamp> {
            let version = FileVersion(self.generation().to_string().into());
            Ok(Stamp { version, size: 3 << 20, changed_at: Timestamp(0) })
        }
        fn read_exact_at(&self, bytes: &mut [u8], _: u64) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            bytes.fill(self.generation() as u8);
            Ok(())
        }
    }

    fn volume(calm_after: u64) -> (Volume, Arc<AtomicU64>) {
        let cutter = Arc::new(Cutter::new(CutConfig::default(), DomainKey::default()).unwrap());
        let reads = Arc::new(AtomicU64::new(0));
        let (name, source) = (VolumeId::new("v").unwrap(), Restless { reads: reads.clone(), calm_after });
        (Volume::new(name, Box::new(source), cutter, 1000, Arc::default()), reads)
    }

    #[test]
    fn promise_d_a_file_that_changes_while_it_is_cut_is_cut_again_and_never_torn() {
        let (volume, _) = volume(4);
        let map = volume.cut(&FilePath::root(), false, false).unwrap().map;
        assert_eq!(map.manifest().version.0.as_ref(), "4");
        let key = DomainKey::default();
        for (i, chunk) in map.manifest().chunks.iter().enumerate() {
            assert_eq!(chunk.id, key.chunk_id(&vec![4; chunk.length as usize]), "chunk {i}");
        }
    }

    #[test]
    fn a_file_that_never_rests_is_an_error_not_a_loop() {
        let (volume, _) = volume(u64::MAX);
        let Err(ReadError::Io(e)) = volume.cut(&FilePath::root(), false, false) else { panic!("torn file served") };
        assert!(e.to_string().contains("changes faster"), "{e}");
    }

    #[test]
    fn bytes_are_hashed_once_and_a_changed_file_is_not_read_as_the_old_one() {
        let (volume, reads) = volume(4);
        let map = volume.cut(&FilePath::root(), false, false).unwrap().map;
        let after = reads.load(Ordering::SeqCst);
        volume.cut(&FilePath::root(), false, false).unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), after);
        volume.cut(&FilePath::root(), true, false).unwrap();
        assert!(reads.load(Ordering::SeqCst) > after);
        reads.store(0, Ordering::SeqCst);
        let read = volume.read(&FilePath::root(), &map, std::slice::from_ref(&(0..9)));
        assert!(matches!(read, Err(ReadError::Changed)));
    }
}
