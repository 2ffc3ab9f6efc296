//! Buffers for long payloads that are used again: a fresh one of 256 KiB costs 64 page faults, which is as much as
//! all else that is done with its bytes.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::frame::DATA_BYTES;

/// Shorter ones are the allocator's business, bytes: it gives them out without asking the kernel.
const MIN_BYTES: usize = 16 << 10;
/// Kept for the next payload, at most: 16 MiB, a megabyte for each of 8 connections and as much again on its way to
/// the disk.
const KEPT_MAX: usize = 64;

/// One for all connections: those come and go.
static KEPT: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<Box<[u8]>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many bytes, of any content until they are written.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        let again = if (MIN_BYTES..=DATA_BYTES).contains(&length) {
            Some(kept().pop().unwrap_or_else(|| vec![0; DATA_BYTES].into()))
        } else {
            None
        };
        Self { bytes: again.unwrap_or_else(|| vec![0; length].into()), length }
    }

    /// To be shared; the buffer is used again when the last share is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == DATA_BYTES {
            let mut kept = kept();
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_asked_and_its_bytes_stay_while_they_are_shared() {
        for length in [0, 1, MIN_BYTES - 1, MIN_BYTES, 100_000, DATA_BYTES, DATA_BYTES + 1] {
            let mut buffer = Buffer::new(length);
            assert_eq!(buffer.len(), length);
            buffer.fill(7);
            let (shared, part) = (buffer.freeze(), length / 2);
            let share = shared.slice(part..);
            drop(shared);
            Buffer::new(length).fill(8);
            assert!(share.iter().all(|b| *b == 7) && share.len() == length - part);
        }
    }
}
