//! Socket options that a long fat link needs.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::frame::DATA_BYTES;

/// Unsent bytes that the kernel may queue behind what is in flight: a whole data frame, so that its writer is woken once
/// for it (2 ms at 1 Gbit/s), and no more, so that a demand is not stuck behind a backlog.
const NOT_SENT_LOWAT_BYTES: libc::c_int = DATA_BYTES as libc::c_int;

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

/// How many bytes of a frame are still to come at least: told by who reads frames to who asks the kernel for bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certain(Arc<AtomicUsize>);

impl Certain {
    /// So many, before the next is read.
    pub(crate) fn tell(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// A socket whose reader is woken when what is worth waking for has come (SO_RCVLOWAT).
///
/// In the middle of a long frame nothing can be made of a few packets more. It must never wait for more than is certain
/// to come through the kernel: of the frame, what has left the kernel already is less than a TLS record, for whoever
/// buffers above asks for more only when its buffer is empty.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    socket: OwnedFd,
    certain: Certain,
    low_water_bytes: libc::c_int,
}

/// What is waited for at once, bytes: all that is taken from the kernel at once, six milliseconds of a connection's third of
/// 1 Gbit/s.
const LOW_WATER_BYTES: usize = RECEIVE_BYTES;
/// Of a frame, what TLS may have taken from the kernel and not given on, bytes: no whole record.
const HELD_BYTES: usize = 17 << 10;
/// Taken from the kernel at once by who is sent long frames, bytes.
pub(crate) const RECEIVE_BYTES: usize = 256 << 10;

impl<S> Patient<S> {
    /// `stream` reads from `socket`, a descriptor of its own.
    pub(crate) fn new(stream: S, socket: OwnedFd, certain: Certain) -> Self {
        Self { stream, socket, certain, low_water_bytes: 1 }
    }

    /// Where the kernel refuses, the reader is woken more often, no more.
    fn set_low_water(&mut self) {
        let to_come = self.certain.0.load(Ordering::Relaxed).saturating_sub(HELD_BYTES);
        let wanted = to_come.clamp(1, LOW_WATER_BYTES) as libc::c_int;
        if wanted != self.low_water_bytes {
            self.low_water_bytes = wanted;
            let _ = set(&self.socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &wanted.to_ne_bytes());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.set_low_water();
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects to the first of an address's (`host:port`) that answers. Tuned before: the first receive window is cut from
/// the buffer that the socket has then.
///
/// # Errors
/// Why the last did not answer.
pub(crate) async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address of that name");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        tune(&socket)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// Tunes a connection, or what is to become one. Only what the kernel refuses for good reason is passed over: BBR where it
/// is not built, forced buffers without the right to force them.
///
/// # Errors
/// If TCP_NODELAY cannot be set: then it is no TCP connection.
pub(crate) fn tune(stream: &impl AsRawFd) -> io::Result<()> {
    let int = |v: libc::c_int| v.to_ne_bytes();
    set(stream, libc::IPPROTO_TCP, libc::TCP_NODELAY, &int(1))?;
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
