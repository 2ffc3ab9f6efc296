//! Prices of resources, and the bound that they prove.
//!
//! For prices `p >= 0` of every link slot, egress, ingress and cache slot,
//! `bound(p) = sum(capacity * p) + sum over demands of bytes * max(0, best excess)`
//! is at least the worth of every assignment (weak duality). The lower the bound, the better the prices.
//!
//! The descent is the volume algorithm (Barahona and Anbil, 2000). A step looks at what the demands would take at
//! its prices; the mean of that over the last steps says which way to go, from the best prices known, and by
//! Polyak's length, towards the best assignment known. Single steps swing, their mean does not; and the mean of what
//! each demand chose is nearly an optimal assignment, for the one thing that prices alone cannot say is how demands
//! share what is exactly worth its price. A price moves by how far its resource is overfilled, as part of its capacity:
//! prices are money a byte everywhere, so a cache, a wide slot and a narrow one go by equal steps.

use super::memory::{Memory, NOTHING};
use super::prices::Prices;
use super::{Assignment, Demand, Instance};
use crate::ledger::UNLIMITED_BYTES;

/// Weight of the newest step in the running mean.
const MEAN_WEIGHT: f64 = 0.2;
/// Steps without a better bound after which the step is shortened.
const PATIENCE_STEPS: u32 = 4;
/// What a step is shortened to, and lengthened to when it found a better bound.
const SHORTER: f64 = 0.7;
const LONGER: f64 = 1.1;
/// A step is at most this many times Polyak's: two is where it stops converging.
const LONGEST: f64 = 1.9;
/// Steps before the first try to make an assignment of what was learned; from one to the next they double.
const FIRST_FILL: u32 = 16;
/// A resource that is asked for many times over is asked for this many times in one step, so that no single one
/// decides how long the step is.
const STEEPEST: f64 = 20.0;

/// Demands of a sample: hundreds for each link, so that a sample's prices are a few percent off.
const SAMPLE_DEMANDS: usize = 10_000;
/// Steps down the dual of a sample.
const SAMPLE_STEPS: u32 = 200;
/// From this many demands on, half of them are looked at by a second thread; below it, starting one costs more.
const MANY_DEMANDS: usize = 50_000;

/// What demands would take of each resource, laid out as in the ledger.
type Used = [Vec<f64>; 4];

impl Instance {
    /// The best of the greedy and of assignments made from prices, with the bound that the prices prove.
    ///
    /// Work grows with `steps` times demands times ways; the same input gives the same answer. Where there are many
    /// demands, prices are first found for a sample of them over a part of the resources: prices are a matter of how many
    /// want how much, and a sample says that nearly as well.
    pub fn priced(&self, steps: u32) -> Assignment {
        let greedy = self.greedy();
        self.descend(self.first_prices(&greedy), greedy, steps, true).1
    }

    /// The greedy assignment with a bound that is proved in the same way: cheaper than [`Instance::priced`] by the
    /// assignments that are not made.
    pub fn certified(&self, steps: u32) -> Assignment {
        let greedy = self.greedy();
        self.descend(self.first_prices(&greedy), greedy, steps, false).1
    }

    fn first_prices(&self, greedy: &Assignment) -> Prices {
        let every = self.demands.len() / SAMPLE_DEMANDS;
        if every > 1 {
            let sample = self.sample(every);
            let greedy = sample.greedy();
            return sample.descend(sample.marked(&greedy), greedy, SAMPLE_STEPS, false).0;
        }
        self.marked(greedy)
    }

