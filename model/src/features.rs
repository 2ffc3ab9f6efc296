//! Tables out of the access history, in Polars: from memory, and from the Parquet files of the trace lake.
//!
//! The lake holds one file per access batch with the columns of [`foretide_flow::Access`]: `at_us` (i64), `run`,
//! `process` (u32), `volume`, `path` (bytes), `op` and `found` (u32 codes), `offset`, `length` (u64),
//! `blocked_us` (u32). All queries are lazy and grouped while they stream, so that memory follows the number of
//! different files, not of accesses. This is the only place that knows Polars, and no signature shows it.

use std::path::PathBuf;

use foretide_flow::{Access, AccessOp, FilePath, RunId, Timestamp, VolumeId};
use polars::prelude::*;

use crate::error::ModelError;
use crate::ranges::Ranges;
use crate::run::FileKey;

/// What one run did with one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRow {
    /// The run.
    pub run: RunId,
    /// The file.
    pub key: FileKey,
    /// First access.
    pub first_at: Timestamp,
    /// Last access.
    pub last_at: Timestamp,
    /// Opens for reading.
    pub opens: u64,
    /// Times it was made or truncated.
    pub creates: u64,
    /// Bytes that reads returned, repeats counted.
    pub bytes: u64,
    /// Time blocked, microseconds.
    pub blocked_us: u64,
    /// Processes that touched it.
    pub processes: u64,
    /// Which bytes were read.
    pub extents: Ranges,
}

/// Ranges kept for one file of a run; the online model's own default.
const FILE_RANGES: usize = 4096;
/// A file's reads are one range if they return at least this share of the span that they reach over.
const SOLID: f64 = 0.999;

/// What each run did with each file, from accesses in memory: by run, then in order of first access.
///
/// # Errors
/// [`ModelError::Table`] if a query fails.
pub fn files_in_memory(accesses: &[Access]) -> Result<Vec<FileRow>, ModelError> {
    let of = || accesses.iter();
    let frame = df!(
        "at_us" => of().map(|a| a.at.0).collect::<Vec<i64>>(),
        "run" => of().map(|a| a.run.as_str()).collect::<Vec<_>>(),
        "process" => of().map(|a| a.process).collect::<Vec<u32>>(),
        "volume" => of().map(|a| a.volume.as_str()).collect::<Vec<_>>(),
        "path" => of().map(|a| a.path.as_bytes()).collect::<Vec<&[u8]>>(),
        "op" => of().map(|a| code(a.op)).collect::<Vec<u32>>(),
        "offset" => of().map(|a| a.offset).collect::<Vec<u64>>(),
        "length" => of().map(|a| a.length).collect::<Vec<u64>>(),
        "blocked_us" => of().map(|a| a.blocked_us).collect::<Vec<u32>>(),
    )
    .map_err(failed)?;
    rows(frame.lazy())
}

/// The same from files of the trace lake.
///
/// # Errors
/// [`ModelError::Trace`] for a file that is missing, [`ModelError::Table`] if one is no access batch.
pub fn files_of_lake(lake: &[PathBuf]) -> Result<Vec<FileRow>, ModelError> {
    if lake.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(path) = lake.iter().find(|p| !p.is_file()) {
        return Err(ModelError::Trace { path: path.clone(), why: "there is no such file".into() });
    }
    let paths = lake.iter().map(|p| PlRefPath::try_from_path(p)).collect::<PolarsResult<Vec<_>>>().map_err(failed)?;
    rows(LazyFrame::scan_parquet_files(paths.into(), ScanArgsParquet::default()).map_err(failed)?)
}

/// One access, as the lake keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessRow {
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// The run.
    pub run: String,
    /// The process.
    pub process: u32,
    /// The volume.
    pub volume: String,
    /// The file in it, bytes.
    pub path: Vec<u8>,
    /// What was done.
    pub op: AccessOp,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// All accesses of one file of the lake, in order of time.
