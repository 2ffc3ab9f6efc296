//! What was recorded of accesses, asked for long after: the lake's files, read again, or played again in another world.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use foretide_api::{FilesRead, NotReplayed, Recordings, Replayed, Way, WhatIf};
use foretide_catalog::Run;
use foretide_flow::{AccessBatch, AccessOp, BitsPerSecond, FilePath, Ruleset, Timestamp, Topology, VolumeId};
use tokio::sync::{Semaphore, watch};

use super::standing::Standing;
use crate::run::simulate::{self, AsIf, Changes, recorded_world, ways};

/// An agent sends what it has seen within seconds; what comes later than this after the end of a run waited in a spool, and
/// is not looked for.
const LATE_AT_MOST: Duration = Duration::from_secs(600);
/// Batches that are read for one question: a day of a busy node.
const BATCHES_MAX: usize = 20_000;

/// Accesses that are played again at most: more than that would take minutes of a processor.
const PLAYED_MAX: usize = 2_000_000;

/// The lake, as a folder, and the world as it is now.
pub struct Recorded {
    lake: PathBuf,
    standing: watch::Receiver<Arc<Standing>>,
    model: foretide_model::Config,
    /// One question is played at a time.
    playing: Arc<Semaphore>,
}

impl Recorded {
    /// Over the lake in this folder.
    pub fn new(lake: PathBuf, standing: watch::Receiver<Arc<Standing>>, model: foretide_model::Config) -> Self {
        Self { lake, standing, model, playing: Arc::new(Semaphore::new(1)) }
    }
}

#[async_trait]
impl Recordings for Recorded {
    async fn files_read(&self, run: &Run, most: usize) -> FilesRead {
        let (lake, run) = (self.lake.clone(), run.clone());
        let looked = tokio::task::spawn_blocking(move || files_read(&lake, &run, most)).await;
        looked.map_err(|e| e.to_string()).and_then(|found| found)
    }

    async fn what_if(&self, question: WhatIf) -> Result<Replayed, NotReplayed> {
        let permit = Arc::clone(&self.playing).try_acquire_owned().map_err(|_| NotReplayed::Busy)?;
        let standing = Arc::clone(&self.standing.borrow());
        let (lake, model) = (self.lake.clone(), self.model.clone());
        let play = move || -> Result<Replayed, String> {
            // Given back when the play is over, also if nobody waits for it any more.
            let _playing = permit;
            let batches = batches(&lake, question.from, question.until)?;
            let as_if = AsIf { at: question.at.as_ref(), volume: None, days: None };
            let changes = Changes {
                cache_bytes: question.cache_bytes,
                link: question.link_bits_per_s.map(BitsPerSecond),
                budget_bytes: question.budget_bytes,
                faults: None,
            };
            let (topology, rules) = (Topology::clone(&standing.topology), Ruleset::clone(&standing.rules));
            let world = recorded_world(topology, rules, &batches, &as_if, changes)?;
            let ways = ways(&world, &standing.planner, &model)?.into_iter().map(shown).collect();
            let bytes = world.files.iter().map(|f| f.bytes).sum();
            Ok(Replayed { jobs: world.jobs.len() as u64, files: world.files.len() as u64, bytes, ways })
        };
        let played = tokio::task::spawn_blocking(play).await.unwrap_or_else(|e| Err(e.to_string()));
        played.map_err(NotReplayed::Refused)
    }
}

