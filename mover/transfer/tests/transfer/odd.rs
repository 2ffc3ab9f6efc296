//! A source that misbehaves.

use super::*;

/// Wraps a source: reads can be slow, and lie once the file has been cut.
pub struct Odd {
    inner: LocalDirectory,
    delay: Duration,
    lie: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

struct OddFile {
    inner: Box<dyn SourceFile>,
    delay: Duration,
    lie: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl Odd {
    pub fn new(dir: &Path, delay: Duration) -> (Box<Self>, Arc<AtomicBool>) {
        let lie = Arc::new(AtomicBool::new(false));
        let inner = LocalDirectory::open(dir).unwrap();
        (Box::new(Self { inner, delay, lie: lie.clone(), reads: Arc::default() }), lie)
    }
}

impl Source for Odd {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }
    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.inner.stat(path)
    }
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        let inner = self.inner.open(path)?;
        Ok(Box::new(OddFile { inner, delay: self.delay, lie: self.lie.clone(), reads: self.reads.clone() }))
    }
}

impl SourceFile for OddFile {
    fn stamp(&self) -> io::Result<Stamp> {
        self.inner.stamp()
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::thread::sleep(self.delay);
        self.inner.read_exact_at(bytes, offset)?;
        let n = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.lie.load(Ordering::SeqCst) {
            bytes[0] ^= 1 + (n % 200) as u8;
        }
        Ok(())
    }
}
