//! From wants to a plan.
//!
//! Four passes over one [`Ledger`]:
//! 1. what runs already keeps what it needs;
//! 2. [`place`]: warm-ups, earliest deadline first; then forecasts, most net worth per byte first; each as late as
//!    possible before the read is likely, so that what comes sooner finds the link and the cache free; [`prices`] prove
//!    how near the best that is;
//! 3. [`Table::pull_forward`]: soonest first, of equals what spares most per byte, everything moves into bandwidth and
//!    room that nobody took. No booking is lost by it: the old place is free again for the one that leaves it;
//! 4. what modes hold back is placed in what is left then, to be shown and not moved.
//!
//! By which way each travels is decided as it is placed ([`ways`]): from a holder of the volume, or behind a move that
//! brings the same bytes to a relay. What stands in several files is brought with the first of them ([`share`]).
//!
//! Late is better than never, and less is better than late: a forecast has three deadlines, the quantiles of its
//! window, and what it is worth falls with each.

mod free;
mod identity;
mod place;
mod prices;
mod share;
mod ways;
mod write;

use std::collections::{BTreeMap, HashMap};

use foretide_flow::{FilePath, Move, MoveId, Plan, SiteId, Timestamp, VolumeId};

use crate::brakes::BudgetLeft;
use crate::gather::{Cause, Gathered, Route, Want, gather};
use crate::grid::Grid;
use crate::ledger::{Booking, Ledger};
use crate::left_out::Why;
use crate::problem::Problem;

/// Decides what is moved, whence, when and why. Pure: the same problem gives the same plan (promise F).
///
/// Takes milliseconds for tens of thousands of extents; blocks nothing and reads no clock.
pub fn solve(problem: &Problem<'_>) -> Plan {
    solve_in_full(problem).plan
}

/// A plan and what stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// What is moved.
    pub plan: Plan,
    /// What would be moved too if its mode were enforce; placed in what the plan leaves free, so that nothing of the
    /// plan gives way to it.
    pub proposed: Vec<Move>,
    /// How near the best the plan is.
    pub proof: Proof,
}

/// How near the best a plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Proof {
    /// What its forecasts' moves are worth, money; moves of the plan before count `stickiness` more.
    pub worth: f64,
    /// No plan that serves the same warm-ups is worth more.
    pub bound: f64,
}

impl Proof {
    /// How far from the best the plan can be at most, as part of the best.
    pub fn gap(&self) -> f64 {
        if self.bound > 0.0 { (self.bound - self.worth).max(0.0) / self.bound } else { 0.0 }
    }
}

/// As [`solve`], with what stands beside the plan.
pub fn solve_in_full(problem: &Problem<'_>) -> Solution {
    let grid = Grid::new(problem.now, problem.config.horizon_s);
    let mut gathered = gather(problem);
    let excluded = std::mem::take(&mut gathered.excluded);
    let mut table = Table::new(problem, grid, &gathered);
    table.keep_running();
    table.place();
    table.pull_forward();
    table.propose();
    let (plan, proposed) = write::plan(&table, excluded);
    Solution { plan, proposed, proof: table.proof }
}

/// What was decided of one want.
#[derive(Debug)]
enum Decision {
    Move(Placed),
    Leave(Why),
}

/// A want's place.
#[derive(Clone, Debug)]
struct Placed {
    /// Which of its route's ways.
    way: usize,
    booking: Booking,
    /// Bytes that cross: what is missing, less what comes with other files.
    bytes: u64,
    /// Money for them, with that of a stage that is made for it.
    cost: f64,
    in_time: f64,
    due: Timestamp,
    /// What brings the bytes to the relay that gives them, if they are not there.
    after: Option<Upstream>,
}

/// What brings bytes to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// A want that is served there anyway.
    Want(usize),
    /// A move for the sake of others.
    Stage(usize),
}

/// A move to a relay where nobody reads the bytes: they are passed on.
#[derive(Debug)]
struct Stage<'s> {
    route: usize,
    way: usize,
    /// The want that it was made for; others may follow it.
    of: usize,
    booking: Booking,
    bytes: u64,
    due: Timestamp,
    before: Option<&'s Move>,
}

/// One extent at a relay: route, path, offset, length.
type AtRelay<'a> = (usize, &'a FilePath, u64, u64);

/// One file's extent at one destination for one kind of cause: what makes two moves the same.
type Key<'k> = (&'k VolumeId, &'k FilePath, u64, u64, &'k SiteId, bool);

