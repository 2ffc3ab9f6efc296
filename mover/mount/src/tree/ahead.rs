//! Which directories to ask for before somebody does: decided from the table alone.
//!
//! A walk (`ls -R`, `find`, a data loader that lists its folder) opens directory after directory, and over a wide-area
//! link each costs a round trip. So when a directory is looked into, its subdirectories are wanted; and when the one before
//! it was looked into, too, somebody is walking: then the ones after it are wanted, as with read-ahead of a file.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Child, Directory, Tree, remaining};

/// Directories of more names than this are learned again only when somebody looks: listing them in the background
/// every lease would take a good part of a thin link (about 100 bytes a name).
const REFRESH_NAMES_MAX: usize = 20_000;

/// Subdirectories and siblings wanted at a time: sixteen round trips of a walk in one, twice over.
const AHEAD_MAX: usize = 32;

/// Names looked at to find them: a directory of a million files is not gone through for its few subdirectories.
const NAMES_SEEN_MAX: usize = 4096;

impl Tree {
    /// Directories that were used since they were learned and whose lease ends within `horizon`.
    pub fn due(&self, now: Instant, horizon: Duration) -> Vec<u64> {
        let due = |slot: &u32| {
            let node = self.at(*slot)?;
            let directory = node.directory.as_deref()?;
            directory.valid_until.filter(|_| directory.children.len() <= REFRESH_NAMES_MAX)?;
            let used = directory.used_at_ms.load(Ordering::Relaxed) > directory.learned_at_ms;
            (used && remaining(directory.valid_until, now).is_none_or(|left| left < horizon)).then_some(node.ino)
        };
        self.known.iter().filter_map(due).collect()
    }

    /// Directories wanted now that somebody looks into `ino`, soonest first; none twice for one learning of `ino`.
    pub fn ahead_of(&self, ino: u64, now: Instant) -> Vec<u64> {
        let Some((slot, directory)) = self.directory(ino) else { return Vec::new() };
        let Some(learned) = remaining(directory.valid_until, now).map(|_| directory.learned_at_ms) else {
            return Vec::new();
        };
        // Times are kept one higher here, so that 0 means never.
        if directory.ahead_at_ms.swap(learned + 1, Ordering::Relaxed) == learned + 1 {
            return Vec::new();
        }
        let mut wanted = self.unknown_directories(&directory.children, now);
        wanted.extend(self.next_siblings(slot, now));
        wanted
    }

    /// Subdirectories of `ino` that are not known, in order of name, a bounded number of them.
    pub fn unknown_below(&self, ino: u64, now: Instant) -> Vec<u64> {
        self.directory(ino).map_or_else(Vec::new, |(_, d)| self.unknown_directories(&d.children, now))
    }

    /// The directories after this one, if the one before it is or was in use: somebody is walking.
    fn next_siblings(&self, slot: u32, now: Instant) -> Vec<u64> {
        let Some(node) = self.at(slot).filter(|_| slot != self.root()) else { return Vec::new() };
        let Some(parent) = self.at(node.parent).filter(|_| node.parent != self.root()) else { return Vec::new() };
        let Some(siblings) = parent.directory.as_deref().map(|d| &d.children) else { return Vec::new() };
        let Ok(place) = siblings.binary_search_by(|c| self.name_of(*c).cmp(node.name())) else { return Vec::new() };
        let before = siblings[..place].iter().rev().take(NAMES_SEEN_MAX).find_map(|c| self.directory_of(*c));
        let walking = before.is_none_or(|(_, d)| d.used_at_ms.load(Ordering::Relaxed) > 0);
        if walking { self.unknown_directories(&siblings[place + 1..], now) } else { Vec::new() }
    }

    fn unknown_directories(&self, among: &[Child], now: Instant) -> Vec<u64> {
        let directories = among.iter().take(NAMES_SEEN_MAX).filter_map(|c| self.directory_of(*c));
        let unknown = directories.filter(|(_, d)| remaining(d.valid_until, now).is_none());
        unknown.take(AHEAD_MAX).map(|(ino, _)| ino).collect()
    }

    fn directory_of(&self, child: Child) -> Option<(u64, &Directory)> {
        let node = self.of_child(child)?;
        Some((node.ino, node.directory.as_deref()?))
    }
}
