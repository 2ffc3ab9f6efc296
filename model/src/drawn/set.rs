//! The files that an order is drawn of, and what a run read of them.
//!
//! An index of a drawn order means a file only if both sides list the same files in the same way. What programs list is a
//! directory with all below it, the files of some kinds, directory by directory and in each by name, in the order of bytes
//! (`sorted` of Python, `ImageFolder` of torchvision). Which directory is tried: those below which most of what a run
//! took lies.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{FilePath, VolumeId};
use serde::{Deserialize, Serialize};

use super::FILES_MOST;
use crate::habit::Candidate;
use crate::history::PastUse;
use crate::ranges::Ranges;
use crate::run::{FileKey, FileUse};

/// Directories that are tried, and how many files of one a run must have taken.
const SETS: usize = 4;
const LEAST_TAKEN: usize = 4;
/// Of a smaller set no order is told from chance.
const LEAST_FILES: usize = 8;
/// Share of the files taken that must be known.
const KNOWN: f64 = 0.95;

/// Files of which orders are drawn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Set {
    /// Where.
    pub volume: VolumeId,
    /// The directory; all below it belongs.
    pub directory: FilePath,
    /// What their names end with, after the last dot.
    pub kinds: BTreeSet<Vec<u8>>,
}

/// A file as a run took it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Which.
    pub key: &'a FileKey,
    /// How often; 0 for one that the run made.
    pub visits: u32,
    /// Which bytes it read.
    pub extents: &'a Ranges,
    /// How many it asked for, repeats counted.
    pub asked_bytes: u64,
}

/// The bytes that a run read of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// How many, repeats counted.
    pub bytes: u64,
    /// Where it began in the file that it took first.
    pub from: u64,
    /// Where it stopped in the file that it took last.
    pub to: u64,
}

/// How each pass of a run began: files, by whatever number they have, in the order of their k-th visits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passes(Vec<Vec<u32>>);

impl Passes {
    /// Files kept of each pass: enough that what loaders with many workers take out of turn is not all of it.
    const FILES: usize = 2048;
    /// Passes of which that is kept: the first tell how an order is drawn, the others only repeat it.
    const PASSES: usize = 8;

    /// A file is visited for the n-th time, from 1 on.
    pub fn visit(&mut self, file: u32, nth: u32) {
        let pass = nth.saturating_sub(1) as usize;
        if pass >= Self::PASSES {
            return;
        }
        if self.0.len() <= pass {
            self.0.resize(pass + 1, Vec::new());
        }
        if self.0[pass].len() < Self::FILES {
            self.0[pass].push(file);
        }
    }

    /// The passes, the first first.
    pub fn as_slice(&self) -> &[Vec<u32>] {
        &self.0
    }
}

/// What a run read of a set, as indices into the set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The set.
    pub set: Set,
    /// Its files.
    pub files: u32,
    /// How each pass began: files in the order of their k-th visits.
    pub passes: Vec<Vec<u32>>,
    /// Visits in all.
    pub visits: u64,
    /// Bytes.
    pub read: Stretch,
}

impl<'a> From<&'a PastUse> for Seen<'a> {
    fn from(used: &'a PastUse) -> Self {
        let visits = if used.created { 0 } else { used.visits };
        Self { key: &used.key, visits, extents: &used.extents, asked_bytes: used.asked_bytes }
    }
}

impl<'a> From<&'a FileUse> for Seen<'a> {
    fn from(used: &'a FileUse) -> Self {
        let visits = if used.created { 0 } else { used.visits };
        Self { key: &used.key, visits, extents: &used.extents, asked_bytes: used.bytes }
    }
}

impl Set {
    /// Whether a file belongs to it.
    pub fn holds(&self, key: &FileKey) -> bool {
        key.volume == self.volume && self.covers(&key.path)
    }

    /// Whether a file of its volume does.
    pub fn covers(&self, path: &FilePath) -> bool {
        path.is_within(&self.directory) && self.kinds.contains(kind(path))
    }

    /// Its files among those that there are, by index.
    pub fn files<'c>(&self, there: &'c [Candidate]) -> Vec<&'c Candidate> {
        let mut files: Vec<&Candidate> = there.iter().filter(|c| self.holds(&c.key)).collect();
        files.sort_by(|a, b| by_index(&a.key.path, &b.key.path));
        files
    }
}

