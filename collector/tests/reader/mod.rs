//! Reads files in every way there is and prints what the calls returned.

mod aio;
mod uring;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Files of one way of reading each.
pub const FILES: &[&str] = &[
    "read",
    "readv",
    "pread",
    "preadv",
    "preadv2",
    "preadv2_here",
    "sendfile",
    "sendfile_at",
    "splice",
    "splice_at",
    "copy_file_range",
    "threads",
    "workers",
    "mmap",
    "dup",
    "reopened",
    "deep/er/and/deeper",
    "direct",
    "aio",
    "aio_readv",
    "aio_direct",
    "uring",
    "uring_direct",
    "uring_readv",
    "uring_fixed_file",
    "uring_fixed_buffer",
    "uring_here",
    "scattered",
];
/// Bytes of each.
pub const SIZE: usize = 300_000;
/// Reads of the way `scattered`, none of which continues another, and the bytes of each.
pub const SCATTERED: u64 = 20_000;
pub const SCATTERED_BYTES: u64 = 512;

/// Files of the way `held`; the last two are one file under two names.
pub const HELD: [&str; 5] = ["read", "preadv", "sendfile", "pread", "linked"];

/// Makes the files.
pub fn make_files(dir: &Path) {
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    for name in FILES {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(&bytes).unwrap();
        if *name == "mmap" {
            // Clean pages can be taken out of the page cache, through any view of the file.
            file.sync_all().unwrap();
        }
    }
    std::fs::hard_link(dir.join("pread"), dir.join("linked")).unwrap();
}

/// This file system or kernel has no such way.
fn cannot(name: &str, why: &dyn std::fmt::Display) {
    println!("cannot {name}: {why}");
}

