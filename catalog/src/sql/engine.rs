//! The two engines behind one face: open a transaction, run a statement, take its rows.
//!
//! Statements are shared text (both know `$1`, `ON CONFLICT`, `RETURNING`); what differs between the engines is
//! here and in `sqlite.rs` and `postgres.rs`, and nowhere else.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};

use super::text::{Arg, Statement};
use super::{postgres, sqlite};
use crate::{CatalogError, Result};

/// Rows of one statement: halving, so that any number takes few statements (each is a turn to the connection's thread and
/// back) and few stay prepared; at most 14 values a row, and both engines take 32,766.
const ROWS_AT_ONCE: [usize; 11] = [1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
/// Values of one `IN`.
pub(super) const VALUES_PER_IN: usize = 256;

/// An engine with its connections.
pub(super) enum Engine {
    Sqlite(sqlite::Store),
    Postgres(postgres::Store),
}

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
pub(super) struct Tx {
    open: Open,
    place: Arc<Path>,
}

enum Open {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A row of either engine.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    /// Of SQLite, come with others: see [`Tx::many`].
    Packed(Vec<Value>),
}

/// A column of rows that are asked for together.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// A number or a text.
    Plain(&'static str),
    Bytes(&'static str),
}

/// Columns, in their order.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a>(pub(super) &'a [Column]);

impl fmt::Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Column::Plain(name) | Column::Bytes(name)) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Columns<'_> {
    /// One text of all rows of a statement that goes on after its columns with `rest`: JSON, with bytes as hexadecimal.
    fn packed(self, rest: &str) -> String {
        let (mut inner, mut outer) = (String::new(), String::new());
        for (i, column) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let (Column::Plain(name) | Column::Bytes(name)) = column;
            inner += &format!("{comma}{name} AS c{i}");
            outer += &match column {
                Column::Plain(_) => format!("{comma}c{i}"),
                Column::Bytes(_) => format!("{comma}hex(c{i})"),
            };
        }
        format!("SELECT json_group_array(json_array({outer})) FROM (SELECT {inner}{rest})")
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| odd.is_empty())
}

macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for arg in $args {
            query = match *arg {
                Arg::Int(v) => query.bind(v),
                Arg::Real(v) => query.bind(v),
                Arg::Text(v) => query.bind(v),
                Arg::Blob(v) => query.bind(v),
            };
        }
        query
    }};
}

/// To SQLite `$1` is a name, and for each name it looks through all of them: a statement of ten thousand values took a
/// second. Where each value stands once and in order, a bare `?` does.
fn for_sqlite(sql: &str, args: &[Arg<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    bound!(unnamed(sql, args.len()).unwrap_or_else(|| sql.to_owned()), args)
}

/// The statement with `?` in place of `$1`, `$2`, …; none unless these are all of `values`, once and in order.
fn unnamed(sql: &str, values: usize) -> Option<String> {
    let mut parts = sql.split('$');
    let mut out = String::with_capacity(sql.len());
    out.push_str(parts.next()?);
    let mut expected = 1;
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if part[..part.len() - rest.len()].parse() != Ok(expected) {
            return None;
        }
        expected += 1;
        out.push('?');
        out.push_str(rest);
    }
    (expected == values + 1).then_some(out)
}

