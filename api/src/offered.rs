//! Which site a volume is added at when nobody says so: the one whose agents offer all that it is to be made of.
//!
//! An address is compared as text here, and by the agent once more with every link resolved: what this finds is where to
//! ask, not what may be served.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use foretide_catalog::Agent;
use foretide_flow::SiteId;
use url::Url;

/// Whether a folder or an address of an object store is `root` or lies below it. Of an object store both are read as the
/// store reads them, where `..` leads up; a folder that is not named the straight way is below nothing.
pub fn is_below(source: &str, root: &str) -> bool {
    if !source.contains("://") {
        let is_straight = Path::new(source).components().all(|part| part != Component::ParentDir);
        return is_straight && Path::new(source).starts_with(root);
    }
    let (Ok(source), Ok(root)) = (Url::parse(source), Url::parse(root)) else { return false };
    let below = source.path().strip_prefix(root.path().trim_end_matches('/'));
    (source.scheme(), source.host_str()) == (root.scheme(), root.host_str())
        && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether an agent offers all of `sources`.
pub(crate) fn offers_all(agent: &Agent, sources: &[String]) -> bool {
    sources.iter().all(|source| agent.offers.iter().any(|root| is_below(source, root)))
}

/// The one site with an agent that offers all of `sources`.
///
/// # Errors
/// In words, if no site has one, or several have.
pub(crate) fn site_that_offers(sources: &[String], agents: &[Agent]) -> Result<SiteId, String> {
    let offering = agents.iter().filter(|agent| offers_all(agent, sources));
    let sites: BTreeSet<&SiteId> = offering.map(|agent| &agent.site).collect();
    let what = sources.join(", ");
    match sites.len() {
        1 => Ok(sites.first().copied().cloned().expect("there is one")),
        0 => Err(format!(
            "no agent offers {what}: name it or a folder above it in source.offer of an agent, or give its site (at)"
        )),
        _ => {
            let sites: Vec<_> = sites.iter().map(ToString::to_string).collect();
            Err(format!("agents at {} offer {what}: give the site that is meant (at)", sites.join(" and ")))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foretide_flow::{NodeId, Timestamp};

    use super::*;

    pub(crate) fn agent(node: &str, site: &str, offers: &[&str]) -> Agent {
        Agent {
            node: NodeId::new(node).unwrap(),
            site: SiteId::new(site).unwrap(),
            chunk_address: Some(format!("{node}:7701")),
            volumes: Vec::new(),
            offers: offers.iter().map(ToString::to_string).collect(),
            passes_on: false,
            probes: Vec::new(),
            clock_ahead_us: None,
            seen_at: Timestamp(1),
        }
    }

    #[test]
    fn the_site_is_the_one_whose_agents_offer_all_of_it() {
        let agents = [
            agent("a1", "east", &["/data", "s3://open/sets"]),
            agent("a2", "east", &["/data"]),
            agent("b1", "west", &["/scratch", "s3://open"]),
            agent("c1", "gpu", &[]),
        ];
        let site = |sources: &[&str]| {
            let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
            site_that_offers(&sources, &agents).map(|site| site.to_string())
        };
        assert_eq!(site(&["/data/set"]).as_deref(), Ok("east"), "two of its nodes offer it, and it is one site");
        assert_eq!(site(&["s3://open/other"]).as_deref(), Ok("west"));
        assert_eq!(site(&["/scratch/a", "s3://open/sets/b"]).as_deref(), Ok("west"), "all of it or none");
        for nowhere in [&["/database"][..], &["/data/../secret"], &["/data", "/scratch"], &["gs://open/sets"], &["/"]] {
            assert!(site(nowhere).unwrap_err().contains("source.offer"), "{nowhere:?}");
        }
        assert!(site(&["s3://open/sets/a"]).unwrap_err().contains("east and west"));
    }

    #[test]
    fn no_address_leads_out_of_what_it_lies_below() {
        assert!(is_below("s3://open/sets", "s3://open/sets/") && is_below("s3://open/sets/a/b", "s3://open/sets"));
        assert!(is_below("s3://open/any", "s3://open") && !is_below("open/sets", "s3://open/sets"));
        assert!(is_below("/data/set", "/data/") && is_below("/data", "/data") && !is_below("/dataset", "/data"));
        for outside in
            ["s3://open/setsecret", "s3://open/sets/../secret", "s3://open/sets/%2e%2e/secret", "gs://open/sets"]
        {
            assert!(!is_below(outside, "s3://open/sets"), "{outside}");
        }
    }
}
