//! When a workload comes back.
//!
//! Three hypotheses, each a function from the starts so far to the next one: it comes back a fixed *interval*
//! after its last start; what happened a *day* ago at this time happens again; what happened a *week* ago
//! does (which knows of two runs a day and of free weekends). Each is played over the starts seen, and its
//! confidence is the rule of succession over how often it was right: (kept + 1) / (tried + 2). One tried once
//! and kept is believed to two thirds, one never tried to one half. The most confident speaks; of equals the
//! one with the smaller error, then the simpler.

use std::time::Duration;

use foretide_flow::{Calendar, Timestamp};

/// A start within this share of the interval from where it was expected was kept.
const KEPT_SHARE: f64 = 0.15;
/// But never further off than this, seconds: an hour late is another time of day.
const KEPT_MOST_S: f64 = 3600.0;
/// Intervals that the interval hypothesis looks back on.
const INTERVALS: usize = 8;
const DAY_S: f64 = 86_400.0;
const WEEK_S: f64 = 7.0 * DAY_S;
/// Intervals without a start after which a workload is taken to have stopped coming.
const MISSED_MOST: f64 = 3.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hypothesis {
    Interval,
    Lag(f64),
}

/// A hypothesis and how it did.
#[derive(Clone, Copy, Debug)]
struct Trial {
    next_s: f64,
    interval_s: f64,
    confidence: f64,
    error_s: f64,
}

/// The calendar of a workload with these starts, oldest first, as seen at `now`.
pub fn calendar(starts: &[Timestamp], now: Timestamp) -> Calendar {
    let recent = &starts[starts.len().saturating_sub(Calendar::MAX_STARTS)..];
    let seconds: Vec<f64> = recent.iter().map(|s| s.as_secs_f64()).collect();
    let best = [Hypothesis::Interval, Hypothesis::Lag(DAY_S), Hypothesis::Lag(WEEK_S)]
        .into_iter()
        .filter_map(|h| trial(h, &seconds))
        .reduce(|a, b| {
            let better = b.confidence > a.confidence + 1e-9
                || ((b.confidence - a.confidence).abs() < 1e-9 && b.error_s < 0.8 * a.error_s);
            if better { b } else { a }
        });
    let mut out = Calendar { starts: recent.to_vec(), ..Calendar::default() };
    if let Some(trial) = best {
        out.period_s = Some(trial.interval_s);
        out.jitter_s = trial.error_s;
        (out.next_start, out.confidence) = expected(trial, now);
    }
    out
}

/// The next start as seen at `now`: a start that is overdue is expected one period later, with half the
/// confidence for each one missed.
fn expected(trial: Trial, now: Timestamp) -> (Option<Timestamp>, f64) {
    let slack = tolerance(trial.interval_s).max(3.0 * trial.error_s);
    let overdue = now.as_secs_f64() - trial.next_s - slack;
    if overdue <= 0.0 {
        return (Some(Timestamp::from_secs_f64(trial.next_s)), trial.confidence);
    }
    let missed = (overdue / trial.interval_s).ceil();
    if missed > MISSED_MOST {
        return (None, 0.0);
    }
    let next = trial.next_s + missed * trial.interval_s;
    (Some(Timestamp::from_secs_f64(next)), trial.confidence * 0.5f64.powf(missed))
}

fn tolerance(interval_s: f64) -> f64 {
    (KEPT_SHARE * interval_s).min(KEPT_MOST_S)
}

