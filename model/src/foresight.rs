//! Foresight: which blocks a site should hold while a run reads what it is expected to.
//!
//! What is expected is a list of visits, in the order in which past runs made them. A cache is seldom as large as that
//! list, so it should hold what is visited next, fetch the rest in time, and let go what was visited for the last time:
//! Belady's rule, played on what is foreseen instead of what will be. How *soon* a block is visited is told in one of
//! two ways:
//!
//! - *in order*: by the place of its next visit in the list. What the run has left behind by several times its usual
//!   deviation is given up;
//! - *at random*, where runs do not keep to the order: by the visits that it has left. Of a set that is read in passes,
//!   those come first that this pass has not had; where some blocks are popular, those that are visited most.
//!
//! Which of the two holds is measured while the run goes on, by how far visits fall from where the run was believed to
//! be. A block that is being visited *rests*: it is read in several requests, and none of this is asked of it until it
//! has been left alone for a while. A pure state machine: it is told what was used and what had to go, and says what to fetch.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// How soon a block is visited: the smaller the sooner.
pub type Soon = u64;

/// What is expected of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Blocks in the order of their visits; one that is visited several times stands there as often.
    pub visits: Vec<u64>,
    /// Visits expected of each, where that is not how often it stands in the list.
    pub counts: HashMap<u64, f32>,
    /// How visits spread from run to run: 0 where every block is visited equally often in each run, 1 where visits are
    /// drawn (variance over mean).
    pub spread: f32,
    /// Whether the order is believed in at first.
    pub in_order: bool,
    /// Whether that is so whatever order earlier runs kept to, because it is known how this one's is drawn.
    pub drawn: bool,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Places of its visits in the list, ascending.
    places: Vec<u32>,
    /// Which of these is next.
    next: usize,
    /// Visits expected and made.
    expected: f32,
    made: f32,
    /// When it was used last, requests.
    used_at: Option<u32>,
    /// Whether that was a moment ago.
    resting: bool,
    /// Whether it is here or on its way.
    held: bool,
    soon: Option<Soon>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Foresight {
    blocks: HashMap<u64, Block>,
    /// What is expected, by how soon: what is to be fetched, and what is held.
    open: BTreeSet<(Soon, u64)>,
    held: BTreeSet<(Soon, u64)>,
    /// Blocks whose place in time has changed.
    changed: Vec<u64>,
    /// When resting blocks were used, requests.
    resting: VecDeque<(u32, u64)>,
    spread: f32,
    in_order: bool,
    visits: u32,
    /// Where the run is in the list, how far visits fall from there, and how many did.
    place: f64,
    deviation: f64,
    seen: u32,
}

/// Uses of a block within so many requests are one visit.
const ONE_VISIT: u32 = 32;
/// A block with fewer visits left than this is not expected again.
const LEAST_LEFT: f32 = 0.3;
/// Visits left are told apart to this part of a visit.
const LEFT_STEPS: f32 = 16.0;
const LEFT_MOST: Soon = 1 << 20;
/// How fast the place in the list, and the deviation from it, follow.
const PLACE_RATE: f64 = 0.25;
const DEVIATION_RATE: f64 = 1.0 / 32.0;
/// A block is given up when the run is past its place by so many deviations, and at least by this share of the list.
const DEVIATIONS: f64 = 4.0;
const PASSED_SHARE: f64 = 0.125;
/// The order is not kept to where deviations are larger than this share of the list, and than so many visits; it is
/// looked at after so many visits.
const DISORDER_SHARE: f64 = 0.125;
const DISORDER_LEAST: f64 = 64.0;
const DISORDER_AFTER: u32 = 64;

impl Foresight {
    /// Expects this; `held` tells what is here or on its way.
    pub fn new(expected: &Expected, mut held: impl FnMut(u64) -> bool) -> Self {
        let mut out = Self { spread: expected.spread, in_order: expected.in_order, ..Self::default() };
        for block in &expected.visits {
            let known = out.blocks.entry(*block).or_default();
            known.places.push(out.visits);
            known.expected += 1.0;
            out.visits += 1;
        }
        for (block, count) in &expected.counts {
            if let Some(known) = out.blocks.get_mut(block) {
                known.expected = *count;
            }
        }
        let all: Vec<u64> = out.blocks.keys().copied().collect();
        for block in all {
            if let Some(known) = out.blocks.get_mut(&block) {
                known.held = held(block);
            }
            out.place_anew(block);
        }
        out
    }

    /// Whether the run keeps to the order; none before enough was seen of it.
    pub fn kept_order(&self) -> Option<bool> {
        (self.seen >= DISORDER_AFTER).then_some(self.in_order)
    }

    /// How soon a block is visited; none if it is not expected.
    pub fn soon(&self, block: u64) -> Option<Soon> {
        self.blocks.get(&block).and_then(|b| b.soon)
    }

