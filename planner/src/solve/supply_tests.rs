//! Several givers, limits that sites share, relays and borders on the way, bytes that stand in several files.

use std::collections::BTreeMap;
use std::time::Duration;

use foretide_flow::{
    BitsPerSecond, ChunkId, Effect, FileVersion, Link, Move, MoveCause, Plan, Priority, Rule, Ruleset, SharedChunk,
    SharedFile, SiteId, Timestamp,
};
use proptest::prelude::*;

use super::cases::{Case, NOW, at, forecast, path, read, site, topology, volume, warmup};
use crate::{RunningMove, SharedChunks, SiteLimit, Supply, diff, explain, solve, solve_in_full};

fn link(from: &str, to: &str, mbit: u64) -> Link {
    Link { from: site(from), to: site(to), rate: BitsPerSecond(mbit * 1_000_000), rtt_ms: 20.0, cost_per_gb: 0.0 }
}

/// A site with a cache like the others.
fn add_site(case: &mut Case, name: &str) {
    let like = case.topology.sites[&site("gpu-0")].clone();
    case.topology.sites.insert(site(name), like);
}

fn rule(name: &str, effect: Effect, sites: &[&str]) -> Rule {
    Rule {
        name: name.into(),
        effect,
        volume: None,
        paths: None,
        tags: BTreeMap::new(),
        sites: sites.iter().map(|s| site(s)).collect(),
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    }
}

/// Files of a megabyte that are read at a site within a window.
fn wanted(name: &str, to: &str, files: u32, p10_s: f64) -> foretide_flow::Forecast {
    let reads = (0..files).map(|i| read(&format!("{i:02}"), 1_000_000, 0.9, p10_s, p10_s + 1.0)).collect();
    forecast(name, to, reads)
}

/// Three sites behind a hub; from the store to the hub a link that carries 50 files by the time they are read.
fn behind_a_hub() -> Case {
    let mut case = Case::new(topology(3, 1_000, 1 << 30));
    add_site(&mut case, "hub");
    case.topology.links = vec![link("store", "hub", 8)];
    case.topology.links.extend((0..3).map(|n| link("hub", &format!("gpu-{n}"), 1_000)));
    case.supply.relays = [site("hub")].into();
    case.forecasts = (0..3).map(|n| wanted(&format!("f{n}"), &format!("gpu-{n}"), 40, 60.0)).collect();
    case
}

/// Most bytes beyond what a rate carries that these moves ask of it between any start and any due time.
fn overload(plan: &Plan, moves: &[&Move], rate: BitsPerSecond) -> f64 {
    let starts = || moves.iter().map(|m| m.start_at.max(plan.made_at));
    let mut worst = f64::MIN;
    for from in starts() {
        for until in moves.iter().map(|m| m.due_at) {
            let within = |m: &&&Move| m.start_at.max(plan.made_at) >= from && m.due_at <= until;
            let asked: u64 = moves.iter().filter(within).map(|m| m.length).sum();
            // A read due within the first slot may be given all of that slot.
            worst = worst.max(asked as f64 - rate.bytes_per_second() * (until.since(from).as_secs_f64() + 0.1));
        }
    }
    worst
}

/// What brings the bytes of a move to the relay that gives them.
fn upstream<'p>(plan: &'p Plan, of: &Move) -> Option<&'p Move> {
    let same = |m: &&Move| (&m.volume, &m.path, m.offset, m.length) == (&of.volume, &of.path, of.offset, of.length);
    plan.moves.iter().filter(same).find(|m| m.to == of.from)
}

/// (j): behind a relay each move follows the one that brings its bytes there.
fn check_order(case: &Case, plan: &Plan) {
    let holds = |s: &SiteId| s == &site("store") || case.supply.copies.get(&volume()).is_some_and(|c| c.contains(s));
    for m in plan.moves.iter().filter(|m| !holds(&m.from)) {
        assert!(case.supply.relays.contains(&m.from), "{} gives what it does not have", m.from);
        let up = upstream(plan, m).unwrap_or_else(|| panic!("nothing brings {} to {}", m.path, m.from));
        assert!(up.due_at <= m.start_at, "{} is due at {} after it leaves", m.path, m.from);
        assert!(up.keep_until >= m.start_at, "{} is not kept at {} until it leaves", m.path, m.from);
    }
}

