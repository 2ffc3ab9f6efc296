//! The event stream: what happened, with numbers that grow by one, so that a listener that comes back misses
//! nothing that is still kept, and is told how much it missed otherwise (promise J).
//!
//! All listeners share one tail of recent events. Who wants what comes after a number first brings the tail up to
//! date (one read of the catalog per change, whoever comes first does it), then takes from it; only a listener that
//! comes back after a long time reads the catalog itself. A listener is a cursor: a slow one holds up nobody and
//! grows no queue (promise K).
//!
//! Invariant of [`Ring`]: its events have consecutive numbers; `seen` is the change counter's value before the
//! read that filled it last.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use foretide_catalog::{Catalog, CatalogError, Event, Topic};
use foretide_flow::{Mode, NodeId, Plan, PlanId, Refusal, SiteId, Timestamp, Warmup};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use crate::Api;
use crate::config::Config;
use crate::error::ApiError;
use crate::tenant::Sight;

/// Events read from the catalog at a time: about 250 KB.
const READ_EVENTS: usize = 256;

/// What listeners are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "body")]
pub enum Told {
    /// A warm-up is new, or its state or progress changed.
    Warmup(Box<Warmup>),
    /// A plan was made.
    Plan {
        /// Its name.
        id: PlanId,
        /// Its moves.
        moves: u64,
        /// Their bytes.
        bytes: u64,
        /// What rules forbade.
        refused: u64,
        /// What did not fit.
        left_out: u64,
    },
    /// An agent reported outcomes.
    Site {
        /// Whose.
        site: SiteId,
        /// By which node.
        node: NodeId,
        /// Bytes in its store.
        resident_bytes: u64,
        /// Bytes that its store may hold.
        capacity_bytes: u64,
        /// Moves that ended well in this report.
        moved: u64,
        /// Moves that failed.
        failed: u64,
        /// Files read.
        reads: u64,
        /// Files evicted.
        evicted: u64,
        /// Moves that a rule forbade.
        refused: u64,
    },
    /// Forecasts of this many workloads changed.
    Forecasts {
        /// How many.
        changed: u64,
    },
    /// A rule was upheld.
    Refusal(Refusal),
    /// An agent said hello.
    Agent {
        /// Its node.
        node: NodeId,
        /// Its site.
        site: SiteId,
    },
    /// The switch was thrown.
    Switch {
        /// Whether prefetching is off now.
        prefetch_off: bool,
    },
    /// Another mode was chosen.
    Mode {
        /// The mode in force.
        mode: Mode,
    },
}

impl Told {
    /// That a plan was made.
    pub fn of_plan(plan: &Plan) -> Self {
        Self::Plan {
            id: plan.id.clone(),
            moves: plan.moves.len() as u64,
            bytes: plan.moves.iter().map(|m| m.length).sum(),
            refused: plan.refused.len() as u64,
            left_out: plan.left_out.len() as u64,
        }
    }
}

/// An event as a listener gets it, in the `data` of its frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Grows by one.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub told: Told,
}

/// Tells all listeners.
///
/// # Errors
/// The catalog's.
pub async fn tell(catalog: &dyn Catalog, told: &Told, at: Timestamp) -> Result<(), CatalogError> {
    let value = serde_json::to_value(told).unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or_default();
    catalog.append_event(kind, &value["body"], at).await.map(drop)
}

struct Ring {
    seen: u64,
    events: VecDeque<Arc<Event>>,
}

/// The end of the catalog's events, shared by all listeners.
pub(crate) struct Tail {
    catalog: Arc<dyn Catalog>,
    kept: usize,
    ring: Mutex<Ring>,
    room: Arc<Semaphore>,
    listeners_max: usize,
}

