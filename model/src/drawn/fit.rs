//! Whether files were taken in a drawn order, and how probably chance would have looked like it.
//!
//! Readers side by side each take a batch: files come early or late, and what was drawn first is not what was opened first.
//! But none comes later than its place by more than some *slack*, so of an order that begins with `o` the file `o[i]`
//! stands among the first `i + 1 + slack` that were taken. If chance had put the files, each of these would hold with a
//! probability of at most (slack + 1) / (n - i), whatever held before. A few files may be missing, where a loader drops its
//! last batch.

/// By how many places a file may come late. Loaders keep two batches for each worker ready.
pub const SLACKS: [u32; 6] = [0, 3, 15, 63, 255, 1023];
/// A slack is at most this part of the set.
const SLACK_PART: u32 = 4;
/// Share of an order's files that may be missing.
pub const MISSED: f64 = 0.04;
/// Not among the files that were taken.
const NEVER: u32 = u32::MAX;

/// The files that a pass took, as they are looked up.
pub struct Taken {
    /// The place of each file of the set.
    places: Vec<u32>,
    taken: usize,
    /// The largest slack that is tried.
    most_slack: u32,
}

/// How an order fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The slack with which it does.
    pub slack: u32,
    /// The chance that any order does, natural logarithm.
    pub doubt: f64,
}

impl Taken {
    /// Of a set of so many files these, in this order.
    pub fn new(taken: &[u32], files: u32) -> Self {
        let mut places = vec![NEVER; files as usize];
        for (place, file) in (0..).zip(taken) {
            places[*file as usize] = place;
        }
        let mut it = Self { places, taken: taken.len(), most_slack: 0 };
        it.most_slack = SLACKS.iter().rev().find(|s| it.looked_at(**s) > 0).copied().unwrap_or(0);
        it
    }

    /// Files that were taken.
    pub fn taken(&self) -> u32 {
        self.taken as u32
    }

    /// Files in the set.
    pub fn files(&self) -> u32 {
        self.places.len() as u32
    }

    /// Whether an order that begins with this file may fit.
    pub fn may_begin_with(&self, file: u32) -> bool {
        self.came_by(file, self.most_slack)
    }

    /// Whether a file was taken at this place at the latest.
    pub fn came_by(&self, file: u32, place: u32) -> bool {
        self.places[file as usize] <= place
    }

    /// Whether a file may stand at this place of an order: it came neither much later nor, as others must have come late for
    /// that, much earlier. None where it tells nothing: it did not come, and need not have.
    pub fn may_stand(&self, place: u32, file: u32) -> Option<bool> {
        let slack = self.most_slack;
        match self.places[file as usize] {
            NEVER if place + slack >= self.taken() => None,
            NEVER => Some(false),
            came => Some(came <= place + slack && place <= came + 2 * slack),
        }
    }

    /// Files of an order that must have been taken if none came later than this. Of a small set such a slack tells nothing.
    fn looked_at(&self, slack: u32) -> usize {
        if slack > self.files() / SLACK_PART {
            return 0;
        }
        if self.taken == self.places.len() { self.taken } else { self.taken.saturating_sub(slack as usize) }
    }

    /// How an order fits, if it does.
    pub fn fit_all(&self, order: Vec<u32>) -> Option<Fit> {
        let length = order.len();
        self.fit(order, length)
    }

    /// How an order of so many files fits, if it does.
    pub fn fit(&self, order: impl IntoIterator<Item = u32>, length: usize) -> Option<Fit> {
        let mut trials: Vec<Trial> = SLACKS
            .iter()
            .map(|slack| Trial { slack: *slack, looked_at: self.looked_at(*slack).min(length), ..Trial::default() })
            .filter(|t| t.looked_at > 0)
            .collect();
        for (i, file) in (0..).zip(order) {
            let place = self.places[file as usize];
            trials.retain_mut(|trial| trial.take(i, place, self.files()));
            if trials.iter().all(|t| i as usize + 1 >= t.looked_at) {
                break;
            }
        }
        let surest = trials.into_iter().map(|t| (t.slack, t.doubt())).min_by(|a, b| a.1.total_cmp(&b.1));
        surest.map(|(slack, doubt)| Fit { slack, doubt: doubt + (SLACKS.len() as f64).ln() })
    }
}

/// A slack that is tried.
#[derive(Clone, Copy, Default)]
struct Trial {
    slack: u32,
    /// Files of the order that are looked at.
    looked_at: usize,
    seen: f64,
    missed: f64,
    /// Logarithm of the chance that all found so far were.
    chance: f64,
}

impl Trial {
    /// Takes the file at place `i` of the order, which was taken at this place. Whether it may still fit.
    fn take(&mut self, i: u32, place: u32, files: u32) -> bool {
        if i as usize >= self.looked_at {
            return true;
        }
        self.seen += 1.0;
        if place == NEVER || place > i + self.slack {
            self.missed += 1.0;
            return self.missed <= MISSED * self.looked_at as f64;
        }
        self.chance += (f64::from(self.slack + 1) / f64::from(files - i)).min(1.0).ln();
        true
    }

    /// Of so many files any may have been the missing ones.
    fn doubt(&self) -> f64 {
        let ways: f64 = (0..self.missed as u32).map(|m| ((self.seen - f64::from(m)) / f64::from(m + 1)).ln()).sum();
        self.chance + ways
    }
}
