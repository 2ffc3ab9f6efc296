//! Observations -> runs and accesses. Pure: no clock, no disk; `/proc` is behind a trait.
//!
//! Reads of one process that continue each other in one file are one access, over calls, events, CPUs and polls, until
//! the batch is taken. What a process does to a file is looked up once for all that it does to it without a break, and goes
//! straight into the columns of the batch. The end of a run is held back until the next look at the source, because the last
//! reads of a process lie in shared memory and may be told after its exit.

use foldhash::{HashMap, HashMapExt};
use foretide_flow::{AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunStart, SiteId, Timestamp, VolumeId};

use crate::rows::{Row, Rows};
use crate::runs::Runs;
use crate::source::Observation;

/// What one batch carries, but for its number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Harvest {
    /// Runs that began.
    pub started: Vec<RunStart>,
    /// What was accessed, in order of time.
    pub accesses: Rows,
    /// Runs that ended.
    pub ended: Vec<RunEnd>,
    /// What is missing.
    pub losses: Losses,
}

impl Harvest {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.started.is_empty() && self.accesses.is_empty() && self.ended.is_empty() && self.losses == Losses::default()
    }
}

/// Paths by file number, at most `kept`: the half that was not asked for is dropped.
struct Paths {
    young: HashMap<u64, (VolumeId, FilePath)>,
    old: HashMap<u64, (VolumeId, FilePath)>,
    kept: usize,
}

impl Paths {
    fn insert(&mut self, file: u64, at: (VolumeId, FilePath)) {
        if self.young.len() >= self.kept.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(file, at);
    }

    fn get(&mut self, file: u64) -> Option<(VolumeId, FilePath)> {
        if let Some(at) = self.young.get(&file) {
            return Some(at.clone());
        }
        let at = self.old.remove(&file)?;
        self.insert(file, at.clone());
        Some(at)
    }
}

/// Folds what a source tells.
pub struct Pipeline {
    node: NodeId,
    site: SiteId,
    /// When this machine booted.
    booted_at: Timestamp,
    runs: Runs,
    paths: Paths,
    harvest: Harvest,
    /// What each process last did to each file, since the batch began, and where that is in `recents`.
    recent: HashMap<(u32, u64), usize>,
    recents: Vec<Recent>,
    /// The newest look-up in `recent`: extents of one file mostly come together.
    newest: Option<((u32, u64), usize)>,
    /// The number of each process' run in the batch.
    run_numbers: HashMap<u32, u32>,
    ending: Vec<(u32, Timestamp)>,
    forgotten: Vec<u64>,
    /// Waits whose access is not told yet: it lies in shared memory, which is told after the ring, or at the next look.
    waits: Vec<MappedWait>,
}

/// What a process last did to a file.
#[derive(Clone, Copy, Debug)]
struct Recent {
    /// Numbers in the batch.
    run: u32,
    file: u32,
    /// When. Opens carry a fine clock and reads a coarse one, so a read could seem older than its open; nothing is told as
    /// older than what was told before it.
    at: Timestamp,
    /// Where in the harvest the read lies that a next one may continue.
    open_read: Option<usize>,
}

/// A wait that was told by itself.
#[derive(Clone, Copy, Debug)]
struct MappedWait {
    process: u32,
    file: u64,
    offset: u64,
    blocked_us: u32,
    /// Looks at the source that it has outlived.
    looks: u32,
}

/// After so many looks an access that a wait belongs to has been told, or went with an earlier batch.
const LOOKS_MAX: u32 = 2;

