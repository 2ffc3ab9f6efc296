//! `foretide advise`: where should it run? Moving the data against moving the job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use foretide_api::{Advice, AdviceWanted, SiteAdvice};
use foretide_flow::{FilePath, SiteId, Timestamp, VolumeId};
use foretide_planner::{AdviceRequest, Brakes, NothingResident, Problem, Supply, WarmupFile, advise};

use super::RunError;
use super::policy::configured;
use super::serve::shown;
use crate::cli::ControlOptions;
use crate::config::{self, ServeConfig, parse_bytes};

/// Files that stand for a data set of which only totals are told; more say no more.
const MOST_FILES: u64 = 10_000;

/// Options of `foretide advise`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    /// The volume.
    volume: VolumeId,
    /// Files or folders that the job reads; all of the volume if none is given.
    #[arg(value_parser = |text: &str| FilePath::parse(text))]
    paths: Vec<FilePath>,
    /// Sites that are weighed; all that could take it if none is given.
    #[arg(long)]
    site: Vec<SiteId>,
    /// Accelerators that are free at a site, as SITE=NUMBER.
    #[arg(long)]
    free: Vec<Free>,
    /// Ask of a data set of so many bytes that is nowhere yet, such as 2 TB: from the configuration alone, without the
    /// control plane.
    #[arg(long, value_parser = parse_bytes, requires = "config")]
    bytes: Option<u64>,
    /// Its files.
    #[arg(long, default_value_t = 1, requires = "bytes")]
    files: u64,
    /// The control plane's configuration, which holds sites, links, volumes and rules.
    #[arg(long, requires = "bytes")]
    config: Option<PathBuf>,
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

/// Runs it.
///
/// # Errors
/// A configuration that cannot be meant, a control plane that does not answer.
pub async fn run(options: Options) -> Result<(), RunError> {
    let advice = match (options.bytes, &options.config) {
        (Some(bytes), Some(path)) => of_totals(&options, bytes, path)?,
        _ => {
            let paths = if options.paths.is_empty() { vec![FilePath::root()] } else { options.paths.clone() };
            let wanted = AdviceWanted {
                volume: Some(options.volume.clone()),
                paths,
                sites: options.site.clone(),
                free_accelerators: options.free.iter().map(|f| (f.site.clone(), f.accelerators)).collect(),
                ..AdviceWanted::default()
            };
            options.control.client()?.advise(&wanted).await?
        }
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&advice).map_err(std::io::Error::other)?);
    } else {
        print!("{}", table(&advice));
    }
    Ok(())
}

/// What the configuration alone says of a data set that is nowhere yet.
fn of_totals(options: &Options, bytes: u64, path: &std::path::Path) -> Result<Advice, RunError> {
    let (topology, rules) = configured(path)?;
    if !topology.volumes.contains_key(&options.volume) {
        let why = format!("volume {} is not in the configuration: add it under [volume]", options.volume);
        return Err(RunError::Told(why));
    }
    let config: ServeConfig = config::read(path)?;
    let folder = options.paths.first().cloned().unwrap_or_default();
    let files = files(&folder, bytes, options.files).map_err(RunError::Told)?;
    let free: BTreeMap<&SiteId, u32> = options.free.iter().map(|f| (&f.site, f.accelerators)).collect();
    let problem = Problem {
        forecasts: &[],
        warmups: &[],
        topology: &topology,
        rules: &rules,
        supply: &Supply::of_copies(&topology, |_, _| true),
        resident: &NothingResident,
        running: &[],
        demand: &[],
        brakes: &Brakes::default(),
        previous: None,
        now: Timestamp::now(),
        seed: 0,
        config: &config.planner,
    };
    let request = AdviceRequest {
        volume: &options.volume,
        files: &files,
        candidates: &options.site,
        free_accelerators: &|site| free.get(site).copied(),
    };
    let sites = advise(&problem, &request).into_iter().map(shown).collect();
    Ok(Advice { files: options.files, bytes, complete: true, sites })
}

/// The data set as so many files of one size.
fn files(folder: &FilePath, bytes: u64, files: u64) -> Result<Vec<WarmupFile>, String> {
    let count = files.clamp(1, MOST_FILES);
    let one = |n: u64| {
        let path = folder.join(n.to_string().as_bytes()).map_err(|e| e.to_string())?;
        Ok(WarmupFile { path, bytes: bytes / count + u64::from(n < bytes % count) })
    };
    (0..count).map(one).collect()
}

fn table(advice: &Advice) -> String {
    let mut text = format!("{} files, {:.2} GB", advice.files, advice.bytes as f64 / 1e9);
    text += if advice.complete { "\n" } else { "; some folders are not known yet, there may be more\n" };
    text += &format!(
        "{:<16} {:>10} {:>10} {:>10} {:>9} {:>10}  why\n",
        "site", "ready p50", "ready p90", "GB to move", "money", "stall now"
    );
    advice.sites.iter().for_each(|a| text += &line(a));
    text
}

fn line(a: &SiteAdvice) -> String {
    if !a.possible {
        return format!("{:<16} {:>55}  {}\n", a.site.as_str(), "impossible", a.reason);
    }
    let free = a.free_accelerators.map_or(String::new(), |n| format!("; {n} accelerators free"));
    format!(
        "{:<16} {:>8.0} s {:>8.0} s {:>10.2} {:>9.2} {:>8.0} s  {}{free}\n",
        a.site.as_str(),
        a.ready_p50_s,
        a.ready_p90_s,
        a.missing_bytes as f64 / 1e9,
        a.cost,
        a.stall_now_s,
        a.reason
    )
}
