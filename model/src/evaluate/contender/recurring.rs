//! Ours for a job that comes back: what its past says of each run is fetched before and while it runs, and what else it
//! does is left to the forecasters of blocks and of opened files.
//!
//! What is expected of a run is a list of blocks in the order of their first use. Before the run starts, and while it
//! runs, so many of them are kept fetched and unused as fit three quarters of the cache; as they are used, the next
//! follow. What is not used although its turn has come stays counted: orders differ a little from run to run, and sending
//! it away for the next was measured to cost more than it brings.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::{Contender, Parts, foretide::Foretide};
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::{Event, Site};

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
const AHEAD_SHARE: f64 = 0.75;

/// See the module.
pub struct Recurring<'a> {
    demand: &'a Demand<'a>,
    inner: Foretide<'a>,
    /// Expectations, in order of time.
    awaited: VecDeque<Expectation>,
    /// The present one, the place of each of its blocks, and the first that is still to be fetched.
    present: Vec<u64>,
    place: HashMap<u64, usize>,
    next: usize,
    /// Places of what is fetched and not used.
    ahead: BTreeSet<usize>,
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
            present: Vec::new(),
            place: HashMap::new(),
            next: 0,
            ahead: BTreeSet::new(),
            ahead_most: (AHEAD_SHARE * (cache_bytes / demand.block_bytes) as f64) as usize,
            started: HashSet::new(),
        }
    }

    fn take_up(&mut self, site: &mut Site<'_>) {
        let Some(next) = self.awaited.pop_front() else { return };
        let fetched: HashSet<u64> = self.ahead.iter().map(|at| self.present[*at]).collect();
        self.place = next.blocks.iter().enumerate().map(|(at, block)| (*block, at)).collect();
        self.ahead = fetched.iter().filter_map(|block| self.place.get(block).copied()).collect();
        self.present = next.blocks;
        self.next = 0;
        self.fill(site);
    }

    fn fill(&mut self, site: &mut Site<'_>) {
        while self.ahead.len() < self.ahead_most && self.next < self.present.len() {
            if site.fetch_ahead(self.present[self.next]) {
                self.ahead.insert(self.next);
            }
            self.next += 1;
        }
    }

    /// A block is used, or had to go: it is no longer ahead.
    fn no_longer_ahead(&mut self, block: u64) {
        if let Some(at) = self.place.get(&block).copied() {
            self.ahead.remove(&at);
        }
    }
}

impl Contender for Recurring<'_> {
    fn served(&mut self, step: &Step, hit: bool, site: &mut Site<'_>) {
        let run = self.demand.trace.streams[step.stream as usize].run.as_str();
        if self.started.insert(run) && self.awaited.front().is_some_and(|e| e.run == run) {
            self.take_up(site);
        }
        let events = site.events();
        for event in &events {
            if let Event::Gone(block) = event {
                self.no_longer_ahead(*block);
            }
        }
        self.inner.hear(events);
        for block in self.demand.blocks(step) {
            self.no_longer_ahead(block);
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
        let block = size_of::<u64>() + size_of::<(u64, usize)>() + size_of::<usize>();
        self.inner.bytes() + self.present.len() * block
    }
}
