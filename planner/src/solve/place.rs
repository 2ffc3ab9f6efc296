//! The passes that give each want its place on a link.

use std::cmp::Ordering;
use std::time::Duration;

use foretide_flow::{Mode, Move, SiteId, TimeWindow, Timestamp};

use super::ways::By;
use super::{Decision, Placed, Table, Upstream};
use crate::brakes::BudgetLeft;
use crate::gather::{Cause, Want, money};
use crate::ledger::{Booking, Need};
use crate::left_out::Why;

/// Arrival by the end of `slot`, which the read is still ahead of with probability `in_time`.
pub(super) struct Tier {
    pub(super) slot: usize,
    pub(super) due: Timestamp,
    pub(super) in_time: f64,
}

/// Probability that a read with this window is still to come at `at`. A tenth remains after p90.
fn still_to_come(window: &TimeWindow, at: Timestamp) -> f64 {
    let between = |from: Timestamp, to: Timestamp, high: f64, low: f64| {
        let span = (to.0 - from.0).max(1) as f64;
        high + (low - high) * ((at.0 - from.0) as f64 / span).clamp(0.0, 1.0)
    };
    if at < window.p10 {
        let before = Timestamp(window.p10.0.saturating_sub((window.p50.0 - window.p10.0).max(0)));
        between(before, window.p10, 1.0, 0.9)
    } else if at < window.p50 {
        between(window.p10, window.p50, 0.9, 0.5)
    } else {
        between(window.p50, window.p90, 0.5, 0.1)
    }
}

impl Table<'_, '_> {
    /// What an agent carries out now goes on, first on its link, as long as somebody still wants it and the giver has it.
    pub(super) fn keep_running(&mut self) {
        if self.running.is_empty() {
            return;
        }
        for (number, want) in self.wants.iter().enumerate() {
            let Some((told, left)) = self.before[number].and_then(|m| Some((m, *self.running.get(&m.id)?))) else {
                continue;
            };
            let has = |way: &usize| match self.way(number, *way).stage {
                None => true,
                Some(stage) => self.is_at_relay(number, stage),
            };
            let way = self.open_ways(number).find(|way| self.way(number, *way).link.from == told.from).filter(has);
            let Some(way) = way.filter(|_| want.mode == Mode::Enforce) else { continue };
            let need = Need { leave_free: 0, ..self.need(number, left.max(1), 0, self.grid.slots() - 1) };
            if let Some(booking) = self.ledger.earliest(self.lanes[want.route][way], &need) {
                let arrival = self.grid.end(booking.last_slot());
                let in_time = want.window.map_or(1.0, |w| still_to_come(&w, arrival));
                let due = want.window.map_or(arrival, |w| w.p10.max(arrival));
                let bytes = self.crossing(number, booking.last_slot());
                let cost = money(self.way(number, way).link, bytes);
                let placed = Placed { way, bytes, cost, in_time, due, after: None, booking };
                self.decide(number, Decision::Move(placed));
            }
        }
    }

    /// Warm-ups by deadline, then forecasts by worth per byte.
    pub(super) fn place(&mut self) {
        let (asked, forecasts) = self.order();
        for number in asked {
            let decision = self.place_asked(number);
            self.decide(number, decision);
        }
        for &number in &forecasts {
            // Where readers of a relay want the same, they come first: then one crossing serves both.
            for giver in self.givers(number) {
                self.place_open(giver);
            }
            self.place_open(number);
        }
        self.prove(&forecasts);
    }

    fn place_open(&mut self, number: usize) {
        if self.decided[number].is_none() {
            let decision = self.place_forecast(number);
            self.decide(number, decision);
        }
    }

    /// Forecasts of the same extent at relays that could pass it on to a want.
    fn givers(&self, number: usize) -> Vec<usize> {
        let stages = self.open_ways(number).filter_map(|way| self.way(number, way).stage);
        let wanted = stages.filter_map(|stage| match self.upstream.get(&self.at(number, stage)) {
            Some(Upstream::Want(giver)) => Some(*giver),
            _ => None,
        });
        let foreseen =
            |n: &usize| matches!(self.wants[*n].cause, Cause::Forecast(_)) && self.wants[*n].mode == Mode::Enforce;
        wanted.filter(foreseen).collect()
    }

