//! What `/proc` says of a process that was there before we looked, or whose start was missed.

use std::path::Path;

use crate::identity::{Image, innermost_group};
use crate::source::kernel::arguments;

/// A process as `/proc` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its parent.
    pub parent: u32,
    /// When it started, ticks of 10 ms since boot.
    pub started_ticks: u64,
    /// What it runs.
    pub image: Image,
}

/// Where facts about processes come from: `/proc`, or a table in tests.
pub trait ProcessView: Send {
    /// The process, if it is still there.
    fn process(&self, process: u32) -> Option<ProcessFacts>;

    /// When the process started, if it is still there; cheaper than all facts.
    fn started_ticks(&self, process: u32) -> Option<u64>;

    /// The directory a process is in.
    fn directory(&self, process: u32) -> Option<String>;

    /// Namespace and name of the Kubernetes pod with this uid, if it is of this machine.
    fn pod(&self, uid: &str) -> Option<(String, String)>;
}

/// Where kubelet keeps the logs of each pod of a machine, in a folder called NAMESPACE_NAME_UID.
const PODS: &str = "/var/log/pods";

/// The real `/proc`.
pub struct Procfs;

impl ProcessView for Procfs {
    fn process(&self, process: u32) -> Option<ProcessFacts> {
        let (parent, started_ticks) = stat(process)?;
        let argv = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
        let exe = link(process, "exe").unwrap_or_default();
        let cwd = self.directory(process).unwrap_or_default();
        let cgroup = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
        let group = innermost_group(&cgroup).to_owned();
        Some(ProcessFacts {
            parent,
            started_ticks,
            image: Image { exe, argv: arguments(&argv), cwd, group, ..Image::default() },
        })
    }

    fn started_ticks(&self, process: u32) -> Option<u64> {
        stat(process).map(|(_, ticks)| ticks)
    }

    fn directory(&self, process: u32) -> Option<String> {
        link(process, "cwd")
    }

    fn pod(&self, uid: &str) -> Option<(String, String)> {
        pod_in(Path::new(PODS), uid)
    }
}

/// Namespaces and names have no `_`.
fn pod_in(logs: &Path, uid: &str) -> Option<(String, String)> {
    let folders = std::fs::read_dir(logs).ok()?.flatten();
    folders.map(|folder| folder.file_name().to_string_lossy().into_owned()).find_map(|folder| {
        let (namespace, rest) = folder.split_once('_')?;
        let (name, id) = rest.split_once('_')?;
        (id == uid).then(|| (namespace.to_owned(), name.to_owned()))
    })
}

fn link(process: u32, name: &str) -> Option<String> {
    let target = std::fs::read_link(Path::new("/proc").join(process.to_string()).join(name)).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn stat(process: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    parse_stat(&text)
}

/// Parent and start of a process that is no zombie. The name in parentheses may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((parent, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let line = "71 (a) b) S 70 71 71 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        assert_eq!(parse_stat(line), Some((70, 98765)));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), None, "a zombie has ended");
        assert_eq!(parse_stat("71 (cut"), None);
    }

    #[test]
    fn a_pod_is_found_by_its_uid() {
        let logs = tempfile::tempdir().unwrap();
        let uid = "123e4567-e89b-12d3-a456-426614174000";
        assert_eq!(pod_in(logs.path(), uid), None);
        for folder in [format!("lab_train-x2v9q_{uid}"), "lab_other_7".into(), "kube".into()] {
            std::fs::create_dir(logs.path().join(folder)).unwrap();
        }
        assert_eq!(pod_in(logs.path(), uid), Some(("lab".into(), "train-x2v9q".into())));
        assert_eq!(pod_in(&logs.path().join("none"), uid), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = Procfs.process(std::process::id()).unwrap();
        assert!(me.image.program().contains("foretide_collector"), "{me:?}");
        assert_eq!(Procfs.started_ticks(std::process::id()), Some(me.started_ticks));
    }
}
