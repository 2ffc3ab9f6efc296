//! Replay: what followed the last times.
//!
//! Of the last occasions on which this block was asked for, those are followed whose company (the requests just
//! before) is most like the present one. The same block read in two programs, or in two places of one, has
//! different company and different sequels; order within the company does not matter, because requests of
//! programs side by side swap.

use super::candidates::Candidates;
use super::log::{Log, NONE, Place};
use super::objects::Id;

/// Occasions that are looked at, at most.
const OCCASIONS: usize = 8;
/// Occasions that are followed.
const FOLLOWED: usize = 3;
/// Requests that make up the company.
const COMPANY: u32 = 12;
/// Requests that are proposed after each occasion, one by one.
const AHEAD: u32 = 16;
/// The same where only a few are.
pub(super) const FEW: u32 = 4;

/// Which occasions are looked at, and from where to where the sequel of one is proposed, requests after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    occasions: usize,
    /// What comes sooner comes before its fetch could.
    first: u32,
    end: u32,
}

impl Reach {
    /// All that is worth a look where fetches take `lead` requests, and as much as `farther` beyond. Of what is that far off
    /// each is as good as the next, so steps widen with the distance.
    pub(super) fn far(lead: u32, farther: u32) -> Self {
        let first = lead.max(1);
        Self { occasions: OCCASIONS, first, end: first + AHEAD + farther }
    }

    /// The next few that a fetch would be in time for, after the last occasions.
    pub(super) fn near(lead: u32) -> Self {
        let first = lead.max(1);
        Self { occasions: FOLLOWED, first, end: first + FEW }
    }
}

#[derive(Clone, Copy, Default)]
struct Occasion {
    at: Place,
    alike: u8,
    matched: u8,
}

/// The requests just before the present one.
struct Company {
    /// The last first; [`NONE`] where there are none.
    ids: [Id; COMPANY as usize],
    /// The same as a set: a bit for each id, by its lower bits, so that hardly any other is taken for one of them.
    set: [u64; SET_WORDS],
}

/// Words of the set.
const SET_WORDS: usize = 16;

impl Company {
    fn of(log: &Log, now: Place) -> Self {
        let mut company = Self { ids: [NONE; COMPANY as usize], set: [0; SET_WORDS] };
        for (id, place) in company.ids.iter_mut().zip((log.oldest()..now).rev()) {
            *id = log.named_id(place);
            company.set[*id as usize / 64 % SET_WORDS] |= 1 << (*id % 64);
        }
        company
    }

    #[inline]
    fn has(&self, id: Id) -> bool {
        self.set[id as usize / 64 % SET_WORDS] >> (id % 64) & 1 == 1
    }

    /// How much that of an occasion was like it.
    fn occasion(&self, log: &Log, at: Place) -> Occasion {
        let (mut alike, mut matched, mut in_order) = (0, 0, true);
        for (present, place) in self.ids.iter().zip((log.oldest()..at).rev()) {
            let id = log.named_id(place);
            alike += u8::from(self.has(id));
            in_order &= *present == id;
            matched += u8::from(in_order);
        }
        Occasion { at, alike, matched }
    }
}

pub(super) fn propose(log: &Log, before: Place, now: Place, reach: Reach, candidates: &mut Candidates) {
    let mut occasions = [Occasion::default(); OCCASIONS];
    let mut seen = 0;
    let is_named = |place: &Place| *place >= log.oldest();
    let mut at = Some(before).filter(|place| *place != NONE).filter(is_named);
    if at.is_none() {
        return;
    }
    let company = Company::of(log, now);
    while let Some(place) = at.filter(|_| seen < reach.occasions) {
        occasions[seen] = company.occasion(log, place);
        seen += 1;
        at = log.before(place).filter(is_named);
    }
    // A stable sort: of equals the latest first.
    occasions[..seen].sort_by_key(|o| std::cmp::Reverse(o.alike + o.matched));
    for occasion in &occasions[..seen.min(FOLLOWED)] {
        follow(log, occasion, now, reach, candidates);
    }
}

fn follow(log: &Log, occasion: &Occasion, now: Place, reach: Reach, candidates: &mut Candidates) {
    let mut ahead = reach.first;
    while ahead < reach.end {
        let place = occasion.at.saturating_add(ahead);
        if place >= now {
            break;
        }
        let candidate = candidates.known(log.named_id(place));
        candidate.votes += 1;
        candidate.alike = candidate.alike.max(occasion.alike);
        candidate.matched = candidate.matched.max(occasion.matched);
        ahead += 1 + (ahead - reach.first) / AHEAD;
    }
}
