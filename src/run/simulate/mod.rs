//! `foretide simulate`: what would have been, on one's own recorded accesses: without a cache, with one, with
//! Foretide, and with an oracle.

mod foresight;
mod picture;
mod recording;

use std::path::{Path, PathBuf};

use clap::Args;
use foretide_flow::{AccessBatch, BitsPerSecond, Ruleset, SiteId, Topology, VolumeId};
use foretide_planner::Supply;
use foretide_planner::simulate::{Caching, Faults, Foresight, Report, Seer, World, simulate};

use self::foresight::Learned;
pub(in crate::run) use self::recording::AsIf;
use super::RunError;
use crate::config::{ConfigError, ServeConfig, parse_bytes, parse_rate};

/// Options of `foretide simulate`.
#[derive(Args, Debug)]
pub struct Options {
    /// Sites, links, volumes and rules, as `foretide serve` reads them; nothing else is needed.
    #[arg(long)]
    topology: PathBuf,
    /// Files or folders of recordings (`foretide trace record`, or a control plane's lake).
    #[arg(long, required = true, num_args = 1..)]
    trace: Vec<PathBuf>,
    /// Take only the first so many days.
    #[arg(long)]
    days: Option<f64>,
    /// All jobs run at this site, wherever they were recorded.
    #[arg(long)]
    at: Option<SiteId>,
    /// All files are of this volume, whatever it was called when they were recorded.
    #[arg(long)]
    volume: Option<VolumeId>,
    /// Each cache holds so much, such as 200 GB, instead of what the topology says.
    #[arg(long, value_parser = parse_bytes)]
    cache: Option<u64>,
    /// Each link carries so much, such as 10 Gbit/s, instead of what the topology says.
    #[arg(long, value_parser = parse_rate)]
    link: Option<BitsPerSecond>,
    /// Prefetch may move so much in all.
    #[arg(long, value_parser = parse_bytes)]
    budget: Option<u64>,
    /// Let links be cut and slow, and agents be lost, as this seed says.
    #[arg(long)]
    faults: Option<u64>,
    /// Write a picture (SVG) there.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// One way to get the data, and what came of it.
#[derive(Debug, serde::Serialize)]
pub(in crate::run) struct Way {
    pub(in crate::run) name: &'static str,
    #[serde(flatten)]
    pub(in crate::run) report: Report,
}

/// What is otherwise than the topology says.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::run) struct Changes {
    /// Bytes that each cache holds.
    pub(in crate::run) cache_bytes: Option<u64>,
    /// What each link carries.
    pub(in crate::run) link: Option<BitsPerSecond>,
    /// Bytes that prefetch may move in all.
    pub(in crate::run) budget_bytes: Option<u64>,
    /// Seed of what goes wrong; nothing if absent.
    pub(in crate::run) faults: Option<u64>,
}

/// Runs it.
///
/// # Errors
/// A topology or a recording that cannot be read or meant, jobs that cannot run in it, a broken invariant.
pub async fn run(options: Options) -> Result<(), RunError> {
    let config = topology(&options.topology)?;
    let world = world(&options, &config)?;
    let ways = tokio::task::spawn_blocking(move || ways(&world, &config.planner, &config.model))
        .await
        .map_err(std::io::Error::other)?
        .map_err(RunError::Told)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&ways).map_err(std::io::Error::other)?);
    } else {
        print!("{}", table(&ways));
    }
    if let Some(path) = &options.picture {
        std::fs::write(path, picture::draw(&ways)).map_err(|e| RunError::Told(format!("{}: {e}", path.display())))?;
    }
    match ways.iter().find(|w| !w.report.broken.is_empty()) {
        Some(way) => Err(RunError::Told(format!("{}: an invariant broke: {}", way.name, way.report.broken.join("; ")))),
        None => Ok(()),
    }
}

/// The configuration, which need not name a state folder here.
fn topology(path: &Path) -> Result<ServeConfig, ConfigError> {
    let mut table: toml::Table = crate::config::read(path)?;
    table.entry("state").or_insert_with(|| toml::Value::String(String::new()));
    table.try_into().map_err(|e| ConfigError::Malformed { path: path.to_owned(), why: e.to_string() })
}

