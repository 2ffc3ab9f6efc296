//! The judge: a trace is replayed through a simulated site, and each contender is told nothing of the future.
//!
//! [`demand`] lays the trace out as requests for blocks; [`site`] is the cache and the link; [`contender`] are those who
//! play; this file plays them one after the other and reckons. Words are the design's: coverage is bytes read that
//! had been fetched ahead in time / bytes read; precision is bytes fetched ahead and read before they had to go / bytes
//! fetched ahead. A read that joins a fetch on its way makes it used, but no hit.
//!
//! Bytes that a contender's tables take are shown beside the cache and, if asked, taken from it.

pub mod cache;
pub mod contender;
pub mod demand;
mod misses;
pub mod picture;
pub mod site;

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::ModelError;
use crate::import::{Trace, check_block};
use cache::Foreseen;
use contender::{Contender, Expectation, Name, Recurring};
use demand::Demand;
pub use misses::{Misses, misses};
use site::{Account, Link, Policy, Site};

/// How large the cache is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheSize {
    /// Share of the different bytes that the trace touches.
    Share(f64),
    /// Bytes.
    Bytes(u64),
}

/// How to judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The cache.
    pub cache: CacheSize,
    /// How long fetches take.
    pub link: Link,
    /// Whether only the block of each request's first byte counts, one access a request.
    pub first_only: bool,
    /// Bytes of a block of the cache; without it 4 KiB for devices and 1 MiB for files.
    pub block_bytes: Option<u64>,
    /// Whether tables are taken from the cache.
    pub charge_model: bool,
    /// Whether numbers are names, whatever the trace looks like.
    pub opaque: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache: CacheSize::Share(0.1),
            link: Link::Instant,
            first_only: false,
            block_bytes: None,
            charge_model: false,
            opaque: false,
        }
    }
}

/// Most touches of blocks that are played: what is kept of each would fill the memory of a small machine.
const MOST_TOUCHES: u64 = 1 << 28;
/// Slowest link, bits a second, longest round trip, and longest lead, requests, that can be meant.
const LEAST_BITS_PER_S: u64 = 1000;
const MOST_RTT_US: u64 = 3_600_000_000;
const MOST_LEAD: u32 = 1 << 20;

impl Options {
    /// Whether every number can be meant.
    fn check(&self) -> Result<(), ModelError> {
        let not = |name, value: String, remedy| Err(ModelError::Setting { name, value, remedy });
        check_block(self.block_bytes)?;
        match self.link {
            Link::Wire { bits_per_s, .. } if bits_per_s < LEAST_BITS_PER_S => {
                not("rate", bits_per_s.to_string(), "give 1000 bits a second at least")
            }
            Link::Wire { rtt_us, .. } if rtt_us > MOST_RTT_US => not("rtt", rtt_us.to_string(), "give an hour at most"),
            Link::Lead(lead) if lead > MOST_LEAD => not("lead", lead.to_string(), "give a million requests at most"),
            Link::Wire { .. } | Link::Lead(_) | Link::Instant => Ok(()),
        }
    }

    /// The demand of a trace, if it can be played.
    fn demand<'a>(&self, trace: &'a Trace) -> Result<Demand<'a>, ModelError> {
        self.check()?;
        let demand = Demand::new(trace, self.block_bytes, self.opaque, self.first_only);
        if demand.touches() > MOST_TOUCHES {
            let remedy = "requests touch too many blocks of this size: give larger blocks";
            return Err(ModelError::Setting { name: "block", value: demand.block_bytes.to_string(), remedy });
        }
        Ok(demand)
    }
}

/// How one contender did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Requests for bytes.
    pub requests: u64,
    /// Share of them all of whose bytes were here.
    pub hit_ratio: f64,
    /// Bytes read that had been fetched ahead in time / bytes read.
    pub byte_coverage: f64,
    /// Bytes fetched ahead and read before they had to go / bytes fetched ahead; 1 where none were.
    pub byte_precision: f64,
    /// Share of the blocks fetched ahead and used that came in time; 1 where none were.
    pub on_time: f64,
    /// Bytes fetched ahead and not read.
    pub wasted_bytes: u64,
    /// Time that requests waited, seconds.
    pub stall_s: f64,
    /// (none - this) / (none - oracle), of the stall, or of the misses where fetches take no time; absent where
    /// the oracle gains nothing.
    pub gap_closed: Option<f64>,
    /// Time spent on deciding, microseconds a request.
    pub cpu_us_per_request: f64,
    /// Most bytes of tables.
    pub peak_bytes: usize,
}

