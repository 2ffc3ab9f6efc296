//! What the sources propose on one request, put together by block.

use super::log::NONE;
use super::objects::{Id, NEVER, NOT_NEAR};

/// One block and what speaks for it.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) block: u64,
    /// Its id, or [`NONE`] if it was never heard of.
    pub(super) id: Id,
    /// Blocks asked for with it, where that is not known from the block itself.
    pub(super) blocks: u16,
    /// Replay: past occasions that speak for it.
    pub(super) votes: u8,
    /// Replay: how much of the company was alike, of the best occasion.
    pub(super) alike: u8,
    /// Replay: how many requests before it were the same in the same order.
    pub(super) matched: u8,
    /// Association: how often it followed, faded; 0 where association does not speak.
    pub(super) row_count: u8,
    /// Place: which run or stride; 0 where none speaks.
    pub(super) run: u8,
    /// Place: which other one.
    pub(super) delta: u8,
    pub(super) past: Past,
}

/// What is known of a block when it is named.
#[derive(Clone, Copy)]
pub(super) struct Past {
    /// Bits of the requests since it was asked for last, and of those between its last two.
    pub(super) age: u8,
    pub(super) gap: u8,
    /// Bits of how often it was asked for.
    pub(super) seen: u8,
    /// How proposals of it did, as a code.
    pub(super) record: u8,
    /// How often it was named by the requests before this one.
    pub(super) named: u8,
    /// When it was asked for last, beside each of the last two times that the prompt was made: before or after, and the bits
    /// of by how many requests.
    pub(super) near: [u8; 2],
    /// Whether a proposal of it is followed.
    pub(super) followed: bool,
}

impl Past {
    /// Of a block that was never heard of.
    const NOTHING: Self =
        Self { age: NEVER, gap: NEVER, seen: 0, record: 0, named: 0, near: [NOT_NEAR; 2], followed: false };
}

impl Candidate {
    /// A number for it that says nothing by its value where block numbers say nothing: the order of first appearance,
    /// and only for blocks never heard of, which places alone propose, the place.
    pub(super) fn name(&self) -> u32 {
        if self.id == NONE { (self.block ^ (self.block >> 32)) as u32 | 1 << 31 } else { self.id }
    }

    /// Which sources speak for it, as bits.
    pub(super) fn sources(&self) -> u32 {
        u32::from(self.votes > 0) | u32::from(self.row_count > 0) << 1 | u32::from(self.run > 0) << 2
    }
}

/// The candidates of one request: a small table that is emptied by counting on.
pub(super) struct Candidates {
    all: Vec<Candidate>,
    slots: Vec<(u32, u32)>,
    turn: u32,
}

/// Slots of the table: several times the most that the sources propose.
const SLOTS: usize = 512;

impl Default for Candidates {
    fn default() -> Self {
        Self { all: Vec::new(), slots: vec![(0, 0); SLOTS], turn: 1 }
    }
}

impl Candidates {
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.turn = self.turn.wrapping_add(1);
    }

    /// The candidate of a block that is known, new if it has none. Which block that is, is looked up when all have been
    /// named.
    pub(super) fn known(&mut self, id: Id) -> &mut Candidate {
        self.of(id, 0)
    }

    /// The candidate of a block that was never heard of, new if it has none.
    pub(super) fn unheard(&mut self, block: u64) -> &mut Candidate {
        self.of(NONE, block)
    }

    fn of(&mut self, id: Id, block: u64) -> &mut Candidate {
        let mut at = ((block ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize % SLOTS;
        loop {
            let (turn, index) = self.slots[at];
            if turn != self.turn {
                break;
            }
            let other = &self.all[index as usize];
            if other.id == id && (id != NONE || other.block == block) {
                return &mut self.all[index as usize];
            }
            at = (at + 1) % SLOTS;
        }
        self.slots[at] = (self.turn, self.all.len() as u32);
        self.all.push(Candidate {
            block,
            id,
            blocks: 1,
            votes: 0,
            alike: 0,
            matched: 0,
            row_count: 0,
            run: 0,
            delta: 0,
            past: Past::NOTHING,
        });
        self.all.last_mut().expect("one was pushed")
    }

    /// Leaves out those of which this is not so. Nothing can be added until they are cleared.
    pub(super) fn retain(&mut self, stays: impl FnMut(&mut Candidate) -> bool) {
        self.all.retain_mut(stays);
    }

    /// All, in the order of their first mention.
    pub(super) fn all(&self) -> &[Candidate] {
        &self.all
    }

    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Candidate>() + self.slots.len() * size_of::<(u32, u32)>()
    }
}
