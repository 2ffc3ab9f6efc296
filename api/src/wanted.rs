//! What a caller wants warmed, as the API takes it, and what becomes of it: a request that names one volume, its
//! paths and one site. Pure: which data is meant is found out before, in [`selection`](crate::selection).
//!
//! The door refuses what can never be: unknown names, moments in the past, shares that are none, and data that a
//! rule forbids at that site wholly ([`forbidden_outright`]). Where a rule speaks of some files only, the planner
//! decides file by file, and the warm-up says what was left out.

use std::collections::BTreeMap;

use foretide_flow::{
    Effect, FilePath, OnUnready, Ruleset, RunId, SiteId, TimeWindow, Timestamp, Topology, VolumeId, WarmupId,
    WarmupRequest, WorkloadId,
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::selection::Selection;

/// Bytes of a label: a line for people.
const LABEL_MAX_BYTES: usize = 1000;
/// Labels for programs on one warm-up: a job's number, user, queue and what its scheduler adds.
const LABELS_MAX: usize = 32;
/// Warm-ups that one waits for: the inputs of a job in a workflow.
const RUN_AFTER_MAX: usize = 100;

/// Have this there by then.
///
/// What: `volume` with `paths`, `globs`, `tags` or several of these; or a `workload` that was seen before, whose data it then
/// is; or a `run`, for just the files that it read. Where: `site`, or the best of `sites`, or, with neither, the best of all
/// that have a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupWanted {
    /// From which volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Files or directories (with all below); the root, `""`, alone means the whole volume. At most 10,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<FilePath>,
    /// Files or directories below `paths` that are not meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<FilePath>,
    /// Only files whose path in the volume matches one of these (`**` crosses folders); at most 64. Without `paths`, of
    /// the whole volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<String>,
    /// Only what carries all these tags; the volume can be left out if one alone has such data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What this workload reads, in place of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadId>,
    /// What this run has read, in place of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Where it may be, if `site` is absent; the best one is chosen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteId>,
    /// Only at sites in these jurisdictions, whatever the rules allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jurisdictions: Vec<String>,
    /// By when. A soft deadline: late is better than never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need_by: Option<Timestamp>,
    /// When its job starts, where that is not certain: without `need_by`, it is due at p10, so that nine of ten starts
    /// find it there, and it is kept beyond p90.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<TimeWindow>,
    /// Void from then on: a hard end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<Timestamp>,
    /// Kept at least until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_until: Option<Timestamp>,
    /// Kept at least so long after it first was READY, seconds; at most a year.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31536000)]
    pub pin_for_s: Option<u64>,
    /// Warm-ups of a higher one are served first, whatever their deadlines.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(minimum = -100, maximum = 100, default = 0)]
    pub priority: i8,
    /// Nothing of it moves before each of these warm-ups was READY; it fails if one of them can no longer be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub run_after: Vec<WarmupId>,
    /// The share of the bytes with which the job can begin: PARTIAL from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub min_fraction: Option<f64>,
    /// It fails if it covers more bytes than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// It fails if bringing it there would cost more money than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0)]
    pub max_cost: Option<f64>,
    /// What the job does if the data is not there when it could start: for those who start it.
    pub on_unready: OnUnready,
    /// Free text for people, such as a job's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1000)]
    pub label: String,
    /// Names and values for programs, such as a job's number; at most 32.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only say what it would bring, by when and at what cost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

fn is_zero(n: &i8) -> bool {
    *n == 0
}

/// What of a warm-up may be asked for anew. An absent member stays as it is, null takes it away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupChange {
    /// Its soft deadline.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub need_by: Option<Option<Timestamp>>,
    /// Its hard end.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub expire_at: Option<Option<Timestamp>>,
    /// How long it is kept at least.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub pin_until: Option<Option<Timestamp>>,
    /// How long it is kept at least once it is ready, seconds.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, maximum = 31536000)]
    pub pin_for_s: Option<Option<u64>>,
    /// Who is served first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: Option<i8>,
    /// Its words for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub label: Option<String>,
}

/// A member that is there, be it null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// The error that names the volumes there are.
pub(crate) fn unknown_volume(volume: &VolumeId, topology: &Topology) -> ApiError {
    ApiError::UnknownVolume { volume: volume.clone(), known: names(topology.volumes.keys()) }
}

/// The error that names the sites there are.
pub(crate) fn unknown_site(site: &SiteId, topology: &Topology) -> ApiError {
    ApiError::UnknownSite { site: site.clone(), known: names(topology.sites.keys()) }
}

