//! From forecasts and requests to plans, purely.
//!
//! [`solve`] takes everything that a plan depends on as one [`Problem`] and gives back a [`Plan`]
//! (`foretide_flow`): moves, what rules forbid, and what was decided against, each with its reason. It touches
//! nothing, reads no clock and draws no lot that the seed does not decide, so a plan can be replayed, compared and
//! explained (promise F). The problem in words, and the properties that the tests cite, are in this room's README.
//!
//! [`Plan`]: foretide_flow::Plan

mod advise;
pub mod assign;
mod brakes;
mod config;
mod explain;
mod feedback;
mod gather;
mod grid;
mod ledger;
mod left_out;
mod problem;
pub mod simulate;
mod solve;
mod supply;

pub use advise::{Advice, AdviceRequest, advise};
pub use brakes::{Brakes, Budget, BudgetLeft, ModeRule};
pub use config::{Config, ConfigError, LinkHours, SiteLimit};
pub use explain::{PlanDiff, diff, explain, show};
pub use feedback::Feedback;
pub use left_out::proposals;
pub use problem::{DemandLoad, NothingResident, Problem, Residency, RunningMove, WarmupDemand, WarmupFile};
pub use solve::{Proof, Solution, solve, solve_in_full};
pub use supply::{SharedChunks, SharedPiece, Supply};
