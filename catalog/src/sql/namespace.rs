//! Directories and files.
//!
//! A directory is a row of its own; a file is known by its directory's number and its name, so that a path's long
//! front part is stored once, and a listing replaces a small range of an index. In SQLite the rows themselves lie in that
//! order: a path is found by one page of the disk, and a directory's files side by side.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use foretide_flow::{
    Entry, EntryKind, FilePath, FileVersion, LearnRequest, Listing, Manifest, ManifestId, NodeId, SharedFile,
    Timestamp, VolumeId,
};

use super::engine::Column::{Bytes, Plain};
use super::engine::{Columns, Row, Tx, VALUES_PER_IN, damaged};
use super::shared::shared_record;
use super::text::{Arg, Statement, Subtree, args, count};
use super::{SqlCatalog, from_json, to_json, words};
use crate::codec::{decode_chunks, encode_chunks};
use crate::namespace::{Way, check_listing, check_manifest, check_shared, denied, same_file};
use crate::{CatalogError, Changed, FileQuery, FoundPage, Namespace, Result, SharedRecord, Topic, Totals, limits};

/// Columns of an entry, in the order of [`entry_of`].
pub(super) const ENTRY: Columns<'static> = Columns(&[
    Bytes("f.name"),
    Plain("f.kind"),
    Plain("f.size"),
    Plain("f.modified_at"),
    Plain("f.mode"),
    Plain("f.uid"),
    Plain("f.gid"),
    Plain("f.links"),
    Plain("f.version"),
    Plain("f.target"),
]);

/// An entry of `directory` from the columns [`ENTRY`], the first of them at `column`.
pub(super) fn entry_of(row: &Row, column: usize, directory: &FilePath) -> Result<Entry> {
    let name = row.blob(column)?;
    let path = directory.join(&name).map_err(|e| damaged("name in", directory, e))?;
    let number = row.int(column + 1)?;
    let kind = words::kind(number, row.maybe_text(column + 9)?);
    let kind = kind.ok_or_else(|| damaged("entry", &path, format!("kind {number} is unknown")))?;
    Ok(Entry {
        kind,
        size: row.count(column + 2)?,
        modified_at: Timestamp(row.int(column + 3)?),
        mode: row.int(column + 4)? as u32,
        uid: row.int(column + 5)? as u32,
        gid: row.int(column + 6)? as u32,
        links: row.int(column + 7)? as u32,
        version: FileVersion(row.text(column + 8)?.into()),
        path,
    })
}

pub(super) fn path_of(row: &Row, column: usize) -> Result<FilePath> {
    let bytes = row.blob(column)?;
    FilePath::new(&bytes).map_err(|e| damaged("path", String::from_utf8_lossy(&bytes), e))
}

pub(super) fn volume_of(row: &Row, column: usize) -> Result<VolumeId> {
    let name = row.text(column)?;
    VolumeId::new(&name).map_err(|e| damaged("volume", &name, e))
}

/// A directory's number, and when it was seen.
struct Known {
    id: i64,
    seen_at: Option<Timestamp>,
}

fn entry_row(directory: i64, entry: &Entry) -> Vec<Arg<'_>> {
    let (kind, target) = words::kind_number(&entry.kind);
    vec![
        directory.into(),
        entry.path.name().into(),
        kind.into(),
        count(entry.size),
        entry.modified_at.into(),
        i64::from(entry.mode).into(),
        i64::from(entry.uid).into(),
        i64::from(entry.gid).into(),
        i64::from(entry.links).into(),
        entry.version.0.as_ref().into(),
        target.into(),
    ]
}

impl Tx {
    async fn known(&mut self, volume: &VolumeId, directory: &FilePath) -> Result<Option<Known>> {
        let sql = "SELECT id, seen_at FROM directories WHERE volume = $1 AND path = $2";
        match self.row(sql, args![volume.as_str(), directory]).await? {
            Some(row) => Ok(Some(Known { id: row.int(0)?, seen_at: row.maybe_int(1)?.map(Timestamp) })),
            None => Ok(None),
        }
    }

