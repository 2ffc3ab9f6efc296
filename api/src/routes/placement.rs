//! Where data could be, and what a job says that it will read.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use foretide_catalog::AuditEntry;
use foretide_flow::{
    FilePath, Forecast, ForecastId, LearnRequest, PredictedRead, RunId, SiteId, TimeWindow, Timestamp, Topology,
    VolumeId, WorkloadId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::events::{Told, tell};
use crate::extract::Body;
use crate::ports::{Advice, Question};
use crate::selection::{self, Said, Selection};
use crate::tenant::Sight;
use crate::wanted::{unknown_site, unknown_volume};

/// Where should a job run that reads this?
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdviceWanted {
    /// From which volume.
    pub volume: Option<VolumeId>,
    /// Files or directories with all below; `""` for the whole volume.
    pub paths: Vec<FilePath>,
    /// Files or directories below `paths` that are not meant.
    pub except: Vec<FilePath>,
    /// Only files whose path in the volume matches one of these (`**` crosses folders).
    pub globs: Vec<String>,
    /// Only what carries all these tags.
    pub tags: BTreeMap<String, String>,
    /// What this workload reads, in place of a volume.
    pub workload: Option<WorkloadId>,
    /// What this run has read, in place of a volume.
    pub run: Option<RunId>,
    /// Candidates; all sites with a cache, and the volume's own, if empty.
    pub sites: Vec<SiteId>,
    /// Accelerators that are free at a site, where the asker knows.
    pub free_accelerators: BTreeMap<SiteId, u32>,
}

/// Rank sites for a job by when its data would be there, what that costs, and whether rules allow it.
#[utoipa::path(post, path = "/v1/advise", tag = "placement", request_body = AdviceWanted,
    responses((status = 200, description = "The candidates, the best first.", body = Advice)))]
pub(crate) async fn advise(
    State(api): State<Api>,
    sight: Sight,
    Body(wanted): Body<AdviceWanted>,
) -> Result<Json<Advice>, ApiError> {
    let topology = sight.topology();
    let AdviceWanted { volume, paths, except, globs, tags, workload, run, sites, free_accelerators } = wanted;
    let said = Said { volume, paths, except, globs, tags, workload, run };
    let Selection { volume, paths, except, globs } = selection::find(&api, said, topology).await?;
    if let Some(site) = sites.iter().find(|site| !topology.sites.contains_key(*site)) {
        return Err(unknown_site(site, topology));
    }
    let question = Question { volume, paths, except, globs, sites, free_accelerators };
    Ok(Json(api.adviser.advise(question, Timestamp::now()).await?))
}

/// Paths of one announcement: an epoch of a large data set comes in several.
const ORDER_MAX_FILES: usize = 100_000;
/// An announced order holds for so many times the time that it should take, and at least a minute.
const ORDER_HOLDS_TIMES: f64 = 2.0;
const ORDER_HOLDS_AT_LEAST: Duration = Duration::from_secs(60);
/// Reads come a little before or some time after they are due: a loader stalls more often than it hurries.
const EARLY: f64 = 0.8;
const LATE: f64 = 1.5;
/// A job that told its order reads it, unless it dies.
const ORDER_PROBABILITY: f64 = 0.99;

/// The exact order in which a job will read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderWanted {
    /// Where it reads.
    pub site: SiteId,
    /// From which volume.
    pub volume: VolumeId,
    /// Files in the order of their reads, each read whole.
    #[schema(min_items = 1, max_items = 100000)]
    pub paths: Vec<FilePath>,
    /// How many files it reads in a second while it does not wait.
    #[schema(exclusive_minimum = 0.0, maximum = 1000000.0)]
    pub files_per_second: f64,
    /// When it reads the first one; at once if absent.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// Its name for people, such as `epoch 3 of job 7`.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: String,
    /// Its workload, if it is known.
    #[serde(default)]
    pub workload: Option<WorkloadId>,
    /// Its run, if it is known.
    #[serde(default)]
    pub run: Option<RunId>,
}

/// An order that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Announced {
    /// The forecast that says it.
    pub forecast: ForecastId,
    /// Files of it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not known: their directories are asked for, announce them again.
    pub unknown: u64,
}

/// Tell the order in which a job will read: it stands beside the forecasts, nearly certain.
#[utoipa::path(post, path = "/v1/announcements", tag = "placement", request_body = OrderWanted,
    responses((status = 202, description = "Taken.", body = Announced)))]
