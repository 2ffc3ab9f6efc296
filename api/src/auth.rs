//! Who may call what. A token is 256 random bits, shown once; the catalog keeps its digest only. People may come with a token
//! of an issuer instead ([`people`](crate::people)): from here on they are callers like any other.
//!
//! A token with the scope `join` is made for one node and good for once ([`joining`](crate::routes::joining)).
//!
//! Each route needs one scope ([`guarded`](crate::routes) hangs [`guard`] before it), and a token holds a set of them. `admin` may do
//! what `read` and `warm` may; `agent` stands apart, so that a stolen agent's token starts no warm-up and a
//! person's token reports no outcome.

use std::fmt;
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use foretide_catalog::{Catalog, CatalogError, Token};
use foretide_flow::{NodeId, SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::error::ApiError;
use crate::people::is_persons;

/// What a token may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See everything that is not secret.
    Read,
    /// Ask for warm-ups and take them back.
    Warm,
    /// Throw the switch, make and revoke tokens, read the audit log; and all of `read` and `warm`.
    Admin,
    /// Report as an agent and take its assignment.
    Agent,
    /// Have a certificate signed for the node that the token was made for, once.
    Join,
}

impl Scope {
    /// What people may be given.
    pub(crate) const PEOPLE: [Scope; 3] = [Scope::Read, Scope::Warm, Scope::Admin];

    /// Every scope.
    pub const ALL: [Scope; 5] = [Scope::Read, Scope::Warm, Scope::Admin, Scope::Agent, Scope::Join];

    /// What whoever starts the first control plane may do.
    const FIRST: [Scope; 4] = [Scope::Read, Scope::Warm, Scope::Admin, Scope::Agent];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Warm => "warm",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Join => "join",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ApiError;
    fn from_str(s: &str) -> Result<Self, ApiError> {
        let known = || ApiError::BadParameter(format!("{s:?} is no scope: use read, warm, admin, agent or join"));
        Self::ALL.into_iter().find(|scope| scope.as_str() == s).ok_or_else(known)
    }
}

/// Who calls, once the token was found good.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token's name.
    pub(crate) name: String,
    /// Whose data it sees; everybody's if none.
    pub(crate) tenant: Option<String>,
    /// Which node may join by it, and where.
    pub(crate) joins: Option<(NodeId, SiteId)>,
    scopes: Vec<Scope>,
}

impl Caller {
    pub(crate) fn new(name: String, scopes: Vec<Scope>, tenant: Option<String>) -> Self {
        Self { name, tenant, joins: None, scopes }
    }

    fn of(token: Token) -> Self {
        // Unknown words are scopes of a newer version: they give nothing here.
        let scopes = token.scope.split_whitespace().filter_map(|s| s.parse().ok()).collect();
        let tenant = tenant_of(&token).map(str::to_owned);
        Self { tenant, joins: joins_of(&token), scopes, name: token.name }
    }

    /// Whether it may do what needs this scope.
    pub(crate) fn may(&self, needed: Scope) -> bool {
        let by_admin = matches!(needed, Scope::Read | Scope::Warm) && self.scopes.contains(&Scope::Admin);
        by_admin || self.scopes.contains(&needed)
    }
}

/// Scopes as the catalog keeps them: names with a blank between.
fn join(scopes: &[Scope]) -> String {
    scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

/// Before the name of a token's tenant, among its scopes: the catalog keeps both in one text.
const TENANT: &str = "tenant:";

/// The same before the node and the site that a join token is for.
const NODE: &str = "node:";
const SITE: &str = "site:";

fn said<'t>(token: &'t Token, what: &str) -> Option<&'t str> {
    token.scope.split_whitespace().find_map(|word| word.strip_prefix(what))
}

/// The tenant that a token was made for.
pub(crate) fn tenant_of(token: &Token) -> Option<&str> {
    said(token, TENANT)
}

/// The node that a token was made for, and its site.
fn joins_of(token: &Token) -> Option<(NodeId, SiteId)> {
    Some((NodeId::new(said(token, NODE)?).ok()?, SiteId::new(said(token, SITE)?).ok()?))
}

/// How long the name of a token may be, bytes: it stands in the audit log beside each deed.
pub(crate) const TOKEN_NAME_MAX_BYTES: usize = 100;

