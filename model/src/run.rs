//! One running run: what it has read so far.
//!
//! A *visit* is one pass over a file: opened, read, closed. The k-th visit of each file makes up pass (epoch)
//! k of the run, so passes are told apart file by file, and several worker processes, some of which are
//! already in the next pass while others finish this one, do not blur them. Opens of a file shortly after its
//! last visit (fewer than a tenth of the run's files later) belong to that visit: libraries open a file twice
//! to look at its head. A handful of files read again and again cannot feign a pass either: a pass has begun
//! when a tenth of the run's files were visited that often.

use std::collections::{HashMap, VecDeque};

use foretide_flow::{Access, AccessOp, FilePath, NodeId, RunId, RunStart, SiteId, Timestamp, VolumeId, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::drawn::Passes;
use crate::ranges::Ranges;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileKey {
    /// The volume.
    pub volume: VolumeId,
    /// The file in it.
    pub path: FilePath,
}

/// What a run did with one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileUse {
    /// Which file.
    pub key: FileKey,
    /// Passes over it.
    pub visits: u32,
    /// First access.
    pub first_at: Timestamp,
    /// The run's count of visits when this file was last visited.
    last_turn: u64,
    /// Opens not yet closed.
    open: u16,
    /// Bytes that read calls returned, repeats counted.
    pub bytes: u64,
    /// Which bytes.
    pub extents: Ranges,
    /// Which of them more than once.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub again: Ranges,
    /// Whether the run itself made it.
    pub created: bool,
}

impl FileUse {
    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        self.open > 0
    }
}

/// One visit, as the recent past keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// Index into [`LiveRun::files`].
    pub file: u32,
    /// When.
    pub at: Timestamp,
    /// Whether the file had never been visited in this run.
    pub first: bool,
}

/// A running run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveRun {
    /// Its name.
    pub run: RunId,
    /// Its workload.
    pub workload: WorkloadId,
    /// Where it runs.
    pub site: SiteId,
    /// On which node.
    pub node: NodeId,
    /// When it started.
    pub started_at: Timestamp,
    /// Numbers of its command line.
    #[serde(default)]
    pub numbers: Vec<Option<u32>>,
    /// Its last access.
    pub last_at: Timestamp,
    /// Accesses.
    pub accesses: u64,
    /// Visits.
    pub turns: u64,
    /// Files, in order of first access.
    files: Vec<FileUse>,
    #[serde(skip)]
    index: HashMap<FileKey, u32>,
    /// Files with at least k+1 visits.
    passes: Vec<u32>,
    /// The last visits, oldest first, at most [`LiveRun::RECENT_VISITS`].
    recent: VecDeque<Visit>,
    /// Files in order of their k-th visit, for the two latest passes.
    orders: VecDeque<(u32, Vec<u32>)>,
    /// How each pass began.
    #[serde(default)]
    begun: Passes,
    /// Bytes read and time blocked within the span of `recent`, by visit: kept in step with it.
    pace: VecDeque<Pace>,
    open_now: u32,
    /// Closes whose opens have yet to be told, with their times: a processor keeps what it saw of a file until it needs the
    /// room, so that an open and, after the reader has moved, its close are told in any order.
    #[serde(skip)]
    closed_early: HashMap<FileKey, Timestamp>,
    /// How often so many files were open when one was opened, at most [`LiveRun::OPEN_SIDE_BY_SIDE`] of them.
    open_side_by_side: Vec<u32>,
    /// Processes seen, at most [`LiveRun::PROCESSES`].
    processes: Vec<u32>,
    /// Files beyond the bound, not followed.
    pub unfollowed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pace {
    bytes: u64,
    blocked_us: u64,
}

/// How fast a run reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Files a second while it does not wait.
    pub files_per_second: f64,
    /// Bytes a second while it does not wait.
    pub bytes_per_second: f64,
    /// Variance of the number of files in a span of time / their number: 1 where they come by chance, more where readers
    /// fetch batches and then pause.
    #[serde(default)]
    pub dispersion: f64,
}

