//! The index of names, in SQLite: which files have three given characters in a row in their name.
//!
//! SQLite's own full-text index, by trigrams, without text and positions. Filling it takes several times as long as
//! writing the files, so it follows behind on a task of its own, a small transaction at a time between those of others,
//! and steps aside while listings come in; a search looks at the files that it has not come to by itself. A file that
//! goes takes its entry along (a trigger).
//!
//! **What is asked of it.** All three characters in a row of the text that is looked for, but those that nearly every name
//! has (`jpe` of `a91c.jpeg`): for each candidate of a rare list the index walks on in a common one, half a second for
//! ten million files, to learn what a look at the candidate's name tells. How common one is, a probe of its next few files
//! says ([`narrowing`]).

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

/// How common a trigram is: the number of a file and how many files with the trigram there are up to it, after a
/// number and of the next few.
pub(super) const PROBE: &str = "SELECT COUNT(*), CAST(COALESCE(MAX(rowid), 0) AS BIGINT) FROM
    (SELECT rowid FROM file_names WHERE file_names MATCH $1 AND rowid > $2 ORDER BY rowid LIMIT $3)";
/// Files of a probe: enough to tell one in a few from one in hundreds.
pub(super) const PROBED_FILES: i64 = 32;
/// A trigram is left out if so many times as many names have it as have the rarest one. Below that the walk is short.
const COMMON_TIMES: i64 = 64;

/// Three characters in a row of a name that is looked for.
#[derive(Debug, PartialEq)]
pub(super) struct Trigram {
    /// As the index is asked for it.
    pub(super) term: String,
    /// Numbers from where the search goes on to the last file of a probe; the largest if it found fewer files than it
    /// asked for.
    pub(super) reach: i64,
}

/// What the query asks of names, by three characters; nothing if it has no three in a row.
pub(super) fn trigrams(query: &FileQuery) -> Vec<Trigram> {
    let texts = [query.name_part.as_deref(), query.suffix.as_deref()];
    let mut terms: Vec<_> = texts.into_iter().flatten().flat_map(terms).collect();
    terms.sort();
    terms.dedup();
    terms.into_iter().map(|term| Trigram { term, reach: i64::MAX }).collect()
}

fn terms(text: &str) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    let term = |three: &[char]| format!("\"{}\"", three.iter().collect::<String>().replace('"', "\"\""));
    characters.windows(3).map(term).collect()
}

/// What the index is asked: all trigrams but those that are common beside the rarest.
pub(super) fn narrowing(trigrams: &[Trigram]) -> String {
    let rarest = trigrams.iter().map(|t| t.reach).max().unwrap_or(0);
    let narrow = trigrams.iter().filter(|t| t.reach > rarest / COMMON_TIMES);
    narrow.map(|t| t.term.as_str()).collect::<Vec<_>>().join(" AND ")
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

    fn query(part: &str, suffix: &str) -> FileQuery {
        FileQuery { name_part: Some(part.into()), suffix: Some(suffix.into()), ..FileQuery::default() }
    }

    #[test]
    fn three_characters_make_a_term() {
        let terms = |part, suffix| trigrams(&query(part, suffix)).into_iter().map(|t| t.term).collect::<Vec<_>>();
        assert_eq!(terms("ab", "c"), [""; 0]);
        assert_eq!(
            terms("a\"bé", ".jpg.jpg"),
            ["\"\"\"bé\"", "\".jp\"", "\"a\"\"b\"", "\"g.j\"", "\"jpg\"", "\"pg.\""]
        );
    }

    #[test]
    fn what_nearly_every_name_has_is_not_asked_beside_what_few_have() {
        let asked = |reaches: &[(&str, i64)]| {
            let trigram = |(term, reach): &(&str, i64)| Trigram { term: (*term).into(), reach: *reach };
            narrowing(&reaches.iter().map(trigram).collect::<Vec<_>>())
        };
        assert_eq!(asked(&[("a91", 21_000), ("c.j", 512), ("jpe", 32), ("peg", 33)]), "a91 AND c.j");
        assert_eq!(asked(&[("jpe", 32), ("peg", 33)]), "jpe AND peg", "something must be asked");
        assert_eq!(asked(&[("zzz", i64::MAX), ("a91", 21_000)]), "zzz", "what a probe did not find often is rarest");
        assert_eq!(asked(&[("zzz", i64::MAX), ("yyy", i64::MAX)]), "zzz AND yyy");
    }
}
