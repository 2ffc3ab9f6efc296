//! How the last run of each job was told, as a picture: a group of bars a job, one line for each way. Plain SVG, no scripts.

use super::{JobReport, RecurrenceReport, Row};
use crate::evaluate::picture::{Canvas, ink};

const ROW: usize = 20;
const TOP: usize = 40;
const HEAD: usize = 44;
const LEFT: usize = 90;
const BAR: usize = 150;
/// From one column to the next: the bar, and room for its figure.
const COLUMN_WIDTH: usize = BAR + 60;

/// A column: its title, which rows, and which figure of each.
struct Column {
    title: &'static str,
    rows: fn(&JobReport) -> &[Row],
    figure: fn(&Row) -> f64,
}

const COLUMNS: [Column; 4] = [
    Column { title: "before: coverage", rows: |job| &job.before, figure: |row| row.byte_coverage },
    Column { title: "before: precision", rows: |job| &job.before, figure: |row| row.byte_precision },
    Column { title: "while it runs: coverage", rows: |job| &job.during, figure: |row| row.byte_coverage },
    Column { title: "while it runs: precision", rows: |job| &job.during, figure: |row| row.byte_precision },
];

/// The report as an SVG document.
pub fn picture(report: &RecurrenceReport) -> String {
    let mut canvas =
        Canvas::new(LEFT + COLUMNS.len() * COLUMN_WIDTH, TOP + report.jobs.iter().map(height).sum::<usize>());
    for (i, column) in COLUMNS.iter().enumerate() {
        canvas.text(LEFT + i * COLUMN_WIDTH, 24, "start", "#555", column.title);
    }
    let mut top = TOP;
    for job in &report.jobs {
        draw(&mut canvas, top, job);
        top += height(job);
    }
    canvas.done()
}

fn height(job: &JobReport) -> usize {
    HEAD + ROW * job.before.len()
}

fn draw(canvas: &mut Canvas, top: usize, job: &JobReport) {
    canvas.text(12, top + 16, "start", "#111", &format!("{}, told from {} runs", job.job, job.learned_from));
    canvas.text(12, top + 34, "start", "#555", &calendar(job));
    for (i, row) in job.before.iter().enumerate() {
        canvas.text(LEFT - 8, top + HEAD + ROW * i + 13, "end", "#111", &row.name);
    }
    for (number, column) in COLUMNS.iter().enumerate() {
        for (i, row) in (column.rows)(job).iter().enumerate() {
            let (x, y) = (LEFT + number * COLUMN_WIDTH, top + HEAD + ROW * i);
            let figure = (column.figure)(row);
            canvas.bar((x, y), (BAR, ROW - 4), figure, ink(&row.name), &format!("{figure:.3}"));
        }
    }
}

/// What playing its calendar came to.
fn calendar(job: &JobReport) -> String {
    let Some(season) = &job.season else { return String::new() };
    let waits: Vec<String> = season.rows.iter().map(|r| format!("{} waits {:.1} s", r.name, r.stall_s)).collect();
    format!("its whole calendar through a site: {}", waits.join(", "))
}
