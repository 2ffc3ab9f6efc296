//! What the dashboard's page is told, so that it can sign people in at the issuer: the issuer's endpoints as it publishes
//! them, the page's client, and which of the issuer's tokens to show here.
//!
//! Which one follows from the audience that the configuration wants. An ID token is always for the client that asked, so
//! where that client is the audience it is shown; where it is another, the issuer puts that audience into access tokens.

use std::collections::BTreeMap;

use foretide_flow::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::config::{Oidc, PageClient, is_safe, origin};
use super::issuer::Discovery;

/// Which of an issuer's tokens is shown to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShownToken {
    /// The one that says who signed in.
    Id,
    /// The one that lets the client ask for things; it has to be a JWT.
    Access,
}

/// What a page needs to sign somebody in: authorization code flow with PKCE, as a public client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    /// The issuer, as its tokens name it.
    pub issuer: String,
    /// What people call it.
    pub name: String,
    /// As what it knows the page.
    pub client_id: String,
    /// What is asked for, with blanks between.
    pub scope: String,
    /// What the question carries besides.
    pub parameters: BTreeMap<String, String>,
    /// Which token the API takes.
    pub shown_token: ShownToken,
    /// Where people sign in.
    pub authorization_endpoint: String,
    /// Where a code becomes tokens.
    pub token_endpoint: String,
    /// Where a token is given back; null if the issuer has no such thing that the page may ask.
    pub revocation_endpoint: Option<String>,
    /// Where people sign out at the issuer itself; null if it has no such page.
    pub end_session_endpoint: Option<String>,
    /// Whether the issuer's answers must name it (RFC 9207).
    pub names_itself: bool,
    /// By how much the issuer's clock and ours may differ, seconds.
    pub leeway_s: u64,
    /// Our clock: what a browser's own says does not matter.
    pub now: Timestamp,
}

/// What the page is told.
///
/// # Errors
/// What the issuer lacks, or which key of the configuration does not fit it.
pub(super) fn told(oidc: &Oidc, page: &PageClient, discovery: &Discovery, now: Timestamp) -> Result<SignIn, String> {
    let issuer = &oidc.issuer;
    let published = |what: &str, endpoint: &Option<String>| match endpoint {
        Some(address) if is_safe(address) => Ok(address.clone()),
        Some(address) => Err(format!("the {what} endpoint of issuer {issuer} is {address:?}, which is not https")),
        None => Err(format!("issuer {issuer} publishes no {what} endpoint, so the page can sign nobody in there")),
    };
    let may_ask = |address: &str| match (origin(address), oidc.page_asks()) {
        (Some(at), Some(allowed)) => at.eq_ignore_ascii_case(allowed),
        _ => false,
    };
    let authorization_endpoint = published("authorization", &discovery.authorization_endpoint)?;
    let token_endpoint = published("token", &discovery.token_endpoint)?;
    if !may_ask(&token_endpoint) {
        return Err(format!(
            "the token endpoint of issuer {issuer} is {token_endpoint}, where the page may not ask: say so by \
             api.oidc.page.token_origin"
        ));
    }
    Ok(SignIn {
        issuer: issuer.clone(),
        name: page.name.clone().unwrap_or_else(|| host(issuer).to_owned()),
        client_id: page.client_id.clone(),
        scope: page.scopes.join(" "),
        parameters: page.parameters.clone(),
        shown_token: if page.client_id == oidc.audience { ShownToken::Id } else { ShownToken::Access },
        authorization_endpoint,
        token_endpoint,
        revocation_endpoint: discovery.revocation_endpoint.clone().filter(|address| may_ask(address)),
        end_session_endpoint: discovery.end_session_endpoint.clone().filter(|address| is_safe(address)),
        names_itself: discovery.names_itself,
        leeway_s: oidc.leeway_s,
        now,
    })
}

fn host(issuer: &str) -> &str {
    let origin = origin(issuer).unwrap_or(issuer);
    origin.split_once("://").map_or(origin, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(token_endpoint: &str) -> Discovery {
        Discovery {
            authorization_endpoint: Some("https://id.example/auth".into()),
            token_endpoint: Some(token_endpoint.into()),
            revocation_endpoint: Some("https://elsewhere.example/revoke".into()),
            ..Discovery::default()
        }
    }

    fn page(client_id: &str) -> PageClient {
        PageClient {
            client_id: client_id.into(),
            name: None,
            scopes: vec!["openid".into(), "groups".into()],
            parameters: BTreeMap::new(),
            token_origin: None,
        }
    }

    fn ask(page: &PageClient, discovery: &Discovery) -> Result<SignIn, String> {
        let oidc = Oidc { page: Some(page.clone()), ..Oidc::of("https://id.example/realms/lab", "foretide") };
        told(&oidc, page, discovery, Timestamp(7))
    }

    #[test]
    fn the_token_that_is_for_us_is_the_one_to_show() {
        let discovery = published("https://id.example/token");
        assert_eq!(ask(&page("foretide"), &discovery).unwrap().shown_token, ShownToken::Id);
        let other = ask(&page("foretide-page"), &discovery).unwrap();
        assert_eq!(other.shown_token, ShownToken::Access);
        assert_eq!((other.name.as_str(), other.scope.as_str()), ("id.example", "openid groups"));
        assert_eq!(other.revocation_endpoint, None, "the page's policy does not let it ask there");
    }

    #[test]
    fn the_page_is_sent_nowhere_that_the_configuration_does_not_name() {
        let elsewhere = published("https://tokens.example/token");
        assert!(ask(&page("p"), &elsewhere).unwrap_err().contains("api.oidc.page.token_origin"));
        let named = PageClient { token_origin: Some("https://tokens.example".into()), ..page("p") };
        assert_eq!(ask(&named, &elsewhere).unwrap().token_endpoint, "https://tokens.example/token");
        let unsafe_page = Discovery { authorization_endpoint: Some("javascript:alert(1)".into()), ..elsewhere.clone() };
        assert!(ask(&named, &unsafe_page).unwrap_err().contains("not https"));
        let none = Discovery { authorization_endpoint: None, ..elsewhere };
        assert!(ask(&named, &none).unwrap_err().contains("publishes no authorization endpoint"));
    }
}
