//! Where a copy comes from: an agent, or a source that is served to this process alone.

use std::collections::BTreeMap;
use std::path::Path;

use foretide_chunk::DomainKey;
use foretide_flow::{Entry, FilePath, MoveId, NodeId, SiteId, VolumeId};
use foretide_transfer::{
    Borders, Bucket, Credentials, Identity, LocalDirectory, Manners, Server, ServerConfig, Source, Token, TransferError,
};

use super::Options;
use crate::config::{self, AgentConfig};
use crate::run::{RunError, agent};

/// As whom agents are asked.
pub enum Caller<'a> {
    /// This node's own agent, as its configuration has it.
    Agent(&'a Path),
    /// Somebody at a site, by the token alone.
    Somebody { token_file: &'a Path, site: &'a SiteId },
}

impl<'a> Caller<'a> {
    /// What the options say.
    pub fn of(options: &'a Options) -> Self {
        match &options.config {
            Some(config) => Self::Agent(config),
            None => Self::Somebody { token_file: &options.token_file, site: &options.site },
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        let remedy = "if agents show each other certificates there, name this node's configuration with --config";
        matches!(self, Self::Somebody { .. }).then_some(remedy)
    }

    fn introduced(&self) -> Result<(Identity, Credentials), RunError> {
        match *self {
            Self::Agent(config) => {
                let config: AgentConfig = config::read(config)?;
                let credentials = agent::credentials(&config)?;
                Ok((Identity { site: config.site, node: config.node }, credentials))
            }
            Self::Somebody { token_file, site } => {
                let token = std::fs::read_to_string(token_file).map_err(|e| {
                    let remedy =
                        "--token-file names the agents' token, --config the configuration of this node's agent";
                    told(&token_file.display().to_string(), format!("{e}; {remedy}"))
                })?;
                Ok((nobody_at(site.clone()), Token::new(token.trim()).into()))
            }
        }
    }
}

/// A caller that is no agent.
fn nobody_at(site: SiteId) -> Identity {
    Identity { site, node: NodeId::new("copy").expect("a name") }
}

/// A place to copy from, ready to be asked.
pub struct Origin {
    /// Whom to ask.
    pub address: String,
    /// As whom.
    pub identity: Identity,
    /// And what is shown for it.
    pub credentials: Credentials,
    /// For which volume.
    pub volume: VolumeId,
    /// And what of it.
    pub base: FilePath,
    /// What may help if nobody answers.
    remedy: Option<&'static str>,
    /// Stops when dropped.
    _server: Option<Server>,
}

fn told(source: &str, why: impl std::fmt::Display) -> RunError {
    RunError::Told(format!("{source}: {why}"))
}

impl Origin {
    /// Opens what `source` names.
    ///
    /// # Errors
    /// If it names nothing that can be read.
    pub async fn open(source: &str, caller: &Caller<'_>, manners: Manners) -> Result<Self, RunError> {
        if let Some(rest) = source.strip_prefix("foretide://") {
            return match manners.rate {
                Some(_) => Err(told(source, "its agent chooses the rate (source.rate); leave out --rate")),
                None => Self::agent(source, rest, caller),
            };
        }
        if source.contains("://") {
            return Self::served(manners.paced(Box::new(Bucket::open(source, &BTreeMap::new())?)), FilePath::root())
                .await;
        }
        let at = Path::new(source);
        if at.is_dir() {
            return Self::served(manners.wrap(Box::new(LocalDirectory::open(at)?)), FilePath::root()).await;
        }
        let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else {
            return Err(told(source, "no such file"));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let name = FilePath::root().join(std::os::unix::ffi::OsStrExt::as_bytes(name)).map_err(|e| told(source, e))?;
        Self::served(manners.wrap(Box::new(LocalDirectory::open(folder)?)), name).await
    }

    fn agent(source: &str, rest: &str, caller: &Caller<'_>) -> Result<Self, RunError> {
        let usage = "use foretide://host:port/volume or foretide://host:port/volume/path";
        let (address, rest) = rest.split_once('/').ok_or_else(|| told(source, usage))?;
        let (volume, base) = rest.split_once('/').unwrap_or((rest, ""));
        let (identity, credentials) = caller.introduced()?;
        let base = base.trim_end_matches('/');
        Ok(Self {
            address: address.to_owned(),
            identity,
            credentials,
            remedy: caller.remedy(),
            volume: VolumeId::new(volume).map_err(|e| told(source, format!("{e}; {usage}")))?,
            base: if base.is_empty() {
                FilePath::root()
            } else {
                FilePath::parse(base).map_err(|e| told(source, e))?
            },
            _server: None,
        })
    }

    async fn served(source: Box<dyn Source>, base: FilePath) -> Result<Self, RunError> {
        let secret: [u8; 32] = rand::random();
        let token = Token::new(&secret.map(|b| format!("{b:02x}")).concat());
        let volume = VolumeId::new("source").expect("a name");
        let config = ServerConfig { listen: ([127, 0, 0, 1], 0).into(), ..ServerConfig::default() };
        let borders = Borders::new(Default::default(), Default::default());
        let volumes = vec![(volume.clone(), source)];
        let server = Server::start(config, DomainKey::default(), token.clone(), volumes, borders).await?;
        let (address, identity) = (server.address().to_string(), nobody_at(SiteId::new("copy").expect("a name")));
        Ok(Self { address, identity, credentials: token.into(), volume, base, remedy: None, _server: Some(server) })
    }

    /// Why nothing could be asked, with what may help.
    pub fn explained(&self, why: RunError) -> RunError {
        match (why, self.remedy) {
            (RunError::Transfer(e @ TransferError::Unreachable { .. }), Some(remedy)) => {
                RunError::Told(format!("{e}; {remedy}"))
            }
            (why, _) => why,
        }
    }

    /// What the move of a file is called.
    pub fn move_id(&self, entry: &Entry) -> MoveId {
        MoveId::from(entry.path.to_string().as_str())
    }
}
