//! `foretide profile`: what was learned of each workload, shown, drawn, carried to another control plane's people, compared.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use foretide_flow::Profile;
use foretide_model::profiles::{cut, diff, export, import, in_words, merge, picture};

use super::RunError;
use crate::cli::ControlOptions;
use crate::config::parse_bytes;

/// Options of `foretide profile`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show profiles in words, and draw one.
    Show {
        #[command(flatten)]
        which: Which,
        /// Draw it into this file; one workload must be meant.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write profiles to standard output, to be kept or sent.
    Export {
        #[command(flatten)]
        which: Which,
        /// Most bytes of each: the oldest starts go first, then the smallest path shapes.
        #[arg(long, value_parser = parse_bytes)]
        cut: Option<u64>,
    },
    /// Put exported profiles together: those of one workload become one.
    Merge {
        /// Exported files.
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
    },
    /// Say in what two exports differ. Exit status 1 if they do.
    Diff {
        /// The first.
        before: PathBuf,
        /// The second.
        after: PathBuf,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cut exported profiles to so many bytes each.
    Cut {
        /// The exported file.
        file: PathBuf,
        /// Most bytes of each.
        #[arg(long, value_parser = parse_bytes)]
        bytes: u64,
    },
}

/// Which profiles are meant.
#[derive(Args, Debug)]
struct Which {
    #[command(flatten)]
    control: ControlOptions,
    /// Workloads, by identity or by a part of their command; all without any.
    workloads: Vec<String>,
    /// An exported file, instead of what the control plane knows.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Which {
    async fn profiles(&self) -> Result<Vec<Profile>, RunError> {
        let mut profiles = match &self.from {
            Some(file) => read(file)?,
            None => self.control.client()?.list("/v1/profiles").await?,
        };
        let meant = |p: &Profile, name: &String| p.workload.as_str() == name || p.command.contains(name.as_str());
        if let Some(name) = self.workloads.iter().find(|name| !profiles.iter().any(|p| meant(p, name))) {
            let remedy = "foretide profile show lists those that are known";
            return Err(RunError::Told(format!("no workload {name:?} has been seen; {remedy}")));
        }
        profiles.retain(|p| self.workloads.is_empty() || self.workloads.iter().any(|name| meant(p, name)));
        Ok(profiles)
    }
}

/// Runs it.
///
/// # Errors
/// The control plane's; a file that cannot be read or written; a workload that was never seen.
pub async fn run(options: Options) -> Result<(), RunError> {
    match options.command {
        Command::Show { which, svg, json } => {
            let profiles = which.profiles().await?;
            if let Some(file) = svg {
                let [profile] = profiles.as_slice() else {
                    let n = profiles.len();
                    return Err(RunError::Told(format!("--svg draws one workload and {n} are meant; name one")));
                };
                std::fs::write(&file, picture(profile)).map_err(|e| at(&file, &e))?;
            }
            say(&if json { export(&profiles)? } else { told(&profiles) })
        }
        Command::Export { which, cut: None } => say(&export(&which.profiles().await?)?),
        Command::Export { which, cut: Some(bytes) } => say(&export(&all_cut(&which.profiles().await?, bytes)?)?),
        Command::Merge { files } => {
            let all: Vec<Vec<Profile>> = files.iter().map(|f| read(f)).collect::<Result<_, _>>()?;
            say(&export(&merge(all.into_iter().flatten()))?)
        }
        Command::Diff { before, after, json } => {
            let differences = diff(&read(&before)?, &read(&after)?)?;
            let none = || "-".to_owned();
            let line = |d: &foretide_model::profiles::Difference| {
                let (before, after) = (d.before.clone().unwrap_or_else(none), d.after.clone().unwrap_or_else(none));
                format!("{}  {}: {before} -> {after}\n", d.workload, d.what)
            };
            say(&if json {
                serde_json::to_string(&differences).map_err(std::io::Error::other)?
            } else {
                differences.iter().map(line).collect()
            })?;
            if differences.is_empty() { Ok(()) } else { std::process::exit(1) }
        }
        Command::Cut { file, bytes } => say(&export(&all_cut(&read(&file)?, bytes)?)?),
    }
}

fn all_cut(profiles: &[Profile], bytes: u64) -> Result<Vec<Profile>, RunError> {
    Ok(profiles.iter().map(|p| cut(p, bytes as usize)).collect::<Result<_, _>>()?)
}

fn read(file: &Path) -> Result<Vec<Profile>, RunError> {
    let text = std::fs::read_to_string(file).map_err(|e| at(file, &e))?;
    import(&text).map_err(|e| at(file, &e))
}

fn at(file: &Path, why: &dyn std::fmt::Display) -> RunError {
    RunError::Told(format!("{}: {why}", file.display()))
}

fn told(profiles: &[Profile]) -> String {
    let one = |p: &Profile| format!("{}  {}\n  {}\n", p.workload, p.command, in_words(p).join("\n  "));
    profiles.iter().map(one).collect()
}

/// A reader who has seen enough is no error.
fn say(text: &str) -> Result<(), RunError> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
