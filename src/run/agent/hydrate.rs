//! Hydrate mode: what a move has brought lies as a plain file in a folder, for sites that want no FUSE. `cache.hydrate` names
//! the folder; below it the volumes are directories, as in a mount.
//!
//! A file appears whole, with its source's mode and time, or not at all; it goes when the store evicts it. It is a
//! copy, since programs may do with it what they like and the store's own bytes must stay what their digests say: where
//! the file system shares extents (XFS, Btrfs) it costs no space. What nothing has moved here is not in the folder.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foretide_flow::{Assignment, Entry, FilePath, Move, MoveId, Outcome, VolumeId};
use foretide_transfer::Mover;
use tokio::sync::{Semaphore, mpsc};

/// Moves whose end is awaited; beyond it the oldest plans' files are not hydrated. A plan holds far fewer.
const AWAITED_MAX: usize = 1_000_000;
/// Files asked about and copied at the same time: asking crosses the link.
const AT_ONCE: usize = 64;
/// What is being written has this name and a number, for copies go on side by side, until it is whole.
const PARTIAL: &str = ".foretide-partial-";
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The folder, and whose end is awaited. Cheap to clone.
#[derive(Clone)]
pub struct Hydrator {
    root: PathBuf,
    mover: Arc<Mover>,
    awaited: Arc<Mutex<HashMap<MoveId, (VolumeId, FilePath)>>>,
}

impl Hydrator {
    /// Makes the folder.
    ///
    /// # Errors
    /// The system's, with the folder's name.
    pub fn start(root: &Path, mover: Arc<Mover>) -> io::Result<Self> {
        fs::create_dir_all(root)
            .map_err(|e| io::Error::new(e.kind(), format!("cache.hydrate {}: {e}", root.display())))?;
        Ok(Self { root: root.to_owned(), mover, awaited: Arc::default() })
    }

    /// Moves whose files are wanted here when they end.
    pub fn expect(&self, assignment: &Assignment) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        assignment.cancel.iter().for_each(|id| drop(awaited.remove(id)));
        let room = AWAITED_MAX.saturating_sub(awaited.len());
        let wanted = |m: &Move| (m.id.clone(), (m.volume.clone(), m.path.clone()));
        awaited.extend(assignment.run.iter().take(room).map(wanted));
    }

    /// Passes outcomes on, and does what they ask for on the way.
    pub async fn follow(self, mut happened: mpsc::Receiver<Outcome>, onward: mpsc::Sender<Outcome>) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(outcome) = happened.recv().await {
            match &outcome {
                Outcome::Moved { id, .. } => self.moved(id, &at_once).await,
                Outcome::Failed { id, .. } => drop(self.take(id)),
                Outcome::Evicted { volume, path, .. } => self.evicted(volume, path).await,
                _ => {}
            }
            if onward.send(outcome).await.is_err() {
                return;
            }
        }
    }

    fn take(&self, id: &MoveId) -> Option<(VolumeId, FilePath)> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Outcomes wait only when many copies are under way: then the disk is what is slow.
    async fn moved(&self, id: &MoveId, at_once: &Arc<Semaphore>) {
        let Some((volume, path)) = self.take(id) else { return };
        let Ok(permit) = Arc::clone(at_once).acquire_owned().await else { return };
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(why) = this.hydrate(&volume, &path).await {
                tracing::warn!(%volume, %path, why, folder = %this.root.display(), "not hydrated; is there room there?");
            }
            drop(permit);
        });
    }

    async fn hydrate(&self, volume: &VolumeId, path: &FilePath) -> Result<(), String> {
        let entry = self.mover.stat(volume, path).await.map_err(|e| e.to_string())?;
        let (mover, target, volume, path) =
            (self.mover.clone(), self.target(volume, path), volume.clone(), path.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let store = mover.store();
            let Some((key, _)) = store.newest(&volume, &path).filter(|(key, _)| key.version == entry.version) else {
                return Ok(()); // Another version by now: its own move brings it.
            };
            // A large file comes in several moves; the last one finds it whole.
            let Ok(whole) = store.open_whole(&key) else { return Ok(()) };
            place(&whole.file, &target, &entry)?;
            // Evicted meanwhile: its outcome may have been too early to find the copy.
            if store.lookup(&key).is_none() {
                fs::remove_file(&target)?;
            }
            Ok(())
        });
        copied.await.map_err(|e| e.to_string())?.map_err(|e: io::Error| e.to_string())
    }

    async fn evicted(&self, volume: &VolumeId, path: &FilePath) {
        let target = self.target(volume, path);
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(target)).await;
        match removed {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%volume, %path, %error, "an evicted file stays in the folder");
            }
            _ => {}
        }
    }

    fn target(&self, volume: &VolumeId, path: &FilePath) -> PathBuf {
        self.root.join(volume.as_str()).join(OsStr::from_bytes(path.as_bytes()))
    }
}

/// Copies a file to its place: whole, with mode and time, or not at all.
fn place(from: &File, target: &Path, entry: &Entry) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let partial = folder.join(format!("{PARTIAL}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let copied = copy(from, &partial, entry).and_then(|()| fs::rename(&partial, target));
    if copied.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy(from: &File, partial: &Path, entry: &Entry) -> io::Result<()> {
    let mut to = File::create(partial)?;
    let mut from = from.try_clone()?;
    io::Seek::rewind(&mut from)?;
    // The standard library asks for shared extents or an in-kernel copy first.
    let copied = io::copy(&mut io::Read::take(&mut from, entry.size), &mut to)?;
    if copied != entry.size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.set_permissions(Permissions::from_mode(entry.mode))?;
    to.set_modified(time(entry.modified_at.0))
}

fn time(us: i64) -> SystemTime {
    let since = Duration::from_micros(us.unsigned_abs());
    if us < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{EntryKind, FileVersion, Timestamp};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_placed_whole_with_its_mode_and_time_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::write(&source, "twelve bytes and the store's own tail").unwrap();
        let mut entry = Entry {
            path: FilePath::parse("a/b").unwrap(),
            kind: EntryKind::File,
            size: 12,
            modified_at: Timestamp(1_700_000_000_000_000),
            mode: 0o640,
            uid: 0,
            gid: 0,
            links: 1,
            version: FileVersion("v".into()),
        };
        let target = folder.path().join("out/volume/a/b");
        let from = File::open(&source).unwrap();
        place(&from, &target, &entry).unwrap();
        place(&from, &target, &entry).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"twelve bytes");
        let meta = fs::metadata(&target).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o640, 1_700_000_000));
        entry.size = 1000;
        assert_eq!(place(&from, &target, &entry).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(fs::read(&target).unwrap(), b"twelve bytes", "what was there stays");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing half done is left");
    }
}
