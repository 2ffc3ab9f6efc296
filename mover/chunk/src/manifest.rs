//! A manifest's own encoding, the same on disk and on the wire.
//!
//! ```text
//! "FTM" 0x01 | version of the file (u32 length, bytes) | size u64 | count u32 | count * (id 32, length u32)
//! ```
//! The manifest's id is not written: the reader computes it, so a manifest cannot lie about its own name.

use foretide_flow::{ChunkId, ChunkRef, FileVersion, Manifest};

use crate::DomainKey;
use crate::encoding::{EncodingError, Reader, put_bytes};

const MAGIC: &[u8; 3] = b"FTM";
const FORMAT: u8 = 1;
/// No cutter makes longer chunks (4 MiB average, 4 times that at most); a receiver may count on it.
const MAX_CHUNK_BYTES: u32 = 16 << 20;

/// A manifest that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest.
    #[error("this is no manifest")]
    Magic,
    /// Made by a newer Foretide.
    #[error("manifest format {0} is newer than this build reads (1): update this agent")]
    Newer(u8),
    /// Damaged.
    #[error("manifest is damaged: {0}")]
    Damaged(#[from] EncodingError),
    /// Lengths that do not add up, or a chunk of a length that no cutter makes.
    #[error("manifest is damaged: its chunk lengths are impossible")]
    Lengths,
}

/// The manifest of a list of chunks.
pub fn manifest_of(key: &DomainKey, version: FileVersion, chunks: Vec<ChunkRef>) -> Manifest {
    let size = chunks.iter().map(|c| u64::from(c.length)).sum();
    Manifest { id: key.manifest_id(&chunks), version, size, chunks }
}

/// Writes a manifest down.
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + manifest.version.0.len() + 36 * manifest.chunks.len());
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    put_bytes(&mut out, manifest.version.0.as_bytes());
    out.extend_from_slice(&manifest.size.to_le_bytes());
    out.extend_from_slice(&(manifest.chunks.len() as u32).to_le_bytes());
    for chunk in &manifest.chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.length.to_le_bytes());
    }
    out
}

/// Reads a manifest back; its id is computed with the domain's key.
///
/// # Errors
/// [`ManifestError`] for anything that [`encode_manifest`] does not write.
pub fn decode_manifest(key: &DomainKey, record: &[u8]) -> Result<Manifest, ManifestError> {
    let mut r = Reader::new(record);
    if r.take(3, "magic")? != MAGIC {
        return Err(ManifestError::Magic);
    }
    match r.u8("format")? {
        FORMAT => {}
        0 => return Err(ManifestError::Magic),
        newer => return Err(ManifestError::Newer(newer)),
    }
    let version = FileVersion(r.text("version")?.into());
    let size = r.u64("size")?;
    let count = r.u32("count")? as usize;
    let mut list = Reader::new(r.take(count.checked_mul(36).ok_or(ManifestError::Lengths)?, "chunks")?);
    r.end()?;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let chunk = ChunkRef { id: ChunkId(list.digest("id")?), length: list.u32("length")? };
        if chunk.length == 0 || chunk.length > MAX_CHUNK_BYTES {
            return Err(ManifestError::Lengths);
        }
        chunks.push(chunk);
    }
    let manifest = manifest_of(key, version, chunks);
    if manifest.size == size { Ok(manifest) } else { Err(ManifestError::Lengths) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        let key = DomainKey::default();
        let chunks =
            vec![ChunkRef { id: key.chunk_id(b"abc"), length: 3 }, ChunkRef { id: key.chunk_id(b"de"), length: 2 }];
        manifest_of(&key, FileVersion("8,12,5,1,2".into()), chunks)
    }

    /// Written by the first release: every later one reads it.
    #[test]
    fn format_1_stays_readable() {
        let kept = include_bytes!("../tests/data/manifest-1.bin");
        assert_eq!(decode_manifest(&DomainKey::default(), kept).unwrap(), sample());
        assert_eq!(encode_manifest(&sample()), kept);
    }

    #[test]
    fn what_is_none_is_refused_by_reason() {
        let key = DomainKey::default();
        let good = encode_manifest(&sample());
        assert_eq!(decode_manifest(&key, b"hello"), Err(ManifestError::Magic));
        let mut newer = good.clone();
        newer[3] = 9;
        assert_eq!(decode_manifest(&key, &newer), Err(ManifestError::Newer(9)));
        let mut lengths = good.clone();
        *lengths.last_mut().unwrap() = 1;
        assert_eq!(decode_manifest(&key, &lengths), Err(ManifestError::Lengths));
        let longer = [good.as_slice(), b"x"].concat();
        assert!(matches!(decode_manifest(&key, &longer), Err(ManifestError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_manifest(&DomainKey::default(), &bytes);
        }

        #[test]
        fn a_cut_or_bent_manifest_never_passes_as_the_whole_one(at in 0usize..107, bit in 0u8..8, cut: bool) {
            let good = encode_manifest(&sample());
            let mut bad = good.clone();
            if cut { bad.truncate(at % good.len()) } else { let at = at % good.len(); bad[at] ^= 1 << bit }
            if let Ok(read) = decode_manifest(&DomainKey::default(), &bad) {
                prop_assert_ne!(read, sample());
            }
        }
    }
}
