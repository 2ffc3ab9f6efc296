//! Tables out of the trace lake, in Polars: what each run did with each file.
//!
//! The lake is read some thousand rows at a time; each part is grouped by run, file and process at once, and what is kept
//! is grouped again whenever it has doubled. So memory follows the number of different files, not of accesses. This is
//! the only place that knows Polars, and no signature shows it.

use std::collections::HashMap;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use foretide_flow::{AccessOp, FilePath, RunId, Timestamp, VolumeId};
use polars::prelude::*;

use crate::error::ModelError;
use crate::lake::{Rows, batches, code};
use crate::ranges::Ranges;
use crate::run::FileKey;

/// What one run did with one file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
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

/// What is kept is grouped again when it has this many rows more than it had after the last time.
const ROWS_LOOSE: usize = 1 << 20;

/// What each run did with each file, from files of the trace lake: by run, then in order of first access.
///
/// # Errors
/// [`ModelError::Trace`] for a file that is missing, [`ModelError::Table`] if one is no access batch.
pub fn files_of_lake(lake: &[PathBuf]) -> Result<Vec<FileRow>, ModelError> {
    rows(|| {
        lake.iter().flat_map(|path| {
            let (batches, missing) = match batches(path) {
                Ok(batches) => (Some(batches), None),
                Err(e) => (None, Some(Err(e))),
            };
            batches.into_iter().flatten().chain(missing)
        })
    })
}

fn failed(e: PolarsError) -> ModelError {
    ModelError::Table { why: e.to_string().lines().next().unwrap_or_default().to_owned() }
}

/// Whether an access has this operation, as 0 or 1.
fn is(op: AccessOp) -> Expr {
    col("op").eq(lit(code(op))).cast(DataType::UInt64)
}

/// Goes through all accesses once; a second time if a file was read in parts.
fn rows<I: Iterator<Item = Result<RecordBatch, ModelError>>>(
    accesses: impl Fn() -> I,
) -> Result<Vec<FileRow>, ModelError> {
    let (mut kept, mut height) = (None::<DataFrame>, 0);
    for batch in accesses() {
        let part = by_process(&batch?)?;
        let all = match kept.take() {
            None => part,
            Some(all) => all.vstack(&part).map_err(failed)?,
        };
        let loose = all.height() > 2 * height + ROWS_LOOSE;
        kept = Some(if loose { joined(all)? } else { all });
        if loose {
            height = kept.as_ref().map_or(0, DataFrame::height);
        }
    }
    let Some(all) = kept else { return Ok(Vec::new()) };
    let table = joined(all)?
        .lazy()
        .group_by([col("run"), col("volume"), col("path")])
        .agg(sums().into_iter().chain([len().cast(DataType::UInt64).alias("processes")]).collect::<Vec<_>>())
        .sort(["run", "first", "path"], SortMultipleOptions::default())
        .collect()
        .map_err(failed)?;
    let mut out = file_rows(&table)?;
    if out.iter().any(|r| !solid(r)) {
        fill_ranges(&mut out, accesses())?;
    }
    Ok(out)
}

/// What each process of a run did with each file.
fn by_process(batch: &RecordBatch) -> Result<DataFrame, ModelError> {
    let r = Rows::of(batch)?;
    let frame = df!(
        "run" => r.run.iter().flatten().collect::<Vec<&str>>(),
        "volume" => r.volume.iter().flatten().collect::<Vec<&str>>(),
        "path" => r.path.iter().flatten().collect::<Vec<&[u8]>>(),
        "process" => r.process,
        "at_us" => r.at_us,
        "op" => &r.op,
        "offset" => r.offset,
        "length" => r.length,
        "blocked_us" => r.blocked_us,
    )
    .map_err(failed)?;
    let read = || col("op").eq(lit(code(AccessOp::Read))).or(col("op").eq(lit(code(AccessOp::Fault))));
    let table = frame.lazy().group_by(by()).agg([
        col("at_us").min().alias("first"),
        col("at_us").max().alias("last"),
        is(AccessOp::Open).sum().alias("opens"),
        is(AccessOp::Create).sum().alias("creates"),
        col("length").sum().alias("bytes"),
        // u32 sums stay u32: cast first.
        col("blocked_us").cast(DataType::UInt64).sum().alias("blocked"),
        col("offset").filter(read()).min().alias("from"),
        (col("offset") + col("length")).filter(read()).max().alias("to"),
    ]);
    table.collect().map_err(failed)
}

fn by() -> [Expr; 4] {
    [col("run"), col("volume"), col("path"), col("process")]
}

/// How parts of one group make up the whole.
fn sums() -> [Expr; 8] {
    [
        col("first").min(),
        col("last").max(),
        col("opens").sum(),
        col("creates").sum(),
        col("bytes").sum(),
        col("blocked").sum(),
        col("from").min(),
        col("to").max(),
    ]
}

