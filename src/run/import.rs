//! `foretide trace import`: traces that others recorded become a recording, so that all that reads recordings reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use foretide_collector::parquet;
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunStart, SiteId, Timestamp, VolumeId,
};
use foretide_model::import::{Format, RequestOp, Trace, read_trace};

use super::RunError;
use crate::config::parse_bytes;

/// Options of `foretide trace import`.
#[derive(Args, Debug)]
pub struct Options {
    /// The traces, plain, zstd or gzip.
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
}

/// Runs it.
///
/// # Errors
/// A trace that stops making sense, with the place; a folder that cannot be written.
pub fn run(options: &Options) -> Result<(), RunError> {
    fs::create_dir_all(&options.out)?;
    for (sequence, path) in (1..).zip(&options.traces) {
        let trace = read_trace(path, options.format, options.block)?;
        let (batch, left_out) = batch_of(&trace, sequence)?;
        let bytes = parquet::encode(&batch).map_err(|e| RunError::Told(e.to_string()))?;
        fs::write(options.out.join(format!("{sequence:012}.parquet")), bytes)?;
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
        numbers: Vec::new(),
    };
    let started = runs.iter().map(start).collect();
    let ended = runs.iter().map(|(run, (_, _, at))| RunEnd { run: (*run).into(), at: Timestamp(*at) }).collect();
    let losses = Losses::default();
    Ok((AccessBatch { node: node.clone(), site: site.clone(), sequence, started, accesses, ended, losses }, left_out))
}
