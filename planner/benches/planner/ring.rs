//! What the control plane asks of the planner: promise H, and a plan of names within its round of 50 ms.

use std::collections::BTreeMap;
use std::time::Instant;

use foretide_flow::{
    BitsPerSecond, CacheSpec, FilePath, Forecast, Link, PredictedRead, Ruleset, Site, SiteId, TimeWindow, Timestamp,
    Topology, Volume, VolumeId,
};
use foretide_planner::simulate::{Caching, Faults, Foresight, Report, Seer, World, simulate};
use foretide_planner::{AdviceRequest, Brakes, Config, NothingResident, Problem, Supply, WarmupFile, advise, solve};

use crate::table::Table;

/// Seeded worlds in which forecasts are wrong or malicious.
const SEEDS: u64 = 1_000;
/// Files of the forecast.
const FILES: usize = 4_000;
/// Sites that are ranked.
const SITES: usize = 100;
/// Plans that are timed.
const PLANS: usize = 21;
const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

/// Promise H over all seeds: the worst stall against no prefetch, and the worst waste against its budget.
pub fn never_worse_than_off(table: &mut Table) {
    let (mut stall, mut waste) = (0.0f64, 0.0f64);
    let mut broken = 0;
    for seed in 0..SEEDS {
        let Some((off, on, limit)) = pair(seed) else { return table.missing("promise H", "x", "<= 1.01") };
        for (site, stall_s) in &on.stall_s_by_site {
            stall = stall.max(stall_s / off.stall_s_by_site.get(site).copied().unwrap_or(0.0).max(1e-3));
        }
        waste = waste.max(on.wasted_bytes as f64 / limit as f64);
        broken += on.broken.len();
    }
    table.row("invariants broken over 1,000 seeds", broken as f64, "", None, 0.0);
    table.row("promise H: worst stall over 1,000 seeds, against off", stall, "x", Some((1.0, "no prefetch")), 1.01);
    table.row("promise H: worst waste, against budget and cache", waste, "x", None, 1.0);
}

/// A world without prefetch and with what is foreseen wrongly, and the most that may be wasted in it. Where a guess may
/// be right by chance there are no faults: they would hit a job that runs ahead at another read.
fn pair(seed: u64) -> Option<(Report, Report, u64)> {
    let (mut world, config) = (World::draw(seed).ok()?, Config::default());
    let foresight = if seed.is_multiple_of(2) { Foresight::Adversarial } else { Foresight::Random };
    if foresight == Foresight::Random {
        world.faults = Faults::default();
    }
    let off = simulate(&world, Caching::OnDemand, &config, seed).ok()?;
    let on = simulate(&world, Caching::Prefetch(&mut Seer::new(foresight, seed)), &config, seed).ok()?;
    Some((off, on, world.waste_limit_bytes()))
}

fn topology(rate: u64) -> Result<Topology, foretide_flow::IdError> {
    let (store, gpu) = (SiteId::new("store")?, SiteId::new("gpu")?);
    let place = |cache| Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache, accelerator_per_hour: 3.0 };
    let (from, to, rate) = (store.clone(), gpu.clone(), BitsPerSecond(rate));
    Ok(Topology {
        volumes: [(VolumeId::new("data")?, Volume::at(store.clone()))].into(),
        sites: [(store, place(None)), (gpu, place(Some(CacheSpec { capacity_bytes: 1 << 40 })))].into(),
        links: vec![Link { from, to, rate, rtt_ms: 150.0, cost_per_gb: 0.0 }],
    })
}

