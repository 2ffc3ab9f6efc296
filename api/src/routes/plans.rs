//! Plans and their moves, as they are written down.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use foretide_catalog::{MoveFilter, MoveRecord, PlanSummary, Topic};
use foretide_flow::{
    FilePath, LeftOut, Move, MoveState, Plan, PlanId, SiteId, Timestamp, VolumeId, Warmup, WarmupId, WarmupRequest,
    WorkloadId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{List, page_size, warmups};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::eta::WarmupView;
use crate::extract::{Body, Path, Query, commas, record_number};
use crate::ports::PlanChanges;
use crate::tenant::Sight;
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
    sight: Sight,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<PlanLine>>, ApiError> {
    let mut lines: List<PlanLine> = List::of(api.catalog.plans(query.cursor, page_size(query.limit)?).await?);
    if sight.is_narrow() {
        for line in &mut lines.items {
            // A line adds up all tenants; of a plan that is forgotten meanwhile nothing is seen.
            let seen = api.catalog.plan(&line.id).await?.map(|plan| sight.of_plan(plan));
            *line = PlanLine {
                moves: seen.as_ref().map_or(0, |p| p.moves.len() as u64),
                bytes: seen.iter().flat_map(|p| &p.moves).map(|m| m.length).sum(),
                refused: seen.as_ref().map_or(0, |p| p.refused.len() as u64),
                left_out: seen.as_ref().map_or(0, |p| p.left_out.len() as u64),
                ..line.clone()
            };
        }
    }
    Ok(Json(lines))
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
    sight: Sight,
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
    Ok(wait::tagged(&sight.of_plan(plan), &etag, known.as_deref()))
}

/// One plan, while it is kept.
#[utoipa::path(get, path = "/v1/plans/{id}", tag = "plans", operation_id = "one_plan", params(("id" = PlanId, Path)),
    responses(
        (status = 200, description = "The plan.", body = Plan),
        (status = 404, description = "There is no such plan, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn one(State(api): State<Api>, sight: Sight, Path(id): Path<PlanId>) -> Result<Json<Plan>, ApiError> {
    seen(&api, &sight, &id).await.map(Json)
}

/// What of a plan the caller sees.
async fn seen(api: &Api, sight: &Sight, id: &PlanId) -> Result<Plan, ApiError> {
    let plan = api.catalog.plan(id).await?.ok_or_else(|| ApiError::not_found("plan", id))?;
    Ok(sight.of_plan(plan))
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
    sight: Sight,
    Path(id): Path<PlanId>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let plan = seen(&api, &sight, &id).await?;
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
    sight: Sight,
    Path(id): Path<PlanId>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<PlanChanges>, ApiError> {
    let (before, after) = (seen(&api, &sight, &query.since).await?, seen(&api, &sight, &id).await?);
    Ok(Json(api.adviser.changes(&before, &after)))
}

/// What of the proposals is approved; all that is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approval {
    /// Only this file, or what is below this directory.
    pub path: Option<FilePath>,
    /// Only at this site.
    pub site: Option<SiteId>,
}

/// What a plan would move if the modes `advise` and `shadow` did not hold it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proposals {
    /// Folder by folder where several files of one are proposed.
    pub items: Vec<LeftOut>,
}

/// What a plan proposes and a mode holds back.
#[utoipa::path(get, path = "/v1/plans/{id}/proposals", tag = "plans", operation_id = "plan_proposals",
    params(("id" = PlanId, Path)),
    responses(
        (status = 200, description = "What it proposes.", body = Proposals),
        (status = 404, description = "There is no such plan, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn proposals(
    State(api): State<Api>,
    sight: Sight,
    Path(id): Path<PlanId>,
) -> Result<Json<Proposals>, ApiError> {
    let plan = seen(&api, &sight, &id).await?;
    Ok(Json(Proposals { items: api.adviser.proposals(&plan) }))
}

/// Ask for what a plan proposes: it becomes warm-ups, one for each volume and site. A second time it is the same ones.
#[utoipa::path(post, path = "/v1/plans/{id}/approve", tag = "plans", operation_id = "approve_plan",
    params(("id" = PlanId, Path)), request_body = Approval,
    responses(
        (status = 202, description = "The warm-ups that it became.", body = List<WarmupView>),
        (status = 404, description = "There is no such plan, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The plan proposes nothing there.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn approve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Path(id): Path<PlanId>,
    Body(approval): Body<Approval>,
) -> Result<(StatusCode, Json<List<WarmupView>>), ApiError> {
    let now = Timestamp::now();
    let plan = seen(&api, &sight, &id).await?;
    let mut items = Vec::new();
    for request in approved(&plan.id, &api.adviser.proposals(&plan), &approval)? {
        let json = serde_json::to_vec(&request).unwrap_or_default();
        let name = blake3::hash(&json).to_hex();
        let warmup = Warmup::new(WarmupId::from(format!("w-{}", &name[..32])), request, now);
        let key = format!("approve/{id}/{}", &name[..32]);
        items.push(warmups::take(&api, &caller, &warmup, Some((&key, *blake3::hash(&json).as_bytes())), now).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(List { items, next: None })))
}

/// One request for each volume and site, of what is proposed.
///
/// So many files at the top of a volume can be proposed that the plan does not name them all: to ask for its root would be to
/// ask for everything in it, so that is refused.
fn approved(plan: &PlanId, proposals: &[LeftOut], approval: &Approval) -> Result<Vec<WarmupRequest>, ApiError> {
    let mut by: BTreeMap<(&VolumeId, &SiteId), Vec<FilePath>> = BTreeMap::new();
    let there = |l: &&LeftOut| {
        approval.site.as_ref().is_none_or(|s| s == &l.to) && approval.path.as_ref().is_none_or(|p| l.path.is_within(p))
    };
    for proposal in proposals.iter().filter(there) {
        if proposal.path.is_root() {
            return Err(ApiError::Conflict(format!(
                "{} more files at the top of volume {} are proposed to {} than the plan names: approve files or folders by \
                 name, or ask for all of the volume",
                proposal.files, proposal.volume, proposal.to
            )));
        }
        by.entry((&proposal.volume, &proposal.to)).or_default().push(proposal.path.clone());
    }
    if by.is_empty() {
        let why =
            "the plan proposes nothing there: what is not held back by the modes advise and shadow moves by itself";
        return Err(ApiError::Conflict(why.into()));
    }
    let request = |((volume, site), paths): ((&VolumeId, &SiteId), Vec<FilePath>)| WarmupRequest {
        label: format!("approved of plan {plan}"),
        ..WarmupRequest::new(volume.clone(), paths, site.clone())
    };
    Ok(by.into_iter().map(request).collect())
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
    sight: Sight,
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
    let mut page: List<MoveView> = List::of(api.catalog.moves(&filter, query.cursor, limit).await?);
    page.items.retain(|m| sight.sees(&m.planned.volume));
    Ok(Json(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_volume_is_never_approved_for_files_in_it() {
        let path = |text: &str| FilePath::parse(text).unwrap();
        let proposed = |at: &str, files| LeftOut {
            volume: VolumeId::new("data").unwrap(),
            path: path(at),
            to: SiteId::new("gpu").unwrap(),
            files,
            bytes: 10,
            why: "the mode is advise: it would be moved".into(),
        };
        let of = |proposals: &[LeftOut], at: Option<&str>| {
            let approval = Approval { path: at.map(path), site: None };
            approved(&"p".into(), proposals, &approval).map(|requests| requests[0].paths.clone())
        };
        assert_eq!(of(&[proposed("a", 1), proposed("c", 4)], None).unwrap(), [path("a"), path("c")]);
        let many = [proposed("a", 1), proposed("", 5)];
        let told = of(&many, None).unwrap_err().to_string();
        assert!(told.contains("5 more files at the top of volume data"), "{told}");
        assert_eq!(of(&many, Some("a")).unwrap(), [path("a")]);
        assert!(of(&many, Some("b")).unwrap_err().to_string().contains("proposes nothing"));
    }
}