#[test]
fn a_second_holder_gives_what_the_first_cannot_carry() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    add_site(&mut case, "mirror");
    case.topology.links.push(link("mirror", "gpu-0", 8));
    case.forecasts = vec![wanted("f", "gpu-0", 60, 32.0)];
    let alone = case.solve();
    assert!(alone.moves.len() < 32 && alone.moves.iter().all(|m| m.from == site("store")));
    case.supply.copies.insert(volume(), vec![site("mirror")]);
    let both = case.solve();
    let by = |name: &str| both.moves.iter().filter(|m| m.from == site(name)).count();
    assert!(both.moves.len() > 55 && by("mirror") > 25 && by("store") > 25, "{} of 60", both.moves.len());
    assert!(solve(&case.problem(Some(&both))).moves.iter().zip(&both.moves).all(|(a, b)| a.from == b.from), "(f)");
    let there = case.problem(None).topology.volumes[&volume()].clone();
    assert_eq!(there.at, site("store"));
    case.forecasts = vec![wanted("f", "mirror", 1, 30.0)];
    assert!(case.solve().moves.is_empty(), "the mirror has everything");
}

/// A copy at `mirror` on a link as cheap as the source's, and nearer; wants of every kind.
fn beside_a_mirror() -> Case {
    let mut case = Case::new(topology(1, 1_000, 1 << 30));
    add_site(&mut case, "mirror");
    case.topology.links.push(link("mirror", "gpu-0", 1_000));
    case.supply.copies.insert(volume(), vec![site("mirror")]);
    case.forecasts = vec![wanted("f", "gpu-0", 20, 32.0)];
    let files = [("w/open", 1_000_000), ("w/secret", 1_000_000)];
    case.warmups = vec![warmup("soon", "gpu-0", None, &files), warmup("late", "gpu-0", Some(at(600.0)), &[("l", 9)])];
    case
}

fn given_by(plan: &Plan, name: &str) -> usize {
    plan.moves.iter().filter(|m| m.from == site(name)).count()
}

#[test]
fn of_holders_that_cost_the_same_the_nearer_gives() {
    let mut case = beside_a_mirror();
    let plan = case.solve();
    assert_eq!((plan.moves.len(), given_by(&plan, "mirror")), (23, 23));
    assert!(explain(&plan, &path("w/open")).contains("from mirror to gpu-0"));
    case.topology.links[1].rtt_ms = 160.0;
    assert_eq!(given_by(&case.solve(), "store"), 23);
    let next = solve(&case.problem(Some(&plan)));
    assert_eq!(given_by(&next, "mirror"), 23, "(f): of equal ones that of the plan before");
    case.supply.copies.clear();
    let without = solve(&case.problem(Some(&plan)));
    assert_eq!(given_by(&without, "store"), 23, "nobody at the mirror gives any more");
    let ids = |plan: &Plan| plan.moves.iter().map(|m| m.id.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids(&without), ids(&plan), "the moves are the same ones");
}

/// (d): who gives a file must be allowed to have it, as the source always is.
#[test]
fn d_a_copy_gives_nothing_that_a_rule_forbids_at_its_site() {
    let mut case = beside_a_mirror();
    let secret = Rule { paths: Some("w/secret".into()), ..rule("secret", Effect::Deny, &["mirror"]) };
    let ruled = |rule: Rule, case: &Case| Ruleset::new(vec![rule], Effect::Allow, &case.topology).unwrap();
    case.rules = ruled(secret, &case);
    let plan = case.solve();
    let by_source: Vec<_> = plan.moves.iter().filter(|m| m.from == site("store")).map(|m| &m.path).collect();
    assert_eq!((by_source, plan.refused.len()), (vec![&path("w/secret")], 0), "the source's way is open to it");
    for effect in [Effect::Deny, Effect::Transit] {
        case.rules = ruled(rule("all", effect, &["mirror"]), &case);
        let plan = case.solve();
        assert_eq!((given_by(&plan, "store"), plan.refused.len()), (23, 0), "{effect:?}: a copy rests where it is");
    }
    case.topology.links.remove(0);
    let plan = case.solve();
    assert!(plan.moves.is_empty());
    assert!(plan.refused.iter().all(|r| r.to == site("mirror") && r.rule == "all") && !plan.refused.is_empty());
}

