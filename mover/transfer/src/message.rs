//! What is asked and answered, and how it is written. Strings, paths and lists carry their length; what does not
//! read is refused.

use std::ops::Range;

use bytes::Bytes;
use foretide_chunk::encoding::{EncodingError, Reader, put_bytes, put_option};
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, ManifestId, Refusal, SiteId, Timestamp, VolumeId};

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// One directory, complete; and the small ones right below it, as long as they have no more names than this together.
    List { volume: VolumeId, directory: FilePath, names_below: u32 },
    /// One name.
    Stat { volume: VolumeId, path: FilePath },
    /// Manifest, chunks or both.
    Read(ReadRequest),
    /// So many bytes without meaning.
    Warm { bytes: u32 },
    /// Changes in the directories that this node has listed, from now on, as they happen.
    Watch,
}

/// A question for a file's content.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadRequest {
    pub(crate) volume: VolumeId,
    pub(crate) path: FilePath,
    /// This version and no other; of what is wanted soon, that whose beginning serves.
    pub(crate) version: Option<FileVersion>,
    /// Nothing, if this is the version.
    pub(crate) unless: Option<FileVersion>,
    /// The asker has this manifest: the answer's may be a difference against it.
    pub(crate) holds: Option<ManifestId>,
    /// Cut again, whatever is remembered: the bytes did not fit their ids.
    pub(crate) recut: bool,
    /// How far a giver goes for it; a source has everything.
    pub(crate) effort: Effort,
    pub(crate) want: Want,
}

/// What a giver does for bytes that it has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Effort {
    /// Nothing: it says so.
    Held = 0,
    /// It fetches them from the source.
    Source = 1,
    /// It fetches them as it would for itself: by the way that a plan names, too.
    Own = 2,
}

impl Effort {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Held, Self::Source, Self::Own].into_iter().find(|e| *e as u8 == byte)
    }
}

/// What of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Want {
    /// Its manifest.
    Manifest,
    /// Its manifest, and the chunks that cover these bytes, in one answer.
    Bytes(Range<u64>),
    /// The same at once: of a file that takes long to cut, with the manifest of its beginning in place of the whole one.
    Soon(Range<u64>),
    /// These chunks of this manifest, which the asker has.
    Chunks { manifest: ManifestId, chunks: Range<u32> },
    /// The same, as a delta against the bytes that this signature is of, if that is shorter.
    Delta { manifest: ManifestId, chunks: Range<u32>, signature: Bytes },
}

impl Want {
    /// The manifest whose chunks are asked for.
    pub(crate) fn names(&self) -> Option<ManifestId> {
        match self {
            Self::Chunks { manifest, .. } | Self::Delta { manifest, .. } => Some(*manifest),
            Self::Manifest | Self::Bytes(_) | Self::Soon(_) => None,
        }
    }
}

/// What a source tells of a directory that was listed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// This is what the name stands for now; no entry: nothing.
    Name {
        /// In which volume.
        volume: VolumeId,
        /// Which name.
        path: FilePath,
        /// What it is.
        entry: Option<Entry>,
    },
    /// Changes of this directory will not be told (any more), or some were lost.
    Unsure {
        /// In which volume.
        volume: VolumeId,
        /// Which directory.
        directory: FilePath,
    },
}

/// Why a request failed at the other end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    NotFound,
    Changed,
    Refused(Box<Refusal>),
    NoVolume,
    /// The agent at the source may not read it.
    Denied(String),
    /// A giver has not got it.
    NotHeld,
    Other(String),
}

fn put_path(out: &mut Vec<u8>, volume: &VolumeId, path: &FilePath) {
    put_bytes(out, volume.as_str().as_bytes());
    put_bytes(out, path.as_bytes());
}

fn path(r: &mut Reader<'_>) -> Result<(VolumeId, FilePath), EncodingError> {
    let volume = VolumeId::new(r.text("volume")?).map_err(|_| EncodingError::Impossible("volume"))?;
    let path = FilePath::new(r.bytes("path")?).map_err(|_| EncodingError::Impossible("path"))?;
    Ok((volume, path))
}

