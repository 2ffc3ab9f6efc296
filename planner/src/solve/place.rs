//! The passes that give each want its place on a link.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use foretide_flow::{Mode, TimeWindow, Timestamp};

use super::{Decision, Table};
use crate::brakes::BudgetLeft;
use crate::gather::{Cause, Want};
use crate::ledger::Need;
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
    /// What an agent carries out now goes on, first on its link, as long as somebody still wants it.
    pub(super) fn keep_running(&mut self) {
        let left: HashMap<_, _> = self.problem.running.iter().map(|r| (&r.planned.id, r.left_bytes)).collect();
        if left.is_empty() {
            return;
        }
        for (number, want) in self.wants.iter().enumerate() {
            let Some(left) = self.before[number].and_then(|m| left.get(&m.id)) else { continue };
            if want.mode != Mode::Enforce {
                continue;
            }
            let need = Need { leave_free: 0, ..self.need(want, 0, self.grid.slots() - 1) };
            let need = Need { bytes: i64::try_from(*left).unwrap_or(i64::MAX).max(1), ..need };
            if let Some(booking) = self.ledger.earliest(self.lanes[want.route], &need) {
                let arrival = self.grid.end(booking.last_slot());
                let in_time = want.window.map_or(1.0, |w| still_to_come(&w, arrival));
                let due = want.window.map_or(arrival, |w| w.p10.max(arrival));
                self.decide(number, Decision::Move { booking, in_time, due });
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
            let decision = self.place_forecast(number);
            self.decide(number, decision);
        }
        self.prove(&forecasts);
    }

    /// What modes hold back, in what is left.
    pub(super) fn propose(&mut self) {
        for number in self.ranked(|want| want.mode != Mode::Enforce) {
            let decision = self.place_forecast(number);
            self.decide(number, decision);
        }
    }

    pub(super) fn decide(&mut self, number: usize, decision: Decision) {
        if let Decision::Move { booking, .. } = &decision {
            self.ledger.book(booking);
            self.spend(number, 1);
        }
        self.decided[number] = Some(decision);
    }

    /// Takes a decision back, with what it took.
    pub(super) fn withdraw(&mut self, number: usize) -> Option<Decision> {
        let decision = self.decided[number].take();
        if let Some(Decision::Move { booking, .. }) = &decision {
            self.ledger.cancel(booking);
            self.spend(number, -1);
        }
        decision
    }

    fn spend(&mut self, number: usize, sign: i64) {
        let want = &self.wants[number];
        let Cause::Forecast(forecast) = want.cause else { return };
        let bytes = i64::try_from(want.missing).unwrap_or(i64::MAX);
        for left in self.budgets.iter_mut().filter(|b| b.budget.covers(&forecast.site, &forecast.workload)) {
            left.spend(sign * bytes, sign as f64 * want.cost);
        }
    }

    /// The budget that does not afford a want, if one does not.
    pub(super) fn unaffordable(&self, want: &Want<'_>) -> Option<Why> {
        let Cause::Forecast(forecast) = want.cause else { return None };
        let covers = |b: &&BudgetLeft| b.budget.covers(&forecast.site, &forecast.workload);
        let spent = self.budgets.iter().filter(covers).find(|b| !b.affords(want.missing, want.cost))?;
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
        (want.worth(1.0) / want.missing as f64 * self.sticky(number), due, number)
    }

    /// How much more a want counts because the plan before had it.
    pub(super) fn sticky(&self, number: usize) -> f64 {
        if self.before[number].is_some() { 1.0 + self.problem.config.stickiness } else { 1.0 }
    }

    /// As late as its deadline allows; if that cannot be met, as early as the link allows.
    fn place_asked(&self, number: usize) -> Decision {
        let want = &self.wants[number];
        let lane = self.lanes[want.route];
        let last = self.grid.slots() - 1;
        let in_time = self.asked_by(want).and_then(|due| Some((due, self.grid.ended_by(due - self.lead(want))?)));
        if let Some((due, slot)) = in_time
            && let Some(booking) = self.ledger.latest(lane, &self.need(want, 0, slot))
        {
            return Decision::Move { booking, in_time: 1.0, due };
        }
        match self.ledger.earliest(lane, &self.need(want, 0, last)) {
            Some(booking) => {
                let due = self.grid.end(booking.last_slot()) + self.lead(want);
                Decision::Move { booking, in_time: 1.0, due }
            }
            None => Decision::Leave(self.why_not(want, last)),
        }
    }

    /// When it was asked for; sooner if a forecast says that it is read sooner.
    fn asked_by(&self, want: &Want<'_>) -> Option<Timestamp> {
        let Cause::Warmup(demand) = want.cause else { return None };
        let read = want.window.map(|w| w.p10);
        demand.request.need_by.map(|by| read.map_or(by, |read| by.min(read)))
    }

    pub(super) fn place_forecast(&self, number: usize) -> Decision {
        let want = &self.wants[number];
        let Some(window) = want.window else { return Decision::Leave(Why::NotWorth) };
        if window.p10 > self.grid.horizon() {
            return Decision::Leave(Why::Beyond);
        }
        if let Some(why) = self.unaffordable(want) {
            return Decision::Leave(why);
        }
        let lane = self.lanes[want.route];
        let mut why = Why::NotWorth;
        for tier in self.tiers(want, &window).filter(|t| want.worth(t.in_time) > 0.0) {
            match self.ledger.latest(lane, &self.need(want, 0, tier.slot)) {
                Some(booking) => return Decision::Move { booking, in_time: tier.in_time, due: tier.due },
                None => why = self.why_not(want, tier.slot),
            }
        }
        Decision::Leave(why)
    }

    pub(super) fn tiers<'t>(&'t self, want: &'t Want<'_>, window: &'t TimeWindow) -> impl Iterator<Item = Tier> + 't {
        let lead = self.lead(want);
        let alone = Duration::from_secs_f64(want.stall_s);
        let mut before = None;
        [window.p10, window.p50, window.p90].into_iter().filter_map(move |quantile| {
            let slot = self.grid.ended_by(quantile - lead).unwrap_or(0);
            // A slot that has begun can still bring it in time if the link takes it at once.
            let arrival = if slot == 0 { self.problem.now + alone } else { self.grid.end(slot) + lead };
            let tier = Tier { slot, due: quantile.max(arrival), in_time: still_to_come(window, arrival) };
            (before.replace(slot) != Some(slot)).then_some(tier)
        })
    }

    /// From the last byte on the link to the byte being trusted.
    fn lead(&self, want: &Want<'_>) -> Duration {
        Duration::from_secs_f64(self.routes[want.route].link.rtt_ms / 1e3 + self.problem.config.settle_ms / 1e3)
    }

    pub(super) fn need(&self, want: &Want<'_>, release: usize, deadline: usize) -> Need {
        let leave_free = if matches!(want.cause, Cause::Warmup(_)) { 0 } else { self.leave_free[want.route] };
        Need {
            bytes: i64::try_from(want.missing).unwrap_or(i64::MAX),
            release,
            deadline,
            last_use: self.grid.slot_at(want.keep_until(self.problem)).max(deadline),
            leave_free,
        }
    }

    fn why_not(&self, want: &Want<'_>, deadline: usize) -> Why {
        let need = self.need(want, 0, deadline);
        if self.ledger.roomy(self.lanes[want.route], &need) { Why::NoRate } else { Why::NoRoom }
    }

    /// Everything that is placed moves into what nobody took, soonest due first.
    pub(super) fn pull_forward(&mut self) {
        let soon = self.problem.now + Duration::from_secs_f64(self.problem.config.pull_forward_s);
        let placed = |n: &usize| match &self.decided[*n] {
            Some(Decision::Move { due, .. }) => matches!(self.wants[*n].cause, Cause::Warmup(_)) || *due <= soon,
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
            Some(Decision::Move { due, .. }) => *due,
            _ => Timestamp(i64::MAX),
        };
        let asked = |n: usize| matches!(self.wants[n].cause, Cause::Forecast(_));
        (due(a), asked(a))
            .cmp(&(due(b), asked(b)))
            .then_with(|| self.wants[a].path.cmp(self.wants[b].path))
            .then((self.wants[a].route, self.wants[a].offset).cmp(&(self.wants[b].route, self.wants[b].offset)))
    }

    fn pull_one(&mut self, number: usize) {
        let want = &self.wants[number];
        let Some(Decision::Move { booking, due, .. }) = &mut self.decided[number] else { return };
        let need = Need {
            bytes: booking.pieces.iter().map(|p| p.1).sum(),
            release: 0,
            deadline: booking.last_slot(),
            last_use: booking.last_use as usize,
            leave_free: if matches!(want.cause, Cause::Warmup(_)) { 0 } else { self.leave_free[want.route] },
        };
        self.ledger.cancel(booking);
        if let Some(earlier) = self.ledger.earliest(booking.lane, &need) {
            let kept = self.before[number].filter(|m| m.start_at > self.problem.now).and_then(|m| {
                let release = self.grid.slot_at(m.start_at);
                let gain = m.start_at.since(self.grid.start(earlier.first_slot())).as_secs_f64();
                let ahead = due.since(self.problem.now).as_secs_f64();
                let near = release > earlier.first_slot() && gain <= ahead * self.problem.config.start_tolerance;
                let again = Need { release, ..need };
                near.then(|| self.ledger.earliest(booking.lane, &again)).flatten()
            });
            *booking = kept.unwrap_or(earlier);
        }
        self.ledger.book(booking);
    }
}
