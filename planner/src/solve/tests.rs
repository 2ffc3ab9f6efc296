//! Properties (a) to (h) of the README, each test by its letter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foretide_flow::{
    BitsPerSecond, Effect, FilePath, Link, Mode, MoveCause, PredictedRead, Priority, Rule, Ruleset, SiteId, VolumeId,
};
use proptest::prelude::*;

use super::cases::{Case, NOW, at, forecast, path, read, site, topology, volume, warmup};
use crate::problem::{DemandLoad, RunningMove, WarmupFile};
use crate::{AdviceRequest, Brakes, Residency, advise, diff, explain, show, solve, solve_in_full};

#[test]
fn a_read_within_seconds_starts_now_and_the_soonest_goes_first() {
    let mut case = Case::new(topology(1, 1000, 1 << 30));
    let reads = (0..50).rev().map(|i| read(&format!("{i:03}"), 1_000_000, 0.9, 1.0 + i as f64 * 0.1, 9.0)).collect();
    case.forecasts = vec![forecast("f", "gpu-0", reads)];
    let plan = case.solve();
    assert_eq!(plan.moves.len(), 50);
    assert_eq!(plan.moves[0].start_at, NOW);
    assert!(plan.moves.windows(2).all(|w| w[0].path < w[1].path), "soonest first");
}

#[test]
fn a_recurrence_is_there_before_its_first_decile() {
    let mut case = Case::new(topology(1, 1000, 1 << 31));
    let reads = (0..4000).map(|i| read(&format!("{i:04}"), 100_000, 0.9, 20.0 + i as f64 * 0.005, 50.0)).collect();
    case.forecasts = vec![forecast("f", "gpu-0", reads)];
    let plan = case.solve();
    assert_eq!(plan.moves.len(), 4000, "{:?}", plan.left_out.first());
    assert!(plan.moves.iter().all(|m| m.due_at == at(20.0 + m.path.to_string().parse::<f64>().unwrap() * 0.005)));
}

#[test]
fn what_is_far_away_waits_and_leaves_the_link_to_others() {
    let mut case = Case::new(topology(1, 1000, 1 << 31));
    case.forecasts = vec![forecast("f", "gpu-0", vec![read("a", 1_000_000, 0.9, 7_000.0, 8_000.0)])];
    let start = case.solve().moves[0].start_at;
    assert!(start > at(6_000.0) && start < at(7_000.0), "{start:?}");
}

#[test]
fn warmups_go_before_forecasts_and_the_earliest_deadline_first() {
    let mut case = Case::new(topology(1, 8, 1 << 30)); // 0.95 MB/s for plans
    case.warmups = vec![
        warmup("later", "gpu-0", Some(at(60.0)), &[("w/later", 25_000_000)]),
        warmup("sooner", "gpu-0", Some(at(30.0)), &[("w/sooner", 20_000_000)]),
    ];
    case.forecasts = vec![forecast("f", "gpu-0", vec![read("f", 30_000_000, 1.0, 50.0, 55.0)])];
    let plan = case.solve();
    let names: Vec<_> = plan.moves.iter().map(|m| m.path.to_string()).collect();
    assert_eq!(names, ["w/sooner", "w/later"]);
    assert!(plan.moves.iter().all(|m| m.priority == Priority::Deadline));
    assert!(plan.left_out[0].why.contains("link"), "{:?}", plan.left_out);
}

#[test]
fn a_deadline_in_the_past_is_planned_at_once_and_said() {
    let mut case = Case::new(topology(1, 1000, 1 << 30));
    case.warmups = vec![warmup("w", "gpu-0", Some(at(-60.0)), &[("a", 1_000)])];
    let plan = case.solve();
    assert_eq!(plan.moves[0].start_at, NOW);
    assert!(plan.moves[0].reason.contains("passed 60 s ago"), "{}", plan.moves[0].reason);
}

