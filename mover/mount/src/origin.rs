//! What the mount asks of the rest: a port, so that the tests can fill it with a tree in memory, and its one
//! implementation over the mover and its store.
//!
//! The mount keeps no content of its own and speaks no protocol. `open_whole` and `read_resident` only look at what is
//! here and may block on the local disk; `list`, `stat` and `read` may cross the link and are never awaited on a thread
//! that serves the kernel.

use std::fs::File;
use std::ops::Range;

use async_trait::async_trait;
use foretide_chunk::{FileKey, ReadNote, WholeFile};
use foretide_flow::{Entry, Priority, Timestamp};
use foretide_transfer::{Answer, Listed, Mover, News, TransferError};
use tokio::sync::mpsc;

use crate::tree::Place;

/// A whole, verified version, open for reading. The store keeps it for as long as this lives.
pub trait Whole: Send + Sync {
    /// Its bytes.
    fn file(&self) -> &File;
}

impl Whole for WholeFile {
    fn file(&self) -> &File {
        &self.file
    }
}

impl Whole for File {
    fn file(&self) -> &File {
        self
    }
}

/// Where names and bytes come from.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// One directory at the source, complete, and whether its changes are told.
    ///
    /// # Errors
    /// [`TransferError`].
    async fn list(&self, place: &Place) -> Result<Listed, TransferError>;

    /// What the sources tell of changes, if they do. Called once.
    fn news(&self) -> Option<mpsc::Receiver<News>>;

    /// One name at the source.
    ///
    /// # Errors
    /// [`TransferError`].
    async fn stat(&self, place: &Place) -> Result<Entry, TransferError>;

    /// Bytes of a version, from the store or fetched now; shorter than asked only at the file's end.
    ///
    /// # Errors
    /// [`TransferError`].
    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError>;

    /// Asks for bytes without waiting for them. Called within the tokio runtime.
    fn want(&self, key: &FileKey, range: Range<u64>, priority: Priority);

    /// A wholly resident, verified version, open for reading; none if it may not rest here any more.
    fn open_whole(&self, key: &FileKey) -> Option<Box<dyn Whole>>;

    /// Fills `buf` if all of it, up to the file's end, is resident; returns how many bytes it is.
    fn read_resident(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Option<usize>;

    /// Notes that a range was read, for eviction, coverage and waste.
    fn note_read(&self, key: &FileKey, range: Range<u64>, at: Timestamp) -> ReadNote;
}

#[async_trait]
impl Origin for Mover {
    async fn list(&self, place: &Place) -> Result<Listed, TransferError> {
        Mover::list(self, &place.volume, &place.path).await
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        Some(Mover::news(self))
    }

    async fn stat(&self, place: &Place) -> Result<Entry, TransferError> {
        Mover::stat(self, &place.volume, &place.path).await
    }

    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError> {
        Mover::read(self, key, range).await
    }

    fn want(&self, key: &FileKey, range: Range<u64>, priority: Priority) {
        Mover::want(self, key, range, priority);
    }

    fn open_whole(&self, key: &FileKey) -> Option<Box<dyn Whole>> {
        let whole = self.may_rest(key).then(|| self.store().open_whole(key).ok()).flatten();
        whole.map(|whole| Box::new(whole) as Box<dyn Whole>)
    }

    fn read_resident(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Option<usize> {
        self.store().read(key, offset, buf).ok()
    }

    fn note_read(&self, key: &FileKey, range: Range<u64>, at: Timestamp) -> ReadNote {
        self.store().note_read(key, range, at)
    }
}
