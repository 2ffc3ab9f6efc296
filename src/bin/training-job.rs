//! A training job that knows nothing of Foretide: a data loader in the manner of MLPerf Storage.
//!
//! Workers read whole files with plain open, read and close, in an order shuffled anew each epoch, and hand batches
//! over in order. The accelerator is emulated by sleeping for the time that a batch would compute. What is
//! reported is what MLPerf Storage reports: accelerator utilisation = compute time / total time, the first step
//! left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

/// Batches that a worker may have ready before they are asked for, as in PyTorch's loader.
const BATCHES_AHEAD_PER_WORKER: usize = 2;
/// Bytes of one read call.
const READ_BYTES: usize = 1 << 20;

#[derive(Parser)]
#[command(about = "Reads a folder of samples epoch by epoch, as a training job does")]
struct Options {
    /// Folder of samples.
    #[arg(long)]
    data: PathBuf,
    /// Passes over the samples.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Samples in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Loader threads.
    #[arg(long, default_value_t = 16)]
    workers: usize,
    /// Milliseconds that the accelerator works on a batch.
    #[arg(long, default_value_t = 60.0)]
    compute_ms: f64,
    /// Seed of the shuffle.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is printed at the end, one line of JSON.
#[derive(Serialize)]
struct Report {
    au: f64,
    wall_s: f64,
    waited_s: f64,
    first_batch_s: f64,
    steps: usize,
    files: usize,
    bytes: u64,
}

fn main() -> ExitCode {
    let started = Instant::now();
    match run(&Options::parse(), started) {
        Ok(report) => {
            println!("{}", serde_json::to_string(&report).expect("a report of numbers serialises"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("training-job: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, started: Instant) -> io::Result<Report> {
    let mut files = Vec::new();
    list(&options.data, &mut files)?;
    if files.is_empty() {
        return Err(io::Error::other(format!("{}: no files", options.data.display())));
    }
    files.sort();
    let batches = Arc::new(shuffled_batches(&files, options));
    let loaders: Vec<_> =
        (0..options.workers).map(|w| spawn_worker(w, options.workers, Arc::clone(&batches))).collect();

    let compute = Duration::from_secs_f64(options.compute_ms / 1e3);
    let (mut bytes, mut waited, mut first_batch_at) = (0u64, Duration::ZERO, None);
    for step in 0..batches.len() {
        let asked = Instant::now();
        let batch = loaders[step % options.workers].recv().map_err(|_| io::Error::other("a worker died"))?;
        bytes += batch?;
        if first_batch_at.replace(first_batch_at.unwrap_or_else(Instant::now)).is_some() {
            waited += asked.elapsed();
        }
        std::thread::sleep(compute);
    }
    let ended = Instant::now();
    let first_batch_at = first_batch_at.unwrap_or(ended);
    let first_step_ended = first_batch_at + compute;
    let counted_steps = batches.len() - 1;
    Ok(Report {
        au: if counted_steps == 0 {
            1.0
        } else {
            compute.as_secs_f64() * counted_steps as f64 / (ended - first_step_ended).as_secs_f64()
        },
        wall_s: (ended - started).as_secs_f64(),
        waited_s: waited.as_secs_f64(),
        first_batch_s: (first_batch_at - started).as_secs_f64(),
        steps: batches.len(),
        files: files.len(),
        bytes,
    })
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(named)? {
        let entry = entry.map_err(named)?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

fn shuffled_batches(files: &[PathBuf], options: &Options) -> Vec<Vec<PathBuf>> {
    (0..options.epochs)
        .flat_map(|epoch| {
            let mut order = files.to_vec();
            order.shuffle(&mut StdRng::seed_from_u64(options.seed + u64::from(epoch)));
            order.chunks(options.batch_size.max(1)).map(<[PathBuf]>::to_vec).collect::<Vec<_>>()
        })
        .collect()
}

/// Worker `index` of `workers` loads the batches `index`, `index + workers`, …
fn spawn_worker(index: usize, workers: usize, batches: Arc<Vec<Vec<PathBuf>>>) -> Receiver<io::Result<u64>> {
    let (ready, receiver): (SyncSender<io::Result<u64>>, _) = sync_channel(BATCHES_AHEAD_PER_WORKER);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        let mut lengths = BTreeMap::new();
        for batch in batches.iter().skip(index).step_by(workers) {
            let loaded = batch.iter().map(|path| read_whole(path, &mut buffer, &mut lengths)).sum();
            if ready.send(loaded).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads a file to its end; the same file must have the same length each epoch.
fn read_whole(path: &Path, buffer: &mut [u8], lengths: &mut BTreeMap<PathBuf, u64>) -> io::Result<u64> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut file = File::open(path).map_err(named)?;
    let mut bytes = 0;
    loop {
        match file.read(buffer).map_err(named)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    match lengths.insert(path.to_owned(), bytes) {
        Some(before) if before != bytes => {
            Err(io::Error::other(format!("{}: {bytes} bytes, {before} the epoch before", path.display())))
        }
        _ => Ok(bytes),
    }
}
