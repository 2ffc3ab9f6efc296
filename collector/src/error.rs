//! What can go wrong, in words that say what the caller can do.

use std::io;
use std::path::PathBuf;

/// Why observing could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// A watched root cannot be opened.
    #[error("cannot watch {root}: {source}; give a directory that exists and that the agent may enter", root = root.display())]
    Root {
        /// Which.
        root: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel does not let us observe at all.
    #[error("the kernel probes cannot be used: {0}; run `foretide doctor`, or let the mount observe instead")]
    Kernel(String),
    /// Changes cannot be heard.
    #[error(
        "changes at the source cannot be heard: {0}; they are noticed when directories are listed again. Start as root, or with CAP_SYS_ADMIN"
    )]
    Changes(io::Error),
    /// The spool directory fails.
    #[error("the spool {path} cannot be used: {source}; check that the agent may write there and that the disk has room", path = path.display())]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A recorded trace cannot be read.
    #[error("{path}: {what}; give a file made by `foretide trace record`", path = path.display())]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why, with the line where there is one.
        what: String,
    },
    /// A batch cannot be encoded.
    #[error(transparent)]
    Batch(#[from] crate::parquet::BatchError),
}
