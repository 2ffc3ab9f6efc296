//! What the API needs of other rooms. It imports none of them: the binary plugs each in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use foretide_catalog::{CatalogError, ResidentFile, Run};
use foretide_flow::{
    FilePath, Forecast, LeftOut, Listing, Mode, Move, NodeId, OutcomeBatch, Plan, Ruleset, SiteId, Timestamp, Topology,
    VolumeId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routes::volumes::AddedVolume;

/// What every site may know: topology and rules as they hold now.
pub trait Directory: Send + Sync {
    /// Sites, links, volumes.
    fn topology(&self) -> Arc<Topology>;

    /// Which data may be where.
    fn rules(&self) -> Arc<Ruleset>;

    /// [`digest_of`] these two.
    fn digest(&self) -> blake3::Hash;

    /// How far Foretide acts on its own forecasts.
    fn mode(&self) -> Mode;

    /// These volumes are added to those of the configuration, all of them: the topology has them from now on.
    fn volumes_added(&self, added: &BTreeMap<VolumeId, AddedVolume>);
}

/// Another value for other sites, links, volumes or rules: by it agents see that they should say hello again.
pub fn digest_of(topology: &Topology, rules: &Ruleset) -> blake3::Hash {
    let written: Vec<_> = rules.rules().collect();
    // Neither of them holds anything that JSON cannot say.
    blake3::hash(&serde_json::to_vec(&(topology, written, rules.default_effect())).unwrap_or_default())
}

/// An access batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Its number.
    pub sequence: u64,
    /// Accesses in it.
    pub accesses: u64,
    /// False if it had been taken before; nothing changed then.
    pub new: bool,
}

/// Why an access batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It does not decode, or holds what cannot be. Sending it again does not help.
    #[error("the access batch of node {node} cannot be used: {why}")]
    Unusable {
        /// Who sent it.
        node: NodeId,
        /// What is wrong.
        why: String,
    },
    /// It says that it comes from another node than the one that sent it.
    #[error("node {sent_by} sent an access batch that says it is of node {says}")]
    OtherNode {
        /// Who sent it.
        sent_by: NodeId,
        /// What it says.
        says: NodeId,
    },
    /// It could not be written down now. The agent keeps it and sends it again.
    #[error("the access batch could not be kept: {0}")]
    TryAgain(String),
}

/// Takes access batches: decodes them, keeps them in the lake, hands them to the model.
#[async_trait]
pub trait AccessSink: Send + Sync {
    /// Takes one batch as the agent's Parquet. After `Ok` it is durable (promise E); one that comes twice counts
    /// once.
    ///
    /// # Errors
    /// [`Rejected`].
    async fn accept(&self, node: &NodeId, parquet: Bytes) -> Result<Accepted, Rejected>;
}

/// Is told what agents reported, once it is written down.
#[async_trait]
pub trait Listener: Send + Sync {
    /// Directories became known.
    async fn listings(&self, listings: Vec<Listing>);

    /// Moves ended, files were read or evicted; `resident` are the files of the batch's site of which more or less is
    /// there than before. Not called for a batch that came before.
    async fn outcomes(&self, batch: OutcomeBatch, resident: Vec<ResidentFile>);

    /// A job told what it will read.
    async fn announced(&self, forecast: Forecast);
}

/// Where could a job run, or this data be?
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Of which volume.
    pub volume: VolumeId,
    /// Files or directories with all below.
    pub paths: Vec<FilePath>,
    /// Of what is below `paths`, not this.
    pub except: Vec<FilePath>,
    /// Of that, only what matches one of these globs, which were checked; all if empty.
    pub globs: Vec<String>,
    /// Candidates; all sites with a cache, and the volume's own, if empty.
    pub sites: Vec<SiteId>,
    /// Accelerators that are free at a site, where the asker knows.
    pub free_accelerators: BTreeMap<SiteId, u32>,
}

/// Candidates for a [`Question`], the best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// Files that the question covers, as far as they are known.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether all of them are known; if not, there may be more.
    pub complete: bool,
    /// The candidates; those that cannot be come last, with the reason.
    pub sites: Vec<SiteAdvice>,
}

/// What one candidate means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SiteAdvice {
    /// Where.
    pub site: SiteId,
    /// Whether it can be there at all.
    pub possible: bool,
    /// The residency rule that forbids it, if one does.
    pub rule: Option<String>,
    /// Bytes that are missing there.
    pub missing_bytes: u64,
    /// Seconds until all of it is there, with even odds.
    pub ready_p50_s: f64,
    /// Seconds until all of it is there, nine times in ten.
    pub ready_p90_s: f64,
    /// Money for bringing it there.
    pub cost: f64,
    /// Seconds that a job stalls in all if it starts now and reads everything once while it comes.
    pub stall_now_s: f64,
    /// Accelerators that are free there, if known.
    pub free_accelerators: Option<u32>,
    /// Money of waiting and moving, by which candidates are ranked.
    pub price: f64,
    /// In words.
    pub reason: String,
}

/// How one plan differs from an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanChanges {
    /// Moves that are new.
    pub added: Vec<Move>,
    /// Moves that are gone: done, or no longer wanted.
    pub removed: Vec<Move>,
    /// Moves whose source or start differs, as the later plan has them.
    pub changed: Vec<MoveChange>,
    /// Moves that stayed as they were.
    pub kept: u64,
}

/// A move that a later plan has otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveChange {
    /// As the later plan has it.
    #[serde(flatten)]
    pub now: Move,
    /// When it was to start before.
    pub start_before: Timestamp,
}

