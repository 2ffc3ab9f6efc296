//! Learning again out of the trace lake.
//!
//! The lake keeps every batch as its agent sent it. Read in order of time, it is what [`Model::observe`] once took, so a
//! model whose snapshots are lost knows as much as before. In memory are one part of one file, some megabytes, and what
//! the model keeps.
//!
//! Where nothing was lost, the same makes a *candidate* beside the model in use: it remembers more runs of each workload.
//! Whether that tells more is tried workload by workload on the newest run, which neither was told: only where the
//! candidate is worth more there does it take the place of the one in use.

use std::path::PathBuf;

use foretide_flow::{Timestamp, WorkloadId};

use crate::config::Config;
use crate::error::ModelError;
use crate::history::Workload;
use crate::lake::{accesses, batches, head};
use crate::model::{Model, occasions};
use crate::train::newest_told;

/// Finished runs that a candidate remembers of each workload: two months of days.
const CANDIDATE_RUNS: usize = 64;
/// What a candidate must be worth more, as a share of the bytes read: less is chance.
const MARGIN: f64 = 0.01;

/// What was learned from the lake.
#[derive(Debug, Default)]
pub struct Relearned {
    /// Files of the lake that were read.
    pub files: usize,
    /// Accesses in them.
    pub accesses: u64,
    /// Files that could not be read, and why (promise J).
    pub unusable: Vec<(PathBuf, ModelError)>,
}

/// How a candidate did for one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The workload.
    pub workload: WorkloadId,
    /// Runs that the candidate remembers, and the one in use.
    pub runs: (usize, usize),
    /// What each told of the newest run, as a share of the bytes that it read: bytes told right less the price of the
    /// rest. None where there is no past to tell it from.
    pub worth: (Option<f64>, Option<f64>),
    /// Whether the candidate has taken the place of the one in use.
    pub adopted: bool,
}

impl Model {
    /// Takes all files of the lake, in order of time. Files that cannot be read are left out and named.
    pub fn learn_from_lake(&mut self, lake: &[PathBuf]) -> Relearned {
        let mut out = Relearned::default();
        let mut files = Vec::with_capacity(lake.len());
        for path in lake {
            match head(path) {
                Ok(head) => files.push((head, path)),
                Err(why) => out.unusable.push((path.clone(), why)),
            }
        }
        files.sort_by_key(|(head, path)| (head.from_us, *path));
        for (head, path) in files {
            self.take(&head.started, &[], &[]);
            match self.take_rows(path) {
                Ok(rows) => out.accesses += rows,
                Err(why) => out.unusable.push((path.clone(), why)),
            }
            self.take(&[], &[], &head.ended);
            out.files += 1;
        }
        out
    }

    fn take_rows(&mut self, path: &std::path::Path) -> Result<u64, ModelError> {
        let mut rows = 0;
        for batch in batches(path)? {
            let accesses = accesses(&batch?)?;
            rows += accesses.len() as u64;
            self.take(&[], &accesses, &[]);
        }
        Ok(rows)
    }

    /// A candidate beside the model of this snapshot: the same names of files, and what the lake tells of each workload
    /// up to `now`, further back.
    ///
    /// # Errors
    /// As [`Model::restore`].
    pub fn candidate(
        config: Config,
        snapshot: &[u8],
        lake: &[PathBuf],
        now: Timestamp,
    ) -> Result<(Self, Relearned), ModelError> {
        let kept_runs = config.kept_runs.max(CANDIDATE_RUNS);
        let mut model = Self::restore(Config { kept_runs, ..config }, snapshot)?;
        model.state.workloads.clear();
        model.state.live.clear();
        let learned = model.learn_from_lake(lake);
        model.end_silent(now);
        Ok((model, learned))
    }

    /// Takes over from a candidate each workload that it tells better. The newest run must be the same for both: a
    /// candidate that knows less of the present is passed over.
    pub fn adopt(&mut self, candidate: &Self) -> Vec<Trial> {
        let ids: Vec<WorkloadId> = candidate.state.workloads.keys().cloned().collect();
        ids.iter().filter_map(|id| self.try_candidate(candidate, id)).collect()
    }

    fn try_candidate(&mut self, candidate: &Self, id: &WorkloadId) -> Option<Trial> {
        let new = candidate.state.workloads.get(id)?;
        let newest = |w: &Workload| w.records.back().map(|r| r.run.clone());
        let in_use = self.state.workloads.get(id);
        if in_use.is_some_and(|w| newest(w) != newest(new)) {
            return None;
        }
        let told = |w: &Workload| newest_told(&occasions(w, &self.state.names, self.state.now, &[]), self.config.seed);
        let (ours, read) = told(new).unzip();
        let theirs = in_use.and_then(&told).map(|(worth, _)| worth);
        let margin = MARGIN * read.unwrap_or_default();
        let adopted = match (ours, theirs, in_use) {
            (_, _, None) => true,
            (Some(ours), Some(theirs), _) => ours > theirs + margin,
            (Some(_), None, _) => true,
            (None, _, _) => false,
        };
        let share = |worth: Option<f64>| worth.map(|w| w / read.unwrap_or_default().max(1.0));
        let runs = (new.records.len(), in_use.map_or(0, |w| w.records.len()));
        let trial = Trial { workload: id.clone(), runs, worth: (share(ours), share(theirs)), adopted };
        if adopted {
            self.take_over(new);
        }
        Some(trial)
    }

    fn take_over(&mut self, new: &Workload) {
        let workload = self.state.workloads.entry(new.id.clone()).or_insert_with(|| new.clone());
        workload.records.clone_from(&new.records);
        workload.kept_runs = new.records.len().max(CANDIDATE_RUNS);
        self.memos.remove(&new.id);
        self.state.changed.insert(new.id.clone());
    }
}
