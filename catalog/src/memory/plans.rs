//! Plans and moves.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use foretide_flow::{MoveCause, MoveId, MoveState, Plan, PlanId, SiteId, Timestamp, WarmupState};

use super::{InMemory, State, page};
use crate::plans::{check_plan, summary};
use crate::progress::{is_active, may_revive};
use crate::{MoveChanges, MoveFilter, MoveRecord, Page, PlanChange, PlanSummary, Plans, Result, Topic, limits};

/// What is to be moved.
#[derive(Default)]
pub(super) struct Moves {
    plans: BTreeMap<u64, Plan>,
    pub(super) moves: BTreeMap<MoveId, Row>,
    /// Counts what agents must be told.
    last_change: u64,
}

#[derive(Clone)]
pub(super) struct Row {
    number: u64,
    change: u64,
    pub(super) end_recorded_at: Timestamp,
    pub(super) record: MoveRecord,
}

impl Moves {
    fn change(&mut self) -> u64 {
        self.last_change += 1;
        self.last_change
    }

    /// Forgets the moves that ended first, beyond the bound.
    pub(super) fn prune(&mut self) {
        let mut ended: Vec<_> = self.moves.iter().filter(|(_, r)| !is_active(r.record.state)).collect();
        let surplus = ended.len().saturating_sub(limits::ENDED_MOVES);
        ended.sort_by_key(|(_, r)| (r.end_recorded_at, r.number));
        let oldest: Vec<_> = ended.into_iter().take(surplus).map(|(id, _)| id.clone()).collect();
        oldest.iter().for_each(|id| drop(self.moves.remove(id)));
    }
}

impl State {
    fn put_plan(&mut self, plan: &Plan) -> PlanChange {
        let mut changed = PlanChange::default();
        if self.plans.plans.values().any(|p| p.id == plan.id) {
            return changed;
        }
        for mv in &plan.moves {
            let record = MoveRecord::planned(mv, &plan.id);
            let known = self.plans.moves.get(&mv.id).cloned();
            let (number, state) = match known {
                None => (self.number(), MoveState::Planned),
                Some(r) if is_active(r.record.state) && r.record.mv == *mv => continue,
                Some(r) if is_active(r.record.state) => (r.number, r.record.state),
                Some(r) if may_revive(r.record.state, r.end_recorded_at, plan.made_at) => {
                    (r.number, MoveState::Planned)
                }
                Some(_) => continue,
            };
            let stays = self.plans.moves.get(&mv.id).is_some_and(|r| is_active(r.record.state));
            *(if stays { &mut changed.changed } else { &mut changed.added }) += 1;
            let change = self.plans.change();
            let record = MoveRecord { state, ..record };
            self.plans.moves.insert(mv.id.clone(), Row { number, change, end_recorded_at: Timestamp(0), record });
        }
        let wanted: BTreeSet<_> = plan.moves.iter().map(|m| &m.id).collect();
        let mut dropped: Vec<_> = self
            .plans
            .moves
            .values()
            .filter(|r| is_active(r.record.state) && !wanted.contains(&r.record.mv.id))
            .map(|r| (r.number, r.record.mv.id.clone()))
            .collect();
        dropped.sort();
        for (_, id) in dropped {
            let change = self.plans.change();
            if let Some(row) = self.plans.moves.get_mut(&id) {
                row.record.state = MoveState::Cancelled;
                row.record.ended_at = Some(plan.made_at);
                row.end_recorded_at = plan.made_at;
                row.change = change;
                changed.cancelled += 1;
            }
        }
        for mv in &plan.moves {
            if let MoveCause::Warmup { warmup } = &mv.cause {
                self.warmups.step(warmup, WarmupState::Planned);
            }
        }
        plan.refused.iter().for_each(|r| self.refuse(r));
        let number = self.number();
        self.plans.plans.insert(number, plan.clone());
        while self.plans.plans.len() > limits::PLANS {
            self.plans.plans.pop_first();
        }
        self.plans.prune();
        changed
    }

    fn assignment_since(&mut self, site: &SiteId, cursor: u64) -> MoveChanges {
        let last = self.plans.last_change;
        let mut rows: Vec<_> =
            self.plans.moves.values_mut().filter(|r| r.record.mv.to == *site && r.change > cursor).collect();
        rows.retain(|r| is_active(r.record.state) || (cursor > 0 && r.record.state == MoveState::Cancelled));
        rows.sort_by_key(|r| r.change);
        let more = rows.len() > limits::MOVES_PER_ASSIGNMENT;
        rows.truncate(limits::MOVES_PER_ASSIGNMENT);
        let cursor = if more { rows.last().map_or(last, |r| r.change) } else { last };
        let mut changes = MoveChanges { cursor, ..MoveChanges::default() };
        for row in rows {
            if is_active(row.record.state) {
                row.record.state = MoveState::Running;
                changes.run.push(row.record.mv.clone());
            } else {
                changes.cancel.push(row.record.mv.id.clone());
            }
        }
        changes
    }
}

#[async_trait]
impl Plans for InMemory {
    async fn put_plan(&self, plan: &Plan) -> Result<PlanChange> {
        check_plan(plan)?;
        let changed = self.state().put_plan(plan);
        self.tell(&[Topic::Plans, Topic::Warmups]);
        Ok(changed)
    }

    async fn latest_plan(&self) -> Result<Option<Plan>> {
        Ok(self.state().plans.plans.values().next_back().cloned())
    }

    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>> {
        Ok(self.state().plans.plans.values().find(|p| p.id == *id).cloned())
    }

    async fn plans(&self, cursor: Option<u64>, limit: usize) -> Result<Page<PlanSummary>> {
        Ok(page(self.state().plans.plans.iter().map(|(n, p)| (*n, summary(p))), cursor, limit))
    }

    async fn a_move(&self, id: &MoveId) -> Result<Option<MoveRecord>> {
        Ok(self.state().plans.moves.get(id).map(|r| r.record.clone()))
    }

    async fn moves(&self, filter: &MoveFilter, cursor: Option<u64>, limit: usize) -> Result<Page<MoveRecord>> {
        let state = self.state();
        let wanted = state.plans.moves.values().filter(|r| {
            let (mv, cause) = (&r.record.mv, &r.record.mv.cause);
            filter.from.as_ref().is_none_or(|s| *s == mv.from)
                && filter.to.as_ref().is_none_or(|s| *s == mv.to)
                && filter.volume.as_ref().is_none_or(|v| *v == mv.volume)
                && (filter.states.is_empty() || filter.states.contains(&r.record.state))
                && filter.warmup.as_ref().is_none_or(|w| matches!(cause, MoveCause::Warmup { warmup } if warmup == w))
                && filter
                    .workload
                    .as_ref()
                    .is_none_or(|w| matches!(cause, MoveCause::Forecast { workload, .. } if workload == w))
                && filter.due_from.is_none_or(|from| mv.due_at >= from)
                && filter.start_before.is_none_or(|before| mv.start_at < before)
        });
        Ok(page(wanted.map(|r| (r.number, r.record.clone())), cursor, limit))
    }

    async fn running(&self) -> Result<Vec<MoveId>> {
        let state = self.state();
        let mut running: Vec<_> =
            state.plans.moves.iter().filter(|(_, r)| r.record.state == MoveState::Running).collect();
        running.sort_by_key(|(_, r)| r.number);
        Ok(running.into_iter().map(|(id, _)| id.clone()).collect())
    }

    async fn assignment_since(&self, site: &SiteId, cursor: u64) -> Result<MoveChanges> {
        Ok(self.state().assignment_since(site, cursor))
    }
}