///
/// # Errors
/// [`ModelError::Table`] if it is no access batch.
pub fn accesses_of_lake(path: &std::path::Path) -> Result<Vec<AccessRow>, ModelError> {
    let path = PlRefPath::try_from_path(path).map_err(failed)?;
    let table = LazyFrame::scan_parquet(path, ScanArgsParquet::default())
        .map_err(failed)?
        .select([
            col("at_us"),
            col("run").cast(DataType::String),
            col("process").cast(DataType::UInt32),
            col("volume").cast(DataType::String),
            col("path"),
            col("op").cast(DataType::UInt32),
            col("offset"),
            col("length"),
        ])
        .sort(["at_us"], SortMultipleOptions::default().with_maintain_order(true))
        .collect()
        .map_err(failed)?;
    let of = |name: &str| table.column(name).map_err(failed);
    let (at, run, process) = (of("at_us")?.i64().map_err(failed)?, of("run")?, of("process")?.u32().map_err(failed)?);
    let (run, volume) = (run.str().map_err(failed)?, of("volume")?.str().map_err(failed)?);
    let (path, op) = (of("path")?.binary().map_err(failed)?, of("op")?.u32().map_err(failed)?);
    let (offset, length) = (of("offset")?.u64().map_err(failed)?, of("length")?.u64().map_err(failed)?);
    (0..table.height())
        .map(|i| {
            let number = op.get(i).unwrap_or_default();
            let op = OPS.into_iter().find(|op| code(*op) == number);
            Ok(AccessRow {
                at_us: at.get(i).unwrap_or_default(),
                run: run.get(i).unwrap_or_default().to_owned(),
                process: process.get(i).unwrap_or_default(),
                volume: volume.get(i).unwrap_or_default().to_owned(),
                path: path.get(i).unwrap_or_default().to_owned(),
                op: op.ok_or_else(|| ModelError::Table { why: format!("row {i}: no operation has code {number}") })?,
                offset: offset.get(i).unwrap_or_default(),
                length: length.get(i).unwrap_or_default(),
            })
        })
        .collect()
}

const OPS: [AccessOp; 5] = [AccessOp::Open, AccessOp::Create, AccessOp::Read, AccessOp::Fault, AccessOp::Close];

/// The codes of the lake's `op` column: part of its format.
fn code(op: AccessOp) -> u32 {
    match op {
        AccessOp::Open => 0,
        AccessOp::Create => 1,
        AccessOp::Read => 2,
        AccessOp::Fault => 3,
        AccessOp::Close => 4,
    }
}

fn failed(e: PolarsError) -> ModelError {
    ModelError::Table { why: e.to_string().lines().next().unwrap_or_default().to_owned() }
}

/// Whether an access has this operation, as 0 or 1.
fn is(op: AccessOp) -> Expr {
    col("op").eq(lit(code(op))).cast(DataType::UInt64)
}

fn key() -> [Expr; 3] {
    [col("run"), col("volume"), col("path")]
}

fn rows(accesses: LazyFrame) -> Result<Vec<FileRow>, ModelError> {
    let reads = col("op").eq(lit(code(AccessOp::Read))).or(col("op").eq(lit(code(AccessOp::Fault))));
    let table = accesses
        .clone()
        .group_by(key())
        .agg([
            col("at_us").min().alias("first"),
            col("at_us").max().alias("last"),
            is(AccessOp::Open).sum().alias("opens"),
            is(AccessOp::Create).sum().alias("creates"),
            col("length").sum().alias("bytes"),
            // u32 sums stay u32: cast first.
            col("blocked_us").cast(DataType::UInt64).sum().alias("blocked"),
            col("process").n_unique().cast(DataType::UInt64).alias("processes"),
            col("offset").filter(reads.clone()).min().alias("from"),
            (col("offset") + col("length")).filter(reads.clone()).max().alias("to"),
        ])
        .sort(["run", "first", "path"], SortMultipleOptions::default())
        .collect()
        .map_err(failed)?;
    let mut out = file_rows(&table)?;
    let broken = accesses.filter(reads).select([col("run"), col("volume"), col("path"), col("offset"), col("length")]);
    if out.iter().any(|r| !solid(r)) {
        fill_ranges(&mut out, &broken.collect().map_err(failed)?)?;
    }
    Ok(out)
}

/// Whether the reads of a file make up one range: its span is what they returned.
fn solid(row: &FileRow) -> bool {
    row.bytes as f64 >= SOLID * row.extents.bytes() as f64
}

fn file_rows(table: &DataFrame) -> Result<Vec<FileRow>, ModelError> {
    let u64s = |name: &str| table.column(name).and_then(|c| c.u64()).map_err(failed);
    let i64s = |name: &str| table.column(name).and_then(|c| c.i64()).map_err(failed);
    let (first, last) = (i64s("first")?, i64s("last")?);
    let (opens, creates, bytes) = (u64s("opens")?, u64s("creates")?, u64s("bytes")?);
    let (blocked, processes, from, to) = (u64s("blocked")?, u64s("processes")?, u64s("from")?, u64s("to")?);
    (0..table.height())
        .map(|i| {
            let (run, key) = key_at(table, i)?;
            Ok(FileRow {
                run,
                key,
                first_at: Timestamp(first.get(i).unwrap_or_default()),
                last_at: Timestamp(last.get(i).unwrap_or_default()),
                opens: opens.get(i).unwrap_or_default(),
                creates: creates.get(i).unwrap_or_default(),
                bytes: bytes.get(i).unwrap_or_default(),
                blocked_us: blocked.get(i).unwrap_or_default(),
                processes: processes.get(i).unwrap_or_default(),
                extents: Ranges::one(from.get(i).unwrap_or_default(), to.get(i).unwrap_or_default()),
            })
        })
        .collect()
}

