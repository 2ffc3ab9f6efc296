//! Content-defined cutting fused with hashing: one chunk is cut, then hashed while it is still in the cache.
//!
//! Gear hashing (FastCDC, 2020) with `min = average / 2` and `max = average * 4`: measured faster than the usual
//! `average / 4`, because the scan skips half of the bytes, at the price of slightly more uneven chunks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use foretide_flow::ChunkRef;
use serde::{Deserialize, Serialize};

use crate::DomainKey;
use crate::gear::Gear;

/// How files are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CutConfig {
    /// Average chunk, bytes: a power of two between 4 KiB and 4 MiB. Smaller finds more that is shared, larger costs
    /// fewer records; 64 KiB keeps a manifest under 0.06 % of its file.
    pub average_bytes: u32,
}

impl CutConfig {
    const MIN_AVERAGE_BYTES: u32 = 4 << 10;
    const MAX_AVERAGE_BYTES: u32 = 4 << 20;
}

impl Default for CutConfig {
    fn default() -> Self {
        Self { average_bytes: 64 << 10 }
    }
}

/// Why a cutter was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// An average that cannot be cut to.
    #[error("average_bytes = {0} is no power of two between 4096 and 4194304: choose one, 65536 for instance")]
    Average(u32),
}

/// Cuts files of one dedup domain. The same bytes give the same chunks, however they are read.
#[derive(Clone, Debug)]
pub struct Cutter {
    key: DomainKey,
    min: usize,
    average: usize,
    max: usize,
    gear: Gear,
}

/// The buffer holds this many of the largest chunks: what is left of one round is moved to its front that seldom.
const BUFFER_CHUNKS: usize = 8;
/// Read at a time is this part of the largest chunk, so that bytes are cut and hashed while they are in a core's own
/// cache.
const STEPS_A_CHUNK: usize = 2;

impl Cutter {
    /// A cutter for one domain.
    ///
    /// # Errors
    /// [`CutError`] if the average is impossible.
    pub fn new(config: CutConfig, key: DomainKey) -> Result<Self, CutError> {
        let average = config.average_bytes;
        if !average.is_power_of_two()
            || !(CutConfig::MIN_AVERAGE_BYTES..=CutConfig::MAX_AVERAGE_BYTES).contains(&average)
        {
            return Err(CutError::Average(average));
        }
        let average = average as usize;
        let gear = Gear::new(key.boundary_seed(), average);
        Ok(Self { key, min: average / 2, average, max: average * 4, gear })
    }

    /// The domain's key.
    pub fn key(&self) -> &DomainKey {
        &self.key
    }

    /// Length of the first chunk of `bytes`, which end where the file ends or hold at least one largest chunk.
    fn first(&self, bytes: &[u8]) -> usize {
        self.gear.first(bytes, self.min, self.average, self.max)
    }

    fn take(&self, bytes: &mut &[u8]) -> ChunkRef {
        let (chunk, rest) = bytes.split_at(self.first(bytes));
        *bytes = rest;
        ChunkRef { id: self.key.chunk_id(chunk), length: chunk.len() as u32 }
    }

    /// Cuts a whole file that is in memory.
    pub fn cut(&self, mut bytes: &[u8]) -> Vec<ChunkRef> {
        let mut chunks = Vec::with_capacity(bytes.len() / self.average + 1);
        while !bytes.is_empty() {
            chunks.push(self.take(&mut bytes));
        }
        chunks
    }

    /// Cuts the first `size` bytes of a file, reading it once from start to end.
    ///
    /// # Errors
    /// What reading gives; `UnexpectedEof` if the file is shorter.
    pub fn cut_file(&self, file: &File, size: u64) -> io::Result<Vec<ChunkRef>> {
        let mut chunks = Vec::with_capacity((size / self.average as u64) as usize + 1);
        self.cut_with(size, |bytes, at| file.read_exact_at(bytes, at), |chunk| chunks.push(chunk))?;
        Ok(chunks)
    }

    /// Cuts `size` bytes that `read` gives, from start to end: it fills the buffer from an offset. Each chunk is told as
    /// soon as it is cut.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn cut_with(
        &self,
        size: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
        mut tell: impl FnMut(ChunkRef),
    ) -> io::Result<()> {
        let capacity = (BUFFER_CHUNKS * self.max).min(usize::try_from(size).unwrap_or(usize::MAX));
        let mut buffer = vec![0u8; capacity];
        let (mut held, mut at) = (0..0usize, 0u64);
        while at < size || !held.is_empty() {
            if held.end == buffer.len() {
                buffer.copy_within(held.clone(), 0);
                held = 0..held.len();
            }
            let step = (self.max / STEPS_A_CHUNK).min(buffer.len() - held.end);
            let step = step.min(usize::try_from(size - at).unwrap_or(usize::MAX));
            read(&mut buffer[held.end..held.end + step], at)?;
            at += step as u64;
            held.end += step;
            let mut rest = &buffer[held.clone()];
            while rest.len() >= self.max || (at == size && !rest.is_empty()) {
                tell(self.take(&mut rest));
            }
            held.start = held.end - rest.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use std::io::Write;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn cutter(average_bytes: u32) -> Cutter {
        Cutter::new(CutConfig { average_bytes }, DomainKey::default()).unwrap()
    }

    #[test]
    fn an_impossible_average_is_refused_with_the_remedy() {
        for bad in [0, 4095, 65537, 8 << 20] {
            let told = Cutter::new(CutConfig { average_bytes: bad }, DomainKey::default()).unwrap_err().to_string();
            assert!(told.contains(&bad.to_string()) && told.contains("65536"), "{told}");
        }
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let before = noise(1, 4 << 20);
        let mut after = before.clone();
        after.splice(1_000_000..1_000_000, *b"a few bytes more");
        let ids = |b: &[u8]| cutter(65536).cut(b).into_iter().map(|c| c.id).collect::<std::collections::HashSet<_>>();
        let (before, after) = (ids(&before), ids(&after));
        assert!(after.difference(&before).count() <= 3, "{}", after.difference(&before).count());
    }

    #[test]
    fn other_domains_cut_at_other_places() {
        let bytes = noise(2, 1 << 20);
        let lengths = |secret: &[u8]| {
            let cutter = Cutter::new(CutConfig::default(), DomainKey::from_secret(secret)).unwrap();
            cutter.cut(&bytes).iter().map(|c| c.length).collect::<Vec<_>>()
        };
        assert_ne!(lengths(b"a"), lengths(b"b"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn chunks_cover_the_file_and_do_not_depend_on_how_it_is_read(seed: u64, len in 0usize..400_000) {
            let bytes = noise(seed, len);
            let cutter = cutter(4096);
            let whole = cutter.cut(&bytes);
            prop_assert_eq!(whole.iter().map(|c| c.length as usize).sum::<usize>(), len);
            prop_assert!(whole.iter().all(|c| c.length <= 16384));
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            prop_assert_eq!(&cutter.cut_file(&file, len as u64).unwrap(), &whole);
            let mut at = 0;
            for chunk in whole {
                let end = at + chunk.length as usize;
                prop_assert_eq!(cutter.key().chunk_id(&bytes[at..end]), chunk.id);
                at = end;
            }
        }
    }
}
