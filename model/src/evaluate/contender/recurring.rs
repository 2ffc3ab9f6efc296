//! Ours for a job that comes back: what its past says of each run is fetched before and while it runs, and what else it
//! does is left to the forecasters of blocks and of opened files.
//!
//! What is expected of a run is a list of blocks in the order of their first use. Before the run starts, and while it
//! runs, so many of them are kept fetched and unused as fit half of the cache; as they are used, the next follow.

use std::collections::{HashSet, VecDeque};

use super::{Contender, Parts, foretide::Foretide};
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::Site;

/// What is expected of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The run, once it has started.
    pub run: String,
    /// When it is fetched for, microseconds; at its start, or before it where the calendar told the start.
    pub from_us: i64,
    /// Blocks in order of first use.
    pub blocks: Vec<u64>,
}

/// Share of the cache that is kept fetched for what is expected.
const AHEAD_SHARE: f64 = 0.5;

/// See the module.
pub struct Recurring<'a> {
    demand: &'a Demand<'a>,
    inner: Foretide<'a>,
    /// Expectations, by time.
    awaited: VecDeque<Expectation>,
    /// What is still to be fetched of the present one.
    pending: VecDeque<u64>,
    /// Fetched and not used so far.
    ahead: HashSet<u64>,
    ahead_most: usize,
    /// Which runs were seen, so that a start is noticed.
    started: HashSet<&'a str>,
}

impl<'a> Recurring<'a> {
    /// Plays these expectations, in order of time.
    pub fn new(demand: &'a Demand<'a>, cache_bytes: u64, memory_bytes: usize, awaited: Vec<Expectation>) -> Self {
        Self {
            demand,
            inner: Foretide::new(demand, Parts::ALL, memory_bytes),
            awaited: awaited.into(),
            pending: VecDeque::new(),
            ahead: HashSet::new(),
            ahead_most: (AHEAD_SHARE * (cache_bytes / demand.block_bytes) as f64) as usize,
            started: HashSet::new(),
        }
    }

    fn take_up(&mut self, site: &mut Site<'_>) {
        if let Some(next) = self.awaited.pop_front() {
            let still: HashSet<u64> = next.blocks.iter().copied().collect();
            self.ahead.retain(|block| still.contains(block));
            self.pending = next.blocks.into();
            self.fill(site);
        }
    }

    fn fill(&mut self, site: &mut Site<'_>) {
        while self.ahead.len() < self.ahead_most {
            let Some(block) = self.pending.pop_front() else { return };
            if site.fetch_ahead(block) {
                self.ahead.insert(block);
            }
        }
    }
}

impl Contender for Recurring<'_> {
    fn served(&mut self, step: &Step, hit: bool, site: &mut Site<'_>) {
        let run = self.demand.trace.streams[step.stream as usize].run.as_str();
        if self.started.insert(run) && self.awaited.front().is_some_and(|e| e.run == run) {
            self.take_up(site);
        }
        for block in self.demand.blocks(step) {
            self.ahead.remove(&block);
        }
        self.fill(site);
        self.inner.served(step, hit, site);
    }

    fn wakes_us(&self) -> Option<i64> {
        self.awaited.front().map(|e| e.from_us)
    }

    fn woken(&mut self, site: &mut Site<'_>) {
        self.take_up(site);
    }

    fn bytes(&self) -> usize {
        let block = size_of::<u64>();
        self.inner.bytes() + (self.pending.capacity() + self.ahead.capacity()) * block
    }
}
