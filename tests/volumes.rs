//! A control plane, an agent beside the data and one with a mount, all as processes: a volume is added while they run, read
//! through the mount, found, tagged and located.

use std::fs::{self, File};
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

struct House {
    control: String,
    // In this order: the mount goes before its control plane, the folder last.
    processes: Vec<Process>,
    folder: TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl House {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
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
        let agent = |node: &str, site: &str| {
            format!(
                "node = \"{node}\"\nsite = \"{site}\"\ncontrol = \"{control}\"\ntoken_file = \"{root}/control/token\"\n\
                 state = \"{root}/{node}\"\n[trace]\nenabled = false\n"
            )
        };
        let storage = agent("storage-1", "storage")
            + &format!("[source]\nlisten = \"127.0.0.1:{chunk_port}\"\noffer = [\"{root}/offered\"]\n");
        let gpu = agent("gpu-1", "gpu")
            + &format!("[cache]\npath = \"{root}/cache\"\ncapacity = \"1 GB\"\nmount = \"{root}/mnt\"\n");
        let mut house = Self { control, processes: Vec::new(), folder };
        house.spawn("serve", "serve", &serve);
        eventually("the token is written", || house.at("control/token").exists());
        house.spawn("agent", "storage-1", &storage);
        house.spawn("agent", "gpu-1", &gpu);
        house
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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
    fn foretide(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
        command.args(arguments).args(["--control", &self.control, "--token-file"]).arg(self.at("control/token"));
        let done = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }
}

fn can_mount() -> bool {
    let able = Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
    if !able {
        eprintln!("skipped: mounting needs /dev/fuse and root, nothing was tested");
    }
    able
}

#[test]
fn a_volume_that_is_added_is_read_found_tagged_and_located() {
    if !can_mount() {
        return;
    }
    let house = House::start();
    fs::write(house.at("offered/set/sub/sample.bin"), "bytes of a sample").unwrap();
    let folder = house.at("offered/set").display().to_string();
    eventually("both agents say hello", || {
        let told = house.foretide(&["status", "--json"]).unwrap_or_default();
        told.contains("storage-1") && told.contains("gpu-1")
    });
    let added = house.foretide(&["volume", "add", "late", &folder, "--at", "storage", "--tag", "project=tides"]);
    assert!(added.as_ref().is_ok_and(|told| told.contains("served by storage-1")), "{added:?}");
    let file = house.at("mnt/late/sub/sample.bin");
    eventually("it is read through the mount", || fs::read(&file).is_ok_and(|read| read == b"bytes of a sample"));
    eventually("what was looked at is found by its volume's tag", || {
        house
            .foretide(&["find", "--tag", "project=tides", "--suffix", ".bin"])
            .is_ok_and(|f| f.contains("sub/sample.bin"))
    });
    house.foretide(&["tag", "late", "sub", "kind=raw"]).unwrap();
    assert!(house.foretide(&["find", "late", "--tag", "kind=raw"]).unwrap().contains("late:sub/sample.bin"));
    eventually("what was read is resident", || {
        house.foretide(&["where", "late", "sub/sample.bin"]).is_ok_and(|told| told.contains("17 of 17 bytes"))
    });
    let told = house.foretide(&["where", "late", "sub/sample.bin"]).unwrap();
    assert!(
        told.contains("kind=raw") && told.contains("project=tides") && told.contains("the source is here"),
        "{told}"
    );
    assert!(house.foretide(&["find", "late", "--at", "gpu"]).unwrap().contains("sample.bin"));

    let taken = house.foretide(&["volume", "add", "late", &folder, "--at", "storage"]).unwrap_err();
    assert!(taken.contains("late") && taken.contains("another name"), "{taken}");
    let secret = house.at("secret").display().to_string();
    let kept = house.foretide(&["volume", "add", "kept", &secret, "--at", "storage"]).unwrap_err();
    assert!(kept.contains("source.offer"), "{kept}");
}
