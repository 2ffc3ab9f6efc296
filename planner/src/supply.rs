//! Where bytes can come from beside the sites of their volumes, and which bytes are the same: plain data, said by those
//! who hear of agents and of chunks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foretide_flow::{
    ChunkId, Entry, EntryKind, FilePath, FileVersion, Listing, SharedChunk, SharedFile, SiteId, Topology, Volume,
    VolumeId,
};

/// See the module. The default is what one agent at each volume's site gives: no copies, no relays, nothing shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Sites that serve a whole copy of a volume.
    pub copies: BTreeMap<VolumeId, Vec<SiteId>>,
    /// Sites that pass on what their cache holds.
    pub relays: BTreeSet<SiteId>,
    /// Whether relays keep what they pass on: then it must be allowed to rest there, not only to pass.
    pub relays_keep: bool,
    /// Chunks that stand in several places; many, and the same from plan to plan.
    pub shared: Arc<SharedChunks>,
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

/// A chunk of a file that stands in other places too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPiece {
    /// Where in its file, bytes.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Equal for equal bytes.
    pub content: u32,
}

/// A file of which something is known to stand elsewhere too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sharer {
    version: FileVersion,
    /// By offset.
    pieces: Vec<SharedPiece>,
}

/// One of a chunk's places: a file, and the offset in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    volume: VolumeId,
    path: FilePath,
    offset: u64,
}

/// Bytes that stand in several places.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    name: ChunkId,
    /// Places of it, all told.
    pieces: usize,
    /// The first [`PLACES_KEPT`] of them.
    places: Vec<Place>,
}

/// Places of one content in which a plan looks for it at a site. A block of zeroes stands in every file.
const PLACES_KEPT: usize = 32;

/// Which chunks stand in several places, by file and by chunk, as sources tell it: file by file, each in place of what was
/// told of it before. Chunks of different dedup domains have different names and so share nothing.
///
/// `pieces` of a content counts those of `files` with its number; contents of which there are none are `free`, all others
/// have their name in `numbers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedChunks {
    files: HashMap<VolumeId, BTreeMap<FilePath, Sharer>>,
    contents: Vec<Content>,
    numbers: HashMap<ChunkId, u32>,
    free: Vec<u32>,
    pieces: usize,
}

