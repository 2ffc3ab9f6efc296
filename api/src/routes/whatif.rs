//! What would have been: the accesses of the last days, played again with other caches, links or budgets.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use foretide_flow::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::error::ApiError;
use crate::extract::Body;
use crate::ports::{NotReplayed, Replayed, WhatIf};
use crate::tenant::Sight;
use crate::wanted::unknown_site;

/// Played if nothing else is asked for, and at most: what is recorded is kept for some days, and playing a week of a busy
/// site takes a minute.
const SPAN_S: f64 = 86_400.0;
const SPAN_MAX_S: f64 = 14.0 * 86_400.0;
/// Bits a second of a link: with less no job ends, with more nothing waits.
const LINK_BITS_PER_S: RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// Bytes of a cache or a budget: an exabyte holds everything.
const BYTES: RangeInclusive<u64> = 0..=1_000_000_000_000_000_000;

/// What would have been if?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WhatIfWanted {
    /// Of the last so many seconds; a day unless asked for, at most 14.
    #[schema(exclusive_minimum = 0.0, maximum = 1209600.0)]
    pub span_s: f64,
    /// All jobs run here; where they ran if absent.
    pub at: Option<SiteId>,
    /// Each cache holds so many bytes; what it holds if absent.
    #[schema(maximum = 1_000_000_000_000_000_000_u64)]
    pub cache_bytes: Option<u64>,
    /// Each link carries so many bits a second; what it carries if absent.
    #[schema(minimum = 1000, maximum = 1_000_000_000_000_000_u64)]
    pub link_bits_per_s: Option<u64>,
    /// Prefetch may move so many bytes in all; no limit if absent.
    #[schema(maximum = 1_000_000_000_000_000_000_u64)]
    pub budget_bytes: Option<u64>,
}

impl Default for WhatIfWanted {
    fn default() -> Self {
        Self { span_s: SPAN_S, at: None, cache_bytes: None, link_bits_per_s: None, budget_bytes: None }
    }
}

/// What was read lately, played again as if caches, links or the budget were others.
///
/// The same jobs read the same files and compute as long between two reads; who waits, how long, and what it costs is
/// reckoned without a cache, with one that keeps what was read, with Foretide, which learns from nothing on, and with a
/// prefetcher that knows what comes. One question is answered at a time; who asks meanwhile is told 429 `busy`.
#[utoipa::path(post, path = "/v1/what-if", tag = "placement", operation_id = "what_if", request_body = WhatIfWanted,
    responses(
        (status = 200, description = "What would have come of each way.", body = Replayed),
    ))]
pub(crate) async fn what_if(
    State(api): State<Api>,
    sight: Sight,
    Body(wanted): Body<WhatIfWanted>,
) -> Result<Json<Replayed>, ApiError> {
    sight.whole()?;
    let WhatIfWanted { span_s, at, cache_bytes, link_bits_per_s, budget_bytes } = wanted;
    if !(span_s > 0.0 && span_s <= SPAN_MAX_S) {
        return Err(ApiError::WrongShape(format!("span_s is {span_s}: give a time above 0 and at most {SPAN_MAX_S}")));
    }
    check("link_bits_per_s", link_bits_per_s, &LINK_BITS_PER_S)?;
    check("cache_bytes", cache_bytes, &BYTES)?;
    check("budget_bytes", budget_bytes, &BYTES)?;
    let topology = sight.topology();
    if let Some(site) = at.as_ref().filter(|site| !topology.sites.contains_key(*site)) {
        return Err(unknown_site(site, topology));
    }
    let until = Timestamp::now();
    let from = until - Duration::from_secs_f64(span_s);
    let question = WhatIf { from, until, at, cache_bytes, link_bits_per_s, budget_bytes };
    api.recordings.what_if(question).await.map(Json).map_err(|e| match e {
        NotReplayed::Refused(why) => ApiError::Refused(why),
        NotReplayed::Busy => ApiError::Busy(e.to_string()),
    })
}

fn check(name: &str, value: Option<u64>, within: &RangeInclusive<u64>) -> Result<(), ApiError> {
    match value.filter(|value| !within.contains(value)) {
        Some(value) => {
            let (least, most) = (within.start(), within.end());
            Err(ApiError::WrongShape(format!("{name} is {value}: give {least} to {most}")))
        }
        None => Ok(()),
    }
}
