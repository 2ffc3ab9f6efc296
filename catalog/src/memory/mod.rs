//! The catalog as maps under one lock: for tests of other rooms, and as the plain model that the conformance suite
//! holds the databases against. Nothing is durable, everything is obvious.
//!
//! Calls hold a `std` mutex for microseconds and never across an await.

mod fleet;
mod house;
mod learned;
mod namespace;
mod outcomes;
mod plans;
mod warmups;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::topics::Topics;
use crate::{Catalog, Topic, limits};

/// A catalog that forgets everything when it is dropped.
pub fn in_memory() -> Arc<dyn Catalog> {
    Arc::new(InMemory { state: Mutex::default(), topics: Topics::new() })
}

struct InMemory {
    state: Mutex<State>,
    topics: Topics,
}

#[derive(Default)]
struct State {
    /// One count for all rows, so that later rows have higher numbers.
    last_number: u64,
    namespace: namespace::Files,
    fleet: fleet::Seen,
    learned: learned::Known,
    plans: plans::Moves,
    outcomes: outcomes::Happened,
    warmups: warmups::Asked,
    house: house::Kept,
}

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl InMemory {
    /// A panic in a test's thread must not hide its reason behind a poisoned lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, topics: &[Topic]) {
        topics.iter().for_each(|t| self.topics.tell(*t));
    }
}

/// One page of rows that come with their numbers, highest first.
fn page<T>(rows: impl Iterator<Item = (u64, T)>, cursor: Option<u64>, limit: usize) -> crate::Page<T> {
    let limit = limit.min(limits::PAGE_ITEMS);
    let mut rows: Vec<_> = rows.filter(|r| cursor.is_none_or(|c| r.0 < c)).collect();
    rows.sort_by_key(|r| std::cmp::Reverse(r.0));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|r| r.0);
    crate::Page { items: rows.into_iter().map(|r| r.1).collect(), next }
}
