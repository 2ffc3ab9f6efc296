//! What the mount is told from outside: what somebody will look at soon, and what changed at a source.
//!
//! The kernel keeps names and attributes for a lease of its own; where one of them is not right any more it is told to
//! look again. That call waits while a look into the same directory is under way, so it is made on threads that may
//! wait, never on one that such a look needs for its answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak};

use foretide_flow::{FilePath, VolumeId};
use foretide_transfer::News;
use fuser::{BackingId, INodeNo, Notifier};
use tokio::sync::mpsc;

use crate::fs::Fs;
use crate::tree::{Place, ROOT_INO};

/// News taken over in one go.
const NEWS_AT_ONCE: usize = 1024;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Hints {
    fs: Weak<Fs<BackingId>>,
    notifier: Notifier,
}

impl Hints {
    pub(crate) fn new(fs: &Arc<Fs<BackingId>>, notifier: Notifier) -> Self {
        Self { fs: Arc::downgrade(fs), notifier }
    }

    /// Shows one more volume as a top directory, at once; one that is shown already stays as it is. Nothing of it is
    /// asked for yet. May block for as long as a look takes.
    pub fn show(&self, volume: &VolumeId) {
        let Some(fs) = self.fs.upgrade() else { return };
        if fs.namespace.show(volume) {
            self.look_again(ROOT_INO, volume.as_str().as_bytes());
        }
    }

    /// Somebody will look into this directory soon, because data is being moved for him: learns it and the
    /// directories that lead to it, so that he waits for none of them. Failing is no harm: then he asks himself.
    pub async fn foresee(&self, volume: &VolumeId, directory: &FilePath) {
        let Some(fs) = self.fs.upgrade() else { return };
        if let Err(error) = fs.namespace.foresee(volume, directory).await {
            tracing::debug!(%volume, %directory, %error, "not learned ahead");
        }
    }

    /// Something changed under this name: it is asked again at the next look, lease or no lease. Handles that are open
    /// stay with their version. A name that nobody knows costs nothing. May block for as long as a look takes.
    pub fn changed(&self, volume: &VolumeId, path: &FilePath) {
        let Some(fs) = self.fs.upgrade() else { return };
        let Some((parent, name)) = path.parent().map(|p| (p, path.name())) else { return };
        let Some(parent) = fs.namespace.expire(volume, &parent) else { return };
        self.look_again(parent, name);
    }

    /// Has the kernel read a whole cached file into its page cache, in the background: for what will be read next.
    /// Blocks on the local disk for as long as opening a file takes.
    ///
    /// # Errors
    /// `NotFound` if the file is not whole in the store or not known to the mount; the disk's error.
    pub fn warm_pages(&self, volume: &VolumeId, path: &FilePath) -> io::Result<()> {
        let fs = self.fs.upgrade().ok_or(io::ErrorKind::NotFound)?;
        fs.warm_pages(&Place { volume: volume.clone(), path: path.clone() })
    }

    /// What the kernel has of a file in its page cache goes, and is asked of us again. Nobody's reads fail by it.
    pub fn forget_pages(&self, volume: &VolumeId, path: &FilePath) {
        let Some(fs) = self.fs.upgrade() else { return };
        let known = fs.namespace.tree().ino_at(volume, path);
        // Fails mostly because the kernel holds no such thing.
        if let Some(Err(error)) = known.map(|ino| self.notifier.inval_inode(INodeNo(ino), 0, 0)) {
            tracing::trace!(%volume, %path, %error, "the kernel had no pages of it");
        }
    }

    /// The kernel may hold the name under its lease, and what it holds of the directory's attributes.
    fn look_again(&self, parent: u64, name: &[u8]) {
        let entry = self.notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(name));
        let attributes = self.notifier.inval_inode(INodeNo(parent), -1, 0);
        // Mostly that the kernel holds no such thing.
        if let Err(error) = entry.and(attributes) {
            tracing::trace!(parent, %error, "what the kernel holds ends with its lease");
        }
    }
}

/// Takes over what the sources tell, until they or the mount are gone.
pub(crate) async fn hear(mut news: mpsc::Receiver<News>, hints: Hints) {
    let mut batch = Vec::new();
    while news.recv_many(&mut batch, NEWS_AT_ONCE).await > 0 {
        let Some(fs) = hints.fs.upgrade() else { return };
        let stale = fs.namespace.hear(std::mem::take(&mut batch));
        let hints = hints.clone();
        let told = tokio::task::spawn_blocking(move || {
            stale.iter().for_each(|(parent, name)| hints.look_again(*parent, name));
        });
        if told.await.is_err() {
            return;
        }
    }
}
