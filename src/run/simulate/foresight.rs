//! The model as it foresees in a simulation: it sees what the simulated jobs read, and knows the names that the
//! recording knows.

use std::collections::BTreeMap;

use foretide_flow::{
    AccessBatch, Entry, EntryKind, FilePath, FileVersion, Forecast, ForecastId, LearnRequest, Listing, Timestamp,
    VolumeId,
};
use foretide_model::{Config, Model, ModelError};
use foretide_planner::simulate::{Foresee, Future, World};

use crate::run::serve::is_replaced;

/// See the module.
pub(super) struct Learned {
    model: Model,
    forecasts: BTreeMap<ForecastId, Forecast>,
    listings: BTreeMap<(VolumeId, FilePath), Listing>,
}

impl Learned {
    /// A model that has seen nothing yet.
    ///
    /// # Errors
    /// [`ModelError`] for settings that cannot be meant.
    pub(super) fn new(world: &World, config: Config) -> Result<Self, ModelError> {
        Ok(Self { model: Model::new(config)?, forecasts: BTreeMap::new(), listings: listings(world) })
    }

    fn satisfy(&mut self, wanted: &[LearnRequest]) {
        for wish in wanted {
            if wish.recursive {
                let within =
                    |((v, d), _): &(&(VolumeId, FilePath), &Listing)| v == &wish.volume && d.is_within(&wish.directory);
                self.listings.iter().filter(within).for_each(|(_, listing)| self.model.learn(listing));
            } else if let Some(listing) = self.listings.get(&(wish.volume.clone(), wish.directory.clone())) {
                self.model.learn(listing);
            }
        }
    }
}

impl Foresee for Learned {
    fn observe(&mut self, batch: &AccessBatch) {
        self.model.observe(batch);
    }

    fn foresee(&mut self, now: Timestamp, _: &Future<'_>) -> Vec<Forecast> {
        let advice = self.model.advise(now);
        self.satisfy(&advice.wanted);
        self.forecasts
            .retain(|id, f| !advice.withdrawn.contains(id) && f.expires_at > now && !is_replaced(f, &advice.forecasts));
        self.forecasts.extend(advice.forecasts.into_iter().map(|f| (f.id.clone(), f)));
        self.forecasts.values().cloned().collect()
    }
}

/// Every folder of the world's files, as its source would list it.
fn listings(world: &World) -> BTreeMap<(VolumeId, FilePath), Listing> {
    let mut entries: BTreeMap<(VolumeId, FilePath), BTreeMap<FilePath, Entry>> = BTreeMap::new();
    for file in &world.files {
        let (mut path, mut kind, mut size) = (file.path.clone(), EntryKind::File, file.bytes);
        while let Some(folder) = path.parent() {
            let entry = Entry {
                path: path.clone(),
                kind,
                size,
                modified_at: Timestamp(0),
                mode: 0o644,
                uid: 0,
                gid: 0,
                links: 1,
                version: FileVersion("recorded".into()),
            };
            entries.entry((file.volume.clone(), folder.clone())).or_default().insert(path, entry);
            (path, kind, size) = (folder, EntryKind::Directory, 0);
        }
    }
    let listing = |((volume, directory), entries): ((VolumeId, FilePath), BTreeMap<FilePath, Entry>)| {
        let key = (volume.clone(), directory.clone());
        (key, Listing { volume, directory, seen_at: Timestamp(0), entries: entries.into_values().collect() })
    };
    entries.into_iter().map(listing).collect()
}
