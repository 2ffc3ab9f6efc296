//! Decisions in the words of the plan.

use foretide_flow::{Mode, Move, MoveCause, MoveId, Plan, Priority, Timestamp};

use super::identity::{move_id, plan_id};
use super::{Decision, Table, key_of};
use crate::gather::{Cause, Excluded, Route, Want};
use crate::grid::Grid;
use crate::ledger::Booking;
use crate::left_out::Why;
use crate::problem::Problem;

/// The plan, and what modes hold back: moves in the order in which they should start.
pub(super) fn plan(table: &Table<'_, '_>, excluded: Excluded) -> (Plan, Vec<Move>) {
    let problem = table.problem;
    let Excluded { refused, mut left_out } = excluded;
    let (mut moves, mut proposed) = (Vec::with_capacity(table.wants.len()), Vec::new());
    for (number, want) in table.wants.iter().enumerate() {
        let route = &table.routes[want.route];
        match &table.decided[number] {
            Some(Decision::Move { booking, in_time, due }) => {
                let before = table.before[number];
                let start_at = start_at(problem, &table.grid, booking, before);
                let id = before.map(|m| m.id.clone());
                let planned = one(problem, want, route, (id, start_at, *due, *in_time));
                let planned = match before {
                    Some(told) if still_holds(problem, told, &planned) => told.clone(),
                    _ => planned,
                };
                let held_back = match want.mode {
                    Mode::Enforce => {
                        moves.push(planned);
                        continue;
                    }
                    Mode::Advise => Why::Advised,
                    Mode::Shadow => Why::Shadowed,
                };
                left_out.add(route.volume, want.path, route.to, want.missing, &held_back);
                proposed.push(planned);
            }
            Some(Decision::Leave(why)) => left_out.add(route.volume, want.path, route.to, want.missing, why),
            None => {}
        }
    }
    let when = |m: &Move| (m.start_at.max(problem.now), m.priority, m.due_at);
    let order = |a: &Move, b: &Move| when(a).cmp(&when(b)).then_with(|| key_of(a).cmp(&key_of(b)));
    moves.sort_by(order);
    proposed.sort_by(order);
    let plan = Plan {
        id: plan_id(problem.now, problem.seed, &moves),
        made_at: problem.now,
        horizon: table.grid.horizon(),
        moves,
        refused,
        left_out: left_out.told(problem.config),
    };
    (plan, proposed)
}

/// A move that was let go stays so; one that could start a little later than it was told keeps its time; the others
/// start with their first slot.
fn start_at(problem: &Problem<'_>, grid: &Grid, booking: &Booking, before: Option<&Move>) -> Timestamp {
    let (now, start) = (problem.now, grid.start(booking.first_slot()));
    let Some(told) = before.map(|m| m.start_at) else { return start };
    if told <= now {
        return if start <= now { told } else { start };
    }
    let slack_s = start.since(now).as_secs_f64() * problem.config.start_tolerance;
    if told <= start && start.since(told).as_secs_f64() <= slack_s { told } else { start }
}

/// Whether an agent that was told a move would do the same if it were told it as it is planned now. If so it stays as
/// it was told, word for word: a forecast is made anew many times a second, and a plan that only repeats it must not
/// be sent again (property (f)).
fn still_holds(problem: &Problem<'_>, told: &Move, planned: &Move) -> bool {
    let tolerated = |told: Timestamp, planned: Timestamp| {
        let apart_s = told.since(planned).max(planned.since(told)).as_secs_f64();
        apart_s <= problem.config.start_tolerance * planned.since(problem.now).as_secs_f64()
    };
    // What was let go and is due no sooner than it was told is carried out no otherwise.
    let hurries = |told: &Move, planned: &Move| told.start_at <= problem.now && told.due_at <= planned.due_at;
    told.start_at == planned.start_at
        && told.priority == planned.priority
        && (&told.from, asked_by(&told.cause)) == (&planned.from, asked_by(&planned.cause))
        && (told.due_at == planned.due_at || hurries(told, planned) || tolerated(told.due_at, planned.due_at))
        && (told.keep_until == planned.keep_until || tolerated(told.keep_until, planned.keep_until))
}

/// The workload or the warm-up that a move serves.
fn asked_by(cause: &MoveCause) -> &str {
    match cause {
        MoveCause::Forecast { workload, .. } => workload.as_str(),
        MoveCause::Warmup { warmup } => warmup.as_str(),
    }
}

fn one(
    problem: &Problem<'_>,
    want: &Want<'_>,
    route: &Route<'_>,
    (id, start_at, due_at, in_time): (Option<MoveId>, Timestamp, Timestamp, f64),
) -> Move {
    let asked = matches!(want.cause, Cause::Warmup(_));
    let name = || move_id(route.volume, want.path, (want.offset, want.length), route.to, asked);
    Move {
        id: id.unwrap_or_else(name),
        volume: route.volume.clone(),
        path: want.path.clone(),
        offset: want.offset,
        length: want.length,
        from: route.from.clone(),
        to: route.to.clone(),
        start_at,
        due_at,
        keep_until: want.keep_until(problem).max(due_at),
        priority: if asked { Priority::Deadline } else { Priority::Background },
        probability: want.probability,
        benefit_s: want.probability * in_time * want.stall_s,
        cost: want.cost,
        cause: match want.cause {
            Cause::Forecast(f) => MoveCause::Forecast { forecast: f.id.clone(), workload: f.workload.clone() },
            Cause::Warmup(w) => MoveCause::Warmup { warmup: w.id.clone() },
        },
        reason: reason(problem, want, due_at),
    }
}

fn reason(problem: &Problem<'_>, want: &Want<'_>, due_at: Timestamp) -> String {
    match want.cause {
        Cause::Forecast(f) => format!("{}: {}", f.forecaster, f.reason),
        Cause::Warmup(w) => match w.request.need_by {
            None => "asked for as soon as possible".into(),
            Some(by) if by <= problem.now => {
                let late = problem.now.since(by).as_secs_f64();
                format!("asked for by a deadline that passed {late:.0} s ago: moved at once")
            }
            Some(by) if due_at > by => {
                let late = due_at.since(by).as_secs_f64();
                format!("asked for by a deadline that the link cannot meet: expected {late:.0} s late")
            }
            Some(_) => "asked for by its deadline".into(),
        },
    }
}
