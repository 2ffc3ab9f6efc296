//! What demands chose on the way down: the mean of it is nearly an optimal assignment.

/// Steps that a mean remembers: what is older counts for less than a thirtieth.
const REMEMBERED_STEPS: usize = 32;
/// What each demand chose in the last steps.
pub(super) struct Memory {
    demands: usize,
    /// By step: how much it counts; all together at most 1.
    weights: [f64; REMEMBERED_STEPS],
    /// By step and demand: lane and slot as one number.
    chosen: Vec<u32>,
    next: usize,
}

/// A demand that chose nothing.
pub(super) const NOTHING: u32 = u32::MAX;

impl Memory {
    pub(super) fn new(demands: usize) -> Self {
        Self { demands, weights: [0.0; REMEMBERED_STEPS], chosen: Vec::new(), next: 0 }
    }

    /// Room for what is chosen in a step of weight `weight`; the oldest is forgotten.
    pub(super) fn step(&mut self, weight: f64) -> &mut [u32] {
        let at = self.next;
        self.next = (at + 1) % REMEMBERED_STEPS;
        self.weights.iter_mut().for_each(|w| *w *= 1.0 - weight);
        self.weights[at] = weight;
        if self.chosen.len() <= at * self.demands {
            self.chosen.resize((at + 1) * self.demands, NOTHING);
        }
        &mut self.chosen[at * self.demands..(at + 1) * self.demands]
    }

    /// Columns that a demand chose, with the share of the steps in which it did; the most frequent first.
    pub(super) fn shares(&self, number: u32, slots: usize, shares: &mut Vec<(f64, u32, u16)>) {
        shares.clear();
        let total: f64 = self.weights.iter().sum();
        for (step, row) in self.chosen.chunks_exact(self.demands.max(1)).enumerate() {
            let code = row[number as usize];
            if code == NOTHING {
                continue;
            }
            let (lane, slot) = (code / slots as u32, (code % slots as u32) as u16);
            let share = self.weights[step] / total;
            match shares.iter_mut().find(|s| (s.1, s.2) == (lane, slot)) {
                Some(known) => known.0 += share,
                None => shares.push((share, lane, slot)),
            }
        }
        shares.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((b.2, a.1).cmp(&(a.2, b.1))));
    }
}
