//! Plans and moves.
//!
//! A plan comes many times a second and differs little from the one before, so only the moves that differ are
//! written: each move's row carries a digest of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use foretide_flow::{Move, MoveCause, MoveId, MoveState, Plan, PlanId, SiteId, Timestamp, VolumeId, WarmupState};

use super::engine::{Row, Tx, damaged};
use super::text::{Arg, Statement, args, count};
use super::words::{ACTIVE_MOVES, move_state, move_state_number};
use super::{MOVE_CHANGES, SqlCatalog, after, before, from_json, one_more, page, to_json};
use crate::codec::{decode, encode};
use crate::plans::{check_plan, summary};
use crate::progress::{is_active, may_revive};
use crate::{MoveChanges, MoveFilter, MoveRecord, Page, PlanChange, PlanSummary, Plans, Result, Topic, limits};

const RECORD: &str = "m.number, m.body, m.state, m.plan, m.ended_at, m.wire_bytes, m.why";

fn record_of(row: &Row) -> Result<MoveRecord> {
    Ok(MoveRecord {
        mv: from_json("move", &row.text(1)?)?,
        state: state_of(row, 2)?,
        plan: PlanId::from(row.text(3)?),
        ended_at: row.maybe_int(4)?.map(Timestamp),
        wire_bytes: row.maybe_int(5)?.map(|n| n.max(0) as u64),
        why: row.maybe_text(6)?,
    })
}

pub(super) fn state_of(row: &Row, column: usize) -> Result<MoveState> {
    let number = row.int(column)?;
    move_state(number).ok_or_else(|| damaged("move state", number, "it is unknown"))
}

/// A move as it is known.
struct Known {
    number: i64,
    state: MoveState,
    end_recorded_at: Timestamp,
    digest: Vec<u8>,
}

/// A move as it is to be written.
struct Written<'a> {
    mv: &'a Move,
    body: String,
    digest: Vec<u8>,
    state: MoveState,
}

impl<'a> Written<'a> {
    fn new(mv: &'a Move) -> Self {
        let body = to_json(mv);
        let digest = blake3::hash(body.as_bytes()).as_bytes()[..16].to_vec();
        Self { mv, body, digest, state: MoveState::Planned }
    }

    fn row(&self, number: i64, change: i64, plan: &'a PlanId) -> Vec<Arg<'_>> {
        let mv = self.mv;
        vec![
            mv.id.as_str().into(),
            number.into(),
            change.into(),
            move_state_number(self.state).into(),
            plan.as_str().into(),
            mv.from.as_str().into(),
            mv.to.as_str().into(),
            mv.volume.as_str().into(),
            mv.start_at.into(),
            mv.due_at.into(),
            warmup_of(&mv.cause).into(),
            workload_of(&mv.cause).into(),
            (&self.digest).into(),
            (&self.body).into(),
        ]
    }
}

/// What a plan does to a move that may be known.
#[derive(PartialEq)]
enum Does {
    Nothing,
    Add,
    Revive,
    Change,
}

fn does(written: &Written<'_>, known: Option<&Known>, plan_made_at: Timestamp) -> Does {
    match known {
        None => Does::Add,
        Some(k) if is_active(k.state) && k.digest == written.digest => Does::Nothing,
        Some(k) if is_active(k.state) => Does::Change,
        Some(k) if may_revive(k.state, k.end_recorded_at, plan_made_at) => Does::Revive,
        Some(_) => Does::Nothing,
    }
}

impl Tx {
    /// The moves that a plan may concern: those it has, and all that are planned or running.
    async fn known_moves(&mut self, plan: &Plan) -> Result<HashMap<MoveId, Known>> {
        const COLUMNS: &str = "SELECT id, number, state, end_recorded_at, digest FROM moves WHERE";
        let mut rows = self.rows(&format!("{COLUMNS} state IN {ACTIVE_MOVES}"), args![]).await?;
        let mut known = HashMap::new();
        take_known(&mut known, &rows)?;
        let others: Vec<_> =
            plan.moves.iter().filter(|m| !known.contains_key(&m.id)).map(|m| Arg::from(m.id.as_str())).collect();
        rows = self.rows_in(&format!("{COLUMNS} id"), &[], &others).await?;
        take_known(&mut known, &rows)?;
        Ok(known)
    }