/// A directory that was not asked for, complete: its path, the number of its watch, its entries.
pub(crate) fn put_below(out: &mut Vec<u8>, directory: &FilePath, watch: u32, found: &[Entry]) {
    put_bytes(out, directory.as_bytes());
    out.extend_from_slice(&watch.to_le_bytes());
    found.iter().for_each(|entry| put_entry(out, entry));
}

/// Reads [`put_below`].
pub(crate) fn below(record: &[u8]) -> Result<(FilePath, u32, Vec<Entry>), EncodingError> {
    let mut r = Reader::new(record);
    let directory = FilePath::new(r.bytes("path")?).map_err(|_| EncodingError::Impossible("path"))?;
    let watch = r.u32("watch")?;
    Ok((directory, watch, entries(r.rest())?))
}

fn put_span(out: &mut Vec<u8>, want: u8, bytes: &Range<u64>) {
    out.push(want);
    out.extend_from_slice(&bytes.start.to_le_bytes());
    out.extend_from_slice(&bytes.end.to_le_bytes());
}

fn span(r: &mut Reader<'_>) -> Result<Range<u64>, EncodingError> {
    Ok(r.u64("first byte")?..r.u64("last byte")?)
}

fn put_version(out: &mut Vec<u8>, version: &FileVersion) {
    put_bytes(out, version.0.as_bytes());
}

