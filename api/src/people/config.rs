//! Which issuer is believed, and what its tokens are worth here.

use std::collections::BTreeMap;

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
    /// How the dashboard's page signs people in there; if absent, it takes tokens that are pasted.
    #[serde(default)]
    pub page: Option<PageClient>,
}

/// The dashboard's page as a client of the issuer: `[api.oidc.page]`. It is a public one: it runs in people's browsers, so it
/// has no secret, and proves by PKCE that who began a sign-in ends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageClient {
    /// As what the issuer knows the page.
    pub client_id: String,
    /// What people call the issuer; its host if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// What is asked for; `openid` is among it. Many issuers give a token that renews the sign-in for `offline_access` alone.
    #[serde(default = "openid")]
    pub scopes: Vec<String>,
    /// What the question carries besides, as some issuers want it: `audience`, `resource`, `prompt`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Scheme, host and port of the issuer's token endpoint where they are not the issuer's own. The page's policy lets it
    /// ask there, so an issuer cannot widen it.
    #[serde(default)]
    pub token_origin: Option<String>,
}

/// Parameters of the question that are the protocol's own.
const OF_THE_PROTOCOL: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

impl PageClient {
    fn check(&self, issuer: &str) -> Result<(), String> {
        if self.client_id.is_empty() {
            return Err("page.client_id is empty: give the id of a public client of the issuer".into());
        }
        if self.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return Err("page.name is blank: give one, or leave it out for the issuer's host".into());
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Err("page.scopes lacks \"openid\": without it the issuer does not say who signed in".into());
        }
        if let Some(scope) = self.scopes.iter().find(|s| s.is_empty() || s.contains(char::is_whitespace)) {
            return Err(format!("page.scopes has {scope:?}: give each scope by itself"));
        }
        if let Some(name) = self.parameters.keys().find(|name| OF_THE_PROTOCOL.contains(&name.as_str())) {
            return Err(format!("page.parameters has {name:?}, which the page sets by itself: leave it out"));
        }
        match &self.token_origin {
            Some(given) if !is_safe(given) || origin(given) != Some(given) => {
                Err(format!("page.token_origin {given:?}: give https://HOST or https://HOST:PORT"))
            }
            None if origin(issuer).is_none() => Err(format!(
                "page: the host of issuer {issuer:?} cannot stand in a policy of the page: give its plain name"
            )),
            _ => Ok(()),
        }
    }
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

fn openid() -> Vec<String> {
    vec!["openid".into()]
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
            page: None,
        }
    }

    /// Whom the page asks besides its own host, as a policy names it: scheme, host and port of the token endpoint. None if
    /// it signs nobody in.
    pub fn page_asks(&self) -> Option<&str> {
        self.page.as_ref()?.token_origin.as_deref().or_else(|| origin(&self.issuer))
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
        self.page.as_ref().map_or(Ok(()), |page| page.check(&self.issuer))
    }
}

/// Scheme, host and port of an address, as the policy of a page can name them.
pub(super) fn origin(address: &str) -> Option<&str> {
    let (scheme, rest) = address.split_once("://")?;
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let is_plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    is_plain.then(|| &address[..scheme.len() + "://".len() + host.len()])
}

/// Whether nobody on the way can change what is read there.
pub(super) fn is_safe(address: &str) -> bool {
    let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '/']);
    address.starts_with("https://") || local.iter().any(|host| address.strip_prefix(host).is_some_and(ends))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
        assert_eq!(good.page_asks(), None);
        assert!(is_safe("http://127.0.0.1:8080/realm") && is_safe("http://localhost"));
    }

    #[test]
    fn how_the_page_signs_people_in_is_refused_by_the_key_that_cannot_be_meant() {
        let of = |page: Value| -> Result<Oidc, String> {
            let whole = json!({ "issuer": "https://id.example:8443/realms/lab", "audience": "foretide", "page": page });
            let oidc: Oidc = serde_json::from_value(whole).map_err(|e| e.to_string())?;
            oidc.check().map(|()| oidc)
        };
        let usual = of(json!({ "client_id": "p" })).unwrap();
        assert_eq!(usual.page_asks(), Some("https://id.example:8443"), "and nothing of its path");
        assert_eq!(usual.page.unwrap().scopes, ["openid"]);
        let elsewhere = of(json!({ "client_id": "p", "token_origin": "https://tokens.example" })).unwrap();
        assert_eq!(elsewhere.page_asks(), Some("https://tokens.example"));
        for (page, key) in [
            (json!({}), "client_id"),
            (json!({ "client_id": "" }), "page.client_id"),
            (json!({ "client_id": "p", "name": " " }), "page.name"),
            (json!({ "client_id": "p", "scopes": ["email"] }), "page.scopes"),
            (json!({ "client_id": "p", "scopes": ["openid", "email groups"] }), "page.scopes"),
            (json!({ "client_id": "p", "parameters": { "nonce": "1" } }), "page.parameters"),
            (json!({ "client_id": "p", "token_origin": "https://tokens.example/oauth" }), "page.token_origin"),
            (json!({ "client_id": "p", "token_origin": "http://tokens.example" }), "page.token_origin"),
            (json!({ "client_id": "p", "token_origin": "https://a.example; script-src *" }), "page.token_origin"),
            (json!({ "client_id": "p", "client_secret": "s" }), "client_secret"),
        ] {
            let why = of(page.clone()).unwrap_err();
            assert!(why.contains(key), "{page}: {why}");
        }
    }

    #[test]
    fn an_origin_is_what_a_policy_can_name() {
        assert_eq!(origin("https://id.example/a?b"), Some("https://id.example"));
        assert_eq!(origin("http://127.0.0.1:80"), Some("http://127.0.0.1:80"));
        for none in ["id.example", "https:///a", "https://a b", "https://a;b/", "https://ann@id.example/"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }
}
