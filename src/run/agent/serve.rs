//! The volumes that this node serves: those of the configuration, and folders and prefixes of object stores that the control
//! plane names, as far as the configuration offers them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretide_api::{ToServe, is_below};
use foretide_flow::VolumeId;
use foretide_transfer::{Bucket, LocalDirectory, Manners, Merged, Server, Source};

use crate::config::{AgentConfig, SourceConfig};
use crate::run::RunError;

/// What is served, and what may be.
pub struct Served {
    server: Option<Server>,
    sources: HashMap<VolumeId, Arc<dyn Source>>,
    offer: Vec<PathBuf>,
    manners: Manners,
}

impl Served {
    /// The volumes of the configuration, which `server` serves already.
    pub fn start(sources: HashMap<VolumeId, Arc<dyn Source>>, config: &AgentConfig, server: Option<Server>) -> Self {
        let offer = config.source.as_ref().map_or(Vec::new(), |s| s.offer.clone());
        let manners = config.source.as_ref().map_or_else(Manners::default, SourceConfig::manners);
        Self { server, sources, offer, manners }
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
        for ToServe { volume, sources } in new {
            let Some(server) = &self.server else { continue };
            match open_offered(&self.offer, sources, self.manners) {
                Ok(Some((served, told))) => {
                    server.serve(volume.clone(), served);
                    self.sources.insert(volume.clone(), told);
                    tracing::info!(%volume, ?sources, "serving a volume that was added");
                }
                // Another node of this site has it.
                Ok(None) => tracing::debug!(%volume, ?sources, "not all offered here: see source.offer"),
                Err(error) => tracing::warn!(%volume, ?sources, %error, "an added volume cannot be served"),
            }
        }
        self.sources.len() > before
    }
}

/// A source twice: for those who fetch, and for telling the control plane.
type Opened = (Box<dyn Source>, Arc<dyn Source>);

/// A volume over what it is made of; none if not all of it is offered here.
fn open_offered(offer: &[PathBuf], sources: &[String], manners: Manners) -> Result<Option<Opened>, RunError> {
    let Some(served) = open_layers(offer, sources, manners)? else { return Ok(None) };
    let Some(told) = open_layers(offer, sources, manners)? else { return Ok(None) };
    Ok(Some((manners.paced(one_tree(served)), Arc::from(manners.paced(one_tree(told))))))
}

fn one_tree(mut layers: Vec<Box<dyn Source>>) -> Box<dyn Source> {
    match layers.pop() {
        // A folder alone is watched for changes.
        Some(only) if layers.is_empty() => only,
        last => Box::new(Merged::new(layers.into_iter().chain(last).collect())),
    }
}

fn open_layers(
    offer: &[PathBuf],
    sources: &[String],
    manners: Manners,
) -> Result<Option<Vec<Box<dyn Source>>>, RunError> {
    let layers: Result<Vec<_>, RunError> = sources.iter().map(|source| open_layer(offer, source, manners)).collect();
    Ok(layers?.into_iter().collect())
}

/// A folder or a prefix of an object store; none if it is not offered. Links are resolved first, so that none leads out
/// of what is offered. The keys of an object store come from the environment.
fn open_layer(offer: &[PathBuf], source: &str, manners: Manners) -> Result<Option<Box<dyn Source>>, RunError> {
    if source.contains("://") {
        if !offer.iter().filter_map(|root| root.to_str()).any(|root| is_below(source, root)) {
            return Ok(None);
        }
        return Ok(Some(Box::new(Bucket::open(source, &BTreeMap::new())?)));
    }
    let Ok(folder) = Path::new(source).canonicalize() else { return Ok(None) };
    let offered = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
    if !offer.iter().any(offered) {
        return Ok(None);
    }
    Ok(Some(manners.patient(Box::new(LocalDirectory::open(&folder)?))))
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
        let (offer, manners) = ([at("offered")], Manners::default());
        let served = |source: &str| open_layer(&offer, &at(source).display().to_string(), manners).unwrap().is_some();
        assert!(served("offered/set") && served("offered"));
        assert!(!served("secret") && !served("offered/out") && !served("offered/../secret") && !served("none"));
        let inside = at("offered/set").display().to_string();
        assert!(open_layer(&[], &inside, manners).unwrap().is_none(), "nothing is offered unless said so");
        let both = [inside.clone(), at("secret").display().to_string()];
        assert!(open_offered(&offer, &both[..1], manners).unwrap().is_some());
        assert!(open_offered(&offer, &both, manners).unwrap().is_none(), "all of it is offered or nothing is served");
        let offer = [PathBuf::from("s3://open/sets/")];
        for outside in ["setsecret", "", "sets/../secret", "sets/%2e%2e/secret", "sets/./../../other/sets"] {
            assert!(open_layer(&offer, &format!("s3://open/{outside}"), manners).unwrap().is_none(), "{outside}");
        }
        for elsewhere in ["s3://other/sets", "gs://open/sets", "s3://sets"] {
            assert!(open_layer(&offer, elsewhere, manners).unwrap().is_none(), "{elsewhere}");
        }
    }
}
