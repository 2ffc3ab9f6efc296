//! Prices of resources, and the bound that they prove.
//!
//! For prices `p >= 0` of every link slot, egress, ingress and cache slot,
//! `bound(p) = sum(capacity * p) + sum over demands of bytes * max(0, best excess)`
//! is at least the worth of every assignment. Each step lowers it along a subgradient: a resource that the demands'
//! cheapest columns would overfill gets dearer, one that they leave free gets cheaper. Steps are Polyak's, towards
//! the best assignment known, with resources scaled by their capacity so that a cache and a link weigh alike.

use super::{Assignment, Instance};
use crate::ledger::UNLIMITED_BYTES;

/// Steps without a better bound after which the step is halved.
const PATIENCE_STEPS: u32 = 6;
/// Between two tries to make an assignment of the present prices, steps.
const STEPS_PER_FILL: u32 = 8;
/// Weight of the newest step in the running mean of prices, from which assignments are made: single steps swing.
const MEAN_WEIGHT: f64 = 0.15;

/// Money per byte of each resource, laid out as in the ledger: rate, egress, ingress, cache.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    slots: usize,
    lanes: Vec<(usize, usize)>,
    raw: [Vec<f64>; 4],
    /// By lane and slot: price of a byte that arrives there, less `before` of the slot.
    arrive: Vec<f64>,
    /// By site and slot: sum of the cache's prices in the slots before; one more entry than slots.
    before: Vec<f64>,
    /// By lane and slot: the cheapest slot up to there, the latest of several.
    cheapest: Vec<u16>,
}

impl Prices {
    fn zero(instance: &Instance) -> Self {
        let slots = instance.ledger.slots();
        let lanes = instance.ledger.lanes().iter().map(|l| (l.from as usize, l.to as usize)).collect::<Vec<_>>();
        let raw = instance.ledger.resources().map(|r| vec![0.0; r.len()]);
        let sites = raw[3].len() / slots;
        let (arrive, before) = (vec![0.0; lanes.len() * slots], vec![0.0; sites * (slots + 1)]);
        let cheapest = vec![0; lanes.len() * slots];
        Self { slots, lanes, raw, arrive, before, cheapest }
    }

    /// Sums over the raw prices that make [`Prices::of`] one look-up.
    fn settle(&mut self) {
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
        (release..=deadline).fold(deadline, |best, slot| if row[slot] < row[best] { slot } else { best })
    }
}

/// The column that each demand would choose at the present prices.
pub(super) struct Choice {
    pub(super) excess: f64,
    pub(super) lane: u32,
    pub(super) slot: usize,
}

impl Instance {
    /// The best of the greedy and of assignments made from prices, with the bound that the prices prove.
    ///
    /// Work grows with `steps` times demands times slots; the same input gives the same answer.
    pub fn priced(&self, steps: u32) -> Assignment {
        let mut best = self.greedy();
        let capacity = self.ledger.resources();
        let mut prices = Prices::zero(self);
        let mut mean = prices.clone();
        let mut theta = 1.0;
        let mut since_better = 0;
        let mut bound = f64::INFINITY;
        for step in 0..steps {
            prices.settle();
            let (value, used) = self.evaluate(&prices);
            if value < bound - bound.abs().min(1e12) * 1e-5 {
                since_better = 0;
            } else {
                since_better += 1;
            }
            bound = bound.min(value);
            if since_better >= PATIENCE_STEPS {
                theta *= 0.7;
                since_better = 0;
            }
            if bound - best.worth <= 1e-9 * bound.abs() {
                break;
            }
            advance(&mut prices, &used, &capacity, theta * (value - best.worth));
            blend(&mut mean, &prices, if step < 4 { 1.0 } else { MEAN_WEIGHT });
            if step % STEPS_PER_FILL == STEPS_PER_FILL - 1 || step + 1 == steps {
                mean.settle();
                bound = bound.min(self.evaluate(&mean).0);
                let tried = self.fill_priced(&self.order(&mean), &mean);
                if tried.worth > best.worth {
                    best = tried;
                }
            }
        }
        Assignment { bound, ..best }
    }

