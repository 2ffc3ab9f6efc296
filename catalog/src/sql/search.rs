//! Search over all files.
//!
//! A search is driven by the condition that names its files most directly, and the others are checked on what comes:
//! 1. a site: what is resident there, in order of path;
//! 2. a subtree, asked for or tagged: its files in order of path;
//! 3. three characters or more of the name, where the engine has an index of names (see `names.rs`): what the index
//!    finds, in order of the files' numbers, then the files that it has not come to yet;
//! 4. otherwise directory by directory, passing by those whose row says that no file in them can match (each row holds
//!    the smallest, largest, oldest and newest of its files: ten million files are ten thousand rows to look at).
//!
//! A call looks at a bounded number of files and says where to go on, so that its time is bounded whatever is asked.

use std::collections::BTreeMap;

use foretide_flow::{EntryKind, FilePath, SiteId, VolumeId};
use serde::{Deserialize, Serialize};

use super::engine::Row;
use super::namespace::{ENTRY, entry_of, path_of, volume_of};
use super::text::{Arg, Statement, args, count};
use super::{SqlCatalog, from_json, names};
use crate::namespace::{Namespace, bad_cursor, check_query, matches};
use crate::{FileQuery, FoundFile, FoundPage, Result, limits};

/// Files that one call looks at, at most: tens of milliseconds.
const LOOKED_AT: usize = 20_000;

/// Directories whose row one call looks at, at most: tens of milliseconds.
const DIRECTORIES_LOOKED_AT: i64 = 100_000;
/// Directories whose files are looked at together.
const DIRECTORIES_AT_ONCE: i64 = 16;

/// Where a search goes on: after what it last looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Cursor {
    Path(VolumeId, FilePath),
    File(i64),
    /// In this directory after this name; the root stands for its start.
    Directory(i64, FilePath),
}

/// Tags by path.
type Tags = BTreeMap<(VolumeId, FilePath), BTreeMap<String, String>>;

/// Collects a page.
struct Looking<'a> {
    query: &'a FileQuery,
    tags: Tags,
    limit: usize,
    left: usize,
    items: Vec<FoundFile>,
    /// What was looked at last.
    at: Option<Cursor>,
}

impl Looking<'_> {
    fn look(&mut self, found: FoundFile, at: Cursor) {
        self.left = self.left.saturating_sub(1);
        self.at = Some(at);
        let tags = || effective_tags(&self.tags, &found.volume, &found.entry.path);
        if matches(self.query, &found.volume, &found.entry, tags) {
            self.items.push(found);
        }
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.items.len() >= self.limit
    }
}

