//! Landing what arrives: verified, stored, and only then told. It hashes and writes: for threads that may block.
//!
//! Of a small file room in the store is made when its chunks are here, not when its manifest is: both are taken by one
//! thread in one go.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, Fill, Signature, StoreError, apply};

use super::fetch::{Fetcher, Purpose, span_of};
use super::flight::Flight;
use crate::TransferError;
use crate::frame::DATA_BYTES;
use crate::pack;

/// Older bytes that a delta is asked against.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) older: Vec<u8>,
    pub(super) signature: Signature,
    /// Bytes that the delta must make.
    pub(super) length: usize,
}

/// Chunks as they came, from this number on.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) first: u32,
    pub(super) payload: Bytes,
    pub(super) packed: bool,
    /// What the payload is a delta against, if it is one.
    pub(super) base: Option<Base>,
}

/// Where verified chunks go.
#[derive(Debug)]
enum Sink {
    Store(Fill),
    /// The store cannot take them, and somebody waits: the flight itself.
    Hold,
}

/// What became of a parcel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Landed {
    /// Bytes up to here have come.
    Upto(u64),
    /// The store had, in other files, all that was asked for.
    AllWasHere,
}

/// Takes one answer's chunks to where they go.
#[derive(Debug)]
pub(super) struct Landing {
    fetcher: Fetcher,
    map: Arc<ChunkMap>,
    flight: Arc<Flight>,
    purpose: Purpose,
    sink: Option<Sink>,
}

/// A delta is at most as long as what it makes, and is not sent otherwise; this much more is allowed all the same.
const DELTA_OVERHEAD_BYTES: usize = 64;

impl Landing {
    pub(super) fn new(fetcher: &Fetcher, map: Arc<ChunkMap>, flight: &Arc<Flight>, purpose: &Purpose) -> Self {
        Self { fetcher: fetcher.clone(), map, flight: flight.clone(), purpose: purpose.clone(), sink: None }
    }

    /// For what comes by the manifest of the file's beginning: the flight holds it until the whole one is known.
    pub(super) fn of_beginning(
        fetcher: &Fetcher,
        beginning: Arc<ChunkMap>,
        flight: &Arc<Flight>,
        purpose: &Purpose,
    ) -> Self {
        Self { sink: Some(Sink::Hold), ..Self::new(fetcher, beginning, flight, purpose) }
    }

    /// What must be fetched, from its first byte to its last; none if nothing must.
    pub(super) fn missing(&mut self) -> Result<Option<Range<u64>>, TransferError> {
        let range = self.flight.range.clone();
        let map = self.map.clone();
        Ok(match self.sink()? {
            Sink::Store(fill) => span(&map, fill.missing()),
            Sink::Hold => Some(range),
        })
    }

    /// Takes parcels, of which there is at least one, in their order.
    pub(super) fn take_all(&mut self, parcels: Vec<Parcel>) -> Result<Landed, TransferError> {
        let mut landed = Landed::AllWasHere;
        for parcel in parcels {
            landed = self.take(parcel)?;
            if landed == Landed::AllWasHere {
                break;
            }
        }
        Ok(landed)
    }

    /// Takes whole chunks.
    fn take(&mut self, parcel: Parcel) -> Result<Landed, TransferError> {
        if self.all_was_here()? {
            return Ok(Landed::AllWasHere);
        }
        let first = parcel.first;
        let bytes = self.open(parcel)?;
        let chunks =
            chunks_in(&self.map, first, bytes.len()).ok_or_else(|| self.fetcher.broke("chunks of the wrong length"))?;
        self.store_or_hold(&chunks, &bytes)?;
        Ok(Landed::Upto(self.map.range(chunks.end - 1).end))
    }

    /// Takes what the flight holds; a store that has no room leaves it there.
    pub(super) fn take_held(&mut self) -> Result<(), TransferError> {
        let held = self.flight.held().clone();
        for (start, bytes) in held {
            let Sink::Store(_) = self.sink()? else { return Ok(()) };
            let chunk = self.map.covering(&(start..start + 1));
            if chunk.is_empty() || self.map.range(chunk.start) != (start..start + bytes.len() as u64) {
                return Err(self.wrong(chunk.start));
            }
            self.store_or_hold(&chunk, &bytes)?;
        }
        Ok(())
    }

    /// Makes room, if that was not done; whether the store had, in other files, all that was asked for.
    pub(super) fn all_was_here(&mut self) -> Result<bool, TransferError> {
        if self.sink.is_some() {
            return Ok(false);
        }
        let copied_bytes = match self.sink()? {
            Sink::Store(fill) if fill.missing().is_empty() => fill.copied_bytes(),
            _ => return Ok(false),
        };
        self.fetcher.duplicates.count(0, copied_bytes);
        Ok(true)
    }

