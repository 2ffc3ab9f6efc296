//! What agents, schedulers and the dashboard call.
//!
//! The API shows and takes what is written down in the [`Catalog`], and runs no model, planner or mover. Where an
//! answer needs another room it asks a port ([`Ports`]) that the binary plugs in. A handler
//! only translates: it checks what came in, makes one or two calls of the catalog, and shapes the answer. All else
//! stands once, in its own file:
//!
//! - `auth`: tokens, scopes, and the guard that hangs before every route; `people`: tokens of an OpenID Connect issuer;
//!   `tenant`: what a caller sees; `pace`: how often one token may ask.
//! - `extract`: from a request to values; `problem`: from an error to HTTP, as problem+json.
//! - `sampler`: which order PyTorch's samplers give, drawn again from their parameters.
//! - `selection`: which data a caller means; `wanted`: what is asked for, and which of it can never be; `eta`: how true
//!   the plan's times turn out.
//! - `webhooks`: events carried to those who do not listen; `chores`: what is done without being asked.
//! - `wait`: long polls. A handler takes the catalog's change counter, looks, and waits for the counter only if
//!   what it saw is what the caller has already.
//! - `events`: the event stream. One tail of recent events is shared by all listeners, so a listener costs a
//!   cursor, however slow it is, and one change costs one read of the catalog, however many listen.
//! - `document`: the OpenAPI document, collected from the routes themselves, so that it cannot drift from them.
//!
//! Every moment on the wire is in microseconds since 1970-01-01 UTC, as in `foretide-flow`.

mod auth;
mod chores;
mod config;
mod document;
mod error;
mod eta;
mod events;
mod extract;
mod fleet;
mod metrics;
mod offered;
mod pace;
mod people;
mod ports;
mod problem;
mod routes;
mod sampler;
mod selection;
mod tenant;
mod wait;
mod wanted;
mod webhooks;

use std::sync::Arc;

use foretide_catalog::Catalog;
use tokio::sync::watch;

pub use auth::{Connection, FIRST_TOKEN, Scope, first_token, mint, mint_for};
pub use chores::keep_house;
pub use config::Config;
pub use document::openapi;
pub use eta::WarmupView;
pub use events::{EventView, Told, tell};
pub use metrics::Metrics;
pub use offered::is_below;
pub use people::{Grant, Oidc, PageClient, ShownToken, SignIn};
pub use ports::{
    Accepted, AccessSink, Advice, Adviser, Certifier, Courier, Directory, FilesRead, Listener, MoveChange, NotReplayed,
    Papers, PlanChanges, Ports, Question, Reader, Recordings, Rejected, Replayed, SiteAdvice, Way, WhatIf, digest_of,
};
pub use problem::{PROBLEM_JSON, Problem};
pub use routes::agent::{
    Assigned, BatchTaken, Hello, Listings, ListingsTaken, NextNumbers, Peer, SharedFiles, ToServe, Welcome,
};
pub use routes::files::{FileView, Files, HeldAt, SiteCopy, Tagging, Whereabouts};
pub use routes::fleet::{AgentView, ModeChoice, ModeView, RefusalView, SiteView, Sites, Switch, mode_in_force};
pub use routes::house::{AuditView, Health, Me, TokenMade, TokenView, TokenWanted, Tokens, WaysIn};
pub use routes::joining::{JoinMade, JoinRequest, JoinWanted, Joined};
pub use routes::learned::RunView;
pub use routes::orders::{Announced, Dataset, OrderWanted};
pub use routes::placement::AdviceWanted;
pub use routes::plans::{Approval, MoveView, PlanLine, Proposals};
pub use routes::policy::{Policy, SiteVerdict};
pub use routes::volumes::{AddedVolume, CopyView, VolumeList, VolumeView, VolumeWanted, added_volumes};
pub use routes::whatif::WhatIfWanted;
pub use routes::{List, router};
pub use sampler::{Sampler, SamplerKind};
pub use wanted::{WarmupChange, WarmupWanted};

/// Everything that handlers need. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    catalog: Arc<dyn Catalog>,
    directory: Arc<dyn Directory>,
    accesses: Arc<dyn AccessSink>,
    listener: Arc<dyn Listener>,
    adviser: Arc<dyn Adviser>,
    recordings: Arc<dyn Recordings>,
    courier: Arc<dyn Courier>,
    certifier: Option<Arc<dyn Certifier>>,
    config: Arc<Config>,
    calibration: Arc<eta::Calibration>,
    hooks: Arc<webhooks::Register>,
    metrics: Arc<Metrics>,
    events: Arc<events::Tail>,
    census: Arc<routes::agent::CensusLists>,
    pace: Arc<pace::Pace>,
    people: Option<Arc<people::People>>,
    /// One volume is added at a time: the setting is read, changed and written.
    adding: Arc<tokio::sync::Mutex<()>>,
    stop: watch::Receiver<bool>,
}

impl Api {
    /// Composes the API. When `stop` becomes true (or its sender is gone), long polls and event streams end, so that
    /// a server can shut down.
    pub fn new(config: Config, catalog: Arc<dyn Catalog>, ports: Ports, stop: watch::Receiver<bool>) -> Self {
        let Ports { directory, accesses, listener, adviser, recordings, courier, reader, certifier } = ports;
        Self {
            calibration: Arc::default(),
            hooks: Arc::new(webhooks::Register::new(Arc::clone(&catalog))),
            events: Arc::new(events::Tail::new(Arc::clone(&catalog), &config)),
            census: Arc::default(),
            pace: Arc::new(pace::Pace::new(&config)),
            people: config.oidc.clone().map(|oidc| Arc::new(people::People::new(oidc, reader))),
            adding: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            config: Arc::new(config),
            catalog,
            directory,
            accesses,
            listener,
            adviser,
            recordings,
            courier,
            certifier,
            stop,
        }
    }

    /// The counters that `/metrics` shows, for others to add theirs.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
