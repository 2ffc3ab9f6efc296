//! A real mount on a real /dev/fuse, over a [`Source`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_flow::Outcome;
use foretide_mount::{Config, MountEvent, MountHandle, Sinks, mount};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::source::Source;

pub struct Rig {
    pub source: Arc<Source>,
    pub mount: MountHandle,
    pub outcomes: mpsc::Receiver<Outcome>,
    pub events: mpsc::Receiver<MountEvent>,
    pub point: TempDir,
    // Last: tasks outlive the mount that they serve.
    pub runtime: Runtime,
}

/// Why there can be no mount here, if so. A machine without /dev/fuse says so; root is expected to have it.
pub fn cannot_mount() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let helper = root || std::process::Command::new("fusermount3").arg("--version").output().is_ok();
    let able = Path::new("/dev/fuse").exists() && helper;
    assert!(able || !root, "/dev/fuse is missing: load the module with `modprobe fuse`");
    if !able {
        eprintln!("skipped: no /dev/fuse or no fusermount3 here, nothing was tested");
    }
    !able
}

pub fn with(change: impl FnOnce(&mut Config)) -> Rig {
    let source = Source::new("data");
    let point = TempDir::new().unwrap();
    on(source, point, change)
}

pub fn on(source: Arc<Source>, point: TempDir, change: impl FnOnce(&mut Config)) -> Rig {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (outcomes_in, outcomes) = mpsc::channel(100_000);
    let (events_in, events) = mpsc::channel(100_000);
    let mut config = Config::at(point.path(), vec![source.volume.clone()]);
    change(&mut config);
    let guard = runtime.enter();
    let mount = mount(config, source.clone(), Sinks { outcomes: outcomes_in, events: Some(events_in) }).unwrap();
    drop(guard);
    Rig { source, mount, outcomes, events, point, runtime }
}

pub fn rig() -> Rig {
    with(|_| {})
}

impl Rig {
    pub fn at(&self, path: &str) -> PathBuf {
        self.point.path().join("data").join(path)
    }

    /// The next outcome; what is told at the close of a file arrives a little later than the close.
    pub fn outcome(&mut self) -> Outcome {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(outcome) = self.outcomes.try_recv() {
                return outcome;
            }
            assert!(Instant::now() < until, "no outcome was told");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits for something that happens a little later.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes that differ everywhere.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The errno of what failed.
pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("should have failed").raw_os_error().expect("an errno")
}
