//! Agents, batches, runs.

use async_trait::async_trait;
use foretide_flow::{AccessBatch, Losses, NodeId, RunEnd, RunId, RunStart, SiteId, Timestamp, WorkloadId};

use super::engine::{Row, Tx, damaged};
use super::text::{Arg, Statement, args, count};
use super::{SqlCatalog, after, before, from_json, one_more, page, to_json};
use crate::{Agent, Fleet, NextSequences, NodeLosses, Page, Recorded, Result, Run, RunFilter, Topic, limits};

/// What a node sends, each kind with its own numbers.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum BatchKind {
    Accesses = 0,
    Outcomes = 1,
}

/// What a batch adds to its node's account.
#[derive(Default)]
pub(super) struct Credit {
    accesses: u64,
    losses: Losses,
}

pub(super) fn site_of(row: &Row, column: usize) -> Result<SiteId> {
    let name = row.text(column)?;
    SiteId::new(&name).map_err(|e| damaged("site", &name, e))
}

pub(super) fn node_of(row: &Row, column: usize) -> Result<NodeId> {
    let name = row.text(column)?;
    NodeId::new(&name).map_err(|e| damaged("node", &name, e))
}

impl Tx {
    /// Whether this batch is new; it is not the next time. Its account is credited if it is.
    pub(super) async fn comes_first(
        &mut self,
        node: &NodeId,
        kind: BatchKind,
        sequence: u64,
        credit: &Credit,
    ) -> Result<bool> {
        let (kind, number) = (kind as i64, after(sequence));
        let sql = "INSERT INTO accounts (node, kind, first, last, floor, batches, accesses, dropped_events, unresolved,
            summarised) VALUES ($1, $2, $3, $3, 0, 0, 0, 0, 0, 0) ON CONFLICT (node, kind) DO NOTHING";
        self.run(sql, args![node.as_str(), kind, number]).await?;
        let sql = "INSERT INTO sequences (node, kind, sequence) SELECT node, kind, $3 FROM accounts
            WHERE node = $1 AND kind = $2 AND floor <= $3 ON CONFLICT DO NOTHING";
        if self.run(sql, args![node.as_str(), kind, number]).await? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE accounts SET batches = batches + 1, first = CASE WHEN $3 < first THEN $3 ELSE first END,
            last = CASE WHEN $3 > last THEN $3 ELSE last END, accesses = accesses + $4,
            dropped_events = dropped_events + $5, unresolved = unresolved + $6, summarised = summarised + $7
            WHERE node = $1 AND kind = $2 RETURNING batches";
        let values = [
            Arg::from(node.as_str()),
            kind.into(),
            number.into(),
            count(credit.accesses),
            count(credit.losses.dropped_events),
            count(credit.losses.unresolved),
            count(credit.losses.summarised),
        ];
        let batches = self.row(sql, &values).await?.map_or(Ok(0), |r| r.int(0))?;
        if batches % super::PRUNE_EVERY_ROWS == 0 {
            self.forget_sequences(node, kind).await?;
        }
        Ok(true)
    }

    /// Everything below the newest [`limits::BATCHES_PER_NODE`] counts as come.
    async fn forget_sequences(&mut self, node: &NodeId, kind: i64) -> Result<()> {
        let sql =
            "SELECT sequence FROM sequences WHERE node = $1 AND kind = $2 ORDER BY sequence DESC LIMIT 1 OFFSET $3";
        let oldest = self.row(sql, args![node.as_str(), kind, limits::BATCHES_PER_NODE as i64]).await?;
        let Some(floor) = oldest.map(|r| r.int(0)).transpose()? else { return Ok(()) };
        let sql = "UPDATE accounts SET floor = $3 WHERE node = $1 AND kind = $2";
        self.run(sql, args![node.as_str(), kind, floor + 1]).await?;
        let sql = "DELETE FROM sequences WHERE node = $1 AND kind = $2 AND sequence <= $3";
        self.run(sql, args![node.as_str(), kind, floor]).await.map(drop)
    }

    async fn record_batch(&mut self, batch: &AccessBatch, lake_file: &str, at: Timestamp) -> Result<bool> {
        let credit = Credit { accesses: batch.accesses.len() as u64, losses: batch.losses };
        if !self.comes_first(&batch.node, BatchKind::Accesses, batch.sequence, &credit).await? {
            return Ok(false);
        }
        let number = self.take_numbers("lake_files", 1).await?;
        let sql = "INSERT INTO lake_files (number, at, name) VALUES ($1, $2, $3)";
        self.run(sql, args![number, at, lake_file]).await?;
        self.prune("lake_files", "number", number, 1, limits::LAKE_FILES).await?;
        for start in &batch.started {
            self.start_run(start).await?;
        }
        for end in &batch.ended {
            self.end_run(end).await?;
        }
        Ok(true)
    }

    async fn start_run(&mut self, start: &RunStart) -> Result<()> {
        let number = self.take_numbers("runs", 1).await?;
        let sql =
            "INSERT INTO runs (run, number, workload, site, at, command, node) VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (run) DO NOTHING";
        let (site, node) = (start.site.as_str(), start.node.as_str());
        let values = args![start.run.as_str(), number, start.workload.as_str(), site, start.at, &start.command, node];
        self.run(sql, values).await?;
        self.prune("runs", "number", number, 1, limits::RUNS).await
    }

    async fn end_run(&mut self, end: &RunEnd) -> Result<()> {
        let number = self.take_numbers("run_ends", 1).await?;
        let sql = "INSERT INTO run_ends (run, number, at) VALUES ($1, $2, $3) ON CONFLICT (run) DO NOTHING";
        self.run(sql, args![end.run.as_str(), number, end.at]).await?;
        self.prune("run_ends", "number", number, 1, limits::RUNS).await
    }
}

