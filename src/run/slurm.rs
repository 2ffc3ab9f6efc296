//! `foretide slurm`: stands between slurmctld's Lua scripts and the control plane.
//!
//! slurmctld runs its scripts under locks or in hundreds of copies, so they must never wait on the network. They and
//! this daemon meet in a folder instead:
//!
//! - `wants/JOB`: what a job wants, written by `burst_buffer.lua` when its stage-in begins, as `key=value` lines;
//! - `answers/JOB`: `go` or `wait`, and why, written here; the script lets the job start at `go`, or when its own
//!   patience ends, so a daemon or a control plane that is down delays a job and never holds it;
//! - `ended/JOB`: the job is over: its warm-up is released and its files go;
//! - `known`: workloads that were seen before, so that `job_submit.lua` can stage a job that says nothing.
//!
//! Each round asks for every want anew under the same idempotency key, which is asking how far it is. Files are
//! written beside their place and renamed, so nobody reads half a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use foretide_api::{WarmupView, WarmupWanted};
use foretide_flow::{FilePath, Profile, SiteId, Timestamp, VolumeId, WarmupState};

use super::RunError;
use crate::cli::ControlOptions;
use crate::client::{ClientError, ControlClient};

/// Between two rounds: a job that may start is let go within so much.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// Rounds between two looks at the profiles.
const ROUNDS_BETWEEN_PROFILES: u64 = 30;
/// Bytes of a want: a job names a handful of paths.
const WANT_MAX_BYTES: u64 = 64 << 10;

/// Options of `foretide slurm`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// Folder where scripts and daemon meet; made if it is not there. slurmctld's user must be able to write it.
    #[arg(long, env = "FORETIDE_SLURM_SPOOL", default_value = "/run/foretide/slurm")]
    spool: PathBuf,
    /// Site of this cluster's nodes.
    #[arg(long, env = "FORETIDE_SITE")]
    site: SiteId,
    /// Name of this cluster, so that job numbers of two clusters stay apart.
    #[arg(long, default_value = "slurm")]
    cluster: String,
}

/// Runs until a signal.
///
/// # Errors
/// If the folder cannot be made or written, or the control plane's address cannot be meant.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    let spool = Spool::open(options.spool.clone())?;
    tracing::info!(spool = %options.spool.display(), site = %options.site, "waiting for what jobs want");
    let mut round = 0;
    let mut signal = std::pin::pin!(super::until_signal());
    loop {
        if round % ROUNDS_BETWEEN_PROFILES == 0
            && let Err(error) = tell_known(&control, &spool).await
        {
            tracing::warn!(%error, "which workloads are known could not be told");
        }
        round += 1;
        for job in spool.jobs("ended")? {
            release(&control, &spool, &options, &job).await?;
        }
        for job in spool.jobs("wants")? {
            answer(&control, &spool, &options, &job).await?;
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND_EVERY) => {}
            () = &mut signal => return Ok(()),
        }
    }
}

async fn tell_known(control: &ControlClient, spool: &Spool) -> Result<(), RunError> {
    let profiles: Vec<Profile> = control.list("/v1/profiles").await?;
    spool.write(Path::new("known"), &known(&profiles))?;
    Ok(())
}

/// A workload that reads a volume, a line: its name, a tab, its command.
fn known(profiles: &[Profile]) -> String {
    let told = profiles.iter().filter(|p| p.volume.is_some() && !p.command.is_empty());
    told.map(|p| format!("{}\t{}\n", p.workload, p.command.replace(['\n', '\t'], " "))).collect()
}

/// Asks for what a job wants, and writes down how far it is.
async fn answer(control: &ControlClient, spool: &Spool, options: &Options, job: &str) -> Result<(), RunError> {
    let want = match spool.want(job, &options.site)? {
        Ok(want) => want,
        Err(why) => return Ok(spool.answer(job, &Answer::go(why))?),
    };
    match control.ask_once(&want.wanted, &want.key(&options.cluster, job)).await {
        Ok(view) => spool.answer(job, &Answer::of(&view))?,
        // What is refused once is refused always: the job runs cold. An answer that did not come is waited for.
        Err(ClientError::Refused { status, detail }) if (400..500).contains(&status) && status != 429 => {
            spool.answer(job, &Answer::go(format!("it was refused: {detail}")))?;
        }
        Err(error) => tracing::warn!(%error, job, "the control plane could not be asked"),
    }
    Ok(())
}

