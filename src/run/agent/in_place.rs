//! In-place warm-up: a site that keeps its own mount of the data (NFS, Lustre, an object store's) has what will be read
//! brought into this node's memory through that mount. Foretide is not in the way of any read: programs read what they
//! always read, and find it in the page cache.
//!
//! A move is carried out by reading its bytes for nobody. What is here is asked of the kernel (`cachestat`), never assumed:
//! the kernel gives pages up without a word, and then the file is told as evicted, so that it may be brought again. What
//! nobody is expected to read any more gives its pages up first when there is no room for more. That bytes are the source's
//! is the mount's own promise; whether somebody read what the kernel gave up is not known here, so no waste is counted.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foretide_flow::{Assignment, FilePath, Move, MoveCause, MoveId, Outcome, SiteId, Timestamp, VolumeId};
use foretide_transfer::{Borders, LocalDirectory};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::config::InPlaceConfig;
use crate::run::RunError;

/// Files read at the same time: enough to keep a file server busy, and no more than one impatient program would ask of it.
const AT_ONCE: usize = 8;
/// Bytes asked for in one call; a move that is stopped ends at the next.
const PIECE_BYTES: usize = 1 << 20;
/// How often the kernel is asked what is left.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest time that the queue is left alone while nothing in it is due.
const WAIT_MAX: Duration = Duration::from_secs(60);

type Place = (VolumeId, FilePath);

/// What was brought and, as far as was heard, is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Warm {
    /// Bytes of the file in memory when its last move ended.
    bytes: u64,
    /// Until when somebody is expected to read it.
    keep_until: Timestamp,
}

/// What is to be done and what has been.
#[derive(Default)]
struct Books {
    queue: BTreeMap<(Timestamp, MoveId), Move>,
    running: HashSet<MoveId>,
    warm: BTreeMap<Place, Warm>,
}

impl Books {
    fn take(&mut self, assignment: &Assignment) {
        let is_forecast = |m: &Move| matches!(m.cause, MoveCause::Forecast { .. });
        let gone: HashSet<&MoveId> = assignment.cancel.iter().chain(assignment.run.iter().map(|m| &m.id)).collect();
        let is_off = |m: &Move| assignment.prefetch_off && is_forecast(m);
        self.queue.retain(|(_, id), m| !gone.contains(id) && !is_off(m));
        self.running.retain(|id| !assignment.cancel.contains(id));
        for m in assignment.run.iter().filter(|m| !is_off(m)) {
            if !self.running.contains(&m.id) {
                self.queue.insert((m.start_at, m.id.clone()), m.clone());
            }
        }
    }

    /// The next move, once its time has come.
    fn next(&mut self, now: Timestamp) -> Option<Move> {
        let first = self.queue.first_entry().filter(|first| first.key().0 <= now)?;
        let (_, m) = first.remove_entry();
        self.running.insert(m.id.clone());
        Some(m)
    }

    fn resident_bytes(&self) -> u64 {
        self.warm.values().map(|w| w.bytes).sum()
    }

    /// What has to go so that `bytes` fit, what was wanted least long first; nothing if even that would not be enough.
    fn make_room(&mut self, bytes: u64, capacity: u64, now: Timestamp) -> Option<Vec<(Place, Warm)>> {
        let mut over = (self.resident_bytes() + bytes).saturating_sub(capacity);
        let mut past: Vec<(Place, Warm)> =
            self.warm.iter().filter(|(_, w)| w.keep_until < now).map(|(place, w)| (place.clone(), *w)).collect();
        past.sort_by_key(|(_, w)| w.keep_until);
        let mut going = Vec::new();
        for (place, warm) in past {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(warm.bytes);
            going.push((place, warm));
        }
        if over > 0 {
            return None;
        }
        for (place, _) in &going {
            self.warm.remove(place);
        }
        Some(going)
    }
}

/// The warm-up of the volumes that this site mounts by itself.
pub struct InPlace {
    site: SiteId,
    volumes: BTreeMap<VolumeId, LocalDirectory>,
    capacity: u64,
    borders: Arc<Borders>,
    books: Mutex<Books>,
    wake: Notify,
    happened: mpsc::Sender<Outcome>,
}

