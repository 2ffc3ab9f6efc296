//! The namespace as it is known: which files there are, what they are tagged with, where they are.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use foretide_catalog::{AuditEntry, FileQuery, FoundFile};
use foretide_flow::{Entry, EntryKind, FilePath, Move, MoveCause, Plan, SiteId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::page_size;
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Query, within};
use crate::tenant::Sight;
use crate::wanted::unknown_volume;

/// Files of a directory that are counted at a site, at most; beyond it the answer says that there are more.
const COUNTED_MAX: usize = 1000;
/// Tags on one subtree, and bytes of a key or value.
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 256;

/// Which files are looked for. What is absent matches everything; all that is given must match.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilesQuery {
    /// In this volume.
    volume: Option<VolumeId>,
    /// This file, or below this directory; needs `volume`.
    #[param(value_type = Option<String>, max_length = 4096)]
    below: Option<FilePath>,
    /// The name (last component) holds this text, ASCII letters in either case.
    name_part: Option<String>,
    /// The name ends in this text, ASCII letters in either case.
    suffix: Option<String>,
    /// At least that many bytes.
    #[param(maximum = 9223372036854775807_i64)]
    min_bytes: Option<u64>,
    /// At most that many bytes.
    #[param(maximum = 9223372036854775807_i64)]
    max_bytes: Option<u64>,
    /// Changed at or after this.
    modified_from: Option<Timestamp>,
    /// Changed before this.
    modified_before: Option<Timestamp>,
    /// In a subtree with all these tags: `key=value`, with commas between.
    tags: Option<String>,
    /// Some of it resident at this site.
    resident_at: Option<SiteId>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// Files of this page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    /// Its volume.
    pub volume: VolumeId,
    /// The file.
    #[serde(flatten)]
    pub entry: Entry,
}

impl From<FoundFile> for FileView {
    fn from(FoundFile { volume, entry }: FoundFile) -> Self {
        Self { volume, entry }
    }
}

/// What was found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Files {
    /// Files that match.
    pub items: Vec<FileView>,
    /// Give this as `cursor` to search on; null at the end. A page can hold fewer files than asked for, or none, and
    /// not be the last: an answer looks at a bounded number of files.
    pub next: Option<String>,
}

/// `key=value,key=value`.
fn tags_of(text: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let pair = |word: &str| {
        let (key, value) = word.split_once('=').filter(|(key, _)| !key.is_empty())?;
        Some((key.to_owned(), value.to_owned()))
    };
    let malformed = |word: &str| ApiError::BadParameter(format!("tags: {word:?} is not written key=value"));
    let words = text.split(',').filter(|w| !w.is_empty());
    words.map(|w| pair(w).ok_or_else(|| malformed(w))).collect()
}

/// Files that match, of those that are known.
#[utoipa::path(get, path = "/v1/files", tag = "namespace", params(FilesQuery),
    responses(
        (status = 200, description = "A page of files.", body = Files),
        (status = 409, description = "`below` is given without `volume`, or the cursor is none of this search's.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn find(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<FilesQuery>,
) -> Result<Json<Files>, ApiError> {
    let limit = page_size(query.limit)?;
    let wanted = FileQuery {
        volume: query.volume,
        below: query.below,
        name_part: query.name_part,
        suffix: query.suffix,
        min_bytes: bounded("min_bytes", query.min_bytes)?,
        max_bytes: bounded("max_bytes", query.max_bytes)?,
        modified_from: query.modified_from,
        modified_before: query.modified_before,
        tags: tags_of(query.tags.as_deref().unwrap_or_default())?,
        resident_at: query.resident_at,
    };
    let page = api.catalog.find_files(&wanted, query.cursor.as_deref(), limit).await?;
    let seen = page.items.into_iter().filter(|found| sight.sees(&found.volume));
    Ok(Json(Files { items: seen.map(FileView::from).collect(), next: page.next }))
}

/// The catalog counts in 63 bits.
fn bounded(name: &str, bytes: Option<u64>) -> Result<Option<u64>, ApiError> {
    bytes.map(|b| within(name, b, 0, i64::MAX as u64)).transpose()
}

/// Of what one wants to know where it is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhereQuery {
    /// Its volume.
    volume: VolumeId,
    /// A file or directory; the whole volume if absent.
    #[serde(default)]
    #[param(value_type = String, max_length = 4096)]
    path: FilePath,
}

