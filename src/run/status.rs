//! `foretide status`: what the control plane knows, on one page.

use clap::Args;
use foretide_flow::{ReadSummary, Timestamp, Warmup};

use super::RunError;
use super::warm::line;
use crate::cli::ControlOptions;

/// From here on a clock is worth a word: more than the way to it and NTP leave.
const CLOCK_WRONG_US: i64 = 1_000_000;
/// Runs shown.
const RUNS_SHOWN: usize = 10;

/// Options of `foretide status`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
///
/// # Errors
/// The control plane's.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let sites = control.sites().await?;
    let warmups: Vec<Warmup> = control.list("/v1/warmups").await?;
    let runs: Vec<ReadSummary> = control.list("/v1/runs").await?;
    if options.json {
        let all = serde_json::json!({ "sites": sites, "warmups": warmups, "runs": runs });
        println!("{}", serde_json::to_string_pretty(&all).map_err(std::io::Error::other)?);
        return Ok(());
    }
    println!("sites");
    for s in &sites.items {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        println!(
            "  {:<16} holds {:.2} of {:.2} GB, brought {:.2} GB ahead, {:.2} GB of it in vain",
            s.site,
            gigabytes(s.resident_bytes),
            gigabytes(s.capacity_bytes),
            gigabytes(s.prefetched_bytes),
            gigabytes(s.wasted_bytes)
        );
        for (node, ahead_us) in s.agents.iter().filter_map(|a| Some((&a.node, a.clock_ahead_us?))) {
            if ahead_us.abs() >= CLOCK_WRONG_US {
                let word = if ahead_us > 0 { "ahead" } else { "behind" };
                println!("    {node}: its clock is {:.1} s {word}", ahead_us.abs() as f64 / 1e6);
            }
        }
    }
    println!("warm-ups");
    warmups.iter().for_each(|w| println!("  {}", line(w, Timestamp::now())));
    println!("runs");
    runs.iter().take(RUNS_SHOWN).for_each(|r| println!("  {}", run_line(r)));
    Ok(())
}

fn run_line(r: &ReadSummary) -> String {
    let coverage = if r.bytes == 0 { 0.0 } else { r.prefetched_bytes as f64 / r.bytes as f64 };
    format!(
        "{} at {}: {:.2} GB read, {:.0} % brought ahead; {} hits, {} late, {} misses; readers waited {:.1} s  {}",
        r.run,
        r.site,
        r.bytes as f64 / 1e9,
        coverage * 100.0,
        r.hits,
        r.late,
        r.misses,
        r.waited_s,
        r.command
    )
}