fn key_of(planned: &Move) -> Key<'_> {
    let asked = matches!(planned.cause, foretide_flow::MoveCause::Warmup { .. });
    (&planned.volume, &planned.path, planned.offset, planned.length, &planned.to, asked)
}

/// The state of one solve.
struct Table<'s, 'a> {
    problem: &'s Problem<'a>,
    grid: Grid,
    routes: &'s [Route<'a>],
    wants: &'s [Want<'a>],
    /// By route and way.
    lanes: Vec<Vec<u32>>,
    /// Money a byte, by lane.
    lane_cost: Vec<f64>,
    ledger: Ledger,
    /// Cache bytes that forecasts leave free, by site.
    leave_free: Vec<i64>,
    /// What the previous plan, or an agent, knows of extents.
    known: HashMap<Key<'s>, &'s Move>,
    /// The same of each want.
    before: Vec<Option<&'s Move>>,
    /// Bytes that running moves have yet to bring.
    running: HashMap<&'s MoveId, u64>,
    decided: Vec<Option<Decision>>,
    stages: Vec<Stage<'s>>,
    /// What brings extents to relays.
    upstream: HashMap<AtRelay<'a>, Upstream>,
    /// Extents that are wanted at relays or brought there: route, path and offset to the end.
    at_relays: BTreeMap<(usize, &'a FilePath, u64), u64>,
    /// Until when the bytes of a want are needed to be passed on, by want.
    passed_until: HashMap<usize, Timestamp>,
    /// Who brings a shared chunk to a site.
    carriers: HashMap<(&'a SiteId, u32), usize>,
    /// What budgets have left.
    budgets: Vec<BudgetLeft>,
    proof: Proof,
}

impl<'s, 'a> Table<'s, 'a> {
    fn new(problem: &'s Problem<'a>, grid: Grid, gathered: &'s Gathered<'a>) -> Self {
        let free::Free { ledger, lanes, lane_cost, leave_free } = free::Free::new(problem, &grid, gathered);
        let known = known(problem);
        let mut table = Self {
            problem,
            routes: &gathered.routes,
            leave_free,
            before: known_before(&known, gathered),
            known,
            running: problem.running.iter().map(|r| (&r.planned.id, r.left_bytes)).collect(),
            decided: gathered.wants.iter().map(|_| None).collect(),
            stages: Vec::new(),
            upstream: HashMap::new(),
            at_relays: BTreeMap::new(),
            passed_until: HashMap::new(),
            carriers: HashMap::new(),
            budgets: problem.brakes.budgets.clone(),
            wants: &gathered.wants,
            proof: Proof::default(),
            grid,
            lanes,
            lane_cost,
            ledger,
        };
        table.note_relays();
        table
    }

    /// Which wants are at relays, so that others can follow them.
    fn note_relays(&mut self) {
        let stages = self.routes.iter().flat_map(|r| r.ways.iter().filter_map(|w| w.stage));
        let passes: std::collections::BTreeSet<usize> = stages.collect();
        if passes.is_empty() {
            return;
        }
        for (number, want) in self.wants.iter().enumerate().filter(|(_, w)| passes.contains(&w.route)) {
            self.upstream.insert((want.route, want.path, want.offset, want.length), Upstream::Want(number));
            self.at_relays.insert((want.route, want.path, want.offset), want.offset + want.length);
        }
    }
}

/// What moves were called, and when they were to start.
fn known<'s>(problem: &'s Problem<'_>) -> HashMap<Key<'s>, &'s Move> {
    let running = problem.running.iter().map(|r| &r.planned);
    let previous = problem.previous.iter().flat_map(|p| &p.moves);
    previous.chain(running).map(|m| (key_of(m), m)).collect()
}

fn known_before<'s>(known: &HashMap<Key<'s>, &'s Move>, gathered: &'s Gathered<'_>) -> Vec<Option<&'s Move>> {
    if known.is_empty() {
        return vec![None; gathered.wants.len()];
    }
    let look_up = |w: &'s Want<'_>| {
        let route = &gathered.routes[w.route];
        let asked = matches!(w.cause, Cause::Warmup(_));
        known.get(&(route.volume, w.path, w.offset, w.length, route.to, asked)).copied()
    };
    gathered.wants.iter().map(look_up).collect()
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod supply_tests;
#[cfg(test)]
mod tests;
