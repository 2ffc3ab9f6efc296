//! Batches that wait for the control plane: one Parquet file each, bounded, still there after kill -9.
//!
//! A batch is written beside its place and renamed into it, so that no half batch ever has a name. It stays until the
//! control plane has acknowledged it. When the spool is full, the oldest detail goes first: the accesses of the oldest
//! batch become one access for each run, file and kind of access, and how many went is counted; if that does not help,
//! the batch goes whole. The counts, with those that the batch itself had, travel with the next batch (promises E, J, K).
//!
//! The highest number ever acknowledged is kept as the name of an empty file, so that numbers never repeat.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use foretide_flow::{Access, AccessBatch, AccessOp, FilePath, Losses, RunId, VolumeId};

use crate::CollectorError;
use crate::parquet::{self, Encoded};

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
    lost: Losses,
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
            lost: Losses::default(),
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

    /// What went with whole batches and no batch has told of yet; asked for by who makes the next batch.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.lost)
    }

    /// Batches and bytes that wait.
    pub fn waiting(&self) -> (usize, u64) {
        (self.waiting.len(), self.bytes)
    }

    /// Puts an encoded batch in; its number must be [`Spool::next_sequence`].
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if it cannot be written.
    pub fn push(&mut self, batch: &[u8]) -> Result<(), CollectorError> {
        let number = self.next;
        self.write(number, batch, false)?;
        self.next += 1;
        self.shrink()
    }

    /// The oldest batch not given out since this was opened, with what was lost on the way here. A file that is no
    /// batch any more is dropped. Its accesses are not read: whoever takes the batch refuses it if they are damaged.
    ///
    /// # Errors
    /// [`CollectorError::Spool`] if the disk fails.
    pub fn take_next(&mut self) -> Result<Option<Encoded>, CollectorError> {
        while let Some((&number, _)) = self.waiting.range(self.given + 1..).next() {
            self.given = number;
            let bytes = fs::read(self.path(number, BATCH_SUFFIX)).map_err(|e| self.error(e))?;
            match Encoded::read(bytes) {
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

    /// Makes room, oldest detail first; the newest batch keeps its detail as long as an older one can go.
    fn shrink(&mut self) -> Result<(), CollectorError> {
        while self.bytes > self.limit_bytes {
            let Some((&newest, _)) = self.waiting.last_key_value() else { return Ok(()) };
            let older = self.waiting.range(..newest).find(|(_, w)| !w.summarised).map(|(n, _)| *n);
            match (older, self.waiting.first_key_value()) {
                (Some(number), _) => self.summarise(number)?,
                (None, Some((&oldest, waiting))) if oldest < newest || waiting.summarised => self.drop_whole(oldest)?,
                (None, _) => self.summarise(newest)?,
            }
        }
        Ok(())
    }

    fn drop_whole(&mut self, number: u64) -> Result<(), CollectorError> {
        if let Some(batch) = self.load(number)? {
            self.lost.dropped_events += batch.losses.dropped_events;
            self.lost.unresolved += batch.losses.unresolved;
            self.lost.summarised += batch.losses.summarised + batch.accesses.len() as u64;
        }
        self.remove(number)
    }

    fn summarise(&mut self, number: u64) -> Result<(), CollectorError> {
        let Some(mut batch) = self.load(number)? else { return self.remove(number) };
        let before = batch.accesses.len();
        batch.accesses = summary(&batch.accesses);
        batch.losses.summarised += (before - batch.accesses.len()) as u64;
        self.write(number, &parquet::encode(&batch)?, true)
    }

    fn load(&self, number: u64) -> Result<Option<AccessBatch>, CollectorError> {
        let bytes = fs::read(self.path(number, BATCH_SUFFIX)).map_err(|e| self.error(e))?;
        Ok(parquet::decode(&bytes).ok())
    }

    fn write(&mut self, number: u64, bytes: &[u8], summarised: bool) -> Result<(), CollectorError> {
        let part = self.path(number, PART_SUFFIX);
        fs::File::create(&part)
            .and_then(|mut file| file.write_all(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{Found, NodeId, SiteId, Timestamp};

    /// A batch of `files` files, each read in four pieces.
    fn batch(sequence: u64, files: u64) -> AccessBatch {
        let access = |i: u64| Access {
            at: Timestamp(i as i64),
            run: "r".into(),
            process: (i % 3) as u32,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(&format!("f{}", i / 4)).unwrap(),
            op: AccessOp::Read,
            // Such that nothing compresses away.
            offset: i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
            length: 10,
            blocked_us: 5,
            found: Found::Unknown,
        };
        AccessBatch {
            node: NodeId::new("n").unwrap(),
            site: SiteId::new("s").unwrap(),
            sequence,
            started: vec![],
            accesses: (0..files * 4).map(access).collect(),
            ended: vec![],
            losses: Losses::default(),
        }
    }

    fn push(spool: &mut Spool, batch: &AccessBatch) {
        spool.push(&parquet::encode(batch).unwrap()).unwrap();
    }

    fn next(spool: &mut Spool) -> Option<AccessBatch> {
        spool.take_next().unwrap().map(|batch| batch.decode().unwrap())
    }

    fn open(dir: &Path) -> Spool {
        Spool::open(dir, 1 << 20).unwrap()
    }

    #[test]
    fn promise_e_what_was_put_in_and_not_acknowledged_is_there_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        for n in 1..=3 {
            push(&mut spool, &batch(n, n));
        }
        assert_eq!(next(&mut spool), Some(batch(1, 1)));
        spool.acknowledge(1).unwrap();
        // Killed here, in the middle of a write.
        drop(spool);
        fs::write(dir.path().join(format!("{:020}.part", 4)), b"half").unwrap();
        let mut spool = open(dir.path());
        assert_eq!(next(&mut spool), Some(batch(2, 2)));
        assert_eq!(next(&mut spool), Some(batch(3, 3)));
        assert!(spool.take_next().unwrap().is_none());
        spool.rewind();
        assert_eq!(next(&mut spool).unwrap().sequence, 2);
    }

    #[test]
    fn numbers_never_repeat_even_if_the_spool_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        for n in 1..=3 {
            push(&mut spool, &batch(n, 1));
        }
        spool.acknowledge(2).unwrap();
        spool.acknowledge(3).unwrap();
        assert_eq!(spool.waiting(), (0, 0));
        assert_eq!(open(dir.path()).next_sequence(), 4);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "one mark is kept");
    }

    #[test]
    fn promises_j_and_k_a_full_spool_summarises_the_oldest_and_counts_what_went() {
        let dir = tempfile::tempdir().unwrap();
        let one = parquet::encode(&batch(1, 500)).unwrap().len() as u64;
        let limit = one * 3;
        let mut spool = Spool::open(dir.path(), limit).unwrap();
        let pushed: u64 = (1..=12)
            .map(|n| {
                let batch = batch(n, 500);
                push(&mut spool, &batch);
                assert!(spool.waiting().1 <= limit, "the bound holds");
                batch.accesses.len() as u64
            })
            .sum();
        let gone_whole = spool.take_losses().summarised;
        let batches: Vec<AccessBatch> = std::iter::from_fn(|| next(&mut spool)).collect();
        let told: u64 = batches.iter().map(|b| b.accesses.len() as u64).sum();
        let counted: u64 = batches.iter().map(|b| b.losses.summarised).sum();
        assert_eq!(told + counted + gone_whole, pushed);
        assert_eq!(batches.last().unwrap().losses.summarised, 0, "the newest keeps its detail");
        assert!(batches[0].losses.summarised > 0);
        let blocked: u32 = batches[0].accesses.iter().map(|a| a.blocked_us).sum();
        assert_eq!(blocked, 500 * 4 * 5, "waiting is added up, not dropped");
        assert!(gone_whole > 0, "summarising alone was not enough here");
    }

    #[test]
    fn a_damaged_batch_is_dropped_and_the_next_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        push(&mut spool, &batch(1, 1));
        push(&mut spool, &batch(2, 1));
        fs::write(dir.path().join(format!("{:020}.parquet", 1)), b"PAR1 no").unwrap();
        assert_eq!(next(&mut spool).unwrap().sequence, 2);
    }

    #[test]
    fn a_spool_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Spool::open(&file, 1).err().unwrap().to_string();
        assert!(error.contains("file") && error.contains("spool"), "{error}");
    }
}
