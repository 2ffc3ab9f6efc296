//! Who reads: the identity that a job keeps from one run to the next.
//!
//! A workload is named by what does not change when the same job comes back: the program, its arguments with
//! numbers, dates, hashes and temporary names as `#`, the directory it was started in if an argument is relative to
//! it, and the service, the owner of the pod or the kind of container it runs in. Job numbers, pod and container ids change
//! with each run and are left out. Secrets in arguments are never kept, not even hashed.

use std::sync::LazyLock;

use foretide_flow::{RunStart, WorkloadId};
use regex::Regex;

/// Characters of a command that are kept for people.
const COMMAND_CHARS: usize = 400;

/// In what a process runs, from its control group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Habitat {
    /// A login session or nothing at all.
    Plain,
    /// A systemd service of the machine.
    Service(String),
    /// A container of Docker, containerd, CRI-O or Podman: its id.
    Container(String),
    /// A container of a Kubernetes pod: the pod's uid and the container's id.
    Pod {
        /// The pod.
        uid: String,
        /// The container; empty if the group is the pod's own.
        container: String,
    },
    /// A Slurm job: its number and step.
    Slurm {
        /// Number.
        job: String,
        /// Step; empty if the group is the job's own.
        step: String,
    },
}

impl Habitat {
    /// What of it comes back with the next run.
    fn lasting(&self, owner: &str) -> String {
        match self {
            Self::Plain => String::new(),
            Self::Service(unit) => format!("service {}", template(unit)),
            Self::Container(_) => "container".into(),
            Self::Pod { .. } => format!("pod {owner}").trim_end().to_owned(),
            Self::Slurm { .. } => "slurm".into(),
        }
    }

    /// Of a process in this control group.
    pub fn of(group: &str) -> Self {
        slurm(group)
            .or_else(|| pod(group))
            .or_else(|| container(group))
            .or_else(|| service(group))
            .unwrap_or(Self::Plain)
    }
}

/// Out of `/proc/PID/cgroup` (cgroup v1, v2 or both) the group that the kernel tells of a program that starts: the deepest
/// of those with a controller, of equals that of v2.
pub fn innermost_group(cgroup: &str) -> &str {
    let groups = cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let depth = |path: &str| path.split('/').filter(|name| !name.is_empty()).count();
    let rank =
        |(controllers, path): &(&str, &str)| (!controllers.starts_with("name="), depth(path), controllers.is_empty());
    groups.max_by_key(rank).map_or("/", |(_, path)| path)
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|e| unreachable!("a pattern of ours: {e}"))
}

fn slurm(path: &str) -> Option<Habitat> {
    static JOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"/job_(\d+)(?:/step_([A-Za-z0-9_]+))?"));
    let found = JOB.captures(path)?;
    let step = found.get(2).map_or("", |s| s.as_str());
    path.contains("slurm").then(|| Habitat::Slurm { job: found[1].into(), step: step.into() })
}

fn pod(path: &str) -> Option<Habitat> {
    static POD: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})"));
    let uid = POD.captures(path)?[1].replace('_', "-");
    let container = container_id(path).unwrap_or_default();
    path.contains("kube").then_some(Habitat::Pod { uid, container })
}

fn container(path: &str) -> Option<Habitat> {
    let runtime = ["docker", "containerd", "crio", "libpod", "lxc", "garden"].iter().any(|r| path.contains(r));
    container_id(path).filter(|_| runtime).map(Habitat::Container)
}

fn container_id(path: &str) -> Option<String> {
    static ID: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)"));
    ID.captures(path).map(|c| c[1].to_owned())
}

fn service(path: &str) -> Option<Habitat> {
    static UNIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^/system\.slice/(?:.*/)?([^/]+\.service)"));
    UNIT.captures(path).map(|c| Habitat::Service(c[1].to_owned()))
}

/// What made a pod of this name: a Deployment, a Job or another, by what its controller puts behind its own name. That is
/// drawn from letters and digits in which no words can be spelt.
pub fn owner_of_pod(name: &str) -> &str {
    let drawn = cut_last(name, |last| last.len() == 5 && is_drawn(last));
    // The number of a stateful or indexed pod or of a cron job's minute, or the digest of a template.
    let rest = drawn.unwrap_or(name);
    let is_number = |last: &str| last.bytes().all(|b| b.is_ascii_digit());
    let is_digest = |last: &str| drawn.is_some() && (8..=10).contains(&last.len()) && is_drawn(last);
    cut_last(rest, |last| is_number(last) || is_digest(last)).unwrap_or(rest)
}

