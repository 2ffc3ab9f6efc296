//! What came of plans, as far as the next plan needs it: what was spent, what was wasted, and what links really carry.
//!
//! Outcomes come in, sums by ten minutes stay. From them follow the [`Brakes`] (a budget is spent, a workload has wasted
//! too much) and a [`Topology`] whose links have the rate that was measured. Time is an argument, as everywhere here.
//!
//! A link's rate is measured only while it is busy: between two arrivals that follow each other within
//! [`BUSY_GAP_S`], the bytes of the second crossed in that time or less. What a link carried while nothing more was to
//! be carried says nothing of what it could carry, so a stretch counts only if moves were waiting. Of the last minutes
//! the best stretch holds, as in BBR: a slow start or a reader who goes first must not talk a link down, for a plan that
//! asks for less than a link carries would never find out.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foretide_flow::{
    BitsPerSecond, FilePath, Move, MoveCause, Outcome, OutcomeBatch, Plan, SiteId, Timestamp, Topology, VolumeId,
    WorkloadId,
};

use crate::{Brakes, Config};

/// Sums are kept by so many seconds.
const BUCKET_S: i64 = 600;
/// Sums that are kept, over all workloads and sites: a week of fifty of each kind. The oldest go first.
const MAX_SUMS: usize = 50_000;
/// Files whose mover is remembered until they are read or evicted, so that waste finds its workload. The oldest go.
const MAX_FILES: usize = 1_000_000;
/// Arrivals within this time of each other belong to one busy stretch, seconds.
const BUSY_GAP_S: f64 = 1.0;
/// A busy stretch says what a link carries once it is this long, seconds.
const MEASURED_S: f64 = 2.0;
/// A measurement holds for so long, seconds; then the admin's word holds again.
const MEASUREMENT_HOLDS_S: f64 = 300.0;
/// Measurements of a link that are kept: five minutes of stretches.
const MAX_MEASUREMENTS: usize = 150;
/// A measured rate is at most this many times what the admin said, and at least one part in it of that: beyond, the
/// measurement or the admin is wrong, and neither is to be followed blindly.
const MAX_CORRECTION: f64 = 4.0;

/// What a workload's moves to a site came to in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    moved_bytes: u64,
    wire_bytes: u64,
    money: f64,
    wasted_bytes: u64,
}

/// What a link carried lately.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    began: Timestamp,
    latest: Timestamp,
    bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Carried {
    stretch: Option<Stretch>,
    /// When it was measured, and what: bytes a second.
    measured: VecDeque<(Timestamp, f64)>,
}

