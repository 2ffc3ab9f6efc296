//! What the sites hold, as their agents reported it, in the form in which the planner asks.

use std::collections::HashMap;

use foretide_catalog::{Catalog, CatalogError};
use foretide_flow::{FilePath, SiteId, Topology, VolumeId};
use foretide_planner::Residency;

use super::ring::cache_sites;

/// Byte ranges of each file, start and end (exclusive).
type FileRanges = HashMap<(VolumeId, FilePath), Vec<(u64, u64)>>;

/// Byte ranges by site, volume and file, read from the catalog when something changed.
#[derive(Debug, Default)]
pub struct Resident {
    ranges: HashMap<SiteId, FileRanges>,
    fresh: bool,
}

impl Resident {
    /// Something changed since it was read.
    pub fn is_stale(&mut self) {
        self.fresh = false;
    }

    /// Reads it again if something changed.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn refresh(&mut self, catalog: &dyn Catalog, topology: &Topology) -> Result<(), CatalogError> {
        if self.fresh {
            return Ok(());
        }
        for site in cache_sites(topology) {
            let files = catalog.resident(site).await?;
            let by_file = files.into_iter().map(|f| ((f.volume, f.path), f.ranges)).collect();
            self.ranges.insert(site.clone(), by_file);
        }
        self.fresh = true;
        Ok(())
    }
}

impl Residency for Resident {
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, offset: u64, length: u64) -> u64 {
        let key = (volume.clone(), path.clone());
        let ranges = self.ranges.get(site).and_then(|files| files.get(&key)).map_or(&[][..], Vec::as_slice);
        let end = offset.saturating_add(length);
        ranges.iter().map(|(from, to)| to.min(&end).saturating_sub(*from.max(&offset))).sum()
    }

    /// Pins of warm-ups are part of the planner's problem; nothing else holds bytes for good.
    fn unevictable_bytes(&self, _: &SiteId) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_extent_counts() {
        let (site, volume) = (SiteId::new("gpu").unwrap(), VolumeId::new("v").unwrap());
        let path = FilePath::parse("a/b").unwrap();
        let files = HashMap::from([((volume.clone(), path.clone()), vec![(0, 100), (200, 300)])]);
        let resident = Resident { ranges: HashMap::from([(site.clone(), files)]), fresh: true };
        let asked = |offset, length| resident.resident_bytes(&site, &volume, &path, offset, length);
        assert_eq!(asked(0, 300), 200);
        assert_eq!(asked(50, 200), 100);
        assert_eq!(asked(100, 100), 0);
        assert_eq!(resident.resident_bytes(&site, &volume, &FilePath::root(), 0, 10), 0);
    }
}