impl Pipeline {
    /// `booted_at` turns the ticks of a process' start into a time; `paths_kept` bounds memory.
    pub fn new(node: NodeId, site: SiteId, runs: Runs, booted_at: Timestamp, paths_kept: usize) -> Self {
        Self {
            node,
            site,
            booted_at,
            runs,
            paths: Paths { young: HashMap::new(), old: HashMap::new(), kept: paths_kept },
            harvest: Harvest::default(),
            recent: HashMap::new(),
            recents: Vec::new(),
            newest: None,
            run_numbers: HashMap::new(),
            ending: Vec::new(),
            forgotten: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// Takes the observations of one poll.
    pub fn take(&mut self, seen: impl IntoIterator<Item = Observation>) {
        let ending = std::mem::take(&mut self.ending);
        seen.into_iter().for_each(|o| self.observe(o));
        for wait in std::mem::take(&mut self.waits) {
            if !self.mapped_wait(wait) && wait.looks < LOOKS_MAX {
                self.waits.push(MappedWait { looks: wait.looks + 1, ..wait });
            }
        }
        for (process, at) in ending {
            self.runs.exited(process, at);
        }
        self.collect_ends();
    }

    /// Looks for ends that nobody told.
    pub fn look_through(&mut self, now: Timestamp) {
        self.runs.look_through(now);
        self.collect_ends();
    }

    /// Everything since this was last asked.
    pub fn harvest(&mut self) -> Harvest {
        self.forget_recent();
        let accesses = Rows::as_large_as(&self.harvest.accesses);
        let mut harvest = std::mem::replace(&mut self.harvest, Harvest { accesses, ..Harvest::default() });
        harvest.accesses.sort_by_time();
        harvest
    }

    /// Takes back a harvest that could not be kept: runs are told with the next one, and its accesses are counted.
    pub fn take_back(&mut self, lost: Harvest) {
        let Harvest { started, accesses, ended, losses } = lost;
        let kept = &mut self.harvest;
        kept.started.splice(0..0, started);
        kept.ended.splice(0..0, ended);
        kept.started.truncate(RUNS_KEPT);
        kept.ended.truncate(RUNS_KEPT);
        kept.losses.dropped_events += losses.dropped_events + accesses.len() as u64;
        kept.losses.unresolved += losses.unresolved;
        kept.losses.summarised += losses.summarised;
    }

    /// Accesses that wait.
    pub fn waiting(&self) -> usize {
        self.harvest.accesses.len()
    }

    /// Whether a run began or ended, or anything else happened.
    pub fn news(&self) -> (bool, bool) {
        (!self.harvest.started.is_empty() || !self.harvest.ended.is_empty(), !self.harvest.is_empty())
    }

    /// Files whose path is needed again.
    pub fn take_forgotten(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.forgotten)
    }

    fn observe(&mut self, seen: Observation) {
        match seen {
            Observation::Path { file, volume, path } => self.paths.insert(file, (volume, path)),
            Observation::Open { at, process, parent, file, writable } => {
                let op = if writable { AccessOp::Create } else { AccessOp::Open };
                self.event(at, process, parent, file, op);
            }
            Observation::Close { at, process, file } => {
                if let Some(i) = self.event(at, process, 0, file, AccessOp::Close) {
                    self.recents[i].open_read = None;
                }
            }
            Observation::Extent { .. } => self.extent(seen),
            Observation::MappedWait { process, file, offset, blocked_us } => {
                self.waits.push(MappedWait { process, file, offset, blocked_us, looks: 0 });
            }
            Observation::Fork { at, process, parent, started_ticks } => {
                if self.run_numbers.contains_key(&process) {
                    // What this number was known by belonged to another process.
                    self.forget_recent();
                }
                self.runs.forked(process, parent, started_ticks, at);
            }
            Observation::Exec { process, parent, started_ticks, program, argv, group, .. } => {
                self.runs.executed(process, parent, started_ticks, program, argv, group);
            }
            Observation::Exit { at, process } => self.ending.push((process, at)),
            Observation::Loss { calls, processes, unresolved } => {
                self.harvest.losses.dropped_events += calls + processes;
                self.harvest.losses.unresolved += unresolved;
            }
        }
    }

    /// Tells an open or a close; where what the process does to the file is kept.
    fn event(&mut self, at: Timestamp, process: u32, parent: u32, file: u64, op: AccessOp) -> Option<usize> {
        let i = self.recent(process, parent, file, at, 1)?;
        let Recent { run, file, at, .. } = self.recents[i];
        let found = Found::Unknown;
        self.harvest.accesses.push(Row { at, run, process, file, op, offset: 0, length: 0, blocked_us: 0, found });
        Some(i)
    }

    fn extent(&mut self, seen: Observation) {
        let Observation::Extent { at, process, parent, file, offset, length, calls, blocked_us, found, mapped } = seen
        else {
            return;
        };
        let Some(i) = self.recent(process, parent, file, at, calls) else { return };
        let recent = &mut self.recents[i];
        let op = if mapped { AccessOp::Fault } else { AccessOp::Read };
        let (at, run, file) = (recent.at, recent.run, recent.file);
        let row = Row { at, run, process, file, op, offset, length, blocked_us, found };
        let rows = &mut self.harvest.accesses;
        if !recent.open_read.is_some_and(|last| rows.go_on(last, &row)) {
            recent.open_read = Some(rows.push(row));
        }
    }

    /// Where in `recents` is what the process last did to the file, with the time of what it does now; none, with the
    /// calls counted, if nobody knows which file that is.
    fn recent(&mut self, process: u32, parent: u32, file: u64, at: Timestamp, calls: u32) -> Option<usize> {
        let key = (process, file);
        let known = match self.newest {
            Some((newest, i)) if newest == key => Some(i),
            _ => self.recent.get(&key).copied(),
        };
        let i = match known {
            Some(i) => i,
            None => {
                let (volume, path) = self.resolve(file, calls)?;
                let run = self.run_of(process, parent);
                let file = self.harvest.accesses.name_file(volume, path);
                self.recents.push(Recent { run, file, at, open_read: None });
                self.recent.insert(key, self.recents.len() - 1);
                self.recents.len() - 1
            }
        };
        self.newest = Some((key, i));
        let recent = &mut self.recents[i];
        recent.at = recent.at.max(at);
        Some(i)
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recents.clear();
        self.run_numbers.clear();
        self.newest = None;
    }

    /// Adds a wait to the last access that it can belong to; whether there was one.
    fn mapped_wait(&mut self, wait: MappedWait) -> bool {
        let Some(&i) = self.recent.get(&(wait.process, wait.file)) else { return false };
        let (rows, file) = (&mut self.harvest.accesses, self.recents[i].file);
        let Some(row) = rows.last_that_has(wait.process, file, wait.offset, RECENT_ACCESSES) else { return false };
        rows.add_wait(row, wait.blocked_us, Found::Miss);
        true
    }

    fn resolve(&mut self, file: u64, calls: u32) -> Option<(VolumeId, FilePath)> {
        let at = self.paths.get(file);
        if at.is_none() {
            self.harvest.losses.unresolved += u64::from(calls);
            self.forgotten.push(file);
        }
        at
    }

    /// The number in the batch of the run that a process belongs to.
    fn run_of(&mut self, process: u32, parent: u32) -> u32 {
        if let Some(&number) = self.run_numbers.get(&process) {
            return number;
        }
        let (run, begins) = self.runs.run_of(process, parent);
        if let Some(new) = begins {
            self.harvest.started.push(RunStart {
                run: new.run,
                workload: new.workload,
                command: new.command,
                at: Timestamp(self.booted_at.0 + new.started_ticks as i64 * TICK_US),
                site: self.site.clone(),
                node: self.node.clone(),
                numbers: new.numbers,
            });
        }
        let number = self.harvest.accesses.name_run(run);
        self.run_numbers.insert(process, number);
        number
    }

    fn collect_ends(&mut self) {
        self.harvest.ended.extend(self.runs.take_ended().into_iter().map(|(run, at)| RunEnd { run, at }));
    }
}

/// Accesses looked back through for the one that a wait belongs to: more than two looks at a busy source tell.
const RECENT_ACCESSES: usize = 4096;

/// Starts, and ends, that wait for a disk that takes no batch.
const RUNS_KEPT: usize = 10_000;

/// A tick of a process' start.
const TICK_US: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::{ProcessFacts, ProcessView};
    use foretide_flow::Access;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Nobody is there any more: everything is known from events alone.
    struct Nobody;

