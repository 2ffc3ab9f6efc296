//! What must hold of every plan, read off the plan and the problem it was made for.

use std::collections::{BTreeMap, HashMap};

use foretide_flow::{FilePath, Move, MoveCause, Plan, SiteId, VolumeId};

use crate::Problem;

/// Which bytes of a file, where.
type Place<'p> = (&'p SiteId, &'p VolumeId, &'p FilePath, u64, u64);

fn place<'p>(m: &'p Move, at: &'p SiteId) -> Place<'p> {
    (at, &m.volume, &m.path, m.offset, m.length)
}

/// What a plan breaks, in words; nothing if every invariant holds.
pub(super) fn broken(problem: &Problem<'_>, plan: &Plan) -> Vec<String> {
    let coming: HashMap<Place<'_>, &Move> = plan.moves.iter().map(|m| (place(m, &m.to), m)).collect();
    let passed_on: HashMap<Place<'_>, &Move> = plan.moves.iter().map(|m| (place(m, &m.from), m)).collect();
    let mut found: Vec<String> = plan
        .moves
        .iter()
        .filter_map(|m| {
            let why =
                border(problem, m, passed_on.contains_key(&place(m, &m.to))).or_else(|| giver(problem, m, &coming));
            why.map(|why| format!("plan of {} us: {} {}: {why}", plan.made_at.0, m.id, m.path))
        })
        .collect();
    found.extend(twice(plan));
    found.extend(overspent(problem, plan));
    found
}

/// Promise I, along the whole way.
fn border(problem: &Problem<'_>, m: &Move, is_passed_on: bool) -> Option<String> {
    let verdict = problem.rules.verdict(problem.topology, &m.volume, &m.path, &m.to, problem.now);
    let may = verdict.allows() || (is_passed_on && verdict.lets_pass());
    (!may).then(|| format!("a border forbids it at {}", m.to))
}

/// Whoever gives has the bytes, or gets them before.
fn giver(problem: &Problem<'_>, m: &Move, coming: &HashMap<Place<'_>, &Move>) -> Option<String> {
    let own = problem.topology.volumes.get(&m.volume).is_some_and(|v| v.at == m.from);
    let copy = problem.supply.copies.get(&m.volume).is_some_and(|c| c.contains(&m.from));
    if own || copy {
        return None;
    }
    let there = problem.resident.resident_bytes(&m.from, &m.volume, &m.path, m.offset, m.length) >= m.length;
    let before =
        coming.get(&place(m, &m.from)).is_some_and(|up| up.due_at <= m.start_at && up.keep_until >= m.start_at);
    (!there && !before).then(|| format!("{} has nothing to give", m.from))
}

/// No byte is planned twice for a site.
fn twice(plan: &Plan) -> Option<String> {
    let mut ends: BTreeMap<(&SiteId, &VolumeId, &FilePath), u64> = BTreeMap::new();
    let mut moves: Vec<&Move> = plan.moves.iter().collect();
    moves.sort_by_key(|m| m.offset);
    moves.into_iter().find_map(|m| {
        let end = ends.entry((&m.to, &m.volume, &m.path)).or_default();
        let again = m.offset < *end;
        *end = (*end).max(m.offset + m.length);
        again.then(|| format!("plan of {} us: {} to {} twice", plan.made_at.0, m.path, m.to))
    })
}

/// Forecasts ask for no more than the budgets have left.
fn overspent(problem: &Problem<'_>, plan: &Plan) -> Option<String> {
    let left: HashMap<_, u64> = problem.running.iter().map(|r| (&r.planned.id, r.left_bytes)).collect();
    problem.brakes.budgets.iter().find_map(|left_of| {
        let bytes = |m: &Move| {
            let MoveCause::Forecast { workload, .. } = &m.cause else { return 0 };
            let there = problem.resident.resident_bytes(&m.to, &m.volume, &m.path, m.offset, m.length);
            // What runs goes on though its budget is spent.
            let asked = if left.contains_key(&m.id) { 0 } else { m.length.saturating_sub(there) };
            if left_of.budget.covers(&m.to, workload) { asked } else { 0 }
        };
        let asked: u64 = plan.moves.iter().map(bytes).sum();
        let over = left_of.bytes.is_some_and(|left| asked as i64 > left.max(0));
        over.then(|| format!("plan of {} us: {asked} bytes over {}", plan.made_at.0, left_of.budget.name))
    })
}
