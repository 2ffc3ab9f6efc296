//! How much a fresh connection may send before the first acknowledgement, where the link's rate is known.
//!
//! TCP begins with ten packets and doubles them in each round trip, because it knows nothing of the way. From the two
//! connections of a pool that carry what can wait to the 19 MB that fill 1 Gbit/s at 150 ms that takes nine round trips.
//! Where an administrator has told the link's rate there is less to find out: a connection begins with an eighth of what
//! the link carries in its own round trip. That is no burst: BBR spreads it over a third of a round trip, and what all
//! connections of a link send together is held to the same rate by the link's limiter.
//!
//! No socket option sets that window. A program of 26 instructions does (`BPF_PROG_TYPE_SOCK_OPS`), which the kernel
//! runs when a connection to this server's port is established; it lives as long as its descriptors. It is loaded when the
//! server starts, before an agent forbids itself to load any; the rate lies in a map and may change. Who may not load it
//! opens as TCP does everywhere.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use attributes::{Link, Map, Program, Update};
use foretide_flow::BitsPerSecond;

/// A connection's part of what the link carries in a round trip.
const SHARE: u64 = 8;
/// What TCP begins with anyway.
const USUAL_PACKETS: i32 = 10;
/// And no more than this, whatever was told of a link: twice what 1 Gbit/s wants at 150 ms, 6 MB.
const MAX_PACKETS: i32 = 4096;
/// Payload of a packet.
const PACKET_BYTES: u64 = 1448;
/// The program counts in packets for 2^-20 of an eighth of a microsecond, the unit in which the kernel tells a round trip.
const FRACTION_BITS: i32 = 20;

/// The program at work; it stops when dropped.
#[derive(Debug)]
pub(super) struct Opening {
    rate: OwnedFd,
    _attached: OwnedFd,
}

impl Opening {
    /// For connections to this port.
    ///
    /// # Errors
    /// If this process may not, or the kernel cannot: it wants CAP_BPF, CAP_NET_ADMIN and cgroup v2.
    pub(super) fn of_port(port: u16) -> io::Result<Self> {
        let rate = bpf(MAP_CREATE, &Map { kind: MAP_ARRAY, key_bytes: 4, value_bytes: 8, entries: 1 })?;
        let instructions = program(port, &rate);
        let program = bpf(
            PROG_LOAD,
            &Program {
                kind: PROG_SOCK_OPS,
                length: instructions.len() as u32,
                instructions: instructions.as_ptr() as u64,
                license: c"Apache-2.0".as_ptr() as u64,
            },
        )?;
        let group = std::fs::File::open(own_group()?)?;
        let link = Link {
            program: program.as_raw_fd() as u32,
            group: group.as_raw_fd() as u32,
            kind: CGROUP_SOCK_OPS,
            flags: 0,
        };
        Ok(Self { rate, _attached: bpf(LINK_CREATE, &link)? })
    }

    /// Connections from now on are of a link of this rate.
    pub(super) fn set(&self, rate: Option<BitsPerSecond>) -> io::Result<()> {
        let (key, value) = (0u32, packets_per_unit(rate));
        let update = Update {
            map: self.rate.as_raw_fd() as u32,
            unused: 0,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        call(MAP_UPDATE, &update).map(drop)
    }
}

/// Packets for each unit of a round trip, in 2^-20; 0 where nothing is known.
fn packets_per_unit(rate: Option<BitsPerSecond>) -> u64 {
    let bytes_per_s = rate.map_or(0, |rate| rate.0 / 8);
    (u128::from(bytes_per_s) << FRACTION_BITS).div_euclid(u128::from(8_000_000 * PACKET_BYTES * SHARE)) as u64
}

/// This process's folder in the hierarchy of cgroup v2.
fn own_group() -> io::Result<PathBuf> {
    let missing = |what| io::Error::new(io::ErrorKind::NotFound, what);
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|l| l.get(2) == Some(&"cgroup2"));
    let mounted = mounted.ok_or_else(|| missing("no cgroup2 is mounted"))?;
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|l| l.strip_prefix("0::/")).ok_or_else(|| missing("not in a cgroup2"))?;
    Ok(PathBuf::from(mounted[1]).join(own))
}

/// From the kernel's linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_ARRAY: u32 = 2;
const PROG_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;

/// What commands take: the beginnings of `union bpf_attr`.
mod attributes {
    #[repr(C)]
    pub(super) struct Map {
        pub(super) kind: u32,
        pub(super) key_bytes: u32,
        pub(super) value_bytes: u32,
        pub(super) entries: u32,
    }

    #[repr(C)]
    pub(super) struct Program {
        pub(super) kind: u32,
        pub(super) length: u32,
        pub(super) instructions: u64,
        pub(super) license: u64,
    }

    #[repr(C)]
    pub(super) struct Link {
        pub(super) program: u32,
        pub(super) group: u32,
        pub(super) kind: u32,
        pub(super) flags: u32,
    }

    #[repr(C)]
    pub(super) struct Update {
        pub(super) map: u32,
        pub(super) unused: u32,
        pub(super) key: u64,
        pub(super) value: u64,
        pub(super) flags: u64,
    }
}

fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is what the command reads, begins as the kernel's own does and has no padding; what it points
    // to outlives the call. The kernel takes fields beyond its size as 0.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}

/// A command that makes a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made it for us, and closes it when another program is begun.
    call(command, attributes).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One instruction: operation, registers to and from, offset, constant.
fn instruction(operation: u8, (to, from): (u8, u8), offset: i16, constant: i32) -> u64 {
    let registers = u64::from(to | from << 4) << 8;
    u64::from(operation) | registers | u64::from(offset as u16) << 16 | u64::from(constant as u32) << 32
}

/// Operations of the kernel's virtual machine.
mod operation {
    pub(super) const LOAD_32: u8 = 0x61;
    pub(super) const LOAD_64: u8 = 0x79;
    pub(super) const LOAD_ADDRESS: u8 = 0x18;
    pub(super) const STORE_32: u8 = 0x63;
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const SET: u8 = 0xb7;
    pub(super) const ADD: u8 = 0x07;
    pub(super) const MULTIPLY_BY: u8 = 0x2f;
    pub(super) const SHIFT_RIGHT: u8 = 0x77;
    pub(super) const SKIP_UNLESS_EQUAL: u8 = 0x55;
    pub(super) const SKIP_IF_AT_MOST: u8 = 0xb5;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// At a connection to the port that has just been established, with `packets = (round trip * rate) >> FRACTION_BITS`, if
/// that is more than usual: `bpf_setsockopt(connection, IPPROTO_TCP, TCP_BPF_IW, &packets, 4)`.
fn program(port: u16, rate: &OwnedFd) -> Vec<u64> {
    use operation::*;
    // Fields of `struct bpf_sock_ops`, by offset.
    let (event, reply, local_port, round_trip) = (0, 4, 68, 80);
    let (established_by_peer, setsockopt, initial_window) = (5, 49, 1001);
    let map_value = 2;
    vec![
        instruction(MOVE, (6, 1), 0, 0),
        // To whatever else the kernel asks there is nothing to say.
        instruction(SET, (2, 0), 0, -1),
        instruction(STORE_32, (6, 2), reply, 0),
        instruction(LOAD_32, (2, 6), event, 0),
        instruction(SKIP_UNLESS_EQUAL, (2, 0), 19, established_by_peer),
        instruction(LOAD_32, (2, 6), local_port, 0),
        instruction(SKIP_UNLESS_EQUAL, (2, 0), 17, i32::from(port)),
        instruction(LOAD_ADDRESS, (1, map_value), 0, rate.as_raw_fd()),
        instruction(0, (0, 0), 0, 0),
        instruction(LOAD_64, (1, 1), 0, 0),
        instruction(LOAD_32, (2, 6), round_trip, 0),
        instruction(MULTIPLY_BY, (2, 1), 0, 0),
        instruction(SHIFT_RIGHT, (2, 0), 0, FRACTION_BITS),
        instruction(SKIP_IF_AT_MOST, (2, 0), 10, USUAL_PACKETS),
        instruction(SKIP_IF_AT_MOST, (2, 0), 1, MAX_PACKETS),
        instruction(SET, (2, 0), 0, MAX_PACKETS),
        instruction(STORE_32, (10, 2), -4, 0),
        instruction(MOVE, (1, 6), 0, 0),
        instruction(SET, (2, 0), 0, libc::IPPROTO_TCP),
        instruction(SET, (3, 0), 0, initial_window),
        instruction(MOVE, (4, 10), 0, 0),
        instruction(ADD, (4, 0), 0, -4),
        instruction(SET, (5, 0), 0, 4),
        instruction(CALL, (0, 0), 0, setsockopt),
        instruction(SET, (0, 0), 0, 1),
        instruction(EXIT, (0, 0), 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's own arithmetic.
    fn packets(rate: u64, round_trip_us: u64) -> u64 {
        (round_trip_us * 8 * packets_per_unit(Some(BitsPerSecond(rate)))) >> FRACTION_BITS
    }

    #[test]
    fn a_connection_opens_with_an_eighth_of_what_its_link_carries_in_a_round_trip() {
        for (rate, round_trip_us) in [(1_000_000_000, 150_000), (100_000_000, 30_000), (10_000_000_000, 15_000)] {
            let share = rate / 8 * round_trip_us / 1_000_000 / SHARE / PACKET_BYTES;
            assert!(packets(rate, round_trip_us).abs_diff(share) <= share / 50 + 1, "{share}");
        }
        assert_eq!(packets_per_unit(None), 0, "nothing is changed where nothing is known");
        assert!(packets(1_000_000_000, 200) < USUAL_PACKETS as u64, "neighbours open as usual");
    }

    /// The kernel's verifier reads every instruction; who may not load it sees why.
    #[test]
    fn the_kernel_takes_the_program_or_says_that_we_may_not() {
        match Opening::of_port(1) {
            Ok(opening) => opening.set(Some(BitsPerSecond(1_000_000_000))).unwrap(),
            Err(e) => assert!(
                matches!(e.raw_os_error(), None | Some(libc::EPERM | libc::EACCES | libc::ENOSYS)),
                "{e}: the program is wrong"
            ),
        }
    }
}
