//! What a run reads of what it has itself just made: most of what a workflow reads.
//!
//! Names of intermediates are new in each run, but their shapes stay. A shape whose bytes were read again in
//! most of the past, in the run that made them, will be read again.

use std::collections::HashMap;

use crate::history::PastUse;
use crate::run::FileKey;
use crate::shape::shape;

/// Share of the bytes made that must have been read again.
const MOST: f64 = 0.5;

/// Shapes of files, and what runs that made them read of them.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// By shape: bytes made, and of these, bytes of files that were read again.
    shapes: HashMap<String, (f64, f64)>,
}

/// From the past runs' uses.
pub fn fresh<'a>(runs: impl Iterator<Item = &'a [PastUse]>) -> Fresh {
    let mut out = Fresh::default();
    for used in runs.flatten().filter(|u| u.created) {
        let sum = out.shapes.entry(shape(used.key.path.as_bytes()).text).or_default();
        let bytes = used.size.max(1) as f64;
        sum.0 += bytes;
        sum.1 += if used.visits > 0 { bytes } else { 0.0 };
    }
    out
}

impl Fresh {
    /// Whether a file that the run has just made will be read again by it.
    pub fn reads(&self, key: &FileKey) -> bool {
        self.shapes.get(&shape(key.path.as_bytes()).text).is_some_and(|(made, read)| *read >= MOST * made)
    }
}
