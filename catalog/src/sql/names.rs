//! The index of names, in SQLite: which files have three given characters in a row in their name.
//!
//! SQLite's own full-text index, by trigrams, without text and positions. Filling it takes several times as long as
//! writing the files, so it follows behind on a task of its own, a small transaction at a time between those of others,
//! and steps aside while listings come in; a search looks at the files that it has not come to by itself. A file that
//! goes takes its entry along (a trigger).
//!
//! A search goes through the list of files of each three characters that it asks for. Those of an extension are in nearly
//! every name: of ten million files named `….jpeg` they have ten million each, and going through them took ten times as
//! long as all the rest. So a search looks at a few names first and leaves out what many of them have, as long as anything
//! rarer is left; what is found is checked against the whole name anyway. Counting would be no quicker than searching: the
//! index has no counts.

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

/// Names that a search looks at to tell what is common: a page of the disk each, where nothing is in memory.
const SAMPLE: i64 = 64;
/// What at least one in so many of them has is common.
const COMMON_ONE_IN: usize = 16;

/// Up to which number files are in the index.
pub(super) const INDEXED: &str = "SELECT value FROM counters WHERE name = 'names_indexed'";

/// Each three characters in a row that the query has of a name, its ASCII in lower case; the index folds the rest itself.
pub(super) fn trigrams(query: &FileQuery) -> Vec<String> {
    let texts = [query.name_part.as_deref(), query.suffix.as_deref()];
    let of = |text: &str| {
        let characters: Vec<_> = text.to_ascii_lowercase().chars().collect();
        characters.windows(3).map(|three| three.iter().collect()).collect::<Vec<String>>()
    };
    texts.into_iter().flatten().flat_map(of).collect()
}

/// Numbers of files, spread over all that are in the index, whose names tell what is common.
pub(super) fn sample(indexed: i64) -> Vec<i64> {
    (0..SAMPLE).map(|n| (i128::from(indexed) * i128::from(2 * n + 1) / i128::from(2 * SAMPLE)) as i64).collect()
}

/// What the index is asked for: of these three characters those that few of some names have, or all if none are rare.
pub(super) fn pattern(trigrams: &[String], names: &[String]) -> String {
    let is_common = |three: &&String| {
        let having = names.iter().filter(|name| name.contains(three.as_str())).count();
        having > 0 && having * COMMON_ONE_IN >= names.len()
    };
    let (common, rare): (Vec<_>, Vec<_>) = trigrams.iter().partition(is_common);
    let asked = if rare.is_empty() { common } else { rare };
    let term = |three: &String| format!("\"{}\"", three.replace('"', "\"\""));
    asked.into_iter().map(term).collect::<Vec<_>>().join(" AND ")
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
        let trigrams = |part: &str, suffix: &str| {
            let (name_part, suffix) = (Some(part.into()), Some(suffix.into()));
            trigrams(&FileQuery { name_part, suffix, ..FileQuery::default() })
        };
        assert_eq!(trigrams("ab", "c"), [""; 0]);
        let asked = pattern(&trigrams("A\"bé", ".jpg"), &[]);
        assert_eq!(asked, r#""a""b" AND """bé" AND ".jp" AND "jpg""#);
    }

    #[test]
    fn what_most_names_have_is_asked_for_only_if_nothing_else_is() {
        let names: Vec<String> = (0..SAMPLE).map(|n| format!("n{n:08x}.jpeg")).collect();
        let asked = |trigrams: &[&str]| pattern(&trigrams.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), &names);
        assert_eq!(asked(&["a7f", "7f.", ".jp", "jpe", "peg"]), r#""a7f" AND "7f.""#);
        assert_eq!(asked(&[".jp", "peg"]), r#"".jp" AND "peg""#);
    }

    #[test]
    fn a_sample_lies_within_what_is_indexed() {
        for indexed in [0, 1, 63, 10_000_000, i64::MAX] {
            let sample = sample(indexed);
            assert!(sample.iter().all(|n| (0..=indexed).contains(n)) && sample.is_sorted());
        }
        assert_eq!(sample(1280)[..3], [10, 30, 50]);
    }
}
