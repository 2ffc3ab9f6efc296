//! Where in the drawn orders the next run will begin, and how far it will read.
//!
//! *Where* is a relation that held between the runs so far: it goes on in the file in which the run before stopped, or
//! with the one after it; it begins as that began; or its seed follows a number of the command line. *How far* is the bytes
//! that runs read of the set: as many as usual, or so many for each unit of a number of the command line, whichever
//! told the past runs better, each left out in turn.

use std::cmp::Ordering;

use super::{Place, Recognised, Set, Step};
use crate::habit::Candidate;
use crate::history::median;
use crate::shape::Slot;

/// What a relation that was never tried is believed.
const UNTRIED: f64 = 0.9;
/// The bytes follow a number of the command line if that tells them this many times better than what is usual.
const FOLLOWS: f64 = 2.0;
/// Visits that are told of one run: some epochs of a large set.
const VISITS_MOST: u64 = 1 << 20;
/// A run reads as far as most runs of its workload did: that it is believed before it was ever put to the proof.
const AS_MOST: f64 = 0.9;
/// A file is read whole if runs read at least this share of the mean size for each visit.
const WHOLE: f64 = 0.8;

/// A past run, and its command line's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// What it was recognised to have read; none if nothing was.
    pub drawn: Option<&'a Recognised>,
    /// The numbers.
    pub arguments: &'a [Slot],
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// With the file in which the one before stopped.
    In,
    /// With the file after it.
    After,
    /// With a seed that follows this number of the command line.
    Argument(usize),
    /// As the one before.
    Anew,
}

/// What the next run will read of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Ahead {
    /// The set.
    pub set: Set,
    /// Where it begins.
    pub place: Place,
    /// How epochs follow one another, if that is known.
    pub step: Option<Step>,
    /// How sure that is.
    pub probability: f64,
    /// Where it begins in its first file, bytes.
    from: u64,
    /// Bytes that it reads, and, where no number tells them, what past runs read, ascending.
    bytes: f64,
    lengths: Vec<f64>,
    /// Why, in words.
    pub why: String,
}

/// A part of a file that will be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Which file of the set.
    pub file: u32,
    /// From this byte.
    pub from: u64,
    /// To this.
    pub to: u64,
    /// When: the share of the bytes that come before.
    pub at: f64,
    /// How probably a run that begins so reads as far.
    pub probability: f64,
}

