//! `foretide find`: files of all volumes by what is known of them.

use std::time::Duration;

use clap::Args;
use foretide_flow::{FilePath, SiteId, Timestamp, VolumeId};

use super::RunError;
use crate::cli::ControlOptions;
use crate::config::{parse_bytes, parse_duration};

/// Files asked for at a time: the most that the API hands out.
const PAGE: usize = 1000;

/// Options of `foretide find`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer as JSON, one file a line.
    #[arg(long)]
    json: bool,
    /// In this volume; in all if none is given.
    volume: Option<VolumeId>,
    /// Below this folder of it.
    #[arg(value_parser = |text: &str| FilePath::parse(text))]
    below: Option<FilePath>,
    /// The name holds this text.
    #[arg(long)]
    name: Option<String>,
    /// The name ends in this text.
    #[arg(long)]
    suffix: Option<String>,
    /// At least this large, such as `1 GB`.
    #[arg(long, value_parser = parse_bytes)]
    min_size: Option<u64>,
    /// At most this large.
    #[arg(long, value_parser = parse_bytes)]
    max_size: Option<u64>,
    /// Changed within this time, such as `2d`.
    #[arg(long, value_parser = parse_duration)]
    newer: Option<Duration>,
    /// Not changed within this time.
    #[arg(long, value_parser = parse_duration)]
    older: Option<Duration>,
    /// In a subtree with this tag, as `key=value`; may be given again.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// Resident at this site, whole or in part.
    #[arg(long)]
    at: Option<SiteId>,
    /// Files shown at most.
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
}

/// Runs it.
///
/// # Errors
/// The control plane's.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let (conditions, mut left) = (conditions(&options, Timestamp::now()), options.limit);
    let mut cursor: Option<String> = None;
    while left > 0 {
        let mut query = conditions.clone();
        query.push(("limit", left.min(PAGE).to_string()));
        query.extend(cursor.take().map(|c| ("cursor", c)));
        let page = control.files(&query).await?;
        for file in &page.items {
            if options.json {
                println!("{}", serde_json::to_string(file).map_err(std::io::Error::other)?);
            } else {
                println!("{:>14}  {}:{}", file.entry.size, file.volume, file.entry.path);
            }
        }
        left -= page.items.len();
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
    eprintln!("there may be more: these are the first {}; see --limit", options.limit);
    Ok(())
}

/// The API's parameters.
fn conditions(options: &Options, now: Timestamp) -> Vec<(&'static str, String)> {
    let text = |name, value: Option<&dyn ToString>| value.map(|v| (name, v.to_string()));
    let moment = |name, ago: Option<Duration>| ago.map(|ago| (name, (now - ago).0.to_string()));
    let tags = (!options.tags.is_empty()).then(|| ("tags", options.tags.join(",")));
    [
        text("volume", options.volume.as_ref().map(|v| v as _)),
        text("below", options.below.as_ref().map(|v| v as _)),
        text("name_part", options.name.as_ref().map(|v| v as _)),
        text("suffix", options.suffix.as_ref().map(|v| v as _)),
        text("min_bytes", options.min_size.as_ref().map(|v| v as _)),
        text("max_bytes", options.max_size.as_ref().map(|v| v as _)),
        moment("modified_from", options.newer),
        moment("modified_before", options.older),
        tags,
        text("resident_at", options.at.as_ref().map(|v| v as _)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
