//! `foretide volume`: add volumes while everything runs, and see who serves them.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use foretide_api::{VolumeView, VolumeWanted};
use foretide_flow::{SiteId, VolumeId};

use super::RunError;
use super::tag::parse_tag;
use crate::cli::ControlOptions;

/// How long `add` waits for an agent to serve the volume before it says what may be wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Options of `foretide volume`.
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
    /// Make a folder at a site a volume; returns when an agent there serves it. The tree is not walked.
    Add {
        /// Its name: the directory under which mounts show it.
        name: VolumeId,
        /// A folder, as an absolute path at that site, or `s3://…`, `gs://…` or `az://…`: below what an agent there offers
        /// (`source.offer`). Several become one tree, in which the first ones win.
        #[arg(required = true)]
        sources: Vec<String>,
        /// The site.
        #[arg(long)]
        at: SiteId,
        /// A tag as `key=value`; may be given again.
        #[arg(long = "tag", value_parser = parse_tag)]
        tags: Vec<(String, String)>,
    },
    /// Show volumes and who serves them.
    List,
}

/// Runs it.
///
/// # Errors
/// The control plane's refusal, or that nobody serves the volume.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let shown = match options.what {
        What::Add { name, sources, at, tags } => {
            let tags = tags.into_iter().collect();
            let wanted = VolumeWanted { name: name.clone(), at: at.clone(), sources: sources.clone(), tags };
            control.add_volume(&wanted).await?;
            let asked = Instant::now();
            loop {
                let all = control.volumes().await?.items;
                if let Some(served) = all.into_iter().find(|v| v.name == name && !v.served_by.is_empty()) {
                    break vec![served];
                }
                if asked.elapsed() > PATIENCE {
                    return Err(RunError::Told(format!(
                        "volume {name} is added, and no agent at {at} serves it yet: does one run there, is all of \
                         {} on its node, and does its source.offer name that or something above it?",
                        sources.join(", ")
                    )));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        What::List => control.volumes().await?.items,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&shown).map_err(std::io::Error::other)?);
    } else {
        shown.iter().for_each(|v| println!("{}", line(v)));
    }
    Ok(())
}

fn line(v: &VolumeView) -> String {
    let served: Vec<_> = v.served_by.iter().map(|node| node.to_string()).collect();
    let served =
        if served.is_empty() { "served by nobody".to_owned() } else { format!("served by {}", served.join(", ")) };
    let tags: Vec<_> = v.tags.iter().map(|(k, value)| format!("{k}={value}")).collect();
    let sources = if v.sources.is_empty() { "as configured".to_owned() } else { v.sources.join(" over ") };
    format!("{:<16} at {:<12} {sources}  {served}  {}", v.name, v.at, tags.join(" "))
}
