//! The problem by numbers: demands, ways and what is free, without names. The core on which plans of any size rest.
//!
//! As a linear program: choose how much of each demand travels by which way in which slot, so that the worth is
//! greatest and no rate, egress, ingress or cache is exceeded. Two things are made of it:
//! - [`greedy`](Instance::greedy): most worth per byte first, each as late as possible. One pass.
//! - [`priced`](Instance::priced): every resource gets a price, found by descending the dual; a demand is worth what
//!   it earns beyond the prices of its cheapest column. Served by that excess, each where it mostly chose to go on
//!   the way down, no scarce slot is wasted on a demand that could have gone elsewhere. Any prices at all bound the
//!   optimum from above (weak duality), so the gap that comes with the answer is certain, without a solver.
//!
//! A demand is an extent of many chunks; it may travel in parts of whole grains, and is worth what its parts are.
//! It may have up to three deadlines, and is worth less with each that it misses.

mod dual;
mod fill;
mod group;
mod memory;
mod prices;
mod replan;
mod scarce;

use crate::ledger::{Lane, Ledger};

pub use group::{ChunkRow, group};

/// Bytes that are wanted at a site by the end of a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Bytes.
    pub bytes: u64,
    /// Money if all of it is there by the deadline.
    pub worth: f64,
    /// Part of the money for the link that is spent in vain, between 0 and 1: the probability that it is not read.
    pub vain: f32,
    /// Which list of ways ([`Instance::add_ways`]).
    pub ways: u32,
    /// Not before this slot.
    pub release: u16,
    /// By the end of this slot.
    pub deadline: u16,
    /// Later deadlines, ascending, and what it is still worth by them.
    pub late: [Late; 2],
    /// Kept to the end of this slot.
    pub last_use: u16,
}

/// A later deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Late {
    /// By the end of this slot.
    pub deadline: u16,
    /// Part of the worth that is left by then; 0 if there is no such deadline.
    pub part: f32,
}

/// Slots in which a demand is worth the same part.
#[derive(Clone, Copy, Debug)]
struct Tier {
    first: u16,
    deadline: u16,
    part: f64,
}

impl Demand {
    /// Its deadlines, each with the slots that no earlier one has.
    fn tiers(&self) -> impl Iterator<Item = Tier> + use<> {
        let own = Tier { first: self.release, deadline: self.deadline, part: 1.0 };
        let mut from = self.deadline + 1;
        let late = self.late.into_iter().filter(|l| l.part > 0.0).filter_map(move |l| {
            let first = from;
            from = from.max(l.deadline + 1);
            (first <= l.deadline).then_some(Tier { first, deadline: l.deadline, part: f64::from(l.part) })
        });
        std::iter::once(own).chain(late)
    }

    /// The part of its worth that it has if it comes in `slot`.
    fn part_in(&self, slot: u16) -> f64 {
        if slot <= self.deadline {
            return 1.0;
        }
        self.late.iter().find(|l| l.part > 0.0 && slot <= l.deadline).map_or(0.0, |l| f64::from(l.part))
    }
}

/// What there is to decide on.
#[derive(Clone, Debug)]
pub struct Instance {
    ledger: Ledger,
    /// Money per byte, by lane.
    cost: Vec<f64>,
    /// Lanes that lead to where a demand is wanted, by list.
    ways: Vec<Vec<u32>>,
    /// Parts are multiples of this, bytes; what is smaller travels whole.
    grain_bytes: u64,
    demands: Vec<Demand>,
}

/// Part of a demand, on one lane in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which demand.
    pub demand: u32,
    /// On which lane.
    pub lane: u32,
    /// In which slot.
    pub slot: u16,
    /// Bytes.
    pub bytes: u64,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Parts that travel.
    pub parts: Vec<Part>,
    /// Money they are worth, less what they cost.
    pub worth: f64,
    /// No assignment is worth more; infinite where nothing was computed.
    pub bound: f64,
}

impl Assignment {
    /// How far from the best it can be at most, as part of the bound.
    pub fn gap(&self) -> f64 {
        if self.bound > 0.0 { (self.bound - self.worth).max(0.0) / self.bound } else { 0.0 }
    }
}

impl Instance {
    /// No lane, no demand; sites without limits and without caches.
    pub fn new(slots: u16, sites: u32, grain_bytes: u64) -> Self {
        let ledger = Ledger::new(slots as usize, sites as usize);
        Self { ledger, cost: Vec::new(), ways: Vec::new(), grain_bytes: grain_bytes.max(1), demands: Vec::new() }
    }

