//! What happened since the last checkpoint, so that a killed process loses nothing that it verified (promise E).
//!
//! Records are appended with one plain write for what arrived together and are not synced: after kill -9 the kernel still has them.
//! After power loss they may be torn or ahead of the data they tell of; a torn tail ends the replay, and whatever
//! a journal claims is hashed before it is believed (promise D). A checkpoint opens the next journal, makes the
//! index durable and only then removes the older ones; replaying one twice changes nothing.
//!
//! ```text
//! file journal.<n>:  record*
//! record:            length u32 | crc32 of the rest u32 | kind u8 | fields
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, write_all_at};
use super::record::Record;
use crate::encoding::{EncodingError, Reader, put_bytes};

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A file version was admitted; its manifest.
    Admitted { no: u64, record: &'a Record, manifest: &'a [u8] },
    /// A chunk of it was verified and written.
    Arrived { no: u64, chunk: u32, by_move: bool },
    /// It left.
    Gone { no: u64 },
}

/// One thing that a journal tells.
#[derive(Debug)]
pub(super) enum Told {
    Admitted { no: u64, record: Box<Record>, manifest: Vec<u8> },
    Arrived { no: u64, chunk: u32, by_move: bool },
    Gone { no: u64 },
}

const ADMITTED: u8 = 1;
const ARRIVED: u8 = 2;
const GONE: u8 = 3;

impl Event<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        match self {
            Self::Admitted { no, record, manifest } => {
                out.push(ADMITTED);
                out.extend_from_slice(&no.to_le_bytes());
                put_bytes(out, &record.encode());
                put_bytes(out, manifest);
            }
            Self::Arrived { no, chunk, by_move } => {
                out.push(ARRIVED);
                out.extend_from_slice(&no.to_le_bytes());
                out.extend_from_slice(&chunk.to_le_bytes());
                out.push(u8::from(*by_move));
            }
            Self::Gone { no } => {
                out.push(GONE);
                out.extend_from_slice(&no.to_le_bytes());
            }
        }
        let (head, payload) = out[start..].split_at_mut(8);
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    }
}

fn decode(payload: &[u8]) -> Result<Told, EncodingError> {
    let mut r = Reader::new(payload);
    let kind = r.u8("kind")?;
    let no = r.u64("file number")?;
    let told = match kind {
        ADMITTED => {
            let record = Box::new(Record::decode(r.bytes("record")?)?);
            Told::Admitted { no, record, manifest: r.bytes("manifest")?.to_vec() }
        }
        ARRIVED => Told::Arrived { no, chunk: r.u32("chunk")?, by_move: r.u8("cause")? != 0 },
        GONE => Told::Gone { no },
        _ => return Err(EncodingError::Impossible("kind")),
    };
    r.end()?;
    Ok(told)
}

/// Everything up to the first record that is torn or bent.
fn replay(mut bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if crc32fast::hash(payload) != crc {
            break;
        }
        let Ok(event) = decode(payload) else { break };
        told.push(event);
        bytes = rest;
    }
    told
}

/// The journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    generation: u64,
    file: File,
    length: u64,
}

impl Journal {
    /// Reads what earlier journals tell and begins a new one after them.
    pub(super) fn open(folder: &Path, disk: Arc<dyn Disk>) -> io::Result<(Self, Vec<Told>)> {
        let mut told = Vec::new();
        let generations = generations(folder)?;
        for g in &generations {
            told.extend(replay(&std::fs::read(path(folder, *g))?));
        }
        let generation = generations.last().map_or(1, |g| g + 1);
        let file = create(folder, generation)?;
        Ok((Self { folder: folder.to_owned(), disk, generation, file, length: 0 }, told))
    }

    /// Writes events down, with one write.
    pub(super) fn append(&mut self, events: &[Event<'_>]) -> io::Result<()> {
        let mut records = Vec::new();
        events.iter().for_each(|e| e.encode(&mut records));
        // A failed or short append is overwritten by the next: the length grows only when all is written.
        write_all_at(&*self.disk, &self.file, &records, self.length)?;
        self.length += records.len() as u64;
        Ok(())
    }

    /// Bytes in it.
    pub(super) fn length_bytes(&self) -> u64 {
        self.length
    }

    /// Begins the next journal; what came before may be removed up to the generation that is told, once the index
    /// has it all.
    pub(super) fn rotate(&mut self) -> io::Result<u64> {
        let done = self.generation;
        self.file = create(&self.folder, done + 1)?;
        self.generation = done + 1;
        self.length = 0;
        Ok(done)
    }
}

/// Removes all journals up to `generation`.
pub(super) fn remove_until(folder: &Path, generation: u64) -> io::Result<()> {
    for g in generations(folder)?.into_iter().filter(|g| *g <= generation) {
        std::fs::remove_file(path(folder, g))?;
    }
    Ok(())
}

fn path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("journal.{generation}"))
}

fn create(folder: &Path, generation: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path(folder, generation))
}

fn generations(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|n| n.strip_prefix("journal.")).and_then(|g| g.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;
    use proptest::prelude::*;

    #[test]
    fn a_torn_tail_ends_the_replay_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, told) = Journal::open(folder.path(), Arc::new(RealDisk)).unwrap();
        assert!(told.is_empty());
        for no in 0..3 {
            journal.append(&[Event::Gone { no }]).unwrap();
        }
        let kept = std::fs::read(path(folder.path(), 1)).unwrap();
        std::fs::write(path(folder.path(), 1), &kept[..kept.len() - 1]).unwrap();
        let (_, told) = Journal::open(folder.path(), Arc::new(RealDisk)).unwrap();
        assert!(matches!(told[..], [Told::Gone { no: 0 }, Told::Gone { no: 1 }]), "{told:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_replay_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            replay(&bytes);
        }

        #[test]
        fn a_bent_record_is_not_believed(at in 0usize..22, bit in 0u8..8) {
            let mut bytes = Vec::new();
            Event::Arrived { no: 7, chunk: 3, by_move: true }.encode(&mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(replay(&bytes).is_empty());
        }
    }
}
