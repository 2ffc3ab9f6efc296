//! What the control plane gives to nodes that join: a certificate of the installation's authority, whose key it holds if an
//! admin gave it, and the token that agents show to each other and to it.

use std::fs;
use std::path::{Path, PathBuf};

use foretide_api::{Certifier, Papers, Scope, mint};
use foretide_catalog::Catalog;
use foretide_flow::{NodeId, SiteId, Timestamp};
use foretide_transfer::{Authority, Identity};

use crate::config::{JoinConfig, ServeConfig};
use crate::run::{RunError, certify};
use crate::tls;

/// The name of the agents' token that is made here.
const AGENTS_TOKEN: &str = "agents";
/// Its file in the state folder.
const AGENTS_TOKEN_FILE: &str = "agents.token";

/// Signs for nodes, with the key in memory.
pub struct SiteAuthority {
    authority: Authority,
    fingerprint: String,
    agents_token: String,
}

impl SiteAuthority {
    /// What the configuration names; none if it says nothing of joining. The agents' token is made at the first start.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together, or an agents' token that may do more than agents.
    pub async fn open(config: &ServeConfig, catalog: &dyn Catalog) -> Result<Option<Self>, RunError> {
        let Some(join) = &config.join else { return Ok(None) };
        let authority = certify::kept(&join.authority)?;
        let shown = config.tls.as_ref().and_then(|files| files.authority.as_deref());
        let certificate = &authority.kept().certificate_pem;
        check_shown(shown, certificate, join)?;
        let fingerprint = tls::hex(&tls::fingerprint(certificate).map_err(|why| told(&join.authority, why))?);
        let agents_token = agents_token(join, &config.state, catalog).await?;
        Ok(Some(Self { authority, fingerprint, agents_token }))
    }
}

/// Agents that join are to be let in: by TLS, and as agents of this authority.
fn check_shown(shown: Option<&Path>, certificate_pem: &str, join: &JoinConfig) -> Result<(), RunError> {
    let Some(shown) = shown else {
        let why = "[join] needs tls.authority: without it a node's papers would pass in the clear, and nobody would look at them";
        return Err(RunError::Told(why.into()));
    };
    let is_same = |pem: String| tls::fingerprint(&pem).ok() == tls::fingerprint(certificate_pem).ok();
    if fs::read_to_string(shown).is_ok_and(is_same) {
        return Ok(());
    }
    Err(told(shown, format!("it is not the certificate of the authority in {}", join.authority.display())))
}

async fn agents_token(join: &JoinConfig, state: &Path, catalog: &dyn Catalog) -> Result<String, RunError> {
    let file: PathBuf = join.token_file.clone().unwrap_or_else(|| state.join(AGENTS_TOKEN_FILE));
    if join.token_file.is_none() && !file.exists() {
        let secret = mint(catalog, AGENTS_TOKEN, &[Scope::Agent], None, Timestamp::now()).await?;
        super::write_secret(&file, &secret)?;
        return Ok(secret);
    }
    let secret = fs::read_to_string(&file).map_err(|e| told(&file, e))?.trim().to_owned();
    match catalog.token(&secret, Timestamp::now()).await? {
        Some(token) if token.scope == Scope::Agent.as_str() => Ok(secret),
        Some(token) => {
            Err(told(&file, format!("nodes that join get this token, and it may {:?}; agent is enough", token.scope)))
        }
        None => Err(told(&file, "nodes that join get this token, and it is not known, has expired or was revoked")),
    }
}

fn told(path: &Path, why: impl ToString) -> RunError {
    RunError::Told(format!("{}: {}", path.display(), why.to_string()))
}

impl Certifier for SiteAuthority {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn certify(&self, node: &NodeId, site: &SiteId, request_pem: &str) -> Result<Papers, String> {
        let identity = Identity { site: site.clone(), node: node.clone() };
        let certificate = self.authority.sign(&identity, request_pem).map_err(|e| e.to_string())?;
        let authority = self.authority.kept().certificate_pem.clone();
        Ok(Papers { certificate, authority, token: self.agents_token.clone() })
    }
}
