//! The model: what it takes in.
//!
//! One value, owned by one thread, no clock and no chance of its own: the same calls in the same order give the
//! same answers (promise F). It takes accesses, listings and outcomes, and answers `advise` (see
//! [`crate::advise`]). Everything it keeps is bounded by [`Config`] (promise K), and what it had to leave out
//! is counted (promise J).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{
    Access, AccessBatch, FilePath, ForecastId, Listing, NodeId, Outcome, OutcomeBatch, Profile, RunEnd, RunId,
    RunStart, Timestamp, VolumeId, WorkloadId,
};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::ModelError;
use crate::forecaster::{Claim, Forecaster, View, all, read_out};
use crate::habit::{Candidate, Occasion, Outlook, habits, number_slots};
use crate::history::{RunRecord, Workload};
use crate::namespace::Namespace;
use crate::order::order_of;
use crate::orders::{Sought, ended_order};
use crate::run::{FileKey, LiveRun};
use crate::select::{Score, Shadow, pairs};
use crate::train::Ranker;

/// What the model had to leave out (promise J).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAside {
    /// Accesses of runs whose start was never told.
    pub of_unknown_runs: u64,
    /// Accesses to files beyond the bound of their run.
    pub of_unfollowed_files: u64,
    /// Names of listings beyond the bound.
    pub names: u64,
    /// Workloads forgotten for room.
    pub workloads: u64,
}

/// A running run and the claims on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Followed {
    pub(crate) run: LiveRun,
    pub(crate) shadows: BTreeMap<String, Shadow>,
    /// When its forecast was last reckoned.
    pub(crate) told_at: Timestamp,
    /// Whether something was read or learned since.
    pub(crate) stale: bool,
    /// How far the order of its files is known.
    #[serde(default)]
    pub(crate) sought: Sought,
}

/// A forecast as it was given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) id: ForecastId,
    pub(crate) workload: WorkloadId,
    pub(crate) run: Option<RunId>,
    pub(crate) volume: VolumeId,
    pub(crate) forecaster: String,
    pub(crate) made_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) reads: usize,
    pub(crate) last_p50: Timestamp,
}

/// Claims on a run that has yet to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Awaited {
    pub(crate) shadows: BTreeMap<String, Shadow>,
    pub(crate) start: Timestamp,
    /// After this the run is taken not to come, and the claims as wasted.
    pub(crate) until: Timestamp,
    pub(crate) told_at: Timestamp,
    pub(crate) names_seen: u64,
    pub(crate) asked_at: Timestamp,
}

/// What the past says of a workload's next run: reckoned when asked, kept until something changes.
pub(crate) struct Memo {
    records_seen: u64,
    names_seen: u64,
    /// Numbers of the command line that it is told for.
    numbers: Vec<Option<u32>>,
    pub(crate) outlook: Outlook,
    pub(crate) ranked: Option<Outlook>,
    ranker: Option<Ranker>,
}

/// What is kept over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) workloads: BTreeMap<WorkloadId, Workload>,
    pub(crate) live: BTreeMap<RunId, Followed>,
    pub(crate) names: Namespace,
    pub(crate) awaited: BTreeMap<WorkloadId, Awaited>,
    pub(crate) issued: Vec<Issued>,
    #[serde(with = "pairs")]
    pub(crate) moved_for: HashMap<FileKey, (WorkloadId, String)>,
    /// Directories asked for, whether with all below, and when. Not kept over a restart: asking again is cheap.
    #[serde(skip)]
    pub(crate) asked: BTreeMap<(VolumeId, FilePath, bool), Timestamp>,
    pub(crate) batches: BTreeMap<NodeId, u64>,
    pub(crate) reports: BTreeMap<NodeId, u64>,
    pub(crate) forecasts: u64,
    pub(crate) names_seen: u64,
    pub(crate) changed: BTreeSet<WorkloadId>,
    /// Recognised sets, and the share of each that was read out, added up.
    pub(crate) sets: (f64, f64),
    pub(crate) left_aside: LeftAside,
    pub(crate) now: Timestamp,
}

/// The model.
pub struct Model {
    pub(crate) config: Config,
    pub(crate) forecasters: Vec<Box<dyn Forecaster>>,
    pub(crate) state: State,
    pub(crate) memos: HashMap<WorkloadId, Memo>,
}

/// Prior of "a recognised set is read out": as if nine of ten had been.
const SETS_PRIOR: (f64, f64) = (10.0, 9.0);

