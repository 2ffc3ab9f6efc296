//! Access batches as Parquet: on disk, on the wire, in the lake.
//!
//! One row an access. Runs, losses and the batch's own number are few and travel as JSON in the file's metadata under
//! `foretide.batch`; `foretide.schema` is the version, and a file of another version is refused by its number. Run and
//! volume repeat and cost almost nothing as dictionaries; paths are bytes, because names need not be UTF-8.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunId, RunStart, SiteId, Timestamp,
    VolumeId,
};
use serde::{Deserialize, Serialize};

/// The version of the columns and of the metadata.
pub const SCHEMA_VERSION: u32 = 1;
const SCHEMA_KEY: &str = "foretide.schema";
const BATCH_KEY: &str = "foretide.batch";

/// Why a batch could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Not Parquet, or cut off, or damaged.
    #[error("not a whole access batch: {0}; it was cut off or is no Parquet, send it again")]
    Damaged(String),
    /// Parquet of somebody else.
    #[error("Parquet, but no access batch of Foretide: {0}")]
    Foreign(String),
    /// A batch of a newer or older Foretide.
    #[error(
        "an access batch of version {found}, and this one reads version {SCHEMA_VERSION}: run the same Foretide on agents and control plane"
    )]
    Version {
        /// Its version.
        found: String,
    },
    /// A batch could not be written.
    #[error("cannot encode the batch: {0}")]
    Encode(String),
}

/// What the metadata holds.
#[derive(Serialize, Deserialize)]
struct Head {
    node: NodeId,
    site: SiteId,
    sequence: u64,
    started: Vec<RunStart>,
    ended: Vec<RunEnd>,
    losses: Losses,
}

fn schema() -> Schema {
    let field = |name: &str, kind| Field::new(name, kind, false);
    Schema::new(vec![
        field("at_us", DataType::Int64),
        field("run", DataType::Utf8),
        field("process", DataType::UInt32),
        field("volume", DataType::Utf8),
        field("path", DataType::Binary),
        field("op", DataType::UInt8),
        field("offset", DataType::UInt64),
        field("length", DataType::UInt64),
        field("blocked_us", DataType::UInt32),
        field("found", DataType::UInt8),
    ])
}

/// Writes a batch.
///
/// # Errors
/// [`BatchError::Encode`] if the encoder fails.
pub fn encode(batch: &AccessBatch) -> Result<Vec<u8>, BatchError> {
    let failed = |e: String| BatchError::Encode(e);
    let head = Head {
        node: batch.node.clone(),
        site: batch.site.clone(),
        sequence: batch.sequence,
        started: batch.started.clone(),
        ended: batch.ended.clone(),
        losses: batch.losses,
    };
    let head = serde_json::to_string(&head).map_err(|e| failed(e.to_string()))?;
    let pairs =
        vec![KeyValue::new(SCHEMA_KEY.into(), SCHEMA_VERSION.to_string()), KeyValue::new(BATCH_KEY.into(), head)];
    let level = ZstdLevel::try_new(1).map_err(|e| failed(e.to_string()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_key_value_metadata(Some(pairs))
        .build();
    let schema = Arc::new(schema());
    let rows = RecordBatch::try_new(schema.clone(), columns(&batch.accesses)).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, Some(properties)).map_err(|e| failed(e.to_string()))?;
    writer.write(&rows).map_err(|e| failed(e.to_string()))?;
    writer.close().map_err(|e| failed(e.to_string()))?;
    Ok(out)
}

fn columns(accesses: &[Access]) -> Vec<ArrayRef> {
    let all = || accesses.iter();
    vec![
        Arc::new(Int64Array::from_iter_values(all().map(|a| a.at.0))),
        Arc::new(StringArray::from_iter_values(all().map(|a| a.run.as_str()))),
        Arc::new(UInt32Array::from_iter_values(all().map(|a| a.process))),
        Arc::new(StringArray::from_iter_values(all().map(|a| a.volume.as_str()))),
        Arc::new(BinaryArray::from_iter_values(all().map(|a| a.path.as_bytes()))),
        Arc::new(UInt8Array::from_iter_values(all().map(|a| op_code(a.op)))),
        Arc::new(UInt64Array::from_iter_values(all().map(|a| a.offset))),
        Arc::new(UInt64Array::from_iter_values(all().map(|a| a.length))),
        Arc::new(UInt32Array::from_iter_values(all().map(|a| a.blocked_us))),
        Arc::new(UInt8Array::from_iter_values(all().map(|a| found_code(a.found)))),
    ]
}

/// Reads a batch.
///
/// # Errors
/// [`BatchError`] if the bytes are not a whole batch of this version.
pub fn decode(bytes: &[u8]) -> Result<AccessBatch, BatchError> {
    let damaged = |e: String| BatchError::Damaged(e);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).map_err(|e| damaged(e.to_string()))?;
    let head = head(builder.metadata().file_metadata().key_value_metadata())?;
    if builder.schema().fields() != schema().fields() {
        return Err(BatchError::Foreign("its columns are others".into()));
    }
    let mut accesses = Vec::new();
    for rows in builder.build().map_err(|e| damaged(e.to_string()))? {
        take_rows(&rows.map_err(|e| damaged(e.to_string()))?, &mut accesses)?;
    }
    let Head { node, site, sequence, started, ended, losses } = head;
    Ok(AccessBatch { node, site, sequence, started, accesses, ended, losses })
}

