//! The one place where errors become HTTP: status, type, title and remedy of each (RFC 9457).
//!
//! `type` is a relative reference that never changes its meaning, so that programs decide by it; `detail` is for
//! people and may change; `remedy` says what the caller can do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// The media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as it goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind of problem, for programs, such as `/problems/unknown-site`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What the caller can do.
    pub remedy: String,
    /// The residency rule that forbids it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl From<&ApiError> for Problem {
    fn from(error: &ApiError) -> Self {
        let (status, slug, title) = class(error);
        let rule = match error {
            ApiError::Forbidden { rule, .. } => Some(rule.clone()),
            _ => None,
        };
        Self {
            kind: format!("/problems/{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail(error),
            remedy: remedy(error),
            rule,
        }
    }
}

/// Status, slug of the type, title.
fn class(error: &ApiError) -> (StatusCode, &'static str, &'static str) {
    use ApiError as E;
    match error {
        E::NoToken => (StatusCode::UNAUTHORIZED, "no-token", "no token"),
        E::BadToken | E::BadPersonsToken(_) => (StatusCode::UNAUTHORIZED, "bad-token", "token not accepted"),
        E::WrongScope { .. } => (StatusCode::FORBIDDEN, "wrong-scope", "token not for this"),
        E::NoCertificate => (StatusCode::FORBIDDEN, "no-certificate", "no agent's certificate"),
        E::NotYours(_) => (StatusCode::FORBIDDEN, "not-yours", "token speaks for another"),
        E::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden-by-rule", "forbidden by a residency rule"),
        E::NotFound { .. } => (StatusCode::NOT_FOUND, "not-found", "not found"),
        E::NoRoute(_) => (StatusCode::NOT_FOUND, "no-route", "no such route"),
        E::WrongMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "method not allowed"),
        E::KeyReused(_) => (StatusCode::CONFLICT, "key-reused", "idempotency key reused"),
        E::Conflict(_) => (StatusCode::CONFLICT, "conflict", "against what is there"),
        E::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "body too large"),
        E::WrongType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong-type", "media type not taken"),
        E::NotJson(_) => (StatusCode::BAD_REQUEST, "not-json", "body is not JSON"),
        E::CutShort(_) => (StatusCode::BAD_REQUEST, "cut-short", "body ended early"),
        E::BadParameter(_) => (StatusCode::BAD_REQUEST, "bad-parameter", "parameter cannot be meant"),
        E::WrongShape(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wrong-shape", "body has another shape"),
        E::UnknownVolume { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-volume", "unknown volume"),
        E::UnknownSite { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-site", "unknown site"),
        E::NoCache(_) => (StatusCode::UNPROCESSABLE_ENTITY, "no-cache", "site without a cache"),
        E::StandsThere { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "stands-there", "the data is there"),
        E::NoPaths => (StatusCode::UNPROCESSABLE_ENTITY, "no-paths", "nothing asked for"),
        E::InThePast { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "in-the-past", "moment in the past"),
        E::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused", "content refused"),
        E::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "too many requests"),
        E::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "busy", "one at a time"),
        E::TooManyListeners(_) => (StatusCode::SERVICE_UNAVAILABLE, "too-many-listeners", "too many listeners"),
        E::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not available now"),
        E::Catalog(_) => (StatusCode::INTERNAL_SERVER_ERROR, "catalog", "the catalog failed"),
    }
}

/// The catalog's own words stay in the log: they may name files of this machine.
fn detail(error: &ApiError) -> String {
    match error {
        ApiError::Catalog(_) => "the control plane could not read or write its records".into(),
        other => other.to_string(),
    }
}

fn remedy(error: &ApiError) -> String {
    use ApiError as E;
    match error {
        E::NoToken => {
            "send the header `Authorization: Bearer TOKEN`; the first token was printed at first start".into()
        }
        E::BadToken => "ask an admin for a new token".into(),
        E::BadPersonsToken(_) => "get a new token from the issuer, for the audience that is configured here".into(),
        E::WrongScope { needed, .. } => format!("ask an admin for a token with the scope {needed}"),
        E::NoCertificate => "give the agent `[tls]`: `foretide certify` makes what that needs".into(),
        E::NotYours(_) => "use the token that was made for it".into(),
        E::Forbidden { rule, .. } => format!("choose a site that rule {rule:?} allows, or ask an admin to change it"),
        E::NotFound { what, .. } => format!("list what there is with GET {}", listing_of(what)),
        E::NoRoute(_) => "GET /v1/openapi.json names every route".into(),
        E::WrongMethod { .. } => "the header `Allow` of this answer names the methods".into(),
        E::KeyReused(_) => "use a new key for a new request".into(),
        E::Conflict(_) => "look at what is there, and ask for something else".into(),
        E::TooLarge { limit_bytes } => {
            format!("send at most {limit_bytes} bytes; name a directory rather than its files")
        }
        E::WrongType { taken, .. } => format!("send the header `Content-Type: {taken}`"),
        E::NotJson(_) | E::WrongShape(_) => "see the schema of the body in /v1/openapi.json".into(),
        E::CutShort(_) => "send the request again".into(),
        E::BadParameter(_) => "see the parameters of the route in /v1/openapi.json".into(),
        E::UnknownVolume { .. } => "correct the name, or have an admin add the volume to the configuration".into(),
        E::UnknownSite { .. } => "correct the name, or have an admin add the site to the configuration".into(),
        E::NoCache(_) => "name a site that has a cache; GET /v1/sites lists them".into(),
        E::StandsThere { .. } => {
            "start the job there and have it read the volume where it stands, or name another site".into()
        }
        E::NoPaths => "name files or directories, or [\"\"] for the whole volume".into(),
        E::InThePast { field, .. } => {
            format!("give a later {field}, or leave it out to have the data as soon as possible")
        }
        E::Refused(_) => "correct what is named and send it again".into(),
        E::TooManyRequests { retry_after_s, .. } => {
            format!("wait {retry_after_s} s, or poll with ?wait_s= and If-None-Match")
        }
        E::Busy(_) | E::TooManyListeners(_) | E::Unavailable(_) => {
            "try again after the seconds in `Retry-After`".into()
        }
        E::Catalog(_) => "try again; if it stays, the log of `foretide serve` says why".into(),
    }
}

fn listing_of(what: &str) -> &'static str {
    match what {
        "warm-up" => "/v1/warmups",
        "plan" => "/v1/plans",
        "profile" => "/v1/profiles",
        "site" => "/v1/sites",
        "token" => "/v1/tokens",
        "webhook" => "/v1/webhooks",
        "agent" => "/v1/sites, and say hello with POST /v1/agent/hello",
        _ => "/v1/openapi.json",
    }
}

/// Seconds after which somebody who found no room may ask again.
const RETRY_AFTER_S: u64 = 5;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Catalog(error) = &self {
            tracing::error!(%error, "the catalog failed under a request");
        }
        let problem = Problem::from(&self);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self {
            Self::NoToken | Self::BadToken | Self::BadPersonsToken(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooManyRequests { retry_after_s, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Self::Busy(_) | Self::TooManyListeners(_) | Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            _ => {}
        }
        response
    }
}