impl InPlace {
    /// Opens the folders.
    ///
    /// # Errors
    /// A folder that cannot be read, or a kernel that cannot say what is in memory.
    pub fn start(
        config: &InPlaceConfig,
        site: SiteId,
        borders: Arc<Borders>,
        happened: mpsc::Sender<Outcome>,
    ) -> Result<Arc<Self>, RunError> {
        let mut volumes = BTreeMap::new();
        for (name, root) in &config.volumes {
            volumes.insert(name.clone(), LocalDirectory::open(root)?);
            let asked = File::open(root).and_then(|folder| cached_bytes(&folder));
            if let Err(error) = asked {
                return Err(RunError::Told(format!(
                    "in_place.volumes.{name}: the kernel does not say what of {} is in memory: {error}; it takes Linux 6.5 \
                     or later, and the rights of the files' owner",
                    root.display()
                )));
            }
        }
        let (books, wake) = (Mutex::default(), Notify::new());
        Ok(Arc::new(Self { site, volumes, capacity: config.capacity, borders, books, wake, happened }))
    }

    /// Takes what is to be moved, and what is not any more.
    pub fn take(&self, assignment: &Assignment) {
        self.books().take(assignment);
        self.wake.notify_one();
    }

    /// Bytes brought here that are here still, as far as was heard.
    pub fn resident_bytes(&self) -> u64 {
        self.books().resident_bytes()
    }

    /// Bytes of memory that may be counted on.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// Files of those wanted that are wholly in memory, and the bytes of all of them that are, as the kernel says now.
    /// Waits for the file system.
    pub fn census_where(&self, volume: &VolumeId, wanted: &dyn Fn(&FilePath) -> bool) -> (u64, u64) {
        let is_wanted = |place: &&Place| place.0 == *volume && wanted(&place.1);
        let places: Vec<Place> = self.books().warm.keys().filter(is_wanted).cloned().collect();
        let look = |place: &Place| {
            let file = self.file(place)?;
            Ok::<_, io::Error>((cached_bytes(&file)?, file.metadata()?.len()))
        };
        let held = places.iter().filter_map(|place| look(place).ok());
        held.fold((0, 0), |(files, bytes), (cached, size)| (files + u64::from(cached == size), bytes + cached))
    }

