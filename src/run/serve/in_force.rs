//! Whether a plan says anything that the one in force does not: a pure decision.
//!
//! Forecasts are told anew as a job reads on, with a later end each time, and with them every move's times. Told to an
//! agent that is busy with just these moves it would change nothing but the work of telling: writing thousands of
//! moves down, sending them over the wide-area link, putting them in order there. So a plan is in force until one
//! differs in what is moved, or by more than a [`DRIFT`] in when.

use std::collections::{HashMap, HashSet};

use foretide_flow::{Move, MoveCause, MoveId, Plan, Timestamp};
use foretide_planner::Residency as _;

use super::residency::Resident;

/// Of the time that is left until it, by how much a moment may shift; of a worth, by how much it may change.
const DRIFT: f64 = 0.25;

/// Whether a plan wants more than the one in force, something else, or something at another time, or gives something up.
/// That moves are gone because their bytes are there is nothing new, and while much moves it is most of what changes
/// from round to round.
pub fn differs(in_force: &Plan, plan: &Plan, resident: &Resident) -> bool {
    let known: HashMap<&MoveId, &Move> = in_force.moves.iter().map(|m| (&m.id, m)).collect();
    let wanted: HashSet<&MoveId> = plan.moves.iter().map(|m| &m.id).collect();
    let carried = |m: &Move| resident.resident_bytes(&m.to, &m.volume, &m.path, m.offset, m.length) >= m.length;
    let is_told = |m: &Move| known.get(&m.id).is_some_and(|known| says_the_same(known, m, plan.made_at));
    !plan.moves.iter().all(is_told)
        || in_force.moves.iter().any(|m| !wanted.contains(&m.id) && !carried(m))
        || in_force.refused.len() != plan.refused.len()
        || in_force.left_out != plan.left_out
}

/// A move whose bytes are there is in force no more: should they leave, and the same move be wanted again, that is news.
pub fn forget_carried(in_force: &mut Plan, plan: &Plan) {
    let wanted: HashSet<&MoveId> = plan.moves.iter().map(|m| &m.id).collect();
    in_force.moves.retain(|m| wanted.contains(&m.id));
}

fn says_the_same(known: &Move, m: &Move, now: Timestamp) -> bool {
    let times = [(known.start_at, m.start_at), (known.due_at, m.due_at), (known.keep_until, m.keep_until)];
    let worths = [(known.probability, m.probability), (known.benefit_s, m.benefit_s), (known.cost, m.cost)];
    known.priority == m.priority
        && times.iter().all(|(a, b)| is_near(a.since(now).as_secs_f64(), b.since(now).as_secs_f64()))
        && worths.iter().all(|(a, b)| is_near(*a, *b))
        && of_the_same(&known.cause, &m.cause)
        && (known.offset, known.length) == (m.offset, m.length)
        && (&known.volume, &known.path) == (&m.volume, &m.path)
        && (&known.from, &known.to) == (&m.from, &m.to)
}

/// What lies behind us counts as now.
fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() <= DRIFT * a.max(b)
}

/// A forecast of the same workload that was told anew is the same cause.
fn of_the_same(known: &MoveCause, cause: &MoveCause) -> bool {
    match (known, cause) {
        (MoveCause::Forecast { workload: a, .. }, MoveCause::Forecast { workload: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use foretide_catalog::ResidentFile;
    use foretide_flow::{FilePath, ForecastId, PlanId, Priority, SiteId, VolumeId, WorkloadId};

    use super::*;

    fn a_move(name: &str, due: i64) -> Move {
        Move {
            id: name.into(),
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(name).unwrap(),
            offset: 0,
            length: 100,
            from: SiteId::new("store").unwrap(),
            to: SiteId::new("gpu").unwrap(),
            start_at: Timestamp(0),
            due_at: Timestamp(due),
            keep_until: Timestamp(due),
            priority: Priority::Background,
            probability: 1.0,
            benefit_s: 0.1,
            cost: 0.0,
            cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
            reason: String::new(),
            shared_bytes: 0,
        }
    }

    fn plan(made_at: i64, moves: &[Move]) -> Plan {
        let (made_at, horizon, moves) = (Timestamp(made_at), Timestamp(1 << 40), moves.to_vec());
        Plan { id: PlanId::from("p"), made_at, horizon, moves, refused: Vec::new(), left_out: Vec::new() }
    }

    #[test]
    fn a_plan_is_news_if_it_wants_more_something_else_or_gives_something_up() {
        let (a, b) = (a_move("a", 5_000), a_move("b", 5_000));
        let in_force = plan(0, &[a.clone(), b.clone()]);
        let mut resident = Resident::default();
        let news = |moves: &[Move], resident: &Resident| differs(&in_force, &plan(0, moves), resident);
        assert!(!news(&[b.clone(), a.clone()], &resident), "their order is not");
        assert!(news(&[a.clone(), b.clone(), a_move("c", 5_000)], &resident), "one more is");
        assert!(news(&[a.clone(), Move { offset: 1, ..b.clone() }], &resident), "another extent is");
        assert!(news(&[a.clone(), Move { priority: Priority::Deadline, ..b.clone() }], &resident), "its rank is");
        assert!(news(std::slice::from_ref(&a), &resident), "one given up is");
        let arrived = |ranges| vec![ResidentFile { volume: b.volume.clone(), path: b.path.clone(), ranges }];
        resident.change(&b.to, arrived(vec![(0, 99)]));
        assert!(news(std::slice::from_ref(&a), &resident), "one that has not wholly arrived is given up");
        resident.change(&b.to, arrived(vec![(0, 100)]));
        assert!(!news(std::slice::from_ref(&a), &resident), "one whose bytes are there is not news");
        let mut in_force = in_force.clone();
        forget_carried(&mut in_force, &plan(0, std::slice::from_ref(&a)));
        let back = plan(0, &[a, b]);
        assert!(differs(&in_force, &back, &Resident::default()), "one whose bytes were there and left is");
    }

    #[test]
    fn a_time_is_news_when_it_shifts_by_a_quarter_of_what_is_left() {
        let known = a_move("a", 10_000_000);
        let news =
            |now, m: Move| differs(&plan(0, std::slice::from_ref(&known)), &plan(now, &[m]), &Resident::default());
        assert!(!news(0, a_move("a", 12_000_000)));
        assert!(news(0, a_move("a", 14_000_000)));
        assert!(news(8_000_000, a_move("a", 12_000_000)), "the nearer it is, the more a second means");
        assert!(!news(8_000_000, Move { start_at: Timestamp(7_000_000), ..known.clone() }), "it may run, then as now");
        assert!(news(0, Move { start_at: Timestamp(7_000_000), ..known.clone() }), "it has to wait now");
        assert!(news(0, Move { probability: 0.6, ..known.clone() }), "it has become a guess");
    }

    #[test]
    fn a_forecast_that_is_told_anew_is_the_same_cause() {
        let known = a_move("a", 10_000_000);
        let of = |forecast, workload| Move {
            cause: MoveCause::Forecast { forecast: ForecastId::from(forecast), workload: WorkloadId::from(workload) },
            ..known.clone()
        };
        let news = |m: Move| differs(&plan(0, std::slice::from_ref(&known)), &plan(0, &[m]), &Resident::default());
        assert!(!news(of("g", "w")));
        assert!(news(of("f", "x")));
    }
}
