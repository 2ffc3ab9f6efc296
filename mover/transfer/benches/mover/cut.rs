//! Cutting and hashing files that are in the page cache, beside the two libraries alone.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use foretide_chunk::{CutConfig, Cutter, DomainKey};

use crate::table::{Row, Wanted, median};
use crate::{Result, noise};

const BYTES: usize = 256 << 20;
const ROUNDS: usize = 5;

/// Cut and hash: one thread beside the sum of its parts, two threads beside one.
pub fn rows(folder: &Path) -> Result<Vec<Row>> {
    let paths = [folder.join("cut-a"), folder.join("cut-b")];
    for (seed, path) in paths.iter().enumerate() {
        std::fs::write(path, noise(seed as u64, BYTES))?;
    }
    let files = [File::open(&paths[0])?, File::open(&paths[1])?];
    let [bytes, other_bytes] = [std::fs::read(&paths[0])?, std::fs::read(&paths[1])?];
    let cutter = Cutter::new(CutConfig::default(), DomainKey::default())?;
    let lengths: Vec<u32> = cutter.cut(&bytes).iter().map(|c| c.length).collect();
    let cut_file = |file: &File| cutter.cut_file(file, BYTES as u64).map(|chunks| black_box(chunks.len()));
    let hash_all = |bytes: &[u8]| {
        let mut rest = bytes;
        for length in &lengths {
            let (chunk, after) = rest.split_at(*length as usize);
            black_box(cutter.key().chunk_id(chunk));
            rest = after;
        }
    };
    let cut_all = |bytes: &[u8]| {
        black_box(fastcdc::v2020::FastCDC::new(bytes, 32 << 10, 64 << 10, 256 << 10).count());
    };
    let both = |bytes: &[u8]| {
        cut_all(bytes);
        hash_all(bytes);
    };
    let (mut fused, mut hash, mut cut, mut two, mut two_apart) = (vec![], vec![], vec![], vec![], vec![]);
    let rate = |began: Instant, files: usize| (files * BYTES) as f64 / began.elapsed().as_secs_f64() / 1e9;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        cut_file(&files[0])?;
        fused.push(rate(began, 1));
        let began = Instant::now();
        hash_all(&bytes);
        hash.push(rate(began, 1));
        let began = Instant::now();
        cut_all(&bytes);
        cut.push(rate(began, 1));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| cut_file(&files[1]));
            cut_file(&files[0])?;
            other.join().expect("it does not panic")
        })?;
        two.push(rate(began, 2));
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| both(&other_bytes));
            both(&bytes);
        });
        two_apart.push(rate(began, 2));
    }
    let [fused, hash, cut, two, two_apart] = [fused, hash, cut, two, two_apart].map(median);
    let row = |work: String, ours, reference, name: &str, bar| Row {
        work,
        ours,
        unit: "GB/s",
        reference,
        reference_name: name.to_owned(),
        bar,
        wanted: Wanted::AtLeast,
    };
    let apart = 1.0 / (1.0 / cut + 1.0 / hash);
    Ok(vec![
        row(
            format!("cut + hash, one thread (cdc {cut:.1}, blake3 {hash:.1} GB/s)"),
            fused,
            apart,
            "1/(1/cdc + 1/blake3)",
            0.95,
        ),
        row(
            format!("cut + hash, two threads (the libraries alone {:.2} times one)", two_apart / apart),
            two,
            fused,
            "one thread",
            1.85,
        ),
    ])
}
