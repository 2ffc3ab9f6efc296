//! Processes of the binary under test, and waiting for what they do.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Patience with one that was told to end.
const PATIENCE_AT_END: Duration = Duration::from_secs(10);

/// Ports of tests: those of several processes side by side lie apart.
const FIRST_PORT: u16 = 10_000;
const PORTS_PER_PROCESS: u16 = 100;
const PROCESSES: u32 = 200;

/// One process; it ends with this.
pub struct Process(Child);

impl Process {
    /// Starts `foretide`; what it says goes to `name.log` in `folder`.
    pub fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let log = File::create(folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE_AT_END {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port on which nobody listens. None is given twice, and all lie below those that outgoing connections take: between
/// this call and the listening nobody else gets it.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = FIRST_PORT + PORTS_PER_PROCESS * (std::process::id() % PROCESSES) as u16;
    loop {
        let port = first + GIVEN.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits for what happens a little later.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
