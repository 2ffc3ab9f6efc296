//! Volumes: those of the configuration, and those that were added since.
//!
//! An added volume is a setting of the catalog, so that every control plane that shares it, and the next start, has it.
//! Agents see it with their next assignment, which comes at once: one at its site serves the folder, those with a
//! mount show it. Nothing is walked; a directory is learned when somebody looks.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use foretide_catalog::{AuditEntry, Catalog};
use foretide_flow::{FilePath, NodeId, SiteId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Body;
use crate::wanted::unknown_site;

/// The setting that holds them.
const SETTING: &str = "volumes";
/// Volumes that may be added, so bounded because each is a directory of every mount and a line of every welcome.
const ADDED_MAX: usize = 1000;

/// How the address of a source may begin.
const SOURCES: [&str; 4] = ["/", "s3://", "gs://", "az://"];

/// Where an added volume's truth lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedVolume {
    /// The site of its source.
    pub at: SiteId,
    /// The folder there, an absolute path; or a prefix of an object store.
    pub source: String,
    /// Tags that rules and searches may name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A volume to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeWanted {
    /// Its name: the directory under which mounts show it.
    pub name: VolumeId,
    /// The site of its source.
    pub at: SiteId,
    /// The folder there, an absolute path, or a prefix of an object store (`s3://…`, `gs://…`, `az://…`): below what an
    /// agent at that site is configured to let out (`source.offer`).
    pub source: String,
    /// Tags that rules and searches may name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Its name.
    pub name: VolumeId,
    /// The site of its source.
    pub at: SiteId,
    /// The folder there, if it was added; null if the configuration has it.
    pub source: Option<String>,
    /// Tags that rules and searches may name.
    pub tags: BTreeMap<String, String>,
    /// Agents that serve it now.
    pub served_by: Vec<NodeId>,
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
/// The catalog's.
pub async fn added_volumes(catalog: &dyn Catalog) -> foretide_catalog::Result<BTreeMap<VolumeId, AddedVolume>> {
    let kept = catalog.setting(SETTING).await?;
    // Written by nobody but `add`.
    Ok(kept.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
}

/// Volumes, and who serves them.
#[utoipa::path(get, path = "/v1/volumes", tag = "namespace", operation_id = "list_volumes",
    responses((status = 200, description = "All volumes, by name.", body = VolumeList)))]
pub(crate) async fn list(State(api): State<Api>) -> Result<Json<VolumeList>, ApiError> {
    let added = added_volumes(api.catalog.as_ref()).await?;
    let agents = api.catalog.agents().await?;
    let topology = api.directory.topology();
    let view = |(name, volume): (&VolumeId, &foretide_flow::Volume)| VolumeView {
        name: name.clone(),
        at: volume.at.clone(),
        source: added.get(name).map(|a| a.source.clone()),
        tags: volume.tags.clone(),
        served_by: agents.iter().filter(|a| a.volumes.contains(name)).map(|a| a.node.clone()).collect(),
    };
    Ok(Json(VolumeList { items: topology.volumes.iter().map(view).collect() }))
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
    if !topology.sites.contains_key(&wanted.at) {
        return Err(unknown_site(&wanted.at, &topology));
    }
    if topology.volumes.contains_key(&wanted.name) {
        return Err(ApiError::Conflict(format!("there is a volume {} already: choose another name", wanted.name)));
    }
    if added.len() >= ADDED_MAX {
        return Err(ApiError::Conflict(format!("{ADDED_MAX} volumes are added already: put several under one root")));
    }
    if !SOURCES.iter().any(|prefix| wanted.source.starts_with(prefix)) {
        return Err(ApiError::WrongShape(format!(
            "source {:?} is none: give an absolute path at site {}, or an address with s3://, gs:// or az://",
            wanted.source, wanted.at
        )));
    }
    let VolumeWanted { name, at, source, tags } = wanted;
    added.insert(name.clone(), AddedVolume { at: at.clone(), source: source.clone(), tags: tags.clone() });
    catalog.put_tags(&name, &FilePath::root(), &tags).await?;
    // First what is handed out, then the setting, which wakes those who wait for it.
    api.directory.volumes_added(&added);
    catalog.put_setting(SETTING, &json!(added)).await?;
    let view = VolumeView { name, at, source: Some(source), tags, served_by: Vec::new() };
    let (now, who, what) = (Timestamp::now(), caller.name.clone(), "volume.add".into());
    catalog.append_audit(&AuditEntry { at: now, who, what, detail: json!(view) }).await?;
    Ok(Json(view))
}
