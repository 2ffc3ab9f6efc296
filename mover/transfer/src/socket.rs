//! Socket options that a long fat link needs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::net::{TcpSocket, TcpStream};

/// Unsent bytes that the kernel may queue behind what is in flight: enough to keep the link busy while the
/// writer sleeps (1 ms at 1 Gbit/s), short enough that a demand is not stuck behind a backlog.
const NOT_SENT_LOWAT_BYTES: libc::c_int = 128 << 10;

/// Buffers for a connection that fills 1 Gbit/s at 150 ms alone, or shares 10 Gbit/s with seven others: bytes. Set only
/// where the process may go beyond the system's limit; otherwise the kernel's own tuning is better than a fixed smaller
/// size.
const FORCED_BUFFER_BYTES: libc::c_int = 32 << 20;

/// Whether it may.
pub(crate) fn may_force_buffers() -> bool {
    let size = FORCED_BUFFER_BYTES.to_ne_bytes();
    TcpSocket::new_v4().is_ok_and(|s| set(&s, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size).is_ok())
}

fn set(stream: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and `value` outlives the call.
    let done = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes must have come before the kernel wakes a reader (SO_RCVLOWAT).
///
/// In the middle of a long frame nothing can be made of a few packets more: a reader that waits for 32 KiB at a time is
/// woken far less often. It must never wait for more than is certain to come through the kernel.
#[derive(Debug)]
pub(crate) struct LowWater {
    socket: OwnedFd,
    bytes: libc::c_int,
}

/// What is waited for at once, bytes: two milliseconds of a connection's share of 1 Gbit/s.
const LOW_WATER_BYTES: libc::c_int = 32 << 10;
/// What has left the kernel and not reached the frame yet, bytes at most: a receive buffer and a TLS record.
const HELD_BYTES: usize = RECEIVE_BYTES + (17 << 10);
/// Taken from the kernel at once under TLS, bytes.
pub(crate) const RECEIVE_BYTES: usize = 64 << 10;

impl LowWater {
    /// Of a connection that is about to be split.
    ///
    /// # Errors
    /// If this process has no descriptor left.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { socket: stream.as_fd().try_clone_to_owned()?, bytes: 1 })
    }

    /// At least so many bytes are still to come. Where the kernel refuses, the reader is woken more often, no more.
    pub(crate) fn expect(&mut self, certain_bytes: usize) {
        let is_far = certain_bytes >= LOW_WATER_BYTES as usize + HELD_BYTES;
        let wanted = if is_far { LOW_WATER_BYTES } else { 1 };
        if wanted != self.bytes {
            self.bytes = wanted;
            let _ = set(&self.socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &wanted.to_ne_bytes());
        }
    }
}

/// Tunes a fresh connection. Only what the kernel refuses for good reason is passed over: BBR where it is not
/// built, forced buffers without the right to force them.
///
/// # Errors
/// If TCP_NODELAY cannot be set: then it is no TCP connection.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let int = |v: libc::c_int| v.to_ne_bytes();
    let wishes: [(&str, libc::c_int, libc::c_int, &[u8]); 4] = [
        ("bbr", libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"bbr"),
        ("short queue", libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &int(NOT_SENT_LOWAT_BYTES)),
        ("send buffer", libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &int(FORCED_BUFFER_BYTES)),
        ("receive buffer", libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &int(FORCED_BUFFER_BYTES)),
    ];
    for (what, level, name, value) in wishes {
        if let Err(e) = set(stream, level, name, value) {
            tracing::debug!(what, error = %e, "the kernel does not grant a socket option");
        }
    }
    Ok(())
}
