//! What is simulated: sites, files, jobs, faults, and who foresees.

use foretide_flow::{
    AccessBatch, FilePath, Forecast, Ruleset, RunId, SiteId, Timestamp, Topology, TopologyError, VolumeId, WorkloadId,
};

use crate::Supply;

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Of which volume.
    pub volume: VolumeId,
    /// Where in it.
    pub path: FilePath,
    /// Its bytes.
    pub bytes: u64,
}

/// A read, and what is done before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Of which of the world's files.
    pub file: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Computing before it, microseconds.
    pub compute_us: i64,
}

/// A process that reads and computes, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its run; several processes may share one.
    pub run: RunId,
    /// Its workload.
    pub workload: WorkloadId,
    /// Its number within the run.
    pub process: u32,
    /// Where it runs.
    pub site: SiteId,
    /// When it starts, microseconds from the beginning.
    pub starts_us: i64,
    /// What it reads.
    pub reads: Vec<Read>,
}

/// What goes wrong, on every link and at every site at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The links are cut from, until; seconds.
    pub cut_s: Option<(f64, f64)>,
    /// Part of their rate that the links have, from, until; seconds.
    pub slow: Option<(f64, f64, f64)>,
    /// The agents die and come back with empty caches, seconds.
    pub agent_lost_s: Option<f64>,
    /// From then on the world's other rules hold, seconds.
    pub revoked_s: Option<f64>,
}

impl Faults {
    /// Part of their rate that links have now, and until when that holds, microseconds.
    pub(super) fn health(&self, now_us: i64) -> (f64, i64) {
        let edges = self.cut_s.into_iter().flat_map(|(a, b)| [a, b]);
        let edges = edges.chain(self.slow.into_iter().flat_map(|(_, a, b)| [a, b])).chain(self.agent_lost_s);
        let next = edges.map(|s| (s * 1e6).ceil() as i64).filter(|e| *e > now_us).min();
        let now_s = now_us as f64 / 1e6;
        let within = |(a, b): (f64, f64)| a <= now_s && now_s < b;
        let slow = self.slow.filter(|(_, a, b)| within((*a, *b))).map_or(1.0, |s| s.0);
        let share = if self.cut_s.is_some_and(within) { 0.0 } else { slow };
        (share, next.unwrap_or(i64::MAX))
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct World {
    /// Sites, links, volumes.
    pub topology: Topology,
    /// Who gives beside the sites of the volumes. What files share is not simulated.
    pub supply: Supply,
    /// Borders.
    pub rules: Ruleset,
    /// Borders from [`Faults::revoked_s`] on.
    pub revoked: Ruleset,
    /// Files that jobs read.
    pub files: Vec<File>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// What goes wrong.
    pub faults: Faults,
    /// Prefetched bytes that may leave unread before all prefetch is muted.
    pub waste_budget_bytes: u64,
    /// Bytes that prefetch may move in all, where they are limited.
    pub move_budget_bytes: Option<u64>,
    /// What has not ended by then is given up, microseconds from the beginning.
    pub end_us: i64,
}

/// Why a world cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorldError {
    /// A rate of zero, a site that is not there.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Files of a volume that nobody holds.
    #[error("volume {0} is read, but is not in the topology: add it under [volume]")]
    UnknownVolume(VolumeId),
    /// A job at a place that is not there.
    #[error("a job runs at {0}, which is not in the topology: add it under [site], or name another site for the jobs")]
    UnknownSite(SiteId),
    /// A job that can never read.
    #[error("a job at {to} reads volume {volume}, but no link leads there from {from}: add one under [[link]]")]
    NoLink {
        /// Where the volume is.
        from: SiteId,
        /// Where the job is.
        to: SiteId,
        /// What it reads.
        volume: VolumeId,
    },
    /// A read of a file that the world does not have.
    #[error("a job reads file number {0}, but there are only {1} files")]
    UnknownFile(u32, usize),
}

impl World {
    /// Whether every job can run.
    ///
    /// # Errors
    /// [`WorldError`] for the first that cannot.
    pub fn check(&self) -> Result<(), WorldError> {
        self.topology.check()?;
        for job in &self.jobs {
            if !self.topology.sites.contains_key(&job.site) {
                return Err(WorldError::UnknownSite(job.site.clone()));
            }
            for read in &job.reads {
                let unknown = || WorldError::UnknownFile(read.file, self.files.len());
                let file = self.files.get(read.file as usize).ok_or_else(unknown)?;
                let volume = self.topology.volumes.get(&file.volume);
                let from = &volume.ok_or_else(|| WorldError::UnknownVolume(file.volume.clone()))?.at;
                if !self.holds_all(&file.volume, &job.site) && self.topology.link(from, &job.site).is_none() {
                    let (from, to, volume) = (from.clone(), job.site.clone(), file.volume.clone());
                    return Err(WorldError::NoLink { from, to, volume });
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// Whether all of a volume stands at a site: its source, or a copy.
    pub(super) fn holds_all(&self, volume: &VolumeId, site: &SiteId) -> bool {
        let own = self.topology.volumes.get(volume).is_some_and(|v| v.at == *site);
        own || self.supply.copies.get(volume).is_some_and(|copies| copies.contains(site))
    }
}

/// What is still to come: for those who need not foresee because they know.
#[derive(Clone, Copy, Debug)]
pub struct Future<'w> {
    pub(super) world: &'w World,
    /// Each job's next read.
    pub(super) next: &'w [usize],
    /// When each job starts, or may go on, at the earliest; microseconds from the beginning.
    pub(super) ready_us: &'w [i64],
}

impl<'w> Future<'w> {
    /// Jobs with reads that have yet to come, the reads, and when the first of them comes at the earliest, microseconds.
    pub fn coming(&self) -> impl Iterator<Item = (&'w Job, &'w [Read], i64)> + use<'w> {
        let (next, ready) = (self.next, self.ready_us);
        let jobs = self.world.jobs.iter().zip(next).zip(ready);
        jobs.map(|((job, next), ready)| (job, &job.reads[*next..], *ready)).filter(|(_, reads, _)| !reads.is_empty())
    }

    /// A file of the world.
    pub fn file(&self, number: u32) -> &'w File {
        &self.world.files[number as usize]
    }

    /// Sites, links, volumes.
    pub fn topology(&self) -> &'w Topology {
        &self.world.topology
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.world.files.len()
    }
}

/// Who foresees.
pub trait Foresee {
    /// What was read at a site since the last round.
    fn observe(&mut self, batch: &AccessBatch);

    /// Everything that is foreseen at `now`.
    fn foresee(&mut self, now: Timestamp, future: &Future<'_>) -> Vec<Forecast>;
}
