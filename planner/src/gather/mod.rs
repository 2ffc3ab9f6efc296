//! From a problem to wants: which bytes should be where, by when, and what that is worth.
//!
//! Here everything is dropped that no solver need see: what a rule forbids (property (d)), what has no way, what
//! is there already, what is too improbable. Reads that several forecasts or warm-ups name are one want, so a byte
//! is never planned twice for one site: the request of the highest priority claims it, of those the one with the earliest
//! deadline, then the forecast that is surest.

mod routes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use foretide_flow::{FilePath, Forecast, Link, Mode, PredictedRead, Refusal, SiteId, TimeWindow, Timestamp, VolumeId};

pub(crate) use self::routes::{Route, Way};
use crate::brakes::mode_of;
use crate::left_out::{LeftOuts, Why};
use crate::problem::{Problem, WarmupDemand};

/// At most this many refusals are named file by file for one volume, site and rule; what is beyond is one refusal
/// of the volume's root. A thousand is more than anybody reads, and a plan must not grow with a forbidden tree.
const MAX_REFUSALS_PER_RULE: usize = 1_000;

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause<'a> {
    Forecast(&'a Forecast),
    Warmup(&'a WarmupDemand),
}

/// An extent that should be at a site.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) route: usize,
    pub(crate) path: &'a FilePath,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Bytes of it that are not there.
    pub(crate) missing: u64,
    pub(crate) cause: Cause<'a>,
    /// Whether it is moved; what was asked for is.
    pub(crate) mode: Mode,
    /// 1 for what was asked for.
    pub(crate) probability: f64,
    /// When it is read, if a forecast says so.
    pub(crate) window: Option<TimeWindow>,
    /// Seconds that its reader waits if it is not there.
    pub(crate) stall_s: f64,
    /// Money a stalled second costs.
    pub(crate) money_per_s: f64,
    /// Money for its missing bytes if a reader fetches them.
    pub(crate) cost_read: f64,
    /// Ways of its route that the rules leave it, a bit for each.
    passable: u64,
}

impl Want<'_> {
    /// The end of its last expected use.
    pub(crate) fn keep_until(&self, problem: &Problem<'_>) -> Timestamp {
        let read = self.window.map_or(Timestamp(i64::MIN), |w| w.p90);
        match self.cause {
            Cause::Forecast(_) => read,
            Cause::Warmup(w) => {
                let hold = std::time::Duration::from_secs_f64(problem.config.warmup_hold_s);
                let hold_until = w.request.last_start().unwrap_or(problem.now).max(problem.now) + hold;
                read.max(w.request.pin_until.unwrap_or(hold_until))
            }
        }
    }

    /// Expected stall that a byte of it spares its reader, seconds.
    pub(crate) fn spared_per_byte(&self) -> f64 {
        self.probability * self.stall_s / self.missing.max(1) as f64
    }

    /// Net worth, money, if bringing it costs `cost` and it arrives when the read is still to come with probability
    /// `in_time`.
    pub(crate) fn worth(&self, in_time: f64, cost: f64) -> f64 {
        self.gross(in_time) - cost
    }

    /// As [`Want::worth`] for what costs nothing to bring. Without the move the bytes cross a link too, when they are
    /// read: what that costs is saved with the probability that they are.
    pub(crate) fn gross(&self, in_time: f64) -> f64 {
        self.probability * (in_time * self.stall_s * self.money_per_s + self.cost_read)
    }

    /// The ways of its route that the rules leave it.
    pub(crate) fn ways(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.passable;
        std::iter::from_fn(move || {
            let way = (left != 0).then_some(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(way)
        })
    }
}

/// Money for bytes on a link.
pub(crate) fn money(link: &Link, bytes: u64) -> f64 {
    bytes as f64 / 1e9 * link.cost_per_gb
}

/// What came of a problem.
#[derive(Debug, Default)]
pub(crate) struct Gathered<'a> {
    pub(crate) routes: Vec<Route<'a>>,
    pub(crate) wants: Vec<Want<'a>>,
    /// Bytes that are where they are wanted, and until when: (site, bytes, until).
    pub(crate) holds: Vec<(&'a SiteId, u64, Timestamp)>,
    pub(crate) excluded: Excluded,
}

/// What no solver need see.
#[derive(Debug, Default)]
pub(crate) struct Excluded {
    pub(crate) refused: Vec<Refusal>,
    pub(crate) left_out: LeftOuts,
}

