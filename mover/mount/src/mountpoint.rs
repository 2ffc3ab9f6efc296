//! The mount point: fit to be mounted on, and clean again afterwards.
//!
//! A daemon that was killed leaves its mount behind, and every call below it says ENOTCONN. Such a mount is taken away
//! at the next start if it is ours: it has our name as its source in `/proc/self/mountinfo`. Anybody else's is left
//! alone and named.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};

/// What stands as the source in the mount table.
pub const SOURCE_NAME: &str = "foretide";

/// A daemon that was killed again and again leaves one mount on the other; beyond so many a person should look.
const STALE_MOUNTS_MAX: usize = 16;

/// What a core's second-level cache holds twice, on the way through us: with 256 KiB a cold sequential read ran at 1.4 to 1.9
/// GB/s on a core with 1 MiB of it, with 128 KiB at 1.3, with 1 MiB at 1.1.
const READ_AHEAD_KIB: u32 = 256;

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It is not there.
    #[error("mount point {0} does not exist: make it with `mkdir -p {0}`")]
    Missing(PathBuf),
    /// It is a file.
    #[error("mount point {0} is not a directory: name an empty directory")]
    NotADirectory(PathBuf),
    /// There is something in it.
    #[error("mount point {0} is not empty: name an empty directory, or move away what is in it")]
    NotEmpty(PathBuf),
    /// Something else is mounted there.
    #[error("mount point {path} is in use by {by}: unmount it with `umount {path}`, or name another directory")]
    InUse {
        /// Where.
        path: PathBuf,
        /// Source and type of what is there.
        by: String,
    },
    /// It may not be looked at.
    #[error("mount point {path} cannot be used: {error}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel's side of FUSE is missing.
    #[error("/dev/fuse cannot be opened ({0}): load the module with `modprobe fuse`, and give a container the device")]
    NoDevice(io::Error),
    /// Neither root nor a helper that is.
    #[error("mounting as a user needs fusermount3: install it with `apt-get install fuse3`, or run as root ({0})")]
    NoHelper(io::Error),
    /// The kernel or fusermount3 refused.
    #[error("mounting on {path} failed: {error}")]
    Refused {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// It is still there.
    #[error("unmounting {path} failed: {error}; try `fusermount3 -u -z {path}`")]
    StillMounted {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The configuration asks for something impossible.
    #[error("{0}")]
    BadConfig(String),
}

/// One line of the mount table that concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    /// As `major:minor`.
    device: String,
    source: String,
    kind: String,
}

/// Makes a directory fit to be mounted on: takes away stale mounts of ours and checks the rest.
///
/// # Errors
/// [`MountError`] with the remedy.
pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let unusable = |error| MountError::Unusable { path: path.to_owned(), error };
    for _ in 0..STALE_MOUNTS_MAX {
        match std::fs::metadata(path) {
            Err(error) if is_stale(&error) => take_away(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::Missing(path.to_owned())),
            Err(error) => return Err(unusable(error)),
            Ok(found) if !found.is_dir() => return Err(MountError::NotADirectory(path.to_owned())),
            Ok(_) => break,
        }
    }
    let path = path.canonicalize().map_err(unusable)?;
    if let Some(by) = mounted_on(&path).map_err(unusable)? {
        return Err(MountError::InUse { path, by: format!("{} ({})", by.source, by.kind) });
    }
    let mut held = std::fs::read_dir(&path).map_err(unusable)?;
    if held.next().is_some() {
        return Err(MountError::NotEmpty(path));
    }
    Ok(path)
}

/// Takes away what a killed daemon of ours left at a path, if it did; whatever else is there stays as it is.
pub fn unmount_stale(path: &Path) {
    for _ in 0..STALE_MOUNTS_MAX {
        let stale = std::fs::metadata(path).is_err_and(|error| is_stale(&error));
        if !stale || take_away(path).is_err() {
            return;
        }
    }
}

