//! `make bench-planner`: how near the best plans are, how long they take, and that they never harm.
//!
//! The first rows need the reference, HiGHS by `benches/planner-lp/lp.py`: its Python is named by
//! `FORETIDE_LP_PYTHON` (`python3` if it is not set); `make bench-planner` makes one. `BENCH="--only rows,day"` runs
//! these parts alone and leaves the other parts' rows in the file as they are.

mod day;
mod draw;
mod optimum;
mod ring;
mod scale;
mod table;

use table::Table;

/// A part of the bench by its name.
type Part = (&'static str, fn(&mut Table));

const PARTS: [Part; 6] = [
    ("optimum", optimum::rows),
    ("certified", scale::certified),
    ("rows", scale::rows_to_plan),
    ("day", day::rows),
    ("harm", ring::never_worse_than_off),
    ("round", ring::round),
];

fn main() -> std::io::Result<()> {
    let only = asked(std::env::args().skip(1)).map_err(std::io::Error::other)?;
    let mut table = Table::of(PARTS.map(|(name, _)| name));
    for (name, run) in PARTS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)) {
        table.part(name);
        run(&mut table);
    }
    table.close()
}

/// Names after `--only`; Cargo adds `--bench` of its own.
fn asked(mut args: impl Iterator<Item = String>) -> Result<Vec<String>, String> {
    let mut only = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--only" => only.extend(args.next().unwrap_or_default().split(',').map(str::to_owned)),
            other => return Err(format!("{other}: only --only PART,… is known")),
        }
    }
    match only.iter().find(|o| PARTS.iter().all(|(name, _)| name != o)) {
        Some(unknown) => Err(format!("no part {unknown}: there are {}", PARTS.map(|(name, _)| name).join(", "))),
        None => Ok(only),
    }
}
