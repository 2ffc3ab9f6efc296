//! How near the best a plan is: the same wants by numbers, one [`Instance`] for each site that takes.
//!
//! Where everything fits, greedy placing is best. Where it does not, the forecasts of a site go to
//! [`Instance::certified`] with their three deadlines, and the bound that comes back holds for every plan. Placing by
//! prices is worth one or two percent more and is not done here: a plan is made many times a second, and what prices serve
//! changes with every step, while greedy with a little stickiness stays where it is (property (f)).

use std::collections::BTreeMap;

use super::place::Tier;
use super::{Decision, Table};
use crate::assign::{Demand, Instance, Late};
use crate::gather::Want;

/// Most steps down the dual.
const MAX_STEPS: u32 = 40;
/// Steps times wants of a site: a few milliseconds, a tenth of the control plane's round.
const STEPS_TIMES_WANTS: usize = 20_000;
/// Wants of a site that lack less than this part of what they are worth do not compete.
const SATED: f64 = 1e-3;

impl Table<'_, '_> {
    /// Adds up what the plan is worth and what no plan exceeds. `forecasts` have been placed, in this order.
    pub(super) fn prove(&mut self, forecasts: &[usize]) {
        let mut by_site: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for &number in forecasts {
            let lane = self.lanes[self.wants[number].route];
            by_site.entry(self.ledger.lanes()[lane as usize].to).or_default().push(number);
        }
        for (site, wants) in by_site {
            let worth: f64 = wants.iter().map(|n| self.worth_of(*n)).sum();
            let best = |n: &usize| self.worthy_tiers(&self.wants[*n]).map_or(0.0, |t| self.worth_in(*n, t[0].in_time));
            let wished: f64 = wants.iter().map(best).sum();
            let crowded = worth < wished * (1.0 - SATED);
            self.proof.worth += worth;
            self.proof.bound += if crowded { self.bound_at(site, &wants).clamp(worth, wished) } else { wished };
        }
    }

    /// What these wants can be worth together at most, over what is free without them.
    fn bound_at(&mut self, site: u32, wants: &[usize]) -> f64 {
        let decided: Vec<Option<Decision>> = wants.iter().map(|n| self.withdraw(*n)).collect();
        let instance = self.by_numbers(site, wants);
        for (number, decision) in wants.iter().zip(decided) {
            if let Some(decision) = decision {
                self.decide(*number, decision);
            }
        }
        let steps = (STEPS_TIMES_WANTS / instance.demands().len().max(1)) as u32;
        instance.certified(steps.clamp(1, MAX_STEPS)).bound
    }

    fn by_numbers(&self, site: u32, wants: &[usize]) -> Instance {
        let leave_free = wants.first().map_or(0, |n| self.leave_free[self.wants[*n].route]);
        let (ledger, lanes) = self.ledger.toward(site, leave_free);
        let mut instance = Instance::over(ledger);
        let ways: BTreeMap<u32, u32> =
            lanes.iter().zip(0..).map(|(lane, own)| (*lane, instance.add_ways(vec![own]))).collect();
        for &number in wants {
            let want = &self.wants[number];
            let Some(tiers) = self.worthy_tiers(want) else { continue };
            let first = &tiers[0];
            let part = |t: &Tier| (want.worth(t.in_time) / want.worth(first.in_time)).clamp(0.0, 1.0) as f32;
            let late =
                |n: usize| tiers.get(n).map_or(Late::default(), |t| Late { deadline: t.slot as u16, part: part(t) });
            instance.add(Demand {
                bytes: want.missing,
                worth: self.worth_in(number, first.in_time),
                vain: 0.0,
                ways: ways[&self.lanes[want.route]],
                release: 0,
                deadline: first.slot as u16,
                late: [late(1), late(2)],
                last_use: self.need(want, 0, tiers[tiers.len() - 1].slot).last_use as u16,
            });
        }
        instance
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
