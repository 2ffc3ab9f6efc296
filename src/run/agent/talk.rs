//! The agent's side of the talk with the control plane: hello now and again, and one long poll for its work.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_api::{Assigned, Hello, Peer, Welcome};
use foretide_flow::{
    Assignment, CensusRequest, EntryKind, FilePath, LearnRequest, Listing, Move, Ruleset, Timestamp, VolumeId,
};
use foretide_mount::Hints;
use foretide_transfer::{Borders, Giver, Mover, Source, Upheld};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};

use super::hydrate::Hydrator;
use super::in_place::InPlace;
use super::pages::Pages;
use super::serve::Served;
use crate::client::{ClientError, ControlClient};
use crate::config::{AgentConfig, GivesAt};
use crate::run::RunError;

/// Longest wait for the assignment to change.
const POLL: Duration = Duration::from_secs(30);
/// Hello is said again this often: peers and rules may have changed.
const HELLO_EVERY: Duration = Duration::from_secs(30);
/// The same while some source is not known yet: at a start all agents come up together.
const HELLO_WHILE_ALONE: Duration = Duration::from_millis(200);
/// Wait after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// At a start and after a change the rules are upheld at once, and once more for what was on its way then.
pub const PASSES_AFTER_CHANGE: u32 = 2;
/// What the control plane said last, in the state folder.
const LAST_WELCOME: &str = "welcome.json";
/// Directories that the mount learns ahead at the same time.
const FORESEEN_AT_ONCE: usize = 16;
/// Directories told about for one wish, at most: a wish of a whole tree is asked again for what is left.
const DIRECTORIES_PER_WISH: usize = 10_000;

/// What this agent says of itself.
pub fn hello_of(config: &AgentConfig, gives_at: Option<&GivesAt>) -> Hello {
    let source = config.source.as_ref();
    Hello {
        node: config.node.clone(),
        site: config.site.clone(),
        chunk_address: gives_at.map(|at| at.address.clone()),
        passes_on: gives_at.is_some() && config.cache.is_some(),
        volumes: source.map(|s| s.names().cloned().collect()).unwrap_or_default(),
        offers: source.map(|s| s.offer.iter().map(|root| root.display().to_string()).collect()).unwrap_or_default(),
        probes: if config.trace.enabled { vec!["ebpf".into()] } else { Vec::new() },
        clock_ahead_us: None,
    }
}

/// The control plane's welcome; if it cannot be reached, the last one that it gave; if there is none, waits.
///
/// # Errors
/// If the control plane refuses this agent.
pub async fn welcomed(control: &ControlClient, hello: &Hello, state: &Path) -> Result<Welcome, RunError> {
    let kept = state.join(LAST_WELCOME);
    loop {
        match control.hello(hello).await {
            Ok(welcome) => {
                keep(&kept, &welcome);
                return Ok(welcome);
            }
            Err(error @ (ClientError::Refused { .. } | ClientError::Token { .. })) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "no control plane yet");
                let last = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok());
                if let Some(welcome) = last {
                    tracing::warn!(from = %kept.display(), "starting with what it said last");
                    return Ok(welcome);
                }
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

fn keep(path: &Path, welcome: &Welcome) {
    let written = serde_json::to_vec(welcome).map_err(std::io::Error::other).and_then(|text| {
        let partial = path.with_extension("partial");
        fs::write(&partial, text)?;
        fs::rename(&partial, path)
    });
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "what the control plane said is not kept");
    }
}

/// By how much our clock is ahead of theirs, who spoke at some moment between our question and their answer's coming.
fn ahead_us(asked_at: Timestamp, theirs: Timestamp, heard_at: Timestamp) -> i64 {
    asked_at.0.midpoint(heard_at.0) - theirs.0
}

/// The rules of a welcome, compiled.
///
/// # Errors
/// If they cannot be meant: then nothing may move.
pub fn ruleset(welcome: &Welcome) -> Result<Ruleset, RunError> {
    Ruleset::new(welcome.rules.clone(), welcome.default_effect, &welcome.topology)
        .map_err(|e| RunError::Told(e.to_string()))
}

/// Tells the mover whom to ask for which volume, and who else gives: of copies, or of a cache. Answers whether every volume
/// has a source.
pub fn set_peers(mover: &Mover, welcome: &Welcome) -> bool {
    let mut known = 0;
    for peer in &welcome.peers {
        for volume in &peer.volumes {
            mover.set_source(volume, &peer.chunk_address);
            known += 1;
        }
    }
    let givers = welcome.peers.iter().filter(|peer| peer.alive && (peer.passes_on || !peer.copies.is_empty()));
    let giver = |peer: &Peer| Giver {
        site: peer.site.clone(),
        node: peer.node.clone(),
        address: peer.chunk_address.clone(),
        passes_on: peer.passes_on,
        copies: peer.copies.clone(),
    };
    mover.set_givers(givers.map(giver).collect());
    known >= welcome.topology.volumes.len()
}

