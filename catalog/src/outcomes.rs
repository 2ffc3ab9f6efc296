//! What came of it: states of moves, what is resident where, what was read, what was refused.

use async_trait::async_trait;
use foretide_flow::{
    FilePath, OutcomeBatch, ReadSummary, Refusal, RunId, SiteId, Timestamp, VolumeId, WarmupId, WorkloadId,
};
use serde::{Deserialize, Serialize};

use crate::{Page, Result};

/// One site's store and what prefetching did there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The site.
    pub site: SiteId,
    /// Bytes resident and verified, all nodes of the site added up, as their stores counted.
    pub resident_bytes: u64,
    /// Bytes that the stores may hold.
    pub capacity_bytes: u64,
    /// When the last of its nodes reported; none if none did.
    pub reported_at: Option<Timestamp>,
    /// Bytes that moves brought.
    pub prefetched_bytes: u64,
    /// Bytes that crossed the link for them.
    pub wire_bytes: u64,
    /// Bytes evicted that a move had brought and nobody had read.
    pub wasted_bytes: u64,
    /// Bytes read through the mount.
    pub read_bytes: u64,
    /// Of these, bytes that a move had brought before they were read.
    pub read_prefetched_bytes: u64,
    /// Reads that found their bytes.
    pub hits: u64,
    /// Reads that found them on their way.
    pub late: u64,
    /// Reads that nobody had foreseen.
    pub misses: u64,
    /// Waiting of all readers added up, seconds.
    pub waited_s: f64,
}

/// What of a file is resident at a site, as far as outcomes told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentFile {
    /// From which volume.
    pub volume: VolumeId,
    /// Which file.
    pub path: FilePath,
    /// Byte ranges, start and end (exclusive), in order, none touching the next.
    pub ranges: Vec<(u64, u64)>,
}

impl ResidentFile {
    /// Bytes of it that are resident.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }
}

/// What a batch of outcomes changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomesRecorded {
    /// False if it had been recorded before: nothing was changed.
    pub new: bool,
    /// Files of the batch's site of which more or less is resident than before, as they are now, in order of volume
    /// and path; one without ranges is gone.
    pub resident: Vec<ResidentFile>,
}

/// Which read summaries are wanted. Absent conditions match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFilter {
    /// Of this run.
    pub run: Option<RunId>,
    /// Of this workload.
    pub workload: Option<WorkloadId>,
    /// At this site.
    pub site: Option<SiteId>,
    /// Of runs begun at or after this.
    pub started_from: Option<Timestamp>,
}

/// A refusal and its place in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusalRecord {
    /// Grows.
    pub id: u64,
    /// What was refused.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// Outcomes and what follows from them.
#[async_trait]
pub trait Outcomes: Send + Sync {
    /// Takes what an agent reports, once: states of moves (with warm-ups that they serve becoming `Moving`),
    /// residency, reads added up per run and site, evictions, refusals, counts for warm-ups (which become `Ready` or
    /// `Degraded` by them: promise C), and the store's size.
    ///
    /// A whole read of a file whose size is known makes it resident, as does a move's end; an eviction ends it.
    async fn record_outcomes(&self, batch: &OutcomeBatch, at: Timestamp) -> Result<OutcomesRecorded>;

    /// One site's; all zero if nothing was ever reported.
    async fn site_status(&self, site: &SiteId) -> Result<SiteStatus>;

    /// Everything resident at a site, in order of volume and path: what a planner needs at once.
    async fn resident(&self, site: &SiteId) -> Result<Vec<ResidentFile>>;

    /// Where some of one file is resident.
    async fn resident_sites(&self, volume: &VolumeId, path: &FilePath) -> Result<Vec<(SiteId, ResidentFile)>>;

    /// Forgets what is resident at a site: its store is new or was emptied.
    async fn forget_resident(&self, site: &SiteId) -> Result<()>;

    /// Reads of runs, those first read last first. A run whose start was never told has workload `unknown` and begins
    /// with its first read.
    async fn read_summaries(&self, filter: &ReadFilter, cursor: Option<u64>, limit: usize)
    -> Result<Page<ReadSummary>>;

    /// Refusals with an id above `after`, oldest first. The same refusal is kept once an hour.
    async fn refusals(&self, after: u64, limit: usize) -> Result<Vec<RefusalRecord>>;

    /// The last count of a warm-up by its site's store, as (files, bytes); none before the first. Where several nodes
    /// of the site keep a store, the fullest: two counts of one file must not add up to a ready warm-up.
    async fn census(&self, warmup: &WarmupId) -> Result<Option<(u64, u64)>>;
}

/// A refusal repeated by every plan is one refusal an hour.
const REFUSAL_REPEAT_US: i64 = 3_600_000_000;

/// What makes two refusals the same: all but the moment within the hour.
pub(crate) fn refusal_key(refusal: &Refusal) -> [u8; 32] {
    let hour = refusal.at.0.div_euclid(REFUSAL_REPEAT_US);
    let parts: [&[u8]; 6] = [
        refusal.volume.as_str().as_bytes(),
        refusal.path.as_bytes(),
        refusal.to.as_str().as_bytes(),
        refusal.rule.as_bytes(),
        refusal.by.as_bytes(),
        &hour.to_le_bytes(),
    ];
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A site of which nothing was reported.
pub(crate) fn empty_status(site: &SiteId) -> SiteStatus {
    SiteStatus {
        site: site.clone(),
        resident_bytes: 0,
        capacity_bytes: 0,
        reported_at: None,
        prefetched_bytes: 0,
        wire_bytes: 0,
        wasted_bytes: 0,
        read_bytes: 0,
        read_prefetched_bytes: 0,
        hits: 0,
        late: 0,
        misses: 0,
        waited_s: 0.0,
    }
}
