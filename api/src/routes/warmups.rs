//! Warm-ups: ask, see, wait, change, take back. What is asked for is judged in [`wanted`](crate::wanted).

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use foretide_catalog::{AuditEntry, NewTerms, Topic, WarmupFilter};
use foretide_flow::{FilePath, Refusal, SiteId, Timestamp, Topology, Warmup, WarmupId, WarmupRequest, WarmupState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{List, page_size};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::eta::WarmupView;
use crate::events::{Told, tell};
use crate::extract::{Body, Path, Query, commas, record_number, text_header};
use crate::ports::{Advice, Question};
use crate::selection::{self, Said, Selection};
use crate::tenant::Sight;
use crate::wait::{self, Seen};
use crate::wanted::{
    WarmupChange, WarmupWanted, check_change, check_jurisdiction, check_site, check_terms, forbidden_outright, names,
    request_of,
};

/// The header by which a request that is sent twice counts once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Bytes of such a key: a UUID with a prefix, or a job's name, fits.
const KEY_MAX_BYTES: usize = 200;

/// What a warm-up would bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WarmupPreview {
    /// The request that would be kept.
    pub request: WarmupRequest,
    /// Bytes, times and money at its site.
    pub advice: Advice,
}

/// Ask for data to be at a site by a time.
///
/// Answers at once with an id; `GET /v1/warmups/{id}?wait_s=` waits for it. The same `Idempotency-Key` with the same
/// body answers with the same warm-up, as it is now. With `dry_run` nothing is kept: the answer says what it would
/// bring, by when and at what cost.
#[utoipa::path(
    post, path = "/v1/warmups", tag = "warm-ups", request_body = WarmupWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent twice, it counts once.",
            pattern = "^[!-~]{1,200}$")),
    responses(
        (status = 200, description = "`dry_run`: what it would bring.", body = WarmupPreview),
        (status = 202, description = "Taken. `Location` names it.", body = WarmupView,
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
    sight: Sight,
    headers: HeaderMap,
    Body(wanted): Body<WarmupWanted>,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let key = key_of(&headers, &caller)?;
    let id = id_of(key.as_deref());
    let hash = wanted_hash(&wanted);
    if let Some(key) = &key
        && let Some(before) = api.catalog.warmup(&id).await?
    {
        // The catalog knows which body the key came with.
        let kept = api.catalog.put_warmup(&before, Some((key, hash))).await?;
        return Ok(accepted(view(&api, kept.warmup, now).await?));
    }
    check_terms(&wanted, now)?;
    let dry_run = wanted.dry_run;
    let request = resolve(&api, wanted, &sight, now).await?;
    if let Some((rule, path)) = forbidden_outright(&api.directory.rules(), sight.topology(), &request, now) {
        return Err(refuse(&api, &caller, request, rule, path, now).await?);
    }
    if dry_run {
        let selection = Selection {
            volume: request.volume.clone(),
            paths: request.paths.clone(),
            except: request.except.clone(),
            globs: request.globs.clone(),
        };
        let advice = api.adviser.advise(question(&selection, vec![request.site.clone()]), now).await?;
        return Ok(Json(WarmupPreview { request, advice }).into_response());
    }
    let warmup = Warmup::new(id, request, now);
    Ok(accepted(take(&api, &caller, &warmup, key.as_deref().map(|k| (k, hash)), now).await?))
}

/// Keeps a warm-up and tells listeners, unless the key has made it before.
pub(super) async fn take(
    api: &Api,
    caller: &Caller,
    warmup: &Warmup,
    key: Option<(&str, [u8; 32])>,
    now: Timestamp,
) -> Result<WarmupView, ApiError> {
    let taken = api.catalog.put_warmup(warmup, key).await?;
    if taken.new {
        audit(api, caller, "warmup.ask", &taken.warmup, now).await?;
    }
    view(api, taken.warmup, now).await
}

/// The request for one volume and one site that a wish comes to.
async fn resolve(
    api: &Api,
    mut wanted: WarmupWanted,
    sight: &Sight,
    now: Timestamp,
) -> Result<WarmupRequest, ApiError> {
    let topology = sight.topology();
    let said = Said {
        volume: wanted.volume.take(),
        paths: std::mem::take(&mut wanted.paths),
        except: std::mem::take(&mut wanted.except),
        globs: std::mem::take(&mut wanted.globs),
        tags: std::mem::take(&mut wanted.tags),
        workload: wanted.workload.take(),
        run: wanted.run.take(),
    };
    let selection = selection::find(api, said, topology).await?;
    for id in &wanted.run_after {
        let absent = |_| ApiError::Refused(format!("run_after names warm-up {id}, which is not there"));
        sight.of_warmup(api.catalog.warmup(id).await?, id).map_err(absent)?;
    }
    let site = match wanted.site.take() {
        Some(site) => site,
        None => best_site(api, &selection, &wanted, topology, now).await?,
    };
    check_site(&site, &selection.volume, topology)?;
    check_jurisdiction(&wanted.jurisdictions, &site, topology)?;
    Ok(request_of(wanted, selection, site, topology))
}

fn question(selection: &Selection, sites: Vec<SiteId>) -> Question {
    let Selection { volume, paths, except, globs } = selection.clone();
    Question { volume, paths, except, globs, sites, free_accelerators: Default::default() }
}

/// The best of the sites that were named, or of all to which it can be brought, in the jurisdictions that were.
async fn best_site(
    api: &Api,
    selection: &Selection,
    wanted: &WarmupWanted,
    topology: &Topology,
    now: Timestamp,
) -> Result<SiteId, ApiError> {
    wanted.sites.iter().try_for_each(|site| check_site(site, &selection.volume, topology))?;
    let able = topology.sites.keys().filter(|site| check_site(site, &selection.volume, topology).is_ok());
    let named = if wanted.sites.is_empty() { able.cloned().collect() } else { wanted.sites.clone() };
    let within = |site: &SiteId| check_jurisdiction(&wanted.jurisdictions, site, topology).is_ok();
    let candidates: Vec<SiteId> = named.into_iter().filter(within).collect();
    if candidates.is_empty() {
        let wanted = names(wanted.jurisdictions.iter());
        return Err(ApiError::Refused(format!(
            "no site to which it can be brought is in the jurisdictions asked for: {wanted}"
        )));
    }
    let ranked = api.adviser.advise(question(selection, candidates), now).await?.sites;
    let nowhere = || {
        let reasons: Vec<String> = ranked.iter().map(|s| format!("{}: {}", s.site, s.reason)).collect();
        ApiError::Refused(format!("it can be at none of the sites: {}", reasons.join("; ")))
    };
    ranked.iter().find(|s| s.possible).map(|s| s.site.clone()).ok_or_else(nowhere)
}

async fn view(api: &Api, warmup: Warmup, now: Timestamp) -> Result<WarmupView, ApiError> {
    let stretch = api.calibration.stretch(api.catalog.as_ref()).await?;
    Ok(stretch.view(warmup, &api.directory.topology(), now))
}

fn accepted(view: WarmupView) -> Response {
    let location = HeaderValue::from_str(&format!("/v1/warmups/{}", view.warmup.id));
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
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

/// The same for the same wish, however its JSON was written.
fn wanted_hash(wanted: &WarmupWanted) -> [u8; 32] {
    *blake3::hash(&serde_json::to_vec(wanted).unwrap_or_default()).as_bytes()
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
    Ok(tell(api.catalog.as_ref(), &Told::Warmup(warmup.clone().into()), now).await?)
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
    responses((status = 200, description = "A page of warm-ups.", body = List<WarmupView>)))]
pub(crate) async fn list(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<WarmupView>>, ApiError> {
    let (limit, now) = (page_size(query.limit)?, Timestamp::now());
    let filter = WarmupFilter { site: query.site, states: query.state };
    let page = api.catalog.warmups(&filter, query.cursor, limit).await?;
    let stretch = api.calibration.stretch(api.catalog.as_ref()).await?;
    let seen = page.items.into_iter().filter(|w| sight.sees(&w.request.volume));
    let items = seen.map(|w| stretch.view(w, sight.topology(), now)).collect();
    Ok(Json(List { items, next: page.next }))
}

/// How long one waits for a warm-up.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Hold the answer for up to this many seconds: with `If-None-Match` until the warm-up has changed, without it
    /// until the job can begin (READY; PARTIAL where that was asked for) or it is over.
    #[param(minimum = 0, maximum = 60, default = 0)]
    wait_s: u64,
}

/// One warm-up.
#[utoipa::path(get, path = "/v1/warmups/{id}", tag = "warm-ups",
    params(("id" = WarmupId, Path), WaitQuery, ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The warm-up as it is.", body = WarmupView,
         headers(("etag" = String, description = "Changes when the warm-up does."))),
        (status = 304, description = "It is as `If-None-Match` says."),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn one(
    State(api): State<Api>,
    sight: Sight,
    Path(id): Path<WarmupId>,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = wait::known_etag(&headers)?;
    let look = || async {
        let warmup = sight.of_warmup(api.catalog.warmup(&id).await?, &id)?;
        let view = view(&api, warmup, Timestamp::now()).await?;
        let json = serde_json::to_vec(&view).unwrap_or_default();
        let etag = wait::etag_of(&json);
        let enough = match &known {
            Some(known) => !wait::matches_etag(Some(known), &etag),
            None => can_go_on(view.warmup.state),
        };
        Ok(if enough { Seen::Enough((json, etag)) } else { Seen::Same((json, etag)) })
    };
    let (json, etag) = wait::until(&api, &[Topic::Warmups, Topic::Outcomes], query.wait_s, look).await?;
    Ok(wait::tagged_json(json, &etag, known.as_deref()))
}

/// Whether somebody who waits for it can go on.
fn can_go_on(state: WarmupState) -> bool {
    matches!(state, WarmupState::Partial | WarmupState::Ready) || state.is_over()
}

/// Ask for other terms: another deadline, end, pin, priority or label.
#[utoipa::path(patch, path = "/v1/warmups/{id}", tag = "warm-ups", params(("id" = WarmupId, Path)),
    request_body = WarmupChange,
    responses(
        (status = 200, description = "The warm-up as it is now.", body = WarmupView),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is over.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn change(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Path(id): Path<WarmupId>,
    Body(change): Body<WarmupChange>,
) -> Result<Json<WarmupView>, ApiError> {
    let now = Timestamp::now();
    check_change(&change, now)?;
    let before = sight.of_warmup(api.catalog.warmup(&id).await?, &id)?;
    let state = crate::eta::as_of(before, now).state;
    if state.is_over() {
        return Err(ApiError::Conflict(format!("warm-up {id} is over: its state is {state:?}")));
    }
    let WarmupChange { need_by, expire_at, pin_until, pin_for_s, priority, label } = change;
    let terms = Some(NewTerms { need_by, expire_at, pin_until, pin_for_s, priority, label });
    let update = foretide_catalog::WarmupUpdate { terms, ..Default::default() };
    let warmup = api.catalog.update_warmup(&id, &update, now).await?;
    audit(&api, &caller, "warmup.change", &warmup, now).await?;
    Ok(Json(view(&api, warmup, now).await?))
}

/// Take a warm-up back. Bytes that came stay until others need the room; their pin ends. A second time is no error.
#[utoipa::path(delete, path = "/v1/warmups/{id}", tag = "warm-ups", params(("id" = WarmupId, Path)),
    responses(
        (status = 200, description = "The warm-up as it is now.", body = WarmupView),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has failed or expired: there is nothing to take back.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Path(id): Path<WarmupId>,
) -> Result<Json<WarmupView>, ApiError> {
    let now = Timestamp::now();
    sight.of_warmup(api.catalog.warmup(&id).await?, &id)?;
    let warmup = api.catalog.cancel_warmup(&id, now).await?;
    audit(&api, &caller, "warmup.cancel", &warmup, now).await?;
    Ok(Json(view(&api, warmup, now).await?))
}

/// Release a warm-up whose job has run: what can begin by it is over as EXPIRED, and remembered as one that served; any
/// other is CANCELLED. Bytes that came stay until others need the room; their pin ends. A second time is no error.
#[utoipa::path(post, path = "/v1/warmups/{id}/release", tag = "warm-ups", params(("id" = WarmupId, Path)),
    responses(
        (status = 200, description = "The warm-up as it is now.", body = WarmupView),
        (status = 404, description = "There is no such warm-up.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn release(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Path(id): Path<WarmupId>,
) -> Result<Json<WarmupView>, ApiError> {
    let now = Timestamp::now();
    let before = sight.of_warmup(api.catalog.warmup(&id).await?, &id)?;
    if before.state.is_over() {
        return Ok(Json(view(&api, before, now).await?));
    }
    let served = matches!(before.state, WarmupState::Ready | WarmupState::Partial | WarmupState::Degraded);
    let state = if served { WarmupState::Expired } else { WarmupState::Cancelled };
    let why = Some("released: its job has run".to_owned());
    let update = foretide_catalog::WarmupUpdate { state: Some(state), why, ..Default::default() };
    let warmup = api.catalog.update_warmup(&id, &update, now).await?;
    audit(&api, &caller, "warmup.release", &warmup, now).await?;
    Ok(Json(view(&api, warmup, now).await?))
}
