//! What the model knows, kept over a restart.
//!
//! A snapshot is `FTMODEL` and a format number, the length of the state, its BLAKE3, the state as JSON. It is
//! written beside the last one and moved over it, and the last one is kept as `model.snapshot.before`: a damaged
//! snapshot falls back to it, and where that is damaged too the caller learns again from the trace lake.

use std::io::Write;
use std::path::Path;

use crate::config::Config;
use crate::error::ModelError;
use crate::model::{Model, State};

const MAGIC: &[u8; 7] = b"FTMODEL";
/// The format that this version writes and reads.
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 4 + 8 + 32;
const NEWEST: &str = "model.snapshot";
const BEFORE: &str = "model.snapshot.before";

/// Which snapshot a model came from.
#[derive(Debug)]
pub enum Loaded {
    /// There was none.
    Nothing,
    /// The newest.
    Newest,
    /// The one before: the newest could not be read, and why.
    Before(ModelError),
    /// None could be read, and why the newest could not: learn again from the trace lake.
    Damaged(ModelError),
}

impl Model {
    /// The state as bytes.
    ///
    /// # Errors
    /// [`ModelError::Damaged`] if the state cannot be written as JSON (a number that is none).
    pub fn snapshot(&self) -> Result<Vec<u8>, ModelError> {
        let state = serde_json::to_vec(&self.state).map_err(|e| ModelError::Damaged { why: e.to_string() })?;
        let mut out = Vec::with_capacity(HEAD_BYTES + state.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(state.len() as u64).to_le_bytes());
        out.extend_from_slice(blake3::hash(&state).as_bytes());
        out.extend_from_slice(&state);
        Ok(out)
    }

    /// A model that knows what the snapshot knew.
    ///
    /// # Errors
    /// [`ModelError::Damaged`], [`ModelError::Version`], or [`ModelError::Setting`] for the settings.
    pub fn restore(config: Config, bytes: &[u8]) -> Result<Self, ModelError> {
        let state = state_of(bytes)?;
        let mut model = Self::new(config)?;
        let mut state: State = serde_json::from_slice(state).map_err(|e| ModelError::Damaged { why: e.to_string() })?;
        for followed in state.live.values_mut() {
            followed.run.reindex();
        }
        model.state = state;
        Ok(model)
    }

    /// Writes the snapshot into a directory, keeping the one before.
    ///
    /// # Errors
    /// What the file system says; [`ModelError::Damaged`] as an I/O error of kind `InvalidData`.
    pub fn save(&self, directory: &Path) -> std::io::Result<()> {
        let bytes = self.snapshot().map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))?;
        let (newest, fresh) = (directory.join(NEWEST), directory.join("model.snapshot.new"));
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        if newest.exists() {
            std::fs::rename(&newest, directory.join(BEFORE))?;
        }
        std::fs::rename(&fresh, &newest)
    }

    /// Reads the newest snapshot of a directory that can be read, or starts anew.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for the settings. Damage is no error: [`Loaded`] tells of it.
    pub fn load(config: Config, directory: &Path) -> Result<(Self, Loaded), ModelError> {
        config.check()?;
        let read = |name: &str| std::fs::read(directory.join(name)).ok();
        let newest = match read(NEWEST).map(|b| Self::restore(config.clone(), &b)) {
            Some(Ok(model)) => return Ok((model, Loaded::Newest)),
            Some(Err(e)) => Some(e),
            None => None,
        };
        let before = read(BEFORE).and_then(|b| Self::restore(config.clone(), &b).ok());
        Ok(match (before, newest) {
            (Some(model), e) => {
                let why = e.unwrap_or(ModelError::Damaged { why: "it is missing".into() });
                (model, Loaded::Before(why))
            }
            (None, Some(e)) => (Self::new(config)?, Loaded::Damaged(e)),
            (None, None) => (Self::new(config)?, Loaded::Nothing),
        })
    }
}

/// The checked state of a snapshot.
fn state_of(bytes: &[u8]) -> Result<&[u8], ModelError> {
    let damaged = |why: &str| ModelError::Damaged { why: why.to_owned() };
    if bytes.len() < HEAD_BYTES || !bytes.starts_with(MAGIC) {
        return Err(damaged("it does not begin like one"));
    }
    let (head, state) = bytes.split_at(HEAD_BYTES);
    let found = u32::from_le_bytes(head[7..11].try_into().unwrap_or_default());
    if found != FORMAT {
        return Err(ModelError::Version { found, known: FORMAT });
    }
    if u64::from_le_bytes(head[11..19].try_into().unwrap_or_default()) != state.len() as u64 {
        return Err(damaged("it is cut short or has more than belongs to it"));
    }
    if blake3::hash(state).as_bytes()[..] != head[19..51] {
        return Err(damaged("its checksum differs"));
    }
    Ok(state)
}
