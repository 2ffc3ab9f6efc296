//! Opened files: who opens a file of this kind, reads it from start to end.
//!
//! Kinds are shapes of paths. Of each, it is counted how often a file that was opened was then read on to its end, and
//! where the first read went (archives with their directory at the end are read there first). While a kind's files
//! have mostly been, an opened one is proposed a window ahead of its reader; before the first one of a kind is
//! done, the benefit of the doubt is given to a few at a time.
//!
//! The window is no larger than needed, because readers stop in the middle when an epoch is cut short: it doubles when
//! a read finds late what had been proposed. All windows together leave room in the cache for what is being used. Who
//! jumps about in a file instead of reading on is no longer trusted with it. Who comes back to blocks that were read before
//! jumps nowhere: an archive is opened by its head, its directory at the end in several steps, and its head again.

use std::collections::HashMap;

use crate::ranges::Ranges;
use crate::shape::shape;

/// Share of a file's bytes that counts as whole.
const WHOLE: f64 = 0.9;
/// Kinds that are kept. Datasets have tens.
const KINDS: usize = 1 << 12;
/// Files that are open at one time, over all streams.
const OPEN: usize = 1 << 14;
/// Ranges kept of a file being read.
const RANGES: usize = 256;

/// Files of a kind that are tried side by side before one of them is done: as many as a loader has workers.
const TRIED: u32 = 8;
/// Bytes ahead of a reader at first, and at most.
const WINDOW_BYTES: u64 = 16 << 20;
const MOST_WINDOW_BYTES: u64 = 1 << 30;
/// Share of the cache that all windows may take.
const ROOM_SHARE: f64 = 0.75;
/// A reader jumps about if it did so often, and in more than half of its reads.
const JUMPS: u32 = 4;

/// One use of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileUse<'a> {
    /// Who uses it.
    pub stream: u32,
    /// The file's number.
    pub file: u32,
    /// Its path.
    pub path: &'a [u8],
    /// Its bytes.
    pub size: u64,
    /// First byte that is read.
    pub offset: u64,
    /// Bytes that are read; 0 where it is opened.
    pub length: u64,
    /// Whether all of them were here.
    pub hit: bool,
}

#[derive(Clone, Copy, Default)]
struct Kind {
    whole: f64,
    parts: f64,
    /// Files proposed of which nothing is known yet.
    tried: u32,
    /// Whether the last one was begun at its end.
    from_end: bool,
    /// Blocks that are proposed ahead of a reader; 0 before the first.
    window: u64,
}

impl Kind {
    /// Older files fade.
    const FADE: f64 = 0.95;

    /// How probable it is that a file is read whole: the rule of succession.
    fn probability(&self) -> f64 {
        (self.whole + 1.0) / (self.whole + self.parts + 2.0)
    }
}

struct Reading {
    file: u32,
    kind: u32,
    size: u64,
    read: Ranges,
    begun: bool,
    /// Where the last read ended; reads, and those of them that did not go on from there but began in a block not read so
    /// far.
    at: u64,
    reads: u32,
    jumps: u32,
    /// Whether it is proposed, and up to which block.
    trusted: bool,
    proposed: u64,
}

impl Reading {
    /// Whether something was read of the block that holds this byte.
    fn knows(&self, byte: u64, block_bytes: u64) -> bool {
        let start = byte / block_bytes * block_bytes;
        self.read.overlap(&Ranges::one(start, start.saturating_add(block_bytes))) > 0
    }
}

/// See the module.
pub struct Opened {
    block_bytes: u64,
    /// Blocks that all windows may take.
    room: u64,
    kinds: Vec<Kind>,
    kind_of: HashMap<String, u32>,
    reading: HashMap<u32, Reading>,
}

impl Opened {
    /// Knows nothing. Blocks are of `block_bytes`, the cache of `cache_bytes`.
    pub fn new(block_bytes: u64, cache_bytes: u64) -> Self {
        let room = (ROOM_SHARE * (cache_bytes / block_bytes) as f64) as u64;
        Self { block_bytes, room, kinds: Vec::new(), kind_of: HashMap::new(), reading: HashMap::new() }
    }

