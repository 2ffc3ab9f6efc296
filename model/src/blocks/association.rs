//! Association: what tends to follow a block within a few requests.
//!
//! Each block that was seen twice has a row of successors with faded counts. A successor that is not in a full row
//! takes the place of a faded one or fades them all a little, so that the row holds what comes often and
//! forgets what came once (the frequent-items sketch of Misra and Gries).

use super::candidates::Candidates;
use super::log::{Log, NONE, Place};
use super::objects::{Id, Objects, grow};

/// Successors of a row.
const ROW: usize = 12;
/// Requests within which one follows another.
const WITHIN: u32 = 8;
/// What one occurrence counts.
const ONE: u8 = 4;
/// Above this, older occurrences fade.
const FULL: u8 = 60;

#[derive(Clone, Copy)]
struct Row {
    ids: [Id; ROW],
    counts: [u8; ROW],
}

/// The rows of all blocks.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    /// The row of each id; [`NONE`] where it has none yet.
    row_of: Vec<u32>,
}

impl Rows {
    /// Takes that `id` is asked for at the log's next place, in the rows of what was asked for before it and
    /// `lead` requests ago or earlier.
    pub(super) fn learn(&mut self, log: &Log, id: Id, before: Place, lead: u32) {
        let now = log.next();
        let first = lead.max(1);
        for back in first..first + WITHIN {
            let Some(earlier) = now.checked_sub(back).and_then(|place| log.id(place)) else { return };
            if earlier == id {
                // What came before its own last occurrence is that one's to learn.
                return;
            }
            // One that was never seen before has nothing to be proposed on.
            if before != NONE || self.row(earlier).is_some() {
                self.row_mut(earlier).take(id);
            }
        }
    }

    fn row(&self, id: Id) -> Option<&Row> {
        let row = *self.row_of.get(id as usize)?;
        self.rows.get(row as usize)
    }

    fn row_mut(&mut self, id: Id) -> &mut Row {
        if self.row_of.len() <= id as usize {
            self.row_of.resize(id as usize + 1, NONE);
        }
        let row = &mut self.row_of[id as usize];
        if *row == NONE {
            *row = self.rows.len() as u32;
            grow(&mut self.rows);
            self.rows.push(Row::EMPTY);
        }
        &mut self.rows[*row as usize]
    }

    /// Forgets the successors of an id that is given to another block.
    pub(super) fn clear(&mut self, id: Id) {
        if let Some(row) = self.row_of.get(id as usize).and_then(|row| self.rows.get_mut(*row as usize)) {
            *row = Row::EMPTY;
        }
    }

    pub(super) fn propose(&self, objects: &Objects, id: Id, candidates: &mut Candidates) {
        let Some(row) = self.row(id) else { return };
        let sum: u32 = row.counts.iter().map(|n| u32::from(*n)).sum();
        for (successor, count) in row.ids.iter().zip(row.counts) {
            if *successor != NONE && count >= ONE {
                let candidate = candidates.of(objects.get(*successor).block, *successor);
                candidate.row_count = count;
                candidate.row_share = (8 * u32::from(count) / sum.max(1)) as u8;
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.row_of.capacity() * size_of::<u32>()
    }
}

impl Row {
    const EMPTY: Self = Self { ids: [NONE; ROW], counts: [0; ROW] };

    fn take(&mut self, id: Id) {
        if let Some(at) = self.ids.iter().position(|i| *i == id) {
            self.counts[at] += ONE;
            if self.counts[at] > FULL {
                self.counts.iter_mut().for_each(|n| *n /= 2);
            }
            return;
        }
        let faintest = (0..ROW).min_by_key(|i| self.counts[*i]).unwrap_or(0);
        if self.counts[faintest] <= ONE {
            (self.ids[faintest], self.counts[faintest]) = (id, ONE);
        } else {
            self.counts.iter_mut().for_each(|n| *n -= 1);
        }
    }
}
