//! SQLite: one file with a write-ahead log, one connection that writes, several that read.
//!
//! **What is durable when.** With the write-ahead log and `synchronous = NORMAL` a commit has been handed to the
//! kernel when it is acknowledged, so `kill -9` of this process loses nothing (promise E). When the machine loses its
//! power, commits of the last moments can be lost, those since the last checkpoint at most, and the file stays whole:
//! agents report their state anew and send again what was not acknowledged, so the catalog catches up. Who wants
//! acknowledged to mean "on the platter" sets `sync_every_commit`, and pays a disk flush per call.
//!
//! **How it reads.** By calls, a page at a time, and not through a map of the file: where a page is not in memory, the
//! kernel reads around the address that was touched as much as the disk's read-ahead says. With 8 MiB of it a look-up
//! of one path took 7 ms in place of .7, and a catalog that is larger than memory is looked up at random.
//!
//! **Where it waits.** Each connection is a thread of sqlx's; calls wait for it, never block the async threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};

use super::engine::{Engine, told};
use super::{SqlCatalog, migration_failed, migrator, names};
use crate::topics::Topics;
use crate::{Catalog, CatalogError, Result, Topic, limits};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[
        ("catalog", include_str!("../../migrations/sqlite/0001_catalog.sql")),
        ("files by name", include_str!("../../migrations/sqlite/0002_files_by_name.sql")),
        ("shared", include_str!("../../migrations/sqlite/0003_shared.sql")),
    ])
});

/// Where the catalog is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. Made if it is not there; its directory must be. On a local disk, never on NFS.
    pub path: PathBuf,
    /// Connections that read side by side.
    #[serde(default = "readers")]
    pub readers: u32,
    /// Page cache of each connection, MiB.
    #[serde(default = "cache_mib")]
    pub cache_mib: u32,
    /// Whether each acknowledged call is on the platter, at the price of a disk flush each. Without it, a power
    /// failure may lose the last moments; the death of a process loses nothing either way.
    #[serde(default)]
    pub sync_every_commit: bool,
}

/// Long polls hold no connection, so a few readers serve hundreds of callers.
fn readers() -> u32 {
    4
}

/// The upper levels of the indexes of 10 million files.
fn cache_mib() -> u32 {
    32
}

/// Another process may hold the file for a moment (a backup, `sqlite3`).
const BUSY_MS: u64 = 10_000;
/// Callers beyond the pool wait that long, then are told that the catalog is not available.
const ACQUIRE_MS: u64 = 30_000;
/// Of a new file. Of ten million files the tree has some four hundred pages above its leaves, 6 MB that stay in the
/// caches, so that a look-up reads one page from the disk; with 4 KiB there are six thousand of them and it reads two.
const PAGE_BYTES: u32 = 16 << 10;
/// The write-ahead log is cut back to that after a checkpoint.
const LOG_BYTES: u64 = 64 << 20;
/// Statements kept prepared per connection: all of ours with their variants.
const STATEMENTS: usize = 256;
/// Rows that a connection's thread hands over without waiting for them to be taken: a whole page.
const ROWS_UNDER_WAY: usize = limits::PAGE_ITEMS + 1;

impl SqliteConfig {
    /// That file, all else as usual.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), readers: readers(), cache_mib: cache_mib(), sync_every_commit: false }
    }
}

/// Connections to the file.
pub(super) struct Store {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) place: Arc<Path>,
    index: tokio::task::JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.index.abort();
    }
}

/// Opens the catalog in a file, making or upgrading its tables.
///
/// # Errors
/// `Unusable`, naming the file and the remedy, if it cannot be made, is no database, is damaged, or was written by a
/// newer version.
pub async fn open_sqlite(config: &SqliteConfig) -> Result<Arc<dyn Catalog>> {
    let place: Arc<Path> = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone()).into();
    check_directory(&place)?;
    let synchronous = if config.sync_every_commit { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
    let options = SqliteConnectOptions::new()
        .filename(&place)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .page_size(PAGE_BYTES)
        .busy_timeout(Duration::from_millis(BUSY_MS))
        .statement_cache_capacity(STATEMENTS)
        .row_buffer_size(ROWS_UNDER_WAY)
        .pragma("cache_size", format!("-{}", u64::from(config.cache_mib) * 1024))
        .pragma("journal_size_limit", LOG_BYTES.to_string())
        .pragma("temp_store", "memory")
        // It would print statements of ten thousand values.
        .disable_statement_logging();
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_millis(ACQUIRE_MS))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let cannot_open = |e| match told(&place, e) {
        CatalogError::Unavailable(why) => CatalogError::Unusable {
            place: place.to_path_buf(),
            why,
            remedy: "see that the file and its directory can be written by this user, and the disk has room".into(),
        },
        told => told,
    };
    let writer = pool(1).connect_with(options.clone()).await.map_err(cannot_open)?;
    MIGRATIONS.run(&writer).await.map_err(|e| match e {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => told(&place, e),
        e => migration_failed(&place, &MIGRATIONS, &e),
    })?;
    let readers = pool(config.readers.max(1)).connect_with(options).await.map_err(cannot_open)?;
    let topics = Arc::new(Topics::new());
    let index = tokio::spawn(names::follow(writer.clone(), place.clone(), topics.listen(Topic::Namespace)));
    Ok(SqlCatalog::shared(Engine::Sqlite(Store { writer, readers, place, index }), topics))
}

fn check_directory(file: &Path) -> Result<()> {
    let directory = file.parent().unwrap_or(file);
    if directory.is_dir() && !file.is_dir() {
        return Ok(());
    }
    let (why, remedy) = if file.is_dir() {
        ("it is a directory".to_owned(), "name a file in it".to_owned())
    } else {
        (format!("there is no directory {}", directory.display()), "make it, or name another file".to_owned())
    };
    Err(CatalogError::Unusable { place: file.into(), why, remedy })
}
