//! Worlds and foresight drawn from a seed.

use std::collections::BTreeMap;

use foretide_flow::{
    AccessBatch, BitsPerSecond, CacheSpec, Effect, FilePath, Forecast, IdError, Link, PredictedRead, Rule, Ruleset,
    Site, SiteId, TimeWindow, Timestamp, Topology, Volume, VolumeId,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::world::{Faults, File, Foresee, Future, Job, Read, World};
use crate::Supply;

/// Drawn work that has not ended by then is given up, microseconds: links that stay cut must not hold a test for ever.
const END_US: i64 = 3_600_000_000;
/// Moves that an agent may have begun when its workload is muted, bytes.
const ON_ITS_WAY_BYTES: u64 = 64_000_000;
/// Reads ahead that right foresight tells.
const FORESEEN_READS: usize = 64;
/// Reads of a job ahead that the oracle tells: more than any cache of our tests holds, few enough to plan every round.
const ORACLE_READS: usize = 4_096;

impl World {
    /// Draws a world: one to three sites with a job each, in epochs over shuffled files, over links and with caches that
    /// may be too small; relays between them, faults and a budget for moves now and then. Files with an odd number are private: they may be
    /// at none of the sites once the rules are revoked.
    ///
    /// # Errors
    /// None of the names that it makes is refused; the type says so all the same.
    pub fn draw(seed: u64) -> Result<Self, IdError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sizes: Vec<u64> = (0..rng.random_range(5..60)).map(|_| rng.random_range(10_000..4_000_000)).collect();
        let total: u64 = sizes.iter().sum();
        let faults = draw_faults(&mut rng);
        let (store, volume) = (SiteId::new("store")?, VolumeId::new("data")?);
        let place =
            |cache| Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache, accelerator_per_hour: 3.0 };
        let mut topology = Topology {
            sites: [(store.clone(), place(None))].into(),
            links: vec![],
            volumes: [(volume.clone(), Volume::at(store.clone()))].into(),
        };
        let mut jobs = Vec::new();
        for number in 0..rng.random_range(1..4) {
            let gpu = SiteId::new(&format!("gpu-{number}"))?;
            let capacity_bytes = (total as f64 * rng.random_range(0.2..2.0)) as u64;
            topology.sites.insert(gpu.clone(), place(Some(CacheSpec { capacity_bytes })));
            topology.links.push(Link {
                from: store.clone(),
                to: gpu.clone(),
                rate: BitsPerSecond(rng.random_range(10..1_000) * 1_000_000),
                rtt_ms: rng.random_range(1.0..200.0),
                cost_per_gb: 0.0,
            });
            jobs.push(draw_job(&mut rng, number, gpu, &sizes));
        }
        let file =
            |(number, bytes): (usize, &u64)| File { volume: volume.clone(), path: path_of(number), bytes: *bytes };
        let (supply, rules) = draw_relays(seed, &mut topology, total)?;
        Ok(Self {
            supply,
            rules: Ruleset::new(rules, Effect::Allow, &topology).unwrap_or_default(),
            revoked: Ruleset::new(vec![private()], Effect::Allow, &topology).unwrap_or_default(),
            topology,
            files: sizes.iter().enumerate().map(file).collect(),
            jobs,
            faults,
            waste_budget_bytes: total / 2,
            move_budget_bytes: rng.random_bool(0.3).then(|| rng.random_range(0..2 * total)),
            end_us: END_US,
        })
    }

    /// Most bytes that may turn out to be waste: the budget, and what is in caches or on its way when it is spent.
    pub fn waste_limit_bytes(&self) -> u64 {
        let caches = self.topology.sites.values().filter_map(|s| s.cache).map(|c| c.capacity_bytes).sum::<u64>();
        self.waste_budget_bytes.saturating_add(caches).saturating_add(ON_ITS_WAY_BYTES)
    }
}

