//! Warm-ups. The value is one column; what lists ask for (site, state) stands beside it.

use async_trait::async_trait;
use foretide_flow::{SiteId, Timestamp, Warmup, WarmupId, WarmupState};

use super::engine::Tx;
use super::text::{Arg, Statement, args};
use super::words::{WARMUPS_OVER, warmup_state_number};
use super::{SqlCatalog, before, from_json, one_more, page, to_json};
use crate::progress::{self, MoveEnd};
use crate::warmups::check_new;
use crate::{CatalogError, Page, Result, Topic, WarmupFilter, WarmupTaken, WarmupUpdate, Warmups, limits};

impl Tx {
    /// A warm-up, held until this transaction ends so that what follows from it is not overtaken.
    pub(super) async fn held_warmup(&mut self, id: &WarmupId) -> Result<Option<Warmup>> {
        let hold = if self.skips_locked() { " FOR UPDATE" } else { "" };
        let row = self.row(&format!("SELECT body FROM warmups WHERE id = $1{hold}"), args![id.as_str()]).await?;
        row.map(|row| from_json("warm-up", &row.text(0)?)).transpose()
    }

    pub(super) async fn set_warmup(&mut self, warmup: &Warmup) -> Result<()> {
        let sql = "UPDATE warmups SET state = $2, body = $3 WHERE id = $1";
        let state = warmup_state_number(warmup.state);
        self.run(sql, args![warmup.id.as_str(), state, &to_json(warmup)]).await.map(drop)
    }

    /// Writes down how moves for it ended.
    pub(super) async fn moves_ended_for(&mut self, id: &WarmupId, ends: &[MoveEnd]) -> Result<()> {
        let Some(warmup) = self.held_warmup(id).await? else { return Ok(()) };
        let next = progress::moves_ended(&warmup, ends);
        if next != warmup { self.set_warmup(&next).await } else { Ok(()) }
    }

    pub(super) async fn step_warmup(&mut self, id: &WarmupId, to: WarmupState) -> Result<()> {
        let Some(warmup) = self.held_warmup(id).await? else { return Ok(()) };
        match progress::step(&warmup, to) {
            Some(next) => self.set_warmup(&next).await,
            None => Ok(()),
        }
    }

    /// Files and bytes that the store of its site counted; of several nodes, the fullest.
    pub(super) async fn counted(&mut self, id: &WarmupId) -> Result<Option<(u64, u64)>> {
        let sql = "SELECT files, bytes FROM census WHERE warmup = $1 ORDER BY bytes DESC, files DESC LIMIT 1";
        let row = self.row(sql, args![id.as_str()]).await?;
        row.map(|row| Ok((row.count(0)?, row.count(1)?))).transpose()
    }

    async fn put_warmup(&mut self, warmup: &Warmup, key: Option<(&str, [u8; 32])>) -> Result<WarmupTaken> {
        // Drawn first: it holds the list, so that two requests under one key come one after the other.
        let number = self.take_numbers("warmups", 1).await?;
        if let Some((key, hash)) = key {
            let sql = "SELECT body, body_hash FROM warmups WHERE idempotency_key = $1";
            if let Some(row) = self.row(sql, args![key]).await? {
                if row.blob(1)? != hash {
                    return Err(CatalogError::KeyReused { key: key.to_owned() });
                }
                return Ok(WarmupTaken { warmup: from_json("warm-up", &row.text(0)?)?, new: false });
            }
        }
        let taken = self.held_warmup(&warmup.id).await?.is_some();
        let active = self.active_warmups(1).await? - 1;
        check_new(warmup, taken, active as usize)?;
        let sql = "INSERT INTO warmups (id, number, site, state, body, idempotency_key, body_hash)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let (hash, body) = (key.as_ref().map(|(_, hash)| hash.as_slice()), to_json(warmup));
        let values = args![
            warmup.id.as_str(),
            number,
            warmup.request.site.as_str(),
            warmup_state_number(warmup.state),
            &body,
            key.map(|(key, _)| key),
            Arg::Blob(hash),
        ];
        self.run(sql, values).await?;
        self.prune_warmups(number).await?;
        Ok(WarmupTaken { warmup: warmup.clone(), new: true })
    }

