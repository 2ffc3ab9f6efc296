//! Socket options that a long fat link needs.

use std::io;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// Unsent bytes that the kernel may queue behind what is in flight: enough to keep the link busy while the
/// writer sleeps (1 ms at 1 Gbit/s), short enough that a demand is not stuck behind a backlog.
const NOT_SENT_LOWAT_BYTES: libc::c_int = 128 << 10;

/// Buffers for a connection's share of 150 ms at 10 Gbit/s, eight of them: bytes. Set only where the process may go
/// beyond the system's limit; otherwise the kernel's own tuning is better than a fixed smaller size.
const FORCED_BUFFER_BYTES: libc::c_int = 32 << 20;

fn set(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and `value` outlives the call.
    let done = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
