//! In which order a run takes its files.
//!
//! Asked of a reference order (by name in the listing, or that of an earlier pass or run): how often is the
//! next file one of the few that follow in it? Readers side by side swap neighbours, so "follow" means within
//! a window of twice their number and four at least. In a fresh random order that happens about window/files
//! of the time; in a known order nearly always.

use std::collections::HashMap;

use foretide_flow::OrderHabit;
use serde::{Deserialize, Serialize};

use crate::namespace::Namespace;
use crate::run::{FileKey, LiveRun};

/// Steps with which an order is judged at least.
const LEAST_STEPS: usize = 7;
/// A known order is followed in at least this share of the steps.
pub const FOLLOWED: f64 = 0.7;
/// A fresh random order follows any reference in at most this share.
const SCATTERED: f64 = 0.4;

/// How a run's order was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Share of steps that followed the order of names; none if too few were seen.
    pub by_name: Option<f64>,
    /// Share of steps that followed the order of the pass before.
    pub as_before: Option<f64>,
    /// Share of visits that came again to a file before the pass was over: popularity, not passes.
    pub repeats: f64,
}

impl Order {
    /// In a word.
    pub fn habit(&self) -> OrderHabit {
        /// Readings again beyond this share are no passes over a set.
        const REPEATS_MOST: f64 = 0.2;
        match self.by_name.into_iter().chain(self.as_before).reduce(f64::max) {
            None => OrderHabit::Unknown,
            Some(share) if share >= FOLLOWED => OrderHabit::Sequential,
            Some(_) if self.repeats > REPEATS_MOST => OrderHabit::Irregular,
            Some(share) if share <= SCATTERED => OrderHabit::Shuffled,
            Some(_) => OrderHabit::Irregular,
        }
    }
}

/// Files within which the next one counts as following.
pub fn window(readers: usize) -> i64 {
    (2 * readers).max(4) as i64
}

/// Share of the steps in `places` (the places of successive files in a reference order) that go on by at most
/// `window`; none if there are too few steps, or if the reference is so short that chance would follow it.
pub fn followed(places: &[i64], window: i64, reference: usize) -> Option<f64> {
    if places.len() <= LEAST_STEPS || (reference as f64) < 3.0 * window as f64 {
        return None;
    }
    let near = |w: &&[i64]| (-window..=window).contains(&(w[1] - w[0])) && w[1] != w[0];
    Some(places.windows(2).filter(near).count() as f64 / (places.len() - 1) as f64)
}

/// The order of a run, judged by its recent visits.
pub fn order_of(run: &LiveRun, names: &Namespace) -> Order {
    let readers = run.readers().max(run.processes() as u32) as usize;
    let visits: Vec<u32> = run.recent().iter().map(|v| v.file).collect();
    let by_name = by_name(run, names);
    let place = |f: &u32| by_name.get(f).copied();
    let named: Vec<i64> = visits.iter().filter_map(place).collect();
    let pass = run.pass();
    let before: HashMap<u32, i64> = run
        .order(pass.saturating_sub(1))
        .map(|o| o.iter().enumerate().map(|(i, f)| (*f, i as i64)).collect())
        .unwrap_or_default();
    let current: Vec<i64> = run.order(pass).unwrap_or_default().iter().filter_map(|f| before.get(f).copied()).collect();
    Order {
        by_name: followed(&named, window(readers), by_name.values().copied().max().unwrap_or(0) as usize),
        as_before: followed(&current, window(readers), before.len()),
        repeats: repeats(run),
    }
}

/// Places of the recently visited files in order of name. Where their directory is known, what lies between two
/// of them counts, so that a small sample of a large directory is not taken for neighbours.
fn by_name(run: &LiveRun, names: &Namespace) -> HashMap<u32, i64> {
    let mut files: Vec<(&FileKey, u32)> =
        run.recent().iter().map(|v| (&run.files()[v.file as usize].key, v.file)).collect();
    files.sort_unstable();
    files.dedup();
    let mut rank = HashMap::with_capacity(files.len());
    let mut place = 0i64;
    let mut last: Option<&FileKey> = None;
    for (key, i) in files {
        place += 1 + last.and_then(|before| gap(names, before, key)).unwrap_or(0);
        rank.insert(i, place);
        last = Some(key);
    }
    rank
}

/// Listed files between two, up to a bound beyond which it makes no difference.
fn gap(names: &Namespace, from: &FileKey, to: &FileKey) -> Option<i64> {
    const FAR: usize = 256;
    let directory = from.path.parent()?;
    if from.volume != to.volume {
        return None;
    }
    names.listed_at(&from.volume, &directory)?;
    Some(names.after(&from.volume, &from.path).take(FAR).take_while(|(p, _)| **p < to.path).count() as i64)
}

/// Share of visits in the current pass that came too early: a file visited again although most files of the
/// pass had not been.
fn repeats(run: &LiveRun) -> f64 {
    let pass = run.pass();
    let ahead: u64 = run.files().iter().map(|f| u64::from(f.visits.saturating_sub(pass))).sum();
    let behind: u64 = run
        .files()
        .iter()
        .filter(|f| f.visits > 0)
        .map(|f| u64::from(pass.saturating_sub(1).saturating_sub(f.visits)))
        .sum();
    (ahead + behind) as f64 / run.turns.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_order_is_followed_though_readers_swap_neighbours() {
        let swapped: Vec<i64> = (0..60).map(|i| if i % 2 == 0 { i + 1 } else { i - 1 }).collect();
        assert!(followed(&swapped, window(2), 60).unwrap() > 0.9);
        let scattered: Vec<i64> = (0..60).map(|i| (i * 37) % 61).collect();
        assert!(followed(&scattered, window(2), 60).unwrap() < SCATTERED);
        assert_eq!(followed(&swapped[..5], 4, 60), None);
    }
}
