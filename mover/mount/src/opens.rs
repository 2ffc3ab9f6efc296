//! Which inode is open, how often, and in which mode.
//!
//! The kernel refuses an inode that is open by passthrough and through the page cache at once (EIO), and wants
//! concurrent passthrough opens of an inode to share one backing id. So the first open of an inode fixes its mode until
//! the last one is closed, and that is the whole of this table. A release reaches us after the kernel has counted its
//! close, so our count is never below the kernel's.
//!
//! The choice is made under the lock of the inode's shard: it opens a local file and makes one ioctl, both short; two
//! first opens of one inode must not choose apart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::origin::Whole;

/// Enough that the few threads that serve the kernel rarely meet.
const SHARDS: usize = 64;

/// How an inode is open. `B` is the kernel's handle on a backing file.
pub enum Mode<B> {
    /// The kernel reads the backing file itself.
    Passthrough(Arc<Backing<B>>),
    /// The kernel asks us and keeps the pages; from this file if the version was whole when it was opened.
    Cached(Option<Arc<dyn Whole>>),
}

/// A backing file that the kernel reads, and the store's word that it stays.
pub struct Backing<B> {
    /// The kernel's handle; given back before the file is.
    pub id: B,
    /// Held, not read.
    pub _whole: Option<Box<dyn Whole>>,
}

impl<B> Clone for Mode<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Passthrough(backing) => Self::Passthrough(Arc::clone(backing)),
            Self::Cached(file) => Self::Cached(file.clone()),
        }
    }
}

struct OpenInode<B> {
    opens: u32,
    mode: Mode<B>,
}

/// The table.
pub struct Opens<B> {
    shards: Vec<Mutex<HashMap<u64, OpenInode<B>>>>,
}

impl<B> Default for Opens<B> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<B> Opens<B> {
    /// Counts an open. `choose` is asked for the mode only if the inode is not open; it may decline.
    pub fn open(&self, ino: u64, choose: impl FnOnce() -> Option<Mode<B>>) -> Option<Mode<B>> {
        let mut shard = self.shard(ino);
        if let Some(open) = shard.get_mut(&ino) {
            open.opens += 1;
            return Some(open.mode.clone());
        }
        let mode = choose()?;
        shard.insert(ino, OpenInode { opens: 1, mode: mode.clone() });
        Some(mode)
    }

    /// Counts a close; the last one frees the mode.
    pub fn close(&self, ino: u64) {
        let mut shard = self.shard(ino);
        if let Some(open) = shard.get_mut(&ino) {
            open.opens -= 1;
            if open.opens == 0 {
                shard.remove(&ino);
            }
        }
    }

    /// Opens that are not closed.
    pub fn count(&self) -> u64 {
        (0..SHARDS as u64).map(|s| self.shard(s).values().map(|o| u64::from(o.opens)).sum::<u64>()).sum()
    }

    fn shard(&self, ino: u64) -> std::sync::MutexGuard<'_, HashMap<u64, OpenInode<B>>> {
        self.shards[ino as usize % SHARDS].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passthrough(id: u32) -> Mode<u32> {
        Mode::Passthrough(Arc::new(Backing { id, _whole: None }))
    }

    proptest! {
        /// Against a plain count: a mode never changes while an inode is open, and is free when it is not.
        #[test]
        fn the_first_open_decides_until_the_last_close(steps in proptest::collection::vec((0u64..4, any::<bool>(), any::<bool>()), 0..200)) {
            let opens = Opens::<u32>::default();
            let mut plain: HashMap<u64, (u32, bool)> = HashMap::new();
            for (ino, open, whole) in steps {
                if open {
                    let choose = || Some(if whole { passthrough(7) } else { Mode::Cached(None) });
                    let mode = opens.open(ino, choose).unwrap();
                    let entry = plain.entry(ino).or_insert((0, whole));
                    entry.0 += 1;
                    prop_assert_eq!(matches!(mode, Mode::Passthrough(_)), entry.1);
                } else if let Some(entry) = plain.get_mut(&ino) {
                    opens.close(ino);
                    entry.0 -= 1;
                    if entry.0 == 0 {
                        plain.remove(&ino);
                    }
                }
                prop_assert_eq!(opens.count(), plain.values().map(|(n, _)| u64::from(*n)).sum::<u64>());
            }
        }
    }

    #[test]
    fn concurrent_passthrough_opens_share_one_backing() {
        let opens = Opens::<u32>::default();
        let first = opens.open(9, || Some(passthrough(1)));
        let second = opens.open(9, || unreachable!("the mode is fixed"));
        match (first, second) {
            (Some(Mode::Passthrough(a)), Some(Mode::Passthrough(b))) => assert!(Arc::ptr_eq(&a, &b)),
            _ => panic!("not by passthrough"),
        }
    }
}
