//! Answering one request.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foretide_chunk::encoding::EncodingError;
use foretide_chunk::{ChunkMap, Signature, delta, encode_difference, encode_manifest};
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, ManifestId, Priority, VolumeId};
use tokio::sync::{Notify, Semaphore};

use super::content::Content;
use super::queue::{OutQueue, part_of};
use super::volume::{Cut, ReadError, Volume};
use super::watch::Told;
use super::{Counts, Peer, Shared};
use crate::frame::{DATA_BYTES, Frame, Kind};
use crate::message::{Change, Failure, ReadRequest, Request, Want, put_below, put_change, put_entry};
use crate::pack;
use crate::source::Source;

/// Entries of a listing are told in parts of about this size, bytes.
const LISTING_PART_BYTES: usize = 128 << 10;
/// Between two records of changes: a file that is being written changes all the time.
const TELL_INTERVAL: Duration = Duration::from_millis(20);
/// Meaningless bytes go in frames of this size, so that anything of meaning soon gets in between.
const PAD_BYTES: usize = 64 << 10;

/// A request's priority: it can be raised while it is being answered.
#[derive(Debug)]
pub(super) struct Urgency {
    priority: AtomicU8,
    raised: Notify,
}

impl Urgency {
    pub(super) fn new(priority: Priority) -> Arc<Self> {
        Arc::new(Self { priority: AtomicU8::new(priority as u8), raised: Notify::new() })
    }

    pub(super) fn now(&self) -> Priority {
        match self.priority.load(Ordering::Relaxed) {
            0 => Priority::Demand,
            1 => Priority::Deadline,
            _ => Priority::Background,
        }
    }

    pub(super) fn raise(&self) {
        self.priority.store(Priority::Demand as u8, Ordering::Relaxed);
        self.raised.notify_one();
    }

    /// Waits until somebody raises it.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }
}

/// One request being answered.
pub(super) struct Answer {
    pub(super) id: u32,
    pub(super) urgency: Arc<Urgency>,
    pub(super) queue: Arc<OutQueue>,
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
}

impl From<ReadError> for Failure {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Changed => Self::Changed,
            ReadError::Io(e) => e.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::Denied(e.to_string()),
            _ => Self::Other(e.to_string()),
        }
    }
}

impl Answer {
    /// Answers, with an error if it must be.
    pub(super) async fn give(self, request: Request) {
        let given = match request {
            Request::List { volume, directory, names_below } => self.list(volume, directory, names_below).await,
            Request::Stat { volume, path } => match self.volume(&volume) {
                Ok(volume) => self.stat(volume, path).await,
                Err(e) => Err(e),
            },
            Request::Read(read) => self.read(read).await,
            Request::Warm { bytes } => self.warm(bytes as usize).await,
            Request::Watch => self.watch().await,
        };
        if let Err(failure) = given {
            self.send(Kind::Failed, 0, failure.encode());
        }
    }

    fn volume(&self, name: &VolumeId) -> Result<Arc<Volume>, Failure> {
        self.shared.volume(name).ok_or(Failure::NoVolume)
    }

    fn send(&self, kind: Kind, argument: u32, payload: impl Into<Bytes>) {
        self.queue.push_of(&self.urgency, Frame::new(kind, self.id, payload).with_argument(argument), None);
    }

