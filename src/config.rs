//! Configuration: TOML files, environment, flags; later beats earlier. Each room owns its `Config`; here they are
//! composed, and names and units that people write are parsed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foretide_collector::probe::Tier;
use foretide_flow::{
    BitsPerSecond, CacheSpec, Effect, Link, Mode, NodeId, Rule, Ruleset, Site, SiteId, Topology, Volume, VolumeId,
};
use foretide_transfer::Manners;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::tls::{ServerFiles, Trust};

/// Why a configuration was refused. Each message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        why: std::io::Error,
    },
    /// It is no TOML, or holds a key or value that nobody knows.
    #[error("configuration {}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        why: String,
    },
    /// It is well formed and cannot be meant.
    #[error("configuration {}: {why}", path.display())]
    Meaningless {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
}

/// What `foretide serve` reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Where the API and the dashboard listen.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Folder of the catalog, the lake and the first token.
    pub state: PathBuf,
    /// TLS of the API and the dashboard; without it, tokens pass in the clear.
    #[serde(default)]
    pub tls: Option<ServerFiles>,
    /// How nodes join by a token; they get their certificates by `foretide certify` if absent.
    #[serde(default)]
    pub join: Option<JoinConfig>,
    /// The catalog's database, as `postgres://…`; an SQLite file in `state` if absent.
    #[serde(default)]
    pub database: Option<String>,
    /// Sites by name.
    #[serde(default, rename = "site")]
    pub sites: BTreeMap<SiteId, SiteConfig>,
    /// Links between them.
    #[serde(default, rename = "link")]
    pub links: Vec<LinkConfig>,
    /// Volumes by name.
    #[serde(default, rename = "volume")]
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Borders.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// How far Foretide acts on its own forecasts.
    #[serde(default)]
    pub mode: Mode,
    /// The API's own.
    #[serde(default)]
    pub api: foretide_api::Config,
    /// The model's own.
    #[serde(default)]
    pub model: foretide_model::Config,
    /// The planner's own.
    #[serde(default)]
    pub planner: foretide_planner::Config,
}

/// What nodes are given that join.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Folder of the authority, as `foretide certify` made it. Who reads it can pass for any agent.
    pub authority: PathBuf,
    /// The token that all agents show to each other and to the control plane, with the scope `agent` alone; made in the
    /// state folder if absent. To be named where several control planes share a database: theirs is one.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7700))
}

/// A site as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    #[serde(default)]
    jurisdiction: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "optional_bytes")]
    cache: Option<u64>,
    #[serde(default)]
    accelerator_per_hour: f64,
}

/// A link as people write it; `both_ways` by default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    from: SiteId,
    to: SiteId,
    #[serde(deserialize_with = "rate")]
    rate: BitsPerSecond,
    #[serde(deserialize_with = "duration")]
    rtt: Duration,
    #[serde(default)]
    cost_per_gb: f64,
    #[serde(default = "yes")]
    both_ways: bool,
}

/// Rules in order; the first that matches decides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    #[serde(default = "allow")]
    default: Effect,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { default: Effect::Allow, rules: Vec::new() }
    }
}

fn allow() -> Effect {
    Effect::Allow
}

fn yes() -> bool {
    true
}

impl ServeConfig {
    /// The topology, checked.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn topology(&self) -> Result<Topology, String> {
        let site = |s: &SiteConfig| Site {
            jurisdiction: s.jurisdiction.clone(),
            labels: s.labels.clone(),
            cache: s.cache.map(|capacity_bytes| CacheSpec { capacity_bytes }),
            accelerator_per_hour: s.accelerator_per_hour,
        };
        let one_way = |l: &LinkConfig, from: &SiteId, to: &SiteId| Link {
            from: from.clone(),
            to: to.clone(),
            rate: l.rate,
            rtt_ms: l.rtt.as_secs_f64() * 1e3,
            cost_per_gb: l.cost_per_gb,
        };
        let links = self.links.iter().flat_map(|l| {
            let back = l.both_ways.then(|| one_way(l, &l.to, &l.from));
            std::iter::once(one_way(l, &l.from, &l.to)).chain(back)
        });
        let topology = Topology {
            sites: self.sites.iter().map(|(name, s)| (name.clone(), site(s))).collect(),
            links: links.collect(),
            volumes: self.volumes.clone(),
        };
        topology.check().map_err(|e| e.to_string())?;
        Ok(topology)
    }

    /// The rules, checked.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn ruleset(&self, topology: &Topology) -> Result<Ruleset, String> {
        Ruleset::new(self.policy.rules.clone(), self.policy.default, topology).map_err(|e| e.to_string())
    }
}

