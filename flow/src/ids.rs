//! Names and identities. Each is its own type, so that no two can be mixed up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A site, node or volume name outside `[a-z0-9][a-z0-9._-]{0,62}`.
    #[error(
        "{kind} name {name:?} is not allowed: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit"
    )]
    Name {
        /// What was being named.
        kind: &'static str,
        /// The refused text.
        name: String,
    },
    /// A digest that is not 64 hexadecimal digits.
    #[error("{0:?} is not a digest of 64 hexadecimal digits")]
    Digest(String),
}

/// A name that people choose: letters, digits and `._-`, at most 63 bytes, so that it fits a DNS label, a
/// metric label and a folder.
macro_rules! chosen_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the name.
            ///
            /// # Errors
            /// [`IdError::Name`] if it has other characters or another length.
            pub fn new(name: &str) -> Result<Self, IdError> {
                let ok = (1..=63).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                    && name.as_bytes()[0].is_ascii_alphanumeric();
                if ok { Ok(Self(name.into())) } else { Err(IdError::Name { kind: $kind, name: name.to_owned() }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                Self::new(&s)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0.as_ref().to_owned()
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

chosen_name!(
    /// A place with storage or accelerators, joined to others by links.
    SiteId,
    "site"
);
chosen_name!(
    /// One machine at a site that runs an agent.
    NodeId,
    "node"
);
chosen_name!(
    /// A tree of files with one source of truth.
    VolumeId,
    "volume"
);

/// An identity that Foretide draws or derives: opaque text.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The identity as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.into())
            }
        }
        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque_id!(
    /// A workload: what comes back. Derived from unit or container, executable and templated arguments, so two
    /// runs of one job share it and two different jobs do not.
    WorkloadId
);
opaque_id!(
    /// One run of a workload, from the start of its first process to the end of its last.
    RunId
);
opaque_id!(
    /// One forecast.
    ForecastId
);
opaque_id!(
    /// One plan.
    PlanId
);
opaque_id!(
    /// One move. Stable over plans: the same extent to the same site for the same cause keeps its id.
    MoveId
);
opaque_id!(
    /// One warm-up request.
    WarmupId
);

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                let bad = || IdError::Digest(s.to_owned());
                if s.len() != 64 || !s.is_ascii() {
                    return Err(bad());
                }
                let mut bytes = [0u8; 32];
                for (i, b) in bytes.iter_mut().enumerate() {
                    *b = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

digest_id!(
    /// A chunk: BLAKE3 of its bytes, keyed with its dedup domain's key.
    ChunkId
);
digest_id!(
    /// A manifest: BLAKE3 of its encoding, keyed likewise. Two files of the same bytes share it.
    ManifestId
);

/// What the source says of a file's version, opaque to everyone but the source: device, inode, size, mtime and
/// ctime of a local file, the ETag or version id of an object. Equal means the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileVersion(pub Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_and_says_the_remedy() {
        assert!(SiteId::new("gpu-1.west").is_ok());
        for bad in ["", "-x", "Gpu", "a b", "a/b", &"x".repeat(64)] {
            let told = SiteId::new(bad).unwrap_err().to_string();
            assert!(told.contains("site name") && told.contains("a-z"), "{told}");
        }
    }

    #[test]
    fn a_digest_reads_back_and_refuses_what_is_none() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("abc".parse::<ChunkId>().is_err());
        assert!("é".repeat(32).parse::<ChunkId>().is_err());
    }
}