/// How all did on one trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The trace's file.
    pub trace: String,
    /// Its format.
    pub format: String,
    /// Whether its numbers were taken for names, which no spatial forecaster may use.
    pub opaque: bool,
    /// Requests for bytes.
    pub requests: u64,
    /// The cache.
    pub cache_bytes: u64,
    /// The link, in words.
    pub link: String,
    /// The contenders.
    pub rows: Vec<Row>,
}

/// Judges all contenders on a trace.
///
/// # Errors
/// [`ModelError::Setting`] for a cache that holds no block, and for numbers that cannot be meant.
pub fn evaluate(trace: &Trace, options: &Options) -> Result<Report, ModelError> {
    evaluate_some(trace, options, &Name::ALL)
}

/// Judges some contenders. `gap_closed` needs [`Name::None`] and [`Name::Oracle`] among them.
///
/// # Errors
/// [`ModelError::Setting`] for a cache that holds no block, and for numbers that cannot be meant.
pub fn evaluate_some(trace: &Trace, options: &Options, names: &[Name]) -> Result<Report, ModelError> {
    let demand = options.demand(trace)?;
    let cache_bytes = cache_bytes(&demand, options.cache)?;
    let rows = names.iter().map(|n| play(&demand, options, cache_bytes, *n)).collect();
    Ok(report(trace, &demand, options, cache_bytes, rows))
}

