//! The edge to the kernel: requests become calls on [`Fs`], answers become replies, and nothing else happens here.
//!
//! What can be answered from what is known is answered on the session's thread; what must wait is spawned with its
//! reply, so that the few session threads never wait for the network. Writing never arrives: the mount is read-only and
//! the kernel says EROFS itself. What the kernel need not ask again it is told so by ENOSYS (flush, extended attributes,
//! access, lseek).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foretide_flow::Timestamp;
use fuser::{
    AccessFlags, BackingId, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use tokio::runtime::Handle as Runtime;

use crate::errno::Failure;
use crate::fs::{Fs, Opened};
use crate::opens::Mode;
use crate::tree::{Attributes, Found, ROOT_INO, Snapshot};

/// Read-ahead requests under way at once: the kernel's default of 12 would hold sixteen readers at 150 ms back.
const BACKGROUND_REQUESTS_MAX: u16 = 1024;

/// Answers kept by a thread between requests.
const BUFFER_BYTES: usize = 1 << 20;

/// Only hard links and versions share numbers, so a number never comes back as another file.
const GENERATION: Generation = Generation(0);

/// What `stat` calls the preferred size of a read.
const BLOCK_BYTES: u32 = 4096;

/// Longest name, as on the file systems that volumes come from.
const NAME_BYTES_MAX: u32 = 255;

/// Answers to `.` and `..` stand before the first child.
const DOTS: u64 = 2;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// The file system, as the kernel talks to it.
pub(crate) struct Edge {
    fs: Arc<Fs<BackingId>>,
    runtime: Runtime,
    listings: Arc<RwLock<HashMap<u64, Listing>>>,
    next_listing: AtomicU64,
}

/// An open directory: what it held when it was opened.
#[derive(Clone)]
struct Listing {
    children: Snapshot,
    parent: u64,
}

impl Edge {
    pub(crate) fn new(fs: Arc<Fs<BackingId>>, runtime: Runtime) -> Self {
        Self { fs, runtime, listings: Arc::default(), next_listing: AtomicU64::new(1) }
    }

    fn open_listing(
        fs: &Fs<BackingId>,
        listings: &RwLock<HashMap<u64, Listing>>,
        fh: u64,
        ino: u64,
        children: Snapshot,
    ) -> FopenFlags {
        let (parent, same) = {
            let tree = fs.namespace.tree();
            (tree.parent(ino).unwrap_or(ROOT_INO), tree.is_same_listing(ino))
        };
        listings.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(fh, Listing { children, parent });
        // The kernel keeps the list that it read, and uses it again as long as we say that it is still the same.
        if same { FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_CACHE_DIR }
    }

    fn listing(&self, fh: FileHandle) -> Option<Listing> {
        self.listings.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&fh.0).cloned()
    }

    /// `.` and `..`, by their place in the list.
    fn dot(listing: &Listing, ino: u64, at: u64) -> (u64, &'static str) {
        if at == 0 { (ino, ".") } else { (listing.parent, "..") }
    }
}

fn errno(failure: &Failure) -> Errno {
    Errno::from_i32(failure.errno())
}

fn time(at: Timestamp) -> SystemTime {
    let micros = Duration::from_micros(at.0.unsigned_abs());
    if at.0 < 0 { UNIX_EPOCH - micros } else { UNIX_EPOCH + micros }
}

fn kind(attributes: &Attributes) -> FileType {
    match attributes.kind() {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        _ => FileType::RegularFile,
    }
}