fn did(name: &str, offset: u64, length: i64) {
    assert!(length >= 0, "{name}: {}", std::io::Error::last_os_error());
    // One write a line, so that threads do not mix.
    let line = format!("did {name} {offset} {length}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Does what `way` says in `dir`.
pub fn run(way: &str, dir: &Path) {
    // The harness has written a line without its end.
    println!();
    match way {
        "calls" => calls(dir),
        "mmap" => map(dir),
        "held" => held(dir),
        "scattered" => scattered(dir),
        "cold" => cold(dir),
        "chroot" => {
            nix::unistd::chroot(dir).unwrap();
            calls(Path::new("/"));
        }
        "namespace" => calls(&elsewhere(dir)),
        other => panic!("no way of reading is called {other}"),
    }
    std::io::stdout().flush().unwrap();
}

fn calls(dir: &Path) {
    let open = |name: &str| File::open(dir.join(name)).unwrap();
    plain(&mut open("read"), "read");
    plain(&mut open("deep/er/and/deeper"), "deep/er/and/deeper");
    positioned(&open("pread"), "pread");
    vectors(&open);
    moved(dir, &open);
    threads(&open("threads"));
    workers(dir);
    descriptors(dir, &open);
    let direct = |name: &str| {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(dir.join(name));
        file.map_err(|e| cannot(name, &e)).ok()
    };
    direct("direct").iter().for_each(past_the_cache);
    aio::run(&open, &direct);
    uring::run(&open, &direct);
}

/// The same directory at another place, in a mount namespace of this process alone.
fn elsewhere(dir: &Path) -> std::path::PathBuf {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let place = std::path::PathBuf::from("/mnt/elsewhere");
    std::fs::create_dir(&place).unwrap();
    mount(Some(dir), &place, none, MsFlags::MS_BIND, none).unwrap();
    place
}

/// Opens, says so, and reads when it is told to.
fn held(dir: &Path) {
    let files = HELD.map(|name| (name, File::open(dir.join(name)).unwrap()));
    println!("ready");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let mut buffer = vec![0; 3000];
    for (i, (name, file)) in files.iter().enumerate() {
        let at = i as u64 * 10_000;
        did(name, at, file.read_at(&mut buffer, at).unwrap() as i64);
    }
}

/// Bytes that `cold` reads twice.
pub const COLD_BYTES: usize = 65_536;

/// Reads what is not in the page cache, and then the same again.
fn cold(dir: &Path) {
    let (file, mut buffer) = (File::open(dir.join("read")).unwrap(), vec![0; COLD_BYTES]);
    file.sync_all().unwrap();
    // SAFETY: a descriptor of ours; no memory is touched.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    for _ in 0..2 {
        did("read", 0, file.read_at(&mut buffer, 0).unwrap() as i64);
    }
}

fn scattered(dir: &Path) {
    let (file, mut buffer) = (File::open(dir.join("scattered")).unwrap(), [0; SCATTERED_BYTES as usize]);
    for i in 0..SCATTERED {
        file.read_exact_at(&mut buffer, i * 7919 % 73 * 4096).unwrap();
    }
}

/// Bytes of a buffer that `O_DIRECT` may read into.
const ALIGNED: usize = 16_384;

/// Memory of its own pages.
struct Aligned(Vec<u8>);

impl Aligned {
    fn new() -> Self {
        Self(vec![0; 2 * ALIGNED])
    }

    fn pointer(&mut self) -> *mut u8 {
        let start = self.0.as_mut_ptr();
        // SAFETY: the next boundary lies within the vector, which has room for two buffers.
        unsafe { start.add(start.align_offset(ALIGNED)) }
    }
}

fn past_the_cache(file: &File) {
    let mut buffer = Aligned::new();
    // SAFETY: `pointer` has `ALIGNED` bytes behind it.
    let aligned = unsafe { std::slice::from_raw_parts_mut(buffer.pointer(), ALIGNED) };
    for (at, length) in [(0u64, 4096), (65_536, ALIGNED), (299_008, 4096)] {
        did("direct", at, file.read_at(&mut aligned[..length], at).unwrap() as i64);
    }
}

fn plain(file: &mut File, name: &str) {
    let mut buffer = vec![0; 4096];
    let mut at = 0;
    // Small reads, a seek, and the end of the file.
    for _ in 0..20 {
        let n = file.read(&mut buffer).unwrap();
        did(name, at, n as i64);
        at += n as u64;
    }
    at = file.seek(SeekFrom::Start(299_000)).unwrap();
    loop {
        let n = file.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        did(name, at, n as i64);
        at += n as u64;
    }
}

fn positioned(file: &File, name: &str) {
    let mut buffer = vec![0; 7000];
    // Odd sizes at scattered places: more than one event's worth of extents.
    for i in 0..100u64 {
        let at = (i * 77_777) % 299_000;
        let n = file.read_at(&mut buffer[..1 + (i as usize * 61) % 6999], at).unwrap();
        did(name, at, n as i64);
    }
}

fn vectors(open: &dyn Fn(&str) -> File) {
    let (mut a, mut b) = (vec![0u8; 1000], vec![0u8; 2345]);
    let parts = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: a.len() },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() },
    ];
    let (readv, preadv, preadv2, here) = (open("readv"), open("preadv"), open("preadv2"), open("preadv2_here"));
    // SAFETY: the vectors point at live buffers of the lengths that they say, for all four calls.
    unsafe {
        did("readv", 0, libc::readv(readv.as_raw_fd(), parts.as_ptr(), 2) as i64);
        did("readv", 3345, libc::readv(readv.as_raw_fd(), parts.as_ptr(), 1) as i64);
        did("preadv", 12_345, libc::preadv(preadv.as_raw_fd(), parts.as_ptr(), 2, 12_345) as i64);
        did("preadv2", 54_321, libc::preadv2(preadv2.as_raw_fd(), parts.as_ptr(), 2, 54_321, 0) as i64);
        did("preadv2_here", 0, libc::preadv2(here.as_raw_fd(), parts.as_ptr(), 2, -1, 0) as i64);
        did("preadv2_here", 3345, libc::preadv2(here.as_raw_fd(), parts.as_ptr(), 1, -1, 0) as i64);
    }
}

