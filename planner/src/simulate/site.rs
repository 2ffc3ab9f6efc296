//! A site between two plans: its job, its link, its cache.

use std::collections::BTreeMap;

use foretide_flow::{Move, Plan};

use super::world::{Report, Scenario, file_of};
use crate::RunningMove;

/// A file in the cache.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    touched_us: i64,
    /// Brought by a move and not read yet; of use until then.
    unread_until_us: Option<i64>,
}

/// What the job does.
#[derive(Clone, Copy, Debug)]
enum Job {
    Computes { until_us: i64 },
    AsksFor { file: usize, until_us: i64 },
    Receives { file: usize, left_bytes: f64 },
    Done,
}

/// See the module.
pub(super) struct SiteState<'s> {
    scenario: &'s Scenario,
    now_us: i64,
    next_read: usize,
    job: Job,
    held: BTreeMap<usize, Held>,
    queue: Vec<(Move, f64)>,
    lost: bool,
    revoked: bool,
    pub(super) report: Report,
}

impl<'s> SiteState<'s> {
    pub(super) fn new(scenario: &'s Scenario) -> Self {
        Self {
            scenario,
            now_us: 0,
            next_read: 0,
            job: Job::Computes { until_us: scenario.compute_us },
            held: BTreeMap::new(),
            queue: Vec::new(),
            lost: false,
            revoked: false,
            report: Report::default(),
        }
    }

    pub(super) fn finished(&self) -> bool {
        matches!(self.job, Job::Done)
    }

    pub(super) fn holds(&self, file: usize) -> bool {
        self.held.contains_key(&file)
    }

    /// Files that have yet to be read, soonest first.
    pub(super) fn coming(&self) -> &[usize] {
        &self.scenario.reads[self.next_read..]
    }

    /// Moves that have begun.
    pub(super) fn running(&self) -> Vec<RunningMove> {
        let begun = self.queue.iter().filter(|(m, left)| *left < m.length as f64);
        begun.map(|(m, left)| RunningMove { planned: m.clone(), left_bytes: left.ceil() as u64 }).collect()
    }

    /// Takes a plan: what is no longer in it is stopped, what has begun goes on.
    pub(super) fn assign(&mut self, plan: &Plan) {
        let left: BTreeMap<_, f64> = self.queue.drain(..).map(|(m, left)| (m.id, left)).collect();
        let begun = |m: &Move| left.get(&m.id).copied().unwrap_or(m.length as f64);
        self.queue = plan.moves.iter().map(|m| (m.clone(), begun(m))).collect();
    }

    /// What may no longer be here leaves, and what brings it stops.
    pub(super) fn evict_forbidden(&mut self) {
        self.revoked = true;
        let gone: Vec<usize> = self.held.keys().copied().filter(|f| f % 2 == 1).collect();
        gone.into_iter().for_each(|f| self.evict(f));
        self.queue.retain(|(m, _)| file_of(&m.path).is_some_and(|f| f % 2 == 0));
    }

    /// Everything until `until_us`.
    pub(super) fn advance(&mut self, until_us: i64) {
        while self.now_us < until_us {
            if !self.lost && self.scenario.faults.agent_lost_s.is_some_and(|s| self.now_us as f64 >= s * 1e6) {
                self.lost = true;
                self.held.clear();
                self.queue.clear();
            }
            let (rate, steady_until) = self.link(until_us);
            let next = self.next_event(rate).min(steady_until).max(self.now_us + 1);
            self.flow(rate, next);
            self.now_us = next;
            self.turn();
        }
    }

    /// Bytes a microsecond now, and until when that holds.
    fn link(&self, until_us: i64) -> (f64, i64) {
        let faults = &self.scenario.faults;
        let edges = faults.cut_s.into_iter().flat_map(|(a, b)| [a, b]);
        let edges = edges.chain(faults.slow.into_iter().flat_map(|(_, a, b)| [a, b])).chain(faults.agent_lost_s);
        let next = edges.map(|s| (s * 1e6).ceil() as i64).filter(|e| *e > self.now_us).min();
        let now_s = self.now_us as f64 / 1e6;
        let within = |(a, b): (f64, f64)| a <= now_s && now_s < b;
        let mut rate = self.scenario.rate as f64 / 8e6;
        if let Some((share, a, b)) = faults.slow
            && within((a, b))
        {
            rate *= share;
        }
        if faults.cut_s.is_some_and(within) {
            rate = 0.0;
        }
        (rate, next.unwrap_or(i64::MAX).min(until_us))
    }

    fn next_event(&self, rate: f64) -> i64 {
        let at = |bytes: f64| {
            if rate > 0.0 { self.now_us.saturating_add((bytes / rate).ceil() as i64) } else { i64::MAX }
        };
        match self.job {
            Job::Computes { until_us } | Job::AsksFor { until_us, .. } => {
                let starts = self.queue.iter().map(|(m, _)| m.start_at.0).filter(|s| *s > self.now_us).min();
                let first = self.startable().map_or(i64::MAX, |n| at(self.queue[n].1));
                until_us.min(first).min(starts.unwrap_or(i64::MAX))
            }
            Job::Receives { left_bytes, .. } => at(left_bytes),
            Job::Done => i64::MAX,
        }
    }

    /// The move that has the link when no reader has it.
    fn startable(&self) -> Option<usize> {
        self.queue.iter().position(|(m, _)| m.start_at.0 <= self.now_us)
    }

