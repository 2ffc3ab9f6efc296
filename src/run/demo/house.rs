//! The two sites of the demo: a link, a control plane, two agents. All are the ordinary subcommands, started as
//! processes of their own with configuration files that stay behind to be read.
//!
//! With root the sites are network namespaces joined by an emulated link; without, all listen on loopback and what
//! crosses the link goes through a forwarder that delays and paces it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foretide_flow::BitsPerSecond;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DemoError;
use super::job::enter_on_start;
use crate::client::ControlClient;
use crate::run::link;
use crate::tls::Trust;

/// How long a process may take to end by itself before it is killed.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
/// How long the house may take to answer after its start.
const PATIENCE_AT_START: Duration = Duration::from_secs(30);
/// Room of the GPU site's cache, in data sets: one being read and one arriving.
const CACHE_DATASETS: u64 = 2;

/// What the link is like.
#[derive(Clone, Copy, Debug)]
pub struct LinkShape {
    /// Round trip.
    pub rtt: Duration,
    /// Each direction.
    pub rate: BitsPerSecond,
}

/// Folders of the demo, all below one.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of all.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Source volumes at the storage site.
    pub fn sources(&self) -> PathBuf {
        self.root.join("storage/volumes")
    }

    /// One of them.
    pub fn source(&self, volume: &str) -> PathBuf {
        self.sources().join(volume)
    }

    /// A volume as the GPU site's mount shows it.
    pub fn mounted(&self, volume: &str) -> PathBuf {
        self.mount_point().join(volume)
    }

    /// Where the GPU site's agent mounts.
    pub fn mount_point(&self) -> PathBuf {
        self.root.join("gpu/mnt")
    }

    /// A log file.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// A configuration file.
    pub fn config(&self, name: &str) -> PathBuf {
        self.root.join("config").join(format!("{name}.toml"))
    }

    /// Where the forwarder counts.
    fn link_count(&self) -> PathBuf {
        self.root.join("logs/link.bytes")
    }

    fn token(&self) -> PathBuf {
        self.root.join("control/token")
    }
}

/// Addresses under which the parts reach each other.
struct Addresses {
    serve_listen: SocketAddr,
    chunks_listen: SocketAddr,
    /// The control plane as the storage site, the GPU site and this process see it.
    control_from_storage: String,
    control_from_gpu: String,
    control_from_here: String,
    chunks_from_gpu: SocketAddr,
}

/// A process that ends with its owner.
struct Process {
    name: &'static str,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE_AT_END {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        tracing::warn!(process = self.name, "did not end when asked; killed");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that runs during the demo. Dropping it ends the processes first and the link last.
pub struct House {
    folders: Folders,
    processes: Vec<Process>,
    namespaces: Option<Namespaces>,
    control: ControlClient,
}

struct Namespaces {
    storage: PathBuf,
    gpu: PathBuf,
    to_host: String,
}

impl House {
    /// Starts everything and waits until it answers. `volumes` are served by the storage site; the cache holds
    /// [`CACHE_DATASETS`] times `dataset_bytes`.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub async fn start(
        folders: &Folders,
        link_shape: LinkShape,
        volumes: &[&str],
        dataset_bytes: u64,
        as_root: bool,
    ) -> Result<Self, DemoError> {
        for folder in ["logs", "config", "control", "storage", "gpu/mnt", "gpu/cache"] {
            fs::create_dir_all(folders.root().join(folder))?;
        }
        let (link, namespaces, addresses) =
            if as_root { start_namespaces(folders, link_shape)? } else { start_forwarder(folders, link_shape)? };
        write_configs(folders, &addresses, link_shape, volumes, dataset_bytes)?;
        let control = ControlClient::new(&addresses.control_from_here, folders.token(), &Trust::default())?;
        let mut house = Self { folders: folders.clone(), processes: vec![link], namespaces, control };
        house.spawn("serve", Site::Storage)?;
        house.wait("serve", |c| Box::pin(c.is_healthy())).await?;
        house.spawn("storage-agent", Site::Storage)?;
        house.spawn("gpu-agent", Site::Gpu)?;
        let mount_point = folders.mount_point();
        let count = volumes.len();
        house
            .wait("gpu-agent", move |_| {
                let shown = fs::read_dir(&mount_point).map_or(0, Iterator::count);
                Box::pin(async move { shown >= count })
            })
            .await?;
        Ok(house)
    }