impl LiveRun {
    /// Visits kept as the recent past: enough to tell order from chance, few enough to notice a change of
    /// habit within seconds.
    pub const RECENT_VISITS: usize = 256;
    /// Processes told apart per run. Loaders have tens of workers, not hundreds.
    pub const PROCESSES: usize = 256;
    /// Files open side by side that are told apart.
    const OPEN_SIDE_BY_SIDE: usize = 1024;
    /// Passes counted per run; later ones count as the last.
    const PASSES: usize = 10_000;
    /// Most closes whose opens have yet to be told.
    const CLOSED_EARLY: usize = 4096;
    /// A pass has begun when this share of the run's files were visited that often.
    const PASS_BEGUN: f64 = 0.1;
    /// Most passes whose order is kept.
    const ORDERS: usize = 3;

    /// A run that has read nothing yet.
    pub fn new(start: &RunStart) -> Self {
        Self {
            run: start.run.clone(),
            workload: start.workload.clone(),
            site: start.site.clone(),
            node: start.node.clone(),
            started_at: start.at,
            numbers: start.numbers.iter().take(RunStart::NUMBERS).copied().collect(),
            last_at: start.at,
            accesses: 0,
            turns: 0,
            files: Vec::new(),
            index: HashMap::new(),
            passes: Vec::new(),
            recent: VecDeque::new(),
            orders: VecDeque::new(),
            begun: Passes::default(),
            pace: VecDeque::new(),
            open_now: 0,
            closed_early: HashMap::new(),
            open_side_by_side: Vec::new(),
            processes: Vec::new(),
            unfollowed: 0,
        }
    }

    /// Finds the index again after reading a snapshot, which leaves it out.
    pub fn reindex(&mut self) {
        self.index = self.files.iter().enumerate().map(|(i, f)| (f.key.clone(), i as u32)).collect();
    }

    /// Takes one access. Returns the file whose first visit of this run it began, if it did.
    pub fn take(&mut self, access: &Access, most_files: usize, most_ranges: usize) -> Option<u32> {
        self.accesses += 1;
        self.last_at = self.last_at.max(access.at);
        if !self.processes.contains(&access.process) && self.processes.len() < Self::PROCESSES {
            self.processes.push(access.process);
        }
        let Some(file) = self.file_of(access, most_files) else {
            self.unfollowed += 1;
            if access.op == AccessOp::Close {
                self.closed_before_open(access);
            }
            return None;
        };
        let begins = self.begins_visit(file, access.op);
        match access.op {
            AccessOp::Open if self.is_closed_since(access) => {}
            AccessOp::Open => self.opened(file),
            AccessOp::Create => self.files[file as usize].created = true,
            AccessOp::Close if self.files[file as usize].is_open() => self.closed(file),
            AccessOp::Close => self.closed_before_open(access),
            AccessOp::Read | AccessOp::Fault => {}
        }
        let first = begins && self.files[file as usize].visits == 0;
        if begins {
            self.visit(file, access.at);
        }
        if matches!(access.op, AccessOp::Read | AccessOp::Fault) {
            let used = &mut self.files[file as usize];
            used.bytes = used.bytes.saturating_add(access.length);
            let end = access.offset.saturating_add(access.length);
            match access.op {
                AccessOp::Read => used.extents.read(&mut used.again, access.offset, end, most_ranges),
                _ => used.extents.add(access.offset, end, most_ranges),
            }
            self.pay(access);
        }
        first.then_some(file)
    }

    fn file_of(&mut self, access: &Access, most: usize) -> Option<u32> {
        let key = FileKey { volume: access.volume.clone(), path: access.path.clone() };
        if let Some(i) = self.index.get(&key) {
            return Some(*i);
        }
        if self.files.len() >= most || access.op == AccessOp::Close {
            return None;
        }
        let i = self.files.len() as u32;
        self.files.push(FileUse {
            key: key.clone(),
            visits: 0,
            first_at: access.at,
            last_turn: 0,
            open: 0,
            bytes: 0,
            extents: Ranges::default(),
            again: Ranges::default(),
            created: false,
        });
        self.index.insert(key, i);
        Some(i)
    }