    async fn known_or_new(&mut self, volume: &VolumeId, directory: &FilePath) -> Result<Known> {
        if let Some(known) = self.known(volume, directory).await? {
            return Ok(known);
        }
        // Two writers may come here at once: the second finds the row of the first.
        let sql = "INSERT INTO directories (volume, path) VALUES ($1, $2) ON CONFLICT (volume, path) DO NOTHING";
        self.run(sql, args![volume.as_str(), directory]).await?;
        let known = self.known(volume, directory).await?;
        known.ok_or_else(|| damaged("directory", directory, "it was made and is not there"))
    }

    /// Entries of a directory with their columns, in order of name.
    async fn entries(&mut self, id: i64, directory: &FilePath) -> Result<Vec<Entry>> {
        let sql = format!("SELECT {ENTRY} FROM files f WHERE f.directory = $1 ORDER BY f.name");
        self.rows(&sql, args![id]).await?.iter().map(|row| entry_of(row, 0, directory)).collect()
    }

    pub(super) async fn entry(&mut self, volume: &VolumeId, path: &FilePath) -> Result<Option<Entry>> {
        let Some(directory) = path.parent() else { return Ok(None) };
        let row = self.row(&one_entry(), args![volume.as_str(), &directory, path.name()]).await?;
        row.map(|row| entry_of(&row, 0, &directory)).transpose()
    }

    async fn way(&mut self, volume: &VolumeId, path: &FilePath) -> Result<Option<Way>> {
        let mut name = path.clone();
        while let Some(above) = name.parent() {
            if let Some(seen_at) = self.known(volume, &above).await?.and_then(|known| known.seen_at) {
                let found = self.entry(volume, &name).await?;
                return Ok(Some(Way::new(seen_at, path, &name, found.as_ref())));
            }
            name = above;
        }
        Ok(None)
    }

    async fn put_entries(&mut self, directory: i64, entries: &[&Entry]) -> Result<()> {
        let mut rows: Vec<_> = entries.iter().map(|entry| entry_row(directory, entry)).collect();
        let mut number = "";
        if self.finds_names() && !rows.is_empty() {
            number = ", id";
            let first = self.take_numbers("files", rows.len()).await?;
            rows.iter_mut().zip(first..).for_each(|(row, number)| row.push(number.into()));
        }
        let columns = "directory, name, kind, size, modified_at, mode, uid, gid, links, version, target";
        self.run_rows(
            &format!("INSERT INTO files ({columns}{number}) VALUES "),
            &rows,
            " ON CONFLICT (directory, name) DO UPDATE SET kind = excluded.kind, size = excluded.size,
            modified_at = excluded.modified_at, mode = excluded.mode, uid = excluded.uid, gid = excluded.gid,
            links = excluded.links, version = excluded.version, target = excluded.target",
        )
        .await
        .map(drop)
    }

    /// What was known of these names is void, and below those that were directories.
    async fn forget(&mut self, volume: &VolumeId, gone: &[(&FilePath, bool)]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        self.hold(super::HAPPENING).await?;
        for some in gone.chunks(VALUES_PER_IN) {
            let paths: Vec<_> = some.iter().map(|(path, _)| Arg::from(*path)).collect();
            for table in ["manifests", "resident", "wishes"] {
                let mut delete = Statement::new(&format!("DELETE FROM {table}"));
                delete.add(" WHERE volume = ? AND path", &[volume.as_str().into()]).add_in("", &paths);
                self.perform(&delete).await?;
            }
        }
        for (directory, _) in gone.iter().filter(|(_, was_directory)| *was_directory) {
            self.forget_below(volume, directory).await?;
        }
        Ok(())
    }

    async fn forget_below(&mut self, volume: &VolumeId, directory: &FilePath) -> Result<()> {
        let subtree = Subtree::of(directory);
        let mut files = Statement::new("DELETE FROM files WHERE directory IN (SELECT id FROM directories");
        files.add(" WHERE volume = ?", &[volume.as_str().into()]);
        subtree.add_to("path", &mut files);
        files.sql.push(')');
        self.perform(&files).await?;
        for table in ["directories", "manifests", "resident", "wishes"] {
            let mut delete = Statement::new(&format!("DELETE FROM {table}"));
            delete.add(" WHERE volume = ?", &[volume.as_str().into()]);
            subtree.add_to("path", &mut delete);
            self.perform(&delete).await?;
        }
        self.forget_shared_below(volume, &subtree).await
    }

