//! In which order, and how often, a run will visit the blocks of the files that it is expected to read.
//!
//! A file that stands in for another (tonight's newest day for last night's) is visited as that one was: its *teacher*,
//! block by block, what lies near the end tied to the end. Any other is visited as it was itself, over all its runs:
//! the more often a block was had, and the earlier, the sooner it is expected; where orders differ from run to run, their
//! mean is what they have in common. Moments are shares of a run's visits, because runs differ in pace.

use std::collections::{BTreeMap, HashMap};

use foretide_flow::FilePath;

use super::PlayedRun;
use crate::drawn::Set;
use crate::evaluate::demand::Demand;
use crate::foresight::Expected;
use crate::habit::Outlook;

/// Uses of a block within so many requests of a run are one visit.
const ONE_VISIT: usize = 32;
/// How much less each run further back counts.
const FADE: f64 = 0.8;
/// What is expected less surely than this is not fetched: over a wide-area link a read that waits costs hundreds of times
/// what its bytes do.
const LEAST_PROBABILITY: f64 = 0.3;
/// Blocks this close to the end of a file are tied to its end: footers and indexes.
const TAIL_BLOCKS: u64 = 2;

/// When a run visited each block of a file, counted from its first: shares of the run's visits, ascending.
type Visits = BTreeMap<u64, Vec<f64>>;

/// One run's visits, by file.
#[derive(Default)]
struct Timeline {
    files: HashMap<u32, Visits>,
}

/// The timelines of all runs of a trace.
pub(super) struct Timelines<'a> {
    runs: HashMap<&'a str, Timeline>,
}

impl<'a> Timelines<'a> {
    /// From what each run read.
    pub(super) fn new(demand: &'a Demand<'a>) -> Self {
        let mut visits: HashMap<&str, Vec<(u32, u64)>> = HashMap::new();
        let (mut requests, mut used) = (HashMap::<&str, usize>::new(), HashMap::<(&str, u64), usize>::new());
        for step in &demand.steps {
            let run = demand.trace.streams[step.stream as usize].run.as_str();
            let request = requests.entry(run).or_default();
            *request += 1;
            let first = demand.places[step.file as usize].base / demand.block_bytes;
            for block in demand.blocks(step) {
                let before = used.insert((run, block), *request);
                if before.is_none_or(|before| *request - before > ONE_VISIT) {
                    visits.entry(run).or_default().push((step.file, block - first));
                }
            }
        }
        let timeline = |visits: Vec<(u32, u64)>| {
            let mut out = Timeline::default();
            for (i, (file, block)) in visits.iter().enumerate() {
                let at = i as f64 / visits.len() as f64;
                out.files.entry(*file).or_default().entry(*block).or_default().push(at);
            }
            out
        };
        Self { runs: visits.into_iter().map(|(run, visits)| (run, timeline(visits))).collect() }
    }

    /// Those of these runs, oldest first.
    pub(super) fn of(&self, runs: &[PlayedRun]) -> Past<'_> {
        Past { runs: runs.iter().filter_map(|r| self.runs.get(r.run.as_str())).collect() }
    }
}

/// The timelines of the runs that are known, oldest first.
pub(super) struct Past<'t> {
    runs: Vec<&'t Timeline>,
}

/// When a block is expected to be visited first, and after that, shares of a run; and how often.
struct Told {
    at: Vec<f64>,
    count: f64,
}

