//! Demands in some order, each into what is left.

use super::dual::Prices;
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
        self.ways[d.ways as usize].iter().map(|l| self.density(d, *l)).fold(f64::MIN, f64::max)
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
        let mut filling = Filling::new(self);
        let mut columns = Vec::new();
        let mut left = vec![0u64; self.demands.len()];
        for n in order {
            let earns = |excess: f64| excess >= 0.0;
            left[*n as usize] = filling.put_priced(*n, u64::MAX, prices, &mut columns, earns);
        }
        for n in order.iter().filter(|n| left[**n as usize] > 0) {
            filling.put_priced(*n, left[*n as usize], prices, &mut columns, |_| true);
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
        for &lane in &self.instance.ways[d.ways as usize] {
            if self.instance.density(&d, lane) <= 0.0 {
                continue;
            }
            for slot in (d.release..=d.deadline).rev() {
                if left == 0 {
                    return 0;
                }
                left -= self.put(number, &d, lane, slot, left);
            }
        }
        left
    }

    /// A part of the assignment before.
    pub(super) fn keep(&mut self, part: Part) {
        let d = self.instance.demands[part.demand as usize];
        self.ledger.take(part.lane, part.slot as usize, d.last_use as usize, part.bytes as i64);
        self.worth += self.instance.density(&d, part.lane) * part.bytes as f64;
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
        self.worth -= self.instance.density(&d, part.lane) * part.bytes as f64;
        self.parts[at as usize].bytes = 0;
        Some(part)
    }

    /// Gives the bytes that found no place.
    fn put_priced(
        &mut self,
        number: u32,
        bytes: u64,
        prices: &Prices,
        columns: &mut Vec<Column>,
        wanted: impl Fn(f64) -> bool,
    ) -> u64 {
        let d = self.instance.demands[number as usize];
        let mut left = bytes.min(d.bytes);
        if let Some(c) = self.instance.choose(number as usize, prices).filter(|c| wanted(c.excess)) {
            left -= self.put_earning(number, &d, c.lane, c.slot as u16, left);
        }
        if left == 0 {
            return 0;
        }
        columns.clear();
        for &lane in &self.instance.ways[d.ways as usize] {
            let density = self.instance.density(&d, lane);
            if density <= 0.0 {
                continue;
            }
            let priced = (d.release..=d.deadline)
                .map(|slot| (density - prices.of(lane, slot as usize, d.last_use as usize), lane, slot));
            columns.extend(priced.filter(|c| wanted(c.0)));
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

    /// As [`Filling::put`], if that lane earns anything.
    fn put_earning(&mut self, number: u32, d: &Demand, lane: u32, slot: u16, left: u64) -> u64 {
        if self.instance.density(d, lane) > 0.0 { self.put(number, d, lane, slot, left) } else { 0 }
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
            self.worth += self.instance.density(d, lane) * bytes as f64;
            self.parts.push(Part { demand: number, lane, slot, bytes });
        }
        bytes
    }
}
