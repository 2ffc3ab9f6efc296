//! A profile as a picture: its facts, its starts by day and time of day, its path shapes by bytes. Plain SVG, no scripts.

use std::fmt::Write;

use foretide_flow::{ExtentHabit, OrderHabit, Profile};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
const LINE: f64 = 20.0;
const CLOCK_HEIGHT: f64 = 120.0;
const CLOCK_LEFT: f64 = 60.0;
const DAY_S: f64 = 86_400.0;
/// Hours that the clock is marked at.
const HOURS: [u32; 5] = [0, 6, 12, 18, 24];

/// The profile as an SVG document.
pub fn picture(profile: &Profile) -> String {
    let facts = facts(profile);
    let clock_top = MARGIN + LINE * (facts.len() as f64 + 2.0);
    let shapes_top = clock_top + CLOCK_HEIGHT + 3.0 * LINE;
    let height = shapes_top + LINE * 1.4 * (profile.templates.len() as f64 + 1.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut out, MARGIN, MARGIN + LINE * 0.7, "#111", &profile.command);
    for (i, fact) in facts.iter().enumerate() {
        text(&mut out, MARGIN, MARGIN + LINE * (i as f64 + 1.8), "#555", fact);
    }
    clock(&mut out, profile, clock_top);
    shapes(&mut out, profile, shapes_top);
    out.push_str("</svg>\n");
    out
}

/// In which order a workload reads, in words.
pub fn order_in_words(p: &Profile) -> String {
    match (&p.drawn, p.order) {
        (Some(drawn), _) => format!("in an order {drawn}"),
        (None, OrderHabit::Unknown) => "in an order not yet known".to_owned(),
        (None, OrderHabit::Sequential) => "in the same order each time".to_owned(),
        (None, OrderHabit::Shuffled) => "in a fresh random order each epoch".to_owned(),
        (None, OrderHabit::Irregular) => "in no order, by popularity".to_owned(),
    }
}

/// What a profile says, in lines.
pub(super) fn facts(p: &Profile) -> Vec<String> {
    let order = order_in_words(p);
    let extent = match p.extent {
        ExtentHabit::Unknown => "read to an extent not yet known".to_owned(),
        ExtentHabit::Whole => "read whole".to_owned(),
        ExtentHabit::Partial { share } => format!("read in parts, {:.0} % of their bytes", 100.0 * share),
    };
    let place = p.volume.as_ref().map_or(String::new(), |v| format!(" below {v}:/{}", p.root));
    let mut out = vec![
        format!("{} files, {:.1} MB an epoch{place}", p.files_per_epoch, p.bytes_per_epoch as f64 / 1e6),
        format!("{order}; files {extent}; {:.1} epochs a run", p.epochs_per_run),
        format!(
            "{:.1} MB/s by {:.1} readers; {:.0} % of a run's bytes were read by the run before",
            p.bytes_per_second / 1e6,
            p.readers,
            100.0 * p.reuse
        ),
        format!("{} runs, {} accesses seen", p.runs, p.accesses),
    ];
    if let Some(period) = p.calendar.period_s {
        let sure = 100.0 * p.calendar.confidence;
        out.push(format!("comes back every {period:.0} s, give or take {:.0} s, to {sure:.0} %", p.calendar.jitter_s));
    }
    out
}

/// A dot for each start: days from left to right, time of day (UTC) downwards.
fn clock(out: &mut String, profile: &Profile, top: f64) {
    let starts: Vec<f64> = profile.calendar.starts.iter().map(|s| s.as_secs_f64()).collect();
    let (Some(first), Some(last)) = (starts.first(), starts.last()) else { return };
    text(out, MARGIN, top, "#111", "starts, by day and time of day (UTC)");
    let top = top + LINE * 0.6;
    for hour in HOURS {
        let y = top + CLOCK_HEIGHT * f64::from(hour) / 24.0;
        text(out, MARGIN, y + 4.0, "#888", &format!("{hour:02}:00"));
        let _ = writeln!(
            out,
            "<line x1=\"{CLOCK_LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
            WIDTH - MARGIN
        );
    }
    let days = ((last - first) / DAY_S).max(1.0);
    for start in &starts {
        let x = CLOCK_LEFT + 8.0 + (WIDTH - MARGIN - CLOCK_LEFT - 16.0) * (start - first) / (days * DAY_S);
        let y = top + CLOCK_HEIGHT * start.rem_euclid(DAY_S) / DAY_S;
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#0a6ebd\" fill-opacity=\"0.7\"/>");
    }
}

/// A bar for each path shape.
fn shapes(out: &mut String, profile: &Profile, top: f64) {
    let most = profile.templates.iter().map(|t| t.bytes).max().unwrap_or(0).max(1) as f64;
    for (i, template) in profile.templates.iter().enumerate() {
        let y = top + LINE * 1.4 * i as f64;
        let width = 0.5 * WIDTH * template.bytes as f64 / most;
        let _ = writeln!(
            out,
            "<rect x=\"{MARGIN}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"18\" fill=\"#9fc5e3\"/>",
            y - 13.0
        );
        let told = format!(
            "{}:/{}  {} files, {:.1} MB",
            template.volume,
            template.shape,
            template.files,
            template.bytes as f64 / 1e6
        );
        text(out, MARGIN + 4.0, y, "#111", &told);
    }
}

fn text(out: &mut String, x: f64, y: f64, ink: &str, what: &str) {
    let safe = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{ink}\">{safe}</text>");
}
