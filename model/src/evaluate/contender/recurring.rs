//! Ours for a job that comes back: what its past says of each run is fetched before and while it runs.
//!
//! What to hold is [`Foresight`]'s to say; this puts it to the site. What a run reads besides what is expected, and all that
//! a first run reads, is left to the forecasters of blocks and of opened files, and to sets that show themselves
//! ([`Sets`]). They hear only of what was not expected: what is foreseen needs no second guess.

use std::collections::{HashSet, VecDeque};

use super::sets::{Pass, Sets};
use super::{Contender, Foretide, Parts};
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::{Event, Site};
use crate::foresight::{Expected, Foresight};

/// What is expected of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The run, once it has started; empty where its start is awaited.
    pub run: String,
    /// When it is fetched for, microseconds; [`i64::MAX`] where that is its start.
    pub from_us: i64,
    /// What is expected, in blocks.
    pub expected: Expected,
    /// The files that there are.
    pub files: Vec<u32>,
}

/// See the module.
pub struct Recurring<'a> {
    demand: &'a Demand<'a>,
    inner: Foretide<'a>,
    /// Expectations, in order of time.
    awaited: VecDeque<Expectation>,
    foresight: Foresight,
    sets: Sets,
    /// Whether the run before kept to the order that was foreseen; unknown before the first.
    in_order: Option<bool>,
    /// Which runs were seen, so that a start is noticed.
    started: HashSet<&'a str>,
}

impl<'a> Recurring<'a> {
    /// Plays these expectations, in order of time.
    pub fn new(demand: &'a Demand<'a>, cache_bytes: u64, memory_bytes: usize, awaited: Vec<Expectation>) -> Self {
        Self {
            demand,
            inner: Foretide::new(demand, Parts::ALL, cache_bytes, memory_bytes),
            awaited: awaited.into(),
            foresight: Foresight::default(),
            sets: Sets::default(),
            in_order: None,
            started: HashSet::new(),
        }
    }

    fn take_up(&mut self, site: &mut Site<'_>) {
        let Some(next) = self.awaited.pop_front() else { return };
        self.in_order = self.foresight.kept_order().or(self.in_order);
        let before: Vec<u64> = self.foresight.blocks().collect();
        let in_order = next.expected.drawn || self.in_order.unwrap_or(next.expected.in_order);
        self.foresight = Foresight::new(&Expected { in_order, ..next.expected }, |block| site.holds(block));
        for block in before {
            site.expect(block, self.foresight.soon(block));
        }
        let expected: Vec<u64> = self.foresight.blocks().collect();
        for block in expected {
            site.expect(block, self.foresight.soon(block));
        }
        self.foresight.changes();
        self.sets = Sets::new(self.demand, &next.files);
        self.fill(site);
    }

    /// Fetches what is worth a place, the soonest first.
    fn fill(&mut self, site: &mut Site<'_>) {
        while let Some((soon, block)) = self.foresight.next() {
            if !site.takes(block, soon) {
                return;
            }
            site.expect(block, Some(soon));
            if site.fetch_ahead(block) || site.holds(block) {
                self.foresight.hold(block, true);
            } else {
                self.foresight.forget(block);
            }
        }
    }

    /// Takes that the run reads these blocks, or opens a file; whether all of it was expected, or any of the file.
    fn follow(&mut self, step: &Step, site: &mut Site<'_>) -> bool {
        if step.length == 0 {
            return self.blocks_of(step.file).any(|block| self.foresight.soon(block).is_some());
        }
        let mut expected = true;
        for block in self.demand.blocks(step) {
            expected &= self.foresight.used(block, site.request());
            if !site.holds(block) {
                self.foresight.hold(block, false);
            }
        }
        expected
    }

    fn blocks_of(&self, file: u32) -> std::ops::Range<u64> {
        let place = self.demand.places[file as usize];
        place.base / self.demand.block_bytes..(place.base + place.size).div_ceil(self.demand.block_bytes)
    }

    /// A set was recognised, or is read once more: one pass that is under way, and perhaps another (rule of
    /// succession).
    fn expect_set(&mut self, pass: &Pass, site: &mut Site<'_>) {
        let passes = pass.passes as f32;
        let visits = passes + passes / (passes + 1.0);
        for (file, made) in &pass.files {
            for block in self.blocks_of(*file) {
                self.foresight.expect(block, visits, *made as f32, site.holds(block));
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
        let events = site.events();
        for event in &events {
            if let Event::Gone(block) = event {
                self.foresight.hold(*block, site.holds(*block));
            }
        }
        self.inner.hear(events);
        let expected = self.follow(step, site);
        if let Some(pass) = self.sets.observe(self.demand, step, site.request()) {
            self.expect_set(&pass, site);
        }
        for block in self.foresight.changes() {
            site.expect(block, self.foresight.soon(block));
        }
        self.fill(site);
        if !expected {
            self.inner.served(step, hit, site);
        }
    }

    fn wakes_us(&self) -> Option<i64> {
        self.awaited.front().map(|e| e.from_us)
    }

    fn woken(&mut self, site: &mut Site<'_>) {
        self.take_up(site);
    }

    fn bytes(&self) -> usize {
        self.inner.bytes() + self.foresight.bytes() + self.sets.bytes()
    }
}
