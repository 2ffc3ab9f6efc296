//! Seeds that are tried, and what each would have drawn.
//!
//! The first number of PyTorch's generator needs two thirds of its seeding and nothing else, and the first file of its order
//! needs no other number: so most seeds are refused by one number, several of them side by side, and only the rest are
//! drawn further, as far as they fit. The others' generators are seeded to their end, several side by side, and then draw
//! until what they settle is not as it was taken: those that settle an order from its last place on are refused by a file
//! that was taken long before, after n/k numbers in the mean where k of n files were taken.
//!
//! *Shares.* Which ranks of how many programs would explain the files that were taken is asked of all shares at once: the
//! places in front of an order whose files were taken are bits, and a share fits if all of its places are among them.

use std::ops::Range;

use foretide_draw::{Drawer, Table, Twister, Way, beginning, first_numbers};
use serde::{Deserialize, Serialize};

use super::fit::{Fit, MISSED, SLACKS, Taken};
use super::{BELIEVED, By, Draw, Place, Share};

/// Seeds tried side by side.
const LANES: usize = 8;

/// Where an order is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Each of these seeds as that of a generator that draws first an order.
    Seeds {
        /// Which generator.
        by: By,
        /// The seeds.
        seeds: Range<u32>,
    },
    /// Of PyTorch's generator with this seed these numbers, each as the seed of another that draws.
    Numbers {
        /// The seed.
        seed: u32,
        /// Which numbers, counted from 0.
        numbers: Range<u64>,
    },
    /// Each of these seeds as that of an order of PyTorch's of which shares were taken.
    Shares(Range<u32>),
}

/// How far seeds are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// All seeds below this.
    pub seeds: u32,
    /// So many numbers of the generators that numbers of the command line seed.
    pub numbers: u64,
    /// Of seeds that are dearer than PyTorch's, as many as cost so much (see [`Field::price`]).
    pub work: u64,
}

impl Effort {
    /// While nobody waits: some seconds for each run of which nothing is recognised.
    pub const THOROUGH: Self = Self { seeds: 1 << 20, numbers: 1 << 21, work: 1 << 21 };
    /// Between two forecasts: some milliseconds.
    pub const BRIEF: Self = Self { seeds: 1 << 13, numbers: 0, work: 1 << 11 };

    /// The fields that are tried with these numbers on the command line, the likeliest first.
    pub fn fields(self, said: &[u32], taken: &Taken) -> Vec<Field> {
        /// Seeds below this are the likeliest that people choose.
        const SMALL: u32 = 4096;
        /// What the weights of small networks take, a number each. Those of large ones are tried last.
        const FEW: u64 = 1 << 18;
        let bound = |field: Field| self.seeds.min((self.work / field.price(taken)) as u32);
        let of = |by| move |seeds| Field::Seeds { by, seeds };
        let others = || By::OTHERS.map(|by| (of(by), bound(Field::Seeds { by, seeds: 0..0 })));
        let shares = bound(Field::Shares(0..0));
        let alone = |seed: &u32| *seed..seed.saturating_add(1);
        let mut fields: Vec<Field> = said.iter().map(alone).map(of(By::Itself)).collect();
        fields.push(of(By::Itself)(0..SMALL.min(self.seeds)));
        for (of, bound) in others() {
            fields.extend(said.iter().map(alone).map(of));
            fields.push(of(0..SMALL.min(bound)));
        }
        fields.extend(said.iter().map(alone).map(Field::Shares));
        fields.push(Field::Shares(0..SMALL.min(shares)));
        let numbers = |numbers: Range<u64>| move |seed: &u32| Field::Numbers { seed: *seed, numbers: numbers.clone() };
        fields.extend(said.iter().map(numbers(0..FEW.min(self.numbers))));
        fields.push(of(By::Itself)(SMALL.min(self.seeds)..self.seeds));
        fields.extend(others().map(|(of, bound)| of(SMALL.min(bound)..bound)));
        fields.extend(said.iter().map(numbers(FEW.min(self.numbers)..self.numbers)));
        fields.retain(|field| field.tries() > 0);
        fields
    }
}

