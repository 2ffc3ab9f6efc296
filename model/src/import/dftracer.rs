//! DFTracer's Chrome trace events: a line `[`, then one JSON object a line. Numbers may be quoted.
//!
//! Of category POSIX, opens, seeks, reads, writes and closes are taken; a read has no offset of its own, so the
//! position is kept per (`pid`, `tid`, descriptor). All other categories are left out.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

#[derive(Deserialize)]
struct Event {
    name: String,
    cat: String,
    pid: Value,
    tid: Value,
    ts: Value,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    fname: Option<String>,
    fd: Option<Value>,
    ret: Option<Value>,
    offset: Option<Value>,
    flags: Option<Value>,
}

/// A number, quoted or not.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

fn parse(line: &str) -> Option<Result<Event, serde_json::Error>> {
    let object = line.trim().trim_end_matches(',');
    (!matches!(object, "" | "[" | "]")).then(|| serde_json::from_str(object))
}

pub(super) fn is(head: &[u8]) -> bool {
    let Some(lines) = head_lines(head) else { return false };
    lines.iter().find_map(|l| parse(l)).is_some_and(|e| e.is_ok())
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let mut build = Build::new(source, Format::Dftracer, true);
    let mut positions: HashMap<(u32, i64), (u32, u64)> = HashMap::new();
    while let Some(line) = source.text()? {
        let event = match parse(line) {
            None => continue,
            Some(Ok(event)) => event,
            Some(Err(e)) => return Err(source.error(&format!("is no event: {e}"))),
        };
        if event.cat != "POSIX" {
            build.leave_out();
            continue;
        }
        let Some(((at_us, pid), tid)) = number(&event.ts).zip(number(&event.pid)).zip(number(&event.tid)) else {
            return Err(source.error("ts, pid or tid is no number"));
        };
        // Threads are what tells the workers apart where all share one process.
        let stream = build.stream(&format!("pid-{pid}"), "trace", tid as u32);
        match request(&event, at_us, stream, &mut positions, &mut build) {
            Some(request) => build.push(request),
            None => build.leave_out(),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

fn request(
    event: &Event,
    at_us: i64,
    stream: u32,
    positions: &mut HashMap<(u32, i64), (u32, u64)>,
    build: &mut Build,
) -> Option<Request> {
    const WRITE_ONLY_OR_TRUNCATE: i64 = 0o1 | 0o1000;
    let args = &event.args;
    let returned = args.ret.as_ref().and_then(number)?;
    let file = |build: &mut Build| args.fname.as_ref().map(|name| build.file(name.as_bytes()));
    let descriptor = args.fd.as_ref().and_then(number);
    let with = |file, op, offset, length| Some(Request { at_us, stream, file, op, offset, length });
    match event.name.as_str() {
        "open" | "open64" | "openat" | "openat64" => {
            let file = file(build)?;
            (returned >= 0).then(|| positions.insert((stream, returned), (file, 0)))?;
            let flags = args.flags.as_ref().and_then(number).unwrap_or(0);
            with(file, if flags & WRITE_ONLY_OR_TRUNCATE == 0 { RequestOp::Open } else { RequestOp::Create }, 0, 0)
        }
        "lseek" | "lseek64" => {
            let file = file(build)?;
            positions.insert((stream, descriptor?), (file, u64::try_from(returned).ok()?));
            None
        }
        name @ ("read" | "write") => {
            let file = file(build)?;
            let length = u64::try_from(returned).ok().filter(|n| *n > 0)?;
            let place = positions.entry((stream, descriptor?)).or_insert((file, 0));
            if place.0 != file {
                *place = (file, 0);
            }
            let offset = place.1;
            place.1 += length;
            with(file, if name == "read" { RequestOp::Read } else { RequestOp::Write }, offset, length)
        }
        name @ ("pread" | "pread64" | "pwrite" | "pwrite64") => {
            let file = file(build)?;
            let length = u64::try_from(returned).ok().filter(|n| *n > 0)?;
            let offset = u64::try_from(number(args.offset.as_ref()?)?).ok()?;
            with(file, if name.starts_with("pr") { RequestOp::Read } else { RequestOp::Write }, offset, length)
        }
        "close" => {
            let (file, _) = positions.remove(&(stream, descriptor?))?;
            with(file, RequestOp::Close, 0, 0)
        }
        _ => None,
    }
}
