//! What happened at sites.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use foretide_flow::{
    Census, FilePath, Found, MoveCause, NodeId, Outcome, OutcomeBatch, ReadSummary, Refusal, RunId, SiteId, Timestamp,
    VolumeId, WarmupId, WorkloadId,
};

use super::{InMemory, State, page};
use crate::extents::{self, Ranges};
use crate::outcomes::{empty_status, refusal_key};
use crate::progress::{MoveEnd, move_ended};
use crate::{
    Outcomes, OutcomesRecorded, Page, ReadFilter, RefusalRecord, ResidentFile, Result, SiteStatus, Topic, limits,
};

/// What is resident, was read, was refused.
#[derive(Default)]
pub(super) struct Happened {
    stores: BTreeMap<NodeId, (u64, StoreReport)>,
    sites: BTreeMap<SiteId, SiteStatus>,
    site_waited_us: BTreeMap<SiteId, u64>,
    resident: BTreeMap<(SiteId, VolumeId, FilePath), Ranges>,
    reads: BTreeMap<(RunId, SiteId), (u64, ReadSummary, u64)>,
    refusals: BTreeMap<u64, ([u8; 32], Refusal)>,
    last_refusal: u64,
    /// By warm-up and node, with the number of the batch that counted.
    census: BTreeMap<WarmupId, BTreeMap<NodeId, (u64, Census)>>,
}

struct StoreReport {
    site: SiteId,
    resident_bytes: u64,
    capacity_bytes: u64,
    at: Timestamp,
}

impl Happened {
    pub(super) fn forget_files(&mut self, gone: impl Fn(&VolumeId, &FilePath) -> bool) {
        self.resident.retain(|(_, v, p), _| !gone(v, p));
    }

    pub(super) fn paths_at(&self, site: &SiteId) -> BTreeSet<(VolumeId, FilePath)> {
        self.resident.keys().filter(|k| k.0 == *site).map(|k| (k.1.clone(), k.2.clone())).collect()
    }

    fn resident_at(&self, site: &SiteId) -> BTreeMap<(VolumeId, FilePath), Ranges> {
        let here = self.resident.iter().filter(|(k, _)| k.0 == *site);
        here.map(|((_, volume, path), ranges)| ((volume.clone(), path.clone()), ranges.clone())).collect()
    }

    /// Bytes of a warm-up in the store of its site; where several nodes have one, the fullest (two counts of the
    /// same file must not make one warm-up ready).
    pub(super) fn counted(&self, warmup: &WarmupId) -> Option<(u64, u64)> {
        let counts = self.census.get(warmup)?.values().map(|(_, c)| (c.resident_files, c.resident_bytes));
        counts.max_by_key(|c| (c.1, c.0))
    }

    fn site(&mut self, site: &SiteId) -> &mut SiteStatus {
        self.sites.entry(site.clone()).or_insert_with(|| empty_status(site))
    }

    fn arrived(&mut self, key: (SiteId, VolumeId, FilePath), start: u64, end: u64) {
        if start < end {
            extents::add(self.resident.entry(key).or_default(), start, end);
        }
    }
}

