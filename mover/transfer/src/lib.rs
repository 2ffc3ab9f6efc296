//! Chunks from agent to agent, over few warm TCP connections.
//!
//! At a source a [`Server`] lists, cuts and sends; at a cache site a [`Mover`] brings chunks to the store: planned
//! moves within a window, demand reads at once; and a [`Server`] passes on what the store holds. A mount uses three
//! things: [`Mover::list`] and [`Mover::stat`] for metadata, [`Mover::read`] and [`Mover::ensure`] for bytes that may have
//! to be fetched, and the store itself (`lookup`, `open_whole`, `read`, `note_read`) for what is here.

mod borders;
mod buffer;
mod client;
mod error;
mod frame;
#[cfg(test)]
mod fuzz;
mod handshake;
mod limit;
mod message;
mod mover;
mod pack;
mod server;
#[cfg(test)]
mod simulation;
mod socket;
mod source;
mod surroundings;
mod tls;

pub use borders::Borders;
pub use client::{Client, ClientConfig, Listed, Liveness};
pub use error::TransferError;
pub use handshake::{Identity, Token};
pub use message::Change;
pub use mover::{Answer, Giver, Mover, MoverConfig, News, Repaired, Upheld};
pub use server::{Server, ServerConfig, ServerStats, SharingNews};
pub use source::{Bucket, Faulty, LocalDirectory, Manners, Merged, Source, SourceFile, Stamp};
pub use tls::{AGENT_NAME, Authority, Credentials, Issued, Requested, Tls, certificate_name, is_of_agent};