    /// Subtrees known below a directory that, now first listed, has no such directory.
    async fn denied_by(&mut self, listing: &Listing) -> Result<BTreeSet<FilePath>> {
        let subtree = Subtree::of(&listing.directory);
        let mut below = Statement::new("SELECT path FROM directories");
        below.add(" WHERE volume = ?", &[listing.volume.as_str().into()]);
        subtree.add_to("path", &mut below);
        let known: Vec<_> = self.ask(&below).await?.iter().map(|row| path_of(row, 0)).collect::<Result<_>>()?;
        Ok(denied(listing, known.iter()))
    }

    async fn put_listing(&mut self, listing: &Listing) -> Result<Changed> {
        let volume = &listing.volume;
        self.fulfil(listing).await?;
        let known = self.known_or_new(volume, &listing.directory).await?;
        if known.seen_at.is_some_and(|at| at > listing.seen_at) {
            return Ok(Changed::default());
        }
        let before = match known.seen_at {
            Some(_) => self.entries(known.id, &listing.directory).await?,
            None => {
                let denied = self.denied_by(listing).await?;
                self.forget(volume, &denied.iter().map(|path| (path, true)).collect::<Vec<_>>()).await?;
                Vec::new()
            }
        };
        let difference = Difference::between(&before, &listing.entries);
        self.forget(volume, &difference.void).await?;
        let removed: Vec<_> = difference.removed.iter().map(|e| Arg::from(e.path.name())).collect();
        for names in removed.chunks(VALUES_PER_IN) {
            let mut delete = Statement::new("DELETE FROM files");
            delete.add(" WHERE directory = ? AND name", &[known.id.into()]).add_in("", names);
            self.perform(&delete).await?;
        }
        self.put_entries(known.id, &difference.written).await?;
        self.name_directories(volume, &difference.written).await?;
        self.forget_shared_of_others(known.id, listing).await?;
        self.sum_up(known.id, listing).await?;
        Ok(difference.changed)
    }

    /// Keeps in the directory's row what totals and searches ask of its files.
    async fn sum_up(&mut self, id: i64, listing: &Listing) -> Result<()> {
        let files = || listing.entries.iter().filter(|e| e.kind == EntryKind::File);
        let maybe = |n: Option<u64>| n.map_or(Arg::Int(None), count);
        let values = [
            id.into(),
            listing.seen_at.into(),
            count(files().count() as u64),
            count(files().map(|e| e.size).fold(0, u64::saturating_add)),
            maybe(files().map(|e| e.size).min()),
            maybe(files().map(|e| e.size).max()),
            files().map(|e| e.modified_at.0).min().into(),
            files().map(|e| e.modified_at.0).max().into(),
        ];
        let sql =
            "UPDATE directories SET seen_at = $2, files = $3, bytes = $4, smallest = $5, largest = $6, oldest = $7,
            newest = $8 WHERE id = $1";
        self.run(sql, &values).await.map(drop)
    }

    /// Subdirectories are now known to exist.
    async fn name_directories(&mut self, volume: &VolumeId, entries: &[&Entry]) -> Result<()> {
        for entry in entries.iter().filter(|e| e.kind == EntryKind::Directory) {
            let sql = "INSERT INTO directories (volume, path) VALUES ($1, $2) ON CONFLICT (volume, path) DO NOTHING";
            self.run(sql, args![volume.as_str(), &entry.path]).await?;
        }
        Ok(())
    }

    /// A listing fulfils the wish for it, and passes a recursive one on.
    async fn fulfil(&mut self, listing: &Listing) -> Result<()> {
        let volume = listing.volume.as_str();
        let sql = "DELETE FROM wishes WHERE volume = $1 AND path = $2 RETURNING recursive, heat, at";
        let Some(wish) = self.row(sql, args![volume, &listing.directory]).await? else { return Ok(()) };
        if wish.int(0)? == 0 {
            return Ok(());
        }
        let (heat, at) = (wish.real(1)?, Timestamp(wish.int(2)?));
        for entry in listing.entries.iter().filter(|e| e.kind == EntryKind::Directory) {
            let known = self.known(&listing.volume, &entry.path).await?;
            if known.is_none_or(|k| k.seen_at.is_none()) {
                self.wish(volume, &entry.path, true, heat, at).await?;
            }
        }
        Ok(())
    }

