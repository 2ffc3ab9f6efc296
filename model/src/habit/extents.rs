//! Which bytes of a file that a rule tells.

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
    /// Those that files in the same role were read by last time.
    Role,
}

/// Modes, the simplest first.
pub const MODES: [Mode; 4] = [Mode::Whole, Mode::Last, Mode::Often, Mode::Role];
/// Ranges that end this close to the end of a file are tied to its end: footers and indexes.
const TAIL_BYTES: u64 = 64 << 10;
/// Share of the runs in which bytes must have been read to be read often.
const OFTEN: f64 = 0.5;

/// The bytes of row `r` on occasion `i`, from what earlier occasions show.
pub fn extents(mode: Mode, group: &Group<'_>, roles: Option<&Vec<Vec<Option<i64>>>>, r: usize, i: usize) -> Ranges {
    let size = group.rows[r].cells[i].size.unwrap_or(0);
    let whole = || Ranges::one(0, size);
    match mode {
        Mode::Whole => whole(),
        Mode::Last => past(group, r, i).next_back().map_or_else(whole, |c| used(c).cut(size)),
        Mode::Often => often(past(group, r, i).map(used), size).unwrap_or_else(whole),
        Mode::Role => roles.and_then(|roles| by_role(group, roles, r, i)).unwrap_or_else(whole),
    }
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
    if sets.len() < 2 {
        return sets.first().map(|s| s.cut(size));
    }
    let mut edges: Vec<(u64, i64)> =
        sets.iter().flat_map(|s| s.as_slice()).flat_map(|(a, b)| [(*a, 1), (*b, -1)]).collect();
    edges.sort_unstable();
    let least = ((sets.len() as f64 * OFTEN).floor() as i64 + 1).min(sets.len() as i64);
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
    Some(out)
}

/// The bytes of the files that had this role when the role was last read, moved to this file: ranges near the
/// end stay near the end.
fn by_role(group: &Group<'_>, roles: &[Vec<Option<i64>>], r: usize, i: usize) -> Option<Ranges> {
    let role = roles[i][r]?;
    let size = group.rows[r].cells[i].size?;
    for j in (0..i).rev() {
        let donors: Vec<&Cell<'_>> = (0..group.rows.len())
            .filter(|d| roles[j][*d] == Some(role))
            .map(|d| &group.rows[d].cells[j])
            .filter(|c| c.used.is_some())
            .collect();
        if !donors.is_empty() {
            let moved: Vec<Ranges> = donors.iter().map(|c| moved(used(c), c.size.unwrap_or(size), size)).collect();
            return Some(moved.iter().fold(Ranges::default(), |a, b| a.union(b)));
        }
    }
    None
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
