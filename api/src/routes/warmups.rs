//! Warm-ups: ask, see, wait, take back.
//!
//! The door refuses what can never be: unknown names, moments in the past, and data that a rule forbids at that
//! site wholly ([`forbidden_outright`]). Where a rule speaks of some files only, the planner decides file by file,
//! and the warm-up says what was left out.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use foretide_catalog::{AuditEntry, Topic, WarmupFilter};
use foretide_flow::{
    Effect, FilePath, Refusal, Ruleset, SiteId, Timestamp, Topology, Warmup, WarmupId, WarmupRequest, WarmupState,
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{List, page_size};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::events::{Told, tell};
use crate::extract::{Body, Path, Query, commas, record_number, text_header};
use crate::wait::{self, Seen};

/// The header by which a request that is sent twice counts once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Bytes of such a key: a UUID with a prefix, or a job's name, fits.
const KEY_MAX_BYTES: usize = 200;
/// Bytes of a label: a line for people.
const LABEL_MAX_BYTES: usize = 1000;

/// Ask for data to be at a site by a time.
///
/// Answers at once with an id; `GET /v1/warmups/{id}?wait_s=` waits for it. The same `Idempotency-Key` with the same
/// body answers with the same warm-up, as it is now.
#[utoipa::path(
    post, path = "/v1/warmups", tag = "warm-ups", request_body = WarmupRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent twice, it counts once.",
            pattern = "^[!-~]{1,200}$")),
    responses(
        (status = 202, description = "Taken. `Location` names it.", body = Warmup,
         headers(("location" = String, description = "The warm-up's address."))),
        (status = 403, description = "A residency rule forbids all of it, or the token lacks the scope `warm`.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The key was used for another request.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many warm-ups wait as may.",
         body = crate::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ask(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(request): Body<WarmupRequest>,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let key = key_of(&headers, &caller)?;
    let id = id_of(key.as_deref());
    if key.is_some()
        && let Some(before) = api.catalog.warmup(&id).await?
    {
        return replay(before, &request, &headers);
    }
    let topology = api.directory.topology();
    check(&request, &topology)?;
    check_moments(&request, now)?;
    if let Some((rule, path)) = forbidden_outright(&api.directory.rules(), &topology, &request, now) {
        return Err(refuse(&api, &caller, request, rule, path, now).await?);
    }
    let warmup = Warmup {
        id,
        request,
        asked_at: now,
        state: WarmupState::Queued,
        why: None,
        required_bytes: None,
        required_files: None,
        resident_bytes: 0,
        eta: None,
        ready_at: None,
    };
    let hash = request_hash(&warmup.request);
    let taken = api.catalog.put_warmup(&warmup, key.as_deref().map(|k| (k, hash))).await?;
    if taken.new {
        audit(&api, &caller, "warmup.ask", &taken.warmup, now).await?;
    }
    Ok(accepted(taken.warmup))
}

fn accepted(warmup: Warmup) -> Response {
    let location = HeaderValue::from_str(&format!("/v1/warmups/{}", warmup.id));
    let mut response = (StatusCode::ACCEPTED, Json(warmup)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A key names its warm-up: the id is its digest, so that a request sent again finds what the first one made, even
/// when its deadline has passed since.
fn id_of(key: Option<&str>) -> WarmupId {
    match key {
        Some(key) => WarmupId::from(format!("w-{}", &blake3::hash(key.as_bytes()).to_hex()[..32])),
        None => WarmupId::from(format!("w-{}", Uuid::now_v7().simple())),
    }
}

fn replay(before: Warmup, request: &WarmupRequest, headers: &HeaderMap) -> Result<Response, ApiError> {
    if &before.request == request {
        return Ok(accepted(before));
    }
    let key = text_header(headers, IDEMPOTENCY_KEY)?.unwrap_or_default();
    Err(ApiError::KeyReused(key.to_owned()))
}

/// The key, made the caller's own, so that two callers never meet in one.
fn key_of(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, ApiError> {
    let Some(key) = text_header(headers, IDEMPOTENCY_KEY)? else { return Ok(None) };
    if !(1..=KEY_MAX_BYTES).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::BadParameter(format!(
            "Idempotency-Key {key:?}: give 1 to {KEY_MAX_BYTES} printable ASCII characters without blanks"
        )));
    }
    Ok(Some(format!("{}/{key}", caller.name)))
}

/// The same for the same request, however its JSON was written.
fn request_hash(request: &WarmupRequest) -> [u8; 32] {
    *blake3::hash(&serde_json::to_vec(request).unwrap_or_default()).as_bytes()
}

/// Whether the request names what there is.
fn check(request: &WarmupRequest, topology: &Topology) -> Result<(), ApiError> {
    if !topology.volumes.contains_key(&request.volume) {
        return Err(ApiError::UnknownVolume { volume: request.volume.clone(), known: names(topology.volumes.keys()) });
    }
    let site = topology
        .sites
        .get(&request.site)
        .ok_or_else(|| ApiError::UnknownSite { site: request.site.clone(), known: names(topology.sites.keys()) })?;
    if site.cache.is_none() {
        return Err(ApiError::NoCache(request.site.clone()));
    }
    if request.paths.is_empty() {
        return Err(ApiError::NoPaths);
    }
    if request.label.len() > LABEL_MAX_BYTES {
        return Err(ApiError::WrongShape(format!("label has more than {LABEL_MAX_BYTES} bytes")));
    }
    Ok(())
}

fn check_moments(request: &WarmupRequest, now: Timestamp) -> Result<(), ApiError> {
    for (field, at) in [("need_by", request.need_by), ("pin_until", request.pin_until)] {
        if let Some(at) = at.filter(|at| *at <= now) {
            return Err(ApiError::in_the_past(field, at, now));
        }
    }
    Ok(())
}

pub(super) fn names(of: impl Iterator<Item = impl ToString>) -> String {
    let all: Vec<String> = of.map(|n| n.to_string()).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// The rule that forbids every byte below one of the paths, with that path; `default` where no rule matched.
///
/// A path may be a directory whose files rules treat differently, and nobody here knows what lies below. So the
/// verdict on the path itself counts only if it holds for all below: no earlier rule lets some paths through, and
/// the rule that decided speaks of no paths.
fn forbidden_outright(
    rules: &Ruleset,
    topology: &Topology,
    request: &WarmupRequest,
    now: Timestamp,
) -> Option<(String, FilePath)> {
    request.paths.iter().find_map(|path| {
        let verdict = rules.verdict(topology, &request.volume, path, &request.site, now);
        if verdict.allows() {
            return None;
        }
        let decider = rules.rules().position(|r| Some(&r.name) == verdict.rule.as_ref());
        let before = decider.unwrap_or(usize::MAX);
        let some_pass = rules.rules().take(before).any(|r| r.effect == Effect::Allow && r.paths.is_some());
        let speaks_of_paths = decider.and_then(|i| rules.rules().nth(i)).is_some_and(|r| r.paths.is_some());
        if some_pass || speaks_of_paths {
            None
        } else {
            Some((verdict.rule.unwrap_or_else(|| "default".into()), path.clone()))
        }
    })
}

/// Writes the refusal down, tells listeners, and answers with it (promise I).
async fn refuse(
    api: &Api,
    caller: &Caller,
    request: WarmupRequest,
    rule: String,
    path: FilePath,
    now: Timestamp,
) -> Result<ApiError, ApiError> {
    let (volume, site) = (request.volume, request.site);
    let refusal = Refusal {
        volume: volume.clone(),
        path: path.clone(),
        to: site.clone(),
        rule: rule.clone(),
        by: "api".into(),
        at: now,
    };
    let (who, what) = (caller.name.clone(), "warmup.refused".into());
    api.catalog.append_audit(&AuditEntry { at: now, who, what, detail: json!(refusal) }).await?;
    tell(api.catalog.as_ref(), &Told::Refusal(refusal), now).await?;
    Ok(ApiError::Forbidden { rule, volume, path, site })
}

async fn audit(api: &Api, caller: &Caller, what: &str, warmup: &Warmup, now: Timestamp) -> Result<(), ApiError> {
    let detail = json!({ "warmup": warmup.id, "volume": warmup.request.volume, "site": warmup.request.site });
    let entry = AuditEntry { at: now, who: caller.name.clone(), what: what.into(), detail };
    api.catalog.append_audit(&entry).await?;
    Ok(tell(api.catalog.as_ref(), &Told::Warmup(warmup.clone()), now).await?)
}

/// Which warm-ups are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At this site.
    site: Option<SiteId>,
    /// In one of these states, with commas between.
    #[serde(deserialize_with = "commas")]
    #[param(style = Form, explode = false)]
    state: Vec<WarmupState>,
    /// Where the page before ended.
    #[serde(deserialize_with = "record_number")]
    cursor: Option<u64>,
    /// Items of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Warm-ups, newest first.
#[utoipa::path(get, path = "/v1/warmups", tag = "warm-ups", params(ListQuery),
    responses((status = 200, description = "A page of warm-ups.", body = List<Warmup>)))]
pub(crate) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<Warmup>>, ApiError> {
    let limit = page_size(query.limit)?;
    let filter = WarmupFilter { site: query.site, states: query.state };
    Ok(Json(List::of(api.catalog.warmups(&filter, query.cursor, limit).await?)))
}

/// How long one waits for a warm-up.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Hold the answer for up to this many seconds: with `If-None-Match` until the warm-up has changed, without it
    /// until it is READY, FAILED or CANCELLED.
    #[param(minimum = 0, maximum = 60, default = 0)]
    wait_s: u64,
}

/// One warm-up.
#[utoipa::path(get, path = "/v1/warmups/{id}", tag = "warm-ups",
    params(("id" = WarmupId, Path), WaitQuery, ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The warm-up as it is.", body = Warmup,
         headers(("etag" = String, description = "Changes when the warm-up does."))),
        (status = 304, description = "It is as `If-None-Match` says."),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn one(
    State(api): State<Api>,
    Path(id): Path<WarmupId>,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = wait::known_etag(&headers)?;
    let look = || async {
        let warmup = api.catalog.warmup(&id).await?.ok_or_else(|| ApiError::not_found("warm-up", &id))?;
        let etag = wait::etag_of_value(&warmup);
        let enough = match &known {
            Some(known) => !wait::matches_etag(Some(known), &etag),
            None => ended(warmup.state),
        };
        Ok(if enough { Seen::Enough((warmup, etag)) } else { Seen::Same((warmup, etag)) })
    };
    let (warmup, etag) = wait::until(&api, &[Topic::Warmups, Topic::Outcomes], query.wait_s, look).await?;
    Ok(wait::tagged(&warmup, &etag, known.as_deref()))
}

/// Whether somebody who waits for it can go on.
fn ended(state: WarmupState) -> bool {
    matches!(state, WarmupState::Ready | WarmupState::Failed | WarmupState::Cancelled)
}

/// Take a warm-up back. Bytes that came stay until others need the room. A second time is no error.
#[utoipa::path(delete, path = "/v1/warmups/{id}", tag = "warm-ups", params(("id" = WarmupId, Path)),
    responses(
        (status = 200, description = "The warm-up as it is now.", body = Warmup),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has failed: there is nothing to take back.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<WarmupId>,
) -> Result<Json<Warmup>, ApiError> {
    let now = Timestamp::now();
    let warmup = api.catalog.cancel_warmup(&id, now).await?;
    audit(&api, &caller, "warmup.cancel", &warmup, now).await?;
    Ok(Json(warmup))
}
