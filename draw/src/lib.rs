//! The random orders that PyTorch draws, drawn again.
//!
//! PyTorch shuffles on the processor by one generator, the 32-bit Mersenne Twister seeded with the low half of the seed,
//! and one algorithm, Fisher and Yates' from the front: place `i` changes with the one that `random() % (n - i)` further
//! on. So a seed tells an order of a million files.
//!
//! That serves two rooms that may not know each other: the API draws what a job announces, and the model asks which seed
//! an order that it saw could have come from. The second wants the beginning of very many orders and the whole of few.
//! Therefore the generator is seeded no further than its next number needs (398 of its 624 words for the first), its
//! words are renewed one at a time, and [`beginning`] draws the first places without the others. [`first_numbers`] goes
//! further still: several seeds side by side, which keeps the processor's multipliers busy.

use std::collections::HashMap;

const WORDS: usize = 624;
/// How far away the word stands that each is mixed with.
const FAR: usize = 397;
const SEEDING: u32 = 1_812_433_253;

/// The 32-bit Mersenne Twister (MT19937), as PyTorch's processor has it.
#[derive(Clone, Debug)]
pub struct Twister {
    words: [u32; WORDS],
    /// Words that the seed has reached.
    seeded: usize,
    at: usize,
}

impl Twister {
    /// A generator with this seed. PyTorch keeps 64 bits of a seed and seeds with the lower 32.
    pub fn new(seed: u32) -> Self {
        let mut words = [0; WORDS];
        words[0] = seed;
        Self { words, seeded: 1, at: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        let (at, next, far) = (self.at, (self.at + 1) % WORDS, (self.at + FAR) % WORDS);
        self.seed(next.max(far));
        let word = twisted(self.words[at], self.words[next], self.words[far]);
        self.words[at] = word;
        self.at = next;
        tempered(word)
    }

    /// Leaves out so many numbers.
    pub fn skip(&mut self, numbers: u64) {
        for _ in 0..numbers {
            self.number();
        }
    }

    fn seed(&mut self, last: usize) {
        while self.seeded <= last {
            let i = self.seeded;
            self.words[i] = seeded(self.words[i - 1], i as u32);
            self.seeded += 1;
        }
    }
}

fn seeded(before: u32, i: u32) -> u32 {
    (before ^ (before >> 30)).wrapping_mul(SEEDING).wrapping_add(i)
}

fn twisted(word: u32, next: u32, far: u32) -> u32 {
    let mixed = (word & 0x8000_0000) | (next & 0x7FFF_FFFF);
    far ^ (mixed >> 1) ^ (0x9908_B0DF & (mixed & 1).wrapping_neg())
}

fn tempered(word: u32) -> u32 {
    let mut y = word;
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C_5680;
    y ^= (y << 15) & 0xEFC6_0000;
    y ^ (y >> 18)
}

/// The first number of a generator of each of these seeds.
pub fn first_numbers<const LANES: usize>(seeds: [u32; LANES]) -> [u32; LANES] {
    let step = |words: &mut [u32; LANES], i: u32| words.iter_mut().for_each(|word| *word = seeded(*word, i));
    let mut words = seeds;
    step(&mut words, 1);
    let next = words;
    (2..=FAR as u32).for_each(|i| step(&mut words, i));
    std::array::from_fn(|lane| tempered(twisted(seeds[lane], next[lane], words[lane])))
}

/// The order of `n` things that `torch.randperm` draws.
pub fn permutation(generator: &mut Twister, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let other = i + generator.number() % (n - i);
        order.swap(i as usize, other as usize);
    }
    order
}

/// The same from its beginning, drawn only as far as it is asked for.
pub fn beginning(generator: &mut Twister, n: u32) -> impl Iterator<Item = u32> + use<'_> {
    // What stands at a place that a draw has reached; at the others their own numbers do.
    let mut moved: HashMap<u32, u32> = HashMap::new();
    (0..n).map(move |i| {
        let other = if i + 1 < n { i + generator.number() % (n - i) } else { i };
        let here = moved.remove(&i).unwrap_or(i);
        if other == i { here } else { moved.insert(other, here).unwrap_or(other) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn its_numbers_are_those_of_another_implementation(seed: u32) {
            let (mut ours, mut other) = (Twister::new(seed), rand_mt::Mt::new(seed));
            proptest::prop_assert_eq!(first_numbers([seed, 7]), [Twister::new(seed).number(), Twister::new(7).number()]);
            for _ in 0..2000 {
                proptest::prop_assert_eq!(ours.number(), other.next_u32());
            }
        }

        #[test]
        fn a_beginning_is_that_of_the_whole(seed: u32, n in 0u32..300) {
            let whole = permutation(&mut Twister::new(seed), n);
            let begun: Vec<u32> = beginning(&mut Twister::new(seed), n).collect();
            proptest::prop_assert_eq!(&begun, &whole);
            let (mut one, mut two) = (Twister::new(seed), Twister::new(seed));
            permutation(&mut one, n);
            let _ = beginning(&mut two, n).count();
            proptest::prop_assert_eq!(one.number(), two.number(), "both have drawn as many");
        }
    }

    /// `torch.randperm(24, generator=torch.Generator().manual_seed(1000))[:8]`.
    #[test]
    fn an_order_that_pytorch_drew_is_drawn_again() {
        let begun: Vec<u32> = beginning(&mut Twister::new(1000), 24).take(8).collect();
        assert_eq!(begun, [19, 15, 9, 14, 1, 12, 22, 18]);
    }
}
