//! One direction of a wide-area link, as a value: packets go in at any rate and come out at the link's rate, after
//! its delay. It reads no clock: `now` is an argument, so it is tested without waiting.
//!
//! A packet starts when the one before has left (that is the rate), and arrives one way's delay after it has left.
//! What waits for its start is the router's queue; it is bounded in bytes, and a packet that finds it full is
//! dropped, as a router does.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What the link is like. Both directions are alike.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bits a second, headers of IP and TCP counted.
    pub rate_bits_per_s: u64,
    /// Half of the round trip.
    pub one_way: Duration,
    /// Share of packets lost at random, between 0 and 1.
    pub loss: f64,
}

impl Shape {
    /// The router's queue: a twentieth of a second at full rate, as short as routers on such links are set, and
    /// never less than a few packets.
    pub fn queue_bytes(&self) -> u64 {
        (self.rate_bits_per_s / 8 / 20).max(256 * 1024)
    }

    fn seconds_for(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / self.rate_bits_per_s as f64
    }
}

/// Packets under way in one direction. Times are durations since the pipe was made.
#[derive(Debug)]
pub struct Pipe {
    shape: Shape,
    under_way: VecDeque<(Duration, Vec<u8>)>,
    last_left: Duration,
    chance: StdRng,
    /// Packets that found the queue full or were lost at random.
    pub dropped: u64,
}

impl Pipe {
    /// An empty pipe. `seed` decides which packets are lost.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            under_way: VecDeque::new(),
            last_left: Duration::ZERO,
            chance: StdRng::seed_from_u64(seed),
            dropped: 0,
        }
    }

    /// A packet enters. `wire_bytes` is what it weighs on the wire: more than its length where it stands for
    /// several segments that each carry headers.
    pub fn push(&mut self, now: Duration, packet: &[u8], wire_bytes: u64) {
        let starts = self.last_left.max(now);
        let waiting_s = (starts - now).as_secs_f64();
        let queue_full = waiting_s > self.shape.seconds_for(self.shape.queue_bytes());
        if queue_full || (self.shape.loss > 0.0 && self.chance.random_bool(self.shape.loss)) {
            self.dropped += 1;
            return;
        }
        self.last_left = starts + Duration::from_secs_f64(self.shape.seconds_for(wire_bytes));
        self.under_way.push_back((self.last_left + self.shape.one_way, packet.to_vec()));
    }

    /// The next packet that has arrived, if one has.
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.under_way.pop_front_if(|(arrives, _)| *arrives <= now).map(|(_, packet)| packet)
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.under_way.front().map(|(arrives, _)| *arrives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: Shape = Shape { rate_bits_per_s: 8_000_000, one_way: Duration::from_millis(75), loss: 0.0 };

    #[test]
    fn a_packet_takes_its_own_time_and_the_delay() {
        let mut pipe = Pipe::new(MBIT, 1);
        pipe.push(Duration::ZERO, &[1; 1000], 1000);
        pipe.push(Duration::ZERO, &[2; 1000], 1000);
        assert_eq!(pipe.next_arrival(), Some(Duration::from_millis(76)));
        assert_eq!(pipe.pop(Duration::from_micros(75_999)), None);
        assert_eq!(pipe.pop(Duration::from_millis(76)).unwrap()[0], 1);
        assert_eq!(pipe.next_arrival(), Some(Duration::from_millis(77)), "the second starts when the first has left");
    }

    #[test]
    fn the_rate_holds_over_a_long_time() {
        let mut pipe = Pipe::new(MBIT, 1);
        let mut arrived = 0;
        for ms in 0..2000u64 {
            let now = Duration::from_millis(ms);
            pipe.push(now, &[0; 1500], 1500);
            while pipe.pop(now).is_some() {
                arrived += 1500;
            }
        }
        let carried = 1_000_000.0 * (2.0 - 0.075);
        assert!((f64::from(arrived) / carried - 1.0).abs() < 0.01, "{arrived} of {carried}");
        assert!(pipe.dropped > 0, "half again too much was sent, and the queue is bounded");
    }

    #[test]
    fn loss_is_the_share_that_was_asked_and_comes_from_the_seed() {
        let lossy = |seed| {
            let mut pipe = Pipe::new(Shape { loss: 0.1, rate_bits_per_s: 1 << 40, ..MBIT }, seed);
            (0..10_000).for_each(|i| pipe.push(Duration::from_micros(i), &[0], 1));
            pipe.dropped
        };
        assert!((900..1100).contains(&lossy(7)), "{}", lossy(7));
        assert_eq!(lossy(7), lossy(7));
    }
}
