//! One way to draw, and the shuffling of lists by it, as far as somebody wants to see.

use crate::{Pcg, Twister};

/// Who draws, and by which of its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// `torch.randperm`.
    Torch,
    /// `random.shuffle` of Python: bits of a number, drawn again until they are below.
    PythonShuffle,
    /// `random.sample` of Python, of a whole list: the same, the last place given out first.
    PythonSample,
    /// `numpy.random.shuffle` and `permutation`: a masked number, drawn again until it is below.
    Numpy,
    /// The same of `numpy.random.default_rng`.
    NumpyGenerator,
}

impl Way {
    /// Whether the first place of an order is settled first, and not the last.
    pub fn begins_in_front(self) -> bool {
        matches!(self, Self::Torch | Self::PythonSample)
    }

    /// Swaps that shuffle a list of `n`. Python's sample draws for the last thing, too, which is the only one left.
    fn swaps(self, n: u32) -> u32 {
        if self == Self::PythonSample { n } else { n.saturating_sub(1) }
    }
}

#[derive(Clone, Debug)]
enum Numbers {
    Twister(Box<Twister>),
    Pcg(Pcg),
}

/// A generator and what is made of its numbers.
#[derive(Clone, Debug)]
pub struct Drawer {
    way: Way,
    numbers: Numbers,
}

impl Drawer {
    /// A drawer with this seed.
    pub fn new(way: Way, seed: u32) -> Self {
        let [drawer] = Self::side_by_side(way, [seed]);
        drawer
    }

    /// Drawers with these seeds.
    pub fn side_by_side<const LANES: usize>(way: Way, seeds: [u32; LANES]) -> [Self; LANES] {
        let of_twister = |twister| Self { way, numbers: Numbers::Twister(Box::new(twister)) };
        match way {
            Way::Torch | Way::Numpy => Twister::side_by_side(seeds).map(of_twister),
            Way::PythonShuffle | Way::PythonSample => Twister::as_python(seeds).map(of_twister),
            Way::NumpyGenerator => seeds.map(|seed| Self { way, numbers: Numbers::Pcg(Pcg::new(seed)) }),
        }
    }

    /// Shuffles a list.
    pub fn shuffle(&mut self, list: &mut [u32]) {
        let n = list.len() as u32;
        for turn in 0..self.way.swaps(n) {
            let (one, other) = self.swap(turn, n);
            list.swap(one as usize, other as usize);
        }
        if self.way == Way::PythonSample {
            list.reverse();
        }
    }

    fn number(&mut self) -> u32 {
        match &mut self.numbers {
            Numbers::Twister(twister) => twister.number(),
            Numbers::Pcg(pcg) => pcg.number(),
        }
    }

    /// An index below `n`.
    fn below(&mut self, n: u32) -> u32 {
        match self.way {
            Way::Torch => self.number() % n,
            Way::PythonShuffle | Way::PythonSample => loop {
                let index = self.number() >> n.leading_zeros();
                if index < n {
                    return index;
                }
            },
            Way::Numpy | Way::NumpyGenerator => loop {
                let index = self.number() & (u32::MAX >> (n - 1).leading_zeros());
                if index < n {
                    return index;
                }
            },
        }
    }

    /// The places that change in a turn, that which is settled by it first.
    fn swap(&mut self, turn: u32, n: u32) -> (u32, u32) {
        if self.way == Way::Torch {
            return (turn, turn + self.below(n - turn));
        }
        let settled = n - 1 - turn;
        (settled, self.below(settled + 1))
    }
}

/// A list that is shuffled again and again, each time from its order at first.
#[derive(Clone, Debug)]
pub struct Table {
    list: Vec<u32>,
    /// What has been changed since.
    swaps: Vec<(u32, u32)>,
}

impl Table {
    /// Of the numbers below `n`.
    pub fn new(n: u32) -> Self {
        Self { list: (0..n).collect(), swaps: Vec::new() }
    }

    /// Shuffles as long as it is `as_expected` which number stands at which place of the order. Whether all are.
    pub fn shuffle(&mut self, drawer: &mut Drawer, mut as_expected: impl FnMut(u32, u32) -> bool) -> bool {
        while let Some((one, other)) = self.swaps.pop() {
            self.list.swap(one as usize, other as usize);
        }
        let (n, way) = (self.list.len() as u32, drawer.way);
        let place = |settled: u32| if way == Way::PythonSample { n - 1 - settled } else { settled };
        for turn in 0..way.swaps(n) {
            let (one, other) = drawer.swap(turn, n);
            self.list.swap(one as usize, other as usize);
            self.swaps.push((one, other));
            if !as_expected(place(one), self.list[one as usize]) {
                return false;
            }
        }
        true
    }

    /// The order, once all of it is settled.
    pub fn order(&self, way: Way) -> Vec<u32> {
        let mut order = self.list.clone();
        if way == Way::PythonSample {
            order.reverse();
        }
        order
    }
}
