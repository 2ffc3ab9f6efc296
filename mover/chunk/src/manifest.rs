//! A manifest's own encoding, the same on disk and on the wire.
//!
//! ```text
//! "FTM" 0x01 | version of the file (u32 length, bytes) | size u64 | count u32 | count * (id 32, length u32)
//! ```
//! The manifest's id is not written: the reader computes it, so a manifest cannot lie about its own name.

use std::collections::HashMap;

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
    /// A difference against another manifest than the reader has.
    #[error("this manifest is written against another one")]
    Base,
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
    manifest.chunks.iter().for_each(|c| put_chunk(&mut out, c));
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
        chunks.push(take_chunk(&mut list)?);
    }
    let manifest = manifest_of(key, version, chunks);
    if manifest.size == size { Ok(manifest) } else { Err(ManifestError::Lengths) }
}

const DIFFERENCE_MAGIC: &[u8; 3] = b"FTD";
/// A difference is short whatever it makes, so what it may make is bounded: chunks, those of 512 GiB.
const MAX_CHUNKS: usize = 8 << 20;

/// Writes a manifest down for somebody who has `base`, as runs of its chunks and new chunks between them.
///
/// ```text
/// "FTD" 0x01 | id of the base 32 | version | size u64 | as often as needed:
///     first chunk of the base u32 | how many u32 | count u32 | count * (id 32, length u32)
/// ```
pub fn encode_difference(base: &Manifest, manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(DIFFERENCE_MAGIC);
    out.push(FORMAT);
    out.extend_from_slice(&base.id.0);
    put_bytes(&mut out, manifest.version.0.as_bytes());
    out.extend_from_slice(&manifest.size.to_le_bytes());
    let known: HashMap<ChunkId, usize> = base.chunks.iter().map(|c| c.id).zip(0..).collect();
    let find = |c: &ChunkRef| known.get(&c.id).copied().filter(|i| base.chunks[*i] == *c);
    let mut rest = manifest.chunks.as_slice();
    while !rest.is_empty() {
        let first = find(&rest[0]);
        let run = first.map_or(&[][..], |i| &base.chunks[i..]);
        let same = rest.iter().zip(run).take_while(|(a, b)| a == b).count();
        let new = rest[same..].iter().take_while(|c| find(c).is_none()).count();
        for n in [first.unwrap_or(0), same, new] {
            out.extend_from_slice(&(n as u32).to_le_bytes());
        }
        rest[same..same + new].iter().for_each(|c| put_chunk(&mut out, c));
        rest = &rest[same + new..];
    }
    out
}

/// Reads such a difference.
///
/// # Errors
/// [`ManifestError`]; [`ManifestError::Base`] if it is against another base.
pub fn decode_difference(key: &DomainKey, base: &Manifest, record: &[u8]) -> Result<Manifest, ManifestError> {
    let mut r = Reader::new(record);
    if r.take(3, "magic")? != DIFFERENCE_MAGIC {
        return Err(ManifestError::Magic);
    }
    match r.u8("format")? {
        FORMAT => {}
        newer => return Err(ManifestError::Newer(newer)),
    }
    if r.digest("base")? != base.id.0 {
        return Err(ManifestError::Base);
    }
    let version = FileVersion(r.text("version")?.into());
    let size = r.u64("size")?;
    let mut chunks = Vec::new();
    while !r.rest().is_empty() {
        let (first, same, new) = (r.u32("first")? as usize, r.u32("same")? as usize, r.u32("new")? as usize);
        let run = base.chunks.get(first..first.saturating_add(same)).ok_or(ManifestError::Lengths)?;
        if chunks.len() + run.len() > MAX_CHUNKS {
            return Err(ManifestError::Lengths);
        }
        chunks.extend_from_slice(run);
        for _ in 0..new {
            chunks.push(take_chunk(&mut r)?);
        }
    }
    let manifest = manifest_of(key, version, chunks);
    if manifest.size == size { Ok(manifest) } else { Err(ManifestError::Lengths) }
}

fn put_chunk(out: &mut Vec<u8>, chunk: &ChunkRef) {
    out.extend_from_slice(&chunk.id.0);
    out.extend_from_slice(&chunk.length.to_le_bytes());
}

fn take_chunk(list: &mut Reader<'_>) -> Result<ChunkRef, ManifestError> {
    let chunk = ChunkRef { id: ChunkId(list.digest("id")?), length: list.u32("length")? };
    if chunk.length == 0 || chunk.length > MAX_CHUNK_BYTES {
        return Err(ManifestError::Lengths);
    }
    Ok(chunk)
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

    fn manifest_with(version: &str, contents: &[u16]) -> Manifest {
        let key = DomainKey::default();
        let chunk = |n: &u16| ChunkRef { id: key.chunk_id(&n.to_le_bytes()), length: u32::from(*n) + 1 };
        manifest_of(&key, FileVersion(version.into()), contents.iter().map(chunk).collect())
    }

    #[test]
    fn a_file_known_on_both_sides_sends_what_changed_of_its_list() {
        let before: Vec<u16> = (0..8000).collect();
        let mut after = before.clone();
        after.splice(100..102, [9000, 9001, 9002]);
        after[5000] = 9003;
        let (base, new) = (manifest_with("1", &before), manifest_with("2", &after));
        let record = encode_difference(&base, &new);
        assert!(record.len() < 300, "{}", record.len());
        assert_eq!(decode_difference(&DomainKey::default(), &base, &record).unwrap(), new);
        let other = manifest_with("1", &after);
        assert_eq!(decode_difference(&DomainKey::default(), &other, &record), Err(ManifestError::Base));
    }

    proptest! {
        #[test]
        fn differences_read_back_whole_or_not_at_all(
            before in proptest::collection::vec(0u16..40, 0..60), after in proptest::collection::vec(0u16..40, 0..60),
            cut: prop::sample::Index,
        ) {
            let (base, new) = (manifest_with("1", &before), manifest_with("2", &after));
            let record = encode_difference(&base, &new);
            prop_assert_eq!(&decode_difference(&DomainKey::default(), &base, &record).unwrap(), &new);
            let read = decode_difference(&DomainKey::default(), &base, &record[..cut.index(record.len())]);
            prop_assert!(read.is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_manifest(&DomainKey::default(), &bytes);
            let _ = decode_difference(&DomainKey::default(), &sample(), &bytes);
            let claimed = [b"FTD\x01".as_slice(), &sample().id.0, &bytes].concat();
            let _ = decode_difference(&DomainKey::default(), &sample(), &claimed);
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