/// Bytes that never come to user space.
fn moved(dir: &Path, open: &dyn Fn(&str) -> File) {
    // On the same file system, where all of these calls work; what is written is no read.
    let sink = tempfile::tempfile_in(dir).unwrap();
    let out = sink.as_raw_fd();
    let (here, at, copy) = (open("sendfile"), open("sendfile_at"), open("copy_file_range"));
    let (mut offset, mut copy_offset) = (70_000i64, 4096i64);
    // SAFETY: offsets are live integers; the calls touch no other memory of ours.
    unsafe {
        did("sendfile", 0, libc::sendfile(out, here.as_raw_fd(), std::ptr::null_mut(), 50_000) as i64);
        did("sendfile", 50_000, libc::sendfile(out, here.as_raw_fd(), std::ptr::null_mut(), 9) as i64);
        did("sendfile_at", 70_000, libc::sendfile(out, at.as_raw_fd(), &raw mut offset, 33_333) as i64);
        did(
            "copy_file_range",
            4096,
            libc::copy_file_range(copy.as_raw_fd(), &raw mut copy_offset, out, std::ptr::null_mut(), 10_000, 0) as i64,
        );
    }
    let (here, at) = (open("splice"), open("splice_at"));
    let (from, into) = std::io::pipe().unwrap();
    let mut drain = vec![0; 60_000];
    let mut offset = 1000i64;
    // SAFETY: as above.
    unsafe {
        let n = libc::splice(here.as_raw_fd(), std::ptr::null_mut(), into.as_raw_fd(), std::ptr::null_mut(), 40_000, 0);
        did("splice", 0, n as i64);
        (&from).read_exact(&mut drain[..n as usize]).unwrap();
        let n = libc::splice(at.as_raw_fd(), &raw mut offset, into.as_raw_fd(), std::ptr::null_mut(), 40_000, 0);
        did("splice_at", 1000, n as i64);
    }
}

fn threads(file: &File) {
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            scope.spawn(move || {
                let mut buffer = vec![0; 1500];
                for i in 0..50u64 {
                    let at = (t * 50 + i) * 1500 % 298_000;
                    let n = file.read_at(&mut buffer, at).unwrap();
                    did("threads", at, n as i64);
                }
            });
        }
    });
}

fn workers(dir: &Path) {
    let mut children = Vec::new();
    for w in 0..3u64 {
        // SAFETY: the child only reads, writes whole lines and leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let file = File::open(dir.join("workers")).unwrap();
                let mut buffer = vec![0; 10_000];
                for i in 0..10 {
                    let at = w * 100_000 + i * 10_000;
                    did("workers", at, file.read_at(&mut buffer, at).unwrap() as i64);
                }
                // SAFETY: ends this process and nothing else.
                unsafe { libc::_exit(0) }
            }
            child => children.push(child),
        }
    }
    for child in children {
        // SAFETY: waits for a child of ours.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}

/// The same file under other numbers, and other files under the same number.
fn descriptors(dir: &Path, open: &dyn Fn(&str) -> File) {
    let file = open("dup");
    let mut other = file.try_clone().unwrap();
    let mut buffer = vec![0; 4000];
    did("dup", 0, other.read(&mut buffer).unwrap() as i64);
    did("dup", 4000, (&file).read(&mut buffer).unwrap() as i64);
    for i in 0..20 {
        let file = File::open(dir.join("reopened")).unwrap();
        did("reopened", i * 100, file.read_at(&mut buffer[..100], i * 100).unwrap() as i64);
    }
    // Over an open descriptor, without a close.
    // SAFETY: both descriptors are ours and open.
    unsafe { libc::dup2(open("reopened").as_raw_fd(), file.as_raw_fd()) };
    did("reopened", 0, (&file).read(&mut buffer).unwrap() as i64);
}

fn map(dir: &Path) {
    let file = File::open(dir.join("mmap")).unwrap();
    // SAFETY: a private read-only mapping of a file that nobody truncates; unmapped when the process ends.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), SIZE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // Out of the page cache, and in again page by page: each touch is a fault.
    // SAFETY: a descriptor of ours, and the mapping just made.
    unsafe {
        assert_eq!(libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED), 0);
        assert_eq!(libc::madvise(start, SIZE, libc::MADV_RANDOM), 0);
    }
    for page in [0usize, 40, 41, 73] {
        // SAFETY: within the mapping.
        let byte = unsafe { start.cast::<u8>().add(page * 4096).read_volatile() };
        assert_eq!(byte, (page * 4096 % 251) as u8);
        did("mmap", page as u64 * 4096, 4096);
    }
}
