//! Text of `strace -f -ttt -y`: `[PID] SECONDS call(ARGUMENTS) = RESULT`, descriptors with their path in `<>`.
//!
//! A call that another thread interrupted stands on two lines (`<unfinished ...>`, `<... call resumed>`), which are put
//! together; it counts from when it was entered. Threads share a table of descriptors, children of a `fork` get a copy of it,
//! and both copies of a descriptor share one position, as in the kernel. Sockets, pipes and what has no path are left
//! out.

use std::collections::HashMap;

use super::build::Build;
use super::source::{Source, head_lines};
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

/// One line, parted.
struct Line<'a> {
    process: u32,
    at_us: i64,
    rest: &'a str,
}

fn part(line: &str) -> Option<Line<'_>> {
    let line = line.strip_prefix("[pid ").map_or(line, str::trim_start);
    let (first, rest) = line.split_once(' ')?;
    let first = first.trim_end_matches(']');
    let (process, time, rest) = if first.contains('.') {
        (0, first, rest)
    } else {
        let (time, rest) = rest.trim_start().trim_start_matches("] ").split_once(' ')?;
        (first.parse().ok()?, time, rest)
    };
    let (seconds, micros) = time.split_once('.')?;
    let digits = micros.len() == 6 && micros.bytes().all(|b| b.is_ascii_digit());
    let at_us = seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)?;
    digits.then_some(Line { process, at_us, rest: rest.trim() })
}

/// A line that has a time and a call, a signal, or an exit.
fn plausible(line: &str) -> bool {
    part(line).is_some_and(|l| {
        let call = l.rest.split('(').next().unwrap_or("");
        let named = !call.is_empty() && call.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (named && l.rest.contains('(')) || ["<...", "+++", "---"].iter().any(|p| l.rest.starts_with(p))
    })
}

pub(super) fn is(head: &[u8]) -> bool {
    let Some(lines) = head_lines(head) else { return false };
    // The last line may be cut off.
    let sure = lines.len().saturating_sub(1).clamp(1, 20);
    let mut whole = lines.iter().take(sure).filter(|l| !l.is_empty()).peekable();
    whole.peek().is_some() && whole.all(|l| plausible(l))
}

#[derive(Default)]
struct State {
    /// The table of descriptors of each process.
    table_of: HashMap<u32, u32>,
    tables: u32,
    /// The open file of each descriptor of each table.
    open: HashMap<(u32, i64), usize>,
    /// The position of each open file, bytes.
    positions: Vec<u64>,
    /// Calls that were entered and have not returned.
    unfinished: HashMap<u32, (i64, String)>,
}

impl State {
    fn table(&mut self, process: u32) -> u32 {
        *self.table_of.entry(process).or_insert_with(|| {
            self.tables += 1;
            self.tables
        })
    }

    fn cloned(&mut self, parent: u32, child: u32, shares: bool) {
        let of_parent = self.table(parent);
        if shares {
            self.table_of.insert(child, of_parent);
            return;
        }
        let of_child = self.table(child);
        let copies: Vec<_> = self
            .open
            .iter()
            .filter(|((t, _), _)| *t == of_parent)
            .map(|((_, d), file)| ((of_child, *d), *file))
            .collect();
        self.open.extend(copies);
    }

    fn opened(&mut self, table: u32, descriptor: i64) {
        self.positions.push(0);
        self.open.insert((table, descriptor), self.positions.len() - 1);
    }

