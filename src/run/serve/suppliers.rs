//! Who gives bytes beside the sources, in the form in which the planner asks: as agents say it in their hello.

use std::time::{Duration, Instant};

use foretide_catalog::{Agent, Catalog, CatalogError};
use foretide_flow::{SiteId, Timestamp, Topology, VolumeId};
use foretide_planner::Supply;
use tokio::sync::watch;

/// How often agents are looked at though none said anything: one may have fallen silent.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The agents as they said hello, kept until one says something new or may have fallen silent.
#[derive(Debug)]
pub struct Suppliers {
    changes: watch::Receiver<u64>,
    gone_after: Duration,
    agents: Vec<Agent>,
    looked_at: Option<Instant>,
}

impl Suppliers {
    /// `changes` tells of agents; one that was not heard of for `gone_after` gives nothing.
    pub fn new(changes: watch::Receiver<u64>, gone_after: Duration) -> Self {
        Self { changes, gone_after, agents: Vec::new(), looked_at: None }
    }

    /// What can be planned with now.
    pub fn supply(&self, topology: &Topology, now: Timestamp) -> Supply {
        supply_of(&self.agents, topology, now - self.gone_after)
    }

    /// Looks at the agents again if there is a reason to.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn refresh(&mut self, catalog: &dyn Catalog) -> Result<(), CatalogError> {
        let is_known = self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if is_known && !self.changes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.changes.borrow_and_update();
        self.agents = catalog.agents().await?;
        self.looked_at = Some(Instant::now());
        Ok(())
    }
}

/// What is given by agents heard of since then. Relays: sites with a cache of which one passes on what it holds, and it keeps
/// that. Copies: sites that the volume names, of which one serves it.
pub fn supply_of(agents: &[Agent], topology: &Topology, heard_since: Timestamp) -> Supply {
    let gives = |a: &&Agent| a.chunk_address.is_some() && a.seen_at >= heard_since;
    let has_cache = |a: &&Agent| topology.sites.get(&a.site).is_some_and(|site| site.cache.is_some());
    let relays =
        agents.iter().filter(gives).filter(|a| a.passes_on).filter(has_cache).map(|a| a.site.clone()).collect();
    let serves = |site: &SiteId, volume: &VolumeId| {
        agents.iter().filter(gives).any(|a| a.site == *site && a.volumes.contains(volume))
    };
    Supply { relays, relays_keep: true, ..Supply::of_copies(topology, serves) }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{CacheSpec, NodeId, Site, Volume};

    use super::*;

    fn site(name: &str) -> SiteId {
        SiteId::new(name).unwrap()
    }

    fn agent(node: &str, at: &str, passes_on: bool, seen_at: i64) -> Agent {
        Agent {
            node: NodeId::new(node).unwrap(),
            site: site(at),
            chunk_address: Some("h:1".into()),
            volumes: Vec::new(),
            offers: Vec::new(),
            passes_on,
            probes: Vec::new(),
            clock_ahead_us: None,
            seen_at: Timestamp(seen_at),
        }
    }

    #[test]
    fn a_copy_gives_while_an_agent_at_its_site_lives_and_serves_the_volume() {
        let volume = VolumeId::new("data").unwrap();
        let copies = ["mirror", "far"].map(site).to_vec();
        let told = Volume { copies, ..Volume::at(site("store")) };
        let topology = Topology { volumes: [(volume.clone(), told)].into(), ..Topology::default() };
        let serves = |agent: Agent| Agent { volumes: vec![volume.clone()], ..agent };
        let copies = |agents: &[Agent]| supply_of(agents, &topology, Timestamp(10)).copies;
        let all = [
            serves(agent("s", "store", false, 20)),
            serves(agent("m1", "mirror", false, 9)),
            serves(agent("m2", "mirror", false, 20)),
            agent("f", "far", false, 20),
            serves(agent("x", "elsewhere", false, 20)),
        ];
        assert_eq!(copies(&all), [(volume.clone(), vec![site("mirror")])].into(), "one at far serves something else");
        assert_eq!(copies(&all[..2]), [].into(), "the mirror's has fallen silent");
        let nowhere = Agent { chunk_address: None, ..all[2].clone() };
        assert_eq!(copies(&[nowhere]), [].into());
    }

    #[test]
    fn a_site_is_a_relay_while_one_of_its_agents_lives_and_passes_on() {
        let place = |cache: Option<u64>| Site {
            jurisdiction: String::new(),
            labels: Default::default(),
            cache: cache.map(|capacity_bytes| CacheSpec { capacity_bytes }),
            accelerator_per_hour: 0.0,
        };
        let sites = [(site("store"), place(None)), (site("a"), place(Some(1))), (site("b"), place(Some(1)))];
        let topology = Topology { sites: sites.into(), ..Topology::default() };
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
