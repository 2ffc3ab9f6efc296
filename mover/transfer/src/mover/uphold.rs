//! Rules that changed: what they forbid now stops, and what may no longer rest here leaves, each file with a refusal that
//! names its rule (promise I).

use foretide_chunk::{Expelled, FileKey};
use foretide_flow::{Outcome, Refusal};

use super::fetch::blocking;
use super::{Mover, lock};
use crate::TransferError;

/// What new rules brought about.
#[derive(Debug, Default)]
pub struct Upheld {
    /// Moves that were stopped.
    pub stopped: usize,
    /// Files that left the store.
    pub gone: Vec<FileKey>,
    /// Files that stay until those who read them close them: to be asked again.
    pub in_use: usize,
}

impl Mover {
    /// Upholds the rules as they are now against what is here and on its way. What was asked for before they changed may
    /// arrive a moment later, so ask once more then.
    ///
    /// # Errors
    /// The store's.
    pub async fn uphold(&self) -> Result<Upheld, TransferError> {
        let stopped = self.stop_forbidden();
        let (store, borders) = (self.inner.store.clone(), self.inner.borders.clone());
        let (site, now) = (self.inner.identity.site.clone(), self.inner.now());
        let looked = blocking(move || {
            let mut refusals: Vec<Refusal> = Vec::new();
            let expelled = store.expel(now, |key| match borders.check(&key.volume, &key.path, &site, "receiver") {
                Ok(()) => false,
                Err(refusal) => {
                    refusals.push(*refusal);
                    true
                }
            });
            expelled.map(|expelled| (expelled, refusals))
        });
        let (Expelled { gone, in_use, .. }, refusals) =
            looked.await?.map_err(|e| TransferError::Store(e.to_string()))?;
        let told = refusals.into_iter().map(Outcome::Refused);
        for outcome in stopped.iter().cloned().chain(told) {
            // Nobody listens any more only when the agent ends.
            let _ = self.inner.outcomes.send(outcome).await;
        }
        Ok(Upheld { stopped: stopped.len(), gone, in_use: in_use.len() })
    }

    fn stop_forbidden(&self) -> Vec<Outcome> {
        let inner = &self.inner;
        let mut told = Vec::new();
        lock(&inner.running).retain(|id, running| {
            let Err(refusal) = inner.borders.check(&running.volume, &running.path, &inner.identity.site, "receiver")
            else {
                return true;
            };
            inner.stop(id, running);
            let why = format!("rule {} forbids it now", refusal.rule);
            told.push(Outcome::Failed { id: id.clone(), at: inner.now(), why });
            false
        });
        told
    }
}
