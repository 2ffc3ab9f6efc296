//! What can be set, with what it costs.

use std::path::PathBuf;
use std::time::Duration;

use foretide_flow::VolumeId;
use serde::{Deserialize, Serialize};

/// How the namespace is mounted. Every field but the mount point has a default that serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where; an empty directory.
    pub mount_point: PathBuf,
    /// The volumes shown as top directories.
    #[serde(default)]
    pub volumes: Vec<VolumeId>,
    /// How long a directory is believed before the source is asked again, seconds. A change at the source is seen at
    /// the next open after it at the latest.
    #[serde(default = "defaults::lease_s")]
    pub lease_s: f64,
    /// How long the source may take to answer one question before the reader gets ETIMEDOUT, seconds.
    #[serde(default = "defaults::answer_timeout_s")]
    pub answer_timeout_s: f64,
    /// How long what was known is believed while the source does not answer, before it is asked again, seconds.
    #[serde(default = "defaults::stale_retry_s")]
    pub stale_retry_s: f64,
    /// Names known at most; about 300 bytes of memory each. Directories not used for longest are forgotten first.
    #[serde(default = "defaults::known_names")]
    pub known_names: usize,
    /// Files up to this size are fetched whole when they are opened, bytes.
    #[serde(default = "defaults::whole_file_bytes")]
    pub whole_file_bytes: u64,
    /// Bytes fetched ahead of the first read of a larger file.
    #[serde(default = "defaults::first_window_bytes")]
    pub first_window_bytes: u64,
    /// Bytes fetched ahead of a sequential reader at most: what is on the way on 10 Gbit/s at 50 ms, or 1 Gbit/s
    /// at 500 ms.
    #[serde(default = "defaults::max_window_bytes")]
    pub max_window_bytes: u64,
    /// Threads that take requests from the kernel. None of them ever waits for the network.
    #[serde(default = "defaults::threads")]
    pub threads: usize,
    /// Whether other users may look in. Off unless root mounts; as a user it needs `user_allow_other` in
    /// `/etc/fuse.conf`.
    #[serde(default)]
    pub allow_other: Option<bool>,
    /// Whether whole files may be opened by passthrough. Off for comparison and for kernels where it misbehaves.
    #[serde(default = "defaults::yes")]
    pub passthrough: bool,
}

impl Config {
    /// The defaults at a mount point.
    pub fn at(mount_point: impl Into<PathBuf>, volumes: Vec<VolumeId>) -> Self {
        Self {
            mount_point: mount_point.into(),
            volumes,
            lease_s: defaults::lease_s(),
            answer_timeout_s: defaults::answer_timeout_s(),
            stale_retry_s: defaults::stale_retry_s(),
            known_names: defaults::known_names(),
            whole_file_bytes: defaults::whole_file_bytes(),
            first_window_bytes: defaults::first_window_bytes(),
            max_window_bytes: defaults::max_window_bytes(),
            threads: defaults::threads(),
            allow_other: None,
            passthrough: true,
        }
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_s)
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.answer_timeout_s)
    }

    pub(crate) fn stale_retry(&self) -> Duration {
        Duration::from_secs_f64(self.stale_retry_s)
    }
}

mod defaults {
    pub(super) fn lease_s() -> f64 {
        30.0
    }
    pub(super) fn answer_timeout_s() -> f64 {
        30.0
    }
    pub(super) fn stale_retry_s() -> f64 {
        5.0
    }
    pub(super) fn known_names() -> usize {
        2_000_000
    }
    pub(super) fn whole_file_bytes() -> u64 {
        4 << 20
    }
    pub(super) fn first_window_bytes() -> u64 {
        8 << 20
    }
    pub(super) fn max_window_bytes() -> u64 {
        64 << 20
    }
    pub(super) fn threads() -> usize {
        4
    }
    pub(super) fn yes() -> bool {
        true
    }
}
