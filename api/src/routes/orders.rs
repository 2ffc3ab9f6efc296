//! What a job says that it will read, and in which order: as a list, or as the parameters of the sampler that draws it.
//!
//! Parameters are worth no less than a list only if both sides mean the same, so each of three things can be checked: how
//! many files the data set has (it must be known here whole), a digest of their paths, and how the order begins. Where one
//! of them differs the announcement is refused and nothing of it is believed; the job can still tell the list.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use foretide_catalog::AuditEntry;
use foretide_catalog::limits::PAGE_ITEMS;
use foretide_flow::{
    FilePath, Forecast, ForecastId, LearnRequest, PredictedRead, RunId, Selector, SiteId, TimeWindow, Timestamp,
    Topology, VolumeId, WorkloadId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::events::{Told, tell};
use crate::extract::Body;
use crate::sampler::Sampler;
use crate::tenant::Sight;
use crate::wanted::unknown_volume;

/// Files of one announcement: an epoch of a large data set comes in several.
const ORDER_MAX_FILES: usize = 100_000;
/// An announced order holds for so many times the time that it should take, and at least a minute.
const ORDER_HOLDS_TIMES: f64 = 2.0;
const ORDER_HOLDS_AT_LEAST: Duration = Duration::from_secs(60);
/// Reads come a little before or some time after they are due: a loader stalls more often than it hurries.
const EARLY: f64 = 0.8;
const LATE: f64 = 1.5;
/// A job that told its order reads it, unless it dies.
const ORDER_PROBABILITY: f64 = 0.99;
/// Globs of a data set, each tried on each of its files.
const DATASET_MAX_GLOBS: usize = 16;

/// The exact order in which a job will read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderWanted {
    /// Where it reads.
    pub site: SiteId,
    /// From which volume.
    pub volume: VolumeId,
    /// Files in the order of their reads, each read whole; with `sampler`, those that its indices mean.
    #[serde(default)]
    #[schema(max_items = 100000)]
    pub paths: Vec<FilePath>,
    /// How the order is drawn of `paths` or `dataset`, in place of the order itself.
    #[serde(default)]
    pub sampler: Option<Sampler>,
    /// The files that the sampler's indices mean, in place of `paths`.
    #[serde(default)]
    pub dataset: Option<Dataset>,
    /// With `sampler`: what of the order is left out at its beginning, because it was announced before.
    #[serde(default)]
    pub skip: u64,
    /// How many files it reads in a second while it does not wait.
    #[schema(minimum = 0.000001, maximum = 1000000.0)]
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

/// Files of a volume by index: those below a directory, directory by directory and in each by name, both in the order of
/// their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// The directory; all of the volume if absent.
    #[serde(default)]
    pub below: FilePath,
    /// Only files whose path in the volume matches one of these (`**` crosses folders).
    #[serde(default)]
    #[schema(max_items = 16)]
    pub globs: Vec<String>,
    /// How many files these are.
    #[schema(minimum = 1, maximum = 2000000)]
    pub files: u64,
    /// SHA-256 of their paths in the volume, in this order with a line feed after each, as 64 hexadecimal digits.
    #[serde(default)]
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub sha256: Option<String>,
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
    /// Of an order that is drawn and has more files than one announcement takes: the `skip` of the next one.
    pub next: Option<u64>,
}

/// Files in the order of their reads, each with its size where that is known.
type Reads = Vec<(FilePath, Option<u64>)>;

