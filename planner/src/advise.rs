//! Where should it run? Moving the data against moving the job, as one ranked list.
//!
//! For each candidate site: how long until the data is there (from link rate, what demand takes of it, what the plan
//! in force has promised to others), what that costs, whether the rules allow it, and how long a job would stall if
//! it started now or once the data is there. Arithmetic over totals, no solver: a scheduler asks while it holds locks.

use foretide_flow::{FilePath, SiteId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::problem::WarmupFile;

/// What is to be where.
#[derive(Clone, Copy)]
pub struct AdviceRequest<'a> {
    /// Of which volume.
    pub volume: &'a VolumeId,
    /// Which files.
    pub files: &'a [WarmupFile],
    /// Where the job could run; every site with a cache, and the volume's own, if empty.
    pub candidates: &'a [SiteId],
    /// Accelerators that are free at a site, where the asker knows.
    pub free_accelerators: &'a dyn Fn(&SiteId) -> Option<u32>,
}

/// What one candidate means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// Where.
    pub site: SiteId,
    /// Whether the job can run there at all with this data.
    pub possible: bool,
    /// The rule that decided against it, if one did.
    pub rule: Option<String>,
    /// Bytes that are missing there.
    pub missing_bytes: u64,
    /// Seconds until all of it is there, with even odds.
    pub ready_p50_s: f64,
    /// Seconds until all of it is there, nine times in ten.
    pub ready_p90_s: f64,
    /// Money for bringing it there.
    pub cost: f64,
    /// Seconds that a job stalls in all if it starts now and reads everything once while it is being brought.
    pub stall_now_s: f64,
    /// Seconds that it stalls if it starts when the data is there.
    pub stall_when_ready_s: f64,
    /// Accelerators that are free there, if known.
    pub free_accelerators: Option<u32>,
    /// Money of waiting and moving, by which candidates are ranked: stall at the price of its accelerators, and links.
    pub price: f64,
    /// In words.
    pub reason: String,
}

/// A link at 70 % of its rate is the slowest that one expects nine times in ten.
const P90_RATE_SHARE: f64 = 0.7;

/// Candidates, the best first; those that are impossible last, with the reason.
pub fn advise(problem: &Problem<'_>, request: &AdviceRequest<'_>) -> Vec<Advice> {
    let all: Vec<&SiteId> = if request.candidates.is_empty() {
        let holds = |id: &SiteId| holders(problem, request.volume).any(|at| at == id);
        let able = |(id, s): &(&SiteId, &foretide_flow::Site)| s.cache.is_some() || holds(id);
        problem.topology.sites.iter().filter(able).map(|(id, _)| id).collect()
    } else {
        request.candidates.iter().collect()
    };
    let mut advice: Vec<Advice> = all.into_iter().map(|site| one(problem, request, site)).collect();
    advice.sort_by(|a, b| {
        b.possible
            .cmp(&a.possible)
            .then(no_room(a).cmp(&no_room(b)))
            .then(a.price.total_cmp(&b.price))
            .then_with(|| a.site.cmp(&b.site))
    });
    advice
}

fn no_room(advice: &Advice) -> bool {
    advice.free_accelerators == Some(0)
}

fn one(problem: &Problem<'_>, request: &AdviceRequest<'_>, site: &SiteId) -> Advice {
    let missing_bytes = missing(problem, request, site);
    let mut advice = Advice {
        site: site.clone(),
        possible: false,
        rule: None,
        missing_bytes,
        ready_p50_s: 0.0,
        ready_p90_s: 0.0,
        cost: 0.0,
        stall_now_s: 0.0,
        stall_when_ready_s: 0.0,
        free_accelerators: (request.free_accelerators)(site),
        price: 0.0,
        reason: String::new(),
    };
    match judge(problem, request, site, &mut advice) {
        Ok(()) => advice.possible = true,
        Err(why) => advice.reason = why,
    }
    advice
}

fn missing(problem: &Problem<'_>, request: &AdviceRequest<'_>, site: &SiteId) -> u64 {
    if holders(problem, request.volume).any(|at| at == site) {
        return 0;
    }
    let of = |f: &WarmupFile| {
        f.bytes.saturating_sub(problem.resident.resident_bytes(site, request.volume, &f.path, 0, f.bytes))
    };
    request.files.iter().map(of).sum()
}

