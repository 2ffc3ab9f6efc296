//! Observing: the collector's batches go to the control plane in order, each until it is taken.
//!
//! The kernel is asked first. Where it refuses, the mount is the collector, and the agent says so.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use foretide_collector::source::Feed;
use foretide_collector::{Collector, CollectorError, WatchedVolume};
use foretide_flow::{AccessOp, NodeId};
use foretide_mount::MountEvent;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::attribution::Shared;
use super::ship::insist;
use crate::client::ControlClient;
use crate::config::AgentConfig;
use crate::run::RunError;

/// Longest wait for a batch.
const BATCH_WAIT: Duration = Duration::from_millis(500);

/// Starts to observe and to ship; what observes, if anything can.
///
/// # Errors
/// If the spool's folder or a watched root cannot be used.
pub fn start(
    config: &AgentConfig,
    watched: Vec<WatchedVolume>,
    mount: Option<MountEvents>,
    control: &ControlClient,
    attribution: &Shared,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<Collector>>, RunError> {
    let settings = foretide_collector::Config {
        tier: config.trace.tier,
        numbers: config.trace.numbers,
        ..foretide_collector::Config::new(config.node.clone(), config.site.clone(), config.state.join("spool"))
    };
    let collector = match Collector::start(settings.clone(), watched) {
        Ok((collector, report)) => {
            tracing::info!("observing by eBPF\n{report}");
            collector
        }
        Err(CollectorError::Kernel(why)) => {
            let Some(events) = mount else {
                tracing::warn!("nothing is observed here: the kernel refuses ({why}) and there is no mount");
                return Ok(None);
            };
            tracing::warn!("observing through the mount alone: the kernel refuses ({why})");
            let (feed, source) = foretide_collector::source::feed();
            tasks.spawn(pass_on(events, feed));
            Collector::start_from(settings, Box::new(source))?
        }
        Err(error) => return Err(error.into()),
    };
    let collector = Arc::new(collector);
    tasks.spawn(ship(Arc::clone(&collector), control.clone(), Arc::clone(attribution), config.node.clone()));
    Ok(Some(collector))
}

/// What the mount sees, as it happens.
pub type MountEvents = mpsc::Receiver<MountEvent>;

async fn pass_on(mut events: MountEvents, feed: Feed) {
    while let Some(e) = events.recv().await {
        match e.op {
            AccessOp::Open | AccessOp::Create => feed.opened(e.process, &e.volume, &e.path),
            AccessOp::Read | AccessOp::Fault => {
                feed.read(e.process, (&e.volume, &e.path), (e.offset, e.length), e.blocked_us, e.found);
            }
            AccessOp::Close => feed.closed(e.process, &e.volume, &e.path),
        }
    }
}

/// The collector blocks on its spool's disk, so it is asked on threads that may.
async fn ship(collector: Arc<Collector>, control: ControlClient, attribution: Shared, node: NodeId) {
    loop {
        let asked = Arc::clone(&collector);
        let next = tokio::task::spawn_blocking(move || asked.next_batch(BATCH_WAIT)).await;
        let batch = match next {
            Ok(Ok(Some(batch))) => batch,
            Ok(Ok(None)) => continue,
            Ok(Err(error)) => {
                tracing::error!(%error, "the spool cannot be read; accesses wait in it");
                tokio::time::sleep(BATCH_WAIT * 10).await;
                continue;
            }
            Err(_) => return,
        };
        attribution.lock().unwrap_or_else(PoisonError::into_inner).learn(batch.processes());
        insist("accesses", || control.send_accesses(&node, batch.bytes().clone())).await;
        let (asked, sequence) = (Arc::clone(&collector), batch.sequence());
        let acknowledged = tokio::task::spawn_blocking(move || asked.acknowledge(sequence)).await;
        if let Ok(Err(error)) = acknowledged {
            tracing::error!(%error, "a batch stays in the spool and will be sent again");
        }
    }
}