/// The visits that an outlook amounts to.
pub(super) fn expected(outlook: &Outlook, past: &Past<'_>, demand: &Demand<'_>) -> Expected {
    let (mut visits, mut counts) = (Vec::new(), HashMap::new());
    let span = outlook.drawn.as_ref().map(|set| past.span(demand, set));
    let turns: usize = outlook.expected.iter().map(|e| e.turns.len()).sum();
    for e in outlook.expected.iter().filter(|e| e.probability >= LEAST_PROBABILITY) {
        let Some(file) = demand.file(e.key.path.as_bytes()) else { continue };
        let place = demand.places[file as usize];
        let blocks = place.size.div_ceil(demand.block_bytes);
        let teacher = e.taught_by.as_ref().filter(|t| **t != e.key).and_then(|t| demand.file(t.path.as_bytes()));
        for (from, to) in e.extents.as_slice() {
            for block in from / demand.block_bytes..to.min(&place.size).div_ceil(demand.block_bytes) {
                let told = match (span, teacher) {
                    (Some(span), _) if !e.turns.is_empty() => {
                        in_turn(&e.turns, span, block as f64 / (blocks as f64 * turns as f64))
                    }
                    (_, Some(teacher)) => {
                        let of_teacher = demand.places[teacher as usize].size.div_ceil(demand.block_bytes);
                        let tail = block + TAIL_BLOCKS >= blocks;
                        past.as_taught(teacher, if tail { (of_teacher + block).saturating_sub(blocks) } else { block })
                    }
                    (_, None) => past.as_before(file, block),
                };
                let number = place.base / demand.block_bytes + block;
                if counts.insert(number, (e.probability * told.count) as f32).is_none() {
                    visits.extend(told.at.into_iter().map(|at| (at, number)));
                }
            }
        }
    }
    visits.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    Expected {
        visits: visits.into_iter().map(|(_, block)| block).collect(),
        counts,
        spread: past.spread() as f32,
        in_order: true,
        drawn: outlook.drawn.is_some(),
    }
}

/// A block of a file whose turns are drawn: within what the run reads of the set, and within its file.
fn in_turn(turns: &[f64], (from, to): (f64, f64), within: f64) -> Told {
    let at = turns.iter().map(|turn| from + (to - from) * (turn + within).min(1.0)).collect();
    Told { at, count: turns.len() as f64 }
}