/// What `foretide agent` and `foretide mount` read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// This node's name; that of the host, unless the configuration says otherwise.
    #[serde(default = "named_like_the_host")]
    pub node: NodeId,
    /// The site that it stands at; the control plane must know it.
    pub site: SiteId,
    /// The control plane's address, such as `http://10.0.0.1:7700`.
    pub control: String,
    /// A file that holds the agent's token.
    pub token_file: PathBuf,
    /// Folder of the spool and the agent's socket.
    pub state: PathBuf,
    /// TLS between agents, without which what they give each other passes in the clear; and what this one shows to a
    /// control plane whose address is https, and whose authority must be the same.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Which volumes this node serves to others.
    #[serde(default)]
    pub source: Option<SourceConfig>,
    /// What this node keeps of others' volumes.
    #[serde(default)]
    pub cache: Option<CacheConfig>,
    /// Instead of a cache: volumes that this site mounts by itself, of which what will be read is brought into memory.
    #[serde(default)]
    pub in_place: Option<InPlaceConfig>,
    /// Whether reads are traced.
    #[serde(default)]
    pub trace: TraceConfig,
}

impl SourceConfig {
    /// How these sources are asked.
    pub fn manners(&self) -> Manners {
        Manners { rate: self.rate, tries: self.tries }
    }
}

impl AgentConfig {
    /// Whom the control plane's callers trust here, and what they show.
    pub fn trust(&self) -> Trust {
        let own = |tls: &TlsConfig| (tls.certificate.clone(), tls.key.clone());
        Trust {
            authorities: self.tls.as_ref().map(|tls| tls.authority.clone()).into(),
            own: self.tls.as_ref().map(own),
        }
    }
}

/// What a node is called that nobody gave a name.
pub fn named_like_the_host() -> NodeId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c) { c } else { '-' };
    let name: String = host.trim().to_ascii_lowercase().chars().take(63).map(allowed).collect();
    let fallback = || NodeId::new("node").expect("a name");
    NodeId::new(name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())).unwrap_or_else(|_| fallback())
}

/// What an agent shows to others: files in PEM format, made by `foretide certify` or brought along.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate of the authority that issued those of all agents.
    pub authority: PathBuf,
    /// This agent's own certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Volumes whose truth lies on this node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Where other agents fetch from.
    pub listen: SocketAddr,
    /// The address that others are told, if it is not the one listened on.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Folders by volume name.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeId, PathBuf>,
    /// Prefixes of object stores by volume name.
    #[serde(default)]
    pub buckets: BTreeMap<VolumeId, BucketConfig>,
    /// What is read of them for others, together no faster than this for each volume; as fast as it goes if absent.
    #[serde(default, deserialize_with = "optional_rate")]
    pub rate: Option<BitsPerSecond>,
    /// How often in all a folder is asked that fails in a way that may pass, such as one whose server starts anew. The
    /// client of object stores asks again by itself.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// Folders, and prefixes of object stores, that may become volumes, they and what is below them, when `foretide
    /// volume add` names them; none by default.
    #[serde(default)]
    pub offer: Vec<PathBuf>,
    /// The server's own.
    #[serde(default)]
    pub server: foretide_transfer::ServerConfig,
}

impl AgentConfig {
    /// Where this agent gives chunks to others, if it does: of its source volumes, and of what its cache holds.
    ///
    /// # Errors
    /// Two addresses: an agent has one.
    pub fn gives_at(&self) -> Result<Option<GivesAt>, String> {
        let cache = self.cache.as_ref().and_then(|cache| Some((cache, cache.listen?)));
        match (&self.source, cache) {
            (Some(_), Some(_)) => Err("source.listen and cache.listen: an agent gives at one address, and with \
                 [source] that one serves for the cache, too; remove cache.listen"
                .to_owned()),
            (Some(source), None) => Ok(Some(GivesAt::new(source.listen, &source.advertise, &source.server))),
            (None, Some((cache, listen))) => Ok(Some(GivesAt::new(listen, &cache.advertise, &cache.server))),
            (None, None) => Ok(None),
        }
    }
}

