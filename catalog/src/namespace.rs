//! Which files there are, what they consist of, and which directories somebody wants to know.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use foretide_flow::{
    Entry, EntryKind, FilePath, FileVersion, LearnRequest, Listing, Manifest, NodeId, SharedFile, SiteId, Timestamp,
    VolumeId,
};
use serde::{Deserialize, Serialize};

use crate::{CatalogError, Result, limits};

/// What a listing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Names that were not there before.
    pub added: u64,
    /// Names whose version, size or kind is another.
    pub changed: u64,
    /// Names that are gone, not counting what lay below them.
    pub removed: u64,
}

/// Files below a directory, added up from what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the directory and everything below it has been learned; if not, there may be more.
    pub complete: bool,
}

/// Which files are looked for. Absent conditions match everything; all that are present must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileQuery {
    /// In this volume.
    pub volume: Option<VolumeId>,
    /// This file, or below this directory; needs `volume`.
    pub below: Option<FilePath>,
    /// The name (last component) holds this text, ASCII letters in either case.
    pub name_part: Option<String>,
    /// The name ends in this text, ASCII letters in either case.
    pub suffix: Option<String>,
    /// At least that many bytes.
    pub min_bytes: Option<u64>,
    /// At most that many bytes.
    pub max_bytes: Option<u64>,
    /// Changed at or after this.
    pub modified_from: Option<Timestamp>,
    /// Changed before this.
    pub modified_before: Option<Timestamp>,
    /// In a subtree that carries all these tags.
    pub tags: BTreeMap<String, String>,
    /// Some of it resident at this site.
    pub resident_at: Option<SiteId>,
}

/// A file that a query found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundFile {
    /// Its volume.
    pub volume: VolumeId,
    /// The file.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a search found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundPage {
    /// Files that match.
    pub items: Vec<FoundFile>,
    /// Hand this back as `cursor` to search on; none at the end. A page may hold fewer files than asked for, or none,
    /// and yet not be the last: a call looks at a bounded number of files.
    pub next: Option<String>,
}

/// What of a file stands in others too, and its place in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    /// Grows.
    pub id: u64,
    /// What was told of the file last.
    #[serde(flatten)]
    pub file: SharedFile,
}

/// Files by path, and what is wanted of them.
///
/// Order of files: by directory, then by name, both as bytes; [`find_files`](Namespace::find_files) has its own.
#[async_trait]
pub trait Namespace: Send + Sync {
    /// Replaces what is known of that one directory. A subdirectory that is no longer in it goes with all below
    /// it, as does what was learned before below a name that turns out to be no directory. A file whose version, size or kind changed, and one that is gone, loses its manifests, its residency, and what was told of other versions' shared chunks.
    /// A listing older than the one that is known changes nothing. Wishes to learn this directory are fulfilled;
    /// a recursive wish passes on to its subdirectories that are not yet known.
    ///
    /// # Errors
    /// `Refused` if an entry does not lie directly in the directory or comes twice; `Full` above
    /// [`LISTING_ENTRIES`](crate::limits::LISTING_ENTRIES).
    async fn put_listing(&self, listing: &Listing) -> Result<Changed>;

    /// A directory as it was last seen, entries in order of name; none if it was never learned.
    async fn directory(&self, volume: &VolumeId, directory: &FilePath) -> Result<Option<Listing>>;

    /// One name; none if it is not known (its directory may not have been learned). The root has no entry.
    async fn entry(&self, volume: &VolumeId, path: &FilePath) -> Result<Option<Entry>>;

    /// Whether a directory that was listed at `since` or later shows that nothing of this name exists. False where nobody has
    /// looked since.
    async fn denied_since(&self, volume: &VolumeId, path: &FilePath, since: Timestamp) -> Result<bool>;

    /// Regular files: `prefix` itself if it is one, otherwise those below it; after `after`, at most `limit` and
    /// at most [`PAGE_ITEMS`](crate::limits::PAGE_ITEMS). Fewer than that means the end.
    async fn files_below(
        &self,
        volume: &VolumeId,
        prefix: &FilePath,
        after: Option<&FilePath>,
        limit: usize,
    ) -> Result<Vec<Entry>>;

    /// The same files added up.
    async fn totals(&self, volume: &VolumeId, prefix: &FilePath) -> Result<Totals>;

    /// Directories below `prefix`, itself included, that are known to exist and not learned; at most `limit`.
    async fn unlearned(&self, volume: &VolumeId, prefix: &FilePath, limit: usize) -> Result<Vec<FilePath>>;