impl Field {
    /// How many tries it is.
    pub fn tries(&self) -> u64 {
        match self {
            Self::Seeds { seeds, .. } | Self::Shares(seeds) => seeds.len() as u64,
            Self::Numbers { numbers, .. } => numbers.end - numbers.start,
        }
    }

    /// At most so many tries of it, the first `from` left out.
    pub fn part(&self, from: u64, most: u64) -> Self {
        let to = self.tries().min(from.saturating_add(most));
        let of = |seeds: &Range<u32>| seeds.start + from as u32..seeds.start + to as u32;
        match self {
            Self::Seeds { by, seeds } => Self::Seeds { by: *by, seeds: of(seeds) },
            Self::Shares(seeds) => Self::Shares(of(seeds)),
            Self::Numbers { seed, numbers } => {
                Self::Numbers { seed: *seed, numbers: numbers.start + from..numbers.start + to }
            }
        }
    }

    /// What a try costs, in tries of a seed of PyTorch's (some 0.2 us): the seeding, and where an order is settled from its
    /// end the numbers until it is refused.
    pub fn price(&self, taken: &Taken) -> u64 {
        /// Numbers that cost as much as a seed of PyTorch's.
        const NUMBERS: u64 = 32;
        let until_refused = 2 * u64::from(taken.files()) / u64::from(taken.taken().max(1)) / NUMBERS;
        match self {
            Self::Numbers { .. } | Self::Seeds { by: By::Itself | By::Seed, .. } => 1,
            Self::Seeds { by: By::PythonSample, .. } => 8,
            Self::Seeds { by: By::Python, .. } => 8 + until_refused,
            Self::Seeds { by: By::Numpy, .. } => 4 + until_refused,
            Self::Seeds { by: By::NumpyGenerator, .. } => 1 + until_refused,
            Self::Shares(_) => 32,
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
            Field::Seeds { by: By::Itself | By::Seed, seeds } => {
                self.scan(seeds.map(|seed| (Draw::first_of(seed), seed)), taken);
            }
            Field::Seeds { by, seeds } => self.settle(by, seeds, taken),
            Field::Shares(seeds) => self.deal(seeds, taken),
            Field::Numbers { seed, numbers } => {
                let mut generator = Twister::new(seed);
                generator.skip(numbers.start);
                let draw = |skip| Draw { skip, ..Draw::first_by(By::Seed, seed) };
                self.scan(numbers.map(|skip| (draw(skip), generator.number())), taken);
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
                let fit = fits
                    .then(|| taken.fit(beginning(&mut Twister::new(seed), taken.files()), taken.files() as usize))
                    .flatten();
                self.tried(1, fit.map(|fit| (Place { draw, offset: 0 }, fit)));
            }
        }
    }

    /// Seeds of generators that are drawn from as long as they fit.
    fn settle(&mut self, by: By, seeds: Range<u32>, taken: &Taken) {
        let mut table = Table::new(taken.files());
        self.side_by_side(by.way(), seeds, |seed, mut drawer| {
            let (mut told, mut odd) = (0.0, 0.0);
            let fits = table.shuffle(&mut drawer, |place, file| {
                let Some(may) = taken.may_stand(place, file) else { return true };
                told += 1.0;
                odd += f64::from(u8::from(!may));
                odd <= 1.0 + MISSED * told
            });
            let fit = fits.then(|| taken.fit_all(table.order(by.way()))).flatten();
            (1, fit.map(|fit| (Place { draw: Draw::first_by(by, seed), offset: 0 }, fit)))
        });
    }

