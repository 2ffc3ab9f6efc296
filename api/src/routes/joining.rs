//! Nodes that join: an admin has a token made that is for one node at one site and good for once, and the node has its
//! certificate signed by it.
//!
//! A token is spent when its node is given its papers and not before: a request that is refused can be made again. Of two
//! that come at once the catalog lets one take the token away, and only that one is answered.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use foretide_flow::{NodeId, SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::house::note;
use crate::Api;
use crate::auth::{Caller, mint_join};
use crate::error::ApiError;
use crate::extract::Body;
use crate::ports::{Certifier, Papers};
use crate::wanted::unknown_site;

/// How long a join token is good if nothing else is said: time to log into a node.
const JOIN_WITHIN: Duration = Duration::from_secs(3600);
/// How long at most: it lies about meanwhile.
const JOIN_WITHIN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of a certificate request: with the largest RSA key that anybody makes.
const REQUEST_MAX_BYTES: usize = 16 << 10;

/// A node that may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinWanted {
    /// Its name: the certificate is for no other.
    pub node: NodeId,
    /// Its site: what residency rules are asked for.
    pub site: SiteId,
    /// Void after this, at most a week from now; in an hour if absent.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A join token that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinMade {
    /// The token's name, for revoking.
    pub name: String,
    /// What `foretide join` is given: the secret, and the SHA-256 of the authority's certificate, by which the node knows whom
    /// to trust, with a dot between. It cannot be shown again.
    pub token: String,
    /// Void after this.
    pub expires_at: Timestamp,
}

/// A node asks for its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// What it is called: what the token was made for.
    pub node: NodeId,
    /// Where it stands, if it knows.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// A certificate request (PKCS #10) in PEM format, signed with the node's own key. Names in it are left aside.
    #[schema(max_length = 16384)]
    pub request: String,
}

/// What a node needs from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Joined {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Its certificate, in PEM format.
    pub certificate: String,
    /// The certificate of the authority that issued it and those of all others.
    pub authority: String,
    /// The token that agents show.
    pub token: String,
}

fn certifier(api: &Api) -> Result<&dyn Certifier, ApiError> {
    let nobody = || {
        ApiError::Conflict(
            "this control plane holds no authority's key: an admin names it under [join] in its configuration, or makes \
             certificates by `foretide certify`"
                .into(),
        )
    };
    api.certifier.as_deref().ok_or_else(nobody)
}

/// Make a token by which one node can join, once.
#[utoipa::path(post, path = "/v1/joins", tag = "fleet", request_body = JoinWanted,
    responses(
        (status = 201, description = "The token.", body = JoinMade),
        (status = 409, description = "This control plane cannot issue certificates.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn offer(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<JoinWanted>,
) -> Result<(StatusCode, Json<JoinMade>), ApiError> {
    let now = Timestamp::now();
    let fingerprint = certifier(&api)?.fingerprint().to_owned();
    let topology = api.directory.topology();
    if !topology.sites.contains_key(&wanted.site) {
        return Err(unknown_site(&wanted.site, &topology));
    }
    let expires_at = wanted.expires_at.unwrap_or(now + JOIN_WITHIN);
    if expires_at <= now {
        return Err(ApiError::in_the_past("expires_at", expires_at, now));
    }
    if expires_at > now + JOIN_WITHIN_MAX {
        return Err(ApiError::WrongShape("expires_at: a join token is good for a week at most".into()));
    }
    let (name, secret) = mint_join(api.catalog.as_ref(), &wanted.node, &wanted.site, expires_at, now).await?;
    let detail = json!({ "token": name, "node": wanted.node, "site": wanted.site, "expires_at": expires_at });
    note(&api, caller, "join.offer", detail, now).await?;
    Ok((StatusCode::CREATED, Json(JoinMade { name, token: format!("{secret}.{fingerprint}"), expires_at })))
}

/// Join: have a certificate signed for the node that the token was made for. The token is spent by it.
#[utoipa::path(post, path = "/v1/agent/join", tag = "agents", request_body = JoinRequest,
    responses(
        (status = 201, description = "The node's papers.", body = Joined),
        (status = 409, description = "This control plane cannot issue certificates.",
         body = crate::Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn join(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<JoinRequest>,
) -> Result<(StatusCode, Json<Joined>), ApiError> {
    let certifier = certifier(&api)?;
    let (node, site) =
        caller.joins.clone().ok_or_else(|| ApiError::NotYours("this token was made for no node".into()))?;
    if asked.node != node || asked.site.as_ref().is_some_and(|said| *said != site) {
        let said = asked.site.map_or(String::new(), |site| format!(" at {site}"));
        return Err(ApiError::NotYours(format!(
            "this token was made for node {node} at {site}, and node {}{said} asks",
            asked.node
        )));
    }
    if asked.request.len() > REQUEST_MAX_BYTES {
        return Err(ApiError::WrongShape(format!("request has more than {REQUEST_MAX_BYTES} bytes")));
    }
    let Papers { certificate, authority, token } =
        certifier.certify(&node, &site, &asked.request).map_err(ApiError::Refused)?;
    if !api.catalog.revoke_token(&caller.name).await? {
        return Err(ApiError::BadToken);
    }
    note(&api, caller, "agent.join", json!({ "node": node, "site": site }), Timestamp::now()).await?;
    Ok((StatusCode::CREATED, Json(Joined { node, site, certificate, authority, token })))
}