#[test]
fn a_deadline_that_the_link_cannot_meet_is_planned_and_said() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    case.warmups = vec![warmup("w", "gpu-0", Some(at(10.0)), &[("a", 50_000_000)])];
    let plan = case.solve();
    assert_eq!(plan.moves[0].start_at, NOW);
    assert!(plan.moves[0].reason.contains("late"), "{}", plan.moves[0].reason);
}

/// (d), promise I.
#[test]
fn d_no_move_crosses_a_forbidden_border_and_the_rule_is_named() {
    let mut case = Case::new(topology(2, 1000, 1 << 30));
    let deny = Rule {
        name: "patients-stay".into(),
        effect: Effect::Deny,
        volume: None,
        paths: Some("patients/**".into()),
        tags: BTreeMap::new(),
        sites: vec![site("gpu-1")],
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    };
    case.rules = Ruleset::new(vec![deny], Effect::Allow, &case.topology).unwrap();
    let reads = || vec![read("patients/1", 10, 0.9, 5.0, 9.0), read("public/1", 10, 0.9, 5.0, 9.0)];
    case.forecasts = vec![forecast("a", "gpu-0", reads()), forecast("b", "gpu-1", reads())];
    case.warmups = vec![warmup("w", "gpu-1", None, &[("patients/2", 7)])];
    let plan = case.solve();
    assert_eq!(plan.moves.len(), 3);
    assert!(plan.moves.iter().all(|m| m.to == site("gpu-0") || !m.path.is_within(&path("patients"))));
    assert_eq!(plan.refused.len(), 2);
    assert!(plan.refused.iter().all(|r| r.rule == "patients-stay" && r.by == "planner"));
}

#[test]
fn of_two_requests_that_do_not_both_fit_the_higher_priority_is_in_time() {
    let mut case = Case::new(topology(1, 100, 1 << 40));
    let both = [("first", 30.0, "a"), ("urgent", 60.0, "b")];
    case.warmups = both.map(|(name, by, file)| warmup(name, "gpu-0", Some(at(by)), &[(file, 250_000_000)])).into();
    let due = |case: &Case, file: &str| case.solve().moves.iter().find(|m| m.path == path(file)).unwrap().due_at;
    assert!(due(&case, "a") <= at(30.0) && due(&case, "b") <= at(60.0), "both fit: the earlier deadline goes first");
    case.warmups.iter_mut().for_each(|w| w.request.need_by = Some(at(30.0)));
    assert!(due(&case, "a") <= at(30.0) && due(&case, "b") > at(30.0));
    case.warmups[1].request.priority = 1;
    assert!(due(&case, "b") <= at(30.0) && due(&case, "a") > at(30.0));
}

#[test]
fn what_is_left_out_says_why() {
    let mut t = topology(2, 1000, 1_000_000);
    t.links.retain(|l| l.to != site("gpu-1"));
    let mut case = Case::new(t);
    let reads = vec![
        read("rare/1", 10, 0.01, 5.0, 9.0),
        read("rare/2", 10, 0.01, 5.0, 9.0),
        read("big", 2_000_000, 0.9, 5.0, 9.0),
        read("late", 10, 0.9, 200_000.0, 210_000.0),
    ];
    case.forecasts = vec![forecast("a", "gpu-0", reads), forecast("b", "gpu-1", vec![read("x", 1, 0.9, 5.0, 9.0)])];
    case.warmups = vec![warmup("w", "mars", None, &[("y", 7)])];
    let plan = case.solve();
    assert!(plan.moves.is_empty());
    let why = |of: &str| plan.left_out.iter().find(|l| l.path == path(of)).map(|l| l.why.clone()).unwrap_or_default();
    assert!(why("rare").contains("min_probability"), "{:?}", plan.left_out);
    assert!(why("big").contains("no room"));
    assert!(why("late").contains("horizon_s"));
    assert!(why("x").contains("no link from store"));
    assert!(why("y").contains("not in the topology"));
    assert_eq!(plan.left_out.iter().find(|l| l.path == path("rare")).unwrap().files, 2);
    assert!(show(&plan).contains("no room") && explain(&plan, &path("rare/1")).contains("min_probability"));
}

