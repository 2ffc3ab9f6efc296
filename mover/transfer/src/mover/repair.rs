//! Verifying what is here, and fetching again what turned out bad.

use foretide_chunk::{CheckReport, Lost, Subset};

use super::Mover;
use super::fetch::blocking;
use crate::TransferError;

/// What a check found and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was read and hashed, and what of it was dropped.
    pub checked: CheckReport,
    /// Chunks that were fetched again.
    pub fetched: u64,
    /// The first reason for which a chunk could not be: it is fetched when somebody reads it.
    pub left: Option<String>,
}

impl Mover {
    /// Reads and hashes one subset of what is resident; what is corrupt is dropped and fetched from its source again.
    ///
    /// # Errors
    /// [`TransferError::Store`] if the store cannot be checked at all.
    pub async fn repair(&self, subset: Subset) -> Result<Repaired, TransferError> {
        let store = self.store().clone();
        let checked = blocking(move || store.check(subset)).await?;
        let mut repaired =
            Repaired { checked: checked.map_err(|e| TransferError::Store(e.to_string()))?, ..Repaired::default() };
        for Lost { key, bytes } in &repaired.checked.lost {
            match self.ensure(key, bytes.clone()).await {
                Ok(_) => repaired.fetched += 1,
                Err(e) => drop(repaired.left.get_or_insert(e.to_string())),
            }
        }
        Ok(repaired)
    }
}