    /// What modes hold back, in what is left.
    pub(super) fn propose(&mut self) {
        for number in self.ranked(|want| want.mode != Mode::Enforce) {
            let decision = self.place_forecast(number);
            self.decide(number, decision);
        }
    }

    pub(super) fn decide(&mut self, number: usize, decision: Decision) {
        if let Decision::Move(placed) = &decision {
            self.ledger.book(&placed.booking);
            self.spend_crossing(number, placed.way, placed.bytes, 1);
        }
        let carries = matches!(decision, Decision::Move(_)) && self.wants[number].mode == Mode::Enforce;
        self.decided[number] = Some(decision);
        if carries {
            self.carries(number);
        }
    }

    /// Takes a decision back, with what it took.
    pub(super) fn withdraw(&mut self, number: usize) -> Option<Decision> {
        let decision = self.decided[number].take();
        if let Some(Decision::Move(placed)) = &decision {
            self.ledger.cancel(&placed.booking);
            self.spend_crossing(number, placed.way, placed.bytes, -1);
        }
        decision
    }

    /// As [`Table::spend`], for a want's own bytes by a way; a stage that it follows is paid for by itself.
    fn spend_crossing(&mut self, number: usize, way: usize, bytes: u64, sign: i64) {
        let money = money(self.way(number, way).link, bytes);
        self.spend(number, self.routes[self.wants[number].route].to, (bytes, money), sign);
    }

    /// Takes bytes and money from the budgets for what is moved to a site for a want; gives back with a negative sign.
    pub(super) fn spend(&mut self, number: usize, to: &SiteId, (bytes, money): (u64, f64), sign: i64) {
        let Cause::Forecast(forecast) = self.wants[number].cause else { return };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        for left in self.budgets.iter_mut().filter(|b| b.budget.covers(to, &forecast.workload)) {
            left.spend(sign * bytes, sign as f64 * money);
        }
    }

    /// The budget that does not afford a move to a site for a want, if one does not.
    pub(super) fn unaffordable(&self, number: usize, to: &SiteId, bytes: u64, money: f64) -> Option<Why> {
        let Cause::Forecast(forecast) = self.wants[number].cause else { return None };
        let covers = |b: &&BudgetLeft| b.budget.covers(to, &forecast.workload);
        let spent = self.budgets.iter().filter(covers).find(|b| !b.affords(bytes, money))?;
        Some(Why::NoBudget(spent.budget.name.as_str().into()))
    }

    /// Undecided wants that were asked for, and those that were foreseen; each those first that are served first.
    /// Warm-ups stand in order already.
    fn order(&self) -> (Vec<usize>, Vec<usize>) {
        let asked = |n: &usize| self.decided[*n].is_none() && matches!(self.wants[*n].cause, Cause::Warmup(_));
        ((0..self.wants.len()).filter(asked).collect(), self.ranked(|want| want.mode == Mode::Enforce))
    }