/// Some of a file at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SiteCopy {
    /// The site.
    pub site: SiteId,
    /// Bytes of it that are resident and verified there.
    pub resident_bytes: u64,
}

/// What one site holds of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldAt {
    /// The site.
    pub site: SiteId,
    /// Files of it that are resident, whole or in part.
    pub resident_files: u64,
    /// Whether more files are resident than were counted.
    pub more: bool,
    /// Why it is, will be or is not there.
    pub why: Vec<String>,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whereabouts {
    /// The site of its source.
    pub source: SiteId,
    /// Bytes of it, as far as is known; null if nothing is (its directory may not have been learned).
    pub bytes: Option<u64>,
    /// Files that it is, as far as is known.
    pub files: u64,
    /// Whether everything below it is known.
    pub complete: bool,
    /// Its tags, those of the directories above it included.
    pub tags: BTreeMap<String, String>,
    /// Sites that keep some of it, if it is a file.
    pub copies: Vec<SiteCopy>,
    /// All sites, by name.
    pub sites: Vec<HeldAt>,
}

/// Which sites hold how much of a file or directory, and why it is or is not there.
#[utoipa::path(get, path = "/v1/where", tag = "namespace", params(WhereQuery),
    responses(
        (status = 200, description = "Its source, and what each site holds of it.", body = Whereabouts),
        (status = 422, description = "There is no such volume.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn whereabouts(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<WhereQuery>,
) -> Result<Json<Whereabouts>, ApiError> {
    let WhereQuery { volume, path } = query;
    let topology = sight.topology();
    let known = topology.volumes.get(&volume).ok_or_else(|| unknown_volume(&volume, topology))?;
    let entry = api.catalog.entry(&volume, &path).await?;
    let is_known = path.is_root() || entry.is_some() || api.catalog.directory(&volume, &path).await?.is_some();
    let is_file = entry.is_some_and(|e| e.kind == EntryKind::File);
    let totals = api.catalog.totals(&volume, &path).await?;
    let copies: Vec<SiteCopy> = (api.catalog.resident_sites(&volume, &path).await?.into_iter())
        .map(|(site, file)| SiteCopy { site, resident_bytes: file.bytes() })
        .collect();
    let plan = api.catalog.latest_plan().await?;
    let (rules, now) = (api.directory.rules(), Timestamp::now());
    let mut sites = Vec::with_capacity(topology.sites.len());
    for site in topology.sites.keys() {
        let held = if is_file { copy_held(&copies, site) } else { files_held(&api, &volume, &path, site).await? };
        let mut why = Vec::new();
        if *site == known.at {
            why.push("the source is here".to_owned());
        } else {
            why.extend(known.copies.contains(site).then(|| "a copy is here".to_owned()));
            let verdict = rules.verdict(topology, &volume, &path, site, now);
            if !verdict.allows() {
                why.push(format!("rule {} forbids it", verdict.rule.as_deref().unwrap_or("default")));
            }
            why.extend(plan.iter().flat_map(|plan| planned(plan, &volume, &path, site)));
            why.extend(unplanned(&held, why.is_empty()));
        }
        sites.push(HeldAt { site: site.clone(), resident_files: held.files, more: held.more, why });
    }
    Ok(Json(Whereabouts {
        source: known.at.clone(),
        bytes: is_known.then_some(totals.bytes),
        files: totals.files,
        complete: totals.complete || is_file,
        tags: api.catalog.tags(&volume, &path).await?,
        copies,
        sites,
    }))
}

struct Held {
    files: u64,
    more: bool,
}

fn copy_held(copies: &[SiteCopy], site: &SiteId) -> Held {
    let some = copies.iter().any(|c| c.site == *site && c.resident_bytes > 0);
    Held { files: u64::from(some), more: false }
}

async fn files_held(api: &Api, volume: &VolumeId, path: &FilePath, site: &SiteId) -> Result<Held, ApiError> {
    let query = FileQuery {
        volume: Some(volume.clone()),
        below: Some(path.clone()),
        resident_at: Some(site.clone()),
        ..FileQuery::default()
    };
    let page = api.catalog.find_files(&query, None, COUNTED_MAX).await?;
    Ok(Held { files: page.items.len() as u64, more: page.next.is_some() })
}

/// What the plan that holds says of it.
fn planned(plan: &Plan, volume: &VolumeId, path: &FilePath, site: &SiteId) -> Vec<String> {
    let concerns = |v: &VolumeId, p: &FilePath, to: &SiteId| v == volume && to == site && p.is_within(path);
    let mut why = Vec::new();
    let moves: Vec<&Move> = plan.moves.iter().filter(|m| concerns(&m.volume, &m.path, &m.to)).collect();
    if let Some(first) = moves.first() {
        let cause = match &first.cause {
            MoveCause::Forecast { workload, .. } => format!("workload {workload} is expected to read it"),
            MoveCause::Warmup { warmup } => format!("warm-up {warmup} asks for it"),
        };
        let bytes: u64 = moves.iter().map(|m| m.length).sum();
        why.push(format!("{} moves of {bytes} bytes bring it, because {cause}", moves.len()));
    }
    let refused = plan.refused.iter().find(|r| concerns(&r.volume, &r.path, &r.to));
    why.extend(refused.map(|r| format!("a move was refused by the {}: rule {} forbids it", r.by, r.rule)));
    // A directory stands for the files below it.
    let left_out = |p: &FilePath| p.is_within(path) || path.is_within(p);
    let left_out = plan.left_out.iter().find(|l| l.volume == *volume && l.to == *site && left_out(&l.path));
    why.extend(left_out.map(|l| format!("left out of the plan: {}", l.why)));
    why
}

/// Where neither source, rule nor plan explains it.
fn unplanned(held: &Held, unexplained: bool) -> Option<String> {
    match (held.files > 0, unexplained) {
        (true, _) => Some("it was read or moved there before".to_owned()),
        (false, true) => Some("no read of it is expected there, and no warm-up asks for it".to_owned()),
        (false, false) => None,
    }
}

/// Tags of a subtree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tagging {
    /// Its volume.
    pub volume: VolumeId,
    /// A file or directory, known or not; the whole volume if absent.
    #[serde(default)]
    pub path: FilePath,
    /// In place of those that it carried itself; none takes them away.
    pub tags: BTreeMap<String, String>,
}

