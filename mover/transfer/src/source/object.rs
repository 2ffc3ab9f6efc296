//! A prefix of an object store as a source: S3 and what speaks its protocol (Ceph RGW, MinIO), Google Cloud Storage,
//! Azure Blob Storage.
//!
//! A key's slashes are directories. What an object is at one moment is told by its ETag; every read is
//! conditional on the ETag that [`Source::open`] saw, so a file that is replaced meanwhile ends its reader's reads
//! instead of mixing two contents, and no further question is asked for that.
//!
//! The trait blocks and the client waits: calls come on threads that may block, and hand over to a runtime.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_flow::{Entry, EntryKind, FilePath, FileVersion, Timestamp};
use futures::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme};
use tokio::runtime::Handle;
use url::Url;

use super::http::Http;
use super::{Source, SourceFile, Stamp};
use crate::TransferError;

/// A file that is read from start to end is asked for in pieces of this size, bytes: a store that answers after 20 ms
/// still gives 400 MB/s.
const READ_AHEAD_BYTES: u64 = 8 << 20;

/// Objects that are looked up side by side, where listings tell too little.
const LOOKS_AT_A_TIME: usize = 16;
/// A question that takes longer has failed: a store may take its time to list, but nobody waits for minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A prefix of an object store. Its objects are only read (promise B).
#[derive(Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    root: Path,
    runtime: Handle,
}

impl Bucket {
    /// Opens `s3://bucket/prefix`, `gs://…`, `az://…` or an `https://` address of one of these. `options` are named as
    /// the providers' own environment variables (`aws_endpoint`, `aws_access_key_id`, …); what they leave out is taken
    /// from the environment. To be called inside a tokio runtime, which serves it from then on.
    ///
    /// # Errors
    /// [`TransferError::Serve`] if the address is none, or options are missing or unknown.
    pub fn open(address: &str, options: &BTreeMap<String, String>) -> Result<Self, TransferError> {
        let (store, root) = Self::connect(address, options)?;
        Ok(Self::over(store, root))
    }

    /// The store behind such an address, and the prefix that it names.
    ///
    /// # Errors
    /// As [`Bucket::open`].
    pub fn connect(
        address: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(Arc<dyn ObjectStore>, Path), TransferError> {
        let failed = |why: String| TransferError::Serve { what: format!("object store {address}"), why };
        let remedy = "use s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
        let url = Url::parse(address).map_err(|e| failed(format!("{e}; {remedy}")))?;
        let (scheme, root) = ObjectStoreScheme::parse(&url).map_err(|e| failed(format!("{e}; {remedy}")))?;
        let of_a_provider = |name: &str| ["aws_", "google_", "azure_"].iter().any(|p| name.starts_with(p));
        let environment = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let mut settings: BTreeMap<_, _> = environment.filter(|(name, _)| of_a_provider(name)).collect();
        settings.extend(options.clone());
        macro_rules! build {
            ($builder:ty, $key:ty) => {{
                if let Some(strange) = options.keys().find(|name| name.parse::<$key>().is_err()) {
                    return Err(failed(format!("it has no option {strange:?}: leave it out")));
                }
                let known = settings.iter().filter_map(|(name, value)| Some((name.parse::<$key>().ok()?, value)));
                let builder = known.fold(<$builder>::new(), |b, (key, value)| b.with_config(key, value));
                let built = builder.with_url(address).with_http_connector(Http).build();
                Arc::new(built.map_err(|e| failed(e.to_string()))?) as Arc<dyn ObjectStore>
            }};
        }
        let store = match scheme {
            ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder, AmazonS3ConfigKey),
            ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder, GoogleConfigKey),
            ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder, AzureConfigKey),
            _ => return Err(failed(remedy.into())),
        };
        Ok((store, root))
    }

    /// Over a store that is open already. To be called inside a tokio runtime.
    pub fn over(store: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { store, root, runtime: Handle::current() }
    }

    fn wait<T>(&self, asked: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        wait(&self.runtime, asked)
    }

    /// The key below which a path lies; what no key can hold is not there.
    fn key(&self, path: &FilePath) -> io::Result<Path> {
        if path.is_root() {
            return Ok(self.root.clone());
        }
        let text = std::str::from_utf8(path.as_bytes()).map_err(|_| io::ErrorKind::NotFound)?;
        let below = Path::parse(text).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(self.root.parts().chain(below.parts()).collect())
    }

    fn head(&self, path: &FilePath) -> io::Result<ObjectMeta> {
        let key = self.key(path)?;
        if key.is_root() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.wait(self.store.head(&key))
    }

    /// Some stores tell no ETags in listings, and a listing must agree with what is opened: they are asked for each.
    async fn with_tags(&self, objects: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
        let look = async |meta: ObjectMeta| match meta.e_tag {
            Some(_) => Some(meta),
            // What vanished since it was listed is left out.
            None => self.store.head(&meta.location).await.ok(),
        };
        futures::stream::iter(objects)
            .map(look)
            .buffered(LOOKS_AT_A_TIME)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    fn is_directory(&self, path: &FilePath) -> io::Result<bool> {
        let key = self.key(path)?;
        let first = async { self.store.list(Some(&key)).next().await.transpose() };
        Ok(self.wait(first)?.is_some())
    }
}

