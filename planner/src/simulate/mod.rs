//! Plans in a world of their own: a deterministic simulation on a virtual clock.
//!
//! Jobs at sites read files one after the other and compute between them; links slow down and are cut, an agent dies
//! and loses its cache, a rule is revoked midway, forecasts are right, wrong or malicious. [`solve`] is called every
//! round as in the control plane; what it plans is carried out in order, whenever no reader needs the link. Between
//! two events everything flows at a constant rate, so the clock jumps from event to event. A [`World`] is drawn from a
//! seed, or made of recorded accesses; what foresees is a value behind [`Foresee`], so that the model can be put there.
//!
//! The cache keeps what was read against what may be read: prefetched bytes take free room and the room of prefetched
//! bytes whose time has passed, and leave first when a reader needs room. So what readers find is never less than
//! without prefetch, and a reader's bytes never wait for a forecast's: promise H follows, and the tests look for the
//! seed that breaks it.
//!
//! What it leaves out: two jobs that miss the same block at the same moment both fetch it; a node's own page cache;
//! compute that changes with waiting.
//!
//! [`solve`]: crate::solve

mod atlas;
mod cache;
mod draw;
mod invariants;
mod job;
mod lane;
mod run;
mod site;
mod world;

pub use draw::{Foresight, Seer};
pub use run::{Caching, Report, simulate};
pub use world::{Faults, File, Foresee, Future, Job, Read, World, WorldError};

#[cfg(test)]
mod tests;
