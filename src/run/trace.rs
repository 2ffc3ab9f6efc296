//! `foretide trace`: record what reads what on this machine, and look at recordings. A recording is a folder of access
//! batches as Parquet, the same as an agent sends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use foretide_collector::trace::Summariser;
use foretide_collector::{Collector, Config, WatchedVolume, parquet};
use foretide_flow::{AccessBatch, NodeId, SiteId, VolumeId};

use super::RunError;

/// Longest wait for a batch while the command runs.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// After the command has ended, batches are taken until none came for this long.
const QUIET_AT_END: Duration = Duration::from_secs(1);

/// Options of `foretide trace`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Record reads below a folder, until the command ends or Ctrl-C. Needs root.
    Record {
        /// Folder whose files are watched.
        #[arg(long)]
        root: PathBuf,
        /// Folder that the recording is written to; made if it is not there.
        #[arg(long)]
        out: PathBuf,
        /// The command to run meanwhile.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print every access of a recording.
    Show {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// As JSON, one batch a line.
        #[arg(long)]
        json: bool,
    },
    /// Print who read what and how much it waited.
    Stats {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs it.
///
/// # Errors
/// A kernel that refuses its probes, a folder that cannot be used, a recording that is damaged.
pub async fn run(options: Options) -> Result<(), RunError> {
    match options.what {
        What::Record { root, out, command } => record(root, out, command).await,
        What::Show { recordings, json } => {
            for batch in read_all(&recordings)? {
                show(&batch, json)?;
            }
            Ok(())
        }
        What::Stats { recordings, json } => {
            let mut summariser = Summariser::default();
            read_all(&recordings)?.iter().for_each(|batch| summariser.add(batch));
            let summary = summariser.summary();
            if json {
                print_json(&summary)
            } else {
                print!("{summary}");
                Ok(())
            }
        }
    }
}

async fn record(root: PathBuf, out: PathBuf, command: Vec<String>) -> Result<(), RunError> {
    fs::create_dir_all(&out)?;
    let root = fs::canonicalize(&root).map_err(|e| RunError::Told(format!("{}: {e}", root.display())))?;
    let name = |e: foretide_flow::IdError| RunError::Told(e.to_string());
    let config =
        Config::new(NodeId::new("local").map_err(name)?, SiteId::new("local").map_err(name)?, out.join("spool"));
    let volume = VolumeId::new("local").map_err(name)?;
    let (collector, report) = Collector::start(config, vec![WatchedVolume { volume, root }])?;
    eprint!("{report}");
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let writer = tokio::task::spawn_blocking(move || write_batches(&collector, &out, &end));
    let waited = match command.split_first() {
        None => {
            super::until_signal().await;
            Ok(())
        }
        Some((program, arguments)) => match tokio::process::Command::new(program).args(arguments).status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(RunError::Told(format!("{program}: {status}; what it read is recorded"))),
            Err(e) => Err(RunError::Told(format!("{program}: {e}"))),
        },
    };
    ended.store(true, Ordering::Relaxed);
    let summary = writer.await.map_err(std::io::Error::other)??;
    print!("{}", summary.summary());
    waited
}

/// Writes each batch as a file until it has ended and nothing more comes.
fn write_batches(collector: &Collector, out: &Path, ended: &AtomicBool) -> Result<Summariser, RunError> {
    let mut summariser = Summariser::default();
    loop {
        let wait = if ended.load(Ordering::Relaxed) { QUIET_AT_END } else { BATCH_WAIT };
        match collector.next_batch(wait)? {
            Some(batch) => {
                let bytes = parquet::encode(&batch).map_err(|e| RunError::Told(e.to_string()))?;
                fs::write(out.join(format!("{:012}.parquet", batch.sequence)), bytes)?;
                collector.acknowledge(batch.sequence)?;
                summariser.add(&batch);
            }
            None if wait == QUIET_AT_END => return Ok(summariser),
            None => {}
        }
    }
}

/// All batches of files and folders, in order of name.
///
/// # Errors
/// A file that cannot be read, or is no recording.
pub fn read_all(recordings: &[PathBuf]) -> Result<Vec<AccessBatch>, RunError> {
    let named = |path: &Path, e: &dyn std::fmt::Display| RunError::Told(format!("{}: {e}", path.display()));
    let mut files = Vec::new();
    for path in recordings {
        if path.is_dir() {
            let inside = fs::read_dir(path)?.filter_map(|e| e.ok().map(|e| e.path()));
            files.extend(inside.filter(|p| p.extension().is_some_and(|e| e == "parquet")));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(|e| named(path, &e))?;
        parquet::decode(&bytes).map_err(|e| named(path, &e))
    };
    files.iter().map(read).collect()
}

fn show(batch: &AccessBatch, json: bool) -> Result<(), RunError> {
    if json {
        println!("{}", serde_json::to_string(batch).map_err(std::io::Error::other)?);
        return Ok(());
    }
    for a in &batch.accesses {
        let op = format!("{:?}", a.op).to_lowercase();
        println!(
            "{:.6} {} {:>7} {op:<6} {}:{} {}+{}",
            a.at.as_secs_f64(),
            a.run,
            a.process,
            a.volume,
            a.path,
            a.offset,
            a.length
        );
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), RunError> {
    println!("{}", serde_json::to_string_pretty(value).map_err(std::io::Error::other)?);
    Ok(())
}
