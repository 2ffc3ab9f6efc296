//! The baselines: nothing, one block look-ahead, strides, the run before, the whole dataset.

use std::collections::{HashMap, HashSet};

use super::Contender;
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::Site;

/// Asks for nothing.
pub(super) struct Nothing;

impl Contender for Nothing {
    fn served(&mut self, _step: &Step, _hit: bool, _site: &mut Site<'_>) {}
}

/// One block look-ahead: after two neighbours, the next.
pub(super) struct Obl<'a> {
    demand: &'a Demand<'a>,
    before: Option<u64>,
}

impl<'a> Obl<'a> {
    pub(super) fn new(demand: &'a Demand<'a>) -> Self {
        Self { demand, before: None }
    }
}

impl Contender for Obl<'_> {
    fn served(&mut self, step: &Step, _hit: bool, site: &mut Site<'_>) {
        for block in self.demand.blocks(step) {
            if self.before == Some(block.wrapping_sub(1)) {
                site.fetch_ahead(block + 1);
            }
            self.before = Some(block);
        }
    }
}

/// Per file and stream: a stride seen twice is followed four times.
pub(super) struct Stride<'a> {
    demand: &'a Demand<'a>,
    seen: HashMap<(u32, u32), (u64, i64)>,
}

/// How far a stride is followed.
const DEGREE: i64 = 4;

impl<'a> Stride<'a> {
    pub(super) fn new(demand: &'a Demand<'a>) -> Self {
        Self { demand, seen: HashMap::new() }
    }
}

impl Contender for Stride<'_> {
    fn served(&mut self, step: &Step, _hit: bool, site: &mut Site<'_>) {
        let blocks = self.demand.blocks(step);
        let Some(first) = blocks.clone().next() else { return };
        let seen = self.seen.entry((step.stream, step.file)).or_insert((first, 0));
        let stride = first.wrapping_sub(seen.0) as i64;
        let follows = stride == seen.1 && stride != 0;
        *seen = (first, stride);
        if follows {
            for ahead in 1..=DEGREE {
                for block in blocks.clone() {
                    site.fetch_ahead(block.wrapping_add_signed(stride.wrapping_mul(ahead)));
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        self.seen.capacity() * size_of::<((u32, u32), (u64, i64))>()
    }
}

/// At the start of a run, what the run before of the same job read, in its order.
pub(super) struct LastRun<'a> {
    demand: &'a Demand<'a>,
    started: HashSet<&'a str>,
    of_job: HashMap<&'a str, (&'a str, Vec<u64>)>,
}

impl<'a> LastRun<'a> {
    pub(super) fn new(demand: &'a Demand<'a>) -> Self {
        Self { demand, started: HashSet::new(), of_job: HashMap::new() }
    }
}

impl Contender for LastRun<'_> {
    fn served(&mut self, step: &Step, _hit: bool, site: &mut Site<'_>) {
        let stream = &self.demand.trace.streams[step.stream as usize];
        let (run, job) = (stream.run.as_str(), stream.job.as_str());
        if self.started.insert(run)
            && let Some((_, blocks)) = self.of_job.remove(job)
        {
            let mut asked = HashSet::new();
            for block in blocks.into_iter().filter(|b| asked.insert(*b)) {
                site.fetch_ahead(block);
            }
        }
        let last = self.of_job.entry(job).or_insert((run, Vec::new()));
        if last.0 != run {
            *last = (run, Vec::new());
        }
        last.1.extend(self.demand.blocks(step));
    }

    fn bytes(&self) -> usize {
        self.of_job.values().map(|(_, blocks)| blocks.capacity() * size_of::<u64>()).sum()
    }
}

/// Everything that the trace will ever read, from the first block on, as far as the cache takes it.
pub(super) struct StaticLoad {
    blocks: Vec<u64>,
}

impl StaticLoad {
    pub(super) fn new(demand: &Demand<'_>, cache_bytes: u64) -> Self {
        let mut blocks = demand.different();
        let mut bytes = 0;
        blocks.retain(|block| {
            bytes += demand.bytes(*block);
            bytes <= cache_bytes
        });
        Self { blocks }
    }
}

impl Contender for StaticLoad {
    fn served(&mut self, _step: &Step, _hit: bool, site: &mut Site<'_>) {
        for block in std::mem::take(&mut self.blocks) {
            site.fetch_ahead(block);
        }
    }
}
