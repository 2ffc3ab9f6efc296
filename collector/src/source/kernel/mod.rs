//! The kernel as a source: loads the probes of `foretide-ebpf`, polls what they leave, steers them.
//!
//! One poll: copy the slots from shared memory, drain the ring, then tell the copies. In that order, because what the
//! ring holds of a slot is older than a copy of its next filling and newer than a copy of the same one (see
//! [`decode`]). The ring wakes nobody: a wake-up for each event would cost the readers more than the probes do.

mod btf;
mod cost;
mod decode;
mod load;
mod roots;
mod shared;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use foretide_ebpf::event::{EventKind, Extent, Identity, Root, SlotHeader, Taken, Tally, bit_of};
use foretide_flow::Timestamp;
use nix::time::{ClockId, clock_gettime};

use self::decode::{Clock, Sight, Slots};
use self::roots::{MountWatch, Place};
use super::{Observation, Source};
use crate::probe::{ProbeState, Report, Tier};
use crate::{CollectorError, WatchedVolume};
pub(crate) use cost::Programs;
pub(crate) use decode::arguments;

/// How long two readings of the kernel's clocks lie apart to tell the length of a jiffy (1 to 10 ms).
const JIFFY_SAMPLE: Duration = Duration::from_millis(60);
/// Bursts of unknown files start at most one new epoch in this time.
const EPOCH_INTERVAL_US: i64 = 1_000_000;

/// How often the kernel is asked what its probes missed.
const MISSED_INTERVAL_US: i64 = 1_000_000;
/// The hook that tells who waits.
const WAITS_HOOK: &str = "sched_switch";

/// One reading of the kernel's clocks, from which all later ones follow: jiffies count monotonic time.
#[derive(Clone, Copy, Debug, Default)]
struct ClockZero {
    monotonic_ns: u64,
    jiffies: u64,
    jiffy_ns: u64,
}

impl ClockZero {
    fn clock(&self, now: Timestamp, boot_ns: u64, monotonic_ns: u64) -> Clock {
        let passed = (monotonic_ns - self.monotonic_ns) / self.jiffy_ns.max(1);
        Clock { now, boot_ns, jiffies: (self.jiffies + passed) as u32, jiffy_ns: self.jiffy_ns }
    }
}

fn clock_ns(id: ClockId) -> Result<u64, CollectorError> {
    let now = clock_gettime(id).map_err(|e| CollectorError::Kernel(format!("a clock cannot be read: {e}")))?;
    Ok(Duration::from(now).as_nanos() as u64)
}

/// The probes at work.
pub(crate) struct Kernel {
    loaded: load::Loaded,
    slots: Slots,
    /// Those of the event that is looked at.
    extents: Vec<Extent>,
    /// The last change of each slot that was copied.
    copied: Vec<u64>,
    clock: Clock,
    zero: ClockZero,
    watch: Vec<WatchedVolume>,
    places: Vec<Place>,
    /// Keep the watched directories' inodes in memory.
    _kept: Vec<OwnedFd>,
    anchor: OwnedFd,
    mounts: MountWatch,
    tally: Tally,
    /// Events that a probe did not see, as last told, and when that was asked.
    missed: (u64, Timestamp),
    forgotten: bool,
    last_epoch: Timestamp,
}

impl Kernel {
    /// Loads the probes and watches the volumes. Processes in `ignored`, and this one, are not observed.
    pub(crate) fn start(
        tier: Tier,
        watch: Vec<WatchedVolume>,
        ignored: &[u32],
        ring_bytes: u32,
    ) -> Result<(Self, Report), CollectorError> {
        let (loaded, report) = load::load(tier, ring_bytes).map_err(CollectorError::Kernel)?;
        // The kernel's types took tens of megabytes and are not needed any more.
        #[cfg(target_env = "gnu")]
        // SAFETY: gives free memory back and touches none in use.
        unsafe {
            libc::malloc_trim(0);
        }
        let system = |e: std::io::Error| CollectorError::Kernel(e.to_string());
        let mut kernel = Self {
            loaded,
            slots: Slots::new(report.probes.iter().any(|p| p.hook == WAITS_HOOK && p.state == ProbeState::Loaded)),
            extents: Vec::new(),
            copied: Vec::new(),
            clock: Clock::default(),
            zero: ClockZero::default(),
            watch,
            places: Vec::new(),
            _kept: Vec::new(),
            anchor: roots::open_path("/".as_ref()).map_err(system)?,
            mounts: MountWatch::new().map_err(system)?,
            tally: Tally::default(),
            missed: (0, Timestamp::default()),
            forgotten: false,
            last_epoch: Timestamp::default(),
        };
        if report.observes_reads() {
            kernel.set_zero()?;
            for process in ignored.iter().copied().chain([std::process::id()]) {
                kernel
                    .loaded
                    .skipped
                    .insert(process, 1, 0)
                    .map_err(|e| CollectorError::Kernel(format!("cannot ignore process {process}: {e}")))?;
            }
            kernel.watch_all()?;
        }
        Ok((kernel, report))
    }