#[test]
fn a_move_that_costs_more_than_it_saves_is_left_out() {
    let mut case = Case::new(topology(1, 1000, 1 << 40));
    case.topology.links[0].cost_per_gb = 1.0;
    // Surely read: prefetching it costs no more than reading it. Rarely read: nine in ten are paid for nothing.
    let reads = vec![read("sure", 1 << 30, 1.0, 60.0, 90.0), read("rare", 1 << 30, 0.1, 60.0, 90.0)];
    case.forecasts = vec![forecast("a", "gpu-0", reads)];
    let plan = case.solve();
    assert_eq!(plan.moves.iter().map(|m| m.path.to_string()).collect::<Vec<_>>(), ["sure"]);
    assert!(plan.left_out[0].why.contains("costs more"));
}

/// Promise H: the switch and the mute hold forecasts back, never what was asked for.
#[test]
fn brakes_stop_forecasts_and_not_warmups() {
    let mut case = Case::new(topology(1, 1000, 1 << 30));
    case.forecasts = vec![forecast("a", "gpu-0", vec![read("x", 10, 0.9, 5.0, 9.0)])];
    case.warmups = vec![warmup("w", "gpu-0", None, &[("y", 7)])];
    case.brakes.prefetch_off = true;
    let off = case.solve();
    assert_eq!(off.moves.len(), 1);
    assert!(off.left_out[0].why.contains("switched off"));
    case.brakes = Brakes { muted: [("train".into(), "wasted 3 GB".into())].into(), ..Brakes::default() };
    assert!(case.solve().left_out[0].why.contains("wasted 3 GB"));
}

/// Modes hold back by site and workload; what they hold back is proposed, and takes nothing from what is moved.
#[test]
fn what_a_mode_holds_back_is_proposed_and_not_moved() {
    let mut case = Case::new(topology(2, 8, 1 << 30));
    let reads = |name: &str| (0..30).map(|i| read(&format!("{name}/{i:02}"), 100_000, 0.9, 3.0, 4.0)).collect();
    case.forecasts = vec![forecast("a", "gpu-0", reads("a")), forecast("b", "gpu-1", reads("b"))];
    let rule = |site, mode| crate::ModeRule { site, workload: None, mode };
    case.config.modes = vec![rule(Some(site("gpu-0")), Mode::Shadow)];
    let solution = solve_in_full(&case.problem(None));
    assert!(!solution.proposed.is_empty() && solution.proposed.iter().all(|m| m.to == site("gpu-0")));
    assert!(!solution.plan.moves.is_empty() && solution.plan.moves.iter().all(|m| m.to == site("gpu-1")));
    assert!(solution.plan.left_out.iter().any(|l| l.why.contains("shadow") && l.to == site("gpu-0")));
    case.config.modes = vec![];
    let enforced = case.solve();
    let moved = |p: &foretide_flow::Plan, to: &str| p.moves.iter().filter(|m| m.to == site(to)).count();
    assert_eq!(moved(&enforced, "gpu-0"), solution.proposed.len(), "a proposal is what enforce would move");
    assert_eq!(moved(&enforced, "gpu-1"), solution.plan.moves.len());
    case.config.mode = Mode::Advise;
    case.warmups = vec![warmup("w", "gpu-0", None, &[("w", 1_000)])];
    let advised = case.solve();
    assert!(advised.moves.iter().all(|m| matches!(m.cause, MoveCause::Warmup { .. })) && advised.moves.len() == 1);
}

