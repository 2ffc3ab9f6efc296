//! `foretide warm`: ask for data to be at a site by a time, and see how far it is.

use std::time::Duration;

use clap::{Args, Subcommand};
use foretide_flow::{FilePath, SiteId, Timestamp, VolumeId, Warmup, WarmupId, WarmupRequest, WarmupState};

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
    Ask {
        /// Volume.
        volume: VolumeId,
        /// Files or folders in it; the whole volume if none is given.
        #[arg(value_parser = |text: &str| FilePath::parse(text))]
        paths: Vec<FilePath>,
        /// Site that needs the data.
        #[arg(long)]
        site: SiteId,
        /// Needed within this time, such as 2h.
        #[arg(long, value_parser = parse_duration)]
        within: Option<Duration>,
        /// Keep it at least this long.
        #[arg(long, value_parser = parse_duration)]
        pin: Option<Duration>,
        /// Free text for people, such as a job's name.
        #[arg(long, default_value = "")]
        label: String,
        /// Return only when it is READY; exit with 1 if it fails.
        #[arg(long)]
        wait: bool,
    },
    /// Show warm-ups.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Take one back.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// Runs it.
///
/// # Errors
/// The control plane's refusal, or that a warm-up that was waited for failed.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let warmups = match options.what {
        What::Ask { volume, paths, site, within, pin, label, wait } => {
            let now = Timestamp::now();
            let paths = if paths.is_empty() { vec![FilePath::root()] } else { paths };
            let need_by = within.map(|t| now + t);
            let request = WarmupRequest {
                need_by,
                pin_until: pin.map(|t| now + t),
                label,
                ..WarmupRequest::new(volume, paths, site)
            };
            let mut warmup = control.ask_warmup(&request).await?;
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
        What::Cancel { id } => vec![control.cancel_warmup(&WarmupId::from(id)).await?],
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&warmups).map_err(std::io::Error::other)?);
    } else {
        warmups.iter().for_each(|w| println!("{}", line(w, Timestamp::now())));
    }
    Ok(())
}

fn is_final(state: WarmupState) -> bool {
    matches!(state, WarmupState::Ready | WarmupState::Failed | WarmupState::Cancelled | WarmupState::Expired)
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