/// Groups anew what was grouped in parts.
fn joined(parts: DataFrame) -> Result<DataFrame, ModelError> {
    parts.lazy().group_by(by()).agg(sums()).collect().map_err(failed)
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
fn fill_ranges(
    out: &mut [FileRow],
    accesses: impl Iterator<Item = Result<RecordBatch, ModelError>>,
) -> Result<(), ModelError> {
    let mut parts: HashMap<(String, String, Vec<u8>), usize> = HashMap::new();
    for (i, row) in out.iter_mut().enumerate() {
        if !solid(row) {
            row.extents = Ranges::default();
            let (volume, path) = (row.key.volume.as_str().to_owned(), row.key.path.as_bytes().to_owned());
            parts.insert((row.run.as_str().to_owned(), volume, path), i);
        }
    }
    let reads = [code(AccessOp::Read), code(AccessOp::Fault)];
    for batch in accesses {
        let batch = batch?;
        let r = Rows::of(&batch)?;
        for i in (0..r.op.len()).filter(|i| reads.contains(&r.op[*i])) {
            let key = (r.run.value(i).to_owned(), r.volume.value(i).to_owned(), r.path.value(i).to_owned());
            if let Some(row) = parts.get(&key) {
                out[*row].extents.add(r.offset[i], r.offset[i] + r.length[i], FILE_RANGES);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray, UInt32Array, UInt64Array};

    use super::*;

    struct Row {
        at_us: i64,
        run: &'static str,
        process: u32,
        path: String,
        op: AccessOp,
        offset: u64,
        length: u64,
    }

    fn accesses() -> Vec<Row> {
        let mut out = Vec::new();
        for i in 0..300i64 {
            for (op, length) in [(AccessOp::Open, 0), (AccessOp::Read, 100 + (i as u64 % 7)), (AccessOp::Close, 0)] {
                out.push(Row {
                    at_us: i * 10,
                    run: if i % 3 == 0 { "a" } else { "b" },
                    process: (i % 4) as u32,
                    path: format!("d/{}", i % 20),
                    op,
                    offset: if op == AccessOp::Read { (i as u64 / 20) * 150 } else { 0 },
                    length,
                });
            }
        }
        out
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let of = || rows.iter();
        let columns: [(&str, ArrayRef); 9] = [
            ("at_us", Arc::new(Int64Array::from_iter_values(of().map(|r| r.at_us)))),
            ("run", Arc::new(StringArray::from_iter_values(of().map(|r| r.run)))),
            ("process", Arc::new(UInt32Array::from_iter_values(of().map(|r| r.process)))),
            ("volume", Arc::new(StringArray::from_iter_values(of().map(|_| "v")))),
            ("path", Arc::new(BinaryArray::from_iter_values(of().map(|r| &r.path)))),
            ("op", Arc::new(UInt32Array::from_iter_values(of().map(|r| code(r.op))))),
            ("offset", Arc::new(UInt64Array::from_iter_values(of().map(|r| r.offset)))),
            ("length", Arc::new(UInt64Array::from_iter_values(of().map(|r| r.length)))),
            ("blocked_us", Arc::new(UInt32Array::from_iter_values(of().map(|_| 3)))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[derive(Default)]
    struct Plain {
        opens: u64,
        bytes: u64,
        blocked_us: u64,
        processes: BTreeSet<u32>,
        extents: Ranges,
    }

    #[test]
    fn tables_agree_with_a_plain_loop_however_the_rows_are_parted() {
        let accesses = accesses();
        let mut plain: BTreeMap<(RunId, FilePath), Plain> = BTreeMap::new();
        for a in &accesses {
            let row = plain.entry((a.run.into(), FilePath::parse(&a.path).unwrap())).or_default();
            row.opens += u64::from(a.op == AccessOp::Open);
            row.bytes += a.length;
            row.blocked_us += 3;
            row.processes.insert(a.process);
            if a.op == AccessOp::Read {
                row.extents.add(a.offset, a.offset + a.length, 1000);
            }
        }
        for rows_a_batch in [7, 100, 10_000] {
            let rows = rows(|| accesses.chunks(rows_a_batch).map(|c| Ok(batch(c)))).unwrap();
            assert_eq!(rows.len(), plain.len());
            for row in &rows {
                let known = &plain[&(row.run.clone(), row.key.path.clone())];
                let (opens, processes) = (known.opens, known.processes.len() as u64);
                assert_eq!((row.opens, row.bytes, row.processes), (opens, known.bytes, processes));
                assert_eq!((row.blocked_us, &row.extents), (known.blocked_us, &known.extents));
            }
            assert!(rows.windows(2).all(|w| w[0].run < w[1].run || w[0].first_at <= w[1].first_at));
        }
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
