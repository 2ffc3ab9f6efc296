//! Large instances: how near the best without a solver, how long from rows to a plan, and how long to the next plan.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use foretide_planner::assign::{Assignment, ChunkRow, Instance, group};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::draw::{CHUNK_BYTES, draw, house};
use crate::table::{Table, percent};

/// Steps down the dual at 500,000 extents.
const STEPS_LARGE: u32 = 100;
/// Steps from rows to a plan, beyond those of the sample.
const STEPS_FAST: u32 = 6;
/// Chunks in a file.
const CHUNKS: u32 = 34;

/// The certified gap at 500,000 extents.
pub fn certified(table: &mut Table) {
    let instance = draw(7, 100, 48, 500_000, 1.5).instance;
    let from = Instant::now();
    let ours = instance.priced(STEPS_LARGE);
    let took = from.elapsed().as_secs_f64();
    let greedy = 1.0 - instance.greedy().worth / ours.bound;
    table.note(format!("500,000 extents x 100 sites x 48 slots: certified in {took:.2} s"));
    let beside = Some((percent(greedy), "greedy, by the same bound"));
    table.row("certified gap at 500,000 extents", percent(ours.gap()), "%", beside, 4.0);
}

/// Ten million chunks of files that are wanted whole, half as many again as the links carry.
fn chunk_rows(lists: u32) -> Vec<ChunkRow> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut rows = Vec::with_capacity(10_000_000);
    for file in 0..10_000_000 / CHUNKS {
        let deadline = rng.random_range(0..48u16);
        let last_use = (deadline + rng.random_range(0..12)).min(47);
        let (ways, p) = (rng.random_range(0..lists), rng.random_range(0.1f32..1.0));
        let urgency = rng.random_range(0.001f32..0.02);
        let row = |index| ChunkRow {
            file,
            index,
            bytes: 6 * CHUNK_BYTES as u32,
            worth: p * urgency,
            vain: 1.0 - p,
            ways,
            deadline,
            last_use,
        };
        rows.extend((0..CHUNKS).map(row));
    }
    rows
}

/// From rows to a plan, and from that plan to the next.
pub fn rows_to_plan(table: &mut Table) {
    let base = house(&mut ChaCha8Rng::seed_from_u64(13), 100, 48);
    let chunks = chunk_rows(base.lists);
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    let mut made = (Instance::new(1, 1, 1), Assignment::default());
    for _ in 0..3 {
        let mut instance = base.instance.clone();
        let from = Instant::now();
        group(&chunks).into_iter().for_each(|d| instance.add(d));
        let grouped = from.elapsed().as_secs_f64();
        let plan = instance.certified(STEPS_FAST);
        ours.push(from.elapsed().as_secs_f64());
        let from = Instant::now();
        instance.greedy();
        plain.push(grouped + from.elapsed().as_secs_f64());
        made = (instance, plan);
    }
    let gap = percent(made.1.gap());
    table.note(format!("10 M chunks: {} extents, certified gap {gap} %", made.0.demands().len()));
    let beside = Some((median(&mut plain), "grouping + plain greedy"));
    table.row("10 M chunks x 100 sites x 48 slots, rows to plan", median(&mut ours), "s", beside, 1.0);
    replan(table, made);
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// One demand in a hundred changes.
fn replan(table: &mut Table, (mut instance, before): (Instance, Assignment)) {
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let count = instance.demands().len();
    let changed: Vec<u32> = (0..count / 100).map(|_| rng.random_range(0..count as u32)).collect();
    for n in &changed {
        let d = &mut instance.demands_mut()[*n as usize];
        d.worth *= rng.random_range(0.2..3.0);
        d.deadline = rng.random_range(0..=d.last_use);
    }
    let (mut times, mut scratch) = (Vec::new(), Vec::new());
    let mut after = Assignment::default();
    for _ in 0..5 {
        let from = Instant::now();
        after = instance.replan(&before, &changed);
        times.push(from.elapsed().as_secs_f64());
        let from = Instant::now();
        instance.greedy();
        scratch.push(from.elapsed().as_secs_f64());
    }
    assert_eq!(instance.excess_bytes(&after), 0, "a replanned assignment fits");
    let fresh = instance.greedy();
    table.note(format!("replanned: {} % less worth than from scratch", percent(1.0 - after.worth / fresh.worth)));
    let beside = Some((median(&mut scratch), "plain greedy from scratch"));
    table.row("replanning after 1 % changed", median(&mut times), "s", beside, 0.1);
    let ours = percent(altered(&before, &after, &changed));
    let beside = Some((percent(altered(&before, &fresh, &changed)), "from scratch"));
    table.row("unaffected demands that replanning altered", ours, "%", beside, 5.0);
}

/// Part of the demands that did not change and travel otherwise than before.
fn altered(before: &Assignment, after: &Assignment, changed: &[u32]) -> f64 {
    let place = |a: &Assignment| {
        let mut by: BTreeMap<u32, Vec<(u32, u16, u64)>> = BTreeMap::new();
        a.parts.iter().for_each(|p| by.entry(p.demand).or_default().push((p.lane, p.slot, p.bytes)));
        by.values_mut().for_each(|v| v.sort_unstable());
        by
    };
    let changed: HashSet<u32> = changed.iter().copied().collect();
    let (old, new) = (place(before), place(after));
    let kept = old.iter().filter(|(n, _)| !changed.contains(n));
    let differ = kept.clone().filter(|(n, at)| new.get(n) != Some(at)).count();
    differ as f64 / kept.count().max(1) as f64
}