    /// All blocks that it ever expected.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }

    /// The block that is to be fetched first.
    pub fn next(&self) -> Option<(Soon, u64)> {
        self.open.first().copied()
    }

    /// Blocks whose place in time has changed since this was asked last.
    pub fn changes(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.changed)
    }

    /// A block is here or on its way from now on, or is no longer.
    pub fn hold(&mut self, block: u64, held: bool) {
        if let Some(known) = self.blocks.get_mut(&block).filter(|b| b.held != held) {
            known.held = held;
            known.resting &= held;
            self.place_anew(block);
        }
    }

    /// A block cannot be fetched.
    pub fn forget(&mut self, block: u64) {
        let Some(known) = self.blocks.remove(&block) else { return };
        if let Some(soon) = known.soon {
            self.of(known.held).remove(&(soon, block));
        }
    }

    /// Expects so many visits of a block over the whole run, of which so many were made; `held` as in [`Self::new`].
    pub fn expect(&mut self, block: u64, visits: f32, made: f32, held: bool) {
        let place = self.visits;
        let known = self.blocks.entry(block).or_insert_with(|| Block { held, made, ..Block::default() });
        if known.places.is_empty() {
            known.places.push(place);
            self.visits += 1;
        }
        known.expected = known.expected.max(visits);
        self.place_anew(block);
        self.lose_order();
    }

    /// Goes by visits left from now on.
    fn lose_order(&mut self) {
        if std::mem::take(&mut self.in_order) {
            let all: Vec<u64> = self.blocks.keys().copied().collect();
            all.into_iter().for_each(|block| self.place_anew(block));
        }
    }

    /// A block is used with this request. Whether it was expected.
    pub fn used(&mut self, block: u64, request: u32) -> bool {
        self.wake(request);
        let Some(known) = self.blocks.get_mut(&block) else { return false };
        let expected = known.soon.is_some();
        let again = known.used_at.replace(request).is_some_and(|at| request - at <= ONE_VISIT);
        (known.held, known.resting) = (true, true);
        self.resting.push_back((request, block));
        if again {
            self.place_anew(block);
            return true;
        }
        let place = known.places.get(known.next).copied();
        known.next += 1;
        known.made += 1.0;
        if let Some(place) = place {
            self.follow(place);
        }
        self.place_anew(block);
        self.give_up();
        expected
    }

    /// Blocks that were left alone for a while rest no longer.
    fn wake(&mut self, request: u32) {
        while let Some((at, block)) = self.resting.front().copied().filter(|(at, _)| request - at > ONE_VISIT) {
            self.resting.pop_front();
            if let Some(known) = self.blocks.get_mut(&block).filter(|b| b.resting && b.used_at == Some(at)) {
                known.resting = false;
                self.place_anew(block);
            }
        }
    }

    /// The run is seen at this place of the list.
    fn follow(&mut self, place: u32) {
        let off = f64::from(place) - self.place;
        self.place += PLACE_RATE * off;
        self.deviation += DEVIATION_RATE * (off.abs() - self.deviation);
        self.seen += 1;
        let most = (DISORDER_SHARE * f64::from(self.visits)).max(DISORDER_LEAST);
        if self.seen >= DISORDER_AFTER && self.deviation > most {
            self.lose_order();
        }
    }

    /// Gives up visits that the run has left behind.
    fn give_up(&mut self) {
        if !self.in_order {
            return;
        }
        let passed = self.place - (DEVIATIONS * self.deviation).max(PASSED_SHARE * f64::from(self.visits));
        while let Some((_, block)) =
            self.open.first().into_iter().chain(self.held.first()).copied().find(|(soon, _)| (*soon as f64) < passed)
        {
            if let Some(known) = self.blocks.get_mut(&block) {
                known.next += 1;
            }
            self.place_anew(block);
        }
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        let places: usize = self.blocks.values().map(|b| b.places.capacity() * size_of::<u32>()).sum();
        let ordered = self.open.len() + self.held.len();
        places + self.blocks.capacity() * size_of::<(u64, Block)>() + ordered * size_of::<(Soon, u64)>()
    }

    fn of(&mut self, held: bool) -> &mut BTreeSet<(Soon, u64)> {
        if held { &mut self.held } else { &mut self.open }
    }

    /// Reckons anew how soon a block is visited.
    fn place_anew(&mut self, block: u64) {
        let Some(known) = self.blocks.get(&block) else { return };
        let (before, held) = (known.soon, known.held);
        let soon = match (known.resting, self.in_order) {
            (true, _) => None,
            (false, true) => in_order(known),
            (false, false) => at_random(known, self.spread),
        };
        if let Some(before) = before {
            self.open.remove(&(before, block));
            self.held.remove(&(before, block));
        }
        if let Some(soon) = soon {
            self.of(held).insert((soon, block));
        }
        if let Some(known) = self.blocks.get_mut(&block) {
            known.soon = soon;
        }
        if held && before != soon {
            self.changed.push(block);
        }
    }
}

