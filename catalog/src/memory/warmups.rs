//! Warm-ups.

use std::collections::BTreeMap;

use async_trait::async_trait;
use foretide_flow::{SiteId, Timestamp, Warmup, WarmupId, WarmupState};

use super::{InMemory, State, page};
use crate::progress::{self, MoveEnd};
use crate::warmups::check_new;
use crate::{CatalogError, Page, Result, Topic, WarmupFilter, WarmupTaken, WarmupUpdate, Warmups, limits};

/// What was asked for.
#[derive(Default)]
pub(super) struct Asked {
    warmups: BTreeMap<WarmupId, (u64, Warmup)>,
    keys: BTreeMap<String, ([u8; 32], WarmupId)>,
}

impl Asked {
    pub(super) fn site(&self, id: &WarmupId) -> Option<&SiteId> {
        self.warmups.get(id).map(|(_, w)| &w.request.site)
    }

    pub(super) fn step(&mut self, id: &WarmupId, to: WarmupState) {
        if let Some((_, warmup)) = self.warmups.get_mut(id)
            && let Some(next) = progress::step(warmup, to)
        {
            *warmup = next;
        }
    }

    pub(super) fn move_ended(&mut self, id: &WarmupId, end: MoveEnd) {
        if let Some((_, warmup)) = self.warmups.get_mut(id) {
            *warmup = progress::moves_ended(warmup, &[end]);
        }
    }

    pub(super) fn settle(&mut self, id: &WarmupId, counted_bytes: Option<u64>, at: Timestamp) {
        if let Some((_, warmup)) = self.warmups.get_mut(id) {
            *warmup = progress::settle(warmup, counted_bytes, at);
        }
    }

    /// Forgets the oldest that are over, beyond the bound.
    fn prune(&mut self) {
        let mut over: Vec<_> = self.warmups.values().filter(|w| w.1.state.is_over()).collect();
        let surplus = over.len().saturating_sub(limits::ENDED_WARMUPS);
        over.sort_by_key(|w| w.0);
        let oldest: Vec<_> = over.into_iter().take(surplus).map(|w| w.1.id.clone()).collect();
        oldest.iter().for_each(|id| drop(self.warmups.remove(id)));
        self.keys.retain(|_, (_, id)| !oldest.contains(id));
    }
}

impl State {
    fn put_warmup(&mut self, warmup: &Warmup, key: Option<(&str, [u8; 32])>) -> Result<WarmupTaken> {
        if let Some((key, hash)) = key
            && let Some((known, id)) = self.warmups.keys.get(key)
        {
            let kept = self.warmups.warmups.get(id).filter(|_| *known == hash);
            let warmup = kept.ok_or_else(|| CatalogError::KeyReused { key: key.to_owned() })?.1.clone();
            return Ok(WarmupTaken { warmup, new: false });
        }
        let active = self.warmups.warmups.values().filter(|w| !w.1.state.is_over()).count();
        check_new(warmup, self.warmups.warmups.contains_key(&warmup.id), active)?;
        let number = self.number();
        self.warmups.warmups.insert(warmup.id.clone(), (number, warmup.clone()));
        if let Some((key, hash)) = key {
            self.warmups.keys.insert(key.to_owned(), (hash, warmup.id.clone()));
        }
        Ok(WarmupTaken { warmup: warmup.clone(), new: true })
    }

    fn update_warmup(&mut self, id: &WarmupId, update: &WarmupUpdate, at: Timestamp) -> Result<Warmup> {
        let counted = self.outcomes.counted(id).map(|c| c.1);
        let (_, warmup) = self.warmups.warmups.get_mut(id).ok_or_else(|| CatalogError::not_found("warm-up", id))?;
        let next = progress::update(warmup, update, counted, at).map_err(|why| CatalogError::Refused {
            what: "warm-up",
            name: id.to_string(),
            why,
        })?;
        *warmup = next.clone();
        self.warmups.prune();
        Ok(next)
    }
}

#[async_trait]
impl Warmups for InMemory {
    async fn put_warmup(&self, warmup: &Warmup, key: Option<(&str, [u8; 32])>) -> Result<WarmupTaken> {
        let taken = self.state().put_warmup(warmup, key)?;
        self.tell(&[Topic::Warmups]);
        Ok(taken)
    }

    async fn warmup(&self, id: &WarmupId) -> Result<Option<Warmup>> {
        Ok(self.state().warmups.warmups.get(id).map(|w| w.1.clone()))
    }

    async fn warmups(&self, filter: &WarmupFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Warmup>> {
        let state = self.state();
        let wanted = state.warmups.warmups.values().filter(|(_, w)| {
            filter.site.as_ref().is_none_or(|s| *s == w.request.site)
                && (filter.states.is_empty() || filter.states.contains(&w.state))
        });
        Ok(page(wanted.cloned(), cursor, limit))
    }

    async fn update_warmup(&self, id: &WarmupId, update: &WarmupUpdate, at: Timestamp) -> Result<Warmup> {
        let warmup = self.state().update_warmup(id, update, at)?;
        self.tell(&[Topic::Warmups]);
        Ok(warmup)
    }
}