    async fn put_plan(&mut self, plan: &Plan) -> Result<PlanChange> {
        let mut changed = PlanChange::default();
        self.hold(super::HAPPENING).await?;
        if !self.put_plan_row(plan).await? {
            return Ok(changed);
        }
        let known = self.known_moves(plan).await?;
        let mut writes = Vec::new();
        for mv in &plan.moves {
            let mut written = Written::new(mv);
            let before = known.get(&mv.id);
            let does = does(&written, before, plan.made_at);
            match does {
                Does::Nothing => continue,
                Does::Add | Does::Revive => changed.added += 1,
                Does::Change => {
                    changed.changed += 1;
                    written.state = before.map_or(MoveState::Planned, |k| k.state);
                }
            }
            writes.push(written);
        }
        self.write_moves(&writes, &plan.id).await?;
        changed.cancelled = self.cancel_others(plan, &known).await?;
        let warmups: BTreeSet<_> = plan.moves.iter().filter_map(|m| warmup_of(&m.cause)).collect();
        for warmup in warmups {
            self.step_warmup(&warmup.into(), WarmupState::Planned).await?;
        }
        for refusal in &plan.refused {
            self.refuse(refusal).await?;
        }
        Ok(changed)
    }

    /// Whether the plan is new.
    async fn put_plan_row(&mut self, plan: &Plan) -> Result<bool> {
        let number = self.take_numbers("plans", 1).await?;
        let (short, body) = (summary(plan), encode(plan));
        let sql = "INSERT INTO plans (id, number, made_at, horizon, moves, bytes, refused, left_out, body)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING";
        let values = [
            Arg::from(plan.id.as_str()),
            number.into(),
            plan.made_at.into(),
            plan.horizon.into(),
            count(short.moves),
            count(short.bytes),
            count(short.refused),
            count(short.left_out),
            (&body).into(),
        ];
        let new = self.run(sql, &values).await? == 1;
        // Plans are large: the bound is kept each time.
        let sql = "DELETE FROM plans WHERE number <= $1";
        self.run(sql, args![number - limits::PLANS as i64]).await?;
        Ok(new)
    }

    /// Writes moves, each new or in place of what it was; they are told to agents in this order.
    async fn write_moves(&mut self, writes: &[Written<'_>], plan: &PlanId) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let number = self.take_numbers("moves", writes.len()).await?;
        let change = self.take_numbers(MOVE_CHANGES, writes.len()).await?;
        let rows: Vec<_> = writes.iter().zip(0..).map(|(w, i)| w.row(number + i, change + i, plan)).collect();
        self.run_rows(
            "INSERT INTO moves (id, number, change, state, plan, from_site, to_site, volume, start_at, due_at, warmup,
            workload, digest, body) VALUES ",
            &rows,
            " ON CONFLICT (id) DO UPDATE SET change = excluded.change, state = excluded.state, plan = excluded.plan,
            from_site = excluded.from_site, to_site = excluded.to_site, volume = excluded.volume,
            start_at = excluded.start_at, due_at = excluded.due_at, warmup = excluded.warmup,
            workload = excluded.workload, digest = excluded.digest, body = excluded.body, ended_at = NULL,
            end_recorded_at = 0, wire_bytes = NULL, why = NULL",
        )
        .await
        .map(drop)
    }

