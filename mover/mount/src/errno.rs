//! The one place where failures become errnos and log lines.
//!
//! | what happened | errno | why that one |
//! |---|---|---|
//! | no such name at the source | ENOENT | as local |
//! | another version by now | ESTALE | on `open` the kernel looks the name up again by itself and opens the new version |
//! | a residency rule, the source's token or the source itself forbids it | EACCES | asking again does not help |
//! | the source cannot be reached | EHOSTUNREACH | tells a dead link from a dead disk |
//! | the source does not answer in time | ETIMEDOUT | likewise |
//! | anything else | EIO | the last resort |
//!
//! A source that is gone fails many reads at once: each volume and errno is logged once a minute, with how many were
//! alike since.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use foretide_flow::VolumeId;
use foretide_transfer::TransferError;

use crate::tree::Place;

/// One line a minute and cause is enough to act on.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a request fails.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The source did not answer within the configured time.
    #[error("no answer from the source within {0:?}")]
    TimedOut(Duration),
    /// The number, handle or name is not in use (any more).
    #[error("the file is not known any more")]
    Stale,
    /// Not a directory, or not a link.
    #[error("not of the kind that the call needs")]
    WrongKind,
    /// Nothing may be written.
    #[error("the mount is read-only")]
    ReadOnly,
}

impl Failure {
    /// What the reader gets.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Transfer(TransferError::NotFound { .. }) => libc::ENOENT,
            Self::Transfer(TransferError::Changed { .. }) | Self::Stale => libc::ESTALE,
            Self::Transfer(TransferError::Refused(_) | TransferError::Token { .. } | TransferError::Denied { .. }) => {
                libc::EACCES
            }
            Self::Transfer(
                TransferError::Unreachable { .. } | TransferError::Disconnected { .. } | TransferError::NoSource(_),
            ) => libc::EHOSTUNREACH,
            Self::Transfer(_) => libc::EIO,
            Self::TimedOut(_) => libc::ETIMEDOUT,
            Self::WrongKind => libc::ENOTDIR,
            Self::ReadOnly => libc::EROFS,
        }
    }

    /// Whether the source itself is not there: what is known may be believed for longer (promise A).
    pub fn is_outage(&self) -> bool {
        matches!(self.errno(), libc::EHOSTUNREACH | libc::ETIMEDOUT | libc::EIO)
    }

    fn remedy(&self) -> &'static str {
        match self.errno() {
            libc::EHOSTUNREACH | libc::ETIMEDOUT => {
                "check that the agent at the source runs and that the link is up; what is cached here stays readable"
            }
            libc::ESTALE => "open the file again to read its new version",
            libc::EACCES => "ask who owns the rule, the token or the file, or run the job where the data may be",
            _ => "see the log of the agent at the source",
        }
    }
}

/// Says each trouble once a minute.
#[derive(Default)]
pub struct Complaints {
    said: Mutex<HashMap<(VolumeId, i32), (Instant, u64)>>,
}

impl Complaints {
    /// Logs a failure with path, source and remedy. A name that is not there is nobody's trouble.
    pub fn say(&self, place: &Place, doing: &str, failure: &Failure) {
        if failure.errno() == libc::ENOENT {
            return;
        }
        let key = (place.volume.clone(), failure.errno());
        let now = Instant::now();
        let alike = {
            let mut said = self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match said.get_mut(&key) {
                Some((at, alike)) if now - *at < LOG_INTERVAL => {
                    *alike += 1;
                    return;
                }
                _ => said.insert(key, (now, 0)).map_or(0, |(_, alike)| alike),
            }
        };
        tracing::warn!(volume = %place.volume, path = %place.path, alike, "{doing}: {failure}; {}", failure.remedy());
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::FilePath;

    use super::*;

    #[test]
    fn each_failure_has_the_errno_that_tells_what_to_do() {
        let path = FilePath::parse("a").unwrap();
        let volume = VolumeId::new("v").unwrap();
        let peer = || "p".to_owned();
        let cases = [
            (TransferError::NotFound { volume: volume.clone(), path: path.clone() }, libc::ENOENT, false),
            (TransferError::Changed { path: path.clone() }, libc::ESTALE, false),
            (TransferError::Unreachable { peer: peer(), why: String::new() }, libc::EHOSTUNREACH, true),
            (TransferError::Disconnected { peer: peer(), why: String::new() }, libc::EHOSTUNREACH, true),
            (TransferError::NoSource(volume), libc::EHOSTUNREACH, true),
            (TransferError::Token { peer: peer() }, libc::EACCES, false),
            (TransferError::Denied { peer: peer(), path: path.clone(), why: String::new() }, libc::EACCES, false),
            (TransferError::WrongBytes { peer: peer(), path, chunk: 0 }, libc::EIO, true),
        ];
        for (error, errno, outage) in cases {
            let failure = Failure::from(error);
            assert_eq!((failure.errno(), failure.is_outage()), (errno, outage), "{failure}");
        }
    }
}
