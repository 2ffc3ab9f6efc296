//! A running run, followed through the orders that its epochs are drawn in.
//!
//! *Where it is:* all files up to a place have been taken, and of those behind it some, by no more places than readers side
//! by side take out of turn. What lies further back than that and was not taken is *missed*. A few may be, where a
//! loader drops the last batch; more than that and the order is taken back, at once where readers keep to it exactly.
//!
//! The orders of the present epoch and the next, and the names of the files, are drawn and listed when they are needed and not
//! kept over a restart.

use foretide_flow::{FilePath, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

use super::fit::MISSED;
use super::{Place, Recognised};
use crate::habit::Candidate;
use crate::namespace::{FileFact, Namespace};
use crate::run::{FileKey, LiveRun};

/// Visits of the recent past that are looked at.
const LOOKED_AT: usize = 64;

/// A followed run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Following {
    /// What it was recognised by.
    pub recognised: Recognised,
    /// Epochs that it has finished, or begun in the middle and finished.
    epochs: u32,
    /// Files of the present epoch's order that are behind it.
    done: u32,
    /// Of all that are behind it those that it left out.
    missed: u64,
    #[serde(skip)]
    drawn: Option<Drawn>,
}

/// What is drawn and listed.
#[derive(Clone, Debug, PartialEq)]
struct Drawn {
    /// The files by index, with their bytes.
    files: Vec<(FileKey, u64)>,
    /// The order of the present epoch, and the place of each file in it, if it has one.
    order: Vec<u32>,
    places: Vec<Option<u32>>,
    /// Visits of each file that come with this epoch and those before.
    due: Vec<u32>,
    /// Another epoch's order, with its number: the next one's, if it is known how that is drawn.
    next: Option<(u32, Vec<u32>)>,
}

/// A file that comes, and after how many others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coming<'f> {
    /// Which.
    pub path: &'f FilePath,
    /// Its bytes.
    pub bytes: u64,
    /// How many files come before it; none in an epoch of which it is not known how it is drawn.
    pub after: Option<usize>,
    /// Epochs to begin before it comes.
    pub epochs: u32,
}

impl Following {
    /// From the place where the run began.
    pub fn new(recognised: Recognised) -> Self {
        let done = recognised.began.offset;
        Self { recognised, epochs: 0, done, missed: 0, drawn: None }
    }

    /// Takes what the run has done since. Whether it still keeps to its order.
    pub fn follow(&mut self, run: &LiveRun, names: &Namespace) -> bool {
        if self.drawn.is_none() {
            self.drawn = self.draw(run, names);
        }
        let Some(mut drawn) = self.drawn.take() else { return false };
        let keeps = self.go_on(run, &mut drawn);
        self.drawn = Some(drawn);
        keeps
    }

