//! Page-cache warm-up: what a move brought long before its deadline is read from the disk shortly before it, since the
//! kernel may have given its memory to others meanwhile. What is moved shortly before it is wanted lies in memory still,
//! and is left alone.
//!
//! More than half of the memory that the kernel could give is never asked for at a time: what is read ahead of one
//! reader must not push out what another one has.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foretide_flow::{Assignment, FilePath, Move, MoveId, Timestamp, VolumeId};
use foretide_mount::Hints;
use tokio::task::JoinSet;

/// So long before its deadline a file's pages are asked for: a disk of 3 GB/s reads 60 GB meanwhile.
const AHEAD: Duration = Duration::from_secs(20);
/// What is due sooner after it was assigned is in memory when it is read.
const FRESH: Duration = Duration::from_secs(120);
/// How often it looks what is due.
const EVERY: Duration = Duration::from_secs(1);
/// Files that wait for their time; beyond it the last ones are not warmed.
const WAITING_MAX: usize = 1_000_000;

type Wanted = (VolumeId, FilePath, u64);

/// What waits for its time.
#[derive(Default)]
struct Waiting {
    by_time: BTreeMap<(Timestamp, MoveId), Wanted>,
    times: BTreeMap<MoveId, Timestamp>,
    /// When pages were asked for last since there was room for all, and how many bytes since then.
    asked: Option<(Timestamp, u64)>,
}

impl Waiting {
    fn take(&mut self, assignment: &Assignment, now: Timestamp) {
        for id in &assignment.cancel {
            self.drop_move(id);
        }
        for m in &assignment.run {
            self.drop_move(&m.id);
            if m.due_at.since(now) > FRESH && self.by_time.len() < WAITING_MAX {
                self.add(m);
            }
        }
    }

    fn add(&mut self, m: &Move) {
        let at = m.due_at - AHEAD;
        self.times.insert(m.id.clone(), at);
        self.by_time.insert((at, m.id.clone()), (m.volume.clone(), m.path.clone(), m.length));
    }

    fn drop_move(&mut self, id: &MoveId) {
        if let Some(at) = self.times.remove(id) {
            self.by_time.remove(&(at, id.clone()));
        }
    }

    /// What is due, as far as it fits into `room_bytes` within [`AHEAD`]; what does not is left to its reader.
    fn due(&mut self, now: Timestamp, room_bytes: u64) -> Vec<Wanted> {
        let mut due = Vec::new();
        let (since, mut bytes) = self.asked.filter(|(since, _)| now.since(*since) < AHEAD).unwrap_or((now, 0));
        while let Some(first) = self.by_time.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, id), wanted) = first.remove_entry();
            self.times.remove(&id);
            if bytes + wanted.2 <= room_bytes {
                bytes += wanted.2;
                due.push(wanted);
            }
        }
        self.asked = Some((since, bytes));
        due
    }
}

/// The warm-up of one mount's files. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<Waiting>>);

impl Pages {
    /// Warms the files of this mount as their time comes.
    pub fn start(hints: Hints, tasks: &mut JoinSet<()>) -> Self {
        let pages = Self::default();
        tasks.spawn(pages.clone().run(hints));
        pages
    }

    /// Moves that will be carried out here, and some that will not.
    pub fn expect(&self, assignment: &Assignment) {
        self.lock().take(assignment, Timestamp::now());
    }

    async fn run(self, hints: Hints) {
        loop {
            tokio::time::sleep(EVERY).await;
            let due = self.lock().due(Timestamp::now(), available_bytes() / 2);
            if due.is_empty() {
                continue;
            }
            let hints = hints.clone();
            let asked = tokio::task::spawn_blocking(move || {
                for (volume, path, _) in due {
                    // Not here whole: its move is late, or has failed and said so.
                    if let Err(error) = hints.warm_pages(&volume, &path) {
                        tracing::debug!(%volume, %path, %error, "its pages are not warmed");
                    }
                }
            });
            if asked.await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that the kernel could give without swapping; none if it does not say.
fn available_bytes() -> u64 {
    let told = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{MoveCause, Priority, SiteId};

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000_000_000) + Duration::from_secs(seconds)
    }

    fn a_move(id: &str, due_s: u64, length: u64) -> Move {
        let site = |name| SiteId::new(name).unwrap();
        Move {
            id: id.into(),
            volume: VolumeId::new("data").unwrap(),
            path: FilePath::parse(id).unwrap(),
            offset: 0,
            length,
            from: site("store"),
            to: site("gpu"),
            start_at: at(0),
            due_at: at(due_s),
            keep_until: at(due_s),
            priority: Priority::Deadline,
            probability: 1.0,
            benefit_s: 0.0,
            cost: 0.0,
            cause: MoveCause::Warmup { warmup: "w".into() },
            reason: String::new(),
            shared_bytes: 0,
        }
    }

    fn names(due: &[Wanted]) -> Vec<String> {
        due.iter().map(|(_, path, _)| path.to_string()).collect()
    }

    #[test]
    fn what_was_moved_early_is_asked_for_once_shortly_before_its_time() {
        let mut waiting = Waiting::default();
        let run =
            vec![a_move("late", 900, 10), a_move("soon", 60, 10), a_move("early", 600, 10), a_move("off", 600, 10)];
        waiting.take(&Assignment { run, ..Assignment::default() }, at(0));
        waiting.take(&Assignment { cancel: vec!["off".into()], ..Assignment::default() }, at(1));
        assert_eq!(names(&waiting.due(at(570), u64::MAX)), [""; 0]);
        assert_eq!(names(&waiting.due(at(580), u64::MAX)), ["early"]);
        assert_eq!(names(&waiting.due(at(590), u64::MAX)), [""; 0]);
        // It is wanted later than was said first.
        waiting.take(&Assignment { run: vec![a_move("late", 2000, 10)], ..Assignment::default() }, at(591));
        assert_eq!(names(&waiting.due(at(1000), u64::MAX)), [""; 0]);
        assert_eq!(names(&waiting.due(at(1980), u64::MAX)), ["late"]);
        assert!(waiting.times.is_empty() && waiting.by_time.is_empty());
    }

    #[test]
    fn no_more_is_asked_for_at_a_time_than_there_is_room_for() {
        let mut waiting = Waiting::default();
        let run = (0..6).map(|i| a_move(&format!("f{i}"), 600 + i, 40)).collect();
        waiting.take(&Assignment { run, ..Assignment::default() }, at(0));
        assert_eq!(names(&waiting.due(at(582), 100)), ["f0", "f1"]);
        assert_eq!(names(&waiting.due(at(583), 100)), [""; 0], "the room is taken still");
        assert_eq!(names(&waiting.due(at(604), 100)), ["f4", "f5"], "and free again");
        assert!(available_bytes() > 0);
    }
}
