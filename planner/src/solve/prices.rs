//! Where forecasts compete, prices decide: the same wants by numbers, one [`Instance`] for each site that takes.
//!
//! Greedy placing is best as long as everything fits. Where it does not, the wants of a site that are still open go to
//! [`Instance::priced`] with their three deadlines; what it serves whole is placed just so, the rest takes what is
//! left. Sites share no resource here, so what happens at one alters nothing at another (property (f)).

use std::collections::BTreeMap;

use super::place::Tier;
use super::{Decision, Table};
use crate::assign::{Assignment, Demand, Instance, Late};
use crate::gather::Want;
use crate::ledger::Booking;

/// Most steps down the dual.
const MAX_STEPS: u32 = 200;
/// Steps times wants of a site: a few milliseconds, a tenth of the control plane's round.
const STEPS_TIMES_WANTS: usize = 40_000;
/// Wants of a site that lack less than this part of what they are worth do not compete.
const SATED: f64 = 1e-3;
/// What prices place otherwise must be worth this much more: for less, moves that agents know already are not changed.
const LEAST_GAIN: f64 = 0.005;
/// Fewer steps find no prices: then greedy alone decides.
const MIN_STEPS: u32 = 8;

/// The wants of a site by numbers.
struct Contest {
    /// The want of each demand.
    wants: Vec<usize>,
    /// The table's number of each lane.
    lanes: Vec<u32>,
    instance: Instance,
    due: Vec<Vec<Tier>>,
}

/// What came of it.
struct Settled {
    /// Decisions by want, for those that are served whole.
    placed: Vec<(usize, Decision)>,
    /// Wants that are not, the best first.
    rest: Vec<usize>,
    /// No decision on these wants is worth more, money.
    bound: f64,
}

impl Table<'_, '_> {
    /// Forecasts of a site that compete, by numbers; `wants` are all its open ones, those first that are served first.
    fn contest(&self, site: u32, wants: &[usize]) -> Contest {
        let leave_free = wants.first().map_or(0, |n| self.leave_free[self.wants[*n].route]);
        let (ledger, lanes) = self.ledger.toward(site, leave_free);
        let mut instance = Instance::over(ledger);
        let ways: BTreeMap<u32, u32> =
            lanes.iter().zip(0..).map(|(lane, own)| (*lane, instance.add_ways(vec![own]))).collect();
        let mut contest = Contest { wants: Vec::new(), lanes, instance, due: Vec::new() };
        for &number in wants {
            let want = &self.wants[number];
            let Some(tiers) = self.worthy_tiers(want) else { continue };
            let first = &tiers[0];
            let part = |t: &Tier| (want.worth(t.in_time) / want.worth(first.in_time)).clamp(0.0, 1.0) as f32;
            let late =
                |n: usize| tiers.get(n).map_or(Late::default(), |t| Late { deadline: t.slot as u16, part: part(t) });
            contest.instance.add(Demand {
                bytes: want.missing,
                worth: want.worth(first.in_time) * self.sticky(number),
                vain: 0.0,
                ways: ways[&self.lanes[want.route]],
                release: 0,
                deadline: first.slot as u16,
                late: [late(1), late(2)],
                last_use: self.need(want, 0, tiers[tiers.len() - 1].slot).last_use as u16,
            });
            contest.wants.push(number);
            contest.due.push(tiers);
        }
        contest
    }

    /// Places the forecasts of each site anew by prices where that is worth more, and adds up what the plan is worth
    /// and what no plan exceeds. `forecasts` have been placed greedily, in this order.
    pub(super) fn compete(&mut self, forecasts: &[usize]) {
        let mut by_site: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for &number in forecasts {
            let lane = self.lanes[self.wants[number].route];
            by_site.entry(self.ledger.lanes()[lane as usize].to).or_default().push(number);
        }
        for (site, wants) in by_site {
            let worth: f64 = wants.iter().map(|n| self.worth_of(*n)).sum();
            let best = |n: &usize| self.worthy_tiers(&self.wants[*n]).map_or(0.0, |t| self.worth_in(*n, t[0].in_time));
            let wished: f64 = wants.iter().map(best).sum();
            let (worth, bound) = if worth < wished * (1.0 - SATED) {
                self.compete_at(site, &wants, (worth, wished))
            } else {
                (worth, wished)
            };
            self.proof.worth += worth;
            self.proof.bound += bound;
        }
    }

