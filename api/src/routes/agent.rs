//! What agents report and take. An agent dials in; nobody dials it.
//!
//! An agent says `hello` when it starts and now and again after (peers and rules may have changed), posts what it
//! saw, and holds one long poll for its assignment. An assignment is a change (moves, directories) and a state (the
//! warm-ups to count, the switch). The change goes by the cursor; the state by the `ETag`, which the agent sends
//! back as `If-None-Match`. An answer that gets lost does no harm: the agent asks again with what it last had.
//!
//! The poll brings a new welcome, too, when the fleet is another than the agent says it knows: asking for it would take a
//! round trip more until a volume that was added is shown far away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foretide_catalog::{Agent, Topic, WarmupFilter};
use foretide_flow::{
    Assignment, CensusRequest, Effect, Listing, Mode, NodeId, Outcome, OutcomeBatch, Rule, SharedFile, SiteId,
    Timestamp, Topology, VolumeId, Warmup, WarmupState,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::volumes::{AddedVolume, added_volumes};
use crate::Api;
use crate::error::ApiError;
use crate::events::{Told, tell};
use crate::extract::{Query, Report, must_be, read, record_number};
use crate::fleet;
use crate::ports::{Accepted, Rejected};
use crate::wait::{self, Seen};
use crate::wanted::{names, unknown_site, unknown_volume};

/// The media type of an access batch.
const PARQUET: &str = "application/vnd.apache.parquet";
/// Directories handed to one agent at once: a second's work at the source.
const LEARN_AT_ONCE: usize = 256;
/// A directory that was handed out and not told about is handed out again after this.
const LEARN_LEASE: Duration = Duration::from_secs(30);
/// Folders and prefixes that one agent may offer: each is compared with what a volume is to be made of.
const OFFERS_MAX: usize = 1000;
/// An agent's life sign is written down at most this often.
const HEARD_EVERY: Duration = Duration::from_secs(20);
/// Warm-ups read from the catalog at a time.
const WARMUPS_AT_ONCE: usize = 1000;

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Its node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Where it serves chunks, as `host:port`, if it does.
    #[serde(default)]
    pub chunk_address: Option<String>,
    /// Volumes that it serves: the source of those whose source stands at its site, of others a copy.
    #[serde(default)]
    pub volumes: Vec<VolumeId>,
    /// Folders and prefixes of object stores of which volumes may be made there, as its configuration has them.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub offers: Vec<String>,
    /// Whether it passes on there what its cache holds.
    #[serde(default)]
    pub passes_on: bool,
    /// How it observes: `ebpf`, `mount`, …
    #[serde(default)]
    pub probes: Vec<String>,
    /// By how much its clock is ahead of ours, microseconds, measured at the last welcome to half of the round trip; below
    /// zero it is behind.
    #[serde(default)]
    pub clock_ahead_us: Option<i64>,
}

/// What an agent needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Welcome {
    /// Sites, links, volumes.
    pub topology: Topology,
    /// Residency rules in order: the agent upholds them itself (promise I).
    pub rules: Vec<Rule>,
    /// What holds where no rule matches.
    pub default_effect: Effect,
    /// How far Foretide acts on its own forecasts.
    pub mode: Mode,
    /// Whether all prefetching is off.
    pub prefetch_off: bool,
    /// The other agents that serve chunks.
    pub peers: Vec<Peer>,
    /// Volumes that were added at the agent's site, their sources or copies: it serves those that its own configuration
    /// lets out.
    #[serde(default)]
    pub serve: Vec<ToServe>,
    /// Where to go on counting.
    pub next: NextNumbers,
    /// When this was said, by the control plane's clock.
    #[serde(default)]
    pub said_at: Timestamp,
}

/// A volume that was added at an agent's site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToServe {
    /// Its name.
    pub volume: VolumeId,
    /// Its folders, as absolute paths, and prefixes of object stores; of a name that several have the first one's counts.
    pub sources: Vec<String>,
}

/// Another agent that serves chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Where, as `host:port`.
    pub chunk_address: String,
    /// Volumes whose source it serves: names and versions are asked of it.
    pub volumes: Vec<VolumeId>,
    /// Volumes of which it serves a copy: bytes that the source has told the digests of may be asked of it.
    #[serde(default)]
    pub copies: Vec<VolumeId>,
    /// Whether it passes on what its cache holds.
    #[serde(default)]
    pub passes_on: bool,
    /// Whether it was heard of lately.
    pub alive: bool,
}