    /// Carries moves out as their time comes, until dropped.
    pub async fn run(self: Arc<Self>) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
            let (next, waiting_for) = {
                let (mut books, now) = (self.books(), Timestamp::now());
                let next = books.next(now);
                (next, books.queue.keys().next().map(|(at, _)| at.since(now)))
            };
            let Some(m) = next else {
                drop(permit);
                let wait = waiting_for.unwrap_or(WAIT_MAX).min(WAIT_MAX);
                let _ = tokio::time::timeout(wait, self.wake.notified()).await;
                continue;
            };
            let this = Arc::clone(&self);
            tokio::task::spawn_blocking(move || {
                for outcome in this.carry_out(&m) {
                    let _ = this.happened.blocking_send(outcome);
                }
                drop(permit);
            });
        }
    }

    /// Asks the kernel now and then what it has given up, until dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let this = Arc::clone(&self);
            let Ok(gone) = tokio::task::spawn_blocking(move || this.take_gone()).await else { return };
            for outcome in gone {
                let _ = self.happened.send(outcome).await;
            }
        }
    }

    /// What happened, the move's own end last; nothing if it was stopped.
    fn carry_out(&self, m: &Move) -> Vec<Outcome> {
        let (id, place) = (m.id.clone(), (m.volume.clone(), m.path.clone()));
        let refused = self.borders.check(&m.volume, &m.path, &self.site, "receiver").err();
        let room = self.books().make_room(m.length, self.capacity, Timestamp::now());
        let mut happened: Vec<Outcome> = refused.map(|refusal| Outcome::Refused(*refusal)).into_iter().collect();
        let done = match room {
            _ if !happened.is_empty() => Err("a rule forbids it".to_owned()),
            None => {
                Err(format!("no room: in_place.capacity is {} bytes, and all of it is wanted still", self.capacity))
            }
            Some(going) => {
                happened.extend(going.into_iter().map(|(place, warm)| self.give_up(place, warm)));
                self.warm(m, &place).map_err(|e| format!("{}: {e}", m.path))
            }
        };
        let at = Timestamp::now();
        if !self.books().running.remove(&id) {
            return happened;
        }
        happened.push(match done {
            Ok(read) => Outcome::Moved { id, at, bytes: m.length, wire_bytes: read, fallback_bytes: 0 },
            Err(why) => Outcome::Failed { id, at, why },
        });
        happened
    }

    /// Reads what is not in memory yet; answers how much that was.
    fn warm(&self, m: &Move, place: &Place) -> io::Result<u64> {
        let file = self.file(place)?;
        let before = cached_bytes(&file)?;
        let end = m.offset.saturating_add(m.length).min(file.metadata()?.len());
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = m.offset;
        while offset < end && self.books().running.contains(&m.id) {
            let wanted = (end - offset).min(PIECE_BYTES as u64) as usize;
            match file.read_at(&mut piece[..wanted], offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
        let bytes = cached_bytes(&file)?;
        let mut books = self.books();
        let warm = books.warm.entry(place.clone()).or_insert(Warm { bytes, keep_until: m.keep_until });
        *warm = Warm { bytes, keep_until: warm.keep_until.max(m.keep_until) };
        Ok(bytes.saturating_sub(before))
    }

    fn give_up(&self, place: Place, warm: Warm) -> Outcome {
        let dropped =
            self.file(&place).and_then(|file| Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?));
        if let Err(error) = dropped {
            tracing::debug!(volume = %place.0, path = %place.1, %error, "its pages stay for the kernel to give up");
        }
        evicted(place, warm.bytes)
    }

    /// Files of which less is in memory than was brought, and such as a rule forbids by now: they are told, and counted on no
    /// more.
    fn take_gone(&self) -> Vec<Outcome> {
        let known: Vec<(Place, Warm)> = self.books().warm.iter().map(|(place, w)| (place.clone(), *w)).collect();
        let mut happened = Vec::new();
        for (place, warm) in known {
            let refused = self.borders.check(&place.0, &place.1, &self.site, "receiver").err();
            let cached = self.file(&place).and_then(|file| cached_bytes(&file)).unwrap_or(0);
            if refused.is_none() && cached >= warm.bytes {
                continue;
            }
            let mut books = self.books();
            // What was brought anew meanwhile is looked at next time.
            if books.warm.get(&place) != Some(&warm) {
                continue;
            }
            books.warm.remove(&place);
            drop(books);
            happened.extend(refused.map(|refusal| Outcome::Refused(*refusal)));
            happened.push(self.give_up(place, warm));
        }
        happened
    }

    fn file(&self, (volume, path): &Place) -> io::Result<File> {
        let folder = self.volumes.get(volume).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no in_place.volumes.{volume} says where it is mounted"))
        })?;
        folder.file(path)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evicted((volume, path): Place, bytes: u64) -> Outcome {
    Outcome::Evicted { volume, path, at: Timestamp::now(), bytes, unread_prefetched_bytes: 0 }
}

/// Bytes of a file that are in memory.
///
/// # Errors
/// The kernel's: `ENOSYS` before Linux 6.5, `EPERM` for who is neither owner nor privileged.
fn cached_bytes(file: &File) -> io::Result<u64> {
    /// `struct cachestat_range`: all of it.
    const WHOLE: [u64; 2] = [0, 0];
    // `struct cachestat`: pages in memory, dirty, in writeback, evicted, evicted not long ago.
    let mut pages = [0u64; 5];
    // SAFETY: both structures live through the call and have the kernel's size.
    let done = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), WHOLE.as_ptr(), pages.as_mut_ptr(), 0) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // The last page may be in part.
    Ok((pages[0] * page_bytes()).min(file.metadata()?.len()))
}

