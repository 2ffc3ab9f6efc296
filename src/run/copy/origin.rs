//! Where a copy comes from: an agent, or a source that is served to this process alone.

use std::collections::BTreeMap;
use std::path::Path;

use foretide_chunk::DomainKey;
use foretide_flow::{Entry, FilePath, MoveId, VolumeId};
use foretide_transfer::{Borders, Bucket, LocalDirectory, Manners, Server, ServerConfig, Source, Token};

use crate::run::RunError;

/// A place to copy from, ready to be asked.
pub struct Origin {
    /// Whom to ask.
    pub address: String,
    /// With which token.
    pub token: Token,
    /// For which volume.
    pub volume: VolumeId,
    /// And what of it.
    pub base: FilePath,
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
    pub async fn open(source: &str, token_file: &Path, manners: Manners) -> Result<Self, RunError> {
        if let Some(rest) = source.strip_prefix("foretide://") {
            return match manners.rate {
                Some(_) => Err(told(source, "its agent chooses the rate (source.rate); leave out --rate")),
                None => Self::agent(source, rest, token_file),
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

    fn agent(source: &str, rest: &str, token_file: &Path) -> Result<Self, RunError> {
        let usage = "use foretide://host:port/volume or foretide://host:port/volume/path";
        let (address, rest) = rest.split_once('/').ok_or_else(|| told(source, usage))?;
        let (volume, base) = rest.split_once('/').unwrap_or((rest, ""));
        let token = std::fs::read_to_string(token_file).map_err(|e| {
            told(&token_file.display().to_string(), format!("{e}; --token-file names the agents' token"))
        })?;
        let base = base.trim_end_matches('/');
        Ok(Self {
            address: address.to_owned(),
            token: Token::new(token.trim()),
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
        Ok(Self { address: server.address().to_string(), token, volume, base, _server: Some(server) })
    }

    /// What the move of a file is called.
    pub fn move_id(&self, entry: &Entry) -> MoveId {
        MoveId::from(entry.path.to_string().as_str())
    }
}
