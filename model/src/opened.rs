//! Opened files: who opens a file of this kind, reads it to the end.
//!
//! Kinds are shapes of paths. Of each, it is counted how often a file that was opened was then read whole, and where the
//! first read went (archives with their directory at the end are read there first). A file that is opened is
//! proposed whole while its kind has mostly been; before the first one of a kind is done, the benefit of the doubt is
//! given once at a time.

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

#[derive(Clone, Copy, Default)]
struct Kind {
    whole: f64,
    parts: f64,
    /// Files proposed of which nothing is known yet.
    tried: u32,
    /// Whether the last one was begun at its end.
    from_end: bool,
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
    proposed: bool,
}

/// See the module.
pub struct Opened {
    block_bytes: u64,
    kinds: Vec<Kind>,
    kind_of: HashMap<String, u32>,
    reading: HashMap<u32, Reading>,
}

impl Opened {
    /// Knows nothing.
    pub fn new(block_bytes: u64) -> Self {
        Self { block_bytes, kinds: Vec::new(), kind_of: HashMap::new(), reading: HashMap::new() }
    }

    /// Takes that `stream` opens (`length` 0) or reads a file of `size` bytes, and appends the blocks of it that are
    /// worth fetching, counted from its first.
    pub fn observe(
        &mut self,
        stream: u32,
        file: u32,
        path: &[u8],
        size: u64,
        offset: u64,
        length: u64,
        wanted: &mut Vec<u64>,
    ) {
        let same = self.reading.get(&stream).is_some_and(|r| r.file == file);
        if !same || (length == 0 && self.reading.get(&stream).is_some_and(|r| r.begun)) {
            self.done(stream);
            self.open(stream, file, path, size, wanted);
        }
        let Some(reading) = self.reading.get_mut(&stream) else { return };
        if length > 0 {
            if !reading.begun {
                reading.begun = true;
                self.kinds[reading.kind as usize].from_end = offset > reading.size / 2;
            }
            reading.read.add(offset, offset + length, RANGES);
        }
    }

    fn open(&mut self, stream: u32, file: u32, path: &[u8], size: u64, wanted: &mut Vec<u64>) {
        if self.reading.len() >= OPEN {
            return;
        }
        let next = self.kinds.len() as u32;
        let text = shape(path).text;
        if !self.kind_of.contains_key(&text) && self.kinds.len() >= KINDS {
            return;
        }
        let number = *self.kind_of.entry(text).or_insert(next);
        if number == next {
            self.kinds.push(Kind::default());
        }
        let kind = &mut self.kinds[number as usize];
        let known = kind.whole + kind.parts > 0.0;
        let proposed = if known { kind.probability() >= 0.5 } else { kind.tried == 0 };
        if proposed {
            kind.tried += 1;
            let blocks = size.div_ceil(self.block_bytes);
            let first = if kind.from_end { blocks.saturating_sub(1) } else { 0 };
            wanted.push(first);
            wanted.extend((0..blocks).filter(|b| *b != first));
        }
        self.reading
            .insert(stream, Reading { file, kind: number, size, read: Ranges::default(), begun: false, proposed });
    }

    /// A stream is done with its file.
    fn done(&mut self, stream: u32) {
        let Some(reading) = self.reading.remove(&stream) else { return };
        let kind = &mut self.kinds[reading.kind as usize];
        kind.tried = kind.tried.saturating_sub(u32::from(reading.proposed));
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
