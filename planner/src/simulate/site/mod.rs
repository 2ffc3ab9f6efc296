//! A site between two plans: its jobs, the links that lead to it, its cache.

mod borders;

use std::collections::{BTreeMap, HashSet};

use foretide_flow::{
    Access, AccessBatch, AccessOp, Found, Losses, NodeId, Plan, Ruleset, RunEnd, RunId, RunStart, SiteId, Timestamp,
    VolumeId,
};

use crate::RunningMove;
use crate::brakes::Proof;
use crate::simulate::atlas::{Atlas, Block};
use crate::simulate::cache::Cache;
use crate::simulate::job::{Doing, Running};
use crate::simulate::lane::Lane;
use crate::simulate::run::Report;
use crate::simulate::world::World;

/// Bytes that are counted as none: less than a byte is left of a flow by rounding.
const NOTHING_BYTES: f64 = 1e-6;
/// Usage of links is added up over this time, microseconds.
const USAGE_US: i64 = 60_000_000;

/// See the module.
pub(in crate::simulate) struct SiteState<'w> {
    world: &'w World,
    site: SiteId,
    node: Option<NodeId>,
    caches: bool,
    now_us: i64,
    pub(in crate::simulate) jobs: Vec<Running>,
    lanes: Vec<Lane>,
    cache: Cache,
    lost: bool,
    /// What relays have passed on to here since the last round.
    taken: Vec<(SiteId, Block)>,
    accesses: Vec<Access>,
    begun: Vec<RunStart>,
    ended: Vec<RunEnd>,
    sequence: u64,
    pub(in crate::simulate) report: Report,
}

impl<'w> SiteState<'w> {
    pub(in crate::simulate) fn new(world: &'w World, site: &SiteId, caches: bool, proof_share: f64) -> Self {
        let here = world.jobs.iter().enumerate().filter(|(_, job)| &job.site == site);
        let job = |(number, job): (usize, &crate::simulate::world::Job)| {
            let first = job.reads.first().map_or(0, |r| r.compute_us);
            let doing = Doing::Computes { until_us: job.starts_us + first };
            Running { job: number, next: 0, doing, started: false }
        };
        let capacity_bytes = world.topology.sites.get(site).and_then(|s| s.cache).map_or(0, |c| c.capacity_bytes);
        Self {
            world,
            site: site.clone(),
            node: NodeId::new(site.as_str()).ok(),
            caches: caches && capacity_bytes > 0,
            now_us: 0,
            jobs: here.map(job).collect(),
            lanes: world.topology.links.iter().filter(|l| &l.to == site).map(Lane::new).collect(),
            cache: Cache::new(capacity_bytes, proof_share),
            lost: false,
            taken: Vec::new(),
            accesses: Vec::new(),
            begun: Vec::new(),
            ended: Vec::new(),
            sequence: 0,
            report: Report::default(),
        }
    }

    pub(in crate::simulate) fn site(&self) -> &SiteId {
        &self.site
    }

    pub(in crate::simulate) fn finished(&self) -> bool {
        self.jobs.iter().all(|j| matches!(j.doing, Doing::Done))
    }

    /// When something happens here by itself next.
    pub(in crate::simulate) fn next_us(&mut self) -> i64 {
        let now = self.now_us;
        let starts = self.lanes.iter_mut().filter_map(|l| l.next().map(|(_, start_us)| start_us)).min();
        let wakes = self.jobs.iter().map(Running::wakes_us).min().unwrap_or(i64::MAX);
        let waits = self.jobs.iter().any(Running::waits);
        if waits { now } else { starts.unwrap_or(i64::MAX).min(wakes).max(now) }
    }

    pub(in crate::simulate) fn resident_bytes(&self, atlas: &Atlas, file: u32, offset: u64, length: u64) -> u64 {
        self.cache.resident_bytes(atlas, file, offset, length)
    }

    /// Bytes in the cache.
    pub(in crate::simulate) fn held_bytes(&self) -> u64 {
        self.cache.used_bytes()
    }

    /// What became of the bytes that moves brought.
    pub(in crate::simulate) fn proof(&self) -> Proof {
        self.cache.proof()
    }

    /// Prefetched bytes that left unread so far.
    pub(in crate::simulate) fn wasted_bytes(&self) -> u64 {
        self.cache.wasted_bytes
    }

