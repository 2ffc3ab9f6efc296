//! Arguments, and which of them goes where.

use std::io::IsTerminal;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::client::{ClientError, ControlClient};
use crate::run::{
    RunError, advise, agent, cache, certify, copy, demo, doctor, evaluate, find, join, k8s, link, mount, plan, policy,
    profile, serve, simulate, slurm, status, tag, token, trace, volume, warm, whereis,
};
use crate::tls::Trust;

/// Moves data toward GPUs ahead of the reads.
#[derive(Parser, Debug)]
#[command(name = "foretide", version)]
pub struct Cli {
    /// Log more: -v for what is done, -vv for each step. `FORETIDE_LOG` sets it by module.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the control plane: API, dashboard, model and planner.
    Serve(serve::Options),
    /// Run the agent of a storage or compute node.
    Agent(agent::Options),
    /// Mount the namespace with its cache, without tracing.
    Mount(mount::Options),
    /// See the whole of it on this machine: two sites 150 ms apart and a training job.
    Demo(demo::Options),
    /// Record what reads what, and look at recordings.
    Trace(trace::Options),
    /// Say what Foretide would have done with a trace that was recorded anywhere.
    Evaluate(evaluate::Options),
    /// Show, draw, export, merge and compare what was learned of workloads.
    Profile(profile::Options),
    /// Ask for data to be at a site by a time.
    Warm(warm::Options),
    /// Show sites, caches, warm-ups and runs.
    Status(status::Options),
    /// Show, explain, compare, approve and pause plans.
    Plan(plan::Options),
    /// Ask what the borders say of a path.
    Policy(policy::Options),
    /// Rank sites for a job: move the data, or move the job?
    Advise(advise::Options),
    /// Replay recorded accesses over a topology: without a cache, with one, with Foretide, with an oracle.
    Simulate(simulate::Options),
    /// Add volumes, and see who serves them.
    Volume(volume::Options),
    /// Search the files of all volumes by name, size, age, tag or site.
    Find(find::Options),
    /// Say which sites hold how much of a file or folder, and why it is or is not there.
    Where(whereis::Options),
    /// Tag a volume, folder or file.
    Tag(tag::Options),
    /// Look into or empty this node's cache.
    Cache(cache::Options),
    /// Make certificates for TLS between agents.
    Certify(certify::Options),
    /// Make this node one of the installation's, by a token that is good for that once.
    Join(join::Options),
    /// Make, show and revoke tokens, and offer nodes to join.
    Token(token::Options),
    /// Bring a tree here once: only what differs crosses.
    Copy(copy::Options),
    /// Stand between slurmctld and the control plane, on the host of slurmctld.
    Slurm(slurm::Options),
    /// Answer Kueue's admission checks, or rank nodes for kube-scheduler.
    K8s(k8s::Options),
    /// Say what this machine can do and what is missing.
    Doctor(doctor::Options),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Emulate a wide-area link on this machine.
    #[command(hide = true)]
    Link(link::Options),
}

/// Which control plane, and with which token.
#[derive(Args, Debug, Clone)]
pub struct ControlOptions {
    /// Address of the control plane.
    #[arg(long, global = true, env = "FORETIDE_CONTROL", default_value = "http://127.0.0.1:7700")]
    control: String,
    /// The token itself.
    #[arg(long, global = true, env = "FORETIDE_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, global = true, env = "FORETIDE_TOKEN_FILE", default_value = "/var/lib/foretide/token")]
    token_file: std::path::PathBuf,
    /// The certificate of the authority behind the control plane's https; those that the system trusts if absent.
    #[arg(long, global = true, env = "FORETIDE_AUTHORITY")]
    authority: Option<std::path::PathBuf>,
}

impl ControlOptions {
    /// The caller that these options mean.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn client(&self) -> Result<ControlClient, ClientError> {
        let trust = Trust { authorities: self.authority.clone().into(), own: None };
        match &self.token {
            Some(token) => ControlClient::with_token(&self.control, token.clone(), &trust),
            None => ControlClient::new(&self.control, self.token_file.clone(), &trust),
        }
    }
}

/// Logs go to standard error, so that standard output is the command's answer alone.
pub fn start_log(cli: &Cli) {
    let long_running = matches!(
        cli.command,
        Command::Serve(_) | Command::Agent(_) | Command::Mount(_) | Command::Slurm(_) | Command::K8s(_)
    );
    let default = match (cli.verbose, long_running) {
        (0, false) => "warn",
        (0, true) | (1, false) => "info",
        _ => "debug",
    };
    // A mount that we took away is no news of fuser's.
    let quiet = || EnvFilter::new(format!("{default},fuser::mnt=error"));
    let filter = EnvFilter::try_from_env("FORETIDE_LOG").unwrap_or_else(|_| quiet());
    let coloured = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(coloured).with_writer(std::io::stderr).init();
}

/// Runs the command to its end.
///
/// # Errors
/// One line that names the thing and the remedy.
pub fn dispatch(cli: Cli) -> Result<(), RunError> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "foretide", &mut std::io::stdout());
        return Ok(());
    }
    if let Command::Agent(options) = &cli.command {
        options.give_up_power()?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(options) => serve::run(options).await,
            Command::Agent(options) => agent::run(options).await,
            Command::Mount(options) => mount::run(options).await,
            Command::Demo(options) => Ok(demo::run(options).await?),
            Command::Trace(options) => trace::run(options).await,
            Command::Evaluate(options) => evaluate::run(&options),
            Command::Profile(options) => profile::run(options).await,
            Command::Warm(options) => warm::run(options).await,
            Command::Status(options) => status::run(options).await,
            Command::Plan(options) => plan::run(options).await,
            Command::Policy(options) => policy::run(options).await,
            Command::Advise(options) => advise::run(options).await,
            Command::Simulate(options) => simulate::run(options).await,
            Command::Volume(options) => volume::run(options).await,
            Command::Find(options) => find::run(options).await,
            Command::Where(options) => whereis::run(options).await,
            Command::Tag(options) => tag::run(options).await,
            Command::Cache(options) => cache::run(options).await,
            Command::Certify(options) => certify::run(&options),
            Command::Join(options) => join::run(options).await,
            Command::Token(options) => token::run(options).await,
            Command::Copy(options) => copy::run(options).await,
            Command::Slurm(options) => slurm::run(options).await,
            Command::K8s(options) => k8s::run(options).await,
            Command::Doctor(options) => doctor::run(&options),
            Command::Link(options) => Ok(link::run(options).await?),
            Command::Completions { .. } => Ok(()),
        }
    });
    // Threads that wait in the kernel (a trace, a lock) must not hold up the end.
    runtime.shutdown_background();
    done
}