impl SharedChunks {
    /// Of these files.
    pub fn of<'f>(files: impl IntoIterator<Item = &'f SharedFile>) -> Self {
        let mut shared = Self::default();
        files.into_iter().for_each(|file| shared.put(file));
        shared
    }

    /// Takes what is told of a file now.
    pub fn put(&mut self, file: &SharedFile) {
        self.forget(&file.volume, &file.path);
        if file.chunks.is_empty() {
            return;
        }
        let mut pieces: Vec<SharedPiece> = file.chunks.iter().map(|chunk| self.add(file, chunk)).collect();
        pieces.sort_by_key(|p| p.offset);
        self.pieces += pieces.len();
        let sharer = Sharer { version: file.version.clone(), pieces };
        self.files.entry(file.volume.clone()).or_default().insert(file.path.clone(), sharer);
    }

    fn add(&mut self, file: &SharedFile, chunk: &SharedChunk) -> SharedPiece {
        let number = self.numbered(chunk.id);
        let content = &mut self.contents[number as usize];
        content.pieces += 1;
        if content.places.len() < PLACES_KEPT {
            let (volume, path) = (file.volume.clone(), file.path.clone());
            content.places.push(Place { volume, path, offset: chunk.offset });
        }
        SharedPiece { offset: chunk.offset, length: u64::from(chunk.length), content: number }
    }

    fn numbered(&mut self, name: ChunkId) -> u32 {
        *self.numbers.entry(name).or_insert_with(|| {
            let new = Content { name, pieces: 0, places: Vec::new() };
            match self.free.pop() {
                Some(number) => {
                    self.contents[number as usize] = new;
                    number
                }
                None => {
                    self.contents.push(new);
                    (self.contents.len() - 1) as u32
                }
            }
        })
    }

    fn forget(&mut self, volume: &VolumeId, path: &FilePath) {
        let Some(sharer) = self.files.get_mut(volume).and_then(|files| files.remove(path)) else { return };
        self.pieces -= sharer.pieces.len();
        for SharedPiece { content: number, .. } in sharer.pieces {
            let content = &mut self.contents[number as usize];
            content.pieces -= 1;
            content.places.retain(|place| (&place.volume, &place.path) != (volume, path));
            if content.pieces == 0 {
                self.numbers.remove(&content.name);
                self.free.push(number);
            }
        }
    }

    /// A directory was listed: what was told of files in it that are gone or have another version is void, and of all below
    /// directories that it no longer has.
    pub fn heed(&mut self, listing: &Listing) {
        let Some(files) = self.files.get(&listing.volume) else { return };
        let known: HashMap<&FilePath, &Entry> = listing.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let directory = &listing.directory;
        let may_be_below =
            files.range(directory.clone()..).take_while(|(p, _)| p.as_bytes().starts_with(directory.as_bytes()));
        let is_void = |path: &FilePath, sharer: &Sharer| {
            let above = std::iter::successors(Some(path.clone()), FilePath::parent);
            let Some(child) = above.take_while(|p| p != directory).last() else { return false };
            match known.get(&child) {
                Some(entry) if child == *path => (&entry.kind, &entry.version) != (&EntryKind::File, &sharer.version),
                Some(entry) => entry.kind != EntryKind::Directory,
                None => true,
            }
        };
        let below = may_be_below.filter(|(path, _)| path.is_within(directory));
        let void: Vec<FilePath> = below.filter(|(path, s)| is_void(path, s)).map(|(path, _)| path.clone()).collect();
        void.iter().for_each(|path| self.forget(&listing.volume, path));
    }

    /// Shared chunks that lie wholly within an extent of a file, by offset.
    pub fn within(&self, volume: &VolumeId, path: &FilePath, extent: (u64, u64)) -> impl Iterator<Item = SharedPiece> {
        let sharer = self.files.get(volume).and_then(|files| files.get(path));
        let all = sharer.map_or(&[][..], |sharer| &sharer.pieces);
        let end = extent.0.saturating_add(extent.1);
        let (first, last) =
            (all.partition_point(|p| p.offset < extent.0), all.partition_point(|p| p.offset + p.length <= end));
        let within = all.get(first..last).unwrap_or_default();
        within.iter().filter(|piece| self.contents[piece.content as usize].pieces > 1).copied()
    }

    /// Where a content stands, or the first of these places: volume, path, offset.
    pub fn places(&self, content: u32) -> impl Iterator<Item = (&VolumeId, &FilePath, u64)> {
        let places = self.contents.get(content as usize).map_or(&[][..], |content| &content.places);
        places.iter().map(|place| (&place.volume, &place.path, place.offset))
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.pieces == 0
    }

    /// How many chunks are known, by place.
    pub fn pieces(&self) -> usize {
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::Timestamp;

    use super::*;

    fn volume() -> VolumeId {
        VolumeId::new("data").unwrap()
    }

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    /// Chunks of ten bytes, one after the other.
    fn file(at: &str, ids: &[u8]) -> SharedFile {
        let chunk = |(n, id): (u64, &u8)| SharedChunk { id: ChunkId([*id; 32]), offset: n * 10, length: 10 };
        let chunks = (0..).zip(ids).map(chunk).collect();
        SharedFile { volume: volume(), path: path(at), version: FileVersion("1".into()), chunks }
    }

    fn offsets(shared: &SharedChunks, at: &str, extent: (u64, u64)) -> Vec<u64> {
        shared.within(&volume(), &path(at), extent).map(|p| p.offset).collect()
    }

    fn whole(shared: &SharedChunks, at: &str) -> Vec<u64> {
        offsets(shared, at, (0, 1_000))
    }

    #[test]
    fn chunks_in_several_places_are_found_and_others_are_not() {
        let shared = SharedChunks::of(&[file("a", &[1, 2, 3]), file("b", &[9, 2, 3, 9])]);
        assert_eq!(offsets(&shared, "a", (0, 30)), [10, 20]);
        assert_eq!(offsets(&shared, "a", (0, 29)), [10], "a chunk counts if all of it is in the extent");
        assert_eq!(offsets(&shared, "b", (5, 35)), [10, 20, 30], "twice in one file is shared too");
        assert!(offsets(&shared, "b", (39, 1)).is_empty());
        let second = shared.within(&volume(), &path("a"), (10, 10)).next().unwrap();
        let places: Vec<_> = shared.places(second.content).map(|(_, path, offset)| (path.clone(), offset)).collect();
        assert_eq!(places, [(path("a"), 10), (path("b"), 10)]);
        assert!(whole(&SharedChunks::of(&[file("a", &[7])]), "a").is_empty());
    }

    #[test]
    fn a_file_is_known_by_what_was_told_of_it_last() {
        let mut shared = SharedChunks::of(&[file("a", &[1, 2, 2]), file("b", &[2, 1])]);
        shared.put(&file("b", &[1, 3]));
        assert_eq!((whole(&shared, "a"), whole(&shared, "b")), (vec![0, 10, 20], vec![0]));
        shared.put(&file("a", &[]));
        assert_eq!((whole(&shared, "a"), whole(&shared, "b"), shared.pieces()), (vec![], vec![], 2));
        shared.put(&file("c", &[3, 2]));
        assert_eq!(
            (whole(&shared, "b"), whole(&shared, "c")),
            (vec![10], vec![0]),
            "a name that was free is used again"
        );
        for gone in ["b", "c"] {
            shared.put(&file(gone, &[]));
        }
        assert!(shared.is_empty() && shared.numbers.is_empty() && shared.contents.len() == shared.free.len());
    }

    #[test]
    fn promise_k_what_stands_everywhere_is_looked_for_in_some_places() {
        let files: Vec<_> = (0..PLACES_KEPT + 5).map(|n| file(&format!("{n}"), &[0, n as u8 + 1])).collect();
        let mut shared = SharedChunks::of(&files);
        let zeroes = shared.within(&volume(), &path("36"), (0, 10)).next().unwrap().content;
        assert_eq!(shared.places(zeroes).count(), PLACES_KEPT);
        (0..PLACES_KEPT).for_each(|n| shared.put(&file(&format!("{n}"), &[])));
        assert_eq!((whole(&shared, "36"), shared.places(zeroes).count()), (vec![0], 0), "the others still share it");
    }

    #[test]
    fn what_a_listing_denies_is_forgotten() {
        let entry = |at: &str, kind, version: &str| Entry {
            path: path(at),
            kind,
            size: 1,
            modified_at: Timestamp(0),
            mode: 0,
            uid: 0,
            gid: 0,
            links: 1,
            version: FileVersion(version.into()),
        };
        let listed = |directory: &str, entries| {
            let (volume, seen_at) = (volume(), Timestamp(0));
            Listing { volume, directory: path(directory), seen_at, entries }
        };
        let all = ["d/a", "d/b", "d/c", "d/e/f", "d/g/h", "d-2", "d"].map(|at| file(at, &[1]));
        let left = |listing: &Listing| {
            let mut shared = SharedChunks::of(&all);
            shared.heed(listing);
            let left = all.iter().filter(|file| !whole(&shared, &file.path.to_string()).is_empty());
            left.map(|file| file.path.to_string()).collect::<Vec<_>>()
        };
        use EntryKind::{Directory, File};
        let of_d = vec![
            entry("d/a", File, "1"),
            entry("d/b", File, "2"),
            entry("d/e", Directory, "1"),
            entry("d/g", File, "1"),
        ];
        assert_eq!(left(&listed("d", of_d)), ["d/a", "d/e/f", "d-2", "d"]);
        let of_root = vec![entry("d", Directory, "1"), entry("d-2", File, "1")];
        assert_eq!(left(&listed("", of_root)), ["d/a", "d/b", "d/c", "d/e/f", "d/g/h", "d-2"], "d is no file");
        assert_eq!(left(&listed("elsewhere", vec![])).len(), all.len());
    }
}
