//! Who can give the bytes of a volume to a site, and which of these ways the rules leave a file.

use std::collections::BTreeMap;

use foretide_flow::{FilePath, Link, SiteId, VolumeId};

use super::Gatherer;
use crate::left_out::Why;

/// Most ways of a route: they are bits of a word. Those of the volume's holders come first; of relays the first by name.
const MAX_WAYS: usize = 64;

/// Somebody who gives, and the link from there.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) link: &'a Link,
    /// The route to the giver, if it is a relay: it has only what came there.
    pub(crate) stage: Option<usize>,
}

/// A volume and a site that wants bytes of it, or passes them on.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    pub(crate) volume: &'a VolumeId,
    pub(crate) to: &'a SiteId,
    /// The volume's own site.
    source: &'a SiteId,
    /// The volume's holders, the first the one that readers ask; then relays.
    pub(crate) ways: Vec<Way<'a>>,
    has_relays: bool,
    pub(super) accelerator_per_hour: f64,
    /// How often each rule has refused something, by rule.
    pub(super) refusals: BTreeMap<String, usize>,
}

impl<'a> Gatherer<'a, '_> {
    /// The ways from a volume's holders to a site; nothing if it is one of them.
    pub(super) fn route(&mut self, volume: &'a VolumeId, to: &'a SiteId) -> Result<Option<usize>, Why> {
        let Some(own) = self.problem.topology.volumes.get(volume).map(|v| &v.at) else {
            return Err(Why::UnknownVolume);
        };
        if own == to || self.copies(volume).contains(to) {
            return Ok(None);
        }
        let number = self.direct(volume, own, to)?;
        if !self.out.routes[number].has_relays {
            self.out.routes[number].has_relays = true;
            self.add_relays(number, own);
        }
        match self.out.routes[number].ways.is_empty() {
            true => Err(Why::NoLink { from: own.clone() }),
            false => Ok(Some(number)),
        }
    }

    fn copies(&self, volume: &VolumeId) -> &'a [SiteId] {
        self.problem.supply.copies.get(volume).map_or(&[], Vec::as_slice)
    }

    /// The route with the links from the volume's holders alone; there may be none.
    fn direct(&mut self, volume: &'a VolumeId, own: &'a SiteId, to: &'a SiteId) -> Result<usize, Why> {
        if let Some(known) = self.routes.get(&(volume, to)) {
            return known.clone();
        }
        let found = self.find_direct(volume, own, to).map(|route| {
            self.out.routes.push(route);
            self.out.routes.len() - 1
        });
        self.routes.insert((volume, to), found.clone());
        found
    }

    fn find_direct(&self, volume: &'a VolumeId, own: &'a SiteId, to: &'a SiteId) -> Result<Route<'a>, Why> {
        let site = self.problem.topology.sites.get(to).ok_or(Why::UnknownSite)?;
        if site.cache.is_none_or(|c| c.capacity_bytes == 0) {
            return Err(Why::NoCache);
        }
        let holders = std::iter::once(own).chain(self.copies(volume).iter().filter(|c| *c != own));
        let links = holders.filter_map(|from| self.links.get(&(from, to)).copied());
        let ways = links.take(MAX_WAYS).map(|link| Way { link, stage: None }).collect();
        let told = site.accelerator_per_hour;
        let accelerator_per_hour = if told > 0.0 { told } else { self.problem.config.accelerator_per_hour };
        Ok(Route { volume, to, source: own, ways, has_relays: false, accelerator_per_hour, refusals: BTreeMap::new() })
    }

    /// Ways over one relay. A second one on the way is not looked for: each holds the bytes once more.
    fn add_relays(&mut self, number: usize, own: &'a SiteId) {
        let (volume, to) = (self.out.routes[number].volume, self.out.routes[number].to);
        for relay in self.problem.supply.relays.iter().filter(|r| *r != to) {
            let holds_all = relay == own || self.copies(volume).contains(relay);
            let Some(link) = self.links.get(&(relay, to)).copied().filter(|_| !holds_all) else { continue };
            let Ok(stage) = self.direct(volume, own, relay) else { continue };
            let reached = self.out.routes[stage].ways.first().is_some_and(|w| w.stage.is_none());
            let ways = &mut self.out.routes[number].ways;
            if reached && ways.len() < MAX_WAYS {
                ways.push(Way { link, stage: Some(stage) });
            }
        }
    }

    /// Ways that the rules leave a file: whoever gives it must be allowed to have it, as the volume's own site always is.
    /// Where there are none, the refusal is written down, with the site that the deciding rule is about: the destination, or
    /// a copy or relay whence it would have to come.
    pub(super) fn passable(&mut self, route_number: usize, path: &'a FilePath) -> u64 {
        let problem = self.problem;
        let route = &self.out.routes[route_number];
        let asked = |site| problem.rules.verdict(problem.topology, route.volume, path, site, problem.now);
        let mut denied = Some((route.to, asked(route.to))).filter(|(_, verdict)| !verdict.allows());
        let mut passable = 0;
        if denied.is_none() {
            for (bit, way) in route.ways.iter().enumerate() {
                let only_passes = way.stage.is_some() && !problem.supply.relays_keep;
                let giver = Some(&way.link.from).filter(|from| *from != route.source).map(|from| (from, asked(from)));
                match giver.filter(|(_, v)| !if only_passes { v.lets_pass() } else { v.allows() }) {
                    Some(refused) => denied = denied.or(Some(refused)),
                    None => passable |= 1 << bit,
                }
            }
        }
        if let Some((at, verdict)) = denied.filter(|_| passable == 0) {
            self.refuse(route_number, path, at, verdict.rule.unwrap_or_else(|| "default".into()));
        }
        passable
    }
}
