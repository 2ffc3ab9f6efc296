//! `make bench-planner`: how near the best plans are, and how long they take.
//!
//! The first rows need the reference, HiGHS by `benches/planner-lp/lp.py`: its Python is named by
//! `FORETIDE_LP_PYTHON` (`python3` if it is not set), which must have `highspy` and `numpy`.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use foretide_planner::assign::{Assignment, ChunkRow, Demand, Instance, group};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Seeded instances that are compared with the optimum.
const INSTANCES: u64 = 40;
/// Subgradient steps for small instances.
const STEPS: u32 = 400;
/// Subgradient steps at 500,000 extents.
const STEPS_LARGE: u32 = 60;
/// Parts of extents are multiples of a chunk.
const CHUNK_BYTES: u64 = 1 << 20;

/// An instance and what the reference must know of it.
struct Drawn {
    instance: Instance,
    told: Value,
}

/// Sites in a ring of sources and sinks, extents with a deadline and a last use, total bytes `load` times what the
/// links into the sites carry.
fn draw(seed: u64, sites: u32, slots: u16, extents: usize, load: f64) -> Drawn {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut instance = Instance::new(slots, sites, CHUNK_BYTES);
    let sources = (sites / 4).max(1);
    let mut lanes = Vec::new();
    let mut ways_told = Vec::new();
    for to in sources..sites {
        let mut ways = Vec::new();
        for _ in 0..rng.random_range(1..=3u32) {
            let (from, rate) = (rng.random_range(0..sources), rng.random_range(2u64..40) << 28);
            let cost = [0.0, 0.02, 0.09][rng.random_range(0..3)] / 1e9;
            ways.push(instance.add_lane(from, to, rate, cost));
            lanes.push(json!([from, to, rate, cost]));
        }
        ways_told.push(json!(ways));
        instance.add_ways(ways);
    }
    let carried: f64 = lanes.iter().filter_map(|l| l[2].as_f64()).sum::<f64>() * f64::from(slots);
    let per_site = carried / f64::from(sites - sources);
    let (mut cache, mut egress, mut ingress) = (vec![0u64; sites as usize], vec![], vec![]);
    for site in 0..sites {
        let out = (carried / f64::from(slots) / f64::from(sources) * rng.random_range(0.5..1.5)) as u64;
        let inn = (per_site / f64::from(slots) * rng.random_range(0.6..2.0)) as u64;
        instance.limit_site(site, out, inn);
        egress.push(out);
        ingress.push(inn);
        if site >= sources {
            cache[site as usize] = (per_site * rng.random_range(0.1..0.6)) as u64;
            instance.set_cache(site, cache[site as usize]);
        }
    }
    let mean = carried * load / extents as f64;
    let mut told = Vec::new();
    for _ in 0..extents {
        let bytes = ((mean * rng.random_range(0.1f64..1.9)) as u64).max(1);
        let p: f64 = rng.random_range(0.1..1.0);
        let deadline = rng.random_range(0..slots);
        let last_use = (deadline + rng.random_range(0..slots / 4)).min(slots - 1);
        let stall_per_gb: f64 = 8.0 * rng.random_range(0.2f64..1.0).powi(2);
        let d = Demand {
            bytes,
            worth: p * stall_per_gb * bytes as f64 / 1e9 * rng.random_range(1.0..4.0) / 3.6,
            vain: (1.0 - p) as f32,
            ways: rng.random_range(0..sites - sources),
            release: 0,
            deadline,
            last_use,
        };
        instance.add(d);
        told.push(json!({"bytes": d.bytes, "worth": d.worth, "vain": d.vain, "ways": d.ways, "release": d.release,
            "deadline": d.deadline, "last_use": d.last_use}));
    }
    let told = json!({"slots": slots, "lanes": lanes, "ways": ways_told, "cache": cache, "egress": egress,
        "ingress": ingress, "demands": told});
    Drawn { instance, told }
}