/// Waits on a thread that may block, for a bounded time: the store's own retries are within it.
fn wait<T>(runtime: &Handle, asked: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
    let told = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    told.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the object store does not answer"))?.map_err(as_io)
}

fn as_io(e: Error) -> io::Error {
    let kind = match &e {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        // The object is another one by now: the one that was opened has no such bytes any more.
        Error::Precondition { .. } => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, e)
}

/// The object's ETag, which listings tell as well (Azure's without its quotes); else its version id, else what changes with
/// its content as far as one can see.
fn version(meta: &ObjectMeta) -> FileVersion {
    let told = match (&meta.e_tag, &meta.version) {
        (Some(tag), _) => format!("e.{}", tag.trim_matches('"')),
        (None, Some(version)) => format!("v.{version}"),
        (None, None) => format!("m.{:x}.{:x}", meta.size, meta.last_modified.timestamp_micros()),
    };
    FileVersion(told.into())
}

fn file(path: FilePath, meta: &ObjectMeta) -> Entry {
    Entry {
        kind: EntryKind::File,
        size: meta.size,
        modified_at: Timestamp(meta.last_modified.timestamp_micros()),
        mode: 0o444,
        version: version(meta),
        ..directory(path)
    }
}

/// Object stores know nothing of directories but their names.
fn directory(path: FilePath) -> Entry {
    Entry {
        path,
        kind: EntryKind::Directory,
        size: 0,
        modified_at: Timestamp(0),
        mode: 0o555,
        uid: 0,
        gid: 0,
        links: 1,
        version: FileVersion("d".into()),
    }
}

impl Source for Bucket {
    fn list(&self, at: &FilePath) -> io::Result<Vec<Entry>> {
        let key = self.key(at)?;
        let found = self.wait(self.store.list_with_delimiter(Some(&key)))?;
        if found.common_prefixes.is_empty() && found.objects.is_empty() && !at.is_root() {
            self.head(at)?;
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let objects = self.wait(async { Ok(self.with_tags(found.objects).await) })?;
        let mut entries = Vec::with_capacity(found.common_prefixes.len() + objects.len());
        let named = |key: &Path| key.filename().and_then(|name| at.join(name.as_bytes()).ok());
        entries.extend(found.common_prefixes.iter().filter_map(|key| named(key).map(directory)));
        entries.extend(objects.iter().filter_map(|meta| named(&meta.location).map(|path| file(path, meta))));
        // A key that is also the prefix of others is shown as the directory: stable order keeps it first.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|b, a| a.path == b.path);
        Ok(entries)
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        if path.is_root() || self.is_directory(path)? {
            return Ok(directory(path.clone()));
        }
        self.head(path).map(|meta| file(path.clone(), &meta))
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        match self.head(path) {
            Ok(meta) => Ok(Box::new(Object {
                store: self.store.clone(),
                runtime: self.runtime.clone(),
                meta,
                ahead: Mutex::default(),
            })),
            // What a store says of a name that is only a prefix differs.
            Err(e) if path.is_root() || self.is_directory(path)? => Err(io::Error::new(io::ErrorKind::InvalidInput, e)),
            Err(e) => Err(e),
        }
    }
}

/// One object as it was when it was opened.
struct Object {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    meta: ObjectMeta,
    ahead: Mutex<Ahead>,
}

/// What was fetched last, and where the last read ended.
#[derive(Default)]
struct Ahead {
    from: u64,
    bytes: Bytes,
    read_to: u64,
}

impl Object {
    fn get(&self, range: std::ops::Range<u64>) -> io::Result<Bytes> {
        let mut options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        match &self.meta.e_tag {
            Some(tag) => options.if_match = Some(tag.clone()),
            None => options.if_unmodified_since = Some(self.meta.last_modified),
        }
        let got = async { self.store.get_opts(&self.meta.location, options).await?.bytes().await };
        wait(&self.runtime, got)
    }
}

impl SourceFile for Object {
    fn stamp(&self) -> io::Result<Stamp> {
        // Reads are conditional on it, so it needs no second look; and an ETag has no clock that ticks.
        Ok(Stamp { version: version(&self.meta), size: self.meta.size, changed_at: Timestamp(0) })
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        if end > self.meta.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let held = ahead.from..ahead.from + ahead.bytes.len() as u64;
        if offset < held.start || end > held.end {
            let runs_on = offset == ahead.read_to;
            let wanted = if runs_on { end.max(offset + READ_AHEAD_BYTES).min(self.meta.size) } else { end };
            let got = self.get(offset..wanted)?;
            if (got.len() as u64) < end - offset {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (ahead.from, ahead.bytes) = (offset, got);
        }
        let at = (offset - ahead.from) as usize;
        bytes.copy_from_slice(&ahead.bytes[at..at + bytes.len()]);
        ahead.read_to = end;
        Ok(())
    }
}
