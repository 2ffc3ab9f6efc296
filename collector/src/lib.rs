//! From kernel events to accesses.
//!
//! ```text
//! Source (kernel probes | recorded trace | the mount) -> Observation -> Pipeline (runs, fold) -> AccessBatch -> Spool
//! ```
//!
//! A [`source::Source`] tells what it saw; [`pipeline::Pipeline`] turns that into runs and accesses without touching
//! anything; [`Collector`] is the thread that moves it along and the spool that keeps it until it is shipped. The
//! kernel's part is in `foretide-ebpf`; no type of its loader leaves this crate.
//!
//! Observing fails open: a probe that the kernel refuses costs what that probe would have seen and nothing else
//! ([`probe::Report`] says what), a full buffer or spool costs detail that is counted, and no job ever waits for us.

pub mod changes;
mod collector;
mod config;
mod error;
pub mod identity;
pub mod parquet;
pub mod pipeline;
pub mod probe;
pub mod procfs;
mod rows;
pub mod runs;
pub mod source;
pub mod spool;
pub mod trace;

pub use collector::Collector;
pub use config::{Config, WatchedVolume};
pub use error::CollectorError;
pub use rows::Rows;

/// Tries all probes of a tier and takes them back, for `foretide doctor`.
pub fn probe(tier: probe::Tier) -> probe::Report {
    /// Enough for a moment.
    const RING_BYTES: u32 = 1 << 16;
    match source::kernel::Kernel::start(tier, Vec::new(), &[], RING_BYTES) {
        Ok((_, report)) => report,
        Err(error) => probe::Report { tier, probes: Vec::new(), refused: Some(error.to_string()) },
    }
}
