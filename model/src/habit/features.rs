//! What is known of a file before a run starts, as numbers for the learned ranker.

use super::rules::ranks;
use super::table::{Group, Occasion, Row, groups};
use crate::history::PastUse;
use crate::run::FileKey;

/// A file on one occasion, as the ranker sees it.
pub struct FeatureRow<'t> {
    /// Which file.
    pub key: &'t FileKey,
    /// Its size.
    pub size: u64,
    /// What the last run that read it did with it.
    pub last: Option<&'t PastUse>,
    /// See [`Table::NAMES`].
    pub features: Vec<f64>,
    /// Whether the run of this occasion read it: 1 or 0.
    pub read: f64,
}

/// All files of the groups that were ever read, over all occasions.
pub struct Table<'a> {
    occasions: &'a [Occasion<'a>],
    groups: Vec<Group<'a>>,
}

impl<'a> Table<'a> {
    /// What the features are.
    pub const NAMES: [&'static str; 12] = [
        "read by the last run",
        "share of runs that read it while it was there",
        "runs that it was there for",
        "share of its group read by the last run",
        "rank from the newest by first number",
        "rank from the newest by last number",
        "rank from the last changed",
        "changed since the last run",
        "age in intervals",
        "log of its size",
        "least distance of its numbers from the command's",
        "place in the order of the last run",
    ];

    /// From occasions, oldest first.
    pub fn new(occasions: &'a [Occasion<'a>]) -> Self {
        Self { occasions, groups: groups(occasions) }
    }

    /// The files that were there on occasion `i`, told by what was known before it.
    pub fn rows_at(&self, i: usize) -> Vec<FeatureRow<'_>> {
        self.groups.iter().flat_map(|g| self.group_at(g, i)).collect()
    }

    fn group_at<'t>(&'t self, group: &'t Group<'a>, i: usize) -> Vec<FeatureRow<'t>> {
        let slots = group.rows.first().map_or(0, |r| r.slots.len());
        let first = ranks(group, (slots > 0).then_some(0), i);
        let last = ranks(group, slots.checked_sub(1), i);
        let changed = ranks(group, None, i);
        let there = |r: &&Row<'_>| i > 0 && r.cells[i - 1].size.is_some();
        let read_last = group.rows.iter().filter(|r| i > 0 && r.cells[i - 1].used.is_some()).count() as f64;
        let share = read_last / group.rows.iter().filter(there).count().max(1) as f64;
        let rank = |r: Option<i64>| r.map_or(99.0, |r| r as f64);
        let mut out = Vec::new();
        for (r, row) in group.rows.iter().enumerate() {
            let Some(size) = row.cells[i].size else { continue };
            let mut features = self.of_file(row, i);
            features.splice(3..3, [share, rank(first[r]), rank(last[r]), rank(changed[r])]);
            out.push(FeatureRow {
                key: &row.key,
                size,
                last: row.cells[..i].iter().rev().find_map(|c| c.used),
                features,
                read: f64::from(u8::from(row.cells[i].used.is_some())),
            });
        }
        out
    }

    /// The features that need the file alone.
    fn of_file(&self, row: &Row<'_>, i: usize) -> Vec<f64> {
        let before = &row.cells[..i];
        let there = before.iter().filter(|c| c.size.is_some()).count() as f64;
        let read = before.iter().filter(|c| c.used.is_some()).count() as f64;
        let now = &self.occasions[i];
        let previous = i.checked_sub(1).map(|p| self.occasions[p].at);
        let interval_s = previous.map_or(86_400.0, |p| now.at.since(p).as_secs_f64()).max(1.0);
        let age = now.at.since(row.cells[i].modified_at).as_secs_f64() / interval_s;
        let distance = row
            .slots
            .iter()
            .filter_map(|s| s.value())
            .flat_map(|v| now.arguments.iter().filter_map(|a| a.value()).map(move |a| (a - v).unsigned_abs()))
            .min();
        let last = before.last().and_then(|c| c.used);
        vec![
            f64::from(u8::from(last.is_some())),
            read / there.max(1.0),
            there,
            f64::from(u8::from(previous.is_some_and(|p| row.cells[i].modified_at > p))),
            age.min(1000.0),
            (row.cells[i].size.unwrap_or(0) as f64 + 1.0).ln(),
            distance.map_or(1000.0, |d| (d as f64).min(1000.0)),
            last.map_or(-1.0, |u| u.first_s),
        ]
    }
}