fn forecast() -> Result<Forecast, foretide_flow::IdError> {
    let at = |seconds: f64| Timestamp(NOW.0 + (seconds * 1e6) as i64);
    let read = |i: usize| {
        let p10 = 20.0 + i as f64 * 0.005;
        PredictedRead {
            path: FilePath::parse(&format!("train/{:02}/{i:05}.jpg", i % 64)).unwrap_or_default(),
            offset: 0,
            length: 100_000,
            probability: 0.5 + 0.4 * ((i * 7919) % FILES) as f64 / FILES as f64,
            window: TimeWindow { p10: at(p10), p50: at(p10 + 5.0), p90: at(p10 + 30.0) },
        }
    };
    Ok(Forecast {
        id: "f".into(),
        workload: "train".into(),
        run: None,
        site: SiteId::new("gpu")?,
        volume: VolumeId::new("data")?,
        made_at: NOW,
        expires_at: at(3_600.0),
        forecaster: "recurrence".into(),
        reason: "comes back".into(),
        reads: (0..FILES).map(read).collect(),
    })
}

/// Milliseconds for the plan after the plan, over a link that carries all of it or a third.
fn next_plan_ms(rate: u64) -> Result<f64, foretide_flow::IdError> {
    let (topology, forecasts, config) = (topology(rate)?, [forecast()?], Config::default());
    let (rules, brakes) = (Ruleset::default(), Brakes::default());
    let mut previous = None;
    let mut times = Vec::new();
    for round in 0..PLANS {
        let problem = Problem {
            forecasts: &forecasts,
            warmups: &[],
            topology: &topology,
            rules: &rules,
            supply: &Supply::default(),
            resident: &NothingResident,
            running: &[],
            demand: &[],
            brakes: &brakes,
            previous: previous.as_ref(),
            now: Timestamp(NOW.0 + round as i64 * 50_000),
            seed: 0,
            config: &config,
        };
        let from = Instant::now();
        let plan = solve(&problem);
        times.push(from.elapsed().as_secs_f64() * 1e3);
        previous = Some(plan);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[PLANS / 2])
}

/// Milliseconds to rank a hundred sites for a data set.
fn advice_ms() -> Result<f64, foretide_flow::IdError> {
    let mut topology = topology(1_000_000_000)?;
    let (gpu, link) = (topology.sites[&SiteId::new("gpu")?].clone(), topology.links[0].clone());
    for n in 0..SITES {
        let to = SiteId::new(&format!("gpu-{n}"))?;
        topology.sites.insert(to.clone(), gpu.clone());
        topology.links.push(Link { to, ..link.clone() });
    }
    let file = |n: usize| WarmupFile { path: FilePath::parse(&format!("d/{n}")).unwrap_or_default(), bytes: 1_000_000 };
    let files: Vec<WarmupFile> = (0..FILES).map(file).collect();
    let (rules, brakes, config, volume) =
        (Ruleset::default(), Brakes::default(), Config::default(), VolumeId::new("data")?);
    let problem = Problem {
        forecasts: &[],
        warmups: &[],
        topology: &topology,
        rules: &rules,
        supply: &Supply::default(),
        resident: &NothingResident,
        running: &[],
        demand: &[],
        brakes: &brakes,
        previous: None,
        now: NOW,
        seed: 0,
        config: &config,
    };
    let free = |_: &SiteId| Some(8);
    let request = AdviceRequest { volume: &volume, files: &files, candidates: &[], free_accelerators: &free };
    let mut times: Vec<f64> = (0..PLANS)
        .map(|_| {
            let from = Instant::now();
            let ranked = advise(&problem, &request).len();
            assert_eq!(ranked, SITES + 2, "every site and the source's own");
            from.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    Ok(times[PLANS / 2])
}

/// A plan for 4,000 files, again and again, and advice.
pub fn round(table: &mut Table) {
    for (what, rate) in [("that fit", 1_000_000_000), ("of which a third fits", 25_000_000)] {
        match next_plan_ms(rate) {
            Ok(ms) => table.row(&format!("a plan of 4,000 files {what}"), ms, "ms", Some((50.0, "a round")), 10.0),
            Err(_) => table.missing("a plan of 4,000 files", "ms", "<= 10"),
        }
    }
    match advice_ms() {
        Ok(ms) => table.row("advice on 4,000 files at 100 sites", ms, "ms", None, 10.0),
        Err(_) => table.missing("advice", "ms", "<= 10"),
    }
}
