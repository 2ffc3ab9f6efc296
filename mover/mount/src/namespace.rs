//! Learns the tree from the source, only where somebody looks, and keeps it fresh where they go on looking.
//!
//! A name in an unknown directory is asked for twice at once: the whole directory, because its neighbours are likely
//! to be next, and the one name, because a directory of a million names takes a while to come; the first answer
//! serves. A directory is asked for once however many wait for it. One that was used since it was learned is learned
//! again shortly before its lease ends, so that readers of a busy dataset never wait for metadata; nobody walks a tree.
//! Where somebody does, the directories that he will come to are asked for ahead of him, a bounded number of them.
//!
//! A source that tells of changes is believed for longer, and what it tells is put into the table as it comes.
//!
//! If the source does not answer, what was known is believed for a while longer (promise A) and it is said once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use foretide_flow::{Entry, EntryKind, FilePath, VolumeId};
use foretide_transfer::{Change, Listed, News, TransferError};
use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::errno::{Complaints, Failure};
use crate::origin::Origin;
use crate::tree::{Attributes, Found, Owners, Place, ROOT_INO, Snapshot, Tree};

/// A listing is waited for that part longer than the name's own answer took, where it tells what is below the name.
const LISTING_GRACE: u32 = 8;
/// Directories learned again at the same time, in the background.
const REFRESHES_MAX: usize = 8;

/// Directories asked for ahead at the same time because of one look.
const AHEAD_AT_ONCE: usize = 16;
/// Directories and names learned ahead because of one look, at most: about 2 MB on the link.
const AHEAD_DIRECTORIES_MAX: usize = 128;
const AHEAD_NAMES_MAX: usize = 20_000;
/// How far below a look directories are asked for ahead, in levels.
const AHEAD_LEVELS: usize = 2;
/// Looks that are being gone ahead of at the same time; beyond it a reader asks for himself.
const AHEAD_LOOKS_MAX: usize = 8;

/// Rounds of asking: the first may join somebody who asked before us and whose lease ends before we look; the second
/// asks itself. Beyond that the directory is being changed or forgotten faster than it can be told.
const ROUNDS_MAX: usize = 3;

/// A name in a directory and what it stands for now, if anything.
type ToldName = (Box<[u8]>, Option<Entry>);

type Flight = Shared<BoxFuture<'static, Result<(), Failure>>>;

/// The tree, and how it comes to know. See the module.
pub struct Namespace {
    tree: RwLock<Tree>,
    origin: Arc<dyn Origin>,
    flights: Mutex<HashMap<u64, Flight>>,
    /// Volumes whose roots the source has told of, and until when that holds.
    roots: Mutex<HashMap<u64, Instant>>,
    owner: (u32, u32),
    complaints: Complaints,
    looks: Arc<Semaphore>,
    runtime: Handle,
    lease: Duration,
    told_lease: Duration,
    answer_timeout: Duration,
    stale_retry: Duration,
    known_names: usize,
}