impl Tail {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, config: &Config) -> Self {
        Self {
            catalog,
            kept: config.events_kept.max(1),
            ring: Mutex::new(Ring { seen: 0, events: VecDeque::new() }),
            room: Arc::new(Semaphore::new(config.listeners_max)),
            listeners_max: config.listeners_max,
        }
    }

    /// Listeners at this moment.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners_max - self.room.available_permits()
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| ApiError::TooManyListeners(self.listeners_max);
        Arc::clone(&self.room).try_acquire_owned().map_err(full)
    }

    /// Events after that number, oldest first, at most [`READ_EVENTS`]. The first may have a later number than the
    /// next one, if those between are no longer kept.
    ///
    /// The lock is held over the catalog's read on purpose: all listeners wake at once, and one read serves them.
    async fn after(&self, after: u64) -> Result<Vec<Arc<Event>>, ApiError> {
        let mut ring = self.ring.lock().await;
        self.refresh(&mut ring).await?;
        match ring.events.front().map(|e| e.id) {
            Some(first) if first <= after + 1 => {
                let skip = usize::try_from(after + 1 - first).unwrap_or(usize::MAX);
                Ok(ring.events.iter().skip(skip).take(READ_EVENTS).cloned().collect())
            }
            _ => {
                drop(ring);
                Ok(self.catalog.events_since(after, READ_EVENTS).await?.into_iter().map(Arc::new).collect())
            }
        }
    }

    async fn refresh(&self, ring: &mut Ring) -> Result<(), ApiError> {
        let counter = *self.catalog.changes(Topic::Events).borrow();
        if counter == ring.seen && !ring.events.is_empty() {
            return Ok(());
        }
        loop {
            let last = match ring.events.back() {
                Some(event) => event.id,
                None => self.catalog.last_event().await?.saturating_sub(READ_EVENTS as u64),
            };
            let fresh = self.catalog.events_since(last, READ_EVENTS).await?;
            let more = fresh.len() == READ_EVENTS;
            for event in fresh {
                if ring.events.back().is_some_and(|b| b.id + 1 != event.id) {
                    ring.events.clear();
                }
                ring.events.push_back(Arc::new(event));
            }
            while ring.events.len() > self.kept {
                ring.events.pop_front();
            }
            if !more {
                ring.seen = counter;
                return Ok(());
            }
        }
    }
}

/// One listener.
struct Listener {
    api: Api,
    tenant: Option<String>,
    after: u64,
    kinds: Vec<String>,
    ready: VecDeque<Frame>,
    news: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    _room: OwnedSemaphorePermit,
}

impl Listener {
    /// The next frame; none when the server stops or the catalog fails (the listener comes back with its number).
    async fn next(mut self) -> Option<(Result<Frame, Infallible>, Self)> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some((Ok(frame), self));
            }
            self.news.mark_unchanged();
            let fresh = match self.api.events.after(self.after).await {
                Ok(fresh) => fresh,
                Err(error) => {
                    tracing::error!(%error, "an event stream ended");
                    return None;
                }
            };
            if fresh.is_empty() {
                tokio::select! {
                    changed = self.news.changed() => changed.ok()?,
                    _ = self.stop.wait_for(|stop| *stop) => return None,
                }
            }
            self.take(&fresh);
        }
    }

    fn take(&mut self, fresh: &[Arc<Event>]) {
        if let Some(first) = fresh.first().filter(|e| e.id > self.after + 1) {
            self.ready.push_back(lost(self.after, first.id - self.after - 1));
        }
        let sight = Sight::of(&self.api, self.tenant.clone());
        for event in fresh {
            self.after = event.id;
            if (self.kinds.is_empty() || self.kinds.contains(&event.kind)) && sight.sees_event(event) {
                self.ready.push_back(frame(event));
            }
        }
    }
}

fn frame(event: &Event) -> Frame {
    let data = serde_json::to_string(event).unwrap_or_default();
    Frame::default().id(event.id.to_string()).event(&event.kind).data(data)
}

/// Says that events are missing: who shows state loads it anew.
fn lost(after: u64, events: u64) -> Frame {
    Frame::default().event("lost").data(format!("{{\"after\":{after},\"events\":{events}}}"))
}

/// Opens a stream of what comes after `after`; of what comes from now on, if it is absent. Of a tenant's listener,
/// numbers that it is not told are others'.
pub(crate) async fn listen(
    api: &Api,
    tenant: Option<String>,
    after: Option<u64>,
    kinds: Vec<String>,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>> + use<>>, ApiError> {
    let room = api.events.enter()?;
    let last = api.catalog.last_event().await?;
    let mut ready = VecDeque::new();
    if let Some(strange) = after.filter(|after| *after > last) {
        // A number of another catalog: nothing that the listener shows can be trusted.
        ready.push_back(lost(strange, 0));
    }
    let listener = Listener {
        tenant,
        after: after.unwrap_or(last).min(last),
        kinds,
        ready,
        news: api.catalog.changes(Topic::Events),
        stop: api.stop.clone(),
        _room: room,
        api: api.clone(),
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(api.config.keep_alive_s.max(1)));
    Ok(Sse::new(futures::stream::unfold(listener, Listener::next)).keep_alive(keep_alive))
}
