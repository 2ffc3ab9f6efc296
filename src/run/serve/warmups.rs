//! What becomes of a warm-up before anything of it is planned. Pure.

use std::collections::BTreeMap;

use foretide_flow::{Plan, Ruleset, Timestamp, Topology, Warmup, WarmupId, WarmupRequest};
use foretide_planner::WarmupFile;

/// When a warm-up that waits for others may begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// All of them have been ready.
    Now,
    /// Not yet, and why.
    Later(String),
    /// One of them can no longer be ready; why.
    Never(String),
}

/// Of the warm-ups that one waits for, as far as they are known.
pub fn turn(before: &[(&WarmupId, Option<Warmup>)]) -> Turn {
    let mut waits: Option<String> = None;
    for (id, warmup) in before {
        match warmup {
            Some(w) if w.ready_at.is_some() => {}
            Some(w) if w.state.is_over() => {
                let state = format!("{:?}", w.state).to_uppercase();
                return Turn::Never(format!("warm-up {id}, which it waits for, is {state} and was never READY"));
            }
            Some(_) => waits = waits.or_else(|| Some(format!("it waits for warm-up {id} to be READY"))),
            None => return Turn::Never(format!("warm-up {id}, which it waits for, is no longer kept")),
        }
    }
    waits.map_or(Turn::Now, Turn::Later)
}

/// Whether enough of its files may be at its site: what has to be said of it (nothing, mostly), or why it fails.
pub fn covered(
    request: &WarmupRequest,
    files: &[WarmupFile],
    rules: &Ruleset,
    topology: &Topology,
    now: Timestamp,
) -> Result<String, String> {
    let (volume, site) = (&request.volume, &request.site);
    if topology.stands_at(volume, site) {
        return Err(format!("volume {volume} stands at site {site} itself: nothing can be brought there"));
    }
    if files.is_empty() {
        let paths: Vec<String> = request.paths.iter().take(3).map(|p| format!("/{p}")).collect();
        let more = if request.paths.len() > 3 { ", …" } else { "" };
        let shape = if request.globs.is_empty() { "" } else { " that match its globs" };
        return Err(format!("volume {} has no files{shape} at {}{more}", request.volume, paths.join(", ")));
    }
    let mut forbidden: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for file in files {
        let verdict = rules.verdict(topology, &request.volume, &file.path, &request.site, now);
        if !verdict.allows() {
            let sum = forbidden.entry(verdict.rule.unwrap_or_else(|| "default".into())).or_default();
            *sum = (sum.0 + 1, sum.1 + file.bytes);
        }
    }
    let Some((rule, _)) = forbidden.first_key_value() else { return Ok(String::new()) };
    let (count, bytes) = forbidden.values().fold((0, 0), |all, some| (all.0 + some.0, all.1 + some.1));
    let all: u64 = files.iter().map(|f| f.bytes).sum();
    let why = format!("rule {rule:?} forbids {count} of its {} files at {}", files.len(), request.site);
    let left = all - bytes;
    let enough = left as f64 >= request.min_fraction.unwrap_or(1.0) * all as f64 && (left > 0 || bytes == 0);
    if enough { Ok(format!("{why}: it can be PARTIAL, not READY")) } else { Err(why) }
}

/// Why a plan that moves nothing for a request leaves it waiting, where it says so.
pub fn left_out(plan: &Plan, request: &WarmupRequest) -> Option<String> {
    let there = plan.left_out.iter().filter(|l| l.volume == request.volume && l.to == request.site);
    let mut of_it = there.filter(|l| request.paths.iter().any(|p| l.path.is_within(p) || p.is_within(&l.path)));
    of_it.next().map(|l| l.why.clone())
}

#[cfg(test)]
mod tests {
    use foretide_flow::{Effect, FilePath, LeftOut, Rule, Site, SiteId, Volume, VolumeId, WarmupState};

    use super::*;

    fn request() -> WarmupRequest {
        let (volume, site) = (VolumeId::new("v").unwrap(), SiteId::new("gpu").unwrap());
        WarmupRequest::new(volume, vec![FilePath::parse("train").unwrap()], site)
    }

    fn warmup(state: WarmupState, was_ready: bool) -> Option<Warmup> {
        let ready_at = was_ready.then_some(Timestamp(1));
        Some(Warmup { state, ready_at, ..Warmup::new("b".into(), request(), Timestamp(0)) })
    }

