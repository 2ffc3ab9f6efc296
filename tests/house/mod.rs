//! A control plane and agents, all as processes on this machine.

#[path = "../process/mod.rs"]
mod process;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use process::Process;
pub use process::{eventually, free_port};

/// The house; its processes end with it.
pub struct House {
    control: String,
    // In this order, each with its name: the mount goes before its control plane, the folder last.
    processes: Vec<(String, Process)>,
    folder: TempDir,
}

impl House {
    /// Starts it in a folder made in `within`; `also` may become a volume, too. The GPU site's agent reaches a port of the
    /// storage site at the port that `reached_at` answers: another one where a link lies between them.
    pub fn start(within: &Path, also: &Path, reached_at: impl Fn(u16) -> u16) -> Self {
        let (control_port, chunk_port) = (free_port(), free_port());
        let sites = "[site.storage]\n[site.gpu]\ncache = \"1 GB\"\n\
             [[link]]\nfrom = \"storage\"\nto = \"gpu\"\nrate = \"1 Gbit/s\"\nrtt = \"1ms\"\n";
        let mut house = Self::open(within, control_port, sites);
        for name in ["offered/set/sub", "secret", "mnt"] {
            fs::create_dir_all(house.at(name)).unwrap();
        }
        let (root, advertised) = (house.folder.path().display().to_string(), reached_at(chunk_port));
        let offers = format!(
            "[source]\nlisten = \"127.0.0.1:{chunk_port}\"\nadvertise = \"127.0.0.1:{advertised}\"\noffer = [\"{root}/offered\", \"{}\"]\n",
            also.display()
        );
        let mounts = format!("[cache]\npath = \"{root}/cache\"\ncapacity = \"1 GB\"\nmount = \"{root}/mnt\"\n");
        house.agent("storage-1", "storage", control_port, &offers);
        house.agent("gpu-1", "gpu", reached_at(control_port), &mounts);
        house
    }

    /// A control plane alone; `sites` is what its configuration says of sites, links and volumes.
    pub fn open(within: &Path, port: u16, sites: &str) -> Self {
        let folder = TempDir::with_prefix_in("house-", within).unwrap();
        let mut house = Self { control: format!("http://127.0.0.1:{port}"), processes: Vec::new(), folder };
        let state = house.at("control").display().to_string();
        house.spawn("serve", "serve", &format!("listen = \"127.0.0.1:{port}\"\nstate = \"{state}\"\n{sites}"));
        eventually("the token is written", || house.at("control/token").exists());
        house
    }

    /// Starts an agent, with `parts` as the rest of its configuration, and waits until it has said hello.
    pub fn agent(&mut self, node: &str, site: &str, control_port: u16, parts: &str) {
        let root = self.folder.path().display();
        let config = format!(
            "node = \"{node}\"\nsite = \"{site}\"\ncontrol = \"http://127.0.0.1:{control_port}\"\ntoken_file = \"{root}/control/token\"\n\
             state = \"{root}/{node}\"\n[trace]\nenabled = false\n{parts}"
        );
        self.spawn("agent", node, &config);
        eventually("the agent says hello", || {
            self.foretide(&["status", "--json"]).unwrap_or_default().contains(&format!("\"{node}\""))
        });
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
        let (_, serve) = self.processes.last().expect("it was started first");
        kill(serve.pid(), Signal::SIGHUP).unwrap();
    }

    /// Kills an agent, who can say goodbye to nobody.
    #[allow(dead_code, reason = "most who share this house let its agents live")]
    pub fn kill(&mut self, node: &str) {
        let place = self.processes.iter().position(|(name, _)| name == node).expect("it was started");
        let (_, agent) = self.processes.remove(place);
        kill(agent.pid(), Signal::SIGKILL).unwrap();
    }

    fn spawn(&mut self, subcommand: &str, name: &str, config: &str) {
        let at = self.at(&format!("{name}.toml"));
        fs::write(&at, config).unwrap();
        let started = Process::start(self.folder.path(), name, &[subcommand, "--config", at.to_str().unwrap()]);
        self.processes.insert(0, (name.to_owned(), started));
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

impl Drop for House {
    /// A test that failed shows what its processes said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, _) in &self.processes {
                let log = fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default();
                eprintln!("--- {name}\n{log}");
            }
        }
    }
}
