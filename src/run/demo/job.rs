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

/// The job's executable, batch size, reader threads and accelerator time.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What is started.
    pub executable: PathBuf,
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
    let mut command = std::process::Command::new(&shape.executable);
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
    let failed = |why: String| DemoError::Job { data: data.to_owned(), why };
    let not_started = |e| failed(format!("{} cannot be started: {e}", shape.executable.display()));
    let done = command.kill_on_drop(true).spawn().map_err(not_started)?.wait_with_output().await?;
    if !done.status.success() {
        let why = std::fs::read_to_string(log).unwrap_or_default();
        return Err(failed(format!("{}: {}", done.status, why.trim())));
    }
    let no_report = |e| failed(format!("what {} printed at its end is no report: {e}", shape.executable.display()));
    serde_json::from_slice(&done.stdout).map_err(no_report)
}

/// The job to play: the user's, or the demo's own, which stands beside this executable (both are built by one `cargo build`).
///
/// # Errors
/// If it is not there.
pub fn executable(of_user: Option<&Path>) -> Result<PathBuf, DemoError> {
    let (path, remedy) = match of_user {
        Some(path) => (path.to_owned(), "--job wants an executable file"),
        None => (std::env::current_exe()?.with_file_name("training-job"), "build it with `cargo build --release`"),
    };
    // A path without a folder would be looked for on PATH.
    path.canonicalize().ok().filter(|p| p.is_file()).ok_or(DemoError::Missing { what: path, remedy })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_of_the_user_s_is_started_with_the_shape_and_asked_for_its_report() {
        let folder = tempfile::tempdir().unwrap();
        let (job, log) = (folder.path().join("job"), folder.path().join("log"));
        let absent = executable(Some(&job)).unwrap_err().to_string();
        assert!(absent.contains("job is not there") && absent.contains("--job"), "{absent}");

        // Written by another process: a file that this one has open for writing could not be executed by it.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod "$2" "$0""#;
        let play = |script: &str, mode: &str| {
            let written =
                std::process::Command::new("/bin/sh").args(["-c", write]).arg(&job).args([script, mode]).status();
            assert!(written.unwrap().success());
            let executable = executable(Some(&job)).unwrap();
            let shape = Shape { executable, epochs: 2, batch_size: 32, workers: 3, compute_ms: 5.0 };
            let (data, log) = (folder.path().to_owned(), log.clone());
            async move { run(&data, &shape, None, &log).await }
        };
        let report = r#"{"au": 0.5, "wall_s": '$4', "waited_s": 0, "first_batch_s": '$8', "gpu": "none"}"#;
        let told = play(&format!("echo '{report}'"), "755").await.unwrap();
        assert_eq!(
            (told.wall_s, told.first_batch_s),
            (2.0, 3.0),
            "--epochs and --workers are the fourth and eighth word"
        );
        let silent = play("echo done", "755").await.unwrap_err().to_string();
        assert!(silent.contains("is no report"), "{silent}");
        let failed = play("echo no GPU >&2; exit 3", "755").await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 3: no GPU"), "{failed}");
        let refused = play("", "644").await.unwrap_err().to_string();
        assert!(refused.contains("job cannot be started"), "{refused}");
    }
}
