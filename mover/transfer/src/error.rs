//! Why a transfer failed, in words that say what the caller can do.

use foretide_flow::{FilePath, Refusal, VolumeId};

/// Why a transfer failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransferError {
    /// The peer cannot be reached, after bounded retries.
    #[error("{peer} cannot be reached: {why}; check its address and that its agent runs")]
    Unreachable {
        /// Its address.
        peer: String,
        /// The last error.
        why: String,
    },
    /// The connection broke during the request: trying again may help.
    #[error("the connection to {peer} broke: {why}")]
    Disconnected {
        /// Its address.
        peer: String,
        /// The last error.
        why: String,
    },
    /// Either side does not know the other's token.
    #[error("{peer} and this agent do not share a token: give both the same one")]
    Token {
        /// The peer.
        peer: String,
    },
    /// A certificate or key that cannot be used.
    #[error("TLS {what} cannot be used: {why}")]
    Tls {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
    /// The peer speaks another protocol.
    #[error("{peer} speaks protocol {theirs}, this agent {ours}: update the older of the two")]
    Version {
        /// The peer.
        peer: String,
        /// Its protocol.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// No peer is known that serves the volume.
    #[error("no agent is known that serves volume {0}: start one at its source")]
    NoSource(VolumeId),
    /// No such file (any more).
    #[error("{path} is not in volume {volume} at the source")]
    NotFound {
        /// Volume.
        volume: VolumeId,
        /// File.
        path: FilePath,
    },
    /// The source has another version by now.
    #[error("{path} has changed at the source: look it up again")]
    Changed {
        /// File.
        path: FilePath,
    },
    /// A residency rule forbids it.
    #[error("rule {:?} forbids {} of volume {} at site {} (refused by the {})", .0.rule, .0.path, .0.volume, .0.to, .0.by)]
    Refused(Box<Refusal>),
    /// A giver has not got it: the next one, or the source, is asked.
    #[error("{peer} does not hold {path}")]
    NotHeld {
        /// The peer.
        peer: String,
        /// File.
        path: FilePath,
    },
    /// The agent at the source may not read it.
    #[error("{peer} may not read {path} at the source: {why}; let its agent read it, or give it keys that can")]
    Denied {
        /// The peer.
        peer: String,
        /// File or directory.
        path: FilePath,
        /// The source's word.
        why: String,
    },
    /// The source could not read it.
    #[error("{peer} cannot give {path}: {why}")]
    Source {
        /// The peer.
        peer: String,
        /// File.
        path: FilePath,
        /// Its word.
        why: String,
    },
    /// Bytes that are not what their id says.
    #[error("{peer} sent wrong bytes for chunk {chunk} of {path}: nothing was stored; check that agent and its disk")]
    WrongBytes {
        /// The peer.
        peer: String,
        /// File.
        path: FilePath,
        /// Chunk.
        chunk: u32,
    },
    /// Something that the protocol does not allow.
    #[error("{peer} broke the protocol: {why}")]
    Protocol {
        /// The peer.
        peer: String,
        /// What.
        why: String,
    },
    /// This site's store could not take it.
    #[error("the store: {0}")]
    Store(String),
    /// The address to listen on, or a volume's folder, cannot be used.
    #[error("cannot serve {what}: {why}")]
    Serve {
        /// Address or volume.
        what: String,
        /// Why.
        why: String,
    },
    /// It was cancelled, or the mover is being shut down.
    #[error("cancelled")]
    Cancelled,
}

impl TransferError {
    /// Whether the same request may succeed if tried again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Disconnected { .. } | Self::Unreachable { .. })
    }

    /// Whether no request to this peer can succeed until somebody changes a token or updates an agent.
    pub(crate) fn is_hopeless(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Version { .. })
    }
}
