//! What the namespace does when it is opened, read and closed, in our own words: no kernel types here. The edge that
//! speaks FUSE stands in `fuse.rs`, the tree behind `namespace.rs`.
//!
//! - A version that is here whole is opened by passthrough: the kernel reads the store's file itself.
//! - A small file that is not here is fetched whole while its open waits. That costs its reader nothing (the first read
//!   would have waited), saves the link a round trip for every further read, and lets us see in time that the source has
//!   another version by now: the open then says ESTALE, on which the kernel looks the name up again and opens the new one.
//! - Any other file is opened at once and read on demand, with a [`Window`] ahead of sequential readers.
//!
//! Reads of what is here are answered on the thread that took them, which may block on the local disk. Whatever may
//! cross the link is a future for the caller to spawn (promise A: sixteen readers wait side by side).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foretide_chunk::FileKey;
use foretide_flow::{AccessOp, Found, Priority, Timestamp};
use foretide_transfer::{Answer, TransferError};

use crate::config::{Config, Opens as OpensTold};
use crate::errno::Failure;
use crate::namespace::Namespace;
use crate::observe::{Closed, MountEvent, Observer, Tally};
use crate::opens::{Backing, Mode, Opens};
use crate::origin::{Origin, Whole};
use crate::silent::Silent;
use crate::stats::{Counters, Stats};
use crate::tree::Place;
use crate::window::Window;

/// A file about to be opened: which version, and how long it is.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its number.
    pub ino: u64,
    /// Which version of which file.
    pub key: Arc<FileKey>,
    /// Its bytes.
    pub size: u64,
    /// The thread that opens it.
    pub thread: u32,
    /// When it asked.
    pub at: Timestamp,
}

/// An open file.
pub struct Handle {
    opening: Opening,
    /// The whole file, if it was here when it was opened; by passthrough the kernel reads it itself.
    local: Option<Arc<dyn Whole>>,
    window: Mutex<Window>,
    tally: Mutex<Tally>,
}

/// An opened file, for the edge to tell the kernel.
pub struct Opened<B> {
    /// The handle's number.
    pub fh: u64,
    /// How it is open.
    pub mode: Mode<B>,
}

/// The namespace as a file system. `B` is the kernel's handle on a backing file.
pub struct Fs<B> {
    /// Names.
    pub namespace: Arc<Namespace>,
    origin: Arc<dyn Origin>,
    opens: Opens<B>,
    handles: RwLock<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
    silent: Option<Mutex<Silent<Arc<Handle>>>>,
    observer: Observer,
    counters: Arc<Counters>,
    passthrough: AtomicBool,
    answer_timeout: Duration,
    whole_file_bytes: u64,
    first_window_bytes: u64,
    max_window_bytes: u64,
}