/// Where an agent gives chunks, and how.
#[derive(Debug)]
pub struct GivesAt {
    /// The address that others are told.
    pub address: String,
    /// The server's own.
    pub server: foretide_transfer::ServerConfig,
}

impl GivesAt {
    fn new(listen: SocketAddr, advertise: &Option<String>, server: &foretide_transfer::ServerConfig) -> Self {
        let address = advertise.clone().unwrap_or_else(|| listen.to_string());
        Self { address, server: foretide_transfer::ServerConfig { listen, ..server.clone() } }
    }
}

impl SourceConfig {
    /// The names of all volumes served.
    pub fn names(&self) -> impl Iterator<Item = &VolumeId> {
        self.volumes.keys().chain(self.buckets.keys())
    }
}

/// A prefix of an object store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub address: String,
    /// As the provider's environment variables, such as `aws_endpoint`; secrets are better left in the environment.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The chunk store and the mount in front of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Folder of the chunk store.
    pub path: PathBuf,
    /// Bytes it may hold, such as `200 GB`.
    #[serde(deserialize_with = "bytes")]
    pub capacity: u64,
    /// Where the namespace is mounted; nowhere if absent.
    #[serde(default)]
    pub mount: Option<PathBuf>,
    /// Where other agents are given what the cache holds; nowhere if absent, and where `source.listen` says if there is a
    /// `[source]`.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The address that others are told, if it is not the one listened on.
    #[serde(default)]
    pub advertise: Option<String>,
    /// The server's own.
    #[serde(default)]
    pub server: foretide_transfer::ServerConfig,
    /// A folder in which files that moves have brought lie as plain files, for sites that want no mount; none if
    /// absent. Needs as much room again as the store.
    #[serde(default)]
    pub hydrate: Option<PathBuf>,
    /// The mount's own.
    #[serde(default)]
    pub mounting: foretide_mount::Config,
    /// The mover's own.
    #[serde(default)]
    pub mover: foretide_transfer::MoverConfig,
    /// The store's own.
    #[serde(default)]
    pub store: foretide_chunk::Config,
}

/// Volumes that a site mounts by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InPlaceConfig {
    /// Bytes of this node's memory that may hold what was brought, such as `64 GB`; the control plane's configuration has the
    /// same for the site's cache.
    #[serde(deserialize_with = "bytes")]
    pub capacity: u64,
    /// Where each volume is seen here, such as `/nfs/vision`.
    pub volumes: BTreeMap<VolumeId, PathBuf>,
}

/// Tracing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Whether this node observes its processes.
    pub enabled: bool,
    /// How reads are seen: `full` or `light`.
    pub tier: Tier,
    /// Whether numbers that stand alone in command lines (seeds, steps) are told with a run's start.
    pub numbers: bool,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { enabled: true, tier: Tier::default(), numbers: true }
    }
}

/// Reads and parses a file.
///
/// # Errors
/// [`ConfigError`] naming the file, the line and the key.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|why| ConfigError::Unreadable { path: path.to_owned(), why })?;
    toml::from_str(&text)
        .map_err(|e| ConfigError::Malformed { path: path.to_owned(), why: e.to_string().trim_end().to_owned() })
}

/// Parses a rate such as `1Gbit`, `1 Gbit/s` or `10 Mbit`.
///
/// # Errors
/// What was expected.
pub fn parse_rate(text: &str) -> Result<BitsPerSecond, String> {
    let number = |t: &str| scaled(t, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)]);
    let lower = text.trim().to_ascii_lowercase();
    match number(lower.strip_suffix("/s").unwrap_or(&lower)) {
        Some(bits) if bits >= 1.0 => Ok(BitsPerSecond(bits as u64)),
        _ => Err(format!("{text:?} is no rate above 0: write for instance \"1 Gbit/s\" or \"200Mbit\"")),
    }
}

