//! Who gives bytes beside the sources, in the form in which the planner asks: as agents say it in their hello.

use std::time::{Duration, Instant};

use foretide_catalog::{Agent, Catalog, CatalogError};
use foretide_flow::{Timestamp, Topology};
use foretide_planner::Supply;
use tokio::sync::watch;

/// How often agents are looked at though none said anything: one may have fallen silent.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Kept until an agent says something new or is not heard of any more.
#[derive(Debug)]
pub struct Suppliers {
    changes: watch::Receiver<u64>,
    gone_after: Duration,
    supply: Supply,
    looked_at: Option<Instant>,
}

impl Suppliers {
    /// `changes` tells of agents; one that was not heard of for `gone_after` gives nothing.
    pub fn new(changes: watch::Receiver<u64>, gone_after: Duration) -> Self {
        Self { changes, gone_after, supply: Supply::default(), looked_at: None }
    }

    /// What can be planned with now.
    pub fn supply(&self) -> &Supply {
        &self.supply
    }

    /// Looks at the agents again if there is a reason to.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn refresh(
        &mut self,
        catalog: &dyn Catalog,
        topology: &Topology,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let is_known = self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if is_known && !self.changes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.changes.borrow_and_update();
        self.supply = supply_of(&catalog.agents().await?, topology, now - self.gone_after);
        self.looked_at = Some(Instant::now());
        Ok(())
    }
}

/// Relays: sites with a cache of which an agent heard of since then passes on what it holds, and it keeps that. Nobody tells of
/// manifests, so no chunks are known to be shared.
fn supply_of(agents: &[Agent], topology: &Topology, heard_since: Timestamp) -> Supply {
    let has_cache = |a: &&Agent| topology.sites.get(&a.site).is_some_and(|site| site.cache.is_some());
    let passes_on = |a: &&Agent| a.passes_on && a.chunk_address.is_some() && a.seen_at >= heard_since;
    let relays = agents.iter().filter(passes_on).filter(has_cache).map(|a| a.site.clone()).collect();
    Supply { relays, relays_keep: true, ..Supply::default() }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{CacheSpec, NodeId, Site, SiteId};

    use super::*;

    #[test]
    fn a_site_is_a_relay_while_one_of_its_agents_lives_and_passes_on() {
        let site = |name: &str| SiteId::new(name).unwrap();
        let place = |cache: Option<u64>| Site {
            jurisdiction: String::new(),
            labels: Default::default(),
            cache: cache.map(|capacity_bytes| CacheSpec { capacity_bytes }),
            accelerator_per_hour: 0.0,
        };
        let sites = [(site("store"), place(None)), (site("a"), place(Some(1))), (site("b"), place(Some(1)))];
        let topology = Topology { sites: sites.into(), ..Topology::default() };
        let agent = |node: &str, at: &str, passes_on: bool, seen_at: i64| Agent {
            node: NodeId::new(node).unwrap(),
            site: site(at),
            chunk_address: Some("h:1".into()),
            volumes: Vec::new(),
            passes_on,
            probes: Vec::new(),
            clock_ahead_us: None,
            seen_at: Timestamp(seen_at),
        };
        let relays =
            |agents: &[Agent]| supply_of(agents, &topology, Timestamp(10)).relays.into_iter().collect::<Vec<_>>();
        let all = [agent("a1", "a", false, 20), agent("a2", "a", true, 20), agent("b1", "b", true, 9)];
        assert_eq!(relays(&all), [site("a")], "one at b has fallen silent");
        assert_eq!(
            relays(&[agent("s", "store", true, 20), agent("x", "mars", true, 20)]),
            [],
            "no cache is known there"
        );
        let nowhere = Agent { chunk_address: None, ..agent("a2", "a", true, 20) };
        assert_eq!(relays(&[nowhere]), []);
    }
}
