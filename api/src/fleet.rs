//! Which agents there are and what they serve, as other agents are told of it.
//!
//! A volume that is added changes the fleet twice: it is there, and a moment later an agent at its site, woken by the same
//! change, says that it serves it. Whoever is told between the two asks again, a round trip later; so the news is kept
//! back from all but those who will serve it until one of them does.

use std::collections::BTreeMap;
use std::time::Duration;

use foretide_catalog::{Agent, Topic};
use foretide_flow::{Timestamp, VolumeId};

use crate::Api;
use crate::error::ApiError;
use crate::offered::offers_all;
use crate::routes::volumes::{AddedVolume, added_volumes};
use crate::wanted::names;

/// Longest time for which news of the fleet is kept back: an agent that says that it offers a folder may yet not be able to
/// open it.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);
/// Digits of the fleet's digest that an agent is told: enough to tell one fleet from the next.
const DIGITS: usize = 16;

/// Another value when topology or rules change, or volumes are served by other agents.
pub(crate) async fn digest(api: &Api) -> Result<String, ApiError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(api.directory.digest().as_bytes());
    for agent in api.catalog.agents().await? {
        let volumes = names(agent.volumes.iter());
        let Agent { node, chunk_address, passes_on, .. } = &agent;
        hasher.update(format!("{node} {chunk_address:?} {passes_on} {volumes};").as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..DIGITS].to_owned())
}

/// Returns when there is nothing that `agent` should wait for before it hears of the fleet, and after
/// [`SETTLES_WITHIN`] in any case.
pub(crate) async fn settles(api: &Api, agent: &Agent) -> Result<(), ApiError> {
    let mut changes = api.catalog.changes(Topic::Settings);
    let settled = async {
        loop {
            changes.mark_unchanged();
            let added = added_volumes(api.catalog.as_ref()).await?;
            let gone_before = Timestamp::now() - Duration::from_secs(api.config.agent_gone_after_s);
            let mut agents = api.catalog.agents().await?;
            agents.retain(|a| a.seen_at >= gone_before);
            if is_settled_for(agent, &added, &agents) || changes.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, settled).await.unwrap_or(Ok(()))
}

/// Whether no other agent is about to serve a volume that nobody serves yet, or it is this one that is.
fn is_settled_for(agent: &Agent, added: &BTreeMap<VolumeId, AddedVolume>, agents: &[Agent]) -> bool {
    let serves = |a: &Agent, name: &VolumeId, at: &AddedVolume| a.site == at.at && a.volumes.contains(name);
    let will = |a: &Agent, at: &AddedVolume| a.site == at.at && a.chunk_address.is_some() && offers_all(a, &at.sources);
    let mut unserved = added.iter().filter(|(name, at)| !agents.iter().any(|a| serves(a, name, at)));
    unserved.all(|(_, at)| will(agent, at) || !agents.iter().any(|a| will(a, at)))
}

#[cfg(test)]
mod tests {
    use foretide_flow::SiteId;

    use super::*;
    use crate::offered::tests::agent;

    #[test]
    fn news_of_a_volume_waits_for_who_will_serve_it() {
        let volume = VolumeId::new("late").unwrap();
        let of = |source: &str| AddedVolume {
            at: SiteId::new("store").unwrap(),
            sources: vec![source.to_owned()],
            copies: Vec::new(),
            tags: BTreeMap::new(),
        };
        let settled = |who: usize, source: &str, agents: &[Agent]| {
            is_settled_for(&agents[who], &[(volume.clone(), of(source))].into(), agents)
        };
        let mut agents =
            [agent("s1", "store", &["/data"]), agent("s2", "store", &["/data"]), agent("g1", "gpu", &["/data"])];
        assert!(settled(0, "/data/x", &agents) && settled(1, "/data/x", &agents), "who will serve it is told at once");
        assert!(!settled(2, "/data/x", &agents), "who will read it, when it is served");
        assert!(settled(2, "/elsewhere", &agents), "nobody is about to serve that");
        assert!(is_settled_for(&agents[2], &BTreeMap::new(), &agents));
        agents[1].volumes.push(volume.clone());
        assert!(settled(2, "/data/x", &agents));
    }
}