fn is_drawn(text: &str) -> bool {
    text.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c))
}

/// A name without its last part, if that is such a part and not all.
fn cut_last(name: &str, is_such: impl Fn(&str) -> bool) -> Option<&str> {
    let (rest, last) = name.rsplit_once('-')?;
    (!rest.is_empty() && !last.is_empty() && is_such(last)).then_some(rest)
}

/// Numbers, hashes, and names drawn for one run, as `#`.
pub fn template(text: &str) -> String {
    static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            // uuid
            r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
            // a component drawn by mktemp, Python's or Rust's tempfile
            r"|(?P<temp>/\.?tmp[._-]?[A-Za-z0-9_]{6,})",
            // a hash
            r"|(?P<hex>\b(?:0x)?[0-9a-f]{8,}\b|\b[0-9A-F]{8,}\b)",
            r"|[0-9]+",
        ))
    });
    VARIABLE
        .replace_all(text, |found: &regex::Captures<'_>| {
            if found.name("temp").is_some() {
                "/#".into()
            } else if found.name("hex").is_some_and(|h| !h.as_str().bytes().any(|b| b.is_ascii_digit())) {
                // A word that happens to have the letters a to f only.
                found[0].to_owned()
            } else {
                "#".into()
            }
        })
        .into_owned()
}

/// Arguments without secrets, variable parts as `#`.
pub fn template_arguments(argv: &[String]) -> Vec<String> {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?i)(pass(word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|credential|auth)")
    });
    static USERINFO: LazyLock<Regex> = LazyLock::new(|| pattern(r"://[^/@\s]+@"));
    let mut hide_next = false;
    argv.iter()
        .map(|argument| {
            if std::mem::take(&mut hide_next) && !argument.starts_with('-') {
                return "***".to_owned();
            }
            if let Some((name, _)) = argument.split_once(['=', ':'])
                && !name.contains('/')
                && SECRET.is_match(name)
            {
                return format!("{}=***", template(name));
            }
            hide_next = argument.starts_with('-') && SECRET.is_match(argument);
            template(&USERINFO.replace_all(argument, "://***@"))
        })
        .collect()
}

/// The first numbers of arguments, as [`RunStart::numbers`] has them: of each argument that is one, and of each behind a
/// `=`, one of at most 32 bits, as seeds are; longer ones are names of people and things. What stands where a secret may
/// stand, `-p` and what is told by a name like one included, is kept to itself.
pub fn numbers(argv: &[String]) -> Vec<Option<u32>> {
    static PRIVATE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?i)^-p$|pin|otp|code|cvv|card|phone|account|key|user|uid|login|mail|birth|ssn|tax|licen[cs]e")
    });
    let templates = template_arguments(argv);
    let before = std::iter::once("").chain(argv.iter().map(String::as_str));
    let of = |((argument, template), before): ((&String, &String), &str)| {
        let (name, value) = match template.rsplit_once('=') {
            Some((_, "#")) => argument.rsplit_once('=')?,
            _ if template == "#" => (before, argument.as_str()),
            _ => return None,
        };
        Some(value.parse().ok().filter(|_| !PRIVATE.is_match(name)))
    };
    argv.iter().zip(&templates).zip(before).filter_map(of).take(RunStart::NUMBERS).collect()
}

/// A program as it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its executable; a full path where that is known.
    pub exe: String,
    /// Its arguments, the name it was called by first.
    pub argv: Vec<String>,
    /// Where it was started.
    pub cwd: String,
    /// Its control group: see [`innermost_group`].
    pub group: String,
    /// What made its Kubernetes pod, with its namespace; empty where that is not known. Only asked for the root of a run.
    pub owner: String,
}

impl Image {
    /// The program's own name: of a binary that is many programs in one, the one that it was called as.
    pub fn program(&self) -> &str {
        let called = self.argv.first().map_or("", String::as_str);
        match base_name(&self.exe) {
            "" | "busybox" | "toybox" | "coreutils" if !called.is_empty() => base_name(called),
            own => own,
        }
    }

