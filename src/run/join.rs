//! `foretide join`: makes this node one of the installation's, by a token that is good for that once.
//!
//! The token says which node and site it was made for, to the control plane; and to this node by the digest of the
//! authority's certificate whom to trust. So the first contact is as safe as the channel by which the token came: a server
//! that cannot show that it belongs to that authority is told nothing. The key is made here and stays here.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use foretide_api::{JoinRequest, Joined};
use foretide_flow::NodeId;
use foretide_transfer::{Identity, Issued, Requested, Tls};

use super::RunError;
use super::certify::{PUBLIC, SECRET, write_new};
use crate::client::ControlClient;
use crate::config::{self, AgentConfig, TlsConfig};
use crate::tls::{self, Authorities, Trust};

/// Options of `foretide join`.
#[derive(Args, Debug)]
pub struct Options {
    /// The control plane's address: https.
    #[arg(long, env = "FORETIDE_CONTROL")]
    server: String,
    /// What `foretide token join` printed.
    #[arg(long, env = "FORETIDE_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// This node's name, if it is neither in the configuration nor that of the host.
    #[arg(long)]
    node: Option<NodeId>,
    /// The agent's configuration, written if it is not there.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/agent.toml")]
    config: PathBuf,
    /// Folder of the agent's state, where the configuration is written.
    #[arg(long, default_value = "/var/lib/foretide/agent")]
    state: PathBuf,
}

/// Where a node's papers lie.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    tls: TlsConfig,
    token: PathBuf,
}

impl Places {
    /// Where the configuration says, or beside it.
    fn of(path: &Path, config: Option<&AgentConfig>) -> Self {
        let folder = path.parent().unwrap_or(Path::new("."));
        let beside = || TlsConfig {
            authority: folder.join("authority.pem"),
            certificate: folder.join("agent.pem"),
            key: folder.join("agent.key"),
        };
        let tls = config.and_then(|config| config.tls.clone()).unwrap_or_else(beside);
        Self { tls, token: config.map_or_else(|| folder.join("agents.token"), |config| config.token_file.clone()) }
    }

    /// What must not be there yet: nothing that a running agent uses is changed, and no token spent in vain.
    fn taken(&self) -> Option<&Path> {
        [&self.tls.key, &self.tls.certificate, &self.token].into_iter().map(PathBuf::as_path).find(|path| path.exists())
    }
}

/// Runs it.
///
/// # Errors
/// A token that is none, a control plane that is not the authority's or refuses, files that are there already.
pub async fn run(options: Options) -> Result<(), RunError> {
    if !options.server.starts_with("https://") {
        return Err(RunError::Told(format!("{}: a node joins over https alone", options.server)));
    }
    let (secret, fingerprint) = parse_token(&options.token)?;
    let known: Option<AgentConfig> = if options.config.exists() { Some(config::read(&options.config)?) } else { None };
    let places = Places::of(&options.config, known.as_ref());
    if let Some(path) = places.taken() {
        return Err(RunError::Told(format!(
            "{} is there already; remove it if this node is to join anew",
            path.display()
        )));
    }
    let node =
        options.node.or_else(|| known.as_ref().map(|c| c.node.clone())).unwrap_or_else(config::named_like_the_host);
    let asked = Requested::new()?;
    let trust = Trust { authorities: Authorities::Pinned(fingerprint), own: None };
    let control = ControlClient::with_token(&options.server, secret.to_owned(), &trust)?;
    let request = JoinRequest { node, site: known.as_ref().map(|c| c.site.clone()), request: asked.request_pem };
    let joined = control.join(&request).await?;
    check(&joined, &asked.key_pem, &fingerprint)?;
    write(&places, &joined, &asked.key_pem)?;
    println!(
        "{} at {} has joined: its certificate is in {}",
        joined.node,
        joined.site,
        places.tls.certificate.display()
    );
    match known {
        None => {
            write_new(&options.config, &agent_toml(&options.server, &options.state, &joined, &places), PUBLIC)?;
            println!(
                "written: {}; say there what it serves or caches, then `foretide agent`",
                options.config.display()
            );
        }
        Some(config) if config.tls.is_none() => {
            println!("add to {}:\n\n{}", options.config.display(), tls_toml(&places.tls));
        }
        Some(_) => {}
    }
    Ok(())
}

