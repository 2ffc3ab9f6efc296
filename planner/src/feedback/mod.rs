//! What came of plans, as far as the next plan needs it: what was spent, what was wasted, what links really carry, and whose
//! clock is wrong.
//!
//! Outcomes come in, sums by ten minutes stay. From them follow the [`Brakes`] (a budget is spent, a workload has wasted
//! too much) and a [`Topology`] whose links have the rate that was measured. Time is an argument, as everywhere here.
//!
//! What links carry is told by [`links`], whose clock is wrong by [`clocks`]; times of such a site are taken by our clock.

mod clocks;
mod links;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{
    FilePath, Found, Move, MoveCause, Outcome, OutcomeBatch, Plan, SiteId, Timestamp, Topology, VolumeId, WorkloadId,
};

use self::clocks::SiteClock;
use self::links::Carried;
use crate::brakes::Proof;
use crate::{Brakes, Config};

/// Sums are kept by so many seconds.
const BUCKET_S: i64 = 600;
/// Sums that are kept, over all workloads and sites: a week of fifty of each kind. The oldest go first.
const MAX_SUMS: usize = 50_000;
/// Files whose mover is remembered until they are evicted, so that use and waste find their workload. The oldest go.
const MAX_FILES: usize = 1_000_000;
/// What a workload's moves to a site came to in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    moved_bytes: u64,
    wire_bytes: u64,
    money: f64,
    read_bytes: u64,
    wasted_bytes: u64,
}

/// Whose move brought a file.
#[derive(Clone, Debug)]
struct Brought {
    workload: WorkloadId,
    order: u64,
    was_read: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Feedback {
    sums: BTreeMap<(i64, WorkloadId, SiteId), Sums>,
    brought: HashMap<(SiteId, VolumeId, FilePath), Brought>,
    order: u64,
    links: BTreeMap<(SiteId, SiteId), Carried>,
    clocks: BTreeMap<SiteId, SiteClock>,
}

impl Feedback {
    /// Takes what an agent reported, heard at `now`, of moves that `plan` has.
    pub fn heard(&mut self, batch: &OutcomeBatch, plan: &Plan, topology: &Topology, now: Timestamp) {
        let clock = self.clocks.entry(batch.site.clone()).or_default();
        if let Some(newest) = batch.outcomes.iter().filter_map(time_of).max() {
            clock.heard(newest, now);
        }
        let clock = clock.clone();
        let moves: HashMap<_, _> = plan.moves.iter().map(|m| (&m.id, m)).collect();
        // Moves stand in the order in which they start: of each link the first two say whether others wait.
        let mut first: HashMap<(&SiteId, &SiteId), Vec<&Move>> = HashMap::new();
        for m in &plan.moves {
            let of_link = first.entry((&m.from, &m.to)).or_default();
            if of_link.len() < 2 {
                of_link.push(m);
            }
        }
        for outcome in &batch.outcomes {
            match outcome {
                Outcome::Moved { id, at, bytes, wire_bytes, fallback_bytes } => {
                    let (Some(planned), at) = (moves.get(id), clock.by_ours(*at)) else { continue };
                    let mut money_spent = 0.0;
                    for (from, crossed) in crossed_from(topology, planned, *wire_bytes, *fallback_bytes) {
                        let others = first.get(&(from, &planned.to)).into_iter().flatten();
                        let waiting = others.into_iter().any(|m| m.id != *id && m.start_at <= at);
                        self.link(from, &planned.to).arrived(at, crossed, waiting);
                        let per_gb = topology.link(from, &planned.to).map_or(0.0, |l| l.cost_per_gb);
                        money_spent += crossed as f64 / 1e9 * per_gb;
                    }
                    let MoveCause::Forecast { workload, .. } = &planned.cause else { continue };
                    let sums = self.sums_of(at, workload, &batch.site);
                    sums.moved_bytes += bytes;
                    sums.wire_bytes += wire_bytes;
                    sums.money += money_spent;
                    self.remember(&batch.site, &planned.volume, &planned.path, workload);
                }
                Outcome::Evicted { volume, path, at, unread_prefetched_bytes, .. } => {
                    let key = (batch.site.clone(), volume.clone(), path.clone());
                    if let Some(brought) = self.brought.remove(&key) {
                        let at = clock.by_ours(*at);
                        self.sums_of(at, &brought.workload, &batch.site).wasted_bytes += unread_prefetched_bytes;
                    }
                }
                Outcome::Read { volume, path, at, prefetched_bytes: read @ 1.., .. } => {
                    let key = (batch.site.clone(), volume.clone(), path.clone());
                    if let Some(brought) = self.brought.get_mut(&key).filter(|b| !b.was_read) {
                        brought.was_read = true;
                        let workload = brought.workload.clone();
                        self.sums_of(clock.by_ours(*at), &workload, &batch.site).read_bytes += read;
                    }
                }
                Outcome::Read { volume, at, bytes, prefetched_bytes: 0, waited_us, found: Found::Miss, .. } => {
                    let Some(source) = topology.volumes.get(volume).filter(|v| v.at != batch.site) else { continue };
                    self.link(&source.at, &batch.site).waited(clock.by_ours(*at), *waited_us, *bytes);
                }
                Outcome::Read { .. } | Outcome::Failed { .. } | Outcome::Refused(_) => {}
            }
        }
    }