fn version(r: &mut Reader<'_>) -> Result<FileVersion, EncodingError> {
    Ok(FileVersion(r.text("version")?.into()))
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        match self {
            Self::List { volume, directory, names_below } => {
                out.push(1);
                put_path(&mut out, volume, directory);
                out.extend_from_slice(&names_below.to_le_bytes());
            }
            Self::Stat { volume, path } => {
                out.push(2);
                put_path(&mut out, volume, path);
            }
            Self::Read(read) => {
                out.push(3);
                read.encode(&mut out);
            }
            Self::Warm { bytes } => {
                out.push(4);
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Watch => out.push(5),
        }
        out
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, EncodingError> {
        let mut r = Reader::new(record);
        let request = match r.u8("request")? {
            1 => {
                let (volume, directory) = path(&mut r)?;
                Self::List { volume, directory, names_below: r.u32("names")? }
            }
            2 => path(&mut r).map(|(volume, path)| Self::Stat { volume, path })?,
            3 => Self::Read(ReadRequest::decode(&mut r)?),
            4 => Self::Warm { bytes: r.u32("bytes")? },
            5 => Self::Watch,
            _ => return Err(EncodingError::Impossible("request")),
        };
        r.end()?;
        Ok(request)
    }
}

impl ReadRequest {
    /// What it tells of the asker's own bytes: that crosses the link as well.
    pub(crate) fn signature_bytes(&self) -> u64 {
        match &self.want {
            Want::Delta { signature, .. } => signature.len() as u64,
            Want::Manifest | Want::Bytes(_) | Want::Soon(_) | Want::Chunks { .. } => 0,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_path(out, &self.volume, &self.path);
        put_option(out, self.version.as_ref(), put_version);
        put_option(out, self.unless.as_ref(), put_version);
        put_option(out, self.holds.as_ref(), |out, id| out.extend_from_slice(&id.0));
        out.push(u8::from(self.recut));
        out.push(self.effort as u8);
        match &self.want {
            Want::Manifest => out.push(1),
            Want::Bytes(bytes) => put_span(out, 2, bytes),
            Want::Soon(bytes) => put_span(out, 5, bytes),
            Want::Chunks { manifest, chunks } => {
                out.push(3);
                out.extend_from_slice(&manifest.0);
                out.extend_from_slice(&chunks.start.to_le_bytes());
                out.extend_from_slice(&chunks.end.to_le_bytes());
            }
            Want::Delta { manifest, chunks, signature } => {
                out.push(4);
                out.extend_from_slice(&manifest.0);
                out.extend_from_slice(&chunks.start.to_le_bytes());
                out.extend_from_slice(&chunks.end.to_le_bytes());
                put_bytes(out, signature);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, EncodingError> {
        let (volume, path) = path(r)?;
        let known = r.option("version", version)?;
        let unless = r.option("version", version)?;
        let holds = r.option("manifest", |r| r.digest("manifest").map(ManifestId))?;
        let recut = r.u8("recut")? == 1;
        let effort = Effort::from_byte(r.u8("effort")?).ok_or(EncodingError::Impossible("effort"))?;
        let want = match r.u8("want")? {
            1 => Want::Manifest,
            2 => Want::Bytes(span(r)?),
            5 => Want::Soon(span(r)?),
            3 => Want::Chunks {
                manifest: ManifestId(r.digest("manifest")?),
                chunks: r.u32("first chunk")?..r.u32("last chunk")?,
            },
            4 => Want::Delta {
                manifest: ManifestId(r.digest("manifest")?),
                chunks: r.u32("first chunk")?..r.u32("last chunk")?,
                signature: Bytes::copy_from_slice(r.bytes("signature")?),
            },
            _ => return Err(EncodingError::Impossible("want")),
        };
        Ok(Self { volume, path, version: known, unless, holds, recut, effort, want })
    }
}

impl Failure {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::NotFound => out.push(1),
            Self::Changed => out.push(2),
            Self::Refused(r) => {
                out.push(3);
                put_path(&mut out, &r.volume, &r.path);
                put_bytes(&mut out, r.to.as_str().as_bytes());
                put_bytes(&mut out, r.rule.as_bytes());
                put_bytes(&mut out, r.by.as_bytes());
                out.extend_from_slice(&r.at.0.to_le_bytes());
            }
            Self::NoVolume => out.push(4),
            Self::Other(why) => {
                out.push(5);
                put_bytes(&mut out, why.as_bytes());
            }
            Self::Denied(why) => {
                out.push(6);
                put_bytes(&mut out, why.as_bytes());
            }
            Self::NotHeld => out.push(7),
        }
        out
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, EncodingError> {
        let mut r = Reader::new(record);
        let failure = match r.u8("failure")? {
            1 => Self::NotFound,
            2 => Self::Changed,
            3 => {
                let (volume, path) = path(&mut r)?;
                let to = SiteId::new(r.text("site")?).map_err(|_| EncodingError::Impossible("site"))?;
                let rule = r.text("rule")?.to_owned();
                let by = r.text("refuser")?.to_owned();
                Self::Refused(Box::new(Refusal { volume, path, to, rule, by, at: Timestamp(r.i64("time")?) }))
            }
            4 => Self::NoVolume,
            5 => Self::Other(r.text("reason")?.to_owned()),
            6 => Self::Denied(r.text("reason")?.to_owned()),
            7 => Self::NotHeld,
            _ => return Err(EncodingError::Impossible("failure")),
        };
        r.end()?;
        Ok(failure)
    }
}

/// Puts one entry; its path is written whole.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_bytes(out, entry.path.as_bytes());
    match &entry.kind {
        EntryKind::File => out.push(1),
        EntryKind::Directory => out.push(2),
        EntryKind::Symlink { target } => {
            out.push(3);
            put_bytes(out, target.as_bytes());
        }
    }
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.modified_at.0.to_le_bytes());
    for n in [entry.mode, entry.uid, entry.gid, entry.links] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    put_version(out, &entry.version);
}

fn entry(r: &mut Reader<'_>) -> Result<Entry, EncodingError> {
    let path = FilePath::new(r.bytes("path")?).map_err(|_| EncodingError::Impossible("path"))?;
    let kind = match r.u8("kind")? {
        1 => EntryKind::File,
        2 => EntryKind::Directory,
        3 => EntryKind::Symlink { target: r.text("target")?.to_owned() },
        _ => return Err(EncodingError::Impossible("kind")),
    };
    Ok(Entry {
        path,
        kind,
        size: r.u64("size")?,
        modified_at: Timestamp(r.i64("time")?),
        mode: r.u32("mode")?,
        uid: r.u32("owner")?,
        gid: r.u32("group")?,
        links: r.u32("links")?,
        version: version(r)?,
    })
}

/// Puts one change.
pub(crate) fn put_change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Name { volume, path, entry } => {
            out.push(1);
            put_path(out, volume, path);
            put_option(out, entry.as_ref(), put_entry);
        }
        Change::Unsure { volume, directory } => {
            out.push(2);
            put_path(out, volume, directory);
        }
    }
}

fn change(r: &mut Reader<'_>) -> Result<Change, EncodingError> {
    match r.u8("change")? {
        1 => {
            let (volume, path) = path(r)?;
            Ok(Change::Name { volume, path, entry: r.option("entry", entry)? })
        }
        2 => path(r).map(|(volume, directory)| Change::Unsure { volume, directory }),
        _ => Err(EncodingError::Impossible("change")),
    }
}

