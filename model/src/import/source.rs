//! The bytes of a trace: unpacked while they are read, by lines or by records, with the place for errors.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use crate::error::ModelError;

/// Bytes of the head that formats are told by: some lines of every text format.
const HEAD_BYTES: u64 = 64 << 10;
/// Longest line that is read: longer than any record of the formats, short enough to refuse binary files.
const LINE_BYTES: u64 = 1 << 20;
/// Longest file that has to be in memory as a whole (one JSON document).
const DOCUMENT_BYTES: u64 = 1 << 30;

/// An open trace.
pub(super) struct Source {
    path: PathBuf,
    head: Vec<u8>,
    rest: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

impl Source {
    /// Opens a file, unpacking zstd and gzip.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let error = |why: String| ModelError::Trace { path: path.to_owned(), why };
        let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(|e| error(e.to_string()))?);
        let magic = file.fill_buf().map_err(|e| error(e.to_string()))?;
        let mut rest: Box<dyn BufRead> = if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let unpacked = zstd::Decoder::with_buffer(file).map_err(|e| error(format!("zstd: {e}")))?;
            Box::new(BufReader::with_capacity(1 << 18, unpacked))
        } else if magic.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let mut head = Vec::new();
        rest.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| error(format!("cannot be unpacked: {e}")))?;
        let rest = Box::new(Cursor::new(head.clone()).chain(rest));
        Ok(Self { path: path.to_owned(), head, rest, line: Vec::new(), number: 0 })
    }

    /// The first bytes, unpacked.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next line without its end; none after the last.
    pub(super) fn line(&mut self) -> Result<Option<&[u8]>, ModelError> {
        self.line.clear();
        self.number += 1;
        let read = self.rest.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.line);
        match read {
            Ok(0) => return Ok(None),
            Ok(n) if n as u64 == LINE_BYTES && self.line.last() != Some(&b'\n') => {
                return Err(self.error("a line of over a megabyte"));
            }
            Ok(_) => {}
            Err(e) => return Err(self.error(&format!("cannot be read on: {e}"))),
        }
        while matches!(self.line.last(), Some(b'\n' | b'\r')) {
            self.line.pop();
        }
        Ok(Some(&self.line))
    }

    /// The next line as text; none after the last.
    pub(super) fn text(&mut self) -> Result<Option<&str>, ModelError> {
        if self.line()?.is_none() {
            return Ok(None);
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.error("is no UTF-8")),
        }
    }

    /// Fills a record; false at the end. A record that is cut off is an error that names its first byte.
    pub(super) fn record(&mut self, record: &mut [u8]) -> Result<bool, ModelError> {
        let mut filled = 0;
        while filled < record.len() {
            match self.rest.read(&mut record[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => {
                    let at = self.number * record.len() as u64;
                    let why = format!("byte {at}: a record has {} bytes, and {filled} are left", record.len());
                    return Err(self.error_at_start(&why));
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error_at_start(&format!("cannot be read on: {e}"))),
            }
        }
        self.number += 1;
        Ok(true)
    }

    /// Everything that is left.
    pub(super) fn document(&mut self) -> Result<Vec<u8>, ModelError> {
        let mut out = Vec::new();
        let read = self.rest.by_ref().take(DOCUMENT_BYTES + 1).read_to_end(&mut out);
        read.map_err(|e| self.error_at_start(&format!("cannot be read on: {e}")))?;
        if out.len() as u64 > DOCUMENT_BYTES {
            return Err(self.error_at_start("one document of over a gibibyte"));
        }
        Ok(out)
    }

    /// An error about the present line.
    pub(super) fn error(&self, why: &str) -> ModelError {
        self.error_at_start(&format!("line {}: {why}", self.number))
    }

    /// An error about the present record, which begins at this byte.
    pub(super) fn error_in_record(&self, bytes: u64, why: &str) -> ModelError {
        self.error_at_start(&format!("byte {}: {why}", self.number.saturating_sub(1) * bytes))
    }

    /// An error about the whole file.
    pub(super) fn error_at_start(&self, why: &str) -> ModelError {
        ModelError::Trace { path: self.path.clone(), why: why.to_owned() }
    }
}

/// The whole lines of a head, as text; none if it is no text.
pub(super) fn head_lines(head: &[u8]) -> Option<Vec<&str>> {
    let whole =
        if (head.len() as u64) < HEAD_BYTES { head } else { &head[..head.iter().rposition(|b| *b == b'\n')?] };
    let text = std::str::from_utf8(whole).ok()?;
    Some(text.lines().collect())
}
