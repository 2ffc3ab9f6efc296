//! Probabilities that come true as often as they say.
//!
//! A forest's answers order files well, and say too little of the sure and too much of the doubtful. Isotonic regression
//! (linfa) of what a held-back run read on what was said of it keeps the order and corrects the sizes.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_linear::{FittedIsotonicRegression, IsotonicRegression};
use ndarray::{Array1, Array2};

/// Fewest answers, of either kind, from which anything can be learned.
const LEAST: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Calibrator {
    fitted: Option<FittedIsotonicRegression<f64>>,
    /// As sure as so many answers can make one.
    surest: f64,
}

impl Calibrator {
    /// From what was said and whether it was so. From too few answers, and where what was said tells nothing, it learns
    /// nothing.
    pub fn fit(answers: &[(f64, bool)]) -> Self {
        let mean = |so: bool| {
            let said: Vec<f64> = answers.iter().filter(|a| a.1 == so).map(|a| a.0).collect();
            (said.len() >= LEAST).then(|| said.iter().sum::<f64>() / said.len() as f64)
        };
        if !mean(true).zip(mean(false)).is_some_and(|(so, not)| so > not) {
            return Self::default();
        }
        // What was said several times is one point with a weight: linfa takes equal points for rising ones.
        let mut points: Vec<(f64, f64, f32)> = Vec::new();
        let mut sorted = answers.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (said, so) in sorted {
            match points.last_mut().filter(|p| p.0 == said) {
                Some((_, share, weight)) => {
                    *weight += 1.0;
                    *share += (f64::from(u8::from(so)) - *share) / f64::from(*weight);
                }
                None => points.push((said, f64::from(u8::from(so)), 1.0)),
            }
        }
        let said = Array2::from_shape_fn((points.len(), 1), |(i, _)| points[i].0);
        let so = Array1::from_iter(points.iter().map(|p| p.1));
        let weights = Array1::from_iter(points.iter().map(|p| p.2));
        let fitted = IsotonicRegression::new().fit(&DatasetBase::new(said, so).with_weights(weights)).ok();
        Self { fitted, surest: 1.0 - 1.0 / (answers.len() + 2) as f64 }
    }

    /// The probabilities for what was said; the same if nothing was learned.
    pub fn probabilities(&self, said: &[f64]) -> Vec<f64> {
        let Some(fitted) = self.fitted.as_ref().filter(|_| !said.is_empty()) else { return said.to_vec() };
        let column = Array2::from_shape_fn((said.len(), 1), |(i, _)| said[i]);
        fitted.predict(&column).iter().map(|p| p.clamp(1.0 - self.surest, self.surest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_too_timidly_becomes_as_sure_as_it_was_right() {
        // Of what was said with .6 all was so, of .4 a quarter, of .2 nothing.
        let answers: Vec<(f64, bool)> =
            (0..120).map(|i| [(0.6, true), (0.4, i % 4 == 0), (0.2, false)][i / 40]).collect();
        let told = Calibrator::fit(&answers).probabilities(&[0.9, 0.6, 0.4, 0.2, 0.1]);
        assert!(told[0] > 0.98 && told[1] > 0.98 && told[0] < 1.0, "{told:?}");
        assert!((told[2] - 0.25).abs() < 0.01, "{told:?}");
        assert!(told[3] < 0.02 && told[4] < 0.02 && told[4] > 0.0, "{told:?}");
        assert!(told.is_sorted_by(|a, b| a >= b), "the order stays");
    }

    #[test]
    fn what_is_out_of_order_is_evened_out() {
        // Of .3 half was so, of .5 a quarter, of .9 all: the first two are worth the same.
        let answers: Vec<(f64, bool)> =
            (0..120).map(|i| [(0.3, i % 2 == 0), (0.5, i % 4 == 0), (0.9, true)][i / 40]).collect();
        let told = Calibrator::fit(&answers).probabilities(&[0.3, 0.5, 0.9]);
        assert!((told[0] - 0.375).abs() < 0.01 && (told[1] - 0.375).abs() < 0.01 && told[2] > 0.98, "{told:?}");
    }

    #[test]
    fn what_tells_nothing_changes_nothing() {
        let few = [(0.9, true), (0.1, false)];
        let same: Vec<_> = (0..100).map(|i| (0.5, i % 2 == 0)).collect();
        let wrong: Vec<_> = (0..100).map(|i| (f64::from(i) / 100.0, i < 50)).collect();
        for answers in [&few[..], &same, &wrong, &[]] {
            assert_eq!(Calibrator::fit(answers).probabilities(&[0.3, 0.7]), [0.3, 0.7]);
        }
    }
}
