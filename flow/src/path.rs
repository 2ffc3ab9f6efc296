//! A file's path inside its volume.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path relative to its volume's root: bytes, as the kernel has them, not necessarily UTF-8. Never absolute,
/// never `.` or `..` in it, no empty component; the empty path is the root itself.
///
/// As text (and in JSON) every byte that is not printable UTF-8, and `%`, is written `%XX`, so each path has one
/// text and reads back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FilePath(Arc<[u8]>);

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Absolute, or with an empty, `.` or `..` component, or a NUL.
    #[error("path {0:?} is not relative to a volume: no leading '/', no empty, '.' or '..' component, no NUL")]
    NotRelative(String),
    /// Longer than the kernel's own bound.
    #[error("path of {0} bytes is longer than {max}", max = FilePath::MAX_BYTES)]
    TooLong(usize),
}

impl FilePath {
    /// Linux's PATH_MAX.
    pub const MAX_BYTES: usize = 4096;

    /// Checks and takes the bytes.
    ///
    /// # Errors
    /// [`PathError`] if it leaves the volume or is too long.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong(bytes.len()));
        }
        let component_ok = |c: &[u8]| !c.is_empty() && c != b"." && c != b".." && !c.contains(&0);
        if bytes.is_empty() || bytes.split(|b| *b == b'/').all(component_ok) {
            Ok(Self(bytes.into()))
        } else {
            Err(PathError::NotRelative(String::from_utf8_lossy(bytes).into_owned()))
        }
    }

    /// From text in which `%XX` stands for a byte.
    ///
    /// # Errors
    /// [`PathError`] as in [`FilePath::new`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&b, tail)) = rest.split_first() {
            let hex = |i: usize| tail.get(i).and_then(|c| (*c as char).to_digit(16));
            match (b, hex(0), hex(1)) {
                (b'%', Some(high), Some(low)) => {
                    bytes.push((high * 16 + low) as u8);
                    rest = &tail[2..];
                }
                _ => {
                    bytes.push(b);
                    rest = tail;
                }
            }
        }
        Self::new(&bytes)
    }

    /// The root of a volume.
    pub fn root() -> Self {
        Self::default()
    }

    /// The bytes as the kernel has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes as the system's path type has them.
    pub fn as_os_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the volume's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// Its last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        &self.0[start..]
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// [`PathError`] if `name` is no single component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.is_empty() || name.contains(&b'/') {
            return Err(PathError::NotRelative(String::from_utf8_lossy(name).into_owned()));
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(&bytes)
    }

    /// Whether it is `dir` itself or lies below it.
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root() || (self.0.starts_with(&dir.0) && matches!(self.0.get(dir.0.len()), None | Some(b'/')))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                if c == '%' || c.is_control() {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().try_for_each(|b| write!(f, "%{b:02X}"))?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            part.invalid().iter().try_for_each(|b| write!(f, "%{b:02X}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_leaves_the_volume() {
        for bad in ["/etc", "a/../b", "..", "a//b", "a/", "./a", "a/%00"] {
            assert!(FilePath::parse(bad).is_err(), "{bad}");
        }
        assert!(FilePath::new(&[b'x'; 5000]).is_err());
    }

    #[test]
    fn parents_names_and_joins_agree() {
        let p = FilePath::parse("train/a b/0001.jpg").unwrap();
        let dir = p.parent().unwrap();
        assert_eq!(dir.to_string(), "train/a b");
        assert_eq!(dir.join(p.name()).unwrap(), p);
        assert!(p.is_within(&dir) && p.is_within(&FilePath::root()) && !dir.is_within(&p));
        assert!(!FilePath::parse("train/a bc").unwrap().is_within(&dir));
    }

    proptest! {
        #[test]
        fn any_path_reads_back_from_its_text(bytes in proptest::collection::vec(1u8.., 0..80)) {
            if let Ok(p) = FilePath::new(&bytes) {
                prop_assert_eq!(FilePath::parse(&p.to_string()).unwrap(), p);
            }
        }
    }
}