    /// One demand of so many, as chance would pick them, over as much less of everything.
    fn sample(&self, every: usize) -> Instance {
        let picked = |n: &usize| (*n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 < (1 << 32) / every as u64;
        Instance {
            ledger: self.ledger.part(every as i64),
            cost: self.cost.clone(),
            ways: self.ways.clone(),
            grain_bytes: self.grain_bytes,
            demands: (0..self.demands.len()).filter(picked).map(|n| self.demands[n]).collect(),
        }
    }

    /// Better prices than these, and the bound with the best assignment: the greedy one, or one that was made of prices
    /// if any are to be `made`.
    fn descend(&self, first: Prices, greedy: Assignment, steps: u32, made: bool) -> (Prices, Assignment) {
        let (mut center, mut best) = (first, greedy);
        let capacity = self.ledger.resources();
        let mut memory = Memory::new(self.demands.len());
        let (mut bound, mut mean) = self.evaluate(&center, memory.step(1.0));
        let mut trial = center.clone();
        let (mut length, mut in_vain, mut fill_after) = (1.0, 0, FIRST_FILL);
        for step in 1..steps {
            if bound - best.worth <= 1e-6 * bound.abs() {
                break;
            }
            trial.raw.clone_from(&center.raw);
            step_down(&mut trial, &mean, &capacity, length * (bound - best.worth));
            trial.settle();
            let (value, used) = self.evaluate(&trial, memory.step(MEAN_WEIGHT));
            blend(&mut mean, &used);
            if value < bound {
                (bound, in_vain) = (value, 0);
                std::mem::swap(&mut center, &mut trial);
                length = (length * LONGER).min(LONGEST);
            } else {
                in_vain += 1;
                if in_vain == PATIENCE_STEPS {
                    (length, in_vain) = (length * SHORTER, 0);
                }
            }
            if made && (step + 1 == fill_after || step + 1 == steps) {
                fill_after *= 2;
                let order = self.order(&center);
                let (shared, priced) = two(
                    || self.fill_shared(&order, &center, &memory),
                    || self.fill_priced(&order, &center),
                    self.demands.len() >= MANY_DEMANDS,
                );
                for tried in [shared, priced] {
                    if tried.worth > best.worth {
                        best = tried;
                    }
                }
            }
        }
        (center, Assignment { bound, ..best })
    }

    /// The bound of these prices, and what the demands' choices would take of each resource.
    fn evaluate(&self, prices: &Prices, chosen: &mut [u32]) -> (f64, Used) {
        // Always the same halves, so that sums do not depend on the machine.
        let half = if self.demands.len() < MANY_DEMANDS { self.demands.len() } else { self.demands.len() / 2 };
        let (near, far) = chosen.split_at_mut(half);
        let ((mut value, mut used), (more, also_used)) = two(
            || self.choose_all(&self.demands[..half], prices, near),
            || self.choose_all(&self.demands[half..], prices, far),
            half < self.demands.len(),
        );
        value += more;
        used.iter_mut().zip(also_used).for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += b));
        for (raw, capacity) in prices.raw.iter().zip(self.ledger.resources()) {
            let costs = raw.iter().zip(capacity).filter(|(p, _)| **p > 0.0);
            value += costs.map(|(p, c)| p * (*c).max(0) as f64).sum::<f64>();
        }
        used[3].chunks_mut(prices.slots).for_each(|row| {
            (1..row.len()).for_each(|slot| row[slot] += row[slot - 1]);
        });
        (value, used)
    }

    /// What each of these demands would choose, what they earn beyond the prices, and what they would take; of caches
    /// the change from slot to slot.
    fn choose_all(&self, demands: &[Demand], prices: &Prices, chosen: &mut [u32]) -> (f64, Used) {
        let mut used: Used = self.ledger.resources().map(|r| vec![0.0; r.len()]);
        let (mut earned, n) = (0.0, prices.slots);
        for (d, chosen) in demands.iter().zip(chosen) {
            let Some(c) = self.choose(d, prices).filter(|c| c.excess > 0.0) else {
                *chosen = NOTHING;
                continue;
            };
            *chosen = c.lane * n as u32 + c.slot as u32;
            let bytes = d.bytes as f64;
            earned += c.excess * bytes;
            let (from, to) = prices.lanes[c.lane as usize];
            used[0][c.lane as usize * n + c.slot] += bytes;
            used[1][from * n + c.slot] += bytes;
            used[2][to * n + c.slot] += bytes;
            used[3][to * n + c.slot] += bytes;
            if (d.last_use as usize) + 1 < n {
                used[3][to * n + d.last_use as usize + 1] -= bytes;
            }
        }
        (earned, used)
    }

    /// Demands by what they earn beyond the prices, per byte.
    fn order(&self, prices: &Prices) -> Vec<u32> {
        let excess = |d: &Demand| self.choose(d, prices).map_or(f64::MIN, |c| c.excess);
        let mut ranked: Vec<(f64, u32)> = self.demands.iter().map(excess).zip(0..).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.into_iter().map(|(_, n)| n).collect()
    }
}

/// Does both, the second on a thread of its own if it is worth one.
fn two<A, B: Send>(first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send, apart: bool) -> (A, B) {
    if !apart {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        match second.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The slope of the bound along a resource, as part of its capacity; none where there is no limit or nothing left.
fn slope(capacity: i64, used: f64) -> f64 {
    let limited = 0 < capacity && capacity < UNLIMITED_BYTES / 2;
    if limited { (1.0 - used / capacity as f64).max(-STEEPEST) } else { 0.0 }
}

/// One step; `ahead` is how much lower the bound is hoped to be.
fn step_down(prices: &mut Prices, used: &Used, capacity: &[&[i64]; 4], ahead: f64) {
    let mut norm = 0.0;
    for ((prices, used), capacity) in prices.raw.iter().zip(used).zip(capacity) {
        for ((price, used), capacity) in prices.iter().zip(used).zip(*capacity) {
            let s = slope(*capacity, *used);
            norm += if s < 0.0 || *price > 0.0 { s * s * (*capacity).max(0) as f64 } else { 0.0 };
        }
    }
    if norm <= 0.0 {
        return;
    }
    let length = ahead / norm;
    for ((prices, used), capacity) in prices.raw.iter_mut().zip(used).zip(capacity) {
        for ((price, used), capacity) in prices.iter_mut().zip(used).zip(*capacity) {
            *price = (*price - length * slope(*capacity, *used)).max(0.0);
        }
    }
}

fn blend(mean: &mut Used, new: &Used) {
    for (mean, new) in mean.iter_mut().zip(new) {
        mean.iter_mut().zip(new).for_each(|(m, n)| *m += MEAN_WEIGHT * (n - *m));
    }
}
