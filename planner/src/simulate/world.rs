//! Scenarios drawn from a seed, and the rounds of planning over them.

use std::collections::BTreeMap;

use foretide_flow::{
    BitsPerSecond, CacheSpec, Effect, FilePath, Forecast, Link, PredictedRead, Rule, Ruleset, Site, SiteId, TimeWindow,
    Timestamp, Topology, Volume, VolumeId,
};
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::site::SiteState;
use crate::{Brakes, Config, Problem, Residency, RunningMove, solve};

/// Between two plans, microseconds: coarser than the control plane's, so that plans are older when they are used.
const ROUND_US: i64 = 500_000;
/// Work that has not ended by then is given up, microseconds: links that stay cut must not hold a test for ever.
const END_US: i64 = 3_600_000_000;

/// Moves that an agent may have begun when its workload is muted, bytes.
const ON_ITS_WAY_BYTES: u64 = 64_000_000;

/// How good the forecasts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foresight {
    /// No forecasts: on-demand caching alone.
    None,
    /// The coming reads, at the right times.
    Right,
    /// Files, times and probabilities at random.
    Random,
    /// Surely, and at once: what is never read.
    Adversarial,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The link is cut from, until; seconds.
    pub cut_s: Option<(f64, f64)>,
    /// Part of its rate that the link has, from, until; seconds.
    pub slow: Option<(f64, f64, f64)>,
    /// The agent dies and comes back with an empty cache, seconds.
    pub agent_lost_s: Option<f64>,
    /// From then on, half of the files may not be at the site, seconds.
    pub revoked_s: Option<f64>,
}

/// One job, its link and its cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Bytes of each file.
    pub files: Vec<u64>,
    /// Files in the order in which they are read.
    pub reads: Vec<usize>,
    /// Computing before each read, microseconds.
    pub compute_us: i64,
    /// Bits a second of the link.
    pub rate: u64,
    /// Its round trip, milliseconds.
    pub rtt_ms: f64,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Prefetched bytes that may leave unread before prefetch is muted.
    pub waste_budget_bytes: u64,
    /// What goes wrong.
    pub faults: Faults,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Whether every read was done.
    pub finished: bool,
    /// Seconds that the job waited.
    pub stall_s: f64,
    /// Reads that did not wait.
    pub hits: u64,
    /// Reads that waited.
    pub misses: u64,
    /// Reads of what a rule forbids at the site: served from the source, never kept.
    pub uncached: u64,
    /// Bytes that crossed the link.
    pub link_bytes: u64,
    /// Prefetched bytes that left unread.
    pub wasted_bytes: u64,
    /// What broke, in words; empty if every invariant held.
    pub broken: Vec<String>,
}

impl Scenario {
    /// Draws a scenario: epochs over shuffled files, a cache that may be too small, faults now and then.
    pub fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let files: Vec<u64> = (0..rng.random_range(5..60)).map(|_| rng.random_range(10_000..4_000_000)).collect();
        let mut reads = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let mut epoch: Vec<usize> = (0..files.len()).collect();
            (1..epoch.len()).rev().for_each(|i| epoch.swap(i, rng.random_range(0..=i)));
            reads.extend(epoch);
        }
        let total: u64 = files.iter().sum();
        let maybe = |rng: &mut ChaCha8Rng| rng.random_bool(0.3);
        let from = rng.random_range(0.0..10.0);
        let faults = Faults {
            cut_s: maybe(&mut rng).then(|| (from, from + rng.random_range(0.5..20.0))),
            slow: maybe(&mut rng).then(|| (rng.random_range(0.05..1.0), from, from + rng.random_range(1.0..30.0))),
            agent_lost_s: maybe(&mut rng).then(|| rng.random_range(0.0..20.0)),
            revoked_s: maybe(&mut rng).then(|| rng.random_range(0.0..20.0)),
        };
        Self {
            reads,
            compute_us: rng.random_range(1_000..300_000),
            rate: rng.random_range(10..1_000) * 1_000_000,
            rtt_ms: rng.random_range(1.0..200.0),
            cache_bytes: (total as f64 * rng.random_range(0.2..2.0)) as u64,
            waste_budget_bytes: total / 2,
            faults,
            files,
        }
    }

    /// Most bytes that may turn out to be waste, bytes: the budget, and what is in the cache or on its way when it is
    /// spent.
    pub fn waste_limit_bytes(&self) -> u64 {
        self.waste_budget_bytes + self.cache_bytes + ON_ITS_WAY_BYTES
    }

    fn topology(&self) -> Result<(Topology, Names), foretide_flow::IdError> {
        let names = Names { store: SiteId::new("store")?, gpu: SiteId::new("gpu")?, volume: VolumeId::new("data")? };
        let place =
            |cache| Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache, accelerator_per_hour: 3.0 };
        let cache = Some(CacheSpec { capacity_bytes: self.cache_bytes });
        let link = Link {
            from: names.store.clone(),
            to: names.gpu.clone(),
            rate: BitsPerSecond(self.rate),
            rtt_ms: self.rtt_ms,
            cost_per_gb: 0.0,
        };
        let topology = Topology {
            sites: [(names.store.clone(), place(None)), (names.gpu.clone(), place(cache))].into(),
            links: vec![link],
            volumes: [(names.volume.clone(), Volume { at: names.store.clone(), tags: BTreeMap::new() })].into(),
        };
        Ok((topology, names))
    }
}

