//! What the agent gives up of root's power, and when.
//!
//! Before its first thread: every capability that its configuration does not need, for good
//! ([`keep_what_is_needed`]). When all parts are up: the system calls that an agent makes only while it starts, or never,
//! for all threads ([`lock`]). Only an agent that mounts without root keeps what a user has, see [`mounts_by_helper`].
//! `docs/THREATS.md` says against whom this helps.

use std::collections::{BTreeMap, HashSet};

use caps::{CapSet, Capability};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::config::AgentConfig;
use crate::run::RunError;

/// What the parts of a configuration need.
fn needed(config: &AgentConfig) -> HashSet<Capability> {
    let mut needed = HashSet::new();
    if config.trace.enabled {
        // Probes; and to learn what a process of another user runs, and where.
        needed.extend([Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE]);
    }
    if config.source.is_some() {
        // To read what other users own; and to hear changes, whose queue is made at the start.
        needed.extend([Capability::CAP_DAC_READ_SEARCH, Capability::CAP_SYS_ADMIN]);
    }
    if config.in_place.is_some() {
        // To read what other users own; and to ask what of it is in memory, which only an owner may.
        needed.extend([Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER]);
    }
    if config.cache.as_ref().is_some_and(|c| c.mount.is_some()) {
        // The mount and its passthrough.
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    if config.source.is_some() || config.cache.is_some() {
        // Socket buffers for long links, and BBR.
        needed.insert(Capability::CAP_NET_ADMIN);
    }
    needed
}

/// Whether it mounts, and unmounts at its end, by `fusermount3`: a program that is root by its set-user-ID bit. A process
/// with `no_new_privs`, which a seccomp filter wants too, cannot start it as what it is.
pub fn mounts_by_helper(config: &AgentConfig) -> Result<bool, RunError> {
    let mounts = config.cache.as_ref().is_some_and(|c| c.mount.is_some());
    let may = caps::has_cap(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN);
    Ok(mounts && !may.map_err(|e| RunError::Told(format!("capabilities cannot be read: {e}")))?)
}

/// Drops every capability but those that the configuration needs, here and in all threads begun after this.
///
/// # Errors
/// If the kernel refuses, which it has no reason to.
pub fn keep_what_is_needed(config: &AgentConfig) -> Result<(), RunError> {
    let told = |e: caps::errors::CapsError| RunError::Told(format!("capabilities cannot be dropped: {e}"));
    let held = caps::read(None, CapSet::Permitted).map_err(told)?;
    let kept: HashSet<Capability> = needed(config).intersection(&held).copied().collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        for gone in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *gone).map_err(told)?;
        }
    }
    if !mounts_by_helper(config)? {
        nix::sys::prctl::set_no_new_privs().map_err(std::io::Error::from)?;
    }
    caps::clear(None, CapSet::Ambient).map_err(told)?;
    caps::clear(None, CapSet::Inheritable).map_err(told)?;
    caps::set(None, CapSet::Effective, &kept).map_err(told)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(told)?;
    let missing: Vec<String> = needed(config).difference(&kept).map(ToString::to_string).collect();
    if !missing.is_empty() {
        tracing::warn!(?missing, "not all capabilities that the configuration needs are here; see `foretide doctor`");
    }
    Ok(())
}

/// Never made by an agent that is up, and each of use to somebody who has taken it over.
const NEVER: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_userfaultfd,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
];
/// `bpf` with this command loads a program.
const BPF_PROG_LOAD: u64 = 5;

/// Forbids what an agent that is up never does, for all threads and for good.
///
/// # Errors
/// If the kernel has no seccomp.
pub fn lock() -> Result<(), RunError> {
    let told = |e: String| RunError::Told(format!("system calls cannot be forbidden: {e}"));
    let filter = filter().map_err(told)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|e| told(e.to_string()))
}