    /// Moves that have begun.
    pub(in crate::simulate) fn running(&self) -> Vec<RunningMove> {
        let running = self.lanes.iter().flat_map(Lane::running);
        running.map(|(planned, left_bytes)| RunningMove { planned: planned.clone(), left_bytes }).collect()
    }

    /// Takes a plan: what is no longer in it is stopped, what has begun goes on. `held` is what relays hold.
    pub(in crate::simulate) fn assign(
        &mut self,
        plan: &Plan,
        atlas: &mut Atlas,
        held: &BTreeMap<SiteId, HashSet<Block>>,
    ) {
        let (cache, world) = (&self.cache, self.world);
        for lane in &mut self.lanes {
            let from = lane.link.from.clone();
            let gives = |volume: &VolumeId, block: &Block| {
                world.holds_all(volume, &from) || held.get(&from).is_some_and(|blocks| blocks.contains(block))
            };
            lane.assign(plan, atlas, |block| cache.holds(block), gives);
        }
    }

    /// What relays have passed on to here since this was asked last.
    pub(in crate::simulate) fn taken(&mut self) -> Vec<(SiteId, Block)> {
        std::mem::take(&mut self.taken)
    }

    /// This site has passed a block on.
    pub(in crate::simulate) fn passed_on(&mut self, block: &Block) {
        self.cache.passed_on(block);
    }

    /// What is here.
    pub(in crate::simulate) fn holds(&self) -> HashSet<Block> {
        self.cache.blocks().collect()
    }

    /// What was read since the last round.
    pub(in crate::simulate) fn observed(&mut self) -> Option<AccessBatch> {
        if self.accesses.is_empty() && self.begun.is_empty() && self.ended.is_empty() {
            return None;
        }
        self.sequence += 1;
        let mut accesses = std::mem::take(&mut self.accesses);
        accesses.sort_by_key(|a| a.at);
        Some(AccessBatch {
            node: self.node.clone()?,
            site: self.site.clone(),
            sequence: self.sequence,
            started: std::mem::take(&mut self.begun),
            accesses,
            ended: std::mem::take(&mut self.ended),
            losses: Losses::default(),
        })
    }

    /// Everything until `until_us`.
    pub(in crate::simulate) fn advance(&mut self, until_us: i64, atlas: &Atlas, rules: &Ruleset) {
        self.turn(atlas, rules);
        while self.now_us < until_us {
            let faults = self.world.faults;
            if !self.lost && faults.agent_lost_s.is_some_and(|s| self.now_us as f64 >= s * 1e6) {
                self.lose();
            }
            let (share, steady_until) = faults.health(self.now_us);
            let next = self.next_event(share).min(steady_until).min(until_us).max(self.now_us + 1);
            self.flow(share, next);
            self.now_us = next;
            self.turn(atlas, rules);
        }
    }

    /// The agent dies and comes back with an empty cache.
    fn lose(&mut self) {
        self.lost = true;
        self.cache.lose();
        self.lanes.iter_mut().for_each(Lane::lose);
    }

    /// Readers on a lane.
    fn readers(&self, lane: usize) -> usize {
        self.jobs.iter().filter(|j| matches!(j.doing, Doing::Receives { lane: l, .. } if l == lane)).count()
    }

    fn next_event(&mut self, share: f64) -> i64 {
        let now = self.now_us;
        let mut next = self.jobs.iter().map(Running::wakes_us).min().unwrap_or(i64::MAX);
        for n in 0..self.lanes.len() {
            let rate = self.lanes[n].rate() * share;
            let at = |bytes: f64, rate: f64| {
                if rate > 0.0 { now.saturating_add((bytes / rate).ceil() as i64) } else { i64::MAX }
            };
            let readers = self.readers(n);
            let least = self.jobs.iter().filter_map(|j| match &j.doing {
                Doing::Receives { lane, left_bytes, .. } if *lane == n => Some(*left_bytes),
                _ => None,
            });
            if let Some(least) = least.min_by(f64::total_cmp) {
                next = next.min(at(least, rate / readers as f64));
                continue;
            }
            let lane = &mut self.lanes[n];
            match lane.next() {
                Some((block, start_us)) if start_us <= now => next = next.min(at(lane.tasks[&block].left_bytes, rate)),
                Some((_, start_us)) => next = next.min(start_us),
                None => {}
            }
        }
        next
    }

