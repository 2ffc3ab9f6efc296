//! Proposals whose truth is not known yet, oldest first.
//!
//! A "yes" is known when the block is asked for, a "no" only when nobody waits for it any more, and in a large cache
//! that is late: a gate that learned them as they come would believe too much. So an open proposal is *doubted*
//! after a short while and taught as "no"; if the block is asked for after all, that is taken back.

use std::collections::VecDeque;

use super::gate::Features;
use super::log::Place;
use super::objects::Id;

/// The number of no proposal.
pub(super) const NOT_FOLLOWED: u32 = u32::MAX;
/// Requests after which an open proposal is doubted, beyond the lead.
const DOUBT_AFTER: u32 = 64;
/// Most open proposals; beyond it the oldest is given up early.
const MOST_OPEN: usize = 1 << 17;

/// What became of a proposal, or is about to.
#[derive(Clone, Copy)]
pub(super) struct Verdict {
    /// The block.
    pub(super) id: Id,
    /// Under which number it was followed.
    pub(super) number: u32,
    pub(super) features: Features,
    /// What was said of it, and in which bin what the gate believed of it lay.
    pub(super) probability: f32,
    pub(super) bin: u8,
    /// Whether it passed the gate, and was not only watched.
    pub(super) accepted: bool,
    /// Whether it had been taken for a "no".
    pub(super) doubted: bool,
    /// Whether it was asked for.
    pub(super) came: bool,
    /// Whether it was asked for and the fetch had time.
    pub(super) in_time: bool,
}

/// A probability as it is said, and the bin of the belief that it comes from.
#[derive(Clone, Copy)]
pub(super) struct Said {
    pub(super) probability: f32,
    pub(super) bin: u8,
}

impl Verdict {
    /// A proposal of which nothing is known yet.
    pub(super) fn open(id: Id, features: Features, said: Said, accepted: bool) -> Self {
        Self {
            id,
            number: NOT_FOLLOWED,
            features,
            probability: said.probability,
            bin: said.bin,
            accepted,
            doubted: false,
            came: false,
            in_time: false,
        }
    }
}

struct Open {
    verdict: Verdict,
    born: Place,
    over: bool,
}

/// Open proposals.
#[derive(Default)]
pub(super) struct Followed {
    open: VecDeque<Open>,
    /// The number of the oldest. Numbers go round below [`NOT_FOLLOWED`].
    first: u32,
    /// How many of the oldest have been looked at for doubt.
    doubted: usize,
}

impl Followed {
    /// Begins to follow; returns the number.
    pub(super) fn follow(&mut self, verdict: Verdict, now: Place) -> u32 {
        let number = (self.first.wrapping_add(self.open.len() as u32)) % NOT_FOLLOWED;
        self.open.push_back(Open { verdict: Verdict { number, ..verdict }, born: now, over: false });
        number
    }

    fn index(&self, number: u32) -> Option<usize> {
        if number == NOT_FOLLOWED {
            return None;
        }
        let ahead = if number >= self.first { number - self.first } else { NOT_FOLLOWED - self.first + number };
        Some(ahead as usize).filter(|i| *i < self.open.len())
    }

    /// Ends one without a verdict: a newer proposal of the same block takes its place.
    pub(super) fn drop(&mut self, number: u32) {
        if let Some(i) = self.index(number) {
            self.open[i].over = true;
        }
    }

    /// The block with this number is asked for now.
    pub(super) fn came(&mut self, number: u32, now: Place, lead: u32) -> Option<Verdict> {
        let i = self.index(number)?;
        let open = &mut self.open[i];
        if open.over {
            return None;
        }
        open.over = true;
        Some(Verdict { came: true, in_time: now - open.born >= lead, ..open.verdict })
    }

    /// The block with this number was fetched and had to go before it was asked for.
    pub(super) fn failed(&mut self, number: u32) -> Option<Verdict> {
        let i = self.index(number)?;
        let open = &mut self.open[i];
        (!std::mem::replace(&mut open.over, true)).then_some(open.verdict)
    }

    /// The next that waits long enough to be doubted.
    pub(super) fn doubted(&mut self, now: Place, lead: u32) -> Option<Verdict> {
        while let Some(open) = self.open.get_mut(self.doubted) {
            if now - open.born <= DOUBT_AFTER + lead {
                return None;
            }
            self.doubted += 1;
            if !open.over {
                let before = open.verdict;
                open.verdict.doubted = true;
                return Some(before);
            }
        }
        None
    }

    /// The next that nobody waits for any more.
    pub(super) fn given_up(&mut self, now: Place, patience: u32) -> Option<Verdict> {
        while let Some(open) = self.open.front() {
            if now - open.born <= patience && self.open.len() <= MOST_OPEN {
                return None;
            }
            let (verdict, over) = (open.verdict, open.over);
            self.open.pop_front();
            self.first = (self.first + 1) % NOT_FOLLOWED;
            self.doubted = self.doubted.saturating_sub(1);
            if !over {
                return Some(verdict);
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        self.open.capacity() * size_of::<Open>()
    }
}
