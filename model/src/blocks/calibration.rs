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
        let bin = &mut self.bins[((probability * BINS as f32) as usize).min(BINS - 1)];
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

#[cfg(test)]
mod tests {
    use super::*;

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