    fn flow(&mut self, share: f64, until_us: i64) {
        let span = (until_us - self.now_us) as f64;
        let waiting = self.jobs.iter().filter(|j| j.waits()).count();
        self.report.stall_s += span * waiting as f64 / 1e6;
        for n in 0..self.lanes.len() {
            let mut left = self.lanes[n].rate() * share * span;
            let readers = self.readers(n);
            let mut came = 0.0;
            if readers > 0 {
                left /= readers as f64;
                for job in &mut self.jobs {
                    if let Doing::Receives { lane, left_bytes, .. } = &mut job.doing
                        && *lane == n
                    {
                        let some = left.min(*left_bytes);
                        *left_bytes -= some;
                        came += some;
                    }
                }
            } else if let Some(block) = self.lanes[n].first(self.now_us)
                && let Some(task) = self.lanes[n].tasks.get_mut(&block)
            {
                came = left.min(task.left_bytes);
                task.left_bytes -= came;
            }
            self.report.link_bytes += came;
            self.report.money += came / 1e9 * self.lanes[n].link.cost_per_gb;
            if came > 0.0 {
                *self.lanes[n].usage.entry(self.now_us / USAGE_US).or_default() += came;
            }
        }
    }

    /// What is over at this moment.
    fn turn(&mut self, atlas: &Atlas, rules: &Ruleset) {
        for n in 0..self.lanes.len() {
            if let Some(block) = self.lanes[n].first(self.now_us)
                && self.lanes[n].tasks[&block].left_bytes <= NOTHING_BYTES
                && let Some(task) = self.lanes[n].tasks.remove(&block)
            {
                let bytes = atlas.bytes(block);
                if self.world.supply.relays.contains(&self.lanes[n].link.from) {
                    self.report.passed_bytes += bytes;
                    self.taken.push((self.lanes[n].link.from.clone(), block));
                }
                self.arrived(block, bytes, task.keep_until_us);
            }
        }
        for n in 0..self.jobs.len() {
            while self.step(n, atlas, rules) {}
        }
    }