impl State {
    /// Keeps a refusal, unless the same was kept in the same hour.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let key = refusal_key(refusal);
        let refusals = &mut self.outcomes.refusals;
        if refusals.values().any(|(k, _)| *k == key) {
            return;
        }
        self.outcomes.last_refusal += 1;
        refusals.insert(self.outcomes.last_refusal, (key, refusal.clone()));
        while refusals.len() > limits::REFUSALS {
            refusals.pop_first();
        }
    }

    fn record_outcomes(&mut self, batch: &OutcomeBatch, at: Timestamp) -> bool {
        if !self.fleet.outcome_sequences.entry(batch.node.clone()).or_default().come(batch.sequence) {
            return false;
        }
        let report = StoreReport {
            site: batch.site.clone(),
            resident_bytes: batch.resident_bytes,
            capacity_bytes: batch.capacity_bytes,
            at,
        };
        if self.outcomes.stores.get(&batch.node).is_none_or(|s| s.0 <= batch.sequence) {
            self.outcomes.stores.insert(batch.node.clone(), (batch.sequence, report));
        }
        batch.outcomes.iter().for_each(|o| self.outcome(&batch.site, o, at));
        batch.census.iter().for_each(|c| self.count(batch, c, at));
        self.plans.prune();
        true
    }

    fn outcome(&mut self, site: &SiteId, outcome: &Outcome, recorded_at: Timestamp) {
        match outcome {
            Outcome::Moved { id, at, bytes, wire_bytes, .. } => {
                let status = self.outcomes.site(site);
                status.prefetched_bytes = status.prefetched_bytes.saturating_add(*bytes);
                status.wire_bytes = status.wire_bytes.saturating_add(*wire_bytes);
                self.move_ended(site, id, *at, recorded_at, Ok(*wire_bytes));
            }
            Outcome::Failed { id, at, why } => self.move_ended(site, id, *at, recorded_at, Err(why)),
            Outcome::Read { .. } => self.read(site, outcome),
            Outcome::Evicted { volume, path, unread_prefetched_bytes, .. } => {
                let status = self.outcomes.site(site);
                status.wasted_bytes = status.wasted_bytes.saturating_add(*unread_prefetched_bytes);
                self.outcomes.resident.remove(&(site.clone(), volume.clone(), path.clone()));
            }
            Outcome::Refused(refusal) => self.refuse(refusal),
        }
    }

    fn move_ended(
        &mut self,
        site: &SiteId,
        id: &foretide_flow::MoveId,
        at: Timestamp,
        recorded_at: Timestamp,
        end: std::result::Result<u64, &String>,
    ) {
        let Some(row) = self.plans.moves.get_mut(id).filter(|r| r.record.mv.to == *site) else { return };
        let Some(state) = move_ended(row.record.state, end.is_ok()) else { return };
        row.record.state = state;
        row.record.ended_at = Some(at);
        row.record.wire_bytes = end.ok();
        row.record.why = end.err().cloned();
        row.end_recorded_at = recorded_at;
        let mv = row.record.mv.clone();
        let how = match end {
            Ok(wire_bytes) => MoveEnd::Arrived { bytes: mv.length, wire_bytes },
            Err(why) => MoveEnd::Failed { why: why.clone(), path: mv.path.clone(), at },
        };
        if let MoveCause::Warmup { warmup } = &mv.cause {
            self.warmups.move_ended(warmup, how);
        }
        if end.is_ok() {
            self.outcomes.arrived((site.clone(), mv.volume, mv.path), mv.offset, mv.offset + mv.length);
        }
    }

    fn read(&mut self, site: &SiteId, outcome: &Outcome) {
        let Outcome::Read { run, volume, path, at, bytes, prefetched_bytes, waited_us, found, .. } = outcome else {
            return;
        };
        let status = self.outcomes.site(site);
        status.read_bytes = status.read_bytes.saturating_add(*bytes);
        status.read_prefetched_bytes = status.read_prefetched_bytes.saturating_add(*prefetched_bytes);
        match found {
            Found::Hit => status.hits += 1,
            Found::Late => status.late += 1,
            Found::Miss => status.misses += 1,
            Found::Unknown => {}
        }
        if self.namespace.entry(volume, path).is_some_and(|e| *bytes >= e.size) {
            self.outcomes.arrived((site.clone(), volume.clone(), path.clone()), 0, *bytes);
        }
        *self.outcomes.site_waited_us.entry(site.clone()).or_default() += waited_us;
        let Some(run) = run else { return };
        let key = (run.clone(), site.clone());
        let number = self.outcomes.reads.get(&key).map(|r| r.0).unwrap_or_else(|| self.number());
        let row = self.outcomes.reads.entry(key).or_insert_with(|| (number, first_read(run, site, *at), 0));
        let (_, sum, waited) = row;
        *waited += waited_us;
        sum.reads += 1;
        sum.bytes += bytes;
        sum.prefetched_bytes += prefetched_bytes;
        sum.hits += u64::from(*found == Found::Hit);
        sum.late += u64::from(*found == Found::Late);
        sum.misses += u64::from(*found == Found::Miss);
        sum.waited_s = *waited as f64 / 1e6;
        sum.started_at = sum.started_at.min(*at);
    }

    fn count(&mut self, batch: &OutcomeBatch, census: &Census, at: Timestamp) {
        if self.warmups.site(&census.warmup) != Some(&batch.site) {
            return;
        }
        let counts = self.outcomes.census.entry(census.warmup.clone()).or_default();
        if counts.get(&batch.node).is_none_or(|c| c.0 <= batch.sequence) {
            counts.insert(batch.node.clone(), (batch.sequence, census.clone()));
        }
        let counted = self.outcomes.counted(&census.warmup).map(|c| c.1);
        self.warmups.settle(&census.warmup, counted, at);
    }

    /// A summary with what the run's start tells.
    fn with_run(&self, sum: &ReadSummary) -> ReadSummary {
        let mut sum = sum.clone();
        if let Some((_, start)) = self.fleet.runs.get(&sum.run) {
            sum.workload = start.workload.clone();
            sum.command = start.command.clone();
            sum.started_at = start.at;
        }
        sum.ended_at = self.fleet.ends.get(&sum.run).copied();
        sum
    }
}

