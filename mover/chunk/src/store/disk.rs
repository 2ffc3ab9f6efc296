//! The store's way to its content and journal: one narrow trait, so that tests can let a disk be full, write half
//! of what was asked, or die between any two calls; and a bounded set of open files above it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// What the store asks of a disk besides creating and removing files.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Writes some of `bytes` at `offset`; how many is told.
    ///
    /// # Errors
    /// The disk's.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reads some bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// The disk's.
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written below this folder survive power loss.
    ///
    /// # Errors
    /// The disk's.
    fn sync(&self, folder: &File) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }

    /// One `syncfs` instead of one `fsync` per file: thousands of small files arrive between two checkpoints.
    fn sync(&self, folder: &File) -> io::Result<()> {
        nix::unistd::syncfs(folder).map_err(io::Error::from)
    }
}

/// Writes all of `bytes`, however short the single writes are.
pub(super) fn write_all_at(disk: &dyn Disk, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills all of `bytes` or fails with `UnexpectedEof`.
pub(super) fn read_exact_at(disk: &dyn Disk, file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.read_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Data files by number, at most `limit` of them held open.
///
/// A file that leaves is emptied and laid by, and the next new one is made of it: a file system that has just lost
/// thousands of files looks through all of them before it makes a new one (ext4 does for five minutes), and a full cache
/// loses a file for each one that comes.
#[derive(Debug)]
pub(super) struct DataFiles {
    folder: PathBuf,
    spare_folder: PathBuf,
    limit: usize,
    open: Mutex<OpenFiles>,
    spares: Mutex<Vec<u64>>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<u64, (Arc<File>, u64)>,
    clock: u64,
}

impl DataFiles {
    /// Folders that share the files, so that no directory grows beyond what its file system likes.
    const FOLDERS: u64 = 256;

    /// Empty files laid by at most: with their names, about 5 MB of the file system's own.
    const SPARES_MAX: usize = 16_384;

    pub(super) fn new(root: &Path, limit: usize) -> io::Result<Self> {
        let (folder, spare_folder) = (root.join("data"), root.join("spare"));
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&spare_folder)?;
        let (open, spares) = (Mutex::default(), Mutex::default());
        let files = Self { folder, spare_folder, limit: limit.max(1), open, spares };
        for no in numbers_in(&files.spare_folder)? {
            files.keep_spare(no)?;
        }
        Ok(files)
    }

    pub(super) fn path(&self, no: u64) -> PathBuf {
        self.folder.join(format!("{:02x}/{no:016x}", no % Self::FOLDERS))
    }

    /// A handle of its own, for reading: it outlives the cache and the file's name.
    pub(super) fn open_for_reading(&self, no: u64) -> io::Result<File> {
        File::open(self.path(no))
    }

    /// The shared handle; with `create`, the file is made if it is not there.
    pub(super) fn get(&self, no: u64, create: bool) -> io::Result<Arc<File>> {
        {
            let mut open = self.lock();
            open.clock += 1;
            let now = open.clock;
            if let Some((file, used)) = open.files.get_mut(&no) {
                *used = now;
                return Ok(file.clone());
            }
        }
        let file = Arc::new(if create { self.open_or_make(no)? } else { open_rw(&self.path(no), false)? });
        let mut open = self.lock();
        if open.files.len() >= self.limit {
            open.drop_oldest(self.limit / 8 + 1);
        }
        let now = open.clock;
        Ok(open.files.entry(no).or_insert((file, now)).0.clone())
    }

    fn open_or_make(&self, no: u64) -> io::Result<File> {
        let path = self.path(no);
        match open_rw(&path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        self.place_spare(&path);
        match open_rw(&path, true) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(self.folder.join(format!("{:02x}", no % Self::FOLDERS)))?;
                self.place_spare(&path);
                open_rw(&path, true)
            }
            opened => opened,
        }
    }

    /// Makes a new file of a spare, if there is one: where nothing is yet, for two may want to make the same file.
    fn place_spare(&self, path: &Path) {
        let Some(no) = self.spares().pop() else { return };
        match renameat2(AT_FDCWD, &self.spare(no), AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            // It has vanished.
            Err(Errno::ENOENT) if path.parent().is_some_and(Path::exists) => {}
            Err(_) => self.spares().push(no),
        }
    }

    pub(super) fn remove(&self, no: u64) -> io::Result<()> {
        self.lock().files.remove(&no);
        // Renamed before it is emptied: should power fail in between, it is missing, not short.
        match std::fs::rename(self.path(no), self.spare(no)) {
            Ok(()) => self.keep_spare(no),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn spare(&self, no: u64) -> PathBuf {
        self.spare_folder.join(format!("{no:016x}"))
    }

    fn spares(&self) -> MutexGuard<'_, Vec<u64>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties a file among the spares, unless there are enough or somebody still reads it: a job goes on reading through
    /// the kernel what an agent that was killed opened for it.
    fn keep_spare(&self, no: u64) -> io::Result<()> {
        let path = self.spare(no);
        let file = open_rw(&path, false)?;
        if self.spares().len() < Self::SPARES_MAX && is_ours_alone(&file) {
            file.set_len(0)?;
            self.spares().push(no);
            return Ok(());
        }
        std::fs::remove_file(path)
    }

    /// The numbers of all files that are there.
    pub(super) fn present(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for folder in std::fs::read_dir(&self.folder)? {
            found.extend(numbers_in(&folder?.path())?);
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.lock().files.len()
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn numbers_in(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|n| u64::from_str_radix(n, 16).ok()));
    }
    Ok(found)
}

/// Whether nobody else has the file open: only then the kernel gives a lease for writing. It ends with the descriptor.
/// Who opens it meanwhile waits for that, and the kernel tells us by a signal: one that is ignored by default, since its
/// own choice (SIGIO) would end the process.
fn is_ours_alone(file: &File) -> bool {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    let asked = |command, argument: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 };
    asked(F_SETSIG, libc::SIGURG) && asked(libc::F_SETLEASE, libc::F_WRLCK)
}

/// Linux's own, missing in libc: asm-generic/fcntl.h.
const F_SETSIG: libc::c_int = 10;

fn open_rw(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)
}

impl OpenFiles {
    fn drop_oldest(&mut self, n: usize) {
        let mut used: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        if used.is_empty() {
            return;
        }
        let n = n.min(used.len());
        let (_, newest_to_drop, _) = used.select_nth_unstable(n - 1);
        let limit = *newest_to_drop;
        self.files.retain(|_, (_, used)| *used > limit);
    }
}

/// Whether the disk said that it is full.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Opens a folder, to be synced.
pub(super) fn open_folder(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the demo: a reader came while a file that left was looked at, and the kernel's word of it ended the agent.
    #[test]
    fn who_opens_a_file_that_is_looked_at_waits_and_nobody_dies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let file = open_rw(&path, true).unwrap();
        let reading = File::open(&path).unwrap();
        assert!(!is_ours_alone(&file), "somebody reads it");
        drop(reading);
        assert!(is_ours_alone(&file));
        let opening = std::thread::spawn(move || File::open(path));
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(file);
        assert!(opening.join().unwrap().is_ok());
    }
}
