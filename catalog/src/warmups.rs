//! What was asked for, and how far it is.

use async_trait::async_trait;
use foretide_flow::{PlanId, SiteId, Timestamp, Warmup, WarmupId, WarmupRequest, WarmupState};

use crate::{CatalogError, Page, Result, limits};

/// How a request was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmupTaken {
    /// The warm-up: the new one, or the one that the same key made before.
    pub warmup: Warmup,
    /// Whether it is new.
    pub new: bool,
}

/// Which warm-ups are wanted. Absent conditions match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmupFilter {
    /// At this site.
    pub site: Option<SiteId>,
    /// In one of these states; all if empty.
    pub states: Vec<WarmupState>,
}

/// What became known of a warm-up. Absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WarmupUpdate {
    /// The next state. `Ready` and `Degraded` follow from the store's count alone; asked for, they are refused unless
    /// that count says so.
    pub state: Option<WarmupState>,
    /// Why, in words; an empty text takes the old one away.
    pub why: Option<String>,
    /// Bytes and files that the request covers, once all of them are known.
    pub required: Option<(u64, u64)>,
    /// When it is expected to be ready; `Some(None)` if nobody can say.
    pub eta: Option<Option<Timestamp>>,
    /// The plan that says so; kept with `eta`.
    pub plan: Option<PlanId>,
    /// Other terms than those first asked for.
    pub terms: Option<NewTerms>,
}

/// What of a request may be asked for anew; an absent field stays, `Some(None)` takes the term away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewTerms {
    /// Its soft deadline.
    pub need_by: Option<Option<Timestamp>>,
    /// Its hard end.
    pub expire_at: Option<Option<Timestamp>>,
    /// How long it is kept at least.
    pub pin_until: Option<Option<Timestamp>>,
    /// How long it is kept at least once it is ready, seconds.
    pub pin_for_s: Option<Option<u64>>,
    /// Who is served first.
    pub priority: Option<i8>,
    /// Its words for people.
    pub label: Option<String>,
}

impl NewTerms {
    pub(crate) fn apply(&self, request: &mut WarmupRequest) {
        request.need_by = self.need_by.unwrap_or(request.need_by);
        request.expire_at = self.expire_at.unwrap_or(request.expire_at);
        request.pin_until = self.pin_until.unwrap_or(request.pin_until);
        request.pin_for_s = self.pin_for_s.unwrap_or(request.pin_for_s);
        request.priority = self.priority.unwrap_or(request.priority);
        if let Some(label) = &self.label {
            request.label.clone_from(label);
        }
    }
}

/// Warm-ups.
///
/// ```text
/// Queued -> Planned -> Moving -> Partial -> Ready <-> Degraded        any of these -> Cancelled, Expired
///    \---------\----------\---------\------------------\-> Failed
/// ```
/// A step may be skipped, none is taken back. `Ready` means that the site's store counted at least the required
/// bytes, `Partial` at least the share that was asked for (promise C); both are set by that count. A `Partial` one
/// whose count falls is `Degraded`. Progress, `resident_bytes`, falls in one case only: the state
/// becomes, or is, `Degraded`.
#[async_trait]
pub trait Warmups: Send + Sync {
    /// Takes a request in state `Queued`. With a key: the first call of that key makes it, a later one with the same
    /// `body_hash` returns what the first made.
    ///
    /// # Errors
    /// `KeyReused` for another body under a known key; `Refused` if the id is taken or the state is not `Queued`;
    /// `Full` above [`ACTIVE_WARMUPS`](crate::limits::ACTIVE_WARMUPS).
    async fn put_warmup(&self, warmup: &Warmup, key: Option<(&str, [u8; 32])>) -> Result<WarmupTaken>;

    /// One.
    async fn warmup(&self, id: &WarmupId) -> Result<Option<Warmup>>;

    /// Warm-ups, newest first.
    async fn warmups(&self, filter: &WarmupFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Warmup>>;

    /// Writes down what became known, at `at`, and returns what it now is.
    ///
    /// # Errors
    /// `NotFound`; `Refused` if the state does not follow.
    async fn update_warmup(&self, id: &WarmupId, update: &WarmupUpdate, at: Timestamp) -> Result<Warmup>;

    /// Takes it back; a second time is no error.
    ///
    /// # Errors
    /// `NotFound`; `Refused` if it has failed.
    async fn cancel_warmup(&self, id: &WarmupId, at: Timestamp) -> Result<Warmup> {
        let cancel = WarmupUpdate { state: Some(WarmupState::Cancelled), ..WarmupUpdate::default() };
        self.update_warmup(id, &cancel, at).await
    }
}

/// Whether a new warm-up may be taken.
pub(crate) fn check_new(warmup: &Warmup, id_taken: bool, active: usize) -> Result<()> {
    let refused = |why: &str| CatalogError::Refused { what: "warm-up", name: warmup.id.to_string(), why: why.into() };
    if id_taken {
        return Err(refused("there is one of this id: draw another"));
    }
    if warmup.state != WarmupState::Queued {
        return Err(refused("a new one starts as QUEUED"));
    }
    if active >= limits::ACTIVE_WARMUPS {
        let remedy = "cancel those that nobody needs";
        return Err(CatalogError::Full { what: "warm-ups that are not over", limit: limits::ACTIVE_WARMUPS, remedy });
    }
    Ok(())
}
