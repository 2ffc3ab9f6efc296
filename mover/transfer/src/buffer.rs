//! Buffers for long payloads, used again: a fresh one of 256 KiB costs 64 page faults, and the allocator gives long ones
//! back to the kernel as soon as they are free.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::frame::DATA_BYTES;

/// Buffers come in these sizes, bytes: the next that is long enough is at most twice too long. Shorter payloads are the
/// allocator's business, which gives them out without asking the kernel, and longer ones are rare.
const SIZES: [usize; 4] = [DATA_BYTES / 8, DATA_BYTES / 4, DATA_BYTES / 2, DATA_BYTES];
/// Kept of each size for the next payload, bytes: a megabyte for each of 8 connections.
const KEPT_BYTES: usize = 8 << 20;

type Kept = Mutex<Vec<Box<[u8]>>>;

/// One for all connections: those come and go.
static KEPT: [Kept; SIZES.len()] = [const { Mutex::new(Vec::new()) }; SIZES.len()];

fn kept(size: usize) -> Option<MutexGuard<'static, Vec<Box<[u8]>>>> {
    let class = SIZES.iter().position(|s| *s == size)?;
    Some(KEPT[class].lock().unwrap_or_else(PoisonError::into_inner))
}

/// So many bytes, of any content until they are written.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        let long = length > SIZES[0] / 2;
        let size = SIZES.into_iter().find(|size| long && length <= *size).unwrap_or(length);
        let again = kept(size).and_then(|mut kept| kept.pop());
        Self { bytes: again.unwrap_or_else(|| vec![0; size].into()), length }
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
        let size = self.bytes.len();
        if let Some(mut kept) = kept(size)
            && kept.len() * size < KEPT_BYTES
        {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_asked_and_its_bytes_stay_while_they_are_shared() {
        for length in [0, 1, SIZES[0] / 2, SIZES[0] / 2 + 1, SIZES[0], 100_000, DATA_BYTES, DATA_BYTES + 1] {
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