    fn sums_of(&mut self, at: Timestamp, workload: &WorkloadId, site: &SiteId) -> &mut Sums {
        while self.sums.len() >= MAX_SUMS {
            self.sums.pop_first();
        }
        self.sums.entry((bucket(at), workload.clone(), site.clone())).or_default()
    }

    fn remember(&mut self, site: &SiteId, volume: &VolumeId, path: &FilePath, workload: &WorkloadId) {
        if self.brought.len() >= MAX_FILES {
            let half = self.order - MAX_FILES as u64 / 2;
            self.brought.retain(|_, b| b.order > half);
        }
        self.order += 1;
        let brought = Brought { workload: workload.clone(), order: self.order, was_read: false };
        self.brought.insert((site.clone(), volume.clone(), path.clone()), brought);
    }

    fn link(&mut self, from: &SiteId, to: &SiteId) -> &mut Carried {
        self.links.entry((from.clone(), to.clone())).or_default()
    }

    /// What holds prefetch back at `now`.
    pub fn brakes(&self, config: &Config, prefetch_off: bool, now: Timestamp) -> Brakes {
        let budgets = config.budgets.iter().map(|budget| {
            let (mut bytes, mut money) = (0u64, 0.0);
            for ((_, workload, site), sums) in self.since(now, budget.per_s) {
                if budget.covers(site, workload) {
                    bytes = bytes.saturating_add(sums.wire_bytes);
                    money += sums.money;
                }
            }
            budget.left(bytes, money)
        });
        let wrong = self.clocks.iter().filter_map(|(site, clock)| Some((site.clone(), clock.ahead_s()?)));
        Brakes {
            prefetch_off,
            budgets: budgets.collect(),
            muted: self.muted(config, now),
            proven: self.proven(config, now),
            clocks: wrong.collect(),
        }
    }

    fn proven(&self, config: &Config, now: Timestamp) -> BTreeSet<SiteId> {
        let mut by: BTreeMap<&SiteId, Proof> = BTreeMap::new();
        for ((_, _, site), sums) in self.since(now, config.waste_window_s) {
            let proof = by.entry(site).or_default();
            proof.read_bytes += sums.read_bytes;
            proof.wasted_bytes += sums.wasted_bytes;
        }
        by.into_iter().filter(|(_, proof)| proof.holds(config.proof_share)).map(|(site, _)| site.clone()).collect()
    }

    fn muted(&self, config: &Config, now: Timestamp) -> BTreeMap<WorkloadId, String> {
        let mut by: BTreeMap<&WorkloadId, (u64, u64)> = BTreeMap::new();
        for ((_, workload, _), sums) in self.since(now, config.waste_window_s) {
            let (moved, wasted) = by.entry(workload).or_default();
            *moved += sums.moved_bytes;
            *wasted += sums.wasted_bytes;
        }
        let too_much = |moved: u64, wasted: u64| {
            wasted > config.waste_free_bytes && wasted as f64 > moved as f64 * config.waste_share
        };
        let wastes = by.into_iter().filter(|(_, (moved, wasted))| too_much(*moved, *wasted));
        let told = wastes.map(|(workload, (moved, wasted))| {
            let why = format!(
                "of {:.2} GB brought in the last {:.0} s, {:.2} GB left unread; the waste budget is {:.0} %",
                moved as f64 / 1e9,
                config.waste_window_s,
                wasted as f64 / 1e9,
                config.waste_share * 100.0
            );
            (workload.clone(), why)
        });
        told.collect()
    }

    fn since(&self, now: Timestamp, seconds: f64) -> impl Iterator<Item = (&(i64, WorkloadId, SiteId), &Sums)> {
        let first = bucket(now).saturating_sub((seconds / BUCKET_S as f64).ceil() as i64);
        self.sums.iter().filter(move |((at, _, _), _)| *at > first)
    }

    /// The topology with the rates and round trips that were measured lately.
    pub fn measured(&self, topology: &Topology, now: Timestamp) -> Topology {
        let mut measured = topology.clone();
        for link in &mut measured.links {
            if let Some(carried) = self.links.get(&(link.from.clone(), link.to.clone())) {
                *link = carried.measured(link, now);
            }
        }
        measured
    }
}

/// Whence a move's bytes came, and how many from each: what fell back on the source crossed its link, not the one that was
/// planned with.
fn crossed_from<'a>(
    topology: &'a Topology,
    planned: &'a Move,
    wire_bytes: u64,
    fallback_bytes: u64,
) -> Vec<(&'a SiteId, u64)> {
    let Some(source) = topology.volumes.get(&planned.volume).map(|v| &v.at).filter(|_| fallback_bytes > 0) else {
        return vec![(&planned.from, wire_bytes)];
    };
    let named = (&planned.from, wire_bytes.saturating_sub(fallback_bytes));
    [named, (source, fallback_bytes)].into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

/// When something happened, by the clock of its site.
fn time_of(outcome: &Outcome) -> Option<Timestamp> {
    match outcome {
        Outcome::Moved { at, .. } | Outcome::Failed { at, .. } | Outcome::Evicted { at, .. } => Some(*at),
        Outcome::Read { .. } | Outcome::Refused(_) => None,
    }
}

fn bucket(at: Timestamp) -> i64 {
    at.0.div_euclid(BUCKET_S * 1_000_000)
}

#[cfg(test)]
mod tests;