/// In every other world a hub, which passes on and may be one where data may only pass, and sites that do too; some of the
/// direct links then cost money, so that the way round is taken.
fn draw_relays(seed: u64, topology: &mut Topology, total: u64) -> Result<(Supply, Vec<Rule>), IdError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x48_55_42);
    if rng.random_bool(0.5) {
        return Ok((Supply::default(), vec![]));
    }
    let (store, hub) = (SiteId::new("store")?, SiteId::new("hub")?);
    let gpus: Vec<SiteId> = topology.links.iter().map(|l| l.to.clone()).collect();
    let link = |rng: &mut ChaCha8Rng, from: &SiteId, to: &SiteId| Link {
        from: from.clone(),
        to: to.clone(),
        rate: BitsPerSecond(rng.random_range(10..1_000) * 1_000_000),
        rtt_ms: rng.random_range(1.0..50.0),
        cost_per_gb: 0.0,
    };
    topology.links.iter_mut().for_each(|l| l.cost_per_gb = if rng.random_bool(0.5) { 1.0 } else { 0.0 });
    topology.links.push(link(&mut rng, &store, &hub));
    for to in &gpus {
        topology.links.push(link(&mut rng, &hub, to));
        for from in gpus.iter().filter(|from| *from != to) {
            if rng.random_bool(0.5) {
                topology.links.push(link(&mut rng, from, to));
            }
        }
    }
    let cache = Some(CacheSpec { capacity_bytes: (total as f64 * rng.random_range(0.1..2.0)) as u64 });
    let place = Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache, accelerator_per_hour: 0.0 };
    topology.sites.insert(hub.clone(), place);
    let through =
        Rule { name: "through".into(), effect: Effect::Transit, paths: None, sites: vec![hub.clone()], ..private() };
    let relays = gpus.into_iter().filter(|_| rng.random_bool(0.5)).chain([hub]).collect();
    let rules = if rng.random_bool(0.5) { vec![through] } else { vec![] };
    Ok((Supply { relays, ..Supply::default() }, rules))
}

fn draw_job(rng: &mut ChaCha8Rng, number: u32, site: SiteId, sizes: &[u64]) -> Job {
    let mut order = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let mut epoch: Vec<usize> = (0..sizes.len()).collect();
        (1..epoch.len()).rev().for_each(|i| epoch.swap(i, rng.random_range(0..=i)));
        order.extend(epoch);
    }
    let compute_us = rng.random_range(1_000..300_000);
    let read = |file: usize| Read { file: file as u32, offset: 0, length: sizes[file], compute_us };
    Job {
        run: format!("run-{number}").as_str().into(),
        workload: format!("job-{number}").as_str().into(),
        process: 1,
        site,
        starts_us: 0,
        reads: order.into_iter().map(read).collect(),
    }
}

impl Faults {
    /// Draws faults within the first half minute; each comes three times in ten.
    pub fn draw(seed: u64) -> Self {
        draw_faults(&mut ChaCha8Rng::seed_from_u64(seed))
    }
}

fn draw_faults(rng: &mut ChaCha8Rng) -> Faults {
    let maybe = |rng: &mut ChaCha8Rng| rng.random_bool(0.3);
    let from = rng.random_range(0.0..10.0);
    Faults {
        cut_s: maybe(rng).then(|| (from, from + rng.random_range(0.5..20.0))),
        slow: maybe(rng).then(|| (rng.random_range(0.05..1.0), from, from + rng.random_range(1.0..30.0))),
        agent_lost_s: maybe(rng).then(|| rng.random_range(0.0..20.0)),
        revoked_s: maybe(rng).then(|| rng.random_range(0.0..20.0)),
    }
}

fn path_of(file: usize) -> FilePath {
    let folder = if file.is_multiple_of(2) { "public" } else { "private" };
    FilePath::parse(&format!("{folder}/{file}")).unwrap_or_default()
}

fn private() -> Rule {
    Rule {
        name: "revoked".into(),
        effect: Effect::Deny,
        volume: None,
        paths: Some("private/**".into()),
        tags: BTreeMap::new(),
        sites: vec![],
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    }
}

