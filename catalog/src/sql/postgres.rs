//! PostgreSQL: for several `foretide serve` side by side, coordinated by it alone.
//!
//! Writers that draw a number of one list wait for each other at its row of `counters`, so lists grow in order of
//! commit. Work is taken with `FOR UPDATE SKIP LOCKED`: two takers never wait for, nor get, the same row.
//!
//! **Durable** means here what the server means by it: `synchronous_commit`, on as it comes.
//!
//! **News** of other processes comes by `LISTEN`: whoever commits notifies the channel with the topic's number, in the
//! same transaction, so nobody is woken before there is something to see. When the connection that listens was lost,
//! everybody is woken once, to look for what they may have missed.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool};

use super::engine::Engine;
use super::{SqlCatalog, migration_failed, migrator};
use crate::topics::Topics;
use crate::{Catalog, CatalogError, Result, Topic};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[
        ("catalog", include_str!("../../migrations/postgres/0001_catalog.sql")),
        ("shared", include_str!("../../migrations/postgres/0002_shared.sql")),
    ])
});

/// Where the catalog is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: String,
    /// Connections at most.
    #[serde(default = "connections")]
    pub connections: u32,
}

/// Long polls hold no connection; the server's own limit is 100 for all replicas.
fn connections() -> u32 {
    16
}

impl PostgresConfig {
    /// That database, all else as usual.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), connections: connections() }
    }
}

/// Callers beyond the pool wait that long, then are told that the catalog is not available.
const ACQUIRE_MS: u64 = 30_000;
/// Between attempts to listen again.
const LISTEN_AGAIN_MS: u64 = 500;
/// The channel of our notifications.
pub(super) const CHANNEL: &str = "foretide_catalog";

/// Connections to the server.
pub(super) struct Store {
    pub(super) pool: PgPool,
    pub(super) place: Arc<Path>,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Opens the catalog in a database, making or upgrading its tables.
///
/// # Errors
/// `Unusable`, naming the server and the remedy, if the URL is none, the server cannot be reached or refuses, or the
/// tables were written by a newer version.
pub async fn open_postgres(config: &PostgresConfig) -> Result<Arc<dyn Catalog>> {
    let unusable = |place: &Path, why: String, remedy: &str| CatalogError::Unusable {
        place: place.to_path_buf(),
        why,
        remedy: remedy.into(),
    };
    let options = PgConnectOptions::from_str(&config.url).map_err(|e| {
        unusable(Path::new("postgres"), format!("its url is none: {e}"), "write postgres://USER@HOST:PORT/DATABASE")
    })?;
    let place: Arc<Path> = PathBuf::from(format!(
        "postgres://{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    ))
    .into();
    let remedy = "see that the server is up, the database is there, and user and password are right";
    // Once without the pool, which would try again and again what is refused.
    options.connect().await.map_err(|e| unusable(&place, e.to_string(), remedy))?;
    let pool = PgPoolOptions::new()
        .max_connections(config.connections.max(2))
        .acquire_timeout(Duration::from_millis(ACQUIRE_MS))
        .connect_lazy_with(options);
    MIGRATIONS.run(&pool).await.map_err(|e| match e {
        MigrateError::Execute(e) => unusable(&place, e.to_string(), remedy),
        e => migration_failed(&place, &MIGRATIONS, &e),
    })?;
    let cannot_listen = |e: sqlx::Error| unusable(&place, e.to_string(), remedy);
    let mut news = PgListener::connect_with(&pool).await.map_err(cannot_listen)?;
    news.listen(CHANNEL).await.map_err(cannot_listen)?;
    let topics = Arc::new(Topics::new());
    let listener = tokio::spawn(listen(news, topics.clone()));
    Ok(SqlCatalog::shared(Engine::Postgres(Store { pool, place, listener }), topics))
}

/// Wakes who waits here when another process has news.
async fn listen(mut news: PgListener, topics: Arc<Topics>) {
    loop {
        match news.try_recv().await {
            Ok(Some(told)) => {
                let topic = told.payload().parse::<usize>().ok().and_then(|i| Topic::ALL.get(i));
                topic.into_iter().for_each(|t| topics.tell(*t));
                continue;
            }
            // The connection was lost and the next call makes it anew.
            Ok(None) => {}
            Err(e) => {
                tracing::warn!(error = %e, "news of other replicas is interrupted; listening again");
                tokio::time::sleep(Duration::from_millis(LISTEN_AGAIN_MS)).await;
            }
        }
        Topic::ALL.iter().for_each(|t| topics.tell(*t));
    }
}