    /// The position of a descriptor; one that was open before the trace began is taken to stand at the start.
    fn position(&mut self, table: u32, descriptor: i64) -> &mut u64 {
        if !self.open.contains_key(&(table, descriptor)) {
            self.opened(table, descriptor);
        }
        &mut self.positions[self.open[&(table, descriptor)]]
    }
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let mut build = Build::new(source, Format::Strace, true);
    let mut state = State::default();
    while let Some(text) = source.text()? {
        if text.is_empty() {
            continue;
        }
        if !plausible(text) {
            return Err(
                source.error("a time with microseconds and a call are wanted, as `strace -f -ttt -y` writes them")
            );
        }
        let Some(line) = part(text) else { continue };
        let (process, at_us) = (line.process, line.at_us);
        let (at_us, call) = if let Some(begun) = line.rest.strip_suffix("<unfinished ...>") {
            state.unfinished.insert(process, (at_us, begun.trim_end().to_owned()));
            continue;
        } else if line.rest.starts_with("<...") {
            let Some((entered, begun)) = state.unfinished.remove(&process) else {
                build.leave_out();
                continue;
            };
            (entered, begun + line.rest.split_once("resumed>").map_or("", |(_, end)| end))
        } else {
            (at_us, line.rest.to_owned())
        };
        match request(&call, process, at_us, &mut state, &mut build) {
            Some(request) => build.push(request),
            None => build.leave_out(),
        }
    }
    Ok(build.done(Numbers::Addresses))
}

/// `NAME(ARGUMENTS) = RESULT`.
fn cut(call: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    Some((name, arguments.trim_end().trim_end_matches(')'), result.trim()))
}

/// `7</path>`: descriptor and path.
fn descriptor(text: &str) -> Option<(i64, &str)> {
    let (number, rest) = text.split_once('<')?;
    let path = rest.split_once('>')?.0;
    Some((number.trim().parse().ok()?, path)).filter(|(_, path)| path.starts_with('/'))
}

/// The last number among the arguments.
fn last_number(arguments: &str) -> Option<u64> {
    arguments.rsplit(',').next()?.trim().parse().ok()
}

fn request(call: &str, process: u32, at_us: i64, state: &mut State, build: &mut Build) -> Option<Request> {
    let (name, arguments, result) = cut(call)?;
    let returned: Option<i64> = result.split([' ', '<']).next()?.parse().ok();
    if matches!(name, "clone" | "clone3" | "fork" | "vfork") {
        let child = u32::try_from(returned?).ok().filter(|c| *c > 0)?;
        state.cloned(process, child, arguments.contains("CLONE_FILES"));
        return None;
    }
    let table = state.table(process);
    let stream = build.stream("trace", "trace", process);
    let mut with = |path: &str, op, offset, length| {
        let file = build.file(path.as_bytes());
        Some(Request { at_us, stream, file, op, offset, length })
    };
    match name {
        "open" | "openat" | "creat" => {
            let (number, path) = descriptor(result)?;
            state.opened(table, number);
            let writes = name == "creat" || arguments.contains("O_WRONLY") || arguments.contains("O_TRUNC");
            let directory = arguments.contains("O_DIRECTORY");
            (!directory).then(|| with(path, if writes { RequestOp::Create } else { RequestOp::Open }, 0, 0))?
        }
        "read" | "readv" | "write" | "writev" => {
            let (number, path) = descriptor(arguments)?;
            let length = u64::try_from(returned?).ok().filter(|n| *n > 0)?;
            let position = state.position(table, number);
            let offset = *position;
            *position += length;
            with(path, if name.starts_with('r') { RequestOp::Read } else { RequestOp::Write }, offset, length)
        }
        "pread64" | "preadv" | "pwrite64" | "pwritev" => {
            let (_, path) = descriptor(arguments)?;
            let length = u64::try_from(returned?).ok().filter(|n| *n > 0)?;
            let op = if name.starts_with("pr") { RequestOp::Read } else { RequestOp::Write };
            with(path, op, last_number(arguments)?, length)
        }
        "lseek" => {
            let (number, _) = descriptor(arguments)?;
            *state.position(table, number) = u64::try_from(returned?).ok()?;
            None
        }
        "close" => {
            let (number, path) = descriptor(arguments)?;
            state.open.remove(&(table, number));
            with(path, RequestOp::Close, 0, 0)
        }
        _ => None,
    }
}
