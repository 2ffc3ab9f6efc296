//! `foretide cache`: look into or empty the cache of the agent on this node, through its own socket.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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

#[derive(Subcommand, Debug, Clone, Copy)]
enum What {
    /// How full it is.
    Status,
    /// Drop everything that is not pinned or being read.
    Empty,
    /// Verify everything it holds; corrupt chunks are dropped and fetched again when needed.
    Check,
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
        What::Check => local::Request::Check,
    };
    let CacheStatus { resident_bytes, capacity_bytes, note } = local::ask(&config.state, asked).await?;
    println!("{:.3} of {:.3} GB{note}", resident_bytes as f64 / 1e9, capacity_bytes as f64 / 1e9);
    Ok(())
}
