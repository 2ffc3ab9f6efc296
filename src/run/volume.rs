//! `foretide volume`: add volumes while everything runs, and see who serves them.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use foretide_api::{VolumeView, VolumeWanted};
use foretide_flow::{NodeId, SiteId, VolumeId};

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
        /// Their site; by itself the one whose agents offer all of them.
        #[arg(long)]
        at: Option<SiteId>,
        /// Another site at which a copy of all of it stands, under the same addresses; may be given again. Its agents give
        /// bytes as long as they are the source's.
        #[arg(long = "copy-at", value_name = "SITE")]
        copies: Vec<SiteId>,
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
        What::Add { name, sources, at, copies, tags } => {
            let sources_told = sources.join(", ");
            let wanted = VolumeWanted { name: name.clone(), at, sources, copies, tags: tags.into_iter().collect() };
            let at_source = control.add_volume(&wanted).await?.at;
            let asked = Instant::now();
            loop {
                let all = control.volumes().await?.items;
                let added = all.into_iter().find(|v| v.name == name);
                let lacking = added.as_ref().map_or(Some(&at_source), unserved_at).cloned();
                match (added, lacking) {
                    (Some(added), None) => break vec![added],
                    (_, Some(site)) if asked.elapsed() > PATIENCE => {
                        return Err(RunError::Told(format!(
                            "volume {name} is added, and no agent at {site} serves it yet: does one run there, is all of \
                             {sources_told} on its node, and does its source.offer name that or something above it?"
                        )));
                    }
                    _ => tokio::time::sleep(LOOK_EVERY).await,
                }
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

/// The first site at which it stands, or a copy of it, and no agent serves it.
fn unserved_at(v: &VolumeView) -> Option<&SiteId> {
    let all = std::iter::once((&v.at, &v.served_by)).chain(v.copies.iter().map(|copy| (&copy.at, &copy.served_by)));
    all.filter(|(_, served_by)| served_by.is_empty()).map(|(site, _)| site).next()
}

fn served(by: &[NodeId]) -> String {
    let nodes: Vec<_> = by.iter().map(NodeId::to_string).collect();
    if nodes.is_empty() { "served by nobody".to_owned() } else { format!("served by {}", nodes.join(", ")) }
}

fn line(v: &VolumeView) -> String {
    let copies: String = v.copies.iter().map(|c| format!(", copy at {} {}", c.at, served(&c.served_by))).collect();
    let served = served(&v.served_by) + &copies;
    let tags: Vec<_> = v.tags.iter().map(|(k, value)| format!("{k}={value}")).collect();
    let sources = if v.sources.is_empty() { "as configured".to_owned() } else { v.sources.join(" over ") };
    format!("{:<16} at {:<12} {sources}  {served}  {}", v.name, v.at, tags.join(" "))
}
