//! Where bytes can come from beside the sites of their volumes, and which bytes are the same: plain data, said by those
//! who know of agents and manifests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{ChunkId, FilePath, Manifest, SiteId, Topology, Volume, VolumeId};

/// See the module. The default is what one agent at each volume's site gives: no copies, no relays, nothing shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Sites that serve a whole copy of a volume.
    pub copies: BTreeMap<VolumeId, Vec<SiteId>>,
    /// Sites that pass on what their cache holds.
    pub relays: BTreeSet<SiteId>,
    /// Whether relays keep what they pass on: then it must be allowed to rest there, not only to pass.
    pub relays_keep: bool,
    /// Chunks that stand in several places.
    pub shared: SharedChunks,
}

impl Supply {
    /// What the topology's copies give, those of which somebody at their site serves the volume.
    pub fn of_copies(topology: &Topology, is_served: impl Fn(&SiteId, &VolumeId) -> bool) -> Self {
        let of_one = |(name, volume): (&VolumeId, &Volume)| {
            let served: Vec<SiteId> = volume.copies.iter().filter(|site| is_served(site, name)).cloned().collect();
            (!served.is_empty()).then(|| (name.clone(), served))
        };
        Self { copies: topology.volumes.iter().filter_map(of_one).collect(), ..Self::default() }
    }
}

/// A chunk that stands in other places too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPiece {
    /// Where in its file, bytes.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Equal for equal bytes.
    pub content: u32,
}

/// One of a chunk's places: a file, by number, and the offset in it.
type Place = (u32, u64);

/// Which chunks stand in several places, by file and by chunk. A chunk that stands in one place only is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedChunks {
    files: Vec<(VolumeId, FilePath)>,
    pieces: HashMap<VolumeId, HashMap<FilePath, Vec<SharedPiece>>>,
    places: Vec<Vec<Place>>,
}

impl SharedChunks {
    /// From the manifests of the files that are or may be wanted. Chunks of different dedup domains have different ids and
    /// so share nothing.
    pub fn of<'m>(manifests: impl IntoIterator<Item = (&'m VolumeId, &'m FilePath, &'m Manifest)>) -> Self {
        let mut found: BTreeMap<ChunkId, Vec<(Place, u64)>> = BTreeMap::new();
        let mut files = Vec::new();
        for (volume, path, manifest) in manifests {
            let (number, mut offset) = (files.len() as u32, 0);
            files.push((volume.clone(), path.clone()));
            for chunk in &manifest.chunks {
                let length = u64::from(chunk.length);
                found.entry(chunk.id).or_default().push(((number, offset), length));
                offset += length;
            }
        }
        let mut shared = Self { files, ..Self::default() };
        for places in found.into_values().filter(|places| places.len() > 1) {
            let content = shared.places.len() as u32;
            for ((file, offset), length) in &places {
                let (volume, path) = &shared.files[*file as usize];
                let of_file = shared.pieces.entry(volume.clone()).or_default().entry(path.clone()).or_default();
                of_file.push(SharedPiece { offset: *offset, length: *length, content });
            }
            shared.places.push(places.into_iter().map(|(place, _)| place).collect());
        }
        shared.pieces.values_mut().flat_map(HashMap::values_mut).for_each(|p| p.sort_by_key(|p| p.offset));
        shared
    }

    /// Shared chunks that lie wholly within an extent of a file, by offset.
    pub fn within(&self, volume: &VolumeId, path: &FilePath, extent: (u64, u64)) -> &[SharedPiece] {
        let all = self.pieces.get(volume).and_then(|files| files.get(path)).map_or(&[][..], Vec::as_slice);
        let end = extent.0.saturating_add(extent.1);
        let (first, last) =
            (all.partition_point(|p| p.offset < extent.0), all.partition_point(|p| p.offset + p.length <= end));
        all.get(first..last).unwrap_or_default()
    }

    /// Where else a content stands: volume, path, offset.
    pub fn places(&self, content: u32) -> impl Iterator<Item = (&VolumeId, &FilePath, u64)> {
        let places = self.places.get(content as usize).into_iter().flatten();
        places.map(|(file, offset)| {
            let (volume, path) = &self.files[*file as usize];
            (volume, path, *offset)
        })
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{ChunkRef, FileVersion, ManifestId};

    use super::*;

    #[test]
    fn chunks_in_several_places_are_found_and_others_are_not() {
        let volume = VolumeId::new("data").unwrap();
        let manifest = |ids: &[u8]| Manifest {
            id: ManifestId([0; 32]),
            version: FileVersion("1".into()),
            size: ids.len() as u64 * 10,
            chunks: ids.iter().map(|id| ChunkRef { id: ChunkId([*id; 32]), length: 10 }).collect(),
        };
        let (a, b) = (FilePath::parse("a").unwrap(), FilePath::parse("b").unwrap());
        let (of_a, of_b) = (manifest(&[1, 2, 3]), manifest(&[9, 2, 3, 9]));
        let shared = SharedChunks::of([(&volume, &a, &of_a), (&volume, &b, &of_b)]);
        let offsets = |path, extent| {
            shared.within(&volume, path, extent).iter().map(|p| (p.offset, p.content)).collect::<Vec<_>>()
        };
        assert_eq!(offsets(&a, (0, 30)), [(10, 0), (20, 1)]);
        assert_eq!(offsets(&a, (0, 29)), [(10, 0)], "a chunk counts if all of it is in the extent");
        assert_eq!(offsets(&b, (5, 35)), [(10, 0), (20, 1), (30, 2)], "twice in one file is shared too");
        assert_eq!(offsets(&b, (39, 1)), []);
        let places: Vec<_> = shared.places(0).map(|(_, path, offset)| (path.clone(), offset)).collect();
        assert_eq!(places, [(a, 10), (b, 10)]);
        assert!(SharedChunks::of([(&volume, &FilePath::root(), &manifest(&[7]))]).is_empty());
    }
}
