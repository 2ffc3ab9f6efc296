//! libCacheSim's `oracleGeneral`: records of 24 bytes, little endian: time (u32, seconds), object (u64), bytes (u32),
//! the record of its next request (i64; at most -1 or past the end where there is none), which nobody may look at.
//!
//! Objects are names, not places: each becomes a file of its own.

use super::build::Build;
use super::source::Source;
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

const RECORD_BYTES: usize = 24;

struct Record {
    time_s: u32,
    object: u64,
    bytes: u32,
    next: i64,
}

fn parse(r: &[u8; RECORD_BYTES]) -> Record {
    let word = |at: usize| u32::from_le_bytes([r[at], r[at + 1], r[at + 2], r[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    Record { time_s: word(0), object: long(4), bytes: word(12), next: long(16) as i64 }
}

/// Binary (no text has a zero byte), in records whose times do not fall and whose next requests lie ahead.
pub(super) fn is(head: &[u8]) -> bool {
    let records: Vec<Record> = head.as_chunks::<RECORD_BYTES>().0.iter().map(parse).collect();
    let rising = records.windows(2).all(|w| w[0].time_s <= w[1].time_s);
    let ahead = records.iter().enumerate().all(|(i, r)| r.next < 0 || r.next > i as i64);
    head.contains(&0) && !records.is_empty() && rising && ahead && records.iter().all(|r| r.bytes > 0)
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let mut build = Build::new(source, Format::OracleGeneral, true);
    let stream = build.only_stream();
    let mut record = [0; RECORD_BYTES];
    let mut before = 0;
    while source.record(&mut record)? {
        let r = parse(&record);
        if r.time_s < before {
            return Err(source.error_in_record(RECORD_BYTES as u64, "its time is before that of the record before"));
        }
        before = r.time_s;
        let file = build.file(&r.object.to_le_bytes());
        let (at_us, length) = (i64::from(r.time_s) * 1_000_000, u64::from(r.bytes));
        build.push(Request { at_us, stream, file, op: RequestOp::Read, offset: 0, length });
    }
    let mut trace = build.done(Numbers::Opaque);
    for file in &mut trace.files {
        let id = u64::from_le_bytes(file.path.as_slice().try_into().unwrap_or_default());
        file.path = id.to_string().into_bytes();
    }
    Ok(trace)
}
