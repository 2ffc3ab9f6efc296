//! Keeps a watch open at a peer, and says of each listing whether a live watch tells what changes in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foretide_flow::{Listing, Priority};
use tokio::sync::mpsc;

use super::connection::Event;
use super::{Client, FIRST_BACKOFF, LAST_BACKOFF, Pool, jitter};
use crate::TransferError;
use crate::message::{Change, Request, changes};

/// Whether what was told is still being kept up to date. It ends before anybody hears that the watch is lost.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Option<Arc<AtomicBool>>);

impl Liveness {
    /// Of a watch that lives while `flag` is true.
    pub fn of(flag: Arc<AtomicBool>) -> Self {
        Self(Some(flag))
    }

    /// Whether changes are told up to now.
    pub fn is_live(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

/// A directory, and whether its changes are told.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Complete, as it was when it was asked for.
    pub listing: Listing,
    /// Whether changes since are told.
    pub live: Liveness,
    /// Small directories right below it, complete as well, which nobody asked for.
    pub below: Vec<(Listing, Liveness)>,
}

/// The watch that is open now: its number at the peer, and whether it lives.
#[derive(Debug, Default)]
pub(super) struct OpenWatch(Mutex<Option<(u32, Arc<AtomicBool>)>>);

impl OpenWatch {
    /// Of a listing that says it is told of by watch `number`.
    pub(super) fn liveness(&self, number: u32) -> Liveness {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .filter(|(n, _)| *n == number && number != 0)
            .map(|(_, f)| Liveness::of(f.clone()))
            .unwrap_or_default()
    }

    fn begin(&self, number: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, Arc::new(AtomicBool::new(true))));
    }

    /// Whether one was open.
    fn end(&self) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended.inspect(|(_, flag)| flag.store(false, Ordering::Release)).is_some()
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Said {
    /// These changed.
    Changed(Vec<Change>),
    /// The watch is lost: from here on nothing is told of what was listed before.
    Lost,
}

impl Client {
    /// Keeps a watch open as long as this client lives and somebody listens.
    pub(crate) fn watch(&self, said: mpsc::Sender<Said>) {
        let pool = self.shared.clone();
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        watching.spawn(async move { pool.keep_watching(said).await });
    }
}

impl Pool {
    async fn keep_watching(&self, said: mpsc::Sender<Said>) {
        let mut backoff = FIRST_BACKOFF;
        while !said.is_closed() {
            let ended = self.watch_once(&said).await;
            if self.watch.end() {
                backoff = FIRST_BACKOFF;
                if said.send(Said::Lost).await.is_err() {
                    return;
                }
            }
            tracing::debug!(peer = %self.address, ?ended, "no watch is open");
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    async fn watch_once(&self, said: &mpsc::Sender<Said>) -> Result<(), TransferError> {
        let mut incoming = self.ask(&Request::Watch, Priority::Demand, 0).await?;
        let broken = |why: String| TransferError::Protocol { peer: self.address.clone(), why };
        loop {
            match incoming.next().await {
                Event::Changed { watch, record } if record.is_empty() => self.watch.begin(watch),
                Event::Changed { record, .. } => {
                    let told = changes(&record).map_err(|e| broken(e.to_string()))?;
                    if said.send(Said::Changed(told)).await.is_err() {
                        return Ok(());
                    }
                }
                Event::End { .. } => return Ok(()),
                Event::Failed(why) => {
                    // An agent that cannot tell will not learn to by being asked often.
                    tokio::time::sleep(ASK_AGAIN).await;
                    return Err(broken(format!("{why:?}")));
                }
                Event::Lost(why) => return Err(why),
                other => return Err(broken(format!("an answer of the wrong kind: {other:?}"))),
            }
        }
    }
}

/// Between two questions to an agent that cannot tell of changes.
const ASK_AGAIN: Duration = Duration::from_secs(60);
