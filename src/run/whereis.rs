//! `foretide where`: which sites hold how much of something, and why it is or is not there.

use clap::Args;
use foretide_api::{HeldAt, Whereabouts};
use foretide_flow::{FilePath, VolumeId};

use super::RunError;
use crate::cli::ControlOptions;

/// Options of `foretide where`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    /// Volume.
    volume: VolumeId,
    /// File or folder in it; the whole volume if none is given.
    #[arg(value_parser = |text: &str| FilePath::parse(text))]
    path: Option<FilePath>,
}

/// Runs it.
///
/// # Errors
/// The control plane's: it knows no such volume or path.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let path = options.path.unwrap_or_default();
    let found = control.whereabouts(&options.volume, &path).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&found).map_err(std::io::Error::other)?);
    } else {
        println!("{}:/{path}  {}", options.volume, head(&found));
        found.sites.iter().for_each(|s| println!("  {}", line(s, &found)));
    }
    Ok(())
}

fn head(found: &Whereabouts) -> String {
    let Some(bytes) = found.bytes else { return "not known: nobody has looked at its folder yet".to_owned() };
    let more = if found.complete { "" } else { ", as far as is known" };
    let tags: Vec<_> = found.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let tags = if tags.is_empty() { String::new() } else { format!("; tags {}", tags.join(" ")) };
    format!("{} files, {bytes} bytes{more}{tags}", found.files)
}

fn line(held: &HeldAt, found: &Whereabouts) -> String {
    let copy = found.copies.iter().find(|c| c.site == held.site);
    let amount = match copy {
        _ if held.site == found.source => "all of it".to_owned(),
        Some(copy) => format!("{} of {} bytes", copy.resident_bytes, found.bytes.unwrap_or_default()),
        None => format!("{}{} files", if held.more { "more than " } else { "" }, held.resident_files),
    };
    format!("{:<16} {amount:<24} {}", held.site, held.why.join("; "))
}
