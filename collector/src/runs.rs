//! Which processes are one run of a job.
//!
//! A run is a tree of processes. Its root is found when one of them first touches a watched file: go up from it,
//! - freely through forks that run the same program (the workers of a loader belong to their parent);
//! - through launchers that started it (torchrun, a Python that starts another), also across the shells and wrappers
//!   between, which are never the root themselves: the outermost program that is neither shell nor wrapper is;
//! - but never past what starts jobs without being one: init, service and session managers, container shims, job
//!   daemons, an interactive shell, another control group, and the ancestors of this agent.
//!
//! All processes that a member forks are members. A run ends when its last member has ended; an end that nobody told
//! is noticed when `/proc` is looked through, about once a second.
//!
//! Invariant: `runs[r].members` is the number of processes in the table whose `run` is `r`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use foretide_flow::{RunId, Timestamp, WorkloadId};

use crate::identity::{Habitat, Image, owner_of_pod};
use crate::procfs::ProcessView;

/// Never part of a job; what they start is a job of its own.
const STARTERS: &[&str] = &[
    "systemd",
    "init",
    "tini",
    "dumb-init",
    "sshd",
    "sshd-session",
    "login",
    "su",
    "cron",
    "crond",
    "atd",
    "tmux",
    "tmux: server",
    "screen",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "containerd",
    "dockerd",
    "docker",
    "runc",
    "crun",
    "conmon",
    "crio",
    "podman",
    "kubelet",
    "pause",
    "slurmstepd",
    "slurmd",
    "srun",
    "sbatch",
    "salloc",
    "pbs_mom",
    "sge_shepherd",
    "condor_starter",
    "supervisord",
    "make",
    "cargo",
    "airflow",
];
/// Start one program and wait for it, or become it.
const WRAPPERS: &[&str] = &[
    "env", "time", "timeout", "nice", "ionice", "nohup", "setsid", "taskset", "numactl", "stdbuf", "sudo", "doas",
    "xargs", "parallel", "strace", "ltrace", "perf", "gdb", "unshare", "nsenter", "ip", "chroot", "setpriv",
    "unbuffer", "watch",
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox", "tcsh", "csh"];
/// Ancestors looked at, at most: a loop in what `/proc` told at different moments ends here.
const ANCESTORS_MAX: usize = 64;
/// Processes in the table at most; beyond it those outside any run are dropped and read from `/proc` when needed.
const PROCESSES_MAX: usize = 65_536;

/// What a program is in a tree of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Starter,
    Wrapper,
    Worker,
}

fn role(image: &Image) -> Role {
    let program = image.program();
    if STARTERS.contains(&program) {
        Role::Starter
    } else if SHELLS.contains(&program) {
        // A shell with a script or -c runs something; one without is a person's.
        let runs_something = |a: &String| !a.starts_with('-') || (!a.starts_with("--") && a.contains('c'));
        if image.argv.iter().skip(1).any(runs_something) { Role::Wrapper } else { Role::Starter }
    } else if WRAPPERS.contains(&program) {
        Role::Wrapper
    } else {
        Role::Worker
    }
}

#[derive(Clone, Debug)]
struct Process {
    parent: u32,
    started_ticks: u64,
    image: Arc<Image>,
    run: Option<RunId>,
}

/// A run as it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its name.
    pub run: RunId,
    /// What comes back.
    pub workload: WorkloadId,
    /// For people.
    pub command: String,
    /// When its root process started, ticks since boot.
    pub started_ticks: u64,
    /// Of its command line, as [`foretide_flow::RunStart`] has them.
    pub numbers: Vec<Option<u32>>,
}

/// The processes that matter, and their runs.
pub struct Runs {
    view: Box<dyn ProcessView>,
    /// Distinguishes runs of one process number over machines and boots.
    prefix: String,
    processes: HashMap<u32, Process>,
    members: BTreeMap<RunId, usize>,
    ended: Vec<(RunId, Timestamp)>,
    /// The agent and its ancestors.
    ours: HashSet<u32>,
    /// Whether numbers of command lines are told.
    numbers: bool,
}

