//! What can go wrong, and what the caller can do.

use std::path::PathBuf;

/// Errors of the model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The snapshot is no snapshot, or bytes of it changed.
    #[error("model snapshot is damaged ({why}): start without it and learn again from the trace lake")]
    Damaged {
        /// What does not fit.
        why: String,
    },
    /// Written by a later or long past version.
    #[error("model snapshot has format {found}, this version reads {known}: learn again from the trace lake")]
    Version {
        /// In the file.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// A trace that cannot be read.
    #[error("{path}: {why}: remove the file or write it again", path = path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// A query over traces failed.
    #[error("cannot make a table of the traces: {why}: check that every file is an access batch of this version")]
    Table {
        /// What the query engine says.
        why: String,
    },
    /// Profiles that cannot be read, written or cut.
    #[error("profiles: {why}")]
    Profiles {
        /// What is wrong.
        why: String,
    },
    /// A number in the configuration that cannot be meant.
    #[error("model setting {name} = {value} is not possible: {remedy}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        remedy: &'static str,
    },
}
