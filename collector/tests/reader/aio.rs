//! Reads through the kernel's older asynchronous interface, as libaio makes them: many submitted, then taken as they are done.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{ALIGNED, Aligned, did};

/// Reads submitted together: where, and how many bytes. The last goes beyond the end of the file.
const READS: &[(i64, u64)] = &[(0, 4096), (8192, 8192), (131_072, 4096), (294_912, 8192)];

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    data: u64,
    key: u32,
    flags: u32,
    op: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    eventfd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Done {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

const PREAD: u16 = 0;
const PREADV: u16 = 7;

/// All ways of asking for a read.
pub fn run(open: &dyn Fn(&str) -> File, direct: &dyn Fn(&str) -> Option<File>) {
    let mut memory = Aligned::new();
    let buffer = memory.pointer() as u64;
    let reads = |file: &File| {
        READS
            .iter()
            .map(|&(offset, bytes)| Request {
                fd: file.as_raw_fd() as u32,
                buffer,
                bytes,
                offset,
                ..Request::default()
            })
            .collect::<Vec<_>>()
    };
    let file = open("aio");
    submit("aio", reads(&file), PREAD);
    if let Some(file) = direct("aio_direct") {
        submit("aio_direct", reads(&file), PREAD);
    }
    let parts = [
        libc::iovec { iov_base: buffer as *mut _, iov_len: 1000 },
        libc::iovec { iov_base: (buffer + 1000) as *mut _, iov_len: ALIGNED - 1000 },
    ];
    let file = open("aio_readv");
    let (buffer, bytes) = (parts.as_ptr() as u64, parts.len() as u64);
    let read = Request { fd: file.as_raw_fd() as u32, buffer, bytes, offset: 777, ..Request::default() };
    submit("aio_readv", vec![read], PREADV);
}

fn submit(name: &str, mut requests: Vec<Request>, op: u16) {
    for (i, request) in requests.iter_mut().enumerate() {
        (request.op, request.data) = (op, i as u64);
    }
    let pointers: Vec<*const Request> = requests.iter().map(|r| &raw const *r).collect();
    let mut done = vec![Done::default(); requests.len()];
    let mut context: u64 = 0;
    // SAFETY: requests, their buffers and the answers' room live until the answers have come and the context is gone.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_io_setup, done.len(), &raw mut context), 0);
        let submitted = libc::syscall(libc::SYS_io_submit, context, pointers.len(), pointers.as_ptr());
        assert_eq!(submitted, pointers.len() as i64, "{name}: {}", std::io::Error::last_os_error());
        let most = done.len();
        let none = std::ptr::null::<libc::timespec>();
        let taken = libc::syscall(libc::SYS_io_getevents, context, most, most, done.as_mut_ptr(), none);
        assert_eq!(taken, most as i64);
        libc::syscall(libc::SYS_io_destroy, context);
    }
    for answer in done {
        did(name, requests[answer.data as usize].offset as u64, answer.result);
    }
}
