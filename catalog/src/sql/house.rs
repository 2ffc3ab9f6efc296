//! Tokens, settings, events, audit.

use async_trait::async_trait;
use foretide_flow::Timestamp;
use tokio::sync::watch;

use super::engine::Row;
use super::text::args;
use super::{SqlCatalog, after, from_json, to_json};
use crate::house::{check_token, secret_digest, settings_full};
use crate::{AuditEntry, AuditRecord, Event, House, Result, Token, Topic, limits};

const TOKEN: &str = "SELECT name, scope, made_at, expires_at FROM tokens";

fn token_of(row: &Row) -> Result<Token> {
    Ok(Token {
        name: row.text(0)?,
        scope: row.text(1)?,
        made_at: Timestamp(row.int(2)?),
        expires_at: row.maybe_int(3)?.map(Timestamp),
    })
}

fn page_items(limit: usize) -> i64 {
    limit.min(limits::PAGE_ITEMS) as i64
}

#[async_trait]
impl House for SqlCatalog {
    async fn put_token(&self, token: &Token, secret: &str) -> Result<()> {
        let digest = secret_digest(secret);
        let digest = digest.as_slice();
        let mut tx = self.engine.write().await?;
        let kept = tx.row("SELECT COUNT(*) FROM tokens", args![]).await?.map_or(Ok(0), |r| r.count(0))?;
        let sql = "INSERT INTO tokens (name, digest, scope, made_at, expires_at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT DO NOTHING";
        let expires = token.expires_at.map(|at| at.0);
        let new = tx.run(sql, args![&token.name, digest, &token.scope, token.made_at, expires]).await?;
        check_token(token, new == 0, kept as usize)?;
        self.commit(tx, &[]).await
    }

    async fn token(&self, secret: &str, now: Timestamp) -> Result<Option<Token>> {
        let digest = secret_digest(secret);
        let sql = format!("{TOKEN} WHERE digest = $1 AND (expires_at IS NULL OR expires_at > $2)");
        self.engine.row(&sql, args![digest.as_slice(), now]).await?.map(|row| token_of(&row)).transpose()
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        self.engine.rows(&format!("{TOKEN} ORDER BY name"), args![]).await?.iter().map(token_of).collect()
    }

    async fn revoke_token(&self, name: &str) -> Result<bool> {
        let mut tx = self.engine.write().await?;
        let was_there = tx.run("DELETE FROM tokens WHERE name = $1", args![name]).await? > 0;
        self.commit(tx, &[]).await?;
        Ok(was_there)
    }

    async fn put_setting(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let mut tx = self.engine.write().await?;
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        tx.run(sql, args![name, &to_json(value)]).await?;
        let kept = tx.row("SELECT COUNT(*) FROM settings", args![]).await?.map_or(Ok(0), |r| r.count(0))?;
        if kept > limits::SETTINGS as u64 {
            return Err(settings_full());
        }
        self.commit(tx, &[Topic::Settings]).await
    }

    async fn setting(&self, name: &str) -> Result<Option<serde_json::Value>> {
        let row = self.engine.row("SELECT value FROM settings WHERE name = $1", args![name]).await?;
        row.map(|row| from_json("setting", &row.text(0)?)).transpose()
    }

    async fn append_event(&self, kind: &str, body: &serde_json::Value, at: Timestamp) -> Result<u64> {
        let mut tx = self.engine.write().await?;
        let id = tx.take_numbers("events", 1).await?;
        let sql = "INSERT INTO events (id, at, kind, body) VALUES ($1, $2, $3, $4)";
        tx.run(sql, args![id, at, kind, &to_json(body)]).await?;
        tx.prune("events", "id", id, 1, limits::EVENTS).await?;
        self.commit(tx, &[Topic::Events]).await?;
        Ok(id as u64)
    }

    async fn events_since(&self, after_id: u64, limit: usize) -> Result<Vec<Event>> {
        let sql = "SELECT id, at, kind, body FROM events WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = self.engine.rows(sql, args![after(after_id), page_items(limit)]).await?;
        let event = |row: &Row| {
            let body = from_json("event", &row.text(3)?)?;
            Ok(Event { id: row.count(0)?, at: Timestamp(row.int(1)?), kind: row.text(2)?, body })
        };
        rows.iter().map(event).collect()
    }

    async fn last_event(&self) -> Result<u64> {
        let row = self.engine.row("SELECT value FROM counters WHERE name = 'events'", args![]).await?;
        row.map_or(Ok(0), |r| r.count(0))
    }

    async fn append_audit(&self, entry: &AuditEntry) -> Result<u64> {
        let mut tx = self.engine.write().await?;
        let id = tx.take_numbers("audit", 1).await?;
        let sql = "INSERT INTO audit (id, at, who, what, detail) VALUES ($1, $2, $3, $4, $5)";
        tx.run(sql, args![id, entry.at, &entry.who, &entry.what, &to_json(&entry.detail)]).await?;
        tx.prune("audit", "id", id, 1, limits::AUDIT_ENTRIES).await?;
        self.commit(tx, &[]).await?;
        Ok(id as u64)
    }

    async fn audit(&self, after_id: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        let sql = "SELECT id, at, who, what, detail FROM audit WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = self.engine.rows(sql, args![after(after_id), page_items(limit)]).await?;
        let record = |row: &Row| {
            let detail = from_json("audit entry", &row.text(4)?)?;
            let entry = AuditEntry { at: Timestamp(row.int(1)?), who: row.text(2)?, what: row.text(3)?, detail };
            Ok(AuditRecord { id: row.count(0)?, entry })
        };
        rows.iter().map(record).collect()
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.topics.listen(topic)
    }
}