struct Names {
    store: SiteId,
    gpu: SiteId,
    volume: VolumeId,
}

/// Even files are public, odd ones can be revoked.
pub(super) fn path_of(file: usize) -> FilePath {
    let folder = if file.is_multiple_of(2) { "public" } else { "private" };
    FilePath::parse(&format!("{folder}/{file}")).unwrap_or_default()
}

pub(super) fn file_of(path: &FilePath) -> Option<usize> {
    std::str::from_utf8(path.name()).ok()?.parse().ok()
}

impl Residency for SiteState<'_> {
    fn resident_bytes(&self, _: &SiteId, _: &VolumeId, path: &FilePath, _: u64, length: u64) -> u64 {
        if file_of(path).is_some_and(|f| self.holds(f)) { length } else { 0 }
    }

    fn unevictable_bytes(&self, _: &SiteId) -> u64 {
        0
    }
}

/// Runs a scenario to its end. The same scenario, foresight and seed give the same report.
///
/// # Errors
/// None of the names that it makes is refused; the type says so all the same.
pub fn simulate(scenario: &Scenario, foresight: Foresight, seed: u64) -> Result<Report, foretide_flow::IdError> {
    let (topology, names) = scenario.topology()?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x51_4D);
    let mut site = SiteState::new(scenario);
    let config = Config::default();
    let mut previous = None;
    let mut now = 0;
    while now < END_US && !site.finished() {
        let revoked = scenario.faults.revoked_s.is_some_and(|at| now as f64 >= at * 1e6);
        let rules = rules(revoked, &topology);
        if revoked {
            site.evict_forbidden();
        }
        if foresight != Foresight::None {
            let forecasts = [foresee(scenario, foresight, &site, &names, now, &mut rng)];
            let mut brakes = Brakes::default();
            if site.report.wasted_bytes >= scenario.waste_budget_bytes {
                brakes.muted.insert("job".into(), "its waste budget is spent".into());
            }
            let running: Vec<RunningMove> = site.running();
            let problem = Problem {
                forecasts: &forecasts,
                warmups: &[],
                topology: &topology,
                rules: &rules,
                resident: &site,
                running: &running,
                demand: &[],
                brakes: &brakes,
                previous: previous.as_ref(),
                now: Timestamp(now),
                seed,
                config: &config,
            };
            let plan = solve(&problem);
            if plan != solve(&problem) {
                site.report.broken.push(format!("two plans of one problem at {now} us differ"));
            }
            site.assign(&plan);
            previous = Some(plan);
        }
        now += ROUND_US;
        site.advance(now);
        site.check(revoked);
    }
    Ok(site.close())
}

fn rules(revoked: bool, topology: &Topology) -> Ruleset {
    let deny = Rule {
        name: "revoked".into(),
        effect: Effect::Deny,
        volume: None,
        paths: Some("private/**".into()),
        tags: BTreeMap::new(),
        sites: vec![],
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    };
    let rules = if revoked { vec![deny] } else { vec![] };
    Ruleset::new(rules, Effect::Allow, topology).unwrap_or_default()
}

fn foresee(
    scenario: &Scenario,
    foresight: Foresight,
    site: &SiteState<'_>,
    names: &Names,
    now: i64,
    rng: &mut impl Rng,
) -> Forecast {
    let window = |from_us: i64| TimeWindow {
        p10: Timestamp(now + from_us),
        p50: Timestamp(now + from_us + 200_000),
        p90: Timestamp(now + from_us + 1_000_000),
    };
    let read = |file: usize, length: u64, probability: f64, from_us: i64| PredictedRead {
        path: path_of(file),
        offset: 0,
        length,
        probability,
        window: window(from_us),
    };
    let coming = site.coming();
    let reads = match foresight {
        Foresight::None => vec![],
        Foresight::Right => coming
            .iter()
            .take(64)
            .enumerate()
            .map(|(i, f)| read(*f, scenario.files[*f], 0.95, i as i64 * scenario.compute_us))
            .collect(),
        Foresight::Random => (0..rng.random_range(0..20))
            .map(|_| {
                let file = rng.random_range(0..scenario.files.len());
                read(file, scenario.files[file], rng.random_range(0.0..1.0), rng.random_range(0..60_000_000))
            })
            .collect(),
        // Files that the job never reads, under numbers beyond its own, a new set each round.
        Foresight::Adversarial => (0..20)
            .map(|i| read(scenario.files.len() + (now / ROUND_US) as usize * 20 + i, 1_000_000, 1.0, 0))
            .collect(),
    };
    Forecast {
        id: "f".into(),
        workload: "job".into(),
        run: None,
        site: names.gpu.clone(),
        volume: names.volume.clone(),
        made_at: Timestamp(now),
        expires_at: Timestamp(now + 60_000_000),
        forecaster: "simulated".into(),
        reason: format!("{foresight:?} foresight from {}", names.store),
        reads,
    }
}
