//! What a mover has around it: the machine's clock and network, or those that a test makes up.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;
use foretide_flow::Timestamp;

use crate::socket::Certain;
use crate::tls::{self, ReadHalf, Shown, Tls, WriteHalf};

/// A fresh connection to a peer.
pub(crate) struct Reached {
    pub(crate) read: ReadHalf,
    pub(crate) write: WriteHalf,
    pub(crate) shown: Shown,
    /// To be told by who reads frames from it.
    pub(crate) certain: Certain,
}

/// See the module.
#[async_trait]
pub(crate) trait Surroundings: Debug + Send + Sync {
    /// Connects to `host:port`.
    async fn connect(&self, address: &str, tls: Option<&Tls>) -> io::Result<Reached>;

    /// The time of day; it may jump.
    fn now(&self) -> Timestamp;
}

/// This machine: TCP, and its own clock.
#[derive(Debug)]
pub(crate) struct Machine;

#[async_trait]
impl Surroundings for Machine {
    async fn connect(&self, address: &str, tls: Option<&Tls>) -> io::Result<Reached> {
        let stream = crate::socket::connect(address).await?;
        let certain = Certain::default();
        let (read, write, shown) = tls::connect(stream, tls, certain.clone()).await?;
        Ok(Reached { read, write, shown, certain })
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