    /// Takes that `stream` opens or reads a file, and appends the blocks of it that are worth fetching, counted from its
    /// first. Returns whether files of this kind are trusted to be read on.
    pub fn observe(&mut self, use_: &FileUse<'_>, wanted: &mut Vec<u64>) -> bool {
        let reading = self.reading.get(&use_.stream);
        let same = reading.is_some_and(|r| r.file == use_.file && (use_.length > 0 || !r.begun));
        if !same {
            self.done(use_.stream);
            self.open(use_);
        }
        let room = self.room / self.reading.len().max(1) as u64;
        let Some(reading) = self.reading.get_mut(&use_.stream) else { return false };
        let kind = &mut self.kinds[reading.kind as usize];
        let end = use_.offset + use_.length;
        if use_.length > 0 {
            let first = !reading.begun;
            reading.begun = true;
            kind.from_end = if first { use_.offset > reading.size / 2 } else { kind.from_end };
            let was_proposed = end.div_ceil(self.block_bytes) <= reading.proposed;
            if !use_.hit && was_proposed && !first {
                kind.window = (2 * kind.window).min(MOST_WINDOW_BYTES / self.block_bytes).max(1);
            }
            let jumps = !first && use_.offset != reading.at && !reading.knows(use_.offset, self.block_bytes);
            reading.read.add(use_.offset, end, RANGES);
            reading.reads += 1;
            reading.jumps += u32::from(jumps);
            reading.at = end;
            if reading.trusted && reading.jumps >= JUMPS && 2 * reading.jumps > reading.reads {
                reading.trusted = false;
                kind.tried = kind.tried.saturating_sub(1);
            }
        }
        if reading.trusted {
            let blocks = reading.size.div_ceil(self.block_bytes);
            if use_.length == 0 && kind.from_end && blocks > 0 {
                wanted.push(blocks - 1);
            }
            // Reads of the directory at the end do not say where the reader is.
            let at = if reading.read.as_slice().first().is_some_and(|r| r.0 < self.block_bytes) {
                reading.read.as_slice()[0].1
            } else {
                0
            };
            let to = (at / self.block_bytes + kind.window.min(room).max(1)).min(blocks);
            wanted.extend(reading.proposed..to);
            reading.proposed = reading.proposed.max(to);
        }
        reading.trusted
    }

    fn open(&mut self, use_: &FileUse<'_>) {
        if self.reading.len() >= OPEN {
            return;
        }
        let next = self.kinds.len() as u32;
        let text = shape(use_.path).text;
        if !self.kind_of.contains_key(&text) && self.kinds.len() >= KINDS {
            return;
        }
        let number = *self.kind_of.entry(text).or_insert(next);
        if number == next {
            let window = (WINDOW_BYTES / self.block_bytes).max(1);
            self.kinds.push(Kind { window, ..Kind::default() });
        }
        let kind = &mut self.kinds[number as usize];
        let known = kind.whole + kind.parts > 0.0;
        let trusted = if known { kind.probability() >= 0.5 } else { kind.tried < TRIED };
        kind.tried += u32::from(trusted);
        let reading = Reading {
            file: use_.file,
            kind: number,
            size: use_.size,
            read: Ranges::default(),
            begun: false,
            at: 0,
            reads: 0,
            jumps: 0,
            trusted,
            proposed: 0,
        };
        self.reading.insert(use_.stream, reading);
    }

    /// A stream is done with its file.
    fn done(&mut self, stream: u32) {
        let Some(reading) = self.reading.remove(&stream) else { return };
        let kind = &mut self.kinds[reading.kind as usize];
        kind.tried = kind.tried.saturating_sub(u32::from(reading.trusted));
        kind.whole *= Kind::FADE;
        kind.parts *= Kind::FADE;
        if reading.read.bytes() as f64 >= WHOLE * reading.size as f64 {
            kind.whole += 1.0;
        } else {
            kind.parts += 1.0;
        }
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.kinds.capacity() * size_of::<Kind>()
            + self.kind_of.keys().map(|k| k.capacity() + size_of::<(String, u32)>()).sum::<usize>()
            + self.reading.capacity() * size_of::<(u32, Reading)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 1 << 20;

    fn at(file: u32, offset: u64, length: u64, hit: bool) -> FileUse<'static> {
        FileUse { stream: file % 2, file, path: b"set/img_000.npz", size: 100 * BLOCK, offset, length, hit }
    }