    async fn wish(&mut self, volume: &str, path: &FilePath, recursive: bool, heat: f64, at: Timestamp) -> Result<()> {
        let sql = "INSERT INTO wishes (volume, path, recursive, heat, at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (volume, path) DO UPDATE SET
                recursive = CASE WHEN excluded.recursive > wishes.recursive THEN excluded.recursive ELSE wishes.recursive END,
                heat = CASE WHEN excluded.heat > wishes.heat THEN excluded.heat ELSE wishes.heat END";
        let values = [volume.into(), path.into(), i64::from(recursive).into(), Arg::Real(heat), at.into()];
        self.run(sql, &values).await.map(drop)
    }

    async fn take_wishes(
        &mut self,
        volumes: &[VolumeId],
        node: &NodeId,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<LearnRequest>> {
        let names: Vec<_> = volumes.iter().map(|v| Arg::from(v.as_str())).collect();
        let mut hottest = Statement::new("SELECT volume, path, recursive, at, taken_until FROM wishes");
        hottest.add(" WHERE (taken_until IS NULL OR taken_until <= ?)", &[now.into()]).add_in(" AND volume", &names);
        let limit = limit.min(limits::PAGE_ITEMS) as i64;
        hottest.add(" ORDER BY heat DESC, at, volume, path LIMIT ?", &[limit.into()]);
        if self.skips_locked() {
            hottest.add(" FOR UPDATE SKIP LOCKED", &[]);
        }
        let mut taken = Vec::new();
        for row in self.ask(&hottest).await? {
            let wish =
                LearnRequest { volume: volume_of(&row, 0)?, directory: path_of(&row, 1)?, recursive: row.int(2)? != 0 };
            let (asked_at, was_taken) = (Timestamp(row.int(3)?), row.maybe_int(4)?.is_some());
            if was_taken
                && self.way(&wish.volume, &wish.directory).await?.is_some_and(|w| w.denies_directory_since(asked_at))
            {
                let sql = "DELETE FROM wishes WHERE volume = $1 AND path = $2";
                self.run(sql, args![wish.volume.as_str(), &wish.directory]).await?;
                continue;
            }
            let sql = "UPDATE wishes SET taken_until = $3, taken_by = $4 WHERE volume = $1 AND path = $2";
            let values = args![wish.volume.as_str(), &wish.directory, now + lease, node.as_str()];
            self.run(sql, values).await?;
            taken.push(wish);
        }
        Ok(taken)
    }
}

fn one_entry() -> String {
    format!(
        "SELECT {ENTRY} FROM directories d JOIN files f ON f.directory = d.id
        WHERE d.volume = $1 AND d.path = $2 AND f.name = $3"
    )
}

/// What a listing changes in what is known of its directory.
struct Difference<'a> {
    changed: Changed,
    /// Names that are gone.
    removed: Vec<&'a Entry>,
    /// What was known of these is void, and below those that were directories.
    void: Vec<(&'a FilePath, bool)>,
    /// Names to write.
    written: Vec<&'a Entry>,
}

impl<'a> Difference<'a> {
    fn between(before: &'a [Entry], after: &'a [Entry]) -> Self {
        let mut new: BTreeMap<_, _> = after.iter().map(|e| (e.path.name(), e)).collect();
        let mut this = Self { changed: Changed::default(), removed: Vec::new(), void: Vec::new(), written: Vec::new() };
        for old in before {
            let Some(entry) = new.get(old.path.name()).copied() else {
                this.changed.removed += 1;
                this.removed.push(old);
                this.void.push((&old.path, old.kind == EntryKind::Directory));
                continue;
            };
            if entry == old {
                new.remove(old.path.name());
            } else if !same_file(old, entry) {
                this.changed.changed += 1;
                let was_directory = old.kind == EntryKind::Directory;
                if !was_directory || entry.kind != EntryKind::Directory {
                    this.void.push((&old.path, was_directory));
                }
            }
        }
        let known: HashSet<_> = before.iter().map(|e| e.path.name()).collect();
        this.changed.added = new.keys().filter(|n| !known.contains(*n)).count() as u64;
        this.written = new.into_values().collect();
        this
    }
}

#[async_trait]
impl Namespace for SqlCatalog {
    async fn put_listing(&self, listing: &Listing) -> Result<Changed> {
        check_listing(listing)?;
        let mut tx = self.engine.write().await?;
        let changed = tx.put_listing(listing).await?;
        self.commit(tx, &[Topic::Namespace]).await?;
        Ok(changed)
    }

