//! Batches that wait for the control plane: one Parquet file each, bounded, still there after kill -9.
//!
//! A batch is written beside its place and renamed into it, so that no half batch ever has a name. It stays until the
//! control plane has acknowledged it. When the spool is full, the oldest detail goes first: the accesses of the oldest
//! batch become one access for each run, file and kind of access, and how many went is counted; if that does not help,
//! the batch goes whole, its runs' starts and ends included only as that count. The count travels with the next batch
//! (promises E, J, K).
//!
//! The highest number ever acknowledged is kept as the name of an empty file, so that numbers never repeat.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use foretide_flow::{Access, AccessBatch, AccessOp, FilePath, RunId, VolumeId};

use crate::{CollectorError, parquet};

const BATCH_SUFFIX: &str = "parquet";
const DONE_SUFFIX: &str = "done";
const PART_SUFFIX: &str = "part";

/// A waiting batch on disk.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: u64,
    summarised: bool,
}

/// The batches of one node that nobody has acknowledged.
pub struct Spool {
    dir: PathBuf,
    limit_bytes: u64,
    waiting: BTreeMap<u64, Waiting>,
    bytes: u64,
    next: u64,
    /// Given out up to here; what comes after is next.
    given: u64,
    summarised: u64,
}

impl Spool {
    /// Opens the directory, and makes it where it is missing. Batches that waited there are given out first.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the directory cannot be used.
    pub fn open(dir: &Path, limit_bytes: u64) -> Result<Self, CollectorError> {
        let mut spool = Self {
            dir: dir.to_owned(),
            limit_bytes,
            waiting: BTreeMap::new(),
            bytes: 0,
            next: 1,
            given: 0,
            summarised: 0,
        };
        spool.read_dir().map_err(|source| spool.error(source))?;
        Ok(spool)
    }

    fn read_dir(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let path = entry.path();
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
            match (number, path.extension().and_then(|s| s.to_str())) {
                (Some(number), Some(BATCH_SUFFIX)) => {
                    let bytes = entry.metadata()?.len();
                    self.waiting.insert(number, Waiting { bytes, summarised: false });
                    self.bytes += bytes;
                    self.next = self.next.max(number + 1);
                }
                (Some(number), Some(DONE_SUFFIX)) => self.next = self.next.max(number + 1),
                (Some(_), Some(PART_SUFFIX)) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The number that the next batch gets.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Accesses summarised away that no batch has told of yet; asked for by who makes the next batch.
    pub fn take_summarised(&mut self) -> u64 {
        std::mem::take(&mut self.summarised)
    }

    /// Batches and bytes that wait.
    pub fn waiting(&self) -> (usize, u64) {
        (self.waiting.len(), self.bytes)
    }

    /// Puts a batch in; its number must be [`Spool::next_sequence`].
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if it cannot be written.
    pub fn push(&mut self, batch: &AccessBatch) -> Result<(), CollectorError> {
        let number = self.next;
        self.write(number, batch, false)?;
        self.next += 1;
        self.shrink()
    }

    /// The oldest batch not given out since this was opened, with what was lost on the way here. A file that is no
    /// batch any more is dropped.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the disk fails.
    pub fn take_next(&mut self) -> Result<Option<AccessBatch>, CollectorError> {
        while let Some((&number, _)) = self.waiting.range(self.given + 1..).next() {
            self.given = number;
            let bytes = fs::read(self.path(number, BATCH_SUFFIX)).map_err(|e| self.error(e))?;
            match parquet::decode(&bytes) {
                Ok(batch) => return Ok(Some(batch)),
                Err(error) => {
                    tracing::warn!(number, %error, "a spooled batch is damaged and is dropped");
                    self.remove(number)?;
                }
            }
        }
        Ok(None)
    }

    /// Gives the batches that nobody acknowledged out again, oldest first.
    pub fn rewind(&mut self) {
        self.given = 0;
    }

    /// The control plane has this batch and all before it.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the disk fails.
    pub fn acknowledge(&mut self, number: u64) -> Result<(), CollectorError> {
        let gone: Vec<u64> = self.waiting.range(..=number).map(|(n, _)| *n).collect();
        let Some(last) = gone.last().copied() else { return Ok(()) };
        let marks: Vec<PathBuf> = fs::read_dir(&self.dir)
            .map_err(|e| self.error(e))?
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|x| x == DONE_SUFFIX))
            .collect();
        let mark = self.path(last, DONE_SUFFIX);
        fs::File::create(&mark).map_err(|e| self.error(e))?;
        for old in marks.iter().filter(|m| **m != mark) {
            fs::remove_file(old).map_err(|e| self.error(e))?;
        }
        gone.into_iter().try_for_each(|n| self.remove(n))
    }

