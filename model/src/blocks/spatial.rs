//! Space: strides, runs that go on where they ended, deltas that follow deltas.
//!
//! Many programs read in sequence at once, so a single "the request before" sees only noise. *Runs* are told apart by
//! where they would go on: a request that begins where one of the last ended belongs to that one. *Strides* are
//! kept per region of 64 blocks. *Deltas* are what followed the last two deltas, of whatever programs.

use std::collections::VecDeque;

use super::BlockRequest;
use super::candidates::Candidates;
use super::log::NONE;
use super::objects::Objects;

/// Runs that are followed side by side.
const RUNS: usize = 64;
/// Blocks of a region, as a power of two.
const REGION_BITS: u32 = 6;
/// Regions, and pairs of deltas, that are kept: direct-mapped tables.
const TABLE: usize = 1 << 11;
/// Requests that a run or stride is continued by.
const STEPS: u64 = 4;
/// Largest stride within a region, blocks.
const STRIDE_MOST: i64 = 128;

/// A run that may go on.
#[derive(Clone, Copy)]
struct Run {
    end: u64,
    requests: u32,
}

#[derive(Clone, Copy, Default)]
struct Region {
    tag: u32,
    sure: u8,
    stride: i16,
    last: u64,
}

#[derive(Clone, Copy, Default)]
struct Delta {
    by: i64,
    count: u8,
}

/// The sources by place.
pub(super) struct Spatial {
    block_bytes: u64,
    runs: VecDeque<Run>,
    regions: Vec<Region>,
    deltas: Vec<[Delta; 2]>,
    last: u64,
    before: [i64; 2],
    asked: bool,
}

impl Spatial {
    pub(super) fn new(block_bytes: u64, asked: bool) -> Self {
        let tables = if asked { TABLE } else { 0 };
        Self {
            block_bytes,
            runs: VecDeque::new(),
            regions: vec![Region::default(); tables],
            deltas: vec![[Delta::default(); 2]; tables],
            last: 0,
            before: [0; 2],
            asked,
        }
    }

    /// Takes a request and proposes what goes on from it.
    pub(super) fn propose(
        &mut self,
        request: &BlockRequest,
        lead: u32,
        objects: &Objects,
        candidates: &mut Candidates,
    ) {
        if !self.asked {
            return;
        }
        let block = request.offset / self.block_bytes;
        let skip = u64::from(lead.saturating_sub(1));
        let mut add = |to: u64, blocks: u16, kind: u8| {
            let candidate = candidates.of(to, objects.known(to).unwrap_or(NONE));
            candidate.blocks = candidate.blocks.max(blocks);
            if candidate.run == 0 {
                candidate.run = kind;
            } else if candidate.delta == 0 && kind != candidate.run {
                candidate.delta = kind;
            }
        };
        self.go_on(request, skip, &mut add);
        self.stride(block, skip, &mut add);
        self.delta(block, &mut add);
    }

    /// Kinds 64 and up: how long the run is, and how far on.
    fn go_on(&mut self, request: &BlockRequest, skip: u64, add: &mut impl FnMut(u64, u16, u8)) {
        let begun = self.runs.iter().position(|r| r.end == request.offset);
        let requests = begun.and_then(|i| self.runs.remove(i)).map_or(0, |r| r.requests + 1);
        if self.runs.len() >= RUNS {
            self.runs.pop_front();
        }
        let end = request.offset.saturating_add(request.length);
        self.runs.push_back(Run { end, requests });
        let long = (32 - requests.leading_zeros()).min(6) as u8;
        for step in 0..STEPS {
            let from = end.saturating_add(request.length.saturating_mul(step + skip));
            let blocks =
                from.saturating_add(request.length.max(1)).div_ceil(self.block_bytes) - from / self.block_bytes;
            let to = from / self.block_bytes;
            add(to, u16::try_from(blocks).unwrap_or(u16::MAX), 64 + 8 * long + step as u8);
        }
    }

    /// Kinds 1 to 31: how sure the stride is, and how far on; 40 and 41: the next blocks, whatever the stride.
    fn stride(&mut self, block: u64, skip: u64, add: &mut impl FnMut(u64, u16, u8)) {
        let number = block >> REGION_BITS;
        let slot = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as usize % TABLE;
        let find = |n: u64| Some(self.regions[slot(n)]).filter(|r| r.tag == n as u32 && r.last != 0);
        let fresh = Region { tag: number as u32, sure: 0, stride: 0, last: block };
        let known = find(number).or_else(|| find(number.wrapping_sub(1))).unwrap_or(fresh);
        let step = block.wrapping_sub(known.last) as i64;
        let (stride, sure) = if step != 0 && step == i64::from(known.stride) {
            (known.stride, (known.sure + 1).min(7))
        } else if step != 0 && step.abs() < STRIDE_MOST {
            (step as i16, known.sure / 2)
        } else {
            (known.stride, known.sure / 2)
        };
        self.regions[slot(number)] = Region { tag: number as u32, sure, stride, last: block };
        if stride != 0 {
            for ahead in 1..=STEPS {
                let to = block.wrapping_add_signed(i64::from(stride).wrapping_mul((ahead + skip) as i64));
                add(to, 1, 8 * sure.min(3) + ahead as u8);
            }
        }
        for ahead in 1..=2 {
            add(block.wrapping_add(ahead + skip), 1, 39 + ahead as u8);
        }
    }

    /// Kinds 48 to 53: how often this delta followed the last two.
    fn delta(&mut self, block: u64, add: &mut impl FnMut(u64, u16, u8)) {
        let by = block.wrapping_sub(self.last) as i64;
        let slot = |pair: [i64; 2]| {
            let mixed = (pair[0] as u64).wrapping_mul(31).wrapping_add(pair[1] as u64);
            (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as usize % TABLE
        };
        let row = &mut self.deltas[slot(self.before)];
        match row.iter().position(|d| d.by == by && d.count > 0) {
            Some(at) => {
                row[at].count = (row[at].count + 1).min(15);
                row.sort_by_key(|d| std::cmp::Reverse(d.count));
            }
            None => {
                row[1].count = row[1].count.saturating_sub(1);
                if row[1].count == 0 {
                    row[1] = Delta { by, count: 1 };
                }
            }
        }
        self.before = [self.before[1], by];
        self.last = block;
        for delta in self.deltas[slot(self.before)].iter().filter(|d| d.count > 0 && d.by != 0) {
            let often = 8 - delta.count.leading_zeros() as u8;
            add(block.wrapping_add_signed(delta.by), 1, 48 + often);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
            + self.regions.capacity() * size_of::<Region>()
            + self.deltas.capacity() * size_of::<[Delta; 2]>()
    }
}