#[test]
fn the_cheaper_holder_gives_first() {
    let mut case = Case::new(topology(1, 1_000, 1 << 30));
    add_site(&mut case, "mirror");
    case.topology.links[0].cost_per_gb = 0.1;
    case.topology.links.push(link("mirror", "gpu-0", 8));
    case.supply.copies.insert(volume(), vec![site("mirror")]);
    case.forecasts = vec![wanted("f", "gpu-0", 60, 32.0)];
    case.warmups = vec![warmup("w", "gpu-0", Some(at(600.0)), &[("w", 1_000_000)])];
    let plan = case.solve();
    let cheap = plan.moves.iter().filter(|m| m.from == site("mirror"));
    assert_eq!(plan.moves.len(), 61);
    assert!((20..40).contains(&cheap.clone().count()) && cheap.clone().all(|m| m.cost == 0.0));
    assert!(cheap.clone().any(|m| m.priority == Priority::Deadline));
}

/// (b) for what sites share: four links leave the store, whose uplink is that of one.
#[test]
fn b_sites_share_what_leaves_and_enters() {
    let mut case = Case::new(topology(4, 8, 1 << 30));
    case.forecasts = (0..4).map(|n| wanted(&format!("f{n}"), &format!("gpu-{n}"), 40, 30.0)).collect();
    let free = case.solve().moves.len();
    let limit = |egress_bits_per_s, ingress_bits_per_s, name| SiteLimit {
        site: site(name),
        egress_bits_per_s,
        ingress_bits_per_s,
    };
    case.config.site_limits = vec![limit(Some(8_000_000), None, "store")];
    let solution = solve_in_full(&case.problem(None));
    let plan = &solution.plan;
    assert!(free > 100 && (20..32).contains(&plan.moves.len()), "{free}, {}", plan.moves.len());
    assert!(overload(plan, &plan.moves.iter().collect::<Vec<_>>(), BitsPerSecond(8_000_000)) <= 1.0);
    assert!(plan.left_out.iter().any(|l| l.why.contains("link")));
    assert!(solution.proof.gap() < 0.3, "four sites compete for one uplink: {:?}", solution.proof);
    case.config.site_limits = vec![limit(None, Some(4_000_000), "gpu-1")];
    let into = |plan: &Plan, name: &str| plan.moves.iter().filter(|m| m.to == site(name)).count();
    let half = case.solve();
    assert!(into(&half, "gpu-1") * 2 <= into(&half, "gpu-0") + 2, "{} {}", into(&half, "gpu-1"), into(&half, "gpu-0"));
}

/// What three sites behind a narrow link want crosses it once.
#[test]
fn j_what_three_sites_want_crosses_a_narrow_link_once() {
    let case = behind_a_hub();
    let solution = solve_in_full(&case.problem(None));
    let plan = &solution.plan;
    let to = |name: &str| plan.moves.iter().filter(|m| m.to == site(name)).collect::<Vec<_>>();
    assert_eq!(to("hub").len(), 40, "once: {:?}", plan.left_out);
    assert!((0..3).all(|n| to(&format!("gpu-{n}")).len() == 40));
    check_order(&case, plan);
    assert!(overload(plan, &to("hub"), BitsPerSecond(8_000_000)) <= 1.0);
    assert!(to("hub").iter().all(|m| m.reason.starts_with("on its way to gpu-0, gpu-1, gpu-2")));
    assert!(solution.proof.gap() < 1e-9, "all is served");
    assert_eq!(solve_in_full(&case.problem(None)), solution, "(a)");
}

/// Where a relay's own readers want the same, one crossing serves them and the others, whoever comes first by name.
#[test]
fn j_a_reader_passes_on_what_it_reads() {
    for reader in ["gpu-0", "gpu-2"] {
        let mut case = behind_a_hub();
        case.topology.links = vec![link("store", reader, 8)];
        case.topology.links.extend(
            (0..3)
                .map(|n| format!("gpu-{n}"))
                .filter(|n| n != reader)
                .flat_map(|n| [link(reader, &n, 1_000), link("store", &n, 8)]),
        );
        case.config.site_limits =
            vec![SiteLimit { site: site("store"), egress_bits_per_s: Some(8_000_000), ingress_bits_per_s: None }];
        case.supply.relays = [site(reader)].into();
        let plan = case.solve();
        assert_eq!(plan.moves.len(), 120, "{:?}", plan.left_out);
        assert_eq!(plan.moves.iter().filter(|m| m.from == site("store")).count(), 40);
        check_order(&case, &plan);
    }
}

