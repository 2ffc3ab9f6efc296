//! What happened at sites.
//!
//! A batch can tell of thousands of reads, so what adds up is added up in memory first ([`Sums`]), what is ended, resident
//! or gone is looked up, changed and written together (see `touched.rs`), and the batch is one transaction.

use std::collections::HashMap;

use async_trait::async_trait;
use foretide_flow::{
    Census, FilePath, Found, Outcome, OutcomeBatch, ReadSummary, Refusal, RunId, SiteId, Timestamp, VolumeId, WarmupId,
    WorkloadId,
};

use super::engine::{Row, Tx};
use super::fleet::{BatchKind, Credit, site_of};
use super::text::{Arg, Statement, args, count};
use super::touched::resident_file;
use super::{SqlCatalog, after, before, from_json, one_more, page, to_json};
use crate::outcomes::{empty_status, refusal_key};
use crate::{
    Outcomes, OutcomesRecorded, Page, ReadFilter, RefusalRecord, ResidentFile, Result, SiteStatus, Topic, limits,
};

/// What a batch's reads and moves add up to, at its site or of one run.
#[derive(Default)]
struct Sums {
    prefetched_bytes: u64,
    wire_bytes: u64,
    wasted_bytes: u64,
    first_at: Option<Timestamp>,
    reads: u64,
    read_bytes: u64,
    read_prefetched_bytes: u64,
    hits: u64,
    late: u64,
    misses: u64,
    waited_us: u64,
}

impl Sums {
    fn read(&mut self, at: Timestamp, bytes: u64, prefetched_bytes: u64, waited_us: u64, found: Found) {
        self.first_at = Some(self.first_at.map_or(at, |first| first.min(at)));
        self.reads += 1;
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        self.read_prefetched_bytes = self.read_prefetched_bytes.saturating_add(prefetched_bytes);
        self.waited_us = self.waited_us.saturating_add(waited_us);
        self.hits += u64::from(found == Found::Hit);
        self.late += u64::from(found == Found::Late);
        self.misses += u64::from(found == Found::Miss);
    }
}

/// Sums of runs, in the order in which they are first told of.
#[derive(Default)]
struct RunSums<'a>(HashMap<&'a RunId, (usize, Sums)>);

impl<'a> RunSums<'a> {
    fn of(&mut self, run: &'a RunId) -> &mut Sums {
        let next = self.0.len();
        &mut self.0.entry(run).or_insert_with(|| (next, Sums::default())).1
    }

    fn in_order(self) -> Vec<(&'a RunId, Sums)> {
        let mut runs: Vec<_> = self.0.into_iter().collect();
        runs.sort_by_key(|(_, (place, _))| *place);
        runs.into_iter().map(|(run, (_, sums))| (run, sums)).collect()
    }
}

impl Tx {
    async fn record_outcomes(&mut self, batch: &OutcomeBatch, at: Timestamp) -> Result<OutcomesRecorded> {
        if !self.comes_first(&batch.node, BatchKind::Outcomes, batch.sequence, &Credit::default()).await? {
            return Ok(OutcomesRecorded::default());
        }
        self.hold(super::HAPPENING).await?;
        self.put_store(batch, at).await?;
        let mut touched = self.touched(batch).await?;
        let (mut here, mut runs) = (Sums::default(), RunSums::default());
        for outcome in &batch.outcomes {
            match outcome {
                Outcome::Moved { id, at, bytes, wire_bytes, .. } => {
                    here.prefetched_bytes = here.prefetched_bytes.saturating_add(*bytes);
                    here.wire_bytes = here.wire_bytes.saturating_add(*wire_bytes);
                    touched.arrived(id, *at, *wire_bytes);
                }
                Outcome::Failed { id, at, why } => touched.failed(id, *at, why),
                Outcome::Read { run, volume, path, at, bytes, prefetched_bytes, waited_us, found, .. } => {
                    here.read(*at, *bytes, *prefetched_bytes, *waited_us, *found);
                    if let Some(run) = run {
                        runs.of(run).read(*at, *bytes, *prefetched_bytes, *waited_us, *found);
                    }
                    touched.read(volume, path, *bytes);
                }
                Outcome::Evicted { volume, path, unread_prefetched_bytes, .. } => {
                    here.wasted_bytes = here.wasted_bytes.saturating_add(*unread_prefetched_bytes);
                    touched.evicted(volume, path);
                }
                Outcome::Refused(refusal) => self.refuse(refusal).await?,
            }
        }
        self.write_touched(&batch.site, at, &touched).await?;
        for (warmup, ends) in &touched.ended_for {
            self.moves_ended_for(warmup, ends).await?;
        }
        self.add_to_site(&batch.site, &here).await?;
        for (run, sums) in runs.in_order() {
            self.add_to_run(run, &batch.site, &sums).await?;
        }
        for census in &batch.census {
            self.count(batch, census, at).await?;
        }
        Ok(OutcomesRecorded { new: true, resident: touched.changed_residency() })
    }

