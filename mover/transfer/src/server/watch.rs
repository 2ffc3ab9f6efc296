//! Tells peers what changes in the directories that they have listed, so that they need not ask again.
//!
//! A peer that keeps a [`Watch`](crate::message::Request::Watch) open is told of every directory that it lists from then on. The
//! kernel's inotify watches are placed before the directory is read, so no change falls between; the listing says
//! which watch tells of it. What was changed is looked up when it is told, so many changes of one name in a row are
//! one. A directory that is told of no longer, because the bound on watches was met or it was moved, is said to be
//! unsure; when the kernel or a peer loses count the watch ends, and the peer knows that nothing is told any more.
//!
//! Only changes made through this machine's kernel are seen: writes by other clients of a network file system, and
//! stores into a shared mapping, are noticed when a lease ends.

mod table;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foretide_flow::{FilePath, NodeId, VolumeId};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::source::Source;
use table::Table;
pub(super) use table::Told;

/// What makes a listing differ from what it was.
fn wanted() -> AddWatchFlags {
    AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
}

/// The kernel's end, as tokio waits for it.
struct Kernel(Inotify);

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// All watches of a server.
pub(super) struct Watches {
    inotify: Arc<AsyncFd<Kernel>>,
    table: Arc<Mutex<Table<WatchDescriptor>>>,
    reading: AbortHandle,
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn lock(table: &Mutex<Table<WatchDescriptor>>) -> MutexGuard<'_, Table<WatchDescriptor>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watches {
    /// Begins to listen to the kernel, for at most `directories_max` directories.
    ///
    /// # Errors
    /// The kernel's: this user has no inotify instance left.
    pub(super) fn start(directories_max: usize) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the descriptor is owned by what is handed over, stays the same, and is open until that is dropped.
        let inotify = unsafe { AsyncFd::register_with_interest(Kernel(inotify), Interest::READABLE) }?;
        let inotify = Arc::new(inotify);
        let table = Arc::new(Mutex::new(Table::new(directories_max)));
        let reading = tokio::spawn(read_events(inotify.clone(), table.clone())).abort_handle();
        Ok(Self { inotify, table, reading })
    }

    /// A peer wants to be told; an earlier watch of the same node ends.
    pub(super) fn subscribe(&self, node: &NodeId) -> Subscription {
        let (id, woken) = lock(&self.table).subscribe(node);
        Subscription { id, woken, table: self.table.clone() }
    }

    /// Sees that changes in a directory are told to a peer, and answers the number of the watch that tells them; 0 if
    /// none does. Blocks as opening a directory does.
    pub(super) fn hold(&self, node: &NodeId, volume: &VolumeId, source: &dyn Source, directory: &FilePath) -> u32 {
        let Some(id) = lock(&self.table).of_node(node) else { return 0 };
        let Ok(Some(folder)) = source.descriptor(directory) else { return 0 };
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        // Under the table's lock, so that nobody removes the watch between the kernel's answer and its entry here.
        let mut table = lock(&self.table);
        let inotify = &self.inotify.get_ref().0;
        match inotify.add_watch(&path, wanted()) {
            Ok(watch) => {
                for old in table.hold(watch, volume, directory, id) {
                    // It may be gone by itself, with its directory.
                    let _ = inotify.rm_watch(old);
                }
                id
            }
            Err(error) => {
                tracing::debug!(%error, %directory, "changes of this directory are not told; raise fs.inotify.max_user_watches");
                0
            }
        }
    }
}

async fn read_events(inotify: Arc<AsyncFd<Kernel>>, table: Arc<Mutex<Table<WatchDescriptor>>>) {
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        match ready.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from)) {
            Ok(Ok(events)) => {
                let mut table = lock(&table);
                for event in &events {
                    take(&mut table, event);
                    if event.mask.contains(AddWatchFlags::IN_MOVE_SELF) {
                        // It lives on elsewhere, where nobody has listed it; it may be gone by now.
                        let _ = inotify.get_ref().0.rm_watch(event.wd);
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the kernel does not tell of changes any more; leases serve");
                lock(&table).end_all();
                return;
            }
            // Not ready after all.
            Err(_) => {}
        }
    }
}

fn take(table: &mut Table<WatchDescriptor>, event: &InotifyEvent) {
    let gone = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_IGNORED
        | AddWatchFlags::IN_UNMOUNT;
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        table.end_all();
    } else if event.mask.intersects(gone) {
        table.gone(event.wd);
    } else if let Some(name) = &event.name {
        table.changed(event.wd, name.as_encoded_bytes());
    }
}

/// One peer's watch; it ends when dropped.
pub(super) struct Subscription {
    id: u32,
    woken: Arc<Notify>,
    table: Arc<Mutex<Table<WatchDescriptor>>>,
}

impl Subscription {
    /// Its number, never 0.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// What there is to tell; none if the watch has ended.
    pub(super) async fn next(&self) -> Option<Vec<Told>> {
        loop {
            let told = lock(&self.table).take(self.id)?;
            if !told.is_empty() {
                return Some(told);
            }
            self.woken.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.table).unsubscribe(self.id);
    }
}
