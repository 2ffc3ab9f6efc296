//! Volumes: those of the configuration, and those that were added since.
//!
//! An added volume is a setting of the catalog, so that every control plane that shares it, and the next start, has it.
//! Agents see it with their next assignment, which comes at once: one at its site serves the folder, those with a
//! mount show it. Nothing is walked; a directory is learned when somebody looks.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use foretide_catalog::{Agent, AuditEntry, Catalog, CatalogError};
use foretide_flow::{FilePath, NodeId, SiteId, Timestamp, Volume, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Body;
use crate::offered::site_that_offers;
use crate::tenant::Sight;
use crate::wanted::unknown_site;

/// The setting that holds them.
const SETTING: &str = "volumes";
/// Volumes that may be added, so bounded because each is a directory of every mount and a line of every welcome.
const ADDED_MAX: usize = 1000;

/// Sources of one volume: each is asked for every listing.
const SOURCES_MAX: usize = 16;
/// How the address of a source may begin.
const ADDRESSES: [&str; 4] = ["/", "s3://", "gs://", "az://"];

/// Where an added volume's truth lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedVolume {
    /// The site of its sources.
    pub at: SiteId,
    /// Folders there, as absolute paths, and prefixes of object stores.
    pub sources: Vec<String>,
    /// Sites at which copies of all of it stand.
    #[serde(default)]
    pub copies: Vec<SiteId>,
    /// Tags that rules and searches may name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl AddedVolume {
    /// As the topology has it.
    pub fn volume(&self) -> Volume {
        Volume { at: self.at.clone(), copies: self.copies.clone(), tags: self.tags.clone() }
    }
}

/// A volume to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeWanted {
    /// Its name: the directory under which mounts show it.
    pub name: VolumeId,
    /// The site of its sources. None: the one whose agents offer all of them.
    #[serde(default)]
    pub at: Option<SiteId>,
    /// Folders there, as absolute paths, and prefixes of object stores (`s3://…`, `gs://…`, `az://…`): below what an agent at
    /// that site is configured to let out (`source.offer`). Several are one tree: a name that more than one has is the
    /// first one's, directories of one name are merged.
    pub sources: Vec<String>,
    /// Other sites at which a copy of all of it stands, under the same addresses: agents there that let it out give its
    /// bytes where that link is nearer or cheaper, as long as they are the source's.
    #[serde(default)]
    pub copies: Vec<SiteId>,
    /// Tags that rules and searches may name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Its name.
    pub name: VolumeId,
    /// The site of its sources.
    pub at: SiteId,
    /// Folders there and prefixes of object stores, if it was added; none if the configuration has it.
    pub sources: Vec<String>,
    /// Other sites at which a copy of it stands.
    pub copies: Vec<CopyView>,
    /// Tags that rules and searches may name.
    pub tags: BTreeMap<String, String>,
    /// Agents that serve its source now.
    pub served_by: Vec<NodeId>,
}

/// A copy of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyView {
    /// Where it stands.
    pub at: SiteId,
    /// Agents that serve it now.
    pub served_by: Vec<NodeId>,
}

impl VolumeView {
    fn of(name: &VolumeId, volume: &Volume, sources: Vec<String>, agents: &[Agent]) -> Self {
        let served_by = |site: &SiteId| {
            let serves = agents.iter().filter(|a| a.site == *site && a.volumes.contains(name));
            serves.map(|a| a.node.clone()).collect()
        };
        let copy = |site: &SiteId| CopyView { at: site.clone(), served_by: served_by(site) };
        Self {
            name: name.clone(),
            at: volume.at.clone(),
            sources,
            copies: volume.copies.iter().map(copy).collect(),
            tags: volume.tags.clone(),
            served_by: served_by(&volume.at),
        }
    }
}

/// All volumes, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// The volumes.
    pub items: Vec<VolumeView>,
}