    /// What comes next, in order, at most so many: what is left of the present epoch, and the next one.
    pub fn coming(&self, run: &LiveRun, most: usize) -> Vec<Coming<'_>> {
        let Some(drawn) = &self.drawn else { return Vec::new() };
        let present = drawn.order[self.done as usize..].iter().filter(|f| !self.is_taken(run, drawn, **f));
        let mut indices: Vec<(u32, u32)> = present.take(most).map(|f| (*f, 0)).collect();
        let left = most - indices.len();
        match &drawn.next {
            Some((_, order)) => indices.extend(order.iter().take(left).map(|f| (*f, 1))),
            // Nobody knows which files a rank takes then.
            None if !self.recognised.began.draw.share.is_whole() => {}
            None => indices.extend((0..self.recognised.files).take(left).map(|f| (f, 1))),
        }
        let coming = |(after, (file, epochs)): (usize, &(u32, u32))| {
            let (key, bytes) = &drawn.files[*file as usize];
            let after = (*epochs == 0 || drawn.next.is_some()).then_some(after);
            Coming { path: &key.path, bytes: *bytes, after, epochs: *epochs }
        };
        indices.iter().enumerate().map(coming).collect()
    }

    /// Files of the present epoch that are behind the run, and all of them.
    pub fn progress(&self) -> (u32, u32) {
        (self.done, self.length())
    }

    /// Files of an epoch that the run takes.
    fn length(&self) -> u32 {
        self.recognised.began.draw.length(self.recognised.files)
    }

    /// The order of an epoch, counted from that in which the run began.
    fn order(&self, epoch: u32) -> Option<Vec<u32>> {
        let Place { draw, .. } = self.recognised.began;
        let draw = if epoch == 0 { draw } else { draw.after(self.recognised.step?, u64::from(epoch)) };
        let files = self.recognised.files;
        draw.can_be_drawn(files).then(|| draw.order(files))
    }

    fn draw(&self, run: &LiveRun, names: &Namespace) -> Option<Drawn> {
        let set = &self.recognised.set;
        let there = known(names, &set.volume, &set.directory, run.started_at);
        let files = set.files(&there);
        if files.len() != self.recognised.files as usize {
            return None;
        }
        let mut drawn = Drawn {
            files: files.into_iter().map(|c| (c.key.clone(), c.size)).collect(),
            order: Vec::new(),
            places: Vec::new(),
            due: vec![0; self.recognised.files as usize],
            next: None,
        };
        let whole = self.recognised.began.draw.share.is_whole();
        for epoch in 0..=self.epochs {
            if whole && (1..self.epochs).contains(&epoch) {
                drawn.due.iter_mut().for_each(|due| *due += 1);
            } else if !self.turn(epoch, &mut drawn) {
                return None;
            }
        }
        Some(drawn)
    }

    /// Draws the order of an epoch, which is the present one now. Whether it is known how.
    fn turn(&self, epoch: u32, drawn: &mut Drawn) -> bool {
        let foreseen = drawn.next.take().filter(|(of, _)| *of == epoch).map(|(_, order)| order);
        let Some(order) = foreseen.or_else(|| self.order(epoch)) else { return false };
        drawn.order = order;
        drawn.next = self.order(epoch + 1).map(|order| (epoch + 1, order));
        drawn.places = vec![None; drawn.due.len()];
        (0..).zip(&drawn.order).for_each(|(place, file)| drawn.places[*file as usize] = Some(place));
        let behind = if epoch == 0 { self.recognised.began.offset as usize } else { 0 };
        drawn.order[behind.min(drawn.order.len())..].iter().for_each(|file| drawn.due[*file as usize] += 1);
        true
    }

    fn is_taken(&self, run: &LiveRun, drawn: &Drawn, file: u32) -> bool {
        let visits = run.file(&drawn.files[file as usize].0).map_or(0, |used| used.visits);
        visits > 0 && visits >= drawn.due[file as usize]
    }

    fn go_on(&mut self, run: &LiveRun, drawn: &mut Drawn) -> bool {
        let length = self.length();
        loop {
            while self.done < length && self.is_taken(run, drawn, drawn.order[self.done as usize]) {
                self.done += 1;
            }
            let (ahead, beyond) = self.ahead(run, drawn);
            let least = ahead.map_or(self.done, |place| (place + 1).saturating_sub(self.recognised.slack));
            let dropped = MISSED * f64::from(length) + f64::from(self.recognised.slack);
            let ends = f64::from(length - self.done) <= dropped;
            if least > self.done {
                let behind = &drawn.order[self.done as usize..least as usize];
                self.missed += behind.iter().filter(|f| !self.is_taken(run, drawn, **f)).count() as u64;
                self.done = least;
            } else if self.done == length || (beyond > 0 && ends) {
                self.missed += u64::from(length - self.done);
                (self.epochs, self.done) = (self.epochs + 1, 0);
                if !self.turn(self.epochs, drawn) {
                    return false;
                }
            } else {
                return beyond == 0 && self.missed as f64 <= MISSED * self.behind();
            }
        }
    }

    /// Files that are behind the run in all.
    fn behind(&self) -> f64 {
        let before = f64::from(self.epochs) * f64::from(self.length());
        before + f64::from(self.done) - f64::from(self.recognised.began.offset)
    }

    /// Of the recent visits: the last place in the present epoch's order that was taken, if it is not behind; and how many
    /// belong to a later epoch.
    fn ahead(&self, run: &LiveRun, drawn: &Drawn) -> (Option<u32>, usize) {
        let (mut ahead, mut beyond) = (None, 0);
        for visit in run.recent().iter().rev().take(LOOKED_AT) {
            let used = &run.files()[visit.file as usize];
            let Some(file) = drawn.index(&used.key) else { continue };
            let due = drawn.due[file as usize];
            let place = drawn.places[file as usize].filter(|place| *place >= self.done);
            if used.visits > due {
                beyond += 1;
            } else if used.visits == due {
                ahead = ahead.max(place);
            }
        }
        (ahead, beyond)
    }
}

impl Drawn {
    fn index(&self, key: &FileKey) -> Option<u32> {
        self.files.binary_search_by(|(other, _)| super::set::by_index(&other.path, &key.path)).ok().map(|i| i as u32)
    }
}

/// The files below a directory, as they were at a time.
pub fn known(names: &Namespace, volume: &VolumeId, directory: &FilePath, at: Timestamp) -> Vec<Candidate> {
    let files = names.below(volume, directory).filter(|(_, fact)| fact.modified_at <= at);
    let candidate = |(path, fact): (&FilePath, &FileFact)| Candidate {
        key: FileKey { volume: volume.clone(), path: path.clone() },
        size: fact.size,
        modified_at: fact.modified_at,
    };
    files.map(candidate).collect()
}
