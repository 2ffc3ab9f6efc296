//! The index of names, in SQLite: which files have three given characters in a row in their name.
//!
//! SQLite's own full-text index, by trigrams, without text and positions. Filling it takes several times as long as
//! writing the files, so it follows behind on a task of its own, a small transaction at a time between those of others,
//! and steps aside while listings come in; a search looks at the files that it has not come to by itself. A file that
//! goes takes its entry along (a trigger).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sqlx::SqlitePool;
use tokio::sync::watch;

use super::engine::told;
use crate::{FileQuery, Result};

/// Files of one transaction: other writers wait no longer than some ten milliseconds.
const FILES_AT_ONCE: i64 = 2_000;

/// While listings come in, it rests so many times as long as it wrote: taking turns with them, it would have most of the
/// writer's time, and a large tree would be told at a fraction of the speed.
const RESTS: u32 = 4;

/// Up to which number files are in the index.
pub(super) const INDEXED: &str = "SELECT value FROM counters WHERE name = 'names_indexed'";

/// What the index is asked for; none if the query has no three characters of a name.
pub(super) fn pattern(query: &FileQuery) -> Option<String> {
    let texts = [query.name_part.as_deref(), query.suffix.as_deref()];
    let trigrams: Vec<_> = texts.into_iter().flatten().flat_map(trigrams).collect();
    (!trigrams.is_empty()).then(|| trigrams.join(" AND "))
}

/// Each three characters in a row, as a term of the index.
fn trigrams(text: &str) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    let term = |three: &[char]| format!("\"{}\"", three.iter().collect::<String>().replace('"', "\"\""));
    characters.windows(3).map(term).collect()
}

/// Keeps the index up with the files, until it is aborted.
pub(super) async fn follow(writer: SqlitePool, place: Arc<Path>, mut news: watch::Receiver<u64>) {
    loop {
        news.mark_unchanged();
        loop {
            let began = Instant::now();
            match index_some(&writer, &place).await {
                Ok(true) if news.has_changed().unwrap_or(false) => {
                    news.mark_unchanged();
                    tokio::time::sleep(began.elapsed() * RESTS).await;
                }
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(e) => {
                    tracing::warn!(error = %e, "the index of names does not follow; searches look at files by themselves");
                    break;
                }
            }
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Takes the next files in; answers whether there may be more.
async fn index_some(writer: &SqlitePool, place: &Path) -> Result<bool> {
    let error = |e| told(place, e);
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(error)?;
    let from: i64 = sqlx::query_scalar(INDEXED).fetch_optional(&mut *tx).await.map_err(error)?.unwrap_or(0);
    let sql = "SELECT COUNT(*), COALESCE(MAX(id), 0) FROM (SELECT id FROM files WHERE id > $1 ORDER BY id LIMIT $2)";
    let (files, to): (i64, i64) =
        sqlx::query_as(sql).bind(from).bind(FILES_AT_ONCE).fetch_one(&mut *tx).await.map_err(error)?;
    if files == 0 {
        return Ok(false);
    }
    let sql =
        "INSERT INTO file_names (rowid, name) SELECT id, CAST(name AS TEXT) FROM files WHERE id > $1 AND id <= $2";
    sqlx::query(sql).bind(from).bind(to).execute(&mut *tx).await.map_err(error)?;
    let sql = "INSERT INTO counters (name, value) VALUES ('names_indexed', $1)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(sql).bind(to).execute(&mut *tx).await.map_err(error)?;
    tx.commit().await.map_err(error)?;
    Ok(files == FILES_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_characters_make_a_term() {
        let query = |part: &str, suffix: &str| FileQuery {
            name_part: Some(part.into()),
            suffix: Some(suffix.into()),
            ..FileQuery::default()
        };
        assert_eq!(pattern(&query("ab", "c")), None);
        assert_eq!(pattern(&query("a\"bé", ".jpg")).unwrap(), r#""a""b" AND """bé" AND ".jp" AND "jpg""#);
    }
}