/// The volumes that were added, as the catalog has them.
///
/// # Errors
/// The catalog's; [`CatalogError::Damaged`] if they were written by a newer version.
pub async fn added_volumes(catalog: &dyn Catalog) -> foretide_catalog::Result<BTreeMap<VolumeId, AddedVolume>> {
    let Some(kept) = catalog.setting(SETTING).await? else { return Ok(BTreeMap::new()) };
    let damaged =
        |why: serde_json::Error| CatalogError::Damaged { what: "setting", name: SETTING.into(), why: why.to_string() };
    serde_json::from_value(kept).map_err(damaged)
}

/// Volumes, and who serves them.
#[utoipa::path(get, path = "/v1/volumes", tag = "namespace", operation_id = "list_volumes",
    responses((status = 200, description = "All volumes, by name.", body = VolumeList)))]
pub(crate) async fn list(State(api): State<Api>, sight: Sight) -> Result<Json<VolumeList>, ApiError> {
    let added = added_volumes(api.catalog.as_ref()).await?;
    let agents = api.catalog.agents().await?;
    let view = |(name, volume): (&VolumeId, &Volume)| {
        let sources = added.get(name).map(|a| a.sources.clone()).unwrap_or_default();
        VolumeView::of(name, volume, sources, &agents)
    };
    Ok(Json(VolumeList { items: sight.topology().volumes.iter().map(view).collect() }))
}

/// Add a volume. It can be read through every mount as soon as an agent at its site serves it: `served_by` of
/// `GET /v1/volumes` says so.
#[utoipa::path(post, path = "/v1/volumes", tag = "namespace", operation_id = "add_volume", request_body = VolumeWanted,
    responses(
        (status = 200, description = "It is added.", body = VolumeView),
        (status = 409, description = "There is a volume of that name, or there are too many.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many subtrees carry tags.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn add(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<VolumeWanted>,
) -> Result<Json<VolumeView>, ApiError> {
    let _alone = api.adding.lock().await;
    let topology = api.directory.topology();
    let catalog = api.catalog.as_ref();
    let mut added = added_volumes(catalog).await?;
    if let Some(site) = wanted.at.iter().chain(&wanted.copies).find(|s| !topology.sites.contains_key(*s)) {
        return Err(unknown_site(site, &topology));
    }
    if topology.volumes.contains_key(&wanted.name) {
        return Err(ApiError::Conflict(format!("there is a volume {} already: choose another name", wanted.name)));
    }
    if added.len() >= ADDED_MAX {
        return Err(ApiError::Conflict(format!("{ADDED_MAX} volumes are added already: put several under one root")));
    }
    check_sources(&wanted.sources)?;
    let VolumeWanted { name, at, sources, copies, tags } = wanted;
    let at = match at {
        Some(at) => at,
        None => site_that_offers(&sources, &catalog.agents().await?).map_err(ApiError::WrongShape)?,
    };
    let new = AddedVolume { at, sources, copies, tags };
    new.volume()
        .check_copies()
        .map_err(|(site, what)| ApiError::WrongShape(format!("copies names {site}, and {what}")))?;
    let view = VolumeView::of(&name, &new.volume(), new.sources.clone(), &[]);
    catalog.put_tags(&name, &FilePath::root(), &new.tags).await?;
    added.insert(name, new);
    // First what is handed out, then the setting, which wakes those who wait for it.
    api.directory.volumes_added(&added);
    catalog.put_setting(SETTING, &json!(added)).await?;
    let (now, who, what) = (Timestamp::now(), caller.name.clone(), "volume.add".into());
    catalog.append_audit(&AuditEntry { at: now, who, what, detail: json!(view) }).await?;
    Ok(Json(view))
}

fn check_sources(sources: &[String]) -> Result<(), ApiError> {
    if !(1..=SOURCES_MAX).contains(&sources.len()) {
        return Err(ApiError::WrongShape(format!("sources: give 1 to {SOURCES_MAX}, not {}", sources.len())));
    }
    match sources.iter().find(|source| !ADDRESSES.iter().any(|prefix| source.starts_with(prefix))) {
        Some(strange) => Err(ApiError::WrongShape(format!(
            "source {strange:?} is none: give an absolute path at its site, or an address with s3://, gs:// or az://"
        ))),
        None => Ok(()),
    }
}
