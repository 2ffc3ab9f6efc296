//! Learns the tree from the source, only where somebody looks, and keeps it fresh where they go on looking.
//!
//! A name in an unknown directory is asked for twice at once: the whole directory, because its neighbours are likely
//! to be next, and the one name, because a directory of a million names takes a while to come; the first answer
//! serves. A directory is asked for once however many wait for it. One that was used since it was learned is learned
//! again shortly before its lease ends, so that readers of a busy dataset never wait for metadata; nobody walks a tree.
//!
//! If the source does not answer, what was known is believed for a while longer (promise A) and it is said once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use foretide_flow::{Entry, Listing};
use foretide_transfer::TransferError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;

use crate::config::Config;
use crate::errno::{Complaints, Failure};
use crate::origin::Origin;
use crate::tree::{Attributes, Found, Place, ROOT_INO, Snapshot, Tree};

/// Directories learned again at the same time, in the background.
const REFRESHES_MAX: usize = 8;

/// Rounds of asking: the first may join somebody who asked before us and whose lease ends before we look; the second
/// asks itself. Beyond that the directory is being changed or forgotten faster than it can be told.
const ROUNDS_MAX: usize = 3;

type Flight = Shared<BoxFuture<'static, Result<(), Failure>>>;

/// The tree, and how it comes to know. See the module.
pub struct Namespace {
    tree: RwLock<Tree>,
    origin: Arc<dyn Origin>,
    flights: Mutex<HashMap<u64, Flight>>,
    /// Volumes whose roots the source has told of, and until when that holds.
    roots: Mutex<HashMap<u64, Instant>>,
    complaints: Complaints,
    runtime: Handle,
    lease: Duration,
    answer_timeout: Duration,
    stale_retry: Duration,
    known_names: usize,
}

