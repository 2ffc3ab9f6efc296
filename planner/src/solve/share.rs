//! Bytes that stand in several files cross once: they come with the file that is placed first, and the others count on it
//! where it comes in time for them.

use std::collections::BTreeSet;

use super::{Decision, Table};
use crate::supply::SharedPiece;

impl<'a> Table<'_, 'a> {
    /// Bytes of a want that must cross to be there by the end of `slot`: what is missing, less what is at the site in other
    /// files or comes with them by then and can stay as long.
    pub(super) fn crossing(&mut self, number: usize, slot: usize) -> u64 {
        let want = &self.wants[number];
        if self.problem.supply.shared.is_empty() {
            return want.missing;
        }
        let last_use = self.grid.slot_at(want.keep_until(self.problem)).max(slot);
        let (mut bytes, mut seen) = (want.missing, BTreeSet::new());
        for piece in self.own_pieces(number) {
            if !seen.insert(piece.content)
                || self.is_elsewhere(number, &piece)
                || self.comes_with(number, piece.content, slot, last_use)
            {
                bytes = bytes.saturating_sub(piece.length);
            }
        }
        // Even what is all here in other files takes a question.
        bytes.max(1)
    }

    /// The slot in which the last of what a want counts on comes with others by the end of `slot`: it need not begin before,
    /// and what it counts on would not be on its way then.
    pub(super) fn carried_by(&self, number: usize, slot: usize) -> usize {
        let to = self.routes[self.wants[number].route].to;
        let carriers = self.own_pieces(number).into_iter().filter_map(|p| self.carriers.get(&(to, p.content)).copied());
        let ends = carriers.filter(|c| *c != number).filter_map(|c| Some(self.placed(c)?.booking.last_slot()));
        ends.filter(|end| *end <= slot).max().unwrap_or(0)
    }

    /// The least that a want can ever ask of a link, whatever comes before it.
    pub(super) fn least_crossing(&self, number: usize) -> u64 {
        let shared: u64 = self.own_pieces(number).iter().map(|p| p.length).sum();
        self.wants[number].missing.saturating_sub(shared).max(1)
    }

    /// Others may count on the shared chunks of a want that has been placed.
    pub(super) fn carries(&mut self, number: usize) {
        let to = self.routes[self.wants[number].route].to;
        for piece in self.own_pieces(number) {
            self.carriers.entry((to, piece.content)).or_insert(number);
        }
    }

    /// Shared chunks of a want that are not there in its own file.
    fn own_pieces(&self, number: usize) -> Vec<SharedPiece> {
        let shared = &self.problem.supply.shared;
        if shared.is_empty() {
            return Vec::new();
        }
        let want = &self.wants[number];
        let route = &self.routes[want.route];
        let absent = |p: &SharedPiece| {
            self.problem.resident.resident_bytes(route.to, route.volume, want.path, p.offset, p.length) == 0
        };
        shared.within(route.volume, want.path, (want.offset, want.length)).filter(absent).collect()
    }

    fn is_elsewhere(&self, number: usize, piece: &SharedPiece) -> bool {
        let to = self.routes[self.wants[number].route].to;
        self.problem.supply.shared.places(piece.content).any(|(volume, path, offset)| {
            self.problem.resident.resident_bytes(to, volume, path, offset, piece.length) == piece.length
        })
    }

    fn comes_with(&mut self, number: usize, content: u32, slot: usize, last_use: usize) -> bool {
        let to = self.routes[self.wants[number].route].to;
        let Some(carrier) = self.carriers.get(&(to, content)).copied().filter(|c| *c != number) else { return false };
        match &mut self.decided[carrier] {
            Some(Decision::Move(placed)) if placed.booking.last_slot() <= slot => {
                self.ledger.keep(&mut placed.booking, last_use)
            }
            _ => false,
        }
    }
}