#[test]
fn j_warm_ups_follow_each_other_too() {
    let mut case = behind_a_hub();
    case.forecasts.clear();
    let files: Vec<(String, u64)> = (0..20).map(|n| (format!("w/{n:02}"), 1_000_000)).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|(p, b)| (p.as_str(), *b)).collect();
    for need_by in [Some(at(40.0)), None, Some(at(5.0))] {
        case.warmups = (0..3).map(|n| warmup(&format!("w{n}"), &format!("gpu-{n}"), need_by, &files)).collect();
        let plan = case.solve();
        assert_eq!(plan.moves.iter().filter(|m| m.from == site("store")).count(), 20, "{need_by:?}");
        assert_eq!(plan.moves.len(), 80);
        check_order(&case, &plan);
        assert!(plan.moves.iter().all(|m| matches!(m.cause, MoveCause::Warmup { .. })));
    }
}

/// (f): moments later, with some of it under way, the hub goes on with what it was told.
#[test]
fn f_a_plan_over_a_relay_is_stable() {
    let mut case = behind_a_hub();
    // With half of the link to spare: on a full one each byte that is carried lets others move up.
    case.forecasts = (0..3).map(|n| wanted(&format!("f{n}"), &format!("gpu-{n}"), 20, 60.0)).collect();
    let first = case.solve();
    let running = |m: &Move| crate::RunningMove { planned: m.clone(), left_bytes: 400_000 };
    case.running = first.moves.iter().filter(|m| m.to == site("hub")).take(1).map(running).collect();
    case.now = at(0.05);
    let changes = diff(&first, &solve(&case.problem(Some(&first))));
    assert!(changes.added.is_empty() && changes.removed.is_empty(), "{changes}");
    assert!(changes.changed.len() * 20 <= first.moves.len(), "{changes}");
}

/// (d), promise I: what may pass is passed on, what may not even pass is refused, and the rule and the place are named.
#[test]
fn d_data_passes_only_where_it_may() {
    let mut case = behind_a_hub();
    let with = |case: &mut Case, rules: Vec<Rule>| {
        case.rules = Ruleset::new(rules, Effect::Allow, &case.topology).unwrap();
        case.solve()
    };
    let through = with(&mut case, vec![rule("through", Effect::Transit, &["hub"])]);
    assert_eq!(through.moves.len(), 160, "the hub passes on");
    case.forecasts.push(wanted("h", "hub", 40, 90.0));
    let rests = with(&mut case, vec![rule("through", Effect::Transit, &["hub"])]);
    assert_eq!(rests.refused.iter().filter(|r| r.rule == "through" && r.to == site("hub")).count(), 40);
    assert_eq!(rests.moves.len(), 160, "what may not rest at the hub still passes");
    case.forecasts.pop();
    let closed = with(&mut case, vec![rule("closed", Effect::Deny, &["hub"])]);
    assert!(closed.moves.is_empty());
    assert!(!closed.refused.is_empty() && closed.refused.iter().all(|r| r.rule == "closed" && r.to == site("hub")));
    case.supply.relays_keep = true;
    let kept = with(&mut case, vec![rule("through", Effect::Transit, &["hub"])]);
    assert!(
        kept.moves.is_empty() && kept.refused.iter().all(|r| r.rule == "through"),
        "a hub that keeps what it passes on"
    );
    case.supply.relays_keep = false;
    let no_rest = with(&mut case, vec![rule("no-rest", Effect::Transit, &["gpu-1"])]);
    assert!(no_rest.moves.iter().all(|m| m.to != site("gpu-1")));
    assert!(no_rest.refused.iter().all(|r| r.rule == "no-rest" && r.to == site("gpu-1")));
}

struct HubHasIt;
impl crate::Residency for HubHasIt {
    fn resident_bytes(
        &self,
        at: &SiteId,
        _: &foretide_flow::VolumeId,
        _: &foretide_flow::FilePath,
        _: u64,
        length: u64,
    ) -> u64 {
        if at == &site("hub") { length } else { 0 }
    }
    fn held_bytes(&self, _: &SiteId) -> u64 {
        0
    }
}

#[test]
fn what_a_relay_has_is_not_brought_there_again() {
    let mut case = behind_a_hub();
    case.resident = std::sync::Arc::new(HubHasIt);
    let plan = case.solve();
    assert_eq!(plan.moves.len(), 120);
    assert!(plan.moves.iter().all(|m| m.from == site("hub")));
}

