//! What is still free: link rate per slot, egress and ingress per site and slot, cache bytes per site and slot.
//!
//! Invariant: nothing is ever negative that was not handed in negative. [`Ledger::book`] takes,
//! [`Ledger::cancel`] gives back, and both take a [`Booking`], which only [`Ledger::latest`] and
//! [`Ledger::earliest`] make and only [`Ledger::keep`] lengthens.
//!
//! A booking may spread over slots. It fills cache as it arrives: in slot `t` it holds the bytes that arrive in
//! slots up to `t`, and from the last arrival to the last use all of them.

use std::collections::{BTreeMap, BTreeSet};

/// Free bytes of a resource without limit: far above any sum, far below overflow.
pub(crate) const UNLIMITED_BYTES: i64 = i64::MAX / 8;

/// A directed link and whom it joins, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// Bytes to be brought to a site and kept there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) bytes: i64,
    /// Not before this slot.
    pub(crate) release: usize,
    /// There by the end of this slot.
    pub(crate) deadline: usize,
    /// Kept to the end of this slot.
    pub(crate) last_use: usize,
    /// Cache bytes that it must leave free.
    pub(crate) leave_free: i64,
}

/// Bytes on one lane, slot by slot, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Booking {
    pub(crate) lane: u32,
    pub(crate) last_use: u16,
    pub(crate) pieces: Vec<(u16, i64)>,
}

impl Booking {
    pub(crate) fn first_slot(&self) -> usize {
        self.pieces.first().map_or(0, |p| p.0 as usize)
    }

    pub(crate) fn last_slot(&self) -> usize {
        self.pieces.last().map_or(0, |p| p.0 as usize)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    slots: usize,
    lanes: Vec<Lane>,
    rate: Vec<i64>,
    egress: Vec<i64>,
    ingress: Vec<i64>,
    cache: Vec<i64>,
}

impl Ledger {
    /// No lane yet; caches of no bytes, sites without limits on what leaves or enters.
    pub(crate) fn new(slots: usize, sites: usize) -> Self {
        Self {
            slots,
            lanes: Vec::new(),
            rate: Vec::new(),
            egress: vec![UNLIMITED_BYTES; slots * sites],
            ingress: vec![UNLIMITED_BYTES; slots * sites],
            cache: vec![0; slots * sites],
        }
    }

    pub(crate) fn add_lane(&mut self, lane: Lane, bytes_per_slot: impl Iterator<Item = i64>) -> u32 {
        self.lanes.push(lane);
        self.rate.extend(bytes_per_slot.take(self.slots));
        assert_eq!(self.rate.len(), self.lanes.len() * self.slots, "one rate per slot of a lane");
        (self.lanes.len() - 1) as u32
    }

    /// Bytes that may leave a site in each slot over all its lanes.
    pub(crate) fn limit_egress(&mut self, site: u32, bytes_per_slot: impl Iterator<Item = i64>) {
        limit(&mut self.egress[site as usize * self.slots..][..self.slots], bytes_per_slot);
    }

    /// Bytes that may enter a site in each slot over all its lanes.
    pub(crate) fn limit_ingress(&mut self, site: u32, bytes_per_slot: impl Iterator<Item = i64>) {
        limit(&mut self.ingress[site as usize * self.slots..][..self.slots], bytes_per_slot);
    }

    pub(crate) fn set_cache(&mut self, site: u32, bytes: i64) {
        let at = site as usize * self.slots;
        self.cache[at..at + self.slots].fill(bytes);
    }

    /// Bytes that are at a site already and stay until the end of `last_use`.
    pub(crate) fn hold(&mut self, site: u32, bytes: i64, last_use: usize) {
        let at = site as usize * self.slots;
        self.cache[at..=at + last_use].iter_mut().for_each(|free| *free -= bytes);
    }

    /// The latest placement that keeps to every limit.
    pub(crate) fn latest(&self, lane: u32, need: &Need) -> Option<Booking> {
        let cache = self.cache_of(lane);
        let fits = |slot: usize, bytes: i64| cache[slot] - need.leave_free >= bytes;
        if !self.roomy(lane, need) {
            return None;
        }
        let mut left = need.bytes;
        let mut pieces = Vec::with_capacity(1);
        for slot in (need.release..=need.deadline).rev() {
            if !fits(slot, left) {
                return None;
            }
            let take = self.free(lane, slot).min(left);
            if take > 0 {
                pieces.push((slot as u16, take));
                left -= take;
            }
            if left <= 0 {
                pieces.reverse();
                return Some(Booking { lane, last_use: need.last_use as u16, pieces });
            }
        }
        None
    }

