//! People who come with a token of an OpenID Connect issuer instead of one of ours: a JWT that the issuer signed. Which of
//! our scopes it is worth says the configuration, by what a claim of it holds; nothing of a person is kept.
//!
//! - [`issuer`]: its endpoints and public keys, found by its discovery document, kept, and fetched again when they are old or
//!   when a token names a key that is not among them (the issuer has changed keys). While it is down, what is kept goes on.
//! - [`sign_in`]: what the dashboard's page is told, so that it can sign people in there by itself.
//! - [`signature`]: how a signature is checked, by the same library that speaks TLS.
//!
//! A token is believed if its algorithm is one of three, its key is the issuer's and for that algorithm, and issuer,
//! audience, expiry and "not before" are as they must be. `none`, secrets shared with the issuer (HS256) and keys that a
//! token brings along are nothing that this code could take.

mod config;
mod issuer;
mod sign_in;
mod signature;

use std::sync::Arc;

use foretide_flow::Timestamp;

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde_json::Value;

pub use self::config::{Grant, Oidc, PageClient};
use self::issuer::Issuer;
pub use self::sign_in::{ShownToken, SignIn};
use crate::auth::{Caller, TOKEN_NAME_MAX_BYTES};
use crate::error::ApiError;
use crate::ports::Reader;

/// Signatures that are taken.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// A token with the groups of somebody who is in hundreds fits.
const TOKEN_MAX_BYTES: usize = 16 << 10;

/// Knows people by the tokens of one issuer.
pub(crate) struct People {
    oidc: Oidc,
    issuer: Arc<Issuer>,
}

impl People {
    pub(crate) fn new(oidc: Oidc, reader: Arc<dyn Reader>) -> Self {
        signature::install();
        let issuer = Arc::new(Issuer::new(&oidc, reader));
        Self { oidc, issuer }
    }

    /// Who shows this token.
    pub(crate) async fn caller(&self, token: &str) -> Result<Caller, ApiError> {
        let header = check_header(token)?;
        let kid = header.kid.as_deref();
        let key = self.issuer.get(|known| known.named(kid)).await.ok_or_else(|| self.no_key(kid))?;
        if !key.is_for(header.alg) {
            return Err(refused("its algorithm is not its key's"));
        }
        let claims = decode::<Value>(token, &key.decoding, &self.validation(header.alg)).map_err(in_words)?.claims;
        grant(&self.oidc, &claims)
    }

    /// What the page needs to sign somebody in; none if the configuration does not have it do so.
    pub(crate) async fn sign_in(&self) -> Result<Option<SignIn>, ApiError> {
        let Some(page) = &self.oidc.page else { return Ok(None) };
        let Some(discovery) = self.issuer.get(|known| known.discovery.clone()).await else {
            let issuer = &self.oidc.issuer;
            return Err(ApiError::Unavailable(format!("the issuer {issuer} does not tell its endpoints now")));
        };
        sign_in::told(&self.oidc, page, &discovery, Timestamp::now()).map(Some).map_err(ApiError::Unavailable)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.oidc.leeway_s;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.oidc.issuer]);
        validation.set_audience(&[&self.oidc.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }

    fn no_key(&self, kid: Option<&str>) -> ApiError {
        if self.issuer.has_no_keys() {
            let issuer = &self.oidc.issuer;
            return ApiError::Unavailable(format!("the keys of issuer {issuer} cannot be fetched now"));
        }
        refused(&match kid {
            Some(_) => "the issuer has no key of the name that it bears".to_owned(),
            None => "it names no key, and the issuer has several".to_owned(),
        })
    }
}

/// Whether a bearer's text is such a token: ours have no dots.
pub(crate) fn is_persons(secret: &str) -> bool {
    secret.split('.').count() == 3
}

fn refused(why: &str) -> ApiError {
    ApiError::BadPersonsToken(why.to_owned())
}

