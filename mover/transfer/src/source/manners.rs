//! How a source is asked: no faster than it bears, and again where asking again may help. And one that fails now and then, to
//! see what becomes of those who ask.
//!
//! Each wraps any source, and is one.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use foretide_flow::{BitsPerSecond, Entry, FilePath};

use super::{Source, SourceFile, Stamp};
use crate::limit::Limiter;

/// Wait before the second try; doubled for each further one, and scattered by half of it.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Longest wait before a try.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Bytes are read no faster than this.
    pub rate: Option<BitsPerSecond>,
    /// What fails and may be well a moment later is tried so often in all.
    pub tries: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self { rate: None, tries: 4 }
    }
}

impl Manners {
    /// The source, asked like this.
    pub fn wrap(self, source: Box<dyn Source>) -> Box<dyn Source> {
        self.paced(self.patient(source))
    }

    /// The source, asked again. A [`Bucket`](crate::Bucket) needs it not: its client asks again by itself.
    pub fn patient(self, source: Box<dyn Source>) -> Box<dyn Source> {
        Box::new(Patient { inner: source, tries: self.tries.max(1) })
    }

    /// The source, read no faster than the rate; as it is without one.
    pub fn paced(self, source: Box<dyn Source>) -> Box<dyn Source> {
        match self.rate {
            Some(rate) => Box::new(Paced { inner: source, limiter: Arc::new(Limiter::new(Some(rate))) }),
            None => source,
        }
    }
}

/// Whether the same question may be answered a moment later: a server that is busy, starting anew, or hard to reach. What is
/// not there, or not allowed, stays so.
fn may_pass(error: &io::Error) -> bool {
    use ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, NotConnected, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock,
    };
    let by_kind = matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | ResourceBusy
            | StaleNetworkFileHandle
            | TimedOut
            | WouldBlock
    );
    by_kind || error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
}

/// Asks up to `tries` times.
fn asked<T>(tries: u32, mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut wait = FIRST_WAIT;
    for _ in 1..tries {
        match ask() {
            Err(error) if may_pass(&error) => {
                tracing::debug!(%error, "a source failed; asked again");
                sleep(wait.mul_f64(rand::random_range(0.5..1.5)));
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            answered => return answered,
        }
    }
    ask()
}

/// Asks again what may be answered a moment later.
struct Patient {
    inner: Box<dyn Source>,
    tries: u32,
}

impl Source for Patient {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        asked(self.tries, || self.inner.list(directory))
    }

    fn list_small(&self, directory: &FilePath, entries_max: usize) -> io::Result<Option<Vec<Entry>>> {
        asked(self.tries, || self.inner.list_small(directory, entries_max))
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        asked(self.tries, || self.inner.stat(path))
    }

    fn descriptor(&self, directory: &FilePath) -> io::Result<Option<OwnedFd>> {
        asked(self.tries, || self.inner.descriptor(directory))
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        let inner = asked(self.tries, || self.inner.open(path))?;
        Ok(Box::new(PatientFile { inner, tries: self.tries }))
    }
}

struct PatientFile {
    inner: Box<dyn SourceFile>,
    tries: u32,
}

impl SourceFile for PatientFile {
    fn stamp(&self) -> io::Result<Stamp> {
        asked(self.tries, || self.inner.stamp())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        asked(self.tries, || self.inner.read_exact_at(bytes, offset))
    }
}

/// Reads no faster than a rate, all files together.
struct Paced {
    inner: Box<dyn Source>,
    limiter: Arc<Limiter>,
}

impl Source for Paced {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }

    fn list_small(&self, directory: &FilePath, entries_max: usize) -> io::Result<Option<Vec<Entry>>> {
        self.inner.list_small(directory, entries_max)
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.inner.stat(path)
    }

    fn descriptor(&self, directory: &FilePath) -> io::Result<Option<OwnedFd>> {
        self.inner.descriptor(directory)
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(PacedFile { inner: self.inner.open(path)?, limiter: Arc::clone(&self.limiter) }))
    }
}

struct PacedFile {
    inner: Box<dyn SourceFile>,
    limiter: Arc<Limiter>,
}

impl SourceFile for PacedFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.inner.stamp()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let now = Instant::now();
        sleep(self.limiter.take(bytes.len(), now).saturating_duration_since(now));
        self.inner.read_exact_at(bytes, offset)
    }
}

