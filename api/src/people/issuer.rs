//! What an issuer publishes, its endpoints and its public keys: fetched when it is first needed, kept, and fetched again
//! when it is old or a token names a key that is not among them.
//!
//! A request waits for the issuer only if it cannot be answered otherwise: what is merely old goes on while it is
//! fetched beside it, and goes on for good while the issuer is down. Whatever happens, the issuer is asked at most once in
//! [`PAUSE`], so that nobody can make this server press it with invented key names.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::config::{Oidc, is_safe};
use crate::ports::Reader;

/// Least time between two questions to the issuer.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// Keys of one issuer: two or three is usual.
const KEYS_MAX: usize = 64;

/// One key that a token can be checked with.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl Key {
    /// None if it is for something else, or not to be read.
    fn of(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let said = match jwk.common.key_algorithm {
            None => algorithm,
            Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => Algorithm::ES256,
            Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
            Some(_) => return None,
        };
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if !signs || said != algorithm {
            return None;
        }
        Some(Self { decoding: DecodingKey::from_jwk(&jwk).ok()?, kid: jwk.common.key_id, algorithm })
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithm == algorithm
    }
}

/// What it says of itself: its discovery document, as far as anything here is done with it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Discovery {
    pub(super) issuer: String,
    pub(super) jwks_uri: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) revocation_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    /// Whether its answers to a browser name it (RFC 9207).
    #[serde(default, rename = "authorization_response_iss_parameter_supported")]
    pub(super) names_itself: bool,
}

/// What a look at what is known comes to.
#[derive(Debug)]
enum Step<T> {
    /// It is there.
    Use(T),
    /// It is there, and old: ask the issuer again beside.
    UseAndRefresh(T),
    /// It is not there, and the issuer may have it.
    Refresh,
    /// It is not there, and the issuer was asked a moment ago.
    Give,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) discovery: Option<Arc<Discovery>>,
    keys: Vec<Arc<Key>>,
    /// When they were fetched.
    at: Option<Instant>,
    /// When the issuer was last asked, whatever came of it.
    asked: Option<Instant>,
}

impl Known {
    /// The key of that name; of a token that names none, the only one.
    pub(super) fn named(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)).cloned(),
            (None, [only]) => Some(Arc::clone(only)),
            (None, _) => None,
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE)
    }

    fn step<T>(&self, found: Option<T>, fresh_for: Duration, now: Instant) -> Step<T> {
        let is_old = self.at.is_none_or(|at| now.saturating_duration_since(at) >= fresh_for);
        match (found, self.may_ask(now)) {
            (Some(found), true) if is_old => Step::UseAndRefresh(found),
            (Some(found), _) => Step::Use(found),
            (None, true) => Step::Refresh,
            (None, false) => Step::Give,
        }
    }
}

/// One issuer. `known` is locked for a look; `asking` while the issuer is asked, so that those who come meanwhile wait for
/// that answer and ask nothing themselves.
pub(super) struct Issuer {
    name: String,
    fresh_for: Duration,
    reader: Arc<dyn Reader>,
    known: RwLock<Known>,
    asking: Mutex<()>,
}

impl Issuer {
    pub(super) fn new(oidc: &Oidc, reader: Arc<dyn Reader>) -> Self {
        Self {
            name: oidc.issuer.clone(),
            fresh_for: Duration::from_secs(oidc.keys_fresh_for_s),
            reader,
            known: RwLock::default(),
            asking: Mutex::default(),
        }
    }