fn effective_tags(tags: &Tags, volume: &VolumeId, path: &FilePath) -> BTreeMap<String, String> {
    let mut chain: Vec<_> = std::iter::successors(Some(path.clone()), FilePath::parent).collect();
    chain.reverse();
    let own = chain.into_iter().filter_map(|p| tags.get(&(volume.clone(), p)));
    own.flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Subtrees that hold everything the query can find, none inside another; none if it names no subtree.
fn roots(query: &FileQuery, tags: &Tags) -> Option<Vec<(VolumeId, FilePath)>> {
    let below = query.volume.clone().map(|v| (v, query.below.clone().unwrap_or_default()));
    let Some((key, value)) = query.tags.first_key_value() else {
        return below.filter(|_| query.below.is_some()).map(|root| vec![root]);
    };
    let mut roots: Vec<(VolumeId, FilePath)> = Vec::new();
    for (volume, path) in tags.iter().filter(|(_, own)| own.get(key) == Some(value)).map(|(at, _)| at) {
        let narrowed = match &below {
            Some((v, _)) if v != volume => continue,
            Some((_, below)) if below.is_within(path) => below,
            Some((_, below)) if !path.is_within(below) => continue,
            _ => path,
        };
        if !roots.iter().any(|(v, root)| v == volume && narrowed.is_within(root)) {
            roots.push((volume.clone(), narrowed.clone()));
        }
    }
    Some(roots)
}

impl SqlCatalog {
    pub(super) async fn search(&self, query: &FileQuery, cursor: Option<&str>, limit: usize) -> Result<FoundPage> {
        check_query(query)?;
        let from = match cursor {
            Some(c) => Some(serde_json::from_str(c).map_err(|_| bad_cursor(c))?),
            None => None,
        };
        let tags = if query.tags.is_empty() { Tags::new() } else { self.all_tags().await? };
        let roots = roots(query, &tags);
        let limit = limit.min(limits::PAGE_ITEMS);
        let mut looking = Looking { query, tags, limit, left: LOOKED_AT, items: Vec::new(), at: None };
        let ended = match (roots, &query.resident_at) {
            (_, Some(site)) => self.look_at_resident(&mut looking, site, from).await?,
            (Some(roots), None) => self.look_below(&mut looking, &roots, from).await?,
            (None, None) => match names::trigrams(query) {
                trigrams if self.engine.finds_names() && !trigrams.is_empty() => {
                    self.look_at_named(&mut looking, &trigrams, from).await?
                }
                _ => self.look_at_all(&mut looking, from).await?,
            },
        };
        let next = looking.at.filter(|_| !ended).map(|at| super::to_json(&at));
        Ok(FoundPage { items: looking.items, next })
    }

    /// Files of subtrees. Answers whether these were all.
    async fn look_below(
        &self,
        looking: &mut Looking<'_>,
        roots: &[(VolumeId, FilePath)],
        from: Option<Cursor>,
    ) -> Result<bool> {
        let mut after = match from {
            Some(Cursor::Path(volume, path)) => Some((volume, path)),
            Some(_) => return Err(bad_cursor("of another search")),
            None => None,
        };
        // Roots are in order; those before the one that holds the cursor are done.
        let at = after.as_ref().and_then(|(v, p)| roots.iter().position(|(rv, root)| v == rv && p.is_within(root)));
        for (volume, root) in &roots[at.unwrap_or(0)..] {
            loop {
                let path = after.as_ref().map(|(_, path)| path);
                let files = self.files_below(volume, root, path, limits::PAGE_ITEMS).await?;
                let whole = files.len() < limits::PAGE_ITEMS;
                for entry in files {
                    if looking.is_over() {
                        return Ok(false);
                    }
                    after = Some((volume.clone(), entry.path.clone()));
                    let at = Cursor::Path(volume.clone(), entry.path.clone());
                    looking.look(FoundFile { volume: volume.clone(), entry }, at);
                }
                if whole {
                    break;
                }
            }
            after = None;
        }
        Ok(true)
    }

    /// Files resident at a site. Answers whether these were all.
    async fn look_at_resident(&self, looking: &mut Looking<'_>, site: &SiteId, from: Option<Cursor>) -> Result<bool> {
        let (mut volume, mut path) = match from {
            Some(Cursor::Path(volume, path)) => (volume.to_string(), path),
            Some(_) => return Err(bad_cursor("of another search")),
            None => (String::new(), FilePath::root()),
        };
        loop {
            let mut next = Statement::new("SELECT volume, path FROM resident");
            next.add(" WHERE site = ? AND volume >= ?", &[site.as_str().into(), volume.as_str().into()]);
            next.add(" AND (volume > ? OR path > ?)", &[volume.as_str().into(), (&path).into()]);
            next.add(" ORDER BY volume, path LIMIT ?", &[(limits::PAGE_ITEMS as i64).into()]);
            let rows = self.engine.ask(&next).await?;
            for row in &rows {
                if looking.is_over() {
                    return Ok(false);
                }
                let (at_volume, at_path) = (volume_of(row, 0)?, path_of(row, 1)?);
                let at = Cursor::Path(at_volume.clone(), at_path.clone());
                match self.entry(&at_volume, &at_path).await? {
                    Some(entry) if entry.kind == EntryKind::File => {
                        looking.look(FoundFile { volume: at_volume.clone(), entry }, at);
                    }
                    _ => looking.at = Some(at),
                }
                (volume, path) = (at_volume.to_string(), at_path);
            }
            if rows.len() < limits::PAGE_ITEMS {
                return Ok(true);
            }
        }
    }

    /// Files that the index of names finds, then those that it does not know yet. Answers whether these were all.
    async fn look_at_named(
        &self,
        looking: &mut Looking<'_>,
        trigrams: &[String],
        from: Option<Cursor>,
    ) -> Result<bool> {
        let from = match from {
            Some(Cursor::File(number)) => number,
            Some(_) => return Err(bad_cursor("of another search")),
            None => 0,
        };
        let indexed = self.engine.row(names::INDEXED, args![]).await?.map_or(Ok(0), |r| r.int(0))?;
        let pattern = names::pattern(trigrams, &self.some_names(indexed).await?);
        let limit = LOOKED_AT.min(4 * looking.limit + 1) as i64;
        let mut named = Statement::new(&format!(
            "SELECT f.id, d.volume, d.path, {ENTRY} FROM (SELECT rowid AS id FROM file_names WHERE file_names MATCH "
        ));
        named.add("? AND rowid > ? AND rowid <= ?", &[(&pattern).into(), from.into(), indexed.into()]);
        named.add(" ORDER BY rowid LIMIT ?) n", &[limit.into()]);
        named.add(
            " CROSS JOIN files f ON f.id = n.id CROSS JOIN directories d ON d.id = f.directory ORDER BY n.id",
            &[],
        );
        let mut rows = if from < indexed { self.engine.ask(&named).await? } else { Vec::new() };
        let all_named = rows.len() < limit as usize;
        let mut all_new = false;
        if all_named {
            let sql = format!(
                "SELECT f.id, d.volume, d.path, {ENTRY} FROM files f JOIN directories d ON d.id = f.directory
                WHERE f.id > $1 ORDER BY f.id LIMIT $2"
            );
            let new = self.engine.rows(&sql, args![from.max(indexed), limit]).await?;
            all_new = new.len() < limit as usize;
            rows.extend(new);
        }
        for row in &rows {
            if looking.is_over() {
                return Ok(false);
            }
            let entry = entry_of(row, 3, &path_of(row, 2)?)?;
            looking.look(FoundFile { volume: volume_of(row, 1)?, entry }, Cursor::File(row.int(0)?));
        }
        Ok(all_new)
    }

    /// Some names that the index of names has, in lower case.
    async fn some_names(&self, indexed: i64) -> Result<Vec<String>> {
        let numbers: Vec<_> = names::sample(indexed).into_iter().map(Arg::from).collect();
        let mut some = Statement::new("SELECT name FROM files WHERE id");
        some.add_in("", &numbers);
        let text = |row: &Row| Ok(String::from_utf8_lossy(&row.blob(0)?).to_ascii_lowercase());
        self.engine.ask(&some).await?.iter().map(text).collect()
    }

    /// Directory by directory. Answers whether these were all.
    async fn look_at_all(&self, looking: &mut Looking<'_>, from: Option<Cursor>) -> Result<bool> {
        let (mut at, mut after) = match from {
            Some(Cursor::Directory(number, name)) => (number, name),
            Some(_) => return Err(bad_cursor("of another search")),
            None => (0, FilePath::root()),
        };
        let stop = at.saturating_add(DIRECTORIES_LOOKED_AT);
        loop {
            let directories = self.promising(looking.query, at, stop).await?;
            for row in &directories {
                let (id, volume, path) = (row.int(0)?, volume_of(row, 1)?, path_of(row, 2)?);
                if id != at {
                    after = FilePath::root();
                }
                at = id;
                for file in self.files_in(looking.query, id, &after).await? {
                    if looking.is_over() {
                        return Ok(false);
                    }
                    let entry = entry_of(&file, 0, &path)?;
                    let name = FilePath::new(entry.path.name()).unwrap_or_default();
                    looking.look(FoundFile { volume: volume.clone(), entry }, Cursor::Directory(id, name));
                }
            }
            if directories.len() < DIRECTORIES_AT_ONCE as usize {
                break;
            }
            // The next ones begin after this one: nothing more is in it.
            (at, after) = (at + 1, FilePath::root());
            looking.at = Some(Cursor::Directory(at, FilePath::root()));
            if looking.is_over() {
                return Ok(false);
            }
        }
        let last = self.engine.row("SELECT CAST(COALESCE(MAX(id), 0) AS BIGINT) FROM directories", args![]).await?;
        looking.at = Some(Cursor::Directory(stop, FilePath::root()));
        Ok(last.map_or(Ok(0), |r| r.int(0))? < stop)
    }

    /// Directories from number `from` on, below `stop`, in which a file can match.
    async fn promising(&self, query: &FileQuery, from: i64, stop: i64) -> Result<Vec<Row>> {
        let mut directories = Statement::new("SELECT id, volume, path FROM directories WHERE files > 0");
        directories.add(" AND id >= ? AND id < ?", &[from.into(), stop.into()]);
        directories.add_if(" AND volume = ?", query.volume.as_ref().map(VolumeId::as_str));
        directories.add_if(" AND largest >= ?", query.min_bytes.map(count));
        directories.add_if(" AND smallest <= ?", query.max_bytes.map(count));
        directories.add_if(" AND newest >= ?", query.modified_from);
        directories.add_if(" AND oldest < ?", query.modified_before);
        directories.add(" ORDER BY id LIMIT ?", &[DIRECTORIES_AT_ONCE.into()]);
        self.engine.ask(&directories).await
    }

    async fn files_in(&self, query: &FileQuery, directory: i64, after: &FilePath) -> Result<Vec<Row>> {
        let mut files = Statement::new(&format!("SELECT {ENTRY} FROM files f WHERE f.kind = 0"));
        files.add(" AND f.directory = ? AND f.name > ?", &[directory.into(), after.into()]);
        files.add_if(" AND f.size >= ?", query.min_bytes.map(count));
        files.add_if(" AND f.size <= ?", query.max_bytes.map(count));
        files.add_if(" AND f.modified_at >= ?", query.modified_from);
        files.add_if(" AND f.modified_at < ?", query.modified_before);
        files.add(" ORDER BY f.name LIMIT ?", &[(LOOKED_AT as i64 + 1).into()]);
        self.engine.ask(&files).await
    }

    async fn all_tags(&self) -> Result<Tags> {
        let mut tags = Tags::new();
        for row in self.engine.rows("SELECT volume, path, tags FROM tags", args![]).await? {
            tags.insert((volume_of(&row, 0)?, path_of(&row, 1)?), from_json("tags", &row.text(2)?)?);
        }
        Ok(tags)
    }
}
