//! `foretide demo`: two sites on one machine, 150 ms apart, and the same job under five conditions.
//!
//! The order in which the scenes are played is not the order of the table. `local` comes first, before any agent
//! runs, so that nobody learns from it. `on_demand` and `warmup` read data sets of their own, so that the job of
//! `cold` has truly never been seen. Then that job comes back at a fixed interval, which nobody is told, and its
//! third start is the scene `recurring`.

mod dataset;
mod house;
mod job;
mod progress;
mod report;
mod scenes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use foretide_flow::BitsPerSecond;

use self::dataset::Dataset;
use self::house::{Folders, House, LinkShape};
use self::job::{JobReport, Shape, drop_page_cache, wait_until};
use self::progress::Progress;
use self::report::{DatasetSize, Report, Scene, in_words};
use self::scenes::Stage;
use crate::client::ClientError;
use crate::config::{parse_duration, parse_rate};

/// Data sets: one that recurs, one read on demand, one asked for by warm-up.
const VOLUMES: [&str; 3] = ["vision", "speech", "genome"];
/// In an interval there is time for one pass of the job and this many crossings of the whole data set: once while the job
/// reads it, and then before its next start.
const INTERVAL_CROSSINGS: f64 = 3.2;
/// And this much more, for the forecast, the plan and the first round trips.
const IDLE_EXTRA: Duration = Duration::from_secs(3);