    /// Undecided forecasts of some kind by worth per byte.
    fn ranked(&self, kind: impl Fn(&Want<'_>) -> bool) -> Vec<usize> {
        let foreseen = |n: &usize| {
            let want = &self.wants[*n];
            self.decided[*n].is_none() && matches!(want.cause, Cause::Forecast(_)) && kind(want)
        };
        let mut ranked: Vec<(f64, Timestamp, usize)> =
            (0..self.wants.len()).filter(foreseen).map(|n| self.rank(n)).collect();
        ranked.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then_with(|| self.wants[a.2].path.cmp(self.wants[b.2].path)).then(
                (self.wants[a.2].route, self.wants[a.2].offset).cmp(&(self.wants[b.2].route, self.wants[b.2].offset)),
            )
        });
        ranked.into_iter().map(|r| r.2).collect()
    }

    fn rank(&self, number: usize) -> (f64, Timestamp, usize) {
        let want = &self.wants[number];
        let due = want.window.map_or(self.problem.now, |w| w.p10);
        let cheapest = self.open_ways(number).map(|way| self.cost(number, way, want.missing)).min_by(f64::total_cmp);
        (want.worth(1.0, cheapest.unwrap_or(0.0)) / want.missing as f64 * self.sticky(number), due, number)
    }

    /// How much more a want counts because the plan before had it.
    pub(super) fn sticky(&self, number: usize) -> f64 {
        if self.before[number].is_some() { 1.0 + self.problem.config.stickiness } else { 1.0 }
    }

    /// As late as its deadline allows; if that cannot be met, as early as the links allow.
    fn place_asked(&mut self, number: usize) -> Decision {
        let want = &self.wants[number];
        if let Some(due) = self.asked_by(want) {
            for way in self.ways_for(number, By::Latest(0)) {
                let slot = self.grid.ended_by(due - self.lead(self.way(number, way)));
                if let Some(placed) = slot.and_then(|slot| self.put(number, way, By::Latest(slot))) {
                    return Decision::Move(Placed { due, ..placed });
                }
            }
        }
        for way in self.ways_for(number, By::Earliest) {
            if let Some(placed) = self.put(number, way, By::Earliest) {
                let due = self.grid.end(placed.booking.last_slot()) + self.lead(self.way(number, way));
                return Decision::Move(Placed { due, ..placed });
            }
        }
        Decision::Leave(self.why_not(number, self.grid.slots() - 1))
    }

    /// When it was asked for; sooner if a forecast says that it is read sooner.
    fn asked_by(&self, want: &Want<'_>) -> Option<Timestamp> {
        let Cause::Warmup(demand) = want.cause else { return None };
        let read = want.window.map(|w| w.p10);
        demand.request.due().map(|by| read.map_or(by, |read| by.min(read)))
    }

    pub(super) fn place_forecast(&mut self, number: usize) -> Decision {
        let want = &self.wants[number];
        let Some(window) = want.window else { return Decision::Leave(Why::NotWorth) };
        if window.p10 > self.grid.horizon() {
            return Decision::Leave(Why::Beyond);
        }
        let to = self.routes[want.route].to;
        let mut why = Why::NotWorth;
        for choice in self.choices(number, window) {
            let bytes = self.crossing(number, choice.tier.slot);
            let money = money(self.way(number, choice.way).link, bytes);
            if let Some(spent) = self.unaffordable(number, to, bytes, money) {
                why = spent;
                continue;
            }
            match self.put(number, choice.way, By::Latest(choice.tier.slot)) {
                Some(placed) => {
                    let tier = choice.tier;
                    return Decision::Move(Placed { in_time: tier.in_time, due: tier.due, ..placed });
                }
                None => why = self.why_not(number, choice.tier.slot),
            }
        }
        Decision::Leave(why)
    }

    /// Deadlines of a want by a way whose last byte is trusted `lead` after it has crossed, the first the best.
    pub(super) fn tiers<'t>(
        &'t self,
        want: &'t Want<'_>,
        window: TimeWindow,
        lead: Duration,
    ) -> impl Iterator<Item = Tier> + 't {
        let alone = Duration::from_secs_f64(want.stall_s);
        let mut before = None;
        [window.p10, window.p50, window.p90].into_iter().filter_map(move |quantile| {
            let slot = self.grid.ended_by(quantile - lead).unwrap_or(0);
            // A slot that has begun can still bring it in time if the link takes it at once.
            let arrival = if slot == 0 { self.problem.now + alone } else { self.grid.end(slot) + lead };
            let tier = Tier { slot, due: quantile.max(arrival), in_time: still_to_come(&window, arrival) };
            (before.replace(slot) != Some(slot)).then_some(tier)
        })
    }

    pub(super) fn need(&self, number: usize, bytes: u64, release: usize, deadline: usize) -> Need {
        let want = &self.wants[number];
        Need {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            release,
            deadline,
            last_use: self.grid.slot_at(want.keep_until(self.problem)).max(deadline),
            leave_free: self.spared(number, want.route),
        }
    }

    fn why_not(&self, number: usize, deadline: usize) -> Why {
        let need = self.need(number, self.wants[number].missing, 0, deadline);
        let lane = self.lanes[self.wants[number].route].first();
        if lane.is_none_or(|lane| self.ledger.roomy(*lane, &need)) { Why::NoRate } else { Why::NoRoom }
    }

    /// Everything that is placed moves into what nobody took, soonest due first.
    pub(super) fn pull_forward(&mut self) {
        let soon = self.problem.now + Duration::from_secs_f64(self.problem.config.pull_forward_s);
        let placed = |n: &usize| match &self.decided[*n] {
            Some(Decision::Move(p)) => matches!(self.wants[*n].cause, Cause::Warmup(_)) || p.due <= soon,
            _ => false,
        };
        let mut order: Vec<usize> = (0..self.wants.len()).filter(placed).collect();
        order.sort_by(|a, b| self.sooner(*a, *b));
        for number in order {
            self.pull_one(number);
        }
    }

    fn sooner(&self, a: usize, b: usize) -> Ordering {
        let due = |n: usize| match &self.decided[n] {
            Some(Decision::Move(p)) => p.due,
            _ => Timestamp(i64::MAX),
        };
        let asked = |n: usize| matches!(self.wants[n].cause, Cause::Forecast(_));
        (due(a), asked(a))
            .cmp(&(due(b), asked(b)))
            .then_with(|| self.wants[b].spared_per_byte().total_cmp(&self.wants[a].spared_per_byte()))
            .then_with(|| self.wants[a].path.cmp(self.wants[b].path))
            .then((self.wants[a].route, self.wants[a].offset).cmp(&(self.wants[b].route, self.wants[b].offset)))
    }

    /// Moves a want into what nobody took before it; what it follows goes first.
    fn pull_one(&mut self, number: usize) {
        let Some(Placed { booking, due, after, .. }) = self.placed(number).cloned() else { return };
        // What is followed is due sooner than it is read.
        let due = self.wants[number].window.map_or(due, |w| w.p10.max(due));
        match after {
            Some(Upstream::Want(up)) => self.pull_one(up),
            Some(Upstream::Stage(up)) => {
                let stage = &self.stages[up];
                let spared = self.spared(stage.of, stage.route);
                let (booking, before) = (stage.booking.clone(), stage.before);
                self.stages[up].booking = self.pulled(booking, (0, spared), before, due);
            }
            None => {}
        }
        let carried_by = self.carried_by(number, booking.last_slot());
        let release = after.map_or(0, |up| self.after_arrival(up)).max(carried_by);
        let spared = self.spared(number, self.wants[number].route);
        let booking = self.pulled(booking, (release, spared), self.before[number], due);
        if let Some(up) = after {
            // It ends no later than before, so what it follows is kept long enough.
            self.follow(up, &booking);
        }
        if let Some(Decision::Move(placed)) = &mut self.decided[number] {
            placed.booking = booking;
        }
    }

    /// A booking as early as it can be from `release` on, but at the start that was told before if that is nearly as
    /// early.
    fn pulled(
        &mut self,
        booking: Booking,
        (release, leave_free): (usize, i64),
        before: Option<&Move>,
        due: Timestamp,
    ) -> Booking {
        let need = Need {
            bytes: booking.pieces.iter().map(|p| p.1).sum(),
            release,
            deadline: booking.last_slot(),
            last_use: booking.last_use as usize,
            leave_free,
        };
        self.ledger.cancel(&booking);
        let earlier = self.ledger.earliest(booking.lane, &need).map(|earlier| {
            let kept = before.filter(|m| m.start_at > self.problem.now).and_then(|m| {
                let told = self.grid.slot_at(m.start_at).max(release);
                let gain = m.start_at.since(self.grid.start(earlier.first_slot())).as_secs_f64();
                let ahead = due.since(self.problem.now).as_secs_f64();
                let near = told > earlier.first_slot() && gain <= ahead * self.problem.config.start_tolerance;
                let again = Need { release: told, ..need };
                near.then(|| self.ledger.earliest(booking.lane, &again)).flatten()
            });
            kept.unwrap_or(earlier)
        });
        let booking = earlier.unwrap_or(booking);
        self.ledger.book(&booking);
        booking
    }
}
