//! Counts of what the mount did: cheap to keep, monotone, read by metrics and by the tests.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The counts as they grow.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) opens_passthrough: AtomicU64,
    pub(crate) opens_cached: AtomicU64,
    pub(crate) lookups: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) waited_us: AtomicU64,
    pub(crate) observations_dropped: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Files opened by passthrough.
    pub opens_passthrough: u64,
    /// Files opened through the kernel's page cache.
    pub opens_cached: u64,
    /// Files open now.
    pub open_files: u64,
    /// Names looked up by the kernel.
    pub lookups: u64,
    /// Read requests that the kernel sent; passthrough reads do not show here.
    pub reads: u64,
    /// Bytes answered to them.
    pub read_bytes: u64,
    /// Read requests whose bytes were here, and opens by passthrough.
    pub hits: u64,
    /// Read requests whose bytes were on their way.
    pub late: u64,
    /// Read requests that nobody had foreseen.
    pub misses: u64,
    /// Requests that failed for another reason than a name that is not there.
    pub failures: u64,
    /// Time that readers waited for the source, microseconds.
    pub waited_us: u64,
    /// Observations that were lost because nobody took them in time (promise J).
    pub observations_dropped: u64,
    /// Names known.
    pub known_names: u64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, open_files: u64, known_names: u64) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            opens_passthrough: of(&self.opens_passthrough),
            opens_cached: of(&self.opens_cached),
            open_files,
            lookups: of(&self.lookups),
            reads: of(&self.reads),
            read_bytes: of(&self.read_bytes),
            hits: of(&self.hits),
            late: of(&self.late),
            misses: of(&self.misses),
            failures: of(&self.failures),
            waited_us: of(&self.waited_us),
            observations_dropped: of(&self.observations_dropped),
            known_names,
        }
    }
}
