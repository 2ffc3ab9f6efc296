//! Where sites are and what joins them: written by admins, taken by the planner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BitsPerSecond, SiteId, VolumeId};

/// Room for copies at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// Bytes that may be held.
    pub capacity_bytes: u64,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its jurisdiction, in the words of the rules, such as `eu`.
    #[serde(default)]
    pub jurisdiction: String,
    /// Free labels that rules may name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its cache, if it has one.
    #[serde(default)]
    pub cache: Option<CacheSpec>,
    /// What an accelerator second at this site is worth, money per hour.
    #[serde(default)]
    pub accelerator_per_hour: f64,
}

/// A directed way from one site to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Whence.
    pub from: SiteId,
    /// Whither.
    pub to: SiteId,
    /// Payload rate in this direction, bits per second.
    pub rate: BitsPerSecond,
    /// Round trip, milliseconds.
    pub rtt_ms: f64,
    /// Money per GB (10^9 bytes) that crosses.
    #[serde(default)]
    pub cost_per_gb: f64,
}

/// A tree of files and where its truth lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The site of its source, whose word counts for names and versions.
    pub at: SiteId,
    /// Other sites at which a copy of all of it stands: they give bytes, as long as these are the source's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<SiteId>,
    /// Tags that rules and searches may name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Volume {
    /// One whose source stands at a site; without copies and tags.
    pub fn at(site: SiteId) -> Self {
        Self { at: site, copies: Vec::new(), tags: BTreeMap::new() }
    }

    /// Whether an agent at a site may serve it: its source, or a copy.
    pub fn stands_at(&self, site: &SiteId) -> bool {
        self.at == *site || self.copies.contains(site)
    }

    /// Whether its copies can be meant: each at another site than its source, and named once.
    ///
    /// # Errors
    /// The first that cannot, and why.
    pub fn check_copies(&self) -> Result<(), (&SiteId, &'static str)> {
        for (place, site) in self.copies.iter().enumerate() {
            if *site == self.at {
                return Err((site, "its source is there: name other sites"));
            }
            if self.copies[..place].contains(site) {
                return Err((site, "it is named twice: name it once"));
            }
        }
        Ok(())
    }
}

/// Everything that a plan may count on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Sites by name.
    #[serde(default, rename = "site")]
    pub sites: BTreeMap<SiteId, Site>,
    /// Links.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    /// Volumes by name.
    #[serde(default, rename = "volume")]
    pub volumes: BTreeMap<VolumeId, Volume>,
}

/// Why a topology was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TopologyError {
    /// A link or volume names a site that is not there.
    #[error("{what} names site {site}, which is not in [site]: add it, or correct the name")]
    UnknownSite {
        /// The link or volume.
        what: String,
        /// The name.
        site: SiteId,
    },
    /// A copy at the site of its source, or one named twice.
    #[error("volume {volume}: copies names {site}, and {what}")]
    BadCopy {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteId,
        /// What is wrong and what to do.
        what: &'static str,
    },
    /// A rate of zero, a negative or infinite time or price.
    #[error("link {from} -> {to}: {what}")]
    BadLink {
        /// Whence.
        from: SiteId,
        /// Whither.
        to: SiteId,
        /// What is wrong.
        what: &'static str,
    },
}

impl Topology {
    /// The link from one site to another, if there is one.
    pub fn link(&self, from: &SiteId, to: &SiteId) -> Option<&Link> {
        self.links.iter().find(|l| &l.from == from && &l.to == to)
    }

    /// Whether a volume stands at a site by itself, its source or a copy: then nothing of it can be brought there.
    pub fn stands_at(&self, volume: &VolumeId, site: &SiteId) -> bool {
        self.volumes.get(volume).is_some_and(|v| v.stands_at(site))
    }

    /// Whether every name is known and every number possible.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TopologyError> {
        let known = |what: String, site: &SiteId| {
            if self.sites.contains_key(site) {
                Ok(())
            } else {
                Err(TopologyError::UnknownSite { what, site: site.clone() })
            }
        };
        for (name, volume) in &self.volumes {
            known(format!("volume {name}"), &volume.at)?;
            volume.copies.iter().try_for_each(|site| known(format!("volume {name}"), site))?;
            volume.check_copies().map_err(|(site, what)| TopologyError::BadCopy {
                volume: name.clone(),
                site: site.clone(),
                what,
            })?;
        }
        for link in &self.links {
            known(format!("link {} -> {}", link.from, link.to), &link.from)?;
            known(format!("link {} -> {}", link.from, link.to), &link.to)?;
            let bad = |what| Err(TopologyError::BadLink { from: link.from.clone(), to: link.to.clone(), what });
            if link.rate.0 == 0 {
                return bad("rate must be above 0");
            }
            if !link.rtt_ms.is_finite() || link.rtt_ms < 0.0 {
                return bad("rtt_ms must be 0 or more");
            }
            if !link.cost_per_gb.is_finite() || link.cost_per_gb < 0.0 {
                return bad("cost_per_gb must be 0 or more");
            }
            if link.from == link.to {
                return bad("joins a site to itself");
            }
        }
        Ok(())
    }
}