/// Names with commas between; `none` if there are none.
pub(crate) fn names(of: impl Iterator<Item = impl ToString>) -> String {
    let all: Vec<String> = of.map(|n| n.to_string()).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// Whether data of a volume can be brought there at all.
pub(crate) fn check_site(site: &SiteId, volume: &VolumeId, topology: &Topology) -> Result<(), ApiError> {
    match topology.sites.get(site) {
        None => Err(unknown_site(site, topology)),
        Some(known) if known.cache.is_none() => Err(ApiError::NoCache(site.clone())),
        Some(_) if topology.stands_at(volume, site) => {
            Err(ApiError::StandsThere { volume: volume.clone(), site: site.clone() })
        }
        Some(_) => Ok(()),
    }
}

/// Whether the asker lets data be there.
pub(crate) fn check_jurisdiction(wanted: &[String], site: &SiteId, topology: &Topology) -> Result<(), ApiError> {
    let where_it_is = topology.sites.get(site).map_or("", |s| s.jurisdiction.as_str());
    if wanted.is_empty() || wanted.iter().any(|j| j == where_it_is) {
        return Ok(());
    }
    let wanted = names(wanted.iter());
    Err(ApiError::Refused(format!("site {site} is in jurisdiction {where_it_is:?}, and only {wanted} was asked for")))
}

/// Whether words, labels, shares and moments can be meant.
pub(crate) fn check_terms(wanted: &WarmupWanted, now: Timestamp) -> Result<(), ApiError> {
    check_label(&wanted.label)?;
    check_priority(wanted.priority)?;
    check_pin(wanted.pin_for_s)?;
    if wanted.run_after.len() > RUN_AFTER_MAX {
        return Err(ApiError::WrongShape(format!("run_after: give at most {RUN_AFTER_MAX}")));
    }
    if let Some(TimeWindow { p10, p50, p90 }) = wanted.starts.filter(|s| !(s.p10 <= s.p50 && s.p50 <= s.p90)) {
        let order = format!("{}, {}, {}", p10.0, p50.0, p90.0);
        return Err(ApiError::WrongShape(format!("starts is {order}: give p10 <= p50 <= p90")));
    }
    if let Some(starts) = wanted.starts.filter(|s| s.p90 <= now) {
        return Err(ApiError::in_the_past("starts.p90", starts.p90, now));
    }
    let text = |t: &String| t.len() > LABEL_MAX_BYTES;
    if wanted.labels.len() > LABELS_MAX || wanted.labels.iter().any(|(k, v)| k.is_empty() || text(k) || text(v)) {
        return Err(ApiError::WrongShape(format!(
            "labels: give at most {LABELS_MAX}, each name and value with at most {LABEL_MAX_BYTES} bytes"
        )));
    }
    if let Some(share) = wanted.min_fraction.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
        return Err(ApiError::WrongShape(format!("min_fraction is {share}: give a share above 0 and at most 1")));
    }
    if let Some(cost) = wanted.max_cost.filter(|cost| !(cost.is_finite() && *cost >= 0.0)) {
        return Err(ApiError::WrongShape(format!("max_cost is {cost}: give an amount of at least 0")));
    }
    check_moments(wanted.need_by, wanted.expire_at, wanted.pin_until, now)
}

/// Whether a change can be meant.
pub(crate) fn check_change(change: &WarmupChange, now: Timestamp) -> Result<(), ApiError> {
    check_label(change.label.as_deref().unwrap_or_default())?;
    check_priority(change.priority.unwrap_or(0))?;
    check_pin(change.pin_for_s.flatten())?;
    check_moments(change.need_by.flatten(), change.expire_at.flatten(), change.pin_until.flatten(), now)
}

/// Above and below it nothing more can be said.
const PRIORITY_MAX: i8 = 100;

fn check_priority(priority: i8) -> Result<(), ApiError> {
    if (-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
        return Ok(());
    }
    Err(ApiError::WrongShape(format!("priority is {priority}: give -{PRIORITY_MAX} to {PRIORITY_MAX}")))
}

/// A year: what is kept for longer is no cache.
const PIN_MAX_S: u64 = 365 * 86_400;

fn check_pin(pin_for_s: Option<u64>) -> Result<(), ApiError> {
    match pin_for_s.filter(|s| *s > PIN_MAX_S) {
        Some(s) => Err(ApiError::WrongShape(format!("pin_for_s is {s}: give at most {PIN_MAX_S}, a year"))),
        None => Ok(()),
    }
}

fn check_label(label: &str) -> Result<(), ApiError> {
    if label.len() <= LABEL_MAX_BYTES {
        return Ok(());
    }
    Err(ApiError::WrongShape(format!("label has more than {LABEL_MAX_BYTES} bytes")))
}

fn check_moments(
    need_by: Option<Timestamp>,
    expire_at: Option<Timestamp>,
    pin_until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), ApiError> {
    for (field, at) in [("need_by", need_by), ("expire_at", expire_at), ("pin_until", pin_until)] {
        if let Some(at) = at.filter(|at| *at <= now) {
            return Err(ApiError::in_the_past(field, at, now));
        }
    }
    match (need_by, expire_at) {
        (Some(need_by), Some(expire_at)) if expire_at < need_by => {
            Err(ApiError::WrongShape("expire_at is before need_by: it would be void before it is needed".into()))
        }
        _ => Ok(()),
    }
}