/// What a run read of each set that it may have been drawn of, the likeliest first. `there` is what there was below `top`;
/// `passes` are the beginnings of its passes, as places in `seen`; `last` is the one that it took last.
pub fn readings(
    top: &FilePath,
    there: &[Candidate],
    seen: &[Seen<'_>],
    passes: &Passes,
    last: Option<u32>,
) -> Vec<Reading> {
    let Some(first) = passes.as_slice().first() else { return Vec::new() };
    let taken = first.iter().map(|i| seen[*i as usize]).filter(|s| s.visits > 0).map(|s| s.key);
    sets(top, taken).into_iter().filter_map(|set| reading(set, there, seen, passes.as_slice(), last)).collect()
}

fn sets<'k>(top: &FilePath, taken: impl Iterator<Item = &'k FileKey>) -> Vec<Set> {
    let mut below: BTreeMap<(&VolumeId, FilePath), Vec<&[u8]>> = BTreeMap::new();
    for key in taken {
        let mut directory = key.path.parent();
        while let Some(at) = directory.filter(|at| at.is_within(top)) {
            directory = at.parent();
            below.entry((&key.volume, at)).or_default().push(kind(&key.path));
        }
    }
    below.retain(|_, kinds| kinds.len() >= LEAST_TAKEN);
    let mut sets: Vec<_> = below.into_iter().collect();
    // Of two that hold the same files the narrower.
    let length = |directory: &FilePath| directory.as_bytes().len();
    sets.sort_by(|((_, one), a), ((_, other), b)| b.len().cmp(&a.len()).then_with(|| length(other).cmp(&length(one))));
    let set = |((volume, directory), kinds): ((&VolumeId, FilePath), Vec<&[u8]>)| Set {
        volume: volume.clone(),
        directory,
        kinds: kinds.into_iter().map(<[u8]>::to_vec).collect(),
    };
    sets.into_iter().take(SETS).map(set).collect()
}

fn reading(
    set: Set,
    there: &[Candidate],
    seen: &[Seen<'_>],
    passes: &[Vec<u32>],
    last: Option<u32>,
) -> Option<Reading> {
    let files = set.files(there);
    if !(LEAST_FILES..=FILES_MOST as usize).contains(&files.len()) {
        return None;
    }
    let index: HashMap<&FileKey, u32> = files.iter().zip(0..).map(|(c, i)| (&c.key, i)).collect();
    let of_set = |pass: &Vec<u32>| -> Vec<&Seen<'_>> {
        pass.iter().map(|i| &seen[*i as usize]).filter(|s| s.visits > 0 && set.holds(s.key)).collect()
    };
    let taken: Vec<Vec<&Seen<'_>>> = passes.iter().map(of_set).collect();
    let indices = |pass: &Vec<&Seen<'_>>| pass.iter().filter_map(|s| index.get(s.key).copied()).collect();
    let passes: Vec<Vec<u32>> = taken.iter().map(indices).take_while(|pass: &Vec<u32>| !pass.is_empty()).collect();
    if (passes.first()?.len() as f64) < KNOWN * taken[0].len() as f64 {
        return None;
    }
    let mine = seen.iter().filter(|s| s.visits > 0 && set.holds(s.key));
    let (visits, bytes) = mine.fold((0, 0_u64), |(visits, bytes), s| {
        (visits + u64::from(s.visits), bytes.saturating_add(s.asked_bytes.max(s.extents.bytes())))
    });
    let first = taken[0].first().and_then(|s| s.extents.as_slice().first());
    let last = last.map(|i| &seen[i as usize]).filter(|s| set.holds(s.key));
    let read = Stretch { bytes, from: first.map_or(0, |r| r.0), to: last.map_or(0, |s| s.extents.end()) };
    let files = files.len() as u32;
    Some(Reading { set, files, passes, visits, read })
}

fn kind(path: &FilePath) -> &[u8] {
    let name = path.name();
    name.iter().rposition(|b| *b == b'.').map_or(&[], |dot| &name[dot + 1..])
}

/// By directory, and in each by name.
pub fn by_index(a: &FilePath, b: &FilePath) -> Ordering {
    let cut = |p: &FilePath| p.as_bytes().len() - p.name().len();
    let (in_a, in_b) = (cut(a), cut(b));
    a.as_bytes()[..in_a].cmp(&b.as_bytes()[..in_b]).then_with(|| a.name().cmp(b.name()))
}
