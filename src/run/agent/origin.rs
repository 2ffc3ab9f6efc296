//! The mover as the mount sees it, with one thing added: what the mount learns of the namespace, the control plane is
//! told too, since forecasts are made of it.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use foretide_chunk::{FileKey, ReadNote};
use foretide_flow::{Entry, Listing, Priority, Timestamp};
use foretide_mount::{Origin, Place, Whole};
use foretide_transfer::{Answer, Listed, Mover, News, TransferError};
use tokio::sync::mpsc;

/// A mover that tells what was learned through it.
pub struct Telling {
    /// Where names and bytes come from.
    pub mover: Arc<Mover>,
    /// Who is told. When that queue is full the listing is not told again until its lease is over: the model waits
    /// for it, the reader does not.
    pub learned: mpsc::Sender<Listing>,
}

#[async_trait]
impl Origin for Telling {
    async fn list(&self, place: &Place, below: bool) -> Result<Listed, TransferError> {
        let listed = Origin::list(self.mover.as_ref(), place, below).await?;
        let below = listed.below.iter().map(|(listing, _)| listing);
        for listing in std::iter::once(&listed.listing).chain(below) {
            if self.learned.try_send(listing.clone()).is_err() {
                let (volume, path) = (&listing.volume, &listing.directory);
                tracing::warn!(%volume, %path, "a listing was not told to the control plane");
            }
        }
        Ok(listed)
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        Origin::news(self.mover.as_ref())
    }

    async fn stat(&self, place: &Place) -> Result<Entry, TransferError> {
        Origin::stat(self.mover.as_ref(), place).await
    }

    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<Answer, TransferError> {
        Origin::read(self.mover.as_ref(), key, range).await
    }

    fn want(&self, key: &FileKey, range: Range<u64>, priority: Priority) {
        Origin::want(self.mover.as_ref(), key, range, priority);
    }

    fn open_whole(&self, key: &FileKey) -> Option<Box<dyn Whole>> {
        Origin::open_whole(self.mover.as_ref(), key)
    }

    fn read_resident(&self, key: &FileKey, offset: u64, buf: &mut [u8]) -> Option<usize> {
        Origin::read_resident(self.mover.as_ref(), key, offset, buf)
    }

    fn note_read(&self, key: &FileKey, range: Range<u64>, at: Timestamp) -> ReadNote {
        Origin::note_read(self.mover.as_ref(), key, range, at)
    }
}
