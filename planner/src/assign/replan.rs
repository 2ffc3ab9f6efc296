//! The next assignment from the one before: what is still wanted stays where it is, what changed finds a place.
//!
//! A demand that changed may push out what is worth less per byte, but only out of the slots that it can use, and
//! only as much as it needs; what was pushed out looks for another place once. So an assignment changes about as
//! much as its demands do.

use super::fill::Filling;
use super::{Assignment, Instance, Part};

impl Instance {
    /// An assignment for demands of which `changed` differ from those that `before` was made for.
    pub fn replan(&self, before: &Assignment, changed: &[u32]) -> Assignment {
        let mut fresh = vec![false; self.demands.len()];
        changed.iter().for_each(|n| fresh[*n as usize] = true);
        let mut filling = Filling::new(self);
        for part in before.parts.iter().filter(|p| !fresh[p.demand as usize]) {
            filling.keep(*part);
        }
        let mut order: Vec<(f64, u32)> = fresh
            .iter()
            .enumerate()
            .filter(|(_, fresh)| **fresh)
            .map(|(n, _)| (self.best_density(n as u32), n as u32))
            .filter(|(density, _)| *density > 0.0)
            .collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut cheap = Cheapest::new(self, &filling);
        for (density, n) in order {
            let left = filling.put_late(n);
            if left > 0 {
                self.push_out(&mut filling, &mut cheap, n, (density, left));
            }
        }
        filling.done()
    }

    /// Frees slots of what is worth less, then places the rest of the demand, then what was pushed out.
    fn push_out(&self, filling: &mut Filling<'_>, cheap: &mut Cheapest, number: u32, (density, left): (f64, u64)) {
        let d = &self.demands[number as usize];
        let mut pushed: Vec<Part> = Vec::new();
        let mut freed = 0;
        for &lane in &self.ways[d.ways as usize] {
            for slot in (d.release..=d.deadline).rev() {
                while freed < left
                    && let Some(part) = cheap.pop(lane, slot, density)
                {
                    let Some(given) = filling.drop_part(part) else { continue };
                    freed += given.bytes;
                    pushed.push(given);
                }
            }
        }
        filling.put_late_up_to(number, left);
        for part in pushed {
            filling.put_late_up_to(part.demand, part.bytes);
        }
    }
}

/// Parts by lane and slot, the least worth per byte last. Made once a replanning, from what was kept.
struct Cheapest {
    slots: usize,
    parts: Vec<Vec<(f32, u32)>>,
}

impl Cheapest {
    fn new(instance: &Instance, filling: &Filling<'_>) -> Self {
        let slots = instance.ledger.slots();
        let mut parts = vec![Vec::new(); slots * instance.ledger.lanes().len()];
        for (at, part) in filling.parts.iter().enumerate() {
            let density = instance.density_of(part);
            parts[part.lane as usize * slots + part.slot as usize].push((density as f32, at as u32));
        }
        Self { slots, parts }
    }

    /// The least worthy part there, if it is worth less than `density`.
    fn pop(&mut self, lane: u32, slot: u16, density: f64) -> Option<u32> {
        let here = &mut self.parts[lane as usize * self.slots + slot as usize];
        let least = (0..here.len()).min_by(|a, b| here[*a].0.total_cmp(&here[*b].0))?;
        (f64::from(here[least].0) < density).then(|| here.swap_remove(least).1)
    }
}
