//! Where a volume's truth lives, behind one narrow trait that can only read (promise B).

mod http;
mod local;
mod manners;
mod merged;
mod object;

use std::io;
use std::os::fd::OwnedFd;

use foretide_flow::{Entry, FilePath, FileVersion, Timestamp};

pub use local::LocalDirectory;
pub use manners::{Faulty, Manners};
pub use merged::Merged;
pub use object::Bucket;

/// What a source says of a file's content at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its version.
    pub version: FileVersion,
    /// Bytes.
    pub size: u64,
    /// When content or metadata last changed, by the source's clock: too short ago, and a change within the same
    /// tick of that clock could go unnoticed.
    pub changed_at: Timestamp,
}

/// A tree of files. Methods may block: they are called on threads that may.
pub trait Source: Send + Sync + 'static {
    /// The entries of a directory, in order of name, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or the source's own.
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>>;

    /// The same, where looking costs next to nothing and there are no more entries than that; none elsewhere.
    ///
    /// # Errors
    /// As [`Source::list`].
    fn list_small(&self, directory: &FilePath, entries_max: usize) -> io::Result<Option<Vec<Entry>>> {
        let _ = (directory, entries_max);
        Ok(None)
    }

    /// One name; a symbolic link is not followed.
    ///
    /// # Errors
    /// `NotFound`, or the source's own.
    fn stat(&self, path: &FilePath) -> io::Result<Entry>;

    /// A directory's descriptor, for the kernel to tell of changes in it; none where it could not.
    ///
    /// # Errors
    /// As [`Source::list`].
    fn descriptor(&self, directory: &FilePath) -> io::Result<Option<OwnedFd>> {
        let _ = directory;
        Ok(None)
    }

    /// A regular file, open for reading.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` if it is no regular file, or the source's own.
    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>>;
}

/// An open file of a source.
pub trait SourceFile: Send {
    /// What its content is now.
    ///
    /// # Errors
    /// The source's.
    fn stamp(&self) -> io::Result<Stamp>;

    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter or not the one that was opened any more, or the source's own.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}
