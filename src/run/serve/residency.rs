//! What the sites hold, as their agents reported it, in the form in which the planner asks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foretide_catalog::{Catalog, CatalogError, ResidentFile};
use foretide_flow::{FilePath, SiteId, Topology, VolumeId};
use foretide_planner::Residency;

use super::ring::cache_sites;

/// Byte ranges of each file, start and end (exclusive).
type FileRanges = HashMap<(VolumeId, FilePath), Vec<(u64, u64)>>;

/// How often all of it is read anew: what other replicas of the control plane were told comes that way.
const READ_EVERY: Duration = Duration::from_secs(30);

/// What a site holds.
#[derive(Debug, Default)]
struct Held {
    ranges: FileRanges,
    bytes: u64,
}

impl Held {
    fn put(&mut self, file: ResidentFile) {
        let (now, place) = (file.bytes(), (file.volume, file.path));
        let before =
            if file.ranges.is_empty() { self.ranges.remove(&place) } else { self.ranges.insert(place, file.ranges) };
        self.bytes = self.bytes + now - before.map_or(0, |ranges| length(&ranges));
    }
}

fn length(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(from, to)| to - from).sum()
}

/// Byte ranges by site, volume and file: read from the catalog, then kept by what each report changed.
#[derive(Debug, Default)]
pub struct Resident {
    held: HashMap<SiteId, Held>,
    read_at: Option<Instant>,
}

impl Resident {
    /// Takes what a report changed at a site.
    pub fn change(&mut self, site: &SiteId, files: Vec<ResidentFile>) {
        let here = self.held.entry(site.clone()).or_default();
        files.into_iter().for_each(|file| here.put(file));
    }

    /// A directory changed: files that it no longer has are gone from the catalog too.
    pub fn is_stale(&mut self) {
        self.read_at = None;
    }

    /// Reads all of it if it is stale or was read long ago.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn refresh(&mut self, catalog: &dyn Catalog, topology: &Topology) -> Result<(), CatalogError> {
        if self.read_at.is_some_and(|at| at.elapsed() < READ_EVERY) {
            return Ok(());
        }
        for site in cache_sites(topology) {
            let mut here = Held::default();
            catalog.resident(site).await?.into_iter().for_each(|file| here.put(file));
            self.held.insert(site.clone(), here);
        }
        self.read_at = Some(Instant::now());
        Ok(())
    }
}

impl Residency for Resident {
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, offset: u64, length: u64) -> u64 {
        let key = (volume.clone(), path.clone());
        let ranges = self.held.get(site).and_then(|here| here.ranges.get(&key)).map_or(&[][..], Vec::as_slice);
        let end = offset.saturating_add(length);
        ranges.iter().map(|(from, to)| to.min(&end).saturating_sub(*from.max(&offset))).sum()
    }

    fn held_bytes(&self, site: &SiteId) -> u64 {
        self.held.get(site).map_or(0, |here| here.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_extent_counts_and_what_left_is_gone() {
        let (site, volume) = (SiteId::new("gpu").unwrap(), VolumeId::new("v").unwrap());
        let path = FilePath::parse("a/b").unwrap();
        let file = |ranges| ResidentFile { volume: volume.clone(), path: path.clone(), ranges };
        let mut resident = Resident::default();
        resident.change(&site, vec![file(vec![(0, 100), (200, 300)])]);
        let asked =
            |resident: &Resident, offset, length| resident.resident_bytes(&site, &volume, &path, offset, length);
        assert_eq!((asked(&resident, 0, 300), resident.held_bytes(&site)), (200, 200));
        assert_eq!(asked(&resident, 50, 200), 100);
        assert_eq!(asked(&resident, 100, 100), 0);
        assert_eq!(resident.resident_bytes(&site, &volume, &FilePath::root(), 0, 10), 0);
        resident.change(&site, vec![file(vec![(0, 50)])]);
        assert_eq!(resident.held_bytes(&site), 50, "it is counted once");
        resident.change(&site, vec![file(vec![])]);
        assert_eq!((asked(&resident, 0, 300), resident.held_bytes(&site)), (0, 0));
    }
}
