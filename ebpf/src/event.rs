//! What the probes pass to user space, field for field as `bpf/events.h` has it.

use std::mem::{offset_of, size_of};

/// Extents that one event can carry.
pub const EXTENTS_MAX: usize = 32;
/// Slots of one CPU.
pub const SLOTS_PER_CPU: usize = 32;
/// Entries of the table of files whose path was told.
pub const ANNOUNCED_ENTRIES: usize = 65536;

/// A struct that is plain bytes in the kernel's layout: every bit pattern is a value of it.
///
/// # Safety
/// The implementor is `repr(C)`, has no padding that matters and no field with a forbidden bit pattern.
pub unsafe trait Plain: Copy {
    /// Reads one from the front of `bytes`; none if they are too few.
    fn read_from(bytes: &[u8]) -> Option<Self> {
        // SAFETY: the length is checked, the read may be unaligned, and any bytes are a value (trait contract).
        (bytes.len() >= size_of::<Self>()).then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// What an event is: its first four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`SlotHeader`] and its extents.
    Slot,
    /// [`PathHeader`] and names.
    Path,
    /// [`ProcessHeader`].
    Fork,
    /// [`ProcessHeader`], file name and arguments.
    Exec,
    /// [`ProcessHeader`].
    Exit,
    /// [`FaultWait`].
    FaultWait,
}

impl EventKind {
    /// The kind of an event; none if it is of another version.
    pub fn of(event: &[u8]) -> Option<Self> {
        Some(match u32::from_ne_bytes(event.get(..4)?.try_into().ok()?) {
            1 => Self::Slot,
            2 => Self::Path,
            3 => Self::Fork,
            4 => Self::Exec,
            5 => Self::Exit,
            6 => Self::FaultWait,
            _ => return None,
        })
    }
}

/// Reads or first touches that continue each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Calls folded into it.
    pub calls: u32,
    /// Time that they were blocked, microseconds.
    pub blocked_us: u32,
    /// Low half of the kernel's jiffies when the first of them returned.
    pub jiffies: u32,
    /// [`Extent::READ`], [`Extent::FAULT`], [`Extent::PAGES`] or [`Extent::ASYNC`].
    pub op: u16,
    /// Not 0 if a call of it waited for a device.
    pub missed: u16,
}

impl Extent {
    /// A read call.
    pub const READ: u16 = 1;
    /// First touches of mapped pages.
    pub const FAULT: u16 = 2;
    /// Pages asked of the page cache: the light tier's reads.
    pub const PAGES: u16 = 3;
    /// A read that its thread asked for and did not wait in: where its bytes were cannot be told.
    pub const ASYNC: u16 = 4;
}

/// What one process did to one open file on one CPU since the slot was last given out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotHeader {
    /// 1.
    pub kind: u32,
    /// Grows each time the slot is given out.
    pub cookie: u32,
    /// Equal to [`Slot::begun`] unless the kernel is writing.
    pub done: u64,
    /// The kernel's open file, or its inode for a mapping.
    pub file: u64,
    /// The kernel's inode.
    pub inode: u64,
    /// Names the file in [`PathHeader`].
    pub file_id: u64,
    /// When it was opened, nanoseconds since boot; counts with [`SlotHeader::OPENED`].
    pub opened_ns: u64,
    /// Calls in this filling.
    pub calls: u64,
    /// Process (thread group).
    pub process: u32,
    /// Descriptor; -1 for a mapping, -2 for `io_uring`, -3 for pages.
    pub fd: i32,
    /// Parent process.
    pub parent: u32,
    /// Of the verdict.
    pub epoch: u32,
    /// [`SlotHeader::OPENED`] and so on.
    pub flags: u32,
    /// Extents that count.
    pub count: u32,
    /// CPU.
    pub cpu: u16,
    /// Which of the CPU's slots.
    pub index: u16,
    /// The watched root.
    pub root: u32,
}

impl SlotHeader {
    /// The filling begins with an open.
    pub const OPENED: u32 = 1;
    /// That open was for writing.
    pub const WRITABLE: u32 = 2;
    /// The descriptor was closed at its end.
    pub const CLOSED: u32 = 4;
}

/// A slot as it lies in shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its first part, which events carry too.
    pub header: SlotHeader,
    /// Its extents.
    pub extents: [Extent; EXTENTS_MAX],
    /// Written before a change; see [`SlotHeader::done`].
    pub begun: u64,
}

