//! What holds now of the configuration's sites, links, volumes, borders, mode and planner, all of which may change while
//! everything runs: SIGHUP has the file read again. What cannot be meant changes nothing and is told in the log.
//!
//! The API hands it out, the ring and the adviser listen to it. Agents are woken, take the new rules, stop what these
//! forbid and give up what may no longer be with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foretide_api::{AddedVolume, Directory, digest_of};
use foretide_catalog::{AuditEntry, Catalog, CatalogError, Topic};
use foretide_flow::{Mode, Ruleset, Timestamp, Topology, Volume, VolumeId};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{self, ConfigError, ServeConfig};

/// Name of the setting that tells other control planes and waiting agents that something changed.
const SETTING: &str = "standing";

/// See the module.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Sites, links, volumes: those that were added among them.
    pub topology: Arc<Topology>,
    /// Borders.
    pub rules: Arc<Ruleset>,
    /// The planner's settings, the mode among them.
    pub planner: foretide_planner::Config,
    digest: blake3::Hash,
}

impl Standing {
    /// What a configuration says.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn of(config: &ServeConfig, path: &Path) -> Result<Self, ConfigError> {
        let meaningless = |why| ConfigError::Meaningless { path: path.to_owned(), why };
        let topology = Arc::new(config.topology().map_err(meaningless)?);
        let rules = Arc::new(config.ruleset(&topology).map_err(meaningless)?);
        config.planner.check().map_err(|e| meaningless(e.to_string()))?;
        let planner = foretide_planner::Config { mode: config.mode, ..config.planner.clone() };
        Ok(Self { digest: digest_of(&topology, &rules), topology, rules, planner })
    }

    /// The configuration goes first: a volume of the same name was configured after it was added.
    fn with_volumes(&self, added: &BTreeMap<VolumeId, AddedVolume>) -> Self {
        let mut topology = self.topology.as_ref().clone();
        for (name, volume) in added {
            if let Some(volume) = as_far_as_known(&self.topology, volume.volume()) {
                topology.volumes.entry(name.clone()).or_insert(volume);
            }
        }
        Self { digest: digest_of(&topology, &self.rules), topology: Arc::new(topology), ..self.clone() }
    }
}

/// A volume that was added when there were other sites: without the copies at those that are gone; none if its source was
/// at one of these.
fn as_far_as_known(topology: &Topology, mut volume: Volume) -> Option<Volume> {
    volume.copies.retain(|site| topology.sites.contains_key(site));
    topology.sites.contains_key(&volume.at).then_some(volume)
}

/// Keeps what holds.
pub struct Standings {
    /// As configured, and the volumes that were added since.
    parts: Mutex<(Standing, BTreeMap<VolumeId, AddedVolume>)>,
    holds: watch::Sender<Arc<Standing>>,
}

impl Standings {
    /// From the configuration and the volumes that were added to it.
    pub fn new(configured: Standing, added: BTreeMap<VolumeId, AddedVolume>) -> Arc<Self> {
        let holds = watch::Sender::new(Arc::new(configured.with_volumes(&added)));
        Arc::new(Self { parts: Mutex::new((configured, added)), holds })
    }

    /// What holds, now and later.
    pub fn listen(&self) -> watch::Receiver<Arc<Standing>> {
        self.holds.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut (Standing, BTreeMap<VolumeId, AddedVolume>))) {
        let mut parts: MutexGuard<'_, _> = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        self.holds.send_replace(Arc::new(parts.0.with_volumes(&parts.1)));
    }

    /// Reads the configuration again at each SIGHUP.
    pub async fn reload_when_told(self: Arc<Self>, path: PathBuf, catalog: Arc<dyn Catalog>) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be heard: a changed configuration holds after a restart");
            return;
        };
        while hangups.recv().await.is_some() {
            let read = config::read(&path).and_then(|config| Standing::of(&config, &path));
            match read {
                Ok(standing) => {
                    tracing::info!(path = %path.display(), "sites, links, volumes, borders and planner as configured now");
                    if let Err(error) = self.replace(standing, catalog.as_ref()).await {
                        tracing::error!(%error, "the change holds, and is not written down");
                    }
                }
                Err(error) => tracing::error!(%error, "what held before goes on holding"),
            }
        }
    }

    /// First what is handed out, then the setting, which wakes those who wait for it.
    async fn replace(&self, standing: Standing, catalog: &dyn Catalog) -> Result<(), CatalogError> {
        let rules: Vec<String> = standing.rules.rules().map(|rule| rule.name.clone()).collect();
        let detail = json!({ "rules": rules, "sites": standing.topology.sites.len(), "mode": standing.planner.mode });
        let digest = standing.digest.to_hex().to_string();
        self.change(|(configured, _)| *configured = standing);
        catalog.put_setting(SETTING, &json!(digest)).await?;
        let what = "configuration.reload".to_owned();
        let entry = AuditEntry { at: Timestamp::now(), who: "foretide serve".into(), what, detail };
        catalog.append_audit(&entry).await.map(drop)
    }

    /// Volumes that another control plane over the same catalog has added.
    pub async fn heed_settings(self: Arc<Self>, catalog: Arc<dyn Catalog>) {
        let mut changes = catalog.changes(Topic::Settings);
        while changes.changed().await.is_ok() {
            match foretide_api::added_volumes(catalog.as_ref()).await {
                Ok(added) => self.volumes_added(&added),
                Err(error) => tracing::warn!(%error, "added volumes are not read again"),
            }
        }
    }
}