    /// Whether room was made: then the store knows the file.
    pub(super) fn has_room(&self) -> bool {
        self.sink.is_some()
    }

    /// The answer is complete: a file without chunks is known to the store, too.
    pub(super) fn end(&mut self) -> Result<(), TransferError> {
        self.sink().map(drop)
    }

    /// Makes room at first; for a reader a store that has none is no reason to fail.
    fn sink(&mut self) -> Result<&Sink, TransferError> {
        if self.sink.is_none() {
            let Self { fetcher, map, flight, purpose, .. } = &*self;
            let arrival = purpose.arrival(fetcher.around.now());
            let filled = fetcher.store.fill(&fetcher.key(map), map.manifest(), flight.range.clone(), &arrival);
            self.sink = Some(match filled {
                Ok(fill) => Sink::Store(fill),
                Err(e) if self.may_hold() => {
                    tracing::debug!(path = %self.fetcher.errand.path, error = %e, "read past the store");
                    Sink::Hold
                }
                Err(e) => return Err(TransferError::Store(e.to_string())),
            });
        }
        Ok(self.sink.as_ref().expect("just set"))
    }

    fn may_hold(&self) -> bool {
        self.purpose.by.is_none()
    }

    /// The chunks' bytes; whether they are right is another question.
    fn open(&self, parcel: Parcel) -> Result<Bytes, TransferError> {
        let Parcel { first, payload, packed, base } = parcel;
        let limit = match &base {
            Some(base) => base.length + DELTA_OVERHEAD_BYTES,
            None if first < self.map.count() => DATA_BYTES.max(span_of(&self.map, &(first..first + 1))),
            None => return Err(self.fetcher.broke("chunks beyond the file's end")),
        };
        let payload = if packed {
            pack::unpack(&payload, limit).map_err(|_| self.fetcher.broke("a packed frame that cannot be unpacked"))?
        } else {
            payload
        };
        let Some(base) = base else { return Ok(payload) };
        // Not a broken protocol: a delta against a block that only seemed the same looks like this, too.
        apply(&base.older, &base.signature, &payload, base.length).map(Bytes::from).map_err(|_| self.wrong(first))
    }

    fn store_or_hold(&self, chunks: &Range<u32>, bytes: &Bytes) -> Result<(), TransferError> {
        if let Some(Sink::Store(fill)) = &self.sink {
            match fill.put(chunks.start, bytes) {
                Ok(()) => {
                    self.count(fill, chunks);
                    return Ok(());
                }
                Err(StoreError::Corrupt { index, .. }) => return Err(self.wrong(index)),
                Err(e) if !self.may_hold() => return Err(TransferError::Store(e.to_string())),
                Err(_) => {}
            }
        }
        let start = self.map.range(chunks.start).start;
        for i in chunks.clone() {
            let r = self.map.range(i);
            let chunk = bytes.slice((r.start - start) as usize..(r.end - start) as usize);
            if self.fetcher.store.key().chunk_id(&chunk) != self.map.manifest().chunks[i as usize].id {
                return Err(self.wrong(i));
            }
            self.flight.hold(r.start, chunk);
        }
        Ok(())
    }

    fn count(&self, fill: &Fill, chunks: &Range<u32>) {
        for i in chunks.clone() {
            let length = u64::from(self.map.manifest().chunks[i as usize].length);
            let was_missing = fill.missing().binary_search(&i).is_ok();
            let (came, known) = if was_missing { (length, 0) } else { (0, length) };
            self.fetcher.duplicates.count(came, known);
        }
    }

    fn wrong(&self, chunk: u32) -> TransferError {
        let (peer, path) = (self.fetcher.client.address().to_owned(), self.fetcher.errand.path.clone());
        TransferError::WrongBytes { peer, path, chunk }
    }
}

/// The chunks that these bytes are, if their lengths add up.
fn chunks_in(map: &ChunkMap, first: u32, length: usize) -> Option<Range<u32>> {
    if first >= map.count() || length == 0 {
        return None;
    }
    let end = map.range(first).start + length as u64;
    let chunks = map.covering(&(map.range(first).start..end));
    (map.range(chunks.end - 1).end == end && chunks.start == first).then_some(chunks)
}

/// From the first to the last of these chunks.
fn span(map: &ChunkMap, chunks: &[u32]) -> Option<Range<u64>> {
    Some(map.range(*chunks.first()?).start..map.range(*chunks.last()?).end)
}