    /// Runs something that blocks; what can wait shares a bounded number of threads, a demand does not queue behind
    /// it.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let readers: &Arc<Semaphore> = &self.shared.readers;
        let _permit = match self.urgency.now() {
            Priority::Demand => None,
            _ => tokio::select! {
                permit = readers.clone().acquire_owned() => permit.ok(),
                () = self.urgency.raised() => None,
            },
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Other("the agent is stopping".into()))
    }

    async fn list(&self, name: VolumeId, directory: FilePath, names_below: u32) -> Result<(), Failure> {
        let (volume, shared, peer) = (self.volume(&name)?, self.shared.clone(), self.peer.clone());
        let look = move || {
            // First the watch, then the look: no change falls between.
            let hold = |directory: &FilePath| {
                let watches = shared.watches.as_ref();
                watches.map_or(0, |w| w.hold(&peer.identity.node, &name, volume.source(), directory))
            };
            let watch = hold(&directory);
            let entries = volume.source().list(&directory)?;
            let below = records_below(volume.source(), &entries, names_below as usize, hold);
            Ok::<_, io::Error>((watch, entries, below))
        };
        let (watch, entries, below) = self.blocking(look).await??;
        let mut part = Vec::new();
        for entry in &entries {
            put_entry(&mut part, entry);
            if part.len() >= LISTING_PART_BYTES {
                let room = self.queue.room(self.urgency.now(), part.len()).await;
                let payload = std::mem::take(&mut part);
                self.queue.push_of(&self.urgency, Frame::new(Kind::Listing, self.id, payload), Some(room));
            }
        }
        self.send(Kind::Listing, 0, part);
        for record in below {
            let room = self.queue.room(self.urgency.now(), record.len()).await;
            self.queue.push_of(&self.urgency, Frame::new(Kind::Below, self.id, record), Some(room));
        }
        self.send(Kind::End, watch, Bytes::new());
        Ok(())
    }

    /// Tells what changes until the peer hangs up or the watch ends.
    async fn watch(&self) -> Result<(), Failure> {
        let Some(watches) = &self.shared.watches else {
            return Err(Failure::Other("this agent cannot tell of changes".into()));
        };
        let subscription = watches.subscribe(&self.peer.identity.node);
        self.send(Kind::Changed, subscription.id(), Bytes::new());
        while let Some(told) = subscription.next().await {
            let shared = self.shared.clone();
            let looked = tokio::task::spawn_blocking(move || changes(&shared, told)).await;
            let record = looked.map_err(|_| Failure::Other("the agent is stopping".into()))?;
            let room = self.queue.room(self.urgency.now(), record.len()).await;
            let frame = Frame::new(Kind::Changed, self.id, record).with_argument(subscription.id());
            self.queue.push_of(&self.urgency, frame, Some(room));
            tokio::time::sleep(TELL_INTERVAL).await;
        }
        self.send(Kind::End, 0, Bytes::new());
        Ok(())
    }

    async fn stat(&self, volume: Arc<Volume>, path: FilePath) -> Result<(), Failure> {
        let entry = self.blocking(move || volume.source().stat(&path)).await??;
        let mut record = Vec::new();
        put_entry(&mut record, &entry);
        self.send(Kind::Entry, 0, record);
        self.send(Kind::End, 0, Bytes::new());
        Ok(())
    }

    async fn read(&self, read: ReadRequest) -> Result<(), Failure> {
        // The sender's own look at the border, before a byte is read (promise I).
        let site = &self.peer.identity.site;
        self.shared.borders.check(&read.volume, &read.path, site, "sender").map_err(|refusal| {
            tracing::info!(rule = %refusal.rule, path = %refusal.path, to = %refusal.to, "refused");
            Failure::Refused(refusal)
        })?;
        let Some(volume) = self.shared.volume(&read.volume) else { return self.pass_on(read).await };
        let (v, path, recut) = (volume.clone(), read.path.clone(), read.recut);
        let mut cut = match (&read.want, &read.version) {
            (Want::Soon(bytes), Some(version)) => self.cut_soon(&volume, &read.path, version, bytes.end).await?,
            (want, _) => {
                let with_bytes = matches!(want, Want::Bytes(_) | Want::Soon(_));
                self.blocking(move || v.cut(&path, recut, with_bytes)).await??
            }
        };
        let named = read.want.names().filter(|_| read.version.as_ref() == Some(&cut.map.manifest().version));
        if named.is_some_and(|id| id != cut.map.manifest().id) && !recut {
            // The same version and another manifest: the bytes that it was cut from were not the file's.
            let (v, path) = (volume.clone(), read.path.clone());
            cut = self.blocking(move || v.cut(&path, true, false)).await??;
        }
        let manifest = cut.map.manifest().clone();
        let is_news = read.want.names().is_none();
        let is_another = read.version.as_ref().is_some_and(|v| *v != manifest.version);
        // Who wants bytes soon takes what the file has now: its next reader finds it.
        if is_another && !matches!(read.want, Want::Soon(_)) {
            return Err(Failure::Changed);
        }
        if read.unless.as_ref() == Some(&manifest.version) {
            self.send(Kind::End, 1, Bytes::new());
            return Ok(());
        }
        if read.want.names().is_some_and(|id| id != manifest.id) {
            return Err(Failure::Changed);
        }
        if is_news {
            self.send_head(&volume, &read.path, &cut, read.holds);
        }
        self.send_content(Content::Source { volume, path: read.path, cut }, read.want).await
    }

    /// The same from the cache: versions only, and where an agent gives nothing of its cache it serves no such volume.
    async fn pass_on(&self, read: ReadRequest) -> Result<(), Failure> {
        let mover = self.shared.passing().ok_or(Failure::NoVolume)?;
        let passage = mover.pass_on(&read, self.urgency.now()).await?;
        if read.want.names().is_none() {
            self.send(Kind::Head, 0, encode_manifest(passage.map().manifest()));
        }
        self.send_content(Content::Passed(Arc::new(passage)), read.want).await
    }

    /// What is wanted of a version that is the right one.
    async fn send_content(&self, content: Content, want: Want) -> Result<(), Failure> {
        let (chunks, signature) = match want {
            Want::Manifest => (0..0, None),
            Want::Bytes(bytes) | Want::Soon(bytes) => (content.map().covering(&bytes), None),
            Want::Chunks { chunks, .. } => (chunks, None),
            Want::Delta { chunks, signature, .. } => (chunks, Some(signature)),
        };
        let chunks = chunks.start..chunks.end.min(content.map().count());
        match signature {
            Some(signature) => self.send_delta(content, chunks, signature).await?,
            None => self.send_chunks(content, chunks).await?,
        }
        self.send(Kind::End, 0, Bytes::new());
        Ok(())
    }

    /// A file cut, or, where that takes long, the beginning of this version up to `end`.
    async fn cut_soon(
        &self,
        volume: &Arc<Volume>,
        path: &FilePath,
        version: &FileVersion,
        end: u64,
    ) -> Result<Cut, Failure> {
        let hold = volume.hold(path);
        let (v, p) = (volume.clone(), path.clone());
        // Given up here, it goes on: who asks for the rest finds it done.
        let whole = self.blocking(move || v.cut(&p, false, true));
        tokio::select! {
            biased;
            whole = whole => Ok(whole??),
            beginning = hold.beginning(version, end) => Ok(beginning),
        }
    }

    /// The manifest, or how it differs from the one that the asker has.
    fn send_head(&self, volume: &Volume, path: &FilePath, cut: &Cut, holds: Option<ManifestId>) {
        let map = &cut.map;
        if cut.is_beginning {
            return self.send(Kind::Beginning, 0, encode_manifest(map.manifest()));
        }
        match holds.and_then(|id| volume.remembered(path, id)) {
            Some(held) => self.send(Kind::HeadDifference, 0, encode_difference(held.manifest(), map.manifest())),
            None => self.send(Kind::Head, 0, encode_manifest(map.manifest())),
        }
    }

    async fn send_chunks(&self, content: Content, mut chunks: Range<u32>) -> Result<(), Failure> {
        let mut packs = None;
        while !chunks.is_empty() {
            let priority = self.urgency.now();
            let pieces = next_pieces(content.map(), &mut chunks, stretch_bytes(priority));
            let length = pieces.iter().map(|(_, bytes)| bytes.end - bytes.start).sum::<u64>() as usize;
            // Frames that wait say that the link is the limit, not the processor.
            let link_is_busy = self.queue.is_filling(priority);
            let mut room = tokio::select! {
                room = self.queue.room(priority, length) => Some(room),
                () = self.urgency.raised() => None,
            };
            let (firsts, ranges): (Vec<u32>, Vec<Range<u64>>) = pieces.into_iter().unzip();
            let payloads = content.bytes(self, ranges).await?;
            for (first, payload) in firsts.into_iter().zip(payloads) {
                let own_room = room.as_mut().and_then(|room| part_of(room, payload.len()));
                self.shared.counts.add(&self.shared.counts.data_bytes, payload.len());
                let frame = Frame::new(Kind::Data, self.id, payload).with_argument(first);
                let frame = if link_is_busy { self.packed(frame, &mut packs).await? } else { frame };
                self.queue.push_of(&self.urgency, frame, own_room);
            }
        }
        Ok(())
    }

    /// Packs a frame if its kind of bytes pays: one sample tells for the whole answer.
    async fn packed(&self, frame: Frame, packs: &mut Option<bool>) -> Result<Frame, Failure> {
        let pays = *packs.get_or_insert_with(|| pack::pays(&frame.payload));
        if !pays {
            return Ok(frame);
        }
        let payload = frame.payload.clone();
        let packed = self.blocking(move || pack::pack(&payload)).await?;
        Ok(packed.map_or(frame.clone(), |payload| Frame { packed: true, payload, ..frame }))
    }

    /// The chunks as one delta, or as they are if that is no longer.
    async fn send_delta(&self, content: Content, chunks: Range<u32>, signature: Bytes) -> Result<(), Failure> {
        if chunks.is_empty() {
            return Ok(());
        }
        let range = content.map().range(chunks.start).start..content.map().range(chunks.end - 1).end;
        let length = range.end - range.start;
        if length > MAX_DELTA_BYTES {
            return Err(Failure::Other(format!("a delta of {length} bytes is too long, ask for chunks")));
        }
        let newer = content.bytes(self, vec![range]).await?.swap_remove(0);
        let domain = content.clone();
        let compared = self.blocking(move || {
            let signature = Signature::decode(&signature)?;
            Ok::<_, EncodingError>(delta(domain.domain(), &signature, &newer))
        });
        let told = compared.await?.map_err(|e| Failure::Other(format!("no signature: {e}")))?;
        if told.len() as u64 >= length {
            return self.send_chunks(content, chunks).await;
        }
        let room = self.queue.room(self.urgency.now(), told.len()).await;
        self.shared.counts.add(&self.shared.counts.data_bytes, told.len());
        let frame = Frame::new(Kind::Delta, self.id, told).with_argument(chunks.start);
        let frame = self.packed(frame, &mut None).await?;
        self.queue.push_of(&self.urgency, frame, Some(room));
        Ok(())
    }

    async fn warm(&self, bytes: usize) -> Result<(), Failure> {
        let mut left = bytes.min(MAX_PAD_BYTES);
        while left > 0 {
            let n = left.min(PAD_BYTES);
            let room = self.queue.room_for_pad(n).await;
            let frame = Frame::new(Kind::Pad, self.id, Bytes::from_static(&[0; PAD_BYTES]).slice(..n));
            self.queue.push(frame.with_priority(Priority::Background), Some(room));
            left -= n;
        }
        self.send(Kind::End, 0, Bytes::new());
        Ok(())
    }
}