    impl ProcessView for Nobody {
        fn process(&self, _: u32) -> Option<ProcessFacts> {
            None
        }
        fn started_ticks(&self, _: u32) -> Option<u64> {
            None
        }
        fn pod(&self, _: &str) -> Option<(String, String)> {
            None
        }
        fn directory(&self, _: u32) -> Option<String> {
            None
        }
    }

    fn pipeline(paths_kept: usize) -> Pipeline {
        let runs = Runs::new(Box::new(Nobody), "n-b".into(), 1);
        Pipeline::new(NodeId::new("n").unwrap(), SiteId::new("s").unwrap(), runs, Timestamp(1_000), paths_kept)
    }

    fn path(file: u64) -> Observation {
        let volume = VolumeId::new("v").unwrap();
        Observation::Path { file, volume, path: FilePath::parse(&format!("f{file}")).unwrap() }
    }

    fn read(at: i64, process: u32, file: u64, offset: u64, length: u64) -> Observation {
        Observation::Extent {
            at: Timestamp(at),
            process,
            parent: 0,
            file,
            offset,
            length,
            calls: 1,
            blocked_us: 2,
            found: Found::Hit,
            mapped: false,
        }
    }

    fn only(harvest: &Harvest) -> Access {
        let mut accesses = harvest.accesses.iter();
        let first = accesses.next().unwrap();
        assert!(accesses.next().is_none(), "{harvest:?}");
        first
    }

