//! The gate: how probable it is that a candidate is asked for in time, learned online.
//!
//! Logistic regression over hashed features. Each feature is one slot of a table of weights; the log odds are the sum
//! of its slots. Learning is one step per label, with a rate that falls with how often a slot was taught (AdaGrad),
//! down to a floor, so that a change of habit is followed.

/// Features of one candidate.
pub(super) const FEATURES: usize = 12;
/// Slots of the table, as a power of two.
const SLOT_BITS: u32 = 13;
const SLOTS: usize = 1 << SLOT_BITS;

/// The rate of a slot that was never taught, and the least.
const RATE: f32 = 0.3;
const LEAST_RATE: f32 = 0.02;

/// The weight of a slot that was never taught: a candidate of which nothing is known is believed to two fifths, which
/// is not enough to be fetched at the start.
const UNPROVEN: f32 = -0.04;

/// The slots of a candidate's features.
pub(super) type Features = [u16; FEATURES];

/// The gate.
pub(super) struct Gate {
    weights: Box<[f32; SLOTS]>,
    /// How often and how wrongly each was taught. Apart: most of what is asked is only weighed.
    taught: Box<[f32; SLOTS]>,
}

/// The slot of a value of a field.
#[inline]
pub(super) fn slot(field: u32, value: u32) -> u16 {
    // The upper bits of a product depend on all bits of the value; fields are set apart by an odd step each.
    let mixed = value.wrapping_add(field.wrapping_mul(0x632B_E5AB)).wrapping_mul(0x9E37_79B1);
    (mixed >> (u32::BITS - SLOT_BITS)) as u16
}

/// The log odds of a probability.
pub(super) fn log_odds(probability: f32) -> f32 {
    (probability / (1.0 - probability)).ln()
}

/// The probability of log odds.
pub(super) fn probability(log_odds: f32) -> f32 {
    1.0 / (1.0 + (-log_odds).exp())
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { weights: Box::new([UNPROVEN; SLOTS]), taught: Box::new([0.0; SLOTS]) }
    }

    /// The log odds that a candidate with these features is asked for in time.
    #[inline]
    pub(super) fn log_odds(&self, features: &Features) -> f32 {
        sum(&picked(&self.weights, features))
    }

    /// Takes what became of one. All slots are read before any is written, so that the arithmetic is done four at a time; of
    /// two features in one slot the later is learned.
    pub(super) fn teach(&mut self, features: &Features, came: bool, weight: f32) {
        let (mut weights, mut taught) = (picked(&self.weights, features), picked(&self.taught, features));
        let error = (f32::from(u8::from(came)) - probability(sum(&weights))) * weight;
        for (w, n) in weights.iter_mut().zip(&mut taught) {
            *n += error * error;
            *w += (RATE / (1.0 + *n).sqrt()).max(LEAST_RATE) * error;
        }
        for (f, (w, n)) in features.iter().zip(weights.into_iter().zip(taught)) {
            let slot = usize::from(*f) % SLOTS;
            (self.weights[slot], self.taught[slot]) = (w, n);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.weights) + size_of_val(&*self.taught)
    }
}

/// What a table holds in these slots. Their numbers are below [`SLOTS`]; the remainder tells the compiler.
#[inline]
fn picked(table: &[f32; SLOTS], features: &Features) -> [f32; FEATURES] {
    features.map(|f| table[usize::from(f) % SLOTS])
}

/// The sum, in four lanes.
#[inline]
fn sum(weights: &[f32; FEATURES]) -> f32 {
    let mut lanes = [0.0; 4];
    for four in weights.as_chunks::<4>().0 {
        for (lane, weight) in lanes.iter_mut().zip(four) {
            *lane += weight;
        }
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}
