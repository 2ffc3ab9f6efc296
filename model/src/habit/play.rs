//! Playing the rules over the past, and letting the best speak.

use std::cmp::Ordering::Equal;
use std::collections::BTreeSet;

use super::drawn;
use super::extents::{MODES, Mode, Roles, differ, extents, keeping};
use super::rules::{Rule, roles, rules, told, words};
use super::table::{Group, Occasion, groups};
use super::{Expected, FADE, Habit, LIFT, Outlook, WASTE_PRICE};

/// What a rule must be worth more than silence, or than a simpler one, as a share of the bytes read.
const MARGIN: f64 = 0.01;

/// Bytes that a rule told, over the past.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    hit: f64,
    told: f64,
    read: f64,
    /// Bytes of all files that it could have drawn from.
    there: f64,
    /// Occasions on which the rule could be tried.
    tries: f64,
    /// Sum over these of the precision, so that a large run does not outvote the others.
    precision: f64,
}

impl Tally {
    fn worth(&self) -> f64 {
        self.hit - WASTE_PRICE * (self.told - self.hit)
    }

    fn precision(&self) -> f64 {
        self.hit / self.told.max(1.0)
    }

    /// Whether it knows more than chance.
    fn knows(&self) -> bool {
        let chance = self.read / self.there.max(1.0);
        self.precision() >= (LIFT * chance).min(0.5)
    }

    /// Probability that what it tells is read: its precision on past occasions, with half of one more at what a rule that
    /// held once is worth before it was tried. Files that were read whole come back; parts of files often do not.
    fn probability(&self, mode: Mode) -> f64 {
        const PRIOR: f64 = 0.5;
        let untried = if mode == Mode::Whole { 0.8 } else { 0.4 };
        (self.precision + PRIOR * untried) / (self.tries + PRIOR)
    }
}

/// What the past says of the last of these occasions, which has yet to be.
pub fn habits(occasions: &[Occasion<'_>]) -> Outlook {
    let Some(next) = occasions.len().checked_sub(1) else { return Outlook::default() };
    let mut out = Outlook::default();
    for group in groups(occasions) {
        if let Some((rule, mode, tally)) = best(&group, occasions, next) {
            speak(&group, occasions, next, rule, mode, tally, &mut out);
        }
    }
    drawn::speak(occasions, &mut out);
    out.habits.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shape.cmp(&b.shape)));
    out
}

/// The rule and mode with most worth over the past; none if silence is better.
fn best(group: &Group<'_>, occasions: &[Occasion<'_>], next: usize) -> Option<(Rule, Mode, Tally)> {
    let mut best: Option<(Rule, Mode, Tally)> = None;
    for rule in rules(group, occasions) {
        let roles = roles(rule, group, occasions);
        for mode in modes(group, roles.is_some()) {
            let tally = play(group, occasions, rule, mode, roles.as_ref(), next);
            // A rule that was never tried is only spoken for where nothing could be tried, and one that told next to nothing has
            // not been.
            let margin = MARGIN * tally.read;
            if tally.worth() > best.map_or(0.0, |(_, _, b)| b.worth()) + margin && tally.knows() {
                best = Some((rule, mode, tally));
            }
        }
        if best.is_some_and(|(_, _, b)| b.worth() >= 0.98 * b.read) {
            break;
        }
    }
    match best {
        Some(best) => Some(best),
        None if tried(group, next) => None,
        None => untried(group, next),
    }
}

/// Ways to say which bytes that make a difference here: files that are always read whole need one.
fn modes(group: &Group<'_>, by_role: bool) -> Vec<Mode> {
    let all_whole = group.rows.iter().flat_map(|r| &r.cells).filter_map(|c| c.used).all(|u| u.whole());
    let usable = |m: &Mode| match m {
        Mode::Whole => true,
        Mode::Last => !all_whole,
        Mode::Often | Mode::Times(_) => !all_whole && !large(group),
        Mode::Role | Mode::Kept => !all_whole && by_role && !large(group),
    };
    MODES.into_iter().filter(usable).collect()
}

/// Whether a group is too large for every rule to be played: it is then told by the simplest.
fn large(group: &Group<'_>) -> bool {
    /// Cells that all rules and modes are played over within some tens of milliseconds.
    const CELLS_MOST: usize = 20_000;
    group.rows.iter().map(|r| r.cells.len()).sum::<usize>() > CELLS_MOST
}

/// Whether the group had been read before some past occasion, so that rules could be tried on it.
fn tried(group: &Group<'_>, next: usize) -> bool {
    (0..next.saturating_sub(1)).any(|j| group.rows.iter().any(|r| r.cells[j].used.is_some()))
}

