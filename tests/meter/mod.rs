//! What crosses a link, counted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Counts what an address gives to those who reach it at another port.
pub struct Meter {
    /// Where it is reached.
    pub port: u16,
    given: Arc<AtomicU64>,
}

impl Meter {
    /// Before what listens at a port of this machine.
    pub fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, given) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let counted = given.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (up, down) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
                let counted = counted.clone();
                thread::spawn(move || pass(up.0, up.1, &AtomicU64::new(0)));
                thread::spawn(move || pass(down.0, down.1, &counted));
            }
        });
        Self { port, given }
    }

    /// Bytes that were given so far.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        counter.fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Bytes that no link could pack, of a seed above 0; whole words.
pub fn noise(mut seed: u64, length: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}