    async fn put_store(&mut self, batch: &OutcomeBatch, at: Timestamp) -> Result<()> {
        let sql = "INSERT INTO stores (node, site, sequence, resident_bytes, capacity_bytes, at)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node) DO UPDATE SET site = excluded.site,
            sequence = excluded.sequence, resident_bytes = excluded.resident_bytes,
            capacity_bytes = excluded.capacity_bytes, at = excluded.at WHERE excluded.sequence >= stores.sequence";
        let values = [
            Arg::from(batch.node.as_str()),
            batch.site.as_str().into(),
            after(batch.sequence).into(),
            count(batch.resident_bytes),
            count(batch.capacity_bytes),
            at.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    async fn add_to_site(&mut self, site: &SiteId, sums: &Sums) -> Result<()> {
        let sql = "INSERT INTO sites (site, prefetched_bytes, wire_bytes, wasted_bytes, read_bytes, read_prefetched_bytes,
            hits, late, misses, waited_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (site) DO UPDATE SET prefetched_bytes = sites.prefetched_bytes + excluded.prefetched_bytes,
            wire_bytes = sites.wire_bytes + excluded.wire_bytes, wasted_bytes = sites.wasted_bytes + excluded.wasted_bytes,
            read_bytes = sites.read_bytes + excluded.read_bytes,
            read_prefetched_bytes = sites.read_prefetched_bytes + excluded.read_prefetched_bytes,
            hits = sites.hits + excluded.hits, late = sites.late + excluded.late, misses = sites.misses + excluded.misses,
            waited_us = sites.waited_us + excluded.waited_us";
        let values = [
            site.as_str().into(),
            count(sums.prefetched_bytes),
            count(sums.wire_bytes),
            count(sums.wasted_bytes),
            count(sums.read_bytes),
            count(sums.read_prefetched_bytes),
            count(sums.hits),
            count(sums.late),
            count(sums.misses),
            count(sums.waited_us),
        ];
        self.run(sql, &values).await.map(drop)
    }

    async fn add_to_run(&mut self, run: &RunId, site: &SiteId, sums: &Sums) -> Result<()> {
        let number = self.take_numbers("reads", 1).await?;
        let sql = "INSERT INTO reads (run, site, number, first_at, reads, bytes, prefetched_bytes, hits, late, misses,
            waited_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (run, site) DO UPDATE SET
            first_at = CASE WHEN excluded.first_at < reads.first_at THEN excluded.first_at ELSE reads.first_at END,
            reads = reads.reads + excluded.reads, bytes = reads.bytes + excluded.bytes,
            prefetched_bytes = reads.prefetched_bytes + excluded.prefetched_bytes,
            hits = reads.hits + excluded.hits, late = reads.late + excluded.late, misses = reads.misses + excluded.misses,
            waited_us = reads.waited_us + excluded.waited_us";
        let values = [
            run.as_str().into(),
            site.as_str().into(),
            number.into(),
            sums.first_at.unwrap_or_default().into(),
            count(sums.reads),
            count(sums.read_bytes),
            count(sums.read_prefetched_bytes),
            count(sums.hits),
            count(sums.late),
            count(sums.misses),
            count(sums.waited_us),
        ];
        self.run(sql, &values).await?;
        self.prune("reads", "number", number, 1, limits::RUNS).await
    }

    /// Keeps a refusal, unless the same was kept in the same hour.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) -> Result<()> {
        let key = refusal_key(refusal);
        let key = key.as_slice();
        if self.row("SELECT 1 FROM refusals WHERE same = $1", args![key]).await?.is_some() {
            return Ok(());
        }
        let id = self.take_numbers("refusals", 1).await?;
        let sql = "INSERT INTO refusals (id, same, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.run(sql, args![id, key, &to_json(refusal)]).await?;
        self.prune("refusals", "id", id, 1, limits::REFUSALS).await
    }

    /// Takes a store's count, if it is of the warm-up's own site.
    async fn count(&mut self, batch: &OutcomeBatch, census: &Census, at: Timestamp) -> Result<()> {
        let warmup = self.held_warmup(&census.warmup).await?;
        let Some(warmup) = warmup.filter(|w| w.request.site == batch.site) else { return Ok(()) };
        let sql = "INSERT INTO census (warmup, node, sequence, files, bytes) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (warmup, node) DO UPDATE SET sequence = excluded.sequence, files = excluded.files,
            bytes = excluded.bytes WHERE excluded.sequence >= census.sequence";
        let values = [
            census.warmup.as_str().into(),
            batch.node.as_str().into(),
            after(batch.sequence).into(),
            count(census.resident_files),
            count(census.resident_bytes),
        ];
        self.run(sql, &values).await?;
        self.settle_warmup(&warmup, at).await
    }
}

fn summary_of(row: &Row) -> Result<ReadSummary> {
    Ok(ReadSummary {
        run: RunId::from(row.text(1)?),
        workload: WorkloadId::from(row.text(2)?),
        command: row.text(3)?,
        site: site_of(row, 4)?,
        started_at: Timestamp(row.int(5)?),
        ended_at: row.maybe_int(6)?.map(Timestamp),
        reads: row.count(7)?,
        bytes: row.count(8)?,
        prefetched_bytes: row.count(9)?,
        hits: row.count(10)?,
        late: row.count(11)?,
        misses: row.count(12)?,
        waited_s: row.count(13)? as f64 / 1e6,
    })
}

#[async_trait]
impl Outcomes for SqlCatalog {
    async fn record_outcomes(&self, batch: &OutcomeBatch, at: Timestamp) -> Result<OutcomesRecorded> {
        let mut tx = self.engine.write().await?;
        let recorded = tx.record_outcomes(batch, at).await?;
        if recorded.new {
            self.commit(tx, &[Topic::Outcomes, Topic::Warmups]).await?;
        }
        Ok(recorded)
    }