    fn identity(&self, fd: &OwnedFd) -> Result<Identity, CollectorError> {
        let before = self.loaded.identities.read(0).calls;
        roots::ask(fd);
        let identity = self.loaded.identities.read(0);
        if identity.calls == before {
            return Err(CollectorError::Kernel(
                "the probe at sys_exit does not answer; another security module or a seccomp filter may forbid it"
                    .into(),
            ));
        }
        Ok(identity)
    }

    fn set_zero(&mut self) -> Result<(), CollectorError> {
        let asking = self.loaded.begin_asking().map_err(CollectorError::Kernel)?;
        let first = self.identity(&self.anchor)?;
        std::thread::sleep(JIFFY_SAMPLE);
        let second = self.identity(&self.anchor)?;
        let monotonic_ns = clock_ns(ClockId::CLOCK_MONOTONIC)?;
        self.loaded.end_asking(asking).map_err(CollectorError::Kernel)?;
        let ns = (second.now_ns - first.now_ns) / (second.jiffies - first.jiffies).max(1);
        // The kernel is built with one of these.
        let jiffy_ns =
            [1_000_000, 3_333_333, 4_000_000, 10_000_000].into_iter().min_by_key(|hz| ns.abs_diff(*hz)).unwrap_or(ns);
        self.zero = ClockZero { monotonic_ns, jiffies: second.jiffies, jiffy_ns };
        self.set_clock()
    }

