//! Space: strides, runs that go on where they ended, deltas that follow deltas.
//!
//! Many programs read in sequence at once, so a single "the request before" sees only noise. *Runs* are told apart by
//! where they would go on: a request that begins where one of the last ended belongs to that one. *Strides* are
//! kept per region of 64 blocks. *Deltas* are what followed the last two deltas, of whatever programs.
//!
//! Where fetches take a number of requests, a run is told as many of its own steps ahead as pass in that time: one that is
//! continued with every tenth request is at its next step ten requests from now.

use std::collections::VecDeque;

use super::BlockRequest;
use super::candidates::Candidates;
use super::log::Place;
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

/// How often a run or region is continued: requests between its own.
#[derive(Clone, Copy, Default)]
struct Pace {
    at: Place,
    /// 0 where it is not known.
    gap: f32,
}

/// How fast the pace follows.
const PACE_RATE: f32 = 0.3;
/// Pauses longer than this say nothing of the pace, requests.
const PAUSE: Place = 256;

impl Pace {
    fn begun(now: Place) -> Self {
        Self { at: now, gap: 0.0 }
    }

    fn continued(self, now: Place) -> Self {
        let gap = now.saturating_sub(self.at).clamp(1, PAUSE) as f32;
        Self { at: now, gap: if self.gap == 0.0 { gap } else { self.gap + PACE_RATE * (gap - self.gap) } }
    }

    /// Own steps that pass while a fetch takes `lead` requests, beyond the next.
    fn skip(self, lead: u32) -> u64 {
        let gap = self.gap.max(1.0);
        ((lead as f32 / gap).ceil() as u64).saturating_sub(1)
    }
}

/// A run that may go on.
#[derive(Clone, Copy)]
struct Run {
    end: u64,
    requests: u32,
    pace: Pace,
}

#[derive(Clone, Copy, Default)]
struct Region {
    tag: u32,
    sure: u8,
    stride: i16,
    last: u64,
    pace: Pace,
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
        now: Place,
        lead: u32,
        objects: &Objects,
        candidates: &mut Candidates,
    ) {
        if !self.asked {
            return;
        }
        let block = request.offset / self.block_bytes;
        let mut add = |to: u64, blocks: u16, kind: u8| {
            let candidate = match objects.known(to) {
                Some(id) => candidates.known(id),
                None => candidates.unheard(to),
            };
            candidate.blocks = candidate.blocks.max(blocks);
            if candidate.run == 0 {
                candidate.run = kind;
            } else if candidate.delta == 0 && kind != candidate.run {
                candidate.delta = kind;
            }
        };
        self.go_on(request, now, lead, &mut add);
        self.stride(block, now, lead, &mut add);
        self.delta(block, &mut add);
    }

    /// Kinds 64 and up: how long the run is, and how far on.
    fn go_on(&mut self, request: &BlockRequest, now: Place, lead: u32, add: &mut impl FnMut(u64, u16, u8)) {
        let begun = self.runs.iter().position(|r| r.end == request.offset);
        let known = begun.and_then(|i| self.runs.remove(i));
        let requests = known.map_or(0, |r| r.requests + 1);
        let pace = known.map_or(Pace::begun(now), |r| r.pace.continued(now));
        let skip = pace.skip(lead);
        if self.runs.len() >= RUNS {
            self.runs.pop_front();
        }
        let end = request.offset.saturating_add(request.length);
        self.runs.push_back(Run { end, requests, pace });
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
    fn stride(&mut self, block: u64, now: Place, lead: u32, add: &mut impl FnMut(u64, u16, u8)) {
        let number = block >> REGION_BITS;
        let slot = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as usize % TABLE;
        let find = |n: u64| Some(self.regions[slot(n)]).filter(|r| r.tag == n as u32 && r.last != 0);
        let fresh = Region { tag: number as u32, sure: 0, stride: 0, last: block, pace: Pace::begun(now) };
        let known = find(number).or_else(|| find(number.wrapping_sub(1))).unwrap_or(fresh);
        let step = block.wrapping_sub(known.last) as i64;
        let (stride, sure) = if step != 0 && step == i64::from(known.stride) {
            (known.stride, (known.sure + 1).min(7))
        } else if step != 0 && step.abs() < STRIDE_MOST {
            (step as i16, known.sure / 2)
        } else {
            (known.stride, known.sure / 2)
        };
        let pace = if known.last == block { known.pace } else { known.pace.continued(now) };
        let skip = pace.skip(lead);
        self.regions[slot(number)] = Region { tag: number as u32, sure, stride, last: block, pace };
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
