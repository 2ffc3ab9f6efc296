//! What changes at the source is told at once: a directory in which something was made, written, moved or deleted is
//! listed again, and the listing goes the way of all listings.
//!
//! A directory is listed once however much happened in it, and rests after that for as long as listing it would be
//! [`SHARE_MOST`] of the time: an ingest of a million files into one directory costs a bounded share of a core.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_collector::WatchedVolume;
use foretide_collector::changes::{Change, Changes};
use foretide_flow::{FilePath, Listing, VolumeId};
use foretide_transfer::Source;
use tokio::sync::mpsc;

use super::talk::listing;

/// Longest wait for the kernel's queue, and so the longest that an end is noticed late.
const WAIT: Duration = Duration::from_millis(250);
/// What happens in so short a time is told as one.
const GATHER: Duration = Duration::from_millis(100);
/// The share of one core that listing one directory over and over may take.
const SHARE_MOST: f64 = 0.05;
/// Directories that wait to be listed. Beyond it changes are counted as missed, and noticed when a lease ends.
const DIRECTORIES_MAX: usize = 10_000;

type Directory = (VolumeId, FilePath);

/// Begins to hear what can be heard, and says what cannot. To be called before the agent gives up making queues.
pub fn start(watched: &[WatchedVolume]) -> Option<Changes> {
    match Changes::start(watched) {
        Ok((changes, deaf)) => {
            for (volume, why) in deaf {
                tracing::warn!(%volume, why, "changes are not heard here; they are noticed when a lease ends");
            }
            Some(changes)
        }
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

/// Tells until the receiver of listings is gone. Blocks: give it a thread.
pub fn tell(mut changes: Changes, sources: &HashMap<VolumeId, Arc<dyn Source>>, learned: &mpsc::Sender<Listing>) {
    let mut due = Due::default();
    while !learned.is_closed() {
        match changes.next(WAIT) {
            Ok(heard) => due.note(&heard),
            Err(error) => return tracing::error!(%error, "changes are no longer heard"),
        }
        let now = Instant::now();
        for directory in due.take(now) {
            let Some(source) = sources.get(&directory.0) else { continue };
            match listing(source, &directory.0, &directory.1) {
                Ok(listing) => {
                    if learned.blocking_send(listing).is_err() {
                        return;
                    }
                }
                // Gone meanwhile: its parent changed too, and is told.
                Err(error) => tracing::debug!(%error, volume = %directory.0, path = %directory.1, "not listed"),
            }
            due.listed(directory, now, now.elapsed());
        }
    }
}

/// Which directories are to be listed when.
#[derive(Default)]
struct Due {
    changed: HashMap<Directory, Instant>,
    resting: HashMap<Directory, Instant>,
    missed: u64,
}

impl Due {
    fn note(&mut self, heard: &[Change]) {
        let now = Instant::now();
        let mut fresh = HashSet::new();
        for change in heard {
            match change {
                Change::Of { volume, path, .. } => {
                    fresh.extend(path.parent().map(|directory| (volume.clone(), directory)));
                }
                Change::Missed => {
                    self.missed += 1;
                    tracing::warn!(times = self.missed, "more changed than could be heard; leases will end");
                }
            }
        }
        for directory in fresh {
            if self.changed.len() < DIRECTORIES_MAX || self.changed.contains_key(&directory) {
                self.changed.entry(directory).or_insert(now + GATHER);
            } else {
                self.missed += 1;
            }
        }
    }

    /// Those whose time has come; they are not due any more.
    fn take(&mut self, now: Instant) -> Vec<Directory> {
        self.resting.retain(|_, until| *until > now);
        let resting = &self.resting;
        let ready = self.changed.extract_if(|directory, at| *at <= now && !resting.contains_key(directory));
        ready.map(|(directory, _)| directory).collect()
    }

    fn listed(&mut self, directory: Directory, at: Instant, took: Duration) {
        self.resting.insert(directory, at + took.div_f64(SHARE_MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_collector::changes::What;

    fn written(path: &str) -> Change {
        let (volume, path) = (VolumeId::new("v").unwrap(), FilePath::parse(path).unwrap());
        Change::Of { volume, path, what: What::Written, is_directory: false }
    }

    #[test]
    fn a_directory_is_listed_once_for_many_changes_and_then_rests() {
        let mut due = Due::default();
        due.note(&[written("a/x"), written("a/y"), written("b/z"), written("top")]);
        let now = Instant::now();
        assert!(due.take(now).is_empty(), "changes are gathered first");
        let later = now + GATHER;
        let mut ready: Vec<String> = due.take(later).into_iter().map(|d| d.1.to_string()).collect();
        ready.sort();
        assert_eq!(ready, ["", "a", "b"]);
        let a = (VolumeId::new("v").unwrap(), FilePath::parse("a").unwrap());
        due.listed(a.clone(), later, Duration::from_secs(1));
        due.note(&[written("a/x")]);
        assert!(due.take(later + Duration::from_secs(19)).is_empty(), "listing it takes a second");
        assert_eq!(due.take(later + Duration::from_secs(21)), [a]);
    }
}
