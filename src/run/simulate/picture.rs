//! What came of each way, as a picture: bars of stall and of bytes, and what the links carried minute by minute.

use std::fmt::Write as _;

use super::Way;

const WIDTH: f64 = 900.0;
const BAR: f64 = 22.0;
const LEFT: f64 = 110.0;
const CURVE: f64 = 90.0;
/// Blue, green, orange and grey that people who see colours otherwise can tell apart.
const COLOURS: [&str; 4] = ["#8c8c8c", "#4477aa", "#228833", "#ee7733"];

/// The picture as SVG.
pub(super) fn draw(ways: &[Way]) -> String {
    let mut body = String::new();
    let mut y = 30.0;
    let stall = |w: &Way| (w.report.stall_s, format!("{:.1} s", w.report.stall_s));
    let crossed = |w: &Way| (w.report.link_bytes, format!("{:.2} GB", w.report.link_bytes / 1e9));
    bars(&mut body, &mut y, "Stall", ways, stall);
    bars(&mut body, &mut y, "Bytes over links", ways, crossed);
    curves(&mut body, &mut y, ways);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" \
         font-size=\"13\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn title(body: &mut String, y: f64, text: &str) {
    let _ = writeln!(body, "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{text}</text>");
}

fn bars(body: &mut String, y: &mut f64, name: &str, ways: &[Way], of: impl Fn(&Way) -> (f64, String)) {
    title(body, *y, name);
    *y += 10.0;
    let most = ways.iter().map(|w| of(w).0).fold(f64::MIN_POSITIVE, f64::max);
    for (way, colour) in ways.iter().zip(COLOURS) {
        let (value, told) = of(way);
        let (length, middle) = ((WIDTH - LEFT - 120.0) * value / most, *y + BAR * 0.7);
        let _ = writeln!(
            body,
            "<text x=\"10\" y=\"{middle}\">{}</text><rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" \
             fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{middle}\">{told}</text>",
            way.name,
            BAR - 4.0,
            LEFT + length + 6.0,
        );
        *y += BAR;
    }
    *y += 30.0;
}

fn curves(body: &mut String, y: &mut f64, ways: &[Way]) {
    title(body, *y, "What links carried, by minute");
    *y += 10.0;
    let minutes = ways.iter().flat_map(|w| w.report.link_bytes_by_minute.keys()).max().copied().unwrap_or(0) + 1;
    let all = ways.iter().flat_map(|w| w.report.link_bytes_by_minute.values());
    let most = all.copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = (WIDTH - LEFT - 20.0) / minutes as f64;
    for (way, colour) in ways.iter().zip(COLOURS) {
        let base = *y + CURVE;
        let mut path = String::new();
        for (minute, bytes) in &way.report.link_bytes_by_minute {
            let (x, height) = (LEFT + step * *minute as f64, CURVE * bytes / most);
            let _ = write!(path, "M{x:.1} {base:.1}v{:.1}h{:.2}v{height:.1}z", -height, step.max(0.5));
        }
        let _ = writeln!(
            body,
            "<text x=\"10\" y=\"{:.1}\">{}</text><path d=\"{path}\" fill=\"{colour}\"/><path d=\"M{LEFT} {base}H{}\" \
             stroke=\"#cccccc\"/>",
            base - CURVE / 2.0,
            way.name,
            WIDTH - 20.0
        );
        *y += CURVE + 12.0;
    }
    *y += 10.0;
}

#[cfg(test)]
mod tests {
    use foretide_planner::simulate::Report;

    use super::*;

    #[test]
    fn every_way_is_in_the_picture() {
        let report = Report {
            stall_s: 2.0,
            link_bytes: 3e9,
            link_bytes_by_minute: [(0, 1.0), (3, 2.0)].into(),
            ..Report::default()
        };
        let ways = [Way { name: "off", report: report.clone() }, Way { name: "oracle", report }];
        let svg = draw(&ways);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.matches(">off<").count() == 3 && svg.matches(">oracle<").count() == 3, "{svg}");
        assert!(svg.contains("3.00 GB") && !svg.contains("NaN"));
    }
}
