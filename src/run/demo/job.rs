//! The training job as the demo starts it: a process that knows nothing of Foretide, at the GPU site.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;

use super::DemoError;

/// Batch size, reader threads and accelerator time of the job.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Passes over the data.
    pub epochs: u32,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Reader threads.
    pub workers: usize,
    /// Milliseconds that the accelerator works on a batch.
    pub compute_ms: f64,
}

/// What the job says of itself at its end.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct JobReport {
    /// Accelerator utilisation as MLPerf Storage defines it.
    pub au: f64,
    /// From the process's start to its end, seconds.
    pub wall_s: f64,
    /// Waiting for batches after the first, seconds.
    pub waited_s: f64,
    /// From the process's start to the first batch, seconds.
    pub first_batch_s: f64,
}

/// Runs the job on `data` to its end, in the network namespace `inside` if one is given.
///
/// # Errors
/// If it cannot be started, fails, or says nothing sensible.
pub async fn run(data: &Path, shape: &Shape, inside: Option<&Path>, log: &Path) -> Result<JobReport, DemoError> {
    let mut command = std::process::Command::new(executable()?);
    command
        .arg("--data")
        .arg(data)
        .args(["--epochs", &shape.epochs.to_string()])
        .args(["--batch-size", &shape.batch_size.to_string()])
        .args(["--workers", &shape.workers.to_string()])
        .args(["--compute-ms", &shape.compute_ms.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?);
    enter_on_start(&mut command, inside)?;
    let mut command = tokio::process::Command::from(command);
    let done = command.kill_on_drop(true).spawn()?.wait_with_output().await?;
    if !done.status.success() {
        let why = std::fs::read_to_string(log).unwrap_or_default();
        return Err(DemoError::Job { data: data.to_owned(), why: format!("{}: {}", done.status, why.trim()) });
    }
    serde_json::from_slice(&done.stdout).map_err(|e| DemoError::Job { data: data.to_owned(), why: e.to_string() })
}

/// The job stands beside this executable; both are built by one `cargo build`.
fn executable() -> Result<PathBuf, DemoError> {
    let path = std::env::current_exe()?.with_file_name("training-job");
    if path.is_file() {
        return Ok(path);
    }
    Err(DemoError::Missing { what: path, remedy: "build it with `cargo build --release`" })
}

/// Makes the command start in a network namespace and end when this process ends.
///
/// # Errors
/// If the namespace cannot be opened.
pub fn enter_on_start(command: &mut std::process::Command, inside: Option<&Path>) -> std::io::Result<()> {
    let namespace = inside.map(File::open).transpose()?;
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            if let Some(namespace) = &namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
            }
            // Own group: a Ctrl-C reaches the demo alone, which ends the others in order.
            nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
            Ok(())
        });
    }
    Ok(())
}

/// Drops clean pages from the page cache: all with root, else those of the files below `data`, which are ours. What
/// others have yet to write is not waited for.
///
/// # Errors
/// If a folder or file of `data` cannot be read.
pub fn drop_page_cache(data: &Path) -> std::io::Result<()> {
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => Ok(()),
        Err(_) => drop_pages_of(data),
    }
}

fn drop_pages_of(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.try_for_each(|entry| drop_pages_of(&entry?.path()));
    }
    posix_fadvise(File::open(path)?, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// Waits until `moment`, if it has not passed.
pub async fn wait_until(moment: Instant) {
    tokio::time::sleep(moment.saturating_duration_since(Instant::now())).await;
}

/// The shape's accelerator time for one pass over `files` samples.
pub fn epoch_time(shape: &Shape, files: usize) -> Duration {
    Duration::from_secs_f64(files.div_ceil(shape.batch_size) as f64 * shape.compute_ms / 1e3)
}