    async fn directory(&self, volume: &VolumeId, directory: &FilePath) -> Result<Option<Listing>> {
        let mut tx = self.engine.read().await?;
        let Some(Known { id, seen_at: Some(seen_at) }) = tx.known(volume, directory).await? else { return Ok(None) };
        let entries = tx.entries(id, directory).await?;
        Ok(Some(Listing { volume: volume.clone(), directory: directory.clone(), seen_at, entries }))
    }

    async fn entry(&self, volume: &VolumeId, path: &FilePath) -> Result<Option<Entry>> {
        let Some(directory) = path.parent() else { return Ok(None) };
        let row = self.engine.row(&one_entry(), args![volume.as_str(), &directory, path.name()]).await?;
        row.map(|row| entry_of(&row, 0, &directory)).transpose()
    }

    async fn denied_since(&self, volume: &VolumeId, path: &FilePath, since: Timestamp) -> Result<bool> {
        let way = self.engine.read().await?.way(volume, path).await?;
        Ok(way.is_some_and(|way| way.denies_since(since)))
    }

    async fn files_below(
        &self,
        volume: &VolumeId,
        prefix: &FilePath,
        after: Option<&FilePath>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let limit = limit.min(limits::PAGE_ITEMS);
        let after = after.and_then(|p| Some((p.parent()?, p.name())));
        let mut tx = self.engine.read().await?;
        if let Some(entry) = tx.entry(volume, prefix).await?.filter(|e| e.kind != EntryKind::Directory) {
            let key = (prefix.parent().unwrap_or_default(), prefix.name());
            let wanted = limit > 0 && entry.kind == EntryKind::File && after.is_none_or(|a| key > a);
            return Ok(if wanted { vec![entry] } else { Vec::new() });
        }
        let mut found = Vec::new();
        if let Some((directory, name)) = after.as_ref().filter(|(d, _)| d.is_within(prefix)) {
            let mut here = Statement::new(" FROM directories d JOIN files f ON f.directory = d.id");
            here.add(" WHERE d.volume = ? AND d.path = ?", &[volume.as_str().into(), directory.into()]);
            here.add(" AND f.name > ? AND f.kind = 0 ORDER BY f.name LIMIT ?", args![*name, limit as i64]);
            let rows = tx.many(ENTRY, &here).await?;
            found = rows.iter().map(|row| entry_of(row, 0, directory)).collect::<Result<_>>()?;
        }
        if found.len() < limit {
            let subtree = Subtree::of(prefix);
            let mut rest = Statement::new(
                " FROM directories d CROSS JOIN files f WHERE f.directory = d.id AND f.kind = 0 AND d.files > 0",
            );
            rest.add(" AND d.volume = ?", &[volume.as_str().into()]);
            subtree.add_after_to("d.path", after.as_ref().map(|(directory, _)| directory), &mut rest);
            rest.add(" ORDER BY d.path, f.name LIMIT ?", &[((limit - found.len()) as i64).into()]);
            let columns = [&[Bytes("d.path")], ENTRY.0].concat();
            for row in tx.many(Columns(&columns), &rest).await? {
                found.push(entry_of(&row, 1, &path_of(&row, 0)?)?);
            }
        }
        Ok(found)
    }

