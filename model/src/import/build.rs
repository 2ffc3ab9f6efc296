//! A trace while it is read: names become numbers once.

use std::collections::HashMap;

use super::source::Source;
use super::{Format, Numbers, PACE_PER_SECOND, Request, RequestOp, Stream, Trace, TracedFile};

/// A trace in the making.
pub(super) struct Build {
    trace: Trace,
    files: HashMap<Vec<u8>, u32>,
    streams: HashMap<Stream, u32>,
}

impl Build {
    pub(super) fn new(source: &Source, format: Format, timed: bool) -> Self {
        let trace = Trace {
            path: source.path().to_owned(),
            format,
            timed,
            numbers: Numbers::Addresses,
            files: Vec::new(),
            streams: Vec::new(),
            requests: Vec::new(),
            left_out: 0,
        };
        Self { trace, files: HashMap::new(), streams: HashMap::new() }
    }

    /// The number of a file.
    pub(super) fn file(&mut self, path: &[u8]) -> u32 {
        if let Some(file) = self.files.get(path) {
            return *file;
        }
        let file = self.trace.files.len() as u32;
        self.trace.files.push(TracedFile { path: path.to_owned(), size: 0 });
        self.files.insert(path.to_owned(), file);
        file
    }

    /// Takes a size that the trace tells.
    pub(super) fn size(&mut self, file: u32, bytes: u64) {
        let known = &mut self.trace.files[file as usize].size;
        *known = (*known).max(bytes);
    }

    /// The number of a stream.
    pub(super) fn stream(&mut self, run: &str, job: &str, process: u32) -> u32 {
        let stream = Stream { run: run.to_owned(), job: job.to_owned(), process };
        if let Some(number) = self.streams.get(&stream) {
            return *number;
        }
        let number = self.trace.streams.len() as u32;
        self.trace.streams.push(stream.clone());
        self.streams.insert(stream, number);
        number
    }

    /// The number of the only stream of a trace that names none.
    pub(super) fn only_stream(&mut self) -> u32 {
        self.stream("trace", "trace", 0)
    }

    /// Takes a request.
    pub(super) fn push(&mut self, request: Request) {
        if matches!(request.op, RequestOp::Read | RequestOp::Write) {
            self.size(request.file, request.offset.saturating_add(request.length));
        }
        self.trace.requests.push(request);
    }

    /// Counts what is no access to a file.
    pub(super) fn leave_out(&mut self) {
        self.trace.left_out += 1;
    }

    /// The time of the next request in a format without times.
    pub(super) fn paced(&self) -> i64 {
        self.trace.requests.len() as i64 * 1_000_000 / PACE_PER_SECOND
    }

    pub(super) fn done(self, numbers: Numbers) -> Trace {
        Trace { numbers, ..self.trace }
    }
}

/// Blocks numbered by whoever published the trace: an id, and how many.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub(super) first: u64,
    pub(super) count: u64,
}

/// A trace of one device out of block numbers.
pub(super) fn of_blocks(source: &Source, format: Format, blocks: &[Blocks], block_bytes: u64) -> Trace {
    let mut build = Build::new(source, format, false);
    let (stream, file) = (build.only_stream(), build.file(b"device"));
    for b in blocks {
        let at_us = build.paced();
        let (offset, length) = (b.first.saturating_mul(block_bytes), b.count.saturating_mul(block_bytes));
        build.push(Request { at_us, stream, file, op: RequestOp::Read, offset, length });
    }
    build.done(numbering(blocks))
}

/// Whether numbers are places or names given in order of first appearance.
///
/// In a renumbered trace *every* new number is the one after the newest so far, however the old ones come
/// between. A device read in sequence looks alike, but there a new block follows on its neighbour and hardly ever
/// on a step elsewhere. So: nearly all new numbers continue the count, and a good share of them do so although
/// the request before went elsewhere.
fn numbering(blocks: &[Blocks]) -> Numbers {
    const NEARLY_ALL: f64 = 0.99;
    const ELSEWHERE: f64 = 0.05;
    const LEAST_NEW: u64 = 100;
    let (mut newest, mut before) = (None::<u64>, None::<u64>);
    let (mut new, mut continued, mut from_elsewhere) = (0u64, 0u64, 0u64);
    for b in blocks {
        if newest.is_none_or(|n| b.first > n) {
            if let (Some(newest), Some(before)) = (newest, before) {
                new += 1;
                if b.first == newest + 1 {
                    continued += 1;
                    from_elsewhere += u64::from(before != newest);
                }
            }
            newest = Some(b.first.saturating_add(b.count.saturating_sub(1)));
        }
        before = Some(b.first.saturating_add(b.count.saturating_sub(1)));
    }
    let (new_f, continued_f) = (new as f64, continued as f64);
    let renumbered =
        new >= LEAST_NEW && continued_f >= NEARLY_ALL * new_f && from_elsewhere as f64 >= ELSEWHERE * new_f;
    if renumbered { Numbers::Opaque } else { Numbers::Addresses }
}
