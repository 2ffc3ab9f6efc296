//! Rounds of planning over a world.

use std::collections::BTreeMap;

use foretide_flow::{Effect, FilePath, Plan, Refusal, Ruleset, SiteId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

use super::atlas::Atlas;
use super::invariants::broken;
use super::job::Doing;
use super::site::SiteState;
use super::world::{Foresee, Future, World, WorldError};
use crate::{Brakes, Budget, BudgetLeft, Config, Problem, Residency, RunningMove, solve};

/// Between two plans, microseconds: coarser than the control plane's, so that plans are older when they are used.
const ROUND_US: i64 = 500_000;
/// Between two plans while nothing is read or moved, microseconds: a run that is to come is foreseen in time.
const IDLE_ROUND_US: i64 = 30_000_000;
/// Every so many rounds, whether the same problem gives the same plan (promise F).
const ROUNDS_PER_PURITY: u64 = 16;

/// Plans of up to so many moves are checked.
const CHECKED_MOVES: usize = 4_096;

/// How sites get their data.
pub enum Caching<'f> {
    /// Every read goes to its source.
    Off,
    /// What was read stays while there is room.
    OnDemand,
    /// That, and what is foreseen comes before it is read.
    Prefetch(&'f mut dyn Foresee),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every read was done.
    pub finished: bool,
    /// When the last one was, seconds from the beginning.
    pub ended_s: f64,
    /// Seconds that jobs waited, added up.
    pub stall_s: f64,
    /// The same by site.
    pub stall_s_by_site: BTreeMap<SiteId, f64>,
    /// Reads.
    pub reads: u64,
    /// Reads that did not wait.
    pub hits: u64,
    /// Reads that waited.
    pub misses: u64,
    /// Reads of what a rule forbids at the site: served from the source, never kept.
    pub uncached: u64,
    /// Bytes that crossed links.
    pub link_bytes: f64,
    /// Bytes that moves brought.
    pub moved_bytes: u64,
    /// Of these, bytes that relays passed on.
    pub passed_bytes: u64,
    /// Of these, bytes that left unread, or never were read.
    pub wasted_bytes: u64,
    /// Money for links.
    pub money: f64,
    /// The busiest minute of a link, as part of what it carries.
    pub peak_link: f64,
    /// Most bytes in a cache.
    pub peak_cache_bytes: u64,
    /// Plans that were made.
    pub plans: u64,
    /// What a change of the rules stopped or evicted, file by file, with the rule.
    pub upheld: Vec<Refusal>,
    /// What broke, in words; empty if every invariant held.
    pub broken: Vec<String>,
    /// Bytes over all links by minute.
    pub link_bytes_by_minute: BTreeMap<u64, f64>,
}

impl Report {
    /// Adds what came of another site.
    fn add(&mut self, other: Report) {
        self.finished &= other.finished;
        self.ended_s = self.ended_s.max(other.ended_s);
        self.stall_s += other.stall_s;
        self.stall_s_by_site.extend(other.stall_s_by_site);
        self.reads += other.reads;
        self.hits += other.hits;
        self.misses += other.misses;
        self.uncached += other.uncached;
        self.link_bytes += other.link_bytes;
        self.moved_bytes += other.moved_bytes;
        self.passed_bytes += other.passed_bytes;
        self.wasted_bytes += other.wasted_bytes;
        self.money += other.money;
        self.peak_link = self.peak_link.max(other.peak_link);
        self.peak_cache_bytes = self.peak_cache_bytes.max(other.peak_cache_bytes);
        self.plans += other.plans;
        self.upheld.extend(other.upheld);
        self.broken.extend(other.broken);
        for (minute, bytes) in other.link_bytes_by_minute {
            *self.link_bytes_by_minute.entry(minute).or_default() += bytes;
        }
    }
}

/// What the sites hold, for the planner.
struct Holdings<'s, 'w> {
    sites: &'s [SiteState<'w>],
    atlas: &'s Atlas,
}

impl Residency for Holdings<'_, '_> {
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, offset: u64, length: u64) -> u64 {
        let here = self.sites.iter().find(|s| s.site() == site);
        let known = here.and_then(|s| Some((s, self.atlas.number(volume, path)?)));
        known.map_or(0, |(s, file)| s.resident_bytes(self.atlas, file, offset, length))
    }

    fn held_bytes(&self, site: &SiteId) -> u64 {
        self.sites.iter().filter(|s| s.site() == site).map(SiteState::held_bytes).sum()
    }
}

