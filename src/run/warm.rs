//! `foretide warm`: ask for data to be at a site by a time, and see how far it is.

use std::time::Duration;

use clap::{Args, Subcommand};
use foretide_api::WarmupWanted;
use foretide_flow::{FilePath, SiteId, Timestamp, VolumeId, Warmup, WarmupId, WarmupState};

use super::RunError;
use crate::cli::ControlOptions;
use crate::config::parse_duration;

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Options of `foretide warm`.
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
    /// Ask for a warm-up.
    Ask(Box<Asked>),
    /// Show warm-ups.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Its job has run: it is over, and its pin ends.
    Release {
        /// Its id.
        id: String,
    },
    /// Take one back.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// What is asked for, and how.
#[derive(Args, Debug)]
struct Asked {
    /// Volume; not needed with --tag, --workload or --run.
    volume: Option<VolumeId>,
    /// Files or folders in it; the whole volume if none is given.
    #[arg(value_parser = |text: &str| FilePath::parse(text))]
    paths: Vec<FilePath>,
    /// Only files whose path in the volume matches this; may come again.
    #[arg(long)]
    glob: Vec<String>,
    /// Only what carries this tag, as KEY=VALUE; may come again.
    #[arg(long, value_parser = tag)]
    tag: Vec<(String, String)>,
    /// What this workload reads.
    #[arg(long, conflicts_with_all = ["volume", "tag", "run"])]
    workload: Option<String>,
    /// What this run has read.
    #[arg(long, conflicts_with_all = ["volume", "tag"])]
    run: Option<String>,
    /// Site that needs the data; the best one if none is given.
    #[arg(long)]
    site: Option<SiteId>,
    /// Needed within this time, such as 2h.
    #[arg(long, value_parser = parse_duration)]
    within: Option<Duration>,
    /// Keep it at least this long.
    #[arg(long, value_parser = parse_duration)]
    pin: Option<Duration>,
    /// Of higher priority is served first, whatever the deadlines.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i8,
    /// Begin when this warm-up has been READY; may come again.
    #[arg(long)]
    after: Vec<String>,
    /// Free text for people, such as a job's name.
    #[arg(long, default_value = "")]
    label: String,
    /// Return only when it is READY; exit with 1 if it fails.
    #[arg(long)]
    wait: bool,
}

impl Asked {
    fn wanted(self, now: Timestamp) -> WarmupWanted {
        let whole = self.paths.is_empty() && self.volume.is_some() && self.tag.is_empty();
        WarmupWanted {
            volume: self.volume,
            paths: if whole { vec![FilePath::root()] } else { self.paths },
            globs: self.glob,
            tags: self.tag.into_iter().collect(),
            workload: self.workload.map(Into::into),
            run: self.run.map(Into::into),
            site: self.site,
            need_by: self.within.map(|t| now + t),
            pin_until: self.pin.map(|t| now + t),
            priority: self.priority,
            run_after: self.after.into_iter().map(Into::into).collect(),
            label: self.label,
            ..WarmupWanted::default()
        }
    }
}

/// Runs it.
///
/// # Errors
/// The control plane's refusal, or that a warm-up that was waited for failed.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let warmups = match options.what {
        What::Ask(asked) => {
            let wait = asked.wait;
            let mut warmup = control.want(&asked.wanted(Timestamp::now())).await?;
            while wait && !is_final(warmup.state) {
                tokio::time::sleep(LOOK_EVERY).await;
                warmup = control.warmup(&warmup.id).await?;
            }
            if matches!(warmup.state, WarmupState::Failed | WarmupState::Expired) {
                return Err(RunError::Told(format!("{}: {}", warmup.id, warmup.why.unwrap_or_default())));
            }
            vec![warmup]
        }
        What::List => control.list("/v1/warmups").await?,
        What::Show { id } => vec![control.warmup(&WarmupId::from(id)).await?],
        What::Release { id } => vec![control.release_warmup(&WarmupId::from(id)).await?],
        What::Cancel { id } => vec![control.cancel_warmup(&WarmupId::from(id)).await?],
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&warmups).map_err(std::io::Error::other)?);
    } else {
        warmups.iter().for_each(|w| println!("{}", line(w, Timestamp::now())));
    }
    Ok(())
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn is_final(state: WarmupState) -> bool {
    state == WarmupState::Ready || state.is_over()
}

/// A warm-up on one line.
pub fn line(w: &Warmup, now: Timestamp) -> String {
    let gigabytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1e9);
    let required = w.required_bytes.map_or("?".to_owned(), gigabytes);
    let state = format!("{:?}", w.state).to_uppercase();
    let mut text = format!(
        "{}  {state:<9} {} of {required} GB  {}:{} at {}",
        w.id,
        gigabytes(w.resident_bytes),
        w.request.volume,
        w.request.paths.iter().map(|p| format!("/{p}")).collect::<Vec<_>>().join(","),
        w.request.site
    );
    if let (Some(eta), false) = (w.eta, is_final(w.state)) {
        text += &format!("  ready in {:.0} s", eta.since(now).as_secs_f64());
    }
    if let Some(why) = &w.why {
        text += &format!("  ({why})");
    }
    text
}