/// Sites that have all of a volume, its own first.
fn holders<'a>(problem: &Problem<'a>, volume: &VolumeId) -> impl Iterator<Item = &'a SiteId> + use<'a> {
    let own = problem.topology.volumes.get(volume).map(|v| &v.at);
    let copies = own.and_then(|_| problem.supply.copies.get(volume)).into_iter().flatten();
    own.into_iter().chain(copies)
}

fn judge(problem: &Problem<'_>, request: &AdviceRequest<'_>, site: &SiteId, advice: &mut Advice) -> Result<(), String> {
    let topology = problem.topology;
    let place = topology.sites.get(site).ok_or("the site is not in the topology: add it under [site]")?;
    let own = &topology.volumes.get(request.volume).ok_or("the volume is not in the topology: add it")?.at;
    if holders(problem, request.volume).any(|at| at == site) {
        advice.reason = "the data is here: move the job, not the data".into();
        return Ok(());
    }
    if let Some((path, rule)) = forbidden(problem, request, site) {
        advice.rule = Some(rule.clone());
        return Err(format!("rule {rule} forbids {path} at this site"));
    }
    let per_hour =
        if place.accelerator_per_hour > 0.0 { place.accelerator_per_hour } else { problem.config.accelerator_per_hour };
    if advice.missing_bytes == 0 {
        advice.reason = "all of it is here".into();
        return Ok(());
    }
    // Of several holders the first with the fastest link.
    let links = holders(problem, request.volume).filter_map(|from| topology.link(from, site));
    let link = links.reduce(|best, l| if l.rate.0 > best.rate.0 { l } else { best });
    let link = link.ok_or_else(|| format!("no link from {own}, where the volume is: add one"))?;
    let from = &link.from;
    let total: u64 = request.files.iter().map(|f| f.bytes).sum();
    let room = place.cache.map_or(0, |c| c.capacity_bytes);
    if room < total {
        return Err(format!("the cache has room for {room} of {total} bytes"));
    }
    let rtt_s = link.rtt_ms / 1e3;
    let promised: u64 = problem
        .previous
        .iter()
        .flat_map(|p| &p.moves)
        .filter(|m| &m.from == from && &m.to == site)
        .map(|m| m.length)
        .sum();
    let demand: f64 =
        problem.demand.iter().filter(|d| &d.from == from && &d.to == site).map(|d| d.bytes_per_second).sum();
    let hours = problem.config.hours_leave(link, problem.now);
    let full = link.rate.bytes_per_second() * problem.config.link_share * hours;
    if full <= 0.0 {
        return Err(format!("the link from {from} is closed in these hours (planner.link_hours)"));
    }
    let rate = (full - demand).max(full * problem.config.link_share_under_demand);
    let seconds = (advice.missing_bytes + promised) as f64 / rate + rtt_s + problem.config.settle_ms / 1e3;
    advice.ready_p50_s = seconds;
    advice.ready_p90_s = seconds / P90_RATE_SHARE;
    advice.cost = advice.missing_bytes as f64 / 1e9 * link.cost_per_gb;
    // Started now, each file that is not there yet costs its round trips, and the last byte comes no sooner.
    let files = request.files.len() as f64 * advice.missing_bytes as f64 / total.max(1) as f64;
    advice.stall_now_s = seconds.max(files * problem.config.cold_read_round_trips * rtt_s);
    advice.stall_when_ready_s = 0.0;
    advice.price = advice.cost + advice.ready_p50_s * per_hour / 3_600.0;
    advice.reason = format!(
        "{:.2} GB to bring over {} from {from}, {:.2} GB promised to others before it",
        advice.missing_bytes as f64 / 1e9,
        link.rate,
        promised as f64 / 1e9
    );
    Ok(())
}

/// The first file that may not be there, and the rule. Rules without a path decide for all files at once.
fn forbidden<'r>(problem: &Problem<'_>, request: &AdviceRequest<'r>, site: &SiteId) -> Option<(&'r FilePath, String)> {
    let paths_matter = problem.rules.rules().any(|r| r.paths.is_some());
    let asked = if paths_matter { request.files.len() } else { 1 };
    request.files.iter().take(asked).find_map(|f| {
        let verdict = problem.rules.verdict(problem.topology, request.volume, &f.path, site, problem.now);
        (!verdict.allows()).then(|| (&f.path, verdict.rule.unwrap_or_else(|| "default".into())))
    })
}
