//! Foretide's own columns as text: `time_s,run,job,host_pid,op,path,offset,length`, one head line.
//!
//! Seconds since 1970; `op` is `open`, `create`, `read`, `mmap`, `fault` or `close`; offset and length in bytes. A
//! fault stands for the window around it that the kernel maps at once. `mmap` reads nothing and is left out.

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

/// The head line.
pub(crate) const HEAD: &str = "time_s,run,job,host_pid,op,path,offset,length";
/// The window that one fault maps, bytes.
pub(crate) const FAULT_BYTES: u64 = 64 << 10;

pub(super) fn is(head: &[u8]) -> bool {
    head_lines(head).is_some_and(|lines| lines.first() == Some(&HEAD))
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    if source.text()? != Some(HEAD) {
        return Err(source.error(&format!("the head {HEAD} is wanted")));
    }
    let mut build = Build::new(source, Format::Ours, true);
    while let Some(line) = source.text()? {
        if line.is_empty() {
            continue;
        }
        match request(line, &mut build) {
            Ok(Some(request)) => build.push(request),
            Ok(None) => build.leave_out(),
            Err(why) => return Err(source.error(&why)),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

fn request(line: &str, build: &mut Build) -> Result<Option<Request>, String> {
    let fields: Vec<&str> = line.split(',').collect();
    let [time, run, job, process, op, path, offset, length] = fields[..] else {
        return Err(format!("eight fields are wanted and {} are there", fields.len()));
    };
    let time: f64 = time.parse().map_err(|_| "time_s is no number")?;
    if !time.is_finite() {
        return Err("time_s is no number".into());
    }
    let process = process.parse().map_err(|_| "host_pid is no number")?;
    let (mut offset, mut length): (u64, u64) =
        (offset.parse().map_err(|_| "offset is no number")?, length.parse().map_err(|_| "length is no number")?);
    let op = match op {
        "open" => RequestOp::Open,
        "create" => RequestOp::Create,
        "close" => RequestOp::Close,
        "read" => RequestOp::Read,
        "fault" => {
            (offset, length) = (offset / FAULT_BYTES * FAULT_BYTES, FAULT_BYTES);
            RequestOp::Read
        }
        "mmap" => return Ok(None),
        other => return Err(format!("op {other:?} is not known")),
    };
    let (stream, file) = (build.stream(run, job, process), build.file(path.as_bytes()));
    Ok(Some(Request { at_us: (time * 1e6).round() as i64, stream, file, op, offset, length }))
}
