//! Demands in some order, each into what is left.

use super::memory::Memory;
use super::prices::Prices;
use super::{Assignment, Demand, Instance, Part};
use crate::ledger::Ledger;

/// A place for bytes and what they earn there beyond its price.
type Column = (f64, u32, u16);

/// An assignment being made.
pub(super) struct Filling<'i> {
    instance: &'i Instance,
    ledger: Ledger,
    pub(super) parts: Vec<Part>,
    worth: f64,
}

impl Instance {
    /// Most worth per byte first, each by its cheapest way as late as possible, the next way when that is full.
    pub fn greedy(&self) -> Assignment {
        let mut order: Vec<(f64, u32)> = (0..self.demands.len() as u32)
            .map(|n| (self.best_density(n), n))
            .filter(|(density, _)| *density > 0.0)
            .collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.fill_late(order.into_iter().map(|(_, n)| n))
    }

    /// Earliest deadline first, each as late as possible: what a planner does that knows no worth. A rival for
    /// benches.
    pub fn earliest_deadline(&self) -> Assignment {
        let mut order: Vec<u32> = (0..self.demands.len() as u32).collect();
        order.sort_by_key(|n| self.demands[*n as usize].deadline);
        self.fill_late(order.into_iter())
    }

    /// What a demand earns per byte on its best lane.
    pub(super) fn best_density(&self, number: u32) -> f64 {
        let d = &self.demands[number as usize];
        self.ways[d.ways as usize].iter().map(|l| self.density(d, *l, 1.0)).fold(f64::MIN, f64::max)
    }

    fn fill_late(&self, order: impl Iterator<Item = u32>) -> Assignment {
        let mut filling = Filling::new(self);
        order.for_each(|n| {
            filling.put_late(n);
        });
        filling.done()
    }

    /// In the order given, each where it earns most beyond the prices; then whatever still earns anything.
    pub(super) fn fill_priced(&self, order: &[u32], prices: &Prices) -> Assignment {
        let filling = Filling::new(self);
        let left = self.demands.iter().map(|d| d.bytes).collect();
        self.fill_rest(filling, order, prices, left)
    }

    /// In the order given, each where it went on the way to these prices, to each place by the share of steps in
    /// which it chose it; what finds no room there as in [`Instance::fill_priced`].
    pub(super) fn fill_shared(&self, order: &[u32], prices: &Prices, memory: &Memory) -> Assignment {
        let mut filling = Filling::new(self);
        let mut left: Vec<u64> = self.demands.iter().map(|d| d.bytes).collect();
        let mut shares = Vec::new();
        for &n in order {
            let d = &self.demands[n as usize];
            memory.shares(n, self.ledger.slots(), &mut shares);
            for &(share, lane, slot) in &shares {
                let bytes = ((share * d.bytes as f64) as u64).min(d.bytes);
                // Whole grains, or the whole.
                let bytes =
                    if d.bytes - bytes < self.grain_bytes { d.bytes } else { bytes.next_multiple_of(self.grain_bytes) };
                left[n as usize] -= filling.put_earning(n, d, lane, slot, bytes.min(left[n as usize]));
            }
        }
        self.fill_rest(filling, order, prices, left)
    }

    fn fill_rest(&self, mut filling: Filling<'_>, order: &[u32], prices: &Prices, mut left: Vec<u64>) -> Assignment {
        let mut columns = Vec::new();
        for least_excess in [0.0, f64::NEG_INFINITY] {
            for &n in order {
                let left = &mut left[n as usize];
                if *left > 0 {
                    *left = filling.put_priced(n, *left, prices, &mut columns, least_excess);
                }
            }
        }
        filling.done()
    }
}

impl<'i> Filling<'i> {
    pub(super) fn new(instance: &'i Instance) -> Self {
        let parts = Vec::with_capacity(instance.demands.len());
        Self { instance, ledger: instance.ledger.clone(), parts, worth: 0.0 }
    }

    /// What was made. Parts that were dropped are gone.
    pub(super) fn done(mut self) -> Assignment {
        self.parts.retain(|p| p.bytes > 0);
        Assignment { parts: self.parts, worth: self.worth, bound: f64::INFINITY }
    }