/// Optima of the instances, or why there are none.
fn optima(cases: &[Drawn]) -> Result<Vec<f64>, String> {
    let python = std::env::var("FORETIDE_LP_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/planner-lp/lp.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{python}: {e}"))?;
    let mut input = child.stdin.take().ok_or("no pipe to the reference")?;
    let lines: Vec<String> = cases.iter().map(|c| c.told.to_string()).collect();
    let feed = std::thread::spawn(move || lines.iter().try_for_each(|l| writeln!(input, "{l}")));
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    let fed = feed.join().map_err(|_| "the feeding thread died")?;
    if !out.status.success() || fed.is_err() {
        return Err(format!("{python} failed: it needs highspy and numpy (pip install highspy numpy)"));
    }
    String::from_utf8_lossy(&out.stdout).lines().map(|l| l.parse().map_err(|e| format!("{l}: {e}"))).collect()
}

fn percent(x: f64) -> f64 {
    (x * 1e4).round() / 1e2
}

fn row(work: &str, ours: f64, unit: &str, reference: Option<(f64, &str)>, bar: &str, holds: bool) -> Value {
    let ratio = reference.map(|(r, _)| if r > 0.0 { ours / r } else { 0.0 });
    json!({"work": work, "ours": ours, "unit": unit, "reference": reference.map(|r| r.0),
        "reference_name": reference.map(|r| r.1), "ratio": ratio, "bar": bar, "holds": holds})
}

/// Value against the optimum.
fn against_the_optimum(rows: &mut Vec<Value>) {
    let draw_one = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xF0E7);
        let (sites, extents) = (rng.random_range(8..=20), rng.random_range(1_000..=5_000));
        draw(seed, sites, 24, extents, rng.random_range(0.7..3.0))
    };
    let cases: Vec<Drawn> = (0..INSTANCES).map(draw_one).collect();
    let made: Vec<[Assignment; 3]> =
        cases.iter().map(|c| [c.instance.priced(STEPS), c.instance.greedy(), c.instance.earliest_deadline()]).collect();
    let proved: Vec<f64> = made.iter().map(|m| m[0].gap()).collect();
    let mean = |g: &[f64]| percent(g.iter().sum::<f64>() / g.len() as f64);
    let worst = |g: &[f64]| percent(g.iter().copied().fold(0.0, f64::max));
    println!("certified, no solver: mean {} %, worst {} %", mean(&proved), worst(&proved));
    let best = match optima(&cases) {
        Ok(best) => best,
        Err(why) => {
            println!("no reference: {why}");
            return rows.push(row("gap to the LP optimum", f64::NAN, "%", None, "mean <= 1", false));
        }
    };
    let gaps = |which: usize| -> Vec<f64> {
        made.iter().zip(&best).map(|(m, best)| ((best - m[which].worth) / best).max(0.0)).collect()
    };
    let (ours, greedy, edf) = (gaps(0), gaps(1), gaps(2));
    let slack: Vec<f64> = made.iter().zip(&best).map(|(m, best)| (m[0].bound - best) / best).collect();
    println!(
        "bound above the optimum: mean {} %, least {} %",
        mean(&slack),
        percent(slack.iter().copied().fold(1.0, f64::min))
    );
    let name = "HiGHS; density greedy beside it";
    rows.push(row(
        "gap to the LP optimum, mean of 40",
        mean(&ours),
        "%",
        Some((mean(&greedy), name)),
        "<= 1",
        mean(&ours) <= 1.0,
    ));
    rows.push(row(
        "gap to the LP optimum, worst of 40",
        worst(&ours),
        "%",
        Some((worst(&greedy), name)),
        "<= 3",
        worst(&ours) <= 3.0,
    ));
    rows.push(row("gap of earliest deadline first, mean of 40", mean(&edf), "%", None, "a rival", true));
}

fn certified_live(rows: &mut Vec<Value>) {
    let drawn = draw(7, 100, 48, 500_000, 1.5).instance;
    let from = Instant::now();
    let a = drawn.priced(STEPS_LARGE);
    let gap = percent(a.gap());
    println!("500,000 extents: certified gap {gap} % in {:.2} s", from.elapsed().as_secs_f64());
    rows.push(row("certified gap at 500,000 extents", gap, "%", None, "<= 4", gap <= 4.0));
}

/// Ten million chunks, in files of 34.
fn chunk_rows(lists: u32) -> Vec<ChunkRow> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut rows = Vec::with_capacity(10_000_000);
    for file in 0..294_118u32 {
        let deadline = rng.random_range(0..48u16);
        let last_use = (deadline + rng.random_range(0..12)).min(47);
        let (ways, p) = (rng.random_range(0..lists), rng.random_range(0.1f32..1.0));
        rows.extend((0..34).map(|index| ChunkRow {
            file,
            index,
            bytes: CHUNK_BYTES as u32,
            worth: p * 0.01,
            vain: 1.0 - p,
            ways,
            deadline,
            last_use,
        }));
    }
    rows
}