fn world(options: &Options, config: &ServeConfig) -> Result<World, RunError> {
    let meaningless = |why| RunError::Config(ConfigError::Meaningless { path: options.topology.clone(), why });
    let topology = config.topology().map_err(meaningless)?;
    config.planner.check().map_err(|e| meaningless(e.to_string()))?;
    let rules = config.ruleset(&topology).map_err(meaningless)?;
    let as_if = AsIf { at: options.at.as_ref(), volume: options.volume.as_ref(), days: options.days };
    let Options { cache, link, budget, faults, .. } = *options;
    let changes = Changes { cache_bytes: cache, link, budget_bytes: budget, faults };
    recorded_world(topology, rules, &super::trace::read_all(&options.trace)?, &as_if, changes).map_err(RunError::Told)
}

/// The recording as a world to be played.
///
/// # Errors
/// In words: a recording without reads, or of a place or a volume that the topology does not have.
pub(in crate::run) fn recorded_world(
    mut topology: Topology,
    rules: Ruleset,
    batches: &[AccessBatch],
    as_if: &AsIf<'_>,
    changes: Changes,
) -> Result<World, String> {
    if let Some(bytes) = changes.cache_bytes {
        topology.sites.values_mut().filter_map(|s| s.cache.as_mut()).for_each(|c| c.capacity_bytes = bytes);
    }
    if let Some(rate) = changes.link {
        topology.links.iter_mut().for_each(|link| link.rate = rate);
    }
    let (files, jobs) = recording::jobs(batches, &topology, as_if)?;
    let span_us = jobs.iter().map(|j| j.starts_us).max().unwrap_or(0);
    Ok(World {
        supply: Supply::of_copies(&topology, |_, _| true),
        revoked: rules.clone(),
        rules,
        topology,
        files,
        jobs,
        faults: changes.faults.map_or(Faults::default(), Faults::draw),
        waste_budget_bytes: u64::MAX,
        move_budget_bytes: changes.budget_bytes,
        end_us: span_us.saturating_add(GIVEN_UP_US),
    })
}

/// Jobs that have not ended so long after the last one started are given up, microseconds.
const GIVEN_UP_US: i64 = 30 * 86_400 * 1_000_000;

/// Plays a world in each way.
///
/// # Errors
/// In words: jobs that cannot run in it, settings that cannot be meant.
pub(in crate::run) fn ways(
    world: &World,
    planner: &foretide_planner::Config,
    model: &foretide_model::Config,
) -> Result<Vec<Way>, String> {
    let mut learned = Learned::new(world, model.clone()).map_err(|e| e.to_string())?;
    let mut oracle = Seer::new(Foresight::Oracle, 0);
    let ways = [
        ("off", Caching::Off),
        ("on demand", Caching::OnDemand),
        ("foretide", Caching::Prefetch(&mut learned)),
        ("oracle", Caching::Prefetch(&mut oracle)),
    ];
    let one = |(name, caching)| {
        let report = simulate(world, caching, planner, 0).map_err(|e| e.to_string())?;
        Ok(Way { name, report })
    };
    ways.into_iter().map(one).collect()
}

fn table(ways: &[Way]) -> String {
    let mut text = format!(
        "{:<10} {:>10} {:>10} {:>7} {:>10} {:>9} {:>10} {:>9} {:>10} {:>9}\n",
        "", "stall s", "ended s", "hit %", "moved GB", "waste GB", "crossed GB", "money", "peak link", "cache GB"
    );
    for Way { name, report: r } in ways {
        text += &format!(
            "{name:<10} {:>10.1} {:>10.1} {:>7.1} {:>10.2} {:>9.2} {:>10.2} {:>9.2} {:>8.0} % {:>9.2}{}\n",
            r.stall_s,
            r.ended_s,
            100.0 * r.hits as f64 / r.reads.max(1) as f64,
            r.moved_bytes as f64 / 1e9,
            r.wasted_bytes as f64 / 1e9,
            r.link_bytes / 1e9,
            r.money,
            r.peak_link * 100.0,
            r.peak_cache_bytes as f64 / 1e9,
            if r.finished { "" } else { "  given up: a link carries too little" }
        );
    }
    text
}
