//! Where observations come from: the kernel, a recorded trace, or the mount. One trait, one file per way.
//!
//! A source speaks of files by a number; it tells the number's path once, before or with its first use. Everything
//! above a source is the same for all of them, and so is tested by replaying.

mod feed;
pub(crate) mod kernel;
mod replay;

pub use feed::{Feed, FeedSource, feed};
pub use replay::{Recorder, Replay};

use foretide_flow::{FilePath, Found, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

use crate::CollectorError;

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Observation {
    /// A file's number stands for this path from now on.
    Path {
        /// The number.
        file: u64,
        /// The volume.
        volume: VolumeId,
        /// The path.
        path: FilePath,
    },
    /// A file was opened.
    Open {
        /// When.
        at: Timestamp,
        /// By whom.
        process: u32,
        /// Its parent, 0 if that was not told.
        parent: u32,
        /// Which.
        file: u64,
        /// For writing.
        writable: bool,
    },
    /// Bytes were read, in calls that continue each other.
    Extent {
        /// When the first call returned.
        at: Timestamp,
        /// By whom.
        process: u32,
        /// Its parent, 0 if that was not told.
        parent: u32,
        /// Which file.
        file: u64,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Calls.
        calls: u32,
        /// Time blocked, microseconds.
        blocked_us: u32,
        /// Where the bytes were: a miss if a device was waited for.
        found: Found,
        /// Touched through a mapping, not read by a call.
        mapped: bool,
    },
    /// A read or touch waited that was told before or is told soon.
    MappedWait {
        /// Who.
        process: u32,
        /// Which file.
        file: u64,
        /// First byte of the page.
        offset: u64,
        /// How long, microseconds.
        blocked_us: u32,
    },
    /// A file was closed.
    Close {
        /// When.
        at: Timestamp,
        /// By whom.
        process: u32,
        /// Which.
        file: u64,
    },
    /// A process began as a copy of its parent.
    Fork {
        /// When.
        at: Timestamp,
        /// The new process.
        process: u32,
        /// Its parent.
        parent: u32,
        /// When it started, ticks of 10 ms since boot: with its number, its identity.
        started_ticks: u64,
    },
    /// A process runs another program now.
    Exec {
        /// When.
        at: Timestamp,
        /// Which.
        process: u32,
        /// Its parent.
        parent: u32,
        /// When the process started, ticks since boot.
        started_ticks: u64,
        /// The program as it was called.
        program: String,
        /// Its arguments.
        argv: Vec<String>,
        /// The control group it is in.
        group: String,
    },
    /// A process ended.
    Exit {
        /// When.
        at: Timestamp,
        /// Which.
        process: u32,
    },
    /// Something is missing.
    Loss {
        /// Calls that found the kernel's buffer full.
        calls: u64,
        /// Forks, execs and exits that found it full.
        processes: u64,
        /// Calls whose file could not be told.
        unresolved: u64,
    },
}

/// Gives out what was seen.
pub trait Source: Send {
    /// Appends what is new, oldest first as far as is known. Does not wait.
    ///
    /// # Errors
    /// If no more can come.
    fn poll(&mut self, out: &mut Vec<Observation>) -> Result<(), CollectorError>;

    /// Somebody lost the path of this file: tell it again when the file is next met.
    fn forget(&mut self, _file: u64) {}

    /// Whether nothing will come any more.
    fn ended(&self) -> bool {
        false
    }
}
