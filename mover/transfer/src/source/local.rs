//! A local directory as a source.
//!
//! Every path is resolved by the kernel beneath the volume's root and through no symbolic link (`openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), so nothing outside of it can be reached, whatever is renamed meanwhile.
//! Links are told as links: the mount shows them and its kernel follows them.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Timestamp};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, fstatat};

use super::{Source, SourceFile, Stamp};
use crate::TransferError;

/// A volume's root.
#[derive(Debug)]
pub struct LocalDirectory {
    root: OwnedFd,
}

impl LocalDirectory {
    /// Opens the root.
    ///
    /// # Errors
    /// [`TransferError::Serve`] if it does not exist, is no directory or cannot be read.
    pub fn open(root: &Path) -> Result<Self, TransferError> {
        let failed = |e: io::Error| TransferError::Serve {
            what: format!("volume folder {}", root.display()),
            why: e.to_string(),
        };
        let folder = File::open(root).map_err(failed)?;
        if !folder.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        std::fs::read_dir(root).map_err(failed)?;
        Ok(Self { root: folder.into() })
    }

    fn open_beneath(&self, path: &FilePath, flags: OFlag) -> io::Result<OwnedFd> {
        let name = if path.is_root() { b".".as_slice() } else { path.as_bytes() };
        let how = |flags| {
            OpenHow::new()
                .flags(flags | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
        };
        let open = |flags| openat2(&self.root, OsStr::from_bytes(name), how(flags));
        // The kernel refuses any further flag beside O_PATH, and a descriptor of that kind reads nothing.
        if flags.contains(OFlag::O_PATH) {
            return open(flags).map_err(as_io);
        }
        // Reading should not even change the access time; only an owner may ask for that.
        match open(flags | OFlag::O_NOATIME) {
            Err(Errno::EPERM) => open(flags),
            opened => opened,
        }
        .map_err(as_io)
    }
}

/// What leads out of the volume or through a link is not there.
fn as_io(e: Errno) -> io::Error {
    match e {
        Errno::EXDEV | Errno::ELOOP => io::ErrorKind::NotFound.into(),
        e => e.into(),
    }
}

impl LocalDirectory {
    /// A regular file, open for reading.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` if it is no regular file, or the file system's own.
    pub fn file(&self, path: &FilePath) -> io::Result<File> {
        // Without O_NONBLOCK opening a named pipe would wait for a writer.
        let file = File::from(self.open_beneath(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// A directory's entries; none if there are more than that, which is known before they are looked at.
    fn look(&self, directory: &FilePath, entries_max: usize) -> io::Result<Option<Vec<Entry>>> {
        let folder = self.open_beneath(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        // Listed through the descriptor, so it is the folder that was resolved, even if it is renamed meanwhile.
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let mut entries = Vec::new();
        let names: Vec<_> = std::fs::read_dir(by_descriptor)?.take(entries_max.saturating_add(1)).collect();
        if names.len() > entries_max {
            return Ok(None);
        }
        for found in names {
            let name = found?.file_name();
            // A name that no path of ours can hold is left out; so is what vanished since it was listed.
            let Ok(path) = directory.join(name.as_bytes()) else { continue };
            match entry_at(&folder, &name, path) {
                Ok(entry) => entries.extend(entry),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(entries))
    }
}

impl Source for LocalDirectory {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        self.look(directory, usize::MAX).map(Option::unwrap_or_default)
    }

    fn list_small(&self, directory: &FilePath, entries_max: usize) -> io::Result<Option<Vec<Entry>>> {
        self.look(directory, entries_max)
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        let Some(parent) = path.parent() else {
            let stat = nix::sys::stat::fstat(&self.root)?;
            return Ok(entry(EntryKind::Directory, &stat, path.clone()));
        };
        let folder = self.open_beneath(&parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        entry_at(&folder, OsStr::from_bytes(path.name()), path.clone())?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn descriptor(&self, directory: &FilePath) -> io::Result<Option<OwnedFd>> {
        self.open_beneath(directory, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Some)
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(LocalFile(self.file(path)?)))
    }
}

/// The entry of one name; none for what is neither file, directory nor link.
fn entry_at(folder: &OwnedFd, name: &OsStr, path: FilePath) -> io::Result<Option<Entry>> {
    let stat = fstatat(folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => EntryKind::File,
        libc::S_IFDIR => EntryKind::Directory,
        libc::S_IFLNK => EntryKind::Symlink { target: as_text(readlinkat(folder, name)?.as_bytes()) },
        _ => return Ok(None),
    };
    Ok(Some(entry(kind, &stat, path)))
}

fn entry(kind: EntryKind, stat: &FileStat, path: FilePath) -> Entry {
    Entry {
        path,
        kind,
        size: stat.st_size as u64,
        modified_at: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink as u32,
        version: version(
            (stat.st_dev, stat.st_ino, stat.st_size as u64),
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        ),
    }
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000))
}

/// Device, inode, size, mtime and ctime: whoever changes the content changes one of them.
fn version((dev, ino, size): (u64, u64, u64), mtime: (i64, i64), ctime: (i64, i64)) -> FileVersion {
    FileVersion(format!("{dev:x}.{ino:x}.{size:x}.{:x}.{:x}.{:x}.{:x}", mtime.0, mtime.1, ctime.0, ctime.1).into())
}

/// Text of a link's target in which `%XX` stands for a byte that is not printable UTF-8, and for `%`.
fn as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c == '%' || c.is_control() {
                let mut utf8 = [0; 4];
                c.encode_utf8(&mut utf8).bytes().for_each(|b| text.push_str(&format!("%{b:02X}")));
            } else {
                text.push(c);
            }
        }
        part.invalid().iter().for_each(|b| text.push_str(&format!("%{b:02X}")));
    }
    text
}

struct LocalFile(File);

impl SourceFile for LocalFile {
    fn stamp(&self) -> io::Result<Stamp> {
        let m: Metadata = self.0.metadata()?;
        let version = version((m.dev(), m.ino(), m.size()), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        Ok(Stamp { version, size: m.size(), changed_at: timestamp(m.ctime(), m.ctime_nsec()) })
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, LocalDirectory) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/f"), b"inside").unwrap();
        std::fs::write(dir.path().join("secret"), b"outside").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("etc")).unwrap();
        std::os::unix::fs::symlink("sub", root.join("within")).unwrap();
        let source = LocalDirectory::open(&root).unwrap();
        (dir, source)
    }

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    #[test]
    fn nothing_outside_the_volume_can_be_read_or_seen() {
        let (_dir, source) = tree();
        for out in ["out", "etc/passwd", "etc", "within/f"] {
            assert_eq!(source.open(&path(out)).err().unwrap().kind(), io::ErrorKind::NotFound, "{out}");
        }
        assert_eq!(source.list(&path("etc")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(source.stat(&path("etc/passwd")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(source.open(&path("sub/f")).is_ok());
    }

    #[test]
    fn a_listing_is_complete_sorted_and_tells_links_as_links() {
        let (_dir, source) = tree();
        nix::unistd::mkfifo(&_dir.path().join("volume/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let names: Vec<_> = source.list(&FilePath::root()).unwrap().into_iter().map(|e| e.path.to_string()).collect();
        assert_eq!(names, ["etc", "out", "sub", "within"]);
        assert_eq!(source.stat(&path("out")).unwrap().kind, EntryKind::Symlink { target: "../secret".into() });
        assert_eq!(source.stat(&path("sub/f")).unwrap().size, 6);
        assert_eq!(source.stat(&path("sub")).unwrap().kind, EntryKind::Directory);
        assert_eq!(source.stat(&path("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(source.open(&path("pipe")).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(source.open(&path("sub")).err().unwrap().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn stat_and_open_agree_on_the_version_and_a_change_changes_it() {
        let (dir, source) = tree();
        let before = source.stat(&path("sub/f")).unwrap().version;
        assert_eq!(source.open(&path("sub/f")).unwrap().stamp().unwrap().version, before);
        std::fs::write(dir.path().join("volume/sub/f"), b"INSIDE").unwrap();
        assert_ne!(source.stat(&path("sub/f")).unwrap().version, before);
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let told = LocalDirectory::open(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(told.contains("/no/such/folder"), "{told}");
    }
}
