//! Events carried to those who do not listen: at least once, signed, retried, and put aside when nobody takes them.
//!
//! A webhook is a cursor into the events, so nothing is queued for it: what it has yet to get is what comes after its
//! number. An event is over when the receiver answered 2xx, or when it was tried [`TRIES`] times over a quarter of an
//! hour; then it is put aside with the last error, and the next one follows. A receiver that is down holds up nobody
//! but itself. Messages are signed as the Standard Webhooks specification has it (version 1): the header
//! `webhook-signature` is `v1,` and the base64 of HMAC-SHA256, under the secret, of `id.timestamp.body`.
//!
//! [`Webhook::took`] and [`Webhook::refused`] decide what follows from an answer; [`deliver_due`] does.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use foretide_catalog::{Catalog, CatalogError, Event};
use foretide_flow::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::sync::{Mutex, MutexGuard};

use crate::ports::Courier;

/// Times that one event is tried: with the waits between, 17 minutes.
pub(crate) const TRIES: u32 = 11;
/// The wait after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Events put aside that are remembered per webhook, newest; their bodies stay where events are kept.
const ASIDE_MAX: usize = 100;
/// Events taken in one turn of one webhook, so that each gets its turn.
const TURN_EVENTS: usize = 32;
/// Webhooks at most: each costs a turn.
pub(crate) const WEBHOOKS_MAX: usize = 100;
/// The setting that holds them.
const SETTING: &str = "webhooks";

/// Who wants to be told, and how far that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) url: String,
    /// Kinds of events; all if empty.
    pub(crate) kinds: Vec<String>,
    pub(crate) made_at: Timestamp,
    /// What signs its messages. It must be known in clear to sign.
    pub(crate) secret: String,
    /// Events up to this number are over.
    pub(crate) after: u64,
    pub(crate) delivered: u64,
    /// Failures of the event that comes next.
    pub(crate) failures: u32,
    pub(crate) next_try_at: Timestamp,
    pub(crate) last_error: Option<String>,
    /// Put aside, oldest first.
    pub(crate) aside: Vec<Aside>,
}

/// An event that no receiver took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Aside {
    /// Its number.
    pub event: u64,
    /// When it was put aside.
    pub at: Timestamp,
    /// The last error.
    pub why: String,
}

impl Webhook {
    fn wants(&self, event: &Event) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&event.kind)
    }

    fn passed(&mut self, event: u64) {
        self.after = event;
        self.failures = 0;
    }

    /// The receiver took it.
    fn took(&mut self, event: u64) {
        self.passed(event);
        self.delivered += 1;
        self.last_error = None;
    }

    /// It did not: tried again later, or put aside.
    fn refused(&mut self, event: u64, why: String, now: Timestamp) {
        self.failures += 1;
        self.last_error = Some(why.clone());
        if self.failures >= TRIES {
            self.aside.push(Aside { event, at: now, why });
            let surplus = self.aside.len().saturating_sub(ASIDE_MAX);
            self.aside.drain(..surplus);
            self.passed(event);
            self.next_try_at = now;
        } else {
            self.next_try_at = now + (FIRST_WAIT * 2u32.pow(self.failures - 1)).min(LONGEST_WAIT);
        }
    }
}

/// What Standard Webhooks puts before a secret; the rest is base64 of the key.
const SECRET_PREFIX: &str = "whsec_";

/// A new secret: 256 random bits.
pub(crate) fn new_secret() -> String {
    let key: [u8; 32] = rand::random();
    format!("{SECRET_PREFIX}{}", BASE64.encode(key))
}

/// The headers that prove who sent it and when.
fn signed(secret: &str, id: String, at: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
    let seconds = at.0.div_euclid(1_000_000).to_string();
    // Secrets are made here, so that they decode; HMAC takes a key of any length.
    let key = BASE64.decode(secret.trim_start_matches(SECRET_PREFIX)).unwrap_or_default();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).expect("any key will do");
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        mac.update(part);
    }
    let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    vec![("webhook-id", id), ("webhook-timestamp", seconds), ("webhook-signature", signature)]
}

