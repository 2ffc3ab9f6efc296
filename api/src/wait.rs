//! Long polls and conditional answers.

use std::future::Future;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foretide_catalog::Topic;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Api;
use crate::error::ApiError;
use crate::extract::{text_header, within};

/// After a change, this long is waited for those that come with it, so that a burst wakes a listener once.
const GATHER: Duration = Duration::from_millis(20);

/// Longest wait that may be asked for, as the document says; a server may be configured to answer earlier.
const WAIT_MAX_S: u64 = 60;

/// What a look at the catalog found.
pub(crate) enum Seen<T> {
    /// Worth an answer at once.
    Enough(T),
    /// What the caller has already, or not yet what it waits for: the answer if the time is over.
    Same(T),
}

/// Looks, and looks again whenever one of the topics changed, until it is enough, `wait_s` is over or the server
/// stops. Answers with the last look in any case.
pub(crate) async fn until<T, F, Look>(api: &Api, topics: &[Topic], wait_s: u64, mut look: F) -> Result<T, ApiError>
where
    F: FnMut() -> Look,
    Look: Future<Output = Result<Seen<T>, ApiError>>,
{
    let wait_s = within("wait_s", wait_s, 0, WAIT_MAX_S)?;
    let deadline = Instant::now() + Duration::from_secs(wait_s.min(api.config.wait_max_s));
    let mut news: Vec<watch::Receiver<u64>> = topics.iter().map(|t| api.catalog.changes(*t)).collect();
    let mut stop = api.stop.clone();
    loop {
        news.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let same = match look().await? {
            Seen::Enough(value) => return Ok(value),
            Seen::Same(value) => value,
        };
        let changed = futures::future::select_all(news.iter_mut().map(|n| Box::pin(n.changed())));
        let woken = tokio::select! {
            woken = timeout_at(deadline, changed) => matches!(woken, Ok((Ok(()), _, _))),
            _ = stop.wait_for(|stop| *stop) => false,
        };
        if !woken {
            return Ok(same);
        }
        sleep(GATHER.min(deadline.duration_since(Instant::now()))).await;
    }
}

/// A weak entity tag: equal texts, equal tags.
pub(crate) fn etag_of(content: &[u8]) -> String {
    format!("W/\"{}\"", &blake3::hash(content).to_hex()[..16])
}

/// The tag that the caller has already.
pub(crate) fn known_etag(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    Ok(text_header(headers, header::IF_NONE_MATCH.as_str())?.map(str::to_owned))
}

/// Whether the caller's `If-None-Match` names this tag.
pub(crate) fn matches_etag(known: Option<&str>, etag: &str) -> bool {
    known.is_some_and(|list| list.split(',').any(|one| one.trim() == etag || one.trim() == "*"))
}

/// A value with its tag; `304 Not Modified` if the caller has it.
pub(crate) fn tagged<T: Serialize>(value: &T, etag: &str, known: Option<&str>) -> Response {
    tagged_json(serde_json::to_vec(value).unwrap_or_default(), etag, known)
}

/// The same for what is JSON already.
pub(crate) fn tagged_json(json: Vec<u8>, etag: &str, known: Option<&str>) -> Response {
    let mut response = if matches_etag(known, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], json).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
