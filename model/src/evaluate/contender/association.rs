//! Association of what is missed together, after Mithril (Yang et al., SoCC 2017).
//!
//! Each block that is missed keeps the last times of its misses, counted in requests. When enough blocks have been
//! missed twice or more, pairs that were missed equally often, each time within a few requests of each other, are
//! associated; whenever one is asked for, what is associated with it is fetched. Its tables are not bounded here, so
//! that it shows its best.

use std::collections::HashMap;

use super::Contender;
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::Site;

/// Requests within which two misses are together.
const LOOK_AHEAD: u32 = 20;
/// Misses of a block before it is mined, and at most.
const LEAST_SUPPORT: usize = 2;
const MOST_SUPPORT: usize = 8;
/// Blocks that are mined together.
const MINED: usize = 5120;
/// Blocks associated with one.
const ASSOCIATED: usize = 2;

/// See the module.
pub(super) struct Association<'a> {
    demand: &'a Demand<'a>,
    clock: u32,
    missed: HashMap<u64, Vec<u32>>,
    ready: usize,
    with: HashMap<u64, Vec<u64>>,
}

impl<'a> Association<'a> {
    pub(super) fn new(demand: &'a Demand<'a>) -> Self {
        Self { demand, clock: 0, missed: HashMap::new(), ready: 0, with: HashMap::new() }
    }

    fn miss(&mut self, block: u64) {
        let times = self.missed.entry(block).or_default();
        if times.len() < MOST_SUPPORT {
            times.push(self.clock);
            self.ready += usize::from(times.len() == LEAST_SUPPORT);
        } else {
            // Too frequent to be told apart: it begins anew.
            times.clear();
            self.ready -= 1;
        }
        if self.ready >= MINED {
            self.mine();
        }
    }

    fn mine(&mut self) {
        let mut rows: Vec<(Vec<u32>, u64)> = self
            .missed
            .extract_if(|_, times| times.len() >= LEAST_SUPPORT)
            .map(|(block, times)| (times, block))
            .collect();
        rows.sort_unstable();
        for (i, (times, block)) in rows.iter().enumerate() {
            for (later, other) in rows[i + 1..].iter().take_while(|(later, _)| later[0] - times[0] <= LOOK_AHEAD) {
                let together = times.len() == later.len()
                    && times.iter().zip(later).all(|(a, b)| a.abs_diff(*b) <= LOOK_AHEAD)
                    && times.iter().zip(later).any(|(a, b)| a.abs_diff(*b) <= 1);
                if together {
                    let with = self.with.entry(*block).or_default();
                    if !with.contains(other) {
                        with.truncate(ASSOCIATED - 1);
                        with.insert(0, *other);
                    }
                }
            }
        }
        self.ready = 0;
    }
}

impl Contender for Association<'_> {
    fn served(&mut self, step: &Step, hit: bool, site: &mut Site<'_>) {
        let Some(block) = self.demand.blocks(step).next() else { return };
        self.clock += 1;
        if !hit {
            self.miss(block);
        }
        for other in self.with.get(&block).into_iter().flatten() {
            site.fetch_ahead(*other);
        }
    }

    fn bytes(&self) -> usize {
        let row = size_of::<(u64, Vec<u32>)>();
        self.missed.capacity() * (row + LEAST_SUPPORT * size_of::<u32>())
            + self.with.capacity() * (row + ASSOCIATED * size_of::<u64>())
    }
}
