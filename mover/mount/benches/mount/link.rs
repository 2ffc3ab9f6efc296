//! The wide-area link: a TCP forwarder in this process that delays bytes and paces them. It sees bytes, not packets: no
//! loss, no congestion, no slow start; `make bench-mover` measures those. Round trip and rate can be changed while
//! it runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Bytes of one read: half a millisecond at 1 Gbit/s.
const READ_BYTES: usize = 64 << 10;
/// Reads of one connection that may be under way: what 1 Gbit/s carries in 150 ms, and as much again as a queue.
const UNDER_WAY_MAX: usize = 600;

pub struct Link {
    one_way_us: AtomicU64,
    bits_per_s: AtomicU64,
    free_at: [Mutex<Option<Instant>>; 2],
}

impl Link {
    /// Forwards what comes in at the address that it answers to `target`. Within a runtime.
    pub async fn start(target: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let link = Arc::new(Self {
            one_way_us: AtomicU64::new(0),
            bits_per_s: AtomicU64::new(u64::MAX / 8),
            free_at: Default::default(),
        });
        let accepting = link.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().join(near, target));
            }
        });
        (link, address)
    }

    pub fn shape(&self, round_trip: Duration, bits_per_s: u64) {
        self.one_way_us.store(round_trip.as_micros() as u64 / 2, Ordering::Relaxed);
        self.bits_per_s.store(bits_per_s, Ordering::Relaxed);
    }

    fn arrival(&self, way: usize, bytes: usize) -> Instant {
        let rate = self.bits_per_s.load(Ordering::Relaxed) as f64;
        let one_way = Duration::from_micros(self.one_way_us.load(Ordering::Relaxed));
        let mut free_at = self.free_at[way].lock().expect("no panics");
        let now = Instant::now();
        let sent = free_at.map_or(now, |f| f.max(now)) + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        *free_at = Some(sent);
        sent + one_way
    }

    async fn join(self: Arc<Self>, near: TcpStream, target: SocketAddr) {
        let Ok(far) = TcpStream::connect(target).await else { return };
        [&near, &far].iter().for_each(|s| s.set_nodelay(true).expect("a socket"));
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        tokio::join!(self.carry(near_read, far_write, 0), self.carry(far_read, near_write, 1));
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: usize) {
        let (pieces, mut arriving) = mpsc::channel::<(Vec<u8>, Instant)>(UNDER_WAY_MAX);
        let write = async move {
            while let Some((piece, at)) = arriving.recv().await {
                tokio::time::sleep_until(at.into()).await;
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        let read = async move {
            let mut buffer = vec![0; READ_BYTES];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                let at = self.arrival(way, n);
                if pieces.send((buffer[..n].to_vec(), at)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(read, write);
    }
}
