//! The volumes whose truth lies on this node: those of the configuration, and folders that the control plane names,
//! as far as the configuration offers them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretide_api::ToServe;
use foretide_flow::VolumeId;
use foretide_transfer::{LocalDirectory, Server, Source};

use crate::config::AgentConfig;
use crate::run::RunError;

/// What is served, and what may be.
pub struct Served {
    server: Option<Server>,
    sources: HashMap<VolumeId, Arc<dyn Source>>,
    offer: Vec<PathBuf>,
}

impl Served {
    /// The volumes of the configuration, which `server` serves already.
    pub fn start(sources: HashMap<VolumeId, Arc<dyn Source>>, config: &AgentConfig, server: Option<Server>) -> Self {
        let offer = config.source.as_ref().map_or(Vec::new(), |s| s.offer.clone());
        Self { server, sources, offer }
    }

    /// A volume of this node.
    pub fn source(&self, volume: &VolumeId) -> Option<&Arc<dyn Source>> {
        self.sources.get(volume)
    }

    /// All of them, by name.
    pub fn volumes(&self) -> Vec<VolumeId> {
        let mut names: Vec<_> = self.sources.keys().cloned().collect();
        names.sort();
        names
    }

    /// Serves what was added at this site and is offered here. Answers whether there was something new.
    pub fn serve_added(&mut self, added: &[ToServe]) -> bool {
        let before = self.sources.len();
        let new: Vec<_> = added.iter().filter(|v| !self.sources.contains_key(&v.volume)).collect();
        for ToServe { volume, source } in new {
            let Some(server) = &self.server else { continue };
            match open_offered(&self.offer, Path::new(source)) {
                Ok(Some((served, told))) => {
                    server.serve(volume.clone(), Box::new(served));
                    self.sources.insert(volume.clone(), Arc::new(told));
                    tracing::info!(%volume, source, "serving a volume that was added");
                }
                // Another node of this site has it.
                Ok(None) => tracing::debug!(%volume, source, "not offered here: see source.offer"),
                Err(error) => tracing::warn!(%volume, source, %error, "an added volume cannot be served"),
            }
        }
        self.sources.len() > before
    }
}

/// The folder, once for those who fetch and once for telling the control plane; none if it is not offered. Links are
/// resolved first, so that none leads out of what is offered.
fn open_offered(offer: &[PathBuf], source: &Path) -> Result<Option<(LocalDirectory, LocalDirectory)>, RunError> {
    if offer.is_empty() {
        return Ok(None);
    }
    let Ok(folder) = source.canonicalize() else { return Ok(None) };
    let offered = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
    if !offer.iter().any(offered) {
        return Ok(None);
    }
    Ok(Some((LocalDirectory::open(&folder)?, LocalDirectory::open(&folder)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_offered_is_served_and_no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("offered/set")).unwrap();
        std::fs::create_dir(at("secret")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("offered/out")).unwrap();
        let offer = [at("offered")];
        let served = |source: &str| open_offered(&offer, &at(source)).unwrap().is_some();
        assert!(served("offered/set") && served("offered"));
        assert!(!served("secret") && !served("offered/out") && !served("offered/../secret") && !served("none"));
        assert!(open_offered(&[], &at("offered/set")).unwrap().is_none(), "nothing is offered unless said so");
    }
}
