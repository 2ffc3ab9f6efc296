//! Whose read it was: the mount knows a process, the collector knows which run it belongs to.
//!
//! A read is held until the collector has named its process, at most [`HELD_FOR`]: the collector speaks up to a second
//! after the fact. What stays nameless goes out nameless.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foretide_flow::{Outcome, RunId, Timestamp};

/// How long a read waits for its name.
const HELD_FOR: Duration = Duration::from_secs(3);
/// Processes remembered: all that a large node runs at once, many times over.
const PROCESSES_MAX: usize = 65_536;

/// An attribution that the collector's task and the outcomes' task share; neither holds it while waiting.
pub type Shared = Arc<Mutex<Attribution>>;

/// Names and what waits for them.
#[derive(Debug, Default)]
pub struct Attribution {
    runs: HashMap<u32, RunId>,
    held: VecDeque<(Timestamp, Outcome)>,
}

impl Attribution {
    /// Learns names from the processes of a batch.
    pub fn learn(&mut self, processes: &[(u32, RunId)]) {
        if self.runs.len() > PROCESSES_MAX {
            self.runs.clear();
        }
        self.runs.extend(processes.iter().cloned());
    }

    /// Takes an outcome.
    pub fn take(&mut self, outcome: Outcome, now: Timestamp) {
        self.held.push_back((now, outcome));
    }

    /// Gives out what has its name, needs none, or has waited long enough; in the order in which it came.
    pub fn release(&mut self, now: Timestamp) -> Vec<Outcome> {
        let mut out = Vec::new();
        let mut still_held = VecDeque::new();
        for (since, mut outcome) in self.held.drain(..) {
            let named = match &mut outcome {
                Outcome::Read { run, process, .. } if run.is_none() => {
                    *run = self.runs.get(process).cloned();
                    run.is_some()
                }
                _ => true,
            };
            if named || now.since(since) >= HELD_FOR {
                out.push(outcome)
            } else {
                still_held.push_back((since, outcome))
            }
        }
        self.held = still_held;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{FilePath, Found, VolumeId};

    fn read_by(process: u32) -> Outcome {
        Outcome::Read {
            run: None,
            process,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::root(),
            at: Timestamp(0),
            bytes: 1,
            prefetched_bytes: 0,
            waited_us: 0,
            found: Found::Hit,
            lead_us: None,
        }
    }

    #[test]
    fn a_read_waits_for_its_name_and_not_for_ever() {
        let mut attribution = Attribution::default();
        attribution.take(read_by(7), Timestamp(0));
        attribution.take(read_by(8), Timestamp(0));
        assert!(attribution.release(Timestamp(1)).is_empty());
        attribution.learn(&[(7, RunId::from("r"))]);
        let named = attribution.release(Timestamp(2));
        assert!(matches!(&named[..], [Outcome::Read { run: Some(r), process: 7, .. }] if r.as_str() == "r"));
        let nameless = attribution.release(Timestamp(0) + HELD_FOR);
        assert!(matches!(&nameless[..], [Outcome::Read { run: None, process: 8, .. }]));
    }
}
