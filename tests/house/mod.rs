//! A control plane, an agent beside the data and one with a mount, all as processes on this machine.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(10) {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The house; its processes end with it.
pub struct House {
    control: String,
    // In this order: the mount goes before its control plane, the folder last.
    processes: Vec<Process>,
    folder: TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for what happens a little later.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl House {
    /// Starts it in a folder made in `within`; `also` may become a volume, too. The GPU site's agent reaches a port of the
    /// storage site at the port that `reached_at` answers: another one where a link lies between them.
    pub fn start(within: &Path, also: &Path, reached_at: impl Fn(u16) -> u16) -> Self {
        let folder = TempDir::with_prefix_in("house-", within).unwrap();
        let root = folder.path().display().to_string();
        for name in ["offered/set/sub", "secret", "mnt"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let (control_port, chunk_port) = (free_port(), free_port());
        let control = format!("http://127.0.0.1:{control_port}");
        let serve = format!(
            "listen = \"127.0.0.1:{control_port}\"\nstate = \"{root}/control\"\n[site.storage]\n[site.gpu]\ncache = \"1 GB\"\n\
             [[link]]\nfrom = \"storage\"\nto = \"gpu\"\nrate = \"1 Gbit/s\"\nrtt = \"1ms\"\n"
        );
        let agent = |node: &str, site: &str, control_port: u16| {
            format!(
                "node = \"{node}\"\nsite = \"{site}\"\ncontrol = \"http://127.0.0.1:{control_port}\"\ntoken_file = \"{root}/control/token\"\n\
                 state = \"{root}/{node}\"\n[trace]\nenabled = false\n"
            )
        };
        let advertised = reached_at(chunk_port);
        let storage = agent("storage-1", "storage", control_port)
            + &format!(
                "[source]\nlisten = \"127.0.0.1:{chunk_port}\"\nadvertise = \"127.0.0.1:{advertised}\"\noffer = [\"{root}/offered\", \"{}\"]\n",
                also.display()
            );
        let gpu = agent("gpu-1", "gpu", reached_at(control_port))
            + &format!("[cache]\npath = \"{root}/cache\"\ncapacity = \"1 GB\"\nmount = \"{root}/mnt\"\n");
        let mut house = Self { control, processes: Vec::new(), folder };
        house.spawn("serve", "serve", &serve);
        eventually("the token is written", || house.at("control/token").exists());
        house.spawn("agent", "storage-1", &storage);
        house.spawn("agent", "gpu-1", &gpu);
        eventually("both agents say hello", || {
            let told = house.foretide(&["status", "--json"]).unwrap_or_default();
            told.contains("storage-1") && told.contains("gpu-1")
        });
        house
    }

    /// A file or folder of the house: `offered`, `secret`, `mnt`, and what its processes wrote.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Appends to the control plane's configuration and has it read again.
    #[allow(dead_code, reason = "the bench that shares this house changes nothing")]
    pub fn reconfigure(&self, more: &str) {
        let mut file = File::options().append(true).open(self.at("serve.toml")).unwrap();
        file.write_all(more.as_bytes()).unwrap();
        let serve = self.processes.last().expect("it was started first");
        kill(Pid::from_raw(serve.0.id().cast_signed()), Signal::SIGHUP).unwrap();
    }

    fn spawn(&mut self, subcommand: &str, name: &str, config: &str) {
        let at = self.at(&format!("{name}.toml"));
        fs::write(&at, config).unwrap();
        let log = File::create(self.at(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
        command.args([subcommand, "--config"]).arg(at).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes.insert(0, Process(command.spawn().unwrap()));
    }

    /// What a command prints; its complaint if it fails.
    pub fn foretide(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
        command.args(arguments).args(["--control", &self.control, "--token-file"]).arg(self.at("control/token"));
        let done = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }
}