/// Reads changes until the record ends.
pub(crate) fn changes(record: &[u8]) -> Result<Vec<Change>, EncodingError> {
    let mut r = Reader::new(record);
    let mut read = Vec::new();
    while !r.rest().is_empty() {
        read.push(change(&mut r)?);
    }
    Ok(read)
}

/// Reads entries until the record ends.
pub(crate) fn entries(record: &[u8]) -> Result<Vec<Entry>, EncodingError> {
    let mut r = Reader::new(record);
    let mut read = Vec::new();
    while !r.rest().is_empty() {
        read.push(entry(&mut r)?);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_path() -> impl Strategy<Value = (VolumeId, FilePath)> {
        ("[a-z]{1,8}", "[a-z%]{1,9}(/[a-z]{1,5}){0,3}")
            .prop_map(|(v, p)| (VolumeId::new(&v).unwrap(), FilePath::new(p.as_bytes()).unwrap()))
    }

    fn some_version() -> impl Strategy<Value = Option<FileVersion>> {
        prop::option::of("[0-9,]{0,20}".prop_map(|v| FileVersion(v.into())))
    }

    fn want() -> impl Strategy<Value = Want> {
        prop_oneof![
            Just(Want::Manifest),
            any::<(u64, u64)>().prop_map(|(a, b)| Want::Bytes(a..b)),
            any::<(u64, u64)>().prop_map(|(a, b)| Want::Soon(a..b)),
            any::<([u8; 32], u32, u32)>()
                .prop_map(|(id, a, b)| Want::Chunks { manifest: ManifestId(id), chunks: a..b }),
            any::<([u8; 32], u32, u32, Vec<u8>)>().prop_map(|(id, a, b, signature)| Want::Delta {
                manifest: ManifestId(id),
                chunks: a..b,
                signature: signature.into()
            }),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (some_path(), any::<u32>()).prop_map(|((volume, directory), names_below)| Request::List {
                volume,
                directory,
                names_below
            }),
            some_path().prop_map(|(volume, path)| Request::Stat { volume, path }),
            any::<u32>().prop_map(|bytes| Request::Warm { bytes }),
            Just(Request::Watch),
            (some_path(), some_version(), some_version(), any::<Option<[u8; 32]>>(), any::<bool>(), 0u8..3, want())
                .prop_map(|((volume, path), version, unless, holds, recut, effort, want)| {
                    let (holds, effort) = (holds.map(ManifestId), Effort::from_byte(effort).unwrap());
                    Request::Read(ReadRequest { volume, path, version, unless, holds, recut, effort, want })
                }),
        ]
    }

    proptest! {
        #[test]
        fn requests_read_back_and_are_whole_or_refused(request in request(), cut: prop::sample::Index) {
            let record = request.encode();
            prop_assert_eq!(Request::decode(&record).unwrap(), request);
            prop_assert!(Request::decode(&record[..cut.index(record.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Request::decode(&bytes);
            let _ = Failure::decode(&bytes);
            let _ = entries(&bytes);
            let _ = changes(&bytes);
        }
    }

    #[test]
    fn entries_read_back() {
        let file = Entry {
            path: FilePath::parse("a/b%FF").unwrap(),
            kind: EntryKind::Symlink { target: "../x".into() },
            size: 7,
            modified_at: Timestamp(-3),
            mode: 0o644,
            uid: 1,
            gid: 2,
            links: 1,
            version: FileVersion("1,2".into()),
        };
        let mut record = Vec::new();
        put_entry(&mut record, &file);
        put_entry(&mut record, &file);
        assert_eq!(entries(&record).unwrap(), [file.clone(), file.clone()]);
        let (volume, path) = (VolumeId::new("v").unwrap(), file.path.clone());
        let told = [
            Change::Name { volume: volume.clone(), path: path.clone(), entry: Some(file) },
            Change::Name { volume: volume.clone(), path: path.clone(), entry: None },
            Change::Unsure { volume, directory: path },
        ];
        let mut record = Vec::new();
        told.iter().for_each(|c| put_change(&mut record, c));
        assert_eq!(changes(&record).unwrap(), told);
    }
}