fn head(pairs: Option<&Vec<KeyValue>>) -> Result<Head, BatchError> {
    let value = |key: &str| pairs.and_then(|p| p.iter().find(|kv| kv.key == key)).and_then(|kv| kv.value.as_deref());
    let version = value(SCHEMA_KEY).ok_or_else(|| BatchError::Foreign(format!("it has no {SCHEMA_KEY}")))?;
    if version != SCHEMA_VERSION.to_string() {
        return Err(BatchError::Version { found: version.into() });
    }
    let head = value(BATCH_KEY).ok_or_else(|| BatchError::Foreign(format!("it has no {BATCH_KEY}")))?;
    serde_json::from_str(head).map_err(|e| BatchError::Foreign(format!("its {BATCH_KEY}: {e}")))
}

/// Rows repeat runs and volumes; each is made once and shared.
fn take_rows(rows: &RecordBatch, out: &mut Vec<Access>) -> Result<(), BatchError> {
    if rows.columns().iter().any(|c| c.null_count() > 0) {
        return Err(BatchError::Foreign("a value is missing".into()));
    }
    let (run, volume) = (rows.column(1).as_string::<i32>(), rows.column(3).as_string::<i32>());
    let path = rows.column(4).as_binary::<i32>();
    let (at, process) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(2).as_primitive::<UInt32Type>());
    let (op, found) = (rows.column(5).as_primitive::<UInt8Type>(), rows.column(9).as_primitive::<UInt8Type>());
    let (offset, length) = (rows.column(6).as_primitive::<UInt64Type>(), rows.column(7).as_primitive::<UInt64Type>());
    let blocked = rows.column(8).as_primitive::<UInt32Type>();
    let bad = |row: usize, what: String| BatchError::Foreign(format!("row {row}: {what}"));
    let mut last: Option<(RunId, VolumeId)> = None;
    for i in 0..rows.num_rows() {
        let reused = last.take().filter(|(r, v)| r.as_str() == run.value(i) && v.as_str() == volume.value(i));
        let names = match reused {
            Some(names) => names,
            None => {
                let volume = VolumeId::new(volume.value(i)).map_err(|e| bad(i, e.to_string()))?;
                (RunId::from(run.value(i)), volume)
            }
        };
        out.push(Access {
            at: Timestamp(at.value(i)),
            run: names.0.clone(),
            process: process.value(i),
            volume: names.1.clone(),
            path: FilePath::new(path.value(i)).map_err(|e| bad(i, e.to_string()))?,
            op: op_of(op.value(i)).ok_or_else(|| bad(i, format!("op {}", op.value(i))))?,
            offset: offset.value(i),
            length: length.value(i),
            blocked_us: blocked.value(i),
            found: found_of(found.value(i)).ok_or_else(|| bad(i, format!("found {}", found.value(i))))?,
        });
        last = Some(names);
    }
    Ok(())
}

/// Codes are part of the format: they never change their meaning.
const OPS: [AccessOp; 5] = [AccessOp::Open, AccessOp::Create, AccessOp::Read, AccessOp::Fault, AccessOp::Close];
const FOUNDS: [Found; 4] = [Found::Unknown, Found::Hit, Found::Late, Found::Miss];

fn op_code(op: AccessOp) -> u8 {
    OPS.iter().position(|o| *o == op).unwrap_or_default() as u8
}
fn op_of(code: u8) -> Option<AccessOp> {
    OPS.get(usize::from(code)).copied()
}
fn found_code(found: Found) -> u8 {
    FOUNDS.iter().position(|f| *f == found).unwrap_or_default() as u8
}
fn found_of(code: u8) -> Option<Found> {
    FOUNDS.get(usize::from(code)).copied()
}
