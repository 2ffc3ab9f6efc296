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

/// Where an order is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Each of these seeds as that of a generator that draws first an order.
    Seeds(Range<u32>),
    /// Of a program's generator with this seed these numbers, each as the seed of another that draws.
    Numbers {
        /// The seed.
        seed: u32,
        /// Which numbers, counted from 0.
        numbers: Range<u64>,
    },
}

/// How far seeds are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// All seeds below this.
    pub seeds: u32,
    /// So many numbers of the generators that numbers of the command line seed.
    pub numbers: u64,
}

impl Effort {
    /// While nobody waits: a second or two for each run of which nothing is recognised.
    pub const THOROUGH: Self = Self { seeds: 1 << 20, numbers: 1 << 18 };
    /// Between two forecasts: a few milliseconds.
    pub const BRIEF: Self = Self { seeds: 1 << 13, numbers: 0 };

    /// The fields that are tried with these numbers on the command line, the likeliest first.
    pub fn fields(self, said: &[u32]) -> Vec<Field> {
        /// Seeds below this are the likeliest that people choose.
        const SMALL: u32 = 4096;
        let small = SMALL.min(self.seeds);
        let itself = said.iter().map(|seed| Field::Seeds(*seed..seed.saturating_add(1)));
        let by_program = said.iter().map(|seed| Field::Numbers { seed: *seed, numbers: 0..self.numbers });
        let fields = itself.chain([Field::Seeds(0..small)]).chain(by_program).chain([Field::Seeds(small..self.seeds)]);
        fields.filter(|field| field.tries() > 0).collect()
    }
}

impl Field {
    /// How many tries it is.
    pub fn tries(&self) -> u64 {
        match self {
            Self::Seeds(seeds) => seeds.len() as u64,
            Self::Numbers { numbers, .. } => numbers.end - numbers.start,
        }
    }

    /// At most so many tries of it, the first `from` left out.
    pub fn part(&self, from: u64, most: u64) -> Self {
        let to = self.tries().min(from.saturating_add(most));
        match self {
            Self::Seeds(seeds) => Self::Seeds(seeds.start + from as u32..seeds.start + to as u32),
            Self::Numbers { seed, numbers } => {
                Self::Numbers { seed: *seed, numbers: numbers.start + from..numbers.start + to }
            }
        }
    }
}

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

    /// Tries what lies in a field.
    pub fn try_field(&mut self, field: &Field, taken: &Taken) {
        match field.clone() {
            Field::Seeds(seeds) => self.scan(seeds.map(|seed| (Draw::first_of(seed), seed)), taken),
            Field::Numbers { seed, numbers } => {
                let mut generator = Twister::new(seed);
                generator.skip(numbers.start);
                self.scan(numbers.map(|skip| (Draw { seed, skip, by: By::Seed }, generator.number())), taken);
            }
        }
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
