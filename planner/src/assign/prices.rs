//! What each resource costs, so that the cheapest place for a demand is one look-up.

use super::{Demand, Instance};

/// Money per byte of each resource, laid out as in the ledger: rate, egress, ingress, cache.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    pub(super) slots: usize,
    pub(super) lanes: Vec<(usize, usize)>,
    pub(super) raw: [Vec<f64>; 4],
    /// By lane and slot: price of a byte that arrives there, less `before` of the slot.
    arrive: Vec<f64>,
    /// By site and slot: sum of the cache's prices in the slots before; one more entry than slots.
    before: Vec<f64>,
    /// By lane and slot: the cheapest slot up to there, the latest of several.
    cheapest: Vec<u16>,
}

impl Prices {
    /// All free of charge, but what is used up: nobody is to look there.
    pub(super) fn first(instance: &Instance) -> Self {
        let slots = instance.ledger.slots();
        let lanes = instance.ledger.lanes().iter().map(|l| (l.from as usize, l.to as usize)).collect::<Vec<_>>();
        let best = (0..instance.demands.len() as u32).map(|n| instance.best_density(n)).fold(0.0, f64::max);
        let raw = instance
            .ledger
            .resources()
            .map(|r| r.iter().map(|free| if *free > 0 { 0.0 } else { 2.0 * best }).collect::<Vec<_>>());
        let sites = raw[3].len() / slots;
        let (arrive, before) = (vec![0.0; lanes.len() * slots], vec![0.0; sites * (slots + 1)]);
        let cheapest = vec![0; lanes.len() * slots];
        let mut prices = Self { slots, lanes, raw, arrive, before, cheapest };
        prices.settle();
        prices
    }

    /// Sums over the raw prices that make [`Prices::of`] one look-up.
    pub(super) fn settle(&mut self) {
        let n = self.slots;
        for site in 0..self.before.len() / (n + 1) {
            for slot in 0..n {
                self.before[site * (n + 1) + slot + 1] =
                    self.before[site * (n + 1) + slot] + self.raw[3][site * n + slot];
            }
        }
        for (lane, &(from, to)) in self.lanes.iter().enumerate() {
            for slot in 0..n {
                self.arrive[lane * n + slot] =
                    self.raw[0][lane * n + slot] + self.raw[1][from * n + slot] + self.raw[2][to * n + slot]
                        - self.before[to * (n + 1) + slot];
            }
            let mut best = 0;
            for slot in 0..n {
                best = if self.arrive[lane * n + slot] <= self.arrive[lane * n + best] { slot } else { best };
                self.cheapest[lane * n + slot] = best as u16;
            }
        }
    }

    /// Price of a byte that arrives by a lane in a slot and stays to the end of `last_use`.
    pub(super) fn of(&self, lane: u32, slot: usize, last_use: usize) -> f64 {
        let to = self.lanes[lane as usize].1;
        self.arrive[lane as usize * self.slots + slot] + self.before[to * (self.slots + 1) + last_use + 1]
    }

    /// The cheapest slot between two, the latest of several.
    fn cheapest(&self, lane: u32, release: usize, deadline: usize) -> usize {
        let at = lane as usize * self.slots;
        let best = self.cheapest[at + deadline] as usize;
        if best >= release {
            return best;
        }
        let row = &self.arrive[at..at + self.slots];
        (release..=deadline).rev().fold(deadline, |best, slot| if row[slot] < row[best] { slot } else { best })
    }
}

/// The column that a demand would choose at the present prices.
pub(super) struct Choice {
    pub(super) excess: f64,
    pub(super) lane: u32,
    pub(super) slot: usize,
}

impl Instance {
    pub(super) fn choose(&self, d: &Demand, prices: &Prices) -> Option<Choice> {
        let mut best: Option<Choice> = None;
        for &lane in &self.ways[d.ways as usize] {
            for tier in d.tiers() {
                let slot = prices.cheapest(lane, d.release as usize, tier.deadline as usize);
                let excess = self.density(d, lane, tier.part) - prices.of(lane, slot, d.last_use as usize);
                if best.as_ref().is_none_or(|b| excess > b.excess) {
                    best = Some(Choice { excess, lane, slot });
                }
            }
        }
        best
    }
}
