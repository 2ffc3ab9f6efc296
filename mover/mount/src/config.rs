//! What can be set, with what it costs.

use std::path::PathBuf;
use std::time::Duration;

use foretide_flow::VolumeId;
use serde::{Deserialize, Serialize};

/// Whether the kernel tells of opens: a choice for the whole mount, made at its first open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opens {
    /// Yes: whole files go by passthrough, every open is accounted for, and a small file that has changed is noticed
    /// by its open.
    #[default]
    Told,
    /// No: an open costs no round trip to us, so warm small files open at almost native speed, but large ones are
    /// copied through us instead of passed through, and what the kernel has in its page cache is read unseen. For
    /// nodes where eBPF sees the reads and the files are small.
    Silent,
}

/// Numbers of users, or of groups, at the source and here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Numbers {
    /// Pairs: the number there, and the number here.
    pub named: Vec<(u32, u32)>,
    /// What all others are here; their own numbers if absent.
    pub others: Option<u32>,
}

/// How the namespace is mounted. Where and what is for the composition to say, not for the file; everything else has
/// a default that serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where; an empty directory.
    #[serde(skip)]
    pub mount_point: PathBuf,
    /// The volumes shown as top directories.
    #[serde(skip)]
    pub volumes: Vec<VolumeId>,
    /// How long a directory is believed before the source is asked again, seconds. A change at the source is seen at
    /// the next open after it at the latest.
    pub lease_s: f64,
    /// How long a directory is believed whose source tells of changes as they happen, seconds. Only what the source
    /// cannot see, such as a store into a shared mapping, is noticed as late as this.
    pub told_lease_s: f64,
    /// How long the source may take to answer one question before the reader gets ETIMEDOUT, seconds.
    pub answer_timeout_s: f64,
    /// How long what was known is believed while the source does not answer, before it is asked again, seconds.
    pub stale_retry_s: f64,
    /// Names known at most; about 300 bytes of memory each. Directories not used for longest are forgotten first.
    pub known_names: usize,
    /// Files up to this size are fetched whole when they are opened, bytes.
    pub whole_file_bytes: u64,
    /// Bytes fetched ahead of the first read of a larger file.
    pub first_window_bytes: u64,
    /// Bytes fetched ahead of a sequential reader at most: what is on the way on 10 Gbit/s at 50 ms, or 1 Gbit/s
    /// at 500 ms.
    pub max_window_bytes: u64,
    /// Threads that take requests from the kernel: as many as there are cores, two to four unless set. None of them ever
    /// waits for the network. More than cores make small requests slower, since each wakes another one up: an open that
    /// takes 40 us with one or two threads took 80 with four, on two cores.
    pub threads: usize,
    /// Whether other users may look in. Off unless root mounts; as a user it needs `user_allow_other` in
    /// `/etc/fuse.conf`.
    pub allow_other: Option<bool>,
    /// As whom the source's users are shown, where the same person has another number here.
    pub users: Numbers,
    /// As which the source's groups are shown.
    pub groups: Numbers,
    /// Whether the kernel tells us of every open.
    pub opens: Opens,
    /// Whether whole files may be opened by passthrough. Off for comparison and for kernels where it misbehaves.
    pub passthrough: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mount_point: PathBuf::new(),
            volumes: Vec::new(),
            lease_s: 30.0,
            told_lease_s: 600.0,
            answer_timeout_s: 30.0,
            stale_retry_s: 5.0,
            known_names: 2_000_000,
            whole_file_bytes: 4 << 20,
            first_window_bytes: 8 << 20,
            max_window_bytes: 64 << 20,
            threads: std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4)),
            allow_other: None,
            users: Numbers::default(),
            groups: Numbers::default(),
            opens: Opens::Told,
            passthrough: true,
        }
    }
}

impl Config {
    /// The defaults at a mount point.
    pub fn at(mount_point: impl Into<PathBuf>, volumes: Vec<VolumeId>) -> Self {
        Self { mount_point: mount_point.into(), volumes, ..Self::default() }
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_s)
    }

    pub(crate) fn told_lease(&self) -> Duration {
        Duration::from_secs_f64(self.told_lease_s.max(self.lease_s))
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.answer_timeout_s)
    }

    pub(crate) fn stale_retry(&self) -> Duration {
        Duration::from_secs_f64(self.stale_retry_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_and_the_rest_has_defaults() {
        let config: Config = serde_json::from_str(r#"{"lease_s": 5, "opens": "silent"}"#).unwrap();
        assert_eq!((config.lease_s, config.opens), (5.0, Opens::Silent));
        assert!((2..=4).contains(&config.threads));
        let config: Config = serde_json::from_str(r#"{"users": {"named": [[1000, 5001]], "others": 65534}}"#).unwrap();
        assert_eq!(config.users, Numbers { named: vec![(1000, 5001)], others: Some(65534) });
        let told = serde_json::from_str::<Config>(r#"{"leese_s": 5}"#).unwrap_err().to_string();
        assert!(told.contains("leese_s") && told.contains("lease_s"), "{told}");
    }
}