/// A file's name: components from the file up to the watched root, each with a NUL, follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PathHeader {
    /// 2.
    pub kind: u32,
    /// The watched root.
    pub root: u32,
    /// Which file.
    pub file_id: u64,
    /// Its inode number.
    pub inode_number: u64,
    /// Where the kernel remembers that it told; zero there makes it tell again.
    pub fingerprint_index: u32,
    /// Bytes of names.
    pub length: u32,
}

/// A process began, changed its program or ended. An exec's file name (256 bytes), its arguments and the names of its
/// control group from the innermost up follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessHeader {
    /// 3, 4 or 5.
    pub kind: u32,
    /// Which.
    pub process: u32,
    /// Its parent.
    pub parent: u32,
    /// Bytes of arguments.
    pub argv_length: u16,
    /// Bytes of the control group's names.
    pub group_length: u16,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
    /// When the process started, nanoseconds since boot.
    pub started_ns: u64,
}

/// Bytes of an exec's file name.
pub const FILENAME_BYTES: usize = 256;

/// A touch of a mapped page waited for a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultWait {
    /// 6.
    pub kind: u32,
    /// Who.
    pub process: u32,
    /// On which file.
    pub file_id: u64,
    /// How long, nanoseconds.
    pub waited_ns: u64,
    /// First byte of the page.
    pub offset: u64,
}

/// How many calls of a filling user space has copied.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Which filling.
    pub cookie: u32,
    /// Zero.
    pub pad: u32,
    /// Calls.
    pub calls: u64,
}

/// What one CPU could not keep, and its scratch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Fillings that found the ring full.
    pub lost_slots: u64,
    /// Calls in them that nobody had copied.
    pub lost_calls: u64,
    /// Paths that could not be told.
    pub lost_paths: u64,
    /// Forks, execs and exits that found the ring full.
    pub lost_process_events: u64,
    /// Reads whose descriptor was gone when they returned.
    pub unresolved_calls: u64,
    /// Calls of 32-bit programs.
    pub compat_calls: u64,
    /// The kernel's own.
    pub waiter: u32,
    /// The kernel's own.
    pub fault_process: u32,
    /// The kernel's own.
    pub fault_file_id: u64,
    /// The kernel's own.
    pub fault_offset: u64,
}

/// Steers the probes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// Each verdict of an older epoch is void.
    pub epoch: u32,
    /// Zero.
    pub pad: u32,
    /// One bit for each watched root.
    pub root_bits: u64,
    /// One bit for each watched super block.
    pub device_bits: u64,
}

/// A watched root, by its inode's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Root {
    /// Ours.
    pub id: u32,
    /// Device of its super block.
    pub dev: u32,
    /// Its inode number: guards against a recycled address.
    pub inode_number: u64,
}

/// The answer to `posix_fadvise` on a descriptor of the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// Address of the inode.
    pub inode: u64,
    /// Its number.
    pub inode_number: u64,
    /// Address of its super block.
    pub super_block: u64,
    /// Not 0 if it is the root of its file system.
    pub is_fs_root: u64,
    /// Now, nanoseconds since boot.
    pub now_ns: u64,
    /// Now, in jiffies.
    pub jiffies: u64,
    /// Device.
    pub dev: u32,
    /// Answers given so far.
    pub calls: u32,
}

// SAFETY: an integer.
unsafe impl Plain for u64 {}

macro_rules! plain {
    ($($name:ty: $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$name>() == $size);
            // SAFETY: repr(C), integers only.
            unsafe impl Plain for $name {}
        )*
    };
}

plain! {
    Extent: 32, SlotHeader: 88, Slot: 1120, PathHeader: 32, ProcessHeader: 32, FaultWait: 32, Taken: 16, Tally: 72,
    Control: 24, Root: 16, Identity: 56,
}

const _: () = assert!(offset_of!(SlotHeader, process) == 56 && offset_of!(SlotHeader, cpu) == 80);
const _: () = assert!(offset_of!(Slot, extents) == 88 && offset_of!(Slot, begun) == 1112);
const _: () = assert!(offset_of!(Tally, waiter) == 48);

/// The bit that stands for an inode or super block in [`Control`].
pub fn bit_of(address: u64) -> u64 {
    let x = (address & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    1 << ((x ^ (x >> 29)) >> 58)
}
