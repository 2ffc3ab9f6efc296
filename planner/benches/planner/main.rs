//! `make bench-planner`: how near the best plans are, how long they take, and that they never harm.
//!
//! The first rows need the reference, HiGHS by `benches/planner-lp/lp.py`: its Python is named by
//! `FORETIDE_LP_PYTHON` (`python3` if it is not set); `make bench-planner` makes one. Names of parts as arguments run
//! these parts alone: `optimum`, `certified`, `rows`, `day`, `harm`, `round`.

mod day;
mod draw;
mod optimum;
mod ring;
mod scale;
mod table;

use table::Table;

/// A part of the bench by its name.
type Part = (&'static str, fn(&mut Table));

fn main() -> std::io::Result<()> {
    let parts: [Part; 6] = [
        ("optimum", optimum::rows),
        ("certified", scale::certified),
        ("rows", scale::rows_to_plan),
        ("day", day::rows),
        ("harm", ring::never_worse_than_off),
        ("round", ring::round),
    ];
    // Cargo adds `--bench` of its own.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let mut table = Table::default();
    for (_, part) in parts.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|a| a == name)) {
        part(&mut table);
    }
    table.close()
}