#[test]
fn a_budget_stops_forecasts_and_says_which() {
    let mut case = Case::new(topology(2, 1000, 1 << 30));
    let reads = |name: &str| (0..10).map(|i| read(&format!("{name}/{i}"), 1_000_000, 0.9, 30.0, 60.0)).collect();
    case.forecasts = vec![forecast("a", "gpu-0", reads("a")), forecast("b", "gpu-1", reads("b"))];
    case.warmups = vec![warmup("w", "gpu-0", None, &[("w", 50_000_000)])];
    let budget = |name: &str, at: Option<&str>, bytes| crate::Budget {
        name: name.into(),
        site: at.map(site),
        workload: None,
        bytes: Some(bytes),
        money: None,
        per_s: 3_600.0,
    };
    let left = |b: crate::Budget| b.left(0, 0.0);
    case.brakes.budgets = vec![left(budget("night", Some("gpu-0"), 4_500_000)), left(budget("all", None, 12_000_000))];
    let plan = case.solve();
    let moved = |to: &str| plan.moves.iter().filter(|m| m.to == site(to) && m.priority == Priority::Background).count();
    assert_eq!((moved("gpu-0"), moved("gpu-1")), (4, 8));
    assert!(plan.left_out.iter().any(|l| l.why.contains("budget night is spent") && l.files == 6));
    assert!(plan.left_out.iter().any(|l| l.why.contains("budget all is spent") && l.files == 2));
    assert!(plan.moves.iter().any(|m| m.priority == Priority::Deadline), "what was asked for is nobody's budget");
    case.brakes.budgets = vec![left(budget("none", None, 0))];
    assert_eq!(case.solve().moves.len(), 1);
}

#[test]
fn a_link_carries_less_in_its_hours() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    let reads = (0..60).map(|i| read(&format!("{i:02}"), 1_000_000, 0.9, 30.0, 31.0)).collect();
    case.forecasts = vec![forecast("a", "gpu-0", reads)];
    let free = case.solve().moves.len();
    let hours = |to_hour, share| crate::LinkHours {
        from: None,
        to: Some(site("gpu-0")),
        from_hour: 0.0,
        to_hour,
        days: vec![],
        utc_offset_h: 0.0,
        share,
    };
    case.config.link_hours = vec![hours(24.0, 0.5)];
    let half = case.solve().moves.len();
    assert!(half < free && half * 3 > free, "{half} of {free}");
    case.config.link_hours = vec![hours(24.0, 0.0)];
    assert!(case.solve().moves.is_empty());
}

/// Four hundred reads over a link that carries less than half of them, into a cache that is too small too.
fn crowded() -> Case {
    let mut case = Case::new(topology(1, 8, 40_000_000));
    case.config.forecast_cache_share = 1.0;
    let mut reads = Vec::new();
    for i in 0..400u32 {
        let from = 4.0 + f64::from(i * 7919 % 100);
        let length = 100_000 + u64::from(i * 104_729 % 900_000);
        let stay = f64::from(i * 31 % 97);
        reads.push(read(&format!("{i:03}"), length, 0.3 + f64::from(i % 7) / 10.0, from, from + 3.0 + stay));
    }
    case.forecasts = vec![forecast("a", "gpu-0", reads)];
    case
}

/// (f): where forecasts compete, the plan of a moment later serves the same ones.
#[test]
fn f_a_crowded_plan_is_stable_as_time_goes_on() {
    let mut case = crowded();
    let mut before = case.solve();
    for round in 1..=5 {
        case.now = at(0.05 * f64::from(round));
        let next = solve(&case.problem(Some(&before)));
        let changes = diff(&before, &next);
        let altered = changes.added.len() + changes.removed.len();
        assert!(altered * 20 <= before.moves.len(), "round {round}: {altered} of {}:\n{changes}", before.moves.len());
        before = next;
    }
}

/// Each plan comes with a proof how near the best it is; it says more than that not everything fits.
#[test]
fn where_forecasts_compete_the_plan_proves_how_near_the_best_it_is() {
    let mut case = crowded();
    let solution = solve_in_full(&case.problem(None));
    let proof = solution.proof;
    assert!(proof.worth <= proof.bound && proof.gap() < 0.4, "{proof:?}");
    let saved: f64 = solution.plan.moves.iter().map(|m| m.benefit_s).sum();
    assert!((saved * 3.0 / 3_600.0 - proof.worth).abs() < 1e-6 * proof.worth, "no move costs anything here");
    assert_eq!(solve_in_full(&case.problem(None)), solution);
    case.forecasts[0].reads.truncate(2);
    assert_eq!(solve_in_full(&case.problem(None)).proof.gap(), 0.0, "all that fits is best");
}