/// Releases the warm-up of a job that is over. What cannot be told now is told in the next round.
async fn release(control: &ControlClient, spool: &Spool, options: &Options, job: &str) -> Result<(), RunError> {
    if let Ok(want) = spool.want(job, &options.site)? {
        let asked = control.ask_once(&want.wanted, &want.key(&options.cluster, job)).await;
        let released = match asked {
            Ok(view) if !view.warmup.state.is_over() => control.release_warmup(&view.warmup.id).await.map(drop),
            other => other.map(drop),
        };
        if let Err(error @ ClientError::Unreachable { .. }) = released {
            tracing::warn!(%error, job, "the control plane could not be told that a job is over");
            return Ok(());
        }
    }
    Ok(spool.forget(job)?)
}

/// What a job wants, and when it said so.
#[derive(Debug, PartialEq)]
struct Want {
    wanted: WarmupWanted,
    said_at: Timestamp,
}

impl Want {
    /// Job numbers come again after some years: the moment keeps them apart.
    fn key(&self, cluster: &str, job: &str) -> String {
        format!("slurm/{cluster}/{job}/{}", self.said_at.0)
    }

    /// Parses `key=value` lines: `warm=VOLUME:PATH` (may come again for the same volume) or `workload=NAME`, and
    /// `glob` (may come again), `site`, `within_s`, `fraction`, `priority`, `after` (a warm-up's id), `label`.
    fn parse(text: &str, job: &str, site: &SiteId, said_at: Timestamp) -> Result<Self, String> {
        let mut wanted = WarmupWanted {
            site: Some(site.clone()),
            label: format!("Slurm job {job}"),
            labels: BTreeMap::from([("slurm_job".to_owned(), job.to_owned())]),
            ..WarmupWanted::default()
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not key=value"))?;
            let bad = |why: &dyn std::fmt::Display| format!("{line:?}: {why}");
            match key {
                "warm" => {
                    let (volume, path) = value.split_once(':').unwrap_or((value, ""));
                    let volume = VolumeId::new(volume).map_err(|e| bad(&e))?;
                    if wanted.volume.get_or_insert_with(|| volume.clone()) != &volume {
                        return Err(bad(&"one job warms files of one volume"));
                    }
                    wanted.paths.push(FilePath::parse(path.trim_matches('/')).map_err(|e| bad(&e))?);
                }
                "workload" => wanted.workload = Some(value.into()),
                "site" => wanted.site = Some(SiteId::new(value).map_err(|e| bad(&e))?),
                "within_s" => {
                    let seconds: u64 = value.parse().map_err(|e| bad(&e))?;
                    wanted.need_by = Some(said_at + Duration::from_secs(seconds));
                }
                "fraction" => wanted.min_fraction = Some(value.parse().map_err(|e| bad(&e))?),
                "glob" => wanted.globs.push(value.to_owned()),
                "priority" => wanted.priority = value.parse().map_err(|e| bad(&e))?,
                "after" => wanted.run_after.push(value.into()),
                "label" => wanted.label = value.to_owned(),
                _ => {
                    let known = "warm, workload, glob, site, within_s, fraction, priority, after, label";
                    return Err(bad(&format!("unknown; use {known}")));
                }
            }
        }
        Ok(Self { wanted, said_at })
    }
}

/// What a script is told.
#[derive(Debug, PartialEq)]
struct Answer {
    go: bool,
    why: String,
}

impl Answer {
    fn go(why: String) -> Self {
        Self { go: true, why }
    }

    /// A warm-up that is over will bring nothing more: its job runs cold.
    fn of(view: &WarmupView) -> Self {
        use WarmupState::{Degraded, Partial, Ready};
        let warmup = &view.warmup;
        let state = format!("{:?}", warmup.state).to_uppercase();
        let why = warmup.why.as_deref().map_or(String::new(), |why| format!(": {why}"));
        let go = matches!(warmup.state, Ready | Partial | Degraded) || warmup.state.is_over();
        Self { go, why: format!("warm-up {} is {state}{why}", warmup.id) }
    }

