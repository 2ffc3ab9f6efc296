//! The time axis: slots that are narrow where reads are near and wide where forecasts are vague.
//!
//! Slot edges stand at multiples of their width since 1970, not at multiples since `now`. So the next plan, made a
//! few milliseconds later, has the same edges, the same deadlines fall into the same slots, and moves keep their
//! start times (stability) without any bookkeeping.

use foretide_flow::Timestamp;

/// Up to this distance from now, slots have this width; seconds. Each width divides the next, so an edge stays an
/// edge as it comes nearer.
const WIDTHS_S: [(f64, f64); 7] = [
    (1.0, 0.1),
    (10.0, 0.5),
    (60.0, 5.0),
    (600.0, 30.0),
    (7_200.0, 300.0),
    (86_400.0, 3_600.0),
    (f64::INFINITY, 21_600.0),
];

/// Consecutive slots from now to the horizon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// `edges[i]..edges[i + 1]` is slot `i`. At least two edges.
    edges: Vec<Timestamp>,
}

impl Grid {
    /// Slots from `now` to `horizon_s` seconds later.
    pub fn new(now: Timestamp, horizon_s: f64) -> Self {
        let end = Timestamp(now.0.saturating_add((horizon_s.max(1.0) * 1e6) as i64));
        let mut edges = vec![now];
        let mut at = now;
        while at < end {
            let ahead_s = (at.0 - now.0) as f64 / 1e6;
            let width_s = WIDTHS_S.iter().find(|(until, _)| ahead_s < *until).map_or(21_600.0, |(_, w)| *w);
            let width = (width_s * 1e6) as i64;
            at = Timestamp((at.0.div_euclid(width) + 1) * width).min(end);
            edges.push(at);
        }
        Self { edges }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.edges.len() - 1
    }

    /// When a slot begins.
    pub fn start(&self, slot: usize) -> Timestamp {
        self.edges[slot]
    }

    /// When a slot ends.
    pub fn end(&self, slot: usize) -> Timestamp {
        self.edges[slot + 1]
    }

    /// Seconds that a slot lasts.
    pub fn seconds(&self, slot: usize) -> f64 {
        (self.end(slot).0 - self.start(slot).0) as f64 / 1e6
    }

    /// The horizon.
    pub fn horizon(&self) -> Timestamp {
        self.edges[self.slots()]
    }

    /// The slot that holds `at`; the first if it is past, the last if it is beyond the horizon.
    pub fn slot_at(&self, at: Timestamp) -> usize {
        self.edges.partition_point(|e| *e <= at).saturating_sub(1).min(self.slots() - 1)
    }

    /// The last slot that has ended by `at`; none if not even the first has.
    pub fn ended_by(&self, at: Timestamp) -> Option<usize> {
        self.edges.partition_point(|e| *e <= at).min(self.slots() + 1).checked_sub(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_stay_where_they_are_as_time_goes_on() {
        let a = Grid::new(Timestamp(1_000_000_300), 86_400.0);
        let b = Grid::new(Timestamp(1_000_040_000), 86_400.0);
        assert_eq!(a.edges[1..16], b.edges[1..16]);
        assert!(a.slots() < 120, "{}", a.slots());
    }

    proptest! {
        #[test]
        fn slots_tile_the_horizon(now in -1_000_000_000i64..2_000_000_000_000_000, horizon in 1.0f64..1e6, probe in 0.0f64..1.1) {
            let g = Grid::new(Timestamp(now), horizon);
            prop_assert!(g.edges.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(g.start(0), Timestamp(now));
            let at = Timestamp(now + (horizon * probe * 1e6) as i64);
            let s = g.slot_at(at);
            prop_assert!(g.start(s) <= at);
            prop_assert!(at < g.end(s) || s == g.slots() - 1);
            match g.ended_by(at) {
                Some(s) => prop_assert!(g.end(s) <= at && (s + 1 == g.slots() || g.end(s + 1) > at)),
                None => prop_assert!(at < g.end(0)),
            }
        }
    }
}
