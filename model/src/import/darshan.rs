//! Text of `darshan-dxt-parser`: per file a head of `# DXT, …` lines, then one row an access.
//!
//! ```text
//! # DXT, file_id: 7, file_name: /data/a
//! # DXT, rank: 0, hostname: n1
//!  X_POSIX  0  read  0  4096  1048576  0.0083  0.0121
//! ```
//! Columns: module, rank, direction, segment, offset, length, start and end in seconds of the job (perhaps storage
//! targets after them). Accesses below MPI-IO are shown by POSIX as well, so only `X_POSIX` rows are taken.

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

pub(super) fn is(head: &[u8]) -> bool {
    let Some(lines) = head_lines(head) else { return false };
    lines.iter().any(|l| l.starts_with("# DXT,"))
        || lines.first().is_some_and(|l| l.starts_with("# darshan log version"))
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let mut build = Build::new(source, Format::DarshanDxt, true);
    let (mut file, mut job) = (None, "trace".to_owned());
    while let Some(line) = source.text()? {
        if let Some(note) = line.strip_prefix('#') {
            if let Some((_, name)) = note.split_once("file_name:") {
                file = Some(build.file(name.trim().as_bytes()));
            } else if let Some(executable) = note.trim().strip_prefix("exe:") {
                job = executable.split_whitespace().next().unwrap_or("trace").to_owned();
            }
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        match row(line, file, &job, &mut build) {
            Ok(Some(request)) => build.push(request),
            Ok(None) => build.leave_out(),
            Err(why) => return Err(source.error(why)),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

fn row(line: &str, file: Option<u32>, job: &str, build: &mut Build) -> Result<Option<Request>, &'static str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [module, rank, direction, _, offset, length, start, _, ..] = fields[..] else {
        return Err("eight columns are wanted: module, rank, direction, segment, offset, length, start, end");
    };
    if !module.starts_with("X_") {
        return Err("the module is none of DXT's");
    }
    if module != "X_POSIX" {
        return Ok(None);
    }
    let file = file.ok_or("a row before any file_name")?;
    let op = match direction {
        "read" => RequestOp::Read,
        "write" => RequestOp::Write,
        _ => return Err("the direction is neither read nor write"),
    };
    let start: f64 = start.parse().map_err(|_| "the start is no number")?;
    let stream = build.stream("trace", job, rank.parse().map_err(|_| "the rank is no number")?);
    let offset = offset.parse().map_err(|_| "the offset is no number")?;
    let length: u64 = length.parse().map_err(|_| "the length is no number")?;
    let request = Request { at_us: (start * 1e6) as i64, stream, file, op, offset, length };
    Ok((length > 0).then_some(request))
}