impl Namespace {
    /// Knows nothing but the volumes' names. What it asks in the background, it asks on `runtime`.
    pub fn new(config: &Config, origin: Arc<dyn Origin>, owner: (u32, u32), runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            tree: RwLock::new(Tree::new(&config.volumes, owner, Instant::now()).with_owners(Owners::new(config))),
            origin,
            flights: Mutex::default(),
            roots: Mutex::default(),
            owner,
            runtime,
            complaints: Complaints::default(),
            looks: Arc::new(Semaphore::new(AHEAD_LOOKS_MAX)),
            lease: config.lease(),
            told_lease: config.told_lease(),
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
        // The kernel is never told to believe for longer than a lease: a watch can be lost, and only we hear of it.
        let found = match tree.find(parent, name, asked) {
            Found::Here(attributes, _) if parent == ROOT_INO && !self.root_told(attributes.ino) => Found::Unknown,
            Found::Here(attributes, ttl) => {
                tree.look(attributes.ino);
                Found::Here(attributes, ttl.min(self.lease))
            }
            Found::Absent(ttl) => Found::Absent(ttl.min(self.lease)),
            other => other,
        };
        self.go_ahead(tree.ahead_of(parent, asked));
        found
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
            let (known, ahead) = {
                let tree = self.tree();
                (tree.snapshot(directory, asked), tree.ahead_of(directory, asked))
            };
            if let Some((children, ttl)) = known {
                self.go_ahead(ahead);
                return Ok((children, ttl.min(self.lease).saturating_sub(asked.elapsed())));
            }
            self.learn(directory).await?;
        }
        Err(Failure::TimedOut(self.lease))
    }

    /// A directory's children, if their lease has not ended.
    pub fn children_known(self: &Arc<Self>, directory: u64) -> Option<(Snapshot, Duration)> {
        let now = Instant::now();
        let tree = self.tree();
        let (children, ttl) = tree.snapshot(directory, now)?;
        self.go_ahead(tree.ahead_of(directory, now));
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
        Ok((attributes, self.tree().lease(ino, Instant::now()).unwrap_or_default().min(self.lease)))
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

    /// Shows one more volume. Answers whether it is new.
    pub fn show(&self, volume: &VolumeId) -> bool {
        self.tree_mut().show(volume, self.owner)
    }

    /// Ends a directory's lease; its number, if it is known.
    pub fn expire(&self, volume: &VolumeId, directory: &FilePath) -> Option<u64> {
        let mut tree = self.tree_mut();
        let ino = tree.ino_at(volume, directory)?;
        tree.expire(ino, Instant::now());
        Some(ino)
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

    /// Learns directories that somebody will look into soon, and what lies below them, in the background.
    fn go_ahead(self: &Arc<Self>, wanted: Vec<u64>) {
        if wanted.is_empty() {
            return;
        }
        let Ok(look) = Arc::clone(&self.looks).try_acquire_owned() else { return };
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            this.learn_ahead(wanted).await;
            drop(look);
        });
    }

    async fn learn_ahead(self: &Arc<Self>, wanted: Vec<u64>) {
        let mut waiting: VecDeque<(u64, usize)> = wanted.into_iter().map(|ino| (ino, 1)).collect();
        let (mut asked, mut names) = (0, 0);
        let mut asking = FuturesUnordered::new();
        loop {
            while asking.len() < AHEAD_AT_ONCE && asked < AHEAD_DIRECTORIES_MAX && names < AHEAD_NAMES_MAX {
                let Some((ino, level)) = waiting.pop_front() else { break };
                asked += 1;
                asking.push(async move { self.learn_unless_known(ino).await.map(|()| (ino, level)) });
            }
            let Some(learned) = asking.next().await else { return };
            // What fails here fails again, and is said, when somebody looks.
            let Ok((ino, level)) = learned else { continue };
            let tree = self.tree();
            names += tree.children_count(ino);
            if level < AHEAD_LEVELS {
                waiting.extend(tree.unknown_below(ino, Instant::now()).into_iter().map(|below| (below, level + 1)));
            }
        }
    }

    /// Somebody will look into a directory soon: learns it and the directories that lead to it, as if he had.
    ///
    /// # Errors
    /// [`Failure`] if the source does not tell and nothing was known.
    pub async fn foresee(self: &Arc<Self>, volume: &VolumeId, directory: &FilePath) -> Result<(), Failure> {
        let mut at = match self.tree().find(ROOT_INO, volume.as_str().as_bytes(), Instant::now()) {
            Found::Here(attributes, _) => attributes.ino,
            _ => return Err(Failure::Stale),
        };
        if !self.root_told(at) {
            self.learn_root(at).await;
        }
        for name in directory.as_bytes().split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            self.learn_unless_known(at).await?;
            at = self.tree().child_ino(at, name).ok_or(Failure::Stale)?;
        }
        self.learn_unless_known(at).await?;
        let (tree, now) = (self.tree(), Instant::now());
        tree.use_directory(at, now);
        self.go_ahead(tree.ahead_of(at, now));
        Ok(())
    }

    async fn learn_unless_known(self: &Arc<Self>, directory: u64) -> Result<(), Failure> {
        if self.tree().is_known(directory, Instant::now()) { Ok(()) } else { self.learn(directory).await }
    }

    /// Takes over what sources tell, and answers what the kernel should look up anew: directories and names.
    pub fn hear(&self, news: Vec<News>) -> Vec<(u64, Box<[u8]>)> {
        let now = Instant::now();
        let mut stale = Vec::new();
        let mut tree = self.tree_mut();
        let mut names: HashMap<u64, Vec<ToldName>> = HashMap::new();
        for item in news {
            match item {
                News::Changed(Change::Name { volume, path, entry }) => {
                    let Some(parent) = path.parent().and_then(|p| tree.ino_at(&volume, &p)) else { continue };
                    names.entry(parent).or_default().push((path.name().into(), entry));
                }
                News::Changed(Change::Unsure { volume, directory }) => {
                    if let Some(ino) = tree.ino_at(&volume, &directory) {
                        tree.expire(ino, now);
                    }
                }
                News::Lost(volumes) => tree.cap(&volumes, now + self.lease),
            }
        }
        for (directory, names) in names {
            let changed = tree.amend(directory, &names, now);
            stale.extend(changed.into_iter().map(|name| (directory, name)));
        }
        stale
    }

    async fn learn_now(&self, directory: u64) -> Result<(), Failure> {
        let place = self.tree().place(directory).ok_or(Failure::Stale)?;
        // The lease runs from the question: the source may have changed while its answer was on the way.
        let asked = Instant::now();
        // Who has an older answer does not wait long for a newer one.
        let was_known = self.tree().was_known(directory);
        let timeout = if was_known { self.stale_retry.min(self.answer_timeout) } else { self.answer_timeout };
        match self.in_time(timeout, self.origin.list(&place, !was_known)).await {
            Ok(listed) => {
                self.take(directory, &listed, asked);
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

    fn take(&self, directory: u64, listed: &Listed, asked: Instant) {
        let mut tree = self.tree_mut();
        // Asked under the lock that `hear` takes after a watch has ended: nothing is believed for longer by mistake.
        let lease = if listed.live.is_live() { self.told_lease } else { self.lease };
        tree.learn(directory, &listed.listing, asked, lease);
        for (listing, live) in &listed.below {
            // What somebody has learned for himself meanwhile is as new, or newer.
            let below = tree.child_ino(directory, listing.directory.name()).filter(|ino| !tree.is_known(*ino, asked));
            if let Some(below) = below {
                let lease = if live.is_live() { self.told_lease } else { self.lease };
                tree.learn(below, listing, asked, lease);
            }
        }
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
            if told.as_ref().is_ok_and(|entry| entry.kind == EntryKind::Directory) {
                // What is below it comes with the listing, which was asked for at the same time: worth a moment.
                tokio::time::sleep(asked.elapsed() / LISTING_GRACE).await;
            }
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
