//! `foretide plan`: the plan as people read it, why a file is in it or not, what changed, and who says go or stop.

use clap::{Args, Subcommand};
use foretide_api::{Approval, ModeChoice, ModeView, PlanLine};
use foretide_flow::{FilePath, Mode, Plan, SiteId};
use foretide_planner::{diff, explain, show};

use super::RunError;
use super::warm::line;
use crate::cli::ControlOptions;
use crate::client::ControlClient;

/// Options of `foretide plan`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show a plan: moves by link and cause, what rules forbid, what was left out.
    Show {
        /// Its id; the plan that holds if none is given.
        plan: Option<String>,
    },
    /// Say everything that a plan says of a file or folder.
    Explain {
        /// File or folder.
        #[arg(value_parser = |text: &str| FilePath::parse(text))]
        path: FilePath,
        /// Of which plan; the one that holds if none is given.
        #[arg(long)]
        plan: Option<String>,
    },
    /// Show what changed from one plan to another; from the last but one to the last if none is given.
    Diff {
        /// The earlier one.
        before: Option<String>,
        /// The later one; the plan that holds if only the earlier one is given.
        after: Option<String>,
    },
    /// Ask for what the plan proposes and a mode holds back: it becomes warm-ups, of whole folders where several files
    /// of one were proposed.
    Approve {
        /// Only this file, or what is below this folder.
        #[arg(value_parser = |text: &str| FilePath::parse(text))]
        path: Option<FilePath>,
        /// Only at this site.
        #[arg(long)]
        site: Option<SiteId>,
    },
    /// Show the mode in force, or choose another one: from the next plan on.
    Mode {
        /// How far Foretide acts on its own forecasts: advise, shadow, enforce; or configured, for what the configuration
        /// says.
        mode: Option<Chosen>,
    },
    /// Stop all prefetch at once; warm-ups go on.
    Pause,
    /// Let prefetch go on.
    Resume,
}

/// A mode as people write it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Chosen {
    Advise,
    Shadow,
    Enforce,
    Configured,
}

impl Chosen {
    fn mode(self) -> Option<Mode> {
        match self {
            Self::Advise => Some(Mode::Advise),
            Self::Shadow => Some(Mode::Shadow),
            Self::Enforce => Some(Mode::Enforce),
            Self::Configured => None,
        }
    }
}

/// Runs it.
///
/// # Errors
/// The control plane's.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let json = options.json;
    match options.what {
        What::Show { plan } => {
            let plan = control.plan(plan.as_deref()).await?;
            told(json, &plan, || show(&plan))
        }
        What::Explain { path, plan } => {
            let mut plan = control.plan(plan.as_deref()).await?;
            let text = explain(&plan, &path);
            plan.moves.retain(|m| m.path.is_within(&path));
            plan.refused.retain(|r| r.path.is_within(&path) || path.is_within(&r.path));
            plan.left_out.retain(|l| l.path.is_within(&path) || path.is_within(&l.path));
            told(json, &plan, || text)
        }
        What::Diff { before, after } => {
            let (before, after) = two(&control, before, after).await?;
            let found = diff(&before, &after);
            told(json, &found, || found.to_string())
        }
        What::Approve { path, site } => approve(&control, json, path, site).await,
        What::Mode { mode } => {
            let view = control.mode(mode.map(|mode| ModeChoice { mode: mode.mode() })).await?;
            told(json, &view, || {
                let ModeView { mode, configured } = view;
                format!("{mode:?}, configured {configured:?}\n").to_lowercase()
            })
        }
        What::Pause => Ok(control.switch_prefetch(false).await?),
        What::Resume => Ok(control.switch_prefetch(true).await?),
    }
}

fn told(json: bool, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<(), RunError> {
    if json {
        println!("{}", serde_json::to_string_pretty(value).map_err(std::io::Error::other)?);
    } else {
        print!("{}", text());
    }
    Ok(())
}

async fn two(control: &ControlClient, before: Option<String>, after: Option<String>) -> Result<(Plan, Plan), RunError> {
    if let Some(before) = before {
        return Ok((control.plan(Some(&before)).await?, control.plan(after.as_deref()).await?));
    }
    let lines: Vec<PlanLine> = control.list("/v1/plans?limit=2").await?;
    match lines.as_slice() {
        [last, before] => {
            Ok((control.plan(Some(before.id.as_str())).await?, control.plan(Some(last.id.as_str())).await?))
        }
        _ => Err(RunError::Told("there is only one plan so far, or none: nothing to compare".into())),
    }
}

async fn approve(
    control: &ControlClient,
    json: bool,
    path: Option<FilePath>,
    site: Option<SiteId>,
) -> Result<(), RunError> {
    let plan = control.plan(None).await?;
    let warmups = control.approve(&plan.id, &Approval { path, site }).await?;
    let text = || warmups.iter().map(|w| line(w, plan.made_at) + "\n").collect();
    told(json, &warmups, text)
}
