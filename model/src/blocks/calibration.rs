//! How well probabilities are kept: of what was believed to three tenths, three tenths should come.

/// Bins of equal width over the probabilities.
const BINS: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    said: f64,
    came: f64,
    weight: f64,
}

/// Probabilities that were said, and what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

impl Calibration {
    /// Takes a probability and whether it came true; `weight` stands for as many as were not followed beside it.
    pub(super) fn take(&mut self, probability: f32, came: bool, weight: f64) {
        let bin = &mut self.bins[bin_of(probability)];
        bin.said += weight * f64::from(probability);
        bin.came += weight * f64::from(u8::from(came));
        bin.weight += weight;
    }

    /// What was said after an earlier state of the same.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut out = *self;
        for (bin, before) in out.bins.iter_mut().zip(&earlier.bins) {
            bin.said -= before.said;
            bin.came -= before.came;
            bin.weight -= before.weight;
        }
        out
    }

    /// Expected calibration error: the mean distance, over all that was said, between the probability and the share that
    /// came, bin by bin. Between 0 and 1; 0 where nothing was said.
    pub fn error(&self) -> f64 {
        let all: f64 = self.bins.iter().map(|b| b.weight).sum();
        self.bins.iter().map(|b| (b.said - b.came).abs()).sum::<f64>() / all.max(1.0)
    }
}

/// The bin of a probability.
pub(super) fn bin_of(probability: f32) -> usize {
    ((probability * BINS as f32) as usize).min(BINS - 1)
}

/// What the gate believes is put right by what came of as much belief before: each bin has a bias, learned as it shows, so
/// that it is felt when the habits of a program change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Correction {
    bias: [f32; BINS],
    taught: [f32; BINS],
}

/// The least rate at which a bias follows.
const LEAST_RATE: f32 = 0.0003;

impl Correction {
    /// The probability to say for what is believed.
    pub(super) fn corrected(&self, believed: f32) -> f32 {
        (believed + self.bias[bin_of(believed)]).clamp(0.0, 1.0)
    }

    /// Takes what was said for a belief in this bin, and whether it came; `weight` as in [`Calibration::take`].
    pub(super) fn take(&mut self, bin: usize, said: f32, came: bool, weight: f32) {
        self.taught[bin] += weight;
        let rate = (weight / self.taught[bin]).max(LEAST_RATE * weight);
        self.bias[bin] += rate * (f32::from(u8::from(came)) - said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_belief_that_is_always_too_strong_is_said_as_it_turns_out_and_follows_a_change() {
        let mut correction = Correction::default();
        let mut play = |every: u32| {
            for i in 0..20_000 {
                let said = correction.corrected(0.65);
                correction.take(bin_of(0.65), said, i % every == 0, 1.0);
            }
            correction.corrected(0.65)
        };
        assert!((play(4) - 0.25).abs() < 0.02);
        assert!((play(1) - 1.0).abs() < 0.02);
        assert_eq!(correction.corrected(0.95), 0.95, "of others nothing is known");
    }

    #[test]
    fn what_comes_as_often_as_it_was_said_has_no_error() {
        let mut calibration = Calibration::default();
        (0..100).for_each(|i| calibration.take(0.25, i % 4 == 0, 1.0));
        assert!(calibration.error() < 1e-6);
        let before = calibration;
        (0..100).for_each(|_| calibration.take(0.9, false, 2.0));
        assert!((calibration.since(&before).error() - 0.9).abs() < 1e-6);
        assert!((calibration.error() - 0.6).abs() < 1e-6);
    }
}
