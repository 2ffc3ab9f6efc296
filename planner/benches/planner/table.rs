//! What a bench found, on the screen and as `target/bench/planner.json`.

use serde_json::{Value, json};

/// Rows as they are measured; each is printed at once.
#[derive(Default)]
pub struct Table {
    rows: Vec<Value>,
}

pub fn percent(x: f64) -> f64 {
    (x * 1e4).round() / 1e2
}

impl Table {
    /// What was measured, beside what, and what it may be at most.
    pub fn row(&mut self, work: &str, ours: f64, unit: &str, reference: Option<(f64, &str)>, at_most: f64) {
        let holds = ours <= at_most;
        let beside = reference.map_or(String::new(), |(r, name)| format!("{r:.3} {unit} {name}"));
        println!("{work:<54} {ours:>9.3} {unit:<3} <= {at_most:<6} {holds:<6} {beside}");
        let ratio = reference.and_then(|(r, _)| (r > 0.0).then_some(ours / r));
        self.rows.push(json!({"work": work, "ours": ours, "unit": unit, "reference": reference.map(|r| r.0),
            "reference_name": reference.map(|r| r.1), "ratio": ratio, "bar": format!("<= {at_most}"), "holds": holds}));
    }

    /// What could not be measured.
    pub fn missing(&mut self, work: &str, unit: &str, bar: &str) {
        println!("{work:<54} not measured");
        self.rows.push(json!({"work": work, "ours": null, "unit": unit, "reference": null, "reference_name": null,
            "ratio": null, "bar": bar, "holds": false}));
    }

    /// Beside the rows.
    pub fn note(&mut self, text: String) {
        println!("  {text}");
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If it cannot be written, or a bar was missed.
    pub fn close(self) -> std::io::Result<()> {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("planner.json"), format!("{:#}\n", json!({ "rows": self.rows })))?;
        match self.rows.iter().all(|r| r["holds"] == true) {
            true => Ok(()),
            false => Err(std::io::Error::other("a bar was missed")),
        }
    }
}
