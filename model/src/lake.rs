//! The trace lake: Parquet files of accesses, one a batch, read a few thousand rows at a time.
//!
//! Columns, those of [`foretide_flow::Access`]: `at_us` (i64), `run`, `process` (u32), `volume`, `path` (bytes), `op`
//! (u32 codes; u8 in the first version), `offset`, `length` (u64), `blocked_us` (u32). Others are passed over.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{Array, BinaryArray, RecordBatch, StringArray};
use arrow_schema::DataType;
use foretide_flow::{Access, AccessOp, FilePath, Found, RunEnd, RunId, RunStart, Timestamp, VolumeId};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;
use serde::Deserialize;

use crate::error::ModelError;

/// Rows taken at a time: some megabytes.
const ROWS_AT_A_TIME: usize = 65_536;

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
/// [`ModelError::Trace`] if it cannot be opened, [`ModelError::Table`] if it is no access batch.
pub fn accesses_of_lake(path: &Path) -> Result<Vec<AccessRow>, ModelError> {
    let mut out = Vec::new();
    for batch in batches(path)? {
        let batch = batch?;
        let rows = Rows::of(&batch)?;
        for (i, number) in rows.op.iter().enumerate() {
            let op = OPS.into_iter().find(|op| code(*op) == *number);
            out.push(AccessRow {
                at_us: rows.at_us[i],
                run: rows.run.value(i).to_owned(),
                process: rows.process[i],
                volume: rows.volume.value(i).to_owned(),
                path: rows.path.value(i).to_owned(),
                op: op.ok_or_else(|| bad(format!("row {i}: no operation has code {number}")))?,
                offset: rows.offset[i],
                length: rows.length[i],
            });
        }
    }
    out.sort_by_key(|row| row.at_us);
    Ok(out)
}

/// What the metadata of a batch tells beside its rows: part of the format.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Head {
    pub(crate) started: Vec<RunStart>,
    pub(crate) ended: Vec<RunEnd>,
    /// The earliest moment in it, microseconds; filled in from the rows' statistics.
    #[serde(skip)]
    pub(crate) from_us: i64,
}

/// Where the metadata has it.
const HEAD_KEY: &str = "foretide.batch";

/// The head of one file.
///
/// # Errors
/// [`ModelError::Trace`] if it cannot be opened, [`ModelError::Table`] if it is no access batch.
pub(crate) fn head(path: &Path) -> Result<Head, ModelError> {
    let file = File::open(path).map_err(|e| ModelError::Trace { path: path.to_owned(), why: e.to_string() })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| bad(e.to_string()))?;
    let meta = reader.metadata();
    let pairs = meta.file_metadata().key_value_metadata().into_iter().flatten();
    let text = pairs.filter(|kv| kv.key == HEAD_KEY).find_map(|kv| kv.value.as_deref());
    let text = text.ok_or_else(|| bad(format!("its metadata has no {HEAD_KEY}")))?;
    let head: Head = serde_json::from_str(text).map_err(|e| bad(format!("{HEAD_KEY}: {e}")))?;
    let at = reader.schema().index_of("at_us").map_err(|e| bad(e.to_string()))?;
    let rows = meta.row_groups().iter().filter_map(|group| match group.column(at).statistics() {
        Some(Statistics::Int64(at)) => at.min_opt().copied(),
        _ => None,
    });
    let moments = head.started.iter().map(|s| s.at.0).chain(head.ended.iter().map(|e| e.at.0)).chain(rows);
    let from_us = moments.min().unwrap_or(i64::MAX);
    Ok(Head { from_us, ..head })
}

/// The accesses of one part of a file.
///
/// # Errors
/// [`ModelError::Table`] with the row that makes no sense.
pub(crate) fn accesses(batch: &RecordBatch) -> Result<Vec<Access>, ModelError> {
    let rows = Rows::of(batch)?;
    let mut out: Vec<Access> = Vec::with_capacity(rows.op.len());
    for (i, number) in rows.op.iter().enumerate() {
        let odd = |what: String| bad(format!("row {i}: {what}"));
        let op = OPS.into_iter().find(|op| code(*op) == *number);
        // Runs and volumes repeat from row to row.
        let before = out.last();
        let volume = match before.filter(|a| a.volume.as_str() == rows.volume.value(i)) {
            Some(same) => same.volume.clone(),
            None => VolumeId::new(rows.volume.value(i)).map_err(|e| odd(e.to_string()))?,
        };
        out.push(Access {
            at: Timestamp(rows.at_us[i]),
            run: RunId::from(rows.run.value(i)),
            process: rows.process[i],
            volume,
            path: FilePath::new(rows.path.value(i)).map_err(|e| odd(e.to_string()))?,
            op: op.ok_or_else(|| odd(format!("no operation has code {number}")))?,
            offset: rows.offset[i],
            length: rows.length[i],
            blocked_us: rows.blocked_us[i],
            found: Found::Unknown,
        });
    }
    Ok(out)
}