/// Judges a job that comes back, block by block over its whole calendar: the plain ways, ours with what is expected
/// of each run, and the oracle.
///
/// # Errors
/// [`ModelError::Setting`] for a cache that holds no block, and for numbers that cannot be meant.
pub fn evaluate_recurring(
    trace: &Trace,
    options: &Options,
    expected: impl FnOnce(&Demand<'_>) -> Vec<Expectation>,
) -> Result<Report, ModelError> {
    let demand = options.demand(trace)?;
    let cache_bytes = cache_bytes(&demand, options.cache)?;
    let mut rows: Vec<(Row, Account)> = [Name::None, Name::LastRun, Name::Oracle]
        .iter()
        .map(|name| play(&demand, options, cache_bytes, *name))
        .collect();
    let ours = Recurring::new(&demand, cache_bytes, MODEL_BYTES, expected(&demand));
    let cache = Policy::Foreseen(Foreseen::new(cache_bytes, demand.block_bytes));
    let site = Site::new(&demand, options.link, cache);
    rows.insert(2, play_one(&demand, options, cache_bytes, Name::Foretide, Box::new(ours), site));
    Ok(report(trace, &demand, options, cache_bytes, rows))
}

fn report(
    trace: &Trace,
    demand: &Demand<'_>,
    options: &Options,
    cache_bytes: u64,
    mut rows: Vec<(Row, Account)>,
) -> Report {
    close_gaps(&mut rows, options.link);
    Report {
        trace: trace.path.display().to_string(),
        format: trace.format.to_string(),
        opaque: !demand.addresses,
        requests: rows.first().map_or(0, |(row, _)| row.requests),
        cache_bytes,
        link: told(options.link),
        rows: rows.into_iter().map(|(row, _)| row).collect(),
    }
}

fn cache_bytes(demand: &Demand<'_>, size: CacheSize) -> Result<u64, ModelError> {
    let bytes = match size {
        CacheSize::Bytes(bytes) => bytes,
        CacheSize::Share(share) if !(share.is_finite() && share > 0.0) => {
            let remedy = "give a share of the data above 0";
            return Err(ModelError::Setting { name: "cache", value: share.to_string(), remedy });
        }
        // However little there is, one block of it.
        CacheSize::Share(share) => {
            let different = demand.different();
            let bytes: u64 = different.iter().map(|b| demand.bytes(*b)).sum();
            let device = bytes == different.len() as u64 * demand.block_bytes;
            // Whole blocks, as those who count objects have it.
            let bytes = if device {
                ((different.len() as f64 * share) as u64).saturating_mul(demand.block_bytes)
            } else {
                (bytes as f64 * share) as u64
            };
            bytes.max(demand.block_bytes)
        }
    };
    if bytes < demand.block_bytes {
        let remedy = "give a cache of one block at least";
        return Err(ModelError::Setting { name: "cache", value: bytes.to_string(), remedy });
    }
    Ok(bytes)
}

/// Share of the cache that a model's tables may take where they are charged to it.
const CHARGED_SHARE: f64 = 0.2;
/// Bytes that a model's tables may take where they are not.
const MODEL_BYTES: usize = 1 << 30;
/// Requests after which tables are measured.
const MEASURED_EVERY: usize = 256;

fn play(demand: &Demand<'_>, options: &Options, cache_bytes: u64, name: Name) -> (Row, Account) {
    let model_bytes = if options.charge_model { (CHARGED_SHARE * cache_bytes as f64) as usize } else { MODEL_BYTES };
    let (contender, site) = name.enter(demand, options.link, cache_bytes, model_bytes);
    play_one(demand, options, cache_bytes, name, contender, site)
}

/// Plays one contender at its site.
fn play_one(
    demand: &Demand<'_>,
    options: &Options,
    cache_bytes: u64,
    name: Name,
    mut contender: Box<dyn Contender + '_>,
    mut site: Site<'_>,
) -> (Row, Account) {
    let (mut deciding, mut peak_bytes) = (Duration::ZERO, contender.bytes());
    for (i, step) in demand.steps.iter().enumerate() {
        while let Some(wake_us) = contender.wakes_us().filter(|us| *us <= step.at_us) {
            site.wait_until(wake_us);
            contender.woken(&mut site);
        }
        let (hit, _) = site.serve(step);
        let began = Instant::now();
        contender.served(step, hit, &mut site);
        deciding += began.elapsed();
        if i % MEASURED_EVERY == 0 {
            let bytes = contender.bytes();
            peak_bytes = peak_bytes.max(bytes);
            if options.charge_model {
                site.resize(cache_bytes.saturating_sub(bytes as u64));
            }
        }
    }
    peak_bytes = peak_bytes.max(contender.bytes());
    let account = site.close();
    (row(name, &account, deciding, peak_bytes), account)
}

fn row(name: Name, a: &Account, deciding: Duration, peak_bytes: usize) -> Row {
    let share = |part: u64, whole: u64, of_none: f64| if whole == 0 { of_none } else { part as f64 / whole as f64 };
    Row {
        name: name.text().to_owned(),
        requests: a.requests,
        hit_ratio: share(a.hits, a.requests, 0.0),
        byte_coverage: share(a.covered_bytes, a.read_bytes, 0.0),
        byte_precision: 1.0 - share(a.wasted_bytes, a.ahead_bytes, 0.0),
        on_time: share(a.ahead_in_time, a.ahead_used, 1.0),
        wasted_bytes: a.wasted_bytes,
        stall_s: a.stall_us as f64 / 1e6,
        gap_closed: None,
        cpu_us_per_request: deciding.as_secs_f64() * 1e6 / a.requests.max(1) as f64,
        peak_bytes,
    }
}

fn close_gaps(rows: &mut [(Row, Account)], link: Link) {
    let loss = |a: &Account| match link {
        Link::Wire { .. } => a.stall_us as f64,
        Link::Instant | Link::Lead(_) => (a.requests - a.hits) as f64,
    };
    let of = |name: Name| rows.iter().find(|(r, _)| r.name == name.text()).map(|(_, a)| loss(a));
    let (Some(none), Some(oracle)) = (of(Name::None), of(Name::Oracle)) else { return };
    if none <= oracle {
        return;
    }
    for (row, account) in rows.iter_mut() {
        row.gap_closed = Some((none - loss(account)) / (none - oracle));
    }
}

fn told(link: Link) -> String {
    match link {
        Link::Instant => "instant".to_owned(),
        Link::Lead(lead) => format!("{lead} requests"),
        Link::Wire { bits_per_s, rtt_us } => {
            format!("{} Mbit/s, {} ms", bits_per_s as f64 / 1e6, rtt_us as f64 / 1e3)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opaque = if self.opaque { "; its numbers are names, no places" } else { "" };
        writeln!(f, "{} ({}{opaque})", self.trace, self.format)?;
        writeln!(f, "{} requests, cache {}, link {}", self.requests, size(self.cache_bytes), self.link)?;
        writeln!(
            f,
            "{:<12} {:>6} {:>8} {:>9} {:>7} {:>10} {:>9} {:>6} {:>7} {:>10}",
            "", "hit", "coverage", "precision", "on time", "wasted", "stall", "gap", "cpu us", "tables"
        )?;
        for r in &self.rows {
            let gap = r.gap_closed.map_or("-".to_owned(), |g| format!("{g:.3}"));
            writeln!(
                f,
                "{:<12} {:>6.3} {:>8.3} {:>9.3} {:>7.3} {:>10} {:>8.1}s {:>6} {:>7.2} {:>10}",
                r.name,
                r.hit_ratio,
                r.byte_coverage,
                r.byte_precision,
                r.on_time,
                size(r.wasted_bytes),
                r.stall_s,
                gap,
                r.cpu_us_per_request,
                size(r.peak_bytes as u64)
            )?;
        }
        Ok(())
    }
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1_000_000_000 => format!("{:.2} GB", b as f64 / 1e9),
        b if b >= 1_000_000 => format!("{:.1} MB", b as f64 / 1e6),
        b if b >= 1_000 => format!("{:.1} kB", b as f64 / 1e3),
        b => format!("{b} B"),
    }
}

#[cfg(test)]
mod tests;
