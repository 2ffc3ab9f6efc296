//! Sites, what was refused, the one switch, and the mode.

use axum::extract::State;
use axum::{Extension, Json};
use foretide_catalog::{Agent, AuditEntry, Catalog, CatalogError, RefusalRecord, SiteStatus};
use foretide_flow::{Link, Mode, NodeId, Refusal, Site, SiteId, Timestamp, Topology, Volume, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::plans::PageQuery;
use super::{List, page_size};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::events::{Told, tell};
use crate::extract::{Body, Query};
use crate::tenant::Sight;

/// An agent as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Its node.
    pub node: NodeId,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// When it was heard of last.
    pub seen_at: Timestamp,
    /// Where it serves chunks, if it does.
    pub chunk_address: Option<String>,
    /// Volumes that it serves: the source of those whose source is at its site, of others a copy.
    pub volumes: Vec<VolumeId>,
    /// Whether it passes on what its cache holds.
    pub passes_on: bool,
    /// How it observes: `ebpf`, `mount`, …
    pub probes: Vec<String>,
    /// By how much its clock is ahead of the control plane's, microseconds, to half of the round trip; below zero it is behind.
    pub clock_ahead_us: Option<i64>,
}

/// A site: what it is, what is there, what prefetching did there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SiteView {
    /// Its name.
    pub site: SiteId,
    /// As the admin described it.
    pub spec: Site,
    /// Volumes whose source is here.
    pub volumes: Vec<VolumeId>,
    /// Volumes of which a copy is here.
    pub copies: Vec<VolumeId>,
    /// Links that lead here.
    pub links_in: Vec<Link>,
    /// Links that lead away.
    pub links_out: Vec<Link>,
    /// Its agents, by node.
    pub agents: Vec<AgentView>,
    /// Bytes resident and verified, as its stores counted.
    pub resident_bytes: u64,
    /// Bytes that its stores may hold.
    pub capacity_bytes: u64,
    /// When one of its nodes last reported.
    pub reported_at: Option<Timestamp>,
    /// Bytes that moves brought.
    pub prefetched_bytes: u64,
    /// Bytes that crossed the link for them.
    pub wire_bytes: u64,
    /// Bytes that moves brought and that were evicted unread.
    pub wasted_bytes: u64,
    /// `wasted_bytes / prefetched_bytes`; null where nothing was brought.
    pub waste: Option<f64>,
    /// Bytes read through the mount.
    pub read_bytes: u64,
    /// Of these, bytes that a move had brought in time.
    pub read_prefetched_bytes: u64,
    /// `read_prefetched_bytes / read_bytes`; null where nothing was read.
    pub coverage: Option<f64>,
    /// Reads that found their bytes.
    pub hits: u64,
    /// Reads that found them on their way.
    pub late: u64,
    /// Reads that nobody had foreseen.
    pub misses: u64,
    /// Waiting of all readers added up, seconds.
    pub waited_s: f64,
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn view(topology: &Topology, site: &SiteId, spec: &Site, agents: Vec<AgentView>, status: SiteStatus) -> SiteView {
    let links = |wanted: fn(&Link) -> &SiteId| topology.links.iter().filter(|l| wanted(l) == site).cloned().collect();
    let volumes = |wanted: &dyn Fn(&Volume) -> bool| {
        topology.volumes.iter().filter(|(_, v)| wanted(v)).map(|(name, _)| name.clone()).collect()
    };
    SiteView {
        site: site.clone(),
        spec: spec.clone(),
        volumes: volumes(&|v| &v.at == site),
        copies: volumes(&|v| v.copies.contains(site)),
        links_in: links(|l| &l.to),
        links_out: links(|l| &l.from),
        agents,
        resident_bytes: status.resident_bytes,
        capacity_bytes: status.capacity_bytes,
        reported_at: status.reported_at,
        prefetched_bytes: status.prefetched_bytes,
        wire_bytes: status.wire_bytes,
        wasted_bytes: status.wasted_bytes,
        waste: share(status.wasted_bytes, status.prefetched_bytes),
        read_bytes: status.read_bytes,
        read_prefetched_bytes: status.read_prefetched_bytes,
        coverage: share(status.read_prefetched_bytes, status.read_bytes),
        hits: status.hits,
        late: status.late,
        misses: status.misses,
        waited_s: status.waited_s,
    }
}

/// All sites, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sites {
    /// How far Foretide acts on its own forecasts.
    pub mode: Mode,
    /// The sites.
    pub items: Vec<SiteView>,
}

/// Sites: caches, agents, links, what came of prefetching there.
#[utoipa::path(get, path = "/v1/sites", tag = "fleet",
    responses((status = 200, description = "All sites, by name.", body = Sites)))]
pub(crate) async fn sites(State(api): State<Api>, sight: Sight) -> Result<Json<Sites>, ApiError> {
    let gone_before = Timestamp::now() - std::time::Duration::from_secs(api.config.agent_gone_after_s);
    let topology = sight.topology();
    let mut agents = api.catalog.agents().await?;
    agents.iter_mut().for_each(|agent| agent.volumes.retain(|volume| sight.sees(volume)));
    let mut items = Vec::with_capacity(topology.sites.len());
    for (site, spec) in &topology.sites {
        let status = api.catalog.site_status(site).await?;
        let here = agents.iter().filter(|a| &a.site == site).map(|a| agent_view(a, gone_before)).collect();
        items.push(view(topology, site, spec, here, status));
    }
    let mode = mode_in_force(api.catalog.as_ref(), api.directory.mode()).await?;
    Ok(Json(Sites { mode, items }))
}

