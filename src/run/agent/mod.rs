//! `foretide agent`: what one node does. It serves the volumes whose truth is here, keeps the cache and the mount,
//! observes who reads what, and talks to the control plane, which it dials and which never dials it.
//!
//! The parts go on when the control plane is gone (promise A): what it said last is kept in the state folder, so
//! that an agent that starts without it knows its peers and its rules.

mod attribution;
mod cache;
mod changes;
mod hydrate;
mod in_place;
mod install;
pub mod local;
mod observe;
mod origin;
mod pages;
mod privilege;
mod serve;
mod ship;
mod talk;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use foretide_api::Welcome;
use foretide_chunk::{DomainKey, Store};
use foretide_collector::{Collector, WatchedVolume};
use foretide_flow::{Timestamp, VolumeId};
use foretide_mount::MountHandle;
use foretide_transfer::{Borders, Bucket, Credentials, Identity, Issued, LocalDirectory, Server, Source, Tls, Token};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::attribution::Shared;
use self::cache::{Cache, OUTCOMES_QUEUED};
use self::in_place::InPlace;
use self::local::LocalCache;
use self::pages::Pages;
use self::serve::Served;
use self::ship::Held;
use self::talk::{PASSES_AFTER_CHANGE, Talk, hello_of, ruleset, welcomed};
use super::RunError;
use crate::client::ControlClient;
use crate::config::{self, AgentConfig, GivesAt, TlsConfig};

/// Listings between those who learn them and those who send them.
const LISTINGS_WAITING: usize = 1 << 14;

/// Options of `foretide agent`.
#[derive(Args, Debug)]
pub struct Options {
    /// Configuration file.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/agent.toml")]
    config: PathBuf,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Write and start a systemd unit that runs this agent.
    Install(install::Options),
    /// Stop it, and remove the unit and the agent's state.
    Uninstall(install::Options),
}

impl Options {
    /// Gives up what the agent's configuration does not need of root's power. Call it before any thread begins.
    ///
    /// # Errors
    /// A configuration that cannot be meant, or a kernel that refuses.
    pub fn give_up_power(&self) -> Result<(), RunError> {
        match self.what {
            None => privilege::keep_what_is_needed(&config::read(&self.config)?),
            Some(_) => Ok(()),
        }
    }
}

/// Which of the configured parts are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Serve source volumes.
    pub source: bool,
    /// Observe.
    pub trace: bool,
}

/// Runs until a signal.
///
/// # Errors
/// A configuration that cannot be meant, a folder that cannot be used, a port or mount point that is taken.
pub async fn run(options: Options) -> Result<(), RunError> {
    match options.what {
        Some(What::Install(install)) => install::install(&install, &options.config),
        Some(What::Uninstall(install)) => install::uninstall(&install),
        None => run_parts(config::read(&options.config)?, Parts { source: true, trace: true }).await,
    }
}

/// Runs the wanted parts until a signal.
///
/// # Errors
/// As [`run`].
pub async fn run_parts(mut config: AgentConfig, parts: Parts) -> Result<(), RunError> {
    fs::create_dir_all(&config.state).map_err(|e| named(&config.state, e))?;
    if !parts.source {
        config.source = None;
    }
    config.trace.enabled &= parts.trace;
    // Who is told to end while it starts takes its mount away, too.
    let mut ended = std::pin::pin!(super::until_signal());
    let agent = tokio::select! {
        agent = Agent::start(&config) => agent?,
        () = &mut ended => return Ok(()),
    };
    if !privilege::mounts_by_helper(&config)? {
        privilege::lock()?;
    }
    super::notify::ready();
    ended.await;
    agent.stop();
    Ok(())
}

