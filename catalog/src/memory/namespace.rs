//! Files by volume, directory, name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use foretide_flow::{
    Entry, EntryKind, FilePath, FileVersion, LearnRequest, Listing, Manifest, NodeId, SharedFile, Timestamp, VolumeId,
};

use super::{InMemory, State};
use crate::namespace::{Way, bad_cursor, check_listing, check_query, check_shared, denied, matches, same_file};
use crate::{
    CatalogError, Changed, FileQuery, FoundFile, FoundPage, Namespace, Result, SharedRecord, Topic, Totals, limits,
};

/// What one volume's tree is known to be.
#[derive(Default)]
pub(super) struct Files {
    /// Known directories; none where it is known only by name.
    directories: BTreeMap<VolumeId, BTreeMap<FilePath, Option<Seen>>>,
    manifests: BTreeMap<(VolumeId, FilePath), Vec<Manifest>>,
    shared: BTreeMap<u64, SharedFile>,
    /// Chunks that were ever told.
    shared_told: u64,
    tags: BTreeMap<(VolumeId, FilePath), BTreeMap<String, String>>,
    wishes: BTreeMap<(VolumeId, FilePath), Wish>,
}

struct Seen {
    at: Timestamp,
    entries: BTreeMap<Vec<u8>, Entry>,
}

struct Wish {
    recursive: bool,
    heat: f64,
    at: Timestamp,
    taken_until: Option<Timestamp>,
}

impl Files {
    fn seen(&self, volume: &VolumeId, directory: &FilePath) -> Option<&Seen> {
        self.directories.get(volume)?.get(directory)?.as_ref()
    }

    pub(super) fn entry(&self, volume: &VolumeId, path: &FilePath) -> Option<&Entry> {
        self.seen(volume, &path.parent()?)?.entries.get(path.name())
    }

    fn way(&self, volume: &VolumeId, path: &FilePath) -> Option<Way> {
        let upward = std::iter::successors(Some(path.clone()), FilePath::parent);
        let mut seen = upward.filter_map(|name| Some((self.seen(volume, &name.parent()?)?.at, name)));
        let (seen_at, name) = seen.next()?;
        Some(Way::new(seen_at, path, &name, self.entry(volume, &name)))
    }

    /// Subtrees known below a directory that, now first listed, has no such directory.
    fn denied_by(&self, listing: &Listing) -> BTreeSet<FilePath> {
        let known = self.directories.get(&listing.volume).into_iter().flat_map(BTreeMap::keys);
        denied(listing, known)
    }

    /// Every regular file in order of volume, directory, name.
    fn files(&self) -> impl Iterator<Item = (&VolumeId, &Entry)> {
        self.directories.iter().flat_map(|(volume, directories)| {
            let entries = directories.values().flatten().flat_map(|seen| seen.entries.values());
            entries.filter(|e| e.kind == EntryKind::File).map(move |e| (volume, e))
        })
    }

