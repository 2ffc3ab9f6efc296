//! From a request to values: each failure is a problem that names what is wrong, never a bare text.

use std::fmt;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::Api;
use crate::error::ApiError;

/// A JSON body of people or schedulers.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        json(request, api.config.body_max_bytes).await.map(Self)
    }
}

/// A JSON body of an agent: may be larger.
pub(crate) struct Report<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Report<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        json(request, api.config.report_max_bytes).await.map(Self)
    }
}

async fn json<T: DeserializeOwned>(request: Request, limit_bytes: usize) -> Result<T, ApiError> {
    must_be(request.headers(), "application/json")?;
    let bytes = read(request, limit_bytes).await?;
    serde_json::from_slice(&bytes).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => ApiError::WrongShape(e.to_string()),
        _ => ApiError::NotJson(e.to_string()),
    })
}

/// The media type, parameters such as `charset` left aside.
pub(crate) fn must_be(headers: &HeaderMap, taken: &'static str) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(taken) {
        Ok(())
    } else {
        Err(ApiError::WrongType { given: given.to_owned(), taken })
    }
}

/// The whole body, unless it is larger than the bound; what is beyond it is not read.
pub(crate) async fn read(request: Request, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > limit_bytes) {
        return Err(ApiError::TooLarge { limit_bytes });
    }
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(0));
    let mut parts = request.into_body().into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|e| ApiError::CutShort(e.to_string()))?;
        if whole.len() + part.len() > limit_bytes {
            return Err(ApiError::TooLarge { limit_bytes });
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// Query parameters.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let told = |e: QueryRejection| ApiError::BadParameter(e.body_text());
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state).await.map_err(told)?;
        Ok(Self(value))
    }
}

/// A segment of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let told = |e: PathRejection| ApiError::BadParameter(e.body_text());
        let axum::extract::Path(value) = axum::extract::Path::from_request_parts(parts, state).await.map_err(told)?;
        Ok(Self(value))
    }
}

/// A list with commas between: `?state=planned,running`.
pub(crate) fn commas<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let text = String::deserialize(deserializer)?;
    let one = |word: &str| serde_json::from_value(serde_json::Value::String(word.to_owned()));
    text.split(',').filter(|w| !w.is_empty()).map(one).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// A number of the record that a list goes on after. The catalog counts in 63 bits, as its databases do; more is no
/// number of ours.
pub(crate) fn record_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if i64::try_from(number).is_ok() { Ok(Some(number)) } else { Err(serde::de::Error::custom(NO_RECORD)) }
}

/// What such a number is told.
pub(crate) const NO_RECORD: &str = "give a number that a list or event gave, at most 9223372036854775807";

/// A header's text; none if it is not there.
pub(crate) fn text_header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ApiError> {
    let not_text = |_| ApiError::BadParameter(format!("the header {name} is not printable ASCII"));
    headers.get(name).map(|v| v.to_str().map_err(not_text)).transpose()
}

/// A number within its bounds, or the problem that names it.
pub(crate) fn within<T: PartialOrd + Copy + fmt::Display>(
    name: &str,
    given: T,
    low: T,
    high: T,
) -> Result<T, ApiError> {
    if (low..=high).contains(&given) {
        Ok(given)
    } else {
        Err(ApiError::BadParameter(format!("{name} is {given}: give {low} to {high}")))
    }
}
