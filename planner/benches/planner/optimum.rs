//! Value against the optimum of the linear program, as HiGHS finds it.
//!
//! HiGHS takes seconds to a minute for an instance, so an optimum that was found is kept beside it, by the digest of the
//! instance and of the script: a run that is cut off goes on where it was.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use foretide_planner::assign::Assignment;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::draw::{Drawn, draw};
use crate::table::{Table, percent};

/// Seeded instances that are compared.
const INSTANCES: u64 = 40;
/// Steps down the dual.
const STEPS: u32 = 400;

/// 8 to 20 sites, up to 5,000 extents, loads of 0.7 to 3.
fn draw_one(seed: u64) -> Drawn {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xF0E7);
    let (sites, extents) = (rng.random_range(8..=20), rng.random_range(1_000..=5_000));
    draw(seed, sites, 24, extents, rng.random_range(0.7..3.0))
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/planner-lp/lp.py");
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/planner-lp/optima");

/// Optima of the instances, or why there are none.
fn optima(cases: &[Drawn]) -> Result<Vec<f64>, String> {
    let script = std::fs::read(SCRIPT).map_err(|e| format!("{SCRIPT}: {e}"))?;
    std::fs::create_dir_all(KEPT).map_err(|e| format!("{KEPT}: {e}"))?;
    let kept = |case: &Drawn| {
        let digest = blake3::Hasher::new().update(&script).update(case.told.to_string().as_bytes()).finalize();
        std::path::Path::new(KEPT).join(digest.to_hex().as_str())
    };
    let known = |case: &Drawn| std::fs::read_to_string(kept(case)).ok()?.trim().parse::<f64>().ok();
    let unknown: Vec<&Drawn> = cases.iter().filter(|c| known(c).is_none()).collect();
    if !unknown.is_empty() {
        ask(&unknown, |line| {
            let (number, optimum) =
                line.split_once(' ').ok_or_else(|| format!("no number before the optimum: {line}"))?;
            let case = number.parse().ok().and_then(|n: usize| unknown.get(n)).ok_or_else(|| line.to_owned())?;
            std::fs::write(kept(case), optimum).map_err(|e| e.to_string())
        })?;
    }
    cases.iter().map(|c| known(c).ok_or_else(|| "the reference left instances out".to_owned())).collect()
}

/// Asks the reference, and hands on each line of its answer as it comes.
fn ask(cases: &[&Drawn], mut answer: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    let python = std::env::var("FORETIDE_LP_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut child = Command::new(&python)
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{python}: {e}"))?;
    let mut input = child.stdin.take().ok_or("no pipe to the reference")?;
    let output = child.stdout.take().ok_or("no pipe from the reference")?;
    let lines: Vec<String> = cases.iter().map(|c| c.told.to_string()).collect();
    let feed = std::thread::spawn(move || lines.iter().try_for_each(|l| writeln!(input, "{l}")));
    for line in BufReader::new(output).lines() {
        answer(&line.map_err(|e| e.to_string())?)?;
    }
    let ended = child.wait().map_err(|e| e.to_string())?;
    let fed = feed.join().map_err(|_| "the feeding thread died")?;
    if !ended.success() || fed.is_err() {
        return Err(format!("{python} failed: it needs highspy and numpy, see benches/planner-lp/requirements.txt"));
    }
    Ok(())
}

fn mean(of: &[f64]) -> f64 {
    percent(of.iter().sum::<f64>() / of.len() as f64)
}

fn worst(of: &[f64]) -> f64 {
    percent(of.iter().copied().fold(0.0, f64::max))
}

/// Both rows of the gap, with the rivals beside them.
pub fn rows(table: &mut Table) {
    let cases: Vec<Drawn> = (0..INSTANCES).map(draw_one).collect();
    let from = Instant::now();
    let ours: Vec<Assignment> = cases.iter().map(|c| c.instance.priced(STEPS)).collect();
    let took = from.elapsed().as_secs_f64() / INSTANCES as f64;
    let greedy: Vec<Assignment> = cases.iter().map(|c| c.instance.greedy()).collect();
    let edf: Vec<Assignment> = cases.iter().map(|c| c.instance.earliest_deadline()).collect();
    let certified: Vec<f64> = ours.iter().map(Assignment::gap).collect();
    table.note(format!(
        "40 instances: {took:.2} s each; certified without a solver: mean {} %, worst {} %",
        mean(&certified),
        worst(&certified)
    ));
    let best = match optima(&cases) {
        Ok(best) => best,
        Err(why) => {
            table.note(format!("no reference: {why}"));
            return table.missing("gap to the LP optimum", "%", "mean <= 1, worst <= 3");
        }
    };
    let gaps = |of: &[Assignment]| -> Vec<f64> {
        of.iter().zip(&best).map(|(a, best)| ((best - a.worth) / best).max(0.0)).collect()
    };
    let slack: Vec<f64> = ours.iter().zip(&best).map(|(a, best)| (a.bound - best) / best).collect();
    table.note(format!(
        "the bound is above the optimum by {} % in the mean, by {} % at most, by {} % at least",
        mean(&slack),
        worst(&slack),
        percent(slack.iter().copied().fold(1.0, f64::min))
    ));
    let (ours, greedy, edf) = (gaps(&ours), gaps(&greedy), gaps(&edf));
    let beside = |of: f64| Some((of, "greedy by worth per byte, against HiGHS"));
    table.row("gap to the LP optimum, mean of 40", mean(&ours), "%", beside(mean(&greedy)), 1.0);
    table.row("gap to the LP optimum, worst of 40", worst(&ours), "%", beside(worst(&greedy)), 3.0);
    table.note(format!("earliest deadline first: mean {} %, worst {} %", mean(&edf), worst(&edf)));
    let all: Vec<String> = ours.iter().map(|g| percent(*g).to_string()).collect();
    table.note(format!("gaps by seed, %: {}", all.join(" ")));
}
