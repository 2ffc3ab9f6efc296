//! fio's iolog: a head line with the version, then `FILE ACTION [OFFSET LENGTH]`, in version 3 with milliseconds
//! before it. Version 2 has no times but `wait` lines (microseconds).

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, PACE_PER_SECOND, Request, RequestOp, Trace};
use crate::error::ModelError;

fn version(line: &str) -> Option<u32> {
    match line.trim() {
        "fio version 2 iolog" => Some(2),
        "fio version 3 iolog" => Some(3),
        _ => None,
    }
}

pub(super) fn is(head: &[u8]) -> bool {
    head_lines(head).is_some_and(|lines| lines.first().and_then(|l| version(l)).is_some())
}

/// The clock of a version 2 log: requests at a pace of their own, and what `wait` adds.
#[derive(Default)]
struct Paced {
    requests: i64,
    waited_us: i64,
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let Some(version) = source.text()?.and_then(version) else {
        return Err(source.error("\"fio version 2 iolog\" or \"fio version 3 iolog\" is wanted"));
    };
    let mut build = Build::new(source, Format::FioIolog, version == 3);
    let stream = build.only_stream();
    let mut paced = Paced::default();
    while let Some(line) = source.text()? {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let row = match version {
            3 => timed(&fields),
            _ => untimed(&fields, &mut paced),
        };
        match row {
            Ok(Some((at_us, name, op, offset, length))) => {
                let file = build.file(name.as_bytes());
                build.push(Request { at_us, stream, file, op, offset, length });
            }
            Ok(None) => build.leave_out(),
            Err(why) => return Err(source.error(why)),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

type Row<'a> = Option<(i64, &'a str, RequestOp, u64, u64)>;

fn timed<'a>(fields: &[&'a str]) -> Result<Row<'a>, &'static str> {
    let (at, rest) = fields.split_first().ok_or("a line of nothing")?;
    let at: i64 = at.parse().map_err(|_| "the milliseconds are no number")?;
    Ok(action(rest)?.map(|(name, op, offset, length)| (at.saturating_mul(1000), name, op, offset, length)))
}

fn untimed<'a>(fields: &[&'a str], paced: &mut Paced) -> Result<Row<'a>, &'static str> {
    if let [_, "wait", us, ..] = fields {
        let us = us.parse::<i64>().map_err(|_| "the wait is no number")?;
        paced.waited_us = paced.waited_us.saturating_add(us);
        return Ok(None);
    }
    let Some((name, op, offset, length)) = action(fields)? else { return Ok(None) };
    let at_us = (paced.requests * 1_000_000 / PACE_PER_SECOND).saturating_add(paced.waited_us);
    paced.requests += 1;
    Ok(Some((at_us, name, op, offset, length)))
}

/// `FILE ACTION [OFFSET LENGTH]`.
fn action<'a>(fields: &[&'a str]) -> Result<Option<(&'a str, RequestOp, u64, u64)>, &'static str> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| "offset or length is no number");
    match *fields {
        [name, "open"] => Ok(Some((name, RequestOp::Open, 0, 0))),
        [name, "close"] => Ok(Some((name, RequestOp::Close, 0, 0))),
        [name, "read", offset, length] => Ok(Some((name, RequestOp::Read, number(offset)?, number(length)?))),
        [name, "write", offset, length] => Ok(Some((name, RequestOp::Write, number(offset)?, number(length)?))),
        [_, "add" | "sync" | "datasync" | "trim" | "wait", ..] => Ok(None),
        _ => Err("a file and an action (add, open, close, read, write, sync, datasync, trim, wait) are wanted"),
    }
}
