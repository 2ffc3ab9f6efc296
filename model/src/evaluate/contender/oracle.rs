//! The bounds: what eviction alone could reach, and what a prefetcher could that knows the future.
//!
//! The oracle fetches what is needed next and not here whenever the wire would be idle before the next request, as long as what has to go for it is
//! needed later (the "aggressive" rule of Cao et al., SIGMETRICS 1995, which is within a small factor of the best).
//! Where fetches take a number of requests and no wire, it asks exactly that much ahead.

use super::Contender;
use crate::evaluate::cache::{Clairvoyant, Lru, Unit};
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::{Link, Policy, Site};

/// A site whose cache knows the future, and all touches to come.
pub(super) fn site<'a>(demand: &'a Demand<'a>, link: Link, cache_bytes: u64) -> (Site<'a>, Vec<Unit>) {
    let mut site = Site::new(demand, link, Policy::Lru(Lru::new(0)));
    let touches = site.number(demand.steps.iter().flat_map(|s| demand.blocks(s)));
    site.govern(Policy::Clairvoyant(Box::new(Clairvoyant::new(cache_bytes, &touches))));
    (site, touches)
}

/// See the module.
pub(super) struct Oracle<'a> {
    demand: &'a Demand<'a>,
    touches: Vec<Unit>,
    blocks: Vec<u64>,
    /// Touches until the end of each request.
    ends: Vec<usize>,
    ahead: Option<usize>,
    request: usize,
    next: usize,
}

/// Touches ahead that are looked at on an idle wire: more than any cache here holds between two requests.
const WINDOW: usize = 1 << 16;

impl<'a> Oracle<'a> {
    pub(super) fn new(demand: &'a Demand<'a>, link: Link, touches: Vec<Unit>) -> Self {
        let mut ends = Vec::with_capacity(demand.steps.len());
        let mut blocks = Vec::with_capacity(touches.len());
        for step in &demand.steps {
            blocks.extend(demand.blocks(step));
            ends.push(blocks.len());
        }
        let ahead = match link {
            Link::Instant => Some(1),
            Link::Lead(lead) => Some(lead.max(1) as usize),
            Link::Wire { .. } => None,
        };
        Self { demand, touches, blocks, ends, ahead, request: 0, next: 0 }
    }

    /// Asks for what touch `at` needs. False if nothing that is needed later could go for it.
    fn fetch(&self, at: usize, site: &mut Site<'_>) -> bool {
        if site.holds(self.blocks[at]) {
            return true;
        }
        let bytes = self.demand.bytes(self.blocks[at]);
        let worth =
            site.clairvoyant().is_some_and(|c| c.has_room(bytes) || c.farthest().is_some_and(|f| f > at as u64));
        worth && site.fetch_for(self.touches[at], at as u64)
    }
}

impl Contender for Oracle<'_> {
    fn served(&mut self, _step: &Step, _hit: bool, site: &mut Site<'_>) {
        self.request += 1;
        let from = self.ends[self.request - 1];
        if let Some(ahead) = self.ahead {
            let Some(end) = self.ends.get(self.request + ahead - 1) else { return };
            for at in self.ends[self.request + ahead - 2]..*end {
                self.fetch(at, site);
            }
            return;
        }
        self.next = self.next.max(from);
        let Some(next) = self.demand.steps.get(self.request) else { return };
        while site.idle_before(next) && self.next < self.touches.len() && self.next < from + WINDOW {
            if !self.fetch(self.next, site) {
                return;
            }
            self.next += 1;
        }
    }
}