/// Files of ten chunks of 100 kB, of which the first `shared` are the same in all.
fn sharing(files: u32, shared: u8) -> Supply {
    let chunk = |n: u8| SharedChunk { id: ChunkId([n; 32]), offset: u64::from(n) * 100_000, length: 100_000 };
    let (volume, version) = (volume(), FileVersion("1".into()));
    let file = |n: u32| SharedFile {
        volume: volume.clone(),
        path: path(&format!("{n:02}")),
        version: version.clone(),
        chunks: (0..shared).map(chunk).collect(),
    };
    let files: Vec<SharedFile> = (0..files).map(file).collect();
    Supply { shared: SharedChunks::of(&files).into(), ..Supply::default() }
}

/// (e): what stands in several files crosses once.
#[test]
fn e_shared_bytes_cross_once() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    case.topology.links[0].cost_per_gb = 0.01;
    case.forecasts = vec![wanted("f", "gpu-0", 60, 32.0)];
    let apart = case.solve();
    assert!(apart.moves.len() < 32);
    case.supply = sharing(60, 6);
    let solution = solve_in_full(&case.problem(None));
    assert_eq!(solution.plan.moves.len(), 60, "0.6 MB once and 0.4 MB each fit: {:?}", solution.plan.left_out);
    let money: f64 = solution.plan.moves.iter().map(|m| m.cost).sum();
    assert!((money - (0.6 + 60.0 * 0.4) / 1e3 * 0.01).abs() < 1e-9, "{money}: only what crosses is paid");
    let (first, others) = solution.plan.moves.split_first().expect("there are 60");
    assert!(first.shared_bytes == 0 && others.iter().all(|m| m.shared_bytes == 600_000), "the first brings it");
    let told = crate::explain(&solution.plan, &others[0].path);
    assert!(told.contains("600.0 kB of it are there in other files or come with them"), "{told}");
    assert!(solution.proof.worth <= solution.proof.bound);
    case.supply = sharing(60, 10);
    case.topology.links[0].rate = BitsPerSecond(300_000);
    assert_eq!(case.solve().moves.len(), 60, "copies of a file that fits once");
    assert!(case.solve().moves.len() > Case { supply: Supply::default(), ..case }.solve().moves.len());
}

/// (e): found with real agents: the one that counts on another was pulled forward to before it, and brought everything.
#[test]
fn e_what_counts_on_another_move_does_not_start_before_it() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    case.supply = sharing(3, 6);
    for need_by in [None, Some(at(600.0))] {
        case.warmups = vec![warmup("w", "gpu-0", need_by, &[("00", 1_000_000), ("01", 1_000_000), ("02", 1_000_000)])];
        let plan = case.solve();
        let (first, others) = plan.moves.split_first().expect("there are three");
        assert!(first.shared_bytes == 0 && others.iter().all(|m| m.shared_bytes == 600_000), "{plan:?}");
        let comes = first.start_at + Duration::from_millis(900);
        assert!(others.iter().all(|m| m.start_at >= comes), "1 MB at 8 Mbit/s takes a second: {plan:?}");
    }
}

/// (e): nor do moves that run already count shared bytes twice.
#[test]
fn e_shared_bytes_of_moves_that_run_cross_once() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    case.topology.links[0].cost_per_gb = 0.01;
    case.warmups = vec![warmup("w", "gpu-0", Some(at(600.0)), &[("00", 1_000_000), ("01", 1_000_000)])];
    case.supply = sharing(2, 6);
    let told = case.solve();
    let running = |m: &Move| RunningMove { planned: m.clone(), left_bytes: m.length };
    case.running = told.moves.iter().map(running).collect();
    let plan = solve(&case.problem(Some(&told)));
    assert!(plan.moves != told.moves, "they are due when they arrive");
    let money: f64 = plan.moves.iter().map(|m| m.cost).sum();
    assert!((money - 1.4 / 1e3 * 0.01).abs() < 1e-9, "{money}");
}

