//! The emulated link between the two ends: what `foretide link` makes, without building all of `foretide` for it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Order, Result, start};

/// The link's own sources, shared with the command.
#[allow(unused_imports, reason = "its tests are not run here")]
#[path = "../../../../src/run/link/emulate.rs"]
mod emulate;
#[path = "../../../../src/run/link/namespaces.rs"]
mod namespaces;
#[allow(dead_code, unused_imports, reason = "its tests are not run here")]
#[path = "../../../../src/run/link/pipe.rs"]
mod pipe;

/// Where the sender listens.
pub const SENDER: &str = "198.18.0.1";
const RECEIVER: &str = "198.18.0.2";
const DEVICE: &str = "wan0";
/// A TCP stream's buffers, bytes: an admin of a long link raises them, and the peers' sockets are not tuned otherwise.
const TCP_BUFFERS_BYTES: &str = "4096 1048576 134217728";

/// What the link is like.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Shape {
    pub rate_mbit: f64,
    pub rtt_ms: u64,
    pub loss: f64,
}

impl Shape {
    /// Seconds that so many bytes take at the link's rate.
    pub fn floor_s(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / (self.rate_mbit * 1e6)
    }
}

/// A running link; gone when dropped.
pub struct Link {
    child: Child,
    name: String,
}

impl Link {
    /// Starts the process that emulates it.
    pub fn start(shape: Shape) -> Result<Self> {
        let name = format!("ftb{}", std::process::id());
        let mut child = start(None, &Order::Link { name: name.clone(), shape })?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut said)?;
        if said.trim() != "ready" {
            return Err("the link did not start: this bench needs root and /dev/net/tun".into());
        }
        Ok(Self { child, name })
    }

    /// The emulating process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The sender's namespace.
    pub fn sender(&self) -> PathBuf {
        format!("/run/netns/{}a", self.name).into()
    }

    /// The receiver's.
    pub fn receiver(&self) -> PathBuf {
        format!("/run/netns/{}b", self.name).into()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The process ends when its input does, and takes the namespaces with it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The emulating process: until its input ends.
pub fn run(name: &str, shape: Shape) -> Result<()> {
    let pipe = pipe::Shape {
        rate_bits_per_s: (shape.rate_mbit * 1e6) as u64,
        one_way: Duration::from_millis(shape.rtt_ms) / 2,
        loss: shape.loss,
    };
    let a = namespaces::Namespace::create(&format!("{name}a"))?;
    let b = namespaces::Namespace::create(&format!("{name}b"))?;
    let offload = shape.loss == 0.0;
    let (at_a, at_b) =
        (a.tun(DEVICE, &format!("{SENDER}/30"), offload)?, b.tun(DEVICE, &format!("{RECEIVER}/30"), offload)?);
    for namespace in [&a, &b] {
        for what in ["tcp_rmem", "tcp_wmem"] {
            let set = format!("net.ipv4.{what}={TCP_BUFFERS_BYTES}");
            let net = format!("--net={}", namespace.path().display());
            let done = Command::new("nsenter").args([&net, "sysctl", "-qw", &set]).stdout(Stdio::null()).status()?;
            if !done.success() {
                return Err(format!("cannot set {set}").into());
            }
        }
    }
    let _emulation = emulate::Emulation::start(at_a, at_b, pipe, offload)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
