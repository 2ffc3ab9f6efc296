//! `foretide doctor`: what this machine can do, what is missing, and what that costs.

use std::fs;
use std::path::Path;

use clap::Args;
use foretide_collector::probe::{Probe, ProbeState, Tier};
use serde::Serialize;

use super::RunError;

/// Options of `foretide doctor`.
#[derive(Args, Debug)]
pub struct Options {
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    here: bool,
    /// Why it is not there, or what it is.
    detail: String,
    /// What is lost without it, and the remedy.
    lost_without: String,
}

/// Looks and prints. Nothing is changed, and what is missing is no error: Foretide runs without it.
///
/// # Errors
/// If standard output is gone.
pub fn run(options: &Options) -> Result<(), RunError> {
    let mut findings = vec![root(), btf(), fuse(), passthrough(), namespaces(), congestion_control()];
    findings.extend(probes());
    if options.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(std::io::Error::other)?);
        return Ok(());
    }
    for f in findings {
        println!("{} {:<28} {}", if f.here { "ok     " } else { "missing" }, f.what, f.detail);
        if !f.here {
            println!("        without it: {}", f.lost_without);
        }
    }
    Ok(())
}

fn finding(what: &str, here: bool, detail: impl Into<String>, lost_without: &str) -> Finding {
    Finding { what: what.to_owned(), here, detail: detail.into(), lost_without: lost_without.to_owned() }
}

fn root() -> Finding {
    let is_root = nix::unistd::geteuid().is_root();
    let lost = "no tracing by eBPF, no passthrough, no namespaces for the demo; run as root, or give the agent's unit its capabilities";
    finding("root", is_root, if is_root { "yes" } else { "this user is not root" }, lost)
}

fn btf() -> Finding {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    let lost = "the probes cannot find the kernel's structures; the mount alone observes reads";
    finding("kernel type information (BTF)", path.exists(), path.display().to_string(), lost)
}

fn fuse() -> Finding {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let helper = ["/usr/bin/fusermount3", "/bin/fusermount3"].iter().any(|p| Path::new(p).exists());
    let (here, detail) = match (&device, helper) {
        (Ok(_), _) => (true, "/dev/fuse".to_owned()),
        (Err(_), true) => (true, "by fusermount3".to_owned()),
        (Err(e), false) => (false, format!("/dev/fuse: {e}, and no fusermount3")),
    };
    finding("FUSE", here, detail, "no mount; install package fuse3 and load the module fuse")
}

fn passthrough() -> Finding {
    let (major, minor) = kernel_version();
    let new_enough = (major, minor) >= (6, 9);
    let is_root = nix::unistd::geteuid().is_root();
    let detail = format!("kernel {major}.{minor}{}", if is_root { "" } else { ", not root" });
    let lost =
        "cached files are served by the daemon instead of the kernel: slower for large reads; wants Linux 6.9 and root";
    finding("FUSE passthrough", new_enough && is_root, detail, lost)
}

fn namespaces() -> Finding {
    let tun = Path::new("/dev/net/tun").exists();
    let is_root = nix::unistd::geteuid().is_root();
    let detail = match (tun, is_root) {
        (true, true) => "/dev/net/tun, root",
        (false, _) => "no /dev/net/tun",
        (true, false) => "not root",
    };
    finding("network namespaces for demo", tun && is_root, detail, "the demo's link is a forwarder in user space")
}

fn congestion_control() -> Finding {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    let lost = "a link with loss falls to a small part of its rate; load the module tcp_bbr";
    finding("TCP BBR", known.split_whitespace().any(|c| c == "bbr"), known.trim(), lost)
}

fn probes() -> Vec<Finding> {
    let report = foretide_collector::probe(Tier::Full);
    if let Some(why) = report.refused {
        return vec![finding("probes", false, why, "reads are seen only where they pass the mount")];
    }
    let light = foretide_collector::probe(Tier::Light).probes.into_iter().next().map(|p| Probe {
        hook: format!("light tier: {}", p.hook),
        without: "trace.tier = \"light\", which leaves system calls alone; the full tier does not need it".into(),
        ..p
    });
    report.probes.into_iter().chain(light).map(of_probe).collect()
}

fn of_probe(p: Probe) -> Finding {
    let what = format!("probe {}", p.hook);
    match p.state {
        ProbeState::Loaded => finding(&what, true, "", &p.without),
        ProbeState::Refused { why } => finding(&what, false, why, &p.without),
    }
}

/// Major and minor number of the running kernel; 0.0 if it does not say.
fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