impl<B: Send + Sync + 'static> Fs<B> {
    /// A file system over a namespace.
    pub fn new(
        config: &Config,
        namespace: Arc<Namespace>,
        origin: Arc<dyn Origin>,
        observer: Observer,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            namespace,
            origin,
            opens: Opens::default(),
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
            silent: (config.opens == OpensTold::Silent).then(Mutex::default),
            observer,
            counters,
            passthrough: AtomicBool::new(config.passthrough),
            answer_timeout: config.answer_timeout(),
            whole_file_bytes: config.whole_file_bytes,
            first_window_bytes: config.first_window_bytes,
            max_window_bytes: config.max_window_bytes,
        }
    }

    /// Which version an open is about.
    ///
    /// # Errors
    /// [`Failure::Stale`] if the number is not in use.
    pub fn opening(&self, ino: u64, thread: u32) -> Result<Opening, Failure> {
        let tree = self.namespace.tree();
        let (attributes, version, place) = tree
            .attributes(ino)
            .zip(tree.version(ino))
            .zip(tree.place(ino))
            .map(|((a, v), p)| (a, v, p))
            .ok_or(Failure::Stale)?;
        if !attributes.is_file() {
            return Err(Failure::WrongKind);
        }
        if tree.is_outdated(ino) {
            return Err(Failure::Stale);
        }
        let key = Arc::new(FileKey { volume: place.volume, path: place.path, version });
        Ok(Opening { ino, key, size: attributes.size, thread, at: Timestamp::now() })
    }

    /// Whether the kernel is not to tell of opens.
    pub fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// What is read under a number that was never opened, with [`OpensTold::Silent`].
    ///
    /// # Errors
    /// [`Failure::Stale`] if the number is not in use, or the source has another version.
    pub fn silent_handle(&self, ino: u64, thread: u32) -> Result<Arc<Handle>, Failure> {
        let Some(silent) = &self.silent else { return Err(Failure::Stale) };
        if let Some(handle) = lock(silent).read(ino, Instant::now()) {
            return Ok(handle);
        }
        let opening = self.opening(ino, thread)?;
        let local = self.origin.open_whole(&opening.key).map(Arc::from);
        let handle = Arc::new(self.new_handle(&opening, local, Tally::default()));
        let (open, closed) = lock(silent).open(ino, Arc::clone(&handle), Instant::now());
        if Arc::ptr_eq(&open, &handle) {
            self.event(&open, AccessOp::Open, 0..0, Found::Unknown, Duration::ZERO);
        }
        if let Some(closed) = closed {
            self.account_close(&closed);
        }
        Ok(open)
    }

    /// Closes what is read without an open and was not read for a while. Called now and then.
    pub fn close_idle(&self) {
        let Some(silent) = &self.silent else { return };
        let closed = lock(silent).close_idle(Instant::now());
        closed.iter().for_each(|handle| self.account_close(handle));
    }

    fn new_handle(&self, opening: &Opening, local: Option<Arc<dyn Whole>>, tally: Tally) -> Handle {
        let window = Window::new(opening.size, self.first_window_bytes, self.max_window_bytes);
        Handle { opening: opening.clone(), local, window: Mutex::new(window), tally: Mutex::new(tally) }
    }

    /// Opens what can be opened without waiting; none if it should be [fetched](Self::fetch_first) first.
    /// `back` hands a whole file to the kernel.
    pub fn open_here(&self, opening: &Opening, back: impl FnOnce(&File) -> io::Result<B>) -> Option<Opened<B>> {
        self.open(opening, back, opening.size == 0 || opening.size > self.whole_file_bytes, Tally::default())
    }

    /// Opens as things stand, after [`Fs::fetch_first`].
    pub fn open_fetched(
        &self,
        opening: &Opening,
        tally: Tally,
        back: impl FnOnce(&File) -> io::Result<B>,
    ) -> Option<Opened<B>> {
        self.open(opening, back, true, tally)
    }

    /// Fetches a small file whole.
    ///
    /// # Errors
    /// [`Failure`]; ESTALE if the source has another version by now.
    pub async fn fetch_first(&self, opening: &Opening) -> Result<Tally, Failure> {
        let started = Instant::now();
        let answer = self.fetch(opening, 0..opening.size).await?;
        let mut tally = Tally::default();
        tally.note(0..opening.size, answer.found, self.waited(started, answer.found));
        Ok(tally)
    }

    fn open(
        &self,
        opening: &Opening,
        back: impl FnOnce(&File) -> io::Result<B>,
        even_partly: bool,
        tally: Tally,
    ) -> Option<Opened<B>> {
        let mode = self.opens.open(opening.ino, || self.choose(opening, back, even_partly))?;
        let counter = match &mode {
            Mode::Passthrough(_) => &self.counters.opens_passthrough,
            Mode::Cached(_) => &self.counters.opens_cached,
        };
        Counters::add(counter, 1);
        let local = if let Mode::Cached(local) = &mode { local.clone() } else { None };
        let handle = self.new_handle(opening, local, tally);
        self.event(&handle, AccessOp::Open, 0..0, Found::Unknown, Duration::ZERO);
        self.account_open(&handle, matches!(mode, Mode::Passthrough(_)));
        let fh = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(fh, Arc::new(handle));
        Some(Opened { fh, mode })
    }

    fn choose(
        &self,
        opening: &Opening,
        back: impl FnOnce(&File) -> io::Result<B>,
        even_partly: bool,
    ) -> Option<Mode<B>> {
        let whole = if opening.size == 0 { None } else { self.origin.open_whole(&opening.key) };
        let Some(whole) = whole else { return even_partly.then_some(Mode::Cached(None)) };
        if self.passthrough.load(Ordering::Relaxed) {
            match back(whole.file()) {
                Ok(id) => return Some(Mode::Passthrough(Arc::new(Backing { id, _whole: Some(whole) }))),
                Err(error) => self.without_passthrough(&error),
            }
        }
        Some(Mode::Cached(Some(Arc::from(whole))))
    }

    /// Said once: it is a property of this kernel, or of how we were started.
    fn without_passthrough(&self, error: &io::Error) {
        if self.passthrough.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "opening cached files without passthrough, reads cost more CPU: {error}; \
                 it needs CAP_SYS_ADMIN in the first user namespace and Linux 6.9 or later"
            );
        }
    }

    /// An open file by its handle's number.
    ///
    /// # Errors
    /// [`Failure::Stale`] if it is not open.
    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>, Failure> {
        let handles = self.handles.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        handles.get(&fh).cloned().ok_or(Failure::Stale)
    }

    /// Reads what is here into `buf`; none if bytes of it would have to be fetched.
    pub fn read_here(&self, handle: &Handle, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let size = handle.opening.size;
        let length = (buf.len() as u64).min(size.saturating_sub(offset)) as usize;
        let buf = &mut buf[..length];
        if !buf.is_empty() {
            match &handle.local {
                Some(whole) => whole.file().read_exact_at(buf, offset).ok()?,
                None => {
                    let read = self.origin.read_resident(&handle.opening.key, offset, buf)?;
                    (read == length).then_some(())?;
                    self.ask_ahead(handle, offset, length as u64);
                }
            }
        }
        self.account(handle, offset..offset + length as u64, Found::Hit, Duration::ZERO);
        Some(length)
    }

    /// Reads what has to be fetched.
    ///
    /// # Errors
    /// [`Failure`]; the bytes are of the version that was opened, or it fails (promise D).
    pub async fn read_there(&self, handle: &Handle, offset: u64, length: u64) -> Result<Bytes, Failure> {
        let started = Instant::now();
        let end = (offset + length).min(handle.opening.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        // In this order: what the reader waits for goes on the link before what it may read next.
        let fetch = self.fetch(&handle.opening, offset..end);
        let (answer, ()) = tokio::join!(biased; fetch, async { self.ask_ahead(handle, offset, end - offset) });
        let answer = answer?;
        self.account(handle, offset..end, answer.found, self.waited(started, answer.found));
        Ok(answer.bytes)
    }

    /// The last reference to an open file is gone.
    pub fn release(&self, fh: u64) {
        let gone = self.handles.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&fh);
        let Some(handle) = gone else { return };
        self.opens.close(handle.opening.ino);
        self.account_close(&handle);
    }

    fn account_close(&self, handle: &Handle) {
        self.event(handle, AccessOp::Close, 0..0, Found::Unknown, Duration::ZERO);
        let Opening { key, size, thread, at, .. } = handle.opening.clone();
        let tally = std::mem::take(&mut *lock(&handle.tally));
        self.observer.closed(Closed { key, size, thread, opened_at: at, tally });
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats(self.opens.count(), self.namespace.tree().len() as u64)
    }

    /// A request failed: counted, and said once.
    pub fn fail(&self, ino: u64, doing: &str, failure: &Failure) {
        if failure.errno() == libc::ENOENT {
            return;
        }
        Counters::add(&self.counters.failures, 1);
        let place = self.namespace.tree().place(ino);
        if let Some(place) = place {
            self.namespace.complaints().say(&place, doing, failure);
        }
    }

    /// Counts a name that the kernel looked up.
    pub fn count_lookup(&self) {
        Counters::add(&self.counters.lookups, 1);
    }

    /// Asks the kernel to read a whole file into its page cache, in the background: for what a move has just brought.
    ///
    /// # Errors
    /// The error of the disk, or `NotFound` if the file is not here whole.
    pub fn warm_pages(&self, place: &Place) -> io::Result<()> {
        let key = {
            let tree = self.namespace.tree();
            let version = tree.ino_at(&place.volume, &place.path).and_then(|ino| tree.version(ino));
            version.map(|version| FileKey { volume: place.volume.clone(), path: place.path.clone(), version })
        };
        let whole = key.and_then(|key| self.origin.open_whole(&key)).ok_or(io::ErrorKind::NotFound)?;
        nix::fcntl::posix_fadvise(whole.file(), 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED)?;
        Ok(())
    }

    async fn fetch(&self, opening: &Opening, range: Range<u64>) -> Result<Answer, Failure> {
        let length = range.end - range.start;
        let answer = match tokio::time::timeout(self.answer_timeout, self.origin.read(&opening.key, range)).await {
            Ok(answer) => answer,
            Err(_) => return Err(Failure::TimedOut(self.answer_timeout)),
        };
        if let Err(TransferError::Changed { .. } | TransferError::NotFound { .. }) = &answer {
            self.namespace.distrust(opening.ino);
            // Whoever opens the name again finds what is there now; this version is gone for good.
            return Err(TransferError::Changed { path: opening.key.path.clone() }.into());
        }
        let answer = answer?;
        // Fewer bytes than the version has would be another file's end (promise D).
        if answer.bytes.len() as u64 != length {
            return Err(TransferError::Changed { path: opening.key.path.clone() }.into());
        }
        Ok(answer)
    }

    fn ask_ahead(&self, handle: &Handle, offset: u64, length: u64) {
        let ahead = lock(&handle.window).read(offset, length);
        if let Some(range) = ahead {
            // Nobody waits for it yet: it goes behind what somebody waits for, and is raised when a read comes to it.
            self.origin.want(&handle.opening.key, range, Priority::Deadline);
        }
    }

    fn waited(&self, started: Instant, found: Found) -> Duration {
        if found == Found::Hit { Duration::ZERO } else { started.elapsed() }
    }

    /// What the open itself fetched, and what the kernel will read without telling us.
    fn account_open(&self, handle: &Handle, passthrough: bool) {
        let (fetched, waited) = {
            let tally = lock(&handle.tally);
            (tally.found, Duration::from_micros(tally.waited_us))
        };
        let found = if fetched == Found::Unknown { Found::Hit } else { fetched };
        if passthrough || fetched != Found::Unknown {
            Counters::add(self.counter_of(found), 1);
            Counters::add(&self.counters.waited_us, waited.as_micros() as u64);
        }
        if passthrough {
            self.event(handle, AccessOp::Read, 0..handle.opening.size, found, waited);
        }
    }

    fn counter_of(&self, found: Found) -> &AtomicU64 {
        match found {
            Found::Late => &self.counters.late,
            Found::Miss => &self.counters.misses,
            Found::Hit | Found::Unknown => &self.counters.hits,
        }
    }

    fn account(&self, handle: &Handle, range: Range<u64>, found: Found, waited: Duration) {
        Counters::add(self.counter_of(found), 1);
        Counters::add(&self.counters.reads, 1);
        Counters::add(&self.counters.read_bytes, range.end - range.start);
        Counters::add(&self.counters.waited_us, waited.as_micros() as u64);
        lock(&handle.tally).note(range.clone(), found, waited);
        self.event(handle, AccessOp::Read, range, found, waited);
    }

    fn event(&self, handle: &Handle, op: AccessOp, range: Range<u64>, found: Found, waited: Duration) {
        self.observer.event(|| MountEvent {
            at: Timestamp::now() - waited,
            process: handle.opening.thread,
            volume: handle.opening.key.volume.clone(),
            path: handle.opening.key.path.clone(),
            op,
            offset: range.start,
            length: range.end - range.start,
            blocked_us: u32::try_from(waited.as_micros()).unwrap_or(u32::MAX),
            found,
        });
    }
}

/// A lock whose holder panicked guards nothing that could be half done: the values are counts and caches.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