/// What was accessed in a time, as it was recorded.
fn batches(lake: &Path, from: Timestamp, until: Timestamp) -> Result<Vec<AccessBatch>, String> {
    let unreadable = |e: &dyn std::fmt::Display| format!("what was recorded cannot be read: {e}");
    let (mut batches, mut accesses) = (Vec::new(), 0);
    for path in recorded(lake, from, Some(until), |_| true).map_err(|e| unreadable(&e))? {
        let bytes = fs::read(&path).map_err(|e| unreadable(&e))?;
        let mut batch = foretide_collector::parquet::decode(&bytes).map_err(|e| unreadable(&e))?;
        batch.accesses.retain(|a| (from..=until).contains(&a.at));
        accesses += batch.accesses.len();
        if accesses > PLAYED_MAX {
            return Err(format!("more than {PLAYED_MAX} accesses were recorded in that time: ask for less of it"));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The simulation's words in those of the API.
fn shown(way: simulate::Way) -> Way {
    let report = way.report;
    Way {
        name: way.name.into(),
        finished: report.finished,
        ended_s: report.ended_s,
        stall_s: report.stall_s,
        reads: report.reads,
        hits: report.hits,
        moved_bytes: report.moved_bytes,
        wasted_bytes: report.wasted_bytes,
        link_bytes: report.link_bytes as u64,
        money: report.money,
        peak_link: report.peak_link,
        peak_cache_bytes: report.peak_cache_bytes,
    }
}

fn files_read(lake: &Path, run: &Run, most: usize) -> FilesRead {
    let unreadable = |e: &dyn std::fmt::Display| format!("what was recorded cannot be read: {e}");
    let until = run.ended_at.map(|at| at + LATE_AT_MOST);
    let node = format!("{}-", run.start.node);
    let kept = recorded(lake, run.start.at, until, |name| name.starts_with(&node)).map_err(|e| unreadable(&e))?;
    let mut read = Read::default();
    for path in kept {
        let bytes = fs::read(&path).map_err(|e| unreadable(&e))?;
        read.take(&foretide_collector::parquet::decode(&bytes).map_err(|e| unreadable(&e))?, run);
        if read.files.values().map(BTreeSet::len).sum::<usize>() > most {
            return Err(format!("run {} has read more than {most} files: ask for its workload", run.start.run));
        }
    }
    Ok(read.files)
}

/// Recordings whose name is `wanted` and that came within the time, in order of name.
///
/// # Errors
/// If the lake cannot be read, or too many came.
fn recorded(
    lake: &Path,
    from: Timestamp,
    until: Option<Timestamp>,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let moment = |at: Timestamp| UNIX_EPOCH + Duration::from_micros(at.0.max(0) as u64);
    let within = |at: SystemTime| at >= moment(from) && until.is_none_or(|until| at <= moment(until));
    let mut found = Vec::new();
    for entry in fs::read_dir(lake)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".parquet") && wanted(&name) && within(entry.metadata()?.modified()?) {
            found.push(entry.path());
        }
        if found.len() > BATCHES_MAX {
            let why = format!("more than {BATCHES_MAX} recordings came in that time: ask for less of it");
            return Err(io::Error::other(why));
        }
    }
    found.sort();
    Ok(found)
}

/// Files that one run has read, less those that it made.
#[derive(Default)]
struct Read {
    files: BTreeMap<VolumeId, BTreeSet<FilePath>>,
    made: BTreeSet<(VolumeId, FilePath)>,
}

impl Read {
    fn take(&mut self, batch: &AccessBatch, run: &Run) {
        for access in batch.accesses.iter().filter(|a| a.run == run.start.run) {
            let place = || (access.volume.clone(), access.path.clone());
            match access.op {
                AccessOp::Create => {
                    self.made.insert(place());
                }
                AccessOp::Read | AccessOp::Fault if !self.made.contains(&place()) => {
                    self.files.entry(access.volume.clone()).or_default().insert(access.path.clone());
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{Access, Found, Losses, NodeId, RunStart, SiteId};

    use super::*;

    fn run(name: &str, at: Timestamp) -> Run {
        let (node, site) = (NodeId::new("gpu-1").unwrap(), SiteId::new("gpu").unwrap());
        let start = RunStart {
            run: name.into(),
            workload: "w".into(),
            command: String::new(),
            at,
            site,
            node,
            numbers: vec![],
        };
        Run { start, ended_at: None }
    }

    fn write(lake: &Path, name: &str, accesses: &[(&str, AccessOp, &str)]) {
        let access = |(run, op, path): &(&str, AccessOp, &str)| Access {
            at: Timestamp::now(),
            run: (*run).into(),
            process: 1,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(path).unwrap(),
            op: *op,
            offset: 0,
            length: 10,
            blocked_us: 0,
            found: Found::Unknown,
        };
        let batch = AccessBatch {
            node: NodeId::new("gpu-1").unwrap(),
            site: SiteId::new("gpu").unwrap(),
            sequence: 1,
            started: vec![],
            accesses: accesses.iter().map(access).collect(),
            ended: vec![],
            losses: Losses::default(),
        };
        fs::write(lake.join(name), foretide_collector::parquet::encode(&batch).unwrap()).unwrap();
    }

    #[test]
    fn a_run_is_what_it_read_and_had_not_made_itself() {
        let lake = tempfile::tempdir().unwrap();
        let began = Timestamp::now() - Duration::from_secs(5);
        use AccessOp::{Close, Create, Open, Read as Got};
        write(lake.path(), "gpu-1-000000000001.parquet", &[("r", Open, "a"), ("r", Got, "a"), ("other", Got, "b")]);
        write(lake.path(), "gpu-1-000000000002.parquet", &[("r", Create, "c"), ("r", Got, "c"), ("r", Close, "d")]);
        write(lake.path(), "gpu-2-000000000001.parquet", &[("r", Got, "of another node")]);
        let read = |run: &Run, most| files_read(lake.path(), run, most);
        let found = read(&run("r", began), 10).unwrap();
        let paths: Vec<String> = found.values().flatten().map(ToString::to_string).collect();
        assert_eq!(paths, ["a"]);
        assert!(read(&run("r", began), 0).unwrap_err().contains("ask for its workload"));
        let later = run("r", Timestamp::now() + Duration::from_secs(60));
        assert!(read(&later, 10).unwrap().is_empty(), "what came before it began is not its");
        let over = Run { ended_at: Some(began - LATE_AT_MOST - LATE_AT_MOST), ..run("r", Timestamp(0)) };
        assert!(read(&over, 10).unwrap().is_empty(), "what came long after its end is not looked for");
    }
}
