//! By which way a want travels.
//!
//! A way is a link from somebody who gives: a holder of the volume, who has everything, or a relay, which has only what came
//! there. Behind a relay a move waits for the move that brings its bytes there: one that the relay's own readers want, or a
//! [`Stage`] that is made for it and that whoever comes later follows too. So what three sites behind a narrow link want
//! crosses it once. The order is booked, not hoped for: what follows starts when what it follows has arrived, and what is
//! followed is kept until the last has left.

use std::time::Duration;

use foretide_flow::{Mode, SiteId, TimeWindow, Timestamp};

use super::place::Tier;
use super::{AtRelay, Decision, Placed, Stage, Table, Upstream};
use crate::gather::{Cause, Way, money};
use crate::ledger::{Booking, Need};

/// When something is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// As late as possible, by the end of a slot.
    Latest(usize),
    /// As soon as possible.
    Earliest,
}

/// A way and a deadline for a want, and what it is worth so.
pub(super) struct Choice {
    pub(super) way: usize,
    pub(super) tier: Tier,
    pub(super) worth: f64,
}

impl<'s, 'a> Table<'s, 'a> {
    pub(super) fn way(&self, number: usize, way: usize) -> &'s Way<'a> {
        &self.routes[self.wants[number].route].ways[way]
    }

    /// Ways and deadlines by which a want is worth anything, the best first. The way of the plan before counts a little
    /// more; of ways that are worth the same the one that adds no crossing comes first, a new stage last, and of those the
    /// nearer one.
    pub(super) fn choices(&self, number: usize, window: TimeWindow) -> Vec<Choice> {
        let want = &self.wants[number];
        let mut choices = Vec::with_capacity(3);
        for way in self.open_ways(number) {
            let cost = self.cost(number, way, want.missing);
            let tiers = self.tiers(want, window, self.lead(self.way(number, way)));
            let worth = tiers.map(|tier| Choice { worth: want.worth(tier.in_time, cost), way, tier });
            choices.extend(worth.filter(|c| c.worth > 0.0));
        }
        let liked = |c: &Choice| {
            let stays = self.is_as_told(number, c.way);
            if stays { c.worth * (1.0 + self.problem.config.stickiness) } else { c.worth }
        };
        if choices.iter().any(|c| c.way != choices[0].way) {
            choices.sort_by(|a, b| {
                liked(b)
                    .total_cmp(&liked(a))
                    .then_with(|| self.crossings(number, a.way).cmp(&self.crossings(number, b.way)))
                    .then_with(|| self.seconds_on(number, a.way).total_cmp(&self.seconds_on(number, b.way)))
            });
        }
        choices
    }

