//! What files there are, as far as anybody looked: the candidates of every forecast.
//!
//! Paths are kept in order of name per volume, so that what lies below a directory is one range. A listing
//! replaces what was known of its directory. Bounded by `namespace_files`; names beyond it are refused and
//! counted (promises J, K).

use std::collections::BTreeMap;
use std::ops::Bound;

use foretide_flow::{EntryKind, FilePath, Listing, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// Bytes.
    pub size: u64,
    /// When its content last changed, by the source's clock.
    pub modified_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    files: BTreeMap<FilePath, FileFact>,
    directories: BTreeMap<FilePath, Option<Timestamp>>,
}

/// The known files of all volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    volumes: BTreeMap<VolumeId, Known>,
    count: usize,
    refused: u64,
}

impl Namespace {
    /// Takes a listing, keeping at most `most` files over all volumes. Returns whether anything changed.
    pub fn learn(&mut self, listing: &Listing, most: usize) -> bool {
        let known = self.volumes.entry(listing.volume.clone()).or_default();
        known.directories.insert(listing.directory.clone(), Some(listing.seen_at));
        let mut fresh: BTreeMap<&FilePath, FileFact> = BTreeMap::new();
        for entry in &listing.entries {
            match entry.kind {
                EntryKind::File => {
                    fresh.insert(&entry.path, FileFact { size: entry.size, modified_at: entry.modified_at });
                }
                EntryKind::Directory => {
                    known.directories.entry(entry.path.clone()).or_insert(None);
                }
                EntryKind::Symlink { .. } => {}
            }
        }
        let gone: Vec<FilePath> = below(&known.files, &listing.directory)
            .filter(|(p, _)| p.parent().as_ref() == Some(&listing.directory) && !fresh.contains_key(p))
            .map(|(p, _)| p.clone())
            .collect();
        let mut changed = !gone.is_empty();
        for path in &gone {
            known.files.remove(path);
        }
        self.count -= gone.len();
        for (path, fact) in fresh {
            match known.files.get_mut(path) {
                Some(old) => {
                    changed |= *old != fact;
                    *old = fact;
                }
                None if self.count < most => {
                    known.files.insert(path.clone(), fact);
                    self.count += 1;
                    changed = true;
                }
                None => self.refused += 1,
            }
        }
        changed
    }

    /// What is known of a file.
    pub fn file(&self, volume: &VolumeId, path: &FilePath) -> Option<&FileFact> {
        self.volumes.get(volume)?.files.get(path)
    }

    /// When this directory was last listed, if ever.
    pub fn listed_at(&self, volume: &VolumeId, directory: &FilePath) -> Option<Timestamp> {
        *self.volumes.get(volume)?.directories.get(directory)?
    }

    /// Directories below `directory` that are known by name but were never listed.
    pub fn unlisted<'a>(
        &'a self,
        volume: &VolumeId,
        directory: &'a FilePath,
    ) -> impl Iterator<Item = &'a FilePath> + use<'a> {
        let known = self.volumes.get(volume);
        known
            .into_iter()
            .flat_map(move |k| below(&k.directories, directory))
            .filter(|(_, at)| at.is_none())
            .map(|(p, _)| p)
    }

    /// Files below a directory, in order of name.
    pub fn below<'a>(
        &'a self,
        volume: &VolumeId,
        directory: &'a FilePath,
    ) -> impl Iterator<Item = (&'a FilePath, &'a FileFact)> + use<'a> {
        self.volumes.get(volume).into_iter().flat_map(move |k| below(&k.files, directory))
    }

    /// Files after a path, in order of name, to the end of the volume.
    pub fn after<'a>(
        &'a self,
        volume: &VolumeId,
        path: &'a FilePath,
    ) -> impl Iterator<Item = (&'a FilePath, &'a FileFact)> + use<'a> {
        let known = self.volumes.get(volume);
        known.into_iter().flat_map(move |k| k.files.range((Bound::Excluded(path), Bound::Unbounded)))
    }

    /// Files known.
    pub fn files(&self) -> usize {
        self.count
    }

    /// Names refused because the bound was reached.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// The entries of a map whose paths lie strictly below a directory.
fn below<'a, T>(
    map: &'a BTreeMap<FilePath, T>,
    directory: &'a FilePath,
) -> impl Iterator<Item = (&'a FilePath, &'a T)> + use<'a, T> {
    map.range((Bound::Excluded(directory.clone()), Bound::Unbounded))
        .skip_while(move |(p, _)| !p.is_within(directory) && p.as_bytes().starts_with(directory.as_bytes()))
        .take_while(move |(p, _)| p.as_bytes().starts_with(directory.as_bytes()))
        .filter(move |(p, _)| p.is_within(directory))
}
