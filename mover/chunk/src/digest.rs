//! Digests keyed per dedup domain: who does not have the key can neither name a chunk nor, since the cut
//! boundaries are keyed too, learn from a chunk's length that somebody else holds the same bytes.

use std::fmt;

use foretide_flow::{ChunkId, ChunkRef, ManifestId};

/// The secret of one dedup domain. Chunks are shared inside a domain and never between two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DomainKey([u8; 32]);

impl DomainKey {
    /// A domain's key from a secret of any length, such as a tenant's token.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(blake3::derive_key("foretide v1 dedup domain", secret))
    }

    /// The chunk that these bytes are.
    pub fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0, bytes).as_bytes())
    }

    /// The manifest that this list of chunks is, whatever file it belongs to.
    pub fn manifest_id(&self, chunks: &[ChunkRef]) -> ManifestId {
        let mut hasher = blake3::Hasher::new_keyed(&self.separated(b"manifest"));
        for chunk in chunks {
            hasher.update(&chunk.id.0).update(&chunk.length.to_le_bytes());
        }
        ManifestId(*hasher.finalize().as_bytes())
    }

    /// A short digest of a block, to tell it from the other blocks of one signature.
    pub(crate) fn block_hash(&self, bytes: &[u8]) -> u32 {
        let digest = blake3::keyed_hash(&self.0, bytes);
        u32::from_le_bytes(digest.as_bytes()[..4].try_into().expect("4 of 32 bytes"))
    }

    /// What the cut boundaries are keyed with.
    pub(crate) fn boundary_seed(&self) -> u64 {
        let key = self.separated(b"boundary");
        u64::from_le_bytes(key[..8].try_into().expect("8 of 32 bytes"))
    }

    fn separated(&self, purpose: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, purpose).as_bytes()
    }
}

/// The one domain of an installation that names none.
impl Default for DomainKey {
    fn default() -> Self {
        Self::from_secret(b"")
    }
}

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_domains_name_the_same_bytes_differently() {
        let (a, b) = (DomainKey::from_secret(b"a"), DomainKey::from_secret(b"b"));
        assert_eq!(a.chunk_id(b"x"), DomainKey::from_secret(b"a").chunk_id(b"x"));
        assert_ne!(a.chunk_id(b"x"), b.chunk_id(b"x"));
        assert_ne!(a.boundary_seed(), b.boundary_seed());
        assert_ne!(a.manifest_id(&[]).0, a.chunk_id(b"").0);
    }
}
