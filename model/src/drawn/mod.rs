//! Orders that PyTorch drew: recognised by the files that a run took, and told on.
//!
//! A shuffled epoch looks like chance, and is none: `torch.randperm` draws it from a seed, and seeds are small, or stand in
//! the command line, or follow from the epoch before. So the first files of an epoch are set beside what each seed at
//! hand would have drawn ([`search`]); which seeds are at hand, the simplest first, says [`recognise`]:
//!
//! - what the run before leaves: it goes on where that stopped, or begins as that began;
//! - numbers of the command line, as the seed itself and as the seed of the generator that a program keeps: its
//!   `DataLoader` takes each epoch's seed from there, after so many numbers as the weights took ([`By::Seed`]);
//! - all seeds from 0 up to a bound.
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

use foretide_draw::{Twister, beginning, permutation};
use serde::{Deserialize, Serialize};

pub use recognise::{Puzzle, recognise};
pub use search::Effort;
pub use set::{Passes, Reading, Seen, Set, Stretch, readings};

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
    /// The one that was seeded.
    Itself,
    /// One whose seed was the next number of the one that was seeded.
    Seed,
}

/// How the order of one epoch was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draw {
    /// What the generator was seeded with.
    pub seed: u32,
    /// Numbers that it gave before.
    pub skip: u64,
    /// Who drew then.
    pub by: By,
}

/// How the draw of the next epoch follows from that of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Added to the seed.
    pub seed: u32,
    /// More numbers given before.
    pub skip: u64,
}

/// A place in the order of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The epoch's order.
    pub draw: Draw,
    /// Files of it that come before.
    pub offset: u32,
}

impl Draw {
    /// A permutation that a generator of this seed drew first.
    pub fn first_of(seed: u32) -> Self {
        Self { seed, skip: 0, by: By::Itself }
    }

    fn generator(self) -> Twister {
        let mut generator = Twister::new(self.seed);
        generator.skip(self.skip.min(SKIP_MOST));
        match self.by {
            By::Itself => generator,
            By::Seed => Twister::new(generator.number()),
        }
    }

    /// The order of `files` files.
    pub fn order(self, files: u32) -> Vec<u32> {
        permutation(&mut self.generator(), files)
    }

    /// Its first so many.
    fn begins(self, files: u32, most: usize) -> Vec<u32> {
        beginning(&mut self.generator(), files).take(most).collect()
    }

    /// The draw so many epochs later.
    pub fn after(self, step: Step, epochs: u64) -> Self {
        let seed = self.seed.wrapping_add((epochs as u32).wrapping_mul(step.seed));
        Self { seed, skip: self.skip.saturating_add(epochs.saturating_mul(step.skip)), ..self }
    }

    /// Whether it can be drawn in the time that there is.
    fn can_be_drawn(self) -> bool {
        self.skip <= SKIP_MOST
    }
}

impl Step {
    /// Steps that samplers make over a set of so many files: `DistributedSampler`'s seed and epoch; a generator that goes on,
    /// with the second permutation of `RandomSampler` and without; the same order in each epoch; a `DataLoader` that
    /// takes its workers' seed and its sampler's from the program's generator.
    fn usual(by: By, files: u32) -> Vec<Self> {
        let drawn = u64::from(files.saturating_sub(1));
        match by {
            By::Itself => [(1, 0), (0, 2 * drawn), (0, drawn), (0, 0)].map(|(seed, skip)| Self { seed, skip }).to_vec(),
            By::Seed => vec![Self { seed: 0, skip: 4 }],
        }
    }
}

impl Place {
    /// The place so many files on, in epochs of `files`; none where that is in a later epoch, and how it is drawn is not
    /// known.
    pub fn on(self, by: u64, files: u32, step: Option<Step>) -> Option<Self> {
        let at = u64::from(self.offset) + by;
        let (epochs, offset) = (at / u64::from(files.max(1)), (at % u64::from(files.max(1))) as u32);
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
        let Draw { seed, skip, by } = self.began.draw;
        let of = match (by, self.step) {
            (By::Itself, Some(Step { seed: 1, skip: 0 })) => format!("seed {} + epoch", seed.wrapping_sub(self.epoch)),
            (By::Itself, Some(Step { seed: 0, skip: 0 })) => format!("seed {seed} in each epoch"),
            (By::Itself, Some(Step { seed: 0, .. })) => format!("one generator of seed {seed}"),
            (By::Itself, _) => format!("seed {seed}"),
            (By::Seed, _) => format!("seeds from the program's generator of seed {seed}, from number {skip} on"),
        };
        format!("drawn by PyTorch, {of}")
    }
}

#[cfg(test)]
mod tests;