/// Answers at once from what is known: the planner's arithmetic and words, no plan of its own.
#[async_trait]
pub trait Adviser: Send + Sync {
    /// Everything that a plan says of a file, or of a directory and what is below it, in words.
    fn explain(&self, plan: &Plan, path: &FilePath) -> String;

    /// What a plan would move if a mode did not hold it back, folder by folder.
    fn proposals(&self, plan: &Plan) -> Vec<LeftOut>;

    /// How `after` differs from `before`.
    fn changes(&self, before: &Plan, after: &Plan) -> PlanChanges;

    /// The candidates, the best first.
    ///
    /// # Errors
    /// The catalog's.
    async fn advise(&self, question: Question, now: Timestamp) -> Result<Advice, CatalogError>;
}

/// Which files a run has read, or why nobody can say.
pub type FilesRead = Result<BTreeMap<VolumeId, BTreeSet<FilePath>>, String>;

/// What would have been, of what was read in a time, if something had been otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
    /// All jobs run here; where they ran if absent.
    pub at: Option<SiteId>,
    /// Each cache holds so many bytes.
    pub cache_bytes: Option<u64>,
    /// Each link carries so many bits a second.
    pub link_bits_per_s: Option<u64>,
    /// Prefetch may move so many bytes in all.
    pub budget_bytes: Option<u64>,
}

/// One way to get the data, and what would have come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Way {
    /// `off` (no cache), `on demand` (a cache that keeps what was read), `foretide`, or `oracle` (a prefetcher that knows
    /// what comes, under the same links and caches).
    pub name: String,
    /// Whether every read was done.
    pub finished: bool,
    /// When the last one was, seconds from the first.
    pub ended_s: f64,
    /// Waiting of all jobs added up, seconds.
    pub stall_s: f64,
    /// Reads.
    pub reads: u64,
    /// Reads that did not wait.
    pub hits: u64,
    /// Bytes that moves brought.
    pub moved_bytes: u64,
    /// Of these, bytes that left unread, or never were read.
    pub wasted_bytes: u64,
    /// Bytes that crossed links, for moves and for readers.
    pub link_bytes: u64,
    /// Money for links.
    pub money: f64,
    /// The busiest minute of a link, as part of what it carries.
    pub peak_link: f64,
    /// Most bytes in a cache.
    pub peak_cache_bytes: u64,
}

/// What would have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Processes that read.
    pub jobs: u64,
    /// Files that they read.
    pub files: u64,
    /// Bytes of these, as far as they were read.
    pub bytes: u64,
    /// What would have come of each way.
    pub ways: Vec<Way>,
}

/// Why there is no answer from what was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayed {
    /// It cannot be answered as it was asked; why, in words.
    #[error("{0}")]
    Refused(String),
    /// As many questions as may be are being answered.
    #[error("another such question is being answered, and it takes a processor")]
    Busy,
}

/// Answers from what was recorded of accesses.
#[async_trait]
pub trait Recordings: Send + Sync {
    /// Plays what was recorded again in a world that is otherwise.
    ///
    /// # Errors
    /// [`NotReplayed`].
    async fn what_if(&self, question: WhatIf) -> Result<Replayed, NotReplayed>;

    /// The files that a run has read and had not made itself; an error in words if there are more than `most`, or if what
    /// was recorded of it is no longer kept.
    async fn files_read(&self, run: &Run, most: usize) -> FilesRead;
}

/// Carries a webhook's message to its receiver.
#[async_trait]
pub trait Courier: Send + Sync {
    /// Posts a body of JSON and answers the receiver's status.
    ///
    /// # Errors
    /// Why no answer came, in words.
    async fn post(&self, url: &str, headers: &[(&'static str, String)], body: Vec<u8>) -> Result<u16, String>;
}

/// Reads from the web what the issuer of people's tokens publishes.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The body of an answer with status 200 to a GET, of a bounded size and within a bounded time.
    ///
    /// # Errors
    /// Why there is none, in words.
    async fn get(&self, url: &str) -> Result<Vec<u8>, String>;
}

/// What a node needs to be an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// Its certificate, in PEM format.
    pub certificate: String,
    /// That of the authority.
    pub authority: String,
    /// The token that agents show.
    pub token: String,
}

/// Signs for nodes that join: holds the key of the authority behind all agents' certificates.
pub trait Certifier: Send + Sync {
    /// SHA-256 of the authority's certificate, as 64 hexadecimal digits.
    fn fingerprint(&self) -> &str;

    /// The papers of that node at that site, over the key of its request.
    ///
    /// # Errors
    /// What is wrong with the request, in words.
    fn certify(&self, node: &NodeId, site: &SiteId, request_pem: &str) -> Result<Papers, String>;
}

/// All of them.
pub struct Ports {
    /// Topology and rules.
    pub directory: Arc<dyn Directory>,
    /// Where access batches go.
    pub accesses: Arc<dyn AccessSink>,
    /// Who is told what agents and jobs reported.
    pub listener: Arc<dyn Listener>,
    /// Who answers where something could be.
    pub adviser: Arc<dyn Adviser>,
    /// Who knows what was read.
    pub recordings: Arc<dyn Recordings>,
    /// Who carries webhooks.
    pub courier: Arc<dyn Courier>,
    /// Who reads what an issuer publishes; asked for nothing without [`Config::oidc`](crate::Config).
    pub reader: Arc<dyn Reader>,
    /// Who signs for nodes that join, if the control plane may.
    pub certifier: Option<Arc<dyn Certifier>>,
}
