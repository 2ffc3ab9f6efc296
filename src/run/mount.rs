//! `foretide mount`: the namespace and its cache alone. The agent's configuration file serves; nothing is traced and
//! no volume is served, so no root is needed.

use std::path::PathBuf;

use clap::Args;

use super::RunError;
use super::agent::{self, Parts};
use crate::config::{self, AgentConfig};

/// Options of `foretide mount`.
#[derive(Args, Debug)]
pub struct Options {
    /// Mount here instead of where the configuration says.
    mount_point: Option<PathBuf>,
    /// The agent's configuration file.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/agent.toml")]
    config: PathBuf,
}

/// Runs until a signal.
///
/// # Errors
/// A configuration without a cache or a mount point, a mount point in use, a store that cannot be opened.
pub async fn run(options: Options) -> Result<(), RunError> {
    let mut config: AgentConfig = config::read(&options.config)?;
    let meaningless =
        |why: &str| config::ConfigError::Meaningless { path: options.config.clone(), why: why.to_owned() };
    let cache = config.cache.as_mut().ok_or_else(|| meaningless("there is no [cache] to mount; add one"))?;
    cache.mount = options.mount_point.or(cache.mount.take());
    if cache.mount.is_none() {
        return Err(meaningless("there is no mount point: give one on the command line or as cache.mount").into());
    }
    agent::run_parts(config, Parts { source: false, trace: false }).await
}