/// What to believe of a group that was read in the last run for the first time: all of it, if nearly all there
/// was of it was read; else the same files; and the same bytes. None where these lie as if drawn: no more of them would come
/// again than of any others, and that is too little to be worth its waste.
fn untried(group: &Group<'_>, next: usize) -> Option<(Rule, Mode, Tally)> {
    const NEARLY_ALL: f64 = 0.9;
    let last = next.saturating_sub(1);
    let used = || group.rows.iter().filter_map(|r| r.cells[last].used);
    let read: f64 = used().map(|u| u.extents.bytes() as f64).sum();
    let drawn: f64 = used().filter(|u| u.drawn()).map(|u| u.extents.bytes() as f64).sum();
    let there: f64 = used().map(|u| u.size as f64).sum();
    if drawn > 0.5 * read && read - WASTE_PRICE * (there - read) <= 0.0 {
        return None;
    }
    let there = group.rows.iter().filter(|r| r.cells[last].size.is_some()).count();
    let read = group.rows.iter().filter(|r| r.cells[last].used.is_some()).count();
    let rule = if there > 1 && read as f64 >= NEARLY_ALL * there as f64 { Rule::All } else { Rule::Same };
    let mode = *modes(group, false).get(1).unwrap_or(&Mode::Whole);
    Some((rule, mode, Tally::default()))
}

/// The roles that keep a file's bytes, where the mode asks for them.
fn kept(group: &Group<'_>, roles: Option<&Vec<Vec<Option<i64>>>>, mode: Mode, i: usize) -> BTreeSet<i64> {
    roles.filter(|_| mode == Mode::Kept).map(|of| keeping(group, of, i)).unwrap_or_default()
}

fn play(
    group: &Group<'_>,
    occasions: &[Occasion<'_>],
    rule: Rule,
    mode: Mode,
    roles: Option<&Vec<Vec<Option<i64>>>>,
    next: usize,
) -> Tally {
    let mut tally = Tally::default();
    for i in 1..next {
        let before = (0..i).any(|j| group.rows.iter().any(|r| r.cells[j].used.is_some()));
        if !before {
            continue;
        }
        let weight = FADE.powi((next - 1 - i) as i32);
        let mut once = Tally::default();
        let kept = kept(group, roles, mode, i);
        let known = roles.map(|of| Roles { of, keeping: &kept });
        for r in told(rule, group, occasions, roles, i) {
            let ranges = extents(mode, group, known, r, i);
            once.told += ranges.bytes() as f64;
            once.hit += group.rows[r].cells[i].used.map_or(0, |u| u.extents.overlap(&ranges)) as f64;
        }
        for row in &group.rows {
            once.read += row.cells[i].used.map_or(0, |u| u.extents.bytes()) as f64;
            once.there += row.cells[i].size.unwrap_or(0) as f64;
        }
        tally.hit += weight * once.hit;
        tally.told += weight * once.told;
        tally.read += weight * once.read;
        tally.there += weight * once.there;
        if once.told > 0.0 {
            tally.tries += weight;
            tally.precision += weight * once.precision();
        }
    }
    tally
}

/// The row whose use in the last run shows when row `r` will be read: of those that had its role then, one that differs
/// in a single slot (the same part of another day), else the one that was read first; without roles, the row itself.
fn teacher(group: &Group<'_>, roles: Option<&Vec<Vec<Option<i64>>>>, r: usize, next: usize) -> Option<usize> {
    let last = next.checked_sub(1)?;
    let first_s = |row: usize| group.rows[row].cells[last].used.map(|u| u.first_s);
    let in_role = roles.and_then(|of| {
        let role = of[next][r]?;
        let had: Vec<usize> =
            (0..group.rows.len()).filter(|d| of[last][*d] == Some(role) && first_s(*d).is_some()).collect();
        let sibling = had.iter().copied().find(|d| differ(group, *d, r) <= 1);
        sibling.or_else(|| had.into_iter().min_by(|a, b| first_s(*a).partial_cmp(&first_s(*b)).unwrap_or(Equal)))
    });
    in_role.or(first_s(r).map(|_| r))
}

fn speak(
    group: &Group<'_>,
    occasions: &[Occasion<'_>],
    next: usize,
    rule: Rule,
    mode: Mode,
    tally: Tally,
    out: &mut Outlook,
) {
    let roles = roles(rule, group, occasions);
    let (mut files, mut bytes) = (0, 0);
    let kept = kept(group, roles.as_ref(), mode, next);
    let known = roles.as_ref().map(|of| Roles { of, keeping: &kept });
    for r in told(rule, group, occasions, roles.as_ref(), next) {
        let row = &group.rows[r];
        let ranges = extents(mode, group, known, r, next);
        files += 1;
        bytes += ranges.bytes();
        let teacher = teacher(group, roles.as_ref(), r, next).map(|t| &group.rows[t]);
        let taught = teacher.and_then(|t| t.cells[next - 1].used);
        out.expected.push(Expected {
            key: row.key.clone(),
            size: row.cells[next].size.unwrap_or(0),
            extents: ranges,
            probability: tally.probability(mode),
            first_s: taught.map(|u| u.first_s),
            taught_by: taught.map(|u| u.key.clone()),
            turns: Vec::new(),
        });
    }
    let tried = tally.told > 0.0;
    out.habits.push(Habit {
        shape: group.shape.clone(),
        rule: words(rule),
        precision: tried.then(|| tally.precision()),
        coverage: tried.then(|| tally.hit / tally.read.max(1.0)),
        files,
        bytes,
    });
}