    fn compete_at(&mut self, site: u32, wants: &[usize], (worth, wished): (f64, f64)) -> (f64, f64) {
        let before: Vec<Option<Decision>> = wants.iter().map(|n| self.withdraw(*n)).collect();
        let settled = self.contest(site, wants).settle();
        let bound = settled.as_ref().map_or(wished, |s| s.bound.min(wished));
        if let Some(settled) = settled {
            for (number, decision) in settled.placed {
                let decision = self.unaffordable(&self.wants[number]).map_or(decision, Decision::Leave);
                self.decide(number, decision);
            }
            for number in settled.rest {
                let decision = self.place_forecast(number);
                self.decide(number, decision);
            }
        }
        let ours: f64 = wants.iter().map(|n| self.worth_of(*n)).sum();
        if ours > worth * (1.0 + LEAST_GAIN) {
            // What is worth nothing by any deadline took no part.
            for (number, decision) in wants.iter().zip(before) {
                if self.decided[*number].is_none() {
                    self.decided[*number] = decision;
                }
            }
            return (ours, bound.max(ours));
        }
        wants.iter().for_each(|n| drop(self.withdraw(*n)));
        for (number, decision) in wants.iter().zip(before) {
            if let Some(decision) = decision {
                self.decide(*number, decision);
            }
        }
        (worth, bound.max(worth))
    }

    fn worth_of(&self, number: usize) -> f64 {
        match &self.decided[number] {
            Some(Decision::Move { in_time, .. }) => self.worth_in(number, *in_time),
            _ => 0.0,
        }
    }

    fn worth_in(&self, number: usize, in_time: f64) -> f64 {
        self.wants[number].worth(in_time) * self.sticky(number)
    }

    /// Deadlines by which it is worth anything, the first the best.
    fn worthy_tiers(&self, want: &Want<'_>) -> Option<Vec<Tier>> {
        let window = want.window.filter(|w| w.p10 <= self.grid.horizon())?;
        let tiers: Vec<Tier> = self.tiers(want, &window).filter(|t| want.worth(t.in_time) > 0.0).collect();
        (!tiers.is_empty()).then_some(tiers)
    }
}

impl Contest {
    /// Prices, and what they serve.
    fn settle(self) -> Option<Settled> {
        let count = self.instance.demands().len();
        let steps = MAX_STEPS.min((STEPS_TIMES_WANTS / count.max(1)) as u32);
        if steps < MIN_STEPS {
            return None;
        }
        let Assignment { mut parts, bound, .. } = self.instance.priced(steps);
        parts.sort_unstable_by_key(|p| (p.demand, p.slot));
        let (mut placed, mut whole) = (Vec::new(), vec![false; count]);
        for parts in parts.chunk_by(|a, b| a.demand == b.demand) {
            let n = parts[0].demand as usize;
            let d = &self.instance.demands()[n];
            if parts.iter().map(|p| p.bytes).sum::<u64>() < d.bytes {
                continue;
            }
            let pieces: Vec<(u16, i64)> = parts.iter().map(|p| (p.slot, p.bytes as i64)).collect();
            let booking = Booking { lane: self.lanes[parts[0].lane as usize], last_use: d.last_use, pieces };
            let Some(tier) = self.due[n].iter().find(|t| booking.last_slot() <= t.slot) else { continue };
            whole[n] = true;
            placed.push((self.wants[n], Decision::Move { booking, in_time: tier.in_time, due: tier.due }));
        }
        let mut rest: Vec<usize> = (0..count).filter(|n| !whole[*n]).collect();
        let density = |n: usize| self.instance.demands()[n].worth / self.instance.demands()[n].bytes as f64;
        rest.sort_by(|a, b| density(*b).total_cmp(&density(*a)).then(a.cmp(b)));
        Some(Settled { placed, rest: rest.into_iter().map(|n| self.wants[n]).collect(), bound })
    }
}