    async fn site_status(&self, site: &SiteId) -> Result<SiteStatus> {
        let mut tx = self.engine.read().await?;
        let mut status = empty_status(site);
        let sql =
            "SELECT prefetched_bytes, wire_bytes, wasted_bytes, read_bytes, read_prefetched_bytes, hits, late, misses,
            waited_us FROM sites WHERE site = $1";
        if let Some(row) = tx.row(sql, args![site.as_str()]).await? {
            status.prefetched_bytes = row.count(0)?;
            status.wire_bytes = row.count(1)?;
            status.wasted_bytes = row.count(2)?;
            status.read_bytes = row.count(3)?;
            status.read_prefetched_bytes = row.count(4)?;
            status.hits = row.count(5)?;
            status.late = row.count(6)?;
            status.misses = row.count(7)?;
            status.waited_s = row.count(8)? as f64 / 1e6;
        }
        let sql =
            "SELECT CAST(COALESCE(SUM(resident_bytes), 0) AS BIGINT), CAST(COALESCE(SUM(capacity_bytes), 0) AS BIGINT),
            MAX(at) FROM stores WHERE site = $1";
        if let Some(row) = tx.row(sql, args![site.as_str()]).await? {
            status.resident_bytes = row.count(0)?;
            status.capacity_bytes = row.count(1)?;
            status.reported_at = row.maybe_int(2)?.map(Timestamp);
        }
        Ok(status)
    }

    async fn resident(&self, site: &SiteId) -> Result<Vec<ResidentFile>> {
        let sql = "SELECT volume, path, ranges FROM resident WHERE site = $1 ORDER BY volume, path";
        self.engine.rows(sql, args![site.as_str()]).await?.iter().map(|row| resident_file(row, 0)).collect()
    }

    async fn resident_sites(&self, volume: &VolumeId, path: &FilePath) -> Result<Vec<(SiteId, ResidentFile)>> {
        let sql = "SELECT site, volume, path, ranges FROM resident WHERE volume = $1 AND path = $2 ORDER BY site";
        let rows = self.engine.rows(sql, args![volume.as_str(), path]).await?;
        rows.iter().map(|row| Ok((site_of(row, 0)?, resident_file(row, 1)?))).collect()
    }

    async fn forget_resident(&self, site: &SiteId) -> Result<()> {
        let mut tx = self.engine.write().await?;
        tx.run("DELETE FROM resident WHERE site = $1", args![site.as_str()]).await?;
        self.commit(tx, &[Topic::Outcomes]).await
    }

    async fn read_summaries(
        &self,
        filter: &ReadFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Page<ReadSummary>> {
        let mut sums = Statement::new(
            "SELECT s.number, s.run, COALESCE(r.workload, 'unknown'), COALESCE(r.command, ''), s.site,
            COALESCE(r.at, s.first_at), e.at, s.reads, s.bytes, s.prefetched_bytes, s.hits, s.late, s.misses, s.waited_us
            FROM reads s LEFT JOIN runs r ON r.run = s.run LEFT JOIN run_ends e ON e.run = s.run",
        );
        sums.add(" WHERE s.number < ?", &[before(cursor).into()]);
        sums.add_if(" AND s.run = ?", filter.run.as_ref().map(RunId::as_str));
        sums.add_if(" AND COALESCE(r.workload, 'unknown') = ?", filter.workload.as_ref().map(WorkloadId::as_str));
        sums.add_if(" AND s.site = ?", filter.site.as_ref().map(SiteId::as_str));
        sums.add_if(" AND COALESCE(r.at, s.first_at) >= ?", filter.started_from);
        sums.add(" ORDER BY s.number DESC LIMIT ?", &[one_more(limit).into()]);
        page(self.engine.ask(&sums).await?, limit, summary_of)
    }

    async fn refusals(&self, after_id: u64, limit: usize) -> Result<Vec<RefusalRecord>> {
        let sql = "SELECT id, body FROM refusals WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = self.engine.rows(sql, args![after(after_id), limit.min(limits::PAGE_ITEMS) as i64]).await?;
        rows.iter()
            .map(|row| Ok(RefusalRecord { id: row.count(0)?, refusal: from_json("refusal", &row.text(1)?)? }))
            .collect()
    }

    async fn census(&self, warmup: &WarmupId) -> Result<Option<(u64, u64)>> {
        self.engine.read().await?.counted(warmup).await
    }
}