/// One file at one destination.
#[derive(Clone, Copy)]
struct FileSlot {
    /// Ways that the rules leave it, a bit for each.
    passable: u64,
    number: u32,
}

/// A claim: the extent up to `end` belongs to want `want`, or to nobody if it is there already.
struct Claim {
    end: u64,
    want: Option<usize>,
}

struct Gatherer<'a, 'p> {
    problem: &'p Problem<'a>,
    out: Gathered<'a>,
    links: HashMap<(&'a SiteId, &'a SiteId), &'a Link>,
    routes: HashMap<(&'a VolumeId, &'a SiteId), Result<usize, Why>>,
    files: HashMap<(usize, &'a FilePath), FileSlot>,
    claims: BTreeMap<(u32, u64), Claim>,
}

/// Everything that should be moved, and why other things are not.
pub(crate) fn gather<'a>(problem: &Problem<'a>) -> Gathered<'a> {
    let mut g = Gatherer {
        problem,
        out: Gathered::default(),
        // Of two links between the same sites the first counts.
        links: problem.topology.links.iter().rev().map(|l| ((&l.from, &l.to), l)).collect(),
        routes: HashMap::new(),
        files: HashMap::new(),
        claims: BTreeMap::new(),
    };
    let mut warmups: Vec<&WarmupDemand> = problem.warmups.iter().collect();
    let due = |w: &WarmupDemand| w.request.due().unwrap_or(Timestamp(i64::MAX));
    warmups.sort_by_key(|w| (Reverse(w.request.priority), due(w), w.asked_at, &w.id));
    warmups.into_iter().for_each(|w| g.warmup(w));
    let mut forecasts: Vec<&Forecast> = problem.forecasts.iter().collect();
    forecasts.sort_by(|a, b| (&a.id, a.made_at).cmp(&(&b.id, b.made_at)));
    forecasts.into_iter().for_each(|f| g.forecast(f));
    g.out
}