    /// Cancels what was planned or running and is not in the plan; answers how many.
    async fn cancel_others(&mut self, plan: &Plan, known: &HashMap<MoveId, Known>) -> Result<u64> {
        let wanted: HashSet<_> = plan.moves.iter().map(|m| &m.id).collect();
        let dropped = known.iter().filter(|(id, k)| is_active(k.state) && !wanted.contains(id));
        let mut dropped: Vec<_> = dropped.map(|(id, k)| (k.number, id)).collect();
        if dropped.is_empty() {
            return Ok(0);
        }
        dropped.sort();
        let change = self.take_numbers(MOVE_CHANGES, dropped.len()).await?;
        let cancelled = Arg::from(move_state_number(MoveState::Cancelled));
        let mut rows = Vec::with_capacity(dropped.len());
        for ((_, id), i) in dropped.iter().zip(0..) {
            rows.push(vec![Arg::from(id.as_str()), cancelled, (change + i).into(), plan.made_at.into()]);
        }
        self.run_rows(
            "WITH cancelled (id, state, change, at) AS (VALUES ",
            &rows,
            ") UPDATE moves SET state = c.state, change = c.change, ended_at = c.at, end_recorded_at = c.at
            FROM cancelled c WHERE moves.id = c.id",
        )
        .await?;
        self.prune_moves().await?;
        Ok(dropped.len() as u64)
    }

    /// Forgets the moves that ended first, beyond the bound.
    pub(super) async fn prune_moves(&mut self) -> Result<()> {
        let sql = format!("SELECT COUNT(*) FROM moves WHERE state NOT IN {ACTIVE_MOVES}");
        let ended = self.row(&sql, args![]).await?.map_or(Ok(0), |r| r.int(0))?;
        let surplus = ended - limits::ENDED_MOVES as i64;
        if surplus < super::PRUNE_EVERY_ROWS {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM moves WHERE id IN (SELECT id FROM moves WHERE state NOT IN {ACTIVE_MOVES}
            ORDER BY end_recorded_at, number LIMIT $1)"
        );
        self.run(&sql, args![surplus]).await.map(drop)
    }

    async fn assignment_since(&mut self, site: &SiteId, cursor: u64) -> Result<MoveChanges> {
        self.hold(super::HAPPENING).await?;
        // The last number first: whatever commits after this has a higher one, and is for the next call.
        let last = self.last_number(MOVE_CHANGES).await?;
        let cancelled = move_state_number(MoveState::Cancelled);
        let states = if cursor > 0 { "(0, 1, 4)" } else { ACTIVE_MOVES };
        let sql = format!(
            "SELECT change, id, state, body FROM moves WHERE to_site = $1 AND change > $2 AND change <= $3
            AND state IN {states} ORDER BY change LIMIT $4"
        );
        let limit = limits::MOVES_PER_ASSIGNMENT;
        let rows = self.rows(&sql, args![site.as_str(), after(cursor), last, limit as i64 + 1]).await?;
        let shown = &rows[..limit.min(rows.len())];
        let to = match shown.last() {
            Some(row) if rows.len() > limit => row.int(0)?,
            _ => last,
        };
        let mut changes = MoveChanges { cursor: to.max(0) as u64, ..MoveChanges::default() };
        let mut any_planned = false;
        for row in shown {
            let state = row.int(2)?;
            if state == cancelled {
                changes.cancel.push(MoveId::from(row.text(1)?));
            } else {
                any_planned |= state == move_state_number(MoveState::Planned);
                changes.run.push(from_json("move", &row.text(3)?)?);
            }
        }
        if any_planned {
            let sql = "UPDATE moves SET state = 1 WHERE to_site = $1 AND change > $2 AND change <= $3 AND state = 0";
            self.run(sql, args![site.as_str(), after(cursor), to]).await?;
        }
        Ok(changes)
    }
}

fn take_known(known: &mut HashMap<MoveId, Known>, rows: &[Row]) -> Result<()> {
    for row in rows {
        let state = Known {
            number: row.int(1)?,
            state: state_of(row, 2)?,
            end_recorded_at: Timestamp(row.int(3)?),
            digest: row.blob(4)?,
        };
        known.insert(MoveId::from(row.text(0)?), state);
    }
    Ok(())
}

pub(super) fn warmup_of(cause: &MoveCause) -> Option<&str> {
    match cause {
        MoveCause::Warmup { warmup } => Some(warmup.as_str()),
        MoveCause::Forecast { .. } => None,
    }
}

fn workload_of(cause: &MoveCause) -> Option<&str> {
    match cause {
        MoveCause::Forecast { workload, .. } => Some(workload.as_str()),
        MoveCause::Warmup { .. } => None,
    }
}

fn plan_of(row: &Row) -> Result<Plan> {
    decode(&row.blob(1)?).map_err(|e| damaged("plan", row.text(0).unwrap_or_default(), e))
}

#[async_trait]
impl Plans for SqlCatalog {
    async fn put_plan(&self, plan: &Plan) -> Result<PlanChange> {
        check_plan(plan)?;
        let mut tx = self.engine.write().await?;
        let changed = tx.put_plan(plan).await?;
        self.commit(tx, &[Topic::Plans, Topic::Warmups]).await?;
        Ok(changed)
    }

