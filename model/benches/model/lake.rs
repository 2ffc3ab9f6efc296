//! Learning out of the trace lake: ten million accesses in Parquet, as agents write them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use foretide_model::{Config, Model};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::{Figure, Outcome, Table};

/// Workloads, runs of each, and what a run does: opens, reads and closes of files, each file as often as the others.
const WORKLOADS: usize = 10;
const RUNS: usize = 10;
const READS: usize = 33_334;
const FILES: usize = 4000;
/// Most seconds, and most megabytes of memory beside what the process had before.
const MOST_S: f64 = 60.0;
const MOST_MB: f64 = 1024.0;

/// See the module.
pub fn training(table: &mut Table, _root: &Path) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut lake = Vec::new();
    for run in 0..RUNS {
        for workload in 0..WORKLOADS {
            lake.push(write(folder.path(), workload, run)?);
        }
    }
    let before_mb = resident_mb()?;
    let began = Instant::now();
    let mut candidate = Model::new(Config::default())?;
    let learned = candidate.learn_from_lake(&lake);
    let mut model = Model::new(Config::default())?;
    let trials = model.adopt(&candidate);
    let seconds = began.elapsed().as_secs_f64();
    if !learned.unusable.is_empty() || trials.iter().filter(|t| t.adopted).count() != WORKLOADS {
        return Err(format!("{} files unusable, {trials:?}", learned.unusable.len()).into());
    }
    let work = format!("learning {:.1} M accesses out of Parquet", learned.accesses as f64 / 1e6);
    table.at_most(&work, Figure { ours: seconds, unit: "s", reference: 0.0, name: "-" }, MOST_S);
    let ours = resident_mb()? - before_mb;
    table.at_most(&work, Figure { ours, unit: "MB more, peak", reference: 0.0, name: "-" }, MOST_MB);
    Ok(())
}

/// Most memory that this process has had so far.
fn resident_mb() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kb: f64 = line.split_whitespace().nth(1).ok_or("no figure in VmHWM")?.parse()?;
    Ok(kb / 1e3)
}

/// One run of one workload as a file of the lake.
fn write(folder: &Path, workload: usize, run: usize) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let name = format!("w{workload}-r{run}");
    let start_us = (1_790_000_000 + 3600 * (run * 24 + workload) as i64) * 1_000_000;
    // Every third file a read skips, another one each run: a set that is mostly the same.
    let file = |read: usize| (read * 7 + read / FILES + run * 3 * (read % 3)) % FILES;
    let rows = 3 * READS;
    let (read, step) = (|row: usize| row / 3, |row: usize| row % 3);
    let columns: [(&str, ArrayRef); 10] = [
        ("at_us", Arc::new(Int64Array::from_iter_values((0..rows).map(|r| start_us + 300 * r as i64)))),
        ("run", Arc::new(StringArray::from_iter_values((0..rows).map(|_| &name)))),
        ("process", Arc::new(UInt32Array::from_iter_values((0..rows).map(|r| (read(r) % 4) as u32)))),
        ("volume", Arc::new(StringArray::from_iter_values((0..rows).map(|_| "data")))),
        (
            "path",
            Arc::new(BinaryArray::from_iter_values(
                (0..rows).map(|r| format!("set-{workload}/img-{:06}.jpg", file(read(r)))),
            )),
        ),
        ("op", Arc::new(UInt32Array::from_iter_values((0..rows).map(|r| [0, 2, 4][step(r)])))),
        ("offset", Arc::new(UInt64Array::from_iter_values((0..rows).map(|_| 0)))),
        ("length", Arc::new(UInt64Array::from_iter_values((0..rows).map(|r| [0, 120_000, 0][step(r)])))),
        ("blocked_us", Arc::new(UInt32Array::from_iter_values((0..rows).map(|_| 0)))),
        ("found", Arc::new(UInt32Array::from_iter_values((0..rows).map(|_| 0)))),
    ];
    let rows_of = RecordBatch::try_from_iter(columns)?;
    let started = json!([{"run": name, "workload": format!("w{workload}"), "command": "train #", "at": start_us,
        "site": "gpu", "node": "n"}]);
    let ended = json!([{"run": name, "at": start_us + 300 * rows as i64}]);
    let head = json!({"node": "n", "site": "gpu", "sequence": run, "started": started, "ended": ended});
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_key_value_metadata(Some(vec![KeyValue::new("foretide.batch".into(), head.to_string())]))
        .build();
    let path = folder.join(format!("{name}.parquet"));
    let mut writer = ArrowWriter::try_new(File::create(&path)?, rows_of.schema(), Some(properties))?;
    writer.write(&rows_of)?;
    writer.close()?;
    Ok(path)
}
