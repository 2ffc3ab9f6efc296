//! The 32-bit Mersenne Twister.
//!
//! Seeded no further than its next number needs (398 of its 624 words for the first), its words renewed one at a time.
//! Several seeded side by side keep the processor's multipliers busy: one word of each follows from the word before, which
//! takes as long for one as for eight.

const WORDS: usize = 624;
/// How far away the word stands that each is mixed with.
const FAR: usize = 397;
const SEEDING: u32 = 1_812_433_253;

/// The 32-bit Mersenne Twister (MT19937).
#[derive(Clone, Debug)]
pub struct Twister {
    words: [u32; WORDS],
    /// Words that the seed has reached.
    seeded: usize,
    at: usize,
}

impl Twister {
    /// A generator with this seed: PyTorch, which keeps 64 bits of a seed and seeds with the lower 32, and NumPy seed so.
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

    /// Generators with these seeds.
    pub fn side_by_side<const LANES: usize>(seeds: [u32; LANES]) -> [Self; LANES] {
        let mut words = vec![seeds; WORDS];
        for i in 1..WORDS {
            words[i] = std::array::from_fn(|lane| seeded(words[i - 1][lane], i as u32));
        }
        Self::of_lanes(&words)
    }

    /// Generators as Python seeds them: by an array that holds the seed.
    pub fn as_python<const LANES: usize>(seeds: [u32; LANES]) -> [Self; LANES] {
        const ANY: u32 = 19_650_218;
        const FIRST: u32 = 1_664_525;
        const SECOND: u32 = 1_566_083_941;
        let mut word = ANY;
        let mut words = vec![[word; LANES]];
        words.extend((1..WORDS as u32).map(|i| {
            word = seeded(word, i);
            [word; LANES]
        }));
        let mixed = |words: &[[u32; LANES]], i: usize, by: u32| -> [u32; LANES] {
            let before = words[i - 1];
            std::array::from_fn(|lane| words[i][lane] ^ (before[lane] ^ (before[lane] >> 30)).wrapping_mul(by))
        };
        let mut at = 1;
        for turn in 0..2 * WORDS - 1 {
            let first = turn < WORDS;
            let new = mixed(&words, at, if first { FIRST } else { SECOND });
            words[at] = std::array::from_fn(|lane| match first {
                true => new[lane].wrapping_add(seeds[lane]),
                false => new[lane].wrapping_sub(at as u32),
            });
            at += 1;
            if at == WORDS {
                words[0] = words[WORDS - 1];
                at = 1;
            }
        }
        words[0] = [0x8000_0000; LANES];
        Self::of_lanes(&words)
    }

    fn of_lanes<const LANES: usize>(words: &[[u32; LANES]]) -> [Self; LANES] {
        std::array::from_fn(|lane| Self { words: std::array::from_fn(|i| words[i][lane]), seeded: WORDS, at: 0 })
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
