//! The thread that observes: polls the source, folds, and puts batches into the spool.
//!
//! It runs beside whoever ships, so that a control plane that is slow or gone costs the observed jobs nothing and the
//! kernel's buffers are always drained (promise A). What it hands over goes through the spool on disk.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foretide_flow::Timestamp;

use crate::parquet::{self, Encoded};
use crate::pipeline::Pipeline;
use crate::probe::{Cost, Report};
use crate::procfs::Procfs;
use crate::runs::Runs;
use crate::source::kernel::{Kernel, Programs};
use crate::source::{Observation, Recorder, Source};
use crate::spool::Spool;
use crate::{CollectorError, Config, WatchedVolume};

/// How often members of runs are looked for in `/proc`, in case an exit was missed.
const LOOK_THROUGH_INTERVAL: Duration = Duration::from_secs(1);

/// A running observation. Stops when dropped.
pub struct Collector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    programs: Option<Arc<Programs>>,
}

struct Shared {
    /// Held for the time of one file's write or read.
    spool: Mutex<Spool>,
    pushed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Collector {
    /// Observes through the kernel's probes. The report says which of them run; see [`Report::observes_reads`].
    ///
    /// # Errors
    /// [`CollectorError`] if a root or the spool cannot be used, or if the kernel refuses the probe that all depends on:
    /// then let the mount observe, with [`Collector::start_from`] and [`crate::source::feed`].
    pub fn start(config: Config, watch: Vec<WatchedVolume>) -> Result<(Self, Report), CollectorError> {
        check_roots(&watch)?;
        let (kernel, report) = Kernel::start(config.tier, watch, &config.ignore_processes, config.ring_bytes)?;
        if !report.observes_reads() {
            return Err(CollectorError::Kernel(report.to_string().replace('\n', "; ")));
        }
        let programs = kernel.programs();
        let mut collector = Self::start_from(config, Box::new(kernel))?;
        collector.programs = Some(programs);
        Ok((collector, report))
    }

    /// Observes through another source: the mount, or a recorded trace.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the spool cannot be used.
    pub fn start_from(config: Config, source: Box<dyn Source>) -> Result<Self, CollectorError> {
        Self::run(config, source, None)
    }

    /// As [`Collector::start`], and writes what the source tells to a trace that [`crate::source::Replay`] reads.
    ///
    /// # Errors
    /// As [`Collector::start`], and if the trace cannot be written.
    pub fn record(config: Config, watch: Vec<WatchedVolume>, trace: &Path) -> Result<(Self, Report), CollectorError> {
        check_roots(&watch)?;
        let (kernel, report) = Kernel::start(config.tier, watch, &config.ignore_processes, config.ring_bytes)?;
        let recorder = Recorder::create(trace)?;
        Ok((Self::run(config, Box::new(kernel), Some(recorder))?, report))
    }

    fn run(config: Config, source: Box<dyn Source>, recorder: Option<Recorder>) -> Result<Self, CollectorError> {
        let spool = Spool::open(&config.spool_dir, config.spool_bytes)?;
        let shared =
            Arc::new(Shared { spool: Mutex::new(spool), pushed: Condvar::new(), stop: AtomicBool::new(false) });
        let runs = Runs::new(Box::new(Procfs), format!("{}-{}", config.node, boot_id()), std::process::id())
            .telling_numbers(config.numbers);
        let pipeline = Pipeline::new(config.node.clone(), config.site.clone(), runs, booted_at(), config.paths_kept);
        let mut worker = Worker { config, source, recorder, pipeline, shared: shared.clone(), seen: Vec::new() };
        let thread = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || worker.run())
            .map_err(|e| CollectorError::Kernel(format!("no thread to observe with: {e}")))?;
        Ok(Self { shared, thread: Some(thread), programs: None })
    }

