//! What the subcommands do: rooms put together, nothing decided.

pub mod advise;
pub mod agent;
pub mod cache;
pub mod certify;
pub mod copy;
pub mod demo;
pub mod doctor;
pub mod evaluate;
pub mod find;
pub mod import;
pub mod join;
pub mod k8s;
pub mod link;
pub mod mount;
mod notify;
pub mod plan;
pub mod policy;
pub mod profile;
pub mod serve;
pub mod simulate;
pub mod slurm;
pub mod status;
pub mod tag;
pub mod token;
pub mod trace;
pub mod volume;
pub mod warm;
pub mod whereis;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::ClientError;
use crate::config::ConfigError;

/// Why a command failed: one line that names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// A certificate, or its key.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] foretide_catalog::CatalogError),
    /// The control plane's loop.
    #[error(transparent)]
    Ring(#[from] serve::RingError),
    /// The collector.
    #[error(transparent)]
    Collector(#[from] foretide_collector::CollectorError),
    /// The model, or a trace that it was to read.
    #[error(transparent)]
    Model(#[from] foretide_model::ModelError),
    /// The chunk store.
    #[error(transparent)]
    Store(#[from] foretide_chunk::StoreError),
    /// Transfers.
    #[error(transparent)]
    Transfer(#[from] foretide_transfer::TransferError),
    /// The mount.
    #[error(transparent)]
    Mount(#[from] foretide_mount::MountError),
    /// The demo.
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Whatever else, in words.
    #[error("{0}")]
    Told(String),
}

/// Ends with the first SIGINT, SIGTERM or SIGHUP from now on, whenever it is waited for.
pub fn until_signal() -> impl Future<Output = ()> + Send {
    until_one_of([SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
}

/// The same for SIGINT and SIGTERM alone: where SIGHUP means something else.
pub fn until_told_to_end() -> impl Future<Output = ()> + Send {
    until_one_of([SignalKind::interrupt(), SignalKind::terminate()])
}

fn until_one_of(kinds: impl IntoIterator<Item = SignalKind>) -> impl Future<Output = ()> + Send {
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    async move {
        let waits = signals.iter_mut().map(|s| Box::pin(s.recv()));
        futures::future::select_all(waits).await;
    }
}