    /// How many are not over, once `change` has come to it. To count them for each new one would take as long as all
    /// the rest; so they are counted once, before the change is made, and the number is kept.
    async fn active_warmups(&mut self, change: i64) -> Result<i64> {
        const ACTIVE: &str = "warmups_active";
        let sql = "UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING value";
        if let Some(row) = self.row(sql, args![ACTIVE, change]).await? {
            return row.int(0);
        }
        let sql = format!("SELECT COUNT(*) FROM warmups WHERE state NOT IN {WARMUPS_OVER}");
        let active = self.row(&sql, args![]).await?.map_or(Ok(0), |r| r.int(0))? + change;
        self.run("INSERT INTO counters (name, value) VALUES ($1, $2)", args![ACTIVE, active]).await?;
        Ok(active)
    }

    /// Forgets the oldest that are over, beyond the bound, now and then.
    async fn prune_warmups(&mut self, number: i64) -> Result<()> {
        if number % super::PRUNE_EVERY_ROWS != 0 {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM warmups WHERE state IN {WARMUPS_OVER} AND number <= (SELECT number FROM warmups
            WHERE state IN {WARMUPS_OVER} ORDER BY number DESC LIMIT 1 OFFSET $1)"
        );
        self.run(&sql, args![limits::ENDED_WARMUPS as i64]).await?;
        let sql = "DELETE FROM census WHERE NOT EXISTS (SELECT 1 FROM warmups w WHERE w.id = census.warmup)";
        self.run(sql, args![]).await.map(drop)
    }

    async fn update_warmup(&mut self, id: &WarmupId, update: &WarmupUpdate, at: Timestamp) -> Result<Warmup> {
        let warmup = self.held_warmup(id).await?.ok_or_else(|| CatalogError::not_found("warm-up", id))?;
        let counted = self.counted(id).await?.map(|c| c.1);
        let next = progress::update(&warmup, update, counted, at).map_err(|why| CatalogError::Refused {
            what: "warm-up",
            name: id.to_string(),
            why,
        })?;
        if !warmup.state.is_over() && next.state.is_over() {
            self.active_warmups(-1).await?;
        }
        if next != warmup {
            self.set_warmup(&next).await?;
        }
        Ok(next)
    }

    /// What a new count makes of a warm-up.
    pub(super) async fn settle_warmup(&mut self, warmup: &Warmup, at: Timestamp) -> Result<()> {
        if warmup.state.is_over() {
            return Ok(());
        }
        let counted = self.counted(&warmup.id).await?.map(|c| c.1);
        let next = progress::settle(warmup, counted, at);
        if next != *warmup { self.set_warmup(&next).await } else { Ok(()) }
    }
}

#[async_trait]
impl Warmups for SqlCatalog {
    async fn put_warmup(&self, warmup: &Warmup, key: Option<(&str, [u8; 32])>) -> Result<WarmupTaken> {
        let mut tx = self.engine.write().await?;
        let taken = tx.put_warmup(warmup, key).await?;
        if taken.new {
            self.commit(tx, &[Topic::Warmups]).await?;
        }
        Ok(taken)
    }

    async fn warmup(&self, id: &WarmupId) -> Result<Option<Warmup>> {
        let row = self.engine.row("SELECT body FROM warmups WHERE id = $1", args![id.as_str()]).await?;
        row.map(|row| from_json("warm-up", &row.text(0)?)).transpose()
    }

    async fn warmups(&self, filter: &WarmupFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Warmup>> {
        let states: Vec<_> = filter.states.iter().map(|s| Arg::from(warmup_state_number(*s))).collect();
        let mut wanted = Statement::new("SELECT number, body FROM warmups");
        wanted.add(" WHERE number < ?", &[before(cursor).into()]);
        wanted.add_if(" AND site = ?", filter.site.as_ref().map(SiteId::as_str));
        wanted.add_in(" AND state", &states);
        wanted.add(" ORDER BY number DESC LIMIT ?", &[one_more(limit).into()]);
        page(self.engine.ask(&wanted).await?, limit, |row| from_json("warm-up", &row.text(1)?))
    }

    async fn update_warmup(&self, id: &WarmupId, update: &WarmupUpdate, at: Timestamp) -> Result<Warmup> {
        let mut tx = self.engine.write().await?;
        let warmup = tx.update_warmup(id, update, at).await?;
        self.commit(tx, &[Topic::Warmups]).await?;
        Ok(warmup)
    }
}