/// A cache that holds what is shared once holds it for the longest.
#[test]
fn e_shared_bytes_take_room_once_and_stay_for_the_last() {
    let mut case = Case::new(topology(1, 1_000, 2_500_000));
    case.config.forecast_cache_share = 1.0;
    case.forecasts = vec![wanted("f", "gpu-0", 4, 32.0)];
    assert_eq!(case.solve().moves.len(), 2);
    case.supply = sharing(4, 6);
    assert_eq!(case.solve().moves.len(), 4, "0.6 + 4 x 0.4 MB");
    // Another that needs the room later, while the shared bytes are still in use.
    let late = read("zz", 900_000, 0.9, 50.0, 51.0);
    case.forecasts[0].reads[3].window.p90 = at(60.0);
    case.forecasts.push(forecast("late", "gpu-0", vec![late]));
    assert_eq!(case.solve().moves.len(), 5);
    case.forecasts[1].reads[0].length = 1_700_000;
    assert_eq!(case.solve().moves.len(), 4, "0.6 + 0.4 MB are there until 60 s");
}

/// Clocks that disagree: what is told of times there is not believed, and said; what was asked for moves at once.
#[test]
fn a_site_whose_clock_is_wrong_is_left_out_and_said() {
    let mut case = Case::new(topology(2, 1_000, 1 << 30));
    case.forecasts = vec![wanted("f", "gpu-0", 3, 30.0), wanted("g", "gpu-1", 3, 30.0)];
    case.warmups = vec![warmup("w", "gpu-0", Some(at(900.0)), &[("w", 1_000)])];
    for (ahead_s, says, start) in [(7_200.0, "7200 s ahead", NOW), (-3_600.0, "3600 s behind", at(-3_600.0))] {
        case.brakes.clocks = [(site("gpu-0"), ahead_s)].into();
        let plan = case.solve();
        let here: Vec<_> = plan.moves.iter().filter(|m| m.to == site("gpu-0")).collect();
        assert_eq!((here.len(), here[0].start_at), (1, start), "by its own clock it starts at once");
        assert_eq!(plan.moves.len(), 4);
        assert!(plan.left_out.iter().any(|l| l.files == 3 && l.why.contains(says) && l.why.contains("set it")));
    }
}

prop_compose! {
    /// A network of two holders and four sites, any of which may pass on; any links, limits, rules and wants.
    fn any_network()(
        links in proptest::collection::vec((0usize..6, 0usize..4, 1u64..60, 0.0f64..0.05), 1..14),
        relays in proptest::collection::vec(any::<bool>(), 4),
        has_copy in any::<bool>(),
        egress in proptest::option::of(1u64..40),
        ingress in proptest::option::of(1u64..40),
        cache in 3u64..60,
        rules in proptest::collection::vec((0usize..4, 0u8..2), 0..3),
        wants in proptest::collection::vec((0usize..4, 0u32..8, 1u64..3_000_000, 0.0f64..200.0, 0.2f64..1.0, any::<bool>()), 1..40),
        mirror_is_closed in any::<bool>(),
    ) -> Case {
        let mut case = Case::new(topology(4, 8, cache * 1_000_000));
        add_site(&mut case, "mirror");
        let names = ["gpu-0", "gpu-1", "gpu-2", "gpu-3", "store", "mirror"];
        case.topology.links.clear();
        for (from, to, rate, cost_per_gb) in links.into_iter().filter(|l| l.0 != l.1) {
            if case.topology.link(&site(names[from]), &site(names[to])).is_none() {
                case.topology.links.push(Link { cost_per_gb, ..link(names[from], names[to], rate) });
            }
        }
        case.supply.relays = (0..4).filter(|n| relays[*n]).map(|n| site(names[n])).collect();
        if has_copy {
            case.supply.copies.insert(volume(), vec![site("mirror")]);
        }
        let bits = |mbit: Option<u64>| mbit.map(|m| m * 1_000_000);
        case.config.site_limits = vec![
            SiteLimit { site: site("store"), egress_bits_per_s: bits(egress), ingress_bits_per_s: None },
            SiteLimit { site: site("gpu-1"), egress_bits_per_s: bits(egress), ingress_bits_per_s: bits(ingress) },
        ];
        let written = rules.into_iter().enumerate().map(|(n, (at, effect))| {
            rule(&format!("r{n}"), [Effect::Deny, Effect::Transit][effect as usize], &[names[at]])
        });
        let closed = Rule { paths: Some("d/f[0-3]".into()), ..rule("closed", Effect::Deny, &["mirror"]) };
        let (mut sound, topology) = (Vec::new(), case.topology.clone());
        for rule in written.chain(mirror_is_closed.then_some(closed)) {
            sound.push(rule);
            if Ruleset::new(sound.clone(), Effect::Allow, &topology).is_err() {
                sound.pop();
            }
        }
        case.rules = Ruleset::new(sound, Effect::Allow, &topology).unwrap();
        for (n, (to, file, length, p10, p, asked)) in wants.into_iter().enumerate() {
            let name = format!("d/f{file}");
            if asked {
                let by = (n % 3 > 0).then(|| at(p10));
                case.warmups.push(warmup(&format!("w{n}"), names[to], by, &[(name.as_str(), length)]));
            } else {
                case.forecasts.push(forecast(&format!("f{n}"), names[to], vec![read(&name, length, p, p10, p10 + 9.0)]));
            }
        }
        case
    }
}