    /// Makes room, oldest detail first.
    fn shrink(&mut self) -> Result<(), CollectorError> {
        while self.bytes > self.limit_bytes {
            let detailed = self.waiting.iter().find(|(_, w)| !w.summarised).map(|(n, _)| *n);
            match detailed {
                Some(number) => self.summarise(number)?,
                None => {
                    let Some((&oldest, _)) = self.waiting.iter().next() else { return Ok(()) };
                    self.summarised += self.load(oldest)?.map_or(0, |b| b.accesses.len() as u64);
                    self.remove(oldest)?;
                }
            }
        }
        Ok(())
    }

    fn summarise(&mut self, number: u64) -> Result<(), CollectorError> {
        let Some(mut batch) = self.load(number)? else { return self.remove(number) };
        let before = batch.accesses.len();
        batch.accesses = summary(&batch.accesses);
        batch.losses.summarised += (before - batch.accesses.len()) as u64;
        self.write(number, &batch, true)
    }

    fn load(&self, number: u64) -> Result<Option<AccessBatch>, CollectorError> {
        let bytes = fs::read(self.path(number, BATCH_SUFFIX)).map_err(|e| self.error(e))?;
        Ok(parquet::decode(&bytes).ok())
    }

    fn write(&mut self, number: u64, batch: &AccessBatch, summarised: bool) -> Result<(), CollectorError> {
        let bytes = parquet::encode(batch)?;
        let part = self.path(number, PART_SUFFIX);
        fs::File::create(&part)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&part, self.path(number, BATCH_SUFFIX)))
            .map_err(|e| self.error(e))?;
        let fresh = Waiting { bytes: bytes.len() as u64, summarised };
        let old = self.waiting.insert(number, fresh);
        self.bytes = self.bytes + fresh.bytes - old.map_or(0, |w| w.bytes);
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), CollectorError> {
        if let Some(gone) = self.waiting.remove(&number) {
            self.bytes -= gone.bytes;
            fs::remove_file(self.path(number, BATCH_SUFFIX)).map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    fn path(&self, number: u64, suffix: &str) -> PathBuf {
        self.dir.join(format!("{number:020}.{suffix}"))
    }

    fn error(&self, source: io::Error) -> CollectorError {
        CollectorError::Spool { path: self.dir.clone(), source }
    }
}

/// One access for each run, file and kind: the first moment, the span of the bytes, the waiting added up.
fn summary(accesses: &[Access]) -> Vec<Access> {
    let mut place: HashMap<(&RunId, &VolumeId, &FilePath, AccessOp), usize> = HashMap::new();
    let mut out: Vec<Access> = Vec::new();
    for access in accesses {
        let key = (&access.run, &access.volume, &access.path, access.op);
        match place.get(&key) {
            Some(&i) => {
                let kept = &mut out[i];
                let end = (kept.offset + kept.length).max(access.offset + access.length);
                kept.offset = kept.offset.min(access.offset);
                kept.length = end - kept.offset;
                kept.blocked_us = kept.blocked_us.saturating_add(access.blocked_us);
            }
            None => {
                place.insert(key, out.len());
                out.push(access.clone());
            }
        }
    }
    out
}
