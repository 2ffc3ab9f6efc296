//! Two threads that carry packets from one TUN device to the other through a [`Pipe`] each.
//!
//! No netem is needed, which many kernels lack. The threads run at real-time priority where they may: at normal
//! priority on a busy machine they are late by more than the delay that they emulate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::unistd::{read, write};

use super::pipe::{Pipe, Shape};

/// The kernel's largest super-packet and its virtio header.
const LARGEST_PACKET_BYTES: usize = 65_536 + VIRTIO_HEADER_BYTES;
/// `struct virtio_net_hdr`: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
const VIRTIO_HEADER_BYTES: usize = 10;
/// Packets taken in one go before those that are due are released.
const PACKETS_PER_TURN: usize = 16;
/// How long a thread sleeps at most, so that it notices the end.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// A running emulation; ends when dropped.
pub struct Emulation {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Emulation {
    /// Starts carrying packets between two non-blocking TUN descriptors.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub fn start(a: OwnedFd, b: OwnedFd, shape: Shape, offload: bool) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ways = [(a.try_clone()?, b.try_clone()?, 1), (b, a, 2)];
        let carry_one = |(from, to, seed): (OwnedFd, OwnedFd, u64)| {
            let (stop, pipe) = (Arc::clone(&stop), Pipe::new(shape, seed));
            std::thread::spawn(move || {
                take_real_time_priority();
                if let Err(e) = carry(&from, &to, pipe, offload, &stop) {
                    tracing::error!(error = %e, "the emulated link stopped");
                }
            })
        };
        Ok(Self { threads: ways.into_iter().map(carry_one).collect(), stop })
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn take_real_time_priority() {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: `priority` outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) } != 0 {
        tracing::warn!("no real-time priority for the emulated link: its delay will vary under load");
    }
}

fn carry(from: &OwnedFd, to: &OwnedFd, mut pipe: Pipe, offload: bool, stop: &AtomicBool) -> io::Result<()> {
    let began = Instant::now();
    let mut packet = vec![0; LARGEST_PACKET_BYTES];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..PACKETS_PER_TURN {
            match read(from, &mut packet) {
                Ok(n) => pipe.push(began.elapsed(), &packet[..n], wire_bytes(&packet[..n], offload)),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(e) => return Err(e.into()),
            }
        }
        while let Some(arrived) = pipe.pop(began.elapsed()) {
            // A device that takes no more drops the packet, as a host's full receive queue does.
            let _ = write(to, &arrived);
        }
        sleep_until_work(from, pipe.next_arrival().map(|at| at.saturating_sub(began.elapsed())))?;
    }
    Ok(())
}

fn sleep_until_work(from: &OwnedFd, next_arrival_in: Option<Duration>) -> io::Result<()> {
    let longest = next_arrival_in.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
    let mut wanted = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    match ppoll(&mut wanted, Some(TimeSpec::from_duration(longest)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(io::Error::new(io::Error::from(e).kind(), format!("poll of tun {}: {e}", from.as_raw_fd()))),
    }
}

/// What a packet weighs on the wire: a super-packet is cut into segments that each carry its IP and TCP headers.
fn wire_bytes(packet: &[u8], offload: bool) -> u64 {
    if !offload {
        return packet.len() as u64;
    }
    let field = |at: usize| u64::from(u16::from_ne_bytes([packet[at], packet[at + 1]]));
    let (header_bytes, segment_bytes) = (field(2), field(4));
    let length = (packet.len() - VIRTIO_HEADER_BYTES) as u64;
    if packet[1] == 0 || segment_bytes == 0 {
        return length;
    }
    let segments = length.saturating_sub(header_bytes).div_ceil(segment_bytes).max(1);
    length + (segments - 1) * header_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_weighs_the_headers_of_each_segment() {
        let mut packet = vec![0; VIRTIO_HEADER_BYTES + 52 + 3 * 1448];
        assert_eq!(wire_bytes(&packet, true), 52 + 3 * 1448, "no segmentation asked for");
        packet[1] = 1;
        packet[2..4].copy_from_slice(&52u16.to_ne_bytes());
        packet[4..6].copy_from_slice(&1448u16.to_ne_bytes());
        assert_eq!(wire_bytes(&packet, true), 3 * 1500);
        assert_eq!(wire_bytes(&packet, false), packet.len() as u64);
    }
}