fn filter() -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let load = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, BPF_PROG_LOAD);
    let load = load.and_then(|load| SeccompRule::new(vec![load])).map_err(|e| e.to_string())?;
    rules.insert(libc::SYS_bpf, vec![load]);
    let (otherwise, forbidden) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let machine = std::env::consts::ARCH.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
    let filter = SeccompFilter::new(rules, otherwise, forbidden, machine).map_err(|e| e.to_string())?;
    BpfProgram::try_from(filter).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> AgentConfig {
        let head = "node = \"n\"\nsite = \"s\"\ncontrol = \"http://127.0.0.1:1\"\ntoken_file = \"/no/token\"\nstate = \"/no/state\"\n";
        toml::from_str(&format!("{head}{text}")).unwrap()
    }

    #[test]
    fn an_agent_that_only_observes_keeps_no_power_over_the_machine() {
        let of = |text| needed(&config(text));
        let observing = of("");
        assert_eq!(
            observing,
            HashSet::from([Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE])
        );
        assert!(of("[trace]\nenabled = false\n").is_empty());
        let source = of("[trace]\nenabled = false\n[source]\nlisten = \"127.0.0.1:0\"\nvolumes = {}\n");
        assert!(source.contains(&Capability::CAP_DAC_READ_SEARCH) && !source.contains(&Capability::CAP_DAC_OVERRIDE));
    }

    /// In a process of its own, because it cannot be undone. Not a test when run by itself.
    #[test]
    fn weakened_process() {
        if std::env::var_os("FORETIDE_TEST_WEAKENED").is_none() {
            return;
        }
        keep_what_is_needed(&config("")).unwrap();
        // The harness' other threads keep theirs; what begins from here on has no more than this one.
        let status =
            std::thread::spawn(|| std::fs::read_to_string("/proc/thread-self/status").unwrap()).join().unwrap();
        let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let bits = |name| u64::from_str_radix(&line(name), 16).unwrap();
        let observing = 1 << 39 | 1 << 38 | 1 << 19;
        assert_eq!((bits("CapPrm:"), bits("CapEff:"), bits("CapBnd:")), (observing, observing, observing));
        assert_eq!((bits("CapInh:"), bits("CapAmb:"), line("NoNewPrivs:").as_str()), (0, 0, "1"));
        println!("weakened");
    }

    #[test]
    fn what_is_not_needed_is_gone_for_good() {
        if !nix::unistd::geteuid().is_root() {
            return println!("SKIPPED: only root has something to lose");
        }
        let me = std::env::current_exe().unwrap();
        let out = std::process::Command::new(me)
            .args(["--exact", "run::agent::privilege::tests::weakened_process", "--nocapture"])
            .env("FORETIDE_TEST_WEAKENED", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("weakened"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }

    /// In a process of its own, because it cannot be undone. Not a test when run by itself.
    #[test]
    fn locked_process() {
        if std::env::var_os("FORETIDE_TEST_LOCKED").is_none() {
            return;
        }
        let (go, come) = std::sync::mpsc::channel::<()>();
        // A thread that was there before the lock is locked too.
        let earlier = std::thread::spawn(move || {
            let _ = come.recv();
            std::process::Command::new("true").status().unwrap_err().raw_os_error()
        });
        lock().unwrap();
        drop(go);
        assert_eq!(earlier.join().unwrap(), Some(libc::EPERM));
        for call in NEVER {
            // SAFETY: the filter answers before the kernel looks at any argument.
            let answer = unsafe { libc::syscall(*call, 0, 0, 0, 0, 0, 0) };
            let error = std::io::Error::last_os_error().raw_os_error();
            assert_eq!((answer, error), (-1, Some(libc::EPERM)), "call {call}");
        }
        // SAFETY: an attribute of no bytes is refused whoever asks; what matters is by whom.
        let load = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, 0, 0) };
        assert_eq!((load, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
        std::fs::read("/proc/self/stat").unwrap();
        println!("locked");
    }

    #[test]
    fn a_locked_agent_starts_nothing_and_loads_nothing() {
        let me = std::env::current_exe().unwrap();
        let out = std::process::Command::new(me)
            .args(["--exact", "run::agent::privilege::tests::locked_process", "--nocapture"])
            .env("FORETIDE_TEST_LOCKED", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("locked"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }
}