/// A source that fails now and then, the same way for the same seed and order of questions. For tests.
pub struct Faulty {
    inner: Box<dyn Source>,
    faults: Arc<Faults>,
}

/// Which questions fail.
struct Faults {
    seed: u64,
    one_in: u64,
    error: ErrorKind,
    asked: AtomicU64,
    failed: AtomicU64,
}

impl Faults {
    fn strike(&self) -> io::Result<()> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let drawn = blake3::hash(&[self.seed.to_le_bytes(), number.to_le_bytes()].concat());
        let drawn = u64::from_le_bytes(drawn.as_bytes()[..8].try_into().expect("eight bytes"));
        if drawn.is_multiple_of(self.one_in) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(self.error.into());
        }
        Ok(())
    }
}

impl Faulty {
    /// One question in `one_in` fails with `error`, as the seed has it.
    pub fn new(inner: Box<dyn Source>, seed: u64, one_in: u64, error: ErrorKind) -> Self {
        let faults = Faults { seed, one_in: one_in.max(1), error, asked: 0.into(), failed: 0.into() };
        Self { inner, faults: Arc::new(faults) }
    }

    /// Questions that were asked, and those of them that failed; told although the source is elsewhere by then.
    pub fn counts(&self) -> impl Fn() -> (u64, u64) + use<> {
        let faults = Arc::clone(&self.faults);
        move || (faults.asked.load(Ordering::Relaxed), faults.failed.load(Ordering::Relaxed))
    }
}

impl Source for Faulty {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.faults.strike()?;
        self.inner.list(directory)
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.faults.strike()?;
        self.inner.stat(path)
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        self.faults.strike()?;
        Ok(Box::new(FaultyFile { inner: self.inner.open(path)?, faults: Arc::clone(&self.faults) }))
    }
}

struct FaultyFile {
    inner: Box<dyn SourceFile>,
    faults: Arc<Faults>,
}

impl SourceFile for FaultyFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.faults.strike()?;
        self.inner.stamp()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.strike()?;
        self.inner.read_exact_at(bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalDirectory;

    fn folder(bytes: usize) -> (tempfile::TempDir, Box<dyn Source>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), vec![7; bytes]).unwrap();
        let source = LocalDirectory::open(folder.path()).unwrap();
        (folder, Box::new(source))
    }

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    #[test]
    fn what_may_pass_is_asked_again_and_no_more_often_than_allowed() {
        let (_folder, inner) = folder(10);
        let always = Faulty::new(inner, 1, 1, ErrorKind::TimedOut);
        let counts = always.counts();
        let source = Manners { tries: 3, rate: None }.wrap(Box::new(always));
        assert_eq!(source.stat(&path("file")).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(counts(), (3, 3));
    }

    #[test]
    fn what_is_not_there_is_asked_for_once() {
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::UnexpectedEof] {
            let (_folder, inner) = folder(10);
            let always = Faulty::new(inner, 1, 1, kind);
            let counts = always.counts();
            let source = Manners::default().wrap(Box::new(always));
            assert_eq!(source.list(&FilePath::root()).unwrap_err().kind(), kind);
            assert_eq!(counts(), (1, 1));
        }
    }

    #[test]
    fn a_source_that_fails_now_and_then_is_read_to_its_end() {
        let (_folder, inner) = folder(100);
        let faulty = Faulty::new(inner, 5, 4, ErrorKind::ConnectionReset);
        let counts = faulty.counts();
        let source = Manners { tries: 12, rate: None }.wrap(Box::new(faulty));
        let file = source.open(&path("file")).unwrap();
        for at in 0..100 {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            assert_eq!(byte, [7]);
        }
        let (asked, failed) = counts();
        assert!(failed > 10 && asked == 101 + failed, "{failed} of {asked} failed");
    }

    #[test]
    fn a_paced_source_takes_its_time() {
        let (_folder, inner) = folder(1_000_000);
        let source = Manners { rate: Some(BitsPerSecond(80_000_000)), tries: 1 }.wrap(inner);
        let (file, mut part, began) = (source.open(&path("file")).unwrap(), vec![0; 100_000], Instant::now());
        (0..10).for_each(|n| file.read_exact_at(&mut part, n * 100_000).unwrap());
        let least = Duration::from_millis(80);
        assert!(began.elapsed() >= least, "1 MB at 10 MB/s in {:?}", began.elapsed());
    }
}