/// Plays a hypothesis over the starts; none if it says nothing of the next one.
fn trial(hypothesis: Hypothesis, starts: &[f64]) -> Option<Trial> {
    let next_s = next(hypothesis, starts)?;
    let (mut tried, mut kept, mut errors) = (0.0, 0.0, Vec::new());
    for i in 2..starts.len() {
        let Some(told) = next(hypothesis, &starts[..i]) else { continue };
        let error = (starts[i] - told).abs();
        tried += 1.0;
        if error <= tolerance(interval(&starts[..i])) {
            kept += 1.0;
            errors.push(error);
        }
    }
    let interval_s = next_s - starts.last()?;
    let error_s = if errors.is_empty() {
        tolerance(interval_s) / 3.0
    } else {
        (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt()
    };
    Some(Trial { next_s, interval_s, confidence: (kept + 1.0) / (tried + 2.0), error_s })
}

fn next(hypothesis: Hypothesis, starts: &[f64]) -> Option<f64> {
    let last = *starts.last()?;
    match hypothesis {
        Hypothesis::Interval => (starts.len() >= 2).then(|| last + interval(starts)),
        Hypothesis::Lag(lag) => {
            let slack = tolerance(interval(starts)).max(1.0);
            let spans = last - starts[0] >= lag - slack;
            starts.iter().map(|s| s + lag).find(|t| spans && *t > last + slack)
        }
    }
}

/// Median of the last intervals; a day where there is none.
fn interval(starts: &[f64]) -> f64 {
    let mut gaps: Vec<f64> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.drain(..gaps.len().saturating_sub(INTERVALS));
    gaps.sort_by(f64::total_cmp);
    match gaps.len() {
        0 => DAY_S,
        n => 0.5 * (gaps[(n - 1) / 2] + gaps[n / 2]),
    }
}

/// The window of a start that is expected at `at` with this jitter: 10 %, 50 % and 90 % of a normal.
pub fn window(at: Timestamp, jitter_s: f64) -> [Timestamp; 3] {
    let spread = Duration::from_secs_f64((1.2816 * jitter_s).clamp(0.0, 1e9));
    [at - spread, at, at + spread]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: &[f64], now: f64) -> Calendar {
        let starts: Vec<Timestamp> = seconds.iter().map(|s| Timestamp::from_secs_f64(*s)).collect();
        calendar(&starts, Timestamp::from_secs_f64(now))
    }

    #[test]
    fn one_start_says_nothing_two_say_half_three_say_more() {
        assert!(at(&[1000.0], 1001.0).confidence <= 0.5);
        let two = at(&[1000.0, 1040.0], 1041.0);
        assert_eq!((two.next_start, two.confidence), (Some(Timestamp::from_secs_f64(1080.0)), 0.5));
        let three = at(&[1000.0, 1040.0, 1081.0], 1082.0);
        assert!((three.confidence - 2.0 / 3.0).abs() < 1e-9);
        assert!((three.next_start.unwrap().as_secs_f64() - 1121.5).abs() < 1.0);
    }

    #[test]
    fn free_weekends_and_two_runs_a_day_are_learned() {
        let day = |d: f64, h: f64| d * DAY_S + h * 3600.0;
        // Monday to Friday at 08:00 for three weeks; the next after a Friday is the Monday.
        let weeks: Vec<f64> =
            (0..3).flat_map(|w| (0..5).map(move |d| f64::from(w * 7 + d))).map(|d| day(d, 8.0)).collect();
        let monday = at(&weeks, day(18.5, 8.0)).next_start.unwrap().as_secs_f64();
        assert!((monday - day(21.0, 8.0)).abs() < 60.0, "{}", monday / DAY_S);
        let twice: Vec<f64> = (0..6).flat_map(|d| [day(f64::from(d), 7.25), day(f64::from(d), 13.25)]).collect();
        let next = at(&twice, day(5.0, 14.0));
        assert!((next.next_start.unwrap().as_secs_f64() - day(6.0, 7.25)).abs() < 60.0);
        assert!(next.confidence > 0.8);
    }

    #[test]
    fn what_does_not_come_is_believed_less_and_then_not_at_all() {
        let starts = [0.0, 40.0, 80.0, 120.0];
        let on_time = at(&starts, 130.0);
        let missed = at(&starts, 170.0);
        assert!(missed.confidence < on_time.confidence && missed.next_start.unwrap() > on_time.next_start.unwrap());
        assert_eq!(at(&starts, 1000.0).next_start, None);
    }

    #[test]
    fn irregular_starts_are_not_believed() {
        let starts = [0.0, 11.0, 300.0, 310.0, 2000.0, 2100.0, 9000.0, 9001.0];
        assert!(at(&starts, 9002.0).confidence < 0.4);
    }
}