impl Past<'_> {
    /// From when to when the last run visited files of this set; all of it if it had none.
    fn span(&self, demand: &Demand<'_>, set: &Set) -> (f64, f64) {
        let path = |file: u32| FilePath::new(demand.trace.files[file as usize].path.as_slice());
        let files = self.runs.last().into_iter().flat_map(|run| &run.files);
        let mine = files.filter(|(file, _)| path(**file).is_ok_and(|path| set.covers(&path)));
        let visits = mine.flat_map(|(_, visits)| visits.values().flatten().copied());
        let (from, to) = visits.fold((1.0, 0.0), |(from, to), at| (f64::min(from, at), f64::max(to, at)));
        if from < to { (from, to) } else { (0.0, 1.0) }
    }

    /// As the last run visited this block of the teacher; one that it left out, as the nearest before it that it had.
    fn as_taught(&self, teacher: u32, block: u64) -> Told {
        let visits = self.runs.last().and_then(|run| run.files.get(&teacher));
        if let Some(at) = visits.and_then(|v| v.get(&block)) {
            return Told { at: at.clone(), count: at.len() as f64 };
        }
        let nearest = visits.and_then(|v| v.range(..block).next_back().or_else(|| v.iter().next()));
        Told { at: vec![nearest.map_or(1.0, |(_, at)| at[0])], count: 1.0 }
    }

    /// As past runs visited this block, the newer counting more; a run that read the file and not the block counts as
    /// one that would have come to it at its end.
    fn as_before(&self, file: u32, block: u64) -> Told {
        let (mut weights, mut first, mut count, mut later, mut weight) = (0.0, 0.0, 0.0, None, 1.0);
        for visits in self.runs.iter().rev().filter_map(|run| run.files.get(&file)) {
            let at = visits.get(&block);
            weights += weight;
            first += weight * at.map_or(1.0, |at| at[0]);
            count += weight * at.map_or(0, Vec::len) as f64;
            later = later.or(at);
            weight *= FADE;
        }
        let (Some(later), true) = (later, weights > 0.0) else { return Told { at: vec![1.0], count: 1.0 } };
        let count = count / weights;
        let more = (count.round() as usize).saturating_sub(1);
        let first = first / weights;
        let at = std::iter::once(first).chain(later[1..].iter().copied().filter(|at| *at > first).take(more));
        Told { at: at.collect(), count }
    }

    /// How visits spread, as [`Expected::spread`]: over the last two runs, for blocks that either had; of a single run,
    /// over its blocks.
    fn spread(&self) -> f64 {
        let counts = |run: &Timeline| -> HashMap<(u32, u64), f64> {
            let of = |(file, visits): (&u32, &Visits)| -> Vec<((u32, u64), f64)> {
                visits.iter().map(|(block, at)| ((*file, *block), at.len() as f64)).collect()
            };
            run.files.iter().flat_map(of).collect()
        };
        let (squares, sum) = match self.runs.as_slice() {
            [] => return 0.0,
            [one] => {
                let counts: Vec<f64> = counts(one).into_values().collect();
                let mean = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
                (counts.iter().map(|n| (n - mean) * (n - mean)).sum::<f64>(), counts.iter().sum::<f64>())
            }
            [.., before, last] => {
                let (before, last) = (counts(before), counts(last));
                let new = last.iter().filter(|(block, _)| !before.contains_key(*block)).map(|(_, n)| (0.0, *n));
                let had = before.iter().map(|(block, n)| (*n, last.get(block).copied().unwrap_or(0.0)));
                had.chain(new).fold((0.0, 0.0), |(squares, sum), (a, b)| (squares + (a - b) * (a - b), sum + a + b))
            }
        };
        (squares / f64::max(sum, 1.0)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that visited these blocks of file 7 in this order.
    fn run(blocks: &[u64]) -> Timeline {
        let mut out = Timeline::default();
        for (i, block) in blocks.iter().enumerate() {
            let at = i as f64 / blocks.len() as f64;
            out.files.entry(7).or_default().entry(*block).or_default().push(at);
        }
        out
    }

    #[test]
    fn a_block_comes_when_it_came_on_average_and_late_where_it_was_left_out() {
        let runs = [run(&[1, 2, 3, 4]), run(&[2, 1, 3, 3])];
        let past = Past { runs: runs.iter().collect() };
        let told = |block| past.as_before(7, block);
        assert!((told(1).at[0] - (0.25 + FADE * 0.0) / (1.0 + FADE)).abs() < 1e-9);
        assert!(told(4).at[0] > told(3).at[0], "the last run left it out");
        assert!((told(4).count - FADE / (1.0 + FADE)).abs() < 1e-9);
        assert_eq!(told(3).at.len(), 2, "visited twice the last time, and once before");
        assert_eq!(told(9).at, [1.0], "never visited");
    }

    #[test]
    fn what_has_a_teacher_comes_as_that_came() {
        let runs = [run(&[9, 0, 4, 4])];
        let past = Past { runs: runs.iter().collect() };
        assert_eq!(past.as_taught(7, 4).at, [0.5, 0.75]);
        assert_eq!(past.as_taught(7, 6).at, [0.5], "as the nearest before it");
        assert_eq!(past.as_taught(8, 6).at, [1.0], "a teacher of whom nothing is known");
    }

    #[test]
    fn visits_spread_where_they_are_drawn_and_not_where_they_are_passes() {
        let spread = |runs: &[Timeline]| Past { runs: runs.iter().collect() }.spread();
        assert_eq!(spread(&[run(&[1, 2, 3, 3, 2, 1])]), 0.0);
        assert_eq!(spread(&[run(&[1, 2, 3]), run(&[3, 1, 2])]), 0.0);
        assert!(spread(&[run(&[1, 1, 1, 1, 1, 1, 2, 3])]) > 0.8);
        assert!(spread(&[run(&[1, 1, 1, 2, 3]), run(&[2, 2, 2, 3, 1])]) > 0.5);
    }
}
