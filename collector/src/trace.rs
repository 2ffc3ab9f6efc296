//! Batches -> who read what and how much it waited, as values that print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use foretide_flow::{AccessBatch, AccessOp, FilePath, Found, Losses, RunId, Timestamp, VolumeId};
use serde::Serialize;

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its workload and command, where its start was seen.
    pub workload: String,
    /// For people.
    pub command: String,
    /// First and last access.
    pub first: Timestamp,
    /// Last access.
    pub last: Timestamp,
    /// Whether its end was seen.
    pub ended: bool,
    /// Processes that read.
    pub processes: usize,
    /// Different files touched.
    pub files: usize,
    /// Files opened, each open counted.
    pub opens: u64,
    /// Extents read or touched.
    pub extents: u64,
    /// Bytes read or touched.
    pub bytes: u64,
    /// Time blocked, seconds, all processes added up.
    pub blocked_s: f64,
    /// Extents that waited for a device.
    pub missed: u64,
    /// The files that waited longest, with seconds, at most [`WORST_FILES`].
    pub worst: Vec<(VolumeId, FilePath, f64)>,
}

/// Files named for each run.
pub const WORST_FILES: usize = 3;

/// What a set of batches says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// By run, the most waiting first.
    pub runs: Vec<(RunId, RunSummary)>,
    /// What is missing.
    pub losses: Losses,
}

/// Adds batches up, for `foretide trace` and `foretide top`.
#[derive(Default)]
pub struct Summariser {
    runs: BTreeMap<RunId, Tally>,
    losses: Losses,
}

#[derive(Default)]
struct Tally {
    summary: RunSummary,
    processes: BTreeSet<u32>,
    /// Seconds blocked by file.
    files: BTreeMap<(VolumeId, FilePath), f64>,
}

impl Summariser {
    /// Takes one batch.
    pub fn add(&mut self, batch: &AccessBatch) {
        for start in &batch.started {
            let run = self.runs.entry(start.run.clone()).or_default();
            run.summary.workload = start.workload.to_string();
            run.summary.command.clone_from(&start.command);
        }
        for access in &batch.accesses {
            let run = self.runs.entry(access.run.clone()).or_default();
            let seconds = f64::from(access.blocked_us) / 1e6;
            run.processes.insert(access.process);
            *run.files.entry((access.volume.clone(), access.path.clone())).or_default() += seconds;
            let s = &mut run.summary;
            s.first = if s.first == Timestamp::default() { access.at } else { s.first.min(access.at) };
            s.last = s.last.max(access.at);
            s.blocked_s += seconds;
            s.bytes += access.length;
            s.missed += u64::from(access.found == Found::Miss);
            match access.op {
                AccessOp::Open | AccessOp::Create => s.opens += 1,
                AccessOp::Read | AccessOp::Fault => s.extents += 1,
                AccessOp::Close => {}
            }
        }
        for end in &batch.ended {
            self.runs.entry(end.run.clone()).or_default().summary.ended = true;
        }
        self.losses.dropped_events += batch.losses.dropped_events;
        self.losses.unresolved += batch.losses.unresolved;
        self.losses.summarised += batch.losses.summarised;
    }

    /// Begins an interval: counts start anew, runs that go on keep their name.
    pub fn begin_interval(&mut self) {
        self.losses = Losses::default();
        self.runs.retain(|_, run| !run.summary.ended);
        for run in self.runs.values_mut() {
            let RunSummary { workload, command, .. } = std::mem::take(&mut run.summary);
            *run = Tally { summary: RunSummary { workload, command, ..RunSummary::default() }, ..Tally::default() };
        }
    }

    /// The sum so far.
    pub fn summary(&self) -> Summary {
        let mut runs: Vec<(RunId, RunSummary)> =
            self.runs.iter().map(|(run, tally)| (run.clone(), tally.summary())).collect();
        runs.sort_by(|a, b| b.1.blocked_s.total_cmp(&a.1.blocked_s).then(b.1.bytes.cmp(&a.1.bytes)));
        Summary { runs, losses: self.losses }
    }
}

impl Tally {
    fn summary(&self) -> RunSummary {
        let mut worst: Vec<(VolumeId, FilePath, f64)> =
            self.files.iter().filter(|(_, s)| **s > 0.0).map(|((v, p), s)| (v.clone(), p.clone(), *s)).collect();
        worst.sort_by(|a, b| b.2.total_cmp(&a.2));
        worst.truncate(WORST_FILES);
        RunSummary { processes: self.processes.len(), files: self.files.len(), worst, ..self.summary.clone() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["WORKLOAD", "PROCS", "FILES", "OPENS", "READ MB", "WAITED s", "MISSES"];
        writeln!(
            f,
            "{:32} {:>6} {:>8} {:>8} {:>12} {:>10} {:>8}  COMMAND",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6]
        )?;
        for (run, s) in &self.runs {
            let name = if s.workload.is_empty() { run.as_str() } else { &s.workload };
            let (megabytes, state) = (s.bytes as f64 / 1e6, if s.ended { "" } else { " (running)" });
            writeln!(
                f,
                "{name:32} {:>6} {:>8} {:>8} {megabytes:>12.1} {:>10.3} {:>8}  {}{state}",
                s.processes, s.files, s.opens, s.blocked_s, s.missed, s.command
            )?;
            for (volume, path, seconds) in &s.worst {
                writeln!(f, "    waited {seconds:.3} s for {volume}:{path}")?;
            }
        }
        let Losses { dropped_events, unresolved, summarised } = self.losses;
        writeln!(f, "missing: {dropped_events} dropped, {unresolved} unresolved, {summarised} summarised")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{Access, NodeId, SiteId};

    #[test]
    fn who_waited_most_comes_first() {
        let access = |run: &str, path: &str, length, blocked_us| Access {
            at: Timestamp(5),
            run: run.into(),
            process: 1,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(path).unwrap(),
            op: AccessOp::Read,
            offset: 0,
            length,
            blocked_us,
            found: Found::Unknown,
        };
        let batch = AccessBatch {
            node: NodeId::new("n").unwrap(),
            site: SiteId::new("s").unwrap(),
            sequence: 1,
            started: vec![],
            accesses: vec![access("a", "x", 10, 0), access("b", "y", 1, 2_000_000), access("b", "z", 1, 500_000)],
            ended: vec![],
            losses: Losses { dropped_events: 3, ..Losses::default() },
        };
        let mut summariser = Summariser::default();
        summariser.add(&batch);
        let summary = summariser.summary();
        assert_eq!(summary.runs[0].0.as_str(), "b");
        assert_eq!((summary.runs[0].1.files, summary.runs[0].1.bytes, summary.runs[0].1.blocked_s), (2, 2, 2.5));
        assert_eq!(summary.runs[0].1.worst[0].1.to_string(), "y");
        let text = summary.to_string();
        summariser.begin_interval();
        assert!(summariser.summary().runs.iter().all(|(_, s)| s.bytes == 0 && s.files == 0 && s.blocked_s == 0.0));
        assert_eq!(summariser.summary().losses, Losses::default());
        assert!(text.contains("missing: 3 dropped") && text.contains("waited 2.000 s for v:y"), "{text}");
    }
}
