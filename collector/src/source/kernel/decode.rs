//! Slots and events as the kernel gives them -> observations. Pure.
//!
//! A slot's filling may be seen several times: copied from shared memory while it grows, and given out as an event
//! when it is full, closed or pushed out. Extents are appended only, and only the last one grows, so what is new is
//! the growth of the last extent known and whatever follows it. Fillings of one slot are told apart by their cookie.
//!
//! Invariant: over all sights of a filling, in any number, each call is told once. A copy older than what the ring
//! has already told (same or older cookie, given out) says nothing.

use foldhash::{HashMap, HashMapExt};
use foretide_ebpf::event::{Extent, FILENAME_BYTES, FaultWait, PathHeader, Plain, ProcessHeader, SlotHeader};
use foretide_flow::{Found, Timestamp};

use crate::source::Observation;

/// The kernel's clocks against ours at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Our time.
    pub now: Timestamp,
    /// Nanoseconds since boot then.
    pub boot_ns: u64,
    /// Low half of jiffies then.
    pub jiffies: u32,
    /// Length of a jiffy, nanoseconds.
    pub jiffy_ns: u64,
}

impl Clock {
    pub(super) fn of_boot_ns(&self, ns: u64) -> Timestamp {
        Timestamp(self.now.0 + (ns as i64 - self.boot_ns as i64) / 1000)
    }

    pub(super) fn of_jiffies(&self, jiffies: u32) -> Timestamp {
        let age = i64::from(self.jiffies.wrapping_sub(jiffies) as i32);
        Timestamp(self.now.0 - age * self.jiffy_ns as i64 / 1000)
    }
}

/// How far a filling has been told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    cookie: u32,
    given_out: bool,
    opened: bool,
    /// Extents that were told and cannot grow.
    complete: usize,
    /// The extent after those, as far as it was told.
    partial: Extent,
}

/// How a filling came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Copied; it may still grow.
    Copied,
    /// As an event: its last sight.
    GivenOut,
}

/// Remembers what was told of each slot.
pub(super) struct Slots {
    told: HashMap<(u16, u16), Told>,
    /// Whether a reader that waited would have been noticed: then a read without a wait was a hit.
    waits_seen: bool,
}

impl Slots {
    pub(super) fn new(waits_seen: bool) -> Self {
        Self { told: HashMap::new(), waits_seen }
    }

    /// Tells what is new in a sight of a slot.
    pub(super) fn see(
        &mut self,
        slot: &SlotHeader,
        extents: &[Extent],
        sight: Sight,
        clock: &Clock,
        out: &mut Vec<Observation>,
    ) {
        let told = self.told.entry((slot.cpu, slot.index)).or_default();
        let newer = slot.cookie.wrapping_sub(told.cookie) as i32;
        if newer < 0 || (newer == 0 && told.given_out) {
            return;
        }
        if newer > 0 {
            *told = Told { cookie: slot.cookie, ..Told::default() };
        }
        if slot.flags & SlotHeader::OPENED != 0 && !told.opened {
            told.opened = true;
            out.push(Observation::Open {
                at: clock.of_boot_ns(slot.opened_ns),
                process: slot.process,
                parent: slot.parent,
                file: slot.file_id,
                writable: slot.flags & SlotHeader::WRITABLE != 0,
            });
        }
        for extent in extents.iter().skip(told.complete) {
            let fresh = growth(extent, &told.partial);
            told.partial = Extent::default();
            if fresh.calls > 0 || fresh.blocked_us > 0 {
                out.push(observe(slot, &fresh, self.waits_seen, clock));
            }
        }
        if let Some(last) = extents.last() {
            told.complete = extents.len() - 1;
            told.partial = *last;
        }
        if sight == Sight::GivenOut {
            told.given_out = true;
            if slot.flags & SlotHeader::CLOSED != 0 {
                out.push(Observation::Close { at: clock.now, process: slot.process, file: slot.file_id });
            }
        }
    }
}

/// What an extent has gained since `told`.
fn growth(extent: &Extent, told: &Extent) -> Extent {
    Extent {
        offset: extent.offset + told.length,
        length: extent.length - told.length,
        calls: extent.calls - told.calls,
        blocked_us: extent.blocked_us - told.blocked_us,
        ..*extent
    }
}

fn observe(slot: &SlotHeader, extent: &Extent, waits_seen: bool, clock: &Clock) -> Observation {
    // The wait of a touch is told after it, by itself; that of a read that was only asked for is not seen.
    let waits_told = waits_seen && !matches!(extent.op, Extent::FAULT | Extent::ASYNC);
    let may_be_hit = waits_told && extent.blocked_us == 0;
    Observation::Extent {
        at: clock.of_jiffies(extent.jiffies),
        process: slot.process,
        parent: slot.parent,
        file: slot.file_id,
        offset: extent.offset,
        length: extent.length,
        calls: extent.calls,
        blocked_us: extent.blocked_us,
        found: match extent.missed {
            0 if may_be_hit => Found::Hit,
            0 => Found::Unknown,
            _ => Found::Miss,
        },
        mapped: extent.op == Extent::FAULT,
    }
}

