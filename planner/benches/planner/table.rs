//! What a bench found, on the screen and as `target/bench/planner.json`.

use serde_json::{Value, json};

/// Rows as they are measured, part by part; each is printed at once.
pub struct Table {
    order: Vec<&'static str>,
    part: &'static str,
    rows: Vec<Value>,
}

pub fn percent(x: f64) -> f64 {
    (x * 1e4).round() / 1e2
}

impl Table {
    /// No rows of these parts yet.
    pub fn of(parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self { order: parts.into_iter().collect(), part: "", rows: Vec::new() }
    }

    /// What follows is of this part.
    pub fn part(&mut self, name: &'static str) {
        self.part = name;
    }

    /// What was measured, beside what, and what it may be at most.
    pub fn row(&mut self, work: &str, ours: f64, unit: &str, reference: Option<(f64, &str)>, at_most: f64) {
        let holds = ours <= at_most;
        let beside = reference.map_or(String::new(), |(r, name)| format!("{r:.3} {unit} {name}"));
        println!("{work:<54} {ours:>9.3} {unit:<3} <= {at_most:<6} {holds:<6} {beside}");
        let ratio = reference.and_then(|(r, _)| (r > 0.0).then_some(ours / r));
        self.rows.push(
            json!({"part": self.part, "work": work, "ours": ours, "unit": unit, "reference": reference.map(|r| r.0),
            "reference_name": reference.map(|r| r.1), "ratio": ratio, "bar": format!("<= {at_most}"), "holds": holds}),
        );
    }

    /// What could not be measured.
    pub fn missing(&mut self, work: &str, unit: &str, bar: &str) {
        println!("{work:<54} not measured");
        self.rows.push(json!({"part": self.part, "work": work, "ours": null, "unit": unit, "reference": null, "reference_name": null,
            "ratio": null, "bar": bar, "holds": false}));
    }

    /// Beside the rows.
    pub fn note(&mut self, text: String) {
        println!("  {text}");
    }

    /// Writes the file: what was measured now, and what earlier runs said of parts that did not run.
    ///
    /// # Errors
    /// If it cannot be written, or a bar was missed.
    pub fn close(self) -> std::io::Result<()> {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
        let file = folder.join("planner.json");
        let before: Value = serde_json::from_slice(&std::fs::read(&file).unwrap_or_default()).unwrap_or_default();
        let ran = |part: &str| self.rows.iter().any(|r| r["part"] == part);
        let old = before["rows"].as_array().into_iter().flatten().filter(|r| !r["part"].as_str().is_none_or(ran));
        let mut rows: Vec<&Value> = self.rows.iter().chain(old).collect();
        rows.sort_by_key(|r| self.order.iter().position(|part| r["part"] == *part));
        std::fs::create_dir_all(folder)?;
        std::fs::write(file, format!("{:#}\n", json!({ "rows": rows })))?;
        match self.rows.iter().all(|r| r["holds"] == true) {
            true => Ok(()),
            false => Err(std::io::Error::other("a bar was missed")),
        }
    }
}
