//! An array map of the kernel as memory of ours.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use foretide_ebpf::event::{Extent, Plain, Slot, SlotHeader};

/// Entries of type `T` that kernel and agent both see.
pub(super) struct Shared<T> {
    start: *mut T,
    entries: usize,
    bytes: usize,
    _entries: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone and every access is volatile, so threads may hand it on.
unsafe impl<T> Send for Shared<T> {}

impl<T: Plain> Shared<T> {
    /// Maps an array map of `entries` values of `T`.
    pub(super) fn map(map: BorrowedFd<'_>, entries: usize) -> std::io::Result<Self> {
        let bytes = (entries * size_of::<T>()).next_multiple_of(4096);
        // SAFETY: a fresh shared mapping of a descriptor that we hold; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), entries, bytes, _entries: PhantomData })
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    fn entry(&self, index: usize) -> *mut T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.start.add(index) }
    }

    pub(super) fn read(&self, index: usize) -> T {
        // SAFETY: `entry` is in bounds and aligned (the map's value size is a multiple of 8); any bytes are a `T`.
        unsafe { self.entry(index).read_volatile() }
    }

    pub(super) fn write(&self, index: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.entry(index).write_volatile(value) }
    }

    /// The entry's address, for a field that the kernel changes with atomic instructions.
    pub(super) fn pointer(&self, index: usize) -> *mut T {
        self.entry(index)
    }
}

impl Shared<Slot> {
    /// A whole copy of a slot that holds something and changed since `seen`, or none. `done` is read first and `begun` last; the kernel writes
    /// them in the other order, so equal values mean that no change began before the copy was taken.
    pub(super) fn copy(&self, index: usize, seen: u64) -> Option<(SlotHeader, Vec<Extent>)> {
        use std::sync::atomic::{Ordering, fence};
        let slot = self.entry(index);
        // SAFETY: fields of an entry in bounds; volatile because the kernel writes them meanwhile.
        let (done, count, flags) = unsafe {
            (
                (&raw const (*slot).header.done).read_volatile(),
                (&raw const (*slot).header.count).read_volatile() as usize,
                (&raw const (*slot).header.flags).read_volatile(),
            )
        };
        if done == seen || (count == 0 && flags == 0) || count > foretide_ebpf::event::EXTENTS_MAX {
            return None;
        }
        fence(Ordering::Acquire);
        // SAFETY: as above; `count` is at most the array's length.
        let (header, extents) = unsafe {
            let header = (&raw const (*slot).header).read_volatile();
            let first = (&raw const (*slot).extents).cast::<Extent>();
            (header, (0..count).map(|i| first.add(i).read_volatile()).collect::<Vec<_>>())
        };
        fence(Ordering::Acquire);
        // SAFETY: as above.
        let begun = unsafe { (&raw const (*slot).begun).read_volatile() };
        (begun == done && header.done == done && header.count as usize == count && header.kind == 1)
            .then_some((header, extents))
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping and is its only user.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