impl Runs {
    /// `prefix` names the machine and its boot; `agent` is the process that observes.
    pub fn new(view: Box<dyn ProcessView>, prefix: String, agent: u32) -> Self {
        let mut ours = HashSet::new();
        let mut process = agent;
        while process > 0 && ours.insert(process) {
            process = view.process(process).map_or(0, |facts| facts.parent);
        }
        let (processes, members) = (HashMap::new(), BTreeMap::new());
        Self { view, prefix, processes, members, ended: Vec::new(), ours, numbers: true }
    }

    /// Tells numbers of command lines, or none.
    pub fn telling_numbers(self, numbers: bool) -> Self {
        Self { numbers, ..self }
    }

    /// A process began as a copy of its parent.
    pub fn forked(&mut self, process: u32, parent: u32, started_ticks: u64, at: Timestamp) {
        // Whoever had this number before is gone, even if nobody said so.
        self.remove(process, at);
        let Some(image) = self.processes.get(&parent).map(|p| p.image.clone()) else { return };
        let run = self.processes.get(&parent).and_then(|p| p.run.clone());
        self.insert(process, Process { parent, started_ticks, image, run });
    }

    /// A process runs another program now. Its directory is its own if it is still there to ask, or else its parent's.
    pub fn executed(
        &mut self,
        process: u32,
        parent: u32,
        started_ticks: u64,
        program: String,
        argv: Vec<String>,
        group: String,
    ) {
        let inherited = |of: u32| self.processes.get(&of).map(|p| p.image.cwd.clone());
        let cwd = self
            .view
            .directory(process)
            .or_else(|| inherited(process))
            .or_else(|| inherited(parent))
            .or_else(|| self.view.directory(parent))
            .unwrap_or_default();
        let image = Arc::new(Image { exe: program, argv, cwd, group, ..Image::default() });
        match self.processes.get_mut(&process) {
            Some(known) => known.image = image,
            None => self.insert(process, Process { parent, started_ticks, image, run: None }),
        }
    }

    /// A process ended.
    pub fn exited(&mut self, process: u32, at: Timestamp) {
        self.remove(process, at);
    }

    /// The run of a process that touches a watched file, and the run itself if it begins with that. None for a
    /// process that cannot be told any more.
    pub fn run_of(&mut self, process: u32, parent: u32) -> (RunId, Option<NewRun>) {
        if let Some(run) = self.processes.get(&process).and_then(|p| p.run.clone()) {
            return (run, None);
        }
        self.learn(process, parent);
        let root = self.root_of(process);
        let known = self.processes.get(&root).and_then(|p| p.run.clone());
        let fresh = known.is_none();
        let run = known.unwrap_or_else(|| self.name(root));
        self.join(root, &run);
        self.join(process, &run);
        self.join_descendants(root, &run);
        let begins = fresh.then(|| self.describe(root, run.clone()));
        (run, begins)
    }

