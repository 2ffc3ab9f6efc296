//! Events, metrics, health, the document, tokens, audit.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Frame, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use foretide_catalog::{AuditEntry, AuditRecord, Token};
use foretide_flow::Timestamp;
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::plans::PageQuery;
use super::{List, page_size};
use crate::Api;
use crate::auth::{Caller, Scope, TOKEN_NAME_MAX_BYTES, mint_for, tenant_of};
use crate::error::ApiError;
use crate::events::{EventView, listen};
use crate::extract::{Body, NO_RECORD, Path, Query, commas, record_number, text_header};
use crate::metrics::{OPEN_METRICS, scrape};
use crate::people::SignIn;
use crate::tenant::Sight;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The token's name.
    pub name: String,
    /// What it may do: `admin` includes `read` and `warm`.
    pub scopes: Vec<Scope>,
    /// Whose data it sees; everybody's if null.
    pub tenant: Option<String>,
}

/// Whose token this is, and what it may do.
#[utoipa::path(get, path = "/v1/me", tag = "house", operation_id = "me",
    responses((status = 200, description = "The token's name and scopes.", body = Me)))]
pub(crate) async fn me(Extension(caller): Extension<Caller>) -> Json<Me> {
    let scopes = Scope::ALL.into_iter().filter(|scope| caller.may(*scope)).collect();
    Json(Me { name: caller.name, scopes, tenant: caller.tenant })
}

/// How people may sign in, beside showing a token of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaysIn {
    /// At an OpenID Connect issuer; null if nobody is sent there.
    pub oidc: Option<SignIn>,
}

/// What a page needs to know before anybody has signed in: public, as all of it is the issuer's or stands in the address bar.
#[utoipa::path(get, path = "/v1/sign-in", tag = "house", operation_id = "ways_in",
    responses(
        (status = 200, description = "How people may sign in.", body = WaysIn),
        (status = 503, description = "The issuer does not tell now, or what it tells does not fit the configuration.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn ways_in(State(api): State<Api>) -> Result<Json<WaysIn>, ApiError> {
    let oidc = match &api.people {
        Some(people) => people.sign_in().await?,
        None => None,
    };
    Ok(Json(WaysIn { oidc }))
}

/// That the control plane lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Foretide's version.
    pub version: String,
}

/// Whether the control plane can read its records.
#[utoipa::path(get, path = "/healthz", tag = "house",
    responses(
        (status = 200, description = "It can.", body = Health),
        (status = 500, description = "It cannot, and trying again will not help.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot now.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn healthz(State(api): State<Api>) -> Result<Json<Health>, ApiError> {
    api.catalog.prefetch_off().await?;
    Ok(Json(Health { status: "ok".into(), version: env!("CARGO_PKG_VERSION").into() }))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "house",
    responses((status = 200, description = "OpenAPI 3.1.", body = Value)))]
pub(crate) async fn openapi_json() -> Json<utoipa::openapi::OpenApi> {
    Json(crate::openapi())
}

/// Counters and gauges, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "house",
    responses((status = 200, description = "OpenMetrics 1.0.", body = String,
               content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")))]
pub(crate) async fn metrics(State(api): State<Api>, sight: Sight) -> Result<Response, ApiError> {
    sight.whole()?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], scrape(&api).await?).into_response())
}

/// Which events are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Those after this number, for clients that cannot set `Last-Event-ID`; 0 for all that are kept.
    #[serde(deserialize_with = "record_number")]
    after: Option<u64>,
    /// Only these kinds, with commas between.
    #[serde(deserialize_with = "commas")]
    #[param(style = Form, explode = false)]
    kinds: Vec<String>,
}

/// What happens, as server-sent events.
///
/// Each frame has the event's number as `id`, its kind as `event`, and in `data` the JSON of `EventView`. Who comes
/// back with `Last-Event-ID` misses nothing that is still kept; a frame `lost` says how many events are gone, and
/// that what is shown should be loaded anew. A browser reads the stream with `fetch` and the `Authorization` header.
#[utoipa::path(get, path = "/v1/events", tag = "house",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event seen.")),
    responses(
        (status = 200, description = "Frames, without end.", body = EventView, content_type = "text/event-stream"),
        (status = 503, description = "As many listen as may.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn events(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, ApiError> {
    let last = match text_header(&headers, "last-event-id")? {
        Some(text) => {
            let number = text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok());
            let not_ours = || ApiError::BadParameter(format!("Last-Event-ID {text:?}: {NO_RECORD}"));
            Some(number.ok_or_else(not_ours)?)
        }
        None => query.after,
    };
    listen(&api, caller.tenant, last, query.kinds).await
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whose data it sees; everybody's if null.
    pub tenant: Option<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// Void after this; null if it stays.
    pub expires_at: Option<Timestamp>,
}

