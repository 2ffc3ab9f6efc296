//! What the kernel says of its running probes, in `/proc/self/fdinfo`.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::probe::Cost;

/// The attached programs, each under its hook.
pub(crate) struct Programs(Vec<(String, OwnedFd)>);

impl Programs {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, hook: &str, program: OwnedFd) {
        self.0.push((hook.to_owned(), program));
    }

    /// The cost of each so far.
    pub(crate) fn costs(&self) -> Vec<Cost> {
        let told = |fd: &OwnedFd| std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
        self.0.iter().map(|(hook, fd)| cost(hook, &told(fd).unwrap_or_default())).collect()
    }
}

/// The kernel's lines are a name, a colon, a tab and a number.
fn cost(hook: &str, fdinfo: &str) -> Cost {
    let numbers: HashMap<&str, u64> = fdinfo
        .lines()
        .filter_map(|l| l.split_once(":\t"))
        .filter_map(|(k, v)| Some((k, v.trim().parse().ok()?)))
        .collect();
    let of = |name| numbers.get(name).copied().unwrap_or_default();
    Cost { hook: hook.into(), runs: of("run_cnt"), run_ns: of("run_time_ns"), missed: of("recursion_misses") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_found() {
        let text =
            "pos:\t0\nflags:\t02000002\nprog_tag:\tab12\nrun_time_ns:\t1200\nrun_cnt:\t7\nrecursion_misses:\t2\n";
        assert_eq!(cost("sys_exit", text), Cost { hook: "sys_exit".into(), runs: 7, run_ns: 1200, missed: 2 });
        assert_eq!(cost("x", ""), Cost { hook: "x".into(), runs: 0, run_ns: 0, missed: 0 });
    }
}