struct HasHalf;
impl Residency for HasHalf {
    fn resident_bytes(&self, _: &SiteId, _: &VolumeId, path: &FilePath, _: u64, length: u64) -> u64 {
        if path.to_string().starts_with("here") { length } else { length / 2 }
    }
    fn held_bytes(&self, _: &SiteId) -> u64 {
        0
    }
}

#[test]
fn what_is_there_is_not_moved_but_keeps_its_room() {
    let mut case = Case::new(topology(1, 1000, 1_000));
    case.config.forecast_cache_share = 1.0;
    case.resident = Arc::new(HasHalf);
    case.forecasts = vec![forecast(
        "a",
        "gpu-0",
        vec![read("here/1", 600, 0.9, 5.0, 90.0), read("half", 400, 0.9, 5.0, 9.0), read("third", 402, 0.9, 5.0, 9.0)],
    )];
    let plan = case.solve();
    let moved: BTreeSet<_> = plan.moves.iter().map(|m| m.path.to_string()).collect();
    assert!(!moved.contains("here/1"));
    assert!(moved.is_empty(), "600 + 200 + 201 are there; no byte of room is left: {moved:?}");
    assert!(plan.left_out.iter().all(|l| l.why.contains("no room")));
}

#[test]
fn one_extent_that_two_forecasts_and_a_warmup_name_is_moved_once() {
    let mut case = Case::new(topology(1, 1000, 1 << 30));
    let part = |o, l, p| PredictedRead { offset: o, ..read("a", l, p, 5.0, 9.0) };
    case.forecasts = vec![
        forecast("1", "gpu-0", vec![part(0, 100, 0.5), part(200, 100, 0.5)]),
        forecast("2", "gpu-0", vec![part(50, 200, 0.9)]),
    ];
    let plan = case.solve();
    let mut extents: Vec<_> = plan.moves.iter().map(|m| (m.offset, m.length, m.probability)).collect();
    extents.sort_by_key(|e| e.0);
    assert_eq!(extents, [(0, 100, 0.9), (100, 100, 0.9), (200, 100, 0.9)]);
    case.warmups = vec![warmup("w", "gpu-0", Some(at(60.0)), &[("a", 300)])];
    let plan = case.solve();
    assert_eq!(plan.moves.len(), 1);
    assert!(matches!(plan.moves[0].cause, MoveCause::Warmup { .. }));
    assert_eq!(plan.moves[0].due_at, at(5.0), "the forecast says that it is read before the deadline");
}

#[test]
fn what_runs_goes_on_under_its_name_and_takes_the_link_first() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    case.forecasts = vec![forecast("a", "gpu-0", vec![read("x", 10_000_000, 0.9, 15.0, 25.0)])];
    let first = case.solve();
    case.running = vec![RunningMove { planned: first.moves[0].clone(), left_bytes: 4_000_000 }];
    case.forecasts.push(forecast("b", "gpu-0", vec![read("y", 1_000_000, 1.0, 2.0, 3.0)]));
    case.now = at(0.05);
    let next = solve(&case.problem(Some(&first)));
    let x = next.moves.iter().find(|m| m.path == path("x")).unwrap();
    assert_eq!((&x.id, x.start_at), (&first.moves[0].id, first.moves[0].start_at));
    case.forecasts.remove(0);
    assert!(solve(&case.problem(Some(&first))).moves.iter().all(|m| m.path != path("x")), "nobody wants it any more");
}

/// (g): demand on the link leaves less of it to plans, for a while, never nothing.
#[test]
fn g_demand_goes_first() {
    let mut case = Case::new(topology(1, 8, 1 << 30));
    let reads = (0..40).map(|i| read(&format!("{i:02}"), 100_000, 0.9, 4.0, 4.5)).collect();
    case.forecasts = vec![forecast("a", "gpu-0", reads)];
    let calm = case.solve().moves.len();
    case.demand = vec![DemandLoad { from: site("store"), to: site("gpu-0"), bytes_per_second: 5e6 }];
    let busy = case.solve().moves.len();
    assert!(busy > 0 && busy < calm, "{busy} of {calm}");
}

