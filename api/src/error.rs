//! What can go wrong with a request, in the caller's words. `problem.rs` says how each goes out over HTTP.

use foretide_catalog::CatalogError;
use foretide_flow::{FilePath, SiteId, Timestamp, VolumeId};

use crate::auth::Scope;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No `Authorization: Bearer …` header.
    #[error("the request carries no bearer token")]
    NoToken,
    /// A token that is not stored, has expired or was revoked: which of them is not told.
    #[error("the token is not known here, has expired or was revoked; a join token is good for once")]
    BadToken,
    /// A token of the issuer of people's tokens that is not accepted.
    #[error("the issuer's token is not accepted: {0}")]
    BadPersonsToken(String),
    /// The token is good, and not for this.
    #[error("this needs a token with the scope {needed}; the token given has {}", if .held.is_empty() { "none" } else { .held.as_str() })]
    WrongScope {
        /// What the route needs.
        needed: Scope,
        /// What the token has, as text.
        held: String,
    },
    /// An agent's token without an agent's certificate.
    #[error("agents show a certificate here when they connect, and this caller has shown none")]
    NoCertificate,
    /// The token speaks for another node or tenant.
    #[error("{0}")]
    NotYours(String),
    /// One token asks too often.
    #[error("this token makes more than {rate_requests_per_s} requests a second")]
    TooManyRequests {
        /// The rate that is kept.
        rate_requests_per_s: u32,
        /// When the next request will be answered, seconds.
        retry_after_s: u64,
    },
    /// As many listen to the events as may.
    #[error("{0} listeners follow the events already, as many as may")]
    TooManyListeners(usize),
    /// Something named in the address is not there.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `warm-up`, `plan`, …
        what: &'static str,
        /// Its name as asked.
        name: String,
    },
    /// No route of that path.
    #[error("there is nothing at {0}")]
    NoRoute(String),
    /// A route, with another method.
    #[error("{path} does not answer {method}")]
    WrongMethod {
        /// The path.
        path: String,
        /// The method tried.
        method: String,
    },
    /// The body is no JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// The body is JSON, and not of this shape.
    #[error("the body is not what this route takes: {0}")]
    WrongShape(String),
    /// The body has another type.
    #[error("the body is of type {given:?}")]
    WrongType {
        /// As sent.
        given: String,
        /// What is taken.
        taken: &'static str,
    },
    /// The body is too large.
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The bound of this route.
        limit_bytes: usize,
    },
    /// The connection ended inside the body.
    #[error("the body ended early: {0}")]
    CutShort(String),
    /// A query parameter, a header or a path segment that cannot be meant.
    #[error("{0}")]
    BadParameter(String),
    /// A body names a volume that is not in the topology.
    #[error("there is no volume {volume}; known are: {known}")]
    UnknownVolume {
        /// As asked.
        volume: VolumeId,
        /// Names, as text.
        known: String,
    },
    /// A body names a site that is not in the topology.
    #[error("there is no site {site}; known are: {known}")]
    UnknownSite {
        /// As asked.
        site: SiteId,
        /// Names, as text.
        known: String,
    },
    /// The site keeps no copies.
    #[error("site {0} has no cache")]
    NoCache(SiteId),
    /// The volume's source, or a copy of it, stands at the site.
    #[error("volume {volume} stands at site {site} itself: nothing can be brought there")]
    StandsThere {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteId,
    },
    /// No path was named.
    #[error("a warm-up without paths asks for nothing")]
    NoPaths,
    /// A deadline in the past.
    #[error("{field} is {given} (microseconds since 1970), {late_s:.1} s in the past")]
    InThePast {
        /// The field.
        field: &'static str,
        /// As asked.
        given: i64,
        /// By how much, seconds.
        late_s: f64,
    },
    /// A rule forbids all of it (promise I).
    #[error("rule {rule:?} forbids {volume}/{path} at site {site}")]
    Forbidden {
        /// The rule, or `default`.
        rule: String,
        /// Which volume.
        volume: VolumeId,
        /// Which path.
        path: FilePath,
        /// Which site.
        site: SiteId,
    },
    /// An idempotency key that has served another body.
    #[error("the idempotency key {0:?} was used for another request")]
    KeyReused(String),
    /// The other room refused what the body holds.
    #[error("{0}")]
    Refused(String),
    /// Others ask for the same, and it is answered one by one.
    #[error("{0}")]
    Busy(String),
    /// What must be computed cannot be now.
    #[error("{0}")]
    Unavailable(String),
    /// What is there already stands against it.
    #[error("{0}")]
    Conflict(String),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(CatalogError),
}

/// What the caller can do something about is told as such; the rest is the catalog's failure.
impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound { what, name } => Self::NotFound { what, name },
            CatalogError::KeyReused { key } => Self::KeyReused(key),
            CatalogError::Refused { .. } => Self::Conflict(error.to_string()),
            CatalogError::Full { .. } | CatalogError::Unavailable(_) => Self::Unavailable(error.to_string()),
            _ => Self::Catalog(error),
        }
    }
}

impl ApiError {
    /// A deadline before `now`.
    pub(crate) fn in_the_past(field: &'static str, given: Timestamp, now: Timestamp) -> Self {
        Self::InThePast { field, given: given.0, late_s: now.since(given).as_secs_f64() }
    }

    /// A thing that an address names and nobody has.
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }
}