    /// Opens a file and reads the first blocks of it; returns what was asked for, in order.
    fn read(opened: &mut Opened, file: u32, blocks: u64, hit: bool) -> Vec<u64> {
        let mut wanted = Vec::new();
        opened.observe(&at(file, 0, 0, true), &mut wanted);
        for block in 0..blocks {
            opened.observe(&at(file, block * BLOCK, BLOCK, hit), &mut wanted);
        }
        wanted
    }

    #[test]
    fn files_that_are_read_whole_are_asked_for_once_and_a_window_ahead() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        (0..4).for_each(|file| drop(read(&mut opened, file, 100, true)));
        let mut wanted = Vec::new();
        assert!(opened.observe(&at(4, 0, 0, true), &mut wanted));
        assert_eq!(wanted, (0..16).collect::<Vec<_>>(), "no more than the window");
        assert_eq!(read(&mut opened, 5, 100, true), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn files_that_are_read_in_parts_are_left_alone() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        let first = read(&mut opened, 0, 3, true);
        assert!(!first.is_empty(), "the first of a kind is tried");
        (1..6).for_each(|file| drop(read(&mut opened, file, 3, true)));
        assert!(read(&mut opened, 6, 3, true).is_empty());
    }

    #[test]
    fn who_jumps_about_is_not_trusted_with_the_file() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        let mut wanted = Vec::new();
        opened.observe(&at(0, 0, 0, true), &mut wanted);
        let trusted: Vec<bool> =
            (0..10).map(|i| opened.observe(&at(0, 8 * i * BLOCK, BLOCK, true), &mut wanted)).collect();
        assert!(trusted[0] && !trusted[9], "{trusted:?}");
    }

    #[test]
    fn who_looks_at_the_directory_and_at_the_head_again_jumps_nowhere() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        let mut wanted = Vec::new();
        opened.observe(&at(0, 0, 0, true), &mut wanted);
        let end = 100 * BLOCK;
        let reads = [(0, BLOCK), (end - 22, 22), (end - 64, 42), (end - 188, 124), (0, BLOCK), (BLOCK, BLOCK)];
        let trusted = reads.map(|(offset, length)| opened.observe(&at(0, offset, length, true), &mut wanted));
        assert_eq!(trusted, [true; 6]);
    }

    #[test]
    fn windows_leave_room_in_the_cache() {
        let mut opened = Opened::new(BLOCK, 8 * BLOCK);
        assert_eq!(read(&mut opened, 0, 1, true), (0..7).collect::<Vec<_>>(), "six ahead of the one that is read");
    }

    #[test]
    fn the_window_grows_where_fetches_come_late() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        (0..3).for_each(|file| drop(read(&mut opened, file, 100, false)));
        let mut wanted = Vec::new();
        opened.observe(&at(4, 0, 0, true), &mut wanted);
        assert_eq!(wanted.len(), 100, "all of it");
    }

    #[test]
    fn a_directory_at_the_end_is_fetched_first() {
        let mut opened = Opened::new(BLOCK, 1 << 40);
        let mut wanted = Vec::new();
        for file in 0..4 {
            opened.observe(&at(file, 0, 0, true), &mut wanted);
            opened.observe(&at(file, 99 * BLOCK, BLOCK, true), &mut wanted);
            for block in 0..99 {
                opened.observe(&at(file, block * BLOCK, BLOCK, true), &mut wanted);
            }
        }
        wanted.clear();
        opened.observe(&at(4, 0, 0, true), &mut wanted);
        assert_eq!(wanted[0], 99);
    }
}