    /// The command for people: templated, no secrets, bounded.
    pub fn command(&self) -> String {
        let arguments = template_arguments(&self.argv);
        let text = if arguments.is_empty() { template(self.program()) } else { arguments.join(" ") };
        text.chars().take(COMMAND_CHARS).collect()
    }

    /// The numbers of its arguments.
    pub fn numbers(&self) -> Vec<Option<u32>> {
        numbers(self.argv.get(1..).unwrap_or_default())
    }

    /// What comes back.
    pub fn workload(&self) -> WorkloadId {
        let arguments = template_arguments(self.argv.get(1..).unwrap_or_default());
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(&template(versionless(self.program())));
        part(&Habitat::of(&self.group).lasting(&self.owner));
        arguments.iter().for_each(|a| part(a));
        if arguments.iter().any(|a| is_relative_path(a)) {
            part(&template(&self.cwd));
        }
        let digest = hasher.finalize().to_hex();
        WorkloadId::from(format!("{}-{}", self.label(), &digest[..12]))
    }

    /// A word for people: the script of an interpreter, or the program.
    fn label(&self) -> String {
        let script = self.argv.iter().skip(1).find(|a| !a.starts_with('-') && has_script_suffix(a));
        let name = script.map_or_else(|| self.program(), |s| s.rsplit('/').next().unwrap_or(s));
        let kept = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '_' };
        template(name).chars().filter(|c| *c != '#').map(kept).take(24).collect()
    }
}

/// Whether a start was seen (`python3`) or looked up later (`python3.11`), and after an upgrade, it is the same program.
fn versionless(program: &str) -> &str {
    let name = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if name.is_empty() { program } else { name }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path).trim_end_matches(" (deleted)")
}

fn has_script_suffix(argument: &str) -> bool {
    [".py", ".sh", ".pl", ".R", ".jl", ".js", ".rb", ".jar"].iter().any(|s| argument.ends_with(s))
}