    fn effective_tags(&self, volume: &VolumeId, path: &FilePath) -> BTreeMap<String, String> {
        let mut chain: Vec<_> = std::iter::successors(Some(path.clone()), FilePath::parent).collect();
        chain.reverse();
        let own = chain.into_iter().filter_map(|p| self.tags.get(&(volume.clone(), p)));
        own.flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// A file's chunks are numbered as they are told; the last number is the file's.
    fn put_shared(&mut self, file: &SharedFile) {
        self.shared.retain(|_, known| (&known.volume, &known.path) != (&file.volume, &file.path));
        if !file.chunks.is_empty() {
            self.shared_told += file.chunks.len() as u64;
            self.shared.insert(self.shared_told, file.clone());
        }
        let forgotten = self.shared_told.saturating_sub(limits::SHARED_CHUNKS as u64);
        self.shared.retain(|number, _| *number > forgotten);
    }

    fn wish(&mut self, wish: LearnRequest, heat: f64, at: Timestamp) {
        let new = Wish { recursive: false, heat, at, taken_until: None };
        let known = self.wishes.entry((wish.volume, wish.directory)).or_insert(new);
        known.recursive |= wish.recursive;
        known.heat = known.heat.max(heat);
    }

    /// A listing fulfils the wish for it, and passes a recursive one on.
    fn fulfil(&mut self, listing: &Listing) {
        let Some(wish) = self.wishes.remove(&(listing.volume.clone(), listing.directory.clone())) else { return };
        if !wish.recursive {
            return;
        }
        for entry in listing.entries.iter().filter(|e| e.kind == EntryKind::Directory) {
            if self.seen(&listing.volume, &entry.path).is_none() {
                let volume = listing.volume.clone();
                let below = LearnRequest { volume, directory: entry.path.clone(), recursive: true };
                self.wish(below, wish.heat, wish.at);
            }
        }
    }

    /// Wishes in the order in which they are taken.
    fn by_heat(&self) -> Vec<(VolumeId, FilePath)> {
        let mut keys: Vec<_> = self.wishes.iter().collect();
        keys.sort_by(|(ka, a), (kb, b)| b.heat.total_cmp(&a.heat).then((a.at, ka).cmp(&(b.at, kb))));
        keys.into_iter().map(|(k, _)| k.clone()).collect()
    }
}

impl State {
    fn put_listing(&mut self, listing: &Listing) -> Changed {
        let volume = &listing.volume;
        self.namespace.fulfil(listing);
        let known = self.namespace.seen(volume, &listing.directory);
        if known.is_some_and(|s| s.at > listing.seen_at) {
            return Changed::default();
        }
        let before = known.map(|s| s.entries.clone());
        let after: BTreeMap<_, _> = listing.entries.iter().map(|e| (e.path.name().to_vec(), e.clone())).collect();
        if before.is_none() {
            for subtree in self.namespace.denied_by(listing) {
                self.forget(volume, &subtree, true);
            }
        }
        let before = before.unwrap_or_default();
        let added = after.keys().filter(|n| !before.contains_key(*n)).count() as u64;
        let mut changed = Changed { added, ..Changed::default() };
        for (name, old) in &before {
            let was_directory = old.kind == EntryKind::Directory;
            match after.get(name) {
                Some(new) if same_file(old, new) => continue,
                Some(new) if was_directory && new.kind == EntryKind::Directory => {
                    changed.changed += 1;
                    continue;
                }
                Some(_) => changed.changed += 1,
                None => changed.removed += 1,
            }
            self.forget(volume, &old.path, was_directory);
        }
        let version = |path: &FilePath| after.get(path.name()).map(|entry| &entry.version);
        self.namespace.shared.retain(|_, file| {
            let is_here = file.volume == *volume && file.path.parent().as_ref() == Some(&listing.directory);
            !is_here || version(&file.path) == Some(&file.version)
        });
        let directories = self.namespace.directories.entry(volume.clone()).or_default();
        for entry in after.values().filter(|e| e.kind == EntryKind::Directory) {
            directories.entry(entry.path.clone()).or_insert(None);
        }
        directories.insert(listing.directory.clone(), Some(Seen { at: listing.seen_at, entries: after }));
        changed
    }

    /// The name is gone or another: what was known of it, and below it if it was a directory, is void.
    fn forget(&mut self, volume: &VolumeId, path: &FilePath, was_directory: bool) {
        let gone = |v: &VolumeId, p: &FilePath| v == volume && (p == path || was_directory && p.is_within(path));
        if was_directory && let Some(directories) = self.namespace.directories.get_mut(volume) {
            directories.retain(|d, _| !gone(volume, d));
        }
        self.namespace.manifests.retain(|(v, p), _| !gone(v, p));
        if was_directory {
            self.namespace.shared.retain(|_, file| file.path == *path || !gone(&file.volume, &file.path));
        }
        self.namespace.wishes.retain(|(v, p), _| !gone(v, p));
        self.outcomes.forget_files(gone);
    }
}

#[async_trait]
impl Namespace for InMemory {
    async fn put_listing(&self, listing: &Listing) -> Result<Changed> {
        check_listing(listing)?;
        let changed = self.state().put_listing(listing);
        self.tell(&[Topic::Namespace]);
        Ok(changed)
    }

