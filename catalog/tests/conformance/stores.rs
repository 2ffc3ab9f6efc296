//! The catalogs under test.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_catalog::{Catalog, PostgresConfig, SqliteConfig, Topic, in_memory, open_postgres, open_sqlite};
use tempfile::TempDir;

use crate::{model, stories};

pub type Story = fn(Arc<dyn Catalog>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub async fn sqlite(directory: &TempDir) -> Arc<dyn Catalog> {
    open_sqlite(&SqliteConfig::at(directory.path().join("catalog.db"))).await.unwrap()
}

/// A PostgreSQL server of this test's own, on a socket in a directory of its own.
pub struct Server {
    directory: TempDir,
    binaries: PathBuf,
    databases: std::sync::atomic::AtomicU32,
}

impl Server {
    /// Starts one; an error says what is missing.
    fn start() -> Result<Self, String> {
        let binaries = binaries().ok_or("no initdb below /usr/lib/postgresql: install the package postgresql")?;
        let directory = TempDir::with_prefix("foretide-pg-").map_err(|e| e.to_string())?;
        let server = Self { directory, binaries, databases: 0.into() };
        let data = server.data();
        if is_root() {
            let chown = Command::new("chown").arg("postgres").arg(server.directory.path()).status();
            chown.ok().filter(|s| s.success()).ok_or("there is no user postgres to run the server as")?;
        }
        server
            .call("initdb", &["-D", &data, "-A", "trust", "-U", "foretide", "--no-sync", "-E", "UTF8", "--locale=C"])?;
        let socket = server.directory.path().display();
        let options = format!("-c listen_addresses= -c fsync=off -c unix_socket_directories={socket}");
        let log = format!("{socket}/log");
        server.call("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "-o", &options, "start"])?;
        Ok(server)
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    /// Runs one of the server's own programs; as another user if this one is root, which the server refuses to be.
    fn call(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let program = self.binaries.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        // The server keeps what it inherits: with a pipe of ours we would wait for it for ever.
        let log = std::fs::File::create(self.directory.path().join("call.log")).map_err(|e| e.to_string())?;
        let error = log.try_clone().map_err(|e| e.to_string())?;
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null()).stdout(log).stderr(error);
        let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
        if status.success() {
            return Ok(());
        }
        let told = std::fs::read_to_string(self.directory.path().join("call.log")).unwrap_or_default();
        Err(format!("{} {status}: {told}", program.display()))
    }

    /// A new, empty database.
    pub fn database(&self) -> PostgresConfig {
        let n = self.databases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = self.directory.path().display().to_string();
        let name = format!("catalog{n}");
        self.call("createdb", &["-h", &socket, "-U", "foretide", &name]).unwrap();
        PostgresConfig { url: format!("postgres://foretide@localhost/{name}?host={socket}"), connections: 4 }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        if let Err(e) = self.call("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]) {
            eprintln!("the test's server was not stopped: {e}");
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins =
        versions.flatten().map(|v| v.path().join("bin")).filter(|b: &PathBuf| Path::new(b).join("initdb").exists());
    bins.max()
}

/// A server, or none with a line that says why. Where CI runs, there must be one.
pub fn server() -> Option<Server> {
    match Server::start() {
        Ok(server) => Some(server),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("PostgreSQL must be tested in CI: {why}")
        }
        Err(why) => {
            eprintln!("NOT TESTED on PostgreSQL: {why}");
            None
        }
    }
}

fn tell_all(open: impl Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Catalog>>>>) {
    let runtime = runtime();
    for (name, story) in stories::ALL {
        let started = Instant::now();
        runtime.block_on(async { story(open().await).await });
        println!("{name}: {:?}", started.elapsed());
    }
}

#[test]
fn memory_conforms() {
    tell_all(|| Box::pin(async { in_memory() }));
}

#[test]
fn sqlite_conforms() {
    let directory = Arc::new(TempDir::new().unwrap());
    let n = Arc::new(std::sync::atomic::AtomicU32::new(0));
    tell_all(move || {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let config = SqliteConfig::at(directory.path().join(format!("{n}.db")));
        Box::pin(async move { open_sqlite(&config).await.unwrap() })
    });
}

#[test]
fn postgres_conforms() {
    let Some(server) = server() else { return };
    tell_all(|| {
        let config = server.database();
        Box::pin(async move { open_postgres(&config).await.unwrap() })
    });
}

#[test]
fn sqlite_does_as_the_plain_model() {
    let runtime = runtime();
    let fresh = || {
        let directory = TempDir::new().unwrap();
        let catalog = runtime.block_on(sqlite(&directory));
        (catalog, directory)
    };
    model::compare(&runtime, 48, fresh);
}

#[test]
fn postgres_does_as_the_plain_model() {
    let Some(server) = server() else { return };
    let runtime = runtime();
    let fresh = || (runtime.block_on(open_postgres(&server.database())).unwrap(), ());
    model::compare(&runtime, 12, fresh);
}

/// Two processes' worth of catalogs over one database.
#[test]
fn postgres_replicas_share_work_and_news() {
    use foretide_flow::{LearnRequest, Timestamp};

    use crate::values::{node, path, plan, volume};
    let Some(server) = server() else { return };
    runtime().block_on(async {
        let config = server.database();
        let (a, b) = (open_postgres(&config).await.unwrap(), open_postgres(&config).await.unwrap());

        let mut news = b.changes(Topic::Plans);
        a.put_plan(&plan("p", 1, vec![])).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), news.changed()).await.expect("b heard nothing").unwrap();
        assert_eq!(b.latest_plan().await.unwrap().unwrap().id.as_str(), "p");

        let wish =
            |i: usize| LearnRequest { volume: volume("data"), directory: path(&format!("d{i:03}")), recursive: false };
        a.want_learned(&(0..200).map(wish).collect::<Vec<_>>(), 1.0, Timestamp(1)).await.unwrap();
        let take = |c: Arc<dyn Catalog>, n: usize| async move {
            let (volumes, lease, mut taken) = ([volume("data")], Duration::from_secs(60), Vec::new());
            loop {
                let some = c.take_wishes(&volumes, &node(&format!("n{n}")), Timestamp(2), lease, 7).await.unwrap();
                if some.is_empty() {
                    return taken;
                }
                taken.extend(some.into_iter().map(|w| w.directory));
            }
        };
        let takers = (0..4).map(|n| tokio::spawn(take(if n % 2 == 0 { a.clone() } else { b.clone() }, n)));
        let mut all = Vec::new();
        for taker in takers.collect::<Vec<_>>() {
            all.extend(taker.await.unwrap());
        }
        all.sort();
        assert_eq!(all, (0..200).map(|i| wish(i).directory).collect::<Vec<_>>(), "each wish is taken once");
    });
}
