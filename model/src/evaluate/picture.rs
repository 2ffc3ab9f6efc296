//! The table as a picture: one bar a contender, hits on the left, bytes wasted on the right. Plain SVG, no scripts.

use std::fmt::Write;

use super::{Report, size};

const ROW: usize = 26;
const LEFT: usize = 110;
const BAR: usize = 300;
const WIDTH: usize = 2 * (LEFT + BAR) + 60;
const TOP: usize = 76;

/// The report as an SVG document.
pub fn picture(report: &Report) -> String {
    let most_waste = report.rows.iter().map(|r| r.wasted_bytes).max().unwrap_or(0).max(1) as f64;
    let mut canvas = Canvas::new(WIDTH, TOP + ROW * report.rows.len() + 20);
    let name = report.trace.rsplit('/').next().unwrap_or_default();
    canvas.text(12, 24, "start", "#111", &format!("{name}: {} requests", report.requests));
    let under = format!("cache {}, link {}", size(report.cache_bytes), report.link);
    canvas.text(12, 44, "start", "#555", &under);
    canvas.text(LEFT, 66, "start", "#555", "requests that found all bytes here");
    canvas.text(LEFT + BAR + 100, 66, "start", "#555", "bytes fetched ahead and not read");
    for (i, row) in report.rows.iter().enumerate() {
        let y = TOP + ROW * i;
        canvas.text(LEFT - 8, y + 15, "end", "#111", &row.name);
        let hits = format!("{:.1} %", 100.0 * row.hit_ratio);
        canvas.bar((LEFT, y), (BAR, 20), row.hit_ratio, ink(&row.name), &hits);
        let waste = row.wasted_bytes as f64 / most_waste;
        canvas.bar((LEFT + BAR + 100, y), (BAR, 20), waste, "#c96f4a", &size(row.wasted_bytes));
    }
    canvas.done()
}

/// The colour of a way to prefetch: ours, the bounds, the others.
pub(crate) fn ink(name: &str) -> &'static str {
    match name {
        "foretide" => "#0a6ebd",
        "oracle" | "belady" => "#bbb",
        _ => "#7f9db5",
    }
}

/// An SVG document that is being written.
pub(crate) struct Canvas(String);

impl Canvas {
    /// A white sheet of so many pixels.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        ))
    }

    /// A bar that fills this share of its room, with its figure behind it.
    pub(crate) fn bar(&mut self, at: (usize, usize), room: (usize, usize), share: f64, ink: &str, label: &str) {
        let ((x, y), (most, height)) = (at, room);
        let width = (share.clamp(0.0, 1.0) * most as f64).round() as usize;
        let bar = format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{ink}\"/>");
        let _ = writeln!(self.0, "{bar}");
        self.text(x + width + 6, y + height / 2 + 5, "start", "#333", label);
    }

    /// A line of text, anchored at its start or end.
    pub(crate) fn text(&mut self, x: usize, y: usize, anchor: &str, ink: &str, what: &str) {
        let safe = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.0, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{ink}\">{safe}</text>");
    }

    /// The whole document.
    pub(crate) fn done(self) -> String {
        self.0 + "</svg>\n"
    }
}
