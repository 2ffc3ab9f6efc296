//! Chunks into extents: rows of one file that follow each other and are wanted alike become one demand.

use super::{Demand, Late};

/// A chunk that is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkRow {
    /// Its file, by number.
    pub file: u32,
    /// Its place in the file.
    pub index: u32,
    /// Its bytes.
    pub bytes: u32,
    /// Money if it is there in time.
    pub worth: f32,
    /// Probability that it is not read.
    pub vain: f32,
    /// Its ways; they say the site.
    pub ways: u32,
    /// By the end of this slot.
    pub deadline: u16,
    /// Kept to the end of this slot.
    pub last_use: u16,
}

/// One demand for each run of rows. Rows stand as manifests list them: by site and file, chunks in order.
pub fn group(rows: &[ChunkRow]) -> Vec<Demand> {
    let alike = |a: &ChunkRow, b: &ChunkRow| {
        a.file == b.file
            && a.ways == b.ways
            && a.index.checked_add(1) == Some(b.index)
            && a.deadline == b.deadline
            && a.last_use == b.last_use
    };
    let run = |run: &[ChunkRow]| Demand {
        bytes: run.iter().map(|r| u64::from(r.bytes)).sum(),
        worth: run.iter().map(|r| f64::from(r.worth)).sum(),
        vain: run[0].vain,
        ways: run[0].ways,
        release: 0,
        deadline: run[0].deadline,
        late: [Late::default(); 2],
        last_use: run[0].last_use,
    };
    rows.chunk_by(alike).map(run).collect()
}
