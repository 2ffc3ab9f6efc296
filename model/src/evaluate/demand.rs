//! A trace as the site sees it: requests for blocks of one flat space, in order.
//!
//! Files lie in the order of their first request, each on a boundary of blocks and far from the next, so that whoever
//! reads on past the end of one does not get into another; a device lies as it is. What a run makes itself needs no fetch, so requests for files that the trace saw made are left out.

use std::collections::HashMap;

use crate::import::{Numbers, RequestOp, Trace};

/// Bytes of a block where the trace is of a device.
pub const DEVICE_BLOCK_BYTES: u64 = 4096;
/// Bytes of a block where the trace is of files.
pub const FILE_BLOCK_BYTES: u64 = 1 << 20;

/// Bytes between two files at most: more than anybody reads ahead.
const BETWEEN_FILES: u64 = 1 << 40;
/// Bytes that all gaps together take at most: with what files hold themselves, places stay within 63 bits.
const BETWEEN_ALL: u64 = 1 << 62;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// When it would come if nothing ever waited, microseconds.
    pub at_us: i64,
    /// Who asks.
    pub stream: u32,
    /// Which file.
    pub file: u32,
    /// First byte in the flat space.
    pub offset: u64,
    /// Bytes; 0 where a file is opened.
    pub length: u64,
}

/// A file in the flat space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Its first byte.
    pub base: u64,
    /// Its bytes.
    pub size: u64,
}

/// All requests.
pub struct Demand<'a> {
    /// Where it comes from.
    pub trace: &'a Trace,
    /// In order.
    pub steps: Vec<Step>,
    /// The files, as the trace numbers them.
    pub places: Vec<Place>,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Whether distances mean something.
    pub addresses: bool,
    /// Whether only the block of each request's first byte counts.
    pub first_only: bool,
    /// First byte and end of each file that has bytes, ascending.
    ranges: Vec<(u64, u64)>,
    /// The number of each file, by path.
    numbers: HashMap<&'a [u8], u32>,
}

impl<'a> Demand<'a> {
    /// The demand of a trace.
    pub fn new(trace: &'a Trace, block_bytes: Option<u64>, opaque: bool, first_only: bool) -> Self {
        let device = trace.files.len() == 1 && trace.files[0].path == b"device";
        let block_bytes = block_bytes.unwrap_or(if device { DEVICE_BLOCK_BYTES } else { FILE_BLOCK_BYTES });
        let places =
            if device { vec![Place { base: 0, size: trace.files[0].size }] } else { places(trace, block_bytes) };
        let made = made(trace);
        let step = |r: &crate::import::Request| {
            let place = places[r.file as usize];
            let bytes = matches!(r.op, RequestOp::Read | RequestOp::Write) && r.length > 0;
            let counts = bytes || (r.op == RequestOp::Open && !device);
            (counts && !made.contains_key(&(trace.streams[r.stream as usize].run.as_str(), r.file))).then_some(Step {
                at_us: r.at_us,
                stream: r.stream,
                file: r.file,
                offset: place.base + if bytes { r.offset } else { 0 },
                length: if bytes { r.length } else { 0 },
            })
        };
        let ranges = places.iter().filter(|p| p.size > 0).map(|p| (p.base, p.base + p.size)).collect();
        Self {
            trace,
            steps: trace.requests.iter().filter_map(step).collect(),
            places,
            block_bytes,
            addresses: !opaque && trace.numbers == Numbers::Addresses,
            first_only,
            ranges,
            numbers: (0..).zip(&trace.files).map(|(number, f)| (f.path.as_slice(), number)).collect(),
        }
    }

    /// The blocks of a request: first and how many; none where a file is only opened.
    pub fn blocks(&self, step: &Step) -> std::ops::Range<u64> {
        let first = step.offset / self.block_bytes;
        if step.length == 0 {
            return first..first;
        }
        let end = if self.first_only { first + 1 } else { (step.offset + step.length).div_ceil(self.block_bytes) };
        first..end
    }

    /// The number of the file at this path.
    pub fn file(&self, path: &[u8]) -> Option<u32> {
        self.numbers.get(path).copied()
    }

    /// Whether there is such a block: nobody can fetch what lies beyond the end.
    pub fn has(&self, block: u64) -> bool {
        block.checked_mul(self.block_bytes).is_some_and(|start| self.range(start).is_some())
    }

    /// Bytes of a block: fewer at the end of a file.
    pub fn bytes(&self, block: u64) -> u64 {
        let start = block * self.block_bytes;
        self.range(start).map_or(self.block_bytes, |(_, end)| (end - start).min(self.block_bytes))
    }

    /// The file that a byte lies in.
    fn range(&self, byte: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|(_, end)| *end <= byte);
        self.ranges.get(at).copied().filter(|(first, _)| *first <= byte)
    }

    /// Blocks that all requests together touch, those that several touch as often as they do.
    pub fn touches(&self) -> u64 {
        self.steps.iter().map(|s| self.blocks(s)).fold(0, |sum, blocks| sum.saturating_add(blocks.end - blocks.start))
    }

    /// All different blocks, ascending.
    pub fn different(&self) -> Vec<u64> {
        let mut out: Vec<u64> = self.steps.iter().flat_map(|s| self.blocks(s)).collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}

fn places(trace: &Trace, block_bytes: u64) -> Vec<Place> {
    let between = (BETWEEN_ALL / trace.files.len().max(1) as u64).min(BETWEEN_FILES);
    let mut next = 0;
    trace
        .files
        .iter()
        .map(|file| {
            let place = Place { base: next, size: file.size };
            next += (file.size + between).div_ceil(block_bytes) * block_bytes;
            place
        })
        .collect()
}

/// Files that a run made before it read them.
fn made(trace: &Trace) -> HashMap<(&str, u32), ()> {
    let mut first: HashMap<(&str, u32), RequestOp> = HashMap::new();
    for r in &trace.requests {
        first.entry((trace.streams[r.stream as usize].run.as_str(), r.file)).or_insert(r.op);
    }
    first.into_iter().filter(|(_, op)| *op == RequestOp::Create).map(|(key, _)| (key, ())).collect()
}
