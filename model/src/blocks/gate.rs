//! The gate: how probable it is that a candidate is asked for in time, learned online.
//!
//! Logistic regression over hashed features. Each feature is one slot of a table of weights; the log odds are the sum
//! of its slots. Learning is one step per label, with a rate that falls with how often a slot was taught (AdaGrad),
//! down to a floor, so that a change of habit is followed.

/// Features of one candidate.
pub(super) const FEATURES: usize = 12;
/// Slots of the table: a power of two.
const SLOTS: usize = 1 << 13;

/// The rate of a slot that was never taught, and the least.
const RATE: f32 = 0.3;
const LEAST_RATE: f32 = 0.02;

/// The slots of a candidate's features.
pub(super) type Features = [u16; FEATURES];

/// The gate.
pub(super) struct Gate {
    weights: Vec<f32>,
    taught: Vec<f32>,
}

/// The slot of a value of a field.
pub(super) fn slot(field: u32, value: u32) -> u16 {
    let mixed = (field.wrapping_mul(0x9E37_79B1) ^ value).wrapping_mul(0x85EB_CA6B);
    (((mixed ^ (mixed >> 15)).wrapping_mul(0xC2B2_AE35) >> 19) as usize % SLOTS) as u16
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { weights: vec![0.0; SLOTS], taught: vec![0.0; SLOTS] }
    }

    fn odds(&self, features: &Features) -> f32 {
        features.iter().map(|f| self.weights[*f as usize]).sum()
    }

    /// The probability of a candidate with these features.
    pub(super) fn probability(&self, features: &Features) -> f32 {
        1.0 / (1.0 + (-self.odds(features)).exp())
    }

    /// Takes what became of one.
    pub(super) fn teach(&mut self, features: &Features, came: bool, weight: f32) {
        let error = (f32::from(u8::from(came)) - self.probability(features)) * weight;
        for f in features {
            let (w, n) = (&mut self.weights[*f as usize], &mut self.taught[*f as usize]);
            *n += error * error;
            *w += (RATE / (1.0 + *n).sqrt()).max(LEAST_RATE) * error;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        2 * SLOTS * size_of::<f32>()
    }
}
