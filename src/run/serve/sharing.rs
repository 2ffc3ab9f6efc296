//! Which chunks stand in several files, as sources told it, in the form in which the planner asks.
//!
//! They are many and change seldom, so they are kept from plan to plan: the catalog is asked for what was told after the last
//! that is known, when it says that there is something, and directories that change are heeded as they are told.

use std::sync::Arc;

use foretide_catalog::limits::{PAGE_ITEMS, SHARED_CHUNKS};
use foretide_catalog::{Catalog, CatalogError};
use foretide_flow::Listing;
use foretide_planner::SharedChunks;
use tokio::sync::watch;

/// What the catalog has forgotten since is known here until so many chunks are; then all is read anew.
const KEPT_CHUNKS: usize = SHARED_CHUNKS + SHARED_CHUNKS / 2;

/// See the module.
#[derive(Debug)]
pub struct Sharing {
    changes: watch::Receiver<u64>,
    chunks: Arc<SharedChunks>,
    /// The last record that is known.
    after: u64,
}

impl Sharing {
    /// `changes` tells when there is something new in the catalog.
    pub fn new(mut changes: watch::Receiver<u64>) -> Self {
        changes.mark_changed();
        Self { changes, chunks: Arc::default(), after: 0 }
    }

    /// What can be planned with now.
    pub fn chunks(&self) -> Arc<SharedChunks> {
        Arc::clone(&self.chunks)
    }

    /// Directories are as these say.
    pub fn heed(&mut self, listings: &[Listing]) {
        if !self.chunks.is_empty() {
            let chunks = Arc::make_mut(&mut self.chunks);
            listings.iter().for_each(|listing| chunks.heed(listing));
        }
    }

    /// Takes what was told since.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn refresh(&mut self, catalog: &dyn Catalog) -> Result<(), CatalogError> {
        if !self.changes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.changes.borrow_and_update();
        loop {
            let told = catalog.shared(self.after, PAGE_ITEMS).await?;
            let chunks = Arc::make_mut(&mut self.chunks);
            told.iter().for_each(|record| chunks.put(&record.file));
            self.after = told.last().map_or(self.after, |record| record.id);
            if chunks.pieces() > KEPT_CHUNKS {
                (*chunks, self.after) = (SharedChunks::default(), 0);
            } else if told.len() < PAGE_ITEMS {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use foretide_catalog::{Topic, in_memory};
    use foretide_flow::{ChunkId, FilePath, FileVersion, SharedChunk, SharedFile, Timestamp, VolumeId};

    use super::*;

    fn volume() -> VolumeId {
        VolumeId::new("v").unwrap()
    }

    fn file(name: &str, chunks: u32) -> SharedFile {
        let chunk = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_le_bytes());
            SharedChunk { id: ChunkId(id), offset: u64::from(n) * 10, length: 10 }
        };
        let (path, version) = (FilePath::parse(name).unwrap(), FileVersion("1".into()));
        SharedFile { volume: volume(), path, version, chunks: (0..chunks).map(chunk).collect() }
    }

    fn shared_of(sharing: &Sharing, name: &str) -> usize {
        sharing.chunks().within(&volume(), &FilePath::parse(name).unwrap(), (0, u64::MAX)).count()
    }

    #[tokio::test]
    async fn what_is_told_is_known_at_the_next_look_and_what_a_listing_denies_is_not() {
        let catalog = in_memory();
        catalog.put_shared(&[file("a", 2), file("b", 3)]).await.unwrap();
        let mut sharing = Sharing::new(catalog.changes(Topic::Shared));
        sharing.refresh(catalog.as_ref()).await.unwrap();
        assert_eq!((shared_of(&sharing, "a"), shared_of(&sharing, "b")), (2, 2));
        let planned_with = sharing.chunks();
        catalog.put_shared(&[file("c", 3)]).await.unwrap();
        assert_eq!(shared_of(&sharing, "b"), 2, "it was not looked yet");
        sharing.refresh(catalog.as_ref()).await.unwrap();
        assert_eq!((shared_of(&sharing, "b"), planned_with.pieces()), (3, 5));
        let gone = Listing { volume: volume(), directory: FilePath::root(), seen_at: Timestamp(0), entries: vec![] };
        sharing.heed(&[gone]);
        assert!(sharing.chunks().is_empty());
    }

    /// What the catalog has forgotten is not kept for ever.
    #[tokio::test]
    async fn promise_k_what_is_known_is_bounded() {
        let catalog = in_memory();
        let mut sharing = Sharing::new(catalog.changes(Topic::Shared));
        let files = 2 * SHARED_CHUNKS / SharedFile::CHUNKS_MAX;
        for n in 0..files {
            catalog.put_shared(&[file(&n.to_string(), SharedFile::CHUNKS_MAX as u32)]).await.unwrap();
            sharing.refresh(catalog.as_ref()).await.unwrap();
            assert!(sharing.chunks().pieces() <= KEPT_CHUNKS);
        }
        assert_eq!(
            (shared_of(&sharing, "0"), shared_of(&sharing, &(files - 1).to_string())),
            (0, SharedFile::CHUNKS_MAX)
        );
    }
}
