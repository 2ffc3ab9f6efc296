//! The agent's own socket: what an admin on this node asks of it. Only this user and root may open it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use foretide_chunk::{Expelled, StoreError, Subset};
use foretide_collector::Collector;
use foretide_flow::Timestamp;
use foretide_mount::Hints;
use foretide_transfer::Mover;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::run::RunError;

/// What may be asked.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// How full the cache is.
    Status,
    /// Drop everything that is not being read.
    Empty,
    /// Verify a part, and fetch again what is corrupt.
    Check(Subset),
}

/// The cache as it is after the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes resident and verified.
    pub resident_bytes: u64,
    /// Bytes that it may hold.
    pub capacity_bytes: u64,
    /// What the request did, in words; empty for a mere look.
    pub note: String,
}

/// What the socket reaches.
#[derive(Clone)]
pub struct LocalCache {
    /// What brings and keeps.
    pub mover: Arc<Mover>,
    /// The mount in front of it, if there is one.
    pub hints: Option<Hints>,
}

fn socket(state: &Path) -> PathBuf {
    state.join("agent.sock")
}

/// Answers on the socket in the agent's state folder, until dropped.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(state: &Path, cache: Option<LocalCache>, collector: Option<Arc<Collector>>) -> Result<(), RunError> {
    let path = socket(state);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let routes = Router::new()
        .route("/cache", get(status))
        .route("/cache/empty", post(empty))
        .route("/cache/check", post(check))
        .with_state(cache)
        .route("/metrics", get(move || std::future::ready(metrics(collector.as_deref()))));
    axum::serve(listener, routes).await?;
    Ok(())
}

/// Asks the agent whose state folder this is.
///
/// # Errors
/// If no agent answers or it keeps no cache.
pub async fn ask(state: &Path, request: Request) -> Result<CacheStatus, RunError> {
    let path = socket(state);
    let told = |why: String| RunError::Told(format!("{}: {why}; is the agent running?", path.display()));
    let http = reqwest::Client::builder().unix_socket(path.as_path()).build().map_err(|e| told(e.to_string()))?;
    let answer = match request {
        Request::Status => http.get("http://agent/cache"),
        Request::Empty => http.post("http://agent/cache/empty"),
        Request::Check(Subset { part, of }) => {
            http.post("http://agent/cache/check").query(&[("part", part), ("of", of)])
        }
    }
    .send()
    .await
    .map_err(|e| told(e.to_string()))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|e| told(e.to_string()))?;
    if !status.is_success() {
        return Err(RunError::Told(body));
    }
    serde_json::from_str(&body).map_err(|e| told(e.to_string()))
}

/// What observing costs, in the text format of Prometheus. The kernel counts runs while `kernel.bpf_stats_enabled` is 1.
fn metrics(collector: Option<&Collector>) -> String {
    let Some(collector) = collector else { return String::new() };
    let (batches, bytes) = collector.backlog();
    let costs = collector.costs();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, values: &mut dyn Iterator<Item = (String, f64)>| {
        let lines = values.map(|(labels, value)| format!("{name}{labels} {value}\n"));
        text.push_str(&format!("# TYPE {name} {kind}\n"));
        lines.for_each(|line| text.push_str(&line));
    };
    let probe = |hook: &str| format!("{{probe=\"{hook}\"}}");
    family("foretide_spool_batches", "gauge", &mut std::iter::once((String::new(), batches as f64)));
    family("foretide_spool_bytes", "gauge", &mut std::iter::once((String::new(), bytes as f64)));
    family("foretide_probe_runs_total", "counter", &mut costs.iter().map(|c| (probe(&c.hook), c.runs as f64)));
    let seconds = costs.iter().map(|c| (probe(&c.hook), c.run_ns as f64 / 1e9));
    family("foretide_probe_run_seconds_total", "counter", &mut { seconds });
    family("foretide_probe_missed_total", "counter", &mut costs.iter().map(|c| (probe(&c.hook), c.missed as f64)));
    text
}

type Answer = Result<Json<CacheStatus>, (StatusCode, String)>;

async fn status(State(cache): State<Option<LocalCache>>) -> Answer {
    answer(cache, |_| Ok(String::new())).await
}

/// The kernel's copies go too: emptied means that the next read comes from the source.
async fn empty(State(cache): State<Option<LocalCache>>) -> Answer {
    answer(cache, |LocalCache { mover, hints }| {
        let Expelled { gone, bytes, in_use } = mover.store().expel(Timestamp::now(), |_| true)?;
        if let Some(hints) = hints {
            gone.iter().for_each(|key| hints.forget_pages(&key.volume, &key.path));
        }
        let stay = if in_use.is_empty() { String::new() } else { format!(", {} files are being read", in_use.len()) };
        Ok(format!("; {:.3} GB dropped{stay}", bytes as f64 / 1e9))
    })
    .await
}

/// Which part of a check.
#[derive(Deserialize)]
struct Part {
    part: u32,
    of: u32,
}

async fn check(State(cache): State<Option<LocalCache>>, Query(Part { part, of }): Query<Part>) -> Answer {
    let Some(kept) = &cache else { return answer(None, |_| Ok(String::new())).await };
    let done = kept.mover.repair(Subset { part, of }).await;
    let done = done.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let (chunks, corrupt) = (done.checked.chunks, done.checked.corrupt);
    let left = done.left.map_or_else(String::new, |why| format!("; the others when they are read: {why}"));
    let note = format!("; {chunks} chunks verified, {corrupt} corrupt, {} of these fetched again{left}", done.fetched);
    answer(cache, |_| Ok(note)).await
}

/// The store blocks on its disk, so it is asked on a thread that may.
async fn answer(
    cache: Option<LocalCache>,
    deed: impl FnOnce(&LocalCache) -> Result<String, StoreError> + Send + 'static,
) -> Answer {
    let cache = cache.ok_or((StatusCode::NOT_FOUND, "this agent keeps no cache".to_owned()))?;
    let failed = |e: &dyn std::fmt::Display| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    tokio::task::spawn_blocking(move || {
        let note = deed(&cache).map_err(|e| failed(&e))?;
        let store = cache.mover.store();
        Ok(Json(CacheStatus { resident_bytes: store.resident_bytes(), capacity_bytes: store.capacity_bytes(), note }))
    })
    .await
    .map_err(|e| failed(&e))?
}
