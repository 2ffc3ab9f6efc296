//! The read-only namespace at a GPU site: every volume a directory under one mount point, every file an ordinary file.
//!
//! What is here is local: the kernel reads the store's own files (passthrough). What is not is fetched while the reader
//! waits, and a sequential reader is kept ahead of. Names are learned from the source where somebody looks, and believed
//! for a lease. The mount keeps no second truth: content lives in the store, names at the source.
//!
//! ```text
//! kernel <-> fuse.rs -> fs.rs -> namespace.rs -> tree/       names: synchronous table, asynchronous learning
//!                         |-> opens.rs, window.rs           decisions: an inode's mode, how far ahead to fetch
//!                         |-> observe.rs -> Outcome, events  what the reads were like
//!                         `-> origin.rs -> transfer, chunk   where names and bytes come from
//! agent -> hints.rs: what will be looked at soon, what a source tells of changes
//! ```
//!
//! Two decisions carry the rest. *A version is an inode* (`tree/node.rs`): what follows are close-to-open semantics, one
//! version per handle, and page caches that are never wrong. *No thread that serves the kernel waits for the network*
//! (`fuse.rs`): a request that must wait is a task, so any number of readers wait side by side.

mod config;
mod errno;
mod fs;
mod fuse;
mod hints;
mod mountpoint;
mod namespace;
mod observe;
mod opens;
mod origin;
mod silent;
mod stats;
mod tree;
mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{BackingId, MountOption, SessionACL};
use nix::unistd::{getegid, geteuid};
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinSet;

pub use config::{Config, Numbers, Opens};
pub use hints::Hints;
pub use mountpoint::{MountError, unmount_stale};
pub use observe::{MountEvent, Sinks};
pub use origin::{Origin, Whole};
pub use stats::Stats;
pub use tree::Place;

use fs::Fs;
use namespace::Namespace;
use observe::Observer;
use stats::Counters;

/// How long dropping a mount waits for the kernel to let go; then files that are still open keep their session.
const GOODBYE: Duration = Duration::from_secs(2);

/// A running mount. Dropping it unmounts; files that are open go on being read as long as the process lives.
pub struct MountHandle {
    path: PathBuf,
    fs: Arc<Fs<BackingId>>,
    hints: Hints,
    session: Option<fuser::BackgroundSession>,
    tasks: JoinSet<()>,
}

/// Mounts the namespace. Names and bytes come from `origin`, observations go to `sinks`. Tasks run on the current tokio
/// runtime.
///
/// # Errors
/// [`MountError`], each with its remedy.
pub fn mount(config: Config, origin: Arc<dyn Origin>, sinks: Sinks) -> Result<MountHandle, MountError> {
    check(&config)?;
    let path = mountpoint::prepare(&config.mount_point)?;
    let runtime = Runtime::current();
    let counters = Arc::new(Counters::default());
    let owner = (geteuid().as_raw(), getegid().as_raw());
    let news = origin.news();
    let namespace = Namespace::new(&config, Arc::clone(&origin), owner, runtime.clone());
    let observer = Observer::start(Arc::clone(&origin), sinks, Arc::clone(&counters), &runtime);
    let fs = Arc::new(Fs::new(&config, Arc::clone(&namespace), origin, observer, counters));
    allow_many_open_files();
    let edge = fuse::Edge::new(Arc::clone(&fs), runtime.clone());
    let session = fuser::Session::new(edge, &path, &options(&config))
        .and_then(fuser::Session::spawn)
        .map_err(|error| refused(&path, error))?;
    mountpoint::widen_read_ahead(&path);
    let hints = Hints::new(&fs, session.notifier());
    let mut tasks = JoinSet::new();
    if let Some(news) = news {
        tasks.spawn_on(hints::hear(news, hints.clone()), &runtime);
    }
    let refresh = async move {
        loop {
            tokio::time::sleep(namespace.refresh_interval()).await;
            namespace.refresh_due().await;
        }
    };
    tasks.spawn_on(refresh, &runtime);
    if fs.is_silent() {
        let fs = Arc::clone(&fs);
        let close_idle = async move {
            loop {
                tokio::time::sleep(silent::IDLE / 2).await;
                fs.close_idle();
            }
        };
        tasks.spawn_on(close_idle, &runtime);
    }
    Ok(MountHandle { path, fs, hints, session: Some(session), tasks })
}

impl MountHandle {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        self.fs.stats()
    }

    /// Bytes of memory that the known names occupy. Walks the table: for metrics and tests, not for every request.
    pub fn names_memory_bytes(&self) -> usize {
        self.fs.namespace.tree().memory_bytes()
    }

    /// What may be told to the mount from outside; it does nothing any more once the mount is gone.
    pub fn hints(&self) -> Hints {
        self.hints.clone()
    }

    /// Unmounts and says what went wrong, if something did.
    ///
    /// # Errors
    /// [`MountError::StillMounted`].
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), MountError> {
        self.tasks.abort_all();
        let Some(session) = self.session.take() else { return Ok(()) };
        mountpoint::unmount(&self.path)?;
        let until = Instant::now() + GOODBYE;
        while !session.guard.is_finished() && Instant::now() < until && self.fs.stats().open_files == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!("{error}");
        }
    }
}

fn check(config: &Config) -> Result<(), MountError> {
    let bad = |what: &str| Err(MountError::BadConfig(what.to_owned()));
    let seconds = [config.lease_s, config.told_lease_s, config.answer_timeout_s, config.stale_retry_s];
    if !seconds.iter().all(|s| (0.001..=86_400.0).contains(s)) {
        return bad(
            "mount: lease_s, told_lease_s, answer_timeout_s and stale_retry_s must be between 0.001 and 86400 seconds",
        );
    }
    if !(1..=64).contains(&config.threads) {
        return bad("mount: threads must be 1 to 64");
    }
    if config.known_names < 1000 {
        return bad("mount: known_names must be 1000 or more");
    }
    for (what, numbers) in [("users", &config.users), ("groups", &config.groups)] {
        let mut there: Vec<u32> = numbers.named.iter().map(|(there, _)| *there).collect();
        there.sort_unstable();
        if let Some(twice) = there.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad(&format!("mount: {what}.named names {} twice: leave one of them out", twice[0]));
        }
    }
    Ok(())
}

/// Every open inode holds its backing file. What the system allows us, we take.
fn allow_many_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(soft, hard, %error, "files open at once stay bounded by the soft limit");
    }
}

fn options(config: &Config) -> fuser::Config {
    let root = geteuid().is_root();
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName(mountpoint::SOURCE_NAME.to_owned()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    options.acl = if config.allow_other.unwrap_or(root) { SessionACL::All } else { SessionACL::Owner };
    options.n_threads = Some(config.threads);
    // Each thread its own queue, where the device may be opened again: only root may.
    options.clone_fd = root;
    options
}

fn refused(path: &Path, error: std::io::Error) -> MountError {
    let device = std::fs::metadata("/dev/fuse");
    if let Err(missing) = device {
        return MountError::NoDevice(missing);
    }
    if error.kind() == std::io::ErrorKind::NotFound {
        return MountError::NoHelper(error);
    }
    MountError::Refused { path: path.to_owned(), error }
}
