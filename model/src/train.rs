//! The learned ranker: P(the next run reads this file), from what was known before past runs.
//!
//! A random forest of regression trees on 0/1 (smartcore's regressor: its classifier is ten times slower and
//! answers with labels only). One row for each file that was there at a past start. It is trained per workload,
//! on all runs but the newest, and judged on the newest against the plain rules played on the same run. Only if
//! it is worth more there is it trained again on all runs and allowed to speak: that comparison runs after every
//! run, so a ranker that falls behind falls silent. How sure it is to be taken is learned from the newest run, too.

use rand::seq::IndexedRandom;
use rand::{SeedableRng, rngs::StdRng};
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;

use crate::calibrate::Calibrator;
use crate::habit::Occasion;
use crate::habit::{Expected, FeatureRow, Outlook, Table, Weighed, habits};
use crate::run::FileKey;

/// Rows beyond this are sampled: a forest learns no more from them, and training stays under a second.
const ROWS_MOST: usize = 20_000;
/// Fewest rows of either answer from which anything can be learned.
const ROWS_LEAST: usize = 8;
/// A file is expected when it is more probable than not.
const EXPECTED: f64 = 0.5;
/// What the ranker must be worth more than the rules, as a share of the bytes read: less is chance.
const MARGIN: f64 = 0.01;

type Forest = RandomForestRegressor<f64, f64, DenseMatrix<f64>, Vec<f64>>;

/// How the ranker did on the newest run, held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldBack {
    /// Bytes read of those it told, less the price of the rest.
    pub ranked: f64,
    /// The same of the plain rules.
    pub plain: f64,
    /// Bytes read.
    pub read: f64,
}

impl HeldBack {
    /// Whether the ranker has earned its place.
    pub fn earned(&self) -> bool {
        self.ranked > self.plain + MARGIN * self.read
    }
}

/// A trained ranker, and how it did.
pub struct Ranker {
    forest: Forest,
    calibrator: Calibrator,
    /// On the newest run, told by a ranker that had not seen it.
    pub held_back: HeldBack,
}