    /// Over what is free in a ledger, with the money per byte of its lanes; parts of any size.
    pub(crate) fn over(ledger: Ledger, cost: Vec<f64>) -> Self {
        Self { ledger, cost, ways: Vec::new(), grain_bytes: 1, demands: Vec::new() }
    }

    /// A directed link: bytes it carries in each slot, money per byte. Gives its number.
    pub fn add_lane(&mut self, from: u32, to: u32, bytes_per_slot: u64, cost_per_byte: f64) -> u32 {
        self.cost.push(cost_per_byte);
        let bytes = i64::try_from(bytes_per_slot).unwrap_or(i64::MAX);
        self.ledger.add_lane(Lane { from, to }, std::iter::repeat(bytes))
    }

    /// Bytes that a site's cache holds.
    pub fn set_cache(&mut self, site: u32, bytes: u64) {
        self.ledger.set_cache(site, bytes as i64);
    }

    /// Bytes that may leave and enter a site in each slot, over all its links.
    pub fn limit_site(&mut self, site: u32, egress_bytes: u64, ingress_bytes: u64) {
        let each = |bytes: u64| std::iter::repeat(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.ledger.limit_egress(site, each(egress_bytes));
        self.ledger.limit_ingress(site, each(ingress_bytes));
    }

    /// Lanes that demands may choose from; all lead to the same site. Gives the list's number.
    pub fn add_ways(&mut self, lanes: Vec<u32>) -> u32 {
        self.ways.push(lanes);
        (self.ways.len() - 1) as u32
    }

    /// Adds a demand.
    ///
    /// # Panics
    /// If its slots are not in order within the axis, or its ways are unknown.
    pub fn add(&mut self, demand: Demand) {
        assert!(demand.release <= demand.deadline && demand.deadline <= demand.last_use, "slots out of order");
        assert!(demand.late.iter().all(|l| l.part == 0.0 || l.deadline <= demand.last_use), "later than its last use");
        assert!((demand.last_use as usize) < self.ledger.slots(), "beyond the last slot");
        assert!((demand.ways as usize) < self.ways.len(), "unknown ways");
        self.demands.push(demand);
    }

    /// The demands.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// Replaces demands, for the next plan.
    pub fn demands_mut(&mut self) -> &mut [Demand] {
        &mut self.demands
    }

    /// What a demand earns per byte on a lane, if it comes when this part of its worth is left.
    fn density(&self, demand: &Demand, lane: u32, part: f64) -> f64 {
        demand.worth * part / demand.bytes.max(1) as f64 - self.cost[lane as usize] * f64::from(demand.vain)
    }

    /// What a part of an assignment earns per byte.
    fn density_of(&self, part: &Part) -> f64 {
        let d = &self.demands[part.demand as usize];
        self.density(d, part.lane, d.part_in(part.slot))
    }

    /// Time goes on to the start of slot `now`: what `assignment` says of the slots before has been carried. It is
    /// booked for good and leaves the assignment, and its demands ask for the rest alone. Gives what it was worth.
    pub fn carry(&mut self, assignment: &mut Assignment, now: u16) -> f64 {
        let mut carried = 0.0;
        assignment.parts.retain(|part| {
            if part.slot >= now {
                return true;
            }
            let worth = self.density_of(part) * part.bytes as f64;
            let d = &mut self.demands[part.demand as usize];
            self.ledger.take(part.lane, part.slot as usize, d.last_use as usize, part.bytes as i64);
            d.worth -= d.worth * part.bytes as f64 / d.bytes as f64;
            d.bytes -= part.bytes;
            carried += worth;
            false
        });
        assignment.worth -= carried;
        for d in self.demands.iter_mut().filter(|d| d.release < now) {
            d.release = now.min(d.deadline);
        }
        carried
    }

    /// The excess of what is taken over what there is, over all resources; zero for every answer of this module.
    pub fn excess_bytes(&self, assignment: &Assignment) -> i64 {
        let mut ledger = self.ledger.clone();
        let before: i64 = negative(&ledger);
        for p in &assignment.parts {
            let d = &self.demands[p.demand as usize];
            ledger.take(p.lane, p.slot as usize, d.last_use as usize, p.bytes as i64);
        }
        negative(&ledger) - before
    }
}

fn negative(ledger: &Ledger) -> i64 {
    ledger.resources().into_iter().flatten().map(|free| (-free).max(0)).sum()
}

#[cfg(test)]
mod tests;
