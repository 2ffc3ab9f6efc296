//! Data sets that the demo makes: many small samples and a few large ones, of bytes that no compressor shortens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Large samples of each data set.
const LARGE_FILES: usize = 4;
/// Bytes of a large sample.
const LARGE_BYTES: u64 = 100_000_000;
/// Bytes of a small sample: uniform between these.
const SMALL_BYTES: std::ops::Range<u64> = 50_000..200_000;
/// Small samples in one folder.
const FILES_A_FOLDER: usize = 500;

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Dataset {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Writes a data set of `small_files` and the large ones below `root`. The same seed gives the same sizes and bytes.
///
/// # Errors
/// If the disk is full or the folder is not writable.
pub fn make(root: &Path, small_files: usize, seed: u64) -> io::Result<Dataset> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    let sizes = (0..small_files).map(|_| 0).chain(std::iter::repeat_n(LARGE_BYTES, LARGE_FILES));
    for (i, large) in sizes.enumerate() {
        let (folder, size) = match large {
            0 => (root.join(format!("part-{:03}", i / FILES_A_FOLDER)), random.random_range(SMALL_BYTES)),
            size => (root.join("volumes"), size),
        };
        fs::create_dir_all(&folder)?;
        fill(&folder.join(format!("sample-{i:06}.bin")), size, &mut buffer, &mut random)?;
        bytes += size;
    }
    Ok(Dataset { files: small_files + LARGE_FILES, bytes })
}

fn fill(path: &Path, size: u64, buffer: &mut [u8], random: &mut SmallRng) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut left = size;
    while left > 0 {
        let n = left.min(buffer.len() as u64) as usize;
        random.fill_bytes(&mut buffer[..n]);
        file.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_seed_others() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str, seed| {
            let root = folder.path().join(name);
            let mut random = SmallRng::seed_from_u64(seed);
            fs::create_dir_all(&root).unwrap();
            fill(&root.join("x"), 3_000_000, &mut vec![0; 1 << 20], &mut random).unwrap();
            fs::read(root.join("x")).unwrap()
        };
        let a = made("a", 1);
        assert_eq!(a.len(), 3_000_000);
        assert!(a == made("b", 1) && a != made("c", 2));
    }
}
