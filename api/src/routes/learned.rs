//! What was read, what is known of it, and what is expected.

use axum::Json;
use axum::extract::State;
use foretide_catalog::{ForecastFilter, ReadFilter, Run, RunFilter};
use foretide_flow::{Forecast, ForecastId, NodeId, Profile, ReadSummary, RunId, SiteId, Timestamp, WorkloadId};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::plans::PageQuery;
use super::{List, page_size};
use crate::Api;
use crate::error::ApiError;
use crate::extract::{Path, Query, record_number};
use crate::tenant::Sight;

/// Which forecasts are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForecastsQuery {
    /// Of this workload.
    workload: Option<WorkloadId>,
    /// For this site.
    site: Option<SiteId>,
    /// Those that expired or were withdrawn too.
    #[param(default = false)]
    past: bool,
    /// With the reads that each predicts: can be many.
    #[param(default = false)]
    reads: bool,
    /// Where the page before ended.
    #[serde(deserialize_with = "record_number")]
    cursor: Option<u64>,
    /// Items of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Forecasts, newest first.
#[utoipa::path(get, path = "/v1/forecasts", tag = "learned", params(ForecastsQuery),
    responses((status = 200, description = "A page of forecasts.", body = List<Forecast>)))]
pub(crate) async fn forecasts(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<ForecastsQuery>,
) -> Result<Json<List<Forecast>>, ApiError> {
    let limit = page_size(query.limit)?;
    let holding_at = (!query.past).then(Timestamp::now);
    let filter = ForecastFilter { workload: query.workload, site: query.site, holding_at };
    let mut page: List<Forecast> = List::of(api.catalog.forecasts(&filter, query.reads, query.cursor, limit).await?);
    page.items.retain(|f| sight.sees(&f.volume));
    Ok(Json(page))
}

/// One forecast with the reads that it predicts.
#[utoipa::path(get, path = "/v1/forecasts/{id}", tag = "learned", params(("id" = ForecastId, Path)),
    responses(
        (status = 200, description = "The forecast.", body = Forecast),
        (status = 404, description = "There is no such forecast, or it is no longer kept.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn forecast(
    State(api): State<Api>,
    sight: Sight,
    Path(id): Path<ForecastId>,
) -> Result<Json<Forecast>, ApiError> {
    let found = api.catalog.forecast(&id).await?.filter(|f| sight.sees(&f.volume));
    found.map(Json).ok_or_else(|| ApiError::not_found("forecast", &id))
}

/// Whether a workload is seen: by the volume that it reads; one of which none is known is nobody's yet.
fn sees(sight: &Sight, profile: &Profile) -> bool {
    !sight.is_narrow() || profile.volume.as_ref().is_some_and(|volume| sight.sees(volume))
}

/// Profiles of workloads, those updated last first.
#[utoipa::path(get, path = "/v1/profiles", tag = "learned", params(PageQuery),
    responses((status = 200, description = "A page of profiles.", body = List<Profile>)))]
