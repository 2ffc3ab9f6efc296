//! From accesses to profiles and forecasts.
//!
//! [`Model`] takes what nodes saw ([`Model::observe`]), what directories hold ([`Model::learn`]) and what came of
//! moves ([`Model::outcome`]), and says what will be read next, when, how surely and why ([`Model::advise`]).
//!
//! Inside: [`run`] follows running runs and tells their passes apart; [`history`] keeps finished ones and reckons
//! profiles; [`lake`] reads the trace lake and [`features`] makes tables of it; [`calendar`] says when a workload comes back; [`habit`] what it will read then, [`drawn`] in which order that was drawn; [`forecaster`] holds
//! the experts behind one trait; [`select`] scores them in shadow and lets one speak, or none; [`train`] teaches
//! the learned one, and `calibrate` how sure it is to be taken; [`recurrence`] judges them on recorded jobs.
//!
//! Beside it: [`import`] reads traces that others recorded; [`evaluate`] replays them through a simulated site, where
//! [`blocks`] (a forecaster for streams of block numbers), [`opened`] and [`foresight`] (what a site holds while an expected
//! run goes on) stand beside what is known. README.md states the properties, lettered, that the tests hold them to.

pub mod blocks;
pub mod calendar;
pub mod drawn;
pub mod evaluate;
pub mod features;
pub mod forecaster;
pub mod foresight;
pub mod habit;
pub mod history;
pub mod import;
pub mod namespace;
pub mod opened;
pub mod order;
pub mod profiles;
pub mod ranges;
pub mod recurrence;
pub mod run;
pub mod select;
pub mod shape;
pub mod train;

mod advise;
mod calibrate;
mod config;
mod error;
mod lake;
mod model;
mod orders;
mod relearn;
mod snapshot;

pub use advise::Advice;
pub use config::Config;
pub use error::ModelError;
pub use model::{LeftAside, Model, ScoreRow};
pub use relearn::{Relearned, Trial};
pub use snapshot::Loaded;