    fn text(&self) -> String {
        format!("{}\n{}\n", if self.go { "go" } else { "wait" }, self.why.replace('\n', " "))
    }
}

/// The folder.
struct Spool(PathBuf);

impl Spool {
    fn open(root: PathBuf) -> io::Result<Self> {
        for folder in ["wants", "answers", "ended"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        }
        Ok(Self(root))
    }

    /// Jobs of a folder. Names that are no job's, such as a file half written, are passed over.
    fn jobs(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.0.join(folder))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())).collect())
    }

    /// What a job wants; the inner error says in words why it cannot be meant.
    fn want(&self, job: &str, site: &SiteId) -> io::Result<Result<Want, String>> {
        let path = self.0.join("wants").join(job);
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err("it asked for nothing".into())),
            Err(e) => return Err(e),
        };
        if about.len() > WANT_MAX_BYTES {
            return Ok(Err(format!("it asks in {} bytes, more than {WANT_MAX_BYTES}", about.len())));
        }
        let since = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let said_at = Timestamp(since.as_micros() as i64);
        Ok(Want::parse(&String::from_utf8_lossy(&fs::read(&path)?), job, site, said_at))
    }

    fn answer(&self, job: &str, answer: &Answer) -> io::Result<()> {
        self.write(&Path::new("answers").join(job), &answer.text())
    }

    fn write(&self, name: &Path, text: &str) -> io::Result<()> {
        let target = self.0.join(name);
        let partial = target.with_extension("partial");
        fs::write(&partial, text)?;
        fs::rename(&partial, &target)
    }

    /// Nothing is left of a job.
    fn forget(&self, job: &str) -> io::Result<()> {
        for folder in ["wants", "answers", "ended"] {
            match fs::remove_file(self.0.join(folder).join(job)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WarmupWanted, String> {
        Want::parse(text, "7", &SiteId::new("gpu").unwrap(), Timestamp(1_000_000)).map(|w| w.wanted)
    }

    #[test]
    fn a_want_reads_as_the_script_wrote_it() {
        let wanted = parse("warm=imagenet:/train/\nwarm=imagenet:val\nwithin_s=60\nfraction=0.5\n").unwrap();
        assert_eq!(wanted.volume, Some(VolumeId::new("imagenet").unwrap()));
        assert_eq!(wanted.paths, ["train", "val"].map(|p| FilePath::parse(p).unwrap()));
        assert_eq!((wanted.need_by, wanted.min_fraction), (Some(Timestamp(61_000_000)), Some(0.5)));
        assert_eq!(wanted.labels["slurm_job"], "7");
        let narrow = parse("warm=imagenet:train\nglob=train/*.tar\npriority=5\nafter=w-1\n").unwrap();
        assert_eq!((narrow.globs, narrow.priority), (vec!["train/*.tar".to_owned()], 5));
        assert_eq!(narrow.run_after[0].as_str(), "w-1");
        assert_eq!(parse("workload=w-1").unwrap().workload.unwrap().as_str(), "w-1");
        assert_eq!(parse("warm=imagenet").unwrap().paths, [FilePath::root()], "a volume alone means all of it");
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_line() {
        for (text, named) in [
            ("warm", "key=value"),
            ("warm=a:x\nwarm=b:y", "one volume"),
            ("warm=a:../x", "warm=a:../x"),
            ("within_s=soon", "within_s=soon"),
            ("colour=red", "colour"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(named), "{told}");
        }
    }

    #[test]
    fn a_spool_forgets_a_job_wholly_and_sees_no_half_written_file() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().to_owned()).unwrap();
        fs::write(folder.path().join("wants/7"), "warm=v").unwrap();
        fs::write(folder.path().join("wants/8.partial"), "wa").unwrap();
        assert_eq!(spool.jobs("wants").unwrap(), ["7"]);
        spool.answer("7", &Answer::go("READY".into())).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("answers/7")).unwrap(), "go\nREADY\n");
        spool.forget("7").unwrap();
        assert!(spool.jobs("wants").unwrap().is_empty() && spool.jobs("answers").unwrap().is_empty());
    }
}