/// Options of `foretide demo`.
#[derive(Args, Debug)]
pub struct Options {
    /// Round-trip time of the link between the sites.
    #[arg(long, default_value = "150ms", value_parser = parse_duration)]
    rtt: Duration,
    /// Rate of the link.
    #[arg(long, default_value = "1Gbit", value_parser = parse_rate)]
    rate: BitsPerSecond,
    /// Small files in the data set; four of 100 MB come on top.
    #[arg(long, default_value_t = 4000)]
    files: usize,
    /// Passes over the data set.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Reader threads of the job.
    #[arg(long, default_value_t = 32)]
    workers: usize,
    /// Milliseconds that the accelerator works on a batch of 32.
    #[arg(long, default_value_t = 66.0)]
    compute_ms: f64,
    /// Another job to play than the demo's own: an executable that takes `--data`, `--epochs`, `--batch-size`, `--workers`
    /// and `--compute-ms`, and ends by printing `{"au", "wall_s", "waited_s", "first_batch_s"}` as one line of JSON.
    #[arg(long)]
    job: Option<PathBuf>,
    /// Leave everything running, print the dashboard's address, end at Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Folder of data, caches, configuration and logs; emptied first.
    #[arg(long, default_value = "target/demo")]
    folder: PathBuf,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The control plane refused or did not answer.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// A name of ours was refused: a defect of the demo itself.
    #[error(transparent)]
    Name(#[from] foretide_flow::IdError),
    /// A file that should be there is not.
    #[error("{} is not there: {remedy}", what.display())]
    Missing {
        /// The file.
        what: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A process of the house ended or does not answer.
    #[error("{part}: {why}")]
    Part {
        /// Which.
        part: &'static str,
        /// Its last words.
        why: String,
    },
    /// The job failed.
    #[error("the job on {}: {why}", data.display())]
    Job {
        /// What it read.
        data: PathBuf,
        /// Its last words.
        why: String,
    },
    /// A scene could not be played to its end.
    #[error("scene {scene}: {why}")]
    Scene {
        /// Which.
        scene: &'static str,
        /// Why.
        why: String,
    },
    /// A figure is not what the demo must show.
    #[error("the demo falls short: {}", .0.join("; "))]
    FallsShort(Vec<String>),
    /// Ctrl-C.
    #[error("interrupted; everything that ran has been ended")]
    Interrupted,
}

/// Plays all scenes.
///
/// # Errors
/// [`DemoError`]; whatever it is, nothing is left running.
pub async fn run(options: Options) -> Result<(), DemoError> {
    tokio::select! {
        done = play(&options) => done,
        () = super::until_signal() => Err(DemoError::Interrupted),
    }
}

async fn play(options: &Options) -> Result<(), DemoError> {
    let as_root = nix::unistd::geteuid().is_root();
    if !as_root {
        println!(
            "without root: the link is a forwarder in user space, and reads are seen by the mount alone; root adds network namespaces, eBPF and passthrough"
        );
    }
    let began = Instant::now();
    let mut progress = Progress::new(7);
    let folders = Folders::new(options.folder.clone());
    empty_folder(folders.root())?;
    let dataset = progress.step("data sets", make_datasets(&folders, options.files)).await?;
    let shape = Shape {
        executable: job::executable(options.job.as_deref())?,
        epochs: options.epochs.max(1),
        batch_size: 32,
        workers: options.workers.max(1),
        compute_ms: options.compute_ms,
    };
    let link = LinkShape { rtt: options.rtt, rate: options.rate };
    let compute_s = job::epoch_time(&shape, dataset.files).as_secs_f64() * f64::from(shape.epochs);
    let mut report = Report::new(link, DatasetSize { files: dataset.files, bytes: dataset.bytes }, compute_s);

    let (local, local_job) = progress.step("local", play_local(&folders, &shape)).await?;
    let start = House::start(&folders, link, &VOLUMES, dataset.bytes, as_root);
    let mut house = progress.step("two sites", start).await?;
    println!("  dashboard: {}", house.control().dashboard_address());
    let mut stage = Stage { house: &mut house, shape, local_waited_s: local_job.waited_s, folders: folders.clone() };
    let crossing = Duration::from_secs_f64(options.rate.seconds_for(dataset.bytes));

    drop_page_cache(&folders.sources())?;
    let on_demand = progress.step("on_demand", stage.on_demand(folders.mounted("speech"))).await?;
    let warmup = stage.warmup("genome", folders.mounted("genome"), crossing.mul_f64(1.5) + IDLE_EXTRA);
    let warmup = progress.step("warmup", warmup).await?;
    let (cold, recurring) = play_recurring(&mut stage, &mut progress, &folders, dataset.files, crossing).await?;
    report.scenes = vec![local, on_demand, cold, recurring, warmup];

    progress.finish();
    println!("\n{}", report.table());
    std::fs::write(
        folders.root().join("report.json"),
        serde_json::to_vec_pretty(&report).map_err(std::io::Error::other)?,
    )?;
    tell_what_was_learned(&house).await?;
    println!("\n{:.0} s; figures in {}", began.elapsed().as_secs_f64(), folders.root().join("report.json").display());
    if options.keep {
        println!("running on: {}\nCtrl-C ends it", house.control().dashboard_address());
        std::future::pending::<()>().await;
    }
    match report.shortcomings() {
        found if found.is_empty() => Ok(()),
        found => Err(DemoError::FallsShort(found)),
    }
}

/// `cold`, then the same job again at a fixed interval; its third start is `recurring`.
async fn play_recurring(
    stage: &mut Stage<'_>,
    progress: &mut Progress,
    folders: &Folders,
    files: usize,
    crossing: Duration,
) -> Result<(Scene, Scene), DemoError> {
    let data = folders.mounted("vision");
    let first_start = Instant::now();
    let shape = stage.shape.clone();
    let cold = progress.step("cold", stage.scene("cold", data.clone(), &shape)).await?;
    let one_pass = job::epoch_time(&shape, files) + crossing.mul_f64(INTERVAL_CROSSINGS);
    let interval = first_start.elapsed().max(one_pass) + IDLE_EXTRA;
    let rehearsal = async {
        wait_until(first_start + interval).await;
        stage.rehearse(data.clone()).await?;
        let before = stage.cool().await?;
        wait_until(first_start + interval * 2).await;
        Ok::<_, DemoError>(before)
    };
    let before = progress.step("it comes back", rehearsal).await?;
    let recurring = stage.play("recurring", data.clone(), &shape, before, None);
    let recurring = progress.step("recurring", recurring).await?;
    Ok((cold, recurring))
}

async fn play_local(folders: &Folders, shape: &Shape) -> Result<(Scene, JobReport), DemoError> {
    drop_page_cache(&folders.sources())?;
    let logs = folders.root().join("logs");
    std::fs::create_dir_all(&logs)?;
    let job = job::run(&folders.source("vision"), shape, None, &logs.join("job-local.log")).await?;
    let scene = Scene {
        name: "local",
        au: job.au,
        wall_s: job.wall_s,
        stall_s: 0.0,
        first_batch_s: job.first_batch_s,
        bytes_moved: 0,
        coverage: None,
        precision: None,
        wasted_bytes: 0,
    };
    Ok((scene, job))
}

async fn make_datasets(folders: &Folders, small_files: usize) -> Result<Dataset, DemoError> {
    let makers: Vec<_> = VOLUMES
        .iter()
        .zip(1..)
        .map(|(volume, seed)| {
            let root = folders.source(volume);
            tokio::task::spawn_blocking(move || dataset::make(&root, small_files, seed))
        })
        .collect();
    let mut first = None;
    for maker in makers {
        let made = maker.await.map_err(std::io::Error::other)??;
        first.get_or_insert(made);
    }
    // Only clean pages can be dropped from the page cache, as each scene does.
    tokio::task::spawn_blocking(nix::unistd::sync).await.map_err(std::io::Error::other)?;
    first.ok_or_else(|| std::io::Error::other("no data sets").into())
}

async fn tell_what_was_learned(house: &House) -> Result<(), DemoError> {
    let learned = house.control().learned().await?;
    println!("What was learned:");
    for (profile, forecast) in &learned {
        let said_by = forecast.as_ref().map(|f| (f.forecaster.as_str(), f.reason.as_str()));
        println!("{}", in_words(profile, said_by));
    }
    Ok(())
}

/// Only a folder that a demo made, or none, is emptied.
fn empty_folder(folder: &Path) -> Result<(), DemoError> {
    const MARK: &str = "made-by-foretide-demo";
    if folder.exists() && !folder.join(MARK).exists() && std::fs::read_dir(folder)?.next().is_some() {
        return Err(DemoError::Missing {
            what: folder.join(MARK),
            remedy: "the folder holds something else and would be emptied; choose another with --folder",
        });
    }
    foretide_mount::unmount_stale(&Folders::new(folder.to_owned()).mount_point());
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(MARK), "")?;
    Ok(())
}