    async fn directory(&self, volume: &VolumeId, directory: &FilePath) -> Result<Option<Listing>> {
        Ok(self.state().namespace.seen(volume, directory).map(|seen| Listing {
            volume: volume.clone(),
            directory: directory.clone(),
            seen_at: seen.at,
            entries: seen.entries.values().cloned().collect(),
        }))
    }

    async fn entry(&self, volume: &VolumeId, path: &FilePath) -> Result<Option<Entry>> {
        Ok(self.state().namespace.entry(volume, path).cloned())
    }

    async fn denied_since(&self, volume: &VolumeId, path: &FilePath, since: Timestamp) -> Result<bool> {
        Ok(self.state().namespace.way(volume, path).is_some_and(|way| way.denies_since(since)))
    }

    async fn files_below(
        &self,
        volume: &VolumeId,
        prefix: &FilePath,
        after: Option<&FilePath>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let key = |p: &FilePath| (p.parent(), p.name().to_vec());
        let after = after.map(key);
        let state = self.state();
        let files = state.namespace.files().filter(|(v, e)| *v == volume && e.path.is_within(prefix)).map(|(_, e)| e);
        let rest = files.filter(|e| after.as_ref().is_none_or(|a| key(&e.path) > *a));
        Ok(rest.take(limit.min(limits::PAGE_ITEMS)).cloned().collect())
    }

    async fn totals(&self, volume: &VolumeId, prefix: &FilePath) -> Result<Totals> {
        let state = self.state();
        let files = state.namespace.files().filter(|(v, e)| *v == volume && e.path.is_within(prefix));
        let (files, bytes) = files.fold((0, 0), |(n, b), (_, e)| (n + 1, b + e.size));
        let below: Vec<_> = match state.namespace.directories.get(volume) {
            Some(directories) => directories.iter().filter(|(d, _)| d.is_within(prefix)).collect(),
            None => Vec::new(),
        };
        let known_file = state.namespace.entry(volume, prefix).is_some_and(|e| e.kind != EntryKind::Directory);
        let learned = state.namespace.seen(volume, prefix).is_some() && below.iter().all(|(_, seen)| seen.is_some());
        Ok(Totals { files, bytes, complete: known_file || learned })
    }

    async fn unlearned(&self, volume: &VolumeId, prefix: &FilePath, limit: usize) -> Result<Vec<FilePath>> {
        let state = self.state();
        let known = state.namespace.directories.get(volume).into_iter().flatten();
        let mut found: BTreeSet<_> =
            known.filter(|(d, seen)| d.is_within(prefix) && seen.is_none()).map(|(d, _)| d.clone()).collect();
        let is_file = state.namespace.entry(volume, prefix).is_some_and(|e| e.kind != EntryKind::Directory);
        if !is_file && state.namespace.seen(volume, prefix).is_none() {
            found.insert(prefix.clone());
        }
        Ok(found.into_iter().take(limit.min(limits::PAGE_ITEMS)).collect())
    }

    async fn find_files(&self, query: &FileQuery, cursor: Option<&str>, limit: usize) -> Result<FoundPage> {
        check_query(query)?;
        let seen = cursor.map_or(Ok(0), |c| c.parse().map_err(|_| bad_cursor(c)))?;
        let state = self.state();
        let resident = query.resident_at.as_ref().map(|site| state.outcomes.paths_at(site));
        let wanted = |v: &VolumeId, e: &Entry| {
            matches(query, v, e, || state.namespace.effective_tags(v, &e.path))
                && resident.as_ref().is_none_or(|r| r.contains(&(v.clone(), e.path.clone())))
        };
        // The cursor is how many matches were shown.
        let mut rest = state.namespace.files().filter(|(v, e)| wanted(v, e)).skip(seen);
        let limit = limit.min(limits::PAGE_ITEMS);
        let found = rest.by_ref().take(limit).map(|(v, e)| FoundFile { volume: v.clone(), entry: e.clone() });
        let items: Vec<_> = found.collect();
        let next = rest.next().map(|_| (seen + items.len()).to_string());
        Ok(FoundPage { items, next })
    }

