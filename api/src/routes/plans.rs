//! Plans and their moves, as they are written down.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foretide_catalog::{MoveFilter, MoveRecord, PlanSummary, Topic};
use foretide_flow::{FilePath, Move, MoveState, Plan, PlanId, SiteId, Timestamp, VolumeId, WarmupId, WorkloadId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{List, page_size};
use crate::Api;
use crate::error::ApiError;
use crate::extract::{Path, Query, commas, record_number};
use crate::ports::PlanChanges;
use crate::wait::{self, Seen};

/// A plan in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanLine {
    /// Its name.
    pub id: PlanId,
    /// When it was made.
    pub made_at: Timestamp,
    /// How far it looks.
    pub horizon: Timestamp,
    /// Its moves.
    pub moves: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What rules forbade.
    pub refused: u64,
    /// What did not fit.
    pub left_out: u64,
}

impl From<PlanSummary> for PlanLine {
    fn from(p: PlanSummary) -> Self {
        let PlanSummary { id, made_at, horizon, moves, bytes, refused, left_out } = p;
        Self { id, made_at, horizon, moves, bytes, refused, left_out }
    }
}

/// A move and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// The move, as the last plan that had it says.
    #[serde(flatten)]
    pub planned: Move,
    /// How far it is.
    pub state: MoveState,
    /// The last plan that had it.
    pub plan: PlanId,
    /// When it ended, by its agent's clock.
    pub ended_at: Option<Timestamp>,
    /// Bytes that crossed the link, once it is done.
    pub wire_bytes: Option<u64>,
    /// Why it failed.
    pub why: Option<String>,
}

impl From<MoveRecord> for MoveView {
    fn from(m: MoveRecord) -> Self {
        let MoveRecord { mv, state, plan, ended_at, wire_bytes, why } = m;
        Self { planned: mv, state, plan, ended_at, wire_bytes, why }
    }
}

/// A page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Where the page before ended.
    #[serde(deserialize_with = "record_number")]
    pub(crate) cursor: Option<u64>,
    /// Items of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<u16>,
}

/// Plans, newest first.
#[utoipa::path(get, path = "/v1/plans", tag = "plans", operation_id = "list_plans", params(PageQuery),
    responses((status = 200, description = "A page of plans.", body = List<PlanLine>)))]
pub(crate) async fn list(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<PlanLine>>, ApiError> {
    Ok(Json(List::of(api.catalog.plans(query.cursor, page_size(query.limit)?).await?)))
}

/// How long one waits for the next plan.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct LatestQuery {
    /// Hold the answer for up to this many seconds, until there is another plan than `If-None-Match` names.
    #[param(minimum = 0, maximum = 60, default = 0)]
    wait_s: u64,
}

/// The plan that holds.
#[utoipa::path(get, path = "/v1/plans/latest", tag = "plans", operation_id = "latest_plan",
    params(LatestQuery, ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The plan.", body = Plan,
         headers(("etag" = String, description = "Another for each plan."))),
        (status = 304, description = "It is the plan that `If-None-Match` names."),
        (status = 404, description = "No plan was made yet.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn latest(
    State(api): State<Api>,
    Query(query): Query<LatestQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = wait::known_etag(&headers)?;
    let look = || async {
        let plan = api.catalog.latest_plan().await?.ok_or_else(|| ApiError::not_found("plan", "latest"))?;
        let etag = wait::etag_of(plan.id.as_str().as_bytes());
        let same = wait::matches_etag(known.as_deref(), &etag);
        Ok(if same { Seen::Same((plan, etag)) } else { Seen::Enough((plan, etag)) })
    };
    let (plan, etag) = wait::until(&api, &[Topic::Plans], query.wait_s, look).await?;
    Ok(wait::tagged(&plan, &etag, known.as_deref()))
}

