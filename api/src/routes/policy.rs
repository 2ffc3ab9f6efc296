//! The rules in force, and what they say of one file at each site: evidence before anything is moved.

use axum::Json;
use axum::extract::State;
use foretide_flow::{Effect, FilePath, Mode, Rule, SiteId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::fleet::mode_in_force;
use crate::Api;
use crate::error::ApiError;
use crate::extract::Query;
use crate::tenant::Sight;
use crate::wanted::unknown_volume;

/// The rules in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// How far Foretide acts on its own forecasts.
    pub mode: Mode,
    /// What holds where no rule matches.
    pub default_effect: Effect,
    /// The rules in order: the first that matches decides.
    pub rules: Vec<Rule>,
}

/// What the rules say of a file at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SiteVerdict {
    /// The site.
    pub site: SiteId,
    /// Its jurisdiction.
    pub jurisdiction: String,
    /// Whether the file's bytes may be there.
    pub effect: Effect,
    /// The rule that decided; null if the default did, or the file's source is there.
    pub rule: Option<String>,
}

/// What the rules say of a file, site by site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdicts {
    /// By name of site.
    pub items: Vec<SiteVerdict>,
}

/// The rules in force, as the configuration gives them.
#[utoipa::path(get, path = "/v1/policy", tag = "fleet",
    responses((status = 200, description = "The rules.", body = Policy)))]
pub(crate) async fn policy(State(api): State<Api>, sight: Sight) -> Result<Json<Policy>, ApiError> {
    let rules = api.directory.rules();
    Ok(Json(Policy {
        mode: mode_in_force(api.catalog.as_ref(), api.directory.mode()).await?,
        default_effect: rules.default_effect(),
        rules: rules.rules().filter(|r| r.volume.as_ref().is_none_or(|v| sight.sees(v))).cloned().collect(),
    }))
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VerdictQuery {
    /// Of which volume.
    volume: VolumeId,
    /// Its path; it need not exist.
    #[serde(default)]
    #[param(value_type = Option<String>, max_length = 4096)]
    path: FilePath,
}

/// Whether a file's bytes may be at each site, and the rule that decides.
#[utoipa::path(get, path = "/v1/policy/verdicts", tag = "fleet", params(VerdictQuery),
    responses(
        (status = 200, description = "By site.", body = Verdicts),
        (status = 422, description = "There is no such volume.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn verdicts(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<VerdictQuery>,
) -> Result<Json<Verdicts>, ApiError> {
    let topology = sight.topology();
    if !topology.volumes.contains_key(&query.volume) {
        return Err(unknown_volume(&query.volume, topology));
    }
    let (rules, now) = (api.directory.rules(), Timestamp::now());
    let at = |(name, site): (&SiteId, &foretide_flow::Site)| {
        let verdict = rules.verdict(topology, &query.volume, &query.path, name, now);
        SiteVerdict {
            site: name.clone(),
            jurisdiction: site.jurisdiction.clone(),
            effect: verdict.effect,
            rule: verdict.rule,
        }
    };
    Ok(Json(Verdicts { items: topology.sites.iter().map(at).collect() }))
}
