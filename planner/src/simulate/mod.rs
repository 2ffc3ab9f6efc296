//! Plans in a world of their own: a deterministic simulation on a virtual clock.
//!
//! A job at a site reads files one after the other and computes between them; its link slows down and is cut, its
//! agent dies and loses its cache, a rule is revoked midway, forecasts are right, wrong or malicious. [`solve`] is
//! called every round as in the control plane; what it plans is carried out in order, whenever no reader needs the
//! link. Between two events everything flows at a constant rate, so the clock jumps from event to event.
//!
//! The cache keeps what was read against what may be read: prefetched bytes take free room and the room of prefetched
//! bytes whose time has passed, and leave first when a reader needs room. So what readers find is never less than
//! without prefetch, and a reader's bytes never wait for a forecast's: promise H follows, and the tests look for the
//! seed that breaks it.
//!
//! [`solve`]: crate::solve

mod site;
mod world;

pub use world::{Faults, Foresight, Report, Scenario, simulate};

#[cfg(test)]
mod tests;
