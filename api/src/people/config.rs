//! Which issuer is believed, and what its tokens are worth here.

use serde::{Deserialize, Serialize};

use crate::auth::Scope;

/// An issuer of people's tokens: `[api.oidc]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its address, letter by letter as its tokens name it (`iss`); https, unless it is on this machine.
    pub issuer: String,
    /// What its tokens for Foretide name as their audience (`aud`).
    pub audience: String,
    /// The claim that `grants` look into: a list of texts, or one text with blanks between. A nested one by its JSON
    /// pointer, such as `/realm_access/roles`.
    #[serde(default = "groups")]
    pub claim: String,
    /// The claim that names a person in the audit log: one that the issuer never gives to another.
    #[serde(default = "sub")]
    pub name_claim: String,
    /// What a value of the claim is worth; the first that a token's claim holds decides, and none means nothing.
    #[serde(default, rename = "grant")]
    pub grants: Vec<Grant>,
    /// By how much the issuer's clock and ours may differ, seconds.
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// After that many seconds its keys are fetched again: how long one that it took back is believed.
    #[serde(default = "keys_fresh_for_s")]
    pub keys_fresh_for_s: u64,
}

/// What one value of the claim is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The value, such as the name of a group.
    pub value: String,
    /// Of `read`, `warm` and `admin`.
    pub scopes: Vec<Scope>,
    /// Only the data of this tenant; with `read` and `warm` alone.
    #[serde(default)]
    pub tenant: Option<String>,
}

fn groups() -> String {
    "groups".into()
}

fn sub() -> String {
    "sub".into()
}

/// Clocks that are set by NTP differ by less.
fn leeway_s() -> u64 {
    60
}

fn keys_fresh_for_s() -> u64 {
    3600
}

/// A longer leeway would be a longer life of tokens.
const LEEWAY_MAX_S: u64 = 600;

impl Oidc {
    /// That issuer and audience, all else as usual, and nothing granted.
    pub fn of(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            claim: groups(),
            name_claim: sub(),
            grants: Vec::new(),
            leeway_s: leeway_s(),
            keys_fresh_for_s: keys_fresh_for_s(),
        }
    }

    /// Whether it can be meant.
    ///
    /// # Errors
    /// What is wrong and what to do, in words.
    pub fn check(&self) -> Result<(), String> {
        if !is_safe(&self.issuer) {
            return Err(format!(
                "issuer {:?}: give an https address; who reads its keys must be sure of them",
                self.issuer
            ));
        }
        if self.audience.is_empty() {
            return Err("audience is empty: any token of the issuer would do".into());
        }
        if self.leeway_s > LEEWAY_MAX_S {
            return Err(format!("leeway_s is {}: give at most {LEEWAY_MAX_S}", self.leeway_s));
        }
        for Grant { value, scopes, tenant } in &self.grants {
            let most: &[Scope] = if tenant.is_some() { &[Scope::Read, Scope::Warm] } else { &Scope::PEOPLE };
            if let Some(scope) = scopes.iter().find(|scope| !most.contains(scope)) {
                return Err(format!(
                    "grant {value:?}: {scope} is not for {}",
                    if tenant.is_some() { "a tenant" } else { "people" }
                ));
            }
        }
        Ok(())
    }
}

/// Whether nobody on the way can change what is read there.
pub(super) fn is_safe(address: &str) -> bool {
    let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '/']);
    address.starts_with("https://") || local.iter().any(|host| address.strip_prefix(host).is_some_and(ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let good = Oidc::of("https://id.example", "foretide");
        let granting = |scopes: &[Scope], tenant: Option<&str>| Oidc {
            grants: vec![Grant { value: "g".into(), scopes: scopes.into(), tenant: tenant.map(Into::into) }],
            ..good.clone()
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(granting(&[Scope::Admin], None).check(), Ok(()));
        assert_eq!(granting(&[Scope::Read], Some("t")).check(), Ok(()));
        for bad in [
            Oidc::of("http://id.example", "foretide"),
            Oidc::of("http://127.0.0.1.evil.example", "foretide"),
            Oidc::of("https://id.example", ""),
            Oidc { leeway_s: 601, ..good.clone() },
            granting(&[Scope::Agent], None),
            granting(&[Scope::Admin], Some("t")),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(is_safe("http://127.0.0.1:8080/realm") && is_safe("http://localhost"));
    }
}
