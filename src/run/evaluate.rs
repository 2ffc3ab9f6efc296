//! `foretide evaluate`: what would Foretide have done with the trace that I have? Traces are replayed through a simulated
//! site; runs that were recorded of one job are learned from and the last is played.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use foretide_flow::BitsPerSecond;
use foretide_model::evaluate::picture::picture;
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{self, CacheSize};
use foretide_model::import::{Format, read_trace};
use foretide_model::recurrence::{self, evaluate_recurrence};
use serde::Serialize;

use super::RunError;
use crate::config::{parse_bytes, parse_duration, parse_rate};

/// Options of `foretide evaluate`.
#[derive(Args, Debug)]
pub struct Options {
    /// Traces, in any of the formats; plain, zstd or gzip.
    #[arg(required_unless_present = "recurrence")]
    traces: Vec<PathBuf>,
    /// Their format, where the content does not tell it.
    #[arg(long)]
    format: Option<Format>,
    /// The site's cache: a share of the different bytes that the trace touches, such as 10%, or bytes, such as 4GB; 10%
    /// without it, and 20% of the data of a job.
    #[arg(long, value_parser = parse_cache)]
    cache: Option<CacheSize>,
    /// Rate of the link, such as 1Gbit.
    #[arg(long, default_value = "1Gbit", value_parser = parse_rate)]
    rate: BitsPerSecond,
    /// Round trip of the link, such as 150ms.
    #[arg(long, default_value = "150ms", value_parser = parse_duration)]
    rtt: Duration,
    /// Fetches take no time.
    #[arg(long, conflicts_with_all = ["rate", "rtt", "lead"])]
    instant: bool,
    /// Fetches ahead take so many requests, and demand none.
    #[arg(long, conflicts_with_all = ["rate", "rtt"])]
    lead: Option<u32>,
    /// What of a request has to be there: all of it, or the block of its first byte.
    #[arg(long, value_enum, default_value = "all")]
    access: Access,
    /// Bytes of a block, where the format numbers blocks and does not say it, and in the cache.
    #[arg(long, value_parser = parse_bytes)]
    block: Option<u64>,
    /// Take the bytes of a contender's tables from its cache.
    #[arg(long)]
    charge_model: bool,
    /// Take numbers for names: nothing follows from their distance.
    #[arg(long)]
    opaque: bool,
    /// A folder with several runs of one job: learn from all but the last, and play the last; and play them all through
    /// the site.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["traces", "format", "lead", "access", "charge_model", "opaque"])]
    recurrence: Option<PathBuf>,
    /// Seed of what is learned.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// As JSON; of several traces, one document a line.
    #[arg(long)]
    json: bool,
    /// Draw the table into this file (of several traces, the last).
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Access {
    All,
    First,
}

fn parse_cache(text: &str) -> Result<CacheSize, String> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(p) if p > 0.0 && p <= 100.0 => Ok(CacheSize::Share(p / 100.0)),
            _ => Err(format!("{text:?} is no share: use more than 0% and at most 100%")),
        },
        None => parse_bytes(text).map(CacheSize::Bytes),
    }
}

impl Options {
    /// How to judge, where these are the settings that nobody gave.
    fn judged_by(&self, plain: evaluate::Options) -> evaluate::Options {
        let wire = Link::Wire { bits_per_s: self.rate.0.max(1), rtt_us: self.rtt.as_micros() as u64 };
        evaluate::Options {
            cache: self.cache.unwrap_or(plain.cache),
            link: if self.instant { Link::Instant } else { self.lead.map_or(wire, Link::Lead) },
            first_only: matches!(self.access, Access::First),
            block_bytes: self.block.or(plain.block_bytes),
            charge_model: self.charge_model,
            opaque: self.opaque,
        }
    }
}

/// Runs it.
///
/// # Errors
/// A trace that stops making sense, with the place; a picture that cannot be written.
pub fn run(options: &Options) -> Result<(), RunError> {
    if let Some(folder) = &options.recurrence {
        let report = evaluate_recurrence(folder, &options.judged_by(recurrence::SITE), options.seed)?;
        return show(&report, report.table(), || recurrence::picture::picture(&report), options);
    }
    for path in &options.traces {
        let trace = read_trace(path, options.format, options.block)?;
        let report = evaluate::evaluate(&trace, &options.judged_by(evaluate::Options::default()))?;
        show(&report, report.to_string(), || picture(&report), options)?;
    }
    Ok(())
}

/// Prints a report, as a table or as JSON, and draws it if asked.
fn show(
    report: &impl Serialize,
    table: String,
    picture: impl FnOnce() -> String,
    options: &Options,
) -> Result<(), RunError> {
    if let Some(file) = &options.svg {
        std::fs::write(file, picture())
            .map_err(|e| RunError::Told(format!("{}: {e}; give a file that can be written", file.display())))?;
    }
    say(if options.json { serde_json::to_string(report).map_err(std::io::Error::other)? } else { table })
}

/// A reader who has seen enough is no error.
fn say(text: String) -> Result<(), RunError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