/// The call's number, the same on all machines; the library does not know it yet.
const CACHESTAT: libc::c_long = 451;

fn page_bytes() -> u64 {
    // SAFETY: asks for a constant.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use foretide_flow::{ForecastId, Priority, WorkloadId};

    use super::*;

    fn a_move(path: &str, start: i64, keep_until: i64) -> Move {
        Move {
            id: path.into(),
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(path).unwrap(),
            offset: 0,
            length: 100,
            from: SiteId::new("store").unwrap(),
            to: SiteId::new("gpu").unwrap(),
            start_at: Timestamp(start),
            due_at: Timestamp(start),
            keep_until: Timestamp(keep_until),
            priority: Priority::Background,
            probability: 1.0,
            benefit_s: 0.1,
            cost: 0.0,
            cause: MoveCause::Forecast { forecast: ForecastId::from("f"), workload: WorkloadId::from("w") },
            reason: String::new(),
            shared_bytes: 0,
        }
    }

    fn assigned(run: &[Move], cancel: &[&str], prefetch_off: bool) -> Assignment {
        Assignment {
            cursor: 0,
            run: run.to_vec(),
            cancel: cancel.iter().map(|id| (*id).into()).collect(),
            learn: vec![],
            census: vec![],
            prefetch_off,
            fleet: None,
        }
    }

    #[test]
    fn moves_go_in_the_order_of_their_start_and_not_before_it() {
        let mut books = Books::default();
        books.take(&assigned(&[a_move("b", 20, 99), a_move("a", 10, 99), a_move("c", 30, 99)], &[], false));
        books.take(&assigned(&[a_move("c", 5, 99)], &["b"], false));
        let mut next = |at| books.next(Timestamp(at)).map(|m| m.path.to_string());
        assert_eq!(next(4), None);
        assert_eq!(next(5).as_deref(), Some("c"), "changed: by its new start");
        assert_eq!(next(9), None);
        assert_eq!((next(50).as_deref(), next(50)), (Some("a"), None), "b was cancelled");
    }

    #[test]
    fn the_switch_drops_forecasts_and_leaves_what_was_asked_for() {
        let mut books = Books::default();
        let asked = Move { cause: MoveCause::Warmup { warmup: "w".into() }, ..a_move("asked", 1, 99) };
        books.take(&assigned(&[a_move("a", 1, 99), asked], &[], false));
        books.take(&assigned(&[a_move("b", 1, 99)], &[], true));
        let left: Vec<_> = std::iter::from_fn(|| books.next(Timestamp(9))).map(|m| m.path.to_string()).collect();
        assert_eq!(left, ["asked"]);
    }

    #[test]
    fn what_nobody_will_read_any_more_makes_room_and_what_is_wanted_stays() {
        let mut books = Books::default();
        for (path, keep_until) in [("a", 30), ("b", 10), ("c", 20)] {
            let m = a_move(path, 0, keep_until);
            books.warm.insert((m.volume, m.path), Warm { bytes: 100, keep_until: m.keep_until });
        }
        let mut going = |bytes, now| {
            books.make_room(bytes, 400, Timestamp(now)).map(|g| g.iter().map(|((_, p), _)| p.to_string()).collect())
        };
        assert_eq!(going(100, 25), Some(Vec::<String>::new()), "there is room");
        assert_eq!(going(300, 15), None, "b alone would not be enough, so it stays");
        assert_eq!(going(300, 25), Some(vec!["b".into(), "c".into()]));
        assert_eq!(going(300, 25), Some(vec![]));
        assert_eq!(going(301, 25), None);
    }

    #[test]
    fn the_kernel_says_what_of_a_file_is_in_memory() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        match cached_bytes(&file) {
            Ok(cached) => assert_eq!(cached, 10_000),
            Err(e) => return println!("SKIPPED: {e}"),
        }
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        assert_eq!(cached_bytes(&file).unwrap(), 0);
    }
}
