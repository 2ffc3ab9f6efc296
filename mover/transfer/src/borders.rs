//! Residency rules as both ends ask them (promise I): the sender before it reads a byte, the receiver before it asks
//! for one.

use std::sync::{Arc, PoisonError, RwLock};

use foretide_flow::{BitsPerSecond, FilePath, Refusal, Ruleset, SiteId, Timestamp, Topology, VolumeId};

/// Rules and topology as they stand; replaced when the control plane tells.
#[derive(Debug, Default)]
pub struct Borders {
    current: RwLock<Arc<(Ruleset, Topology)>>,
}

impl Borders {
    /// From what the control plane said.
    pub fn new(rules: Ruleset, topology: Topology) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(Arc::new((rules, topology))) })
    }

    /// Takes rules; whether they say anything other than those before.
    pub fn replace(&self, rules: Ruleset, topology: Topology) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let differs = current.0 != rules || current.1 != topology;
        *current = Arc::new((rules, topology));
        differs
    }

    /// Whether a rule ran out in that time: then others decide, as if the rules had changed.
    pub fn ran_out(&self, after: Timestamp, until: Timestamp) -> bool {
        self.now().0.rules().filter_map(|rule| rule.until).any(|end| after <= end && end < until)
    }

    fn now(&self) -> Arc<(Ruleset, Topology)> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The site of a volume's source.
    pub(crate) fn source_site(&self, volume: &VolumeId) -> Option<SiteId> {
        self.now().1.volumes.get(volume).map(|v| v.at.clone())
    }

    /// The rate of the link from one site to another, if there is one.
    pub(crate) fn link_rate(&self, from: &SiteId, to: &SiteId) -> Option<BitsPerSecond> {
        self.now().1.link(from, to).map(|link| link.rate)
    }

    /// The lowest rate of all links from a site, if there is one.
    pub(crate) fn slowest_rate_from(&self, from: &SiteId) -> Option<BitsPerSecond> {
        let current = self.now();
        current.1.links.iter().filter(|link| link.from == *from).map(|link| link.rate).min_by_key(|rate| rate.0)
    }

    /// Whether a file may be at a site at least on its way to another.
    pub(crate) fn lets_pass(&self, volume: &VolumeId, path: &FilePath, at: &SiteId) -> bool {
        let current = self.now();
        current.0.verdict(&current.1, volume, path, at, Timestamp::now()).lets_pass()
    }

    /// Whether a file may rest at a site.
    pub(crate) fn lets_rest(&self, volume: &VolumeId, path: &FilePath, at: &SiteId) -> bool {
        let current = self.now();
        current.0.verdict(&current.1, volume, path, at, Timestamp::now()).allows()
    }

    /// Whether a file may rest at a site; the refusal is to be written down. `by` is `sender`, `receiver` or `giver`.
    ///
    /// # Errors
    /// The refusal, naming the rule.
    pub fn check(&self, volume: &VolumeId, path: &FilePath, to: &SiteId, by: &str) -> Result<(), Box<Refusal>> {
        let current = self.now();
        let at = Timestamp::now();
        let verdict = current.0.verdict(&current.1, volume, path, to, at);
        if verdict.allows() {
            return Ok(());
        }
        Err(Box::new(Refusal {
            volume: volume.clone(),
            path: path.clone(),
            to: to.clone(),
            rule: verdict.rule.unwrap_or_else(|| "default".into()),
            by: by.to_owned(),
            at,
        }))
    }
}