#[test]
fn advice_weighs_moving_the_data_against_moving_the_job() {
    let mut case = Case::new(topology(100, 1000, 1 << 40));
    case.topology.links[1].rate = BitsPerSecond(10_000_000_000);
    case.topology.links.retain(|l| l.to != site("gpu-2"));
    let deny = Rule {
        name: "no".into(),
        effect: Effect::Deny,
        volume: None,
        paths: Some("f/7".into()),
        tags: BTreeMap::new(),
        sites: vec![site("gpu-3")],
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    };
    case.rules = Ruleset::new(vec![deny], Effect::Allow, &case.topology).unwrap();
    let files: Vec<_> = (0..500).map(|i| WarmupFile { path: path(&format!("f/{i}")), bytes: 10_000_000 }).collect();
    let free = |s: &SiteId| (s == &site("gpu-9")).then_some(0);
    let request = AdviceRequest { volume: &volume(), files: &files, candidates: &[], free_accelerators: &free };
    let advice = advise(&case.problem(None), &request);
    assert_eq!(advice.len(), 101);
    assert_eq!(advice[0].site, site("store"), "where the data is, nothing is to be moved");
    assert_eq!(advice[1].site, site("gpu-1"), "then where the link is fastest");
    assert!(
        (advice[1].ready_p50_s - 5e9 / (1.25e9 * 0.95)).abs() < 0.5 && advice[1].ready_p90_s > advice[1].ready_p50_s
    );
    assert_eq!(advice[98].site, site("gpu-9"), "no accelerator is free there");
    let last: Vec<_> = advice[99..].iter().map(|a| (a.possible, a.site.as_str(), a.rule.as_deref())).collect();
    assert_eq!(last, [(false, "gpu-2", None), (false, "gpu-3", Some("no"))]);
    case.supply.copies.insert(volume(), vec![site("gpu-7")]);
    let near = Link {
        from: site("gpu-7"),
        to: site("gpu-8"),
        rate: BitsPerSecond(100_000_000_000),
        ..case.topology.links[0].clone()
    };
    case.topology.links.push(near);
    let advice = advise(&case.problem(None), &request);
    let order: Vec<_> = advice[..4].iter().map(|a| a.site.as_str()).collect();
    assert_eq!(order, ["gpu-7", "store", "gpu-8", "gpu-1"], "a copy is as good as the source, and nearer to some");
    assert!(advice[2].reason.contains("from gpu-7"), "{}", advice[2].reason);
}

/// (f): the plan made a moment later, when the link has carried what it can, is nearly the same plan.
#[test]
fn f_a_plan_is_stable_as_time_goes_on() {
    let mut case = Case::new(topology(1, 1000, 1 << 31));
    let reads = |from: f64, files: u32| {
        (0..files)
            .map(|i| read(&format!("{from}/{i:04}"), 100_000, 0.9, from + i as f64 * 0.005, from + 30.0))
            .collect()
    };
    case.forecasts = vec![forecast("near", "gpu-0", reads(2.0, 3000)), forecast("far", "gpu-0", reads(900.0, 3000))];
    let first = case.solve();
    let carried = (case.topology.links[0].rate.bytes_per_second() * 0.05) as usize / 100_000;
    let running = |m: &foretide_flow::Move| RunningMove { planned: m.clone(), left_bytes: 1 };
    case.running = first.moves[..carried].iter().map(running).collect();
    case.now = at(0.05);
    let changes = diff(&first, &solve(&case.problem(Some(&first))));
    let altered = changes.added.len() + changes.removed.len() + changes.changed.len();
    assert!(altered * 20 <= first.moves.len(), "{altered} of {}:\n{changes}", first.moves.len());
}

