//! Where data could be.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use foretide_flow::{FilePath, RunId, SiteId, Timestamp, VolumeId, WorkloadId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::error::ApiError;
use crate::extract::Body;
use crate::ports::{Advice, Question};
use crate::selection::{self, Said, Selection};
use crate::tenant::Sight;
use crate::wanted::unknown_site;

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