impl Model {
    /// A model that knows nothing.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for a setting that cannot be meant.
    pub fn new(config: Config) -> Result<Self, ModelError> {
        config.check()?;
        Ok(Self { config, forecasters: all(), state: State::default(), memos: HashMap::new() })
    }

    /// Takes what a node saw. A batch that was sent twice counts once.
    pub fn observe(&mut self, batch: &AccessBatch) {
        if self.state.batches.insert(batch.node.clone(), batch.sequence) == Some(batch.sequence) {
            return;
        }
        self.take(&batch.started, &batch.accesses, &batch.ended);
    }

    /// Takes what one batch, or a part of one, holds.
    pub(crate) fn take(&mut self, started: &[RunStart], accesses: &[Access], ended: &[RunEnd]) {
        started.iter().for_each(|start| self.start(start));
        accesses.iter().for_each(|access| self.access(access));
        ended.iter().for_each(|end| self.end(end));
    }

    fn start(&mut self, start: &RunStart) {
        if self.state.live.contains_key(&start.run) {
            return;
        }
        self.make_room();
        let workload = self.state.workloads.entry(start.workload.clone()).or_insert_with(|| {
            Workload::new(start.workload.clone(), start.command.clone(), start.site.clone(), start.at)
        });
        workload.started(start.at, &start.site);
        let shadows = self.state.awaited.remove(&start.workload).map(|a| a.shadows).unwrap_or_default();
        let followed = Followed {
            run: LiveRun::new(start),
            shadows,
            told_at: Timestamp(i64::MIN),
            stale: true,
            sought: Sought::default(),
        };
        self.state.live.insert(start.run.clone(), followed);
        self.state.changed.insert(start.workload.clone());
        self.state.now = self.state.now.max(start.at);
    }

    /// Keeps runs and workloads within their bounds: the longest silent goes first.
    fn make_room(&mut self) {
        while self.state.live.len() >= self.config.live_runs {
            let Some(run) = self.state.live.values().min_by_key(|f| f.run.last_at).map(|f| f.run.run.clone()) else {
                break;
            };
            self.finish(&run, None);
        }
        while self.state.workloads.len() >= self.config.workloads {
            let Some(id) = self.state.workloads.values().min_by_key(|w| w.last_at).map(|w| w.id.clone()) else { break };
            self.state.workloads.remove(&id);
            self.memos.remove(&id);
            self.state.left_aside.workloads += 1;
        }
    }

    fn access(&mut self, access: &Access) {
        let Some(followed) = self.state.live.get_mut(&access.run) else {
            self.state.left_aside.of_unknown_runs += 1;
            return;
        };
        self.state.now = self.state.now.max(access.at);
        let before = followed.run.unfollowed;
        let first = followed.run.take(access, self.config.run_files, self.config.file_ranges);
        self.state.left_aside.of_unfollowed_files += followed.run.unfollowed - before;
        followed.stale = true;
        let Some(file) = first else { return };
        let key = &followed.run.files()[file as usize].key;
        let bytes = self.state.names.file(&key.volume, &key.path).map_or(access.length, |f| f.size);
        for shadow in followed.shadows.values_mut() {
            shadow.visited(key, bytes);
        }
    }

    fn end(&mut self, end: &RunEnd) {
        self.state.now = self.state.now.max(end.at);
        self.finish(&end.run, Some(end.at));
    }

    /// Turns a running run into a record, and settles the claims on it.
    pub(crate) fn finish(&mut self, run: &RunId, at: Option<Timestamp>) {
        let Some(followed) = self.state.live.remove(run) else { return };
        let ended_at = at.unwrap_or(followed.run.last_at);
        let mut record = RunRecord::of(&followed.run, ended_at, &self.state.names);
        let Some(workload) = self.state.workloads.get(&followed.run.workload) else { return };
        let view = view(&self.config, &self.state, workload, Some(&followed), None, ended_at);
        record.read_out = read_out(&view, &followed.run);
        let (drawn, puzzle) = ended_order(&followed, &self.state);
        record.drawn = drawn;
        if let Some(share) = record.read_out {
            self.state.sets.0 += 1.0;
            self.state.sets.1 += share;
        }
        let Some(workload) = self.state.workloads.get_mut(&followed.run.workload) else { return };
        for (name, shadow) in &followed.shadows {
            workload.scores.entry(name.clone()).or_default().settle(shadow);
        }
        workload.puzzle = puzzle.or(workload.puzzle.take());
        workload.ended(record, self.config.kept_runs.max(workload.kept_runs));
        self.state.changed.insert(followed.run.workload.clone());
    }