fn agent_view(agent: &Agent, gone_before: Timestamp) -> AgentView {
    AgentView {
        node: agent.node.clone(),
        alive: agent.seen_at >= gone_before,
        seen_at: agent.seen_at,
        chunk_address: agent.chunk_address.clone(),
        volumes: agent.volumes.clone(),
        passes_on: agent.passes_on,
        probes: agent.probes.clone(),
        clock_ahead_us: agent.clock_ahead_us,
    }
}

/// A refusal and its place in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RefusalView {
    /// Grows.
    pub id: u64,
    /// What was refused, and by which rule.
    #[serde(flatten)]
    pub refusal: Refusal,
}

impl From<RefusalRecord> for RefusalView {
    fn from(r: RefusalRecord) -> Self {
        Self { id: r.id, refusal: r.refusal }
    }
}

/// What rules forbade, oldest first.
#[utoipa::path(get, path = "/v1/refusals", tag = "fleet", params(PageQuery),
    responses((status = 200, description = "A page of refusals, oldest first.", body = List<RefusalView>)))]
pub(crate) async fn refusals(
    State(api): State<Api>,
    sight: Sight,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<RefusalView>>, ApiError> {
    let limit = page_size(query.limit)?;
    let records = api.catalog.refusals(query.cursor.unwrap_or(0), limit).await?;
    let next = records.last().filter(|_| records.len() == limit).map(|r| r.id);
    let seen = records.into_iter().filter(|r| sight.sees(&r.refusal.volume));
    Ok(Json(List { items: seen.map(Into::into).collect(), next }))
}

/// The one switch (promise H).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// Whether all prefetching is off. Reads and warm-ups go on.
    pub prefetch_off: bool,
}

/// Whether prefetching is switched off.
#[utoipa::path(get, path = "/v1/switch", tag = "fleet",
    responses((status = 200, description = "The switch.", body = Switch)))]
pub(crate) async fn switch(State(api): State<Api>) -> Result<Json<Switch>, ApiError> {
    Ok(Json(Switch { prefetch_off: api.catalog.prefetch_off().await? }))
}

/// Switch all prefetching off, or on again. Agents learn of it with their next assignment, at once.
#[utoipa::path(put, path = "/v1/switch", tag = "fleet", request_body = Switch,
    responses((status = 200, description = "The switch as it is now.", body = Switch)))]
pub(crate) async fn throw_switch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Switch>,
) -> Result<Json<Switch>, ApiError> {
    let now = Timestamp::now();
    api.catalog.set_prefetch_off(wanted.prefetch_off).await?;
    let detail = json!({ "prefetch_off": wanted.prefetch_off });
    let entry = AuditEntry { at: now, who: caller.name, what: "switch.put".into(), detail };
    api.catalog.append_audit(&entry).await?;
    tell(api.catalog.as_ref(), &Told::Switch { prefetch_off: wanted.prefetch_off }, now).await?;
    Ok(Json(wanted))
}

/// The setting in which a mode stands that was chosen while everything runs.
const MODE: &str = "mode";

/// How far Foretide acts on its own forecasts: as was chosen last, or as is configured.
///
/// # Errors
/// The catalog's.
pub async fn mode_in_force(catalog: &dyn Catalog, configured: Mode) -> Result<Mode, CatalogError> {
    let chosen = catalog.setting(MODE).await?;
    Ok(chosen.and_then(|mode| serde_json::from_value(mode).ok()).unwrap_or(configured))
}

/// The mode that is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeChoice {
    /// How far Foretide acts on its own forecasts; null for what is configured.
    pub mode: Option<Mode>,
}

/// The mode in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeView {
    /// How far Foretide acts on its own forecasts.
    pub mode: Mode,
    /// What the configuration says.
    pub configured: Mode,
}

/// The mode in force, where no rule of the configuration gives a site or workload its own.
#[utoipa::path(get, path = "/v1/mode", tag = "fleet", operation_id = "mode",
    responses((status = 200, description = "The mode.", body = ModeView)))]
pub(crate) async fn mode(State(api): State<Api>) -> Result<Json<ModeView>, ApiError> {
    let configured = api.directory.mode();
    let mode = mode_in_force(api.catalog.as_ref(), configured).await?;
    Ok(Json(ModeView { mode, configured }))
}

/// Choose how far Foretide acts on its own forecasts, from the next plan on. What a mode holds back is proposed, and can be
/// approved. Warm-ups go on in every mode.
#[utoipa::path(put, path = "/v1/mode", tag = "fleet", operation_id = "choose_mode", request_body = ModeChoice,
    responses((status = 200, description = "The mode as it is now.", body = ModeView)))]
pub(crate) async fn choose_mode(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(choice): Body<ModeChoice>,
) -> Result<Json<ModeView>, ApiError> {
    let now = Timestamp::now();
    api.catalog.put_setting(MODE, &json!(choice.mode)).await?;
    let entry = AuditEntry { at: now, who: caller.name, what: "mode.put".into(), detail: json!(choice) };
    api.catalog.append_audit(&entry).await?;
    let configured = api.directory.mode();
    let mode = choice.mode.unwrap_or(configured);
    tell(api.catalog.as_ref(), &Told::Mode { mode }, now).await?;
    Ok(Json(ModeView { mode, configured }))
}
