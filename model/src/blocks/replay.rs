//! Replay: what followed the last times.
//!
//! Of the last occasions on which this block was asked for, those are followed whose company (the requests just
//! before) is most like the present one. The same block read in two programs, or in two places of one, has
//! different company and different sequels; order within the company does not matter, because requests of
//! programs side by side swap.

use super::candidates::Candidates;
use super::log::{Log, NONE, Place};
use super::objects::{Id, Objects};

/// Occasions that are looked at.
const OCCASIONS: usize = 8;
/// Occasions that are followed.
const FOLLOWED: usize = 3;
/// Requests that make up the company.
const COMPANY: u32 = 12;
/// Requests that are proposed after each occasion, one by one.
const AHEAD: u32 = 16;

/// From where to where the sequel of an occasion is proposed, requests after it.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// What comes sooner comes before its fetch could.
    pub(super) lead: u32,
    /// Beyond [`AHEAD`]. Of what is that far off each is as good as the next, so steps widen with the distance.
    pub(super) farther: u32,
}

#[derive(Clone, Copy, Default)]
struct Occasion {
    at: Place,
    alike: u8,
    matched: u8,
}

pub(super) fn propose(
    log: &Log,
    objects: &Objects,
    before: Place,
    now: Place,
    reach: Reach,
    candidates: &mut Candidates,
) {
    let company = company(log, now);
    let mut occasions = [Occasion::default(); OCCASIONS];
    let mut seen = 0;
    let mut at = (before != NONE && log.id(before).is_some()).then_some(before);
    while let Some(place) = at.filter(|_| seen < OCCASIONS) {
        occasions[seen] = occasion(log, objects, place, now, &company);
        seen += 1;
        at = log.before(place);
    }
    // A stable sort: of equals the latest first.
    occasions[..seen].sort_by_key(|o| std::cmp::Reverse(u32::from(o.alike) + u32::from(o.matched)));
    for occasion in &occasions[..seen.min(FOLLOWED)] {
        follow(log, occasion, now, reach, candidates);
    }
}

/// The requests just before the present one, the last first; [`NONE`] where there are none.
fn company(log: &Log, now: Place) -> [Id; COMPANY as usize] {
    let mut out = [NONE; COMPANY as usize];
    for (back, id) in (1..).zip(&mut out) {
        *id = now.checked_sub(back).and_then(|place| log.id(place)).unwrap_or(NONE);
    }
    out
}

/// How much its company was like the present one.
fn occasion(log: &Log, objects: &Objects, at: Place, now: Place, company: &[Id; COMPANY as usize]) -> Occasion {
    let (mut alike, mut matched, mut in_order) = (0, 0, true);
    for (back, present) in (1..=at.min(COMPANY)).zip(company) {
        let Some(id) = log.id(at - back) else { break };
        let last = objects.last(id);
        alike += u8::from(last != NONE && last < now && last + COMPANY >= now);
        in_order &= *present == id;
        matched += u8::from(in_order);
    }
    Occasion { at, alike, matched }
}

fn follow(log: &Log, occasion: &Occasion, now: Place, reach: Reach, candidates: &mut Candidates) {
    let first = reach.lead.max(1);
    let (mut ahead, mut step) = (first, 0);
    while ahead < first + AHEAD + reach.farther {
        let place = occasion.at.saturating_add(ahead);
        let Some(id) = (place < now).then(|| log.id(place)).flatten() else { break };
        let candidate = candidates.known(id);
        candidate.votes += 1;
        candidate.alike = candidate.alike.max(occasion.alike);
        candidate.matched = candidate.matched.max(occasion.matched);
        step += 1;
        candidate.distance = candidate.distance.min(step);
        ahead += 1 + (ahead - first) / AHEAD;
    }
}
