use foretide_flow::{BitsPerSecond, Link, NodeId, Priority, Site, Volume};

use super::*;
use crate::brakes::Budget;

const NOW: i64 = 1_800_000_000_000_000;

fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

fn at(seconds: f64) -> Timestamp {
    Timestamp(NOW + (seconds * 1e6) as i64)
}

fn topology() -> Topology {
    let place =
        || Site { jurisdiction: String::new(), labels: BTreeMap::new(), cache: None, accelerator_per_hour: 0.0 };
    let (from, to) = (site("store"), site("gpu"));
    Topology {
        sites: [(from.clone(), place()), (to.clone(), place())].into(),
        links: vec![Link { from, to, rate: BitsPerSecond(800_000_000), rtt_ms: 1.0, cost_per_gb: 0.1 }],
        volumes: [(VolumeId::new("data").unwrap(), Volume::at(site("store")))].into(),
    }
}

fn plan(moves: usize, bytes: u64) -> Plan {
    let one = |n: usize| Move {
        id: format!("m{n}").as_str().into(),
        volume: VolumeId::new("data").unwrap(),
        path: FilePath::parse(&format!("f/{n}")).unwrap(),
        offset: 0,
        length: bytes,
        from: site("store"),
        to: site("gpu"),
        start_at: Timestamp(NOW),
        due_at: at(9.0),
        keep_until: at(99.0),
        priority: Priority::Background,
        probability: 0.9,
        benefit_s: 1.0,
        cost: 0.0,
        cause: MoveCause::Forecast { forecast: "f".into(), workload: "train".into() },
        reason: String::new(),
        shared_bytes: 0,
    };
    Plan {
        id: "p".into(),
        made_at: Timestamp(NOW),
        horizon: at(1e4),
        moves: (0..moves).map(one).collect(),
        refused: vec![],
        left_out: vec![],
    }
}

fn batch(outcomes: Vec<Outcome>) -> OutcomeBatch {
    OutcomeBatch {
        node: NodeId::new("n").unwrap(),
        site: site("gpu"),
        sequence: 1,
        outcomes,
        census: vec![],
        resident_bytes: 0,
        capacity_bytes: 0,
    }
}

fn moved(n: usize, seconds: f64, bytes: u64) -> Outcome {
    Outcome::Moved { id: format!("m{n}").as_str().into(), at: at(seconds), bytes, wire_bytes: bytes, fallback_bytes: 0 }
}

fn evicted(n: usize, seconds: f64, bytes: u64) -> Outcome {
    let (volume, path) = (VolumeId::new("data").unwrap(), FilePath::parse(&format!("f/{n}")).unwrap());
    Outcome::Evicted { volume, path, at: at(seconds), bytes, unread_prefetched_bytes: bytes }
}

#[test]
fn what_was_moved_is_spent_until_its_time_has_passed() {
    let budget = Budget {
        name: "day".into(),
        site: None,
        workload: None,
        bytes: Some(3_000_000_000),
        money: Some(1.0),
        per_s: 86_400.0,
    };
    let config = Config { budgets: vec![budget], ..Config::default() };
    let mut feedback = Feedback::default();
    feedback.heard(&batch(vec![moved(0, 1.0, 2_000_000_000)]), &plan(3, 2_000_000_000), &topology(), at(9.0));
    let left = |seconds| feedback.brakes(&config, false, at(seconds)).budgets.remove(0);
    assert_eq!((left(2.0).bytes, left(2.0).money), (Some(1_000_000_000), Some(0.8)));
    assert_eq!(left(90_000.0).bytes, Some(3_000_000_000));
}

