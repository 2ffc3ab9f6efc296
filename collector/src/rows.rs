//! Accesses in columns: what the pipeline fills, and what Parquet wants.
//!
//! Names are kept once and rows point at them. At a hundred thousand scattered reads a second an [`Access`] of its own
//! for each would cost more than all else that the agent does: three names counted up and down, and a hundred bytes
//! moved three times.
//!
//! Invariant: all columns are of one length, and each number in `run` and `file` is of a name that is there.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, BinaryArray, DictionaryArray, Int64Array, StringArray, UInt32Array, UInt64Array};
use foretide_flow::{Access, AccessOp, FilePath, Found, RunId, Timestamp, VolumeId};

/// One row: an access whose names are numbers given by [`Rows::name_run`] and [`Rows::name_file`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub at: Timestamp,
    pub run: u32,
    pub process: u32,
    pub file: u32,
    pub op: AccessOp,
    pub offset: u64,
    pub length: u64,
    pub blocked_us: u32,
    pub found: Found,
}

/// The rows of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    runs: Vec<RunId>,
    files: Vec<(VolumeId, FilePath)>,
    at: Vec<i64>,
    run: Vec<u32>,
    process: Vec<u32>,
    file: Vec<u32>,
    op: Vec<u32>,
    offset: Vec<u64>,
    length: Vec<u64>,
    blocked_us: Vec<u32>,
    found: Vec<u32>,
}

