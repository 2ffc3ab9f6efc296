//! The gate: how probable it is that a candidate is asked for in time, learned online.
//!
//! Logistic regression over hashed features. Each feature is one slot of a table of weights; the log odds are the sum
//! of its slots. Learning is one step per label, with a rate that falls with how often a slot was taught (AdaGrad),
//! down to a floor, so that a change of habit is followed.

/// Features of one candidate.
const FEATURES: usize = 11;
/// Slots of the table, as a power of two, at least and at most: in a small one, what is known of single blocks drowns
/// what holds for all.
const LEAST_BITS: u32 = 12;
const MOST_BITS: u32 = 17;
/// Bytes of a slot: its weight, and how much it was taught.
const SLOT_BYTES: usize = 2 * size_of::<f32>();

/// The rate of a slot that was never taught, and the least.
const RATE: f32 = 0.3;
const LEAST_RATE: f32 = 0.02;

/// The weight of a slot that was never taught: a candidate of which nothing is known is believed to a third, which
/// is not enough to be fetched at the start.
const UNPROVEN: f32 = -0.055;

/// The slots of a candidate's features.
pub(super) type Features = [u32; FEATURES];

/// The gate.
pub(super) struct Gate {
    weights: Vec<f32>,
    taught: Vec<f32>,
    bits: u32,
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
    /// A gate that was taught nothing, of about so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let bits = (bytes / SLOT_BYTES).max(1).ilog2().clamp(LEAST_BITS, MOST_BITS);
        Self { weights: vec![UNPROVEN; 1 << bits], taught: vec![0.0; 1 << bits], bits }
    }

    /// The slot of a value of a field.
    #[inline]
    fn slot(&self, field: u32, value: u32) -> u32 {
        // The upper bits of a product depend on all bits of the value; fields are set apart by an odd step each.
        let mixed = value.wrapping_add(field.wrapping_mul(0x632B_E5AB)).wrapping_mul(0x9E37_79B1);
        mixed >> (u32::BITS - self.bits)
    }

    /// Finds the slots of these values, those of fields that follow each other from `field` on, and returns what they add to
    /// the log odds.
    #[inline]
    pub(super) fn look_up<const N: usize>(&self, field: usize, values: [u32; N], slots: &mut Features) -> f32 {
        let mut sum = 0.0;
        for (nth, value) in values.into_iter().enumerate() {
            let slot = self.slot((field + nth) as u32, value);
            slots[field + nth] = slot;
            sum += self.weights[slot as usize];
        }
        sum
    }

    /// The log odds that a candidate with these features is asked for in time; of some of its features, what they add.
    #[inline]
    pub(super) fn log_odds(&self, features: &[u32]) -> f32 {
        features.iter().map(|f| self.weights[*f as usize]).sum()
    }

    /// Takes what became of one.
    pub(super) fn teach(&mut self, features: &Features, came: bool, weight: f32) {
        let error = (f32::from(u8::from(came)) - probability(self.log_odds(features))) * weight;
        for f in features {
            let (w, n) = (&mut self.weights[*f as usize], &mut self.taught[*f as usize]);
            *n += error * error;
            *w += (RATE / (1.0 + *n).sqrt()).max(LEAST_RATE) * error;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.weights.len() * SLOT_BYTES
    }
}
