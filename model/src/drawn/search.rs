//! Seeds that are tried, and what each would have drawn.
//!
//! The first number of a generator needs two thirds of its seeding and nothing else, and the first file of an order needs
//! no other number: so most seeds are refused by one number, several of them side by side, and only the rest are drawn
//! further, as far as they fit.

use std::ops::Range;

use foretide_draw::{Twister, beginning, first_numbers};
use serde::{Deserialize, Serialize};

use super::fit::{Fit, Taken};
use super::{BELIEVED, By, Draw, Place};

/// Seeds tried side by side.
const LANES: usize = 8;

/// The surest of the places that were tried, and how many those were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Surest {
    tried: u64,
    found: Option<(Place, u32, f64)>,
}

impl Surest {
    /// Takes note that so many places were tried, of which one may fit.
    pub fn tried(&mut self, places: u64, fits: Option<(Place, Fit)>) {
        self.tried += places;
        if let Some((place, fit)) = fits {
            let doubt = fit.doubt + (self.tried as f64).ln();
            if self.found.is_none_or(|(_, _, before)| doubt < before) {
                self.found = Some((place, fit.slack, doubt));
            }
        }
    }

    /// The surest place, and how it may be doubted for all that was tried before it.
    pub fn found(&self) -> Option<(Place, Fit)> {
        self.found.map(|(place, slack, doubt)| (place, Fit { slack, doubt }))
    }

    /// Whether there is nothing more to look for.
    pub fn is_sure(&self) -> bool {
        self.found.is_some_and(|(_, _, doubt)| doubt <= BELIEVED)
    }

    /// Tries these seeds, each as that of a generator that draws first an order.
    pub fn try_seeds(&mut self, seeds: Range<u32>, taken: &Taken) {
        self.scan(seeds.map(|seed| (Draw::first_of(seed), seed)), taken);
    }

    /// Tries these numbers of a program's generator, each as the seed of another that draws.
    pub fn try_numbers(&mut self, seed: u32, numbers: Range<u64>, taken: &Taken) {
        let mut generator = Twister::new(seed);
        generator.skip(numbers.start);
        self.scan(numbers.map(|skip| (Draw { seed, skip, by: By::Seed }, generator.number())), taken);
    }

    fn scan(&mut self, mut draws: impl Iterator<Item = (Draw, u32)>, taken: &Taken) {
        while !self.is_sure() {
            let lanes: Vec<(Draw, u32)> = draws.by_ref().take(LANES).collect();
            if lanes.is_empty() {
                return;
            }
            let seeds: [u32; LANES] = std::array::from_fn(|lane| lanes.get(lane).map_or(0, |(_, seed)| *seed));
            for ((draw, seed), number) in lanes.into_iter().zip(first_numbers(seeds)) {
                let fits = taken.may_begin_with(number % taken.files());
                let fit = fits.then(|| taken.fit(beginning(&mut Twister::new(seed), taken.files()))).flatten();
                self.tried(1, fit.map(|fit| (Place { draw, offset: 0 }, fit)));
            }
        }
    }
}