/// One plan, while it is kept.
#[utoipa::path(get, path = "/v1/plans/{id}", tag = "plans", operation_id = "one_plan", params(("id" = PlanId, Path)),
    responses(
        (status = 200, description = "The plan.", body = Plan),
        (status = 404, description = "There is no such plan, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn one(State(api): State<Api>, Path(id): Path<PlanId>) -> Result<Json<Plan>, ApiError> {
    api.catalog.plan(&id).await?.map(Json).ok_or_else(|| ApiError::not_found("plan", &id))
}

/// What is asked about.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainQuery {
    /// A file, or a directory with all below; the whole plan if absent.
    #[serde(default)]
    #[param(value_type = Option<String>, max_length = 4096)]
    path: FilePath,
}

/// A plan's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The plan.
    pub plan: PlanId,
    /// For people; line by line a move, a refusal, or what was left out.
    pub text: String,
}

/// Why a plan moves, refuses or leaves out what lies at a path.
#[utoipa::path(get, path = "/v1/plans/{id}/explain", tag = "plans", operation_id = "explain_plan",
    params(("id" = PlanId, Path), ExplainQuery),
    responses(
        (status = 200, description = "In words.", body = Explanation),
        (status = 404, description = "There is no such plan, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn explain(
    State(api): State<Api>,
    Path(id): Path<PlanId>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let plan = api.catalog.plan(&id).await?.ok_or_else(|| ApiError::not_found("plan", &id))?;
    let text = api.adviser.explain(&plan, &query.path);
    Ok(Json(Explanation { plan: id, text }))
}

/// Compared with which plan.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesQuery {
    /// The earlier plan.
    since: PlanId,
}

/// How a plan differs from an earlier one.
#[utoipa::path(get, path = "/v1/plans/{id}/changes", tag = "plans", operation_id = "plan_changes",
    params(("id" = PlanId, Path), ChangesQuery),
    responses(
        (status = 200, description = "What is new, gone, otherwise.", body = PlanChanges),
        (status = 404, description = "One of the plans is not there, or no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn changes(
    State(api): State<Api>,
    Path(id): Path<PlanId>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<PlanChanges>, ApiError> {
    let plan = |id: PlanId| {
        let catalog = Arc::clone(&api.catalog);
        async move { catalog.plan(&id).await?.ok_or_else(|| ApiError::not_found("plan", &id)) }
    };
    let (before, after) = (plan(query.since).await?, plan(id).await?);
    Ok(Json(api.adviser.changes(&before, &after)))
}

/// Which moves are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct MovesQuery {
    /// To this site.
    site: Option<SiteId>,
    /// From this site.
    from: Option<SiteId>,
    /// Of this volume.
    volume: Option<VolumeId>,
    /// In one of these states, with commas between.
    #[serde(deserialize_with = "commas")]
    #[param(style = Form, explode = false)]
    state: Vec<MoveState>,
    /// For this warm-up.
    warmup: Option<WarmupId>,
    /// For a forecast of this workload.
    workload: Option<WorkloadId>,
    /// Due at or after this moment.
    since: Option<Timestamp>,
    /// Starting before this moment.
    until: Option<Timestamp>,
    /// Where the page before ended.
    #[serde(deserialize_with = "record_number")]
    cursor: Option<u64>,
    /// Items of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Moves and how far they are, those first planned last first.
#[utoipa::path(get, path = "/v1/moves", tag = "plans", params(MovesQuery),
    responses((status = 200, description = "A page of moves.", body = List<MoveView>)))]
pub(crate) async fn moves(
    State(api): State<Api>,
    Query(query): Query<MovesQuery>,
) -> Result<Json<List<MoveView>>, ApiError> {
    let limit = page_size(query.limit)?;
    let filter = MoveFilter {
        from: query.from,
        to: query.site,
        volume: query.volume,
        states: query.state,
        warmup: query.warmup,
        workload: query.workload,
        due_from: query.since,
        start_before: query.until,
    };
    Ok(Json(List::of(api.catalog.moves(&filter, query.cursor, limit).await?)))
}
