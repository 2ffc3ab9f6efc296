//! What keeps the house: tokens, settings, events, audit, news.

use async_trait::async_trait;
use foretide_flow::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{CatalogError, Result, Topic, limits};

/// Who may call, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// For people and for revoking.
    pub name: String,
    /// What it may do, in the API's words.
    pub scope: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Void after this; none if it stays.
    pub expires_at: Option<Timestamp>,
}

/// Something that listeners are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows, without gaps while it is kept.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What kind, such as `plan`.
    pub kind: String,
    /// The rest.
    pub body: serde_json::Value,
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// The token's name, or the part of Foretide that acted.
    pub who: String,
    /// What was done, such as `warmup.cancel`.
    pub what: String,
    /// The rest.
    pub detail: serde_json::Value,
}

/// An entry and its place in the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Grows.
    pub id: u64,
    /// What was done.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Tokens, settings, events, audit, news.
#[async_trait]
pub trait House: Send + Sync {
    /// Keeps a token: of `secret` only its BLAKE3 digest, which tells nothing of 256 random bits.
    ///
    /// # Errors
    /// `Refused` if the name or the secret is taken; `Full` above [`TOKENS`](crate::limits::TOKENS).
    async fn put_token(&self, token: &Token, secret: &str) -> Result<()>;

    /// Whose secret this is; none if it is nobody's, or no longer valid at `now`.
    async fn token(&self, secret: &str, now: Timestamp) -> Result<Option<Token>>;

    /// All, by name.
    async fn tokens(&self) -> Result<Vec<Token>>;

    /// Revokes one; answers whether it was there.
    async fn revoke_token(&self, name: &str) -> Result<bool>;

    /// Keeps a setting, in place of its former value.
    ///
    /// # Errors
    /// `Full` above [`SETTINGS`](crate::limits::SETTINGS).
    async fn put_setting(&self, name: &str, value: &serde_json::Value) -> Result<()>;

    /// A setting.
    async fn setting(&self, name: &str) -> Result<Option<serde_json::Value>>;

    /// The one switch (promise H): while true, nothing is prefetched.
    async fn prefetch_off(&self) -> Result<bool> {
        Ok(self.setting(PREFETCH_OFF).await?.and_then(|v| v.as_bool()).unwrap_or(false))
    }

    /// Throws it.
    async fn set_prefetch_off(&self, off: bool) -> Result<()> {
        self.put_setting(PREFETCH_OFF, &off.into()).await
    }

    /// Tells listeners something; answers the event's id.
    async fn append_event(&self, kind: &str, body: &serde_json::Value, at: Timestamp) -> Result<u64>;

    /// Events with an id above `after`, oldest first. If the first one's id is not `after + 1`, those between are no
    /// longer kept.
    async fn events_since(&self, after: u64, limit: usize) -> Result<Vec<Event>>;

    /// The id of the last event ever told; 0 before the first.
    async fn last_event(&self) -> Result<u64>;

    /// Writes down who did what.
    async fn append_audit(&self, entry: &AuditEntry) -> Result<u64>;

    /// Entries with an id above `after`, oldest first.
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>>;

    /// A counter that moves whenever something of the topic was written. Take it before you look.
    fn changes(&self, topic: Topic) -> watch::Receiver<u64>;
}

/// The setting behind the switch.
pub(crate) const PREFETCH_OFF: &str = "prefetch_off";

/// What is kept of a secret.
pub(crate) fn secret_digest(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

/// Whether a token may be added.
pub(crate) fn check_token(token: &Token, taken: bool, tokens: usize) -> Result<()> {
    if taken {
        let why = "a token of this name or secret is there: revoke it, or choose another name".into();
        return Err(CatalogError::Refused { what: "token", name: token.name.clone(), why });
    }
    if tokens >= limits::TOKENS {
        return Err(CatalogError::Full { what: "tokens", limit: limits::TOKENS, remedy: "revoke those not in use" });
    }
    Ok(())
}

pub(crate) fn settings_full() -> CatalogError {
    CatalogError::Full { what: "settings", limit: limits::SETTINGS, remedy: "use one setting with several fields" }
}