    /// Seeds of orders of which shares were taken.
    fn deal(&mut self, seeds: Range<u32>, taken: &Taken) {
        let (mut table, fronts) = (Table::new(taken.files()), Fronts::new(taken));
        if fronts.shares.is_empty() {
            return;
        }
        self.side_by_side(Way::Torch, seeds, |seed, mut drawer| {
            let order = Draw::first_of(seed);
            let shares = fronts.explaining(&mut table, &mut drawer, taken).into_iter();
            let fits = shares
                .map(|share| Draw { share, ..order })
                .filter_map(|draw| Some((Place { draw, offset: 0 }, taken.fit_all(draw.order(taken.files()))?)));
            let best = fits.min_by(|a, b| a.1.doubt.total_cmp(&b.1.doubt));
            (fronts.shares.len() as u64, best)
        });
    }

    fn side_by_side(
        &mut self,
        way: Way,
        mut seeds: Range<u32>,
        mut tried: impl FnMut(u32, Drawer) -> (u64, Option<(Place, Fit)>),
    ) {
        while !self.is_sure() && !seeds.is_empty() {
            let lanes: [u32; LANES] = std::array::from_fn(|lane| seeds.start.saturating_add(lane as u32));
            for (drawer, seed) in Drawer::side_by_side(way, lanes).into_iter().zip(seeds.by_ref()) {
                let (places, fits) = tried(seed, drawer);
                self.tried(places, fits);
            }
        }
    }
}

/// Places in front of an order that are looked at for shares of it.
const FRONT: u32 = 256;
const WORD: u32 = u64::BITS;

/// Places as bits.
type Front = [u64; (FRONT / WORD) as usize];

/// The shares that may have been taken, each with its places in front that must have been.
struct Fronts {
    shares: Vec<(Share, Front)>,
    slack: u32,
}

impl Fronts {
    fn new(taken: &Taken) -> Self {
        /// Of a share of fewer files nothing is told from chance, and with fewer places in front every other seed explains some.
        const LEAST_FILES: u32 = 8;
        const LEAST_PLACES: usize = 4;
        /// Of what was taken, and of the set, at most so much may come late.
        const SLACK_PART: u32 = 4;
        const SLACK_MOST: u32 = 63;
        let most = taken.taken().min(taken.files()) / SLACK_PART;
        let slack = SLACKS.into_iter().rfind(|slack| *slack <= most.min(SLACK_MOST)).unwrap_or(0);
        let in_front = |share: Share| {
            let places = (0..FRONT.min(taken.files())).filter(move |place| share.takes(*place));
            places.take((taken.taken() - slack) as usize).collect::<Vec<u32>>()
        };
        let shares = Share::usual()
            .filter(|share| share.length(taken.files()) >= LEAST_FILES)
            .map(|share| (share, in_front(share)))
            .filter(|(_, places)| places.len() >= LEAST_PLACES)
            .map(|(share, places)| (share, front(places.into_iter())))
            .collect();
        Self { shares, slack }
    }

    /// The shares of an order that was drawn so, whose files in front were taken, none of them too late.
    fn explaining(&self, table: &mut Table, drawer: &mut Drawer, taken: &Taken) -> Vec<Share> {
        let (mut came, mut files) = (Front::default(), [0; FRONT as usize]);
        table.shuffle(drawer, |place, file| {
            let bit = u64::from(taken.came_by(file, place + self.slack)) << (place % WORD);
            came[(place / WORD) as usize] |= bit;
            files[place as usize] = file;
            place + 1 < FRONT
        });
        let are_in = |asked: &Front| asked.iter().zip(&came).all(|(asked, came)| asked & !came == 0);
        let in_time = |asked: &Front| {
            (0..).zip(places(asked)).all(|(i, place)| taken.came_by(files[place as usize], i + self.slack))
        };
        let explain = self.shares.iter().filter(|(_, asked)| are_in(asked) && in_time(asked));
        explain.map(|(share, _)| *share).collect()
    }
}

/// The places whose bits are set, ascending.
fn places(front: &Front) -> impl Iterator<Item = u32> {
    (0..FRONT).filter(move |place| front[(place / WORD) as usize] >> (place % WORD) & 1 == 1)
}

fn front(places: impl Iterator<Item = u32>) -> Front {
    let mut out = Front::default();
    places.for_each(|place| out[(place / WORD) as usize] |= 1 << (place % WORD));
    out
}