fn run_of(row: &Row) -> Result<Run> {
    let start = RunStart {
        run: RunId::from(row.text(1)?),
        workload: WorkloadId::from(row.text(2)?),
        site: site_of(row, 3)?,
        at: Timestamp(row.int(4)?),
        command: row.text(5)?,
        node: node_of(row, 6)?,
        numbers: Vec::new(),
    };
    Ok(Run { start, ended_at: row.maybe_int(7)?.map(Timestamp) })
}

#[async_trait]
impl Fleet for SqlCatalog {
    async fn put_agent(&self, agent: &Agent) -> Result<()> {
        let mut tx = self.engine.write().await?;
        let before = tx.row("SELECT body FROM agents WHERE node = $1", args![agent.node.as_str()]).await?;
        let before: Option<Agent> = before.map(|row| from_json("agent", &row.text(0)?)).transpose()?;
        let sql = "INSERT INTO agents (node, seen_at, body) VALUES ($1, $2, $3)
            ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at, body = excluded.body";
        tx.run(sql, args![agent.node.as_str(), agent.seen_at, &to_json(agent)]).await?;
        let sql = "DELETE FROM agents WHERE node IN (SELECT node FROM agents ORDER BY seen_at DESC LIMIT 1 OFFSET $1)";
        tx.run(sql, args![limits::AGENTS as i64]).await?;
        self.commit(tx, agent.topics(before.as_ref())).await
    }

    async fn agents(&self) -> Result<Vec<Agent>> {
        let rows = self.engine.rows("SELECT body FROM agents ORDER BY node", args![]).await?;
        rows.iter().map(|row| from_json("agent", &row.text(0)?)).collect()
    }

    async fn next_sequences(&self, node: &NodeId) -> Result<NextSequences> {
        let mut next = NextSequences::default();
        let sql = "SELECT kind, last FROM accounts WHERE node = $1";
        for row in self.engine.rows(sql, args![node.as_str()]).await? {
            let number = row.count(1)? + 1;
            match row.int(0)? == BatchKind::Accesses as i64 {
                true => next.accesses = number,
                false => next.outcomes = number,
            }
        }
        Ok(next)
    }

    async fn record_batch(&self, batch: &AccessBatch, lake_file: &str, at: Timestamp) -> Result<Recorded> {
        let mut tx = self.engine.write().await?;
        let new = tx.record_batch(batch, lake_file, at).await?;
        if new {
            self.commit(tx, &[Topic::Fleet]).await?;
        }
        Ok(Recorded { new })
    }

    async fn lake_files(&self, from: Timestamp, cursor: Option<u64>) -> Result<Page<String>> {
        let sql = "SELECT number, name FROM lake_files WHERE number > $1 AND at >= $2 ORDER BY number LIMIT $3";
        let values = args![after(cursor.unwrap_or(0)), from, one_more(limits::PAGE_ITEMS)];
        page(self.engine.rows(sql, values).await?, limits::PAGE_ITEMS, |row| row.text(1))
    }

    async fn runs(&self, filter: &RunFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Run>> {
        let mut runs = Statement::new(
            "SELECT r.number, r.run, r.workload, r.site, r.at, r.command, r.node, e.at FROM runs r
            LEFT JOIN run_ends e ON e.run = r.run",
        );
        runs.add(" WHERE r.number < ?", &[before(cursor).into()]);
        runs.add_if(" AND r.run = ?", filter.run.as_ref().map(RunId::as_str));
        runs.add_if(" AND r.workload = ?", filter.workload.as_ref().map(WorkloadId::as_str));
        runs.add_if(" AND r.site = ?", filter.site.as_ref().map(SiteId::as_str));
        runs.add_if(" AND r.at >= ?", filter.started_from);
        if filter.running {
            runs.add(" AND e.at IS NULL", &[]);
        }
        runs.add(" ORDER BY r.number DESC LIMIT ?", &[one_more(limit).into()]);
        page(self.engine.ask(&runs).await?, limit, run_of)
    }

    async fn losses(&self) -> Result<Vec<NodeLosses>> {
        let sql = "SELECT node, batches, last - first + 1 - batches, accesses, dropped_events, unresolved, summarised
            FROM accounts WHERE kind = 0 ORDER BY node";
        let rows = self.engine.rows(sql, args![]).await?;
        let account = |row: &Row| {
            Ok(NodeLosses {
                node: node_of(row, 0)?,
                batches: row.count(1)?,
                missing_batches: row.count(2)?,
                accesses: row.count(3)?,
                losses: Losses { dropped_events: row.count(4)?, unresolved: row.count(5)?, summarised: row.count(6)? },
            })
        };
        rows.iter().map(account).collect()
    }
}