fn attr(attributes: &Attributes) -> FileAttr {
    let modified = time(attributes.modified_at);
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: kind(attributes),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn reply_entry(reply: ReplyEntry, attributes: &Attributes, ttl: Duration) {
    reply.entry(&ttl, &attr(attributes), GENERATION);
}

/// A name that is not there, which the kernel may believe for a while: an entry without a number.
fn reply_absent(reply: ReplyEntry, ttl: Duration) {
    let nothing =
        Attributes { ino: 0, size: 0, modified_at: Timestamp(0), mode: libc::S_IFREG, uid: 0, gid: 0, links: 0 };
    reply_entry(reply, &nothing, ttl);
}

fn reply_opened(reply: ReplyOpen, opened: Option<Opened<BackingId>>) {
    let Some(Opened { fh, mode }) = opened else { return reply.error(Errno::EIO) };
    match mode {
        Mode::Passthrough(backing) => reply.opened_passthrough(FileHandle(fh), FopenFlags::empty(), &backing.id),
        // A number is a version: pages that the kernel has of it are right, always.
        Mode::Cached(_) => reply.opened(FileHandle(fh), FopenFlags::FOPEN_KEEP_CACHE),
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_PASSTHROUGH,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
        ];
        for flag in wanted {
            // What an older kernel lacks costs speed, nothing else.
            let _ = kernel.add_capabilities(flag);
        }
        let _ = kernel.set_max_background(BACKGROUND_REQUESTS_MAX);
        // One level: the store's disk is no stacked file system; if it is, opening a backing file fails and we go on
        // without passthrough.
        let _ = kernel.set_max_stack_depth(1);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.fs.count_lookup();
        if name.len() > NAME_BYTES_MAX as usize {
            return reply.error(Errno::ENAMETOOLONG);
        }
        match self.fs.namespace.find_known(parent.0, name.as_bytes()) {
            Found::Here(attributes, ttl) => return reply_entry(reply, &attributes, ttl),
            Found::Absent(ttl) => return reply_absent(reply, ttl),
            Found::NoDirectory => return reply.error(Errno::ESTALE),
            Found::Unknown => {}
        }
        let (fs, name) = (Arc::clone(&self.fs), name.as_bytes().to_vec());
        self.runtime.spawn(async move {
            match fs.namespace.find(parent.0, &name).await {
                Ok(Some((attributes, ttl))) => reply_entry(reply, &attributes, ttl),
                Ok(None) => reply.error(Errno::ENOENT),
                Err(failure) => {
                    fs.fail(parent.0, "looking up a name", &failure);
                    reply.error(errno(&failure));
                }
            }
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.fs.namespace.tree_mut().forget(ino.0, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if let Some((attributes, ttl)) = self.fs.namespace.attributes_known(ino.0) {
            return reply.attr(&ttl, &attr(&attributes));
        }
        let fs = Arc::clone(&self.fs);
        self.runtime.spawn(async move {
            match fs.namespace.attributes(ino.0).await {
                Ok((attributes, ttl)) => reply.attr(&ttl, &attr(&attributes)),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.namespace.tree().target(ino.0) {
            Some(target) => reply.data(&target),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.fs.is_silent() {
            return reply.error(Errno::ENOSYS);
        }
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        let opening = if writes { Err(Failure::ReadOnly) } else { self.fs.opening(ino.0, request.pid()) };
        let opening = match opening {
            Ok(opening) => opening,
            Err(failure) => return reply.error(errno(&failure)),
        };
        if let Some(opened) = self.fs.open_here(&opening, |file| reply.open_backing(file)) {
            return reply_opened(reply, Some(opened));
        }
        let fs = Arc::clone(&self.fs);
        self.runtime.spawn(async move {
            match fs.fetch_first(&opening).await {
                Ok(tally) => {
                    let opened = fs.open_fetched(&opening, tally, |file| reply.open_backing(file));
                    reply_opened(reply, opened);
                }
                Err(failure) => {
                    fs.fail(opening.ino, "opening a file", &failure);
                    reply.error(errno(&failure));
                }
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle =
            if self.fs.is_silent() { self.fs.silent_handle(ino.0, request.pid()) } else { self.fs.handle(fh.0) };
        let handle = match handle {
            Ok(handle) => handle,
            Err(failure) => return reply.error(errno(&failure)),
        };
        // Asking ahead starts tasks.
        let _context = self.runtime.enter();
        let reply = BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.fs.read_here(&handle, offset, &mut buffer[..size]) {
                Some(read) => {
                    reply.data(&buffer[..read]);
                    None
                }
                None => Some(reply),
            }
        });
        let Some(reply) = reply else { return };
        let fs = Arc::clone(&self.fs);
        self.runtime.spawn(async move {
            match fs.read_there(&handle, offset, u64::from(size)).await {
                Ok(bytes) => reply.data(&bytes),
                Err(failure) => {
                    fs.fail(ino.0, "reading a file", &failure);
                    reply.error(errno(&failure));
                }
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(fh.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let fh = self.next_listing.fetch_add(1, Ordering::Relaxed);
        if let Some((children, _)) = self.fs.namespace.children_known(ino.0) {
            let flags = Self::open_listing(&self.fs, &self.listings, fh, ino.0, children);
            return reply.opened(FileHandle(fh), flags);
        }
        let (fs, listings) = (Arc::clone(&self.fs), Arc::clone(&self.listings));
        self.runtime.spawn(async move {
            match fs.namespace.children(ino.0).await {
                Ok((children, _)) => {
                    let flags = Self::open_listing(&fs, &listings, fh, ino.0, children);
                    reply.opened(FileHandle(fh), flags);
                }
                Err(failure) => {
                    fs.fail(ino.0, "opening a directory", &failure);
                    reply.error(errno(&failure));
                }
            }
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listing) = self.listing(fh) else { return reply.error(Errno::ESTALE) };
        let tree = self.fs.namespace.tree();
        for at in offset..DOTS {
            let (number, name) = Self::dot(&listing, ino.0, at);
            if reply.add(INodeNo(number), at + 1, FileType::Directory, name) {
                return reply.ok();
            }
        }
        for at in offset.max(DOTS)..listing.children.len() as u64 + DOTS {
            let Some((name, attributes)) = tree.child(listing.children[(at - DOTS) as usize]) else { continue };
            if reply.add(INodeNo(attributes.ino), at + 1, kind(&attributes), OsStr::from_bytes(name)) {
                break;
            }
        }
        drop(tree);
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let Some(listing) = self.listing(fh) else { return reply.error(Errno::ESTALE) };
        let ttl = self.fs.namespace.children_known(ino.0).map_or(Duration::ZERO, |(_, ttl)| ttl);
        let tree = self.fs.namespace.tree();
        for at in offset..DOTS {
            let (number, name) = Self::dot(&listing, ino.0, at);
            let Some(attributes) = tree.attributes(number) else { continue };
            // The kernel takes no reference on these two.
            if reply.add(INodeNo(number), at + 1, name, &Duration::ZERO, &attr(&attributes), GENERATION) {
                return reply.ok();
            }
        }
        for at in offset.max(DOTS)..listing.children.len() as u64 + DOTS {
            let Some((name, attributes)) = tree.child(listing.children[(at - DOTS) as usize]) else { continue };
            let name = OsStr::from_bytes(name);
            if reply.add(INodeNo(attributes.ino), at + 1, name, &ttl, &attr(&attributes), GENERATION) {
                break;
            }
            tree.look(attributes.ino);
        }
        drop(tree);
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let names = self.fs.namespace.tree().len() as u64;
        reply.statfs(0, 0, 0, names, 0, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    // Python asks of each file that it opens whether it is a terminal, and the kernel asks anew each time.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
