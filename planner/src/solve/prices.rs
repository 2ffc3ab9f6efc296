//! How near the best a plan is: the same wants by numbers, one [`Instance`] for each site that takes.
//!
//! Where everything fits, greedy placing is best. Where it does not, the forecasts of a site go to
//! [`Instance::certified`] with their three deadlines and all their ways, and the bound that comes back holds for every plan.
//! Sites that share what leaves a source, or that pass bytes on to each other, go there together; that a relay must first be
//! reached, and that shared chunks come but once, is left out of the numbers, which can only raise the bound. Placing by
//! prices is worth one or two percent more and is not done here: a plan is made many times a second, and what prices serve
//! changes with every step, while greedy with a little stickiness stays where it is (property (f)).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::place::Tier;
use super::{Decision, Table};
use crate::assign::{Demand, Instance, Late};
use crate::gather::{Cause, money};

/// Most steps down the dual.
const MAX_STEPS: u32 = 40;
/// Steps times wants of a site: a few milliseconds, a tenth of the control plane's round.
const STEPS_TIMES_WANTS: usize = 20_000;
/// Wants of a site that lack less than this part of what they are worth do not compete.
const SATED: f64 = 1e-3;

/// A deadline of a want, and what it earns by then if its bytes come free of charge.
struct Gross {
    tier: Tier,
    money: f64,
}

impl Table<'_, '_> {
    /// Adds up what the plan is worth and what no plan exceeds. `forecasts` have been placed, in this order.
    pub(super) fn prove(&mut self, forecasts: &[usize]) {
        let together = self.sites_hang_together();
        let mut by_site: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for &number in forecasts {
            let Some(lane) = self.lanes[self.wants[number].route].first() else { continue };
            let site = if together { 0 } else { self.ledger.lanes()[*lane as usize].to };
            by_site.entry(site).or_default().push(number);
        }
        for wants in by_site.into_values() {
            let worth: f64 = wants.iter().map(|n| self.worth_of(*n)).sum();
            let wished: f64 = wants.iter().map(|n| self.most_worth(*n)).sum();
            let crowded = worth < wished * (1.0 - SATED);
            self.proof.worth += worth;
            self.proof.bound += if crowded { self.bound_of(&wants).clamp(worth, wished) } else { wished };
        }
    }

    /// Whether what is placed at one site can take something from another.
    fn sites_hang_together(&self) -> bool {
        let shares_uplink = self.problem.config.site_limits.iter().any(|l| l.egress_bits_per_s.is_some());
        shares_uplink || self.routes.iter().any(|r| r.ways.iter().any(|w| w.stage.is_some()))
    }

    /// What these wants can be worth together at most, over what is free without them and their stages.
    fn bound_of(&mut self, wants: &[usize]) -> f64 {
        let decided: Vec<Option<Decision>> = wants.iter().map(|n| self.withdraw(*n)).collect();
        let foreseen = |of: usize| matches!(self.wants[of].cause, Cause::Forecast(_));
        let stages: Vec<usize> = (0..self.stages.len()).filter(|n| foreseen(self.stages[*n].of)).collect();
        stages.iter().for_each(|n| self.ledger.cancel(&self.stages[*n].booking));
        let instance = self.by_numbers(wants);
        stages.iter().for_each(|n| self.ledger.book(&self.stages[*n].booking));
        for (number, decision) in wants.iter().zip(decided) {
            if let Some(decision) = decision {
                self.decide(*number, decision);
            }
        }
        let steps = (STEPS_TIMES_WANTS / instance.demands().len().max(1)) as u32;
        instance.certified(steps.clamp(1, MAX_STEPS)).bound
    }

    fn by_numbers(&self, wants: &[usize]) -> Instance {
        let ends = wants.iter().flat_map(|n| self.lanes[self.wants[*n].route].first());
        let sites: BTreeSet<u32> = ends.map(|lane| self.ledger.lanes()[*lane as usize].to).collect();
        // What runs already and warm-ups may fill what forecasts leave free.
        let (ledger, lanes) = self.ledger.toward(&sites, |site| self.leave_free[site as usize]);
        let mut instance = Instance::over(ledger, lanes.iter().map(|l| self.lane_cost[*l as usize]).collect());
        let own: HashMap<u32, u32> = lanes.iter().copied().zip(0..).collect();
        let mut lists: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        for &number in wants {
            let gross: Vec<Gross> = self.worthy(number).collect();
            if gross.is_empty() {
                continue;
            }
            let want = &self.wants[number];
            let open = self.open_ways(number).map(|way| own[&self.lanes[want.route][way]]).collect::<Vec<u32>>();
            let ways = *lists.entry(open).or_insert_with_key(|open| instance.add_ways(open.clone()));
            let first = &gross[0];
            let part = |g: &Gross| (g.money / first.money).clamp(0.0, 1.0) as f32;
            let late = |n: usize| {
                gross.get(n).map_or(Late::default(), |g| Late { deadline: g.tier.slot as u16, part: part(g) })
            };
            let bytes = self.least_crossing(number);
            let latest = gross[gross.len() - 1].tier.slot;
            instance.add(Demand {
                bytes,
                worth: first.money * self.sticky(number),
                vain: self.sticky(number) as f32,
                ways,
                release: 0,
                deadline: first.tier.slot as u16,
                late: [late(1), late(2)],
                last_use: self.need(number, bytes, 0, latest).last_use as u16,
            });
        }
        instance
    }

    fn worth_of(&self, number: usize) -> f64 {
        let placed = self.placed(number);
        placed.map_or(0.0, |p| self.wants[number].worth(p.in_time, p.cost) * self.sticky(number))
    }

    /// What a want earns in the best case.
    fn most_worth(&self, number: usize) -> f64 {
        let first = self.worthy(number).next().map_or(0.0, |first| first.money - self.least_cost(number));
        first * self.sticky(number)
    }

    /// The least that bringing a want can cost.
    fn least_cost(&self, number: usize) -> f64 {
        let bytes = self.least_crossing(number);
        let costs = self.open_ways(number).map(|way| money(self.way(number, way).link, bytes));
        costs.min_by(f64::total_cmp).unwrap_or(0.0)
    }

    /// Deadlines by which a want is worth anything by some way, the first the best: those of the way that is trusted the
    /// soonest.
    fn worthy(&self, number: usize) -> impl Iterator<Item = Gross> {
        let want = &self.wants[number];
        let window = want.window.filter(|w| w.p10 <= self.grid.horizon());
        let lead = self.open_ways(number).map(|way| self.lead(self.way(number, way))).min();
        let least = self.least_cost(number);
        let tiers = window.zip(lead).into_iter().flat_map(move |(window, lead)| self.tiers(want, window, lead));
        tiers.map(move |tier| Gross { money: want.gross(tier.in_time), tier }).filter(move |g| g.money > least)
    }
}
