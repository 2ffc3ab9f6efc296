//! Webhooks: make, look at, take away. How they are carried is in [`webhooks`](crate::webhooks).

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use foretide_flow::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::house::{check_name, note};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::webhooks::{Aside, WEBHOOKS_MAX, Webhook, new_secret};

/// Bytes of an address.
const URL_MAX_BYTES: usize = 2000;

/// A webhook that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookWanted {
    /// Its name, for people and for taking it away.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,100}$")]
    pub name: String,
    /// Where messages are posted.
    #[schema(pattern = "^http://[A-Za-z0-9]{1,200}(:[0-9]{1,5})?(/[!-~]{0,1000})?$")]
    pub url: String,
    /// Kinds of events, such as `warmup`; all if empty.
    #[serde(default)]
    pub kinds: Vec<String>,
}

/// A webhook that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookMade {
    /// Its name.
    pub name: String,
    /// What signs its messages. It cannot be shown again.
    pub secret: String,
}

/// A webhook and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// Its name.
    pub name: String,
    /// Where messages are posted.
    pub url: String,
    /// Kinds of events; all if empty.
    pub kinds: Vec<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// Messages that the receiver took.
    pub delivered: u64,
    /// Events after this number have yet to be told.
    pub after: u64,
    /// Failures of the next message since it was first tried.
    pub failures: u32,
    /// Why the last message was not taken; null if it was.
    pub last_error: Option<String>,
    /// Events that were given up, the last hundred, oldest first; `GET /v1/events?after=` still tells them.
    pub dead_letters: Vec<Aside>,
}

/// All webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhooks {
    /// In the order in which they were made.
    pub items: Vec<WebhookView>,
}

impl From<Webhook> for WebhookView {
    fn from(w: Webhook) -> Self {
        Self {
            name: w.name,
            url: w.url,
            kinds: w.kinds,
            made_at: w.made_at,
            delivered: w.delivered,
            after: w.after,
            failures: w.failures,
            last_error: w.last_error,
            dead_letters: w.aside,
        }
    }
}

/// All webhooks, without their secrets.
#[utoipa::path(get, path = "/v1/webhooks", tag = "house",
    responses((status = 200, description = "All webhooks.", body = Webhooks)))]
pub(crate) async fn webhooks(State(api): State<Api>) -> Result<Json<Webhooks>, ApiError> {
    Ok(Json(Webhooks { items: api.hooks.all().await?.into_iter().map(Into::into).collect() }))
}

/// Have events posted to an address from now on, each at least once, signed as Standard Webhooks has it.
#[utoipa::path(post, path = "/v1/webhooks", tag = "house", request_body = WebhookWanted,
    responses(
        (status = 201, description = "The webhook.", body = WebhookMade),
        (status = 409, description = "There is one of that name.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "There are as many as may be.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn make(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<WebhookWanted>,
) -> Result<(StatusCode, Json<WebhookMade>), ApiError> {
    let now = Timestamp::now();
    check_name(&wanted.name)?;
    check_url(&wanted.url)?;
    let WebhookWanted { name, url, kinds } = wanted;
    let webhook = Webhook {
        name: name.clone(),
        url: url.clone(),
        kinds,
        made_at: now,
        secret: new_secret(),
        after: api.catalog.last_event().await?,
        delivered: 0,
        failures: 0,
        next_try_at: now,
        last_error: None,
        aside: Vec::new(),
    };
    let made = WebhookMade { name: name.clone(), secret: webhook.secret.clone() };
    let added = api.hooks.change(|all| {
        if all.iter().any(|w| w.name == name) {
            return Err(ApiError::Conflict(format!("there is a webhook {name:?}")));
        }
        if all.len() >= WEBHOOKS_MAX {
            return Err(ApiError::Unavailable(format!("there are {WEBHOOKS_MAX} webhooks, as many as may be")));
        }
        all.push(webhook);
        Ok(())
    });
    added.await??;
    note(&api, caller, "webhook.make", json!({ "webhook": made.name, "url": url }), now).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

fn check_url(url: &str) -> Result<(), ApiError> {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let printable = url.len() <= URL_MAX_BYTES && url.bytes().all(|b| b.is_ascii_graphic());
    if printable && host.is_some_and(|h| h.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')) {
        return Ok(());
    }
    Err(ApiError::WrongShape(format!(
        "url {url:?}: give http:// and a host, at most {URL_MAX_BYTES} characters; for https a proxy beside this server"
    )))
}

/// Take a webhook away, at once.
#[utoipa::path(delete, path = "/v1/webhooks/{name}", tag = "house", params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such webhook.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let there = api.hooks.change(|all| {
        let before = all.len();
        all.retain(|w| w.name != name);
        all.len() < before
    });
    if !there.await? {
        return Err(ApiError::not_found("webhook", name));
    }
    note(&api, caller, "webhook.remove", json!({ "webhook": name }), Timestamp::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
