//! The table and its file.

use std::path::PathBuf;

use crate::Result;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// At most the bar times the reference.
    AtMost,
    /// At least that.
    AtLeast,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub work: String,
    pub ours: f64,
    pub unit: &'static str,
    pub reference: f64,
    pub reference_name: String,
    pub bar: f64,
    pub wanted: Wanted,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.reference
    }

    fn holds(&self) -> bool {
        match self.wanted {
            Wanted::AtMost => self.ratio() <= self.bar,
            Wanted::AtLeast => self.ratio() >= self.bar,
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "work": self.work, "ours": self.ours, "unit": self.unit, "reference": self.reference,
            "reference_name": self.reference_name, "ratio": self.ratio(), "bar": self.bar, "holds": self.holds(),
        })
    }
}

/// Prints the rows and writes `target/bench/mover.json`.
pub fn report(rows: &[Row]) -> Result<()> {
    println!("\n{:<64} {:>9} {:<6} {:>9} {:<40} {:>6} {:>5}", "work", "ours", "unit", "reference", "", "ratio", "bar");
    for r in rows {
        let holds = if r.holds() { "holds" } else { "MISSED" };
        let Row { work, ours, unit, reference, reference_name, bar, .. } = r;
        let ratio = r.ratio();
        println!(
            "{work:<64} {ours:>9.3} {unit:<6} {reference:>9.3} {reference_name:<40} {ratio:>6.2} {bar:>5.2} {holds}"
        );
    }
    let folder = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("bench");
    std::fs::create_dir_all(&folder)?;
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    std::fs::write(folder.join("mover.json"), serde_json::to_vec_pretty(&serde_json::json!({ "rows": rows }))?)?;
    Ok(())
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The value that a share `p` of all is not above.
pub fn percentile(mut all: Vec<f64>, p: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * p).round() as usize]
}