/// What comes after these runs, oldest first, for a command line with these numbers; none where no order is believed, or
/// no relation held.
pub fn ahead(past: &[Past<'_>], arguments: &[Slot]) -> Option<Ahead> {
    let last = past.last()?;
    let drawn = last.drawn.filter(|d| d.believed())?;
    let (begins, kept, tried) = relation(past, arguments)?;
    let place = begin(begins, drawn, last.arguments, arguments)?;
    let from = if begins == Begins::In { goes_on_from(past, drawn) } else { 0 };
    let why = match begins {
        Begins::In => "the next run goes on in the file in which the last one stopped".to_owned(),
        Begins::After => "the next run goes on where the last one stopped".to_owned(),
        Begins::Argument(i) => format!("its seed follows number {} of the command", i + 1),
        Begins::Anew => "each run begins as the last one".to_owned(),
    };
    let (bytes, lengths) = bytes(past, arguments);
    Some(Ahead {
        set: drawn.set.clone(),
        place,
        step: drawn.step,
        probability: (kept + UNTRIED) / (tried + 1.0),
        from,
        bytes,
        lengths,
        why: format!("{}; {why}", drawn.words()),
    })
}

impl Ahead {
    /// The parts of these files, the set by index, in order. Nothing where files are not read whole, as the past shows.
    pub fn parts(&self, files: &[&Candidate], usual: &Recognised) -> Vec<Part> {
        let count = files.len() as u32;
        let all: f64 = files.iter().map(|f| f.size as f64).sum();
        let mean = all / f64::from(count.max(1));
        if count == 0 || (usual.read.bytes as f64) < WHOLE * mean * (usual.visits as f64 - 1.0).max(0.0) {
            return Vec::new();
        }
        let (mut out, mut read) = (Vec::new(), 0.0);
        let mut from = self.from;
        let mut place = Some(self.place);
        while let Some(Place { draw, offset }) = place.filter(|p| p.draw.can_be_drawn(count)) {
            for file in draw.order(count).into_iter().skip(offset as usize) {
                let size = files[file as usize].size;
                let to = size.min(from.saturating_add((self.bytes - read).ceil() as u64));
                let probability = self.probability * goes_on(&self.lengths, read + 0.5 * (to - from.min(to)) as f64);
                out.push(Part { file, from, to, at: read / self.bytes.max(1.0), probability });
                read += to.saturating_sub(from) as f64;
                from = 0;
                if read >= self.bytes || out.len() as u64 >= VISITS_MOST {
                    out.retain(|part| part.to > part.from);
                    return out;
                }
            }
            place = Place { draw, offset }.on(u64::from(draw.length(count).saturating_sub(offset)), count, self.step);
        }
        out.retain(|part| part.to > part.from);
        out
    }
}

/// The relation that held from run to run, the last time included; how often it held, and could have. A number is
/// followed if it is known of the next run, and is the seed or has ever changed: of one that never did nothing follows.
fn relation(past: &[Past<'_>], next: &[Slot]) -> Option<(Begins, f64, f64)> {
    let last = past.last()?;
    let told = |i: &usize| {
        let ever: Vec<Option<i64>> = past.iter().map(|p| number(p.arguments, *i)).collect();
        number(next, *i).is_some() && (is_named(Begins::Argument(*i), last) || ever.iter().any(|n| *n != ever[0]))
    };
    let mut relations = vec![Begins::In, Begins::After];
    relations.extend((0..last.arguments.len()).filter(told).map(Begins::Argument));
    relations.push(Begins::Anew);
    let mut best: Option<(Begins, f64, f64)> = None;
    for begins in relations {
        let held: Vec<bool> = past.windows(2).filter_map(|pair| held(begins, &pair[0], &pair[1])).collect();
        let (kept, tried) = (held.iter().filter(|h| **h).count() as f64, held.len() as f64);
        let speaks = held.last() == Some(&true) || (held.is_empty() && is_named(begins, past.last()?));
        if speaks && best.is_none_or(|(_, most, _)| kept > most) {
            best = Some((begins, kept, tried));
        }
    }
    best
}

/// Whether the second of two runs began as this says of the first; none where nobody knows.
fn held(begins: Begins, before: &Past<'_>, after: &Past<'_>) -> Option<bool> {
    let (known, began) = (before.drawn?, after.drawn?.began);
    Some(begin(begins, known, before.arguments, after.arguments)? == began)
}

/// Whether the seed is this number of the command line itself.
fn is_named(begins: Begins, run: &Past<'_>) -> bool {
    let Begins::Argument(i) = begins else { return false };
    run.drawn.is_some_and(|d| number(run.arguments, i).is_some_and(|n| n as u32 == d.began.draw.seed))
}

fn begin(begins: Begins, before: &Recognised, had: &[Slot], has: &[Slot]) -> Option<Place> {
    match begins {
        Begins::In => before.began.on(before.visits.checked_sub(1)?, before.files, before.step),
        Begins::After => before.ended(),
        Begins::Argument(i) => {
            let more = number(has, i)?.wrapping_sub(number(had, i)?) as u32;
            let mut place = before.began;
            place.draw.seed = place.draw.seed.wrapping_add(more);
            Some(place)
        }
        Begins::Anew => Some(before.began),
    }
}

fn number(arguments: &[Slot], i: usize) -> Option<i64> {
    arguments.get(i)?.value()
}

/// Where a run goes on in the file in which the last one stopped: a buffer's length before its end, as it was; at its
/// beginning, if runs begin there.
fn goes_on_from(past: &[Past<'_>], last: &Recognised) -> u64 {
    let pairs = past.windows(2).filter_map(|pair| Some((pair[0].drawn?.read, pair[1].drawn?.read)));
    let back: Vec<u64> =
        pairs.filter(|(_, after)| after.from > 0).map(|(b, after)| b.to.saturating_sub(after.from)).collect();
    back.into_iter().max().map_or(0, |back| last.read.to.saturating_sub(back))
}

/// Probability that a run reads so many bytes, from what past runs read, ascending: how many of them read as much, and one
/// run more that does as most did with a probability of [`AS_MOST`]; certain where nothing is known of them.
pub fn goes_on(lengths: &[f64], read: f64) -> f64 {
    /// Runs of one length read it to within this share.
    const SAME: f64 = 0.95;
    if lengths.is_empty() {
        return 1.0;
    }
    let runs = lengths.len() as f64;
    let as_long = runs - lengths.partition_point(|length| *length < SAME * read) as f64;
    let prior = match (2.0 * as_long).total_cmp(&runs) {
        Ordering::Greater => AS_MOST,
        Ordering::Equal => 0.5,
        Ordering::Less => 1.0 - AS_MOST,
    };
    (as_long + prior) / (runs + 1.0)
}

/// Bytes that the next run reads: told by a number of the command line, or as many as it is more probable than not to
/// read by what past runs did, which then is told as well.
fn bytes(past: &[Past<'_>], arguments: &[Slot]) -> (f64, Vec<f64>) {
    let runs: Vec<(f64, &[Slot])> =
        past.iter().filter_map(|p| Some((p.drawn?.read.bytes as f64, p.arguments))).collect();
    let usual = |left_out: Option<usize>| {
        let others = runs.iter().enumerate().filter(|(i, _)| Some(*i) != left_out);
        median(others.map(|(_, (bytes, _))| *bytes).collect())
    };
    let by_number = |a: usize, has: &[Slot], left_out: Option<usize>| {
        let others = runs.iter().enumerate().filter(|(i, _)| Some(*i) != left_out);
        let each = others.map(|(_, (bytes, had))| Some(bytes / number(had, a).filter(|n| *n > 0)? as f64));
        let each: Option<Vec<f64>> = each.collect();
        Some(median(each?) * number(has, a).filter(|n| *n > 0)? as f64)
    };
    let off = |told: &dyn Fn(usize) -> Option<f64>| -> Option<f64> {
        let each = runs.iter().enumerate().map(|(i, (bytes, _))| Some((told(i)? - bytes).abs() / bytes.max(1.0)));
        each.sum()
    };
    let plain = off(&|i| Some(usual(Some(i)))).unwrap_or(0.0);
    let best = (0..arguments.len())
        .filter_map(|a| Some((off(&|i| by_number(a, runs[i].1, Some(i)))?, by_number(a, arguments, None)?)))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((off, told)) if runs.len() > 1 && off * FOLLOWS < plain => (told, Vec::new()),
        _ => {
            let mut lengths: Vec<f64> = runs.iter().map(|(bytes, _)| *bytes).collect();
            lengths.sort_by(f64::total_cmp);
            let middle = lengths.get(lengths.len() / 2).copied().unwrap_or(0.0);
            (middle, lengths)
        }
    }
}