/// Runs a world to its end. The same world, foresight and seed give the same report.
///
/// # Errors
/// [`WorldError`] for a job that can never run.
pub fn simulate(world: &World, mut caching: Caching<'_>, config: &Config, seed: u64) -> Result<Report, WorldError> {
    world.check()?;
    let caches = !matches!(caching, Caching::Off);
    let mut sites: Vec<SiteState<'_>> =
        world.topology.sites.keys().map(|site| SiteState::new(world, site, caches, config.proof_share)).collect();
    let mut atlas = Atlas::new(&world.files);
    let mut total = Report { finished: true, ..Report::default() };
    let (mut now, mut previous, mut rounds, mut was_revoked) = (0, None, 0u64, false);
    while now < world.end_us && !sites.iter().all(SiteState::finished) {
        let revoked = world.faults.revoked_s.is_some_and(|at| now as f64 >= at * 1e6);
        let rules = if revoked { &world.revoked } else { &world.rules };
        // What comes in is asked for when it comes; what is here only when a rule may have become stricter.
        if revoked != was_revoked {
            sites.iter_mut().for_each(|s| s.uphold(rules, &atlas));
        }
        was_revoked = revoked;
        if let Caching::Prefetch(foresee) = &mut caching {
            let mut round = Round { world, config, seed, rules, now, previous: previous.as_ref() };
            let (plan, broken) = round.plan(&mut sites, &atlas, *foresee, total.plans);
            total.broken.extend(broken);
            total.plans += 1;
            let relays = sites.iter().filter(|s| world.supply.relays.contains(s.site()));
            let held = relays.map(|s| (s.site().clone(), s.holds())).collect();
            sites.iter_mut().for_each(|s| s.assign(&plan, &mut atlas, &held));
            previous = Some(plan);
        }
        let next = sites.iter_mut().map(SiteState::next_us).min().unwrap_or(now);
        // What happens in this round is planned for when it has happened.
        now = next.clamp(now + ROUND_US, now + IDLE_ROUND_US);
        for site in &mut sites {
            site.advance(now, &atlas, rules);
            if rules.rules().any(|r| r.until.is_some() || r.effect == Effect::Transit) {
                site.uphold(rules, &atlas);
            }
            site.check(&atlas, rules, rounds);
        }
        for (relay, block) in sites.iter_mut().flat_map(SiteState::taken).collect::<Vec<_>>() {
            sites.iter_mut().filter(|s| *s.site() == relay).for_each(|s| s.passed_on(&block));
        }
        rounds += 1;
    }
    sites.into_iter().for_each(|s| total.add(s.close()));
    Ok(total)
}

/// A round's plan.
struct Round<'r> {
    world: &'r World,
    config: &'r Config,
    seed: u64,
    rules: &'r Ruleset,
    now: i64,
    previous: Option<&'r Plan>,
}

impl Round<'_> {
    fn budget(&self, moved_bytes: u64) -> Option<BudgetLeft> {
        let bytes = self.world.move_budget_bytes;
        let name = "simulation".into();
        let budget =
            Budget { name, site: None, workload: None, bytes, money: None, per_s: self.world.end_us as f64 / 1e6 };
        bytes.map(|_| budget.left(moved_bytes, 0.0))
    }

    fn plan(
        &mut self,
        sites: &mut [SiteState<'_>],
        atlas: &Atlas,
        foresee: &mut dyn Foresee,
        round: u64,
    ) -> (Plan, Vec<String>) {
        let now = Timestamp(self.now);
        sites.iter_mut().filter_map(SiteState::observed).for_each(|batch| foresee.observe(&batch));
        let (mut next, mut ready_us) = (vec![0; self.world.jobs.len()], vec![0; self.world.jobs.len()]);
        for job in sites.iter().flat_map(|s| &s.jobs) {
            next[job.job] = job.next;
            ready_us[job.job] = match job.doing {
                Doing::Computes { until_us } => until_us.max(self.now),
                _ => self.now,
            };
        }
        let forecasts = foresee.foresee(now, &Future { world: self.world, next: &next, ready_us: &ready_us });
        let wasted: u64 = sites.iter().map(SiteState::wasted_bytes).sum();
        let moved: u64 = sites.iter().map(|s| s.report.moved_bytes).sum();
        let proven =
            sites.iter().filter(|s| s.proof().holds(self.config.proof_share)).map(|s| s.site().clone()).collect();
        let mut brakes = Brakes { budgets: self.budget(moved).into_iter().collect(), proven, ..Brakes::default() };
        if wasted >= self.world.waste_budget_bytes {
            let mute = |f: &foretide_flow::Forecast| (f.workload.clone(), "the waste budget is spent".to_owned());
            brakes.muted = forecasts.iter().map(mute).collect();
        }
        let running: Vec<RunningMove> = sites.iter().flat_map(SiteState::running).collect();
        let problem = Problem {
            forecasts: &forecasts,
            warmups: &[],
            topology: &self.world.topology,
            rules: self.rules,
            supply: &self.world.supply,
            resident: &Holdings { sites, atlas },
            running: &running,
            demand: &[],
            brakes: &brakes,
            previous: self.previous,
            now,
            seed: self.seed,
            config: self.config,
        };
        let plan = solve(&problem);
        let pure = !round.is_multiple_of(ROUNDS_PER_PURITY) || plan == solve(&problem);
        let small = plan.moves.len() <= CHECKED_MOVES;
        let mut broken = if small { broken(&problem, &plan) } else { Vec::new() };
        if !pure {
            broken.push(format!("two plans of one problem at {} us differ", self.now));
        }
        (plan, broken)
    }
}
