//! What there is to copy, and what of it is there already.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use foretide_flow::{Entry, EntryKind, FilePath};
use foretide_transfer::Mover;
use tokio::task::JoinSet;

use super::origin::Origin;
use super::place::path_of;
use crate::run::RunError;

/// Directories listed side by side: a round trip of 150 ms is shared by so many.
const LISTINGS_AT_A_TIME: usize = 64;

/// A tree at the origin beside what is in the destination.
#[derive(Debug, Default)]
pub struct Tree {
    /// What was asked for: paths in the destination begin after it.
    pub base: FilePath,
    /// Directories, each after the one that it is in.
    pub folders: Vec<Entry>,
    /// Symbolic links.
    pub links: Vec<Entry>,
    /// Files that are not there, or not the same.
    pub wanted: Vec<Entry>,
    /// Files that are.
    pub unchanged: u64,
}

impl Tree {
    /// Lists everything below the origin's base.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn walk(mover: &Arc<Mover>, origin: &Origin, destination: &Path) -> Result<Self, RunError> {
        let top = mover.stat(&origin.volume, &origin.base).await?;
        if top.kind != EntryKind::Directory {
            let mut tree = Self { base: origin.base.parent().unwrap_or_default(), ..Self::default() };
            tree.take(top, destination);
            return Ok(tree);
        }
        let mut tree = Self { base: origin.base.clone(), ..Self::default() };
        let (mut waiting, mut asked) = (vec![origin.base.clone()], JoinSet::new());
        loop {
            while asked.len() < LISTINGS_AT_A_TIME
                && let Some(directory) = waiting.pop()
            {
                let (mover, volume) = (mover.clone(), origin.volume.clone());
                asked.spawn(async move { mover.list(&volume, &directory, false).await });
            }
            let Some(listed) = asked.join_next().await else { break };
            for entry in listed.map_err(|e| RunError::Told(e.to_string()))??.listing.entries {
                if entry.kind == EntryKind::Directory {
                    waiting.push(entry.path.clone());
                }
                tree.take(entry, destination);
            }
        }
        tree.folders.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn take(&mut self, entry: Entry, destination: &Path) {
        match entry.kind {
            EntryKind::Directory => self.folders.push(entry),
            EntryKind::Symlink { .. } => self.links.push(entry),
            EntryKind::File => {
                let there = std::fs::symlink_metadata(path_of(destination, self, &entry));
                if there.is_ok_and(|m| is_same(&entry, &m)) {
                    self.unchanged += 1;
                } else {
                    self.wanted.push(entry);
                }
            }
        }
    }

    /// The part of a path that names it in the destination.
    pub fn below<'a>(&self, entry: &'a Entry) -> &'a Path {
        let bytes = entry.path.as_bytes();
        let bytes = bytes.strip_prefix(self.base.as_bytes()).unwrap_or(bytes);
        Path::new(std::ffi::OsStr::from_bytes(bytes.strip_prefix(b"/").unwrap_or(bytes)))
    }
}

/// Size and time agree, the time as far as it is told (microseconds).
fn is_same(entry: &Entry, there: &Metadata) -> bool {
    let modified_us = there.mtime() * 1_000_000 + there.mtime_nsec() / 1000;
    there.is_file() && there.size() == entry.size && modified_us == entry.modified_at.0
}
