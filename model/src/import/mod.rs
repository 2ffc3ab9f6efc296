//! Traces that others recorded, read into one shape for the judge.
//!
//! A format is told by its content, never by its name: the head of the file (unpacked if it is zstd or gzip) is
//! shown to each format in turn. One file per format turns lines or records into [`Request`]s in order of time;
//! what a format cannot hold (writes of unknown place, other categories of events) is left out and counted.
//! A file that stops making sense is refused with the line or byte where it does.
//!
//! Reading traces lies here and not with the collector because the judge needs no kernel and no agent: whoever has
//! a trace and the binary has the answer.

mod arc;
mod build;
mod csv;
mod darshan;
mod dftracer;
mod fio;
mod lirs;
mod oracle_general;
mod ours;
mod parquet;
mod source;
mod strace;
pub(crate) mod wfcommons;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::ModelError;

use source::Source;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// Opens a file for reading: no bytes yet.
    Open,
    /// Makes or truncates a file: what it holds needs no fetch.
    Create,
    /// Reads bytes.
    Read,
    /// Writes bytes. A block cache keeps what is written as it keeps what is read.
    Write,
    /// Closes a file.
    Close,
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Microseconds, from any origin; where the format has no times, those of [`PACE_PER_SECOND`].
    pub at_us: i64,
    /// Index into [`Trace::streams`].
    pub stream: u32,
    /// Index into [`Trace::files`].
    pub file: u32,
    /// What is done.
    pub op: RequestOp,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A file or device of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedFile {
    /// Its path as the trace has it, bytes.
    pub path: Vec<u8>,
    /// Bytes, as far as the trace tells: told, or the last byte touched.
    pub size: u64,
}

/// Who asks: one process of one run of one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The run.
    pub run: String,
    /// The job whose run it is.
    pub job: String,
    /// The process.
    pub process: u32,
}

/// What block numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Places: the next number is the next block.
    Addresses,
    /// Names: whoever published the trace numbered what it holds anew.
    Opaque,
}

/// A trace, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Where it was read.
    pub path: PathBuf,
    /// In which format.
    pub format: Format,
    /// Whether the format has times.
    pub timed: bool,
    /// What its numbers mean.
    pub numbers: Numbers,
    /// Its files, or one device.
    pub files: Vec<TracedFile>,
    /// Who asks.
    pub streams: Vec<Stream>,
    /// Its requests.
    pub requests: Vec<Request>,
    /// Records that were read and left out, because they are no access to a file.
    pub left_out: u64,
}

/// Requests a second where a format has no times: the pace that libCacheSim's users give such traces.
pub const PACE_PER_SECOND: i64 = 1024;

/// Bytes of a page where a format numbers pages and does not say how large they are.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes of the largest file or device that is believed: a pebibyte.
const MOST_FILE_BYTES: u64 = 1 << 50;

/// Bytes of all files together that are believed: an exbibyte.
const MOST_BYTES: u64 = 1 << 60;

/// Times farther from the origin than this are no times, microseconds: 36,000 years.
const MOST_US: i64 = 1 << 60;

/// Bytes of the largest block: what caches keep of each fits 32 bits.
const MOST_BLOCK_BYTES: u64 = 1 << 31;

/// Bytes of a sector, in which block traces count.
const SECTOR_BYTES: u64 = 512;

/// A format of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Foretide's own access batches.
    Parquet,
    /// Foretide's own columns as text: `time_s,run,job,host_pid,op,path,offset,length`.
    Ours,
    /// `.lis` of the ARC paper: first block, blocks, ignored, ignored.
    Arc,
    /// libCacheSim's binary records of 24 bytes.
    OracleGeneral,
    /// CSV with a head that names time, object or address, and size, as libCacheSim reads it.
    Csv,
    /// One block number a line.
    Lirs,
    /// DFTracer's Chrome trace events.
    Dftracer,
    /// One execution of a workflow as WfFormat JSON.
    WfCommons,
    /// Text of `darshan-dxt-parser`.
    DarshanDxt,
    /// Text of `strace -f -ttt -y`.
    Strace,
    /// fio's iolog, version 2 or 3.
    FioIolog,
}

/// All formats with their names, in the order in which a file's head is shown to them.
pub const FORMATS: [(Format, &str); 11] = [
    (Format::Parquet, "parquet"),
    (Format::Ours, "csv"),
    (Format::WfCommons, "wfcommons"),
    (Format::Dftracer, "dftracer"),
    (Format::DarshanDxt, "darshan-dxt"),
    (Format::FioIolog, "fio-iolog"),
    (Format::Strace, "strace"),
    (Format::Csv, "libcachesim-csv"),
    (Format::Arc, "arc"),
    (Format::Lirs, "lirs"),
    (Format::OracleGeneral, "oracle-general"),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMATS.iter().find(|(format, _)| format == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        FORMATS.iter().find(|(_, name)| *name == text).map(|(format, _)| *format).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|(_, name)| *name).collect();
            format!("format {text:?} is not known: use one of {}", names.join(", "))
        })
    }
}