#[test]
fn what_fell_back_on_the_source_is_paid_for_on_its_link_and_measures_no_other() {
    let budget =
        Budget { name: "b".into(), site: None, workload: None, bytes: None, money: Some(1.0), per_s: 86_400.0 };
    let config = Config { budgets: vec![budget], ..Config::default() };
    let mut topology = topology();
    let free = Link { from: site("mirror"), cost_per_gb: 0.0, ..topology.links[0].clone() };
    topology.links.push(free);
    let mut planned = plan(100, 2_000_000);
    planned.moves.iter_mut().for_each(|m| m.from = site("mirror"));
    let told = |fallback_bytes: u64| {
        let moved = |n: usize| match moved(n, n as f64 * 0.1, 2_000_000) {
            Outcome::Moved { id, at, bytes, wire_bytes, .. } => {
                Outcome::Moved { id, at, bytes, wire_bytes, fallback_bytes }
            }
            other => other,
        };
        let mut feedback = Feedback::default();
        feedback.heard(&batch((0..90).map(moved).collect()), &planned, &topology, at(9.0));
        let left = feedback.brakes(&config, false, at(9.0)).budgets.remove(0).money.unwrap();
        (left, feedback.measured(&topology, at(9.0)).links[1].rate != topology.links[1].rate)
    };
    let (left, is_measured) = told(0);
    assert!(left == 1.0 && is_measured, "the mirror's link costs nothing and was busy");
    let (left, is_measured) = told(2_000_000);
    let paid = 90.0 * 0.002 * topology.links[0].cost_per_gb;
    assert!((left - (1.0 - paid)).abs() < 1e-9 && !is_measured, "{left}");
}

/// Promise H: a site's readers keep their cache until most of what was prefetched there was read; a read counts once.
#[test]
fn h_a_site_is_proven_while_most_of_what_was_brought_there_was_read() {
    let read = |n: usize, bytes| Outcome::Read {
        run: None,
        process: 1,
        volume: VolumeId::new("data").unwrap(),
        path: FilePath::parse(&format!("f/{n}")).unwrap(),
        at: at(6.0),
        bytes,
        prefetched_bytes: bytes,
        waited_us: 0,
        found: Found::Hit,
        lead_us: None,
    };
    let mut feedback = Feedback::default();
    let is_proven = |f: &Feedback| f.brakes(&Config::default(), false, at(8.0)).proven.contains(&site("gpu"));
    let mut heard = |outcomes| {
        feedback.heard(&batch(outcomes), &plan(4, 100), &topology(), at(9.0));
        is_proven(&feedback)
    };
    assert!(!heard((0..4).map(|n| moved(n, n as f64, 100)).collect()), "nothing of it was read");
    assert!(heard((0..3).map(|n| read(n, 100)).collect()));
    assert!(heard(vec![evicted(3, 7.0, 100)]), "three of four");
    assert!(
        !heard(vec![moved(3, 7.0, 100), evicted(3, 7.0, 1), read(0, 100), read(1, 100)]),
        "less than three of four"
    );
}

/// Promise H: a workload whose moves leave unread is muted by itself, with the figures, and heard again later.
#[test]
fn h_who_wastes_is_muted_and_told_why() {
    let config = Config { waste_free_bytes: 1_000, waste_share: 0.5, waste_window_s: 3_600.0, ..Config::default() };
    let mut feedback = Feedback::default();
    let plan = plan(4, 1_000_000_000);
    let came = (0..4).map(|n| moved(n, n as f64, 1_000_000_000)).collect();
    feedback.heard(&batch(came), &plan, &topology(), at(9.0));
    feedback.heard(
        &batch(vec![evicted(0, 5.0, 1_000_000_000), evicted(1, 5.0, 1_000_000_000)]),
        &plan,
        &topology(),
        at(9.0),
    );
    assert!(feedback.brakes(&config, false, at(6.0)).muted.is_empty(), "half is not more than half");
    feedback.heard(
        &batch(vec![evicted(2, 7.0, 1_000_000_000), evicted(2, 7.0, 1_000_000_000)]),
        &plan,
        &topology(),
        at(9.0),
    );
    let muted = feedback.brakes(&config, false, at(8.0)).muted;
    assert!(muted[&WorkloadId::from("train")].contains("of 4.00 GB brought in the last 3600 s, 3.00 GB left unread"));
    assert!(feedback.brakes(&config, false, at(9_000.0)).muted.is_empty());
}

#[test]
fn a_link_that_carries_less_than_was_said_is_planned_with_what_it_carries() {
    let mut feedback = Feedback::default();
    // 100 MB/s were said; 50 MB each second come while others wait.
    let slow = (0..20).map(|n| moved(n, n as f64, 50_000_000)).collect();
    feedback.heard(&batch(slow), &plan(40, 50_000_000), &topology(), at(20.0));
    let rate = feedback.measured(&topology(), at(20.0)).links[0].rate.0;
    assert!((390_000_000..=410_000_000).contains(&rate), "{rate}");
    assert_eq!(feedback.measured(&topology(), at(1_000.0)), topology(), "a measurement of long ago");
    // Nothing waits: a link at rest says nothing of itself.
    let mut idle = Feedback::default();
    let one = |n: usize| batch(vec![moved(n, n as f64 * 0.9, 1_000)]);
    (0..9).for_each(|n| {
        idle.heard(&one(n), &Plan { moves: plan(n + 1, 1_000).moves.split_off(n), ..plan(0, 0) }, &topology(), at(9.0))
    });
    assert_eq!(idle.measured(&topology(), at(9.0)), topology());
}