    /// Ways that a want may take: what is only proposed makes no stage and follows nothing.
    pub(super) fn open_ways(&self, number: usize) -> impl Iterator<Item = usize> + use<'_, 's, 'a> {
        let want = &self.wants[number];
        want.ways().filter(move |way| self.way(number, *way).stage.is_none() || want.mode == Mode::Enforce)
    }

    /// Whether the plan before had a want take this way.
    fn is_as_told(&self, number: usize, way: usize) -> bool {
        self.before[number].is_some_and(|told| told.from == self.way(number, way).link.from)
    }

    /// How long a want's bytes are on the link of a way that carries nothing else: the nearer and faster, the less.
    fn seconds_on(&self, number: usize, way: usize) -> f64 {
        let link = self.way(number, way).link;
        link.rtt_ms / 1e3 + link.rate.seconds_for(self.wants[number].missing)
    }

    /// Ways for what was asked for: by `Latest` the cheapest first, else the one by which it is there first; of equal ones that
    /// of the plan before, then the nearer one. No stage is made for an answer.
    pub(super) fn ways_for(&self, number: usize, by: By) -> Vec<usize> {
        let (bytes, open) = (self.wants[number].missing, self.open_ways(number).collect::<Vec<_>>());
        if open.len() < 2 {
            return open;
        }
        let ranked = |way: usize| {
            let arrival = if by == By::Earliest { self.earliest_arrival(number, way)? } else { 0 };
            let is_other = !self.is_as_told(number, way);
            Some((arrival, self.cost(number, way, bytes), (self.crossings(number, way), is_other), way))
        };
        let mut ways: Vec<_> = open.into_iter().filter_map(ranked).collect();
        let nearer = |a: usize, b: usize| self.seconds_on(number, a).total_cmp(&self.seconds_on(number, b));
        ways.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)).then_with(|| nearer(a.3, b.3)));
        ways.into_iter().map(|w| w.3).collect()
    }

    /// The slot by which a want can be there by a way, or nearly so: what it would follow is not moved for it.
    fn earliest_arrival(&self, number: usize, way: usize) -> Option<usize> {
        let want = &self.wants[number];
        let last = self.grid.slots() - 1;
        let need = self.need(number, want.missing, 0, last);
        let lane = self.lanes[want.route][way];
        let release = match self.way(number, way).stage.filter(|stage| !self.is_at_relay(number, *stage)) {
            None => 0,
            Some(stage) => match self.followed(number, stage) {
                Some(up) => self.after_arrival(up),
                None => {
                    let lanes = self.lanes[stage].iter().zip(&self.routes[stage].ways);
                    let direct = lanes.filter(|(_, w)| w.stage.is_none());
                    direct.filter_map(|(lane, _)| self.ledger.earliest(*lane, &need)).map(|b| b.last_slot()).min()? + 1
                }
            },
        };
        self.ledger.earliest(lane, &Need { release, ..need }).map(|b| b.last_slot())
    }

    /// How much of links a way takes: nothing more where it follows, one crossing, or two.
    fn crossings(&self, number: usize, way: usize) -> u32 {
        match self.way(number, way).stage {
            None => 1,
            Some(stage) => {
                let follows = self.is_at_relay(number, stage) || self.followed(number, stage).is_some();
                if follows { 0 } else { 2 }
            }
        }
    }

    /// Money for a want's bytes by a way, with that of the stage that it would take.
    pub(super) fn cost(&self, number: usize, way: usize, bytes: u64) -> f64 {
        let own = self.way(number, way);
        let stage = own.stage.filter(|_| self.crossings(number, way) == 2).and_then(|stage| {
            let ways = self.routes[stage].ways.iter().filter(|w| w.stage.is_none());
            ways.map(|w| money(w.link, bytes)).min_by(f64::total_cmp)
        });
        money(own.link, bytes) + stage.unwrap_or(0.0)
    }

    /// From the last byte on the link to the byte being trusted.
    pub(super) fn lead(&self, way: &Way<'_>) -> Duration {
        Duration::from_secs_f64(way.link.rtt_ms / 1e3 + self.problem.config.settle_ms / 1e3)
    }

    /// A place for a want on a way, if there is one. What it follows is made, hurried and kept for it.
    pub(super) fn put(&mut self, number: usize, way: usize, by: By) -> Option<Placed> {
        let last = self.grid.slots() - 1;
        let slot = if let By::Latest(slot) = by { slot } else { last };
        let bytes = self.crossing(number, slot);
        // What is placed as late as it can be is pulled forward later, behind what it counts on.
        let release = if by == By::Earliest { self.carried_by(number, slot) } else { 0 };
        let need = self.need(number, bytes, release, slot);
        let lane = self.lanes[self.wants[number].route][way];
        let follow = self.way(number, way).stage.filter(|stage| !self.is_at_relay(number, *stage));
        let (booking, after) = match follow {
            None => (self.fit(lane, &need, by)?, None),
            Some(stage) => {
                let (booking, after) = self.put_behind(number, stage, lane, &need, by)?;
                (booking, Some(after))
            }
        };
        let mut cost = money(self.way(number, way).link, bytes);
        if let Some(Upstream::Stage(stage)) = after
            && self.stages[stage].of == number
        {
            let stage = &self.stages[stage];
            cost += money(self.routes[stage.route].ways[stage.way].link, stage.bytes);
        }
        Some(Placed { way, bytes, cost, in_time: 1.0, due: self.grid.end(booking.last_slot()), after, booking })
    }

    fn fit(&self, lane: u32, need: &Need, by: By) -> Option<Booking> {
        match by {
            By::Latest(_) => self.ledger.latest(lane, need),
            By::Earliest => self.ledger.earliest(lane, need),
        }
    }

    /// A place behind the move that brings the bytes to the relay.
    fn put_behind(
        &mut self,
        number: usize,
        stage: usize,
        lane: u32,
        need: &Need,
        by: By,
    ) -> Option<(Booking, Upstream)> {
        if let Some(up) = self.followed(number, stage) {
            let release = self.after_arrival(up).max(need.release);
            if let Some(booking) = self.fit(lane, &Need { release, ..*need }, by) {
                return self.follow(up, &booking).then_some((booking, up));
            }
            // It would come too late as it stands.
            let booking = self.fit(lane, need, by).filter(|_| by != By::Earliest)?;
            return (self.hurry(up, &booking) && self.follow(up, &booking)).then_some((booking, up));
        }
        if self.is_claimed(self.at(number, stage)) {
            return None;
        }
        let up = match by {
            By::Latest(_) => {
                let last = self.ledger.latest(lane, &Need { release: need.release.max(1), ..*need })?;
                self.stage(number, stage, By::Latest(self.left_before(stage, &last)?), last.last_slot())
            }
            By::Earliest => self.stage(number, stage, by, 0),
        };
        self.put_after(up?, lane, need, by)
    }

    /// A place after a stage that was just made; without one the stage is taken back.
    fn put_after(&mut self, up: Upstream, lane: u32, need: &Need, by: By) -> Option<(Booking, Upstream)> {
        let release = self.after_arrival(up).max(need.release);
        let booking = self.fit(lane, &Need { release, ..*need }, by);
        let booking = booking.filter(|booking| self.follow(up, booking));
        if booking.is_none() {
            self.unstage();
        }
        Some((booking?, up))
    }

    pub(super) fn at(&self, number: usize, stage: usize) -> AtRelay<'a> {
        let want = &self.wants[number];
        (stage, want.path, want.offset, want.length)
    }

    pub(super) fn is_at_relay(&self, number: usize, stage: usize) -> bool {
        let (want, relay) = (&self.wants[number], &self.routes[stage]);
        let there = self.problem.resident.resident_bytes(relay.to, relay.volume, want.path, want.offset, want.length);
        there >= want.length
    }

    /// What brings the same extent to the relay, if that is decided.
    fn followed(&self, number: usize, stage: usize) -> Option<Upstream> {
        let up = *self.upstream.get(&self.at(number, stage))?;
        match up {
            Upstream::Want(n) if self.wants[n].mode != Mode::Enforce => None,
            Upstream::Want(n) => matches!(self.decided[n], Some(Decision::Move(_))).then_some(up),
            Upstream::Stage(_) => Some(up),
        }
    }

    /// Whether some of the extent is wanted at the relay otherwise: no byte is planned twice for a site.
    fn is_claimed(&self, (stage, path, offset, length): AtRelay<'a>) -> bool {
        let before = self.at_relays.range((stage, path, 0)..(stage, path, offset + length)).next_back();
        before.is_some_and(|(_, end)| *end > offset)
    }

    /// What brings the bytes of what is followed, and by which way.
    fn brings(&self, up: Upstream) -> Option<(&Booking, &'s Way<'a>)> {
        match up {
            Upstream::Stage(n) => {
                let stage = self.stages.get(n)?;
                Some((&stage.booking, &self.routes[stage.route].ways[stage.way]))
            }
            Upstream::Want(n) => self.placed(n).map(|p| (&p.booking, self.way(n, p.way))),
        }
    }

    pub(super) fn placed(&self, number: usize) -> Option<&Placed> {
        match &self.decided[number] {
            Some(Decision::Move(placed)) => Some(placed),
            _ => None,
        }
    }

    /// The first slot that begins when the bytes can be trusted at the relay; beyond the last if they never are.
    pub(super) fn after_arrival(&self, up: Upstream) -> usize {
        let Some((booking, way)) = self.brings(up) else { return self.grid.slots() };
        let arrival = self.grid.end(booking.last_slot()) + self.lead(way);
        let slot = self.grid.slot_at(arrival);
        if self.grid.start(slot) >= arrival { slot } else { slot + 1 }
    }

    /// The last slot that a stage may take so that the bytes are at the relay before a booking begins.
    fn left_before(&self, stage: usize, booking: &Booking) -> Option<usize> {
        let slowest = self.routes[stage].ways.iter().filter(|w| w.stage.is_none()).map(|w| self.lead(w)).max()?;
        self.grid.ended_by(self.grid.start(booking.first_slot()) - slowest)
    }

    /// Keeps what is followed until a booking has left, and makes it due before the booking begins.
    pub(super) fn follow(&mut self, up: Upstream, booking: &Booking) -> bool {
        let (start, left) = (self.grid.start(booking.first_slot()), self.grid.end(booking.last_slot()));
        let Some((brings, due)) = brought(&mut self.decided, &mut self.stages, up) else { return false };
        if !self.ledger.keep(brings, booking.last_slot()) {
            return false;
        }
        *due = start.min(*due);
        if let Upstream::Want(n) = up {
            let until = self.passed_until.entry(n).or_insert(left);
            *until = left.max(*until);
        }
        true
    }

    /// Brings what is followed to the relay before a booking begins, if its link can.
    fn hurry(&mut self, up: Upstream, booking: &Booking) -> bool {
        let Some((old, way)) = self.brings(up) else { return false };
        let (old, start) = (old.clone(), self.grid.start(booking.first_slot()) - self.lead(way));
        let Some(deadline) = self.grid.ended_by(start) else { return false };
        let (after, leave_free) = match up {
            Upstream::Stage(n) => (None, self.spared(self.stages[n].of, self.stages[n].route)),
            Upstream::Want(n) => (self.placed(n).and_then(|p| p.after), self.spared(n, self.wants[n].route)),
        };
        let release = after.map_or(0, |up| self.after_arrival(up));
        let bytes = old.pieces.iter().map(|p| p.1).sum();
        let need = Need { bytes, release, deadline, last_use: old.last_use as usize, leave_free };
        self.ledger.cancel(&old);
        let sooner = self.ledger.latest(old.lane, &need);
        let hurried = sooner.is_some();
        let booking = sooner.unwrap_or(old);
        self.ledger.book(&booking);
        if let Some(after) = after {
            self.follow(after, &booking);
        }
        if let Some((brings, _)) = brought(&mut self.decided, &mut self.stages, up) {
            *brings = booking;
        }
        hurried
    }

    /// Cache bytes that are left free at the end of a route by what a want needs there.
    pub(super) fn spared(&self, number: usize, route: usize) -> i64 {
        let lane = self.lanes[route].first().filter(|_| !matches!(self.wants[number].cause, Cause::Warmup(_)));
        lane.map_or(0, |lane| self.leave_free[self.ledger.lanes()[*lane as usize].to as usize])
    }

    /// Brings a want's bytes to a relay where nobody reads them, and keeps them there to the end of `last_use`.
    fn stage(&mut self, number: usize, route: usize, by: By, last_use: usize) -> Option<Upstream> {
        let want = &self.wants[number];
        let (volume, relay) = (self.routes[route].volume, self.routes[route].to);
        let asked = matches!(want.cause, Cause::Warmup(_));
        let before = self.known.get(&(volume, want.path, want.offset, want.length, relay, asked)).copied();
        let left = before.and_then(|m| self.running.get(&m.id)).copied();
        let there = self.problem.resident.resident_bytes(relay, volume, want.path, want.offset, want.length);
        let bytes = left.unwrap_or(want.length - there.min(want.length)).max(1);
        // What runs already goes on at once.
        let by = if left.is_some() { By::Earliest } else { by };
        let deadline = if let By::Latest(slot) = by { slot } else { self.grid.slots() - 1 };
        let need = Need {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            release: 0,
            deadline,
            last_use: last_use.max(deadline),
            leave_free: self.spared(number, route),
        };
        let problem = self.problem;
        let has_it =
            |giver: &SiteId| problem.rules.verdict(problem.topology, volume, want.path, giver, problem.now).allows();
        let is_open = |w: &Way<'_>| w.stage.is_none() && has_it(&w.link.from);
        let ways = (0..self.routes[route].ways.len()).filter(|w| is_open(&self.routes[route].ways[*w]));
        let fits = ways.filter_map(|way| Some((way, self.fit(self.lanes[route][way], &need, by)?)));
        let (way, mut booking) = match by {
            By::Latest(_) => fits.max_by_key(|(way, b)| (b.first_slot(), usize::MAX - way)),
            By::Earliest => fits.min_by_key(|(way, b)| (b.last_slot(), *way)),
        }?;
        let cost = money(self.routes[route].ways[way].link, bytes);
        // The want's own crossing is yet to be paid.
        let (to, own) = (self.routes[want.route].to, (want.missing, self.own_money(number)));
        self.spend(number, to, own, 1);
        let unaffordable = self.unaffordable(number, relay, bytes, cost).is_some();
        self.spend(number, to, own, -1);
        if unaffordable {
            return None;
        }
        booking.last_use = (last_use.max(booking.last_slot())) as u16;
        self.ledger.book(&booking);
        self.spend(number, relay, (bytes, cost), 1);
        let up = Upstream::Stage(self.stages.len());
        let due = self.grid.end(booking.last_slot()) + self.lead(&self.routes[route].ways[way]);
        self.upstream.insert(self.at(number, route), up);
        self.at_relays.insert((route, want.path, want.offset), want.offset + want.length);
        self.stages.push(Stage { route, way, of: number, booking, bytes, due, before });
        Some(up)
    }

    /// The most that a want's own crossing can cost behind a relay.
    fn own_money(&self, number: usize) -> f64 {
        let behind = self.open_ways(number).filter(|way| self.way(number, *way).stage.is_some());
        let costs = behind.map(|way| money(self.way(number, way).link, self.wants[number].missing));
        costs.max_by(f64::total_cmp).unwrap_or(0.0)
    }

    /// Takes back the stage that was made last.
    fn unstage(&mut self) {
        let Some(stage) = self.stages.pop() else { return };
        let link = self.routes[stage.route].ways[stage.way].link;
        self.ledger.cancel(&stage.booking);
        self.spend(stage.of, self.routes[stage.route].to, (stage.bytes, money(link, stage.bytes)), -1);
        let at = self.at(stage.of, stage.route);
        self.upstream.remove(&at);
        self.at_relays.remove(&(at.0, at.1, at.2));
    }
}

/// The booking of what is followed, and when it is due.
fn brought<'t>(
    decided: &'t mut [Option<Decision>],
    stages: &'t mut [Stage<'_>],
    up: Upstream,
) -> Option<(&'t mut Booking, &'t mut Timestamp)> {
    match up {
        Upstream::Stage(n) => stages.get_mut(n).map(|s| (&mut s.booking, &mut s.due)),
        Upstream::Want(n) => match &mut decided[n] {
            Some(Decision::Move(placed)) => Some((&mut placed.booking, &mut placed.due)),
            _ => None,
        },
    }
}
