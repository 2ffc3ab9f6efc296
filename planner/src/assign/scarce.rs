//! First prices, from a greedy assignment: what is full costs what the best demand earns that found no room for it.

use std::ops::RangeInclusive;

use super::prices::Prices;
use super::{Assignment, Demand, Instance};
use crate::ledger::Ledger;

impl Instance {
    /// First prices, as the module says.
    pub(super) fn marked(&self, greedy: &Assignment) -> Prices {
        let mut prices = Prices::first(self);
        let mut ledger = self.ledger.clone();
        let mut served = vec![0u64; self.demands.len()];
        for p in &greedy.parts {
            ledger.take(p.lane, p.slot as usize, self.demands[p.demand as usize].last_use as usize, p.bytes as i64);
            served[p.demand as usize] += p.bytes;
        }
        let mut turned_away: Vec<(f64, u32)> = (0..self.demands.len() as u32)
            .filter(|n| served[*n as usize] < self.demands[*n as usize].bytes)
            .map(|n| (self.best_density(n), n))
            .filter(|(density, _)| *density > 0.0)
            .collect();
        turned_away.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        // The best comes first, so what has a price costs enough already.
        for (_, n) in turned_away {
            let d = &self.demands[n as usize];
            for &lane in &self.ways[d.ways as usize] {
                for tier in d.tiers() {
                    let density = self.density(d, lane, tier.part);
                    self.mark(&mut prices, &ledger, (d, lane, tier.first..=tier.deadline), density);
                }
            }
        }
        prices.settle();
        prices
    }

    /// Marks what stands in the way of a demand on a lane: the link in each slot that is full, or the fullest moment of
    /// the cache, which every earlier arrival would have to pass too.
    fn mark(
        &self,
        prices: &mut Prices,
        ledger: &Ledger,
        (d, lane, slots): (&Demand, u32, RangeInclusive<u16>),
        density: f64,
    ) {
        let n = prices.slots;
        let (from, to) = prices.lanes[lane as usize];
        let [rate, egress, ingress, cache] = ledger.resources();
        for slot in slots.rev() {
            let slot = slot as usize;
            let limits = [rate[lane as usize * n + slot], egress[from * n + slot], ingress[to * n + slot]]
                .into_iter()
                .enumerate();
            let (which, free) = limits.min_by_key(|l| l.1).unwrap_or((0, 0));
            if free < self.grain_bytes as i64 {
                let at = [lane as usize, from, to][which] * n + slot;
                let price = &mut prices.raw[which][at];
                *price = if *price > 0.0 { *price } else { density };
                continue;
            }
            let here = &cache[to * n..(to + 1) * n];
            let fullest = (slot..=d.last_use as usize).min_by_key(|s| here[*s]).unwrap_or(slot);
            if here[fullest] < self.grain_bytes as i64 {
                let price = &mut prices.raw[3][to * n + fullest];
                *price = if *price > 0.0 { *price } else { density };
                return;
            }
        }
    }
}