    /// The earliest placement that keeps to every limit.
    pub(crate) fn earliest(&self, lane: u32, need: &Need) -> Option<Booking> {
        let cache = self.cache_of(lane);
        // Bytes that arrive early must fit in every slot from then on: the first slot from which all of it fits.
        let roomy = (need.release..=need.last_use).rev().take_while(|s| cache[*s] - need.leave_free >= need.bytes);
        let release = roomy.last()?;
        let mut left = need.bytes;
        let mut pieces = Vec::with_capacity(1);
        for slot in release..=need.deadline {
            let take = self.free(lane, slot).min(left);
            if take > 0 {
                pieces.push((slot as u16, take));
                left -= take;
            }
            if left <= 0 {
                return Some(Booking { lane, last_use: need.last_use as u16, pieces });
            }
        }
        None
    }

    /// Whether the cache has room from the deadline to the last use: if so, a refusal is the link's.
    pub(crate) fn roomy(&self, lane: u32, need: &Need) -> bool {
        let cache = self.cache_of(lane);
        (need.deadline..=need.last_use).all(|slot| cache[slot] - need.leave_free >= need.bytes)
    }

    /// Keeps what a booking brings to the end of `last_use` too, if there is room for it.
    pub(crate) fn keep(&mut self, booking: &mut Booking, last_use: usize) -> bool {
        let until = booking.last_use as usize;
        if last_use <= until {
            return true;
        }
        let bytes: i64 = booking.pieces.iter().map(|p| p.1).sum();
        let at = self.lanes[booking.lane as usize].to as usize * self.slots;
        let longer = &mut self.cache[at + until + 1..=at + last_use];
        if longer.iter().any(|free| *free < bytes) {
            return false;
        }
        longer.iter_mut().for_each(|free| *free -= bytes);
        booking.last_use = last_use as u16;
        true
    }

    /// Takes what the booking names.
    pub(crate) fn book(&mut self, booking: &Booking) {
        self.apply(booking, -1);
    }

    /// Gives back what the booking took.
    pub(crate) fn cancel(&mut self, booking: &Booking) {
        self.apply(booking, 1);
    }

    /// Bytes that a lane could still take in a slot.
    pub(crate) fn free(&self, lane: u32, slot: usize) -> i64 {
        let Lane { from, to } = self.lanes[lane as usize];
        let out = self.egress[from as usize * self.slots + slot];
        let inn = self.ingress[to as usize * self.slots + slot];
        self.rate[lane as usize * self.slots + slot].min(out).min(inn)
    }

    /// Bytes that may arrive in `slot` and stay until `last_use`.
    pub(crate) fn room(&self, lane: u32, slot: usize, last_use: usize) -> i64 {
        self.cache_of(lane)[slot..=last_use].iter().copied().min().unwrap_or(0)
    }

    /// Takes rate in one slot and room from it to the last use.
    pub(crate) fn take(&mut self, lane: u32, slot: usize, last_use: usize, bytes: i64) {
        let Lane { from, to } = self.lanes[lane as usize];
        self.rate[lane as usize * self.slots + slot] -= bytes;
        self.egress[from as usize * self.slots + slot] -= bytes;
        self.ingress[to as usize * self.slots + slot] -= bytes;
        let to = to as usize * self.slots;
        self.cache[to + slot..=to + last_use].iter_mut().for_each(|free| *free -= bytes);
    }

    /// What is free on the lanes that lead to some sites, and at both ends of them; caches less what is left free in
    /// them. With it the lanes, in the order of the numbers that they have there.
    pub(crate) fn toward(&self, sites: &BTreeSet<u32>, leave_free: impl Fn(u32) -> i64) -> (Ledger, Vec<u32>) {
        let leads = |lane: &u32| sites.contains(&self.lanes[*lane as usize].to);
        let lanes: Vec<u32> = (0..self.lanes.len() as u32).filter(leads).collect();
        let ends = lanes.iter().flat_map(|l| [self.lanes[*l as usize].from, self.lanes[*l as usize].to]);
        let ends: BTreeSet<u32> = ends.chain(sites.iter().copied()).collect();
        let number: BTreeMap<u32, u32> = ends.iter().copied().zip(0..).collect();
        let mut own = Ledger::new(self.slots, ends.len());
        for lane in &lanes {
            let Lane { from, to } = self.lanes[*lane as usize];
            let rate = self.rate[*lane as usize * self.slots..][..self.slots].iter().copied();
            own.add_lane(Lane { from: number[&from], to: number[&to] }, rate);
        }
        for (site, own_number) in &number {
            let here = |of: &[i64]| of[*site as usize * self.slots..][..self.slots].to_vec();
            own.limit_egress(*own_number, here(&self.egress).into_iter());
            own.limit_ingress(*own_number, here(&self.ingress).into_iter());
            let spared = leave_free(*site);
            limit(
                &mut own.cache[*own_number as usize * self.slots..][..self.slots],
                here(&self.cache).into_iter().map(|free| free - spared),
            );
        }
        (own, lanes)
    }