/// (f): a forecast that is made anew, as it is many times a second, leaves every move as it was told, word for word.
#[test]
fn f_a_forecast_made_anew_alters_no_move() {
    let mut case = Case::new(topology(1, 1000, 1 << 31));
    let reads = |from: f64| (0..50).map(|i| read(&format!("{i:04}"), 100_000, 0.9, from, from + 30.0)).collect();
    case.forecasts = vec![forecast("first", "gpu-0", reads(0.0))];
    let first = case.solve();
    case.forecasts = vec![forecast("second", "gpu-0", reads(0.25))];
    case.now = at(0.25);
    let second = solve(&case.problem(Some(&first)));
    assert_eq!(first.moves, second.moves);
}

#[test]
fn twenty_thousand_extents_are_planned_within_the_control_loop() {
    let mut case = Case::new(topology(4, 1000, 1 << 32));
    case.forecasts = (0..4)
        .map(|s| {
            let reads = (0..5_000).map(|i| read(&format!("train/{s}/{i:05}"), 100_000, 0.9, 1.0, 30.0)).collect();
            forecast(&format!("f{s}"), &format!("gpu-{s}"), reads)
        })
        .collect();
    let plan = case.solve();
    assert_eq!(plan.moves.len() as u64 + plan.left_out.iter().map(|l| l.files).sum::<u64>(), 20_000);
}

prop_compose! {
    fn any_read(files: u32)(
        file in 0..files, offset in 0u64..3, length in 1u64..4_000_000, p in 0.05f64..1.0, p10 in -5.0f64..400.0,
        span in 0.0f64..300.0,
    ) -> PredictedRead {
        PredictedRead { offset: offset * 1_000_000, ..read(&format!("d{}/f{file}", file % 3), length, p, p10, p10 + span) }
    }
}

prop_compose! {
    fn any_case()(
        rate in 1u64..40, cache in 1u64..80, gpus in 1usize..4, cost in 0.0f64..0.2,
        forecasts in proptest::collection::vec((0usize..3, proptest::collection::vec(any_read(30), 0..30)), 0..4),
        warmups in proptest::collection::vec((0usize..3, proptest::option::of(-10.0f64..900.0), 0u32..40, 1u64..9_000_000), 0..5),
        demand in 0.0f64..4e6,
        denied in proptest::option::of(0u32..3),
    ) -> Case {
        let mut case = Case::new(topology(gpus, rate, cache * 1_000_000));
        case.topology.links.iter_mut().for_each(|l| l.cost_per_gb = cost);
        case.forecasts = forecasts.into_iter().enumerate()
            .map(|(i, (to, reads))| forecast(&format!("f{i}"), &format!("gpu-{}", to % gpus), reads)).collect();
        case.warmups = warmups.into_iter().enumerate()
            .map(|(i, (to, by, file, bytes))| {
                let name = format!("d{}/f{file}", file % 3);
                warmup(&format!("w{i}"), &format!("gpu-{}", to % gpus), by.map(at), &[(name.as_str(), bytes)])
            }).collect();
        case.demand = vec![DemandLoad { from: site("store"), to: site("gpu-0"), bytes_per_second: demand }];
        if let Some(folder) = denied {
            let deny = Rule {
                name: "no".into(), effect: Effect::Deny, volume: None, paths: Some(format!("d{folder}/**")),
                tags: BTreeMap::new(), sites: vec![], jurisdictions: vec![], outside_jurisdictions: vec![], until: None,
            };
            case.rules = Ruleset::new(vec![deny], Effect::Allow, &case.topology).unwrap();
        }
        case
    }
}

