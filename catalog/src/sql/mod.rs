//! The catalog in SQL: written once, for two engines.
//!
//! Each facet has its file; each call is one transaction of [`engine::Tx`]. Values that are looked for are columns,
//! the rest of a value is one column in a versioned encoding (see `codec`).

mod engine;
mod fleet;
mod house;
mod learned;
mod names;
mod namespace;
mod outcomes;
mod plans;
mod postgres;
mod search;
mod shared;
mod sqlite;
mod text;
mod touched;
mod warmups;
mod words;

use std::path::Path;
use std::sync::Arc;

use engine::{Engine, Row, Tx, damaged};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use text::args;

pub use postgres::{PostgresConfig, open_postgres};
pub use sqlite::{SqliteConfig, open_sqlite};

use crate::topics::Topics;
use crate::{Catalog, CatalogError, Page, Result, Topic, limits};

/// The catalog in an engine.
struct SqlCatalog {
    engine: Engine,
    topics: Arc<Topics>,
}

/// Numbers are drawn per list, by these names. The writer that took a number holds its list until it commits, so a
/// reader never sees a later number before an earlier one.
const MOVE_CHANGES: &str = "move_changes";

/// What plans, outcomes and vanished files change together; see [`Tx::hold`].
const HAPPENING: &str = "happening";

/// Bounds are looked after once in so many new rows: looking costs as much as the rows kept.
const PRUNE_EVERY_ROWS: i64 = 1_000;

impl SqlCatalog {
    fn shared(engine: Engine, topics: Arc<Topics>) -> Arc<dyn Catalog> {
        Arc::new(Self { engine, topics })
    }

    /// Commits, then wakes who waits.
    async fn commit(&self, mut tx: Tx, topics: &[Topic]) -> Result<()> {
        if tx.skips_locked() {
            for topic in topics {
                let sql = "SELECT pg_notify($1, $2)";
                tx.rows(sql, args![postgres::CHANNEL, &(*topic as usize).to_string()]).await?;
            }
        }
        tx.commit().await?;
        topics.iter().for_each(|t| self.topics.tell(*t));
        Ok(())
    }
}

impl Tx {
    /// Waits until no other transaction holds this name, and holds it until the end: transactions that change many rows
    /// of the same tables come one after the other, instead of each holding what the other waits for. SQLite has one
    /// writer anyway.
    async fn hold(&mut self, name: &str) -> Result<()> {
        if self.skips_locked() {
            self.rows("SELECT pg_advisory_xact_lock(hashtext($1))", args![name]).await?;
        }
        Ok(())
    }

    /// Takes the next `n` numbers of a list; answers the first.
    async fn take_numbers(&mut self, list: &str, n: usize) -> Result<i64> {
        let sql = "INSERT INTO counters (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value RETURNING value";
        let row = self.row(sql, args![list, n as i64]).await?;
        let last = row.ok_or_else(|| damaged("counter", list, "it is gone"))?.int(0)?;
        Ok(last - n as i64 + 1)
    }

    async fn last_number(&mut self, list: &str) -> Result<i64> {
        let row = self.row("SELECT value FROM counters WHERE name = $1", args![list]).await?;
        row.map_or(Ok(0), |r| r.int(0))
    }

    /// Keeps the `keep` rows of the highest number, now and then (see [`PRUNE_EVERY_ROWS`]), after rows were added
    /// with `n` numbers from `first`.
    async fn prune(&mut self, table: &str, number: &str, first: i64, n: usize, keep: usize) -> Result<()> {
        if (first - 1) / PRUNE_EVERY_ROWS == (first - 1 + n as i64) / PRUNE_EVERY_ROWS {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM {table} WHERE {number} <= (SELECT {number} FROM {table} ORDER BY {number} DESC LIMIT 1 OFFSET $1)"
        );
        self.run(&sql, args![keep as i64]).await.map(drop)
    }
}

/// Scripts with their names, in order; the first makes version 1. (The macro that reads a folder of them has every driver
/// compiled a second time, for the compiler's own machine.)
fn migrator(scripts: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        Migration::new(version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(scripts).map(migration).collect())
}

/// Why tables could not be made or upgraded.
fn migration_failed(place: &Path, migrations: &Migrator, error: &MigrateError) -> CatalogError {
    let known = migrations.iter().map(|m| m.version).max().unwrap_or(0);
    let (why, remedy) = match error {
        MigrateError::VersionMissing(v) | MigrateError::VersionTooNew(v, _) => (
            format!("its tables are of version {v}, this foretide knows them up to version {known}"),
            "run the newer foretide, or restore the backup that was made before the upgrade".to_owned(),
        ),
        e => (
            format!("its tables could not be brought to version {known}: {e}"),
            "restore a backup, or move it aside to start with an empty catalog".to_owned(),
        ),
    };
    CatalogError::Unusable { place: place.into(), why, remedy }
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("values of flow have text keys, so JSON takes them")
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| damaged(what, text.chars().take(60).collect::<String>(), e))
}

/// One more than a page holds, to see whether there is more.
fn one_more(limit: usize) -> i64 {
    limit.min(limits::PAGE_ITEMS) as i64 + 1
}

/// A page of rows whose first column is their number, asked for with [`one_more`].
fn page<T>(rows: Vec<Row>, limit: usize, value: impl Fn(&Row) -> Result<T>) -> Result<Page<T>> {
    let limit = limit.min(limits::PAGE_ITEMS);
    let shown = &rows[..limit.min(rows.len())];
    let next = match shown.last() {
        Some(last) if rows.len() > limit => Some(last.count(0)?),
        _ => None,
    };
    Ok(Page { items: shown.iter().map(value).collect::<Result<_>>()?, next })
}

/// Where a list newest first goes on.
fn before(cursor: Option<u64>) -> i64 {
    cursor.map_or(i64::MAX, |c| i64::try_from(c).unwrap_or(i64::MAX))
}

/// Where a list oldest first goes on.
fn after(cursor: u64) -> i64 {
    i64::try_from(cursor).unwrap_or(i64::MAX)
}