    /// Whether an access to a file begins a visit, and does not go on with one.
    fn begins_visit(&self, file: u32, op: AccessOp) -> bool {
        let used = &self.files[file as usize];
        let since = self.turns.saturating_sub(used.last_turn);
        let distinct = self.files.len() as u64;
        match op {
            AccessOp::Open if used.visits == 0 => true,
            // An open counts again once the file was closed; if its close was lost, after half of all files.
            AccessOp::Open if used.open == 0 => since >= distinct / 10,
            AccessOp::Open => since >= (distinct / 2).max(8),
            AccessOp::Read | AccessOp::Fault => used.visits == 0,
            AccessOp::Create | AccessOp::Close => false,
        }
    }

    fn opened(&mut self, file: u32) {
        let used = &mut self.files[file as usize];
        used.open = used.open.saturating_add(1);
        if used.open == 1 {
            self.open_now += 1;
            let side_by_side = (self.open_now as usize).min(Self::OPEN_SIDE_BY_SIDE);
            if self.open_side_by_side.len() < side_by_side {
                self.open_side_by_side.resize(side_by_side, 0);
            }
            let times = &mut self.open_side_by_side[side_by_side - 1];
            *times = times.saturating_add(1);
        }
    }

    fn closed(&mut self, file: u32) {
        let used = &mut self.files[file as usize];
        if used.open == 1 {
            self.open_now = self.open_now.saturating_sub(1);
        }
        used.open = used.open.saturating_sub(1);
    }

    fn closed_before_open(&mut self, access: &Access) {
        if self.closed_early.len() >= Self::CLOSED_EARLY {
            // Those whose opens come have come long ago.
            self.closed_early.clear();
        }
        let key = FileKey { volume: access.volume.clone(), path: access.path.clone() };
        self.closed_early.insert(key, access.at);
    }

    /// Whether the close of this open has been told.
    fn is_closed_since(&mut self, open: &Access) -> bool {
        if self.closed_early.is_empty() {
            return false;
        }
        let key = FileKey { volume: open.volume.clone(), path: open.path.clone() };
        self.closed_early.remove(&key).is_some_and(|closed_at| open.at <= closed_at)
    }

    fn visit(&mut self, file: u32, at: Timestamp) {
        self.turns += 1;
        let used = &mut self.files[file as usize];
        let first = used.visits == 0;
        used.visits = used.visits.saturating_add(1).min(Self::PASSES as u32);
        used.last_turn = self.turns;
        let pass = used.visits;
        if self.passes.len() < pass as usize {
            self.passes.push(0);
        }
        self.passes[pass as usize - 1] += 1;
        self.begun.visit(file, pass);
        let latest = self.orders.back().map_or(0, |(p, _)| *p);
        if pass > latest {
            self.orders.push_back((pass, vec![file]));
        } else if let Some((_, order)) = self.orders.iter_mut().find(|(p, _)| *p == pass) {
            order.push(file);
        }
        if self.orders.len() > Self::ORDERS {
            self.orders.pop_front();
        }
        self.recent.push_back(Visit { file, at, first });
        self.pace.push_back(Pace::default());
        if self.recent.len() > Self::RECENT_VISITS {
            self.recent.pop_front();
            self.pace.pop_front();
        }
    }

    fn pay(&mut self, access: &Access) {
        if let Some(pace) = self.pace.back_mut() {
            pace.bytes = pace.bytes.saturating_add(access.length);
            pace.blocked_us += u64::from(access.blocked_us);
        }
    }

    /// Its files, in order of first access.
    pub fn files(&self) -> &[FileUse] {
        &self.files
    }

    /// What it did with a file, if anything.
    pub fn file(&self, key: &FileKey) -> Option<&FileUse> {
        self.index.get(key).map(|i| &self.files[*i as usize])
    }

    /// The recent visits, oldest first.
    pub fn recent(&self) -> &VecDeque<Visit> {
        &self.recent
    }

    /// The pass it is in: 1 is the first, 0 before any visit.
    pub fn pass(&self) -> u32 {
        let least = (f64::from(self.passes.first().copied().unwrap_or(0)) * Self::PASS_BEGUN).ceil().max(1.0);
        self.passes.iter().take_while(|n| f64::from(**n) >= least).count() as u32
    }

