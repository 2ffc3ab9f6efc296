//! What a run that has yet to start will read, out of what there is: habits, put as rules on groups of files.
//!
//! Files are grouped by shape (`sales/dt=#/part-#.parquet`). For each group a handful of rules is at hand, the
//! simplest first: the files of the last run; those of any run; all there are; those new since the last run;
//! those of certain ranks from the newest ("the newest day and the seven before"); those whose number stands
//! in a certain relation to a number on the command line. And a handful of ways to say which bytes of a file:
//! all; those of last time; those read in most runs; those that files in the same role were read by more than
//! once, lately. Every pair is played over the past runs, each told by what was known before it and nothing else
//! (prequentially), and scored by bytes: hits minus the price of waste. The best pair that beats both silence
//! and chance speaks for the group; its measured precision is the probability that its files carry. Files whose order was
//! recognised as drawn are told by that order.

mod drawn;
mod extents;
mod features;
mod fresh;
mod play;
mod rules;
mod table;

use crate::drawn::Set;
use crate::ranges::Ranges;
use crate::run::FileKey;
use crate::shape::Slot;

pub use features::{FeatureRow, Table};
pub use fresh::{Fresh, fresh};
pub use play::habits;
pub use table::{Candidate, Occasion};

/// What is expected of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Which file.
    pub key: FileKey,
    /// Its size.
    pub size: u64,
    /// Which bytes.
    pub extents: Ranges,
    /// How probably they are read.
    pub probability: f64,
    /// When it was first read in the run that taught this, seconds after its start, if it tells.
    pub first_s: Option<f64>,
    /// The file whose use in the last run tells when and in which order this one will be read: itself, or the one that
    /// had its role then.
    pub taught_by: Option<FileKey>,
    /// Where the order is drawn: when it is visited, each time, as a share of what the run reads of the set.
    pub turns: Vec<f64>,
}

/// A rule that was found to hold for a group of files.
#[derive(Clone, Debug, PartialEq)]
pub struct Habit {
    /// The group's shape.
    pub shape: String,
    /// The rule, in words.
    pub rule: String,
    /// Of the bytes it told over the past runs, the share that was read; none if it could not be tried.
    pub precision: Option<f64>,
    /// Of the bytes read of the group over the past runs, the share it told.
    pub coverage: Option<f64>,
    /// Files it tells now.
    pub files: usize,
    /// Bytes it tells now.
    pub bytes: u64,
}

/// What a workload's past says of its next run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// The files, each once.
    pub expected: Vec<Expected>,
    /// Why, the largest group first.
    pub habits: Vec<Habit>,
    /// The set whose files are expected in a drawn order, if there is one.
    pub drawn: Option<Set>,
    /// What the learned ranker went by, the weightiest first; empty where the rules speak.
    pub weighed: Vec<Weighed>,
}

/// A feature of files, and what it weighs in what the learned ranker tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// What it is, in words.
    pub feature: &'static str,
    /// How much surer it makes the ranker of what it tells, on average: between 0 and 1.
    pub by: f64,
}

impl Weighed {
    /// The first few, in words.
    pub fn words(all: &[Self]) -> String {
        const MOST: usize = 3;
        let told: Vec<String> = all.iter().take(MOST).map(|w| format!("{} ({:.2})", w.feature, w.by)).collect();
        format!("the learned ranker, by {}", told.join(", "))
    }
}

/// Numbers and days on a command line, by place: argument 1's first slot, and so on.
pub fn argument_slots(arguments: &[String]) -> Vec<Slot> {
    arguments.iter().flat_map(|a| crate::shape::shape(a.as_bytes()).slots).collect()
}

/// The same of the numbers that are told with a run's start. One that is kept back equals nothing.
pub fn number_slots(numbers: &[Option<u32>]) -> Vec<Slot> {
    numbers.iter().map(|n| n.map_or(Slot::Hash(0), |n| Slot::Number(n.into()))).collect()
}

/// What a wasted byte weighs against a hit one when rules are compared. One half: where a read that finds
/// nothing waits for a round trip, a hit is worth more than its bytes.
pub const WASTE_PRICE: f64 = 0.5;
/// How much less each run further back counts.
const FADE: f64 = 0.8;
/// A rule must be this many times more precise than bytes drawn at random from the files it draws from,
/// unless most of what it tells is read anyway. What is not better than chance knows nothing.
const LIFT: f64 = 1.5;