    /// The control plane's API.
    pub fn control(&self) -> &ControlClient {
        &self.control
    }

    /// The namespace in which the job runs, if there are namespaces.
    pub fn gpu_namespace(&self) -> Option<&Path> {
        self.namespaces.as_ref().map(|n| n.gpu.as_path())
    }

    /// Empties the GPU site's cache, by the command that an admin would use.
    ///
    /// # Errors
    /// The command's own.
    pub fn empty_cache(&mut self) -> Result<(), DemoError> {
        let done = foretide()?.args(["cache", "empty", "--config"]).arg(self.folders.config("gpu-agent")).output()?;
        if done.status.success() {
            return Ok(());
        }
        self.check_alive()?;
        let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(DemoError::Part { part: "foretide cache empty", why })
    }

    /// Bytes that have crossed the link toward the GPU site, counted by its network device or by the forwarder.
    pub fn crossed_bytes(&self) -> Option<u64> {
        let Some(namespaces) = &self.namespaces else {
            return fs::read_to_string(self.folders.link_count()).ok()?.parse().ok();
        };
        let namespace = namespaces.gpu.clone();
        std::thread::spawn(move || -> Option<u64> {
            nix::sched::setns(File::open(namespace).ok()?, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            let table = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
            received_bytes(&table, "wan0")
        })
        .join()
        .ok()
        .flatten()
    }

    /// Fails with the log of the first process that has ended.
    ///
    /// # Errors
    /// Which one ended and what it said last.
    pub fn check_alive(&mut self) -> Result<(), DemoError> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                let log = fs::read_to_string(self.folders.log(process.name)).unwrap_or_default();
                let why = format!("{status}: {}", last_lines(&log, 5));
                return Err(DemoError::Part { part: process.name, why });
            }
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, site: Site) -> Result<(), DemoError> {
        let subcommand = if name == "serve" { "serve" } else { "agent" };
        let mut command = foretide()?;
        command.arg(subcommand).arg("--config").arg(self.folders.config(name));
        let inside = self.namespaces.as_ref().map(|n| match site {
            Site::Storage => n.storage.as_path(),
            Site::Gpu => n.gpu.as_path(),
        });
        let process = spawn(name, command, inside, &self.folders)?;
        self.processes.push(process);
        Ok(())
    }

    async fn wait(
        &mut self,
        part: &'static str,
        ready: impl Fn(&ControlClient) -> std::pin::Pin<Box<dyn Future<Output = bool> + '_>>,
    ) -> Result<(), DemoError> {
        let began = Instant::now();
        while !ready(&self.control).await {
            self.check_alive()?;
            if began.elapsed() > PATIENCE_AT_START {
                let log = fs::read_to_string(self.folders.log(part)).unwrap_or_default();
                return Err(DemoError::Part { part, why: format!("does not answer: {}", last_lines(&log, 5)) });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // The agents first, so that the mount goes while its link is up; the link last.
        while self.processes.pop().is_some() {}
        if let Some(namespaces) = &self.namespaces {
            let _ = link::ip(&["link", "delete", &namespaces.to_host]);
        }
    }
}

#[derive(Clone, Copy)]
enum Site {
    Storage,
    Gpu,
}

fn foretide() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.stdin(Stdio::null());
    Ok(command)
}

fn spawn(
    name: &'static str,
    mut command: Command,
    inside: Option<&Path>,
    folders: &Folders,
) -> Result<Process, DemoError> {
    let log = File::create(folders.log(name))?;
    command.stdout(log.try_clone()?).stderr(log);
    enter_on_start(&mut command, inside)?;
    Ok(Process { name, child: command.spawn()? })
}

