//! Every read through the mount, told twice: as it happens, for nodes where the kernel lets nobody trace
//! ([`MountEvent`]), and when the file is closed, as an [`Outcome::Read`] that says what the prefetching was worth.
//!
//! What the kernel does not tell us: with passthrough, and for pages that it still has, reads never reach the mount.
//! A passthrough handle therefore counts as one read of the whole file at the time of its open. That is what loaders of
//! small files do; where eBPF runs, the collector has the true extents. A cached handle counts the extents that the
//! kernel asked for, and the whole file if it asked for none because it had the pages.
//!
//! Requests carry a thread; people and forecasters think in processes. The thread's process is looked up here, behind
//! a queue, not in the path of a read. A queue that is full drops and counts (promises J and K).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_chunk::FileKey;
use foretide_flow::{AccessOp, FilePath, Found, Outcome, Timestamp, VolumeId};
use tokio::sync::mpsc;

use crate::origin::Origin;
use crate::stats::Counters;

/// Closed files that wait to be accounted for: a burst of one second at 60,000 files a second.
const CLOSED_QUEUE: usize = 1 << 16;

/// Observations accounted for in one go.
const BATCH_MAX: usize = 4096;

/// Between two batches: waking a task for every closed file would cost a loader of small files more than its reads.
const ACCOUNT_INTERVAL: Duration = Duration::from_millis(10);

/// Extents kept apart per open file; beyond it the two nearest become one.
const EXTENTS_MAX: usize = 64;

/// A thread's process is believed for so long: shorter than the time in which thread numbers come round again.
const PROCESS_LEASE: Duration = Duration::from_secs(1);

/// Threads remembered; then all are looked up anew.
const THREADS_MAX: usize = 4096;

/// One thing that a process did to a file through the mount, as it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct MountEvent {
    /// When the request came.
    pub at: Timestamp,
    /// The process; 0 where the kernel hides it.
    pub process: u32,
    /// The volume.
    pub volume: VolumeId,
    /// The file.
    pub path: FilePath,
    /// What was done.
    pub op: AccessOp,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// How long the reader waited for the source, microseconds.
    pub blocked_us: u32,
    /// Where the bytes were.
    pub found: Found,
}

/// Disjoint ranges in order, a bounded number of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents(Vec<Range<u64>>);

impl Extents {
    /// Adds a range.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end < range.start);
        let last = self.0.partition_point(|r| r.start <= range.end);
        let joined = self.0[first..last].iter().fold(range, |a, b| a.start.min(b.start)..a.end.max(b.end));
        self.0.splice(first..last, [joined]);
        if self.0.len() > EXTENTS_MAX {
            let gap = |i: &usize| self.0[*i + 1].start - self.0[*i].end;
            let nearest = (0..self.0.len() - 1).min_by_key(gap).unwrap_or_default();
            self.0[nearest].end = self.0[nearest + 1].end;
            self.0.remove(nearest + 1);
        }
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }
}

/// What one open file was read like.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// What was read.
    pub read: Extents,
    /// What of it was here when it was asked for.
    pub in_time: Extents,
    /// Waiting of all its readers, microseconds.
    pub waited_us: u64,
    /// The worst of its reads.
    pub found: Found,
}

impl Tally {
    /// Takes note of one read.
    pub fn note(&mut self, range: Range<u64>, found: Found, waited: Duration) {
        if found == Found::Hit {
            self.in_time.add(range.clone());
        }
        self.read.add(range);
        self.note_wait(found, waited);
    }

    /// Takes note of waiting for what was not (yet) a read.
    pub fn note_wait(&mut self, found: Found, waited: Duration) {
        self.waited_us += waited.as_micros() as u64;
        self.found = worst(self.found, found);
    }

    /// All of the file, from here: what the kernel does not tell us.
    fn assume_whole(&mut self, size: u64) {
        self.note(0..size, Found::Hit, Duration::ZERO);
    }
}

/// The worse of two findings; anything is better known than unknown.
fn worst(a: Found, b: Found) -> Found {
    let badness = |f: &Found| match f {
        Found::Unknown => 0,
        Found::Hit => 1,
        Found::Late => 2,
        Found::Miss => 3,
    };
    if badness(&b) > badness(&a) { b } else { a }
}

/// A file that was closed.
#[derive(Debug)]
pub struct Closed {
    /// Which version of which file.
    pub key: Arc<FileKey>,
    /// Its bytes.
    pub size: u64,
    /// The thread that opened it.
    pub thread: u32,
    /// When.
    pub opened_at: Timestamp,
    /// What was read of it.
    pub tally: Tally,
}

enum Told {
    Closed(Closed),
    Event(MountEvent),
}

/// The near end of the queue: never waits.
#[derive(Clone)]
pub struct Observer {
    queue: mpsc::Sender<Told>,
    counters: Arc<Counters>,
    events: Option<mpsc::Sender<MountEvent>>,
}

/// Where observations go.
#[derive(Clone, Debug)]
pub struct Sinks {
    /// One [`Outcome::Read`] per closed file.
    pub outcomes: mpsc::Sender<Outcome>,
    /// Every event as it happens, if somebody wants them.
    pub events: Option<mpsc::Sender<MountEvent>>,
}

impl Observer {
    /// Starts the task that accounts, on the current runtime.
    pub fn start(
        origin: Arc<dyn Origin>,
        sinks: Sinks,
        counters: Arc<Counters>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let (queue, told) = mpsc::channel(CLOSED_QUEUE);
        let events = sinks.events.clone();
        runtime.spawn(account(told, origin, sinks, Arc::clone(&counters)));
        Self { queue, counters, events }
    }