/// Reads a trace.
///
/// `format` is told by the content where none is given. `block_bytes` says what a block number means in formats
/// that do not say it (ARC, LIRS); without it a trace whose requests are all of one block has pages of
/// [`PAGE_BYTES`], any other sectors of 512 bytes.
///
/// # Errors
/// [`ModelError::Trace`] names the file and the line or byte where it stops making sense; [`ModelError::Setting`] for
/// blocks of no byte.
pub fn read_trace(path: &Path, format: Option<Format>, block_bytes: Option<u64>) -> Result<Trace, ModelError> {
    check_block(block_bytes)?;
    let mut source = Source::open(path)?;
    let format = match format {
        Some(format) => format,
        None => detect(source.head()).ok_or_else(|| source.error_at_start(&unknown()))?,
    };
    let mut trace = match format {
        Format::Parquet => parquet::read(&source),
        Format::Ours => ours::read(&mut source),
        Format::Arc => arc::read(&mut source, block_bytes),
        Format::OracleGeneral => oracle_general::read(&mut source),
        Format::Csv => csv::read(&mut source),
        Format::Lirs => lirs::read(&mut source, block_bytes),
        Format::Dftracer => dftracer::read(&mut source),
        Format::WfCommons => wfcommons::read(&mut source),
        Format::DarshanDxt => darshan::read(&mut source),
        Format::Strace => strace::read(&mut source),
        Format::FioIolog => fio::read(&mut source),
    }?;
    if trace.requests.is_empty() {
        return Err(source.error_at_start(&format!("it is {format} and holds no access to a file")));
    }
    believe(&trace).map_err(|why| source.error_at_start(&why))?;
    // Most formats are in order already, and a stable sort leaves them as they are.
    trace.requests.sort_by_key(|r| r.at_us);
    Ok(trace)
}

/// Whether blocks of so many bytes can be meant.
///
/// # Errors
/// [`ModelError::Setting`] if not.
pub(crate) fn check_block(bytes: Option<u64>) -> Result<(), ModelError> {
    match bytes.filter(|b| *b == 0 || *b > MOST_BLOCK_BYTES) {
        Some(bytes) => {
            let remedy = "give the bytes of a block, from 1 to 2 GiB";
            Err(ModelError::Setting { name: "block", value: bytes.to_string(), remedy })
        }
        None => Ok(()),
    }
}

/// Whether sizes and times are such as the judge can reckon with: a number that is out of all measure comes from a
/// damaged record.
fn believe(trace: &Trace) -> Result<(), String> {
    if let Some(file) = trace.files.iter().find(|f| f.size > MOST_FILE_BYTES) {
        let name = String::from_utf8_lossy(&file.path);
        return Err(format!("{name} is read beyond {MOST_FILE_BYTES} bytes: no address is so large"));
    }
    // Of files that are a pebibyte each at most, the sum cannot pass 128 bits.
    if trace.files.iter().map(|f| u128::from(f.size)).sum::<u128>() > u128::from(MOST_BYTES) {
        return Err(format!("its files have more than {MOST_BYTES} bytes together"));
    }
    match trace.requests.iter().position(|r| !(-MOST_US..=MOST_US).contains(&r.at_us)) {
        Some(i) => Err(format!(
            "access {} is {} us from the origin of times: no clock is there",
            i + 1,
            trace.requests[i].at_us
        )),
        None => Ok(()),
    }
}

fn unknown() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|(_, name)| *name).collect();
    format!("its head is of no known format ({})", names.join(", "))
}

/// The first format that takes this head, unpacked.
fn detect(head: &[u8]) -> Option<Format> {
    FORMATS.iter().map(|(format, _)| *format).find(|format| match format {
        Format::Parquet => parquet::is(head),
        Format::Ours => ours::is(head),
        Format::Arc => arc::is(head),
        Format::OracleGeneral => oracle_general::is(head),
        Format::Csv => csv::is(head),
        Format::Lirs => lirs::is(head),
        Format::Dftracer => dftracer::is(head),
        Format::WfCommons => wfcommons::is(head),
        Format::DarshanDxt => darshan::is(head),
        Format::Strace => strace::is(head),
        Format::FioIolog => fio::is(head),
    })
}

#[cfg(test)]
mod tests;
