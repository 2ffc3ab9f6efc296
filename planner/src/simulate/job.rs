//! A job between two events.

use super::atlas::Block;

/// What a job does.
#[derive(Clone, Debug)]
pub(super) enum Doing {
    /// Has not started, or computes.
    Computes {
        until_us: i64,
    },
    /// Waits for the first byte of what is not here.
    Asks {
        since_us: i64,
        until_us: i64,
    },
    /// Waits for the last one.
    Receives {
        since_us: i64,
        lane: usize,
        blocks: Vec<Block>,
        left_bytes: f64,
    },
    Done,
}

/// A job's place in its reads.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Its number in the world.
    pub(super) job: usize,
    /// The next read, or the one that it waits for.
    pub(super) next: usize,
    pub(super) doing: Doing,
    pub(super) started: bool,
}

impl Running {
    /// When it goes on by itself; never while it receives.
    pub(super) fn wakes_us(&self) -> i64 {
        match self.doing {
            Doing::Computes { until_us } | Doing::Asks { until_us, .. } => until_us,
            Doing::Receives { .. } | Doing::Done => i64::MAX,
        }
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self.doing, Doing::Asks { .. } | Doing::Receives { .. })
    }
}
