//! `foretide copy`: bring a tree here once, without an agent of one's own.
//!
//! The tree is at an agent, in an object store or in a local folder; the last two are served to this process alone, so
//! that all three go the same way: the mover brings verified chunks to a store in the destination, and whole files leave it
//! for their places. Files that lie in the destination already go into that store first, as older versions: what they
//! share with the new ones does not cross. A copy that was interrupted goes on where it was; when all is in place the
//! store is removed.

mod origin;
mod place;
mod tree;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use foretide_chunk::{DomainKey, Store};
use foretide_flow::{
    Assignment, BitsPerSecond, Entry, ForecastId, Move, MoveCause, Outcome, Priority, SiteId, Timestamp, WorkloadId,
};
use foretide_transfer::{Borders, Manners, Mover, MoverConfig, TransferError};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use super::RunError;
use crate::config::parse_rate;
use origin::{Caller, Origin};
use tree::Tree;

/// The store's folder in the destination.
const STORE_FOLDER: &str = ".foretide-copy";
/// Moves handed to the mover and not over: enough for its window with files of any size.
const MOVES_AT_A_TIME: usize = 4096;
/// Copying needs what it copies: the store evicts nothing, and a full disk says so itself.
const UNBOUNDED_BYTES: u64 = 1 << 60;
/// Tasks that are being stopped let go within milliseconds.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Options of `foretide copy`.
#[derive(Args, Debug)]
pub struct Options {
    /// A folder or file: `foretide://host:port/volume/path` at an agent, `s3://bucket/prefix` (or `gs://`, `az://`), or
    /// a local path.
    source: String,
    /// The folder that it shall be in; what is there already and the same is left alone.
    destination: PathBuf,
    /// Ask an agent as this node's own would, by the name, site, token and certificate in its configuration: needed where
    /// agents show each other certificates.
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    config: Option<PathBuf>,
    /// Without --config: a file that holds the agents' token.
    #[arg(long, env = "FORETIDE_TOKEN_FILE", default_value = "/var/lib/foretide/token")]
    token_file: PathBuf,
    /// The site that this machine belongs to, for residency rules.
    #[arg(long, default_value = "copy")]
    site: SiteId,
    /// Read a folder or an object store no faster than this, such as 200Mbit/s.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<BitsPerSecond>,
    /// Ask a folder so often in all if it fails in a way that may pass; the client of object stores does by itself.
    #[arg(long, default_value_t = Manners::default().tries)]
    tries: u32,
    /// Say what would be copied, and copy nothing.
    #[arg(long)]
    dry_run: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Files copied.
    files: u64,
    /// Files that were there already, by size and time.
    unchanged: u64,
    /// Bytes of the files copied.
    logical_bytes: u64,
    /// Bytes that crossed: chunks, differences, lists of chunks.
    physical_bytes: u64,
    /// Bytes that need not cross, because they were here or alike or could be packed.
    deduplicated_bytes: u64,
    /// Seconds.
    seconds: f64,
}

/// Runs it.
///
/// # Errors
/// What cannot be read, reached or written; what was copied by then stays, and the next run goes on from there.
pub async fn run(options: Options) -> Result<(), RunError> {
    let began = Instant::now();
    let manners = Manners { rate: options.rate, tries: options.tries };
    let caller = Caller::of(&options);
    let origin = Origin::open(&options.source, &caller, manners).await?;
    let folder = if options.dry_run {
        std::env::temp_dir().join(format!("{STORE_FOLDER}-{}", std::process::id()))
    } else {
        std::fs::create_dir_all(&options.destination)?;
        options.destination.join(STORE_FOLDER)
    };
    let config = foretide_chunk::Config { capacity_bytes: UNBOUNDED_BYTES, ..foretide_chunk::Config::default() };
    let store = Store::open(&folder, config, DomainKey::default())?;
    let (tell, outcomes) = mpsc::channel(MOVES_AT_A_TIME * 2);
    let borders = Borders::new(Default::default(), Default::default());
    let Origin { identity, credentials, .. } = &origin;
    let (identity, credentials) = (identity.clone(), credentials.clone());
    let mover = Mover::new(MoverConfig::default(), identity, credentials, store.clone(), borders, tell);
    mover.set_source(&origin.volume, &origin.address);
    let tree = Tree::walk(&mover, &origin, &options.destination).await.map_err(|e| origin.explained(e))?;
    let tree = Arc::new(tree);
    if options.dry_run {
        let report = Report {
            files: tree.wanted.len() as u64,
            unchanged: tree.unchanged,
            logical_bytes: tree.wanted.iter().map(|e| e.size).sum(),
            seconds: began.elapsed().as_secs_f64(),
            ..Report::default()
        };
        drop(mover);
        close(store).await;
        std::fs::remove_dir_all(&folder)?;
        return show(&report, &options);
    }
    place::make_folders_and_links(&tree, &options.destination)?;
    let (seeds, volume, root, old) = (store.clone(), origin.volume.clone(), options.destination.clone(), tree.clone());
    tokio::task::spawn_blocking(move || place::seed(&seeds, &volume, &root, &old))
        .await
        .map_err(|e| RunError::Told(e.to_string()))??;
    let mut report = bring(&mover, &origin, &tree, &options.destination, outcomes).await?;
    report.unchanged = tree.unchanged;
    report.deduplicated_bytes = report.logical_bytes.saturating_sub(report.physical_bytes);
    report.seconds = began.elapsed().as_secs_f64();
    drop(mover);
    close(store).await;
    std::fs::remove_dir_all(&folder)?;
    show(&report, &options)
}