fn start_namespaces(
    folders: &Folders,
    shape: LinkShape,
) -> Result<(Process, Option<Namespaces>, Addresses), DemoError> {
    let pid = std::process::id();
    let (storage, gpu) = (format!("foretide-{pid}-storage"), format!("foretide-{pid}-gpu"));
    let mut command = foretide()?;
    command.args(["link", "--a", &storage, "--b", &gpu]).args(link_arguments(shape));
    let link = start_link(command, folders)?;
    // A second, local way from this host to the storage site, so that people here can open the dashboard.
    let to_host = format!("ft{pid}");
    let subnet = (pid % 16_384) * 4;
    let address = |host: u32| format!("198.19.{}.{}", (subnet + host) >> 8, (subnet + host) & 0xff);
    let in_storage = format!("ft{pid}s");
    link::ip(&["link", "add", &to_host, "type", "veth", "peer", "name", &in_storage, "netns", &storage])?;
    link::ip(&["addr", "add", &format!("{}/30", address(1)), "dev", &to_host])?;
    link::ip(&["link", "set", &to_host, "up"])?;
    link::ip(&["-n", &storage, "addr", "add", &format!("{}/30", address(2)), "dev", &in_storage])?;
    link::ip(&["-n", &storage, "link", "set", &in_storage, "up"])?;
    let (serve, chunks) = (7700, 7701);
    let addresses = Addresses {
        serve_listen: SocketAddr::from(([0, 0, 0, 0], serve)),
        chunks_listen: SocketAddr::from(([0, 0, 0, 0], chunks)),
        control_from_storage: format!("http://127.0.0.1:{serve}"),
        control_from_gpu: format!("http://{}:{serve}", link::ADDRESS_A),
        control_from_here: format!("http://{}:{serve}", address(2)),
        chunks_from_gpu: format!("{}:{chunks}", link::ADDRESS_A).parse().expect("an address and a port"),
    };
    let path = |name: &str| Path::new("/run/netns").join(name);
    Ok((link, Some(Namespaces { storage: path(&storage), gpu: path(&gpu), to_host }), addresses))
}

fn start_forwarder(folders: &Folders, shape: LinkShape) -> Result<(Process, Option<Namespaces>, Addresses), DemoError> {
    let [serve, chunks, far_serve, far_chunks] = free_ports()?;
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = foretide()?;
    command.arg("link").args(link_arguments(shape));
    for (listen, target) in [(far_serve, serve), (far_chunks, chunks)] {
        command.arg("--forward").arg(format!("{}={}", at(listen), at(target)));
    }
    command.arg("--count").arg(folders.link_count());
    let link = start_link(command, folders)?;
    let addresses = Addresses {
        serve_listen: at(serve),
        chunks_listen: at(chunks),
        control_from_storage: format!("http://{}", at(serve)),
        control_from_gpu: format!("http://{}", at(far_serve)),
        control_from_here: format!("http://{}", at(serve)),
        chunks_from_gpu: at(far_chunks),
    };
    Ok((link, None, addresses))
}

fn link_arguments(shape: LinkShape) -> [String; 4] {
    let rtt = format!("{}ms", shape.rtt.as_secs_f64() * 1e3);
    ["--rtt".into(), rtt, "--rate".into(), format!("{}bit", shape.rate.0)]
}

/// Starts the link and waits for its word that it stands.
fn start_link(mut command: Command, folders: &Folders) -> Result<Process, DemoError> {
    let log = folders.log("link");
    command.stdout(Stdio::piped()).stderr(File::create(&log)?);
    enter_on_start(&mut command, None)?;
    let mut child = command.spawn()?;
    let mut told = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut told)?;
    }
    let process = Process { name: "link", child };
    if told.starts_with("ready") {
        return Ok(process);
    }
    Err(DemoError::Part { part: "link", why: last_lines(&fs::read_to_string(log)?, 3) })
}

