//! Which files of a group: the rules, the simplest first.

use std::collections::HashMap;

use super::table::{Group, Occasion};

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Those of the last run.
    Same,
    /// Those of any run.
    Ever,
    /// All there are.
    All,
    /// Those changed since the last run started.
    New,
    /// Those of learned ranks from the newest, by a slot of the path or by time of change.
    Newest {
        /// Which slot; none for the time of change.
        slot: Option<usize>,
    },
    /// Those whose slot differs by a learned amount from a number on the command line.
    Argument {
        /// Which slot of the path.
        slot: usize,
        /// Which slot of the command line.
        argument: usize,
    },
}

/// Ranks beyond this are not told apart: a habit of "the 65th newest" is none.
const RANKS: i64 = 64;
/// Slots of a path, and of a command line, that rules are tried on.
const SLOTS: usize = 4;
/// A role (a rank, a difference) is taken up when it was read at least this often where it was there.
const ROLE_HABIT: f64 = 0.5;

/// All rules that can be tried on a group, the simplest first.
pub fn rules(group: &Group<'_>, occasions: &[Occasion<'_>]) -> Vec<Rule> {
    let slots = group.rows.first().map_or(0, |r| r.slots.len()).min(SLOTS);
    let arguments = occasions.last().map_or(&[][..], |o| &o.arguments).iter().take(SLOTS);
    // Of a run to come not all numbers may be known.
    let arguments: Vec<usize> = (0..).zip(arguments).filter(|(_, a)| a.value().is_some()).map(|(i, _)| i).collect();
    let mut out = vec![Rule::Same, Rule::Ever, Rule::All, Rule::New];
    out.extend((0..slots).map(|s| Rule::Newest { slot: Some(s) }));
    out.push(Rule::Newest { slot: None });
    let of_slot = |slot| arguments.iter().map(move |argument| Rule::Argument { slot, argument: *argument });
    out.extend((0..slots).flat_map(of_slot));
    out
}

/// The role of each row on each occasion, where the rule gives roles: a rank from the newest, or a difference.
pub fn roles(rule: Rule, group: &Group<'_>, occasions: &[Occasion<'_>]) -> Option<Vec<Vec<Option<i64>>>> {
    match rule {
        Rule::Newest { slot } => Some((0..occasions.len()).map(|i| ranks(group, slot, i)).collect()),
        Rule::Argument { slot, argument } => {
            let anchor = |i: usize| occasions[i].arguments.get(argument).and_then(|a| a.value());
            Some((0..occasions.len()).map(|i| differences(group, slot, anchor(i), i)).collect())
        }
        _ => None,
    }
}

/// Rank of each row on occasion `i`, 0 for the newest, by a slot or by time of change; equal values share one.
pub fn ranks(group: &Group<'_>, slot: Option<usize>, i: usize) -> Vec<Option<i64>> {
    let value = |r: &super::table::Row<'_>| {
        r.cells[i].size?;
        match slot {
            Some(s) => r.slots.get(s)?.value(),
            None => Some(r.cells[i].modified_at.0),
        }
    };
    let mut values: Vec<i64> = group.rows.iter().filter_map(value).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.dedup();
    values.truncate(RANKS as usize);
    let rank: HashMap<i64, i64> = values.into_iter().zip(0..).collect();
    group.rows.iter().map(|r| value(r).and_then(|v| rank.get(&v).copied())).collect()
}

fn differences(group: &Group<'_>, slot: usize, anchor: Option<i64>, i: usize) -> Vec<Option<i64>> {
    let difference = |r: &super::table::Row<'_>| {
        r.cells[i].size?;
        Some(r.slots.get(slot)?.value()? - anchor?).filter(|d| d.abs() <= RANKS)
    };
    group.rows.iter().map(difference).collect()
}

/// The rows that a rule tells on occasion `i`, knowing occasions before it only.
pub fn told(
    rule: Rule,
    group: &Group<'_>,
    occasions: &[Occasion<'_>],
    roles: Option<&Vec<Vec<Option<i64>>>>,
    i: usize,
) -> Vec<usize> {
    let used_before = |r: usize| (0..i).any(|j| group.rows[r].cells[j].used.is_some());
    let there = (0..group.rows.len()).filter(|r| group.rows[*r].cells[i].size.is_some());
    if !(0..group.rows.len()).any(used_before) {
        return Vec::new();
    }
    match rule {
        Rule::Same => there.filter(|r| i > 0 && group.rows[*r].cells[i - 1].used.is_some()).collect(),
        Rule::Ever => there.filter(|r| used_before(*r)).collect(),
        Rule::All => there.collect(),
        Rule::New => there.filter(|r| i > 0 && group.rows[*r].cells[i].modified_at > occasions[i - 1].at).collect(),
        Rule::Newest { .. } | Rule::Argument { .. } => {
            let Some(roles) = roles else { return Vec::new() };
            let habit = habitual(group, roles, i);
            there.filter(|r| roles[i][*r].is_some_and(|role| habit.contains(&role))).collect()
        }
    }
}

/// Roles that were read at least half of the time when they were there.
fn habitual(group: &Group<'_>, roles: &[Vec<Option<i64>>], i: usize) -> Vec<i64> {
    let mut counts: HashMap<i64, (u32, u32)> = HashMap::new();
    for (j, column) in roles.iter().enumerate().take(i) {
        for (row, role) in group.rows.iter().zip(column) {
            if let Some(role) = role {
                let count = counts.entry(*role).or_default();
                count.0 += u32::from(row.cells[j].used.is_some());
                count.1 += 1;
            }
        }
    }
    counts
        .into_iter()
        .filter(|(_, (read, seen))| f64::from(*read) >= ROLE_HABIT * f64::from(*seen))
        .map(|(r, _)| r)
        .collect()
}

/// A rule in words.
pub fn words(rule: Rule) -> String {
    match rule {
        Rule::Same => "those of the last run".into(),
        Rule::Ever => "those that any run has read".into(),
        Rule::All => "all there are".into(),
        Rule::New => "those new since the last run".into(),
        Rule::Newest { slot: Some(s) } => format!("the newest by the {} number in the name", place(s)),
        Rule::Newest { slot: None } => "the last changed".into(),
        Rule::Argument { slot, argument } => {
            format!("those whose {} number follows the {} number of the command", place(slot), place(argument))
        }
    }
}

fn place(i: usize) -> &'static str {
    ["first", "second", "third"].get(i).copied().unwrap_or("fourth")
}
