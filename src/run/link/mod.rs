//! `foretide link`: an emulated wide-area link on one machine, for the demo, the benches and whoever wants to try.

mod emulate;
mod forward;
mod namespaces;
mod pipe;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;

pub use emulate::Emulation;
pub use namespaces::{Namespace, ip};
pub use pipe::Shape;

use crate::config::{parse_duration, parse_rate};

/// Address of the end called `--a`.
pub const ADDRESS_A: &str = "198.18.0.1";
/// Address of the end called `--b`. Both are of the network set aside for benchmarks (RFC 2544).
pub const ADDRESS_B: &str = "198.18.0.2";
const DEVICE: &str = "wan0";

/// Options of `foretide link`.
#[derive(Args, Debug)]
pub struct Options {
    /// Round-trip time, such as 150ms.
    #[arg(long, default_value = "150ms", value_parser = parse_duration)]
    rtt: Duration,
    /// Rate of each direction, such as 1Gbit.
    #[arg(long, default_value = "1Gbit", value_parser = parse_rate)]
    rate: foretide_flow::BitsPerSecond,
    /// Share of packets lost at random, such as 0.001.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Name of the namespace at one end (its address is 198.18.0.1).
    #[arg(long, default_value = "foretide-a")]
    a: String,
    /// Name of the namespace at the other end (its address is 198.18.0.2).
    #[arg(long, default_value = "foretide-b")]
    b: String,
    /// Without namespaces (and without root): forward connections on LISTEN to TARGET over the link.
    #[arg(long, value_name = "LISTEN=TARGET", value_parser = parse_forward)]
    forward: Vec<(SocketAddr, SocketAddr)>,
    /// With --forward: keep the number of bytes that came back over the link in this file.
    #[arg(long, value_name = "FILE", requires = "forward")]
    count: Option<PathBuf>,
}

/// The count of bytes is written this often.
const COUNT_EVERY: Duration = Duration::from_millis(200);

fn parse_forward(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (listen, target) = text.split_once('=').ok_or("use LISTEN=TARGET, such as 127.0.0.1:9000=127.0.0.1:9001")?;
    let address = |t: &str| t.parse().map_err(|e| format!("{t:?}: {e}"));
    Ok((address(listen)?, address(target)?))
}

/// Two namespaces joined by a link; gone when dropped.
pub struct Joined {
    _emulation: Emulation,
    /// The end with [`ADDRESS_A`].
    pub a: Namespace,
    /// The end with [`ADDRESS_B`].
    pub b: Namespace,
}

/// Joins two new namespaces.
///
/// # Errors
/// If this process may not make namespaces or TUN devices.
pub fn join(a: &str, b: &str, shape: Shape) -> io::Result<Joined> {
    let (a, b) = (Namespace::create(a)?, Namespace::create(b)?);
    // Random loss is per packet, so packets must not be joined to super-packets.
    let offload = shape.loss == 0.0;
    let tun_a = a.tun(DEVICE, &format!("{ADDRESS_A}/30"), offload)?;
    let tun_b = b.tun(DEVICE, &format!("{ADDRESS_B}/30"), offload)?;
    Ok(Joined { _emulation: Emulation::start(tun_a, tun_b, shape, offload)?, a, b })
}

/// Runs until a signal.
///
/// # Errors
/// If the link cannot be made.
pub async fn run(options: Options) -> io::Result<()> {
    let shape = Shape { rate_bits_per_s: options.rate.0, one_way: options.rtt / 2, loss: options.loss };
    if !(0.0..1.0).contains(&shape.loss) {
        return Err(io::Error::other(format!("--loss {}: use a share from 0 to below 1", shape.loss)));
    }
    if !options.forward.is_empty() {
        let mut tasks = tokio::task::JoinSet::new();
        let came_back = Arc::<AtomicU64>::default();
        for (listen, target) in options.forward {
            let listener = tokio::net::TcpListener::bind(listen)
                .await
                .map_err(|e| io::Error::new(e.kind(), format!("--forward {listen}: {e}")))?;
            tasks.spawn(forward::forward(listener, target, shape, Arc::clone(&came_back)));
        }
        if let Some(file) = options.count {
            tasks.spawn(keep_count(file, came_back));
        }
        println!("ready");
        super::until_signal().await;
        return Ok(());
    }
    let joined = join(&options.a, &options.b, shape)?;
    println!("ready: {} is {ADDRESS_A}, {} is {ADDRESS_B}", joined.a.path().display(), joined.b.path().display());
    super::until_signal().await;
    Ok(())
}

async fn keep_count(file: PathBuf, came_back: Arc<AtomicU64>) -> io::Result<()> {
    loop {
        std::fs::write(&file, came_back.load(Ordering::Relaxed).to_string())?;
        tokio::time::sleep(COUNT_EVERY).await;
    }
}
