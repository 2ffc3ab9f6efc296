//! The scenes: the same kind of job, under five conditions. Each starts with cold caches.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use foretide_flow::{FilePath, ReadSummary, SiteId, Timestamp, VolumeId, WarmupId, WarmupRequest, WarmupState};

use super::DemoError;
use super::house::{Folders, House};
use super::job::{self, JobReport, Shape, drop_page_cache};
use super::report::Scene;

/// Between two looks at what has been counted: longer than a report is under way.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long counts may go on changing after the cache was emptied before they are taken as they are.
const SETTLE_PATIENCE: Duration = Duration::from_secs(4);
/// A run's start is known by the kernel's ticks since its boot, and may seem a little earlier than it was.
const START_GRAIN: Duration = Duration::from_millis(500);
/// How long a warm-up may take before the demo gives up: many times what the link needs.
const WARMUP_PATIENCE: Duration = Duration::from_secs(120);

/// The running demo, as the scenes need it.
pub struct Stage<'a> {
    /// Control plane, agents, link.
    pub house: &'a mut House,
    /// The job.
    pub shape: Shape,
    /// Waiting for batches in scene `local`, seconds: what local files cost.
    pub local_waited_s: f64,
    /// Where data and logs are.
    pub folders: Folders,
}

impl Stage<'_> {
    /// Through the mount, with all prefetch switched off.
    ///
    /// # Errors
    /// What failed, by name.
    pub async fn on_demand(&mut self, data: PathBuf) -> Result<Scene, DemoError> {
        self.house.control().switch_prefetch(false).await?;
        let scene = self.scene("on_demand", data, &self.shape.clone()).await?;
        self.house.control().switch_prefetch(true).await?;
        Ok(scene)
    }

    /// A data set asked for over the API; the job starts when the status says READY.
    ///
    /// # Errors
    /// What failed, by name.
    pub async fn warmup(&mut self, volume: &str, data: PathBuf, need_within: Duration) -> Result<Scene, DemoError> {
        let before = self.counters().await?;
        let request = WarmupRequest {
            need_by: Some(Timestamp::now() + need_within),
            label: "demo".into(),
            ..WarmupRequest::new(VolumeId::new(volume)?, vec![FilePath::root()], SiteId::new("gpu")?)
        };
        let id = self.house.control().ask_warmup(&request).await?.id;
        let asked = Instant::now();
        loop {
            let warmup = self.house.control().warmup(&id).await?;
            match warmup.state {
                WarmupState::Ready => break,
                WarmupState::Failed | WarmupState::Cancelled => {
                    return Err(DemoError::Scene { scene: "warmup", why: warmup.why.unwrap_or_default() });
                }
                _ if asked.elapsed() > WARMUP_PATIENCE => {
                    let why = format!("still {:?} with {} bytes resident", warmup.state, warmup.resident_bytes);
                    return Err(DemoError::Scene { scene: "warmup", why });
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            self.house.check_alive()?;
        }
        self.play("warmup", data, &self.shape.clone(), before, Some(&id)).await
    }

    /// A job on cold caches, with Foretide as it is.
    ///
    /// # Errors
    /// What failed, by name.
    pub async fn scene(&mut self, name: &'static str, data: PathBuf, shape: &Shape) -> Result<Scene, DemoError> {
        let before = self.counters().await?;
        self.play(name, data, shape, before, None).await
    }

    /// A run of the job that is no row: it only gives the calendar something to see.
    ///
    /// # Errors
    /// If the job fails.
    pub async fn rehearse(&mut self, data: PathBuf) -> Result<JobReport, DemoError> {
        let shape = Shape { epochs: 1, ..self.shape.clone() };
        job::run(&data, &shape, self.house.gpu_namespace(), &self.folders.log("job-rehearsal")).await
    }

    /// Empties the cache of the GPU site and the page cache, so that what was prefetched and never read shows itself on
    /// its way out; answers what has been counted once all of that has been told to the control plane.
    ///
    /// # Errors
    /// If the agent refuses, or the control plane does not answer.
    pub async fn cool(&mut self) -> Result<Counters, DemoError> {
        let crossed_bytes = self.house.crossed_bytes();
        self.house.empty_cache()?;
        drop_page_cache(&self.folders.sources())?;
        let (emptied, mut wasted_before) = (Instant::now(), None);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let counters = self.counters().await?;
            if wasted_before == Some(counters.wasted_bytes) || emptied.elapsed() > SETTLE_PATIENCE {
                return Ok(Counters { crossed_bytes, ..counters });
            }
            wasted_before = Some(counters.wasted_bytes);
        }
    }

    async fn counters(&self) -> Result<Counters, DemoError> {
        let sites = self.house.control().sites().await?.items;
        let gpu = sites.iter().find(|s| s.site.as_str() == "gpu");
        Ok(Counters {
            prefetched_bytes: gpu.map_or(0, |s| s.prefetched_bytes),
            wasted_bytes: gpu.map_or(0, |s| s.wasted_bytes),
            wire_bytes: gpu.map_or(0, |s| s.wire_bytes),
            crossed_bytes: self.house.crossed_bytes(),
        })
    }

    /// Plays a scene whose moves began to be counted at `before`.
    ///
    /// # Errors
    /// What failed, by name.
    pub async fn play(
        &mut self,
        name: &'static str,
        data: PathBuf,
        shape: &Shape,
        before: Counters,
        asked: Option<&WarmupId>,
    ) -> Result<Scene, DemoError> {
        let started_at = Timestamp::now() - START_GRAIN;
        let log = self.folders.log(&format!("job-{name}"));
        let job = job::run(&data, shape, self.house.gpu_namespace(), &log).await?;
        self.house.check_alive()?;
        if let Some(warmup) = asked {
            // Its job has run: the data need not be brought back.
            self.house.control().cancel_warmup(warmup).await?;
        }
        let after = self.cool().await?;
        let reads = self.house.control().reads_since(started_at).await?;
        Ok(row(name, &job, self.local_waited_s, &before, &after, &reads))
    }
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    prefetched_bytes: u64,
    wasted_bytes: u64,
    wire_bytes: u64,
    crossed_bytes: Option<u64>,
}

fn row(
    name: &'static str,
    job: &JobReport,
    local_waited_s: f64,
    before: &Counters,
    after: &Counters,
    reads: &[ReadSummary],
) -> Scene {
    let prefetched = after.prefetched_bytes - before.prefetched_bytes;
    let wasted_bytes = after.wasted_bytes - before.wasted_bytes;
    let crossed = after.crossed_bytes.zip(before.crossed_bytes).map(|(a, b)| a - b);
    let read: u64 = reads.iter().map(|r| r.bytes).sum();
    let covered: u64 = reads.iter().map(|r| r.prefetched_bytes).sum();
    Scene {
        name,
        au: job.au,
        wall_s: job.wall_s,
        stall_s: (job.waited_s - local_waited_s).max(0.0),
        first_batch_s: job.first_batch_s,
        bytes_moved: crossed.unwrap_or(after.wire_bytes - before.wire_bytes),
        coverage: (read > 0).then(|| covered as f64 / read as f64),
        precision: (prefetched > 0).then(|| 1.0 - wasted_bytes as f64 / prefetched as f64),
        wasted_bytes,
    }
}