    /// Files that were visited at least `pass` times.
    pub fn visited(&self, pass: u32) -> u32 {
        pass.checked_sub(1).and_then(|i| self.passes.get(i as usize)).copied().unwrap_or(0)
    }

    /// Passes that were read to more than half: the number of epochs, when a run has ended.
    pub fn epochs(&self) -> u32 {
        let half = f64::from(self.passes.first().copied().unwrap_or(0)) / 2.0;
        self.passes.iter().filter(|n| f64::from(**n) > half).count() as u32
    }

    /// The files in the order of their `pass`-th visit, where that is still kept.
    pub fn order(&self, pass: u32) -> Option<&[u32]> {
        self.orders.iter().find(|(p, _)| *p == pass).map(|(_, o)| o.as_slice())
    }

    /// How each pass began, as places in [`Self::files`].
    pub fn begun(&self) -> &Passes {
        &self.begun
    }

    /// Readers side by side: so many files or fewer were open at three of four opens. Not the most that ever were:
    /// opens and closes of different processors are told in turns, and a close may be told long after its time.
    pub fn readers(&self) -> u32 {
        let opens: u64 = self.open_side_by_side.iter().map(|n| u64::from(*n)).sum();
        let mut seen = 0;
        let reached = self.open_side_by_side.iter().position(|times| {
            seen += u64::from(*times);
            seen * 4 >= opens * 3
        });
        reached.map_or(0, |at| at as u32 + 1)
    }