/// Parses a number of bytes such as `200 GB` (10^9) or `64 GiB` (2^30).
///
/// # Errors
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("tib", 1024f64.powi(4)),
        ("gib", 1024f64.powi(3)),
        ("mib", 1024f64.powi(2)),
        ("kib", 1024.0),
        ("tb", 1e12),
        ("gb", 1e9),
        ("mb", 1e6),
        ("kb", 1e3),
        ("b", 1.0),
        ("", 1.0),
    ];
    scaled(&text.trim().to_ascii_lowercase(), &units)
        .map(|b| b as u64)
        .ok_or_else(|| format!("{text:?} is no number of bytes: write for instance \"200 GB\" or \"64 GiB\""))
}

/// Parses a duration such as `150ms`, `30s` or `2h`.
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("min", 60.0), ("h", 3600.0), ("d", 86400.0), ("s", 1.0)];
    scaled(&text.trim().to_ascii_lowercase(), &units)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| format!("{text:?} is no duration: write for instance \"150ms\", \"30s\" or \"2h\""))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: f64 = text[..text.len() - unit.len()].trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

fn optional_rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<BitsPerSecond>, D::Error> {
    rate(d).map(Some)
}

fn default_tries() -> u32 {
    Manners::default().tries
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<BitsPerSecond, D::Error> {
    parse_rate(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    parse_bytes(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn optional_bytes<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    bytes(d).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_as_people_write_them() {
        assert_eq!(parse_rate("1Gbit"), Ok(BitsPerSecond(1_000_000_000)));
        assert_eq!(parse_rate("2.5 Mbit/s"), Ok(BitsPerSecond(2_500_000)));
        assert_eq!(parse_bytes("64 GiB"), Ok(64 << 30));
        assert_eq!(parse_bytes("200 GB"), Ok(200_000_000_000));
        assert_eq!(parse_duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "fast", "-1Gbit", "0Gbit", "1 GB"] {
            assert!(parse_rate(bad).unwrap_err().contains("1 Gbit/s"), "{bad}");
        }
        assert!(parse_bytes("-3 GB").is_err() && parse_duration("soon").is_err());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        std::fs::write(&path, "state = \"/tmp/x\"\nlisten_on = 1\n").unwrap();
        let told = read::<ServeConfig>(&path).unwrap_err().to_string();
        assert!(told.contains("serve.toml") && told.contains("line 2") && told.contains("listen_on"), "{told}");
    }

    #[test]
    fn an_agent_without_a_name_has_its_hosts() {
        let text = "site = \"s\"\ncontrol = \"http://c\"\ntoken_file = \"/t\"\nstate = \"/s\"\n";
        let agent: AgentConfig = toml::from_str(text).unwrap();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_ascii_lowercase();
        let kept = host.chars().filter(|c| c.is_ascii_alphanumeric()).all(|c| agent.node.as_str().contains(c));
        assert!(kept || host.len() > 63, "{} of {host}", agent.node);
    }

    #[test]
    fn an_agent_gives_at_one_address() {
        let agent = |more: &str| -> AgentConfig {
            let common = "node = \"n\"\nsite = \"s\"\ncontrol = \"http://c\"\ntoken_file = \"/t\"\nstate = \"/s\"\n";
            toml::from_str(&format!("{common}{more}")).unwrap()
        };
        let cache = "[cache]\npath = \"/c\"\ncapacity = \"1 GB\"\n";
        let gives = |more: &str| agent(more).gives_at().map(|at| at.map(|at| (at.address, at.server.listen.port())));
        assert_eq!(gives(cache), Ok(None));
        let source = "[source]\nlisten = \"0.0.0.0:7420\"\nadvertise = \"far:1\"\n";
        assert_eq!(gives(&format!("{cache}{source}")), Ok(Some(("far:1".to_owned(), 7420))));
        let listens = format!("{cache}listen = \"127.0.0.1:7421\"\n");
        assert_eq!(gives(&listens), Ok(Some(("127.0.0.1:7421".to_owned(), 7421))));
        assert!(gives(&format!("{listens}{source}")).unwrap_err().contains("remove cache.listen"));
    }

    #[test]
    fn a_topology_that_cannot_be_meant_is_refused() {
        let config: ServeConfig = toml::from_str(
            "state = \"/tmp/x\"\n[site.a]\n[[link]]\nfrom = \"a\"\nto = \"mars\"\nrate = \"1 Gbit/s\"\nrtt = \"1ms\"\n",
        )
        .unwrap();
        assert!(config.topology().unwrap_err().contains("mars"));
    }
}