    /// One job's next step, if it is time for it.
    fn step(&mut self, n: usize, atlas: &Atlas, rules: &Ruleset) -> bool {
        let now = self.now_us;
        match self.jobs[n].doing.clone() {
            Doing::Computes { until_us } if until_us <= now => self.open(n, atlas),
            Doing::Asks { since_us, until_us } if until_us <= now => self.receive(n, since_us, atlas),
            Doing::Receives { since_us, blocks, left_bytes, .. } if left_bytes <= NOTHING_BYTES => {
                self.keep(&blocks, atlas, rules);
                self.finish(n, since_us, Found::Miss, atlas);
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, n: usize, atlas: &Atlas) {
        let job = &self.world.jobs[self.jobs[n].job];
        let now = self.now_us;
        if !self.jobs[n].started {
            self.jobs[n].started = true;
            self.start(n);
        }
        let Some(read) = job.reads.get(self.jobs[n].next) else {
            self.jobs[n].doing = Doing::Done;
            return self.end(&job.run);
        };
        self.report.reads += 1;
        let file = atlas.file(read.file);
        let at_home = self.world.holds_all(&file.volume, &self.site);
        let missing = !at_home && atlas.blocks(read.file, read.offset, read.length).any(|b| !self.cache.holds(&b));
        if !missing {
            self.report.hits += 1;
            return self.finish(n, now, Found::Hit, atlas);
        }
        self.report.misses += 1;
        match self.lane_of(atlas, read.file) {
            Some(lane) => {
                let wait_us = (self.lanes[lane].link.rtt_ms * 2e3) as i64;
                self.jobs[n].doing = Doing::Asks { since_us: now, until_us: now + wait_us };
            }
            // `World::check` refuses such a world.
            None => self.jobs[n].doing = Doing::Done,
        }
    }

    fn lane_of(&self, atlas: &Atlas, file: u32) -> Option<usize> {
        let from = &self.world.topology.volumes.get(&atlas.file(file).volume)?.at;
        self.lanes.iter().position(|l| &l.link.from == from)
    }

    /// A reader takes over what moves have brought of its blocks so far.
    fn receive(&mut self, n: usize, since_us: i64, atlas: &Atlas) {
        let read = self.world.jobs[self.jobs[n].job].reads[self.jobs[n].next];
        let Some(lane) = self.lane_of(atlas, read.file) else { return };
        let missing = atlas.blocks(read.file, read.offset, read.length).filter(|b| !self.cache.holds(b));
        let blocks: Vec<Block> = missing.collect();
        let mut left_bytes = 0.0;
        for block in &blocks {
            left_bytes += match self.lanes[lane].tasks.remove(block) {
                Some(task) => task.left_bytes,
                None if self.caches => atlas.bytes(*block) as f64,
                None => atlas.shared(*block, read.offset, read.length) as f64,
            };
        }
        self.jobs[n].doing = Doing::Receives { since_us, lane, blocks, left_bytes };
    }

    /// A reader's blocks stay, if they may.
    fn keep(&mut self, blocks: &[Block], atlas: &Atlas, rules: &Ruleset) {
        if !self.caches {
            return;
        }
        let at = (&self.site, self.now_us);
        if blocks.first().is_some_and(|b| !atlas.verdict(rules, &self.world.topology, b.0, at).allows()) {
            self.report.uncached += 1;
            return;
        }
        for block in blocks {
            self.cache.fetched(*block, atlas.bytes(*block), self.now_us);
        }
    }

    fn finish(&mut self, n: usize, since_us: i64, found: Found, atlas: &Atlas) {
        let running = &mut self.jobs[n];
        let job = &self.world.jobs[running.job];
        let read = job.reads[running.next];
        running.next += 1;
        let compute_us = job.reads.get(running.next).map_or(0, |r| r.compute_us);
        running.doing = Doing::Computes { until_us: self.now_us + compute_us };
        for block in atlas.blocks(read.file, read.offset, read.length) {
            self.cache.touch(block, self.now_us);
        }
        let file = atlas.file(read.file);
        let access = |at_us: i64, op: AccessOp, (offset, length, blocked_us): (u64, u64, u32)| Access {
            at: Timestamp(at_us),
            run: job.run.clone(),
            process: job.process,
            volume: file.volume.clone(),
            path: file.path.clone(),
            op,
            offset,
            length,
            blocked_us,
            found: if op == AccessOp::Read { found } else { Found::Unknown },
        };
        let blocked_us = u32::try_from(self.now_us - since_us).unwrap_or(u32::MAX);
        self.accesses.push(access(since_us, AccessOp::Open, (0, 0, 0)));
        self.accesses.push(access(since_us, AccessOp::Read, (read.offset, read.length, blocked_us)));
        self.accesses.push(access(self.now_us, AccessOp::Close, (0, 0, 0)));
    }

    fn start(&mut self, n: usize) {
        let job = &self.world.jobs[self.jobs[n].job];
        let known = self.jobs.iter().filter(|j| j.started && self.world.jobs[j.job].run == job.run).count();
        if known > 1 {
            return;
        }
        let Some(node) = self.node.clone() else { return };
        self.begun.push(RunStart {
            run: job.run.clone(),
            workload: job.workload.clone(),
            command: job.workload.to_string(),
            at: Timestamp(job.starts_us),
            site: self.site.clone(),
            node,
            numbers: Vec::new(),
        });
    }

    fn end(&mut self, run: &RunId) {
        let open = |j: &Running| &self.world.jobs[j.job].run == run && !matches!(j.doing, Doing::Done);
        if !self.jobs.iter().any(open) {
            self.ended.push(RunEnd { run: run.clone(), at: Timestamp(self.now_us) });
        }
    }

    fn arrived(&mut self, block: Block, bytes: u64, keep_until_us: i64) {
        if !self.cache.holds(&block) {
            self.report.moved_bytes += bytes;
            self.cache.brought(block, bytes, keep_until_us, self.now_us);
        }
    }

    /// What came of it; what was brought and never read is waste.
    pub(in crate::simulate) fn close(mut self) -> Report {
        self.report.wasted_bytes = self.cache.wasted_bytes + self.cache.unread_bytes();
        self.report.peak_cache_bytes = self.cache.peak_bytes;
        self.report.finished = self.finished();
        self.report.ended_s = self.now_us as f64 / 1e6;
        self.report.stall_s_by_site.insert(self.site.clone(), self.report.stall_s);
        for lane in &self.lanes {
            let full = lane.link.rate.bytes_per_second() * USAGE_US as f64 / 1e6;
            for (minute, bytes) in &lane.usage {
                self.report.peak_link = self.report.peak_link.max(bytes / full);
                *self.report.link_bytes_by_minute.entry(*minute as u64).or_default() += bytes;
            }
        }
        self.report
    }
}