impl Ranker {
    /// Learns from all of these occasions but the last, which has yet to be. None if there is too little to
    /// learn from.
    pub fn learn(occasions: &[Occasion<'_>], seed: u64) -> Option<Self> {
        let next = occasions.len().checked_sub(1)?;
        let newest = next.checked_sub(1)?;
        let table = Table::new(occasions);
        let trial = fit(&table, newest, seed)?;
        let then = &occasions[..next];
        let plain = habits(then);
        let rows = table.rows_at(newest);
        let answers: Vec<_> = told(&trial, &rows).into_iter().zip(rows.iter().map(|r| r.read > 0.5)).collect();
        let calibrator = Calibrator::fit(&answers);
        let held_back = HeldBack {
            ranked: worth(&outlook((&trial, &calibrator), &table, newest, &plain), then),
            plain: worth(&plain, then),
            read: read_bytes(&occasions[newest]),
        };
        Some(Self { forest: fit(&table, next, seed)?, calibrator, held_back })
    }

    /// What it expects of the last of these occasions.
    pub fn outlook(&self, occasions: &[Occasion<'_>], plain: &Outlook) -> Outlook {
        let table = Table::new(occasions);
        outlook((&self.forest, &self.calibrator), &table, occasions.len().saturating_sub(1), plain)
    }
}

/// What the newest of these occasions, told from those before it, is worth by whoever would have spoken, and the bytes it
/// read. The last occasion has yet to be. None if there is no past to tell it from.
pub fn newest_told(occasions: &[Occasion<'_>], seed: u64) -> Option<(f64, f64)> {
    let then = &occasions[..occasions.len().checked_sub(1)?];
    let newest = then.len().checked_sub(1).filter(|newest| *newest > 0)?;
    let told = match Ranker::learn(occasions, seed).map(|r| r.held_back) {
        Some(held_back) => held_back,
        None => HeldBack { ranked: f64::MIN, plain: worth(&habits(then), then), read: read_bytes(&then[newest]) },
    };
    Some((if told.earned() { told.ranked } else { told.plain }, told.read))
}

fn read_bytes(occasion: &Occasion<'_>) -> f64 {
    occasion.uses.iter().filter(|u| !u.created).map(|u| u.extents.bytes() as f64).sum()
}

/// A forest from the occasions before `until`, the first left out: nothing was known before it.
fn fit(table: &Table<'_>, until: usize, seed: u64) -> Option<Forest> {
    let mut rows: Vec<(Vec<f64>, f64)> =
        (1..until).flat_map(|i| table.rows_at(i)).map(|r| (r.features, r.read)).collect();
    let read = rows.iter().filter(|r| r.1 > 0.5).count();
    if read < ROWS_LEAST || rows.len() - read < ROWS_LEAST {
        return None;
    }
    if rows.len() > ROWS_MOST {
        let mut draw = StdRng::seed_from_u64(seed);
        rows = rows.sample(&mut draw, ROWS_MOST).cloned().collect();
    }
    let (x, y): (Vec<Vec<f64>>, Vec<f64>) = rows.into_iter().unzip();
    let parameters = RandomForestRegressorParameters::default()
        .with_n_trees(20)
        .with_max_depth(8)
        .with_min_samples_leaf(2)
        .with_seed(seed);
    Forest::fit(&DenseMatrix::from_2d_vec(&x).ok()?, &y, parameters).ok()
}

/// What the forest says of each row, as it says it.
fn told(forest: &Forest, rows: &[FeatureRow<'_>]) -> Vec<f64> {
    answers(forest, rows.iter().map(|r| r.features.clone()).collect())
}

fn answers(forest: &Forest, x: Vec<Vec<f64>>) -> Vec<f64> {
    DenseMatrix::from_2d_vec(&x).ok().and_then(|x| forest.predict(&x).ok()).unwrap_or_default()
}

/// What the forest expects on occasion `i`. It says which files; which bytes of them the rules say, where they
/// name the file, else all. Of a set whose drawn order is known it has nothing to say.
fn outlook((forest, calibrator): (&Forest, &Calibrator), table: &Table<'_>, i: usize, plain: &Outlook) -> Outlook {
    let rows = table.rows_at(i);
    let told = told(forest, &rows);
    let probabilities = calibrator.probabilities(&told);
    let by_rule: std::collections::HashMap<_, &Expected> = plain.expected.iter().map(|e| (&e.key, e)).collect();
    let weighed = weighed(forest, &rows, &told);
    let drawn = |key: &FileKey| plain.drawn.as_ref().is_some_and(|set| set.holds(key));
    let ranked = rows
        .iter()
        .zip(told.into_iter().zip(probabilities))
        .filter(|(row, (said, _))| *said >= EXPECTED && !drawn(row.key))
        .map(|(row, (_, p))| {
            let whole = crate::ranges::Ranges::one(0, row.size);
            let last = row.last.map(|u| u.extents.cut(row.size));
            let extents = by_rule.get(row.key).map(|e| e.extents.clone()).or(last).unwrap_or(whole);
            Expected {
                key: row.key.clone(),
                size: row.size,
                extents,
                probability: p.clamp(0.0, 1.0),
                first_s: row.last.map(|u| u.first_s),
                taught_by: by_rule.get(row.key).and_then(|e| e.taught_by.clone()),
                turns: Vec::new(),
            }
        });
    let expected = ranked.chain(plain.expected.iter().filter(|e| drawn(&e.key)).cloned()).collect();
    Outlook { expected, habits: plain.habits.clone(), drawn: plain.drawn.clone(), weighed }
}

/// Files that are asked what a feature weighs, and what a feature has to weigh to be named.
const ASKED_MOST: usize = 256;
const WEIGHT_LEAST: f64 = 0.01;

/// By how much the forest's answers for the files that it tells fall if a feature said of each what it says of the middle
/// one of the others.
fn weighed(forest: &Forest, rows: &[FeatureRow<'_>], said: &[f64]) -> Vec<Weighed> {
    let (asked, others): (Vec<_>, Vec<_>) = rows.iter().zip(said).partition(|(_, said)| **said >= EXPECTED);
    if asked.is_empty() || others.is_empty() {
        return Vec::new();
    }
    let asked = &asked[..asked.len().min(ASKED_MOST)];
    let sure: f64 = asked.iter().map(|(_, said)| **said).sum();
    let weight = |feature: usize| {
        let mut values: Vec<f64> = others.iter().map(|(row, _)| row.features[feature]).collect();
        values.sort_by(f64::total_cmp);
        let without = asked.iter().map(|(row, _)| {
            let mut features = row.features.clone();
            features[feature] = values[values.len() / 2];
            features
        });
        (sure - answers(forest, without.collect()).iter().sum::<f64>()) / asked.len() as f64
    };
    let all = Table::NAMES.into_iter().enumerate().map(|(i, feature)| Weighed { feature, by: weight(i) });
    let mut out: Vec<Weighed> = all.filter(|w| w.by >= WEIGHT_LEAST).collect();
    out.sort_by(|a, b| b.by.total_cmp(&a.by));
    out
}

/// Worth in bytes of an outlook on the last of these occasions.
fn worth(outlook: &Outlook, occasions: &[Occasion<'_>]) -> f64 {
    let Some(last) = occasions.last() else { return 0.0 };
    let used: std::collections::HashMap<_, _> =
        last.uses.iter().filter(|u| u.visits > 0 && !u.created).map(|u| (&u.key, &u.extents)).collect();
    outlook
        .expected
        .iter()
        .map(|e| {
            let hit = used.get(&e.key).map_or(0, |u| u.overlap(&e.extents)) as f64;
            hit - crate::habit::WASTE_PRICE * (e.extents.bytes() as f64 - hit)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use foretide_flow::{FilePath, Timestamp, VolumeId};

    use super::*;
    use crate::habit::Candidate;
    use crate::history::PastUse;
    use crate::ranges::Ranges;
    use crate::run::FileKey;

    const FILES: u64 = 60;
    const SIZE: u64 = 1000;

    fn key(i: u64) -> FileKey {
        let path = FilePath::new(format!("d/f-{i}").as_bytes()).unwrap();
        FileKey { volume: VolumeId::new("v").unwrap(), path }
    }

    /// A run that reads each third file, always the same, in no order that names would tell.
    fn uses() -> Vec<PastUse> {
        let read = |i: u64| PastUse {
            key: key(i),
            size: SIZE,
            first_s: (i * 37 % FILES) as f64,
            visits: 1,
            extents: Ranges::one(0, SIZE),
            again: Ranges::default(),
            asked_bytes: SIZE,
            created: false,
        };
        (0..FILES).filter(|i| i * 7 % 3 == 0).map(read).collect()
    }

    #[test]
    fn what_is_told_is_put_down_to_what_tells_it() {
        let uses = uses();
        let candidates: Vec<Candidate> =
            (0..FILES).map(|i| Candidate { key: key(i), size: SIZE, modified_at: Timestamp(1) }).collect();
        let occasion = |day: i64| Occasion {
            at: Timestamp(day * 86_400_000_000),
            arguments: Vec::new(),
            candidates: candidates.clone(),
            uses: if day < 6 { &uses } else { &[] },
            drawn: None,
        };
        let occasions: Vec<Occasion<'_>> = (1..=6).map(occasion).collect();
        let outlook = Ranker::learn(&occasions, 1).unwrap().outlook(&occasions, &habits(&occasions));
        assert_eq!(outlook.expected.len(), uses.len());
        let past = [
            "read by the last run",
            "share of runs that read it while it was there",
            "place in the order of the last run",
        ];
        assert!(!outlook.weighed.is_empty() && outlook.weighed.is_sorted_by(|a, b| a.by >= b.by));
        assert!(outlook.weighed.iter().all(|w| past.contains(&w.feature)), "{:?}", outlook.weighed);
        assert!(Weighed::words(&outlook.weighed).contains(outlook.weighed[0].feature));
    }
}
