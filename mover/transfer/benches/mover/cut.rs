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
    let bytes = std::fs::read(&paths[0])?;
    let cutter = Cutter::new(CutConfig::default(), DomainKey::default())?;
    let lengths: Vec<u32> = cutter.cut(&bytes).iter().map(|c| c.length).collect();
    let cut_file = |file: &File| cutter.cut_file(file, BYTES as u64).map(|chunks| black_box(chunks.len()));
    let (mut fused, mut hash, mut cut, mut two) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rate = |began: Instant, files: usize| (files * BYTES) as f64 / began.elapsed().as_secs_f64() / 1e9;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        cut_file(&files[0])?;
        fused.push(rate(began, 1));
        let began = Instant::now();
        let mut rest = bytes.as_slice();
        for length in &lengths {
            let (chunk, after) = rest.split_at(*length as usize);
            black_box(cutter.key().chunk_id(chunk));
            rest = after;
        }
        hash.push(rate(began, 1));
        let began = Instant::now();
        black_box(fastcdc::v2020::FastCDC::new(&bytes, 32 << 10, 64 << 10, 256 << 10).count());
        cut.push(rate(began, 1));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| cut_file(&files[1]));
            cut_file(&files[0])?;
            other.join().expect("it does not panic")
        })?;
        two.push(rate(began, 2));
    }
    let (fused, hash, cut, two) = (median(fused), median(hash), median(cut), median(two));
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
        row("cut + hash, two threads".into(), two, fused, "one thread", 1.85),
    ])
}