    /// A file was closed.
    pub fn closed(&self, closed: Closed) {
        self.tell(Told::Closed(closed));
    }

    /// Something happened; `process` is the requesting thread still.
    pub fn event(&self, make: impl FnOnce() -> MountEvent) {
        // Nobody listens where the kernel's own probes serve.
        if self.events.as_ref().is_some_and(|events| !events.is_closed()) {
            self.tell(Told::Event(make()));
        }
    }

    fn tell(&self, told: Told) {
        if self.queue.try_send(told).is_err() {
            Counters::add(&self.counters.observations_dropped, 1);
        }
    }
}

async fn account(mut told: mpsc::Receiver<Told>, origin: Arc<dyn Origin>, sinks: Sinks, counters: Arc<Counters>) {
    let mut processes = Processes::default();
    let mut batch = Vec::new();
    while told.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let full = batch.len() == BATCH_MAX;
        for next in batch.drain(..) {
            let taken = pass_on(next, &mut processes, origin.as_ref(), &sinks);
            Counters::add(&counters.observations_dropped, u64::from(!taken));
        }
        if !full {
            tokio::time::sleep(ACCOUNT_INTERVAL).await;
        }
    }
}

/// Whether it was taken.
fn pass_on(told: Told, processes: &mut Processes, origin: &dyn Origin, sinks: &Sinks) -> bool {
    match told {
        Told::Closed(closed) => {
            let process = processes.of(closed.thread);
            sinks.outcomes.try_send(outcome(closed, process, origin)).is_ok()
        }
        Told::Event(mut event) => {
            event.process = processes.of(event.process);
            sinks.events.as_ref().is_none_or(|events| events.try_send(event).is_ok())
        }
    }
}

/// What prefetching was worth for one open file. The store is told of the read here: it keeps what was used.
fn outcome(mut closed: Closed, process: u32, origin: &dyn Origin) -> Outcome {
    if closed.tally.read.bytes() == 0 && closed.size > 0 {
        closed.tally.assume_whole(closed.size);
    }
    let tally = &closed.tally;
    let key = &closed.key;
    let notes: Vec<_> = tally.read.iter().map(|r| origin.note_read(key, r.clone(), closed.opened_at)).collect();
    let arrived_at = notes.iter().filter_map(|n| n.arrived_at).max();
    Outcome::Read {
        run: None,
        process,
        volume: key.volume.clone(),
        path: key.path.clone(),
        at: closed.opened_at,
        bytes: tally.read.bytes(),
        prefetched_bytes: notes.iter().map(|n| n.prefetched_bytes).sum::<u64>().min(tally.in_time.bytes()),
        waited_us: tally.waited_us,
        found: if tally.found == Found::Unknown { Found::Hit } else { tally.found },
        lead_us: arrived_at.map(|at| closed.opened_at.since(at).as_micros() as u64),
    }
}

/// Which process a thread belongs to.
#[derive(Default)]
struct Processes {
    known: HashMap<u32, (u32, Instant)>,
}

impl Processes {
    fn of(&mut self, thread: u32) -> u32 {
        let now = Instant::now();
        if let Some((process, at)) = self.known.get(&thread)
            && now - *at < PROCESS_LEASE
        {
            return *process;
        }
        if self.known.len() >= THREADS_MAX {
            self.known.clear();
        }
        // A thread that is gone was most likely its process's only one.
        let process = process_of(thread).unwrap_or(thread);
        self.known.insert(thread, (process, now));
        process
    }
}

fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a plain set of bytes.
        #[test]
        fn extents_are_the_set_of_bytes(ranges in proptest::collection::vec((0u64..500, 0u64..40), 0..40)) {
            let mut extents = Extents::default();
            let mut plain = BTreeSet::new();
            for (at, length) in ranges {
                extents.add(at..at + length);
                plain.extend(at..at + length);
            }
            prop_assert_eq!(extents.bytes(), plain.len() as u64);
            let again: BTreeSet<u64> = extents.iter().flat_map(Clone::clone).collect();
            prop_assert_eq!(again, plain);
        }
    }

    #[test]
    fn extents_are_bounded_k() {
        let mut extents = Extents::default();
        (0..10_000u64).for_each(|i| extents.add(i * 10..i * 10 + 1));
        assert!(extents.iter().count() <= EXTENTS_MAX);
        assert!(extents.bytes() <= 100_000);
    }

    #[test]
    fn the_worst_read_names_the_file() {
        let mut tally = Tally::default();
        tally.note(0..10, Found::Hit, Duration::ZERO);
        tally.note(10..20, Found::Late, Duration::from_micros(7));
        tally.note(20..30, Found::Hit, Duration::ZERO);
        assert_eq!((tally.found, tally.waited_us), (Found::Late, 7));
        assert_eq!((tally.read.bytes(), tally.in_time.bytes()), (30, 20));
    }

    #[test]
    fn a_thread_is_told_as_its_process() {
        let (mine, thread) = std::thread::spawn(|| {
            // SAFETY: gettid takes nothing and cannot fail.
            let thread = unsafe { libc::gettid() } as u32;
            (process_of(thread), thread)
        })
        .join()
        .unwrap();
        assert_eq!(mine, Some(std::process::id()));
        assert_ne!(thread, std::process::id());
    }
}
