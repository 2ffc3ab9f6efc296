//! `foretide k8s`: an admission check for Kueue, and an extender for kube-scheduler.
//!
//! A job says in annotations of its pods what it will read ([`wish`]). The admission check asks for a warm-up before Kueue
//! lets the job in, holds it back as far as the job wants to wait, and says where the data is by a node selector. The
//! extender ranks nodes by the site that they stand at, for pods that say the same.
//!
//! Both fail open (promise A): a job whose wish cannot be understood, or whose control plane does not answer, runs as it would
//! have run without them, and the message of its check says so.
//!
//! The controller is level-triggered: each round looks at every workload and asks for each wish again under the same
//! idempotency key, which is asking how far it is. A watch only says when the next round is due, so nothing is lost with it.

mod admission;
mod cluster;
mod extender;
mod wish;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use self::admission::Controller;
use self::cluster::Cluster;
use self::extender::Extender;
use super::RunError;
use crate::cli::ControlOptions;

/// Options of `foretide k8s`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// The label of a node that names the site at which it stands.
    #[arg(long, global = true, env = "FORETIDE_SITE_LABEL", default_value = "foretide.dev/site")]
    site_label: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Answer Kueue's admission checks whose controller is `foretide.dev/warm-up`.
    Admission {
        /// Address of the kube-apiserver, such as that of `kubectl proxy`; that of the cluster this runs in if absent.
        #[arg(long, env = "FORETIDE_KUBE")]
        kube: Option<String>,
        /// A file with the token for it.
        #[arg(long)]
        kube_token_file: Option<PathBuf>,
        /// Name of this cluster, so that workloads of two clusters stay apart.
        #[arg(long, default_value = "kubernetes")]
        cluster: String,
    },
    /// Serve kube-scheduler as an extender: `POST /filter` and `POST /prioritize`.
    Extender {
        /// Where it listens.
        #[arg(long, default_value = "0.0.0.0:7788")]
        listen: SocketAddr,
    },
}

/// Runs until a signal.
///
/// # Errors
/// If the kube-apiserver or the control plane cannot be meant, or the port is taken.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    match options.what {
        What::Admission { kube, kube_token_file, cluster } => {
            let kube = match kube {
                Some(address) => Cluster::at(&address, kube_token_file),
                None => Cluster::around_us(),
            }
            .map_err(RunError::Told)?;
            let controller = Controller::new(kube, control, cluster, options.site_label);
            tokio::select! {
                () = controller.turn() => Ok(()),
                () = super::until_signal() => Ok(()),
            }
        }
        What::Extender { listen } => {
            let listener = tokio::net::TcpListener::bind(listen).await.map_err(|e| {
                std::io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}; choose another with --listen"))
            })?;
            tracing::info!(%listen, "waiting for kube-scheduler");
            let app = extender::router(Arc::new(Extender::new(control, options.site_label)));
            Ok(axum::serve(listener, app).with_graceful_shutdown(super::until_signal()).await?)
        }
    }
}