impl<'a> Gatherer<'a, '_> {
    fn warmup(&mut self, demand: &'a WarmupDemand) {
        let request = &demand.request;
        let route = self.route(&request.volume, &request.site);
        for file in demand.files.iter().filter(|f| f.bytes > 0) {
            match &route {
                Ok(Some(route)) => {
                    let read = Extent { path: &file.path, offset: 0, end: file.bytes };
                    self.claim(*route, read, Cause::Warmup(demand), 1.0, None);
                }
                Ok(None) => {}
                Err(why) => self.out.excluded.left_out.add(&request.volume, &file.path, &request.site, file.bytes, why),
            }
        }
    }

    fn forecast(&mut self, forecast: &'a Forecast) {
        let clock_is_wrong = self.problem.brakes.clocks.contains_key(&forecast.site);
        if forecast.expires_at < self.problem.now && !clock_is_wrong {
            return;
        }
        let route = self.route(&forecast.volume, &forecast.site);
        let braked = self.braked(forecast);
        for read in forecast.reads.iter().filter(|r| r.length > 0) {
            let why = match (&braked, &route) {
                (_, Ok(None)) => continue,
                (Some(why), _) | (None, Err(why)) => Some(why.clone()),
                (None, Ok(Some(route))) => self.read(*route, forecast, read).err(),
            };
            if let Some(why) = why {
                self.out.excluded.left_out.add(&forecast.volume, &read.path, &forecast.site, read.length, &why);
            }
        }
    }

    fn braked(&self, forecast: &Forecast) -> Option<Why> {
        if self.problem.brakes.prefetch_off {
            return Some(Why::Off);
        }
        if let Some(ahead_s) = self.problem.brakes.clocks.get(&forecast.site) {
            return Some(Why::Clock(*ahead_s as i64));
        }
        self.problem.brakes.muted.get(&forecast.workload).map(|why| Why::Muted(why.as_str().into()))
    }

    fn read(&mut self, route: usize, forecast: &'a Forecast, read: &'a PredictedRead) -> Result<(), Why> {
        if read.probability.is_nan() || read.probability < self.problem.config.min_probability {
            return Err(Why::Improbable);
        }
        let extent = Extent { path: &read.path, offset: read.offset, end: read.offset.saturating_add(read.length) };
        self.claim(route, extent, Cause::Forecast(forecast), read.probability.min(1.0), Some(read.window));
        Ok(())
    }

    /// Claims what nobody has claimed of the extent; the rest makes earlier claims surer or sooner.
    fn claim(
        &mut self,
        route: usize,
        extent: Extent<'a>,
        cause: Cause<'a>,
        probability: f64,
        window: Option<TimeWindow>,
    ) {
        let FileSlot { passable, number } = self.file(route, extent.path);
        if passable == 0 {
            return;
        }
        let mut at = extent.offset;
        while at < extent.end {
            let before = self.claims.range((number, 0)..=(number, at)).next_back().filter(|(_, c)| c.end > at);
            let next = match before {
                Some((_, claim)) => {
                    let (end, want) = (claim.end, claim.want);
                    if let Some(want) = want {
                        self.strengthen(want, cause, probability, window);
                    }
                    end
                }
                None => {
                    let after = self.claims.range((number, at)..(number, u64::MAX)).next().map(|(k, _)| k.1);
                    let end = after.unwrap_or(u64::MAX).min(extent.end);
                    let part = Extent { end, offset: at, ..extent };
                    let want = self.want((route, passable), part, cause, probability, window);
                    self.claims.insert((number, at), Claim { end, want });
                    end
                }
            };
            at = next;
        }
    }

    /// A second voice for the same bytes: the surer probability and the earlier window hold; the cause stays.
    fn strengthen(&mut self, want: usize, cause: Cause<'a>, probability: f64, window: Option<TimeWindow>) {
        let mode = self.mode(cause);
        let want = &mut self.out.wants[want];
        if matches!((want.cause, cause), (Cause::Forecast(_), Cause::Forecast(_))) && probability > want.probability {
            want.cause = cause;
            want.probability = probability;
        }
        if mode == Mode::Enforce {
            want.mode = Mode::Enforce;
        }
        want.window = match (want.window, window) {
            (Some(a), Some(b)) => {
                Some(TimeWindow { p10: a.p10.min(b.p10), p50: a.p50.min(b.p50), p90: a.p90.max(b.p90) })
            }
            (a, b) => a.or(b),
        };
    }

    /// How far a want of this cause is acted on.
    fn mode(&self, cause: Cause<'_>) -> Mode {
        let config = self.problem.config;
        match cause {
            Cause::Forecast(f) => mode_of(&config.modes, config.mode, &f.site, &f.workload),
            Cause::Warmup(_) => Mode::Enforce,
        }
    }

    fn want(
        &mut self,
        (route_number, passable): (usize, u64),
        extent: Extent<'a>,
        cause: Cause<'a>,
        probability: f64,
        window: Option<TimeWindow>,
    ) -> Option<usize> {
        let config = self.problem.config;
        let route = &self.out.routes[route_number];
        let length = extent.end - extent.offset;
        let there = self.problem.resident.resident_bytes(route.to, route.volume, extent.path, extent.offset, length);
        let missing = length.saturating_sub(there);
        let link = route.ways[0].link;
        let want = Want {
            route: route_number,
            path: extent.path,
            offset: extent.offset,
            length,
            missing,
            cause,
            mode: self.mode(cause),
            probability,
            window,
            stall_s: config.cold_read_round_trips * link.rtt_ms / 1e3 + link.rate.seconds_for(missing),
            money_per_s: route.accelerator_per_hour / 3_600.0,
            cost_read: money(link, missing),
            passable,
        };
        if there > 0 {
            self.out.holds.push((route.to, there.min(length), want.keep_until(self.problem)));
        }
        if missing == 0 {
            return None;
        }
        self.out.wants.push(want);
        Some(self.out.wants.len() - 1)
    }

    /// How the file may go there, and its number.
    fn file(&mut self, route_number: usize, path: &'a FilePath) -> FileSlot {
        if let Some(known) = self.files.get(&(route_number, path)) {
            return *known;
        }
        let slot = FileSlot { passable: self.passable(route_number, path), number: self.files.len() as u32 };
        self.files.insert((route_number, path), slot);
        slot
    }

    fn refuse(&mut self, route_number: usize, path: &FilePath, to: &SiteId, rule: String) {
        let route = &mut self.out.routes[route_number];
        let told = route.refusals.entry(rule.clone()).or_default();
        *told += 1;
        if *told <= MAX_REFUSALS_PER_RULE + 1 {
            let path = if *told <= MAX_REFUSALS_PER_RULE { path.clone() } else { FilePath::root() };
            let (volume, at) = (route.volume.clone(), self.problem.now);
            let refusal = Refusal { volume, path, to: to.clone(), rule, by: "planner".into(), at };
            self.out.excluded.refused.push(refusal);
        }
    }
}

#[derive(Clone, Copy)]
struct Extent<'a> {
    path: &'a FilePath,
    offset: u64,
    end: u64,
}
