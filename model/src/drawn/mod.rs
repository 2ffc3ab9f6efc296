//! Orders that PyTorch, Python or NumPy drew: recognised by the files that a run took, and told on.
//!
//! A shuffled epoch looks like chance, and is none: a small generator draws it from a seed, and seeds are small, or stand in
//! the command line, or follow from the epoch before. So the first files of an epoch are set beside what each seed at
//! hand would have drawn ([`search`]); which seeds are at hand, the simplest first, says [`recognise`]:
//!
//! - what the run before leaves: it goes on where that stopped, or begins as that began;
//! - numbers of the command line, as the seed itself and as the seed of the generator that a program keeps: its
//!   `DataLoader` takes each epoch's seed from there, after so many numbers as the weights took ([`By::Seed`]);
//! - all seeds from 0 up to a bound, each as that of PyTorch's generator, of Python's and of both of NumPy's;
//! - of PyTorch's the shares that ranks of a distributed training take ([`Share`]).
//!
//! *Belief.* A false seed fits the first `k` of `n` files with a chance of (n-k)!/n!. That chance, times all seeds that
//! were tried until one fitted, is how much it may be doubted ([`Recognised::doubt`]); what later runs fit makes the doubt
//! smaller, and below [`BELIEVED`] it is told ([`ahead`]). It is never taken for granted: files that do not fit
//! take it back. Readers side by side take files in nearly the drawn order; how far one may come late is found with the
//! seed, and weakens the evidence as it must (`fit`).
//!
//! *The set* is what the indices count: files of one directory and all below it, of the kinds that were read, directory by
//! directory and by name, as they were when the run started ([`set`]).

pub mod ahead;
mod fit;
pub mod follow;
mod recognise;
mod search;
pub mod set;
mod share;

use foretide_draw::{Drawer, Twister, Way, beginning, permutation};
use serde::{Deserialize, Serialize};

pub use recognise::{Puzzle, confirmed, recognise};
pub use search::Effort;
pub use set::{Passes, Reading, Seen, Set, Stretch, readings};
pub use share::Share;

/// Files of a set of which orders are drawn. PyTorch draws otherwise from 2^32 / 20 on; of more than this, drawing takes
/// longer than a forecast may.
pub const FILES_MOST: u32 = 2_000_000;
/// Numbers left out before an order is drawn: a tenth of a second's work.
const SKIP_MOST: u64 = 1 << 25;
/// An order is told when the chance that it only seems to fit is below this (natural logarithm: one in a million).
pub const BELIEVED: f64 = -13.8;

/// Which generator an order was drawn by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// PyTorch's, the one that was seeded.
    Itself,
    /// PyTorch's, whose seed was the next number of the one that was seeded.
    Seed,
    /// Python's, by `random.shuffle`.
    Python,
    /// Python's, by `random.sample`.
    PythonSample,
    /// NumPy's of `numpy.random.seed`.
    Numpy,
    /// NumPy's of `default_rng`.
    NumpyGenerator,
}

/// How the order of one epoch was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draw {
    /// What the generator was seeded with.
    pub seed: u32,
    /// What it gave before: numbers of PyTorch's, of others whole orders of as many files.
    pub skip: u64,
    /// Who drew then.
    pub by: By,
    /// Where each epoch shuffles the list as the last one left it: how often it had been shuffled before. By the same
    /// generator, or, where that gave nothing before, by one of a seed one less each time.
    #[serde(default)]
    pub onto: u32,
    /// What was taken of it.
    #[serde(default)]
    pub share: Share,
}

/// How the draw of the next epoch follows from that of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Added to the seed.
    pub seed: u32,
    /// More that the generator gave before.
    pub skip: u64,
    /// How often more the list was shuffled before.
    #[serde(default)]
    pub onto: u32,
}

/// A place in the order of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The epoch's order.
    pub draw: Draw,
    /// Files of it that come before.
    pub offset: u32,
}

impl By {
    /// Those besides PyTorch's.
    const OTHERS: [Self; 4] = [Self::Python, Self::NumpyGenerator, Self::Numpy, Self::PythonSample];

    fn way(self) -> Way {
        match self {
            Self::Itself | Self::Seed => Way::Torch,
            Self::Python => Way::PythonShuffle,
            Self::PythonSample => Way::PythonSample,
            Self::Numpy => Way::Numpy,
            Self::NumpyGenerator => Way::NumpyGenerator,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Itself | Self::Seed => "PyTorch",
            Self::Python => "Python",
            Self::PythonSample => "Python's sample",
            Self::Numpy => "NumPy",
            Self::NumpyGenerator => "NumPy's default_rng",
        }
    }
}

impl Draw {
    /// A permutation that a generator of PyTorch with this seed drew first.
    pub fn first_of(seed: u32) -> Self {
        Self::first_by(By::Itself, seed)
    }

    /// The first that one of this kind did.
    pub fn first_by(by: By, seed: u32) -> Self {
        Self { seed, skip: 0, by, onto: 0, share: Share::default() }
    }

    fn generator(self) -> Twister {
        let mut generator = Twister::new(self.seed);
        generator.skip(self.skip.min(SKIP_MOST));
        match self.by {
            By::Seed => Twister::new(generator.number()),
            _ => generator,
        }
    }

    /// The order of `files` files, as far as it was taken.
    pub fn order(self, files: u32) -> Vec<u32> {
        self.share.of(match self.by.way() {
            Way::Torch => permutation(&mut self.generator(), files),
            way => self.shuffled(way, files),
        })
    }