/// Reads of little that nobody had foreseen tell how far away a source is.
#[test]
fn a_round_trip_that_is_longer_than_was_said_is_planned_with_as_it_is() {
    let read = |n: usize, waited_us, bytes, found| Outcome::Read {
        run: None,
        process: 1,
        volume: VolumeId::new("data").unwrap(),
        path: FilePath::parse(&format!("f/{n}")).unwrap(),
        at: at(n as f64),
        bytes,
        prefetched_bytes: 0,
        waited_us,
        found,
        lead_us: None,
    };
    let told = |reads: Vec<Outcome>| {
        let mut feedback = Feedback::default();
        feedback.heard(&batch(reads), &plan(0, 0), &topology(), at(20.0));
        feedback.measured(&topology(), at(20.0)).links[0].rtt_ms
    };
    let cold = |n| (0..n).map(|i| read(i, 3_000, 100_000, Found::Miss)).collect::<Vec<_>>();
    assert!((told(cold(12)) - 2.0).abs() < 0.01, "3 ms, of which 100 kB at 100 MB/s took one: {}", told(cold(12)));
    assert_eq!(told(cold(7)), 1.0, "few say little");
    assert_eq!(told((0..12).map(|i| read(i, 3_000, 10_000_000, Found::Miss)).collect()), 1.0, "much says little");
    assert_eq!(told((0..12).map(|i| read(i, 3_000, 1_000, Found::Late)).collect()), 1.0, "it was asked for before");
    assert_eq!(
        told((0..12).map(|i| read(i, 9_000_000, 1_000, Found::Miss)).collect()),
        4.0,
        "nobody is followed blindly"
    );
    let queued = cold(6).into_iter().chain((6..12).map(|i| read(i, 200_000, 100_000, Found::Miss)));
    assert!((told(queued.collect()) - 2.0).abs() < 0.01, "waits in a queue are no round trips");
}

/// Clocks that disagree: a report from the future shows one at once, late reports when all of them are late; and what was
/// spent there counts as long as elsewhere.
#[test]
fn a_clock_that_is_wrong_is_found_and_what_it_says_is_corrected() {
    let budget =
        Budget { name: "hour".into(), site: None, workload: None, bytes: Some(10_000), money: None, per_s: 3_600.0 };
    let config = Config { budgets: vec![budget], ..Config::default() };
    let heard = |ahead_s: f64, reports: usize| {
        let mut feedback = Feedback::default();
        for n in 0..reports {
            let report = batch(vec![moved(n, n as f64 + ahead_s, 100)]);
            feedback.heard(&report, &plan(40, 100), &topology(), at(n as f64 + 0.5));
        }
        feedback
    };
    let brakes = |feedback: &Feedback, seconds| feedback.brakes(&config, false, at(seconds));
    for right in [-0.4, 1.0, -50.0] {
        assert!(brakes(&heard(right, 30), 30.0).clocks.is_empty(), "{right}");
    }
    let ahead = brakes(&heard(7_200.0, 1), 1.0).clocks[&site("gpu")];
    assert!((ahead - 7_199.5).abs() < 1.0, "{ahead}");
    assert!(brakes(&heard(-7_200.0, 10), 10.0).clocks.is_empty(), "ten late reports may be a backlog");
    let behind = brakes(&heard(-7_200.0, 30), 30.0).clocks[&site("gpu")];
    assert!((behind + 7_200.5).abs() < 1.0, "{behind}");
    let left = |ahead_s, seconds| brakes(&heard(ahead_s, 30), seconds).budgets[0].bytes.unwrap();
    assert_eq!((left(7_200.0, 30.0), left(0.0, 30.0)), (7_000, 7_000));
    assert_eq!(left(7_200.0, 5_000.0), 10_000, "an hour later it is free again, whatever the clock said");
    assert!(
        left(-7_200.0, 30.0) < 9_000,
        "and it is not forgotten because it seems long ago: {}",
        left(-7_200.0, 30.0)
    );
}