/// The rows of one file, some thousands at a time.
///
/// # Errors
/// [`ModelError::Trace`] if it cannot be opened, [`ModelError::Table`] if it is no Parquet.
pub(crate) fn batches(
    path: &Path,
) -> Result<impl Iterator<Item = Result<RecordBatch, ModelError>> + use<>, ModelError> {
    let file = File::open(path).map_err(|e| ModelError::Trace { path: path.to_owned(), why: e.to_string() })?;
    let failed = |e: &dyn std::fmt::Display| bad(e.to_string());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|b| b.with_batch_size(ROWS_AT_A_TIME).build())
        .map_err(|e| failed(&e))?;
    Ok(reader.map(move |batch| batch.map_err(|e| failed(&e))))
}

fn bad(why: String) -> ModelError {
    ModelError::Table { why }
}

/// The columns of a batch, all of one length.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) at_us: &'a [i64],
    pub(crate) run: &'a StringArray,
    pub(crate) process: &'a [u32],
    pub(crate) volume: &'a StringArray,
    pub(crate) path: &'a BinaryArray,
    pub(crate) op: Vec<u32>,
    pub(crate) offset: &'a [u64],
    pub(crate) length: &'a [u64],
    pub(crate) blocked_us: &'a [u32],
}

impl<'a> Rows<'a> {
    /// # Errors
    /// [`ModelError::Table`] with the column that is missing, of another type, or lacks a value.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, ModelError> {
        let op = column(batch, "op")?;
        let op = match op.data_type() {
            DataType::UInt8 => op.as_primitive::<UInt8Type>().values().iter().map(|c| u32::from(*c)).collect(),
            _ => numbers::<UInt32Type>(batch, "op")?.to_vec(),
        };
        let text = |name| column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| other_type(name));
        Ok(Self {
            at_us: numbers::<Int64Type>(batch, "at_us")?,
            run: text("run")?,
            process: numbers::<UInt32Type>(batch, "process")?,
            volume: text("volume")?,
            path: column(batch, "path")?.as_binary_opt::<i32>().ok_or_else(|| other_type("path"))?,
            op,
            offset: numbers::<UInt64Type>(batch, "offset")?,
            length: numbers::<UInt64Type>(batch, "length")?,
            blocked_us: numbers::<UInt32Type>(batch, "blocked_us")?,
        })
    }
}

fn other_type(name: &str) -> ModelError {
    bad(format!("column {name} is of another type"))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, ModelError> {
    let column = batch.column_by_name(name).ok_or_else(|| bad(format!("it has no column {name}")))?;
    if column.null_count() > 0 { Err(bad(format!("column {name} lacks a value"))) } else { Ok(column) }
}

fn numbers<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<&'a [T::Native], ModelError> {
    let column = column(batch, name)?.as_primitive_opt::<T>().ok_or_else(|| other_type(name))?;
    Ok(column.values())
}

const OPS: [AccessOp; 5] = [AccessOp::Open, AccessOp::Create, AccessOp::Read, AccessOp::Fault, AccessOp::Close];

/// The codes of the lake's `op` column: part of its format.
pub(crate) fn code(op: AccessOp) -> u32 {
    match op {
        AccessOp::Open => 0,
        AccessOp::Create => 1,
        AccessOp::Read => 2,
        AccessOp::Fault => 3,
        AccessOp::Close => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What agents wrote, of each version of the format: the collector keeps it for its own reader.
    #[test]
    fn batches_of_every_version_read() {
        for version in 1..=2 {
            let kept = format!("{}/../collector/tests/data/batch-v{version}.parquet", env!("CARGO_MANIFEST_DIR"));
            let rows = accesses_of_lake(Path::new(&kept)).unwrap();
            let b = &rows[1];
            assert_eq!((rows.len(), b.run.as_str(), b.volume.as_str(), b.process), (2, "run-1", "v", 3));
            assert_eq!((&b.path[..], b.op, b.offset, b.length), (&b"b\xff"[..], AccessOp::Read, 1, 2));
            let head = head(Path::new(&kept)).unwrap();
            assert!(head.from_us <= b.at_us && head.started.iter().all(|s| s.at.0 >= head.from_us));
            let part = batches(Path::new(&kept)).unwrap().next().unwrap().unwrap();
            let accesses = accesses(&part).unwrap();
            assert_eq!((accesses.len(), accesses[1].path.as_bytes()), (2, &b"b\xff"[..]));
        }
    }
}