/// Drops the last handle of the store, once the mover's tasks have let go of theirs.
async fn close(store: Arc<Store>) {
    let asked = Instant::now();
    while Arc::strong_count(&store) > 1 && asked.elapsed() < PATIENCE_AT_END {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Brings all files that are wanted and puts each in its place when it is whole.
async fn bring(
    mover: &Arc<Mover>,
    origin: &Origin,
    tree: &Tree,
    destination: &Path,
    mut outcomes: mpsc::Receiver<Outcome>,
) -> Result<Report, RunError> {
    let total: u64 = tree.wanted.iter().map(|e| e.size).sum();
    let (bar, before) = (bar(total), mover.store().resident_bytes());
    let mut report = Report::default();
    let mut tick = tokio::time::interval(TICK);
    let (mut rest, mut running) = (tree.wanted.iter(), HashMap::new());
    loop {
        let next: Vec<&Entry> = rest.by_ref().take(MOVES_AT_A_TIME - running.len()).collect();
        mover.take(&Assignment { run: next.iter().map(|e| a_move(origin, e)).collect(), ..Assignment::default() });
        running.extend(next.into_iter().map(|entry| (origin.move_id(entry), entry)));
        if running.is_empty() {
            break;
        }
        let outcome = tokio::select! {
            outcome = outcomes.recv() => outcome.ok_or(TransferError::Cancelled)?,
            _ = tick.tick() => {
                bar.set_position((mover.store().resident_bytes() - before).min(total));
                continue;
            }
        };
        match outcome {
            Outcome::Moved { id, bytes, wire_bytes, .. } => {
                let Some(entry) = running.remove(&id).cloned() else { continue };
                let (store, volume) = (mover.store().clone(), origin.volume.clone());
                let to = place::path_of(destination, tree, &entry);
                tokio::task::spawn_blocking(move || place::put(&store, &volume, &entry, &to))
                    .await
                    .map_err(|e| RunError::Told(e.to_string()))??;
                report.files += 1;
                report.logical_bytes += bytes;
                report.physical_bytes += wire_bytes;
            }
            Outcome::Failed { id, why, .. } => return Err(RunError::Told(format!("{id}: {why}"))),
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn bar(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:32.cyan} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

fn a_move(origin: &Origin, entry: &Entry) -> Move {
    let site = SiteId::new("copy").expect("a name");
    Move {
        id: origin.move_id(entry),
        volume: origin.volume.clone(),
        path: entry.path.clone(),
        offset: 0,
        length: entry.size,
        from: site.clone(),
        to: site,
        start_at: Timestamp(0),
        due_at: Timestamp(0),
        keep_until: Timestamp(i64::MAX),
        priority: Priority::Deadline,
        probability: 1.0,
        benefit_s: 0.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: ForecastId::from("copy"), workload: WorkloadId::from("copy") },
        reason: String::new(),
        shared_bytes: 0,
    }
}

fn show(report: &Report, options: &Options) -> Result<(), RunError> {
    if options.json {
        println!("{}", serde_json::to_string(report).map_err(|e| RunError::Told(e.to_string()))?);
        return Ok(());
    }
    let gb = |bytes: u64| bytes as f64 / 1e9;
    if options.dry_run {
        let bytes = gb(report.logical_bytes);
        println!("{} files, {bytes:.3} GB would be copied; {} files are there already", report.files, report.unchanged);
        return Ok(());
    }
    println!(
        "{} files, {:.3} GB in {:.1} s; {:.3} GB crossed, {:.3} GB need not; {} files were there already",
        report.files,
        gb(report.logical_bytes),
        report.seconds,
        gb(report.physical_bytes),
        gb(report.deduplicated_bytes),
        report.unchanged
    );
    Ok(())
}
