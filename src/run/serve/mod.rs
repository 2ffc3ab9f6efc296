//! `foretide serve`: the control plane. The API takes and shows, the ring turns, the catalog remembers.

mod advise;
mod courier;
mod in_force;
mod joining;
mod lake;
mod listen;
mod recordings;
mod relearn;
mod residency;
mod ring;
mod sharing;
mod standing;
mod suppliers;
mod warmups;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use foretide_api::{Api, Certifier, Listener, Oidc, Ports};
use foretide_catalog::{Catalog, ResidentFile, Topic};
use foretide_flow::{Forecast, Listing, OutcomeBatch, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::advise::Planner;
pub use self::advise::shown;
use self::courier::{HttpCourier, HttpReader};
use self::joining::SiteAuthority;
use self::lake::Lake;
use self::recordings::Recorded;
use self::ring::{NEWS_WAITING, News, Ring};
pub use self::ring::{RingError, is_replaced};
use self::standing::{Standing, Standings};
use self::suppliers::Suppliers;
use super::RunError;
use crate::config::{self, ConfigError, ServeConfig};
use crate::tls;

/// How long the API and the ring may take to end.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);

/// Folder of the lake in the state folder.
const LAKE: &str = "lake";

/// Options of `foretide serve`.
#[derive(Args, Debug)]
pub struct Options {
    /// Configuration file.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/serve.toml")]
    config: PathBuf,
    /// Listen here instead of where the configuration says.
    #[arg(long, env = "FORETIDE_LISTEN")]
    listen: Option<SocketAddr>,
}

/// Passes on to the ring what agents reported.
struct ToRing(mpsc::Sender<News>);

#[async_trait::async_trait]
impl Listener for ToRing {
    async fn listings(&self, listings: Vec<Listing>) {
        self.tell(News::Listings(listings)).await;
    }
    async fn outcomes(&self, batch: OutcomeBatch, resident: Vec<ResidentFile>) {
        self.tell(News::Outcomes(batch, resident)).await;
    }
    async fn announced(&self, forecast: Forecast) {
        self.tell(News::Announced(forecast)).await;
    }
}

impl ToRing {
    async fn tell(&self, news: News) {
        if self.0.send(news).await.is_err() {
            tracing::error!("the ring has ended; what was reported is written down and will be read at the next start");
        }
    }
}

/// Runs until a signal.
///
/// # Errors
/// A configuration that cannot be meant, a port that is taken, a catalog that cannot be opened.
pub async fn run(options: Options) -> Result<(), RunError> {
    let config: ServeConfig = config::read(&options.config)?;
    let standing = Standing::of(&config, &options.config)?;
    if let Some(oidc) = &config.api.oidc {
        let meaningless =
            |why| ConfigError::Meaningless { path: options.config.clone(), why: format!("api.oidc: {why}") };
        oidc.check().map_err(meaningless)?;
    }
    let tls = config.tls.as_ref().map(tls::server).transpose()?;
    let listen = options.listen.unwrap_or(config.listen);
    if tls.is_none() && !listen.ip().is_loopback() {
        tracing::warn!(%listen, "tokens pass in the clear: `foretide certify --host` makes what [tls] needs");
    }
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|e| {
        io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}; choose another with `listen` or --listen"))
    })?;
    fs::create_dir_all(&config.state)
        .map_err(|e| io::Error::new(e.kind(), format!("state folder {}: {e}", config.state.display())))?;
    let catalog = open_catalog(&config).await?;
    write_first_token(catalog.as_ref(), &config.state).await?;
    let authority = SiteAuthority::open(&config, catalog.as_ref()).await?;

    let (news, heard) = mpsc::channel(NEWS_WAITING);
    let lake = Lake::open(config.state.join(LAKE), Arc::clone(&catalog), news.clone())?;
    let added = foretide_api::added_volumes(catalog.as_ref()).await?;
    let standings = Standings::new(standing, added);
    let gone_after = Duration::from_secs(config.api.agent_gone_after_s);
    let suppliers = Suppliers::new(catalog.changes(Topic::Fleet), gone_after);
    let (catalog_too, lake_too, model) = (Arc::clone(&catalog), config.state.join(LAKE), config.model.clone());
    let ring = Ring::new(catalog_too, standings.listen(), model, suppliers, lake_too, heard).await?;
    let (stop, stopped) = watch::channel(false);
    let recordings = Recorded::new(config.state.join(LAKE), standings.listen(), config.model.clone());
    let adviser = Planner::new(Arc::clone(&catalog), standings.listen(), gone_after);
    let mut heeding = JoinSet::new();
    heeding.spawn(Arc::clone(&standings).heed_settings(Arc::clone(&catalog)));
    heeding.spawn(Arc::clone(&standings).reload_when_told(options.config.clone(), Arc::clone(&catalog)));
    let ports = Ports {
        directory: standings,
        accesses: Arc::new(lake),
        listener: Arc::new(ToRing(news)),
        adviser: Arc::new(adviser),
        recordings: Arc::new(recordings),
        courier: Arc::new(HttpCourier::new()?),
        reader: Arc::new(HttpReader::new()?),
        certifier: authority.map(|authority| Arc::new(authority) as Arc<dyn Certifier>),
    };
    let agents_show_certificates = config.tls.as_ref().is_some_and(|tls| tls.authority.is_some());
    let api_config = foretide_api::Config { agents_show_certificates, ..config.api.clone() };
    let api = Api::new(api_config, Arc::clone(&catalog), ports, stopped.clone());
    let mut turning = turn_on_own_thread(ring);
    let chores = tokio::spawn(foretide_api::keep_house(api.clone()));
    let issuer = config.api.oidc.as_ref().and_then(Oidc::page_asks);
    let app = foretide_api::router(api).merge(foretide_dashboards::router(issuer));
    tracing::info!(%listen, tls = tls.is_some(), state = %config.state.display(), "the control plane is up");
    let serving = listen::serve(listener, tls, app, stopped)?;
    tokio::select! {
        () = super::until_told_to_end() => {}
        ended = &mut turning => {
            stop.send_replace(true);
            let why = ended.map_or("its thread panicked".to_owned(), |r| r.err().map_or(String::new(), |e| e.to_string()));
            return Err(RunError::Told(format!("the planning loop ended: {why}")));
        }
    }
    stop.send_replace(true);
    heeding.abort_all();
    // The API holds the senders of news: once it has ended, the ring writes the model down and ends too.
    let _ = tokio::time::timeout(PATIENCE_AT_END, async { tokio::join!(serving, chores) }).await;
    match tokio::time::timeout(PATIENCE_AT_END, turning).await {
        Ok(Ok(ended)) => Ok(ended?),
        _ => {
            Err(RunError::Told("the planning loop did not end in time; the model's last snapshot is older".to_owned()))
        }
    }
}

/// The ring computes for tens of milliseconds at a time, so it has a thread of its own.
fn turn_on_own_thread(ring: Ring) -> tokio::sync::oneshot::Receiver<Result<(), RingError>> {
    let (ended, end) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        let result = runtime.block_on(ring.turn());
        let _ = ended.send(result);
    });
    end
}

async fn open_catalog(config: &ServeConfig) -> Result<Arc<dyn Catalog>, RunError> {
    let own = || config.state.join("catalog.sqlite").display().to_string();
    let database = config.database.clone().unwrap_or_else(own);
    Ok(foretide_catalog::open(&database).await?)
}

/// The first token is written where only this user reads it.
async fn write_first_token(catalog: &dyn Catalog, state: &Path) -> Result<(), RunError> {
    if let Some(secret) = foretide_api::first_token(catalog, Timestamp::now()).await? {
        let path = state.join("token");
        write_secret(&path, &secret)?;
        tracing::info!(token = %path.display(), "the first token is in this file");
    }
    Ok(())
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, secret.as_bytes())?;
    file.sync_all()
}