    /// One part of so many of everything that is free.
    pub(crate) fn part(&self, of: i64) -> Ledger {
        let part = |free: &[i64]| free.iter().map(|f| if *f >= UNLIMITED_BYTES / 2 { *f } else { f / of }).collect();
        Ledger {
            slots: self.slots,
            lanes: self.lanes.clone(),
            rate: part(&self.rate),
            egress: part(&self.egress),
            ingress: part(&self.ingress),
            cache: part(&self.cache),
        }
    }

    /// Slots of the time axis.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// The lanes by number.
    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// What is free: rate by lane and slot; egress, ingress and cache by site and slot.
    pub(crate) fn resources(&self) -> [&[i64]; 4] {
        [&self.rate, &self.egress, &self.ingress, &self.cache]
    }

    fn apply(&mut self, booking: &Booking, sign: i64) {
        let Lane { from, to } = self.lanes[booking.lane as usize];
        let (lane, from, to) =
            (booking.lane as usize * self.slots, from as usize * self.slots, to as usize * self.slots);
        let mut held = 0;
        let mut pieces = booking.pieces.iter().peekable();
        for slot in booking.first_slot()..=booking.last_use as usize {
            if let Some((_, bytes)) = pieces.next_if(|p| p.0 as usize == slot) {
                self.rate[lane + slot] += sign * bytes;
                self.egress[from + slot] += sign * bytes;
                self.ingress[to + slot] += sign * bytes;
                held += bytes;
            }
            self.cache[to + slot] += sign * held;
        }
    }

    fn cache_of(&self, lane: u32) -> &[i64] {
        let at = self.lanes[lane as usize].to as usize * self.slots;
        &self.cache[at..at + self.slots]
    }
}

fn limit(row: &mut [i64], bytes_per_slot: impl Iterator<Item = i64>) {
    row.iter_mut().zip(bytes_per_slot).for_each(|(free, bytes)| *free = bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_lane(rate: &[i64], cache: i64) -> Ledger {
        let mut ledger = Ledger::new(rate.len(), 2);
        ledger.set_cache(1, cache);
        ledger.add_lane(Lane { from: 0, to: 1 }, rate.iter().copied());
        ledger
    }

    fn need(bytes: i64, deadline: usize, last_use: usize) -> Need {
        Need { bytes, release: 0, deadline, last_use, leave_free: 0 }
    }

    #[test]
    fn latest_fills_backwards_and_earliest_forwards() {
        let l = one_lane(&[10, 10, 10, 10], 100);
        assert_eq!(l.latest(0, &need(15, 2, 3)).unwrap().pieces, [(1, 5), (2, 10)]);
        assert_eq!(l.earliest(0, &need(15, 2, 3)).unwrap().pieces, [(0, 10), (1, 5)]);
        assert!(l.latest(0, &need(31, 2, 3)).is_none() && l.earliest(0, &need(31, 2, 3)).is_none());
    }

    #[test]
    fn bytes_wait_until_the_cache_has_room() {
        let mut l = one_lane(&[10, 10, 10, 10], 12);
        l.hold(1, 8, 1);
        assert_eq!(l.earliest(0, &need(10, 3, 3)).unwrap().pieces, [(2, 10)]);
        assert!(l.latest(0, &need(10, 1, 3)).is_none());
    }

    proptest! {
        /// (b) and (c) of the README: whatever is booked, no rate and no cache is exceeded, and all of it comes back.
        #[test]
        fn nothing_is_overbooked_and_all_comes_back(
            rate in proptest::collection::vec(0i64..50, 6),
            cache in 0i64..200,
            needs in proptest::collection::vec((1i64..60, 0usize..6, 0usize..6, 0usize..6, any::<bool>()), 0..40),
        ) {
            let empty = one_lane(&rate, cache);
            let mut l = empty.clone();
            let mut booked = Vec::new();
            for (bytes, a, b, c, late) in needs {
                let mut s = [a, b, c];
                s.sort_unstable();
                let n = Need { bytes, release: s[0], deadline: s[1], last_use: s[2], leave_free: 3 };
                let found = if late { l.latest(0, &n) } else { l.earliest(0, &n) };
                if let Some(mut b) = found {
                    prop_assert_eq!(b.pieces.iter().map(|p| p.1).sum::<i64>(), bytes);
                    prop_assert!(b.first_slot() >= s[0] && b.last_slot() <= s[1]);
                    l.book(&b);
                    l.keep(&mut b, c);
                    booked.push(b);
                }
                prop_assert!(l.rate.iter().chain(&l.cache).all(|free| *free >= 0));
            }
            booked.iter().for_each(|b| l.cancel(b));
            prop_assert_eq!(l.rate, empty.rate);
            prop_assert_eq!(l.cache, empty.cache);
        }
    }
}