fn key_at(table: &DataFrame, i: usize) -> Result<(RunId, FileKey), ModelError> {
    let text =
        |name: &str| table.column(name).and_then(|c| c.str()).map(|c| c.get(i).unwrap_or_default()).map_err(failed);
    let path = table.column("path").and_then(|c| c.binary()).map_err(failed)?.get(i).unwrap_or_default();
    let bad = |why: String| ModelError::Table { why };
    let volume = VolumeId::new(text("volume")?).map_err(|e| bad(e.to_string()))?;
    let path = FilePath::new(path).map_err(|e| bad(e.to_string()))?;
    Ok((text("run")?.into(), FileKey { volume, path }))
}

/// The exact ranges of the files that were read in parts.
fn fill_ranges(out: &mut [FileRow], reads: &DataFrame) -> Result<(), ModelError> {
    let mut parts: std::collections::HashMap<(RunId, FileKey), usize> = std::collections::HashMap::new();
    for (i, row) in out.iter_mut().enumerate() {
        if !solid(row) {
            row.extents = Ranges::default();
            parts.insert((row.run.clone(), row.key.clone()), i);
        }
    }
    let u64s = |name: &str| reads.column(name).and_then(|c| c.u64()).map_err(failed);
    let (offset, length) = (u64s("offset")?, u64s("length")?);
    for i in 0..reads.height() {
        if let Some(row) = parts.get(&key_at(reads, i)?) {
            let start = offset.get(i).unwrap_or_default();
            out[*row].extents.add(start, start + length.get(i).unwrap_or_default(), FILE_RANGES);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::Found;
    use std::collections::BTreeMap;

    fn accesses() -> Vec<Access> {
        let mut out = Vec::new();
        for i in 0..300i64 {
            for (op, length) in [(AccessOp::Open, 0), (AccessOp::Read, 100 + (i as u64 % 7)), (AccessOp::Close, 0)] {
                out.push(Access {
                    at: Timestamp(i * 10),
                    run: if i % 3 == 0 { "a".into() } else { "b".into() },
                    process: (i % 4) as u32,
                    volume: VolumeId::new("v").unwrap(),
                    path: FilePath::parse(&format!("d/{}", i % 20)).unwrap(),
                    op,
                    offset: if op == AccessOp::Read { (i as u64 / 20) * 150 } else { 0 },
                    length,
                    blocked_us: 3,
                    found: Found::Unknown,
                });
            }
        }
        out
    }

    #[test]
    fn tables_agree_with_a_plain_loop() {
        let accesses = accesses();
        let mut plain: BTreeMap<(RunId, FilePath), (u64, u64, u64, Ranges)> = BTreeMap::new();
        for a in &accesses {
            let row = plain.entry((a.run.clone(), a.path.clone())).or_default();
            row.0 += u64::from(a.op == AccessOp::Open);
            row.1 += a.length;
            row.2 += u64::from(a.blocked_us);
            if a.op == AccessOp::Read {
                row.3.add(a.offset, a.offset + a.length, 1000);
            }
        }
        let rows = files_in_memory(&accesses).unwrap();
        assert_eq!(rows.len(), plain.len());
        for row in &rows {
            let (opens, bytes, blocked, ranges) = &plain[&(row.run.clone(), row.key.path.clone())];
            assert_eq!((row.opens, row.bytes, row.blocked_us), (*opens, *bytes, *blocked));
            assert_eq!(&row.extents, ranges);
        }
        assert!(rows.windows(2).all(|w| w[0].run < w[1].run || w[0].first_at <= w[1].first_at));
    }

    #[test]
    fn a_lake_file_that_is_missing_or_foreign_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.parquet");
        assert!(files_of_lake(std::slice::from_ref(&missing)).unwrap_err().to_string().contains("none.parquet"));
        let foreign = dir.path().join("foreign.parquet");
        std::fs::write(&foreign, b"not parquet").unwrap();
        assert!(matches!(files_of_lake(&[foreign]), Err(ModelError::Table { .. })));
        assert_eq!(files_of_lake(&[]).unwrap(), []);
    }
}