    fn look<T>(&self, at: impl FnOnce(&Known) -> T) -> T {
        at(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, how: impl FnOnce(&mut Known)) {
        how(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What `find` finds among what is known, once the issuer was asked if that may help. None if it has no such thing, or
    /// cannot be asked now.
    pub(super) async fn get<T>(self: &Arc<Self>, find: impl Fn(&Known) -> Option<T>) -> Option<T> {
        match self.step(&find, Instant::now()) {
            Step::Use(found) => Some(found),
            Step::UseAndRefresh(found) => {
                let issuer = Arc::clone(self);
                tokio::spawn(async move { issuer.refresh().await });
                Some(found)
            }
            Step::Refresh => {
                self.refresh().await;
                self.look(find)
            }
            Step::Give => None,
        }
    }

    fn step<T>(&self, find: impl Fn(&Known) -> Option<T>, now: Instant) -> Step<T> {
        // Who comes while the issuer is asked waits for the answer.
        let step = self.look(|known| known.step(find(known), self.fresh_for, now));
        if matches!(step, Step::Give) && self.asking.try_lock().is_err() { Step::Refresh } else { step }
    }

    pub(super) fn has_no_keys(&self) -> bool {
        self.look(|known| known.keys.is_empty())
    }

    /// Asks the issuer, unless somebody else just has. What it answers is what is known from now on; no answer changes
    /// nothing.
    async fn refresh(&self) {
        let _asking = self.asking.lock().await;
        let now = Instant::now();
        if !self.look(|known| known.may_ask(now)) {
            return;
        }
        self.change(|known| known.asked = Some(now));
        match self.fetch().await {
            Ok((discovery, keys)) => self.change(|known| {
                known.discovery = Some(Arc::new(discovery));
                known.keys = keys;
                known.at = Some(now);
            }),
            Err(why) => tracing::warn!(issuer = %self.name, %why, "the issuer's keys could not be fetched"),
        }
    }

    async fn fetch(&self) -> Result<(Discovery, Vec<Arc<Key>>), String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let address = format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'));
        let discovery: Discovery = self.read(&address).await?;
        let Discovery { issuer, jwks_uri, .. } = &discovery;
        if *issuer != self.name {
            return Err(format!("{address} is of issuer {issuer:?}"));
        }
        if !is_safe(jwks_uri) {
            return Err(format!("its keys are at {jwks_uri:?}, which is not https"));
        }
        let Set { keys }: Set = self.read(jwks_uri).await?;
        let usable: Vec<Arc<Key>> = keys.into_iter().take(KEYS_MAX).filter_map(Key::of).map(Arc::new).collect();
        if usable.is_empty() {
            return Err(format!("{jwks_uri} holds no key for RS256, ES256 or EdDSA"));
        }
        Ok((discovery, usable))
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, address: &str) -> Result<T, String> {
        let body = self.reader.get(address).await.map_err(|why| format!("{address}: {why}"))?;
        serde_json::from_slice(&body).map_err(|e| format!("{address}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn key(kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "kid": kid })
    }

    fn known(kids: &[&str], fetched_ago_s: u64, asked_ago_s: u64, now: Instant) -> Known {
        let keys = kids.iter().map(|kid| Arc::new(Key::of(key(kid)).unwrap())).collect();
        let ago = |s| Some(now - Duration::from_secs(s));
        Known { discovery: None, keys, at: ago(fetched_ago_s), asked: ago(asked_ago_s) }
    }

    #[test]
    fn the_issuer_is_asked_when_it_must_be_and_not_too_often() {
        let (now, fresh_for) = (Instant::now() + Duration::from_secs(10_000), Duration::from_secs(3600));
        let step = |known: &Known, kid: Option<&str>| match known.step(known.named(kid), fresh_for, now) {
            Step::Use(_) => "use",
            Step::UseAndRefresh(_) => "use and refresh",
            Step::Refresh => "refresh",
            Step::Give => "give",
        };
        assert_eq!(step(&Known::default(), Some("a")), "refresh", "none known");
        assert_eq!(step(&known(&["a"], 60, 60, now), Some("a")), "use");
        assert_eq!(step(&known(&["a"], 60, 60, now), None), "use", "the only one");
        assert_eq!(step(&known(&["a", "b"], 60, 60, now), None), "refresh", "which of them?");
        assert_eq!(step(&known(&["a"], 60, 60, now), Some("b")), "refresh", "the issuer may have changed keys");
        assert_eq!(step(&known(&["a"], 60, 1, now), Some("b")), "give", "it was asked a moment ago");
        assert_eq!(step(&known(&["a"], 4000, 4000, now), Some("a")), "use and refresh");
        assert_eq!(step(&known(&["a"], 4000, 1, now), Some("a")), "use", "the issuer is down");
    }

    #[test]
    fn only_keys_that_check_our_signatures_are_taken() {
        let with = |name: &str, value: &str| {
            let mut key = key("a");
            key[name] = json!(value);
            Key::of(key)
        };
        assert!(with("use", "sig").is_some() && with("alg", "EdDSA").is_some());
        assert!(with("use", "enc").is_none());
        assert!(with("alg", "ES256").is_none() && with("alg", "HS256").is_none());
        assert!(with("crv", "P-256").is_none());
        assert!(Key::of(json!({ "kty": "oct", "k": "c2VjcmV0" })).is_none(), "a secret is no public key");
        assert!(Key::of(json!({ "kty": "new" })).is_none() && Key::of(json!(7)).is_none());
    }
}
