//! Rows of "must show": measured beside their reference, printed, and written as JSON.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

/// One row.
pub struct Row {
    pub work: &'static str,
    pub ours: f64,
    pub unit: &'static str,
    pub reference: f64,
    pub reference_name: &'static str,
    /// What is compared with the bar: `at_least` says on which side it must lie.
    pub ratio: f64,
    pub bar: f64,
    pub at_least: bool,
}

impl Row {
    fn holds(&self) -> bool {
        if self.at_least { self.ratio >= self.bar } else { self.ratio <= self.bar }
    }
}

/// Runs ours and the reference in turn, so that both see the same machine; the medians of `runs`.
pub fn in_turn(runs: usize, mut ours: impl FnMut(), mut reference: impl FnMut()) -> (f64, f64) {
    ours();
    reference();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        a.push(seconds(&mut ours));
        b.push(seconds(&mut reference));
    }
    (median(a), median(b))
}

pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Prints the table, and writes it as JSON if a file is named; whether every row holds.
pub fn show(rows: &[Row], json: Option<&Path>) -> bool {
    println!("{:<76} {:>12} {:>12}  {:<30} {:>6} {:>9}", "work", "ours", "reference", "", "ratio", "bar");
    for row in rows {
        let bar = format!("{} {}", if row.at_least { ">=" } else { "<=" }, row.bar);
        let verdict = if row.holds() { "" } else { "  MISSED" };
        println!(
            "{:<76} {:>12} {:>12}  {:<30} {:>6.2} {bar:>9}{verdict}",
            row.work,
            format!("{:.4} {}", row.ours, row.unit),
            format!("{:.4} {}", row.reference, row.unit),
            row.reference_name,
            row.ratio,
        );
    }
    if let Some(at) = json {
        write(rows, at);
    }
    rows.iter().all(Row::holds)
}

fn write(rows: &[Row], at: &Path) {
    let json: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({"work": r.work, "ours": r.ours, "unit": r.unit, "reference": r.reference,
                   "reference_name": r.reference_name, "ratio": r.ratio, "bar": r.bar, "holds": r.holds()})
        })
        .collect();
    std::fs::create_dir_all(at.parent().expect("a folder")).expect("target/bench can be made");
    let text = serde_json::to_string_pretty(&json!({ "rows": json })).expect("numbers and text");
    std::fs::write(at, text).expect("target/bench can be written");
}