/// Whether an argument names a file from where the program was started.
fn is_relative_path(argument: &str) -> bool {
    !argument.starts_with(['-', '/'])
        && !argument.contains("://")
        && (argument.contains('/') || has_script_suffix(argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(command: &str) -> Image {
        let argv: Vec<String> = command.split(' ').map(str::to_owned).collect();
        Image { exe: format!("/usr/bin/{}", argv[0]), argv, cwd: "/home/ada".into(), ..Image::default() }
    }

    fn same(a: &str, b: &str) -> bool {
        image(a).workload() == image(b).workload()
    }

    #[test]
    fn runs_that_differ_in_numbers_dates_hashes_or_temporary_names_are_one_workload() {
        assert!(same("python3.11 train.py --seed 17 --lr 0.001", "python3.12 train.py --seed 4 --lr 0.1"));
        assert!(same("train --out /runs/2026-11-22T10:00", "train --out /runs/2026-11-23T09:30"));
        assert!(same("train --commit 9fceb02d0ae598e9", "train --commit e83c5163316f89bf"));
        assert!(same("train --tmp /tmp/tmpab3_x9qz", "train --tmp /tmp/tmpzz8k1_ab"));
        assert!(same("train --tmp /tmp/.tmpAbCdEf", "train --tmp /tmp/.tmpxYzQrS"));
        assert!(same("train --tmp /tmp/tmp.Xa81bQ09cc", "train --tmp /tmp/tmp.qqqqzZ7712"));
        assert!(same(
            "train --id 123e4567-e89b-12d3-a456-426614174000",
            "train --id 00000000-e89b-12d3-a456-42661417400f"
        ));
    }

    #[test]
    fn a_program_is_the_same_whether_its_start_was_seen_or_its_image_looked_up() {
        let image = |exe: &str| Image { exe: exe.into(), ..image("python3 /opt/train.py") };
        assert_eq!(image("/usr/bin/python3").workload(), image("/usr/bin/python3.11").workload());
        assert_ne!(image("/usr/bin/python3").workload(), image("/usr/bin/pypy3").workload());
        assert_ne!(image("/opt/7").workload(), image("/opt/x").workload(), "a number alone is a name");
    }

    #[test]
    fn other_programs_scripts_and_data_are_other_workloads() {
        assert!(!same("python3 train.py", "python3 evaluate.py"));
        assert!(!same("train --data /data/faces", "train --data /data/roads"));
        assert!(!same("train --data /tmp/faces", "train --data /tmp/roads"));
        assert!(!same("train --data facade", "train --data deadbeefcafe"), "letters only are a name, not a hash");
        assert!(!same("train a bc", "train ab c"));
        let mut elsewhere = image("python3 train.py");
        elsewhere.cwd = "/home/bob".into();
        assert_ne!(elsewhere.workload(), image("python3 train.py").workload(), "a relative script of another place");
        elsewhere.argv = vec!["python3".into(), "/opt/train.py".into()];
        assert_eq!(elsewhere.workload(), image("python3 /opt/train.py").workload());
    }

    #[test]
    fn secrets_are_not_kept() {
        for (given, kept) in [
            ("load --token=abc123 x", "load --token=*** x"),
            ("load --password hunter x", "load --password *** x"),
            ("load --api-key k --seed 3", "load --api-key *** --seed #"),
            ("load AWS_SECRET_ACCESS_KEY=zzz", "load AWS_SECRET_ACCESS_KEY=***"),
            ("load https://ada:pw@host/x", "load https://***@host/x"),
            ("load --auth --verbose", "load --auth --verbose"),
        ] {
            assert_eq!(image(given).command(), kept);
        }
        assert!(same("load --token=abc", "load --token=xyz"), "nor hashed");
    }

    #[test]
    fn numbers_that_stand_alone_are_told_and_what_may_be_a_secret_is_not() {
        let told: [(&str, &[Option<u32>]); 10] = [
            ("python train.py --data imagenet/train --seed 11 --workers 2", &[Some(11), Some(2)]),
            ("python pretrain.py 300", &[Some(300)]),
            ("train seed=7 trainer.max_epochs=90 --lr=0.1", &[Some(7), Some(90)]),
            ("align S0412 /data/2026/x-3.bin v2 --lr 0.001 -s11 -1", &[]),
            // Each keeps its place, whether it is told or not.
            ("load --commit 9fceb02d0ae598e9 --seed 3", &[None, Some(3)]),
            ("load --commit 12345678 --seed 3", &[Some(12_345_678), Some(3)]),
            ("load --id 4111111111111111 4294967295 4294967296", &[None, Some(u32::MAX), None]),
            ("mysql -p 1234 --pin 99 --otp=123456 --customer-account 5", &[None, None, None, None]),
            ("load --password 1234 --token=77 --api-key 5 8", &[Some(8)]),
            ("x 1 2 3 4 5 6 7 8 9 10", &[Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7), Some(8)]),
        ];
        for (given, told) in told {
            assert_eq!(image(given).numbers(), told, "{given}");
        }
    }

    #[test]
    fn a_program_of_many_in_one_binary_has_the_name_it_was_called_by() {
        let called = |argv: &[&str]| {
            let argv = argv.iter().map(|a| (*a).to_owned()).collect();
            Image { exe: "/bin/busybox".into(), argv, ..Image::default() }.program().to_owned()
        };
        assert_eq!(called(&["/usr/bin/tail", "-f", "x"]), "tail");
        assert_eq!(called(&[]), "busybox");
        let plain =
            Image { exe: "/usr/bin/python3.11 (deleted)".into(), argv: vec!["python".into()], ..Image::default() };
        assert_eq!(plain.program(), "python3.11");
    }

    #[test]
    fn a_label_tells_people_which_it_is() {
        assert!(
            image("python3 -u /opt/jobs/train_resnet50.py --seed 1")
                .workload()
                .as_str()
                .starts_with("train_resnet.py-")
        );
        assert!(image("loader-7 --data /d").workload().as_str().starts_with("loader-"));
    }

    #[test]
    fn control_groups_of_each_runtime() {
        let id = "3f4e1c0d9b8a7f6e5d4c3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706";
        let uid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        let flat = uid.replace('-', "_");
        let container = Habitat::Container(id.into());
        let in_pod = Habitat::Pod { uid: uid.into(), container: id.into() };
        let slurm = |step: &str| Habitat::Slurm { job: "4711".into(), step: step.into() };
        for (cgroup, expected) in [
            // Docker: v1 with cgroupfs, v1 with systemd, v2 with systemd.
            (format!("12:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n"), container.clone()),
            (format!("1:name=systemd:/system.slice/docker-{id}.scope\n"), container.clone()),
            (format!("0::/system.slice/docker-{id}.scope\n"), container.clone()),
            // Podman, rootless.
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container\n"),
                container.clone(),
            ),
            // containerd without Kubernetes.
            (format!("0::/system.slice/cri-containerd-{id}.scope\n"), container.clone()),
            (format!("0::/default/containerd/{id}\n"), container.clone()),
            // Kubernetes: containerd with systemd, with cgroupfs, CRI-O, Docker on v1, kind's nesting.
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{flat}.slice/cri-containerd-{id}.scope\n"
                ),
                in_pod.clone(),
            ),
            (format!("0::/kubepods/besteffort/pod{uid}/{id}\n"), in_pod.clone()),
            (format!("0::/kubepods.slice/kubepods-pod{flat}.slice/crio-{id}.scope/container\n"), in_pod.clone()),
            (
                format!(
                    "4:memory:/kubepods/burstable/pod{uid}/{id}\n1:name=systemd:/kubepods/burstable/pod{uid}/{id}\n"
                ),
                in_pod.clone(),
            ),
            (
                format!(
                    "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{flat}.slice/cri-containerd-{id}.scope\n"
                ),
                in_pod,
            ),
            // Slurm: v1, v2.
            (
                "9:memory:/slurm/uid_1000/job_4711/step_0/task_1\n1:name=systemd:/system.slice/slurmd.service\n".into(),
                slurm("0"),
            ),
            ("0::/system.slice/slurmstepd.scope/job_4711/step_batch/user/task_0\n".into(), slurm("batch")),
            ("9:memory:/slurm_node7/uid_1000/job_4711/step_extern\n".into(), slurm("extern")),
            // Services and sessions.
            ("0::/system.slice/ingest@3.service\n".into(), Habitat::Service("ingest@3.service".into())),
            (
                "0::/system.slice/system-ingest.slice/ingest@3.service\n".into(),
                Habitat::Service("ingest@3.service".into()),
            ),
            ("0::/user.slice/user-1000.slice/session-4.scope\n".into(), Habitat::Plain),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u3.scope\n".into(), Habitat::Plain),
            ("0::/\n".into(), Habitat::Plain),
            (String::new(), Habitat::Plain),
        ] {
            assert_eq!(Habitat::of(innermost_group(&cgroup)), expected, "{cgroup}");
        }
    }

    #[test]
    fn the_next_run_in_another_pod_container_or_job_is_the_same_workload() {
        let with = |group: &str| Image { group: group.into(), ..image("train --data /d") }.workload();
        assert_eq!(
            with("/system.slice/slurmstepd.scope/job_1/step_0/user/task_0"),
            with("/system.slice/slurmstepd.scope/job_2/step_0/user/task_3")
        );
        assert_eq!(with("/system.slice/ingest@3.service"), with("/system.slice/ingest@4.service"));
        assert_ne!(with("/system.slice/ingest.service"), with("/system.slice/export.service"));
    }

    #[test]
    fn pods_of_one_owner_are_one_workload_and_of_another_owner_another() {
        let pod = "/kubepods/besteffort/pod123e4567-e89b-12d3-a456-426614174000/x";
        let of = |group: &str, owner: &str| {
            Image { group: group.into(), owner: owner.into(), ..image("train --data /d") }.workload()
        };
        assert_eq!(of(pod, "lab/train"), of(&pod.replace("123e4567", "00000000"), "lab/train"));
        assert_ne!(of(pod, "lab/train"), of(pod, "lab/evaluate"));
        assert_ne!(of(pod, "lab/train"), of(pod, "other/train"));
    }

    #[test]
    fn a_pods_owner_is_read_from_its_name() {
        for (pod, owner) in [
            ("train-6d4b75cb6d-hx7k2", "train"),      // a Deployment's ReplicaSet
            ("train-resnet-x2v9q", "train-resnet"),   // a Job or DaemonSet
            ("train-resnet-3-x2v9q", "train-resnet"), // an indexed Job
            ("nightly-28912345-bq7wz", "nightly"),    // a CronJob's Job
            ("store-0", "store"),                     // a StatefulSet
            ("mnist-worker-12", "mnist-worker"),      // a training operator's replica
            ("train-model", "train-model"),           // bare, and a word has vowels
            ("train", "train"),
            ("hx7k2", "hx7k2"),
            ("-hx7k2", "-hx7k2"),
            ("", ""),
        ] {
            assert_eq!(owner_of_pod(pod), owner, "{pod}");
        }
    }
}
