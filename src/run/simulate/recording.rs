//! Recorded accesses as jobs of a world.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{AccessBatch, AccessOp, FilePath, RunId, SiteId, Topology, VolumeId, WorkloadId};
use foretide_planner::simulate::{File, Job, Read};

/// What is taken otherwise than it was recorded.
pub(in crate::run) struct AsIf<'a> {
    pub(in crate::run) at: Option<&'a SiteId>,
    pub(in crate::run) volume: Option<&'a VolumeId>,
    pub(in crate::run) days: Option<f64>,
}

/// A process as it is followed through the recording.
struct Process {
    job: Job,
    /// When its last access ended, microseconds from the beginning.
    ended_us: i64,
}

/// Files and jobs of the recording, from its first access on. What a process reads one right after the other of one
/// file is one read; what was made in the recording is nobody's to bring.
///
/// # Errors
/// In words: a recording without reads, or of a place or a volume that the topology does not have.
pub(super) fn jobs(
    batches: &[AccessBatch],
    topology: &Topology,
    as_if: &AsIf<'_>,
) -> Result<(Vec<File>, Vec<Job>), String> {
    let workloads: HashMap<&RunId, &WorkloadId> =
        batches.iter().flat_map(|b| &b.started).map(|s| (&s.run, &s.workload)).collect();
    let mut accesses: Vec<_> = batches.iter().flat_map(|b| b.accesses.iter().map(move |a| (&b.site, a))).collect();
    accesses.sort_by_key(|(_, a)| a.at);
    let began = accesses.first().ok_or("the recording holds no access")?.1.at;
    let span_us = as_if.days.map_or(i64::MAX, |d| (d * 86_400e6) as i64);
    let mut files = Files::default();
    let mut made: BTreeSet<(&VolumeId, &FilePath)> = BTreeSet::new();
    let mut processes: BTreeMap<(&RunId, u32), Process> = BTreeMap::new();
    for (site, access) in accesses {
        let at_us = access.at.0 - began.0;
        if at_us >= span_us {
            break;
        }
        match access.op {
            AccessOp::Create => {
                made.insert((&access.volume, &access.path));
                continue;
            }
            AccessOp::Open | AccessOp::Close => continue,
            AccessOp::Read | AccessOp::Fault => {}
        }
        if access.length == 0 || made.contains(&(&access.volume, &access.path)) {
            continue;
        }
        let volume = as_if.volume.unwrap_or(&access.volume);
        let file = files.number(volume, &access.path, access.offset + access.length);
        let site = place(site, topology, as_if)?;
        let workload =
            || workloads.get(&access.run).map_or_else(|| WorkloadId::from(access.run.as_str()), |w| (*w).clone());
        let process = processes.entry((&access.run, access.process)).or_insert_with(|| Process {
            job: Job {
                run: access.run.clone(),
                workload: workload(),
                process: access.process,
                site,
                starts_us: at_us,
                reads: Vec::new(),
            },
            ended_us: at_us,
        });
        let compute_us = (at_us - process.ended_us).max(0);
        process.ended_us = at_us + i64::from(access.blocked_us);
        match process.job.reads.last_mut() {
            Some(last) if last.file == file && last.offset + last.length == access.offset => {
                // The time between the two is spent before the next read, so that none of it is lost.
                last.length += access.length;
                process.ended_us -= compute_us;
            }
            _ => process.job.reads.push(Read { file, offset: access.offset, length: access.length, compute_us }),
        }
    }
    let jobs: Vec<Job> = processes.into_values().map(|p| p.job).collect();
    if jobs.is_empty() {
        return Err("the recording holds no read of a file that was there before".into());
    }
    Ok((files.files, jobs))
}

/// Where a job runs.
fn place(recorded: &SiteId, topology: &Topology, as_if: &AsIf<'_>) -> Result<SiteId, String> {
    if let Some(at) = as_if.at {
        return Ok(at.clone());
    }
    if topology.sites.contains_key(recorded) {
        return Ok(recorded.clone());
    }
    let caches: Vec<&SiteId> = topology.sites.iter().filter(|(_, s)| s.cache.is_some()).map(|(name, _)| name).collect();
    match caches.as_slice() {
        [only] => Ok((*only).clone()),
        _ => Err(format!(
            "the recording is of site {recorded}, which is not in the topology: say with --at where its jobs run"
        )),
    }
}

/// Files by number, as large as the furthest byte that was read.
#[derive(Default)]
struct Files {
    files: Vec<File>,
    by_name: HashMap<(VolumeId, FilePath), u32>,
}

impl Files {
    fn number(&mut self, volume: &VolumeId, path: &FilePath, end: u64) -> u32 {
        let next = self.files.len() as u32;
        let number = *self.by_name.entry((volume.clone(), path.clone())).or_insert(next);
        if number == next {
            self.files.push(File { volume: volume.clone(), path: path.clone(), bytes: 0 });
        }
        let file = &mut self.files[number as usize];
        file.bytes = file.bytes.max(end);
        number
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{Access, Found, Losses, NodeId, Timestamp};

    use super::*;

    fn access(at_us: i64, op: AccessOp, path: &str, offset: u64, length: u64) -> Access {
        Access {
            at: Timestamp(1_000_000 + at_us),
            run: "r".into(),
            process: 1,
            volume: VolumeId::new("local").unwrap(),
            path: FilePath::parse(path).unwrap(),
            op,
            offset,
            length,
            blocked_us: 100,
            found: Found::Unknown,
        }
    }

    fn batch(accesses: Vec<Access>) -> AccessBatch {
        let (node, site) = (NodeId::new("n").unwrap(), SiteId::new("local").unwrap());
        AccessBatch { node, site, sequence: 1, started: vec![], accesses, ended: vec![], losses: Losses::default() }
    }

    #[test]
    fn reads_keep_their_computing_and_what_was_made_is_left_out() {
        let (gpu, volume) = (SiteId::new("gpu").unwrap(), VolumeId::new("data").unwrap());
        let as_if = AsIf { at: Some(&gpu), volume: Some(&volume), days: None };
        let trace = batch(vec![
            access(0, AccessOp::Read, "a", 0, 10),
            access(150, AccessOp::Read, "a", 10, 10),
            access(200, AccessOp::Create, "out", 0, 0),
            access(300, AccessOp::Read, "out", 0, 5),
            access(1_150, AccessOp::Read, "b", 5, 5),
        ]);
        let (files, jobs) = jobs(&[trace], &Topology::default(), &as_if).unwrap();
        assert_eq!(files.iter().map(|f| f.bytes).collect::<Vec<_>>(), [20, 10]);
        let reads: Vec<_> = jobs[0].reads.iter().map(|r| (r.file, r.offset, r.length, r.compute_us)).collect();
        assert_eq!(reads, [(0, 0, 20, 0), (1, 5, 5, 950)], "50 us within the first read, 900 us after it");
        assert_eq!(jobs[0].site, gpu);
    }

    #[test]
    fn a_recording_of_nowhere_is_refused() {
        let trace = batch(vec![access(0, AccessOp::Read, "a", 0, 10)]);
        let as_if = AsIf { at: None, volume: None, days: None };
        assert!(jobs(&[trace], &Topology::default(), &as_if).unwrap_err().contains("--at"));
        assert!(jobs(&[], &Topology::default(), &as_if).unwrap_err().contains("no access"));
    }
}
