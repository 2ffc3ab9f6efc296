//! What the index keeps of one file version, besides its manifest.

use foretide_flow::{FilePath, FileVersion, MoveId, Timestamp, VolumeId};

use super::bits::Bits;
use super::{Arrival, FileKey};
use crate::encoding::{EncodingError, Reader, put_bytes, put_option};

const FORMAT: u8 = 1;

/// One file version in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: FileKey,
    pub(super) size: u64,
    /// How many chunks it consists of.
    pub(super) chunks: u32,
    /// Chunks that are here.
    pub(super) have: Bits,
    /// Of these, chunks that a move brought.
    pub(super) prefetched: Bits,
    /// Chunks that were read.
    pub(super) read: Bits,
    pub(super) arrived_at: Timestamp,
    pub(super) last_used: Timestamp,
    pub(super) keep_until: Option<Timestamp>,
    /// The last move that brought any of it.
    pub(super) by: Option<MoveId>,
    /// Grows with every admission, so the newest of several versions of a path is known.
    pub(super) admitted: u64,
}

impl Record {
    /// Bytes of it are about to come.
    pub(super) fn arrives(&mut self, arrival: &Arrival) {
        self.arrived_at = arrival.at;
        self.last_used = self.last_used.max(arrival.at);
        if arrival.by.is_some() {
            self.by.clone_from(&arrival.by);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, self.key.volume.as_str().as_bytes());
        put_bytes(&mut out, self.key.path.as_bytes());
        put_bytes(&mut out, self.key.version.0.as_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.chunks.to_le_bytes());
        self.have.encode(&mut out);
        self.prefetched.encode(&mut out);
        self.read.encode(&mut out);
        out.extend_from_slice(&self.arrived_at.0.to_le_bytes());
        out.extend_from_slice(&self.last_used.0.to_le_bytes());
        put_option(&mut out, self.keep_until, |out, t| out.extend_from_slice(&t.0.to_le_bytes()));
        put_option(&mut out, self.by.as_ref(), |out, id| put_bytes(out, id.as_str().as_bytes()));
        out.extend_from_slice(&self.admitted.to_le_bytes());
        out
    }

    pub(super) fn decode(record: &[u8]) -> Result<Self, EncodingError> {
        let mut r = Reader::new(record);
        if r.u8("format")? != FORMAT {
            return Err(EncodingError::Impossible("format"));
        }
        let volume = VolumeId::new(r.text("volume")?).map_err(|_| EncodingError::Impossible("volume"))?;
        let path = FilePath::new(r.bytes("path")?).map_err(|_| EncodingError::Impossible("path"))?;
        let version = FileVersion(r.text("version")?.into());
        let size = r.u64("size")?;
        let chunks = r.u32("chunks")?;
        let read = Self {
            key: FileKey { volume, path, version },
            size,
            chunks,
            have: Bits::decode(&mut r, chunks)?,
            prefetched: Bits::decode(&mut r, chunks)?,
            read: Bits::decode(&mut r, chunks)?,
            arrived_at: Timestamp(r.i64("arrival")?),
            last_used: Timestamp(r.i64("last use")?),
            keep_until: r.option("keep until", |r| r.i64("keep until").map(Timestamp))?,
            by: r.option("move", |r| r.text("move").map(MoveId::from))?,
            admitted: r.u64("admission")?,
        };
        r.end()?;
        Ok(read)
    }
}
