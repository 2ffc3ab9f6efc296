//! Problems for the tests: made small, changed by each, and owning their parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use foretide_flow::{
    BitsPerSecond, CacheSpec, FilePath, Forecast, Link, PredictedRead, Ruleset, Site, SiteId, TimeWindow, Timestamp,
    Topology, Volume, VolumeId, WarmupRequest, WorkloadId,
};

use crate::problem::{DemandLoad, RunningMove, WarmupDemand, WarmupFile};
use crate::{Brakes, Config, NothingResident, Problem, Residency, Supply, solve};

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

pub(super) fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub(super) fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

pub(super) fn at(seconds: f64) -> Timestamp {
    Timestamp(NOW.0 + (seconds * 1e6) as i64)
}

pub(super) fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

/// One source, `gpus` sites with a cache each, a link to each.
pub(super) fn topology(gpus: usize, rate_mbit: u64, cache_bytes: u64) -> Topology {
    let place = |cache| Site { jurisdiction: "eu".into(), labels: BTreeMap::new(), cache, accelerator_per_hour: 3.0 };
    let cache = Some(CacheSpec { capacity_bytes: cache_bytes });
    let names: Vec<SiteId> = (0..gpus).map(|i| site(&format!("gpu-{i}"))).collect();
    let link = |to: &SiteId| Link {
        from: site("store"),
        to: to.clone(),
        rate: BitsPerSecond(rate_mbit * 1_000_000),
        rtt_ms: 150.0,
        cost_per_gb: 0.0,
    };
    Topology {
        links: names.iter().map(link).collect(),
        sites: names.into_iter().map(|n| (n, place(cache))).chain([(site("store"), place(None))]).collect(),
        volumes: [(volume(), Volume::at(site("store")))].into(),
    }
}

pub(super) fn read(file: &str, length: u64, probability: f64, p10_s: f64, p90_s: f64) -> PredictedRead {
    let window = TimeWindow { p10: at(p10_s), p50: at((p10_s + p90_s) / 2.0), p90: at(p90_s) };
    PredictedRead { path: path(file), offset: 0, length, probability, window }
}

pub(super) fn forecast(name: &str, to: &str, reads: Vec<PredictedRead>) -> Forecast {
    Forecast {
        id: name.into(),
        workload: WorkloadId::from("train"),
        run: None,
        site: site(to),
        volume: volume(),
        made_at: NOW,
        expires_at: at(1e6),
        forecaster: "remaining_set".into(),
        reason: "42 of 100 files are still to come in this epoch".into(),
        reads,
    }
}

pub(super) fn warmup(name: &str, to: &str, need_by: Option<Timestamp>, files: &[(&str, u64)]) -> WarmupDemand {
    let request = WarmupRequest { need_by, ..WarmupRequest::new(volume(), vec![FilePath::root()], site(to)) };
    let files = files.iter().map(|(p, bytes)| WarmupFile { path: path(p), bytes: *bytes }).collect();
    WarmupDemand { id: name.into(), request, asked_at: NOW, files }
}

/// A problem that owns its parts.
pub(super) struct Case {
    pub(super) forecasts: Vec<Forecast>,
    pub(super) warmups: Vec<WarmupDemand>,
    pub(super) topology: Topology,
    pub(super) rules: Ruleset,
    pub(super) supply: Supply,
    pub(super) resident: Arc<dyn Residency>,
    pub(super) running: Vec<RunningMove>,
    pub(super) demand: Vec<DemandLoad>,
    pub(super) brakes: Brakes,
    pub(super) config: Config,
    pub(super) now: Timestamp,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?}\n{:#?}\n{:#?}", self.topology, self.forecasts, self.warmups)
    }
}

impl Case {
    pub(super) fn new(topology: Topology) -> Self {
        Self {
            forecasts: vec![],
            warmups: vec![],
            topology,
            rules: Ruleset::default(),
            supply: Supply::default(),
            resident: Arc::new(NothingResident),
            running: vec![],
            demand: vec![],
            brakes: Brakes::default(),
            config: Config::default(),
            now: NOW,
        }
    }

    pub(super) fn problem<'a>(&'a self, previous: Option<&'a foretide_flow::Plan>) -> Problem<'a> {
        Problem {
            forecasts: &self.forecasts,
            warmups: &self.warmups,
            topology: &self.topology,
            rules: &self.rules,
            supply: &self.supply,
            resident: self.resident.as_ref(),
            running: &self.running,
            demand: &self.demand,
            brakes: &self.brakes,
            previous,
            now: self.now,
            seed: 1,
            config: &self.config,
        }
    }

    pub(super) fn solve(&self) -> foretide_flow::Plan {
        solve(&self.problem(None))
    }
}