impl From<Token> for TokenView {
    fn from(t: Token) -> Self {
        let scopes = t.scope.split_whitespace().filter_map(|s| s.parse().ok()).collect();
        let tenant = tenant_of(&t).map(str::to_owned);
        Self { name: t.name, scopes, tenant, made_at: t.made_at, expires_at: t.expires_at }
    }
}

/// All tokens, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// The tokens.
    pub items: Vec<TokenView>,
}

/// A token that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWanted {
    /// Its name, for people and for revoking.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,100}$")]
    pub name: String,
    /// What it may do.
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// Only the data of this tenant, and what nobody owns, is seen; a volume's tag `tenant` says whose it is. Only with
    /// `read` and `warm`.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,100}$")]
    pub tenant: Option<String>,
    /// Void after this.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// Its name.
    pub name: String,
    /// What to send as `Authorization: Bearer …`. It is not kept and cannot be shown again.
    pub secret: String,
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "house",
    responses((status = 200, description = "All tokens, by name.", body = Tokens)))]
pub(crate) async fn tokens(State(api): State<Api>) -> Result<Json<Tokens>, ApiError> {
    Ok(Json(Tokens { items: api.catalog.tokens().await?.into_iter().map(Into::into).collect() }))
}

/// Make a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "house", request_body = TokenWanted,
    responses(
        (status = 201, description = "The token.", body = TokenMade),
        (status = 409, description = "There is a token of that name.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "There are as many tokens as may be.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn make_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<TokenWanted>,
) -> Result<(StatusCode, Json<TokenMade>), ApiError> {
    let now = Timestamp::now();
    check_token(&wanted, now)?;
    let TokenWanted { name, scopes, tenant, expires_at } = wanted;
    let secret = mint_for(api.catalog.as_ref(), &name, &scopes, tenant.as_deref(), expires_at, now).await?;
    let detail = json!({ "token": name, "scopes": scopes, "tenant": tenant, "expires_at": expires_at });
    note(&api, caller, "token.make", detail, now).await?;
    Ok((StatusCode::CREATED, Json(TokenMade { name, secret })))
}

fn check_token(wanted: &TokenWanted, now: Timestamp) -> Result<(), ApiError> {
    check_name(&wanted.name)?;
    if wanted.scopes.is_empty() {
        return Err(ApiError::WrongShape("scopes is empty: name at least one of read, warm, admin, agent".into()));
    }
    if wanted.scopes.contains(&Scope::Join) {
        return Err(ApiError::WrongShape("a token to join by is for one node: POST /v1/joins makes it".into()));
    }
    if let Some(tenant) = &wanted.tenant {
        check_name(tenant)?;
        if wanted.scopes.iter().any(|scope| !matches!(scope, Scope::Read | Scope::Warm)) {
            return Err(ApiError::WrongShape("a tenant's token has the scopes read and warm, and no other".into()));
        }
    }
    match wanted.expires_at.filter(|at| *at <= now) {
        Some(at) => Err(ApiError::in_the_past("expires_at", at, now)),
        None => Ok(()),
    }
}

/// Whether a token or a webhook may be called so.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b));
    if (1..=TOKEN_NAME_MAX_BYTES).contains(&name.len()) && letters {
        return Ok(());
    }
    Err(ApiError::WrongShape(format!(
        "name {name:?}: use 1 to {TOKEN_NAME_MAX_BYTES} letters, digits, '.', '_', '@', '-'"
    )))
}

/// Revoke a token, at once.
#[utoipa::path(delete, path = "/v1/tokens/{name}", tag = "house", params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is void."),
        (status = 404, description = "There is no such token.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn revoke_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    if !api.catalog.revoke_token(&name).await? {
        return Err(ApiError::not_found("token", name));
    }
    note(&api, caller, "token.revoke", json!({ "token": name }), Timestamp::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn note(api: &Api, caller: Caller, what: &str, detail: Value, at: Timestamp) -> Result<(), ApiError> {
    let entry = AuditEntry { at, who: caller.name, what: what.into(), detail };
    Ok(api.catalog.append_audit(&entry).await.map(drop)?)
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Grows.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// The token's name.
    pub who: String,
    /// What was done, such as `warmup.cancel`.
    pub what: String,
    /// The rest.
    pub detail: Value,
}

impl From<AuditRecord> for AuditView {
    fn from(r: AuditRecord) -> Self {
        let AuditEntry { at, who, what, detail } = r.entry;
        Self { id: r.id, at, who, what, detail }
    }
}

/// Who did what, oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "house", params(PageQuery),
    responses((status = 200, description = "A page of entries, oldest first.", body = List<AuditView>)))]
pub(crate) async fn audit(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<AuditView>>, ApiError> {
    let limit = page_size(query.limit)?;
    let records = api.catalog.audit(query.cursor.unwrap_or(0), limit).await?;
    let next = records.last().filter(|_| records.len() == limit).map(|r| r.id);
    Ok(Json(List { items: records.into_iter().map(Into::into).collect(), next }))
}