/// What can be said before its key is known.
fn check_header(token: &str) -> Result<Header, ApiError> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(refused(&format!("it is larger than {TOKEN_MAX_BYTES} bytes")));
    }
    // `alg: none` is no algorithm to the parser.
    let header = decode_header(token).map_err(|_| refused("its head is not that of a signed token"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(refused("its algorithm is none of RS256, ES256 and EdDSA"));
    }
    if header.crit.is_some() {
        return Err(refused("it asks for what is not understood here (crit)"));
    }
    Ok(header)
}

fn in_words(error: jsonwebtoken::errors::Error) -> ApiError {
    use jsonwebtoken::errors::ErrorKind as E;
    refused(&match error.kind() {
        E::InvalidSignature => "its signature is not the issuer's".to_owned(),
        E::ExpiredSignature => "it has expired".to_owned(),
        E::ImmatureSignature => "it is not valid yet".to_owned(),
        E::InvalidAudience => "it is for another audience".to_owned(),
        E::InvalidIssuer => "it is of another issuer".to_owned(),
        E::MissingRequiredClaim(claim) => format!("it has no claim {claim}"),
        _ => "it does not read as a token".to_owned(),
    })
}

/// What a person may, by the first grant that fits; and under which name.
fn grant(oidc: &Oidc, claims: &Value) -> Result<Caller, ApiError> {
    let name = claim(claims, &oidc.name_claim).and_then(Value::as_str);
    let name = name.ok_or_else(|| refused(&format!("it has no claim {}", oidc.name_claim)))?;
    let held = claim(claims, &oidc.claim).map(words).unwrap_or_default();
    let fits = oidc.grants.iter().find(|grant| held.contains(&grant.value.as_str()));
    let (scopes, tenant) = fits.map(|grant| (grant.scopes.clone(), grant.tenant.clone())).unwrap_or_default();
    Ok(Caller::new(name_of(name), scopes, tenant))
}

/// A claim by its name, or where a JSON pointer leads, such as `/realm_access/roles`.
fn claim<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// A list of texts, or one text with blanks between, as `scope` is.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A name that no token of ours has, with nothing in it but what theirs may hold; the same for nobody else.
fn name_of(person: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    let written = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    let name: String = person.bytes().map(written).collect();
    if name.len() <= TOKEN_NAME_MAX_BYTES {
        format!("oidc:{name}")
    } else {
        format!("oidc:{}", blake3::hash(person.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::Scope;

    fn oidc() -> Oidc {
        let grants = vec![
            Grant { value: "admins".into(), scopes: vec![Scope::Admin], tenant: None },
            Grant { value: "vision".into(), scopes: vec![Scope::Read, Scope::Warm], tenant: Some("vision".into()) },
        ];
        Oidc { claim: "/realm/groups".into(), grants, ..Oidc::of("https://id.example", "foretide") }
    }

    #[test]
    fn the_first_grant_that_fits_decides() {
        let of = |groups: Value| grant(&oidc(), &json!({ "sub": "ann", "realm": { "groups": groups } })).unwrap();
        assert!(of(json!(["vision", "admins"])).may(Scope::Admin));
        let vision = of(json!("other vision"));
        assert!(vision.may(Scope::Warm) && !vision.may(Scope::Admin));
        assert_eq!((vision.name.as_str(), vision.tenant.as_deref()), ("oidc:ann", Some("vision")));
        for nothing in [json!([]), json!(["vis"]), json!(7), Value::Null] {
            assert!(!of(nothing).may(Scope::Read));
        }
        assert!(grant(&oidc(), &json!({ "realm": { "groups": ["admins"] } })).is_err(), "a person has a name");
    }

    #[test]
    fn no_two_people_share_a_name_and_none_has_a_token_s() {
        assert_eq!(name_of("ann@example.org"), "oidc:ann@example.org");
        assert_eq!(name_of("a/b c"), "oidc:a%2Fb%20c");
        let long = |end: &str| name_of(&("x".repeat(300) + end));
        assert_ne!(long("1"), long("2"));
        assert!(long("1").len() < 100);
    }

    #[test]
    fn only_three_parts_are_a_person_s_token() {
        assert!(is_persons("a.b.c") && !is_persons("ft_0123") && !is_persons("a.b") && !is_persons("a.b.c.d.e"));
    }
}