/// Directories below one that is listed that are looked into, at most, and for how long.
const BELOW_MAX: usize = 32;
const BELOW_PATIENCE: Duration = Duration::from_millis(5);

/// The small directories right below one, so that who goes down a tree has two levels for each round trip.
fn records_below(
    source: &dyn Source,
    entries: &[Entry],
    names_max: usize,
    hold: impl Fn(&FilePath) -> u32,
) -> Vec<Vec<u8>> {
    let (began, mut names_left, mut records) = (Instant::now(), names_max, Vec::new());
    let directories = entries.iter().filter(|e| e.kind == EntryKind::Directory).map(|e| &e.path);
    for directory in directories.take(BELOW_MAX) {
        if names_left == 0 || began.elapsed() > BELOW_PATIENCE {
            break;
        }
        let watch = hold(directory);
        // Whoever asks for one that fails is told why.
        let Ok(Some(found)) = source.list_small(directory, names_left) else { continue };
        names_left -= found.len();
        let mut record = Vec::new();
        put_below(&mut record, directory, watch, &found);
        records.push(record);
    }
    records
}

/// A delta is made in memory, of at most this much, bytes: the longest run that an asker asks for, with the longest
/// chunk at each end.
const MAX_DELTA_BYTES: u64 = 48 << 20;