/// Tags a subtree. What lies below carries them too, unless something nearer says otherwise.
#[utoipa::path(put, path = "/v1/tags", tag = "namespace", request_body = Tagging,
    responses(
        (status = 200, description = "The subtree carries these tags.", body = Tagging),
        (status = 503, description = "Too many subtrees carry tags.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn tag(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(tagging): Body<Tagging>,
) -> Result<Json<Tagging>, ApiError> {
    if !api.directory.topology().volumes.contains_key(&tagging.volume) {
        return Err(unknown_volume(&tagging.volume, &api.directory.topology()));
    }
    let fits = |(key, value): (&String, &String)| {
        !key.is_empty()
            && !key.contains([',', '='])
            && !value.contains(',')
            && key.len().max(value.len()) <= TAG_BYTES_MAX
    };
    if tagging.tags.len() > TAGS_MAX || !tagging.tags.iter().all(fits) {
        return Err(ApiError::WrongShape(format!(
            "tags: give at most {TAGS_MAX}, each of at most {TAG_BYTES_MAX} bytes, without commas, keys without `=`"
        )));
    }
    api.catalog.put_tags(&tagging.volume, &tagging.path, &tagging.tags).await?;
    let (at, who) = (Timestamp::now(), caller.name.clone());
    api.catalog.append_audit(&AuditEntry { at, who, what: "tags.put".into(), detail: json!(tagging) }).await?;
    Ok(Json(tagging))
}
