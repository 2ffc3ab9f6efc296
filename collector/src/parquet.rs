//! Access batches as Parquet: on disk, on the wire, in the lake.
//!
//! One row an access. Runs, losses and the batch's own number are few and travel as JSON in the file's metadata under
//! `foretide.batch`; `foretide.schema` is the version, and a file of another version is refused by its number. Names repeat
//! and are dictionaries; paths are bytes, because names need not be UTF-8. Numbers are differences to the row before in as
//! few bits as they need: what changes seldom takes next to nothing, and what jumps about no compressor makes smaller. So
//! paths alone are compressed: to begin with a column costs a compressor more than to pack its numbers.
//!
//! Version 1 had the codes of `op` and `found` as 8-bit integers, which data-frame libraries often leave out; since
//! version 2 they have 32 bits, in a file of the same size. Both are read.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use foretide_flow::{
    Access, AccessBatch, FilePath, Losses, NodeId, RunEnd, RunId, RunStart, SiteId, Timestamp, VolumeId,
};
use serde::{Deserialize, Serialize};

use crate::pipeline::Harvest;
use crate::rows::{found_of, op_of};

/// The version of the columns and of the metadata.
pub const SCHEMA_VERSION: u32 = 2;
const SCHEMA_KEY: &str = "foretide.schema";
const BATCH_KEY: &str = "foretide.batch";
/// Columns of numbers: to look each up in a dictionary costs more than all else of a batch.
const NUMBERS: [&str; 7] = ["at_us", "process", "op", "offset", "length", "blocked_us", "found"];

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
    /// Processes of the accesses, each with its run. Older batches do not tell.
    #[serde(default)]
    processes: Vec<(u32, RunId)>,
}

/// A batch as it lies in the spool and travels: only its head has been read, the accesses have not.
#[derive(Clone, Debug)]
pub struct Encoded {
    bytes: Bytes,
    sequence: u64,
    processes: Vec<(u32, RunId)>,
}

impl Encoded {
    /// Reads the head.
    ///
    /// # Errors
    /// [`BatchError`] if the bytes end too early or are no batch.
    pub fn read(bytes: impl Into<Bytes>) -> Result<Self, BatchError> {
        let bytes = bytes.into();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes);
        let metadata = metadata.map_err(|e| BatchError::Damaged(e.to_string()))?;
        let (_, Head { sequence, processes, .. }) = head(metadata.file_metadata().key_value_metadata())?;
        Ok(Self { bytes, sequence, processes })
    }

    /// Its number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The processes that accessed something, each with its run; none in a batch of an older Foretide.
    pub fn processes(&self) -> &[(u32, RunId)] {
        &self.processes
    }

    /// All of it, to be sent or written.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Reads the accesses too.
    ///
    /// # Errors
    /// [`BatchError`] if they are damaged.
    pub fn decode(&self) -> Result<AccessBatch, BatchError> {
        decode_shared(self.bytes.clone())
    }
}

/// The columns of a version.
fn schema(version: u32) -> Schema {
    let code = if version == 1 { DataType::UInt8 } else { DataType::UInt32 };
    let field = |name: &str, kind| Field::new(name, kind, false);
    Schema::new(vec![
        field("at_us", DataType::Int64),
        field("run", DataType::Utf8),
        field("process", DataType::UInt32),
        field("volume", DataType::Utf8),
        field("path", DataType::Binary),
        field("op", code.clone()),
        field("offset", DataType::UInt64),
        field("length", DataType::UInt64),
        field("blocked_us", DataType::UInt32),
        field("found", code),
    ])
}

/// Writes a batch.
///
/// # Errors
/// [`BatchError::Encode`] if the encoder fails.
pub fn encode(batch: &AccessBatch) -> Result<Vec<u8>, BatchError> {
    let harvest = Harvest {
        started: batch.started.clone(),
        accesses: batch.accesses.iter().collect(),
        ended: batch.ended.clone(),
        losses: batch.losses,
    };
    encode_harvest(&batch.node, &batch.site, batch.sequence, &harvest)
}