    /// The next batch, waiting at most `max_wait` for one. Batches come in order, those that an earlier agent left
    /// first, and stay in the spool until [`Collector::acknowledge`].
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the disk fails.
    pub fn next_batch(&self, max_wait: Duration) -> Result<Option<Encoded>, CollectorError> {
        let until = Instant::now() + max_wait;
        let mut spool = self.shared.spool();
        loop {
            if let Some(batch) = spool.take_next()? {
                return Ok(Some(batch));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ended() {
                return Ok(None);
            }
            spool = self.shared.pushed.wait_timeout(spool, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// The control plane has taken this batch and all before it: they leave the spool.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the disk fails.
    pub fn acknowledge(&self, sequence: u64) -> Result<(), CollectorError> {
        self.shared.spool().acknowledge(sequence)
    }

    /// Gives out again what was not acknowledged, for instance after a failed request.
    pub fn rewind(&self) {
        self.shared.spool().rewind();
    }

    /// Batches and bytes in the spool.
    pub fn backlog(&self) -> (usize, u64) {
        self.shared.spool().waiting()
    }

    /// What each probe has cost so far; none where the mount observes.
    pub fn costs(&self) -> Vec<Cost> {
        self.programs.as_ref().map_or_else(Vec::new, |programs| programs.costs())
    }

    /// Whether the source has ended and all of it is in the spool.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops observing; what was seen is in the spool.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    config: Config,
    source: Box<dyn Source>,
    recorder: Option<Recorder>,
    pipeline: Pipeline,
    shared: Arc<Shared>,
    seen: Vec<Observation>,
}

impl Worker {
    fn run(&mut self) {
        let interval = Duration::from_millis(self.config.poll_interval_ms.max(1));
        let batch_interval = Duration::from_millis(self.config.batch_interval_ms);
        let (mut batched, mut looked) = (Instant::now(), Instant::now());
        loop {
            let stop = self.shared.stop.load(Ordering::Relaxed);
            if let Err(error) = self.poll() {
                tracing::error!(%error, "observing has ended");
                self.push();
                break;
            }
            let ended = self.source.ended();
            if looked.elapsed() >= LOOK_THROUGH_INTERVAL {
                looked = Instant::now();
                self.pipeline.look_through(Timestamp::now());
            }
            let (urgent, any) = self.pipeline.news();
            let full = self.pipeline.waiting() >= self.config.batch_accesses;
            if urgent || full || (any && batched.elapsed() >= batch_interval) || ((stop || ended) && any) {
                batched = Instant::now();
                self.push();
            }
            if stop || ended {
                break;
            }
            std::thread::park_timeout(interval);
        }
        if let Some(Err(error)) = self.recorder.take().map(Recorder::finish) {
            tracing::error!(%error, "the trace is not whole");
        }
        self.shared.pushed.notify_all();
    }

    fn poll(&mut self) -> Result<(), CollectorError> {
        self.seen.clear();
        self.source.poll(&mut self.seen)?;
        if let Some(recorder) = &mut self.recorder {
            self.seen.iter().try_for_each(|o| recorder.record(o))?;
        }
        self.pipeline.take(self.seen.drain(..));
        for file in self.pipeline.take_forgotten() {
            self.source.forget(file);
        }
        Ok(())
    }

    fn push(&mut self) {
        let mut harvest = self.pipeline.harvest();
        let (lost, sequence) = {
            let mut spool = self.shared.spool();
            (spool.take_losses(), spool.next_sequence())
        };
        harvest.losses.dropped_events += lost.dropped_events;
        harvest.losses.unresolved += lost.unresolved;
        harvest.losses.summarised += lost.summarised;
        if harvest.is_empty() {
            return;
        }
        // Nobody else pushes, so the number holds while the spool is free for who ships.
        let batch = parquet::encode_harvest(&self.config.node, &self.config.site, sequence, &harvest);
        match batch.map_err(CollectorError::from).and_then(|batch| self.shared.spool().push(&batch)) {
            Ok(()) => self.shared.pushed.notify_all(),
            Err(error) => {
                tracing::error!(%error, accesses = harvest.accesses.len(), "what was seen cannot be kept and is counted");
                self.pipeline.take_back(harvest);
            }
        }
    }
}

fn check_roots(watch: &[WatchedVolume]) -> Result<(), CollectorError> {
    for volume in watch {
        let error = |source| CollectorError::Root { root: volume.root.clone(), source };
        if !std::fs::metadata(&volume.root).map_err(error)?.is_dir() {
            return Err(error(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
        }
    }
    Ok(())
}

/// What tells this boot of the machine from others.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars().take(8).collect()
}

/// Our time minus the time since boot.
fn booted_at() -> Timestamp {
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Timestamp::now() - up
}