/// More would be no warming up but waste, bytes.
const MAX_PAD_BYTES: usize = 16 << 20;

/// What each name stands for now, as a record.
fn changes(shared: &Shared, told: Vec<Told>) -> Vec<u8> {
    let mut record = Vec::new();
    for told in told {
        let change = match told {
            Told::Unsure(volume, directory) => Change::Unsure { volume, directory },
            Told::Name(volume, path) => {
                let Some(served) = shared.volume(&volume) else { continue };
                match served.source().stat(&path) {
                    Ok(entry) => Change::Name { volume, path, entry: Some(entry) },
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Change::Name { volume, path, entry: None },
                    // Whoever looks asks for himself and is told why.
                    Err(_) => match path.parent() {
                        Some(directory) => Change::Unsure { volume, directory },
                        None => continue,
                    },
                }
            }
        };
        put_change(&mut record, &change);
    }
    record
}

/// Read in one go of what can wait, bytes: two frames, and half of a lane's room, so that the next stretch is read while
/// this one is sent. A thread is woken for each.
const STRETCH_BYTES: u64 = 2 * DATA_BYTES as u64;

/// Somebody waits for a demand's first frame.
fn stretch_bytes(priority: Priority) -> u64 {
    if priority == Priority::Demand { DATA_BYTES as u64 } else { STRETCH_BYTES }
}

/// The next chunks as frames take them, each with its bytes in the file: one at least, and more up to so many bytes.
fn next_pieces(map: &ChunkMap, chunks: &mut Range<u32>, bytes_max: u64) -> Vec<(u32, Range<u64>)> {
    let (mut pieces, mut rest) = (Vec::new(), chunks.clone());
    let start = map.range(chunks.start).start;
    while let Some((first, bytes)) = next_piece(map, &mut rest) {
        if !pieces.is_empty() && bytes.end - start > bytes_max {
            break;
        }
        pieces.push((first, bytes));
        *chunks = rest.clone();
    }
    pieces
}

/// The next chunks that go into one frame, and their bytes in the file.
fn next_piece(map: &ChunkMap, chunks: &mut Range<u32>) -> Option<(u32, Range<u64>)> {
    let first = chunks.next()?;
    let mut bytes = map.range(first);
    while chunks.start < chunks.end && map.range(chunks.start).end - bytes.start <= DATA_BYTES as u64 {
        bytes.end = map.range(chunks.start).end;
        chunks.start += 1;
    }
    Some((first, bytes))
}

impl Counts {
    fn add(&self, counter: &std::sync::atomic::AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}
