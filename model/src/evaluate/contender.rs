//! Who plays: the baselines, the known prefetchers, ours alone and together, and the bounds.
//!
//! A contender hears of each request after it was served, and of what came and went; it may ask for blocks. One file
//! each, the simplest first.

mod association;
mod foretide;
mod known;
mod oracle;
mod recurring;
mod sets;

use super::cache::{Guarded, Lru};
use super::demand::{Demand, Step};
use super::site::{Link, Policy, Site};

pub(super) use foretide::Foretide;
pub use foretide::Parts;
pub use recurring::{Expectation, Recurring};

/// Who plays.
pub trait Contender {
    /// Takes a request that was served, and asks for what it makes worth asking.
    fn served(&mut self, step: &Step, hit: bool, site: &mut Site<'_>);

    /// When it wants to be woken though nobody asks for anything, microseconds of the trace.
    fn wakes_us(&self) -> Option<i64> {
        None
    }

    /// It is woken.
    fn woken(&mut self, _site: &mut Site<'_>) {}

    /// Bytes of its tables.
    fn bytes(&self) -> usize {
        0
    }
}

/// Every contender, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Least recently used, nothing ahead.
    None,
    /// S3-FIFO, nothing ahead: the cache that ours stands on.
    S3Fifo,
    /// One block look-ahead.
    Obl,
    /// Strides per stream.
    Stride,
    /// Mithril-like association of what is missed together.
    Association,
    /// What the run before of the same job read, at the start.
    LastRun,
    /// The whole dataset at the start.
    StaticLoad,
    /// Ours, some of it.
    Ours(&'static str, Parts),
    /// Ours.
    Foretide,
    /// Evicts what is used last, fetches nothing ahead.
    Belady,
    /// Fetches ahead with knowledge of the future, under the same link and cache.
    Oracle,
}

impl Name {
    /// All, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::None,
        Self::S3Fifo,
        Self::Obl,
        Self::Stride,
        Self::Association,
        Self::LastRun,
        Self::StaticLoad,
        Self::Ours("replay", Parts::REPLAY),
        Self::Ours("rows", Parts::ROWS),
        Self::Ours("spatial", Parts::SPATIAL),
        Self::Ours("opened", Parts::OPENED),
        Self::Foretide,
        Self::Belady,
        Self::Oracle,
    ];

    /// As the table shows it.
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::S3Fifo => "s3-fifo",
            Self::Obl => "obl",
            Self::Stride => "stride",
            Self::Association => "association",
            Self::LastRun => "last-run",
            Self::StaticLoad => "static-load",
            Self::Ours(name, _) => name,
            Self::Foretide => "foretide",
            Self::Belady => "belady",
            Self::Oracle => "oracle",
        }
    }

    /// The contender and its site, with a cache of so many bytes.
    pub fn enter<'a>(
        self,
        demand: &'a Demand<'a>,
        link: Link,
        cache_bytes: u64,
        model_bytes: usize,
    ) -> (Box<dyn Contender + 'a>, Site<'a>) {
        let lru = || Site::new(demand, link, Policy::Lru(Lru::new(cache_bytes)));
        let ours = |parts| Box::new(Foretide::new(demand, parts, cache_bytes, model_bytes));
        match self {
            Self::None => (Box::new(known::Nothing), lru()),
            Self::S3Fifo => (Box::new(known::Nothing), guarded(demand, link, cache_bytes)),
            Self::Obl => (Box::new(known::Obl::new(demand)), lru()),
            Self::Stride => (Box::new(known::Stride::new(demand)), lru()),
            Self::Association => (Box::new(association::Association::new(demand)), lru()),
            Self::LastRun => (Box::new(known::LastRun::new(demand)), lru()),
            Self::StaticLoad => (Box::new(known::StaticLoad::new(demand, cache_bytes)), lru()),
            Self::Ours(_, parts) => (ours(parts), guarded(demand, link, cache_bytes)),
            Self::Foretide => (ours(Parts::ALL), guarded(demand, link, cache_bytes)),
            Self::Belady => (Box::new(known::Nothing), oracle::site(demand, link, cache_bytes).0),
            Self::Oracle => {
                let (site, touches) = oracle::site(demand, link, cache_bytes);
                (Box::new(oracle::Oracle::new(demand, link, touches)), site)
            }
        }
    }
}

/// The site that ours plays at.
fn guarded<'a>(demand: &'a Demand<'a>, link: Link, cache_bytes: u64) -> Site<'a> {
    let lead = if let Link::Lead(lead) = link { lead } else { 0 };
    // Readers of files pause for compute, and what is ahead of them waits with them.
    let files = demand.places.len() > 1;
    let cache = if files {
        Guarded::patient(cache_bytes, demand.block_bytes)
    } else {
        Guarded::new(cache_bytes, demand.block_bytes, lead)
    };
    Site::new(demand, link, Policy::Guarded(cache))
}

/// Ours and its site, for who looks into it.
pub(super) fn ours<'a>(
    demand: &'a Demand<'a>,
    link: Link,
    cache_bytes: u64,
    model_bytes: usize,
) -> (Foretide<'a>, Site<'a>) {
    (Foretide::new(demand, Parts::ALL, cache_bytes, model_bytes), guarded(demand, link, cache_bytes))
}
