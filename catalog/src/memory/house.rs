//! Tokens, settings, events, audit.

use std::collections::BTreeMap;

use async_trait::async_trait;
use foretide_flow::Timestamp;
use tokio::sync::watch;

use super::InMemory;
use crate::house::{check_token, secret_digest, settings_full};
use crate::{AuditEntry, AuditRecord, Event, House, Result, Token, Topic, limits};

/// What keeps the house.
#[derive(Default)]
pub(super) struct Kept {
    tokens: BTreeMap<String, ([u8; 32], Token)>,
    settings: BTreeMap<String, serde_json::Value>,
    events: BTreeMap<u64, Event>,
    last_event: u64,
    audit: BTreeMap<u64, AuditEntry>,
    last_audit: u64,
}

#[async_trait]
impl House for InMemory {
    async fn put_token(&self, token: &Token, secret: &str) -> Result<()> {
        let digest = secret_digest(secret);
        let tokens = &mut self.state().house.tokens;
        let taken = tokens.contains_key(&token.name) || tokens.values().any(|t| t.0 == digest);
        check_token(token, taken, tokens.len())?;
        tokens.insert(token.name.clone(), (digest, token.clone()));
        Ok(())
    }

    async fn token(&self, secret: &str, now: Timestamp) -> Result<Option<Token>> {
        let digest = secret_digest(secret);
        let state = self.state();
        let found = state.house.tokens.values().find(|t| t.0 == digest).map(|t| &t.1);
        Ok(found.filter(|t| t.expires_at.is_none_or(|at| now < at)).cloned())
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        Ok(self.state().house.tokens.values().map(|t| t.1.clone()).collect())
    }

    async fn revoke_token(&self, name: &str) -> Result<bool> {
        Ok(self.state().house.tokens.remove(name).is_some())
    }

    async fn put_setting(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let settings = &mut self.state().house.settings;
        if settings.len() >= limits::SETTINGS && !settings.contains_key(name) {
            return Err(settings_full());
        }
        settings.insert(name.to_owned(), value.clone());
        self.tell(&[Topic::Settings]);
        Ok(())
    }

    async fn setting(&self, name: &str) -> Result<Option<serde_json::Value>> {
        Ok(self.state().house.settings.get(name).cloned())
    }

    async fn append_event(&self, kind: &str, body: &serde_json::Value, at: Timestamp) -> Result<u64> {
        let kept = &mut self.state().house;
        kept.last_event += 1;
        let id = kept.last_event;
        kept.events.insert(id, Event { id, at, kind: kind.to_owned(), body: body.clone() });
        while kept.events.len() > limits::EVENTS {
            kept.events.pop_first();
        }
        self.tell(&[Topic::Events]);
        Ok(id)
    }

    async fn events_since(&self, after: u64, limit: usize) -> Result<Vec<Event>> {
        let state = self.state();
        let rest = state.house.events.iter().filter(|(id, _)| **id > after).take(limit.min(limits::PAGE_ITEMS));
        Ok(rest.map(|(_, e)| e.clone()).collect())
    }

    async fn last_event(&self) -> Result<u64> {
        Ok(self.state().house.last_event)
    }

    async fn append_audit(&self, entry: &AuditEntry) -> Result<u64> {
        let kept = &mut self.state().house;
        kept.last_audit += 1;
        let id = kept.last_audit;
        kept.audit.insert(id, entry.clone());
        while kept.audit.len() > limits::AUDIT_ENTRIES {
            kept.audit.pop_first();
        }
        Ok(id)
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        let state = self.state();
        let rest = state.house.audit.iter().filter(|(id, _)| **id > after).take(limit.min(limits::PAGE_ITEMS));
        Ok(rest.map(|(id, entry)| AuditRecord { id: *id, entry: entry.clone() }).collect())
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.topics.listen(topic)
    }
}