    pub(super) fn choose(&self, number: usize, prices: &Prices) -> Option<Choice> {
        let d = &self.demands[number];
        let mut best: Option<Choice> = None;
        for &lane in &self.ways[d.ways as usize] {
            let slot = prices.cheapest(lane, d.release as usize, d.deadline as usize);
            let excess = self.density(d, lane) - prices.of(lane, slot, d.last_use as usize);
            if best.as_ref().is_none_or(|b| excess > b.excess) {
                best = Some(Choice { excess, lane, slot });
            }
        }
        best
    }

    /// The bound of these prices, and what the demands' choices would take of each resource.
    fn evaluate(&self, prices: &Prices) -> (f64, [Vec<f64>; 4]) {
        let capacity = self.ledger.resources();
        let mut used: [Vec<f64>; 4] = capacity.map(|r| vec![0.0; r.len()]);
        let mut value = 0.0;
        for (raw, capacity) in prices.raw.iter().zip(capacity) {
            value +=
                raw.iter().zip(capacity).filter(|(p, _)| **p > 0.0).map(|(p, c)| p * (*c).max(0) as f64).sum::<f64>();
        }
        let n = prices.slots;
        for number in 0..self.demands.len() {
            let Some(c) = self.choose(number, prices).filter(|c| c.excess > 0.0) else { continue };
            let d = &self.demands[number];
            let bytes = d.bytes as f64;
            value += c.excess * bytes;
            let (from, to) = prices.lanes[c.lane as usize];
            used[0][c.lane as usize * n + c.slot] += bytes;
            used[1][from * n + c.slot] += bytes;
            used[2][to * n + c.slot] += bytes;
            // As differences; summed up below.
            used[3][to * n + c.slot] += bytes;
            if (d.last_use as usize) + 1 < n {
                used[3][to * n + d.last_use as usize + 1] -= bytes;
            }
        }
        used[3].chunks_mut(n).for_each(|row| {
            (1..n).for_each(|slot| row[slot] += row[slot - 1]);
        });
        (value, used)
    }

    /// Demands by what they earn beyond the prices, per byte.
    fn order(&self, prices: &Prices) -> Vec<u32> {
        let excess = |n: u32| self.choose(n as usize, prices).map_or(f64::MIN, |c| c.excess);
        let mut ranked: Vec<(f64, u32)> = (0..self.demands.len() as u32).map(|n| (excess(n), n)).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.into_iter().map(|(_, n)| n).collect()
    }
}

/// One step; `ahead` is how much lower the bound is hoped to be.
fn advance(prices: &mut Prices, used: &[Vec<f64>; 4], capacity: &[&[i64]; 4], ahead: f64) {
    // The slope of the bound along each resource, as part of its capacity; none where there is no limit.
    let slope = |capacity: i64, used: f64| {
        if capacity < UNLIMITED_BYTES / 2 { 1.0 - used / capacity.max(1) as f64 } else { 0.0 }
    };
    let mut norm = 0.0;
    for ((prices, used), capacity) in prices.raw.iter().zip(used).zip(capacity) {
        for ((price, used), capacity) in prices.iter().zip(used).zip(*capacity) {
            let s = slope(*capacity, *used);
            norm += if s < 0.0 || *price > 0.0 { s * s } else { 0.0 };
        }
    }
    if norm <= 0.0 {
        return;
    }
    let length = ahead / norm;
    for ((prices, used), capacity) in prices.raw.iter_mut().zip(used).zip(capacity) {
        for ((price, used), capacity) in prices.iter_mut().zip(used).zip(*capacity) {
            *price = (*price - length * slope(*capacity, *used) / (*capacity).max(1) as f64).max(0.0);
        }
    }
}

fn blend(mean: &mut Prices, new: &Prices, weight: f64) {
    for (mean, new) in mean.raw.iter_mut().zip(&new.raw) {
        mean.iter_mut().zip(new).for_each(|(m, n)| *m += weight * (n - *m));
    }
}