    proptest! {
        /// Against the plainest model: per process and file, the bytes in order; and no two neighbours that a fold
        /// should have joined.
        #[test]
        fn folding_neither_loses_nor_invents_bytes(
            reads in proptest::collection::vec((1u32..4, 1u64..4, 0u64..6, 1u64..4), 0..120),
            cuts in proptest::collection::vec(0usize..120, 0..5),
        ) {
            let mut p = pipeline(100);
            p.take((1..4).map(path));
            let mut model: BTreeMap<(u32, u64), Vec<u64>> = BTreeMap::new();
            let mut batches = Vec::new();
            for (i, (process, file, offset, length)) in reads.iter().copied().enumerate() {
                p.take([read(i as i64, process, file, offset, length)]);
                model.entry((process, file)).or_default().extend(offset..offset + length);
                if cuts.contains(&i) {
                    batches.push(p.harvest());
                }
            }
            batches.push(p.harvest());
            let mut told: BTreeMap<(u32, u64), Vec<u64>> = BTreeMap::new();
            let mut blocked = 0;
            for batch in &batches {
                let accesses: Vec<Access> = batch.accesses.iter().collect();
                prop_assert!(accesses.is_sorted_by_key(|a| a.at));
                let mut last: BTreeMap<(u32, String), u64> = BTreeMap::new();
                for a in accesses {
                    let name = a.path.to_string();
                    let file: u64 = name[1..].parse().unwrap();
                    told.entry((a.process, file)).or_default().extend(a.offset..a.offset + a.length);
                    blocked += a.blocked_us;
                    let end = last.insert((a.process, name), a.offset + a.length);
                    prop_assert_ne!(end, Some(a.offset), "not folded");
                }
            }
            prop_assert_eq!(told, model);
            prop_assert_eq!(blocked as usize, 2 * reads.len());
        }

        /// However few paths are kept, an access has its own file's path or is counted as unresolved (promise J).
        #[test]
        fn promise_j_a_path_that_is_not_known_is_counted_and_asked_for(
            kept in 1usize..6,
            files in proptest::collection::vec(0u64..20, 1..100),
        ) {
            let mut p = pipeline(kept);
            let (mut resolved, mut told) = (0, std::collections::BTreeSet::new());
            for (i, file) in files.iter().copied().enumerate() {
                if told.insert(file) {
                    p.take([path(file)]);
                }
                p.take([read(i as i64, 1, file, i as u64 * 10, 1)]);
                for forgotten in p.take_forgotten() {
                    prop_assert_eq!(forgotten, file);
                    told.remove(&forgotten);
                }
            }
            let harvest = p.harvest();
            for a in harvest.accesses.iter() {
                resolved += 1;
                let file = files[a.offset as usize / 10];
                prop_assert_eq!(a.path.to_string(), format!("f{file}"));
            }
            prop_assert_eq!(resolved + harvest.losses.unresolved, files.len() as u64);
            prop_assert!(p.paths.young.len() + p.paths.old.len() <= kept + 1);
        }
    }

    #[test]
    fn reads_that_are_told_after_the_exit_still_belong_to_the_run() {
        let mut p = pipeline(10);
        let exec = Observation::Exec {
            at: Timestamp(5),
            process: 7,
            parent: 3,
            started_ticks: 4,
            program: "/usr/bin/train".into(),
            argv: vec!["train".into(), "--seed".into(), "5".into()],
            group: "/".into(),
        };
        p.take([exec, path(1), read(6, 7, 1, 0, 10), Observation::Exit { at: Timestamp(9), process: 7 }]);
        assert!(p.harvest().ended.is_empty(), "the source may have more of it");
        p.take([read(8, 7, 1, 10, 10)]);
        let harvest = p.harvest();
        assert_eq!(only(&harvest).run.as_str(), "n-b-7-4");
        assert_eq!(harvest.ended, [RunEnd { run: "n-b-7-4".into(), at: Timestamp(9) }]);
        assert!(harvest.started.is_empty());
    }