    fn shuffled(self, way: Way, files: u32) -> Vec<u32> {
        let mut list: Vec<u32> = (0..files).collect();
        if self.skip == 0 {
            let seeds = (0..=self.onto).rev().map(|back| self.seed.wrapping_sub(back));
            seeds.for_each(|seed| Drawer::new(way, seed).shuffle(&mut list));
            return list;
        }
        let mut drawer = Drawer::new(way, self.seed);
        for _ in 0..=self.skip {
            if self.onto == 0 {
                list = (0..files).collect();
            }
            drawer.shuffle(&mut list);
        }
        list
    }

    /// How many that are.
    fn length(self, files: u32) -> u32 {
        self.share.length(files)
    }

    /// Its first so many, where all of it is taken.
    fn begins(self, files: u32, most: usize) -> Vec<u32> {
        match self.by.way() {
            Way::Torch => beginning(&mut self.generator(), files).take(most).collect(),
            way => {
                let mut order = self.shuffled(way, files);
                order.truncate(most);
                order
            }
        }
    }

    /// The draw so many epochs later.
    pub fn after(self, step: Step, epochs: u64) -> Self {
        Self {
            seed: self.seed.wrapping_add((epochs as u32).wrapping_mul(step.seed)),
            skip: self.skip.saturating_add(epochs.saturating_mul(step.skip)),
            onto: self.onto.saturating_add((epochs as u32).saturating_mul(step.onto)),
            ..self
        }
    }

    /// Whether it can be drawn in the time that there is.
    fn can_be_drawn(self, files: u32) -> bool {
        let numbers = match self.by.way() {
            Way::Torch => self.skip,
            _ => self.skip.max(self.onto.into()).saturating_mul(files.into()),
        };
        numbers <= SKIP_MOST
    }
}

impl Step {
    /// Steps that samplers make over a set of so many files: `DistributedSampler`'s seed and epoch; a generator that goes on,
    /// with the second permutation of `RandomSampler` and without; the same order in each epoch; a `DataLoader` that
    /// takes its workers' seed and its sampler's from the program's generator. Besides PyTorch's: seed and epoch, one generator
    /// that goes on, both over the list as it was listed or as the last epoch left it.
    fn usual(by: By, files: u32) -> Vec<Self> {
        let drawn = u64::from(files.saturating_sub(1));
        let step = |(seed, skip, onto)| Self { seed, skip, onto };
        match by {
            By::Itself => [(1, 0, 0), (0, 2 * drawn, 0), (0, drawn, 0), (0, 0, 0)].map(step).to_vec(),
            By::Seed => vec![step((0, 4, 0))],
            _ => [(1, 0, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 0)].map(step).to_vec(),
        }
    }
}

impl Place {
    /// Whether the k-th visits of all files are an epoch each from here on.
    fn is_a_pass(self) -> bool {
        self.offset == 0 && self.draw.share.is_whole()
    }

    /// The place so many files on, in epochs of `files`; none where that is in a later epoch, and how it is drawn is not
    /// known.
    pub fn on(self, by: u64, files: u32, step: Option<Step>) -> Option<Self> {
        let (at, length) = (u64::from(self.offset) + by, u64::from(self.draw.length(files).max(1)));
        let (epochs, offset) = (at / length, (at % length) as u32);
        match (epochs, step) {
            (0, _) => Some(Self { offset, ..self }),
            (_, Some(step)) => Some(Self { draw: self.draw.after(step, epochs), offset }),
            (_, None) => None,
        }
    }
}

/// What a run was recognised to have read in a drawn order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recognised {
    /// The files that were drawn of.
    pub set: Set,
    /// How many they were.
    pub files: u32,
    /// Where the run began.
    pub began: Place,
    /// The epoch that it began in, counted from the first that was recognised.
    pub epoch: u32,
    /// Files that it took from there on, each as often as it took it.
    pub visits: u64,
    /// How epochs follow one another, once two were seen.
    pub step: Option<Step>,
    /// By how many places a file may come late.
    pub slack: u32,
    /// The chance that all this only seems to fit, natural logarithm.
    pub doubt: f64,
    /// The bytes of the set that it read.
    pub read: Stretch,
}

impl Recognised {
    /// Whether it is certain enough to be told.
    pub fn believed(&self) -> bool {
        self.doubt <= BELIEVED
    }

    /// Where it stopped.
    pub fn ended(&self) -> Option<Place> {
        self.began.on(self.visits, self.files, self.step)
    }

    /// In words: `drawn by PyTorch, seed 1000 + epoch`.
    pub fn words(&self) -> String {
        let Draw { seed, skip, by, share, .. } = self.began.draw;
        let mut words = format!("drawn by {}, ", by.words());
        words += &match (by, self.step) {
            (By::Seed, _) => format!("seeds from the program's generator of seed {seed}, from number {skip} on"),
            (_, Some(Step { seed: 1, .. })) => format!("seed {} + epoch", seed.wrapping_sub(self.epoch)),
            (_, Some(Step { skip: 0, .. })) => format!("seed {seed} in each epoch"),
            (_, Some(_)) => format!("one generator of seed {seed}"),
            (_, None) => format!("seed {seed}"),
        };
        if self.step.is_some_and(|step| step.onto > 0) {
            words += ", each epoch from the last one's order";
        }
        if !share.is_whole() {
            words = format!("{words}, {}", share.words());
        }
        words
    }
}

#[cfg(test)]
mod tests;