/// Takes a mount away; if somebody is in it, it goes when they leave.
///
/// # Errors
/// [`MountError::StillMounted`].
pub fn unmount(path: &Path) -> Result<(), MountError> {
    let still = |error| MountError::StillMounted { path: path.to_owned(), error };
    let tried = umount2(path, MntFlags::empty()).or_else(|_| umount2(path, MntFlags::MNT_DETACH));
    match tried {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EPERM) => by_helper(path).map_err(still),
        // Somebody else was faster.
        Err(nix::errno::Errno::EINVAL) => Ok(()),
        Err(errno) => Err(still(errno.into())),
    }
}

fn by_helper(path: &Path) -> io::Result<()> {
    let told = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(path).output()?;
    if told.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&told.stderr).trim().to_owned()))
    }
}

/// Lets the kernel ask for more ahead than its default of 128 KiB, which halves the requests of a sequential reader. Only
/// root may; without it things are slower, nothing else.
pub fn widen_read_ahead(path: &Path) {
    let widened = mounted_on(path).and_then(|mounted| {
        let device = mounted.ok_or(io::ErrorKind::NotFound)?.device;
        std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB.to_string())
    });
    if let Err(error) = widened {
        tracing::debug!(%error, "read-ahead stays as the kernel has it");
    }
}

/// ENOTCONN: the daemon behind the mount is gone. ECONNABORTED: it was torn off.
fn is_stale(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

fn take_away(path: &Path) -> Result<(), MountError> {
    let unusable = |error| MountError::Unusable { path: path.to_owned(), error };
    // The path itself cannot be resolved any more, its parent can.
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = parent.canonicalize().map_err(unusable)?.join(path.file_name().unwrap_or_default());
    match mounted_on(&whole).map_err(unusable)? {
        Some(by) if by.source == SOURCE_NAME => {
            tracing::info!(path = %whole.display(), "taking away the mount of a daemon that is gone");
            unmount(&whole)
        }
        Some(by) => {
            Err(MountError::InUse { path: whole, by: format!("{} ({}), whose daemon is gone", by.source, by.kind) })
        }
        None => Err(MountError::Unusable { path: whole, error: io::Error::from_raw_os_error(libc::ENOTCONN) }),
    }
}

/// What is mounted on exactly this path, the topmost if several are.
fn mounted_on(path: &Path) -> io::Result<Option<Mounted>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|b| *b == b'\n').filter_map(|line| entry(line, path)).next_back())
}

/// `36 35 98:0 /root /point opts… - type source superopts`, with spaces in the point as `\040`.
fn entry(line: &[u8], path: &Path) -> Option<Mounted> {
    let line = String::from_utf8_lossy(line).into_owned();
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ');
    let (device, point) = (words.nth(2)?, unescape(words.nth(1)?));
    let mut words = after.split(' ');
    let (kind, source) = (words.next()?.to_owned(), words.next()?.to_owned());
    (point == path).then(|| Mounted { device: device.to_owned(), source, kind })
}

fn unescape(point: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(point.len());
    let mut rest = point.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        if let (b'\\', Some(byte)) = (first, octal) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_mount_point_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let missing = prepare(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("mkdir"), "{missing}");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let told = prepare(&file).unwrap_err().to_string();
        assert!(told.contains("not a directory"), "{told}");
        let told = prepare(dir.path()).unwrap_err().to_string();
        assert!(told.contains("not empty"), "{told}");
        let told = prepare(Path::new("/proc")).unwrap_err().to_string();
        assert!(told.contains("in use by") && told.contains("proc"), "{told}");
    }

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let line = br"36 35 0:40 / /mnt/a\040b rw,nosuid shared:1 - fuse foretide rw,user_id=0";
        let found = entry(line, Path::new("/mnt/a b")).unwrap();
        assert_eq!((found.source.as_str(), found.kind.as_str()), ("foretide", "fuse"));
        assert_eq!(found.device, "0:40");
        assert_eq!(entry(line, Path::new("/mnt/a")), None);
    }
}