/// Most bytes that a plan asks of a link in any window beyond what the link carries in it. A set of jobs with
/// releases and deadlines can be carried out iff this is not positive.
fn overload(plan: &foretide_flow::Plan, link: &Link, slack_s: f64) -> f64 {
    let jobs: Vec<_> = plan.moves.iter().filter(|m| m.to == link.to).collect();
    let mut worst = f64::MIN;
    for from in jobs.iter().map(|m| m.start_at.max(plan.made_at)) {
        for until in jobs.iter().map(|m| m.due_at) {
            let within = |m: &&&foretide_flow::Move| m.start_at.max(plan.made_at) >= from && m.due_at <= until;
            let asked: u64 = jobs.iter().filter(within).map(|m| m.length).sum();
            let carried = link.rate.bytes_per_second() * (until.since(from).as_secs_f64() + slack_s);
            worst = worst.max(asked as f64 - carried);
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// (a), promise F: same inputs, same plan; and the order in which demands are handed in does not matter.
    #[test]
    fn a_a_plan_is_a_pure_function(case in any_case()) {
        let plan = case.solve();
        prop_assert_eq!(&plan, &case.solve());
        let mut turned = case;
        turned.forecasts.reverse();
        turned.warmups.reverse();
        let again = turned.solve();
        let key = |p: &foretide_flow::Plan| p.moves.iter().map(|m| (m.id.clone(), m.start_at)).collect::<Vec<_>>();
        prop_assert_eq!(key(&plan), key(&again));
    }

    /// (b): read off the plan alone, no link is asked for more than it carries between any start and any due time.
    #[test]
    fn b_no_link_is_asked_for_more_than_it_carries(case in any_case()) {
        let plan = case.solve();
        for link in &case.topology.links {
            // A read due within the first slot may be given all of that slot.
            prop_assert!(overload(&plan, link, 0.1) <= 1.0);
        }
    }

    /// (c): read off the plan alone, what is there or on its way never exceeds the cache, even if every move
    /// arrives the moment that it may start.
    #[test]
    fn c_no_cache_holds_more_than_it_can_when_nothing_comes_early(case in any_case()) {
        let plan = case.solve();
        for (name, place) in &case.topology.sites {
            let capacity = place.cache.map_or(0, |c| c.capacity_bytes);
            let here: Vec<_> = plan.moves.iter().filter(|m| &m.to == name).collect();
            for m in &here {
                let t = m.due_at;
                let held: u64 = here.iter().filter(|h| h.due_at <= t && h.keep_until >= t).map(|h| h.length).sum();
                prop_assert!(held <= capacity, "{held} in {capacity} at {}", name);
            }
        }
    }

    /// (d), promise I.
    #[test]
    fn d_nothing_crosses_a_border(case in any_case()) {
        let plan = case.solve();
        for m in &plan.moves {
            prop_assert!(case.rules.verdict(&case.topology, &m.volume, &m.path, &m.to, plan.made_at).allows());
        }
    }

    /// (e): no byte is planned twice for one site.
    #[test]
    fn e_no_byte_is_moved_twice(case in any_case()) {
        let plan = case.solve();
        let mut extents: Vec<_> = plan.moves.iter().map(|m| (&m.to, &m.path, m.offset, m.offset + m.length)).collect();
        extents.sort();
        for w in extents.windows(2) {
            prop_assert!((w[0].0, w[0].1) != (w[1].0, w[1].1) || w[0].3 <= w[1].2);
        }
        let ids: BTreeSet<_> = plan.moves.iter().map(|m| &m.id).collect();
        prop_assert_eq!(ids.len(), plan.moves.len());
    }

    /// (f): what happens at another site alters nothing here.
    #[test]
    fn f_an_irrelevant_change_alters_nothing(case in any_case(), reads in proptest::collection::vec(any_read(30), 1..30)) {
        let first = case.solve();
        let mut more = case;
        let elsewhere = topology(4, 8, 9_000_000);
        more.topology.sites.insert(site("gpu-3"), elsewhere.sites[&site("gpu-3")].clone());
        more.topology.links.push(elsewhere.links[3].clone());
        more.forecasts.push(forecast("z", "gpu-3", reads));
        let next = solve(&more.problem(Some(&first)));
        let changes = diff(&first, &next);
        prop_assert!(changes.removed.is_empty() && changes.changed.is_empty(), "{}", changes);
        prop_assert!(changes.added.iter().all(|m| m.to == site("gpu-3")));
    }

    /// (h): moves stand in the order in which they start; of those that start together, what was asked for first.
    #[test]
    fn h_moves_stand_in_order(case in any_case()) {
        let plan = case.solve();
        for w in plan.moves.windows(2) {
            prop_assert!((w[0].start_at, w[0].priority) <= (w[1].start_at, w[1].priority));
        }
    }
}
