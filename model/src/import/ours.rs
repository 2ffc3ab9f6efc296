//! Foretide's own columns as text, with one of two head lines:
//!
//! - `time_s,run,job,host_pid,op,path,offset,length`: recorded jobs, the job beside each run;
//! - `at_s,run,process,volume,path,op,offset,length,blocked_us,found`: what `foretide trace export` writes.
//!
//! Seconds since 1970; `op` is `open`, `create`, `read`, `mmap`, `fault` or `close`; offset and length in bytes; a field
//! with a comma or a quote stands in quotes. A fault of the first kind stands for the window around it that the kernel
//! maps at once. `mmap` reads nothing and is left out.

use std::num::NonZeroU64;

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

const RECORDED: &str = "time_s,run,job,host_pid,op,path,offset,length";
const EXPORTED: &str = "at_s,run,process,volume,path,op,offset,length,blocked_us,found";
/// The window that one fault maps, bytes.
const FAULT_BYTES: u64 = 64 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    head_lines(head).is_some_and(|lines| matches!(lines.first(), Some(&RECORDED | &EXPORTED)))
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let parse = match source.text()? {
        Some(RECORDED) => recorded,
        Some(EXPORTED) => exported,
        _ => return Err(source.error(&format!("the head {RECORDED} or {EXPORTED} is wanted"))),
    };
    let mut build = Build::new(source, Format::Ours, true);
    while let Some(line) = source.text()? {
        if line.is_empty() {
            continue;
        }
        let fields = fields(line);
        let row = parse(&fields.iter().map(String::as_str).collect::<Vec<_>>());
        match row.and_then(|row| request(&row, &mut build)) {
            Ok(Some(request)) => build.push(request),
            Ok(None) => build.leave_out(),
            Err(why) => return Err(source.error(&why)),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

/// One line, by what its fields mean.
struct Row<'a> {
    time: &'a str,
    run: &'a str,
    job: &'a str,
    process: &'a str,
    op: &'a str,
    path: String,
    offset: &'a str,
    length: &'a str,
    /// Bytes of the window that a fault stands for; none where its own length says it.
    window: Option<NonZeroU64>,
}

fn recorded<'a>(fields: &[&'a str]) -> Result<Row<'a>, String> {
    let [time, run, job, process, op, path, offset, length] = *fields else {
        return Err(format!("eight fields are wanted and {} are there", fields.len()));
    };
    Ok(Row { time, run, job, process, op, path: path.to_owned(), offset, length, window: NonZeroU64::new(FAULT_BYTES) })
}

fn exported<'a>(fields: &[&'a str]) -> Result<Row<'a>, String> {
    let [time, run, process, volume, path, op, offset, length, _, _] = *fields else {
        return Err(format!("ten fields are wanted and {} are there", fields.len()));
    };
    let path = format!("{volume}/{path}");
    Ok(Row { time, run, job: "trace", process, op, path, offset, length, window: None })
}

/// The fields of a line; quotes hold commas together and are doubled within.
fn fields(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let last = out.last_mut().expect("there is one at least");
        match c {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => last.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => last.push(c),
        }
    }
    out
}

fn request(row: &Row<'_>, build: &mut Build) -> Result<Option<Request>, String> {
    let time: f64 = row.time.parse().map_err(|_| "the time is no number")?;
    if !time.is_finite() {
        return Err("the time is no number".into());
    }
    let process = row.process.parse().map_err(|_| "the process is no number")?;
    let mut offset: u64 = row.offset.parse().map_err(|_| "offset is no number")?;
    let mut length: u64 = row.length.parse().map_err(|_| "length is no number")?;
    let op = match row.op {
        "open" => RequestOp::Open,
        "create" => RequestOp::Create,
        "close" => RequestOp::Close,
        "read" => RequestOp::Read,
        "fault" => {
            if let Some(window) = row.window {
                (offset, length) = (offset / window * window.get(), window.get());
            }
            RequestOp::Read
        }
        "mmap" => return Ok(None),
        other => return Err(format!("op {other:?} is not known")),
    };
    let (stream, file) = (build.stream(row.run, row.job, process), build.file(row.path.as_bytes()));
    Ok(Some(Request { at_us: (time * 1e6).round() as i64, stream, file, op, offset, length }))
}
