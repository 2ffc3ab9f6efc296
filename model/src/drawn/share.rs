//! The share of an order that one of several programs takes.
//!
//! PyTorch's `DistributedSampler` deals an order out like cards: of `w` programs, rank `r` takes what stands at `r`, at
//! `r + w`, at `r + 2w` and so on; where that does not come out even, the order's beginning is dealt again. A node that runs
//! several of the ranks, which then follow each other, takes all of theirs. Left off instead of dealt again
//! (`drop_last`), the last round is missing, which is one file of many.

use serde::{Deserialize, Serialize};

/// Which places of an order are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    /// Among how many the order is dealt out.
    pub of: u32,
    /// The first rank.
    pub first: u32,
    /// How many ranks.
    pub ranks: u32,
}

impl Default for Share {
    /// All of it.
    fn default() -> Self {
        Self { of: 1, first: 0, ranks: 1 }
    }
}

impl Share {
    /// Whether it is all.
    pub fn is_whole(self) -> bool {
        self.ranks == self.of
    }

    /// Files of it, in an order of so many.
    pub fn length(self, files: u32) -> u32 {
        files.div_ceil(self.of) * self.ranks
    }

    /// Whether what stands at a place is taken.
    pub fn takes(self, place: u32) -> bool {
        (self.first..self.first + self.ranks).contains(&(place % self.of))
    }

    /// What is taken of an order.
    pub fn of(self, order: Vec<u32>) -> Vec<u32> {
        if self.is_whole() {
            return order;
        }
        let rounds = (order.len() as u32).div_ceil(self.of);
        let places = (0..rounds).flat_map(|round| (0..self.ranks).map(move |rank| round * self.of + self.first + rank));
        places.map(|place| order[place as usize % order.len()]).collect()
    }

    /// The shares that the same number of ranks may have.
    pub fn siblings(self) -> impl Iterator<Item = Self> {
        (0..self.of).step_by(self.ranks as usize).map(move |first| Self { first, ..self })
    }

    /// Shares that are looked for, those of few first.
    pub fn usual() -> impl Iterator<Item = Self> {
        /// Programs of one training: as many as the processors of a few nodes, beyond sixteen in fours.
        const MOST: u32 = 64;
        /// Ranks of one node.
        const NODES: [u32; 4] = [1, 2, 4, 8];
        let worlds = (2..=MOST).filter(|of| *of <= 16 || of % 4 == 0);
        let of_world = |of| NODES.into_iter().filter(move |n| of % n == 0 && *n < of).map(move |n| (of, n));
        worlds.flat_map(of_world).flat_map(|(of, ranks)| Self { of, first: 0, ranks }.siblings())
    }

    /// In words: `rank 3 of 16`.
    pub fn words(self) -> String {
        match (self.first, self.ranks) {
            (first, 1) => format!("rank {first} of {}", self.of),
            (first, ranks) => format!("ranks {first} to {} of {}", first + ranks - 1, self.of),
        }
    }
}