fn first_read(run: &RunId, site: &SiteId, at: Timestamp) -> ReadSummary {
    ReadSummary {
        run: run.clone(),
        workload: WorkloadId::from("unknown"),
        command: String::new(),
        site: site.clone(),
        started_at: at,
        ended_at: None,
        reads: 0,
        bytes: 0,
        prefetched_bytes: 0,
        hits: 0,
        late: 0,
        misses: 0,
        waited_s: 0.0,
    }
}

#[async_trait]
impl Outcomes for InMemory {
    async fn record_outcomes(&self, batch: &OutcomeBatch, at: Timestamp) -> Result<OutcomesRecorded> {
        let recorded = {
            let mut state = self.state();
            let before = state.outcomes.resident_at(&batch.site);
            let new = state.record_outcomes(batch, at);
            let after = state.outcomes.resident_at(&batch.site);
            let differs = |place: &&(VolumeId, FilePath)| before.get(*place) != after.get(*place);
            let places: BTreeSet<_> = before.keys().chain(after.keys()).filter(differs).collect();
            let file = |(volume, path): &(VolumeId, FilePath)| ResidentFile {
                volume: volume.clone(),
                path: path.clone(),
                ranges: after.get(&(volume.clone(), path.clone())).cloned().unwrap_or_default(),
            };
            OutcomesRecorded { new, resident: places.into_iter().map(file).collect() }
        };
        if recorded.new {
            self.tell(&[Topic::Outcomes, Topic::Warmups]);
        }
        Ok(recorded)
    }

    async fn site_status(&self, site: &SiteId) -> Result<SiteStatus> {
        let state = self.state();
        let mut status = state.outcomes.sites.get(site).cloned().unwrap_or_else(|| empty_status(site));
        for (_, store) in state.outcomes.stores.values().filter(|(_, s)| s.site == *site) {
            status.resident_bytes += store.resident_bytes;
            status.capacity_bytes += store.capacity_bytes;
            status.reported_at = status.reported_at.max(Some(store.at));
        }
        status.waited_s = state.outcomes.site_waited_us.get(site).map_or(0.0, |us| *us as f64 / 1e6);
        Ok(status)
    }

    async fn resident(&self, site: &SiteId) -> Result<Vec<ResidentFile>> {
        let state = self.state();
        let here = state.outcomes.resident.iter().filter(|(k, _)| k.0 == *site);
        Ok(here
            .map(|((_, volume, path), ranges)| ResidentFile {
                volume: volume.clone(),
                path: path.clone(),
                ranges: ranges.clone(),
            })
            .collect())
    }

    async fn resident_sites(&self, volume: &VolumeId, path: &FilePath) -> Result<Vec<(SiteId, ResidentFile)>> {
        let state = self.state();
        let there = state.outcomes.resident.iter().filter(|((_, v, p), _)| v == volume && p == path);
        Ok(there
            .map(|((site, ..), ranges)| {
                (site.clone(), ResidentFile { volume: volume.clone(), path: path.clone(), ranges: ranges.clone() })
            })
            .collect())
    }

    async fn forget_resident(&self, site: &SiteId) -> Result<()> {
        self.state().outcomes.resident.retain(|(s, ..), _| s != site);
        self.tell(&[Topic::Outcomes]);
        Ok(())
    }

    async fn read_summaries(
        &self,
        filter: &ReadFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Page<ReadSummary>> {
        let state = self.state();
        let sums = state.outcomes.reads.values().map(|(number, sum, _)| (*number, state.with_run(sum)));
        let wanted = sums.filter(|(_, s)| {
            filter.run.as_ref().is_none_or(|r| *r == s.run)
                && filter.workload.as_ref().is_none_or(|w| *w == s.workload)
                && filter.site.as_ref().is_none_or(|site| *site == s.site)
                && filter.started_from.is_none_or(|from| s.started_at >= from)
        });
        Ok(page(wanted, cursor, limit))
    }

    async fn refusals(&self, after: u64, limit: usize) -> Result<Vec<RefusalRecord>> {
        let state = self.state();
        let rest = state.outcomes.refusals.range(after + 1..).take(limit.min(limits::PAGE_ITEMS));
        Ok(rest.map(|(id, (_, refusal))| RefusalRecord { id: *id, refusal: refusal.clone() }).collect())
    }

    async fn census(&self, warmup: &WarmupId) -> Result<Option<(u64, u64)>> {
        Ok(self.state().outcomes.counted(warmup))
    }
}