    /// Processes that read.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Rate over the recent visits, without the time that its readers waited; none before two visits.
    ///
    /// Blocked time is that of all readers added up, so it is divided by how many read side by side. Even a
    /// run that only waits makes some progress by itself: a twentieth of the time counts as its own at least.
    pub fn rate(&self) -> Option<Rate> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        let wall = last.at.since(first.at).as_secs_f64();
        if self.recent.len() < 2 || wall <= 0.0 {
            return None;
        }
        // From the first of these visits to the last, which has only begun: its own reads do not count.
        let paid = || self.pace.iter().take(self.pace.len() - 1);
        let blocked = paid().map(|p| p.blocked_us).sum::<u64>() as f64 / 1e6;
        let side_by_side = f64::from(self.readers()).max(self.processes.len() as f64).max(1.0);
        let own = (wall - blocked / side_by_side).max(wall / 20.0);
        let bytes: f64 = paid().map(|p| p.bytes as f64).sum();
        Some(Rate {
            files_per_second: (self.recent.len() - 1) as f64 / own,
            bytes_per_second: bytes / own,
            dispersion: self.dispersion(),
        })
    }

    /// Of the recent visits, by the times that so many of them took; at least 1.
    fn dispersion(&self) -> f64 {
        const VISITS: usize = 8;
        let began: Vec<f64> = self.recent.iter().step_by(VISITS).map(|visit| visit.at.as_secs_f64()).collect();
        let took: Vec<f64> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = took.iter().sum::<f64>() / took.len().max(1) as f64;
        if took.len() < 2 || mean <= 0.0 {
            return 1.0;
        }
        let variance = took.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (took.len() - 1) as f64;
        (VISITS as f64 * variance / mean.powi(2)).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::Found;

    fn start() -> RunStart {
        RunStart {
            run: "r1".into(),
            workload: "w".into(),
            command: "train #".into(),
            at: Timestamp(0),
            site: SiteId::new("gpu").unwrap(),
            node: NodeId::new("n1").unwrap(),
            numbers: Vec::new(),
        }
    }

    fn access(op: AccessOp, file: usize, at: i64, process: u32) -> Access {
        Access {
            at: Timestamp(at),
            run: "r1".into(),
            process,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(&format!("d/{file}")).unwrap(),
            op,
            offset: 0,
            length: if op == AccessOp::Read { 100 } else { 0 },
            blocked_us: 0,
            found: Found::Unknown,
        }
    }

    fn read(run: &mut LiveRun, file: usize, at: i64, process: u32) {
        for op in [AccessOp::Open, AccessOp::Read, AccessOp::Close] {
            run.take(&access(op, file, at, process), 1000, 100);
        }
    }

    #[test]
    fn passes_are_told_apart_though_workers_overlap() {
        let mut run = LiveRun::new(&start());
        // Two workers; the second is ten files behind and finishes pass 1 when the first is in pass 2.
        let order: Vec<usize> = (0..90).chain(0..5).chain(90..100).chain(5..100).collect();
        for (i, file) in order.iter().enumerate() {
            read(&mut run, *file, i as i64 * 1000, (i % 2) as u32);
        }
        assert_eq!((run.pass(), run.epochs(), run.visited(1), run.visited(2)), (2, 2, 100, 100));
        assert_eq!(run.processes(), 2);
    }

    #[test]
    fn a_hot_file_and_a_second_look_make_no_pass() {
        let mut run = LiveRun::new(&start());
        for i in 0..100 {
            read(&mut run, 1000, i * 10_000, 1);
            read(&mut run, i as usize, i * 10_000 + 10, 1);
            read(&mut run, i as usize, i * 10_000 + 20, 1);
        }
        assert_eq!((run.pass(), run.epochs()), (1, 1));
    }

    #[test]
    fn closes_that_are_told_late_once_make_no_more_readers() {
        let mut run = LiveRun::new(&start());
        let mut at = 0;
        let mut tell = |run: &mut LiveRun, op, file| {
            at += 1;
            run.take(&access(op, file, at, 1), 10_000, 10);
        };
        for turn in 0..600 {
            // Four files are open at a time; but once a burst of fifty opens is told before any of its closes.
            let burst = (200..250).contains(&turn);
            tell(&mut run, AccessOp::Open, turn);
            if turn == 250 {
                (197..246).for_each(|file| tell(&mut run, AccessOp::Close, file));
            }
            if !burst && turn >= 3 {
                tell(&mut run, AccessOp::Close, turn - 3);
            }
        }
        assert!((3..=5).contains(&run.readers()), "{}", run.readers());
    }

    /// Readers that move between sixteen processors: for every other file the close is told first.
    #[test]
    fn closes_that_are_told_before_their_opens_make_no_more_readers() {
        let mut run = LiveRun::new(&start());
        for file in 0..2000 {
            let at = file as i64 * 1000;
            let mut told = [access(AccessOp::Open, file, at, 1), access(AccessOp::Close, file, at + 900, 1)];
            if file % 2 == 0 {
                told.swap(0, 1);
            }
            told.iter().for_each(|access| {
                run.take(access, 10_000, 10);
            });
        }
        assert_eq!((run.readers(), run.turns), (1, 2000));

        // A close from before the run was watched takes nothing from the file's next open.
        let mut run = LiveRun::new(&start());
        for (op, file, at) in
            [(AccessOp::Close, 0, 1), (AccessOp::Open, 0, 2), (AccessOp::Open, 1, 3), (AccessOp::Open, 2, 4)]
        {
            run.take(&access(op, file, at, 1), 10_000, 10);
        }
        assert_eq!(run.readers(), 3);
    }

    #[test]
    fn waiting_does_not_slow_the_measured_demand() {
        let mut run = LiveRun::new(&start());
        for i in 0..50i64 {
            let mut open = access(AccessOp::Open, i as usize, i * 100_000, 1);
            run.take(&open, 1000, 100);
            open.op = AccessOp::Read;
            open.length = 100;
            open.blocked_us = 90_000;
            run.take(&open, 1000, 100);
            open.op = AccessOp::Close;
            run.take(&open, 1000, 100);
        }
        let rate = run.rate().unwrap().files_per_second;
        assert!((80.0..120.0).contains(&rate), "{rate}");
    }

    #[test]
    fn k_files_beyond_the_bound_are_counted_not_kept() {
        let mut run = LiveRun::new(&start());
        for i in 0..20 {
            run.take(&access(AccessOp::Open, i, i as i64, 1), 8, 4);
        }
        assert_eq!((run.files().len(), run.unfollowed), (8, 12));
    }
}