    /// Regular files that match, each once, in an order that suits the search; at most `limit` a page and at most
    /// [`PAGE_ITEMS`](crate::limits::PAGE_ITEMS).
    ///
    /// # Errors
    /// `Refused` if `below` is given without `volume`, or the cursor is none of this search's.
    async fn find_files(&self, query: &FileQuery, cursor: Option<&str>, limit: usize) -> Result<FoundPage>;

    /// Sets the tags of a subtree (or file), in place of those that it carried itself. Empty takes them away.
    ///
    /// # Errors
    /// `Full` above [`TAGGED_PATHS`](crate::limits::TAGGED_PATHS).
    async fn put_tags(&self, volume: &VolumeId, path: &FilePath, tags: &BTreeMap<String, String>) -> Result<()>;

    /// Tags of a path: its own and those of the directories above it; the nearest wins.
    async fn tags(&self, volume: &VolumeId, path: &FilePath) -> Result<BTreeMap<String, String>>;

    /// The paths of a volume that carry tags of their own, with these.
    async fn tagged(&self, volume: &VolumeId) -> Result<BTreeMap<FilePath, BTreeMap<String, String>>>;

    /// Keeps what a file version consists of.
    ///
    /// # Errors
    /// `Full` above [`MANIFEST_CHUNKS`](crate::limits::MANIFEST_CHUNKS).
    async fn put_manifest(&self, volume: &VolumeId, path: &FilePath, manifest: &Manifest) -> Result<()>;

    /// What that version consists of, if it was ever cut and is still kept.
    async fn manifest(&self, volume: &VolumeId, path: &FilePath, version: &FileVersion) -> Result<Option<Manifest>>;

    /// Keeps which chunks of these files stand in other files too, of each in place of what was told before; a file of which
    /// none do is as one that was never told. Beyond [`SHARED_CHUNKS`](crate::limits::SHARED_CHUNKS) the files told
    /// longest ago go first.
    ///
    /// # Errors
    /// `Refused` if chunks do not come in order, lie over each other, or are more than [`SharedFile::CHUNKS_MAX`] in one
    /// file.
    async fn put_shared(&self, files: &[SharedFile]) -> Result<()>;

    /// What was told of files after that record and not told anew, those told first first. What is forgotten of a file is
    /// not in it: a listing tells of that.
    async fn shared(&self, after: u64, limit: usize) -> Result<Vec<SharedRecord>>;

    /// Wants directories to be told about, the hottest first. A wish that is there already takes the higher heat
    /// and becomes recursive if either is.
    async fn want_learned(&self, wishes: &[LearnRequest], heat: f64, at: Timestamp) -> Result<()>;

    /// Takes the hottest wishes of these volumes for an agent at their source. Nobody else gets them until
    /// `now + lease`; a listing fulfils them, and one that was handed out is dropped where a listing since shows that there is
    /// no such directory. Two agents that ask at once never get the same one.
    async fn take_wishes(
        &self,
        volumes: &[VolumeId],
        node: &NodeId,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<LearnRequest>>;
}

/// Whether every entry lies directly in the directory, once.
pub(crate) fn check_listing(listing: &Listing) -> Result<()> {
    if listing.entries.len() > limits::LISTING_ENTRIES {
        let remedy = "split the directory at the source";
        return Err(CatalogError::Full { what: "entries of one directory", limit: limits::LISTING_ENTRIES, remedy });
    }
    let refused = |why| CatalogError::Refused {
        what: "listing of",
        name: format!("{}:{}", listing.volume, listing.directory),
        why,
    };
    let mut names = HashSet::with_capacity(listing.entries.len());
    for entry in &listing.entries {
        if entry.path.parent().as_ref() != Some(&listing.directory) {
            return Err(refused(format!("entry {} does not lie directly in it", entry.path)));
        }
        if !names.insert(entry.path.name()) {
            return Err(refused(format!("entry {} comes twice", entry.path)));
        }
    }
    Ok(())
}

/// Whether a manifest is small enough to keep.
pub(crate) fn check_manifest(manifest: &Manifest) -> Result<()> {
    if manifest.chunks.len() > limits::MANIFEST_CHUNKS {
        let remedy = "cut the file into larger chunks";
        return Err(CatalogError::Full { what: "chunks of one file", limit: limits::MANIFEST_CHUNKS, remedy });
    }
    Ok(())
}

/// Whether what a file shares can be true, and is little enough to keep.
pub(crate) fn check_shared(file: &SharedFile) -> Result<()> {
    let ends = file.chunks.iter().map(|c| c.offset.checked_add(u64::from(c.length)));
    let next = file.chunks.iter().map(|c| c.offset).skip(1).chain([u64::MAX]);
    let why = if file.path.is_root() {
        "the root is no file".to_owned()
    } else if file.chunks.len() > SharedFile::CHUNKS_MAX {
        format!("there are more than {}: tell the first ones alone", SharedFile::CHUNKS_MAX)
    } else if !ends.zip(next).all(|(end, next)| end.is_some_and(|end| end <= next)) {
        "they do not come in order of offset, or lie over each other".to_owned()
    } else {
        return Ok(());
    };
    let name = format!("{}:{}", file.volume, file.path);
    Err(CatalogError::Refused { what: "shared chunks of", name, why })
}

/// Whether a query can be meant.
pub(crate) fn check_query(query: &FileQuery) -> Result<()> {
    match (&query.below, &query.volume) {
        (Some(below), None) => Err(CatalogError::Refused {
            what: "search below",
            name: below.to_string(),
            why: "name the volume as well".into(),
        }),
        _ => Ok(()),
    }
}

/// For a cursor that no page of this search gave.
pub(crate) fn bad_cursor(cursor: &str) -> CatalogError {
    let why = "no page of this search gave it: start without one".into();
    CatalogError::Refused { what: "cursor", name: cursor.to_owned(), why }
}

/// Of these known directories, the subtrees below the listed one that it denies: it has no directory of that name.
pub(crate) fn denied<'a>(listing: &Listing, known: impl Iterator<Item = &'a FilePath>) -> BTreeSet<FilePath> {
    let directories = listing.entries.iter().filter(|e| e.kind == EntryKind::Directory);
    let there: HashSet<_> = directories.map(|e| &e.path).collect();
    let child = |path: &FilePath| {
        let above = std::iter::successors(Some(path.clone()), FilePath::parent);
        above.take_while(|p| *p != listing.directory).last().filter(|_| path.is_within(&listing.directory))
    };
    known.filter_map(child).filter(|child| !there.contains(child)).collect()
}

