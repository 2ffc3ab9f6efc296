//! CSV with a head, as libCacheSim's users have it: a column for the time (seconds), one for the object or the
//! address, one for the bytes, perhaps one for the operation (SCSI code, or a word).
//!
//! | column | names |
//! |---|---|
//! | time | `time`, `timestamp`, `ts` |
//! | address in sectors of 512 bytes | `lbn`, `lba`, `sector` |
//! | address in bytes | `offset` |
//! | object, a name and no place | `obj_id`, `object`, `id`, `key` |
//! | bytes | `size`, `obj_size`, `length`, `len` |
//! | operation | `op` |

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, SECTOR_BYTES, Trace};
use crate::error::ModelError;

/// What a column is an address of.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Sector,
    Byte,
    Object,
}

#[derive(Clone, Copy)]
struct Columns {
    time: usize,
    place: (Place, usize),
    bytes: usize,
    op: Option<usize>,
}

fn columns(head: &str) -> Option<Columns> {
    let names: Vec<String> = head.split(',').map(|n| n.trim().trim_matches('"').to_ascii_lowercase()).collect();
    let find = |wanted: &[&str]| names.iter().position(|n| wanted.contains(&n.as_str()));
    let place = find(&["lbn", "lba", "sector"])
        .map(|i| (Place::Sector, i))
        .or_else(|| find(&["offset"]).map(|i| (Place::Byte, i)))
        .or_else(|| find(&["obj_id", "object", "id", "key"]).map(|i| (Place::Object, i)))?;
    Some(Columns {
        time: find(&["time", "timestamp", "ts"])?,
        place,
        bytes: find(&["size", "obj_size", "length", "len"])?,
        op: find(&["op"]),
    })
}

pub(super) fn is(head: &[u8]) -> bool {
    head_lines(head).and_then(|lines| columns(lines.first()?)).is_some()
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let head = source.text()?.unwrap_or_default().to_owned();
    let Some(columns) = columns(&head) else {
        return Err(source.error("the head names no column for time, object or address, and size"));
    };
    let mut build = Build::new(source, Format::Csv, true);
    let stream = build.only_stream();
    while let Some(line) = source.text()? {
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        match request(&columns, &fields, stream, &mut build) {
            Ok(Some(request)) => build.push(request),
            Ok(None) => build.leave_out(),
            Err(why) => return Err(source.error(why)),
        }
    }
    let numbers = if columns.place.0 == Place::Object { Numbers::Opaque } else { Numbers::Addresses };
    Ok(build.done(numbers))
}

fn request(
    columns: &Columns,
    fields: &[&str],
    stream: u32,
    build: &mut Build,
) -> Result<Option<Request>, &'static str> {
    let field = |i: usize| fields.get(i).copied().ok_or("it has fewer fields than the head");
    let time: f64 = field(columns.time)?.parse().map_err(|_| "the time is no number")?;
    if !time.is_finite() {
        return Err("the time is no number");
    }
    let length: u64 = field(columns.bytes)?.parse().map_err(|_| "the size is no number")?;
    let op = match columns.op {
        Some(i) => match op(field(i)?) {
            Some(op) => op,
            None => return Ok(None),
        },
        None => RequestOp::Read,
    };
    let (place, i) = columns.place;
    let text = field(i)?;
    let (file, offset) = match place {
        Place::Object => (build.file(text.as_bytes()), 0),
        Place::Sector | Place::Byte => {
            let number: u64 = text.parse().map_err(|_| "the address is no number")?;
            let bytes = if place == Place::Sector { SECTOR_BYTES } else { 1 };
            (build.file(b"device"), number.checked_mul(bytes).ok_or("the address is too large")?)
        }
    };
    Ok((length > 0).then_some(Request { at_us: (time * 1e6) as i64, stream, file, op, offset, length }))
}

/// SCSI operation codes of reads and writes of 6, 10, 12 and 16 bytes, or words; others move no data.
fn op(text: &str) -> Option<RequestOp> {
    match text.to_ascii_lowercase().as_str() {
        "8" | "08" | "28" | "88" | "a8" | "r" | "read" | "get" => Some(RequestOp::Read),
        "a" | "0a" | "2a" | "8a" | "aa" | "w" | "write" | "set" => Some(RequestOp::Write),
        _ => None,
    }
}
