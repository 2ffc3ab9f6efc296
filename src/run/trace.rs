//! `foretide trace`: record what reads what on this machine, and look at recordings. A recording is a folder of access
//! batches as Parquet, the same as an agent sends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use foretide_collector::trace::Summariser;
use foretide_collector::{Collector, Config, WatchedVolume, parquet};
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunStart, SiteId, Timestamp, VolumeId,
};
use foretide_model::import::{Format, RequestOp, Trace, read_trace};

use super::RunError;
use crate::config::parse_bytes;

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
    /// Turn traces that others recorded into a recording. The format is told by the content.
    Import {
        /// The traces.
        #[arg(required = true)]
        traces: Vec<PathBuf>,
        /// Folder that the recording is written to, one file a trace; made if it is not there.
        #[arg(long)]
        out: PathBuf,
        /// Their format, where the content does not tell it.
        #[arg(long)]
        format: Option<Format>,
        /// Bytes of a block, where the format numbers blocks and does not say it.
        #[arg(long, value_parser = parse_bytes)]
        block: Option<u64>,
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
        What::Import { traces, out, format, block } => import(&traces, &out, format, block),
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

fn import(traces: &[PathBuf], out: &Path, format: Option<Format>, block: Option<u64>) -> Result<(), RunError> {
    fs::create_dir_all(out)?;
    for (sequence, path) in (1..).zip(traces) {
        let trace = read_trace(path, format, block)?;
        let (batch, left_out) = batch_of(&trace, sequence)?;
        let bytes = parquet::encode(&batch).map_err(|e| RunError::Told(e.to_string()))?;
        fs::write(out.join(format!("{sequence:012}.parquet")), bytes)?;
        let accesses = batch.accesses.len();
        println!("{}: {}, {accesses} accesses, {left_out} records left out", path.display(), trace.format);
    }
    Ok(())
}

/// A trace as one batch, and how many of its records that is not: writes and what was no access at all.
fn batch_of(trace: &Trace, sequence: u64) -> Result<(AccessBatch, u64), RunError> {
    let told = |e: &dyn std::fmt::Display| RunError::Told(format!("{}: {e}", trace.path.display()));
    let (node, site) = (NodeId::new("import").map_err(|e| told(&e))?, SiteId::new("import").map_err(|e| told(&e))?);
    let volume = VolumeId::new("import").map_err(|e| told(&e))?;
    let paths: Vec<FilePath> = trace
        .files
        .iter()
        .map(|f| FilePath::new(f.path.trim_ascii_start().strip_prefix(b"/").unwrap_or(&f.path)).map_err(|e| told(&e)))
        .collect::<Result<_, _>>()?;
    let (mut runs, mut accesses, mut left_out) = (BTreeMap::new(), Vec::new(), trace.left_out);
    for request in &trace.requests {
        let stream = &trace.streams[request.stream as usize];
        let span = runs.entry(stream.run.as_str()).or_insert((stream.job.as_str(), request.at_us, request.at_us));
        span.2 = span.2.max(request.at_us);
        let op = match request.op {
            RequestOp::Open => AccessOp::Open,
            RequestOp::Create => AccessOp::Create,
            RequestOp::Read => AccessOp::Read,
            RequestOp::Close => AccessOp::Close,
            RequestOp::Write => {
                left_out += 1;
                continue;
            }
        };
        accesses.push(Access {
            at: Timestamp(request.at_us),
            run: stream.run.as_str().into(),
            process: stream.process,
            volume: volume.clone(),
            path: paths[request.file as usize].clone(),
            op,
            offset: request.offset,
            length: request.length,
            blocked_us: 0,
            found: Found::Unknown,
        });
    }
    let start = |(run, (job, at, _)): (&&str, &(&str, i64, i64))| RunStart {
        run: (*run).into(),
        workload: (*job).into(),
        command: (*job).to_owned(),
        at: Timestamp(*at),
        site: site.clone(),
        node: node.clone(),
    };
    let started = runs.iter().map(start).collect();
    let ended = runs.iter().map(|(run, (_, _, at))| RunEnd { run: (*run).into(), at: Timestamp(*at) }).collect();
    let losses = Losses::default();
    Ok((AccessBatch { node: node.clone(), site: site.clone(), sequence, started, accesses, ended, losses }, left_out))
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
fn read_all(recordings: &[PathBuf]) -> Result<Vec<AccessBatch>, RunError> {
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
