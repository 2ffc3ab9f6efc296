//! `foretide plan`: the plan as people read it, why a file is in it or not, what changed, and who says go or stop.

use clap::{Args, Subcommand};
use foretide_api::PlanLine;
use foretide_flow::{FilePath, Plan, SiteId, VolumeId, WarmupRequest};
use foretide_planner::{diff, explain, proposals, show};

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
    /// Stop all prefetch at once; warm-ups go on.
    Pause,
    /// Let prefetch go on.
    Resume,
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
        What::Approve { path, site } => approve(&control, json, path.as_ref(), site.as_ref()).await,
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
    path: Option<&FilePath>,
    site: Option<&SiteId>,
) -> Result<(), RunError> {
    let plan = control.plan(None).await?;
    let requests = requests(&plan, path, site)?;
    if requests.is_empty() {
        let why =
            "the plan proposes nothing there: what is not held back by the modes advise and shadow moves by itself";
        return Err(RunError::Told(why.into()));
    }
    let mut warmups = Vec::with_capacity(requests.len());
    for request in &requests {
        warmups.push(control.ask_warmup(request).await?);
    }
    let text = || warmups.iter().map(|w| line(w, plan.made_at) + "\n").collect();
    told(json, &warmups, text)
}

/// One warm-up for each volume and site, of what the plan proposes.
///
/// # Errors
/// If so many files at the top of a volume are proposed that the plan does not name them all: to ask for its root would be to
/// ask for everything in it.
fn requests(plan: &Plan, path: Option<&FilePath>, site: Option<&SiteId>) -> Result<Vec<WarmupRequest>, RunError> {
    let mut by: std::collections::BTreeMap<(&VolumeId, &SiteId), Vec<FilePath>> = std::collections::BTreeMap::new();
    for proposal in proposals(plan) {
        if site.is_none_or(|s| s == &proposal.to) && path.is_none_or(|p| proposal.path.is_within(p)) {
            if proposal.path.is_root() {
                return Err(RunError::Told(format!(
                    "{} more files at the top of volume {} are proposed to {} than the plan names: approve files or folders \
                     by name, or ask for all of the volume with foretide warm",
                    proposal.files, proposal.volume, proposal.to
                )));
            }
            by.entry((&proposal.volume, &proposal.to)).or_default().push(proposal.path.clone());
        }
    }
    let request = |((volume, site), paths): ((&VolumeId, &SiteId), Vec<FilePath>)| WarmupRequest {
        label: format!("approved of plan {}", plan.id),
        ..WarmupRequest::new(volume.clone(), paths, site.clone())
    };
    Ok(by.into_iter().map(request).collect())
}

#[cfg(test)]
mod tests {
    use foretide_flow::{LeftOut, Timestamp};

    use super::*;

    #[test]
    fn the_root_of_a_volume_is_never_approved_for_files_in_it() {
        let (volume, to) = (VolumeId::new("data").unwrap(), SiteId::new("gpu").unwrap());
        let proposed = |path: &str, files| LeftOut {
            volume: volume.clone(),
            path: FilePath::parse(path).unwrap(),
            to: to.clone(),
            files,
            bytes: 10,
            why: "the mode is advise: it would be moved".into(),
        };
        let plan = |left_out| Plan {
            id: "p".into(),
            made_at: Timestamp(0),
            horizon: Timestamp(1),
            moves: vec![],
            refused: vec![],
            left_out,
        };
        let asked = requests(&plan(vec![proposed("a", 1), proposed("c", 4)]), None, None).unwrap();
        let paths: Vec<_> = asked[0].paths.iter().map(ToString::to_string).collect();
        assert_eq!((asked.len(), paths), (1, vec!["a".to_owned(), "c".to_owned()]));
        let many = plan(vec![proposed("a", 1), proposed("", 5)]);
        let told = requests(&many, None, None).unwrap_err().to_string();
        assert!(told.contains("5 more files at the top of volume data"), "{told}");
        assert_eq!(requests(&many, Some(&FilePath::parse("a").unwrap()), None).unwrap().len(), 1);
    }
}
