//! Which bytes of a file that a rule tells.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Cell, Group};
use crate::ranges::Ranges;

/// A way to say which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All.
    Whole,
    /// Those of the last time this very file was read.
    Last,
    /// Those read in most of the runs that read it.
    Often,
    /// Those that all runs together read at least so many times; what one run reads again counts twice.
    Times(i64),
    /// Those that files in the same role were read by, on several of the last occasions.
    Role,
    /// Those of its own last time where files coming into this role keep them, else those of the role.
    Kept,
}

/// Modes, the simplest first.
pub const MODES: [Mode; 8] =
    [Mode::Whole, Mode::Last, Mode::Often, Mode::Times(1), Mode::Times(2), Mode::Times(3), Mode::Role, Mode::Kept];
/// Ranges that end this close to the end of a file are tied to its end: footers and indexes.
const TAIL_BYTES: u64 = 64 << 10;
/// Share of the runs in which bytes must have been read to be read often.
const OFTEN: f64 = 0.5;

/// A file coming into a role keeps its bytes there if this share of them stayed on earlier occasions.
const KEPT: f64 = 0.8;

/// Roles into which files came, before occasion `i`, with the bytes that they had been read by before.
pub fn keeping(group: &Group<'_>, roles: &[Vec<Option<i64>>], i: usize) -> BTreeSet<i64> {
    let mut sums: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for (j, column) in roles.iter().enumerate().take(i).skip(1) {
        for (r, row) in group.rows.iter().enumerate() {
            let (Some(role), Some(now), Some(before)) =
                (column[r], row.cells[j].used, past(group, r, j).next_back().map(used))
            else {
                continue;
            };
            let sum = sums.entry(role).or_default();
            sum.0 += now.extents.overlap(before);
            sum.1 += now.extents.bytes().max(before.bytes());
        }
    }
    sums.into_iter().filter(|(_, (same, all))| *same as f64 >= KEPT * *all as f64).map(|(role, _)| role).collect()
}

/// What is known of the roles of a group when bytes are told.
#[derive(Clone, Copy)]
pub struct Roles<'r> {
    /// The role of each row, by occasion.
    pub of: &'r [Vec<Option<i64>>],
    /// See [`keeping`], for the occasion that is told.
    pub keeping: &'r BTreeSet<i64>,
}

/// The bytes of row `r` on occasion `i`, from what earlier occasions show.
pub fn extents(mode: Mode, group: &Group<'_>, roles: Option<Roles<'_>>, r: usize, i: usize) -> Ranges {
    let size = group.rows[r].cells[i].size.unwrap_or(0);
    let whole = || Ranges::one(0, size);
    match mode {
        Mode::Whole => whole(),
        Mode::Last => last(group, r, i, size).unwrap_or_else(whole),
        Mode::Often => often(past(group, r, i).map(used), size).unwrap_or_else(whole),
        Mode::Times(least) => times(least, past(group, r, i), size).unwrap_or_else(whole),
        Mode::Role => roles.and_then(|roles| by_role(group, roles.of, r, i)).unwrap_or_else(whole),
        Mode::Kept => {
            let keeps = roles.is_some_and(|k| k.of[i][r].is_some_and(|role| k.keeping.contains(&role)));
            let own = last(group, r, i, size).filter(|_| keeps);
            own.or_else(|| roles.and_then(|roles| by_role(group, roles.of, r, i))).unwrap_or_else(whole)
        }
    }
}

fn last(group: &Group<'_>, r: usize, i: usize, size: u64) -> Option<Ranges> {
    past(group, r, i).next_back().map(|c| used(c).cut(size))
}

fn past<'g>(group: &'g Group<'_>, r: usize, i: usize) -> impl DoubleEndedIterator<Item = &'g Cell<'g>> {
    group.rows[r].cells[..i].iter().filter(|c| c.used.is_some())
}

fn used<'c>(cell: &'c Cell<'_>) -> &'c Ranges {
    &cell.used.expect("filtered for cells that were used").extents
}