fn for_postgres(sql: &str, args: &[Arg<'_>]) -> Query<'static, Postgres, PgArguments> {
    bound!(sql, args)
}

impl Engine {
    fn place(&self) -> Arc<Path> {
        match self {
            Self::Sqlite(store) => store.place.clone(),
            Self::Postgres(store) => store.place.clone(),
        }
    }

    /// Whether there is an index of names (see `names.rs`).
    pub(super) fn finds_names(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// A transaction that writes. SQLite has one at a time: waiting for it is waiting for its pool of one connection.
    pub(super) async fn write(&self) -> Result<Tx> {
        let place = self.place();
        let open = match self {
            Self::Sqlite(store) => store.writer.begin_with("BEGIN IMMEDIATE").await.map(Open::Sqlite),
            Self::Postgres(store) => store.pool.begin().await.map(Open::Postgres),
        };
        open.map(|open| Tx { open, place: place.clone() }).map_err(|e| told(&place, e))
    }

    /// A transaction that reads one state of everything.
    pub(super) async fn read(&self) -> Result<Tx> {
        const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let place = self.place();
        let open = match self {
            Self::Sqlite(store) => store.readers.begin().await.map(Open::Sqlite),
            Self::Postgres(store) => store.pool.begin_with(SNAPSHOT).await.map(Open::Postgres),
        };
        open.map(|open| Tx { open, place: place.clone() }).map_err(|e| told(&place, e))
    }

    /// Rows of one statement that reads.
    pub(super) async fn rows(&self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let rows = match self {
            Self::Sqlite(store) => {
                for_sqlite(sql, args).fetch_all(&store.readers).await.map(|r| r.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(store) => {
                for_postgres(sql, args).fetch_all(&store.pool).await.map(|r| r.into_iter().map(Row::Postgres).collect())
            }
        };
        rows.map_err(|e| told(&self.place(), e))
    }

    /// The first row of one statement that reads.
    pub(super) async fn row(&self, sql: &str, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Rows of a statement put together.
    pub(super) async fn ask(&self, statement: &Statement<'_>) -> Result<Vec<Row>> {
        self.rows(&statement.sql, &statement.args).await
    }
}

impl Tx {
    /// Whether there is an index of names, which wants the files numbered.
    pub(super) fn finds_names(&self) -> bool {
        matches!(self.open, Open::Sqlite(_))
    }

    /// Whether rows can be taken past others' locks.
    pub(super) fn skips_locked(&self) -> bool {
        matches!(self.open, Open::Postgres(_))
    }

    /// Runs a statement; answers how many rows it touched.
    pub(super) async fn run(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<u64> {
        let done = match &mut self.open {
            Open::Sqlite(tx) => for_sqlite(sql, args).execute(&mut **tx).await.map(|d| d.rows_affected()),
            Open::Postgres(tx) => for_postgres(sql, args).execute(&mut **tx).await.map(|d| d.rows_affected()),
        };
        done.map_err(|e| told(&self.place, e))
    }

    /// Rows of a statement.
    pub(super) async fn rows(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let rows = match &mut self.open {
            Open::Sqlite(tx) => {
                for_sqlite(sql, args).fetch_all(&mut **tx).await.map(|r| r.into_iter().map(Row::Sqlite).collect())
            }
            Open::Postgres(tx) => {
                for_postgres(sql, args).fetch_all(&mut **tx).await.map(|r| r.into_iter().map(Row::Postgres).collect())
            }
        };
        rows.map_err(|e| told(&self.place, e))
    }

    /// The first row of a statement.
    pub(super) async fn row(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a statement put together.
    pub(super) async fn perform(&mut self, statement: &Statement<'_>) -> Result<u64> {
        self.run(&statement.sql, &statement.args).await
    }

    /// Rows of a statement put together.
    pub(super) async fn ask(&mut self, statement: &Statement<'_>) -> Result<Vec<Row>> {
        self.rows(&statement.sql, &statement.args).await
    }

    /// Rows of `SELECT columns rest`, in the order that it says, of which there may be a page. SQLite packs them into one row:
    /// handing a thousand from its thread to the caller one by one takes longer than finding them.
    pub(super) async fn many(&mut self, columns: Columns<'_>, rest: &Statement<'_>) -> Result<Vec<Row>> {
        if matches!(self.open, Open::Postgres(_)) {
            return self.rows(&format!("SELECT {columns}{}", rest.sql), &rest.args).await;
        }
        let packed = self.row(&columns.packed(&rest.sql), &rest.args).await?;
        let text = packed.map_or(Ok("[]".to_owned()), |row| row.text(0))?;
        let rows: Vec<Vec<Value>> = serde_json::from_str(&text).map_err(|e| damaged("rows", columns, e))?;
        Ok(rows.into_iter().map(Row::Packed).collect())
    }

    /// Runs `before`, rows of values as `(…), (…)`, and `after`, in as few statements as the engines take; answers how
    /// many rows were touched.
    pub(super) async fn run_rows(&mut self, before: &str, rows: &[Vec<Arg<'_>>], after: &str) -> Result<u64> {
        let (mut rest, mut touched) = (rows, 0);
        for at_once in ROWS_AT_ONCE {
            while rest.len() >= at_once {
                let (now, later) = rest.split_at(at_once);
                let mut statement = Statement::new(before);
                statement.add_rows(now).sql.push_str(after);
                touched += self.perform(&statement).await?;
                rest = later;
            }
        }
        Ok(touched)
    }

    /// Rows of `select`, with `fixed` for its `?`, followed by ` IN (…)` of all values.
    pub(super) async fn rows_in<'a>(
        &mut self,
        select: &str,
        fixed: &[Arg<'a>],
        values: &[Arg<'a>],
    ) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        for some in values.chunks(VALUES_PER_IN) {
            // Padded to one shape, so that one statement stays prepared.
            let mut padded = some.to_vec();
            padded.resize(VALUES_PER_IN, some[0]);
            let mut statement = Statement::new("");
            statement.add(select, fixed).add_in("", &padded);
            found.extend(self.ask(&statement).await?);
        }
        Ok(found)
    }

    /// Makes it so, and durable (promise E).
    pub(super) async fn commit(self) -> Result<()> {
        let done = match self.open {
            Open::Sqlite(tx) => tx.commit().await,
            Open::Postgres(tx) => tx.commit().await,
        };
        done.map_err(|e| told(&self.place, e))
    }
}

impl Row {
    fn get<'r, T>(&'r self, column: usize, packed: impl Fn(&Value) -> Option<T>) -> Result<T>
    where
        T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
            Self::Packed(values) => {
                let value = values.get(column).and_then(packed);
                return value.ok_or_else(|| damaged("column", column, "it is of another kind"));
            }
        };
        value.map_err(|e| damaged("column", column, e))
    }

    pub(super) fn int(&self, column: usize) -> Result<i64> {
        self.get(column, Value::as_i64)
    }

    pub(super) fn count(&self, column: usize) -> Result<u64> {
        self.int(column).map(|n| n.max(0) as u64)
    }

    pub(super) fn real(&self, column: usize) -> Result<f64> {
        self.get(column, Value::as_f64)
    }

    pub(super) fn maybe_int(&self, column: usize) -> Result<Option<i64>> {
        self.get(column, |value| if value.is_null() { Some(None) } else { value.as_i64().map(Some) })
    }

    pub(super) fn text(&self, column: usize) -> Result<String> {
        self.get(column, |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn maybe_text(&self, column: usize) -> Result<Option<String>> {
        let text = |value: &Value| value.as_str().map(|text| Some(text.to_owned()));
        self.get(column, |value| if value.is_null() { Some(None) } else { text(value) })
    }

    pub(super) fn blob(&self, column: usize) -> Result<Vec<u8>> {
        self.get(column, |value| unhex(value.as_str()?))
    }
}

/// For a stored value that does not read back.
pub(super) fn damaged(what: &'static str, name: impl ToString, why: impl ToString) -> CatalogError {
    CatalogError::Damaged { what, name: name.to_string(), why: why.to_string() }
}

/// SQLite's primary codes for a file that is damaged, and one that is no database.
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

/// What the caller can do about an engine's error.
pub(super) fn told(place: &Path, error: sqlx::Error) -> CatalogError {
    let primary = match &error {
        sqlx::Error::Database(e) => {
            e.code().and_then(|c| c.parse::<i32>().ok()).filter(|_| place.is_absolute()).map(|c| c & 0xff)
        }
        _ => None,
    };
    let (why, remedy) = match primary {
        Some(SQLITE_CORRUPT) => (
            "the file is damaged",
            "restore it from a backup; or save what can be read with `sqlite3 FILE .recover`; or move it aside to start \
             with an empty catalog",
        ),
        Some(SQLITE_NOTADB) => {
            ("the file is no SQLite database", "name another file in the configuration, or move this one aside")
        }
        _ => return CatalogError::Unavailable(error.to_string()),
    };
    CatalogError::Unusable { place: place.into(), why: why.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_packed_with_their_bytes_in_hexadecimal() {
        let columns = Columns(&[Column::Bytes("f.name"), Column::Plain("f.size")]);
        let packed =
            "SELECT json_group_array(json_array(hex(c0), c1)) FROM (SELECT f.name AS c0, f.size AS c1 FROM files f)";
        assert_eq!(
            (columns.packed(" FROM files f").as_str(), columns.to_string().as_str()),
            (packed, "f.name, f.size")
        );
        let row = Row::Packed(serde_json::from_str(r#"["00FFab", -7, null, "t"]"#).unwrap());
        assert_eq!(row.blob(0).unwrap(), [0, 255, 0xab]);
        assert_eq!((row.int(1).unwrap(), row.maybe_int(2).unwrap(), row.maybe_text(2).unwrap()), (-7, None, None));
        assert_eq!((row.text(3).unwrap(), row.maybe_text(3).unwrap()), ("t".into(), Some("t".into())));
        for wrong in [row.blob(3).err(), row.int(0).err(), row.text(9).err()] {
            assert!(wrong.unwrap().to_string().contains("column"));
        }
        assert_eq!((unhex("abc"), unhex("x0"), unhex("")), (None, None, Some(vec![])));
    }

    #[test]
    fn values_lose_their_names_only_where_order_tells_them() {
        assert_eq!(unnamed("a = $1 AND b IN ($2, $3)", 3).as_deref(), Some("a = ? AND b IN (?, ?)"));
        assert_eq!(unnamed("SELECT 1", 0).as_deref(), Some("SELECT 1"));
        for kept in [("a = $2 AND b = $1", 2), ("a = $1 OR b = $1", 1), ("a = $1", 2)] {
            assert_eq!(unnamed(kept.0, kept.1), None, "{kept:?}");
        }
    }
}