    /// Runs that have ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<(RunId, Timestamp)> {
        std::mem::take(&mut self.ended)
    }

    /// Looks for members that ended without a word.
    pub fn look_through(&mut self, now: Timestamp) {
        let gone: Vec<u32> = self
            .processes
            .iter()
            .filter(|(id, p)| p.run.is_some() && self.view.started_ticks(**id) != Some(p.started_ticks))
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|process| self.remove(process, now));
    }

    /// Runs that have not ended.
    pub fn live(&self) -> usize {
        self.members.len()
    }

    /// Makes sure that a process and its ancestors are in the table, as far as anybody can tell.
    fn learn(&mut self, process: u32, parent: u32) {
        let (mut next, mut hint) = (process, parent);
        for _ in 0..ANCESTORS_MAX {
            if next == 0 {
                return;
            }
            if !self.processes.contains_key(&next) {
                let fact = match self.view.process(next) {
                    Some(f) => {
                        let image = Arc::new(f.image);
                        Process { parent: f.parent, started_ticks: f.started_ticks, image, run: None }
                    }
                    // Gone already: a short-lived worker of the parent that the kernel named.
                    None if next == process => self.gone(hint),
                    // An ancestor of which nothing is known but its number is no part of anything.
                    None => return,
                };
                self.insert(next, fact);
            }
            (next, hint) = (self.processes.get(&next).map_or(0, |p| p.parent), 0);
        }
    }

    /// Stands for a process of which only the parent is known: a copy of it.
    fn gone(&self, parent: u32) -> Process {
        let copy = self.processes.get(&parent).map(|p| p.image.clone());
        let image = copy.or_else(|| self.view.process(parent).map(|f| Arc::new(f.image))).unwrap_or_default();
        Process { parent, started_ticks: 0, image, run: None }
    }

    fn root_of(&self, process: u32) -> u32 {
        let Some(own) = self.processes.get(&process) else { return process };
        if role(&own.image) != Role::Worker && self.parent_runs_the_same(own).is_none() {
            return process;
        }
        let (mut root, mut at) = (process, own);
        for _ in 0..ANCESTORS_MAX {
            let Some(parent) = self.processes.get(&at.parent) else { break };
            if self.ours.contains(&at.parent) || at.parent <= 1 || parent.image.group != at.image.group {
                break;
            }
            match role(&parent.image) {
                Role::Starter => break,
                Role::Wrapper => {}
                Role::Worker => root = at.parent,
            }
            at = parent;
        }
        root
    }

    fn parent_runs_the_same(&self, process: &Process) -> Option<u32> {
        let parent = self.processes.get(&process.parent)?;
        (parent.image.argv == process.image.argv && role(&parent.image) == Role::Worker).then_some(process.parent)
    }

    fn name(&self, root: u32) -> RunId {
        let ticks = self.processes.get(&root).map_or(0, |p| p.started_ticks);
        RunId::from(format!("{}-{root}-{ticks}", self.prefix))
    }

    fn describe(&self, root: u32, run: RunId) -> NewRun {
        let (image, started_ticks) =
            self.processes.get(&root).map_or_else(Default::default, |p| ((*p.image).clone(), p.started_ticks));
        let image = Image { owner: self.owner_of(&image), ..image };
        let numbers = if self.numbers { image.numbers() } else { Vec::new() };
        NewRun { run, workload: image.workload(), command: image.command(), started_ticks, numbers }
    }

    fn owner_of(&self, image: &Image) -> String {
        let Habitat::Pod { uid, .. } = Habitat::of(&image.group) else { return String::new() };
        self.view.pod(&uid).map_or_else(String::new, |(namespace, pod)| format!("{namespace}/{}", owner_of_pod(&pod)))
    }

    fn insert(&mut self, process: u32, fact: Process) {
        if self.processes.len() >= PROCESSES_MAX {
            self.processes.retain(|_, p| p.run.is_some());
        }
        if let Some(run) = &fact.run {
            *self.members.entry(run.clone()).or_default() += 1;
        }
        self.processes.insert(process, fact);
    }

    fn join(&mut self, process: u32, run: &RunId) {
        if let Some(p) = self.processes.get_mut(&process)
            && p.run.is_none()
        {
            p.run = Some(run.clone());
            *self.members.entry(run.clone()).or_default() += 1;
        }
    }

    /// Everything below the root that is known: its workers, also those that have read nothing yet.
    fn join_descendants(&mut self, root: u32, run: &RunId) {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (id, p) in &self.processes {
            children.entry(p.parent).or_default().push(*id);
        }
        let mut left = vec![root];
        while let Some(parent) = left.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                self.join(child, run);
                left.push(child);
            }
        }
    }

    fn remove(&mut self, process: u32, at: Timestamp) {
        let Some(run) = self.processes.remove(&process).and_then(|p| p.run) else { return };
        let Some(left) = self.members.get_mut(&run) else { return };
        *left -= 1;
        if *left == 0 {
            self.members.remove(&run);
            self.ended.push((run, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::ProcessFacts;

    /// Pods of one job.
    const PODS: [(&str, &str); 2] =
        [("123e4567-e89b-12d3-a456-426614174000", "x2v9q"), ("00000000-e89b-12d3-a456-426614174000", "hx7k2")];

    /// A `/proc` of our making.
    #[derive(Default, Clone)]
    struct Table(Arc<std::sync::Mutex<HashMap<u32, ProcessFacts>>>);

    impl Table {
        fn add(&self, process: u32, parent: u32, command: &str) {
            self.add_in(process, parent, command, "/user.slice/session-1.scope");
        }

        fn add_in(&self, process: u32, parent: u32, command: &str, group: &str) {
            let argv: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let image = Image {
                exe: argv[0].trim_start_matches('-').into(),
                argv,
                cwd: "/w".into(),
                group: group.into(),
                ..Image::default()
            };
            let facts = ProcessFacts { parent, started_ticks: u64::from(process), image };
            self.0.lock().unwrap().insert(process, facts);
        }

        fn end(&self, process: u32) {
            self.0.lock().unwrap().remove(&process);
        }
    }

    impl ProcessView for Table {
        fn process(&self, process: u32) -> Option<ProcessFacts> {
            self.0.lock().unwrap().get(&process).cloned()
        }
        fn started_ticks(&self, process: u32) -> Option<u64> {
            self.process(process).map(|f| f.started_ticks)
        }
        fn pod(&self, uid: &str) -> Option<(String, String)> {
            let drawn = PODS.iter().find(|(known, _)| *known == uid)?.1;
            Some(("lab".into(), format!("train-{drawn}")))
        }
        fn directory(&self, process: u32) -> Option<String> {
            self.process(process).map(|f| f.image.cwd)
        }
    }

    fn table() -> Table {
        let table = Table::default();
        table.add(1, 0, "systemd");
        table.add(10, 1, "sshd");
        table.add(11, 10, "-bash");
        table.add(50, 11, "make demo");
        table.add(51, 50, "foretide demo");
        table.add(52, 51, "foretide agent");
        table
    }

    fn runs(table: &Table) -> Runs {
        Runs::new(Box::new(table.clone()), "n-b".into(), 52)
    }

    fn root(runs: &mut Runs, process: u32) -> String {
        runs.run_of(process, 0).0.to_string()
    }

    #[test]
    fn a_shell_wrapper_is_not_the_run_but_what_it_starts_is() {
        let t = table();
        t.add(20, 11, "bash job.sh");
        t.add(21, 20, "python3 train.py");
        t.add(22, 21, "sh -c loader");
        t.add(23, 22, "loader");
        let mut r = runs(&t);
        assert_eq!(root(&mut r, 23), "n-b-21-21");
        assert_eq!(root(&mut r, 21), "n-b-21-21");
    }

    #[test]
    fn numbers_of_a_command_line_are_told_unless_they_shall_not_be() {
        let t = table();
        t.add(20, 11, "python3 train.py --seed 11");
        let told = |runs: Runs| runs.telling_numbers(true).run_of(20, 0).1.unwrap().numbers;
        assert_eq!(told(runs(&t)), [Some(11)]);
        assert_eq!(runs(&t).telling_numbers(false).run_of(20, 0).1.unwrap().numbers, []);
    }

    #[test]
    fn pods_of_one_job_run_one_workload() {
        let t = table();
        for (process, (uid, _)) in (20..).zip(PODS) {
            t.add_in(process, 1, "python3 /t.py", &format!("/kubepods/besteffort/pod{uid}/c"));
        }
        t.add_in(22, 1, "python3 /t.py", "/kubepods/besteffort/pod99999999-e89b-12d3-a456-426614174000/c");
        let mut r = runs(&t);
        let [a, b, unknown] = [20, 21, 22].map(|process| r.run_of(process, 0).1.unwrap().workload);
        assert_eq!(a, b);
        assert_ne!(a, unknown, "whose pod nobody knows is no pod of that job");
    }

    #[test]
    fn launchers_and_wrappers_are_climbed_and_starters_are_not() {
        let t = table();
        t.add(20, 11, "torchrun --nproc 2 train.py");
        t.add(21, 20, "python3 train.py");
        t.add(30, 11, "timeout 9 dd");
        t.add(31, 30, "dd");
        t.add_in(40, 1, "slurmstepd", "/system.slice/slurmd.service");
        t.add_in(41, 40, "bash /var/spool/slurm/job1/script", "/system.slice/slurmstepd.scope/job_1/step_batch");
        t.add_in(42, 41, "python3 a.py", "/system.slice/slurmstepd.scope/job_1/step_batch");
        let mut r = runs(&t);
        assert_eq!(root(&mut r, 21), "n-b-20-20");
        assert_eq!(root(&mut r, 31), "n-b-31-31");
        assert_eq!(root(&mut r, 42), "n-b-42-42");
    }

    #[test]
    fn what_started_the_agent_is_never_part_of_a_job() {
        let t = table();
        t.add(60, 51, "foretide job --seed 1");
        t.add(61, 60, "foretide job --seed 1");
        let mut r = runs(&t);
        assert_eq!(root(&mut r, 61), "n-b-60-60");
        assert_eq!(root(&mut r, 60), "n-b-60-60");
    }

    #[test]
    fn another_control_group_is_another_run() {
        let t = table();
        t.add(20, 11, "launcher x");
        t.add_in(21, 20, "train", "/system.slice/docker-1.scope");
        assert_eq!(root(&mut runs(&t), 21), "n-b-21-21");
    }

    #[test]
    fn a_run_ends_with_its_last_process() {
        let t = table();
        t.add(20, 11, "python3 train.py");
        let mut r = runs(&t);
        let (run, begins) = r.run_of(20, 11);
        assert_eq!(begins.unwrap().command, "python# train.py");
        r.forked(21, 20, 21, Timestamp(1));
        r.forked(22, 21, 22, Timestamp(2));
        assert!(r.run_of(22, 21).1.is_none());
        r.exited(20, Timestamp(5));
        r.exited(22, Timestamp(6));
        assert!(r.take_ended().is_empty());
        r.exited(21, Timestamp(7));
        assert_eq!(r.take_ended(), [(run, Timestamp(7))]);
        assert_eq!(r.live(), 0);
    }

    #[test]
    fn an_end_that_nobody_told_is_noticed() {
        let t = table();
        t.add(20, 11, "python3 train.py");
        let mut r = runs(&t);
        r.run_of(20, 11);
        r.look_through(Timestamp(8));
        assert!(r.take_ended().is_empty());
        t.end(20);
        r.look_through(Timestamp(9));
        assert_eq!(r.take_ended().len(), 1);
    }

    #[test]
    fn a_process_that_is_gone_already_belongs_to_the_parent_that_the_kernel_named() {
        let t = table();
        t.add(20, 11, "python3 train.py");
        let mut r = runs(&t);
        assert_eq!(r.run_of(99, 20).0.to_string(), "n-b-20-20");
    }

    #[test]
    fn a_short_lived_program_is_known_from_its_exec() {
        let t = table();
        let mut r = runs(&t);
        r.run_of(11, 10);
        r.forked(30, 11, 30, Timestamp(1));
        r.executed(30, 11, 30, "/usr/bin/cat".into(), vec!["cat".into(), "/data/1".into()], "/".into());
        let (_, begins) = r.run_of(30, 11);
        // The shell's own run is another one: its child runs another program, but was forked as a member.
        assert!(begins.is_none() || begins.unwrap().command == "cat /data/#");
    }

    #[test]
    fn a_program_that_is_gone_with_its_parents_is_still_known_by_its_control_group() {
        let mut r = runs(&table());
        let mut workload = |process: u32, group: &str| {
            let argv = vec!["cat".into(), "/data/1".into()];
            r.executed(process, process - 1, u64::from(process), "/usr/bin/cat".into(), argv, group.into());
            r.run_of(process, process - 1).1.unwrap().workload
        };
        let job = |number: u32| format!("/slurm_node7/uid_1000/job_{number}/step_batch");
        let (first, second, outside) = (workload(71, &job(1)), workload(81, &job(2)), workload(91, "/"));
        assert_eq!(first, second);
        assert_ne!(first, outside);
    }

    #[test]
    fn a_recycled_number_is_another_process() {
        let t = table();
        t.add(20, 11, "python3 train.py");
        let mut r = runs(&t);
        r.run_of(20, 11);
        r.forked(20, 11, 999, Timestamp(4));
        assert_eq!(r.take_ended().len(), 1, "its predecessor must have ended");
    }
}