/// Bytes in at least half of the sets; none if there are fewer than two sets.
fn often<'r>(sets: impl Iterator<Item = &'r Ranges>, size: u64) -> Option<Ranges> {
    let sets: Vec<&Ranges> = sets.collect();
    match sets.as_slice() {
        [] => None,
        [one] => Some(one.cut(size)),
        _ => Some(in_at_least(((sets.len() as f64 * OFTEN).floor() as i64 + 1).min(sets.len() as i64), &sets, size)),
    }
}

/// Bytes that were read so many times; none if nothing ever was.
fn times<'g>(least: i64, past: impl Iterator<Item = &'g Cell<'g>>, size: u64) -> Option<Ranges> {
    let sets: Vec<&Ranges> = past.filter_map(|c| c.used).flat_map(|u| [&u.extents, &u.again]).collect();
    (!sets.is_empty()).then(|| in_at_least(least, &sets, size))
}

/// Bytes below `size` that are in so many of these sets.
fn in_at_least(least: i64, sets: &[&Ranges], size: u64) -> Ranges {
    let mut edges: Vec<(u64, i64)> =
        sets.iter().flat_map(|s| s.as_slice()).flat_map(|(a, b)| [(*a, 1), (*b, -1)]).collect();
    edges.sort_unstable();
    let (mut depth, mut from, mut out) = (0, 0, Ranges::default());
    for (at, step) in edges {
        let before = depth;
        depth += step;
        if before < least && depth >= least {
            from = at;
        } else if before >= least && depth < least {
            out.add(from, at.min(size), usize::MAX);
        }
    }
    out
}

/// Occasions on which a role is asked for its bytes, and how many of these have to agree: a single odd one is outvoted,
/// and what is read now and then is not left out.
const ROLE_OCCASIONS: usize = 6;
const ROLE_AGREE: i64 = 2;

/// The bytes of the files that had this role, moved to this file: ranges near the end stay near the end. Of several on
/// one occasion, that which differs from this one in a single slot (the same part of another day) speaks alone. Before
/// there are more occasions than have to agree, the last speaks.
fn by_role(group: &Group<'_>, roles: &[Vec<Option<i64>>], r: usize, i: usize) -> Option<Ranges> {
    let role = roles[i][r]?;
    let size = group.rows[r].cells[i].size?;
    let on = |j: usize| {
        let in_role = |d: &usize| roles[j][*d] == Some(role) && group.rows[*d].cells[j].used.is_some();
        let donors: Vec<usize> = (0..group.rows.len()).filter(in_role).collect();
        let sibling = donors.iter().find(|d| differ(group, **d, r) <= 1).copied();
        let donors = sibling.map_or(donors, |d| vec![d]).into_iter().map(|d| &group.rows[d].cells[j]);
        let moved = donors.map(|c| moved(used(c), c.size.unwrap_or(size), size));
        moved.reduce(|a, b| a.union(&b))
    };
    let told: Vec<Ranges> = (0..i).rev().filter_map(on).take(ROLE_OCCASIONS).collect();
    if told.len() as i64 <= ROLE_AGREE {
        return told.into_iter().next();
    }
    Some(in_at_least(ROLE_AGREE, &told.iter().collect::<Vec<_>>(), size))
}

/// Slots in which two paths of a group differ.
pub fn differ(group: &Group<'_>, a: usize, b: usize) -> usize {
    group.rows[a].slots.iter().zip(&group.rows[b].slots).filter(|(x, y)| x != y).count()
}

fn moved(ranges: &Ranges, from_size: u64, to_size: u64) -> Ranges {
    let mut out = Ranges::default();
    for (start, end) in ranges.as_slice() {
        if end + TAIL_BYTES >= from_size && *start > TAIL_BYTES {
            let (back, length) = (from_size.saturating_sub(*start), end - start);
            let at = to_size.saturating_sub(back);
            out.add(at, (at + length).min(to_size), usize::MAX);
        } else {
            out.add(*start, (*end).min(to_size), usize::MAX);
        }
    }
    out
}
