//! A plan in words, for people: `foretide plan show`, `explain` and `diff`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use foretide_flow::{FilePath, Move, MoveCause, Plan, SiteId, Timestamp};
use serde::Serialize;

/// Most lines of each section of [`show`]: a screen. The rest is counted.
const SHOWN_LINES: usize = 20;

/// A start that shifts by less is no change, microseconds: an agent learns of a plan no sooner.
const START_NOISE_US: i64 = 500_000;

/// Seconds from `now`, as people say it.
fn when(at: Timestamp, now: Timestamp) -> String {
    let seconds = (at.0 - now.0) as f64 / 1e6;
    match seconds.abs() {
        s if s < 120.0 => format!("{seconds:+.1} s"),
        s if s < 7_200.0 => format!("{:+.1} min", seconds / 60.0),
        _ => format!("{:+.1} h", seconds / 3_600.0),
    }
}

fn bytes(n: u64) -> String {
    match n as f64 {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        _ => format!("{n} B"),
    }
}

fn cause(of: &MoveCause) -> String {
    match of {
        MoveCause::Forecast { forecast, workload } => format!("forecast {forecast} of workload {workload}"),
        MoveCause::Warmup { warmup } => format!("warm-up {warmup}"),
    }
}

/// Moves of one cause over one link.
#[derive(Default)]
struct Stream {
    moves: u64,
    bytes: u64,
    benefit_s: f64,
    cost: f64,
    first: Option<Timestamp>,
    last_due: Option<Timestamp>,
}

/// The plan on a screen: streams of moves by link and cause, refusals, what was left out.
pub fn show(plan: &Plan) -> String {
    let mut streams: BTreeMap<(&SiteId, &SiteId, String), Stream> = BTreeMap::new();
    for m in &plan.moves {
        let s = streams.entry((&m.from, &m.to, cause(&m.cause))).or_default();
        s.moves += 1;
        s.bytes += m.length;
        s.benefit_s += m.benefit_s;
        s.cost += m.cost;
        s.first = s.first.into_iter().chain([m.start_at]).min();
        s.last_due = s.last_due.max(Some(m.due_at));
    }
    let total: u64 = plan.moves.iter().map(|m| m.length).sum();
    let mut text = format!("plan {}: {} moves, {}\n", plan.id, plan.moves.len(), bytes(total));
    let lines = streams.iter().map(|((from, to, cause), s)| {
        format!(
            "  {from} -> {to}: {} moves, {}, start {}, due by {}, saves {:.1} s, costs {:.2}: {cause}",
            s.moves,
            bytes(s.bytes),
            when(s.first.unwrap_or_default(), plan.made_at),
            when(s.last_due.unwrap_or_default(), plan.made_at),
            s.benefit_s,
            s.cost
        )
    });
    section(&mut text, "moves", lines);
    let refused = plan.refused.iter().map(|r| format!("  {} {} to {}: rule {}", r.volume, name(&r.path), r.to, r.rule));
    section(&mut text, "refused", refused);
    let left = plan.left_out.iter().map(|l| {
        format!("  {} {} to {}: {} files, {}: {}", l.volume, name(&l.path), l.to, l.files, bytes(l.bytes), l.why)
    });
    section(&mut text, "left out", left);
    text
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    lines.iter().take(SHOWN_LINES).for_each(|l| {
        let _ = writeln!(text, "{l}");
    });
    if lines.len() > SHOWN_LINES {
        let _ = writeln!(text, "  and {} more", lines.len() - SHOWN_LINES);
    }
}

fn name(path: &FilePath) -> String {
    if path.is_root() { "(all of it)".into() } else { path.to_string() }
}

/// Everything that the plan says of one file, or of a folder and what is below it.
pub fn explain(plan: &Plan, path: &FilePath) -> String {
    let mut text = String::new();
    for m in plan.moves.iter().filter(|m| m.path.is_within(path)) {
        let _ = writeln!(
            text,
            "move {}: {} {} [{}, {}) from {} to {}\n  starts {}, due {}, kept until {}; read with probability {:.2}; saves {:.3} s, costs {:.4}\n  {}\n  because {}",
            m.id,
            m.volume,
            name(&m.path),
            m.offset,
            m.offset + m.length,
            m.from,
            m.to,
            when(m.start_at, plan.made_at),
            when(m.due_at, plan.made_at),
            when(m.keep_until, plan.made_at),
            m.probability,
            m.benefit_s,
            m.cost,
            cause(&m.cause),
            m.reason
        );
        if m.shared_bytes > 0 {
            let _ = writeln!(text, "  {} of it are there in other files or come with them", bytes(m.shared_bytes));
        }
    }
    for r in plan.refused.iter().filter(|r| r.path.is_within(path) || path.is_within(&r.path)) {
        let _ = writeln!(text, "refused: {} {} to {} by rule {}", r.volume, name(&r.path), r.to, r.rule);
    }
    for l in plan.left_out.iter().filter(|l| l.path.is_within(path) || path.is_within(&l.path)) {
        let _ = writeln!(text, "left out: {} {} to {} ({} files): {}", l.volume, name(&l.path), l.to, l.files, l.why);
    }
    if text.is_empty() {
        let _ =
            writeln!(text, "the plan says nothing of {}: no forecast or warm-up names it, or it is there", name(path));
    }
    text
}

/// How one plan differs from the one before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlanDiff {
    /// Moves that are new.
    pub added: Vec<Move>,
    /// Moves that are gone: done, or no longer wanted.
    pub removed: Vec<Move>,
    /// Moves whose source or start differs, as they are now, with the start before.
    pub changed: Vec<(Move, Timestamp)>,
    /// Moves that stayed as they were.
    pub kept: usize,
}

/// What changed from one plan to the next. A start that has passed in both, or shifts by less than half a second,
/// is no change.
pub fn diff(before: &Plan, after: &Plan) -> PlanDiff {
    let old: HashMap<_, _> = before.moves.iter().map(|m| (&m.id, m)).collect();
    let mut found = PlanDiff::default();
    for m in &after.moves {
        match old.get(&m.id) {
            None => found.added.push(m.clone()),
            Some(was) if was.from != m.from || shift_us(was, m, after.made_at) > START_NOISE_US => {
                found.changed.push((m.clone(), was.start_at));
            }
            Some(_) => found.kept += 1,
        }
    }
    let new: std::collections::HashSet<_> = after.moves.iter().map(|m| &m.id).collect();
    found.removed = before.moves.iter().filter(|m| !new.contains(&m.id)).cloned().collect();
    found
}

fn shift_us(was: &Move, is: &Move, now: Timestamp) -> i64 {
    (was.start_at.max(now).0 - is.start_at.max(now).0).abs()
}

impl std::fmt::Display for PlanDiff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (added, removed, changed) = (self.added.len(), self.removed.len(), self.changed.len());
        writeln!(f, "{added} added, {removed} removed, {changed} changed, {} kept", self.kept)?;
        let line = |sign: char, m: &Move| format!("{sign} {} {} to {}: {}", m.volume, name(&m.path), m.to, m.reason);
        self.added.iter().take(SHOWN_LINES).try_for_each(|m| writeln!(f, "{}", line('+', m)))?;
        self.removed.iter().take(SHOWN_LINES).try_for_each(|m| writeln!(f, "{}", line('-', m)))?;
        self.changed.iter().take(SHOWN_LINES).try_for_each(|(m, was)| {
            writeln!(f, "~ {} {} to {}: starts {} to before", m.volume, name(&m.path), m.to, when(m.start_at, *was))
        })
    }
}
