//! The durable index: what the store held at its last checkpoint.
//!
//! Three tables in one redb file: file number -> record, file number -> manifest, chunk id -> a place where it was.
//! A place is a hint: whoever follows it looks whether that file still has that chunk, so places need no cleaning
//! up when a file goes, and one per chunk is enough.

use std::collections::HashMap;
use std::path::Path;

use foretide_flow::ChunkId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::StoreError;
use super::record::Record;

const FILES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("files");
const MANIFESTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("manifests");
const CHUNKS: TableDefinition<'_, &[u8; 32], (u64, u32)> = TableDefinition::new("chunks");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The layout of the tables and of the data folder.
const FORMAT: u64 = 1;
/// redb's own page cache, bytes: holds the chunk table of about 100 GiB of content; beyond that the kernel's
/// page cache serves.
const PAGE_CACHE_BYTES: usize = 64 << 20;

/// A chunk of a file in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) no: u64,
    pub(super) chunk: u32,
}

/// What a checkpoint writes.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) records: Vec<(u64, Vec<u8>)>,
    pub(super) manifests: Vec<(u64, Vec<u8>)>,
    pub(super) places: HashMap<ChunkId, Place>,
    pub(super) gone: Vec<(u64, Vec<ChunkId>)>,
    pub(super) next_no: u64,
}

#[derive(Debug)]
pub(super) struct Index {
    db: Database,
}

fn broken(e: impl std::fmt::Display) -> StoreError {
    StoreError::Index(e.to_string())
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path).map_err(broken)?;
        let txn = db.begin_write().map_err(broken)?;
        {
            txn.open_table(FILES).map_err(broken)?;
            txn.open_table(MANIFESTS).map_err(broken)?;
            txn.open_table(CHUNKS).map_err(broken)?;
            let mut meta = txn.open_table(META).map_err(broken)?;
            let format = meta.get("format").map_err(broken)?.map_or(FORMAT, |v| v.value());
            if format > FORMAT {
                return Err(StoreError::Newer { found: format, known: FORMAT });
            }
            meta.insert("format", FORMAT).map_err(broken)?;
        }
        txn.commit().map_err(broken)?;
        Ok(Self { db })
    }

    /// All records, and the number that the next file gets.
    pub(super) fn load(&self) -> Result<(Vec<(u64, Record)>, u64), StoreError> {
        let txn = self.db.begin_read().map_err(broken)?;
        let files = txn.open_table(FILES).map_err(broken)?;
        let mut records = Vec::new();
        for row in files.iter().map_err(broken)? {
            let (no, record) = row.map_err(broken)?;
            records.push((no.value(), Record::decode(record.value()).map_err(broken)?));
        }
        let meta = txn.open_table(META).map_err(broken)?;
        let next = meta.get("next_no").map_err(broken)?.map_or(1, |v| v.value());
        Ok((records, next))
    }

    pub(super) fn manifest(&self, no: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.db.begin_read().map_err(broken)?;
        let table = txn.open_table(MANIFESTS).map_err(broken)?;
        Ok(table.get(no).map_err(broken)?.map(|v| v.value().to_vec()))
    }

    /// Places of several chunks, in one look.
    pub(super) fn places(&self, ids: &[ChunkId]) -> Result<Vec<Option<Place>>, StoreError> {
        let txn = self.db.begin_read().map_err(broken)?;
        let table = txn.open_table(CHUNKS).map_err(broken)?;
        ids.iter()
            .map(|id| {
                let found = table.get(&id.0).map_err(broken)?.map(|v| v.value());
                Ok(found.map(|(no, chunk)| Place { no, chunk }))
            })
            .collect()
    }

    /// Writes a change, durably and as a whole.
    pub(super) fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(broken)?;
        {
            let mut files = txn.open_table(FILES).map_err(broken)?;
            let mut manifests = txn.open_table(MANIFESTS).map_err(broken)?;
            let mut chunks = txn.open_table(CHUNKS).map_err(broken)?;
            for (no, ids) in &change.gone {
                files.remove(no).map_err(broken)?;
                manifests.remove(no).map_err(broken)?;
                for id in ids {
                    let stale = chunks.get(&id.0).map_err(broken)?.is_some_and(|p| p.value().0 == *no);
                    if stale {
                        chunks.remove(&id.0).map_err(broken)?;
                    }
                }
            }
            for (no, record) in &change.records {
                files.insert(no, record.as_slice()).map_err(broken)?;
            }
            for (no, manifest) in &change.manifests {
                manifests.insert(no, manifest.as_slice()).map_err(broken)?;
            }
            let mut places: Vec<_> = change.places.iter().collect();
            places.sort_unstable_by_key(|(id, _)| **id);
            for (id, place) in places {
                chunks.insert(&id.0, (place.no, place.chunk)).map_err(broken)?;
            }
            txn.open_table(META).map_err(broken)?.insert("next_no", change.next_no).map_err(broken)?;
        }
        txn.commit().map_err(broken)
    }
}