/// The numbers with which an agent that lost its own count goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextNumbers {
    /// Of access batches.
    pub accesses: u64,
    /// Of outcome batches.
    pub outcomes: u64,
}

/// Directories that an agent learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Listings {
    /// Who tells.
    pub node: NodeId,
    /// The directories, each complete.
    pub listings: Vec<Listing>,
}

/// What listings changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListingsTaken {
    /// Names that were not there before.
    pub added: u64,
    /// Names whose version, size or kind is another.
    pub changed: u64,
    /// Names that are gone.
    pub removed: u64,
}

/// What files of volumes whose source an agent serves have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedFiles {
    /// Who tells.
    pub node: NodeId,
    /// Files with all that they share, each in place of what was told of it before.
    pub files: Vec<SharedFile>,
}

/// Whether a batch was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchTaken {
    /// False if it had been taken before; nothing changed then.
    pub new: bool,
}

/// The bytes of a Parquet file, for the document.
pub(crate) struct Parquet;

impl PartialSchema for Parquet {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).content_media_type(PARQUET).into()
    }
}

impl ToSchema for Parquet {}

/// Say hello: who one is, where, and what one serves.
#[utoipa::path(post, path = "/v1/agent/hello", tag = "agents", request_body = Hello,
    responses((status = 200, description = "What an agent needs to know.", body = Welcome)))]
pub(crate) async fn hello(State(api): State<Api>, Report(hello): Report<Hello>) -> Result<Json<Welcome>, ApiError> {
    let now = Timestamp::now();
    let topology = api.directory.topology();
    check_hello(&hello, &topology)?;
    let Hello { node, site, chunk_address, volumes, offers, passes_on, probes, clock_ahead_us } = hello;
    let agent = Agent { node, site, chunk_address, volumes, offers, passes_on, probes, clock_ahead_us, seen_at: now };
    api.catalog.put_agent(&agent).await?;
    tell(api.catalog.as_ref(), &Told::Agent { node: agent.node.clone(), site: agent.site.clone() }, now).await?;
    welcome(&api, &agent.node, &agent.site, now).await.map(Json)
}

fn check_hello(hello: &Hello, topology: &Topology) -> Result<(), ApiError> {
    known_site(&hello.site, topology)?;
    if hello.offers.len() > OFFERS_MAX {
        return Err(ApiError::WrongShape(format!("offers: at most {OFFERS_MAX}, not {}", hello.offers.len())));
    }
    for volume in &hello.volumes {
        let known = known_volume(volume, topology)?;
        if !known.stands_at(&hello.site) {
            return Err(ApiError::Refused(format!(
                "node {} at site {} says that it serves volume {volume}, whose source is at site {}, with copies at {}: add \
                 the site to its copies if one stands there",
                hello.node,
                hello.site,
                known.at,
                names(known.copies.iter())
            )));
        }
    }
    match &hello.chunk_address {
        Some(address) if !is_host_and_port(address) => {
            Err(ApiError::Refused(format!("chunk_address {address:?} is not host:port")))
        }
        None if hello.passes_on => Err(ApiError::Refused(format!(
            "node {} says that it passes on and not where: give chunk_address",
            hello.node
        ))),
        _ => Ok(()),
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn known_site(site: &SiteId, topology: &Topology) -> Result<(), ApiError> {
    topology.sites.get(site).map(drop).ok_or_else(|| unknown_site(site, topology))
}

fn known_volume<'t>(volume: &VolumeId, topology: &'t Topology) -> Result<&'t foretide_flow::Volume, ApiError> {
    topology.volumes.get(volume).ok_or_else(|| unknown_volume(volume, topology))
}

async fn welcome(api: &Api, node: &NodeId, site: &SiteId, now: Timestamp) -> Result<Welcome, ApiError> {
    let gone_before = now - Duration::from_secs(api.config.agent_gone_after_s);
    let rules = api.directory.rules();
    let next = api.catalog.next_sequences(node).await?;
    let topology = api.directory.topology();
    let peer = |a: Agent| {
        let alive = a.seen_at >= gone_before;
        let (volumes, copies) = sources_and_copies(&a, &topology);
        a.chunk_address.map(|chunk_address| Peer {
            node: a.node,
            site: a.site,
            chunk_address,
            volumes,
            copies,
            passes_on: a.passes_on,
            alive,
        })
    };
    let is_here = |(_, added): &(VolumeId, AddedVolume)| added.volume().stands_at(site);
    let added = added_volumes(api.catalog.as_ref()).await?.into_iter().filter(is_here);
    let others = api.catalog.agents().await?.into_iter().filter(|a| &a.node != node);
    Ok(Welcome {
        topology: topology.as_ref().clone(),
        rules: rules.rules().cloned().collect(),
        default_effect: rules.default_effect(),
        mode: api.directory.mode(),
        prefetch_off: api.catalog.prefetch_off().await?,
        peers: others.filter_map(peer).collect(),
        serve: added.map(|(volume, added)| ToServe { volume, sources: added.sources }).collect(),
        next: NextNumbers { accesses: next.accesses, outcomes: next.outcomes },
        said_at: Timestamp::now(),
    })
}