impl Directory for Standings {
    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.holds.borrow().topology)
    }

    fn rules(&self) -> Arc<Ruleset> {
        Arc::clone(&self.holds.borrow().rules)
    }

    fn digest(&self) -> blake3::Hash {
        self.holds.borrow().digest
    }

    fn mode(&self) -> Mode {
        self.holds.borrow().planner.mode
    }

    fn volumes_added(&self, added: &BTreeMap<VolumeId, AddedVolume>) {
        self.change(|(_, known)| known.clone_from(added));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(text: &str) -> Result<Standing, ConfigError> {
        let base = "state = \"/s\"\n[site.store]\n[site.gpu]\n[volume.v]\nat = \"store\"\n";
        Standing::of(&toml::from_str(&format!("{base}{text}")).unwrap(), Path::new("serve.toml"))
    }

    #[tokio::test]
    async fn a_changed_configuration_holds_with_the_volumes_that_were_added() {
        let catalog = foretide_catalog::in_memory();
        let added: AddedVolume = serde_json::from_value(json!({"at": "store", "sources": ["/x"], "tags": {}})).unwrap();
        let standings = Standings::new(configured("").unwrap(), BTreeMap::from([(VolumeId::new("w").unwrap(), added)]));
        let mut heard = standings.listen();
        let before = standings.digest();
        let rule = "[[policy.rule]]\nname = \"stays\"\neffect = \"deny\"\nsites = [\"gpu\"]\n";
        standings.replace(configured(rule).unwrap(), catalog.as_ref()).await.unwrap();
        assert!(heard.has_changed().unwrap() && standings.digest() != before);
        assert_eq!(heard.borrow_and_update().rules.rules().count(), 1);
        assert_eq!(standings.topology().volumes.len(), 2, "the added volume is still there");
        let audit = catalog.audit(0, 10).await.unwrap();
        assert_eq!(audit[0].entry.detail["rules"], json!(["stays"]));
    }

    #[test]
    fn an_added_volume_keeps_the_copies_at_sites_that_are_still_there() {
        let added = |at: &str| -> AddedVolume {
            serde_json::from_value(json!({"at": at, "sources": ["/x"], "copies": ["gpu", "gone"]})).unwrap()
        };
        let name = |name: &str| VolumeId::new(name).unwrap();
        let all = BTreeMap::from([(name("w"), added("store")), (name("x"), added("gone"))]);
        let volumes = configured("").unwrap().with_volumes(&all).topology.volumes.clone();
        assert_eq!(volumes[&name("w")].copies, [foretide_flow::SiteId::new("gpu").unwrap()]);
        assert!(!volumes.contains_key(&name("x")), "its source is at a site that is gone");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_files_name() {
        let rule = "[[policy.rule]]\nname = \"stays\"\neffect = \"deny\"\nsites = [\"moon\"]\n";
        let copies = |sites: &str| format!("[volume.w]\nat = \"store\"\ncopies = [{sites}]\n");
        for (text, named) in [
            (rule.to_owned(), "moon"),
            (copies("\"mars\""), "volume w names site mars"),
            (copies("\"store\""), "copies names store, and its source is there"),
            (copies("\"gpu\", \"gpu\""), "copies names gpu, and it is named twice"),
        ] {
            let told = configured(&text).unwrap_err().to_string();
            assert!(told.contains("serve.toml") && told.contains(named), "{told}");
        }
    }
}