fn in_order(block: &Block) -> Option<Soon> {
    block.places.get(block.next).map(|place| Soon::from(*place))
}

fn at_random(block: &Block, spread: f32) -> Option<Soon> {
    let left = block.expected - (1.0 - spread) * block.made;
    let place = block.places.get(block.next.min(block.places.len().saturating_sub(1))).copied().unwrap_or(u32::MAX);
    let steps = ((left * LEFT_STEPS) as Soon).min(LEFT_MOST);
    (left >= LEAST_LEFT).then_some((LEFT_MOST - steps) << 32 | Soon::from(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(visits: &[u64]) -> Expected {
        Expected { visits: visits.to_vec(), in_order: true, ..Expected::default() }
    }

    /// Plays a run at a site of so many blocks, which lets go what is visited last; returns how many visits hit.
    fn play(mut foresight: Foresight, run: &[u64], most: usize) -> usize {
        let (mut here, mut hits) = (std::collections::HashSet::new(), 0);
        for (request, block) in (0..).map(|i| i * 2 * ONE_VISIT).zip(run) {
            while let Some((soon, next)) = foresight.next() {
                if here.len() == most {
                    let last = here.iter().copied().max_by_key(|b| foresight.soon(*b).unwrap_or(Soon::MAX)).unwrap();
                    if foresight.soon(last).unwrap_or(Soon::MAX) <= soon {
                        break;
                    }
                    here.remove(&last);
                    foresight.hold(last, false);
                }
                here.insert(next);
                foresight.hold(next, true);
            }
            hits += usize::from(here.contains(block));
            foresight.used(*block, request);
            if !here.contains(block) {
                foresight.hold(*block, false);
            }
        }
        hits
    }

    /// Numbers below `most`, each once, in an order that `seed` tells.
    fn shuffled(most: u64, seed: u64) -> Vec<u64> {
        let mut out: Vec<u64> = (0..most).collect();
        out.sort_by_key(|n| (n + 1).wrapping_mul(seed | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17));
        out
    }

    #[test]
    fn a_run_that_keeps_to_its_order_finds_everything_though_the_cache_is_small() {
        let visits: Vec<u64> = (0..1000).chain(0..1000).collect();
        assert_eq!(play(Foresight::new(&expected(&visits), |_| false), &visits, 10), 2000);
    }

    #[test]
    fn what_a_run_leaves_out_is_given_up() {
        let visits: Vec<u64> = (0..1000).collect();
        let run: Vec<u64> = visits.iter().copied().filter(|n| n % 5 != 0).collect();
        assert_eq!(play(Foresight::new(&expected(&visits), |_| false), &run, 100), run.len());
    }

    #[test]
    fn in_a_random_order_the_share_is_that_of_always_holding_what_is_left() {
        let (all, most) = (3000u64, 600usize);
        let run: Vec<u64> = shuffled(all, 7).into_iter().chain(shuffled(all, 99)).collect();
        let past: Vec<u64> = shuffled(all, 1).into_iter().chain(shuffled(all, 3)).collect();
        let hits = play(Foresight::new(&expected(&past), |_| false), &run, most) as f64;
        let share = most as f64 / all as f64;
        let reachable = 2.0 * all as f64 * share * (1.0 - share.ln());
        assert!(hits > 0.95 * reachable && hits < 1.1 * reachable, "{hits} of {reachable}");
    }

    #[test]
    fn where_visits_are_drawn_the_popular_stay() {
        let counts: HashMap<u64, f32> = (0..100).map(|n| (n, 100.0 / (n + 1) as f32)).collect();
        let expected = Expected { visits: (0..100).collect(), counts, spread: 1.0, ..Expected::default() };
        let mut foresight = Foresight::new(&expected, |_| false);
        let first = foresight.next().map(|(_, block)| block);
        assert_eq!(first, Some(0));
        foresight.hold(0, true);
        assert!((0..50).all(|i| foresight.used(0, i * 100)));
        assert_eq!(foresight.soon(0), None, "it rests");
        foresight.used(99, 10_000);
        assert!(foresight.soon(0).is_some_and(|soon| soon < foresight.soon(1).unwrap()));
    }

    #[test]
    fn what_is_let_go_is_fetched_again_while_it_is_expected() {
        let mut foresight = Foresight::new(&expected(&[4, 5, 4]), |block| block == 4);
        assert_eq!(foresight.next().map(|(_, b)| b), Some(5));
        foresight.hold(4, false);
        assert_eq!(foresight.next().map(|(_, b)| b), Some(4));
        foresight.used(4, 0);
        foresight.used(5, 100);
        assert_eq!(foresight.soon(4), Some(2), "the next visit of it");
        foresight.forget(5);
        assert_eq!(foresight.next(), None);
    }
}
