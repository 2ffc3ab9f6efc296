//! PCG64, the generator of `numpy.random.default_rng`, and the sequence that seeds it.

/// Of a generator and of its seeding, as their authors chose them.
const STEP: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
const POOL: usize = 4;

/// PCG64: 128 bits of state, of which each step gives 64, and these two numbers.
#[derive(Clone, Debug)]
pub struct Pcg {
    state: u128,
    increment: u128,
    /// The second half of the last step.
    left: Option<u32>,
}

impl Pcg {
    /// `default_rng(seed)`.
    pub fn new(seed: u32) -> Self {
        let [high, low, more_high, more_low] = seeding(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let increment = wide(more_high, more_low) << 1 | 1;
        let state = increment.wrapping_add(wide(high, low)).wrapping_mul(STEP).wrapping_add(increment);
        Self { state, increment, left: None }
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        if let Some(left) = self.left.take() {
            return left;
        }
        self.state = self.state.wrapping_mul(STEP).wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let given = folded.rotate_right((self.state >> 122) as u32);
        self.left = Some((given >> 32) as u32);
        given as u32
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`: the seed hashed into a pool, and numbers hashed out of it.
fn seeding(seed: u32) -> [u64; 4] {
    let mut into = Hash { factor: 0x43b0_d7e5, by: 0x931e_8875 };
    let mut pool: [u32; POOL] = std::array::from_fn(|i| into.hash(if i == 0 { seed } else { 0 }));
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            let hashed = into.hash(pool[from]);
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hashed.wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut out = Hash { factor: 0x8b51_f9dd, by: 0x58f3_8ded };
    let words: [u32; 2 * POOL] = std::array::from_fn(|i| out.hash(pool[i % POOL]));
    std::array::from_fn(|i| u64::from(words[2 * i + 1]) << 32 | u64::from(words[2 * i]))
}

struct Hash {
    factor: u32,
    by: u32,
}

impl Hash {
    fn hash(&mut self, word: u32) -> u32 {
        let mixed = word ^ self.factor;
        self.factor = self.factor.wrapping_mul(self.by);
        let mixed = mixed.wrapping_mul(self.factor);
        mixed ^ mixed >> 16
    }
}
