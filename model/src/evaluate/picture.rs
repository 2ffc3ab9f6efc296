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
    let height = TOP + ROW * report.rows.len() + 20;
    let most_waste = report.rows.iter().map(|r| r.wasted_bytes).max().unwrap_or(0).max(1) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let name = report.trace.rsplit('/').next().unwrap_or_default();
    text(&mut out, 12, 24, "start", "#111", &format!("{name}: {} requests", report.requests));
    let under = format!("cache {}, link {}", size(report.cache_bytes), report.link);
    text(&mut out, 12, 44, "start", "#555", &under);
    text(&mut out, LEFT, 66, "start", "#555", "requests that found all bytes here");
    text(&mut out, LEFT + BAR + 100, 66, "start", "#555", "bytes fetched ahead and not read");
    for (i, row) in report.rows.iter().enumerate() {
        let y = TOP + ROW * i;
        let ink = match row.name.as_str() {
            "foretide" => "#0a6ebd",
            "oracle" | "belady" => "#bbb",
            _ => "#7f9db5",
        };
        text(&mut out, LEFT - 8, y + 15, "end", "#111", &row.name);
        bar(&mut out, LEFT, y, row.hit_ratio, ink, &format!("{:.1} %", 100.0 * row.hit_ratio));
        let waste = row.wasted_bytes as f64 / most_waste;
        bar(&mut out, LEFT + BAR + 100, y, waste, "#c96f4a", &size(row.wasted_bytes));
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, x: usize, y: usize, share: f64, ink: &str, label: &str) {
    let width = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let _ = writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"20\" fill=\"{ink}\"/>");
    text(out, x + width + 6, y + 15, "start", "#333", label);
}

fn text(out: &mut String, x: usize, y: usize, anchor: &str, ink: &str, what: &str) {
    let safe = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{ink}\">{safe}</text>");
}
