//! What links really carry, and how far away their other end really is.
//!
//! A link's rate is measured only while it is busy: between two arrivals that follow each other within
//! [`BUSY_GAP_S`], the bytes of the second crossed in that time or less. What a link carried while nothing more was to
//! be carried says nothing of what it could carry, so a stretch counts only if moves were waiting. Of the last minutes
//! the best stretch holds, as in BBR: a slow start or a reader who goes first must not talk a link down, for a plan that
//! asks for less than a link carries would never find out.
//!
//! A round trip is measured by reads of little that nobody had foreseen: they wait for one, and for their bytes. What waits
//! in a queue waits longer, so of the last minutes a wait holds that three in four exceed: not the least, for a read may
//! find a part of its bytes here.

use std::collections::VecDeque;

use foretide_flow::{BitsPerSecond, Link, Timestamp};

/// Arrivals within this time of each other belong to one busy stretch, seconds.
const BUSY_GAP_S: f64 = 1.0;
/// A busy stretch says what a link carries once it is this long, seconds.
const MEASURED_S: f64 = 2.0;
/// A measurement holds for so long, seconds; then the admin's word holds again.
const MEASUREMENT_HOLDS_S: f64 = 300.0;
/// Measurements of a link that are kept: five minutes of stretches.
const MAX_MEASUREMENTS: usize = 150;
/// Reads of up to so many bytes tell the round trip: at 1 Gbit/s they cross in two milliseconds.
const ASKING_BYTES: u64 = 256 << 10;
/// Waits that must be known before they are believed.
const BELIEVED_WAITS: usize = 8;
/// A measurement is at most this many times what the admin said, and at least one part in it of that: beyond, the
/// measurement or the admin is wrong, and neither is to be followed blindly.
const MAX_CORRECTION: f64 = 4.0;

/// What a link carried lately.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    began: Timestamp,
    latest: Timestamp,
    bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    stretch: Option<Stretch>,
    /// When it was measured, and what: bytes a second.
    rates: VecDeque<(Timestamp, f64)>,
    /// When somebody waited, for how many seconds and how many bytes.
    waits: VecDeque<(Timestamp, f64, u64)>,
}

impl Carried {
    /// Bytes of a move arrived, while others were `waiting` for the link or not.
    pub(super) fn arrived(&mut self, at: Timestamp, bytes: u64, waiting: bool) {
        let follows = |s: &Stretch| at >= s.latest && at.since(s.latest).as_secs_f64() <= BUSY_GAP_S;
        match self.stretch.filter(|s| waiting && follows(s)) {
            Some(s) => {
                let stretch = Stretch { latest: at, bytes: s.bytes + bytes, ..s };
                let seconds = at.since(s.began).as_secs_f64();
                if seconds >= MEASURED_S {
                    keep(&mut self.rates, (at, stretch.bytes as f64 / seconds));
                    self.stretch = Some(Stretch { began: at, latest: at, bytes: 0 });
                } else {
                    self.stretch = Some(stretch);
                }
            }
            // The first arrival began to cross nobody knows when: the clock starts with it.
            None => self.stretch = Some(Stretch { began: at, latest: at, bytes: 0 }),
        }
    }

    /// A reader waited for bytes that nobody had asked for.
    pub(super) fn waited(&mut self, at: Timestamp, waited_us: u64, bytes: u64) {
        if (1..=ASKING_BYTES).contains(&bytes) {
            keep(&mut self.waits, (at, waited_us as f64 / 1e6, bytes));
        }
    }

    /// The link as it was measured lately.
    pub(super) fn measured(&self, told: &Link, now: Timestamp) -> Link {
        let holds = |at: Timestamp| now.since(at).as_secs_f64() <= MEASUREMENT_HOLDS_S;
        let mut link = told.clone();
        if let Some(rate) = self.rates.iter().filter(|(at, _)| holds(*at)).map(|m| m.1).max_by(f64::total_cmp) {
            link.rate = BitsPerSecond(near(rate * 8.0, told.rate.0 as f64).max(1.0) as u64);
        }
        let waits = self.waits.iter().filter(|(at, _, _)| holds(*at));
        let mut trips_s: Vec<f64> = waits.map(|(_, s, bytes)| (s - link.rate.seconds_for(*bytes)).max(0.0)).collect();
        if trips_s.len() >= BELIEVED_WAITS {
            trips_s.sort_by(f64::total_cmp);
            link.rtt_ms = near(trips_s[trips_s.len() / 4] * 1e3, told.rtt_ms);
        }
        link
    }
}

fn keep<T>(measurements: &mut VecDeque<T>, new: T) {
    if measurements.len() == MAX_MEASUREMENTS {
        measurements.pop_front();
    }
    measurements.push_back(new);
}

fn near(measured: f64, told: f64) -> f64 {
    measured.clamp(told / MAX_CORRECTION, told * MAX_CORRECTION)
}