impl Rows {
    /// Without any, and with room for as many as `other` has: the next batch is about as long.
    pub(crate) fn as_large_as(other: &Self) -> Self {
        let rows = other.len();
        let (numbers, longs) = (|| Vec::with_capacity(rows), || Vec::with_capacity(rows));
        Self {
            at: Vec::with_capacity(rows),
            run: numbers(),
            process: numbers(),
            file: numbers(),
            op: numbers(),
            offset: longs(),
            length: longs(),
            blocked_us: numbers(),
            found: numbers(),
            ..Self::default()
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The number that stands for a run from now on. A name may have several numbers.
    pub(crate) fn name_run(&mut self, run: RunId) -> u32 {
        self.runs.push(run);
        (self.runs.len() - 1) as u32
    }

    /// The number that stands for a file from now on.
    pub(crate) fn name_file(&mut self, volume: VolumeId, path: FilePath) -> u32 {
        self.files.push((volume, path));
        (self.files.len() - 1) as u32
    }

    /// Adds a row; which it is.
    pub(crate) fn push(&mut self, row: Row) -> usize {
        self.at.push(row.at.0);
        self.run.push(row.run);
        self.process.push(row.process);
        self.file.push(row.file);
        self.op.push(op_code(row.op));
        self.offset.push(row.offset);
        self.length.push(row.length);
        self.blocked_us.push(row.blocked_us);
        self.found.push(found_code(row.found));
        self.len() - 1
    }

    /// Lets row `i` go on with `next`, if that begins where the row ends and is of the same kind; whether it did.
    pub(crate) fn go_on(&mut self, i: usize, next: &Row) -> bool {
        let end = self.offset[i].checked_add(self.length[i]);
        let continues = self.op[i] == op_code(next.op) && end == Some(next.offset);
        if continues {
            self.length[i] += next.length;
            self.at[i] = self.at[i].min(next.at.0);
            self.add_wait(i, next.blocked_us, next.found);
        }
        continues
    }

    /// Adds a wait to row `i`.
    pub(crate) fn add_wait(&mut self, i: usize, blocked_us: u32, found: Found) {
        self.blocked_us[i] = self.blocked_us[i].saturating_add(blocked_us);
        self.found[i] = found_code(worse(FOUNDS[self.found[i] as usize], found));
    }

    /// The last of the newest `looked_at` rows in which a process touched this byte of a file.
    pub(crate) fn last_that_has(&self, process: u32, file: u32, offset: u64, looked_at: usize) -> Option<usize> {
        (0..self.len()).rev().take(looked_at).find(|&i| {
            self.process[i] == process
                && self.file[i] == file
                && (self.offset[i]..self.offset[i] + self.length[i]).contains(&offset)
        })
    }

    /// Puts rows in order of time; those of one time stay in theirs.
    pub(crate) fn sort_by_time(&mut self) {
        if self.at.is_sorted() {
            return;
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|&i| self.at[i as usize]);
        fn put<T: Copy>(column: &mut Vec<T>, order: &[u32]) {
            *column = order.iter().map(|&i| column[i as usize]).collect();
        }
        let numbers =
            [&mut self.run, &mut self.process, &mut self.file, &mut self.op, &mut self.blocked_us, &mut self.found];
        numbers.into_iter().for_each(|column| put(column, &order));
        [&mut self.offset, &mut self.length].into_iter().for_each(|column| put(column, &order));
        put(&mut self.at, &order);
    }

    /// The processes, each with its run, each pair once.
    pub(crate) fn processes(&self) -> Vec<(u32, RunId)> {
        let mut known = HashSet::new();
        let mut last = None;
        let all = self.process.iter().zip(&self.run).map(|(process, run)| (*process, *run));
        let changes = all.filter(|this| last.replace(*this) != Some(*this));
        let pairs = changes.map(|(process, run)| (process, &self.runs[run as usize]));
        pairs.filter(|pair| known.insert(*pair)).map(|(process, run)| (process, run.clone())).collect()
    }

    /// As accesses.
    pub fn iter(&self) -> impl Iterator<Item = Access> {
        (0..self.len()).map(|i| {
            let (volume, path) = self.files[self.file[i] as usize].clone();
            Access {
                at: Timestamp(self.at[i]),
                run: self.runs[self.run[i] as usize].clone(),
                process: self.process[i],
                volume,
                path,
                op: OPS[self.op[i] as usize],
                offset: self.offset[i],
                length: self.length[i],
                blocked_us: self.blocked_us[i],
                found: FOUNDS[self.found[i] as usize],
            }
        })
    }

    /// As the columns of a batch, in their order; names as dictionaries.
    pub(crate) fn columns(&self) -> Vec<ArrayRef> {
        let names = |keys: &UInt32Array, values: ArrayRef| -> ArrayRef {
            // In bounds: see the invariant.
            Arc::new(DictionaryArray::<UInt32Type>::new(keys.clone(), values))
        };
        let (run, file) = (UInt32Array::from(self.run.clone()), UInt32Array::from(self.file.clone()));
        let runs = StringArray::from_iter_values(self.runs.iter().map(RunId::as_str));
        let volumes = StringArray::from_iter_values(self.files.iter().map(|(volume, _)| volume.as_str()));
        let paths = BinaryArray::from_iter_values(self.files.iter().map(|(_, path)| path.as_bytes()));
        vec![
            Arc::new(Int64Array::from(self.at.clone())),
            names(&run, Arc::new(runs)),
            Arc::new(UInt32Array::from(self.process.clone())),
            names(&file, Arc::new(volumes)),
            names(&file, Arc::new(paths)),
            Arc::new(UInt32Array::from(self.op.clone())),
            Arc::new(UInt64Array::from(self.offset.clone())),
            Arc::new(UInt64Array::from(self.length.clone())),
            Arc::new(UInt32Array::from(self.blocked_us.clone())),
            Arc::new(UInt32Array::from(self.found.clone())),
        ]
    }
}

impl<'a> FromIterator<&'a Access> for Rows {
    fn from_iter<I: IntoIterator<Item = &'a Access>>(accesses: I) -> Self {
        let mut rows = Self::default();
        for a in accesses {
            let run = match rows.runs.last() {
                Some(last) if *last == a.run => rows.runs.len() as u32 - 1,
                _ => rows.name_run(a.run.clone()),
            };
            let file = match rows.files.last() {
                Some((volume, path)) if *volume == a.volume && *path == a.path => rows.files.len() as u32 - 1,
                _ => rows.name_file(a.volume.clone(), a.path.clone()),
            };
            let (at, process, op, offset) = (a.at, a.process, a.op, a.offset);
            let (length, blocked_us, found) = (a.length, a.blocked_us, a.found);
            rows.push(Row { at, run, process, file, op, offset, length, blocked_us, found });
        }
        rows
    }
}

/// What two reads that are told as one found.
fn worse(a: Found, b: Found) -> Found {
    let badness = |f: Found| match f {
        Found::Hit => 0,
        Found::Unknown => 1,
        Found::Late => 2,
        Found::Miss => 3,
    };
    if badness(a) >= badness(b) { a } else { b }
}

/// Codes are part of the format: they never change their meaning.
const OPS: [AccessOp; 5] = [AccessOp::Open, AccessOp::Create, AccessOp::Read, AccessOp::Fault, AccessOp::Close];
const FOUNDS: [Found; 4] = [Found::Unknown, Found::Hit, Found::Late, Found::Miss];

fn op_code(op: AccessOp) -> u32 {
    OPS.iter().position(|o| *o == op).unwrap_or_default() as u32
}

fn found_code(found: Found) -> u32 {
    FOUNDS.iter().position(|f| *f == found).unwrap_or_default() as u32
}

/// What a code stands for; none if no Foretide wrote it.
pub(crate) fn op_of(code: u32) -> Option<AccessOp> {
    OPS.get(code as usize).copied()
}

/// As [`op_of`].
pub(crate) fn found_of(code: u32) -> Option<Found> {
    FOUNDS.get(code as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a stable sort of whole accesses.
        #[test]
        fn sorting_moves_whole_rows_and_keeps_the_order_of_one_moment(times in proptest::collection::vec(0i64..6, 0..60)) {
            let access = |(i, at): (usize, &i64)| Access {
                at: Timestamp(*at),
                run: format!("r{}", i % 3).into(),
                process: i as u32,
                volume: VolumeId::new("v").unwrap(),
                path: FilePath::parse(&format!("f{}", i / 2)).unwrap(),
                op: OPS[i % 5],
                offset: i as u64,
                length: 2 * i as u64,
                blocked_us: 3 * i as u32,
                found: FOUNDS[i % 4],
            };
            let mut accesses: Vec<Access> = times.iter().enumerate().map(access).collect();
            let mut rows: Rows = accesses.iter().collect();
            rows.sort_by_time();
            accesses.sort_by_key(|a| a.at);
            prop_assert_eq!(rows.iter().collect::<Vec<_>>(), accesses);
        }
    }
}