    /// Tells the probes all roots, also those that were mounted since.
    fn watch_all(&mut self) -> Result<(), CollectorError> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = roots::places(&self.watch, &roots::mounts(&mounts));
        let stale: Vec<u64> = self.loaded.roots.keys().filter_map(Result::ok).collect();
        let asking = self.loaded.begin_asking().map_err(CollectorError::Kernel)?;
        let told = self.tell_roots(&places);
        self.loaded.end_asking(asking).map_err(CollectorError::Kernel)?;
        let (kept, fresh) = told?;
        for inode in stale.iter().filter(|i| fresh.iter().all(|f| f.inode != **i)) {
            let _ = self.loaded.roots.remove(inode);
        }
        self.places = places;
        self._kept = kept;
        let bits = |of: fn(&Identity) -> u64| fresh.iter().fold(0, |bits, f| bits | bit_of(of(f)));
        self.steer(bits(|f| f.inode), bits(|f| f.super_block));
        Ok(())
    }

    fn tell_roots(&mut self, places: &[Place]) -> Result<(Vec<OwnedFd>, Vec<Identity>), CollectorError> {
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        for (id, place) in places.iter().enumerate() {
            match self.tell_root(id as u32, &place.directory, &mut kept) {
                Ok(identity) => fresh.push(identity),
                // A mount below a root or a layer of an overlay may go at any moment; the root itself must be there.
                Err(e) if place.is_root => return Err(e),
                Err(error @ CollectorError::Kernel(_)) => tracing::warn!(%error, "what lies below is not seen"),
                Err(_) => {}
            }
        }
        Ok((kept, fresh))
    }

    fn tell_root(&mut self, id: u32, directory: &Path, kept: &mut Vec<OwnedFd>) -> Result<Identity, CollectorError> {
        let fd = roots::open_path(directory)
            .map_err(|source| CollectorError::Root { root: directory.to_owned(), source })?;
        let identity = self.identity(&fd)?;
        let root = Root { id, dev: identity.dev, inode_number: identity.inode_number };
        let mut value = [0u8; 16];
        value[..4].copy_from_slice(&root.id.to_ne_bytes());
        value[4..8].copy_from_slice(&root.dev.to_ne_bytes());
        value[8..].copy_from_slice(&root.inode_number.to_ne_bytes());
        self.loaded
            .roots
            .insert(identity.inode, value, 0)
            .map_err(|e| CollectorError::Kernel(format!("cannot watch {}: {e}", directory.display())))?;
        if identity.is_fs_root == 0 {
            kept.push(fd);
        }
        Ok(identity)
    }

    fn steer(&self, root_bits: u64, device_bits: u64) {
        let control = self.loaded.control.pointer(0);
        // SAFETY: the fields are aligned integers in a live shared mapping; the kernel reads them at any time and
        // adds to `epoch` atomically.
        let (roots, devices, epoch) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).root_bits),
                AtomicU64::from_ptr(&raw mut (*control).device_bits),
                AtomicU32::from_ptr(&raw mut (*control).epoch),
            )
        };
        roots.store(root_bits, Ordering::Relaxed);
        devices.store(device_bits, Ordering::Relaxed);
        epoch.fetch_add(1, Ordering::Release);
    }

    fn next_epoch(&self) {
        let control = self.loaded.control.read(0);
        self.steer(control.root_bits, control.device_bits);
    }

    fn set_clock(&mut self) -> Result<(), CollectorError> {
        let (boot_ns, monotonic_ns) = (clock_ns(ClockId::CLOCK_BOOTTIME)?, clock_ns(ClockId::CLOCK_MONOTONIC)?);
        self.clock = self.zero.clock(Timestamp::now(), boot_ns, monotonic_ns);
        Ok(())
    }

    fn copies(&mut self) -> Vec<(usize, SlotHeader, Vec<Extent>)> {
        let (slots, copied) = (&self.loaded.slots, &mut self.copied);
        copied.resize(slots.entries(), 0);
        let mut copies = Vec::new();
        for (index, seen) in copied.iter_mut().enumerate() {
            if let Some((header, extents)) = slots.copy(index, *seen) {
                *seen = header.done;
                copies.push((index, header, extents));
            }
        }
        copies
    }

    fn drain(&mut self, out: &mut Vec<Observation>) {
        while let Some(event) = self.loaded.ring.next() {
            match EventKind::of(&event) {
                Some(EventKind::Slot) => {
                    if let Some(header) = decode::slot(&event, &mut self.extents) {
                        self.slots.see(&header, &self.extents, Sight::GivenOut, &self.clock, out);
                    }
                }
                Some(EventKind::Path) => {
                    if let Some((header, below)) = decode::path(&event)
                        && let Some(place) = self.places.get(header.root as usize)
                        && let Some(path) = place.path(&below)
                    {
                        out.push(Observation::Path { file: header.file_id, volume: place.volume.clone(), path });
                    }
                }
                Some(EventKind::FaultWait) => out.extend(decode::fault_wait(&event)),
                Some(EventKind::Fork | EventKind::Exec | EventKind::Exit) => {
                    out.extend(decode::process(&event, &self.clock));
                }
                None => {}
            }
        }
    }

    /// The programs at work, for who asks for their cost.
    pub(crate) fn programs(&self) -> Arc<Programs> {
        Arc::clone(&self.loaded.attached)
    }

    /// Asked now and then: it takes a file's read for each probe.
    fn newly_missed(&mut self) -> u64 {
        let (before, asked) = self.missed;
        if self.clock.now.0 - asked.0 < MISSED_INTERVAL_US {
            return 0;
        }
        let all = self.loaded.attached.costs().iter().map(|c| c.missed).sum();
        self.missed = (all, self.clock.now);
        all - before
    }

    fn losses(&mut self, out: &mut Vec<Observation>) {
        let tallies = &self.loaded.tallies;
        let sum = |field: fn(&Tally) -> u64| (0..tallies.entries()).map(|cpu| field(&tallies.read(cpu))).sum::<u64>();
        let now = Tally {
            lost_calls: sum(|t| t.lost_calls),
            lost_process_events: sum(|t| t.lost_process_events),
            unresolved_calls: sum(|t| t.unresolved_calls),
            compat_calls: sum(|t| t.compat_calls),
            ..Tally::default()
        };
        let calls = now.lost_calls - self.tally.lost_calls;
        let processes = now.lost_process_events - self.tally.lost_process_events;
        let unresolved =
            now.unresolved_calls - self.tally.unresolved_calls + now.compat_calls - self.tally.compat_calls;
        self.tally = now;
        let calls = calls + self.newly_missed();
        if calls + processes + unresolved > 0 {
            out.push(Observation::Loss { calls, processes, unresolved });
        }
    }
}

impl Source for Kernel {
    fn poll(&mut self, out: &mut Vec<Observation>) -> Result<(), CollectorError> {
        self.set_clock()?;
        if self.mounts.changed() {
            // What is in the ring names roots by their old numbers.
            self.drain(out);
            // A root that has just been unmounted is no reason to stop watching the others.
            let _ = self.watch_all();
        }
        if self.forgotten && self.clock.now.0 - self.last_epoch.0 > EPOCH_INTERVAL_US {
            self.forgotten = false;
            self.last_epoch = self.clock.now;
            self.next_epoch();
        }
        let copies = self.copies();
        self.drain(out);
        for (index, header, extents) in copies {
            self.slots.see(&header, &extents, Sight::Copied, &self.clock, out);
            self.loaded.takens.write(index, Taken { cookie: header.cookie, pad: 0, calls: header.calls });
        }
        self.losses(out);
        Ok(())
    }

    fn forget(&mut self, file: u64) {
        let entry = file as usize % self.loaded.announced.entries();
        self.loaded.announced.write(entry, 0);
        self.forgotten = true;
    }
}