/// The header of a slot event, and its extents in `extents`; none if it is cut short.
pub(super) fn slot(event: &[u8], extents: &mut Vec<Extent>) -> Option<SlotHeader> {
    let header = SlotHeader::read_from(event)?;
    let bytes = event.get(size_of::<SlotHeader>()..)?;
    extents.clear();
    extents.extend(bytes.chunks_exact(size_of::<Extent>()).take(header.count as usize).filter_map(Extent::read_from));
    (extents.len() == header.count as usize).then_some(header)
}

/// The header of a path event and the path from the watched root down.
pub(super) fn path(event: &[u8]) -> Option<(PathHeader, Vec<u8>)> {
    let header = PathHeader::read_from(event)?;
    let names = event.get(size_of::<PathHeader>()..)?.get(..header.length as usize)?;
    Some((header, from_the_root_down(names)))
}

/// Names from the innermost up, each with its NUL, as a path without its first slash.
fn from_the_root_down(names: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = names.split(|b| *b == 0).filter(|c| !c.is_empty()).collect();
    components.reverse();
    components.join(&b'/')
}

/// Ticks of a process' start as `/proc/PID/stat` counts them.
const TICK_NS: u64 = 10_000_000;

/// A fork, exec or exit.
pub(super) fn process(event: &[u8], clock: &Clock) -> Option<Observation> {
    let header = ProcessHeader::read_from(event)?;
    let (at, process, parent) = (clock.of_boot_ns(header.at_ns), header.process, header.parent);
    let started_ticks = header.started_ns / TICK_NS;
    Some(match header.kind {
        3 => Observation::Fork { at, process, parent, started_ticks },
        4 => {
            let rest = event.get(size_of::<ProcessHeader>()..)?;
            let program = rest.get(..FILENAME_BYTES)?.split(|b| *b == 0).next()?;
            let words = rest.get(FILENAME_BYTES..)?;
            let (argv, words) = words.split_at_checked(header.argv_length.into())?;
            let group = from_the_root_down(words.get(..header.group_length.into())?);
            Observation::Exec {
                at,
                process,
                parent,
                started_ticks,
                program: String::from_utf8_lossy(program).into_owned(),
                argv: arguments(argv),
                group: format!("/{}", String::from_utf8_lossy(&group)),
            }
        }
        _ => Observation::Exit { at, process },
    })
}

