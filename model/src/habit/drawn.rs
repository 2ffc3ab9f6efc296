//! What is expected of a set whose order is drawn: the files that come next in it, as far as a run reads.
//!
//! Rules on groups see such files as popularity without reason. Where the order is recognised, it speaks for its set in
//! their place, if it told the past runs, each from those before it, and cost them less than it gave.

use std::collections::HashMap;

use super::table::Occasion;
use super::{Expected, Habit, Outlook, WASTE_PRICE};
use crate::drawn::ahead::{Ahead, Past, ahead};
use crate::ranges::Ranges;
use crate::run::FileKey;

/// Bytes that it told over the past.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    hit: f64,
    told: f64,
    read: f64,
}

/// Puts what a drawn order tells of the last of these occasions in the place of what rules say of its set.
pub fn speak(occasions: &[Occasion<'_>], out: &mut Outlook) {
    let Some(next) = occasions.len().checked_sub(1) else { return };
    let Some((ahead, expected)) = told(occasions, next).filter(|(_, expected)| !expected.is_empty()) else { return };
    let tally = play(occasions, next);
    if tally.hit < WASTE_PRICE * (tally.told - tally.hit) {
        return;
    }
    out.expected.retain(|e| !ahead.set.holds(&e.key));
    out.habits.push(Habit {
        shape: format!("{}/", ahead.set.directory),
        rule: ahead.why,
        precision: (tally.told > 0.0).then(|| tally.hit / tally.told),
        coverage: (tally.told > 0.0).then(|| tally.hit / tally.read.max(1.0)),
        files: expected.len(),
        bytes: expected.iter().map(|e| e.extents.bytes()).sum(),
    });
    out.expected.extend(expected);
    out.drawn = Some(ahead.set);
}

fn past<'a>(occasions: &'a [Occasion<'_>]) -> Vec<Past<'a>> {
    occasions.iter().map(|o| Past { drawn: o.drawn, arguments: &o.arguments }).collect()
}

/// What the orders recognised before occasion `i` tell of it, the files in order of their first visits.
fn told(occasions: &[Occasion<'_>], i: usize) -> Option<(Ahead, Vec<Expected>)> {
    let ahead = ahead(&past(&occasions[..i]), &occasions[i].arguments)?;
    let usual = occasions[..i].last()?.drawn?;
    let files = ahead.set.files(&occasions[i].candidates);
    let mut expected: Vec<Expected> = Vec::new();
    let mut places = vec![None; files.len()];
    for part in ahead.parts(&files, usual) {
        let place = *places[part.file as usize].get_or_insert_with(|| {
            let file = files[part.file as usize];
            expected.push(Expected {
                key: file.key.clone(),
                size: file.size,
                extents: Ranges::default(),
                probability: part.probability,
                first_s: None,
                taught_by: None,
                turns: Vec::new(),
            });
            expected.len() - 1
        });
        expected[place].extents.add(part.from, part.to, usize::MAX);
        expected[place].turns.push(part.at);
    }
    Some((ahead, expected))
}

/// How it told the runs so far, each from those before it.
fn play(occasions: &[Occasion<'_>], next: usize) -> Tally {
    let mut tally = Tally::default();
    for i in 1..next {
        let Some((ahead, expected)) = told(occasions, i) else { continue };
        let uses = || occasions[i].uses.iter().filter(|u| u.visits > 0 && !u.created);
        let read: HashMap<&FileKey, &Ranges> = uses().map(|u| (&u.key, &u.extents)).collect();
        tally.told += expected.iter().map(|e| e.extents.bytes() as f64).sum::<f64>();
        tally.hit += expected.iter().filter_map(|e| Some(read.get(&e.key)?.overlap(&e.extents) as f64)).sum::<f64>();
        tally.read += uses().filter(|u| ahead.set.holds(&u.key)).map(|u| u.extents.bytes() as f64).sum::<f64>();
    }
    tally
}
