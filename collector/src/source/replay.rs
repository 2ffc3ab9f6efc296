//! Recorded observations: one JSON value a line, after a first line that says what the file is.
//!
//! Everything above a source can so be run again without root, without a kernel, and with the same result.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Observation, Source};
use crate::CollectorError;

const FIRST_LINE: &str = r#"{"foretide_trace":2}"#;

/// Observations given out by one poll: as many as one poll of a busy kernel gives.
const POLL_OBSERVATIONS: usize = 4096;

/// Writes a trace.
pub struct Recorder {
    out: BufWriter<File>,
    path: PathBuf,
}

impl Recorder {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// [`CollectorError::Trace`] if it cannot be written.
    pub fn create(path: &Path) -> Result<Self, CollectorError> {
        let file = File::create(path).map_err(|e| trace_error(path, e.to_string()))?;
        let mut recorder = Self { out: BufWriter::new(file), path: path.to_owned() };
        recorder.line(FIRST_LINE.as_bytes())?;
        Ok(recorder)
    }

    /// Appends one observation.
    ///
    /// # Errors
    /// [`CollectorError::Trace`] if it cannot be written.
    pub fn record(&mut self, seen: &Observation) -> Result<(), CollectorError> {
        let line = serde_json::to_vec(seen).map_err(|e| trace_error(&self.path, e.to_string()))?;
        self.line(&line)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// [`CollectorError::Trace`] if it cannot be written.
    pub fn finish(mut self) -> Result<(), CollectorError> {
        self.out.flush().map_err(|e| trace_error(&self.path, e.to_string()))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), CollectorError> {
        self.out
            .write_all(line)
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|e| trace_error(&self.path, e.to_string()))
    }
}

/// Reads a trace.
pub struct Replay {
    lines: std::iter::Enumerate<std::io::Lines<BufReader<File>>>,
    path: PathBuf,
    ended: bool,
}

impl Replay {
    /// Opens a trace and checks its first line.
    ///
    /// # Errors
    /// [`CollectorError::Trace`] if it is not there or no trace.
    pub fn open(path: &Path) -> Result<Self, CollectorError> {
        let file = File::open(path).map_err(|e| trace_error(path, e.to_string()))?;
        let mut lines = BufReader::new(file).lines().enumerate();
        match lines.next() {
            Some((_, Ok(line))) if line == FIRST_LINE => Ok(Self { lines, path: path.to_owned(), ended: false }),
            Some((_, Ok(line))) if line.starts_with(r#"{"foretide_trace":"#) => {
                Err(trace_error(path, format!("is a trace of another version, {line}; this one reads {FIRST_LINE}")))
            }
            _ => Err(trace_error(path, "is no trace".into())),
        }
    }
}

impl Source for Replay {
    fn poll(&mut self, out: &mut Vec<Observation>) -> Result<(), CollectorError> {
        for (index, line) in self.lines.by_ref().take(POLL_OBSERVATIONS) {
            let bad = |what: String| trace_error(&self.path, format!("line {}: {what}", index + 1));
            let line = line.map_err(|e| bad(e.to_string()))?;
            out.push(serde_json::from_str(&line).map_err(|e| bad(format!("corrupt or cut off ({e})")))?);
        }
        self.ended = out.is_empty();
        Ok(())
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

fn trace_error(path: &Path, what: String) -> CollectorError {
    CollectorError::Trace { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::Timestamp;

    fn some() -> Vec<Observation> {
        vec![
            Observation::Open { at: Timestamp(5), process: 7, parent: 1, file: u64::MAX, writable: false },
            Observation::Close { at: Timestamp(9), process: 7, file: u64::MAX },
        ]
    }

    #[test]
    fn what_was_recorded_is_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let mut recorder = Recorder::create(&path).unwrap();
        some().iter().for_each(|o| recorder.record(o).unwrap());
        recorder.finish().unwrap();
        let mut replay = Replay::open(&path).unwrap();
        let mut out = Vec::new();
        replay.poll(&mut out).unwrap();
        assert_eq!(out, some());
        out.clear();
        replay.poll(&mut out).unwrap();
        assert!(replay.ended() && out.is_empty());
    }

    #[test]
    fn a_truncated_or_foreign_trace_is_refused_by_name_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.trace");
        let whole = format!("{FIRST_LINE}\n{}\n", serde_json::to_string(&some()[0]).unwrap());
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let error = Replay::open(&path).unwrap().poll(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("broken.trace") && error.contains("line 2"), "{error}");
        std::fs::write(&path, "hello").unwrap();
        assert!(Replay::open(&path).err().unwrap().to_string().contains("is no trace"));
        std::fs::write(&path, "{\"foretide_trace\":9}\n").unwrap();
        assert!(Replay::open(&path).err().unwrap().to_string().contains("another version"));
        assert!(Replay::open(&dir.path().join("absent")).is_err());
    }
}
