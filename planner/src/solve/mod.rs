//! From wants to a plan.
//!
//! Four passes over one [`Ledger`]:
//! 1. what runs already keeps what it needs;
//! 2. [`place`]: warm-ups, earliest deadline first; then forecasts, most net worth per byte first; each as late as
//!    possible before the read is likely, so that what comes sooner finds the link and the cache free; [`prices`] prove
//!    how near the best that is;
//! 3. [`Table::pull_forward`]: soonest first, everything moves into bandwidth and room that nobody took. No booking is
//!    lost by it: the old place is free again for the one that leaves it;
//! 4. what modes hold back is placed in what is left then, to be shown and not moved.
//!
//! Late is better than never, and less is better than late: a forecast has three deadlines, the quantiles of its
//! window, and what it is worth falls with each.

mod identity;
mod place;
mod prices;
mod write;

use std::collections::HashMap;

use foretide_flow::{FilePath, Link, Move, Plan, SiteId, Timestamp, VolumeId};

use crate::brakes::BudgetLeft;
use crate::gather::{Cause, Gathered, Route, Want, gather};
use crate::grid::Grid;
use crate::ledger::{Booking, Lane, Ledger};
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
    Move { booking: Booking, in_time: f64, due: Timestamp },
    Leave(Why),
}

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
    lanes: Vec<u32>,
    ledger: Ledger,
    /// Cache bytes that forecasts leave free, by route.
    leave_free: Vec<i64>,
    /// What the previous plan, or an agent, knows of each want.
    before: Vec<Option<&'s Move>>,
    decided: Vec<Option<Decision>>,
    /// What budgets have left.
    budgets: Vec<BudgetLeft>,
    proof: Proof,
}

impl<'s, 'a> Table<'s, 'a> {
    fn new(problem: &'s Problem<'a>, grid: Grid, gathered: &'s Gathered<'a>) -> Self {
        let (ledger, lanes) = ledger_of(problem, &grid, gathered);
        let cache = |r: &Route<'_>| problem.topology.sites[r.to].cache.map_or(0, |c| c.capacity_bytes) as f64;
        let spared = 1.0 - problem.config.forecast_cache_share;
        Self {
            problem,
            routes: &gathered.routes,
            leave_free: gathered.routes.iter().map(|r| (cache(r) * spared) as i64).collect(),
            before: known_before(problem, gathered),
            decided: gathered.wants.iter().map(|_| None).collect(),
            budgets: problem.brakes.budgets.clone(),
            wants: &gathered.wants,
            proof: Proof::default(),
            grid,
            lanes,
            ledger,
        }
    }
}

/// What each want's move was called and when it was to start.
fn known_before<'s>(problem: &'s Problem<'_>, gathered: &'s Gathered<'_>) -> Vec<Option<&'s Move>> {
    let running = problem.running.iter().map(|r| &r.planned);
    let previous = problem.previous.iter().flat_map(|p| &p.moves);
    let known: HashMap<Key<'_>, &Move> = previous.chain(running).map(|m| (key_of(m), m)).collect();
    if known.is_empty() {
        return vec![None; gathered.wants.len()];
    }
    let look_up = |w: &Want<'_>| {
        let route = &gathered.routes[w.route];
        let asked = matches!(w.cause, Cause::Warmup(_));
        known.get(&(route.volume, w.path, w.offset, w.length, route.to, asked)).copied()
    };
    gathered.wants.iter().map(look_up).collect()
}

/// What is free before anything is placed, and each route's lane.
fn ledger_of<'s>(problem: &'s Problem<'_>, grid: &Grid, gathered: &'s Gathered<'_>) -> (Ledger, Vec<u32>) {
    let index: HashMap<&SiteId, u32> =
        problem.topology.sites.keys().enumerate().map(|(i, id)| (id, i as u32)).collect();
    let mut ledger = Ledger::new(grid.slots(), index.len());
    for (id, site) in &problem.topology.sites {
        let capacity = site.cache.map_or(0, |c| c.capacity_bytes) as i64;
        let taken = problem.resident.unevictable_bytes(id) as i64;
        ledger.set_cache(index[id], capacity.saturating_sub(taken));
    }
    for (site, bytes, until) in &gathered.holds {
        ledger.hold(index[site], *bytes as i64, grid.slot_at(*until));
    }
    let mut lane_of: HashMap<(&SiteId, &SiteId), u32> = HashMap::new();
    let mut lane = |link: &'s Link, demand: f64| {
        *lane_of.entry((&link.from, &link.to)).or_insert_with(|| {
            let lane = Lane { from: index[&link.from], to: index[&link.to] };
            ledger.add_lane(lane, rates(problem, grid, link, demand))
        })
    };
    let demand_on = |from: &SiteId, to: &SiteId| {
        problem.demand.iter().filter(|d| &d.from == from && &d.to == to).map(|d| d.bytes_per_second).sum()
    };
    let lanes = gathered.routes.iter().map(|r| lane(r.link, demand_on(r.from, r.to))).collect();
    (ledger, lanes)
}

/// Bytes of each slot of a link that plans may count on.
fn rates(problem: &Problem<'_>, grid: &Grid, link: &Link, demand: f64) -> impl Iterator<Item = i64> {
    let config = problem.config;
    let rate = link.rate.bytes_per_second();
    let full = rate * config.link_share;
    let beside_demand = (full - demand.max(0.0)).max(rate * config.link_share_under_demand).min(full);
    let calm = problem.now + std::time::Duration::from_secs_f64(config.demand_lasts_s);
    (0..grid.slots()).map(move |slot| {
        let rate = if grid.start(slot) < calm { beside_demand } else { full };
        let middle = Timestamp(grid.start(slot).0.midpoint(grid.end(slot).0));
        (rate * config.hours_leave(link, middle) * grid.seconds(slot)) as i64
    })
}

#[cfg(test)]
mod tests;
