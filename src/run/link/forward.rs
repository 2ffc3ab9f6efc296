//! The link for a user who may make no namespaces: a TCP forwarder that delays and paces bytes.
//!
//! It sees bytes, not packets: the far ends speak TCP with the forwarder and see no loss and no congestion. A new
//! connection costs its first byte one more round trip, as a handshake would.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::pipe::Shape;

/// Bytes of one read: at 1 Gbit/s half a millisecond of the link.
const READ_BYTES: usize = 64 * 1024;

/// One direction of the link, shared by all connections.
struct Way {
    free_at: Mutex<Instant>,
    under_way: Arc<Semaphore>,
    shape: Shape,
    carried: Arc<AtomicU64>,
}

impl Way {
    fn new(shape: Shape, carried: Arc<AtomicU64>) -> Arc<Self> {
        let in_flight = shape.rate_bits_per_s as f64 / 8.0 * shape.one_way.as_secs_f64();
        let bytes = (in_flight as u64 + shape.queue_bytes()).max(2 * READ_BYTES as u64);
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free_at: Mutex::new(Instant::now()),
            under_way: Arc::new(Semaphore::new(permits)),
            shape,
            carried,
        })
    }

    /// Reserves the link for `bytes` and says when they arrive.
    fn arrival(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = Duration::from_secs_f64(bytes as f64 * 8.0 / self.shape.rate_bits_per_s as f64);
        *free_at = (*free_at).max(Instant::now()) + lasts;
        *free_at + self.shape.one_way
    }
}

struct Piece {
    bytes: Vec<u8>,
    arrives: Instant,
    _room: OwnedSemaphorePermit,
}

/// Accepts on `listener` and forwards each connection to `target` over the emulated link, until dropped. `came_back`
/// counts the bytes that `target` sent.
///
/// # Errors
/// If accepting fails for good.
pub async fn forward(
    listener: TcpListener,
    target: SocketAddr,
    shape: Shape,
    came_back: Arc<AtomicU64>,
) -> io::Result<()> {
    let (there, back) = (Way::new(shape, Arc::default()), Way::new(shape, came_back));
    loop {
        let (near, _) = listener.accept().await?;
        let (there, back) = (Arc::clone(&there), Arc::clone(&back));
        tokio::spawn(async move {
            if let Err(e) = join(near, target, there, back).await {
                tracing::debug!(error = %e, %target, "a forwarded connection ended");
            }
        });
    }
}

async fn join(near: TcpStream, target: SocketAddr, there: Arc<Way>, back: Arc<Way>) -> io::Result<()> {
    let handshake = there.shape.one_way * 2;
    tokio::time::sleep(handshake).await;
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(carry(near_read, far_write, there), carry(far_read, near_write, back))?;
    Ok(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Arc<Way>) -> io::Result<()> {
    // The semaphore bounds what is under way; the channel needs no bound of its own.
    let (pieces, mut arriving) = mpsc::unbounded_channel::<Piece>();
    let writer = async move {
        while let Some(piece) = arriving.recv().await {
            sleep_until(piece.arrives).await;
            to.write_all(&piece.bytes).await?;
        }
        to.shutdown().await
    };
    let reader = async move {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let room = Arc::clone(&way.under_way).acquire_many_owned(READ_BYTES as u32).await;
            let n = from.read(&mut buffer).await?;
            let (Ok(room), true) = (room, n > 0) else { return io::Result::Ok(()) };
            way.carried.fetch_add(n as u64, Ordering::Relaxed);
            let piece = Piece { bytes: buffer[..n].to_vec(), arrives: way.arrival(n), _room: room };
            if pieces.send(piece).is_err() {
                return Ok(());
            }
        }
    };
    tokio::try_join!(reader, writer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_through_unchanged_and_no_sooner_than_the_delay() {
        let shape = Shape { rate_bits_per_s: 80_000_000, one_way: Duration::from_millis(20), loss: 0.0 };
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let came_back = Arc::<AtomicU64>::default();
        let (target_at, near_at) = (target.local_addr().unwrap(), near.local_addr().unwrap());
        let forwarder = tokio::spawn(forward(near, target_at, shape, Arc::clone(&came_back)));
        let echo = tokio::spawn(async move {
            let (mut stream, _) = target.accept().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
        });
        let sent: Vec<u8> = (0..500_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let began = Instant::now();
        let mut stream = TcpStream::connect(near_at).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(came_back.load(Ordering::Relaxed), sent.len() as u64);
        assert!(
            began.elapsed() >= Duration::from_millis(80 + 100),
            "handshake, there, back, and half a megabyte twice"
        );
        echo.await.unwrap();
        forwarder.abort();
    }
}
