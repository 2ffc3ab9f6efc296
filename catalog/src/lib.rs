//! What is written down: namespace, manifests, agents, runs, profiles, forecasts, plans, outcomes, warm-ups.
//!
//! [`Catalog`] is one trait in domain words, cut into seven facets so that each fits on a page: [`Namespace`],
//! [`Fleet`], [`Learned`], [`Plans`], [`Outcomes`], [`Warmups`], [`House`]. Values of `foretide-flow` go in and
//! come out; no type of a database is in any signature. There are three ways of keeping it:
//!
//! - [`in_memory`]: maps under one lock. For tests of other rooms, and the plain model that the conformance suite
//!   compares the other two with.
//! - SQLite: one file, write-ahead log, one writer and several readers. The default.
//! - PostgreSQL: for several `foretide serve` side by side.
//!
//! What all three promise:
//! - A call that returned `Ok` is durable (promise E): it survives `kill -9` of this process at any later moment.
//!   Each call is one transaction: it happened wholly or not at all.
//! - A batch that comes twice counts once; it is known by its node and sequence.
//! - Everything that grows is bounded (promise K): [`limits`] has each bound by name, and says what goes first.
//! - What is dropped or refused is counted (promise J).
//! - Nothing here reads a clock: every moment is an argument or part of a value.
//!
//! Waiting: no call waits for news. Who wants news takes [`House::changes`] before it looks, looks, and waits for
//! the next change if it saw nothing; so no change falls between.

mod codec;
mod error;
mod extents;
mod fleet;
mod house;
mod learned;
pub mod limits;
mod memory;
mod namespace;
mod outcomes;
mod plans;
mod progress;
mod sql;
mod topics;
mod warmups;

pub use error::CatalogError;
pub use fleet::{Agent, Fleet, NextSequences, NodeLosses, Recorded, Run, RunFilter};
pub use house::{AuditEntry, AuditRecord, Event, House, Token};
pub use learned::{ForecastFilter, Learned, ModelSnapshot};
pub use memory::in_memory;
pub use namespace::{Changed, FileQuery, FoundFile, FoundPage, Namespace, SharedRecord, Totals};
pub use outcomes::{Outcomes, OutcomesRecorded, ReadFilter, RefusalRecord, ResidentFile, SiteStatus};
pub use plans::{MoveChanges, MoveFilter, MoveRecord, PlanChange, PlanSummary, Plans};
pub use sql::{PostgresConfig, SqliteConfig, open_postgres, open_sqlite};
pub use topics::Topic;
pub use warmups::{NewTerms, WarmupFilter, WarmupTaken, WarmupUpdate, Warmups};

/// What every call answers.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Everything that is written down. Call it as `Arc<dyn Catalog>`: the facets' methods are its own.
pub trait Catalog: Namespace + Fleet + Learned + Plans + Outcomes + Warmups + House {}

impl<T: Namespace + Fleet + Learned + Plans + Outcomes + Warmups + House> Catalog for T {}

/// Opens what `database` names, all else as usual: `postgres://…`, or the path of an SQLite file.
///
/// # Errors
/// As [`open_postgres`] and [`open_sqlite`].
pub async fn open(database: &str) -> Result<std::sync::Arc<dyn Catalog>> {
    if database.starts_with("postgres://") || database.starts_with("postgresql://") {
        open_postgres(&PostgresConfig::at(database)).await
    } else {
        open_sqlite(&SqliteConfig::at(database)).await
    }
}

/// Part of a list, and where the rest begins.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Page<T> {
    /// Newest first, unless the call says otherwise.
    pub items: Vec<T>,
    /// Hand this back as `cursor` for what comes after; none at the end.
    pub next: Option<u64>,
}
