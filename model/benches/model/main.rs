//! What the forecasters reach, one row for each figure that was set, and one table of what each part adds.
//!
//! `cargo bench -p foretide-model` (or `make bench-model`) wants the recorded traces beside the checkout, or where
//! `FORETIDE_TRACES` says. `--only PART` (one of the parts below, as often as wanted) runs some and replaces their rows in
//! the file. Reference is the best of what is known on the same trace in the same run: LRU, S3-FIFO and a Mithril-like
//! association; for jobs, replay of the last run.

mod blocks;
mod jobs;
mod lake;
mod made;
mod windows;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Measures one part out of the traces in a folder, and puts its rows into the table.
type Part = fn(&mut Table, &Path) -> Outcome;

/// What can be run alone, by name.
const PARTS: [(&str, Part); 11] = [
    ("blocks", blocks::streams),
    ("calibration", blocks::calibration),
    ("cost", blocks::cost),
    ("ablation", blocks::ablation),
    ("misses", blocks::misses),
    ("loader", jobs::loader),
    ("jobs", jobs::recorded),
    ("workflows", jobs::workflows),
    ("epochs", made::epochs),
    ("windows", windows::windows),
    ("lake", lake::training),
];

/// The rows, as they are written and printed.
#[derive(Default)]
struct Table(Vec<Value>);

/// A figure beside what it is compared with.
struct Figure<'n> {
    ours: f64,
    unit: &'n str,
    reference: f64,
    name: &'n str,
}

impl Table {
    /// A row that holds if ours is at least `bar`.
    fn at_least(&mut self, work: &str, figure: Figure<'_>, bar: f64) {
        let holds = figure.ours >= bar;
        self.row(work, figure, bar, holds);
    }

    /// A row that holds if ours is at most `bar`.
    fn at_most(&mut self, work: &str, figure: Figure<'_>, bar: f64) {
        let holds = figure.ours <= bar;
        self.row(work, figure, bar, holds);
    }

    fn row(&mut self, work: &str, f: Figure<'_>, bar: f64, holds: bool) {
        let ratio = if f.reference == 0.0 { Value::Null } else { json!(f.ours / f.reference) };
        println!(
            "{work:<58} {:>9.3} {:<14} {:>9.3} {:<12} bar {bar:>6.3} {holds}",
            f.ours, f.unit, f.reference, f.name
        );
        self.0.push(json!({"work": work, "ours": f.ours, "unit": f.unit, "reference": f.reference,
            "reference_name": f.name, "ratio": ratio, "bar": bar, "holds": holds}));
    }
}

fn main() -> Outcome {
    let root = traces()?;
    let only = only()?;
    let mut table = Table::default();
    for (_, part) in PARTS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)) {
        part(&mut table, &root)?;
    }
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    std::fs::create_dir_all(folder)?;
    let file = folder.join("model.json");
    let rows = if only.is_empty() { table.0 } else { replaced(&file, table.0) };
    std::fs::write(file, format!("{:#}\n", json!({ "rows": rows })))?;
    let missed = rows.iter().filter(|r| r["holds"] != true).count();
    println!("{} rows, {missed} below their bar", rows.len());
    Ok(())
}

/// The parts that are asked for; none stands for all.
fn only() -> Result<Vec<String>, String> {
    let words: Vec<String> = std::env::args().skip(1).filter(|w| w != "--bench").collect();
    let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    let names: Vec<String> = words.chunks(2).filter_map(|pair| pair.get(1).cloned()).collect();
    if words.len() % 2 == 1 || words.iter().step_by(2).any(|w| w != "--only") || !names.iter().all(known) {
        let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("only `--only PART` is known, with one of {}", parts.join(", ")));
    }
    Ok(names)
}

/// The rows of an earlier run, with these in place of those of the same work and unit.
fn replaced(file: &Path, new: Vec<Value>) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let earlier: Value = serde_json::from_str(&text).unwrap_or_default();
    let same = |a: &Value, b: &Value| a["work"] == b["work"] && a["unit"] == b["unit"];
    let kept = earlier["rows"].as_array().into_iter().flatten().filter(|row| !new.iter().any(|n| same(n, row)));
    kept.cloned().chain(new.iter().cloned()).collect()
}

fn traces() -> Result<PathBuf, String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces");
    let root = std::env::var("FORETIDE_TRACES").map_or_else(|_| PathBuf::from(beside), PathBuf::from);
    if root.is_dir() { Ok(root) } else { Err(format!("{}: no traces; set FORETIDE_TRACES", root.display())) }
}
