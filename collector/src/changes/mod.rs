//! Writes, renames and deletes below watched directories, so that copies elsewhere can be told at once.
//!
//! One fanotify mark on each file system that holds a watched directory: the kernel queues what happens to names, and
//! reads cost nothing. The whole file system is heard and what lies outside the watched directories is dropped here; one
//! mark for each directory would need a walk first and would miss what is made meanwhile. An event names its directory
//! by a handle, which is opened to learn its path as it is now.
//!
//! A full queue is told as [`Change::Missed`]: who hears it looks again at what it cares about (promise J). File systems
//! without handles (FUSE, overlays before Linux 6.6) cannot be heard; [`Changes::start`] says so and hears the others.

mod event;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foretide_flow::{FilePath, VolumeId};

use self::event::Event;
use crate::{CollectorError, WatchedVolume};

/// Bytes taken from the queue at once: some hundred events.
const READ_BYTES: usize = 64 << 10;
/// Directories whose path is remembered. They are forgotten when any directory moves.
const DIRECTORIES_MAX: usize = 4096;

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Made, or moved here.
    Appeared,
    /// Closed by somebody who could write to it.
    Written,
    /// Deleted, or moved away.
    Gone,
}

/// One change, in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To a name in a watched volume.
    Of {
        /// The volume.
        volume: VolumeId,
        /// What changed.
        path: FilePath,
        /// How.
        what: What,
        /// Whether it is a directory: then all below it changed its name too.
        is_directory: bool,
    },
    /// More happened than the kernel could queue: anything may have changed.
    Missed,
}

/// A watched directory on a file system that can be heard.
struct Root {
    volume: VolumeId,
    path: PathBuf,
    fsid: u64,
    /// Opens handles of its file system.
    directory: File,
}

/// Hears changes until it is dropped.
pub struct Changes {
    queue: File,
    roots: Vec<Root>,
    directories: HashMap<Vec<u8>, Option<PathBuf>>,
}

impl Changes {
    /// Begins to hear; also the volumes that cannot be heard, with the reason.
    ///
    /// # Errors
    /// [`CollectorError::Kernel`] if there is no fanotify here at all: it wants root, or `CAP_SYS_ADMIN` with
    /// `CAP_DAC_READ_SEARCH`.
    pub fn start(watch: &[WatchedVolume]) -> Result<(Self, Vec<(VolumeId, String)>), CollectorError> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
        // SAFETY: numbers in, a descriptor out, which is checked before it is owned.
        let queue = unsafe {
            match libc::fanotify_init(flags, libc::O_RDONLY as u32) {
                -1 => return Err(CollectorError::Changes(io::Error::last_os_error())),
                fd => File::from_raw_fd(fd),
            }
        };
        let mut changes = Self { queue, roots: Vec::new(), directories: HashMap::new() };
        let mut deaf = Vec::new();
        for volume in watch {
            if let Err(e) = changes.hear(volume) {
                deaf.push((volume.volume.clone(), e.to_string()));
            }
        }
        Ok((changes, deaf))
    }

    fn hear(&mut self, volume: &WatchedVolume) -> io::Result<()> {
        let path = volume.root.canonicalize()?;
        let directory = File::open(&path)?;
        let mask = libc::FAN_CREATE
            | libc::FAN_DELETE
            | libc::FAN_MOVED_FROM
            | libc::FAN_MOVED_TO
            | libc::FAN_CLOSE_WRITE
            | libc::FAN_ONDIR;
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: both descriptors are ours and open; no path is given.
        let marked = unsafe {
            libc::fanotify_mark(self.queue.as_raw_fd(), flags, mask, directory.as_raw_fd(), std::ptr::null())
        };
        if marked != 0 {
            return Err(io::Error::last_os_error());
        }
        let fsid = fsid(&directory)?;
        self.roots.push(Root { volume: volume.volume.clone(), path, fsid, directory });
        Ok(())
    }

    /// What changed, waiting at most `max_wait` for something; empty if nothing did.
    ///
    /// # Errors
    /// If the kernel's queue cannot be read.
    pub fn next(&mut self, max_wait: Duration) -> io::Result<Vec<Change>> {
        let timeout_ms = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        let mut queue = libc::pollfd { fd: self.queue.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, and its count is one.
        if unsafe { libc::poll(&raw mut queue, 1, timeout_ms) } <= 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; READ_BYTES];
        match self.queue.read(&mut bytes) {
            Ok(n) => Ok(event::parse(&bytes[..n]).into_iter().flat_map(|e| self.tell(e)).collect()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Change> {
        let Event::Named { fsid, handle, name, what, is_directory } = event else { return vec![Change::Missed] };
        let directory = self.directory(fsid, handle);
        if is_directory && matches!(what, Some(What::Gone) | None) {
            // Perhaps it moved: paths below it are no longer what they were.
            self.directories.clear();
        }
        let Some(path) = directory.map(|d| d.join(std::ffi::OsStr::from_bytes(&name))) else { return Vec::new() };
        let what = what.unwrap_or_else(|| if path.symlink_metadata().is_ok() { What::Appeared } else { What::Gone });
        let in_root = |root: &Root| {
            let below = path.strip_prefix(&root.path).ok().filter(|_| root.fsid == fsid)?;
            let path = FilePath::new(below.as_os_str().as_bytes()).ok()?;
            Some(Change::Of { volume: root.volume.clone(), path, what, is_directory })
        };
        self.roots.iter().filter_map(in_root).collect()
    }

    /// The path of a directory; none if it is gone or lies outside all roots.
    fn directory(&mut self, fsid: u64, handle: Vec<u8>) -> Option<PathBuf> {
        if let Some(known) = self.directories.get(&handle) {
            return known.clone();
        }
        let root = self.roots.iter().find(|r| r.fsid == fsid)?;
        let path = path_of(&root.directory, &handle).ok();
        let inside = path.filter(|p| self.roots.iter().any(|r| p.starts_with(&r.path)));
        if self.directories.len() >= DIRECTORIES_MAX {
            self.directories.clear();
        }
        self.directories.insert(handle, inside.clone());
        inside
    }
}

/// Asks the kernel for the path of what a handle names.
fn path_of(on: &File, handle: &[u8]) -> io::Result<PathBuf> {
    // The kernel's struct is two integers and bytes; words keep it aligned.
    let mut words = vec![0u32; handle.len().div_ceil(4)];
    for (word, bytes) in words.iter_mut().zip(handle.chunks(4)) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(whole);
    }
    // SAFETY: `words` is a file_handle of the length that its first word says, as the kernel gave it.
    let fd =
        unsafe { libc::open_by_handle_at(on.as_raw_fd(), words.as_mut_ptr().cast(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call above just made and nobody else holds.
    let directory = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::read_link(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()))
}

/// The number by which events name a file system.
fn fsid(directory: &File) -> io::Result<u64> {
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the struct is written whole if the call succeeds, and read only then; its `f_fsid` is eight bytes.
    unsafe {
        if libc::fstatfs(directory.as_raw_fd(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(std::mem::transmute::<libc::fsid_t, u64>(found.assume_init().f_fsid))
    }
}
