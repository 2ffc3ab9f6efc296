//! Decisions in the words of the plan.

use foretide_flow::{Mode, Move, MoveCause, Plan, Priority, SiteId, Timestamp};

use super::identity::{move_id, plan_id};
use super::{Decision, Placed, Table, Upstream, key_of};
use crate::gather::{Cause, Excluded, Want, money};
use crate::ledger::Booking;
use crate::left_out::Why;
use crate::problem::Problem;

/// The plan, and what modes hold back: moves in the order in which they should start.
pub(super) fn plan(table: &Table<'_, '_>, excluded: Excluded) -> (Plan, Vec<Move>) {
    let problem = table.problem;
    let Excluded { refused, mut left_out } = excluded;
    let mut moves: Vec<Move> = serves(table).iter().enumerate().map(|(n, others)| staged(table, n, others)).collect();
    let mut proposed = Vec::new();
    moves.reserve(table.wants.len());
    for (number, want) in table.wants.iter().enumerate() {
        let route = &table.routes[want.route];
        match &table.decided[number] {
            Some(Decision::Move(placed)) => {
                let planned = wanted(table, number, placed);
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

/// The move of a want.
fn wanted(table: &Table<'_, '_>, number: usize, placed: &Placed) -> Move {
    let (problem, want, before) = (table.problem, &table.wants[number], table.before[number]);
    let until = table.passed_until.get(&number).copied();
    let link = table.way(number, placed.way).link;
    let is_chained = until.is_some() || placed.after.is_some();
    // What follows another move must not start before that has ended.
    let slack = if placed.after.is_some() { 0.0 } else { problem.config.start_tolerance };
    let start_at = start_at(table, &link.to, &placed.booking, (before, slack));
    let planned = Move {
        from: link.from.clone(),
        start_at,
        due_at: placed.due,
        keep_until: want.keep_until(problem).max(placed.due).max(until.unwrap_or(placed.due)),
        benefit_s: want.probability * placed.in_time * want.stall_s,
        cost: money(link, placed.bytes),
        reason: reason(problem, want, placed.due),
        shared_bytes: want.missing.saturating_sub(placed.bytes),
        ..outline(table, want, table.routes[want.route].to, before)
    };
    match before {
        Some(told) if still_holds(problem, told, &planned, is_chained) => told.clone(),
        _ => planned,
    }
}

/// Where those are who follow each stage.
fn serves<'t>(table: &'t Table<'_, '_>) -> Vec<Vec<&'t str>> {
    let mut serves = vec![Vec::new(); table.stages.len()];
    for (number, want) in table.wants.iter().enumerate() {
        if let Some(Upstream::Stage(stage)) = table.placed(number).and_then(|p| p.after) {
            serves[stage].push(table.routes[want.route].to.as_str());
        }
    }
    serves
}

/// The move that brings bytes to a relay for the sake of others.
fn staged(table: &Table<'_, '_>, number: usize, others: &[&str]) -> Move {
    let stage = &table.stages[number];
    let (want, link) = (&table.wants[stage.of], table.routes[stage.route].ways[stage.way].link);
    let planned = Move {
        from: link.from.clone(),
        start_at: start_at(table, &link.to, &stage.booking, (stage.before, table.problem.config.start_tolerance)),
        due_at: stage.due,
        keep_until: table.grid.end(stage.booking.last_use as usize).max(stage.due),
        benefit_s: 0.0,
        cost: money(link, stage.bytes),
        reason: format!("on its way to {}", others.join(", ")),
        ..outline(table, want, table.routes[stage.route].to, stage.before)
    };
    match stage.before {
        Some(told) if still_holds(table.problem, told, &planned, true) => told.clone(),
        _ => planned,
    }
}

/// What a move of a want's extent has whatever is decided of it; the rest is left empty. It keeps its name.
fn outline(table: &Table<'_, '_>, want: &Want<'_>, to: &SiteId, before: Option<&Move>) -> Move {
    let volume = table.routes[want.route].volume;
    let asked = matches!(want.cause, Cause::Warmup(_));
    let name = || move_id(volume, want.path, (want.offset, want.length), to, asked);
    Move {
        id: before.map_or_else(name, |m| m.id.clone()),
        volume: volume.clone(),
        path: want.path.clone(),
        offset: want.offset,
        length: want.length,
        from: to.clone(),
        to: to.clone(),
        start_at: Timestamp(0),
        due_at: Timestamp(0),
        keep_until: Timestamp(0),
        priority: if asked { Priority::Deadline } else { Priority::Background },
        probability: want.probability,
        benefit_s: 0.0,
        cost: 0.0,
        cause: match want.cause {
            Cause::Forecast(f) => MoveCause::Forecast { forecast: f.id.clone(), workload: f.workload.clone() },
            Cause::Warmup(w) => MoveCause::Warmup { warmup: w.id.clone() },
        },
        reason: String::new(),
        shared_bytes: 0,
    }
}

/// A move that was let go stays so; one that could start a little later than it was told keeps its time; the others
/// start with their first slot. Where the site's clock is behind, a move starts by that clock.
fn start_at(table: &Table<'_, '_>, to: &SiteId, booking: &Booking, (before, slack): (Option<&Move>, f64)) -> Timestamp {
    let (problem, grid) = (table.problem, &table.grid);
    let (now, start) = (problem.now, grid.start(booking.first_slot()));
    if let Some(ahead_s) = problem.brakes.clocks.get(to) {
        return Timestamp(now.0.saturating_add((ahead_s.min(0.0) * 1e6) as i64));
    }
    let Some(told) = before.map(|m| m.start_at) else { return start };
    if told <= now {
        return if start <= now { told } else { start };
    }
    let slack_s = start.since(now).as_secs_f64() * slack;
    if told <= start && start.since(told).as_secs_f64() <= slack_s { told } else { start }
}

/// Whether an agent that was told a move would do the same if it were told it as it is planned now. If so it stays as
/// it was told, word for word: a forecast is made anew many times a second, and a plan that only repeats it must not
/// be sent again (property (f)). What follows another move, or is followed, may be due no later than it is planned.
fn still_holds(problem: &Problem<'_>, told: &Move, planned: &Move, is_chained: bool) -> bool {
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
        && (!is_chained || (told.due_at <= planned.due_at && told.keep_until >= planned.keep_until))
}

/// The workload or the warm-up that a move serves.
fn asked_by(cause: &MoveCause) -> &str {
    match cause {
        MoveCause::Forecast { workload, .. } => workload.as_str(),
        MoveCause::Warmup { warmup } => warmup.as_str(),
    }
}

fn reason(problem: &Problem<'_>, want: &Want<'_>, due_at: Timestamp) -> String {
    match want.cause {
        Cause::Forecast(f) => format!("{}: {}", f.forecaster, f.reason),
        Cause::Warmup(w) => match w.request.due() {
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