/// Arguments as they lie in a process: each with a NUL, perhaps cut off.
pub(crate) fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// A wait on a mapped page.
pub(super) fn fault_wait(event: &[u8]) -> Option<Observation> {
    let wait = FaultWait::read_from(event)?;
    Some(Observation::MappedWait {
        process: wait.process,
        file: wait.file_id,
        offset: wait.offset,
        blocked_us: u32::try_from(wait.waited_ns / 1000).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_ebpf::event::EXTENTS_MAX;
    use proptest::prelude::*;

    /// A slot as the kernel keeps it, in the plainest words.
    #[derive(Default)]
    struct Kernel {
        header: SlotHeader,
        extents: Vec<Extent>,
        ring: Vec<(SlotHeader, Vec<Extent>)>,
    }

    impl Kernel {
        fn read(&mut self, offset: u64, length: u64) {
            match self.extents.last_mut() {
                Some(last) if last.offset + last.length == offset => {
                    last.length += length;
                    last.calls += 1;
                    last.blocked_us += 3;
                }
                _ => {
                    if self.extents.len() == EXTENTS_MAX {
                        self.emit(false);
                    }
                    self.extents.push(Extent { offset, length, calls: 1, blocked_us: 3, op: 1, ..Extent::default() });
                }
            }
        }

        fn open(&mut self) {
            self.emit(false);
            self.header.flags = SlotHeader::OPENED;
        }

        fn emit(&mut self, closed: bool) {
            if closed {
                self.header.flags |= SlotHeader::CLOSED;
            }
            if self.header.flags != 0 || !self.extents.is_empty() {
                self.ring.push(self.copy());
            }
            self.header.cookie = self.header.cookie.wrapping_add(1);
            self.header.flags = 0;
            self.extents.clear();
        }

        fn copy(&self) -> (SlotHeader, Vec<Extent>) {
            (SlotHeader { count: self.extents.len() as u32, ..self.header }, self.extents.clone())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64, u64),
        Open,
        Close,
        PushedOut,
        Poll { between: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..4, 1u64..3).prop_map(|(o, l)| Step::Read(o, l)),
            1 => Just(Step::Open),
            1 => Just(Step::Close),
            1 => Just(Step::PushedOut),
            3 => any::<bool>().prop_map(|between| Step::Poll { between }),
        ]
    }

    proptest! {
        /// Whatever the moments at which slots are copied and the ring is drained, every call is told once, with its
        /// bytes, and so is every open and close.
        #[test]
        fn promise_j_each_call_is_told_once(steps in proptest::collection::vec(step(), 1..200), first in any::<u32>()) {
            let mut kernel = Kernel { header: SlotHeader { cookie: first, ..SlotHeader::default() }, ..Kernel::default() };
            let mut slots = Slots::new(true);
            slots.told.insert((0, 0), Told { cookie: first, ..Told::default() });
            let (mut bytes, mut calls, mut opens, mut closes) = (Vec::new(), 0, 0, 0);
            let mut out = Vec::new();
            let clock = Clock::default();
            for step in steps.iter().chain([&Step::PushedOut, &Step::Poll { between: false }]) {
                match step {
                    Step::Read(offset, length) => {
                        kernel.read(*offset, *length);
                        bytes.extend(*offset..*offset + *length);
                        calls += 1;
                    }
                    Step::Open => { kernel.open(); opens += 1; }
                    Step::Close => { kernel.emit(true); closes += 1; }
                    Step::PushedOut => kernel.emit(false),
                    Step::Poll { between } => {
                        let copy = kernel.copy();
                        if *between {
                            // The kernel goes on between the copy and the drain.
                            kernel.read(1, 1);
                            bytes.push(1);
                            calls += 1;
                            kernel.emit(false);
                        }
                        for (header, extents) in kernel.ring.drain(..) {
                            slots.see(&header, &extents, Sight::GivenOut, &clock, &mut out);
                        }
                        slots.see(&copy.0, &copy.1, Sight::Copied, &clock, &mut out);
                    }
                }
            }
            let (mut told_bytes, mut told_calls, mut told_opens, mut told_closes, mut blocked) = (Vec::new(), 0, 0, 0, 0);
            for seen in &out {
                match seen {
                    Observation::Extent { offset, length, calls, blocked_us, .. } => {
                        told_bytes.extend(*offset..offset + length);
                        told_calls += *calls;
                        blocked += *blocked_us;
                    }
                    Observation::Open { .. } => told_opens += 1,
                    Observation::Close { .. } => told_closes += 1,
                    _ => {}
                }
            }
            prop_assert_eq!(told_bytes, bytes);
            prop_assert_eq!((told_calls, told_opens, told_closes, blocked), (calls, opens, closes, 3 * calls));
        }
    }

    #[test]
    fn only_a_read_that_was_waited_in_can_be_a_hit() {
        let found = |op, waits_seen| {
            let extent = Extent { op, length: 1, calls: 1, ..Extent::default() };
            match observe(&SlotHeader::default(), &extent, waits_seen, &Clock::default()) {
                Observation::Extent { found, .. } => found,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(found(Extent::READ, true), Found::Hit);
        assert_eq!(found(Extent::PAGES, true), Found::Hit);
        assert_eq!(found(Extent::READ, false), Found::Unknown);
        assert_eq!(found(Extent::ASYNC, true), Found::Unknown);
        assert_eq!(found(Extent::FAULT, true), Found::Unknown);
    }

    #[test]
    fn names_become_a_path_from_the_root_down() {
        let names = b"0001.jpg\0class a\0train\0";
        let mut event = vec![0u8; 32];
        event[28..32].copy_from_slice(&(names.len() as u32).to_ne_bytes());
        event.extend(names);
        assert_eq!(path(&event).unwrap().1, b"train/class a/0001.jpg");
        assert!(path(&event[..40]).is_none(), "cut short");
    }

    #[test]
    fn an_exec_tells_its_program_its_arguments_and_its_control_group() {
        let (argv, group) = (b"cat\0/data/1\0", b"step_batch\0job_7\0slurm\0");
        let mut event = vec![0u8; size_of::<ProcessHeader>() + FILENAME_BYTES];
        event[..4].copy_from_slice(&4u32.to_ne_bytes());
        event[12..14].copy_from_slice(&(argv.len() as u16).to_ne_bytes());
        event[14..16].copy_from_slice(&(group.len() as u16).to_ne_bytes());
        event[size_of::<ProcessHeader>()..][..8].copy_from_slice(b"/bin/cat");
        event.extend(argv.iter().chain(group));
        let Some(Observation::Exec { program, argv, group, .. }) = process(&event, &Clock::default()) else { panic!() };
        assert_eq!((program.as_str(), group.as_str()), ("/bin/cat", "/slurm/job_7/step_batch"));
        assert_eq!(argv, ["cat", "/data/1"]);
        assert!(process(&event[..event.len() - 1], &Clock::default()).is_none(), "cut short");
    }

    #[test]
    fn clocks_agree() {
        let clock = Clock { now: Timestamp(1_000_000), boot_ns: 5_000_000, jiffies: 2, jiffy_ns: 4_000_000 };
        assert_eq!(clock.of_boot_ns(3_000_000), Timestamp(998_000));
        assert_eq!(clock.of_jiffies(u32::MAX), Timestamp(1_000_000 - 3 * 4_000));
        assert_eq!(clock.of_jiffies(3), Timestamp(1_000_000 + 4_000));
    }

    #[test]
    fn arguments_are_split_at_nuls_and_kept_where_empty() {
        assert_eq!(arguments(b"python\0train.py\0\0--x\0"), ["python", "train.py", "", "--x"]);
        assert!(arguments(b"").is_empty());
    }
}
