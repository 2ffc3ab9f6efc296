//! Association: what tends to follow a block within a few requests.
//!
//! Each block that was seen twice has a row of successors with faded counts. A successor that is not in a full row
//! takes the place of a faded one or fades them all a little, so that the row holds what comes often and
//! forgets what came once (the frequent-items sketch of Misra and Gries).

use super::candidates::Candidates;
use super::log::{Log, NONE};
use super::objects::{Id, grow};

/// Successors of a row.
const ROW: usize = 12;
/// Requests within which one follows another.
const WITHIN: usize = 8;
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
    /// Takes what followed an earlier request, from `lead` requests after it on, once all of that stands in the log: so its
    /// row is looked up once, and not anew with each that follows.
    pub(super) fn learn(&mut self, log: &Log, lead: u32) {
        let first = lead.max(1);
        let Some(at) = log.next().checked_sub(first + WITHIN as u32) else { return };
        let Some(id) = log.id(at) else { return };
        let mut followed_by = [NONE; WITHIN];
        for (nth, place) in (at + first..).take(WITHIN).enumerate() {
            let Some(next) = log.id(place) else { return };
            // What comes again follows its own last occurrence.
            if next == id || followed_by[..nth].contains(&next) {
                continue;
            }
            followed_by[nth] = next;
            // One that was never seen before has nothing to be proposed on.
            if log.before(place).is_some() || self.row(id).is_some() {
                self.row_mut(id).take(next);
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

    pub(super) fn propose(&self, id: Id, candidates: &mut Candidates) {
        let Some(row) = self.row(id) else { return };
        for (successor, count) in row.ids.iter().zip(row.counts) {
            if *successor != NONE && count >= ONE {
                candidates.known(*successor).row_count = count;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows after these ids were asked for, and what is proposed on the first of them, with what it counts.
    fn proposed(ids: &[Id], lead: u32) -> Vec<(Id, u8)> {
        let (mut rows, mut log) = (Rows::default(), Log::new(1024));
        let mut last = std::collections::HashMap::new();
        for id in ids {
            let before = last.insert(*id, log.next()).unwrap_or(NONE);
            log.push(*id, before);
            rows.learn(&log, lead);
        }
        let mut candidates = Candidates::default();
        rows.propose(ids[0], &mut candidates);
        candidates.all().iter().map(|c| (c.id, c.row_count)).collect()
    }

    #[test]
    fn what_follows_a_block_soon_is_in_its_row_as_often_as_it_did() {
        let others = |from: u32| (from..from + 10).collect::<Vec<Id>>();
        let ids = [vec![1, 2], others(100), vec![1, 2], others(200), vec![1, 2], others(300)].concat();
        let told = proposed(&ids, 0);
        assert_eq!(told[0], (2, 2 * ONE), "not the first time: then it was never seen before");
    }

    #[test]
    fn what_comes_again_follows_its_own_last_occurrence_and_what_is_nearer_than_the_lead_nothing() {
        let others = |from: u32| (from..from + 10).collect::<Vec<Id>>();
        let round = [1, 2, 3, 2, 3];
        let ids = [&round[..], &others(100), &round, &others(200)].concat();
        assert_eq!(proposed(&ids, 0).iter().take(2).copied().collect::<Vec<_>>(), [(2, ONE), (3, ONE)]);
        assert!(proposed(&ids, 5).is_empty(), "all that was seen before comes sooner");
    }
}
