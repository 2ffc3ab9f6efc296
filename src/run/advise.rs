//! `foretide advise`: where should it run? Moving the data against moving the job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use foretide_flow::{FilePath, Plan, SiteId, Timestamp, VolumeId, Warmup, WarmupState};
use foretide_planner::{Advice, AdviceRequest, Brakes, Problem, Residency, WarmupFile, advise};

use super::RunError;
use super::policy::configured;
use crate::cli::ControlOptions;
use crate::config::{self, ServeConfig, parse_bytes};

/// Files that stand for a data set of which only totals are told; more say no more.
const MOST_FILES: u64 = 10_000;

/// Options of `foretide advise`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// The control plane's configuration, which holds sites, links, volumes and rules.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/serve.toml")]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    /// Do not ask the control plane what is promised to others and what is there: nothing is.
    #[arg(long)]
    offline: bool,
    /// The volume.
    volume: VolumeId,
    /// The folder that the job reads; all of the volume if none is given.
    #[arg(value_parser = |text: &str| FilePath::parse(text), default_value = "")]
    path: FilePath,
    /// Its bytes, such as 2 TB.
    #[arg(long, value_parser = parse_bytes)]
    bytes: u64,
    /// Its files.
    #[arg(long, default_value_t = 1)]
    files: u64,
    /// Sites that are weighed; all that could take it if none is given.
    #[arg(long)]
    site: Vec<SiteId>,
    /// Accelerators that are free at a site, as SITE=NUMBER.
    #[arg(long)]
    free: Vec<Free>,
}

/// Accelerators that are free at a site.
#[derive(Clone, Debug)]
struct Free {
    site: SiteId,
    accelerators: u32,
}

impl FromStr for Free {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (site, number) = text.split_once('=').ok_or_else(|| format!("{text:?}: write SITE=NUMBER"))?;
        let accelerators = number.parse().map_err(|e| format!("{text:?}: {e}"))?;
        Ok(Self { site: SiteId::new(site).map_err(|e| e.to_string())?, accelerators })
    }
}

/// What is where, as far as warm-ups that are READY say it.
struct ReadyWarmups(Vec<Warmup>);

impl Residency for ReadyWarmups {
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, _: u64, length: u64) -> u64 {
        let covers = |w: &&Warmup| {
            w.state == WarmupState::Ready
                && (&w.request.site, &w.request.volume) == (site, volume)
                && w.request.paths.iter().any(|p| path.is_within(p))
        };
        if self.0.iter().any(|w| covers(&w)) { length } else { 0 }
    }

    fn unevictable_bytes(&self, site: &SiteId) -> u64 {
        self.0.iter().filter(|w| &w.request.site == site).map(|w| w.resident_bytes).sum()
    }
}

/// Runs it.
///
/// # Errors
/// A configuration that cannot be meant, a control plane that does not answer.
pub async fn run(options: Options) -> Result<(), RunError> {
    let (topology, rules) = configured(&options.config)?;
    if !topology.volumes.contains_key(&options.volume) {
        return Err(RunError::Told(format!(
            "volume {} is not in the configuration: add it under [volume]",
            options.volume
        )));
    }
    let config: ServeConfig = config::read(&options.config)?;
    let (plan, warmups) = if options.offline { (None, Vec::new()) } else { asked(&options).await? };
    let resident = ReadyWarmups(warmups);
    let files = files(&options).map_err(RunError::Told)?;
    let free: BTreeMap<&SiteId, u32> = options.free.iter().map(|f| (&f.site, f.accelerators)).collect();
    let advice = advise(
        &Problem {
            forecasts: &[],
            warmups: &[],
            topology: &topology,
            rules: &rules,
            resident: &resident,
            running: &[],
            demand: &[],
            brakes: &Brakes::default(),
            previous: plan.as_ref(),
            now: Timestamp::now(),
            seed: 0,
            config: &config.planner,
        },
        &AdviceRequest {
            volume: &options.volume,
            files: &files,
            candidates: &options.site,
            free_accelerators: &|site| free.get(site).copied(),
        },
    );
    if options.json {
        println!("{}", serde_json::to_string_pretty(&advice).map_err(std::io::Error::other)?);
    } else {
        print!("{}", table(&advice));
    }
    Ok(())
}

async fn asked(options: &Options) -> Result<(Option<Plan>, Vec<Warmup>), RunError> {
    let control = options.control.client()?;
    Ok((Some(control.plan(None).await?), control.list("/v1/warmups?limit=1000").await?))
}

/// The data set as so many files of one size.
fn files(options: &Options) -> Result<Vec<WarmupFile>, String> {
    let count = options.files.clamp(1, MOST_FILES);
    let one = |n: u64| {
        let bytes = options.bytes / count + u64::from(n < options.bytes % count);
        let path = options.path.join(n.to_string().as_bytes()).map_err(|e| e.to_string())?;
        Ok(WarmupFile { path, bytes })
    };
    (0..count).map(one).collect()
}

fn table(advice: &[Advice]) -> String {
    let mut text = format!(
        "{:<16} {:>10} {:>10} {:>10} {:>9} {:>10} {:>10}  why\n",
        "site", "ready p50", "ready p90", "GB to move", "money", "stall now", "when ready"
    );
    for a in advice {
        if !a.possible {
            text += &format!("{:<16} {:>64}  {}\n", a.site, "impossible", a.reason);
            continue;
        }
        let free = a.free_accelerators.map_or(String::new(), |n| format!("; {n} accelerators free"));
        text += &format!(
            "{:<16} {:>8.0} s {:>8.0} s {:>10.2} {:>9.2} {:>8.0} s {:>8.0} s  {}{free}\n",
            a.site,
            a.ready_p50_s,
            a.ready_p90_s,
            a.missing_bytes as f64 / 1e9,
            a.cost,
            a.stall_now_s,
            a.stall_when_ready_s,
            a.reason
        );
    }
    text
}