fn from_rows_to_plan(rows: &mut Vec<Value>) {
    let base = draw(13, 100, 48, 1, 1e-3).instance;
    let lists = 75;
    let chunks = chunk_rows(lists);
    let mut times = Vec::new();
    let mut made = (Instance::new(1, 1, 1), Assignment::default());
    for _ in 0..3 {
        let mut instance = base.clone();
        let from = Instant::now();
        group(&chunks).into_iter().for_each(|d| instance.add(d));
        let plan = instance.greedy();
        times.push(from.elapsed().as_secs_f64());
        made = (instance, plan);
    }
    times.sort_by(f64::total_cmp);
    let took = times[1];
    rows.push(row(
        "10 M chunks x 100 sites x 48 slots, rows to plan",
        took,
        "s",
        Some((0.25, "plain greedy, elsewhere")),
        "<= 1",
        took <= 1.0,
    ));
    replan(rows, made);
}

/// One demand in a hundred changes.
fn replan(rows: &mut Vec<Value>, (mut instance, before): (Instance, Assignment)) {
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let count = instance.demands().len();
    let changed: Vec<u32> = (0..count / 100).map(|_| rng.random_range(0..count as u32)).collect();
    for n in &changed {
        let d = &mut instance.demands_mut()[*n as usize];
        d.worth *= rng.random_range(0.2..3.0);
        d.deadline = rng.random_range(0..=d.last_use);
    }
    let mut times = Vec::new();
    let mut after = Assignment::default();
    for _ in 0..5 {
        let from = Instant::now();
        after = instance.replan(&before, &changed);
        times.push(from.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    assert_eq!(instance.excess_bytes(&after), 0, "a replanned assignment fits");
    let altered = percent(altered(&before, &after, &changed));
    let fresh = instance.greedy();
    let lost = percent(1.0 - after.worth / fresh.worth);
    println!("replanned: {lost} % less worth than from scratch");
    rows.push(row("replanning after 1 % changed", times[2], "s", None, "<= 0.1", times[2] <= 0.1));
    rows.push(row("unaffected demands that replanning altered", altered, "%", None, "<= 5", altered <= 5.0));
}

fn altered(before: &Assignment, after: &Assignment, changed: &[u32]) -> f64 {
    let place = |a: &Assignment| {
        let mut by: std::collections::BTreeMap<u32, Vec<(u32, u16, u64)>> = std::collections::BTreeMap::new();
        a.parts.iter().for_each(|p| by.entry(p.demand).or_default().push((p.lane, p.slot, p.bytes)));
        by.values_mut().for_each(|v| v.sort_unstable());
        by
    };
    let changed: std::collections::HashSet<u32> = changed.iter().copied().collect();
    let (old, new) = (place(before), place(after));
    let kept = old.iter().filter(|(n, _)| !changed.contains(n));
    let differ = kept.clone().filter(|(n, at)| new.get(n) != Some(at)).count();
    differ as f64 / kept.count().max(1) as f64
}

fn main() -> std::io::Result<()> {
    let mut rows = Vec::new();
    against_the_optimum(&mut rows);
    certified_live(&mut rows);
    from_rows_to_plan(&mut rows);
    println!("{:<52} {:>9} {:<3} {:>9}  {:<8} holds", "work", "ours", "", "beside", "bar");
    for r in &rows {
        let number = |v: &Value| v.as_f64().map_or("-".into(), |f| format!("{f:.3}"));
        println!(
            "{:<52} {:>9} {:<3} {:>9}  {:<8} {}",
            r["work"].as_str().unwrap_or(""),
            number(&r["ours"]),
            r["unit"].as_str().unwrap_or(""),
            number(&r["reference"]),
            r["bar"].as_str().unwrap_or(""),
            r["holds"]
        );
    }
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("planner.json"), format!("{:#}\n", json!({ "rows": rows })))?;
    match rows.iter().all(|r| r["holds"] == true) {
        true => Ok(()),
        false => Err(std::io::Error::other("a bar was missed")),
    }
}