    /// As late as possible, the next way when one is full; gives the bytes that found no place.
    pub(super) fn put_late(&mut self, number: u32) -> u64 {
        let d = self.instance.demands[number as usize];
        self.put_late_up_to(number, d.bytes)
    }

    /// As [`Filling::put_late`] for some bytes of a demand.
    pub(super) fn put_late_up_to(&mut self, number: u32, bytes: u64) -> u64 {
        let d = self.instance.demands[number as usize];
        let mut left = bytes;
        for tier in d.tiers() {
            for &lane in &self.instance.ways[d.ways as usize] {
                if self.instance.density(&d, lane, tier.part) <= 0.0 {
                    continue;
                }
                for slot in (tier.first..=tier.deadline).rev() {
                    if left == 0 {
                        return 0;
                    }
                    left -= self.put(number, &d, lane, slot, left);
                }
            }
        }
        left
    }

    /// A part of the assignment before.
    pub(super) fn keep(&mut self, part: Part) {
        let d = self.instance.demands[part.demand as usize];
        self.ledger.take(part.lane, part.slot as usize, d.last_use as usize, part.bytes as i64);
        self.worth += self.instance.density_of(&part) * part.bytes as f64;
        self.parts.push(part);
    }

    /// Gives a part's place back; none if that has happened.
    pub(super) fn drop_part(&mut self, at: u32) -> Option<Part> {
        let part = self.parts[at as usize];
        if part.bytes == 0 {
            return None;
        }
        let d = self.instance.demands[part.demand as usize];
        self.ledger.take(part.lane, part.slot as usize, d.last_use as usize, -(part.bytes as i64));
        self.worth -= self.instance.density_of(&part) * part.bytes as f64;
        self.parts[at as usize].bytes = 0;
        Some(part)
    }

    /// Where it earns at least `least_excess` beyond the prices, the most first; gives the bytes that found no place.
    fn put_priced(
        &mut self,
        number: u32,
        bytes: u64,
        prices: &Prices,
        columns: &mut Vec<Column>,
        least_excess: f64,
    ) -> u64 {
        let d = self.instance.demands[number as usize];
        let mut left = bytes;
        if let Some(c) = self.instance.choose(&d, prices).filter(|c| c.excess >= least_excess) {
            left -= self.put_earning(number, &d, c.lane, c.slot as u16, left);
        }
        if left == 0 {
            return 0;
        }
        columns.clear();
        for &lane in &self.instance.ways[d.ways as usize] {
            for tier in d.tiers() {
                let density = self.instance.density(&d, lane, tier.part);
                if density > 0.0 {
                    let priced = (tier.first..=tier.deadline)
                        .filter(|slot| self.ledger.free(lane, *slot as usize) > 0)
                        .map(|slot| (density - prices.of(lane, slot as usize, d.last_use as usize), lane, slot));
                    columns.extend(priced.filter(|c| c.0 >= least_excess));
                }
            }
        }
        columns.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.2.cmp(&a.2)).then(a.1.cmp(&b.1)));
        for &(_, lane, slot) in columns.iter() {
            left -= self.put(number, &d, lane, slot, left);
            if left == 0 {
                break;
            }
        }
        left
    }

    /// As [`Filling::put`], if it earns anything there.
    fn put_earning(&mut self, number: u32, d: &Demand, lane: u32, slot: u16, left: u64) -> u64 {
        if self.instance.density(d, lane, d.part_in(slot)) > 0.0 { self.put(number, d, lane, slot, left) } else { 0 }
    }

    /// As many of `left` bytes as fit, in whole grains; gives how many.
    fn put(&mut self, number: u32, d: &Demand, lane: u32, slot: u16, left: u64) -> u64 {
        let free = self.ledger.free(lane, slot as usize);
        if free <= 0 {
            return 0;
        }
        let room = free.min(self.ledger.room(lane, slot as usize, d.last_use as usize)).max(0) as u64;
        let grain = self.instance.grain_bytes;
        let bytes = if room >= left { left } else { room / grain * grain };
        if bytes > 0 {
            self.ledger.take(lane, slot as usize, d.last_use as usize, bytes as i64);
            self.worth += self.instance.density(d, lane, d.part_in(slot)) * bytes as f64;
            self.parts.push(Part { demand: number, lane, slot, bytes });
        }
        bytes
    }
}