/// Everything that an assignment may concern.
pub struct Talk {
    /// The control plane.
    pub control: ControlClient,
    /// What this agent says of itself.
    pub hello: Hello,
    /// Where the last welcome is kept.
    pub state: PathBuf,
    /// Rules as sender and receiver uphold them.
    pub borders: Arc<Borders>,
    /// What carries moves out.
    pub mover: Option<Arc<Mover>>,
    /// What lays moved files down as plain files.
    pub hydrator: Option<Hydrator>,
    /// What carries moves out where the site mounts the data by itself.
    pub in_place: Option<Arc<InPlace>>,
    /// The mount, which learns of names that will be wanted.
    pub hints: Option<Hints>,
    /// What has the mount's files in memory when they are read.
    pub pages: Option<Pages>,
    /// Volumes whose top the mount has looked at.
    pub seen: HashSet<VolumeId>,
    /// How often the rules are still to be upheld against what is here.
    pub unsettled: u32,
    /// When they were last.
    pub upheld_at: Timestamp,
    /// The own volumes.
    pub served: Served,
    /// Where listings go.
    pub learned: mpsc::Sender<Listing>,
    /// Where warm-ups to count go.
    pub census: watch::Sender<Vec<CensusRequest>>,
}

impl Talk {
    /// Runs until dropped.
    pub async fn run(mut self) {
        let (mut cursor, mut etag, mut fleet) = (0, None, None);
        let mut hello_due = Instant::now();
        loop {
            if Instant::now() >= hello_due {
                let again_in = self.say_hello().await;
                hello_due = Instant::now() + again_in;
            }
            let wait = POLL.min(hello_due.saturating_duration_since(Instant::now()));
            let asked =
                self.control.assignment(&self.hello.node, cursor, wait, etag.as_deref(), fleet.as_deref()).await;
            match asked {
                Ok((Assigned { assignment, welcome }, new_etag)) => {
                    (cursor, etag) = (assignment.cursor, new_etag);
                    fleet.clone_from(&assignment.fleet);
                    if let Some(welcome) = welcome {
                        let again_in = self.take_welcome(welcome).await;
                        hello_due = hello_due.min(Instant::now() + again_in);
                    }
                    self.census.send_if_modified(|known| {
                        let differs = *known != assignment.census;
                        known.clone_from(&assignment.census);
                        differs
                    });
                    for wish in &assignment.learn {
                        self.fulfil(wish).await;
                    }
                    if let Some(hydrator) = &self.hydrator {
                        hydrator.expect(&assignment);
                    }
                    if let Some(pages) = &self.pages {
                        pages.expect(&assignment);
                    }
                    if let Some(mover) = &self.mover {
                        mover.take(&assignment);
                    }
                    if let Some(in_place) = &self.in_place {
                        in_place.take(&assignment);
                    }
                    self.foresee(&assignment);
                }
                Err(error) => {
                    tracing::warn!(%error, "no assignment; what was assigned goes on");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Data is moved for somebody who will look at it here: the mount learns the names beside the bytes.
    fn foresee(&self, assignment: &Assignment) {
        let folder = |m: &Move| Some((m.volume.clone(), m.path.parent()?));
        self.look_at(assignment.run.iter().filter_map(folder).collect());
    }

    /// The mount shows every volume there is. The kernel is told, which may wait for a look that is under way.
    async fn show(&self, volumes: Vec<VolumeId>) {
        let Some(hints) = self.hints.clone() else { return };
        let shown = tokio::task::spawn_blocking(move || volumes.iter().for_each(|volume| hints.show(volume))).await;
        if shown.is_err() {
            tracing::error!("new volumes are not shown: the mount has failed");
        }
    }

    /// The top of each volume is looked at once, as soon as its source is known.
    fn look_at_tops(&mut self, volumes: impl Iterator<Item = VolumeId>) {
        let new: HashSet<_> = volumes.filter(|v| self.seen.insert(v.clone())).map(|v| (v, FilePath::root())).collect();
        self.look_at(new);
    }

    fn look_at(&self, folders: HashSet<(VolumeId, FilePath)>) {
        let Some(hints) = self.hints.clone().filter(|_| !folders.is_empty()) else { return };
        tokio::spawn(async move {
            let all = folders.iter().map(|(volume, folder)| hints.foresee(volume, folder));
            futures::stream::iter(all).for_each_concurrent(FORESEEN_AT_ONCE, |foreseen| foreseen).await;
        });
    }

    /// What the rules forbid leaves this node. Once more with the next hello, for what was on its way; and for as long as
    /// somebody reads what should have left.
    async fn uphold(&mut self) {
        let now = Timestamp::now();
        if self.borders.ran_out(self.upheld_at, now) {
            self.unsettled = PASSES_AFTER_CHANGE;
        }
        self.upheld_at = now;
        let Some(mover) = self.mover.as_ref().filter(|_| self.unsettled > 0) else { return };
        match mover.uphold().await {
            Ok(Upheld { stopped, gone, in_use }) => {
                if stopped + gone.len() + in_use > 0 {
                    tracing::warn!(stopped, gone = gone.len(), in_use, "the rules changed: what they forbid leaves");
                }
                self.unsettled -= u32::from(in_use == 0);
                let Some(hints) = self.hints.clone() else { return };
                let forget = move || gone.iter().for_each(|key| hints.forget_pages(&key.volume, &key.path));
                if tokio::task::spawn_blocking(forget).await.is_err() {
                    tracing::error!("what left may be in the kernel's memory still: the mount has failed");
                }
            }
            Err(error) => tracing::error!(%error, "what the rules forbid is still here; tried again"),
        }
    }

    /// Answers in how long it is to be said again.
    async fn say_hello(&mut self) -> Duration {
        let asked_at = Timestamp::now();
        let welcome = match self.control.hello(&self.hello).await {
            Ok(welcome) => welcome,
            Err(error) => {
                tracing::warn!(%error, "the control plane does not greet");
                return AFTER_FAILURE;
            }
        };
        self.hello.clock_ahead_us = Some(ahead_us(asked_at, welcome.said_at, Timestamp::now()));
        self.take_welcome(welcome).await
    }

    /// Answers in how long hello is to be said again.
    async fn take_welcome(&mut self, welcome: Welcome) -> Duration {
        if self.served.serve_added(&welcome.serve) {
            // Said at once, so that others come for it.
            self.hello.volumes = self.served.volumes();
            return Box::pin(self.say_hello()).await;
        }
        keep(&self.state.join(LAST_WELCOME), &welcome);
        match ruleset(&welcome) {
            Ok(rules) => {
                if self.borders.replace(rules, welcome.topology.clone()) {
                    self.unsettled = PASSES_AFTER_CHANGE;
                }
            }
            Err(error) => tracing::error!(%error, "the new rules cannot be meant; the old ones hold"),
        }
        self.uphold().await;
        let complete = self.mover.as_ref().is_none_or(|mover| set_peers(mover, &welcome));
        self.show(welcome.topology.volumes.into_keys().collect()).await;
        self.look_at_tops(welcome.peers.into_iter().flat_map(|peer| peer.volumes));
        if complete { HELLO_EVERY } else { HELLO_WHILE_ALONE }
    }

    /// Tells about a directory, and with a recursive wish about all below it; about what is none, by the nearest above that
    /// is one.
    async fn fulfil(&self, wish: &LearnRequest) {
        let Some(source) = self.served.source(&wish.volume) else { return };
        let mut waiting: Vec<FilePath> = vec![wish.directory.clone()];
        let mut told = 0;
        while let Some(directory) = waiting.pop() {
            let (asked, volume, path) = (Arc::clone(source), wish.volume.clone(), directory.clone());
            let listed = tokio::task::spawn_blocking(move || listing(&asked, &volume, &path)).await;
            let listing = match listed.map_err(std::io::Error::other).flatten() {
                Ok(listing) => listing,
                Err(error) => {
                    if let Some(parent) = directory.parent().filter(|_| told == 0 && is_no_directory(&error)) {
                        waiting.push(parent);
                        continue;
                    }
                    tracing::warn!(%error, volume = %wish.volume, %directory, "a directory cannot be told about");
                    continue;
                }
            };
            if wish.recursive {
                let folders = listing.entries.iter().filter(|e| e.kind == EntryKind::Directory);
                waiting.extend(folders.filter(|e| e.path.is_within(&wish.directory)).map(|e| e.path.clone()));
            }
            told += 1;
            if self.learned.send(listing).await.is_err() || told == DIRECTORIES_PER_WISH {
                return;
            }
        }
    }
}

/// Whether it is a file, or nothing at all.
fn is_no_directory(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound)
}

/// One own directory. Waits for the disk.
///
/// # Errors
/// If the directory cannot be read.
pub fn listing(source: &Arc<dyn Source>, volume: &VolumeId, directory: &FilePath) -> std::io::Result<Listing> {
    let seen_at = Timestamp::now();
    let entries = source.list(directory)?;
    Ok(Listing { volume: volume.clone(), directory: directory.clone(), seen_at, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_in_the_middle_of_the_way() {
        let at = |ms: i64| Timestamp(ms * 1000);
        assert_eq!(ahead_us(at(1000), at(1075), at(1150)), 0, "as long there as back");
        assert_eq!(ahead_us(at(6000), at(1075), at(6150)), 5_000_000);
        assert_eq!(ahead_us(at(1000), at(3075), at(1150)), -2_000_000);
    }
}