/// The request that is kept: the selection at the site, its money turned into bytes at the link's price.
pub(crate) fn request_of(
    wanted: WarmupWanted,
    selection: Selection,
    site: SiteId,
    topology: &Topology,
) -> WarmupRequest {
    let price = price_per_gb(&selection.volume, &site, topology);
    let affordable = wanted.max_cost.filter(|_| price > 0.0).map(|cost| (cost / price * 1e9) as u64);
    WarmupRequest {
        except: selection.except,
        globs: selection.globs,
        need_by: wanted.need_by,
        starts: wanted.starts,
        expire_at: wanted.expire_at,
        pin_until: wanted.pin_until,
        pin_for_s: wanted.pin_for_s,
        priority: wanted.priority,
        run_after: wanted.run_after,
        min_fraction: wanted.min_fraction,
        max_bytes: wanted.max_bytes.into_iter().chain(affordable).min(),
        on_unready: wanted.on_unready,
        label: wanted.label,
        labels: wanted.labels,
        ..WarmupRequest::new(selection.volume, selection.paths, site)
    }
}

/// Money per GB (10^9 bytes) from the volume's source to the site, which is what it costs where no copy gives it for less; 0 if
/// it is there.
pub(crate) fn price_per_gb(volume: &VolumeId, site: &SiteId, topology: &Topology) -> f64 {
    let away = topology.volumes.get(volume).filter(|v| !v.stands_at(site));
    away.and_then(|v| topology.link(&v.at, site)).map_or(0.0, |link| link.cost_per_gb)
}

/// The rule that forbids every byte below one of the paths, with that path; `default` where no rule matched.
///
/// A path may be a directory whose files rules treat differently, and nobody here knows what lies below. So the
/// verdict on the path itself counts only if it holds for all below: no earlier rule lets some paths through, and
/// the rule that decided speaks of no paths.
pub(crate) fn forbidden_outright(
    rules: &Ruleset,
    topology: &Topology,
    request: &WarmupRequest,
    now: Timestamp,
) -> Option<(String, FilePath)> {
    request.paths.iter().find_map(|path| {
        let verdict = rules.verdict(topology, &request.volume, path, &request.site, now);
        if verdict.allows() {
            return None;
        }
        let decider = rules.rules().position(|r| Some(&r.name) == verdict.rule.as_ref());
        let before = decider.unwrap_or(usize::MAX);
        let some_pass = rules.rules().take(before).any(|r| r.effect == Effect::Allow && r.paths.is_some());
        let speaks_of_paths = decider.and_then(|i| rules.rules().nth(i)).is_some_and(|r| r.paths.is_some());
        if some_pass || speaks_of_paths {
            None
        } else {
            Some((verdict.rule.unwrap_or_else(|| "default".into()), path.clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use foretide_flow::{BitsPerSecond, Link, Site, Volume};

    use super::*;

    fn topology(cost_per_gb: f64) -> Topology {
        let (store, gpu) = (SiteId::new("store").unwrap(), SiteId::new("gpu").unwrap());
        let link = Link { from: store.clone(), to: gpu.clone(), rate: BitsPerSecond(1), rtt_ms: 1.0, cost_per_gb };
        let place =
            Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache: None, accelerator_per_hour: 0.0 };
        Topology {
            sites: [(store.clone(), place.clone()), (gpu, place)].into(),
            links: vec![link],
            volumes: [(VolumeId::new("v").unwrap(), Volume::at(store))].into(),
        }
    }

    fn max_bytes_of(wanted: WarmupWanted, cost_per_gb: f64) -> Option<u64> {
        let selection = Selection::of(VolumeId::new("v").unwrap(), vec![FilePath::root()]);
        request_of(wanted, selection, SiteId::new("gpu").unwrap(), &topology(cost_per_gb)).max_bytes
    }

    #[test]
    fn money_bounds_bytes_at_the_link_s_price() {
        let wanted = |max_cost, max_bytes| WarmupWanted { max_cost, max_bytes, ..WarmupWanted::default() };
        assert_eq!(max_bytes_of(wanted(Some(1.0), None), 0.05), Some(20_000_000_000));
        assert_eq!(max_bytes_of(wanted(Some(1.0), Some(7)), 0.05), Some(7), "the tighter bound holds");
        assert_eq!(max_bytes_of(wanted(Some(0.0), None), 0.0), None, "a link without a price costs nothing");
    }

    #[test]
    fn a_member_that_is_null_takes_the_term_away() {
        let change: WarmupChange = serde_json::from_str(r#"{"need_by":null,"pin_until":5}"#).unwrap();
        let expected =
            WarmupChange { need_by: Some(None), pin_until: Some(Some(Timestamp(5))), ..WarmupChange::default() };
        assert_eq!(change, expected);
    }
}