/// Four ports that are free now. They are bound together, so that they differ.
fn free_ports() -> io::Result<[u16; 4]> {
    let listeners: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn write_configs(
    folders: &Folders,
    addresses: &Addresses,
    shape: LinkShape,
    volumes: &[&str],
    dataset_bytes: u64,
) -> io::Result<()> {
    let root = fs::canonicalize(folders.root())?;
    let root = root.display();
    let capacity = dataset_bytes * CACHE_DATASETS;
    let sources: String = volumes.iter().map(|v| format!("{v} = \"{root}/storage/volumes/{v}\"\n")).collect();
    let volume_tables: String = volumes.iter().map(|v| format!("\n[volume.{v}]\nat = \"storage\"\n")).collect();
    let serve = format!(
        "# The control plane of the demo.\nlisten = \"{}\"\nstate = \"{root}/control\"\n\n\
         [site.storage]\njurisdiction = \"eu\"\n\n\
         [site.gpu]\njurisdiction = \"eu\"\ncache = \"{capacity} B\"\n\n\
         [[link]]\nfrom = \"storage\"\nto = \"gpu\"\nrate = \"{}\"\nrtt = \"{}ms\"\n{volume_tables}",
        addresses.serve_listen,
        shape.rate,
        shape.rtt.as_secs_f64() * 1e3,
    );
    let storage = format!(
        "# The agent beside the data.\nnode = \"storage-1\"\nsite = \"storage\"\ncontrol = \"{}\"\n\
         token_file = \"{root}/control/token\"\nstate = \"{root}/storage/agent\"\n\n\
         [source]\nlisten = \"{}\"\nadvertise = \"{}\"\n\n[source.volumes]\n{sources}",
        addresses.control_from_storage, addresses.chunks_listen, addresses.chunks_from_gpu,
    );
    let gpu = format!(
        "# The agent beside the accelerators.\nnode = \"gpu-1\"\nsite = \"gpu\"\ncontrol = \"{}\"\n\
         token_file = \"{root}/control/token\"\nstate = \"{root}/gpu/agent\"\n\n\
         [cache]\npath = \"{root}/gpu/cache\"\ncapacity = \"{capacity} B\"\nmount = \"{root}/gpu/mnt\"\n",
        addresses.control_from_gpu,
    );
    for (name, text) in [("serve", serve), ("storage-agent", storage), ("gpu-agent", gpu)] {
        fs::write(folders.config(name), text)?;
    }
    Ok(())
}

/// The received bytes of a device in a table like `/proc/net/dev`.
fn received_bytes(table: &str, device: &str) -> Option<u64> {
    let row = table.lines().find_map(|l| l.trim().strip_prefix(device)?.strip_prefix(':'))?;
    row.split_whitespace().next()?.parse().ok()
}

fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_counter_is_read_from_its_row() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo:     100       1\n  wan0: 123456789    99 0\n";
        assert_eq!(received_bytes(table, "wan0"), Some(123_456_789));
        assert_eq!(received_bytes(table, "wan1"), None);
    }

    #[test]
    fn the_written_configurations_are_read_by_the_subcommands() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::new(folder.path().to_owned());
        fs::create_dir_all(folder.path().join("config")).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], 7700));
        let addresses = Addresses {
            serve_listen: at,
            chunks_listen: at,
            control_from_storage: format!("http://{at}"),
            control_from_gpu: format!("http://{at}"),
            control_from_here: format!("http://{at}"),
            chunks_from_gpu: at,
        };
        let shape = LinkShape { rtt: Duration::from_millis(150), rate: BitsPerSecond(1_000_000_000) };
        write_configs(&folders, &addresses, shape, &["vision"], 1 << 30).unwrap();
        let serve: crate::config::ServeConfig = crate::config::read(&folders.config("serve")).unwrap();
        assert_eq!(serve.topology().unwrap().links.len(), 2);
        for agent in ["storage-agent", "gpu-agent"] {
            crate::config::read::<crate::config::AgentConfig>(&folders.config(agent)).unwrap();
        }
    }
}