/// What the nearest directory above a path that was listed has in the path's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// When it was listed.
    seen_at: Timestamp,
    /// Whether the path may exist by that.
    may_exist: bool,
    /// Whether it may be a directory.
    may_be_directory: bool,
}

impl Way {
    /// Of a path, from the name of it or of a directory above it that was looked for, and what was found.
    pub(crate) fn new(seen_at: Timestamp, path: &FilePath, name: &FilePath, found: Option<&Entry>) -> Self {
        let may_be_directory = found.is_some_and(|entry| entry.kind == EntryKind::Directory);
        Self { seen_at, may_exist: may_be_directory || found.is_some() && name == path, may_be_directory }
    }

    /// Whether nothing of that path existed then or later.
    pub(crate) fn denies_since(&self, since: Timestamp) -> bool {
        self.seen_at >= since && !self.may_exist
    }

    /// Whether no directory of that path existed then or later.
    pub(crate) fn denies_directory_since(&self, since: Timestamp) -> bool {
        self.seen_at >= since && !self.may_be_directory
    }
}

/// Whether two entries of one name are the same bytes.
pub(crate) fn same_file(a: &Entry, b: &Entry) -> bool {
    a.kind == b.kind && a.size == b.size && a.version == b.version
}

/// Whether this is a regular file that matches all conditions but where it is resident.
pub(crate) fn matches(
    query: &FileQuery,
    volume: &VolumeId,
    entry: &Entry,
    tags: impl FnOnce() -> BTreeMap<String, String>,
) -> bool {
    entry.kind == EntryKind::File
        && query.volume.as_ref().is_none_or(|v| v == volume)
        && query.below.as_ref().is_none_or(|dir| entry.path.is_within(dir))
        && query.min_bytes.is_none_or(|min| entry.size >= min)
        && query.max_bytes.is_none_or(|max| entry.size <= max)
        && query.modified_from.is_none_or(|from| entry.modified_at >= from)
        && query.modified_before.is_none_or(|before| entry.modified_at < before)
        && name_matches(query, entry.path.name())
        && (query.tags.is_empty() || {
            let tags = tags();
            query.tags.iter().all(|(k, v)| tags.get(k) == Some(v))
        })
}

/// Whether a name holds the query's part and ends in its suffix.
fn name_matches(query: &FileQuery, name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let part = query.name_part.as_ref().map(|p| p.to_ascii_lowercase());
    let suffix = query.suffix.as_ref().map(|s| s.to_ascii_lowercase());
    part.is_none_or(|p| p.is_empty() || name.windows(p.len()).any(|w| w == p.as_bytes()))
        && suffix.is_none_or(|s| name.ends_with(s.as_bytes()))
}