    #[test]
    fn one_waits_until_all_were_ready_and_no_longer_than_they_can_be() {
        let (a, b) = (WarmupId::from("a"), WarmupId::from("b"));
        let of = |first, second| turn(&[(&a, first), (&b, second)]);
        use WarmupState::{Cancelled, Degraded, Expired, Failed, Moving, Ready};
        assert_eq!(turn(&[]), Turn::Now);
        assert_eq!(of(warmup(Ready, true), warmup(Degraded, true)), Turn::Now, "it was ready");
        assert_eq!(of(warmup(Ready, true), warmup(Expired, true)), Turn::Now, "it was released");
        assert_eq!(
            of(warmup(Ready, true), warmup(Moving, false)),
            Turn::Later("it waits for warm-up b to be READY".into())
        );
        for gone in [Cancelled, Expired, Failed] {
            let Turn::Never(why) = of(warmup(Moving, false), warmup(gone, false)) else { panic!("{gone:?}") };
            assert!(why.contains("warm-up b") && why.contains("never READY"), "{why}");
        }
        assert!(matches!(of(None, warmup(Ready, true)), Turn::Never(why) if why.contains("no longer kept")));
    }

    /// It would wait for ever: nothing is planned toward where the volume stands.
    #[test]
    fn a_request_at_a_site_where_the_volume_has_come_to_stand_fails() {
        let site = |name: &str| SiteId::new(name).unwrap();
        let volume = Volume { copies: vec![site("gpu")], ..Volume::at(site("store")) };
        let topology = Topology { volumes: [(request().volume, volume)].into(), ..Topology::default() };
        let file = WarmupFile { path: FilePath::parse("train/a").unwrap(), bytes: 1 };
        let ask = |to: &str| {
            let request = WarmupRequest { site: site(to), ..request() };
            covered(&request, std::slice::from_ref(&file), &Ruleset::default(), &topology, Timestamp(0))
        };
        assert_eq!(ask("gpu").unwrap_err(), "volume v stands at site gpu itself: nothing can be brought there");
        assert!(ask("store").is_err() && ask("elsewhere").is_ok());
    }

    /// Promise C begins here: what covers nothing would be ready at once.
    #[test]
    fn promise_c_a_request_that_covers_nothing_fails_and_says_what_it_named() {
        let ask =
            |request: &WarmupRequest| covered(request, &[], &Ruleset::default(), &Topology::default(), Timestamp(0));
        assert_eq!(ask(&request()).unwrap_err(), "volume v has no files at /train");
        let globbed = WarmupRequest { globs: vec!["*.tar".into()], ..request() };
        assert!(ask(&globbed).unwrap_err().contains("that match its globs"));
    }

    #[test]
    fn promise_i_what_rules_forbid_is_counted_against_the_share_that_was_asked_for() {
        let place =
            || Site { jurisdiction: "us".into(), labels: BTreeMap::new(), cache: None, accelerator_per_hour: 0.0 };
        let (store, gpu) = (SiteId::new("store").unwrap(), SiteId::new("gpu").unwrap());
        let topology = Topology {
            sites: [(store.clone(), place()), (gpu, place())].into(),
            links: vec![],
            volumes: [(VolumeId::new("v").unwrap(), Volume::at(store))].into(),
        };
        let secret = Rule {
            name: "secret".into(),
            effect: Effect::Deny,
            volume: None,
            paths: Some("train/secret/*".into()),
            tags: BTreeMap::new(),
            sites: vec![],
            jurisdictions: vec![],
            outside_jurisdictions: vec![],
            until: None,
        };
        let rules = Ruleset::new(vec![secret], Effect::Allow, &topology).unwrap();
        let file = |path: &str, bytes| WarmupFile { path: FilePath::parse(path).unwrap(), bytes };
        let files = [file("train/a", 60), file("train/secret/b", 40)];
        let ask = |share, files: &[WarmupFile]| {
            covered(&WarmupRequest { min_fraction: share, ..request() }, files, &rules, &topology, Timestamp(0))
        };
        assert_eq!(ask(None, &files[..1]), Ok(String::new()));
        assert_eq!(ask(None, &files).unwrap_err(), "rule \"secret\" forbids 1 of its 2 files at gpu");
        assert_eq!(
            ask(Some(0.6), &files).unwrap(),
            "rule \"secret\" forbids 1 of its 2 files at gpu: it can be PARTIAL, not READY"
        );
        assert!(ask(Some(0.61), &files).is_err());
        assert!(ask(Some(0.1), &files[1..]).is_err(), "nothing of it may be there");
    }

    #[test]
    fn a_plan_says_why_it_moves_nothing_for_it() {
        let left = |path: &str, to: &str, why: &str| LeftOut {
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse(path).unwrap(),
            to: SiteId::new(to).unwrap(),
            files: 1,
            bytes: 1,
            why: why.into(),
        };
        let plan = |left_out| Plan {
            id: "p".into(),
            made_at: Timestamp(0),
            horizon: Timestamp(1),
            moves: vec![],
            refused: vec![],
            left_out,
        };
        let elsewhere = vec![left("val/1", "gpu", "x"), left("train/1", "other", "y")];
        assert_eq!(left_out(&plan(elsewhere), &request()), None);
        assert_eq!(left_out(&plan(vec![left("train/1", "gpu", "no room")]), &request()).as_deref(), Some("no room"));
        assert_eq!(left_out(&plan(vec![left("", "gpu", "no link")]), &request()).as_deref(), Some("no link"));
    }
}
