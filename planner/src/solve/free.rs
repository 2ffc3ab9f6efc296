//! What is free before anything is placed.

use std::collections::HashMap;
use std::time::Duration;

use foretide_flow::{BitsPerSecond, Link, SiteId, Timestamp};

use crate::gather::{Gathered, Route};
use crate::grid::Grid;
use crate::ledger::{Lane, Ledger};
use crate::problem::Problem;

/// Lanes with what they carry.
pub(super) struct Free {
    pub(super) ledger: Ledger,
    /// By route and way.
    pub(super) lanes: Vec<Vec<u32>>,
    /// Money a byte, by lane.
    pub(super) lane_cost: Vec<f64>,
    /// Cache bytes that forecasts leave free, by site.
    pub(super) leave_free: Vec<i64>,
}

impl Free {
    pub(super) fn new(problem: &Problem<'_>, grid: &Grid, gathered: &Gathered<'_>) -> Self {
        let topology = problem.topology;
        let index: HashMap<&SiteId, u32> = topology.sites.keys().zip(0..).collect();
        let (ledger, leave_free) = (Ledger::new(grid.slots(), index.len()), Vec::with_capacity(index.len()));
        let mut free = Self { ledger, lanes: Vec::new(), lane_cost: Vec::new(), leave_free };
        for (id, site) in &topology.sites {
            let capacity = site.cache.map_or(0, |c| c.capacity_bytes);
            free.ledger.set_cache(index[id], capacity as i64);
            let for_readers = (capacity as f64 * (1.0 - problem.config.forecast_cache_share)) as u64;
            free.leave_free.push(for_readers.max(kept_from_forecasts(problem, gathered, id, capacity)) as i64);
        }
        for (site, bytes, until) in &gathered.holds {
            free.ledger.hold(index[site], *bytes as i64, grid.slot_at(*until));
        }
        free.limit_sites(problem, grid, &index);
        free.add_lanes(problem, grid, &index, &gathered.routes);
        free
    }

    /// Of several limits for a site the least holds.
    fn limit_sites(&mut self, problem: &Problem<'_>, grid: &Grid, index: &HashMap<&SiteId, u32>) {
        let limits = &problem.config.site_limits;
        for (site, number) in index {
            let least = |of: fn(&crate::SiteLimit) -> Option<u64>| {
                limits.iter().filter(|l| &l.site == *site).filter_map(of).min().map(BitsPerSecond)
            };
            let demand = |own: fn(&crate::DemandLoad) -> &SiteId| -> f64 {
                problem.demand.iter().filter(|d| own(d) == *site).map(|d| d.bytes_per_second).sum()
            };
            if let Some(rate) = least(|l| l.egress_bits_per_s) {
                let bytes = beside_demand(problem, grid, rate, demand(|d| &d.from), |_| 1.0);
                self.ledger.limit_egress(*number, bytes);
            }
            if let Some(rate) = least(|l| l.ingress_bits_per_s) {
                let bytes = beside_demand(problem, grid, rate, demand(|d| &d.to), |_| 1.0);
                self.ledger.limit_ingress(*number, bytes);
            }
        }
    }

    fn add_lanes(&mut self, problem: &Problem<'_>, grid: &Grid, index: &HashMap<&SiteId, u32>, routes: &[Route<'_>]) {
        let mut known: HashMap<(u32, u32), u32> = HashMap::new();
        let mut lane_of = |link: &Link| {
            let lane = Lane { from: index[&link.from], to: index[&link.to] };
            *known.entry((lane.from, lane.to)).or_insert_with(|| {
                let on = |d: &&crate::DemandLoad| (&d.from, &d.to) == (&link.from, &link.to);
                let demand = problem.demand.iter().filter(on).map(|d| d.bytes_per_second).sum();
                let hours = |at| problem.config.hours_leave(link, at);
                self.lane_cost.push(link.cost_per_gb / 1e9);
                self.ledger.add_lane(lane, beside_demand(problem, grid, link.rate, demand, hours))
            })
        };
        self.lanes = routes.iter().map(|r| r.ways.iter().map(|w| lane_of(w.link)).collect()).collect();
    }
}

/// Bytes of a site's cache that forecasts may not displace because they have not proved themselves there: what is held and
/// what they do not name themselves, up to all but a share on trial (promise H).
fn kept_from_forecasts(problem: &Problem<'_>, gathered: &Gathered<'_>, site: &SiteId, capacity: u64) -> u64 {
    if problem.brakes.proven.contains(site) {
        return 0;
    }
    let named: u64 = gathered.holds.iter().filter(|(at, ..)| *at == site).map(|(_, bytes, _)| bytes).sum();
    let at_most = capacity as f64 * (1.0 - problem.config.trial_cache_share);
    problem.resident.held_bytes(site).saturating_sub(named).min(at_most as u64)
}

/// Bytes of each slot that plans may count on of a rate, beside what demand takes of it; `hours` is the part that is left
/// at a moment.
fn beside_demand(
    problem: &Problem<'_>,
    grid: &Grid,
    rate: BitsPerSecond,
    demand: f64,
    hours: impl Fn(Timestamp) -> f64,
) -> impl Iterator<Item = i64> {
    let config = problem.config;
    let rate = rate.bytes_per_second();
    let full = rate * config.link_share;
    let beside_demand = (full - demand.max(0.0)).max(rate * config.link_share_under_demand).min(full);
    let calm = problem.now + Duration::from_secs_f64(config.demand_lasts_s);
    (0..grid.slots()).map(move |slot| {
        let rate = if grid.start(slot) < calm { beside_demand } else { full };
        let middle = Timestamp(grid.start(slot).0.midpoint(grid.end(slot).0));
        (rate * hours(middle) * grid.seconds(slot)) as i64
    })
}