    /// Takes what a directory holds.
    pub fn learn(&mut self, listing: &Listing) {
        if self.state.names.learn(listing, self.config.namespace_files) {
            self.state.names_seen += 1;
            for followed in self.state.live.values_mut() {
                followed.stale = true;
                followed.told_at = Timestamp(i64::MIN);
                followed.sought.names_changed();
            }
        }
        self.state.left_aside.names = self.state.names.refused();
        self.state.now = self.state.now.max(listing.seen_at);
    }

    /// Takes what came of moves: hits and waste of whoever asked for them. A report sent twice counts once.
    pub fn outcome(&mut self, batch: &OutcomeBatch) {
        if self.state.reports.insert(batch.node.clone(), batch.sequence) == Some(batch.sequence) {
            return;
        }
        for outcome in &batch.outcomes {
            match outcome {
                Outcome::Read { volume, path, prefetched_bytes, .. } => {
                    self.credit(volume, path, *prefetched_bytes, 0);
                }
                Outcome::Evicted { volume, path, unread_prefetched_bytes, .. } => {
                    self.credit(volume, path, 0, *unread_prefetched_bytes);
                }
                Outcome::Moved { .. } | Outcome::Failed { .. } | Outcome::Refused(_) => {}
            }
        }
    }

    fn credit(&mut self, volume: &VolumeId, path: &FilePath, hit: u64, wasted: u64) {
        if hit == 0 && wasted == 0 {
            return;
        }
        let key = FileKey { volume: volume.clone(), path: path.clone() };
        let Some((workload, forecaster)) = self.state.moved_for.get(&key) else { return };
        if let Some(workload) = self.state.workloads.get_mut(workload) {
            let score = workload.scores.entry(forecaster.clone()).or_default();
            score.moved_hit_bytes += hit as f64;
            score.moved_wasted_bytes += wasted as f64;
        }
    }

    /// What the past of a workload says of a running run, or of its next one, reckoned anew only when something has changed.
    pub(crate) fn recall(&mut self, id: &WorkloadId, running: Option<&RunId>, now: Timestamp) {
        let Some(workload) = self.state.workloads.get_mut(id) else { return };
        let running = running.and_then(|run| self.state.live.get(run)).map(|f| f.run.numbers.clone());
        let numbers = running.unwrap_or_else(|| workload.next_numbers());
        let records_seen = workload.finished;
        let names_seen = self.state.names_seen;
        let known = self.memos.remove(id).filter(|m| m.records_seen == records_seen);
        if let Some(memo) = known {
            let memo = if memo.names_seen == names_seen && memo.numbers == numbers {
                memo
            } else {
                let occasions = occasions(workload, &self.state.names, now, &numbers);
                let outlook = habits(&occasions);
                let ranked = memo.ranker.as_ref().map(|r| r.outlook(&occasions, &outlook));
                Memo { names_seen, numbers, outlook, ranked, ..memo }
            };
            self.memos.insert(id.clone(), memo);
            return;
        }
        let occasions = occasions(workload, &self.state.names, now, &numbers);
        let outlook = habits(&occasions);
        let learned = Ranker::learn(&occasions, self.config.seed);
        let gain = learned.as_ref().map(|r| r.held_back.ranked - r.held_back.plain);
        let ranker = learned.filter(|r| r.held_back.earned());
        let ranked = ranker.as_ref().map(|r| r.outlook(&occasions, &outlook));
        drop(occasions);
        if gain.is_some() {
            workload.scores.entry("ranked".into()).or_default().held_back = gain;
        }
        self.memos.insert(id.clone(), Memo { records_seen, names_seen, numbers, outlook, ranked, ranker });
    }

    /// The profile of a workload as of the latest that is known.
    pub fn profile(&self, id: &WorkloadId) -> Option<Profile> {
        let live = self.state.live.values().find(|f| &f.run.workload == id);
        let workload = self.state.workloads.get(id)?;
        let mut profile = workload.profile(live.map(|f| &f.run), &self.state.names, self.state.now);
        if let Some(following) = live.and_then(|f| f.sought.following()) {
            profile.drawn = Some(following.recognised.words());
        }
        Some(profile)
    }

    /// What had to be left out.
    pub fn left_aside(&self) -> LeftAside {
        self.state.left_aside
    }