/// The secret and the digest of the authority's certificate, with a dot between.
fn parse_token(token: &str) -> Result<(&str, [u8; 32]), RunError> {
    let parts = token.trim().split_once('.').and_then(|(secret, digest)| Some((secret, tls::unhex(digest)?)));
    parts.ok_or_else(|| {
        RunError::Told("this is no join token: give what `foretide token join` printed, all of it".into())
    })
}

/// What came is what was asked for: of the authority that the token named, and for this key.
fn check(joined: &Joined, key_pem: &str, fingerprint: &[u8; 32]) -> Result<(), RunError> {
    if tls::fingerprint(&joined.authority).ok().as_ref() != Some(fingerprint) {
        return Err(RunError::Told("the control plane answered with another authority than the token names".into()));
    }
    let own = Issued { certificate_pem: joined.certificate.clone(), key_pem: key_pem.to_owned() };
    let identity = Identity { site: joined.site.clone(), node: joined.node.clone() };
    Tls::new(&joined.authority, &own, &identity)?;
    Ok(())
}

fn write(places: &Places, joined: &Joined, key_pem: &str) -> Result<(), RunError> {
    let TlsConfig { authority, certificate, key } = &places.tls;
    for folder in [authority, certificate, key, &places.token].into_iter().filter_map(|path| path.parent()) {
        fs::create_dir_all(folder)?;
    }
    write_new(key, key_pem, SECRET)?;
    write_new(&places.token, &joined.token, SECRET)?;
    write_new(certificate, &joined.certificate, PUBLIC)?;
    // Of one authority all have the same.
    if fs::read_to_string(authority).ok().as_ref() != Some(&joined.authority) {
        write_new(authority, &joined.authority, PUBLIC)?;
    }
    Ok(())
}

fn tls_toml(tls: &TlsConfig) -> String {
    let line = |name: &str, path: &Path| format!("{name} = {:?}\n", path.display().to_string());
    format!(
        "[tls]\n{}{}{}",
        line("authority", &tls.authority),
        line("certificate", &tls.certificate),
        line("key", &tls.key)
    )
}

fn agent_toml(server: &str, state: &Path, joined: &Joined, places: &Places) -> String {
    format!(
        "node = \"{}\"\nsite = \"{}\"\ncontrol = {server:?}\ntoken_file = {:?}\nstate = {:?}\n\n{}",
        joined.node,
        joined.site,
        places.token.display().to_string(),
        state.display().to_string(),
        tls_toml(&places.tls)
    )
}

#[cfg(test)]
mod tests {
    use foretide_flow::SiteId;

    use super::*;

    #[test]
    fn a_join_token_is_a_secret_and_a_digest() {
        let digest = "ab".repeat(32);
        let token = format!("ft_12.{digest}\n");
        assert_eq!(parse_token(&token).unwrap(), ("ft_12", [0xab; 32]));
        for bad in ["", "ft_12", "ft_12.", "ft_12.abcd", &format!("ft_12.{}", "zz".repeat(32))] {
            assert!(parse_token(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_configuration_that_is_written_is_one() {
        let joined = Joined {
            node: NodeId::new("gpu-1").unwrap(),
            site: SiteId::new("gpu").unwrap(),
            certificate: String::new(),
            authority: String::new(),
            token: String::new(),
        };
        let places = Places::of(Path::new("/etc/foretide/agent.toml"), None);
        let text = agent_toml("https://control:7700", Path::new("/var/lib/foretide/agent"), &joined, &places);
        let read: AgentConfig = toml::from_str(&text).unwrap();
        assert_eq!((read.node.as_str(), read.site.as_str()), ("gpu-1", "gpu"));
        assert_eq!(Places::of(Path::new("/etc/foretide/agent.toml"), Some(&read)), places);
        assert_eq!(read.tls.unwrap().key, Path::new("/etc/foretide/agent.key"));
    }
}