pub(crate) async fn announce(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Body(order): Body<OrderWanted>,
) -> Result<(StatusCode, Json<Announced>), ApiError> {
    let now = Timestamp::now();
    check_order(&order, sight.topology())?;
    let (mut sizes, mut unknown) = (Vec::with_capacity(order.paths.len()), Vec::new());
    for path in &order.paths {
        let entry = api.catalog.entry(&order.volume, path).await?;
        if entry.is_none() {
            unknown.push(path.parent().unwrap_or_default());
        }
        sizes.push(entry.map(|e| e.size));
    }
    let missing = unknown.len() as u64;
    unknown.sort();
    unknown.dedup();
    let wish = |directory| LearnRequest { volume: order.volume.clone(), directory, recursive: false };
    let wishes: Vec<LearnRequest> = unknown.into_iter().map(wish).collect();
    if !wishes.is_empty() {
        api.catalog.want_learned(&wishes, 1.0, now).await?;
    }
    let forecast = forecast_of(&order, &sizes, now);
    let taken = Announced {
        forecast: forecast.id.clone(),
        files: forecast.reads.len() as u64,
        bytes: forecast.reads.iter().map(|r| r.length).sum(),
        unknown: missing,
    };
    if !forecast.reads.is_empty() {
        api.catalog.put_forecasts(std::slice::from_ref(&forecast)).await?;
        tell(api.catalog.as_ref(), &Told::Forecasts { changed: 1 }, now).await?;
        api.listener.announced(forecast).await;
    }
    let detail =
        json!({ "forecast": taken.forecast, "site": order.site, "volume": order.volume, "files": taken.files });
    let entry = AuditEntry { at: now, who: caller.name, what: "order.announce".into(), detail };
    api.catalog.append_audit(&entry).await?;
    Ok((StatusCode::ACCEPTED, Json(taken)))
}

fn check_order(order: &OrderWanted, topology: &Topology) -> Result<(), ApiError> {
    if !topology.volumes.contains_key(&order.volume) {
        return Err(unknown_volume(&order.volume, topology));
    }
    crate::wanted::check_site(&order.site, topology)?;
    let shape = |why: String| Err(ApiError::WrongShape(why));
    if order.paths.is_empty() || order.paths.len() > ORDER_MAX_FILES {
        return shape(format!("paths holds {} files: give 1 to {ORDER_MAX_FILES}", order.paths.len()));
    }
    if !(order.files_per_second > 0.0 && order.files_per_second <= 1e6) {
        return shape(format!("files_per_second is {}: give a rate above 0", order.files_per_second));
    }
    if order.name.len() > 200 {
        return shape("name has more than 200 bytes".into());
    }
    Ok(())
}

/// What the planner is told. `sizes` stand in the order of the paths; a file of none is not known and left out.
fn forecast_of(order: &OrderWanted, sizes: &[Option<u64>], now: Timestamp) -> Forecast {
    let starts_at = order.starts_at.unwrap_or(now).max(now);
    let due = |i: usize, times: f64| starts_at + Duration::from_secs_f64(i as f64 / order.files_per_second * times);
    let read = |(i, (path, size)): (usize, (&FilePath, &Option<u64>))| {
        Some(PredictedRead {
            path: path.clone(),
            offset: 0,
            length: (*size)?,
            probability: ORDER_PROBABILITY,
            window: TimeWindow { p10: due(i, EARLY), p50: due(i, 1.0), p90: due(i, LATE) },
        })
    };
    let takes = Duration::from_secs_f64(order.paths.len() as f64 / order.files_per_second * ORDER_HOLDS_TIMES);
    let id = Uuid::now_v7().simple();
    let name = if order.name.is_empty() { "a job" } else { &order.name };
    Forecast {
        id: ForecastId::from(format!("announced-{id}")),
        workload: order.workload.clone().unwrap_or_else(|| WorkloadId::from(format!("announced-{id}"))),
        // A run of its own, so that what the model says of the workload's other runs stands beside it.
        run: Some(order.run.clone().unwrap_or_else(|| RunId::from(format!("announced-{id}")))),
        site: order.site.clone(),
        volume: order.volume.clone(),
        made_at: now,
        expires_at: starts_at + takes.max(ORDER_HOLDS_AT_LEAST),
        forecaster: "announced".into(),
        reason: format!("{name} told that it will read these {} files in this order", order.paths.len()),
        reads: order.paths.iter().zip(sizes).enumerate().filter_map(read).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_becomes_reads_one_after_the_other() {
        let path = |name: &str| FilePath::parse(name).unwrap();
        let order = OrderWanted {
            site: SiteId::new("gpu").unwrap(),
            volume: VolumeId::new("v").unwrap(),
            paths: vec![path("c"), path("new"), path("a")],
            files_per_second: 10.0,
            starts_at: Some(Timestamp(1_000_000)),
            name: "epoch 3".into(),
            workload: None,
            run: None,
        };
        let forecast = forecast_of(&order, &[Some(7), None, Some(9)], Timestamp(0));
        let said: Vec<(String, u64, i64)> =
            forecast.reads.iter().map(|r| (r.path.to_string(), r.length, r.window.p50.0)).collect();
        assert_eq!(said, [("c".into(), 7, 1_000_000), ("a".into(), 9, 1_200_000)], "an unknown file keeps its turn");
        assert!(forecast.reads.iter().all(|r| r.window.p10 <= r.window.p50 && r.window.p50 <= r.window.p90));
        assert_eq!(forecast.expires_at, Timestamp(61_000_000));
    }
}