impl Namespace {
    /// Knows nothing but the volumes' names. What it asks in the background, it asks on `runtime`.
    pub fn new(config: &Config, origin: Arc<dyn Origin>, owner: (u32, u32), runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            tree: RwLock::new(Tree::new(&config.volumes, owner, Instant::now())),
            origin,
            flights: Mutex::default(),
            roots: Mutex::default(),
            runtime,
            complaints: Complaints::default(),
            lease: config.lease(),
            answer_timeout: config.answer_timeout(),
            stale_retry: config.stale_retry(),
            known_names: config.known_names,
        })
    }

    /// The table, to look something up. Never held across a wait.
    pub fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The table, to change it. Never held across a wait.
    pub fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where failures are said.
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// Answers at once if it can: `name` in `parent`, counted as a reference of the kernel.
    pub fn find_known(self: &Arc<Self>, parent: u64, name: &[u8]) -> Found {
        self.find_at(parent, name, Instant::now())
    }

    /// As things were known at a moment. Who had to ask takes what was told since he asked, however short the lease.
    fn find_at(self: &Arc<Self>, parent: u64, name: &[u8], asked: Instant) -> Found {
        let tree = self.tree();
        match tree.find(parent, name, asked) {
            Found::Here(attributes, _) if parent == ROOT_INO && !self.root_told(attributes.ino) => Found::Unknown,
            Found::Here(attributes, ttl) => {
                tree.look(attributes.ino);
                Found::Here(attributes, ttl.min(self.lease))
            }
            other => other,
        }
    }

    /// As [`Namespace::find_known`], asking the source where needed.
    ///
    /// # Errors
    /// [`Failure`] if the source does not tell and nothing was known.
    pub async fn find(self: &Arc<Self>, parent: u64, name: &[u8]) -> Result<Option<(Attributes, Duration)>, Failure> {
        let asked = Instant::now();
        for _ in 0..ROUNDS_MAX {
            match self.find_at(parent, name, asked) {
                Found::Here(attributes, ttl) => return Ok(Some((attributes, ttl.saturating_sub(asked.elapsed())))),
                Found::Absent(_) => return Ok(None),
                Found::NoDirectory => return Err(Failure::Stale),
                Found::Unknown if parent == ROOT_INO => self.learn_volume(name).await,
                Found::Unknown => self.ask_for(parent, name).await?,
            }
        }
        Err(Failure::TimedOut(self.lease))
    }

    /// A directory's children, asking the source where needed.
    ///
    /// # Errors
    /// [`Failure`] if the source does not tell and nothing was known.
    pub async fn children(self: &Arc<Self>, directory: u64) -> Result<(Snapshot, Duration), Failure> {
        let asked = Instant::now();
        for _ in 0..ROUNDS_MAX {
            if let Some((children, ttl)) = self.tree().snapshot(directory, asked) {
                return Ok((children, ttl.saturating_sub(asked.elapsed())));
            }
            self.learn(directory).await?;
        }
        Err(Failure::TimedOut(self.lease))
    }

    /// A directory's children, if their lease has not ended.
    pub fn children_known(&self, directory: u64) -> Option<(Snapshot, Duration)> {
        let (children, ttl) = self.tree().snapshot(directory, Instant::now())?;
        Some((children, ttl.min(self.lease)))
    }

    /// A number's attributes, asking the source where their lease has ended.
    ///
    /// # Errors
    /// [`Failure`] if the number is not in use.
    pub async fn attributes(self: &Arc<Self>, ino: u64) -> Result<(Attributes, Duration), Failure> {
        if let Some(known) = self.attributes_known(ino) {
            return Ok(known);
        }
        let parent = self.tree().parent(ino).ok_or(Failure::Stale)?;
        // The number stays what it was even if the name is another inode by now.
        let _ = self.learn(parent).await;
        let attributes = self.tree().attributes(ino).ok_or(Failure::Stale)?;
        Ok((attributes, self.tree().lease(ino, Instant::now()).unwrap_or_default()))
    }

    /// A number's attributes, if their lease has not ended.
    pub fn attributes_known(&self, ino: u64) -> Option<(Attributes, Duration)> {
        let tree = self.tree();
        let ttl = tree.lease(ino, Instant::now())?.min(self.lease);
        Some((tree.attributes(ino)?, ttl))
    }

    /// The source has another version of this file: opening it is ESTALE until its directory is learned again, which
    /// makes the kernel look the name up again.
    pub fn distrust(&self, ino: u64) {
        self.tree_mut().outdate(ino, Instant::now());
    }

    /// Learns a directory; joins whoever is doing so.
    ///
    /// # Errors
    /// [`Failure`] if the source does not tell and nothing was known.
    pub async fn learn(self: &Arc<Self>, directory: u64) -> Result<(), Failure> {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let start = || {
                let this = Arc::clone(self);
                let flight = async move {
                    let told = this.learn_now(directory).await;
                    this.flights.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&directory);
                    told
                };
                let flight = flight.boxed().shared();
                // It ends even if all who wait for it are gone: what it brings is worth keeping.
                self.runtime.spawn(flight.clone());
                flight
            };
            flights.entry(directory).or_insert_with(start).clone()
        };
        flight.await
    }

    /// Learns again what is in use and about to end. Called now and then.
    pub async fn refresh_due(self: &Arc<Self>) {
        let due = self.tree().due(Instant::now(), self.lease / 2);
        let waves: Vec<&[u64]> = due.chunks(REFRESHES_MAX).collect();
        for wave in waves {
            futures::future::join_all(wave.iter().map(|directory| self.learn(*directory))).await;
        }
    }

    /// How often [`Namespace::refresh_due`] is worth calling.
    pub fn refresh_interval(&self) -> Duration {
        (self.lease / 8).max(Duration::from_millis(100))
    }

    async fn learn_now(&self, directory: u64) -> Result<(), Failure> {
        let place = self.tree().place(directory).ok_or(Failure::Stale)?;
        // The lease runs from the question: the source may have changed while its answer was on the way.
        let asked = Instant::now();
        // Who has an older answer does not wait long for a newer one.
        let was_known = self.tree().was_known(directory);
        let timeout = if was_known { self.stale_retry.min(self.answer_timeout) } else { self.answer_timeout };
        match self.in_time(timeout, self.origin.list(&place)).await {
            Ok(listing) => {
                self.take(directory, &listing, asked);
                Ok(())
            }
            Err(failure) => {
                self.complaints.say(&place, "listing a directory", &failure);
                let mut tree = self.tree_mut();
                if failure.is_outage() && tree.was_known(directory) {
                    // Long enough for the next try, which happens in the background, to fail as slowly.
                    let extension = self.stale_retry * 2 + self.refresh_interval() * 2;
                    tree.extend(directory, Instant::now() + extension);
                    return Ok(());
                }
                if failure.errno() == libc::ENOENT
                    && let Some(parent) = tree.parent(directory)
                {
                    tree.expire(parent, Instant::now());
                }
                Err(failure)
            }
        }
    }

    fn take(&self, directory: u64, listing: &Listing, asked: Instant) {
        let mut tree = self.tree_mut();
        tree.learn(directory, listing, asked, self.lease);
        if tree.len() > self.known_names {
            // A tenth at once, so that the oldest are not sorted for every listing.
            tree.shrink(self.known_names - self.known_names / 10);
        }
    }

    /// Asks for directory and name at once; the first answer that helps serves.
    async fn ask_for(self: &Arc<Self>, parent: u64, name: &[u8]) -> Result<(), Failure> {
        let place = self.tree().place(parent).ok_or(Failure::Stale)?;
        let Ok(path) = place.path.join(name) else { return Err(Failure::Stale) };
        let wanted = Place { path, ..place };
        let one = async {
            let asked = Instant::now();
            let told = self.in_time(self.answer_timeout, self.origin.stat(&wanted)).await;
            self.take_one(parent, name, &told, asked);
            match told {
                Err(failure) if failure.errno() != libc::ENOENT => Err(failure),
                _ => Ok(()),
            }
        };
        let helps = futures::future::select_ok([self.learn(parent).boxed(), one.boxed()]).await;
        helps.map(|((), _)| ())
    }

    fn take_one(&self, parent: u64, name: &[u8], told: &Result<Entry, Failure>, asked: Instant) {
        match told {
            Ok(entry) => self.tree_mut().learn_one(parent, name, Some(entry), asked, self.lease),
            Err(failure) if failure.errno() == libc::ENOENT => {
                self.tree_mut().learn_one(parent, name, None, asked, self.lease);
            }
            Err(_) => {}
        }
    }

    /// Whether a volume's root was ever told of; asks again in the background if that is long ago.
    fn root_told(self: &Arc<Self>, ino: u64) -> bool {
        let now = Instant::now();
        let mut roots = self.roots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(until) = roots.get_mut(&ino) else { return false };
        if *until < now {
            *until = now + self.lease;
            let this = Arc::clone(self);
            self.runtime.spawn(async move { this.learn_root(ino).await });
        }
        true
    }

    /// A volume's first lookup: its root's attributes now, its listing behind them.
    async fn learn_volume(self: &Arc<Self>, name: &[u8]) {
        let Found::Here(attributes, _) = self.tree().find(ROOT_INO, name, Instant::now()) else { return };
        let this = Arc::clone(self);
        self.runtime.spawn(async move { this.learn(attributes.ino).await });
        self.learn_root(attributes.ino).await;
    }

    /// A volume whose source is away is shown all the same, as a directory that cannot be listed.
    async fn learn_root(&self, ino: u64) {
        let Some(place) = self.tree().place(ino) else { return };
        match self.in_time(self.answer_timeout, self.origin.stat(&place)).await {
            Ok(entry) => self.tree_mut().learn_attributes(ino, &entry),
            Err(failure) => self.complaints.say(&place, "asking for a volume", &failure),
        }
        let until = Instant::now() + self.lease;
        self.roots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(ino, until);
    }

    async fn in_time<T>(
        &self,
        timeout: Duration,
        answer: impl Future<Output = Result<T, TransferError>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::TimedOut(timeout)),
        }
    }
}