    /// How each forecaster did for each workload, workloads in order of identity.
    pub fn scorecard(&self) -> Vec<ScoreRow> {
        let rows = |w: &Workload| {
            let row = |(name, score): (&String, &Score)| ScoreRow {
                workload: w.id.clone(),
                command: w.command.clone(),
                forecaster: name.clone(),
                runs: score.runs,
                precision: score.precision(),
                coverage: score.coverage(),
                calibration_error: score.calibration_error(),
                muted: score.muted(&self.config),
                wasted_bytes: (score.wasted_bytes + score.moved_wasted_bytes) as u64,
                held_back_gain_bytes: score.held_back,
            };
            w.scores.iter().map(row).collect::<Vec<_>>()
        };
        self.state.workloads.values().flat_map(rows).collect()
    }
}

/// One line of the scorecard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreRow {
    /// The workload.
    pub workload: WorkloadId,
    /// Its command, for people.
    pub command: String,
    /// The forecaster.
    pub forecaster: String,
    /// Runs it had claims on.
    pub runs: u64,
    /// Claimed bytes that were read / claimed bytes, faded over runs.
    pub precision: Option<f64>,
    /// Bytes read that were claimed before / bytes read.
    pub coverage: Option<f64>,
    /// Mean distance of stated and real probability.
    pub calibration_error: Option<f64>,
    /// Whether it is silent because it wasted.
    pub muted: bool,
    /// Bytes wasted, faded over runs.
    pub wasted_bytes: u64,
    /// For the learned ranker: what it was worth more than the rules on the newest run, held back, bytes.
    pub held_back_gain_bytes: Option<f64>,
}

/// What forecasters may look at, without the outlook of the past.
pub(crate) fn view<'a>(
    config: &'a Config,
    state: &'a State,
    workload: &'a Workload,
    followed: Option<&'a Followed>,
    memo: Option<&'a Memo>,
    now: Timestamp,
) -> View<'a> {
    let run = followed.map(|f| &f.run);
    View {
        now,
        config,
        workload,
        run,
        order: run.map(|r| order_of(r, &state.names)).unwrap_or_default(),
        following: followed.and_then(|f| f.sought.following()),
        names: &state.names,
        outlook: memo.map(|m| &m.outlook),
        ranked: memo.and_then(|m| m.ranked.as_ref()),
        sets_read_out: (SETS_PRIOR.1 + state.sets.1) / (SETS_PRIOR.0 + state.sets.0),
    }
}

/// The past runs of a workload and the one to come, as the habits see them: what there was at each start is
/// what is known now and had been changed before, and what the run itself read. Of the one to come, `numbers` are those
/// of its command line.
pub(crate) fn occasions<'a>(
    workload: &'a Workload,
    names: &Namespace,
    now: Timestamp,
    numbers: &[Option<u32>],
) -> Vec<Occasion<'a>> {
    let used: BTreeSet<(&VolumeId, FilePath)> = workload
        .records
        .iter()
        .flat_map(|r| r.external())
        .map(|u| (&u.key.volume, u.key.path.parent().unwrap_or_default()))
        .collect();
    let shapes: BTreeSet<(&VolumeId, String)> =
        used.iter().map(|(v, d)| (*v, crate::shape::shape(d.as_bytes()).text)).collect();
    let volumes: BTreeSet<&VolumeId> = used.iter().map(|(v, _)| *v).collect();
    let root = FilePath::root();
    let there: Vec<Candidate> = volumes
        .into_iter()
        .flat_map(|v| names.below(v, &root).map(move |(p, f)| (v, p, f)))
        .filter(|(v, p, _)| {
            let directory = p.parent().unwrap_or_default();
            shapes.contains(&(*v, crate::shape::shape(directory.as_bytes()).text))
        })
        .map(|(v, p, f)| Candidate {
            key: FileKey { volume: v.clone(), path: p.clone() },
            size: f.size,
            modified_at: f.modified_at,
        })
        .collect();
    let at = |at: Timestamp| there.iter().filter(|c| c.modified_at <= at).cloned().collect();
    let past = workload.records.iter().map(|r| Occasion {
        at: r.started_at,
        arguments: number_slots(&r.numbers),
        candidates: at(r.started_at),
        uses: &r.uses,
        drawn: r.drawn.as_ref(),
    });
    let candidates = at(Timestamp(i64::MAX));
    let next = Occasion { at: now, arguments: number_slots(numbers), candidates, uses: &[], drawn: None };
    past.chain([next]).collect()
}

/// A claim that is followed: kept per forecaster.
pub(crate) fn follow(shadows: &mut BTreeMap<String, Shadow>, name: &str, claims: &[Claim], run: Option<&LiveRun>) {
    if claims.is_empty() {
        return;
    }
    let shadow = shadows.entry(name.to_owned()).or_default();
    for claim in claims {
        shadow.claim(claim, |key| run.and_then(|r| r.file(key)).is_some_and(|u| u.visits > 0));
    }
}