/// The webhooks, as the catalog keeps them. One at a time changes them; nobody holds them over a delivery.
pub(crate) struct Register {
    catalog: Arc<dyn Catalog>,
    changing: Mutex<()>,
}

impl Register {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog, changing: Mutex::new(()) }
    }

    pub(crate) async fn all(&self) -> Result<Vec<Webhook>, CatalogError> {
        let kept = self.catalog.setting(SETTING).await?;
        Ok(kept.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
    }

    /// Reads, lets `change` work on them, and writes.
    pub(crate) async fn change<T>(&self, change: impl FnOnce(&mut Vec<Webhook>) -> T) -> Result<T, CatalogError> {
        let _held: MutexGuard<'_, ()> = self.changing.lock().await;
        let mut all = self.all().await?;
        let answer = change(&mut all);
        self.catalog.put_setting(SETTING, &serde_json::to_value(&all).unwrap_or_default()).await?;
        Ok(answer)
    }
}

/// Gives each webhook whose time has come its turn, side by side. Answers whether somebody has more to get now.
pub(crate) async fn deliver_due(
    register: &Register,
    catalog: &dyn Catalog,
    courier: &dyn Courier,
    now: Timestamp,
) -> Result<bool, CatalogError> {
    let last = catalog.last_event().await?;
    let due = register.all().await?.into_iter().filter(|w| w.next_try_at <= now && w.after < last);
    let turns = due.map(|webhook| turn(webhook, catalog, courier));
    let mut more = false;
    for done in futures::future::try_join_all(turns).await? {
        more |= done.failures == 0 && done.after < last;
        register
            .change(|all| {
                // It may have been taken away, or made anew, while its messages were under way.
                if let Some(kept) = all.iter_mut().find(|w| w.name == done.name && w.made_at == done.made_at) {
                    *kept = done;
                }
            })
            .await?;
    }
    Ok(more)
}

/// One webhook's turn: events in order, until one is refused.
async fn turn(mut webhook: Webhook, catalog: &dyn Catalog, courier: &dyn Courier) -> Result<Webhook, CatalogError> {
    for event in catalog.events_since(webhook.after, TURN_EVENTS).await? {
        if !webhook.wants(&event) {
            webhook.passed(event.id);
            continue;
        }
        let now = Timestamp::now();
        let body = serde_json::to_vec(&event).unwrap_or_default();
        let headers = signed(&webhook.secret, format!("evt_{}", event.id), now, &body);
        match courier.post(&webhook.url, &headers, body).await {
            Ok(status) if (200..300).contains(&status) => webhook.took(event.id),
            Ok(status) => {
                webhook.refused(event.id, format!("the receiver answered {status}"), now);
                break;
            }
            Err(why) => {
                webhook.refused(event.id, why, now);
                break;
            }
        }
    }
    Ok(webhook)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            name: "ci".into(),
            url: "http://x".into(),
            kinds: vec![],
            made_at: Timestamp(0),
            secret: "s".into(),
            after: 4,
            delivered: 0,
            failures: 0,
            next_try_at: Timestamp(0),
            last_error: None,
            aside: vec![],
        }
    }

    /// The vector that the specification's own libraries test themselves with.
    #[test]
    fn the_signature_is_the_specification_s() {
        let headers = signed(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            Timestamp(1_614_265_330_000_000),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(headers[1], ("webhook-timestamp", "1614265330".to_owned()));
        assert_eq!(headers[2].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_event_that_nobody_takes_is_put_aside_and_the_next_follows() {
        let mut w = webhook();
        let (mut now, mut waits) = (Timestamp(0), Vec::new());
        for _ in 0..TRIES {
            assert_eq!(w.after, 4);
            w.refused(5, "down".into(), now);
            waits.push(w.next_try_at.since(now).as_secs());
            now = w.next_try_at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 0]);
        assert_eq!((w.after, w.failures), (5, 0));
        assert_eq!(w.aside, [Aside { event: 5, at: now, why: "down".into() }]);
        w.took(6);
        assert_eq!((w.after, w.delivered, &w.last_error), (6, 1, &None));
    }
}
