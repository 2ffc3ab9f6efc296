//! A simulated day: forecasts come in round by round, one row a file; rows become extents, the plan follows them, and
//! what its slots say is carried.

use std::time::Instant;

use foretide_planner::assign::{Assignment, ChunkRow, Instance, group};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::draw::house;
use crate::table::Table;

/// Slots of a quarter of an hour; a round in each.
const SLOTS: u16 = 96;
/// Bytes of all files for each site, so that links are loaded alike at every size.
const SITE_BYTES: f64 = 1e12;
/// Files of a folder, which are wanted together; half as many to one and a half times as many.
const FILES: u32 = 1_000;
/// Part of the demands still to come that changes in a round.
const CHANGES: f64 = 0.01;

struct Day {
    seconds: f64,
    slowest_round_s: f64,
    extents: usize,
    carried: f64,
    asked: f64,
}

/// The rows of a round: folders of files that are wanted within the next hours.
fn arrive(rng: &mut ChaCha8Rng, rows: &mut Vec<ChunkRow>, files: u64, round: u16, (lists, bytes): (u32, f64)) {
    rows.clear();
    let mut folder = 0;
    while (rows.len() as u64) < files {
        folder += 1;
        let in_it = rng.random_range(FILES / 2..FILES * 3 / 2).min((files - rows.len() as u64) as u32);
        let deadline = (round + rng.random_range(1..12)).min(SLOTS - 1);
        let last_use = (deadline + rng.random_range(0..8)).min(SLOTS - 1);
        let (ways, p) = (rng.random_range(0..lists), rng.random_range(0.1f32..1.0));
        let size = bytes * rng.random_range(0.1..1.9);
        let worth = p * (size / 1e9) as f32 * rng.random_range(0.1f32..8.0);
        let row = |index: u32| ChunkRow {
            file: folder,
            index,
            bytes: (size * (1.0 + f64::from(index % 7) / 70.0)) as u32,
            worth,
            vain: 1.0 - p,
            ways,
            deadline,
            last_use,
        };
        rows.extend((0..in_it).map(row));
    }
}

/// Some of what is still to come is now worth more or less.
fn change(rng: &mut ChaCha8Rng, instance: &mut Instance, now: u16) -> Vec<u32> {
    let count = instance.demands().len();
    let mut changed: Vec<u32> =
        (0..(count as f64 * CHANGES) as usize).map(|_| rng.random_range(0..count as u32)).collect();
    changed.retain(|n| {
        let d = &mut instance.demands_mut()[*n as usize];
        let open = d.deadline > now && d.bytes > 0;
        d.worth *= if open { rng.random_range(0.3..2.0) } else { 1.0 };
        open
    });
    changed
}

fn simulate(sites: u32, files: u64) -> Day {
    let from = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(files);
    let base = house(&mut rng, sites, SLOTS);
    let (mut instance, kind) = (base.instance, (base.lists, SITE_BYTES * f64::from(sites) / files as f64));
    let mut plan = Assignment::default();
    let mut rows = Vec::new();
    let mut day = Day { seconds: 0.0, slowest_round_s: 0.0, extents: 0, carried: 0.0, asked: 0.0 };
    for now in 0..SLOTS {
        let share = files / u64::from(SLOTS) + u64::from(u64::from(now) < files % u64::from(SLOTS));
        arrive(&mut rng, &mut rows, share, now, kind);
        let round = Instant::now();
        day.carried += instance.carry(&mut plan, now);
        let mut changed = change(&mut rng, &mut instance, now);
        let first = instance.demands().len() as u32;
        for mut d in group(&rows) {
            d.release = now;
            day.asked += d.worth;
            instance.add(d);
        }
        changed.extend(first..instance.demands().len() as u32);
        plan = instance.replan(&plan, &changed);
        day.slowest_round_s = day.slowest_round_s.max(round.elapsed().as_secs_f64());
    }
    day.carried += instance.carry(&mut plan, SLOTS);
    assert_eq!(instance.excess_bytes(&plan), 0, "nothing was carried twice");
    day.extents = instance.demands().len();
    day.seconds = from.elapsed().as_secs_f64();
    day
}

/// Most memory that this process has had, GB; 0 where the system does not say.
fn peak_memory_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e9
}

/// Growth of the cost with the size, and the row of the largest.
pub fn rows(table: &mut Table) {
    table.note(format!("a simulated day, {SLOTS} rounds:"));
    table.note(format!(
        "{:>13} {:>6} {:>10} {:>8} {:>12} {:>8}",
        "files", "sites", "extents", "day s", "slowest s", "worth"
    ));
    let mut longest = 0.0;
    for (sites, files) in [(10, 1_000_000), (100, 10_000_000), (1_000, 100_000_000), (1_000, 1_000_000_000)] {
        let day = simulate(sites, files);
        table.note(format!(
            "{files:>13} {sites:>6} {:>10} {:>8.2} {:>12.3} {:>6.0} %",
            day.extents,
            day.seconds,
            day.slowest_round_s,
            100.0 * day.carried / day.asked
        ));
        longest = day.seconds;
    }
    table.row("1,000 sites, 10^9 files, a simulated day", longest, "s", None, 600.0);
    table.row("memory of that day", peak_memory_gb(), "GB", None, 16.0);
}
