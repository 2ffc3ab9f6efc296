//! The volumes that this node serves: those of the configuration, and folders and prefixes of object stores that the control
//! plane names, as far as the configuration offers them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretide_api::ToServe;
use foretide_flow::VolumeId;
use foretide_transfer::{Bucket, LocalDirectory, Server, Source};

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
            match open_offered(&self.offer, source) {
                Ok(Some((served, told))) => {
                    server.serve(volume.clone(), served);
                    self.sources.insert(volume.clone(), told);
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

/// A source twice: for those who fetch, and for telling the control plane.
type Opened = (Box<dyn Source>, Arc<dyn Source>);

/// A folder or a prefix of an object store; none if it is not offered. Links are resolved first, so that none leads out
/// of what is offered. The keys of an object store come from the environment.
fn open_offered(offer: &[PathBuf], source: &str) -> Result<Option<Opened>, RunError> {
    if source.contains("://") {
        let below = |root: &str| source.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !offer.iter().filter_map(|root| root.to_str()).any(|root| below(root.trim_end_matches('/'))) {
            return Ok(None);
        }
        let open = || Bucket::open(source, &BTreeMap::new());
        return Ok(Some((Box::new(open()?), Arc::new(open()?))));
    }
    let Ok(folder) = Path::new(source).canonicalize() else { return Ok(None) };
    let offered = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
    if !offer.iter().any(offered) {
        return Ok(None);
    }
    Ok(Some((Box::new(LocalDirectory::open(&folder)?), Arc::new(LocalDirectory::open(&folder)?))))
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
        let served = |source: &str| open_offered(&offer, &at(source).display().to_string()).unwrap().is_some();
        assert!(served("offered/set") && served("offered"));
        assert!(!served("secret") && !served("offered/out") && !served("offered/../secret") && !served("none"));
        let inside = at("offered/set").display().to_string();
        assert!(open_offered(&[], &inside).unwrap().is_none(), "nothing is offered unless said so");
        let bucket = [PathBuf::from("s3://open/sets")];
        assert!(open_offered(&bucket, "s3://open/setsecret").unwrap().is_none());
        assert!(open_offered(&bucket, "s3://other/sets").unwrap().is_none());
    }
}