/// Makes a token and answers its secret, which nobody can ask for again.
///
/// # Errors
/// [`CatalogError::Refused`] if the name is taken.
pub async fn mint(
    catalog: &dyn Catalog,
    name: &str,
    scopes: &[Scope],
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<String, CatalogError> {
    mint_for(catalog, name, scopes, None, expires_at, now).await
}

/// The same for a tenant, whose data alone it sees; its name holds no blank.
///
/// # Errors
/// As [`mint`].
pub async fn mint_for(
    catalog: &dyn Catalog,
    name: &str,
    scopes: &[Scope],
    tenant: Option<&str>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<String, CatalogError> {
    let whose = tenant.map_or(String::new(), |tenant| format!(" {TENANT}{tenant}"));
    keep(catalog, Token { name: name.to_owned(), scope: join(scopes) + &whose, made_at: now, expires_at }).await
}

/// Makes a token by which that node can join, and answers its name and its secret.
pub(crate) async fn mint_join(
    catalog: &dyn Catalog,
    node: &NodeId,
    site: &SiteId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(String, String), CatalogError> {
    // A node may be offered to join again before the first token is spent.
    let name = format!("join-{node}-{:08x}", rand::random::<u32>());
    let scope = format!("{} {NODE}{node} {SITE}{site}", Scope::Join);
    let token = Token { name: name.clone(), scope, made_at: now, expires_at: Some(expires_at) };
    Ok((name, keep(catalog, token).await?))
}

async fn keep(catalog: &dyn Catalog, token: Token) -> Result<String, CatalogError> {
    let bits: [u8; 32] = rand::random();
    let secret = bits.iter().fold(String::from("ft_"), |s, b| s + &format!("{b:02x}"));
    catalog.put_token(&token, &secret).await?;
    Ok(secret)
}

/// The name of the token that [`first_token`] makes.
pub const FIRST_TOKEN: &str = "first";

/// At the first start there is no token, and nobody could make one: makes one with every scope of people and agents and answers its
/// secret. Later it answers nothing.
///
/// # Errors
/// The catalog's.
pub async fn first_token(catalog: &dyn Catalog, now: Timestamp) -> Result<Option<String>, CatalogError> {
    if catalog.tokens().await?.is_empty() {
        mint(catalog, FIRST_TOKEN, &Scope::FIRST, None, now).await.map(Some)
    } else {
        Ok(None)
    }
}

/// What a caller showed when it connected; a server that speaks TLS adds it to each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whether that was the certificate of an agent.
    pub is_agents: bool,
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(header::AUTHORIZATION).ok_or(ApiError::NoToken)?;
    let text = value.to_str().map_err(|_| ApiError::NoToken)?;
    let (scheme, secret) = text.split_once(' ').ok_or(ApiError::NoToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(secret.trim()) } else { Err(ApiError::NoToken) }
}

/// Lets a request through if its token has the scope and keeps to the rate, and tells the handler who calls.
pub(crate) async fn guard(
    State((api, needed)): State<(Api, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let secret = bearer(request.headers())?;
    let caller = match api.people.as_deref().filter(|_| is_persons(secret)) {
        Some(people) => people.caller(secret).await?,
        None => Caller::of(api.catalog.token(secret, Timestamp::now()).await?.ok_or(ApiError::BadToken)?),
    };
    api.pace.admit(&caller.name)?;
    if !caller.may(needed) {
        return Err(ApiError::WrongScope { needed, held: join(&caller.scopes) });
    }
    let by_agent = request.extensions().get::<Connection>().is_some_and(|c| c.is_agents);
    if needed == Scope::Agent && api.config.agents_show_certificates && !by_agent {
        return Err(ApiError::NoCertificate);
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scope: &str) -> Caller {
        Caller::of(Token { name: "t".into(), scope: scope.into(), made_at: Timestamp(0), expires_at: None })
    }

    #[test]
    fn admin_includes_read_and_warm_but_no_agent() {
        let admin = caller("admin");
        assert!(admin.may(Scope::Read) && admin.may(Scope::Warm) && admin.may(Scope::Admin));
        assert!(!admin.may(Scope::Agent));
        assert!(!caller("warm").may(Scope::Read), "each scope is given by name");
        assert!(caller("read fly agent").may(Scope::Agent), "words of a newer version do no harm");
        assert_eq!(caller("read warm tenant:vision").tenant.as_deref(), Some("vision"));
        assert_eq!(caller("read").tenant, None);
    }

    #[test]
    fn only_a_bearer_header_is_a_token() {
        let with = |v: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, v.parse().unwrap());
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(with("Basic abc"), None);
        assert_eq!(with("abc"), None);
        assert!(bearer(&HeaderMap::new()).is_err());
    }
}
