//! What `/metrics` shows: base units, `_total` where it only grows, no identity that grows without bound in a
//! label. Names of sites are chosen by admins and few, so they may stand there.
//!
//! Requests are counted as they are answered. What the catalog knows (stores, reads, losses) is read when somebody
//! asks, so that no second account can disagree with the first.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use foretide_catalog::{NodeLosses, SiteStatus};
use foretide_flow::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::Api;
use crate::error::ApiError;

/// The media type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtSite {
    site: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FoundAtSite {
    site: String,
    found: &'static str,
}

/// The counters of this process.
pub struct Metrics {
    registry: Mutex<Registry>,
    answered: Family<Answered, Counter>,
    took: Family<Route, Histogram>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// From 0.5 ms to 16 s: a status takes under one, an access batch some hundred.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("foretide");
        let answered = Family::default();
        let took = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register("http_requests", "Requests answered", answered.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time to the head of the answer, long polls and event streams left out",
            took.clone(),
        );
        Self { registry: Mutex::new(registry), answered, took }
    }

    /// Adds metrics of another room; their names get the prefix `foretide_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        encode_registry(text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts each request by route, method and status.
pub(crate) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known_method(request.method().as_str()).to_owned();
    let waits = request.uri().query().is_some_and(|q| q.contains("wait_s=")) || route == "/v1/events";
    let begun = Instant::now();
    let response = next.run(request).await;
    if !waits {
        api.metrics.took.get_or_create(&Route { route: route.clone() }).observe(begun.elapsed().as_secs_f64());
    }
    api.metrics.answered.get_or_create(&Answered { method, route, status: response.status().as_u16() }).inc();
    response
}

/// A method that anyone may invent must not become a label.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "other",
    }
}

/// Everything, as OpenMetrics text.
pub(crate) async fn scrape(api: &Api) -> Result<String, ApiError> {
    let mut registry = Registry::with_prefix("foretide");
    let gone_before = Timestamp::now() - Duration::from_secs(api.config.agent_gone_after_s);
    let agents = api.catalog.agents().await?;
    let mut sites = Vec::new();
    for site in api.directory.topology().sites.keys() {
        let alive = agents.iter().filter(|a| &a.site == site && a.seen_at >= gone_before).count();
        sites.push((api.catalog.site_status(site).await?, alive));
    }
    add_sites(&mut registry, &sites);
    add_losses(&mut registry, &api.catalog.losses().await?);
    let off = gauge(&mut registry, "prefetch_off", "1 while all prefetch is switched off");
    off.set(i64::from(api.catalog.prefetch_off().await?));
    let listeners = gauge(&mut registry, "event_listeners", "Listeners of the event stream");
    listeners.set(i64::try_from(api.events.listeners()).unwrap_or(i64::MAX));

    let mut text = String::new();
    let written = api.metrics.write(&mut text).and_then(|()| encode_registry(&mut text, &registry));
    let ended = written.and_then(|()| encode_eof(&mut text));
    ended.map(|()| text).map_err(|e| ApiError::Unavailable(format!("the metrics do not encode: {e}")))
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

type PerSite = Family<AtSite, Counter>;

fn per_site(registry: &mut Registry, name: &str, help: &str) -> PerSite {
    let family = PerSite::default();
    registry.register(name, help, family.clone());
    family
}

fn add_sites(registry: &mut Registry, sites: &[(SiteStatus, usize)]) {
    let resident = Family::<AtSite, Gauge>::default();
    registry.register("cache_resident_bytes", "Bytes resident and verified", resident.clone());
    let capacity = Family::<AtSite, Gauge>::default();
    registry.register("cache_capacity_bytes", "Bytes that the stores may hold", capacity.clone());
    let alive = Family::<AtSite, Gauge>::default();
    registry.register("agents", "Agents heard of lately", alive.clone());
    let prefetched = per_site(registry, "prefetched_bytes", "Bytes that moves brought");
    let wire = per_site(registry, "wire_bytes", "Bytes that crossed the link for them");
    let wasted = per_site(registry, "wasted_bytes", "Bytes brought by moves and evicted unread");
    let read = per_site(registry, "read_bytes", "Bytes read through the mount");
    let covered = per_site(registry, "read_prefetched_bytes", "Of these, bytes that a move had brought in time");
    let reads = Family::<FoundAtSite, Counter>::default();
    registry.register("reads", "Files read, by where their bytes were", reads.clone());
    let waited = Family::<AtSite, Counter<f64, AtomicU64>>::default();
    registry.register("read_wait_seconds", "Waiting of all readers added up", waited.clone());
    for (status, agents) in sites {
        let at = AtSite { site: status.site.to_string() };
        resident.get_or_create(&at).set(i64::try_from(status.resident_bytes).unwrap_or(i64::MAX));
        capacity.get_or_create(&at).set(i64::try_from(status.capacity_bytes).unwrap_or(i64::MAX));
        alive.get_or_create(&at).set(i64::try_from(*agents).unwrap_or(i64::MAX));
        prefetched.get_or_create(&at).inc_by(status.prefetched_bytes);
        wire.get_or_create(&at).inc_by(status.wire_bytes);
        wasted.get_or_create(&at).inc_by(status.wasted_bytes);
        read.get_or_create(&at).inc_by(status.read_bytes);
        covered.get_or_create(&at).inc_by(status.read_prefetched_bytes);
        waited.get_or_create(&at).inc_by(status.waited_s);
        for (found, n) in [("hit", status.hits), ("late", status.late), ("miss", status.misses)] {
            reads.get_or_create(&FoundAtSite { site: status.site.to_string(), found }).inc_by(n);
        }
    }
}

fn add_losses(registry: &mut Registry, nodes: &[NodeLosses]) {
    let mut total = |name: &str, help: &str, of: fn(&NodeLosses) -> u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(nodes.iter().map(of).sum());
        registry.register(name, help, counter);
    };
    total("accesses", "Accesses recorded", |n| n.accesses);
    total("access_batches", "Access batches recorded", |n| n.batches);
    total("access_batches_missing", "Access batches that never came", |n| n.missing_batches);
    total("events_dropped", "Kernel events that found their buffer full", |n| n.losses.dropped_events);
    total("accesses_unresolved", "Accesses whose file could not be told", |n| n.losses.unresolved);
    total("accesses_summarised", "Accesses summarised away because the spool was full", |n| n.losses.summarised);
}