/// How good forecasts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foresight {
    /// The coming reads, thousands of them.
    Oracle,
    /// The next reads, at the right times.
    Right,
    /// Files, times and probabilities at random.
    Random,
    /// Surely, and at once: what is never read, something else each time.
    Adversarial,
}

/// Foresight of some quality.
#[derive(Clone, Debug)]
pub struct Seer {
    foresight: Foresight,
    rng: ChaCha8Rng,
    told: usize,
}

impl Seer {
    /// The same seed foresees the same.
    pub fn new(foresight: Foresight, seed: u64) -> Self {
        Self { foresight, rng: ChaCha8Rng::seed_from_u64(seed ^ 0x51_4D), told: 0 }
    }

    /// The next reads of a job; each file's extent once, at its first time.
    fn right(future: &Future<'_>, reads: &[Read], ready_us: i64, most: usize) -> Vec<(VolumeId, PredictedRead)> {
        let mut at_us = ready_us;
        let tell = |(n, read): (usize, &Read)| {
            at_us += if n == 0 { 0 } else { read.compute_us };
            let file = future.file(read.file);
            let path = file.path.clone();
            let window = window(at_us);
            let probability = 0.95;
            (file.volume.clone(), PredictedRead { path, offset: read.offset, length: read.length, probability, window })
        };
        reads.iter().take(most).enumerate().map(tell).collect()
    }

    fn random(&mut self, future: &Future<'_>, now_us: i64) -> Vec<(VolumeId, PredictedRead)> {
        let one = |rng: &mut ChaCha8Rng| {
            let file = future.file(rng.random_range(0..future.files() as u32));
            let (path, length) = (file.path.clone(), file.bytes);
            let probability = rng.random_range(0.0..1.0);
            let window = window(now_us + rng.random_range(0..60_000_000));
            (file.volume.clone(), PredictedRead { path, offset: 0, length, probability, window })
        };
        (0..self.rng.random_range(0..20)).map(|_| one(&mut self.rng)).collect()
    }

    fn adversarial(&mut self, future: &Future<'_>, now_us: i64) -> Vec<(VolumeId, PredictedRead)> {
        let volume = &future.file(0).volume;
        let first = future.files() + self.told;
        self.told += 20;
        let window = window(now_us);
        let one = |n| PredictedRead { path: path_of(n), offset: 0, length: 1_000_000, probability: 1.0, window };
        (first..first + 20).map(|n| (volume.clone(), one(n))).collect()
    }
}

fn window(from_us: i64) -> TimeWindow {
    TimeWindow { p10: Timestamp(from_us), p50: Timestamp(from_us + 200_000), p90: Timestamp(from_us + 1_000_000) }
}

impl Foresee for Seer {
    fn observe(&mut self, _: &AccessBatch) {}

    fn foresee(&mut self, now: Timestamp, future: &Future<'_>) -> Vec<Forecast> {
        let mut forecasts = Vec::new();
        for (number, (job, reads, ready_us)) in future.coming().enumerate() {
            let reads = match self.foresight {
                Foresight::Oracle => Self::right(future, reads, ready_us, ORACLE_READS),
                Foresight::Right => Self::right(future, reads, ready_us, FORESEEN_READS),
                Foresight::Random => self.random(future, now.0),
                Foresight::Adversarial => self.adversarial(future, now.0),
            };
            let mut by_volume: BTreeMap<VolumeId, Vec<PredictedRead>> = BTreeMap::new();
            reads.into_iter().for_each(|(volume, read)| by_volume.entry(volume).or_default().push(read));
            forecasts.extend(by_volume.into_iter().map(|(volume, reads)| Forecast {
                id: format!("{number:06}-{volume}").as_str().into(),
                workload: job.workload.clone(),
                run: Some(job.run.clone()),
                site: job.site.clone(),
                volume,
                made_at: now,
                expires_at: Timestamp(now.0 + 60_000_000),
                forecaster: "simulated".into(),
                reason: format!("{:?} foresight", self.foresight),
                reads,
            }));
        }
        forecasts
    }
}
