//! Chunks from agent to agent (skeleton of the public face; bodies follow in the next commits).
//!
//! A mount uses three things: [`Mover::list`] and [`Mover::stat`] for metadata, [`Mover::read`] for bytes that
//! may have to be fetched, and `foretide_chunk::Store::{lookup, open_whole, note_read}` for what is here.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use foretide_chunk::{FileKey, Store};
use foretide_flow::{
    Assignment, Entry, FilePath, Found, Listing, Outcome, Priority, Refusal, Ruleset, SiteId, Topology, VolumeId,
};
use tokio::sync::mpsc;

/// Why a transfer failed, in words that say what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransferError {
    /// The peer cannot be reached, after bounded retries.
    #[error("{peer} cannot be reached: {why}")]
    Unreachable {
        /// Its address.
        peer: String,
        /// The last error.
        why: String,
    },
    /// No such file (any more).
    #[error("{path} is not in volume {volume} at the source")]
    NotFound {
        /// Volume.
        volume: VolumeId,
        /// File.
        path: FilePath,
    },
    /// The source has another version by now: stat again.
    #[error("{path} has changed at the source: look it up again")]
    Changed {
        /// File.
        path: FilePath,
    },
    /// A residency rule forbids it.
    #[error("rule {rule} forbids {path} at {to}", rule = .0.rule, path = .0.path, to = .0.to)]
    Refused(Box<Refusal>),
}

/// Rules and topology as they stand, shared by sender and receiver; replaced when the control plane tells.
#[derive(Debug, Default)]
pub struct Borders {}

impl Borders {
    /// From what the control plane said.
    pub fn new(_rules: Ruleset, _topology: Topology) -> Arc<Self> {
        unfilled()
    }

    /// Takes new rules.
    pub fn replace(&self, _rules: Ruleset, _topology: Topology) {
        unfilled()
    }
}

/// A running server of source volumes; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Serves local directories as volumes.
    ///
    /// # Errors
    /// [`TransferError`] if the address is taken or a volume's folder cannot be read.
    pub async fn start(
        _listen: SocketAddr,
        _volumes: Vec<(VolumeId, PathBuf)>,
        _token: &str,
        _borders: Arc<Borders>,
    ) -> Result<Self, TransferError> {
        unfilled()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Bytes of a file, as asked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// From the asked offset; shorter than asked only at the file's end.
    pub bytes: Bytes,
    /// `Hit`: was here; `Late`: was on its way; `Miss`: nobody had asked.
    pub found: Found,
}

/// Brings chunks to this site's store: moves as planned, demand reads at once.
#[derive(Debug)]
pub struct Mover {}

fn unfilled() -> ! {
    panic!("the mover's bodies follow in the next commits")
}

impl Mover {
    /// A mover for `site`; what it brings about is told on `outcomes`.
    pub fn new(
        _site: SiteId,
        _store: Arc<Store>,
        _borders: Arc<Borders>,
        _outcomes: mpsc::Sender<Outcome>,
    ) -> Arc<Self> {
        unfilled()
    }

    /// Whom to ask for a volume; called again when the peer's address changes.
    pub fn set_source(&self, _volume: &VolumeId, _address: SocketAddr) {
        unfilled()
    }

    /// Takes what the control plane assigned.
    pub fn take(&self, _assignment: Assignment) {
        unfilled()
    }

    /// One directory at the source, complete.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn list(&self, _volume: &VolumeId, _directory: &FilePath) -> Result<Listing, TransferError> {
        unfilled()
    }

    /// One name at the source.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn stat(&self, _volume: &VolumeId, _path: &FilePath) -> Result<Entry, TransferError> {
        unfilled()
    }

    /// Bytes of a file version, from the store or fetched now (joins a move that is bringing them). If the store
    /// cannot take them they are handed out all the same (promise A).
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn read(&self, _key: &FileKey, _range: Range<u64>) -> Result<Answer, TransferError> {
        unfilled()
    }

    /// Asks for bytes without waiting for them: a reader's read-ahead.
    pub fn want(&self, _key: &FileKey, _range: Range<u64>, _priority: Priority) {
        unfilled()
    }

    /// The store that it fills.
    pub fn store(&self) -> &Arc<Store> {
        unfilled()
    }
}
