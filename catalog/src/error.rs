//! What can go wrong, and what the caller can do about it.

use std::path::PathBuf;

use crate::limits;

/// Why a call did nothing.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The named thing is not written down, or no longer.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What was looked for, such as `warm-up`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An idempotency key came back with another request.
    #[error("idempotency key {key:?} was used for another request: send the same body, or a new key")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// A state does not follow from the one before, or is not true yet.
    #[error("{what} {name:?}: {why}")]
    Refused {
        /// What was to change.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why it may not.
        why: String,
    },
    /// A bound of [`limits`](crate::limits) is reached.
    #[error("{what}: more than {limit}; {remedy}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The database file or server is not what it should be. Retrying does not help.
    #[error("catalog {}: {why}; {remedy}", place.display())]
    Unusable {
        /// The file, or the server without its password.
        place: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The store does not answer, or is too busy. Retrying later may help.
    #[error("catalog is not available: {0}; try again, and see that its disk has room and its server is up")]
    Unavailable(String),
    /// A stored value does not read back: it is damaged, or from a newer version.
    #[error("stored {what} {name:?} does not read back: {why}; it was left as it is")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// Its name.
        name: String,
        /// What the decoder said.
        why: String,
    },
}

impl CatalogError {
    /// For a thing that is not there.
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub(crate) fn tags_full() -> Self {
        let remedy = "tag a directory above instead of each file";
        Self::Full { what: "tagged paths", limit: limits::TAGGED_PATHS, remedy }
    }
}
