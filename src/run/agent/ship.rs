//! What the agent tells the control plane: what was read, what became of moves, which directories it learned, which chunks
//! stand in several files.
//!
//! The control plane may be gone for an hour; the agent goes on (promise A). Access batches wait in the collector's
//! spool on disk; outcomes wait here, in a bounded queue whose overflow is counted (promise J). Each batch carries
//! a number, so one that is sent twice counts once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use foretide_api::{Listings, SharedFiles};
use foretide_chunk::Store;
use foretide_flow::{
    Census, CensusRequest, FilePath, Listing, NodeId, Outcome, OutcomeBatch, Selector, SiteId, Timestamp, VolumeId,
};
use foretide_transfer::SharingNews;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::attribution::Shared;
use super::in_place::InPlace;
use crate::client::{ClientError, ControlClient};

/// Outcomes that wait for the control plane: an hour of a busy loader.
const OUTCOMES_WAITING: usize = 1_000_000;
/// Outcomes in one batch.
const OUTCOMES_PER_BATCH: usize = 5_000;
/// Outcomes are sent this often while there are some.
const SEND_EVERY: Duration = Duration::from_millis(200);
/// The store's counts are sent at least this often, so that the control plane sees a living agent.
const SAY_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// First and longest wait before trying again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Calls until it succeeds or is refused; a refusal is final and logged, since sending again would not help.
pub async fn insist<T, F: Future<Output = Result<T, ClientError>>>(
    what: &str,
    mut call: impl FnMut() -> F,
) -> Option<T> {
    let (mut wait, longest) = RETRY;
    loop {
        match call().await {
            Ok(answer) => return Some(answer),
            Err(error @ ClientError::Refused { status, .. }) if status < 500 && status != 429 => {
                tracing::error!(%error, "the control plane refuses {what}");
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot send {what}; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

/// Sends listings as they are learned.
pub async fn listings(control: ControlClient, node: NodeId, mut learned: mpsc::Receiver<Listing>) {
    while let Some(first) = learned.recv().await {
        let mut listings = vec![first];
        while let Ok(more) = learned.try_recv() {
            listings.push(more);
        }
        let body = Listings { node: node.clone(), listings };
        insist("listings", || control.send_listings(&body)).await;
    }
}

/// Sends which chunks stand in several files as they are found. While nobody takes them they wait with their finder, whose
/// table is bounded; each file's last word is all that counts.
pub async fn shared(control: ControlClient, node: NodeId, sharing: SharingNews) {
    loop {
        let body = SharedFiles { node: node.clone(), files: sharing.next().await };
        insist("shared chunks", || control.send_shared(&body)).await;
    }
}

/// Sends outcomes and counts.
pub struct Outcomes {
    /// The control plane.
    pub control: ControlClient,
    /// Who sends.
    pub node: NodeId,
    /// Where.
    pub site: SiteId,
    /// What is counted.
    pub held: Held,
    /// What happened.
    pub happened: mpsc::Receiver<Outcome>,
    /// Who knows whose read it was.
    pub attribution: Shared,
    /// Warm-ups to count.
    pub census: watch::Receiver<Vec<CensusRequest>>,
    /// What is pinned for them.
    pub pinned: Pins,
    /// Number of the next batch.
    pub sequence: u64,
}

impl Outcomes {
    /// Runs until the senders of outcomes are gone.
    pub async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut told: Vec<Census> = Vec::new();
        let mut told_at = Instant::now() - SAY_ALIVE_EVERY;
        let mut dropped = 0u64;
        loop {
            let deadline = tokio::time::sleep(SEND_EVERY);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    () = &mut deadline => break,
                    outcome = self.happened.recv() => match outcome {
                        Some(outcome) => self.hold(outcome),
                        None => return,
                    },
                }
            }
            if self.census.has_changed().unwrap_or(false) {
                self.census.mark_unchanged();
                self.pin();
            }
            waiting.extend(self.named());
            while waiting.len() > OUTCOMES_WAITING {
                waiting.pop_front();
                dropped += 1;
            }
            if dropped > 0 {
                tracing::warn!(dropped, "outcomes were dropped: the control plane has not answered for long");
                dropped = 0;
            }
            let census = self.count().await;
            if waiting.is_empty() && census == told && told_at.elapsed() < SAY_ALIVE_EVERY {
                continue;
            }
            let outcomes = waiting.drain(..waiting.len().min(OUTCOMES_PER_BATCH)).collect();
            self.send(outcomes, census.clone()).await;
            (told, told_at) = (census, Instant::now());
        }
    }

    fn hold(&self, outcome: Outcome) {
        self.attribution.lock().unwrap_or_else(PoisonError::into_inner).take(outcome, Timestamp::now());
    }

    fn named(&self) -> Vec<Outcome> {
        self.attribution.lock().unwrap_or_else(PoisonError::into_inner).release(Timestamp::now())
    }

    async fn send(&mut self, outcomes: Vec<Outcome>, census: Vec<Census>) {
        let batch = OutcomeBatch {
            node: self.node.clone(),
            site: self.site.clone(),
            sequence: self.sequence,
            outcomes,
            census,
            resident_bytes: self.held.resident_bytes(),
            capacity_bytes: self.held.capacity_bytes(),
        };
        self.sequence += 1;
        insist("outcomes", || self.control.send_outcomes(&batch)).await;
    }

    /// What is held of each warm-up, counted by who holds it (promise C).
    async fn count(&self) -> Vec<Census> {
        let wanted = self.census.borrow().clone();
        if wanted.is_empty() {
            return Vec::new();
        }
        let held = self.held.clone();
        let counted = tokio::task::spawn_blocking(move || wanted.iter().map(|request| held.count(request)).collect());
        counted.await.unwrap_or_default()
    }

    /// Pins what warm-ups ask to be kept, and lifts the pins that none asks for any more.
    fn pin(&mut self) {
        let wanted = pins(&self.census.borrow());
        for ((volume, path), _) in self.pinned.iter().filter(|(place, _)| !wanted.contains_key(*place)) {
            self.held.pin(volume, path, None);
        }
        for ((volume, path), until) in wanted.iter().filter(|(place, until)| self.pinned.get(*place) != Some(*until)) {
            self.held.pin(volume, path, Some(*until));
        }
        self.pinned = wanted;
    }
}

/// Places that are to be kept, each until the last moment that a warm-up names.
pub type Pins = BTreeMap<(VolumeId, FilePath), Timestamp>;

/// A directory of which only some is meant is pinned whole: keeping too much is waste, keeping too little is a broken word.
fn pins(requests: &[CensusRequest]) -> Pins {
    let mut pins = Pins::new();
    for request in requests {
        let Some(until) = request.pin_until else { continue };
        for path in &request.paths {
            let known = pins.entry((request.volume.clone(), path.clone())).or_insert(until);
            *known = until.max(*known);
        }
    }
    pins
}

/// Where a site's bytes are.
#[derive(Clone)]
pub enum Held {
    /// In the chunk store.
    Store(Arc<Store>),
    /// In the page cache of files that the site mounts by itself.
    InPlace(Arc<InPlace>),
}

impl Held {
    fn resident_bytes(&self) -> u64 {
        match self {
            Self::Store(store) => store.resident_bytes(),
            Self::InPlace(pages) => pages.resident_bytes(),
        }
    }

    fn capacity_bytes(&self) -> u64 {
        match self {
            Self::Store(store) => store.capacity_bytes(),
            Self::InPlace(pages) => pages.capacity_bytes(),
        }
    }

    fn count(&self, request: &CensusRequest) -> Census {
        let selector = selector_of(request);
        let wanted = |path: &FilePath| selector.as_ref().is_some_and(|s| s.covers(path));
        let (resident_files, resident_bytes) = match self {
            Self::Store(store) => {
                let counted = store.census_where(&request.volume, &request.paths, &wanted);
                (counted.files, counted.bytes)
            }
            Self::InPlace(pages) => pages.census_where(&request.volume, &wanted),
        };
        Census { warmup: request.warmup.clone(), resident_files, resident_bytes }
    }

    /// The kernel pins nothing for us: what lies in its page cache stays as long as there is memory.
    fn pin(&self, volume: &VolumeId, path: &FilePath, until: Option<Timestamp>) {
        if let Self::Store(store) = self {
            store.pin(volume, std::slice::from_ref(path), until);
        }
    }
}

/// A glob that nobody can read covers nothing: then the warm-up is never ready.
fn selector_of(request: &CensusRequest) -> Option<Selector> {
    Selector::new(&request.paths, &request.except, &request.globs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_warm_ups_the_longer_pin_holds() {
        let request = |id: &str, paths: &[&str], pin_until| CensusRequest {
            warmup: id.into(),
            volume: VolumeId::new("v").unwrap(),
            paths: paths.iter().map(|p| FilePath::parse(p).unwrap()).collect(),
            except: vec![],
            globs: vec![],
            pin_until,
        };
        let wanted = pins(&[
            request("1", &["a", "b"], Some(Timestamp(9))),
            request("2", &["a"], Some(Timestamp(7))),
            request("3", &["c"], None),
        ]);
        let told: Vec<(String, i64)> = wanted.iter().map(|((_, path), until)| (path.to_string(), until.0)).collect();
        assert_eq!(told, [("a".into(), 9), ("b".into(), 9)]);
    }
}