    fn flow(&mut self, rate: f64, until_us: i64) {
        let span = (until_us - self.now_us) as f64;
        if let Job::AsksFor { .. } | Job::Receives { .. } = self.job {
            self.report.stall_s += span / 1e6;
        }
        if let Job::Receives { left_bytes, .. } = &mut self.job {
            let came = (rate * span).min(*left_bytes);
            *left_bytes -= came;
            self.report.link_bytes += came.round() as u64;
        } else if let Some(n) = self.startable() {
            let came = (rate * span).min(self.queue[n].1);
            self.queue[n].1 -= came;
            self.report.link_bytes += came.round() as u64;
        }
    }

    /// What is over at this moment.
    fn turn(&mut self) {
        while let Some(n) = self.queue.iter().position(|(_, left)| *left <= 1e-6) {
            let (done, _) = self.queue.remove(n);
            self.arrived(&done);
        }
        match self.job {
            Job::Computes { until_us } if until_us <= self.now_us => self.open(),
            Job::AsksFor { file, until_us } if until_us <= self.now_us => self.receive(file),
            Job::Receives { file, left_bytes } if left_bytes <= 1e-6 => self.finish(file),
            _ => {}
        }
    }

    fn open(&mut self) {
        let Some(&file) = self.scenario.reads.get(self.next_read) else {
            self.job = Job::Done;
            return;
        };
        if self.holds(file) {
            self.report.hits += 1;
            self.finish(file);
        } else {
            self.report.misses += 1;
            let wait_us = (self.scenario.rtt_ms * 2e3) as i64;
            self.job = Job::AsksFor { file, until_us: self.now_us + wait_us };
        }
    }

    /// A reader takes over what a move has brought of the file so far.
    fn receive(&mut self, file: usize) {
        let begun = self.queue.iter().position(|(m, _)| file_of(&m.path) == Some(file));
        let left_bytes = match begun {
            Some(n) => self.queue.remove(n).1,
            None if self.holds(file) => 0.0,
            None => self.scenario.files[file] as f64,
        };
        self.job = Job::Receives { file, left_bytes };
        if left_bytes <= 1e-6 {
            self.finish(file);
        }
    }

    fn finish(&mut self, file: usize) {
        let bytes = self.scenario.files[file];
        self.next_read += 1;
        self.job = Job::Computes { until_us: self.now_us + self.scenario.compute_us };
        if self.revoked && file % 2 == 1 {
            self.report.uncached += 1;
            return;
        }
        if let Some(held) = self.held.get_mut(&file) {
            held.touched_us = self.now_us;
            held.unread_until_us = None;
        } else if self.make_room(bytes, true) {
            self.held.insert(file, Held { bytes, touched_us: self.now_us, unread_until_us: None });
        }
    }

    fn arrived(&mut self, done: &Move) {
        let Some(file) = file_of(&done.path).filter(|f| !self.holds(*f)) else { return };
        if self.make_room(done.length, false) {
            let until = Some(done.keep_until.0);
            self.held.insert(file, Held { bytes: done.length, touched_us: self.now_us, unread_until_us: until });
        } else {
            self.report.wasted_bytes += done.length;
        }
    }

    /// Prefetched bytes leave first, the most belated first; a reader also takes the room of what was read longest ago.
    fn make_room(&mut self, bytes: u64, reader: bool) -> bool {
        while self.used() + bytes > self.scenario.cache_bytes {
            let unread = self.held.iter().filter_map(|(f, h)| h.unread_until_us.map(|u| (u, *f))).min();
            let unread = unread.filter(|(until, _)| reader || *until < self.now_us).map(|(_, f)| f);
            let read = self.held.iter().filter(|(_, h)| reader && h.unread_until_us.is_none());
            let oldest = read.min_by_key(|(f, h)| (h.touched_us, **f)).map(|(f, _)| *f);
            match unread.or(oldest) {
                Some(file) => self.evict(file),
                None => return false,
            }
        }
        true
    }

    fn evict(&mut self, file: usize) {
        if let Some(held) = self.held.remove(&file)
            && held.unread_until_us.is_some()
        {
            self.report.wasted_bytes += held.bytes;
        }
    }

    fn used(&self) -> u64 {
        self.held.values().map(|h| h.bytes).sum()
    }

    /// The invariants, at the end of a round.
    pub(super) fn check(&mut self, revoked: bool) {
        let at = self.now_us;
        let mut broken = Vec::new();
        if self.used() > self.scenario.cache_bytes {
            broken.push(format!("{} bytes in a cache of {} at {at} us", self.used(), self.scenario.cache_bytes));
        }
        let carried = self.scenario.rate as f64 / 8e6 * at as f64 + 1e6;
        if self.report.link_bytes as f64 > carried {
            broken.push(format!("{} bytes crossed a link that carries {carried} by {at} us", self.report.link_bytes));
        }
        if revoked && self.held.keys().any(|f| f % 2 == 1) {
            broken.push(format!("bytes stand behind a border at {at} us"));
        }
        if revoked && self.queue.iter().any(|(m, _)| file_of(&m.path).is_some_and(|f| f % 2 == 1)) {
            broken.push(format!("a move crosses a border at {at} us"));
        }
        self.report.broken.append(&mut broken);
    }

    /// The report; what was brought and never read is waste.
    pub(super) fn close(mut self) -> Report {
        let unread: u64 = self.held.values().filter(|h| h.unread_until_us.is_some()).map(|h| h.bytes).sum();
        self.report.wasted_bytes += unread;
        self.report.finished = matches!(self.job, Job::Done);
        self.report
    }
}
