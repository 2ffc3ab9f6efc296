//! `foretide cache`: look into or empty the cache of the agent on this node, through its own socket.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use foretide_chunk::Subset;

use super::RunError;
use super::agent::local::{self, CacheStatus};
use crate::config::{self, AgentConfig};

/// Options of `foretide cache`.
#[derive(Args, Debug)]
pub struct Options {
    /// The agent's configuration file.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/agent.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug, Clone)]
enum What {
    /// How full it is.
    Status,
    /// Drop everything that is not being read, what the kernel has in memory of it included.
    Empty,
    /// Verify what it holds; corrupt chunks are dropped and fetched again.
    Check {
        /// Only one part of several, such as 3/7: to spread a check over days.
        #[arg(long, value_name = "N/T", value_parser = parse_subset, default_value = "1/1")]
        read_data_subset: Subset,
    },
}

fn parse_subset(text: &str) -> Result<Subset, String> {
    let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((part, of)) if (1..=of).contains(&part) => Ok(Subset { part, of }),
        _ => Err(format!("{text:?}: use N/T with N from 1 to T, such as 3/7")),
    }
}

/// Runs it.
///
/// # Errors
/// If no agent answers, or it keeps no cache.
pub async fn run(options: Options) -> Result<(), RunError> {
    let config: AgentConfig = config::read(&options.config)?;
    let asked = match options.what {
        What::Status => local::Request::Status,
        What::Empty => local::Request::Empty,
        What::Check { read_data_subset } => local::Request::Check(read_data_subset),
    };
    let CacheStatus { resident_bytes, capacity_bytes, note } = local::ask(&config.state, asked).await?;
    println!("{:.3} of {:.3} GB{note}", resident_bytes as f64 / 1e9, capacity_bytes as f64 / 1e9);
    Ok(())
}