    async fn latest_plan(&self) -> Result<Option<Plan>> {
        let row = self.engine.row("SELECT id, body FROM plans ORDER BY number DESC LIMIT 1", args![]).await?;
        row.map(|row| plan_of(&row)).transpose()
    }

    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>> {
        let row = self.engine.row("SELECT id, body FROM plans WHERE id = $1", args![id.as_str()]).await?;
        row.map(|row| plan_of(&row)).transpose()
    }

    async fn plans(&self, cursor: Option<u64>, limit: usize) -> Result<Page<PlanSummary>> {
        let sql = "SELECT number, id, made_at, horizon, moves, bytes, refused, left_out FROM plans
            WHERE number < $1 ORDER BY number DESC LIMIT $2";
        let rows = self.engine.rows(sql, args![before(cursor), one_more(limit)]).await?;
        page(rows, limit, |row| {
            Ok(PlanSummary {
                id: PlanId::from(row.text(1)?),
                made_at: Timestamp(row.int(2)?),
                horizon: Timestamp(row.int(3)?),
                moves: row.count(4)?,
                bytes: row.count(5)?,
                refused: row.count(6)?,
                left_out: row.count(7)?,
            })
        })
    }

    async fn a_move(&self, id: &MoveId) -> Result<Option<MoveRecord>> {
        let row = self.engine.row(&format!("SELECT {RECORD} FROM moves m WHERE m.id = $1"), args![id.as_str()]).await?;
        row.map(|row| record_of(&row)).transpose()
    }

    async fn moves(&self, filter: &MoveFilter, cursor: Option<u64>, limit: usize) -> Result<Page<MoveRecord>> {
        let states: Vec<_> = filter.states.iter().map(|s| Arg::from(move_state_number(*s))).collect();
        let mut moves = Statement::new(&format!("SELECT {RECORD} FROM moves m"));
        moves.add(" WHERE m.number < ?", &[before(cursor).into()]);
        moves.add_if(" AND m.from_site = ?", filter.from.as_ref().map(SiteId::as_str));
        moves.add_if(" AND m.to_site = ?", filter.to.as_ref().map(SiteId::as_str));
        moves.add_if(" AND m.volume = ?", filter.volume.as_ref().map(VolumeId::as_str));
        moves.add_in(" AND m.state", &states);
        moves.add_if(" AND m.warmup = ?", filter.warmup.as_ref().map(|w| w.as_str()));
        moves.add_if(" AND m.workload = ?", filter.workload.as_ref().map(|w| w.as_str()));
        moves.add_if(" AND m.due_at >= ?", filter.due_from);
        moves.add_if(" AND m.start_at < ?", filter.start_before);
        moves.add(" ORDER BY m.number DESC LIMIT ?", &[one_more(limit).into()]);
        page(self.engine.ask(&moves).await?, limit, record_of)
    }

    async fn running(&self) -> Result<Vec<MoveId>> {
        let running = move_state_number(MoveState::Running);
        let rows = self.engine.rows("SELECT id FROM moves WHERE state = $1 ORDER BY number", args![running]).await?;
        rows.iter().map(|row| row.text(0).map(MoveId::from)).collect()
    }

    async fn assignment_since(&self, site: &SiteId, cursor: u64) -> Result<MoveChanges> {
        let mut tx = self.engine.write().await?;
        let changes = tx.assignment_since(site, cursor).await?;
        self.commit(tx, &[]).await?;
        Ok(changes)
    }
}