/// What an agent serves, by the topology as it is now: volumes whose source it serves, and those of which a copy. One that
/// stands at its site no longer is neither.
fn sources_and_copies(agent: &Agent, topology: &Topology) -> (Vec<VolumeId>, Vec<VolumeId>) {
    let known = agent.volumes.iter().filter_map(|name| Some((name, topology.volumes.get(name)?)));
    let here = known.filter(|(_, volume)| volume.stands_at(&agent.site));
    let (sources, copies): (Vec<_>, Vec<_>) = here.partition(|(_, volume)| volume.at == agent.site);
    let named = |of: Vec<(&VolumeId, _)>| of.into_iter().map(|(name, _)| name.clone()).collect();
    (named(sources), named(copies))
}

/// Who sends.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NodeQuery {
    /// The sending node.
    node: NodeId,
}

/// Report accesses: one batch as Parquet, at most `api.accesses_max_bytes` (64 MiB unless set).
#[utoipa::path(post, path = "/v1/agent/accesses", tag = "agents", params(NodeQuery),
    request_body(content = inline(Parquet), content_type = "application/vnd.apache.parquet",
                 description = "One access batch, as the collector writes it."),
    responses(
        (status = 200, description = "It is kept, durably.", body = Accepted),
        (status = 403, description = "The batch is of another node, or the token lacks the scope `agent`.",
         body = crate::Problem, content_type = "application/problem+json"),
        (status = 503, description = "It could not be kept: send it again.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn accesses(
    State(api): State<Api>,
    Query(query): Query<NodeQuery>,
    request: Request,
) -> Result<Json<Accepted>, ApiError> {
    must_be(request.headers(), PARQUET)?;
    let parquet = read(request, api.config.accesses_max_bytes).await?;
    api.accesses.accept(&query.node, parquet).await.map(Json).map_err(|rejected| match rejected {
        Rejected::Unusable { .. } => ApiError::Refused(rejected.to_string()),
        Rejected::OtherNode { .. } => ApiError::NotYours(rejected.to_string()),
        Rejected::TryAgain(_) => ApiError::Unavailable(rejected.to_string()),
    })
}

/// Report directories.
#[utoipa::path(post, path = "/v1/agent/listings", tag = "agents", request_body = Listings,
    responses(
        (status = 200, description = "They are kept.", body = ListingsTaken),
        (status = 409, description = "An entry does not lie in its directory, or comes twice.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn listings(
    State(api): State<Api>,
    Report(told): Report<Listings>,
) -> Result<Json<ListingsTaken>, ApiError> {
    let topology = api.directory.topology();
    told.listings.iter().try_for_each(|l| known_volume(&l.volume, &topology).map(drop))?;
    let mut taken = ListingsTaken::default();
    for listing in &told.listings {
        let changed = api.catalog.put_listing(listing).await?;
        taken.added += changed.added;
        taken.changed += changed.changed;
        taken.removed += changed.removed;
    }
    api.listener.listings(told.listings).await;
    Ok(Json(taken))
}

/// Report which chunks stand in several files.
///
/// Plans count them once for a site, in however many files it wants them. Nobody is shown them.
#[utoipa::path(post, path = "/v1/agent/shared", tag = "agents", request_body = SharedFiles,
    responses(
        (status = 204, description = "They are kept."),
        (status = 409, description = "Chunks of a file do not come in order, lie over each other, or are too many.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn shared(State(api): State<Api>, Report(told): Report<SharedFiles>) -> Result<StatusCode, ApiError> {
    let topology = api.directory.topology();
    told.files.iter().try_for_each(|file| known_volume(&file.volume, &topology).map(drop))?;
    api.catalog.put_shared(&told.files).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report outcomes: what was moved, read, evicted and refused, and the store's own counts.
#[utoipa::path(post, path = "/v1/agent/outcomes", tag = "agents", request_body = OutcomeBatch,
    responses((status = 200, description = "They are kept.", body = BatchTaken)))]
pub(crate) async fn outcomes(
    State(api): State<Api>,
    Report(batch): Report<OutcomeBatch>,
) -> Result<Json<BatchTaken>, ApiError> {
    let now = Timestamp::now();
    known_site(&batch.site, &api.directory.topology())?;
    let before = counted_warmups(&api, &batch).await?;
    let recorded = api.catalog.record_outcomes(&batch, now).await?;
    if recorded.new {
        let after = counted_warmups(&api, &batch).await?;
        let catalog = api.catalog.as_ref();
        for warmup in after.into_iter().filter(|w| !before.contains(w)) {
            tell(catalog, &Told::Warmup(warmup.into()), now).await?;
        }
        if !batch.outcomes.is_empty() {
            tell(catalog, &told_of(&batch), now).await?;
        }
        api.listener.outcomes(batch, recorded.resident).await;
    }
    Ok(Json(BatchTaken { new: recorded.new }))
}

/// The warm-ups that a batch counts, as they are now.
async fn counted_warmups(api: &Api, batch: &OutcomeBatch) -> Result<Vec<Warmup>, ApiError> {
    let mut all = Vec::with_capacity(batch.census.len());
    for census in &batch.census {
        all.extend(api.catalog.warmup(&census.warmup).await?);
    }
    Ok(all)
}

fn told_of(batch: &OutcomeBatch) -> Told {
    let count = |wanted: fn(&Outcome) -> bool| batch.outcomes.iter().filter(|o| wanted(o)).count() as u64;
    Told::Site {
        site: batch.site.clone(),
        node: batch.node.clone(),
        resident_bytes: batch.resident_bytes,
        capacity_bytes: batch.capacity_bytes,
        moved: count(|o| matches!(o, Outcome::Moved { .. })),
        failed: count(|o| matches!(o, Outcome::Failed { .. })),
        reads: count(|o| matches!(o, Outcome::Read { .. })),
        evicted: count(|o| matches!(o, Outcome::Evicted { .. })),
        refused: count(|o| matches!(o, Outcome::Refused(_))),
    }
}

/// An assignment, with what is new of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Assigned {
    /// The assignment.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// What hello would answer, if the fleet is another than the agent says it knows, or the agent knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub welcome: Option<Welcome>,
}

/// What an agent has already.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AssignmentQuery {
    /// Whose assignment.
    node: NodeId,
    /// The cursor of the last answer; 0 for everything.
    #[serde(default, deserialize_with = "record_number")]
    cursor: Option<u64>,
    /// Hold the answer for up to this many seconds until there is something new.
    #[serde(default)]
    #[param(minimum = 0, maximum = 60, default = 0)]
    wait_s: u64,
    /// The `fleet` of the last answer: if it is another by now, or none is given, the answer brings a welcome.
    fleet: Option<String>,
}

