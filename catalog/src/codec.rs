//! How values are kept in one column: a version byte first, so that what is written today reads tomorrow.
//!
//! - Values of flow: version 1 is zstd over their JSON. JSON bears added fields; zstd takes the repetition out of
//!   thousands of moves and reads (ten to one).
//! - Manifests: version 1 is the chunks one after the other, 32 bytes of digest and 4 of length, little-endian.
//!   Digests do not compress, and 10 million chunks should not pass through a text.
//! - Chunks that other files have too: version 1 is the same with the offset behind, 8 bytes.

use foretide_flow::{ChunkId, ChunkRef, SharedChunk};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// zstd over JSON.
const VALUE_V1: u8 = 1;
/// 36 bytes a chunk.
const CHUNKS_V1: u8 = 1;
const CHUNK_BYTES: usize = 36;
/// 44 bytes a chunk.
const SHARED_V1: u8 = 1;
const SHARED_BYTES: usize = CHUNK_BYTES + 8;
/// zstd's fastest regular level: plans are written many times a second.
const ZSTD_LEVEL: i32 = 1;
/// No stored value unpacks to more: a damaged length must not take the memory (promise K).
const VALUE_BYTES_MAX: usize = 1 << 30;

/// A value for a column.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("values of flow have text keys, so JSON takes them");
    let mut out = vec![VALUE_V1];
    out.extend(zstd::bulk::compress(&json, ZSTD_LEVEL).expect("zstd takes any bytes into memory"));
    out
}

/// A value from a column; an error says why it does not read back.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (version, body) = bytes.split_first().ok_or("it is empty")?;
    if *version != VALUE_V1 {
        return Err(format!("its format is {version}, this version of foretide reads {VALUE_V1}"));
    }
    let size = zstd::zstd_safe::get_frame_content_size(body).ok().flatten().ok_or("it is no zstd frame")?;
    let size = usize::try_from(size).ok().filter(|s| *s <= VALUE_BYTES_MAX).ok_or("its length is impossible")?;
    let json = zstd::bulk::decompress(body, size).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

/// Chunks for a column.
pub(crate) fn encode_chunks(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + chunks.len() * CHUNK_BYTES);
    out.push(CHUNKS_V1);
    for chunk in chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.length.to_le_bytes());
    }
    out
}

/// Chunks from a column; an error says why they do not read back.
pub(crate) fn decode_chunks(bytes: &[u8]) -> Result<Vec<ChunkRef>, String> {
    Ok(records::<CHUNK_BYTES>(bytes, CHUNKS_V1)?.map(chunk).collect())
}

/// Chunks that other files have too, for a column.
pub(crate) fn encode_shared(chunks: &[SharedChunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + chunks.len() * SHARED_BYTES);
    out.push(SHARED_V1);
    for chunk in chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.length.to_le_bytes());
        out.extend_from_slice(&chunk.offset.to_le_bytes());
    }
    out
}

/// Those from a column; an error says why they do not read back.
pub(crate) fn decode_shared(bytes: &[u8]) -> Result<Vec<SharedChunk>, String> {
    let shared = |record: &[u8]| {
        let (mut offset, ChunkRef { id, length }) = ([0; 8], chunk(record));
        offset.copy_from_slice(&record[CHUNK_BYTES..]);
        SharedChunk { id, offset: u64::from_le_bytes(offset), length }
    };
    Ok(records::<SHARED_BYTES>(bytes, SHARED_V1)?.map(shared).collect())
}

/// Records of one length behind a version.
fn records<const LENGTH: usize>(bytes: &[u8], known: u8) -> Result<std::slice::ChunksExact<'_, u8>, String> {
    let (version, body) = bytes.split_first().ok_or("it is empty")?;
    if *version != known {
        return Err(format!("its format is {version}, this version of foretide reads {known}"));
    }
    if !body.len().is_multiple_of(LENGTH) {
        return Err(format!("its length of {} bytes is no multiple of {LENGTH}", body.len()));
    }
    Ok(body.chunks_exact(LENGTH))
}

/// The chunk at the beginning of a record.
fn chunk(record: &[u8]) -> ChunkRef {
    let (mut id, mut length) = ([0; 32], [0; 4]);
    id.copy_from_slice(&record[..32]);
    length.copy_from_slice(&record[32..CHUNK_BYTES]);
    ChunkRef { id: ChunkId(id), length: u32::from_le_bytes(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written by version 1 of each format; must read for ever.
    #[test]
    fn what_was_written_by_version_1_reads_back() {
        // zstd frame with its length, one raw block of 12 bytes: `["tide","3"]`.
        let mut value = vec![1, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 12, 0x61, 0, 0];
        value.extend(br#"["tide","3"]"#);
        assert_eq!(decode::<Vec<String>>(&value).unwrap(), ["tide", "3"]);
        let mut chunks = vec![1u8];
        chunks.extend([0xab; 32]);
        chunks.extend([1, 2, 0, 0]);
        let id = ChunkId([0xab; 32]);
        assert_eq!(decode_chunks(&chunks).unwrap(), [ChunkRef { id, length: 513 }]);
        chunks.extend([3, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(decode_shared(&chunks).unwrap(), [SharedChunk { id, offset: (1 << 56) + 3, length: 513 }]);
    }

    #[test]
    fn a_newer_format_is_named() {
        assert!(decode::<u8>(&[9, 1]).unwrap_err().contains("format is 9"));
        assert!(decode_chunks(&[9]).unwrap_err().contains("format is 9"));
        assert!(decode_shared(&[9]).unwrap_err().contains("format is 9"));
    }

    proptest! {
        /// Promise D: damaged bytes never become a value by panic or by taking all memory.
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = vec![VALUE_V1];
            framed.extend(&bytes);
            let _ = (decode::<serde_json::Value>(&bytes), decode::<serde_json::Value>(&framed));
            let _ = (decode_chunks(&bytes), decode_shared(&bytes));
        }

        #[test]
        fn chunks_read_back(ids in proptest::collection::vec((any::<[u8; 32]>(), any::<u32>()), 0..50)) {
            let chunks: Vec<_> = ids.into_iter().map(|(id, length)| ChunkRef { id: ChunkId(id), length }).collect();
            prop_assert_eq!(decode_chunks(&encode_chunks(&chunks)).unwrap(), chunks);
        }

        #[test]
        fn shared_chunks_read_back(ids in proptest::collection::vec((any::<[u8; 32]>(), any::<u64>(), any::<u32>()), 0..50)) {
            let shared = |(id, offset, length)| SharedChunk { id: ChunkId(id), offset, length };
            let chunks: Vec<_> = ids.into_iter().map(shared).collect();
            prop_assert_eq!(decode_shared(&encode_shared(&chunks)).unwrap(), chunks);
        }
    }
}