    async fn totals(&self, volume: &VolumeId, prefix: &FilePath) -> Result<Totals> {
        let mut tx = self.engine.read().await?;
        if let Some(entry) = tx.entry(volume, prefix).await?.filter(|e| e.kind != EntryKind::Directory) {
            let is_file = entry.kind == EntryKind::File;
            let bytes = if is_file { entry.size } else { 0 };
            return Ok(Totals { files: u64::from(is_file), bytes, complete: true });
        }
        let subtree = Subtree::of(prefix);
        let mut sums = Statement::new(
            "SELECT CAST(COALESCE(SUM(files), 0) AS BIGINT), CAST(COALESCE(SUM(bytes), 0) AS BIGINT),
            CAST(COALESCE(SUM(CASE WHEN seen_at IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT) FROM directories",
        );
        sums.add(" WHERE volume = ?", &[volume.as_str().into()]);
        subtree.add_to("path", &mut sums);
        let rows = tx.ask(&sums).await?;
        let itself_seen = tx.known(volume, prefix).await?.is_some_and(|k| k.seen_at.is_some());
        let row = rows.first().ok_or_else(|| damaged("totals of", prefix, "no row"))?;
        Ok(Totals { files: row.count(0)?, bytes: row.count(1)?, complete: itself_seen && row.int(2)? == 0 })
    }

    async fn unlearned(&self, volume: &VolumeId, prefix: &FilePath, limit: usize) -> Result<Vec<FilePath>> {
        let limit = limit.min(limits::PAGE_ITEMS);
        let mut tx = self.engine.read().await?;
        let entry = tx.entry(volume, prefix).await?;
        let itself = tx.known(volume, prefix).await?;
        let mut found = Vec::new();
        if limit > 0 && itself.is_none() && entry.is_none_or(|e| e.kind == EntryKind::Directory) {
            found.push(prefix.clone());
        }
        let subtree = Subtree::of(prefix);
        let mut named = Statement::new("SELECT path FROM directories WHERE seen_at IS NULL");
        named.add(" AND volume = ?", &[volume.as_str().into()]);
        subtree.add_to("path", &mut named);
        named.add(" ORDER BY path LIMIT ?", &[((limit - found.len()) as i64).into()]);
        for row in tx.ask(&named).await? {
            found.push(path_of(&row, 0)?);
        }
        Ok(found)
    }

    async fn find_files(&self, query: &FileQuery, cursor: Option<&str>, limit: usize) -> Result<FoundPage> {
        self.search(query, cursor, limit).await
    }

    async fn put_tags(&self, volume: &VolumeId, path: &FilePath, tags: &BTreeMap<String, String>) -> Result<()> {
        let mut tx = self.engine.write().await?;
        tx.run("DELETE FROM tags WHERE volume = $1 AND path = $2", args![volume.as_str(), path]).await?;
        if !tags.is_empty() {
            let kept = tx.row("SELECT COUNT(*) FROM tags", args![]).await?.map_or(Ok(0), |r| r.count(0))?;
            if kept >= limits::TAGGED_PATHS as u64 {
                return Err(CatalogError::tags_full());
            }
            let sql = "INSERT INTO tags (volume, path, tags) VALUES ($1, $2, $3)";
            tx.run(sql, args![volume.as_str(), path, &to_json(tags)]).await?;
        }
        self.commit(tx, &[Topic::Namespace]).await
    }

    async fn tags(&self, volume: &VolumeId, path: &FilePath) -> Result<BTreeMap<String, String>> {
        let chain: Vec<_> = std::iter::successors(Some(path.clone()), FilePath::parent).collect();
        let paths: Vec<_> = chain.iter().map(Arg::from).collect();
        let mut own = BTreeMap::new();
        for some in paths.chunks(VALUES_PER_IN) {
            let mut tagged = Statement::new("SELECT path, tags FROM tags");
            tagged.add(" WHERE volume = ? AND path", &[volume.as_str().into()]).add_in("", some);
            for row in self.engine.ask(&tagged).await? {
                own.insert(path_of(&row, 0)?, from_json::<BTreeMap<String, String>>("tags", &row.text(1)?)?);
            }
        }
        // In order of bytes a directory comes before what is in it, so the nearest is applied last and wins.
        Ok(own.into_values().flatten().collect())
    }

    async fn tagged(&self, volume: &VolumeId) -> Result<BTreeMap<FilePath, BTreeMap<String, String>>> {
        let rows = self.engine.rows("SELECT path, tags FROM tags WHERE volume = $1", args![volume.as_str()]).await?;
        rows.iter().map(|row| Ok((path_of(row, 0)?, from_json("tags", &row.text(1)?)?))).collect()
    }

    async fn put_manifest(&self, volume: &VolumeId, path: &FilePath, manifest: &Manifest) -> Result<()> {
        check_manifest(manifest)?;
        let chunks = encode_chunks(&manifest.chunks);
        let mut tx = self.engine.write().await?;
        let number = tx.take_numbers("manifests", 1).await?;
        let sql = "INSERT INTO manifests (volume, path, version, number, id, size, chunks) VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (volume, path, version) DO UPDATE SET number = excluded.number, id = excluded.id,
            size = excluded.size, chunks = excluded.chunks";
        let id: &[u8] = &manifest.id.0;
        let values = [
            Arg::from(volume.as_str()),
            path.into(),
            manifest.version.0.as_ref().into(),
            number.into(),
            id.into(),
            count(manifest.size),
            (&chunks).into(),
        ];
        tx.run(sql, &values).await?;
        let sql = "DELETE FROM manifests WHERE volume = $1 AND path = $2 AND number <= (SELECT number FROM manifests
            WHERE volume = $1 AND path = $2 ORDER BY number DESC LIMIT 1 OFFSET $3)";
        tx.run(sql, args![volume.as_str(), path, limits::MANIFESTS_PER_FILE as i64]).await?;
        self.commit(tx, &[]).await
    }

    async fn manifest(&self, volume: &VolumeId, path: &FilePath, version: &FileVersion) -> Result<Option<Manifest>> {
        let sql = "SELECT id, size, chunks FROM manifests WHERE volume = $1 AND path = $2 AND version = $3";
        let Some(row) = self.engine.row(sql, args![volume.as_str(), path, version.0.as_ref()]).await? else {
            return Ok(None);
        };
        let id = row.blob(0)?.try_into().map_err(|_| damaged("manifest of", path, "its id has not 32 bytes"))?;
        let chunks = decode_chunks(&row.blob(2)?).map_err(|e| damaged("manifest of", path, e))?;
        let size = row.count(1)?;
        if chunks.iter().map(|c| u64::from(c.length)).sum::<u64>() != size {
            return Err(damaged("manifest of", path, "its chunks do not add up to its size"));
        }
        Ok(Some(Manifest { id: ManifestId(id), version: version.clone(), size, chunks }))
    }

    async fn put_shared(&self, files: &[SharedFile]) -> Result<()> {
        files.iter().try_for_each(check_shared)?;
        let mut tx = self.engine.write().await?;
        for file in files {
            tx.put_shared(file).await?;
        }
        self.commit(tx, &[Topic::Shared]).await
    }

    async fn shared(&self, after: u64, limit: usize) -> Result<Vec<SharedRecord>> {
        let sql = "SELECT number, volume, directory, name, version, chunks FROM shared WHERE number > $1
            ORDER BY number LIMIT $2";
        let args = args![super::after(after), limit.min(limits::PAGE_ITEMS) as i64];
        self.engine.rows(sql, args).await?.iter().map(shared_record).collect()
    }

    async fn want_learned(&self, wishes: &[LearnRequest], heat: f64, at: Timestamp) -> Result<()> {
        let mut tx = self.engine.write().await?;
        tx.hold("wishes").await?;
        for wish in wishes {
            tx.wish(wish.volume.as_str(), &wish.directory, wish.recursive, heat, at).await?;
        }
        let kept = tx.row("SELECT COUNT(*) FROM wishes", args![]).await?.map_or(Ok(0), |r| r.count(0))?;
        if kept > limits::LEARN_REQUESTS as u64 {
            let sql = "DELETE FROM wishes WHERE heat < (SELECT heat FROM wishes ORDER BY heat DESC LIMIT 1 OFFSET $1)";
            tx.run(sql, args![limits::LEARN_REQUESTS as i64]).await?;
        }
        self.commit(tx, &[Topic::Namespace]).await
    }

    async fn take_wishes(
        &self,
        volumes: &[VolumeId],
        node: &NodeId,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<LearnRequest>> {
        if volumes.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.engine.write().await?;
        let taken = tx.take_wishes(volumes, node, now, lease, limit).await?;
        self.commit(tx, &[]).await?;
        Ok(taken)
    }
}