/// Take the assignment.
///
/// Send the `ETag` of the last answer as `If-None-Match`: the answer then comes as soon as there are other moves or
/// directories, other warm-ups to count, or the switch was thrown; and after `wait_s` in any case.
#[utoipa::path(get, path = "/v1/agent/assignment", tag = "agents",
    params(AssignmentQuery, ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the last answer.")),
    responses(
        (status = 200, description = "What is new since the cursor; empty if nothing is.", body = Assigned,
         headers(("etag" = String, description = "Changes with the warm-ups to count and the switch."))),
        (status = 404, description = "This node has not said hello.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn assignment(
    State(api): State<Api>,
    Query(query): Query<AssignmentQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = wait::known_etag(&headers)?;
    let agent = heard_of(&api, &query.node).await?;
    // Who has had nothing yet is answered at once, with what there is.
    let begins = known.is_none() && query.cursor.is_none_or(|c| c == 0);
    let first = Mutex::new(known);
    let look = || async {
        let (assignment, counted) = assigned(&api, &agent, query.cursor.unwrap_or(0)).await?;
        let etag = etag(&counted, &assignment);
        let has = first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| etag.clone()).clone();
        let nothing = assignment.run.is_empty() && assignment.cancel.is_empty() && assignment.learn.is_empty();
        let enough = !nothing || has != etag || begins;
        Ok(if enough { Seen::Enough((assignment, counted)) } else { Seen::Same((assignment, counted)) })
    };
    let topics = [Topic::Plans, Topic::Namespace, Topic::Warmups, Topic::Settings];
    let (mut assignment, counted) = wait::until(&api, &topics, query.wait_s, look).await?;
    // Who knows none may have said hello before the last change.
    let is_news = query.fleet.is_none_or(|known| assignment.fleet.as_ref() != Some(&known));
    let welcome = if is_news {
        fleet::settles(&api, &agent).await?;
        // Its digest first: what changes after it is news again.
        assignment.fleet = Some(fleet::digest(&api).await?);
        Some(welcome(&api, &agent.node, &agent.site, Timestamp::now()).await?)
    } else {
        None
    };
    let etag = etag(&counted, &assignment);
    let mut response = Json(Assigned { assignment, welcome }).into_response();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// The agent as it said hello, its life sign written down.
async fn heard_of(api: &Api, node: &NodeId) -> Result<Agent, ApiError> {
    let now = Timestamp::now();
    let mut all = api.catalog.agents().await?;
    let place = all.iter().position(|a| &a.node == node).ok_or_else(|| ApiError::not_found("agent", node))?;
    let mut agent = all.swap_remove(place);
    if now.since(agent.seen_at) >= HEARD_EVERY {
        agent.seen_at = now;
        api.catalog.put_agent(&agent).await?;
    }
    Ok(agent)
}

/// Another value when the warm-ups to count, the switch or the fleet are others.
fn etag(counted: &blake3::Hash, assignment: &Assignment) -> String {
    let Assignment { prefetch_off, fleet, .. } = assignment;
    wait::etag_of(format!("{counted}{prefetch_off}{fleet:?}").as_bytes())
}

/// What there is for an agent now, and the digest of the warm-ups that it counts.
async fn assigned(api: &Api, agent: &Agent, cursor: u64) -> Result<(Assignment, blake3::Hash), ApiError> {
    let now = Timestamp::now();
    let catalog = api.catalog.as_ref();
    // What a copy holds is no word on the volume's names.
    let (sources, _) = sources_and_copies(agent, &api.directory.topology());
    let learn = match sources.as_slice() {
        [] => Vec::new(),
        volumes => catalog.take_wishes(volumes, &agent.node, now, LEARN_LEASE, LEARN_AT_ONCE).await?,
    };
    let census = api.census.of(api, &agent.site).await?;
    let prefetch_off = catalog.prefetch_off().await?;
    let moves = catalog.assignment_since(&agent.site, cursor).await?;
    let assignment = Assignment {
        cursor: moves.cursor,
        run: moves.run,
        cancel: moves.cancel,
        learn,
        census: census.requests.clone(),
        prefetch_off,
        fleet: Some(fleet::digest(api).await?),
    };
    Ok((assignment, census.digest))
}

/// The warm-ups that one site's stores count.
pub(crate) struct CensusList {
    /// The change counter of warm-ups before they were read.
    counter: u64,
    requests: Vec<CensusRequest>,
    digest: blake3::Hash,
}

/// The lists of all sites, each read anew only when some warm-up changed: every agent asks for its own with each
/// poll, and there may be many warm-ups.
#[derive(Default)]
pub(crate) struct CensusLists(Mutex<HashMap<SiteId, Arc<CensusList>>>);

impl CensusLists {
    async fn of(&self, api: &Api, site: &SiteId) -> Result<Arc<CensusList>, ApiError> {
        let counter = *api.catalog.changes(Topic::Warmups).borrow();
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(site).cloned();
        if let Some(list) = kept.filter(|list| list.counter == counter) {
            return Ok(list);
        }
        let requests = census_requests(api, site).await?;
        let digest = blake3::hash(&serde_json::to_vec(&requests).unwrap_or_default());
        let list = Arc::new(CensusList { counter, requests, digest });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), Arc::clone(&list));
        Ok(list)
    }
}

/// States in which somebody wants to know how much is there.
const COUNTED: [WarmupState; 6] = [
    WarmupState::Queued,
    WarmupState::Planned,
    WarmupState::Moving,
    WarmupState::Partial,
    WarmupState::Ready,
    WarmupState::Degraded,
];

async fn census_requests(api: &Api, site: &SiteId) -> Result<Vec<CensusRequest>, ApiError> {
    let filter = WarmupFilter { site: Some(site.clone()), states: COUNTED.to_vec() };
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = api.catalog.warmups(&filter, cursor, WARMUPS_AT_ONCE).await?;
        all.extend(page.items.into_iter().map(|w| CensusRequest {
            pin_until: w.pinned_until(),
            warmup: w.id,
            volume: w.request.volume,
            paths: w.request.paths,
            except: w.request.except,
            globs: w.request.globs,
        }));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}