impl Carried {
    fn bytes_per_s(&self, now: Timestamp) -> Option<f64> {
        let holds = |at: Timestamp| now.since(at).as_secs_f64() <= MEASUREMENT_HOLDS_S;
        self.measured.iter().filter(|(at, _)| holds(*at)).map(|m| m.1).max_by(f64::total_cmp)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Feedback {
    sums: BTreeMap<(i64, WorkloadId, SiteId), Sums>,
    brought: HashMap<(SiteId, VolumeId, FilePath), (WorkloadId, u64)>,
    order: u64,
    links: BTreeMap<(SiteId, SiteId), Carried>,
}

impl Feedback {
    /// Takes what an agent reported of moves that `plan` has.
    pub fn heard(&mut self, batch: &OutcomeBatch, plan: &Plan, topology: &Topology) {
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
                Outcome::Moved { id, at, bytes, wire_bytes } => {
                    let Some(planned) = moves.get(id) else { continue };
                    let others = first.get(&(&planned.from, &planned.to)).into_iter().flatten();
                    let waiting = others.into_iter().any(|m| m.id != *id && m.start_at <= *at);
                    self.carried(&planned.from, &planned.to, *at, *wire_bytes, waiting);
                    let MoveCause::Forecast { workload, .. } = &planned.cause else { continue };
                    let per_gb = topology.link(&planned.from, &planned.to).map_or(0.0, |l| l.cost_per_gb);
                    let sums = self.sums_of(*at, workload, &batch.site);
                    sums.moved_bytes += bytes;
                    sums.wire_bytes += wire_bytes;
                    sums.money += *wire_bytes as f64 / 1e9 * per_gb;
                    self.remember(&batch.site, &planned.volume, &planned.path, workload);
                }
                Outcome::Evicted { volume, path, at, unread_prefetched_bytes, .. } => {
                    let key = (batch.site.clone(), volume.clone(), path.clone());
                    if let Some((workload, _)) = self.brought.remove(&key) {
                        self.sums_of(*at, &workload, &batch.site).wasted_bytes += unread_prefetched_bytes;
                    }
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
            self.brought.retain(|_, (_, order)| *order > half);
        }
        self.order += 1;
        self.brought.insert((site.clone(), volume.clone(), path.clone()), (workload.clone(), self.order));
    }

    fn carried(&mut self, from: &SiteId, to: &SiteId, at: Timestamp, bytes: u64, waiting: bool) {
        let link = self.links.entry((from.clone(), to.clone())).or_default();
        let follows = |s: &Stretch| at >= s.latest && at.since(s.latest).as_secs_f64() <= BUSY_GAP_S;
        match link.stretch.filter(|s| waiting && follows(s)) {
            Some(s) => {
                let stretch = Stretch { latest: at, bytes: s.bytes + bytes, ..s };
                let seconds = at.since(s.began).as_secs_f64();
                if seconds >= MEASURED_S {
                    if link.measured.len() == MAX_MEASUREMENTS {
                        link.measured.pop_front();
                    }
                    link.measured.push_back((at, stretch.bytes as f64 / seconds));
                    link.stretch = Some(Stretch { began: at, latest: at, bytes: 0 });
                } else {
                    link.stretch = Some(stretch);
                }
            }
            // The first arrival began to cross nobody knows when: the clock starts with it.
            None => link.stretch = Some(Stretch { began: at, latest: at, bytes: 0 }),
        }
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
        Brakes { prefetch_off, budgets: budgets.collect(), muted: self.muted(config, now) }
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

    /// The topology with the rates that were measured lately.
    pub fn measured(&self, topology: &Topology, now: Timestamp) -> Topology {
        let mut measured = topology.clone();
        for link in &mut measured.links {
            let key = (link.from.clone(), link.to.clone());
            if let Some(rate) = self.links.get(&key).and_then(|l| l.bytes_per_s(now)) {
                let told = link.rate.0 as f64;
                link.rate =
                    BitsPerSecond((rate * 8.0).clamp(told / MAX_CORRECTION, told * MAX_CORRECTION).max(1.0) as u64);
            }
        }
        measured
    }
}

fn bucket(at: Timestamp) -> i64 {
    at.0.div_euclid(BUCKET_S * 1_000_000)
}

#[cfg(test)]
mod tests {
    use foretide_flow::{Link, NodeId, Priority, Site};

    use super::*;
    use crate::brakes::Budget;

    const NOW: i64 = 1_800_000_000_000_000;

    fn site(name: &str) -> SiteId {
        SiteId::new(name).unwrap()
    }

    fn at(seconds: f64) -> Timestamp {
        Timestamp(NOW + (seconds * 1e6) as i64)
    }

    fn topology() -> Topology {
        let place =
            || Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache: None, accelerator_per_hour: 0.0 };
        let (from, to) = (site("store"), site("gpu"));
        Topology {
            sites: [(from.clone(), place()), (to.clone(), place())].into(),
            links: vec![Link { from, to, rate: BitsPerSecond(800_000_000), rtt_ms: 1.0, cost_per_gb: 0.1 }],
            volumes: BTreeMap::new(),
        }
    }

    fn plan(moves: usize, bytes: u64) -> Plan {
        let one = |n: usize| Move {
            id: format!("m{n}").as_str().into(),
            volume: VolumeId::new("data").unwrap(),
            path: FilePath::parse(&format!("f/{n}")).unwrap(),
            offset: 0,
            length: bytes,
            from: site("store"),
            to: site("gpu"),
            start_at: Timestamp(NOW),
            due_at: at(9.0),
            keep_until: at(99.0),
            priority: Priority::Background,
            probability: 0.9,
            benefit_s: 1.0,
            cost: 0.0,
            cause: MoveCause::Forecast { forecast: "f".into(), workload: "train".into() },
            reason: String::new(),
        };
        Plan {
            id: "p".into(),
            made_at: Timestamp(NOW),
            horizon: at(1e4),
            moves: (0..moves).map(one).collect(),
            refused: vec![],
            left_out: vec![],
        }
    }

    fn batch(outcomes: Vec<Outcome>) -> OutcomeBatch {
        OutcomeBatch {
            node: NodeId::new("n").unwrap(),
            site: site("gpu"),
            sequence: 1,
            outcomes,
            census: vec![],
            resident_bytes: 0,
            capacity_bytes: 0,
        }
    }

    fn moved(n: usize, seconds: f64, bytes: u64) -> Outcome {
        Outcome::Moved { id: format!("m{n}").as_str().into(), at: at(seconds), bytes, wire_bytes: bytes }
    }

    fn evicted(n: usize, seconds: f64, bytes: u64) -> Outcome {
        let (volume, path) = (VolumeId::new("data").unwrap(), FilePath::parse(&format!("f/{n}")).unwrap());
        Outcome::Evicted { volume, path, at: at(seconds), bytes, unread_prefetched_bytes: bytes }
    }

    #[test]
    fn what_was_moved_is_spent_until_its_time_has_passed() {
        let budget = Budget {
            name: "day".into(),
            site: None,
            workload: None,
            bytes: Some(3_000_000_000),
            money: Some(1.0),
            per_s: 86_400.0,
        };
        let config = Config { budgets: vec![budget], ..Config::default() };
        let mut feedback = Feedback::default();
        feedback.heard(&batch(vec![moved(0, 1.0, 2_000_000_000)]), &plan(3, 2_000_000_000), &topology());
        let left = |seconds| feedback.brakes(&config, false, at(seconds)).budgets.remove(0);
        assert_eq!((left(2.0).bytes, left(2.0).money), (Some(1_000_000_000), Some(0.8)));
        assert_eq!(left(90_000.0).bytes, Some(3_000_000_000));
    }

    /// Promise H: a workload whose moves leave unread is muted by itself, with the figures, and heard again later.
    #[test]
    fn h_who_wastes_is_muted_and_told_why() {
        let config = Config { waste_free_bytes: 1_000, waste_share: 0.5, waste_window_s: 3_600.0, ..Config::default() };
        let mut feedback = Feedback::default();
        let plan = plan(4, 1_000_000_000);
        let came = (0..4).map(|n| moved(n, n as f64, 1_000_000_000)).collect();
        feedback.heard(&batch(came), &plan, &topology());
        feedback.heard(
            &batch(vec![evicted(0, 5.0, 1_000_000_000), evicted(1, 5.0, 1_000_000_000)]),
            &plan,
            &topology(),
        );
        assert!(feedback.brakes(&config, false, at(6.0)).muted.is_empty(), "half is not more than half");
        feedback.heard(
            &batch(vec![evicted(2, 7.0, 1_000_000_000), evicted(2, 7.0, 1_000_000_000)]),
            &plan,
            &topology(),
        );
        let muted = feedback.brakes(&config, false, at(8.0)).muted;
        assert!(
            muted[&WorkloadId::from("train")].contains("of 4.00 GB brought in the last 3600 s, 3.00 GB left unread")
        );
        assert!(feedback.brakes(&config, false, at(9_000.0)).muted.is_empty());
    }

    #[test]
    fn a_link_that_carries_less_than_was_said_is_planned_with_what_it_carries() {
        let mut feedback = Feedback::default();
        // 100 MB/s were said; 50 MB each second come while others wait.
        let slow = (0..20).map(|n| moved(n, n as f64, 50_000_000)).collect();
        feedback.heard(&batch(slow), &plan(40, 50_000_000), &topology());
        let rate = feedback.measured(&topology(), at(20.0)).links[0].rate.0;
        assert!((390_000_000..=410_000_000).contains(&rate), "{rate}");
        assert_eq!(feedback.measured(&topology(), at(1_000.0)), topology(), "a measurement of long ago");
        // Nothing waits: a link at rest says nothing of itself.
        let mut idle = Feedback::default();
        let one = |n: usize| batch(vec![moved(n, n as f64 * 0.9, 1_000)]);
        (0..9).for_each(|n| {
            idle.heard(&one(n), &Plan { moves: plan(n + 1, 1_000).moves.split_off(n), ..plan(0, 0) }, &topology())
        });
        assert_eq!(idle.measured(&topology(), at(9.0)), topology());
    }
}
