//! Reads through `io_uring`: each request's bytes as its completion says.

use std::fs::File;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

use super::{ALIGNED, Aligned, cannot, did};

/// Reads of one request: where, and how many bytes.
const READS: &[(u64, u32)] = &[(0, 4096), (4096, 8192), (200_704, 4096), (40_960, 12_288), (299_008, 4096)];

/// All ways of asking for a read.
pub fn run(open: &dyn Fn(&str) -> File, direct: &dyn Fn(&str) -> Option<File>) {
    let ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(e) => return cannot("uring", &e),
    };
    let mut buffer = Aligned::new();
    let pointer = buffer.pointer();
    let mut ring = ring;
    let file = open("uring");
    let read = |fd: &File, (at, length): (u64, u32)| {
        opcode::Read::new(types::Fd(fd.as_raw_fd()), pointer, length).offset(at).build()
    };
    for r in READS {
        submit(&mut ring, "uring", r.0, &read(&file, *r));
    }
    if let Some(file) = direct("uring_direct") {
        for r in READS {
            submit(&mut ring, "uring_direct", r.0, &read(&file, *r));
        }
    }
    vectors(&mut ring, &open("uring_readv"), pointer);
    fixed(&mut ring, open, pointer);
    here(&mut ring, &open("uring_here"), pointer);
}

fn vectors(ring: &mut IoUring, file: &File, pointer: *mut u8) {
    let parts = [
        libc::iovec { iov_base: pointer.cast(), iov_len: 1000 },
        // SAFETY: within the buffer, which is longer.
        libc::iovec { iov_base: unsafe { pointer.add(1000) }.cast(), iov_len: 2000 },
    ];
    let entry = opcode::Readv::new(types::Fd(file.as_raw_fd()), parts.as_ptr(), 2).offset(12_345).build();
    submit(ring, "uring_readv", 12_345, &entry);
}

/// A file and a buffer that the ring knows beforehand.
fn fixed(ring: &mut IoUring, open: &dyn Fn(&str) -> File, pointer: *mut u8) {
    let (by_file, by_buffer) = (open("uring_fixed_file"), open("uring_fixed_buffer"));
    let buffers = [libc::iovec { iov_base: pointer.cast(), iov_len: ALIGNED }];
    ring.submitter().register_files(&[by_file.as_raw_fd()]).unwrap();
    // SAFETY: the buffer outlives the ring's use of it: all requests are waited for.
    unsafe { ring.submitter().register_buffers(&buffers) }.unwrap();
    for (at, length) in READS {
        let entry = opcode::Read::new(types::Fixed(0), pointer, *length).offset(*at).build();
        submit(ring, "uring_fixed_file", *at, &entry);
        let entry = opcode::ReadFixed::new(types::Fd(by_buffer.as_raw_fd()), pointer, *length, 0).offset(*at).build();
        submit(ring, "uring_fixed_buffer", *at, &entry);
    }
}

/// At the descriptor's position.
fn here(ring: &mut IoUring, file: &File, pointer: *mut u8) {
    for at in [0, 5000] {
        let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), pointer, 5000).offset(u64::MAX).build();
        submit(ring, "uring_here", at, &entry);
    }
}

fn submit(ring: &mut IoUring, name: &str, at: u64, entry: &squeue::Entry) {
    // SAFETY: what the entry points at lives until its completion, which is waited for here.
    unsafe { ring.submission().push(entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let result = ring.completion().next().unwrap().result();
    assert!(result >= 0, "{name}: {}", std::io::Error::from_raw_os_error(-result));
    did(name, at, i64::from(result));
}