pub(crate) async fn profiles(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<Profile>>, ApiError> {
    let mut page: List<Profile> = List::of(api.catalog.profiles(query.cursor, page_size(query.limit)?).await?);
    page.items.retain(|p| sees(&sight, p));
    Ok(Json(page))
}

/// What is known of one workload.
#[utoipa::path(get, path = "/v1/profiles/{workload}", tag = "learned", params(("workload" = WorkloadId, Path)),
    responses(
        (status = 200, description = "The profile.", body = Profile),
        (status = 404, description = "This workload has not been seen.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn profile(
    State(api): State<Api>,
    sight: Sight,
    Path(workload): Path<WorkloadId>,
) -> Result<Json<Profile>, ApiError> {
    let found = api.catalog.profile(&workload).await?.filter(|p| sees(&sight, p));
    found.map(Json).ok_or_else(|| ApiError::not_found("profile", &workload))
}

/// A run and what its reads through the mount met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The run and its reads at all sites, added up; all zero if it read nothing through the mount.
    #[serde(flatten)]
    pub summary: ReadSummary,
    /// On which node it was seen first.
    pub node: NodeId,
    /// `prefetched_bytes / bytes`; null where nothing was read.
    pub coverage: Option<f64>,
    /// The share of the run's time that its accelerator can have lost to waiting for these bytes, at most: whenever it
    /// starves, at least one reader waits, so it lost no more than `waited_s` of the wall time. What it did lose only
    /// the job knows, for readers that wait side by side, or ahead of need, cost less. Null where nothing was read.
    pub stalled_share_at_most: Option<f64>,
}

impl RunView {
    fn of(run: Run, reads: &[ReadSummary], now: Timestamp) -> Self {
        let sum = |of: fn(&ReadSummary) -> u64| reads.iter().map(of).sum::<u64>();
        let Run { start, ended_at } = run;
        let wall_s = ended_at.unwrap_or(now).since(start.at).as_secs_f64();
        let summary = ReadSummary {
            run: start.run,
            workload: start.workload,
            command: start.command,
            site: start.site,
            started_at: start.at,
            ended_at,
            reads: sum(|r| r.reads),
            bytes: sum(|r| r.bytes),
            prefetched_bytes: sum(|r| r.prefetched_bytes),
            hits: sum(|r| r.hits),
            late: sum(|r| r.late),
            misses: sum(|r| r.misses),
            // A sum of nothing is -0.0 in Rust.
            waited_s: reads.iter().map(|r| r.waited_s).fold(0.0, |sum, s| sum + s),
        };
        Self {
            node: start.node,
            coverage: (summary.bytes > 0).then(|| summary.prefetched_bytes as f64 / summary.bytes as f64),
            stalled_share_at_most: (summary.reads > 0 && wall_s > 0.0).then(|| (summary.waited_s / wall_s).min(1.0)),
            summary,
        }
    }
}

/// Which runs are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// This run alone.
    run: Option<RunId>,
    /// Of this workload.
    workload: Option<WorkloadId>,
    /// At this site.
    site: Option<SiteId>,
    /// Begun at or after this moment.
    since: Option<Timestamp>,
    /// Only those that have not ended.
    #[param(default = false)]
    running: bool,
    /// Where the page before ended.
    #[serde(deserialize_with = "record_number")]
    cursor: Option<u64>,
    /// Items of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Runs and what their reads met, those that began last first.
#[utoipa::path(get, path = "/v1/runs", tag = "learned", params(RunsQuery),
    responses((status = 200, description = "A page of runs.", body = List<RunView>)))]
pub(crate) async fn runs(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<RunsQuery>,
) -> Result<Json<List<RunView>>, ApiError> {
    let limit = page_size(query.limit)?;
    let filter = RunFilter {
        run: query.run,
        workload: query.workload,
        site: query.site,
        started_from: query.since,
        running: query.running,
    };
    let now = Timestamp::now();
    let page = api.catalog.runs(&filter, query.cursor, limit).await?;
    let next = page.next;
    let mut seen = Vec::with_capacity(page.items.len());
    for run in page.items {
        let whole = !sight.is_narrow();
        if whole || api.catalog.profile(&run.start.workload).await?.is_some_and(|p| sees(&sight, &p)) {
            seen.push(run);
        }
    }
    let items = try_join_all(seen.into_iter().map(|run| with_reads(&api, run, now))).await?;
    Ok(Json(List { items, next }))
}

async fn with_reads(api: &Api, run: Run, now: Timestamp) -> Result<RunView, ApiError> {
    let filter = ReadFilter { run: Some(run.start.run.clone()), ..ReadFilter::default() };
    let summaries = api.catalog.read_summaries(&filter, None, SITES_OF_A_RUN).await?.items;
    Ok(RunView::of(run, &summaries, now))
}

/// A run reads at the sites where it has processes; more than this of them is none that we know.
const SITES_OF_A_RUN: usize = 100;