fn named(path: &Path, e: std::io::Error) -> RunError {
    RunError::Io(std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// The running parts.
struct Agent {
    mount: Option<MountHandle>,
    store: Option<Arc<Store>>,
    tasks: JoinSet<()>,
}

impl Agent {
    async fn start(config: &AgentConfig) -> Result<Self, RunError> {
        check(config)?;
        let control = ControlClient::new(&config.control, config.token_file.clone(), &config.trust())?;
        let gives_at = config.gives_at().map_err(RunError::Told)?;
        let hello = hello_of(config, gives_at.as_ref());
        let welcome = welcomed(&control, &hello, &config.state).await?;
        let credentials = credentials(config)?;
        let borders = Borders::new(ruleset(&welcome)?, welcome.topology.clone());
        let (attribution, mut tasks) = (Shared::default(), JoinSet::new());
        let (learned, to_tell) = mpsc::channel(LISTINGS_WAITING);
        let (census, counted) = watch::channel(Vec::new());

        let server = match gives_at {
            Some(at) => Some(start_server(config, at, credentials.clone(), &borders).await?),
            None => None,
        };
        let mut cache = match &config.cache {
            Some(cache) => {
                Some(Cache::start(config, cache, &welcome, &borders, credentials, learned.clone(), &mut tasks)?)
            }
            None => None,
        };
        if let (Some(server), Some(cache)) = (&server, &cache) {
            server.pass_on(Arc::clone(&cache.mover));
        }
        let mut watched = own_volumes(config);
        let told = sources_among(&watched, config, &welcome);
        if let Some(changes) = Some(&told).filter(|w| !w.is_empty()).and_then(|w| changes::start(w)) {
            let (sources, learned) = (sources(config)?, learned.clone());
            tasks.spawn_blocking(move || changes::tell(changes, &sources, &learned));
        }
        watched.extend(cache.iter().flat_map(|c| c.watched(&welcome)));
        watched.extend(config.in_place.iter().flat_map(|site| watch_all(&site.volumes)));
        let events = cache.as_mut().and_then(|c| c.events.take());
        let collector = match config.trace.enabled {
            true => observe::start(config, watched, events, &control, &attribution, &mut tasks)?,
            false => None,
        };
        tasks.spawn(ship::listings(control.clone(), config.node.clone(), to_tell));
        if let Some(server) = &server {
            tasks.spawn(ship::shared(control.clone(), config.node.clone(), server.sharing()));
        }
        let (mut mount, mut store, mut mover, mut hydrator, mut in_place) = (None, None, None, None, None);
        let mut held = None;
        if let Some(cache) = cache {
            held = Some((Held::Store(Arc::clone(&cache.store)), cache.happened));
            (mount, store, mover) = (cache.mount, Some(cache.store), Some(cache.mover));
            hydrator = cache.hydrator;
        }
        if let Some(site) = &config.in_place {
            let (outcomes, happened) = mpsc::channel(OUTCOMES_QUEUED);
            let pages = InPlace::start(site, config.site.clone(), Arc::clone(&borders), outcomes)?;
            tasks.spawn(Arc::clone(&pages).run());
            tasks.spawn(Arc::clone(&pages).watch());
            held = Some((Held::InPlace(Arc::clone(&pages)), happened));
            in_place = Some(pages);
        }
        if let Some((held, happened)) = held {
            tasks.spawn(
                ship::Outcomes {
                    control: control.clone(),
                    node: config.node.clone(),
                    site: config.site.clone(),
                    held,
                    happened,
                    attribution: Arc::clone(&attribution),
                    census: counted,
                    pinned: Default::default(),
                    sequence: welcome.next.outcomes,
                }
                .run(),
            );
        }
        let hints = mount.as_ref().map(MountHandle::hints);
        let pages = hints.clone().map(|hints| Pages::start(hints, &mut tasks));
        let local = mover.clone().map(|mover| LocalCache { mover, hints: hints.clone() });
        tasks.spawn(serve_local(config.state.clone(), local, collector));
        tasks.spawn(
            Talk {
                control,
                hello,
                state: config.state.clone(),
                borders,
                mover,
                hydrator,
                in_place,
                hints,
                pages,
                seen: HashSet::new(),
                unsettled: PASSES_AFTER_CHANGE,
                upheld_at: Timestamp::now(),
                served: Served::start(sources(config)?, config, server),
                learned,
                census,
            }
            .run(),
        );
        tracing::info!(node = %config.node, site = %config.site, "the agent is up");
        Ok(Self { mount, store, tasks })
    }

    /// The tasks first, the mount next, the store last: what stands on another ends before it.
    fn stop(mut self) {
        self.tasks.abort_all();
        if let Some(mount) = self.mount.take()
            && let Err(error) = mount.unmount()
        {
            tracing::warn!(%error, "the mount is still in use");
        }
        if let Some(store) = &self.store
            && let Err(error) = store.checkpoint()
        {
            tracing::warn!(%error, "no last checkpoint: the newest content is verified again at the next start");
        }
    }
}

fn check(config: &AgentConfig) -> Result<(), RunError> {
    if config.cache.is_some() && config.in_place.is_some() {
        return Err(RunError::Told(
            "cache and in_place: an agent keeps bytes in a store or warms those that its site mounts by itself; remove one"
                .into(),
        ));
    }
    for (name, root) in config.source.iter().flat_map(|s| &s.volumes) {
        fs::read_dir(root).map_err(|e| {
            RunError::Told(format!("volume {name}: {}: {e}; correct source.volumes.{name}", root.display()))
        })?;
    }
    Ok(())
}

/// What this agent shows to others.
///
/// # Errors
/// Files that cannot be read, or are not what they should be.
pub(super) fn credentials(config: &AgentConfig) -> Result<Credentials, RunError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| named(path, e));
    let token = Token::new(read(&config.token_file)?.trim());
    let Some(TlsConfig { authority, certificate, key }) = &config.tls else { return Ok(token.into()) };
    let own = Issued { certificate_pem: read(certificate)?, key_pem: read(key)? };
    let identity = Identity { site: config.site.clone(), node: config.node.clone() };
    Ok(Credentials::with_tls(token, Tls::new(&read(authority)?, &own, &identity)?))
}