/// Tell the order in which a job will read: it stands beside the forecasts, nearly certain.
///
/// Either `paths` are the order; or `sampler` says how it is drawn of `paths`, or of the files that `dataset` means.
#[utoipa::path(post, path = "/v1/announcements", tag = "placement", request_body = OrderWanted,
    responses(
        (status = 202, description = "Taken.", body = Announced),
        (status = 409, description = "What is drawn here is not what the job draws, or the data set is not known whole.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn announce(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    sight: Sight,
    Body(mut order): Body<OrderWanted>,
) -> Result<(StatusCode, Json<Announced>), ApiError> {
    let now = Timestamp::now();
    check_order(&order, sight.topology())?;
    let paths = std::mem::take(&mut order.paths);
    let (reads, next) = match &order.sampler {
        None => (sized(&api, &order.volume, paths).await?, None),
        Some(sampler) => {
            let files = order.dataset.as_ref().map_or(paths.len() as u64, |dataset| dataset.files);
            let (indices, next) = drawn(sampler, files, order.skip).await?;
            let reads = match &order.dataset {
                Some(dataset) => listed(&api, &order.volume, dataset, &indices, now).await?,
                None => {
                    sized(&api, &order.volume, indices.iter().map(|i| paths[*i as usize].clone()).collect()).await?
                }
            };
            (reads, next)
        }
    };
    let unknown = ask_for_unknown(&api, &order.volume, &reads, now).await?;
    let forecast = forecast_of(&order, &reads, now);
    let taken = Announced {
        forecast: forecast.id.clone(),
        files: forecast.reads.len() as u64,
        bytes: forecast.reads.iter().map(|r| r.length).sum(),
        unknown,
        next,
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
    crate::wanted::check_site(&order.site, &order.volume, topology)?;
    let shape = |why: String| Err(ApiError::WrongShape(why));
    match (&order.sampler, &order.dataset, order.paths.len()) {
        (_, None, 1..=ORDER_MAX_FILES) => {}
        (_, None, n) => return shape(format!("paths holds {n} files: give 1 to {ORDER_MAX_FILES}")),
        (None, Some(_), _) => return shape("dataset says which files a sampler draws of: give sampler, too".into()),
        (Some(_), Some(dataset), 0) => check_dataset(dataset)?,
        (Some(_), Some(_), _) => return shape("the sampler draws of paths or of dataset: give one of them".into()),
    }
    if let Some(sampler) = &order.sampler {
        let files = order.dataset.as_ref().map_or(order.paths.len() as u64, |dataset| dataset.files);
        sampler.check(files).map_err(ApiError::WrongShape)?;
    } else if order.skip > 0 {
        return shape("skip is of an order that is drawn: leave out of paths what was told".into());
    }
    if !(1e-6..=1e6).contains(&order.files_per_second) {
        return shape(format!("files_per_second is {}: give 0.000001 to 1000000", order.files_per_second));
    }
    if order.name.len() > 200 {
        return shape("name has more than 200 bytes".into());
    }
    Ok(())
}

fn check_dataset(dataset: &Dataset) -> Result<(), ApiError> {
    if dataset.globs.len() > DATASET_MAX_GLOBS {
        return Err(ApiError::WrongShape(format!("globs: give at most {DATASET_MAX_GLOBS}")));
    }
    let hex = |digest: &String| digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !dataset.sha256.as_ref().is_none_or(hex) {
        return Err(ApiError::WrongShape("sha256: give 64 hexadecimal digits in lower case".into()));
    }
    selector(dataset).map(drop)
}

fn selector(dataset: &Dataset) -> Result<Selector, ApiError> {
    let below = std::slice::from_ref(&dataset.below);
    Selector::new(below, &[], &dataset.globs).map_err(|e| ApiError::WrongShape(e.to_string()))
}

/// Each file with its size.
async fn sized(api: &Api, volume: &VolumeId, paths: Vec<FilePath>) -> Result<Reads, ApiError> {
    let mut reads = Vec::with_capacity(paths.len());
    for path in paths {
        let size = api.catalog.entry(volume, &path).await?.map(|e| e.size);
        reads.push((path, size));
    }
    Ok(reads)
}

/// The indices that are announced now, and what to leave out next time. Drawing takes a processor for up to a second.
async fn drawn(sampler: &Sampler, files: u64, skip: u64) -> Result<(Vec<u32>, Option<u64>), ApiError> {
    let (sampler, count) = (sampler.clone(), u32::try_from(files).unwrap_or(u32::MAX));
    let drawing = tokio::task::spawn_blocking(move || {
        let order = sampler.order(count);
        if sampler.agrees(&order) { Ok(order) } else { Err(order.into_iter().take(5).collect::<Vec<_>>()) }
    });
    let order = match drawing.await {
        Ok(Ok(order)) => order,
        Ok(Err(begins)) => {
            return Err(ApiError::Conflict(format!(
                "with these parameters the order begins with {begins:?}, and the job's own otherwise: announce the list"
            )));
        }
        Err(panicked) => return Err(ApiError::Unavailable(format!("the order could not be drawn: {panicked}"))),
    };
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(order.len());
    let end = (skip + ORDER_MAX_FILES).min(order.len());
    Ok((order[skip..end].to_vec(), (end < order.len()).then_some(end as u64)))
}

/// The files of a data set that the indices mean, from one walk over what is known of it. Of the others nothing is kept.
async fn listed(
    api: &Api,
    volume: &VolumeId,
    dataset: &Dataset,
    indices: &[u32],
    now: Timestamp,
) -> Result<Reads, ApiError> {
    // (index, turn): a file is read twice where ranks' shares do not come out even.
    let mut turns: Vec<(u32, usize)> = indices.iter().copied().zip(0..).collect();
    turns.sort_unstable();
    let mut wanted = turns.into_iter().peekable();
    let mut reads = vec![(FilePath::root(), None); indices.len()];
    let (selector, mut digest) = (selector(dataset)?, Sha256::new());
    let (mut files, mut after): (u64, Option<FilePath>) = (0, None);
    loop {
        let page = api.catalog.files_below(volume, &dataset.below, after.as_ref(), PAGE_ITEMS).await?;
        let is_last = page.len() < PAGE_ITEMS;
        after = page.last().map(|entry| entry.path.clone());
        for entry in page.into_iter().filter(|entry| selector.covers(&entry.path)) {
            digest.update(entry.path.as_bytes());
            digest.update(b"\n");
            while let Some((_, turn)) = wanted.next_if(|(index, _)| u64::from(*index) == files) {
                reads[turn] = (entry.path.clone(), Some(entry.size));
            }
            files += 1;
        }
        if is_last || files > dataset.files {
            break;
        }
    }
    if files != dataset.files {
        return Err(not_the_same(api, volume, dataset, files, now).await?);
    }
    let digest = hex(&digest.finalize());
    match &dataset.sha256 {
        Some(said) if *said != digest => Err(ApiError::Conflict(format!(
            "the {files} files below {:?} are others here, or in another order: announce the list",
            dataset.below.to_string()
        ))),
        _ => Ok(reads),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A data set that is not known whole is asked for.
async fn not_the_same(
    api: &Api,
    volume: &VolumeId,
    dataset: &Dataset,
    files: u64,
    now: Timestamp,
) -> Result<ApiError, ApiError> {
    let (below, said) = (&dataset.below, dataset.files);
    if api.catalog.totals(volume, below).await?.complete {
        let why = format!("below {:?} are {files} files, and not {said}: announce the list", below.to_string());
        return Ok(ApiError::Conflict(why));
    }
    let wish = LearnRequest { volume: volume.clone(), directory: below.clone(), recursive: true };
    api.catalog.want_learned(&[wish], 1.0, now).await?;
    Ok(ApiError::Conflict(format!(
        "of the {said} files below {:?} {files} are known as yet, and the others are asked for: announce again, or announce \
         the list",
        below.to_string()
    )))
}

/// Has the directories of files that are not known learned; answers how many files that are.
async fn ask_for_unknown(api: &Api, volume: &VolumeId, reads: &Reads, now: Timestamp) -> Result<u64, ApiError> {
    let unknown = reads.iter().filter(|(_, size)| size.is_none()).map(|(path, _)| path.parent().unwrap_or_default());
    let mut directories: Vec<FilePath> = unknown.collect();
    let files = directories.len() as u64;
    directories.sort();
    directories.dedup();
    let wish = |directory| LearnRequest { volume: volume.clone(), directory, recursive: false };
    let wishes: Vec<LearnRequest> = directories.into_iter().map(wish).collect();
    if !wishes.is_empty() {
        api.catalog.want_learned(&wishes, 1.0, now).await?;
    }
    Ok(files)
}

/// What the planner is told. A file whose size is not known is left out, and keeps its turn.
fn forecast_of(order: &OrderWanted, reads: &Reads, now: Timestamp) -> Forecast {
    let starts_at = order.starts_at.unwrap_or(now).max(now);
    let due = |i: usize, times: f64| starts_at + Duration::from_secs_f64(i as f64 / order.files_per_second * times);
    let read = |(i, (path, size)): (usize, &(FilePath, Option<u64>))| {
        Some(PredictedRead {
            path: path.clone(),
            offset: 0,
            length: (*size)?,
            probability: ORDER_PROBABILITY,
            window: TimeWindow { p10: due(i, EARLY), p50: due(i, 1.0), p90: due(i, LATE) },
        })
    };
    let takes = Duration::from_secs_f64(reads.len() as f64 / order.files_per_second * ORDER_HOLDS_TIMES);
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
        reason: format!("{name} told that it will read these {} files in this order", reads.len()),
        reads: reads.iter().enumerate().filter_map(read).collect(),
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
            paths: Vec::new(),
            sampler: None,
            dataset: None,
            skip: 0,
            files_per_second: 10.0,
            starts_at: Some(Timestamp(1_000_000)),
            name: "epoch 3".into(),
            workload: None,
            run: None,
        };
        let reads = vec![(path("c"), Some(7)), (path("new"), None), (path("a"), Some(9))];
        let forecast = forecast_of(&order, &reads, Timestamp(0));
        let said: Vec<(String, u64, i64)> =
            forecast.reads.iter().map(|r| (r.path.to_string(), r.length, r.window.p50.0)).collect();
        assert_eq!(said, [("c".into(), 7, 1_000_000), ("a".into(), 9, 1_200_000)], "an unknown file keeps its turn");
        assert!(forecast.reads.iter().all(|r| r.window.p10 <= r.window.p50 && r.window.p50 <= r.window.p90));
        assert_eq!(forecast.expires_at, Timestamp(61_000_000));
    }

    #[tokio::test]
    async fn an_order_of_many_files_comes_in_parts() {
        let sampler = Sampler::default();
        let (first, next) = drawn(&sampler, 250_000, 0).await.unwrap();
        assert_eq!((first.len(), next), (100_000, Some(100_000)));
        let (last, next) = drawn(&sampler, 250_000, 200_000).await.unwrap();
        assert_eq!((last.first(), last.len(), next), (Some(&200_000), 50_000, None));
        assert_eq!(drawn(&sampler, 250_000, u64::MAX).await.unwrap(), (vec![], None));
    }
}