    async fn put_tags(&self, volume: &VolumeId, path: &FilePath, tags: &BTreeMap<String, String>) -> Result<()> {
        let mut state = self.state();
        let key = (volume.clone(), path.clone());
        if tags.is_empty() {
            state.namespace.tags.remove(&key);
        } else if state.namespace.tags.len() < limits::TAGGED_PATHS || state.namespace.tags.contains_key(&key) {
            state.namespace.tags.insert(key, tags.clone());
        } else {
            return Err(CatalogError::tags_full());
        }
        Ok(())
    }

    async fn tags(&self, volume: &VolumeId, path: &FilePath) -> Result<BTreeMap<String, String>> {
        Ok(self.state().namespace.effective_tags(volume, path))
    }

    async fn tagged(&self, volume: &VolumeId) -> Result<BTreeMap<FilePath, BTreeMap<String, String>>> {
        let state = self.state();
        let own = state.namespace.tags.iter().filter(|((v, _), _)| v == volume);
        Ok(own.map(|((_, path), tags)| (path.clone(), tags.clone())).collect())
    }

    async fn put_manifest(&self, volume: &VolumeId, path: &FilePath, manifest: &Manifest) -> Result<()> {
        crate::namespace::check_manifest(manifest)?;
        let mut state = self.state();
        let kept = state.namespace.manifests.entry((volume.clone(), path.clone())).or_default();
        kept.retain(|m| m.version != manifest.version);
        kept.push(manifest.clone());
        let surplus = kept.len().saturating_sub(limits::MANIFESTS_PER_FILE);
        kept.drain(..surplus);
        Ok(())
    }

    async fn manifest(&self, volume: &VolumeId, path: &FilePath, version: &FileVersion) -> Result<Option<Manifest>> {
        let state = self.state();
        let kept = state.namespace.manifests.get(&(volume.clone(), path.clone()));
        Ok(kept.and_then(|kept| kept.iter().find(|m| m.version == *version)).cloned())
    }

    async fn put_shared(&self, files: &[SharedFile]) -> Result<()> {
        files.iter().try_for_each(check_shared)?;
        let mut state = self.state();
        files.iter().for_each(|file| state.namespace.put_shared(file));
        self.tell(&[Topic::Shared]);
        Ok(())
    }

    async fn shared(&self, after: u64, limit: usize) -> Result<Vec<SharedRecord>> {
        let state = self.state();
        let told = state.namespace.shared.iter().filter(|(number, _)| **number > after);
        let records = told.map(|(id, file)| SharedRecord { id: *id, file: file.clone() });
        Ok(records.take(limit.min(limits::PAGE_ITEMS)).collect())
    }

    async fn want_learned(&self, wishes: &[LearnRequest], heat: f64, at: Timestamp) -> Result<()> {
        let mut state = self.state();
        wishes.iter().for_each(|w| state.namespace.wish(w.clone(), heat, at));
        for coldest in state.namespace.by_heat().into_iter().skip(limits::LEARN_REQUESTS) {
            state.namespace.wishes.remove(&coldest);
        }
        self.tell(&[Topic::Namespace]);
        Ok(())
    }

    async fn take_wishes(
        &self,
        volumes: &[VolumeId],
        _node: &NodeId,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<LearnRequest>> {
        let mut state = self.state();
        let (limit, mut looked_at, mut taken) = (limit.min(limits::PAGE_ITEMS), 0, Vec::new());
        for key in state.namespace.by_heat() {
            let Some(wish) = state.namespace.wishes.get(&key) else { continue };
            let is_free = wish.taken_until.is_none_or(|until| until <= now);
            if looked_at == limit || !is_free || !volumes.contains(&key.0) {
                continue;
            }
            looked_at += 1;
            let way = wish.taken_until.and_then(|_| state.namespace.way(&key.0, &key.1));
            if way.is_some_and(|way| way.denies_directory_since(wish.at)) {
                state.namespace.wishes.remove(&key);
            } else if let Some(wish) = state.namespace.wishes.get_mut(&key) {
                wish.taken_until = Some(now + lease);
                taken.push(LearnRequest { volume: key.0, directory: key.1, recursive: wish.recursive });
            }
        }
        Ok(taken)
    }
}