/// As [`encode`], of what is in columns already.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_harvest(
    node: &NodeId,
    site: &SiteId,
    sequence: u64,
    harvest: &Harvest,
) -> Result<Vec<u8>, BatchError> {
    let failed = |e: String| BatchError::Encode(e);
    let Harvest { started, accesses, ended, losses } = harvest;
    let head = Head {
        node: node.clone(),
        site: site.clone(),
        sequence,
        started: started.clone(),
        ended: ended.clone(),
        losses: *losses,
        processes: accesses.processes(),
    };
    let head = serde_json::to_string(&head).map_err(|e| failed(e.to_string()))?;
    let schema = Arc::new(schema(SCHEMA_VERSION));
    // Its names are dictionaries, which the schema of the file does not say: readers get plain columns.
    let columns = schema.fields().iter().map(|f| f.name()).zip(accesses.columns());
    let rows = RecordBatch::try_from_iter(columns).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    let writer = ArrowWriter::try_new(&mut out, Arc::clone(&schema), Some(properties(head)?));
    let mut writer = writer.map_err(|e| failed(e.to_string()))?;
    writer.write(&rows).map_err(|e| failed(e.to_string()))?;
    writer.close().map_err(|e| failed(e.to_string()))?;
    Ok(out)
}

fn properties(head: String) -> Result<WriterProperties, BatchError> {
    let pairs =
        vec![KeyValue::new(SCHEMA_KEY.into(), SCHEMA_VERSION.to_string()), KeyValue::new(BATCH_KEY.into(), head)];
    let level = ZstdLevel::try_new(1).map_err(|e| BatchError::Encode(e.to_string()))?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_column_compression("path".into(), Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(pairs));
    for column in NUMBERS {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    // The lake is looked through by time.
    Ok(properties.set_column_statistics_enabled("at_us".into(), EnabledStatistics::Chunk).build())
}

/// Reads a batch.
///
/// # Errors
/// [`BatchError`] if the bytes are not a whole batch of this version.
pub fn decode(bytes: &[u8]) -> Result<AccessBatch, BatchError> {
    decode_shared(Bytes::copy_from_slice(bytes))
}

fn decode_shared(bytes: Bytes) -> Result<AccessBatch, BatchError> {
    let damaged = |e: String| BatchError::Damaged(e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| damaged(e.to_string()))?;
    let (version, head) = head(builder.metadata().file_metadata().key_value_metadata())?;
    if builder.schema().fields() != schema(version).fields() {
        return Err(BatchError::Foreign("its columns are others".into()));
    }
    let mut accesses = Vec::new();
    for rows in builder.build().map_err(|e| damaged(e.to_string()))? {
        take_rows(&rows.map_err(|e| damaged(e.to_string()))?, version, &mut accesses)?;
    }
    let Head { node, site, sequence, started, ended, losses, .. } = head;
    Ok(AccessBatch { node, site, sequence, started, accesses, ended, losses })
}

fn head(pairs: Option<&Vec<KeyValue>>) -> Result<(u32, Head), BatchError> {
    let value = |key: &str| pairs.and_then(|p| p.iter().find(|kv| kv.key == key)).and_then(|kv| kv.value.as_deref());
    let version = value(SCHEMA_KEY).ok_or_else(|| BatchError::Foreign(format!("it has no {SCHEMA_KEY}")))?;
    let known = (1..=SCHEMA_VERSION).find(|v| v.to_string() == version);
    let version = known.ok_or_else(|| BatchError::Version { found: version.into() })?;
    let head = value(BATCH_KEY).ok_or_else(|| BatchError::Foreign(format!("it has no {BATCH_KEY}")))?;
    let head = serde_json::from_str(head).map_err(|e| BatchError::Foreign(format!("its {BATCH_KEY}: {e}")))?;
    Ok((version, head))
}

/// A column of codes as its version has it.
fn codes(column: &ArrayRef, version: u32) -> Vec<u32> {
    match version {
        1 => column.as_primitive::<UInt8Type>().values().iter().map(|c| u32::from(*c)).collect(),
        _ => column.as_primitive::<UInt32Type>().values().to_vec(),
    }
}

/// Rows repeat runs and volumes; each is made once and shared.
fn take_rows(rows: &RecordBatch, version: u32, out: &mut Vec<Access>) -> Result<(), BatchError> {
    if rows.columns().iter().any(|c| c.null_count() > 0) {
        return Err(BatchError::Foreign("a value is missing".into()));
    }
    let (run, volume) = (rows.column(1).as_string::<i32>(), rows.column(3).as_string::<i32>());
    let path = rows.column(4).as_binary::<i32>();
    let (at, process) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(2).as_primitive::<UInt32Type>());
    let (op, found) = (codes(rows.column(5), version), codes(rows.column(9), version));
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
            op: op_of(op[i]).ok_or_else(|| bad(i, format!("op {}", op[i])))?,
            offset: offset.value(i),
            length: length.value(i),
            blocked_us: blocked.value(i),
            found: found_of(found[i]).ok_or_else(|| bad(i, format!("found {}", found[i])))?,
        });
        last = Some(names);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{AccessOp, Found};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn access() -> impl Strategy<Value = Access> {
        (
            (any::<i64>(), 0u8..3, any::<u32>(), 0u8..2, proptest::collection::vec(1u8.., 0..40)),
            (0u32..5, any::<u64>(), any::<u64>(), any::<u32>(), 0u32..4),
        )
            .prop_filter_map(
                "a path",
                |((at, run, process, volume, path), (op, offset, length, blocked_us, found))| {
                    Some(Access {
                        at: Timestamp(at),
                        run: format!("run-{run}").into(),
                        process,
                        volume: VolumeId::new(&format!("v{volume}")).ok()?,
                        path: FilePath::new(&path).ok()?,
                        op: op_of(op)?,
                        offset,
                        length,
                        blocked_us,
                        found: found_of(found)?,
                    })
                },
            )
    }

    fn batch(accesses: Vec<Access>) -> AccessBatch {
        AccessBatch {
            node: NodeId::new("n").unwrap(),
            site: SiteId::new("s").unwrap(),
            sequence: 42,
            started: vec![RunStart {
                run: "run-1".into(),
                workload: "train-1".into(),
                command: "train --seed #".into(),
                at: Timestamp(9),
                site: SiteId::new("s").unwrap(),
                node: NodeId::new("n").unwrap(),
                numbers: vec![Some(17), None],
            }],
            accesses,
            ended: vec![RunEnd { run: "run-0".into(), at: Timestamp(8) }],
            losses: Losses { dropped_events: 1, unresolved: 2, summarised: 3 },
        }
    }

    proptest! {
        #[test]
        fn any_batch_reads_back(accesses in proptest::collection::vec(access(), 0..50)) {
            let batch = batch(accesses);
            let encoded = Encoded::read(encode(&batch).unwrap()).unwrap();
            prop_assert_eq!(encoded.decode().unwrap(), batch.clone());
            prop_assert_eq!(encoded.sequence(), batch.sequence);
            let told: HashSet<_> = encoded.processes().iter().cloned().collect();
            prop_assert_eq!(told.len(), encoded.processes().len(), "each once");
            prop_assert_eq!(told, batch.accesses.iter().map(|a| (a.process, a.run.clone())).collect());
        }

        #[test]
        fn a_batch_that_was_cut_off_is_refused(keep in 0.0f64..0.999) {
            let whole = encode(&batch(vec![])).unwrap();
            let cut = &whole[..(whole.len() as f64 * keep) as usize];
            prop_assert!(matches!(decode(cut), Err(BatchError::Damaged(_))));
            prop_assert!(matches!(Encoded::read(cut.to_vec()), Err(BatchError::Damaged(_))));
        }
    }

    #[test]
    fn other_parquet_and_other_versions_are_told_apart() {
        assert!(matches!(decode(b"hello"), Err(BatchError::Damaged(_))));
        let write = |pairs: Vec<KeyValue>| {
            let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs)).build();
            let mut out = Vec::new();
            ArrowWriter::try_new(&mut out, Arc::new(schema(SCHEMA_VERSION)), Some(properties))
                .unwrap()
                .close()
                .unwrap();
            decode(&out).unwrap_err()
        };
        assert!(matches!(write(vec![]), BatchError::Foreign(_)));
        let newer = write(vec![KeyValue::new(SCHEMA_KEY.into(), "3".to_string())]);
        assert!(newer.to_string().contains("version 3"), "{newer}");
    }

    #[test]
    #[ignore = "writes the test data; run once for each new version of the schema"]
    fn write_the_test_data() {
        let access = |path: &[u8]| Access {
            at: Timestamp(7),
            run: "run-1".into(),
            process: 3,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::new(path).unwrap(),
            op: AccessOp::Read,
            offset: 1,
            length: 2,
            blocked_us: 3,
            found: Found::Miss,
        };
        let path = format!("{}/tests/data/batch-v{SCHEMA_VERSION}.parquet", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, encode(&batch(vec![access(b"a"), access(b"b\xff")])).unwrap()).unwrap();
    }

    #[test]
    fn the_bytes_of_a_batch_that_an_older_foretide_wrote_still_read() {
        for kept in [
            &include_bytes!("../tests/data/batch-v1.parquet")[..],
            &include_bytes!("../tests/data/batch-v2.parquet")[..],
        ] {
            let read = decode(kept).unwrap();
            let (sequence, command) = (read.sequence, read.started[0].command.as_str());
            assert_eq!((sequence, read.accesses.len(), command), (42, 2, "train --seed #"));
            assert!(read.started[0].numbers.is_empty(), "they were not told then");
            let b = &read.accesses[1];
            assert_eq!((b.path.as_bytes(), b.op, b.found), (&b"b\xff"[..], AccessOp::Read, Found::Miss));
        }
    }
}