/// (b), (c) on a plan alone.
fn check_limits(case: &Case, plan: &Plan) {
    let select = |of: &dyn Fn(&Move) -> bool| plan.moves.iter().filter(|m| of(m)).collect::<Vec<&Move>>();
    for l in &case.topology.links {
        assert!(overload(plan, &select(&|m| (&m.from, &m.to) == (&l.from, &l.to)), l.rate) <= 1.0, "(b) {l:?}");
    }
    for limit in &case.config.site_limits {
        if let Some(bits) = limit.egress_bits_per_s {
            assert!(overload(plan, &select(&|m| m.from == limit.site), BitsPerSecond(bits)) <= 1.0, "(b) {limit:?}");
        }
        if let Some(bits) = limit.ingress_bits_per_s {
            assert!(overload(plan, &select(&|m| m.to == limit.site), BitsPerSecond(bits)) <= 1.0, "(b) {limit:?}");
        }
    }
    for (name, place) in &case.topology.sites {
        let here = select(&|m| &m.to == name);
        let capacity = place.cache.map_or(0, |c| c.capacity_bytes);
        let held = |t: Timestamp| -> u64 {
            here.iter().filter(|h| h.due_at <= t && h.keep_until >= t).map(|h| h.length).sum()
        };
        assert!(here.iter().all(|m| held(m.due_at) <= capacity), "(c) {name}");
    }
}

/// (d), (e), (h), (j) on a plan alone.
fn check_moves(case: &Case, plan: &Plan) {
    check_order(case, plan);
    for m in &plan.moves {
        let verdict = case.rules.verdict(&case.topology, &m.volume, &m.path, &m.to, plan.made_at);
        let passes = m.reason.starts_with("on its way to");
        assert!(if passes { verdict.lets_pass() } else { verdict.allows() }, "(d) {m:?}");
        let at_giver = case.rules.verdict(&case.topology, &m.volume, &m.path, &m.from, plan.made_at);
        assert!(at_giver.lets_pass() && (m.from != site("mirror") || at_giver.allows()), "(d) {m:?}");
    }
    let mut extents: Vec<_> = plan.moves.iter().map(|m| (&m.to, &m.path, m.offset, m.offset + m.length)).collect();
    extents.sort();
    assert!(extents.windows(2).all(|w| (w[0].0, w[0].1) != (w[1].0, w[1].1) || w[0].3 <= w[1].2), "(e)");
    let start = |m: &Move| m.start_at.max(plan.made_at);
    assert!(plan.moves.windows(2).all(|w| start(&w[0]) <= start(&w[1])), "(h)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every property, over any network; and of the plan a moment later, which keeps what it can.
    #[test]
    fn every_property_holds_over_any_network(mut case in any_network()) {
        let solution = solve_in_full(&case.problem(None));
        check_limits(&case, &solution.plan);
        check_moves(&case, &solution.plan);
        prop_assert!(solution.proof.worth <= solution.proof.bound + 1e-9);
        prop_assert_eq!(&solve_in_full(&case.problem(None)), &solution, "(a)");
        case.now = at(0.4);
        let next = solve(&case.problem(Some(&solution.plan)));
        check_moves(&case, &next);
    }

    /// The bound holds for what more givers make possible: with fewer ways no plan is worth more.
    #[test]
    fn the_bound_holds_for_plans_with_fewer_ways(mut case in any_network()) {
        case.warmups.clear();
        let bound = solve_in_full(&case.problem(None)).proof.bound;
        let fewer = Case { supply: Supply::default(), ..case };
        prop_assert!(solve_in_full(&fewer.problem(None)).proof.worth <= bound * (1.0 + 1e-6) + 1e-9);
    }
}
