//! Which directories are watched, as the kernel knows them.
//!
//! A root is told to the probes by its inode: the agent opens the directory, asks the probe at `sys_exit` for the
//! inode behind the descriptor, and keeps the descriptor so that the inode stays in memory. The root of a file system
//! needs no keeping, and a mount that we kept busy could not be unmounted. A mount below a root is a root of its own,
//! with the path between as prefix.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use foretide_flow::{FilePath, VolumeId};

use crate::WatchedVolume;

/// A directory with its place in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub volume: VolumeId,
    pub prefix: FilePath,
    pub directory: PathBuf,
    /// The watched directory itself: it must be there.
    pub is_root: bool,
}

impl Place {
    /// The path in the volume of a file that lies at `below` in this directory.
    pub(super) fn path(&self, below: &[u8]) -> Option<FilePath> {
        if self.prefix.is_root() {
            return FilePath::new(below).ok();
        }
        let mut bytes = self.prefix.as_bytes().to_vec();
        bytes.push(b'/');
        bytes.extend_from_slice(below);
        FilePath::new(&bytes).ok()
    }
}

/// The watched directories, the mounts below them, and the layers of those that are overlays: a mapping of a file in an
/// overlay is one of the file in its layer.
pub(super) fn places(watch: &[WatchedVolume], mounts: &[Mount]) -> Vec<Place> {
    let mut places = Vec::new();
    for volume in watch {
        let root = volume.root.canonicalize().unwrap_or_else(|_| volume.root.clone());
        let place = |prefix: &FilePath, directory: PathBuf, is_root| Place {
            volume: volume.volume.clone(),
            prefix: prefix.clone(),
            directory,
            is_root,
        };
        let around = mounts.iter().filter(|m| root.starts_with(&m.point)).max_by_key(|m| m.point.as_os_str().len());
        let below_point = around.and_then(|m| root.strip_prefix(&m.point).ok());
        places.push(place(&FilePath::root(), root.clone(), true));
        let layers = around.zip(below_point).map_or(Vec::new(), |(m, below)| m.layers(below));
        places.extend(layers.into_iter().map(|layer| place(&FilePath::root(), layer, false)));
        for mount in mounts {
            let below = mount.point.strip_prefix(&root).ok().filter(|p| !p.as_os_str().is_empty());
            let Some(prefix) = below.and_then(|p| FilePath::new(p.as_os_str().as_bytes()).ok()) else { continue };
            // The mount of a volume of its own speaks for itself.
            if watch.iter().all(|w| w.root != mount.point) {
                places.push(place(&prefix, mount.point.clone(), false));
                let layers = mount.layers(Path::new(""));
                places.extend(layers.into_iter().map(|layer| place(&prefix, layer, false)));
            }
        }
    }
    places
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The directory of the file system that is mounted; not `/` for a bind mount.
    root: PathBuf,
    point: PathBuf,
    /// Directories that an overlay is made of, the writable one first.
    layers: Vec<PathBuf>,
}

impl Mount {
    /// Where the layers keep what lies at `below` under the mount point.
    fn layers(&self, below: &Path) -> Vec<PathBuf> {
        let inside = self.root.strip_prefix("/").unwrap_or(&self.root).join(below);
        self.layers.iter().map(|layer| layer.join(&inside)).collect()
    }
}

/// The mounts in `/proc/self/mountinfo`.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// The fields are: id, parent, device, root, mount point, options, optional fields, `-`, type, source, super options.
fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (PathBuf::from(unescape(fields.next()?)), PathBuf::from(unescape(fields.next()?)));
    let mut of_super = fields.skip_while(|f| *f != "-").skip(1);
    let is_overlay = of_super.next() == Some("overlay");
    let options = of_super.nth(1).filter(|_| is_overlay).unwrap_or_default();
    Some(Mount { root, point, layers: layers(options) })
}

fn layers(options: &str) -> Vec<PathBuf> {
    let of = |key: &'static str| options.split(',').filter_map(move |o| o.strip_prefix(key));
    let upper = of("upperdir=");
    let lower = of("lowerdir=").flat_map(|l| l.split(':')).chain(of("lowerdir+="));
    upper.chain(lower).map(|l| PathBuf::from(unescape(l))).filter(|l| l.is_absolute()).collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| b == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(out)
}

/// Opens a directory as a name only: no file system is asked for anything.
pub(super) fn open_path(directory: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated name; the result is checked before it is owned.
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call above just made and nobody else holds.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the probe look at this descriptor. That the call itself fails for such descriptors does not matter.
pub(super) fn ask(fd: &impl AsRawFd) {
    // SAFETY: touches no memory.
    unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_NORMAL) };
}

/// Whether mounts changed since this was last asked.
pub(super) struct MountWatch(File);

impl MountWatch {
    pub(super) fn new() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    pub(super) fn changed(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one pollfd, and its count is one.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLPRI != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_below_a_root_is_a_root_with_a_prefix() {
        let watch = [
            WatchedVolume { volume: VolumeId::new("scans").unwrap(), root: "/no/such/data".into() },
            WatchedVolume { volume: VolumeId::new("own").unwrap(), root: "/no/such/data/own".into() },
        ];
        let info = "36 35 98:0 / /no/such/data/a\\040b rw - ext3 x rw\n37 35 0:1 / /no/such/data/own rw - tmpfs t rw\n\
                    38 35 0:2 / /no/such/database rw - tmpfs t rw\n";
        let places = places(&watch, &mounts(info));
        let told: Vec<_> =
            places.iter().map(|p| (p.volume.as_str(), p.prefix.to_string(), p.directory.to_str().unwrap())).collect();
        assert_eq!(
            told,
            [
                ("scans", String::new(), "/no/such/data"),
                ("scans", "a b".into(), "/no/such/data/a b"),
                ("own", String::new(), "/no/such/data/own"),
            ]
        );
        assert_eq!(places[1].path(b"c/d").unwrap().to_string(), "a b/c/d");
    }

    #[test]
    fn the_layers_of_an_overlay_are_roots_too() {
        let watch = [WatchedVolume { volume: VolumeId::new("scans").unwrap(), root: "/no/such/merged/data".into() }];
        let info = "36 35 0:5 /sub /no/such/merged rw shared:3 - overlay overlay rw,lowerdir=/low/a:/low/b,upperdir=/up,workdir=/w\n\
                    37 35 98:0 / /no/such rw - ext4 /dev/x rw,lowerdir=/not/this\n";
        let directories: Vec<_> = places(&watch, &mounts(info)).into_iter().map(|p| (p.directory, p.is_root)).collect();
        assert_eq!(
            directories,
            [
                ("/no/such/merged/data".into(), true),
                ("/up/sub/data".into(), false),
                ("/low/a/sub/data".into(), false),
                ("/low/b/sub/data".into(), false),
            ]
        );
    }
}