async fn start_server(
    config: &AgentConfig,
    at: GivesAt,
    credentials: Credentials,
    borders: &Arc<Borders>,
) -> Result<Server, RunError> {
    let (volumes, borders) = (opened(config)?, Arc::clone(borders));
    let server = Server::start(at.server, DomainKey::default(), credentials, volumes, borders).await?;
    server.stands_at(config.site.clone());
    Ok(server)
}

/// The own volumes once more, for telling the control plane what their directories hold.
fn sources(config: &AgentConfig) -> Result<HashMap<VolumeId, Arc<dyn Source>>, RunError> {
    Ok(opened(config)?.into_iter().map(|(name, source)| (name, Arc::from(source))).collect())
}

/// Volumes by name, each with what it is read from.
type Volumes = Vec<(VolumeId, Box<dyn Source>)>;

/// The own volumes, each asked as the configuration has it.
fn opened(config: &AgentConfig) -> Result<Volumes, RunError> {
    let mut volumes = Volumes::new();
    let Some(source) = &config.source else { return Ok(volumes) };
    for (name, root) in &source.volumes {
        volumes.push((name.clone(), source.manners().wrap(Box::new(LocalDirectory::open(root)?))));
    }
    for (name, bucket) in &source.buckets {
        let bucket = Bucket::open(&bucket.address, &bucket.options)?;
        volumes.push((name.clone(), source.manners().paced(Box::new(bucket))));
    }
    Ok(volumes)
}

fn own_volumes(config: &AgentConfig) -> Vec<WatchedVolume> {
    config.source.iter().flat_map(|source| watch_all(&source.volumes)).collect()
}

/// Those whose source is here: what changes in a copy is no news of its volume.
fn sources_among(watched: &[WatchedVolume], config: &AgentConfig, welcome: &Welcome) -> Vec<WatchedVolume> {
    let at = |w: &WatchedVolume| welcome.topology.volumes.get(&w.volume).map(|volume| &volume.at);
    watched.iter().filter(|w| at(w) == Some(&config.site)).cloned().collect()
}

fn watch_all(volumes: &BTreeMap<VolumeId, PathBuf>) -> impl Iterator<Item = WatchedVolume> {
    volumes.iter().map(|(volume, root)| WatchedVolume { volume: volume.clone(), root: root.clone() })
}

async fn serve_local(state: PathBuf, cache: Option<LocalCache>, collector: Option<Arc<Collector>>) {
    if let Err(error) = local::serve(&state, cache, collector).await {
        tracing::error!(%error, "`foretide cache` cannot reach this agent");
    }
}
