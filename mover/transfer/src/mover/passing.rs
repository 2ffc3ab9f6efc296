//! Passing on: what the store holds goes to other agents as if from the source, and where they ask for it what is
//! missing is fetched first, once for all who want it.
//!
//! Only versions are passed on, never "the file as it is now": which version that is the source alone can say. What
//! arrives goes on as it arrives: a neighbour waits for the bytes that it asked for, not for a file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, DomainKey, FileKey};
use foretide_flow::{MoveId, Priority};

use super::fetch::{Fetcher, Purpose};
use super::flight::Flight;
use super::givers::Errand;
use super::{Inner, Mover, lock};
use crate::TransferError;
use crate::message::{Effort, ReadRequest, Want};

/// Who brings what is fetched for another agent's move and was not planned here.
const FOR_ANOTHER: &str = "for-another-agent";

/// A version that is being passed on.
#[derive(Debug)]
pub(crate) struct Passage {
    inner: Arc<Inner>,
    key: FileKey,
    map: Arc<ChunkMap>,
    /// What brings bytes that were not here.
    flights: Vec<Arc<Flight>>,
}

impl Passage {
    pub(crate) fn map(&self) -> &Arc<ChunkMap> {
        &self.map
    }

    /// What the chunks of this domain are named with.
    pub(crate) fn domain(&self) -> &DomainKey {
        self.inner.store.key()
    }

    /// Somebody waits for it now.
    pub(crate) fn raise(&self) {
        self.flights.iter().for_each(|flight| flight.raise());
    }

    /// Bytes of whole chunks, as soon as they are here.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Bytes, TransferError> {
        for flight in self.flights.iter().filter(|f| f.range.start < range.end && range.start < f.range.end) {
            // Why it failed the source will say once more to who asks it next.
            let _ = flight.wait(range.end.min(flight.range.end)).await;
        }
        let bytes = self.inner.assemble(&self.key, &range, &self.flights).await?;
        bytes.ok_or_else(|| self.inner.not_held(&self.key))
    }
}

impl Mover {
    /// A version that another agent asks for, with what it wants of it here or on its way.
    ///
    /// # Errors
    /// [`TransferError::NotHeld`] if it is not here and cannot, or shall not, be fetched.
    pub(crate) async fn pass_on(&self, read: &ReadRequest, priority: Priority) -> Result<Passage, TransferError> {
        self.inner.pass_on(read, priority).await
    }
}

impl Inner {
    fn not_held(&self, key: &FileKey) -> TransferError {
        TransferError::NotHeld { peer: self.identity.node.to_string(), path: key.path.clone() }
    }

    async fn pass_on(self: &Arc<Self>, read: &ReadRequest, priority: Priority) -> Result<Passage, TransferError> {
        let (volume, path) = (read.volume.clone(), read.path.clone());
        let not_held = || TransferError::NotHeld { peer: self.identity.node.to_string(), path: read.path.clone() };
        let key = FileKey { volume, path, version: read.version.clone().ok_or_else(not_held)? };
        let own = &self.identity.site;
        if !self.borders.lets_pass(&key.volume, &key.path, own) {
            return Err(not_held());
        }
        let may_fetch = read.effort != Effort::Held && self.borders.check(&key.volume, &key.path, own, "giver").is_ok();
        let known = self.store.map(&key);
        if known.is_none() && !may_fetch {
            return Err(not_held());
        }
        let (fetcher, purpose) = self.on_behalf(&key, read.effort, priority)?;
        let (map, mut flights) = match (known, &read.want) {
            (Some(map), _) => (map, Vec::new()),
            (None, Want::Bytes(range) | Want::Soon(range)) => self.begin(&key, range, &fetcher, &purpose).await?,
            (None, _) => {
                fetcher.learn_chunks(&key, priority).await?;
                (self.store.map(&key).ok_or_else(not_held)?, Vec::new())
            }
        };
        if read.want.names().is_some_and(|id| id != map.manifest().id) {
            return Err(not_held());
        }
        let wanted = match &read.want {
            Want::Manifest => 0..0,
            Want::Bytes(range) | Want::Soon(range) => range.clone(),
            Want::Chunks { chunks, .. } | Want::Delta { chunks, .. } => span(&map, chunks),
        };
        if flights.is_empty() {
            let gaps = self.gaps(&key, &wanted);
            if !gaps.is_empty() && !may_fetch {
                return Err(not_held());
            }
            flights = self.launch_all(&key, &gaps, &fetcher, &purpose);
        }
        Ok(Passage { inner: self.clone(), key, map, flights })
    }

    /// Begins to fetch bytes of a version that the store knows nothing of; what it consists of comes with them.
    async fn begin(
        &self,
        key: &FileKey,
        range: &Range<u64>,
        fetcher: &Fetcher,
        purpose: &Purpose,
    ) -> Result<(Arc<ChunkMap>, Vec<Arc<Flight>>), TransferError> {
        let flights = self.launch_all(key, std::slice::from_ref(range), fetcher, purpose);
        for flight in &flights {
            let map = flight.mapped().await;
            if let Some(map) = map.filter(|m| m.manifest().version == key.version) {
                return Ok((map, flights));
            }
        }
        Err(self.not_held(key))
    }

    fn launch_all(&self, key: &FileKey, gaps: &[Range<u64>], fetcher: &Fetcher, purpose: &Purpose) -> Vec<Arc<Flight>> {
        let (joined, mut flights) = self.launch(key, gaps, fetcher, purpose, false);
        let join = if purpose.priority == Priority::Demand { Flight::raise } else { Flight::let_go };
        joined.iter().for_each(|flight| join(flight));
        flights.extend(joined);
        flights
    }

    /// How bytes are fetched for another agent: for its reader as for a reader here; for its move as the move of the same
    /// file here would be, if there is one, so that they take no room from what readers brought (promise H).
    fn on_behalf(
        &self,
        key: &FileKey,
        effort: Effort,
        priority: Priority,
    ) -> Result<(Fetcher, Purpose), TransferError> {
        let mut errand = Errand { volume: key.volume.clone(), path: key.path.clone(), planned: None, effort };
        let mut purpose = Purpose { priority, by: None, keep_until: None };
        if priority != Priority::Demand {
            let told = lock(&self.desk).told(&key.volume, &key.path).cloned();
            errand.planned = told.as_ref().map(|t| t.from.clone());
            purpose.keep_until = told.as_ref().map(|t| t.keep_until);
            purpose.by = Some(told.map_or_else(|| MoveId::from(FOR_ANOTHER), |t| t.id));
        }
        Ok((self.fetcher(errand)?, purpose))
    }
}

/// The bytes of these chunks, as far as the file has them.
fn span(map: &ChunkMap, chunks: &Range<u32>) -> Range<u64> {
    let chunks = chunks.start..chunks.end.min(map.count());
    if chunks.is_empty() { 0..0 } else { map.range(chunks.start).start..map.range(chunks.end - 1).end }
}
