//! What the API needs of other rooms. It imports none of them: the binary plugs each in.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use foretide_catalog::ResidentFile;
use foretide_flow::{Listing, Mode, NodeId, OutcomeBatch, Ruleset, Topology};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What every site may know: topology and rules as they hold now.
pub trait Directory: Send + Sync {
    /// Sites, links, volumes.
    fn topology(&self) -> Arc<Topology>;

    /// Which data may be where.
    fn rules(&self) -> Arc<Ruleset>;

    /// How far Foretide acts on its own forecasts.
    fn mode(&self) -> Mode;
}

/// An access batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Its number.
    pub sequence: u64,
    /// Accesses in it.
    pub accesses: u64,
    /// False if it had been taken before; nothing changed then.
    pub new: bool,
}

/// Why an access batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It does not decode, or holds what cannot be. Sending it again does not help.
    #[error("the access batch of node {node} cannot be used: {why}")]
    Unusable {
        /// Who sent it.
        node: NodeId,
        /// What is wrong.
        why: String,
    },
    /// It says that it comes from another node than the one that sent it.
    #[error("node {sent_by} sent an access batch that says it is of node {says}")]
    OtherNode {
        /// Who sent it.
        sent_by: NodeId,
        /// What it says.
        says: NodeId,
    },
    /// It could not be written down now. The agent keeps it and sends it again.
    #[error("the access batch could not be kept: {0}")]
    TryAgain(String),
}

/// Takes access batches: decodes them, keeps them in the lake, hands them to the model.
#[async_trait]
pub trait AccessSink: Send + Sync {
    /// Takes one batch as the agent's Parquet. After `Ok` it is durable (promise E); one that comes twice counts
    /// once.
    ///
    /// # Errors
    /// [`Rejected`].
    async fn accept(&self, node: &NodeId, parquet: Bytes) -> Result<Accepted, Rejected>;
}

/// Is told what agents reported, once it is written down.
#[async_trait]
pub trait Listener: Send + Sync {
    /// Directories became known.
    async fn listings(&self, listings: Vec<Listing>);

    /// Moves ended, files were read or evicted; `resident` are the files of the batch's site of which more or less is
    /// there than before. Not called for a batch that came before.
    async fn outcomes(&self, batch: OutcomeBatch, resident: Vec<ResidentFile>);
}
