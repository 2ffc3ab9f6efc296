//! `foretide tag`: tags on a volume, folder or file; what lies below carries them too.

use std::collections::BTreeMap;

use clap::Args;
use foretide_api::Tagging;
use foretide_flow::{FilePath, VolumeId};

use super::RunError;
use crate::cli::ControlOptions;

/// Options of `foretide tag`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Volume.
    volume: VolumeId,
    /// File or folder in it; `/` for the whole volume.
    #[arg(value_parser = |text: &str| FilePath::parse(text.trim_start_matches('/')))]
    path: FilePath,
    /// Tags as `key=value`, in place of those that it carried itself; none takes them away.
    #[arg(value_parser = parse_tag)]
    tags: Vec<(String, String)>,
}

/// Parses `key=value`.
///
/// # Errors
/// What was expected.
pub fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no tag: write key=value")),
    }
}

/// Runs it.
///
/// # Errors
/// The control plane's.
pub async fn run(options: Options) -> Result<(), RunError> {
    let tags: BTreeMap<_, _> = options.tags.into_iter().collect();
    let tagging = Tagging { volume: options.volume, path: options.path, tags };
    let done = options.control.client()?.tag(&tagging).await?;
    println!("{}:/{} carries {} tags of its own", done.volume, done.path, done.tags.len());
    Ok(())
}