    #[test]
    fn a_process_number_that_is_given_again_within_a_batch_is_another_run() {
        let mut p = pipeline(10);
        let exec = |started_ticks, program: &str| Observation::Exec {
            at: Timestamp(5),
            process: 7,
            parent: 3,
            started_ticks,
            program: program.into(),
            argv: vec![program.into()],
            group: "/".into(),
        };
        let fork = Observation::Fork { at: Timestamp(8), process: 7, parent: 3, started_ticks: 9 };
        p.take([exec(4, "train"), path(1), read(6, 7, 1, 0, 10)]);
        p.take([fork, exec(9, "other"), read(8, 7, 1, 10, 10)]);
        let told: Vec<String> = p.harvest().accesses.iter().map(|a| a.run.to_string()).collect();
        assert_eq!(told, ["n-b-7-4", "n-b-7-9"]);
    }

    #[test]
    fn promise_j_what_no_disk_took_is_told_with_the_next_batch_or_counted() {
        let mut p = pipeline(10);
        p.take([path(1), read(6, 7, 1, 0, 10), read(7, 7, 1, 50, 10)]);
        let lost = p.harvest();
        let (started, rows) = (lost.started.clone(), lost.accesses.len());
        assert_eq!((started.len(), rows), (1, 2));
        p.take_back(lost);
        p.take([read(8, 7, 1, 60, 10)]);
        let next = p.harvest();
        assert_eq!((&next.started, next.losses.dropped_events), (&started, 2));
        assert_eq!(only(&next).offset, 60);
    }

    #[test]
    fn a_read_is_not_told_as_older_than_its_open() {
        let mut pipeline = pipeline(100);
        let open = Observation::Open { at: Timestamp(5_000), process: 7, parent: 1, file: 1, writable: false };
        let close = Observation::Close { at: Timestamp(4_100), process: 7, file: 1 };
        pipeline.take([path(1), open, read(4_000, 7, 1, 0, 100), close]);
        let told: Vec<AccessOp> = pipeline.harvest().accesses.iter().map(|a| a.op).collect();
        assert_eq!(told, [AccessOp::Open, AccessOp::Read, AccessOp::Close]);
    }

    #[test]
    fn a_run_is_told_with_what_it_runs_and_when_it_started() {
        let mut p = pipeline(10);
        p.take([
            Observation::Exec {
                at: Timestamp(5),
                process: 7,
                parent: 3,
                started_ticks: 2,
                program: "/usr/bin/train".into(),
                argv: vec!["train".into(), "--token=x".into(), "5".into()],
                group: "/".into(),
            },
            path(1),
            Observation::Open { at: Timestamp(7), process: 7, parent: 3, file: 1, writable: false },
        ]);
        let harvest = p.harvest();
        let start = &harvest.started[0];
        assert_eq!((start.command.as_str(), start.at), ("train --token=*** #", Timestamp(1_000 + 20_000)));
        assert_eq!(only(&harvest).op, AccessOp::Open);
    }

    #[test]
    fn a_device_wait_makes_a_miss_of_a_read_and_of_a_touch() {
        let mut p = pipeline(10);
        let Observation::Extent { at, process, parent, file, offset, length, calls, blocked_us, .. } =
            read(1, 7, 1, 0, 4096)
        else {
            unreachable!()
        };
        let touch = Observation::Extent {
            at,
            process,
            parent,
            file,
            offset,
            length,
            calls,
            blocked_us,
            found: Found::Hit,
            mapped: true,
        };
        p.take([path(1), touch, Observation::MappedWait { process: 7, file: 1, offset: 0, blocked_us: 500 }]);
        let access = only(&p.harvest());
        assert_eq!((access.op, access.found, access.blocked_us), (AccessOp::Fault, Found::Miss, 502));
        // The wait lies in the ring, the touch in shared memory: it may be told later.
        p.take([Observation::MappedWait { process: 7, file: 1, offset: 4096, blocked_us: 500 }]);
        p.take([read(2, 7, 1, 4096, 10)]);
        assert_eq!(only(&p.harvest()).blocked_us, 502);
    }
}
