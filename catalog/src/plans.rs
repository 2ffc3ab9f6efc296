//! What is to be moved, and how far it is.

use std::collections::HashSet;

use async_trait::async_trait;
use foretide_flow::{Move, MoveId, MoveState, Plan, PlanId, SiteId, Timestamp, VolumeId, WarmupId, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::{CatalogError, Page, Result};

/// What a plan changed against the moves that were planned or running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChange {
    /// Moves that are new, or wanted again.
    pub added: u64,
    /// Moves that stay but differ.
    pub changed: u64,
    /// Moves that are no longer wanted.
    pub cancelled: u64,
}

/// A plan in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Its name.
    pub id: PlanId,
    /// When it was made.
    pub made_at: Timestamp,
    /// How far it looks.
    pub horizon: Timestamp,
    /// Its moves.
    pub moves: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What rules forbade.
    pub refused: u64,
    /// What did not fit.
    pub left_out: u64,
}

/// A move and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveRecord {
    /// The move, as the last plan that had it says.
    #[serde(rename = "move")]
    pub mv: Move,
    /// How far it is.
    pub state: MoveState,
    /// The plan that first had it as it is now.
    pub plan: PlanId,
    /// When it ended, by the agent's clock.
    pub ended_at: Option<Timestamp>,
    /// Bytes that crossed the link, once it is done.
    pub wire_bytes: Option<u64>,
    /// Why it failed.
    pub why: Option<String>,
}

/// Which moves are wanted. Absent conditions match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveFilter {
    /// Whence.
    pub from: Option<SiteId>,
    /// Whither.
    pub to: Option<SiteId>,
    /// Of this volume.
    pub volume: Option<VolumeId>,
    /// In one of these states; all if empty.
    pub states: Vec<MoveState>,
    /// Because of this warm-up.
    pub warmup: Option<WarmupId>,
    /// Because of a forecast of this workload.
    pub workload: Option<WorkloadId>,
    /// Due at or after this.
    pub due_from: Option<Timestamp>,
    /// Starting before this.
    pub start_before: Option<Timestamp>,
}

/// What changed for one site since a cursor: the moves' part of an [`Assignment`](foretide_flow::Assignment).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MoveChanges {
    /// Ask after this number next time.
    pub cursor: u64,
    /// To carry out, new or changed, oldest change first.
    pub run: Vec<Move>,
    /// To stop.
    pub cancel: Vec<MoveId>,
}

/// Plans and their moves.
///
/// A move's states: `Planned` when a plan first has it, `Running` once it was handed out, `Done` or `Failed` when
/// its outcome came, `Cancelled` when a plan no longer has it. A plan made after a move ended may want it again,
/// and it is `Planned` anew; a plan made before cannot.
#[async_trait]
pub trait Plans: Send + Sync {
    /// Writes a plan down: its moves are upserted by id, planned and running moves that it no longer has are
    /// cancelled, its refusals are kept as evidence, warm-ups that have moves in it become `Planned`. A plan whose
    /// id is known changes nothing.
    ///
    /// # Errors
    /// `Refused` if a move is in it twice.
    async fn put_plan(&self, plan: &Plan) -> Result<PlanChange>;

    /// The last plan put.
    async fn latest_plan(&self) -> Result<Option<Plan>>;

    /// One plan, while it is kept.
    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>>;

    /// Plans, newest first.
    async fn plans(&self, cursor: Option<u64>, limit: usize) -> Result<Page<PlanSummary>>;

    /// One move.
    async fn a_move(&self, id: &MoveId) -> Result<Option<MoveRecord>>;

    /// Moves, those first planned last first.
    async fn moves(&self, filter: &MoveFilter, cursor: Option<u64>, limit: usize) -> Result<Page<MoveRecord>>;

    /// The moves that were handed out and have not ended, those first planned first.
    async fn running(&self) -> Result<Vec<MoveId>>;

    /// Moves to `site` that changed after `cursor`; from 0, all that are planned or running. What it hands out
    /// becomes `Running`. At most [`MOVES_PER_ASSIGNMENT`](crate::limits::MOVES_PER_ASSIGNMENT): ask again with the
    /// new cursor for the rest. It does not wait: see [`Topic::Plans`](crate::Topic::Plans).
    async fn assignment_since(&self, site: &SiteId, cursor: u64) -> Result<MoveChanges>;
}

/// Whether each move is in the plan once.
pub(crate) fn check_plan(plan: &Plan) -> Result<()> {
    let mut ids = HashSet::with_capacity(plan.moves.len());
    match plan.moves.iter().find(|m| !ids.insert(&m.id)) {
        Some(twice) => Err(CatalogError::Refused {
            what: "plan",
            name: plan.id.to_string(),
            why: format!("move {} is in it twice", twice.id),
        }),
        None => Ok(()),
    }
}

/// A plan in one line.
pub(crate) fn summary(plan: &Plan) -> PlanSummary {
    PlanSummary {
        id: plan.id.clone(),
        made_at: plan.made_at,
        horizon: plan.horizon,
        moves: plan.moves.len() as u64,
        bytes: plan.moves.iter().map(|m| m.length).sum(),
        refused: plan.refused.len() as u64,
        left_out: plan.left_out.len() as u64,
    }
}

impl MoveRecord {
    /// As a plan wants it, nothing done yet.
    pub(crate) fn planned(mv: &Move, plan: &PlanId) -> Self {
        let (state, plan) = (MoveState::Planned, plan.clone());
        Self { mv: mv.clone(), state, plan, ended_at: None, wire_bytes: None, why: None }
    }
}
