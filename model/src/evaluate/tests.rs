//! The judge against plain models of what it simulates.

use std::collections::{HashSet, VecDeque};

use super::*;
use crate::import::{Format, Numbers, Request, RequestOp, Stream, TracedFile};

/// A trace of one device, a request a millisecond for one page each.
fn pages(numbers: &[u64]) -> Trace {
    let request = |(i, n): (usize, &u64)| Request {
        at_us: i as i64 * 1000,
        stream: 0,
        file: 0,
        op: RequestOp::Read,
        offset: n * 4096,
        length: 4096,
    };
    Trace {
        path: "made".into(),
        format: Format::Lirs,
        timed: true,
        numbers: Numbers::Addresses,
        files: vec![TracedFile { path: b"device".to_vec(), size: 1 << 50 }],
        streams: vec![Stream { run: "r".into(), job: "j".into(), process: 0 }],
        requests: numbers.iter().enumerate().map(request).collect(),
        left_out: 0,
    }
}

/// Numbers below `most` that look drawn, small ones more often.
fn drawn(count: usize, most: u64) -> Vec<u64> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(|_| (next() % most).min(next() % most)).collect()
}

fn judged(trace: &Trace, options: Options, name: Name) -> Row {
    evaluate_some(trace, &options, &[name]).unwrap().rows.remove(0)
}

fn with_cache(blocks: u64) -> Options {
    Options { cache: CacheSize::Bytes(blocks * 4096), ..Options::default() }
}

#[test]
fn none_is_lru_as_a_plain_loop_has_it() {
    let numbers = drawn(5000, 300);
    let (mut list, mut hits) = (VecDeque::new(), 0u64);
    for n in &numbers {
        if let Some(at) = list.iter().position(|m| m == n) {
            list.remove(at);
            hits += 1;
        } else if list.len() == 40 {
            list.pop_back();
        }
        list.push_front(*n);
    }
    let row = judged(&pages(&numbers), with_cache(40), Name::None);
    assert_eq!(row.hit_ratio, hits as f64 / 5000.0);
}

#[test]
fn belady_beats_lru_and_the_oracle_misses_only_what_has_no_time() {
    let trace = pages(&drawn(5000, 300));
    let hit = |name, link| judged(&trace, Options { link, ..with_cache(40) }, name).hit_ratio;
    assert!(hit(Name::Belady, Link::Instant) > hit(Name::None, Link::Instant));
    // The very first request cannot have been asked for.
    assert_eq!(hit(Name::Oracle, Link::Instant), 4999.0 / 5000.0);
    assert!(hit(Name::Oracle, Link::Lead(8)) >= 4990.0 / 5000.0);
}

#[test]
fn a_request_hits_only_if_every_byte_of_it_is_here() {
    let mut trace = pages(&[5, 4, 4]);
    trace.requests[1].length = 3 * 4096;
    trace.requests[2].length = 3 * 4096;
    let hits =
        |trace: &Trace, first_only| judged(trace, Options { first_only, ..with_cache(10) }, Name::None).hit_ratio;
    assert_eq!(hits(&trace, false), 1.0 / 3.0, "4 to 6 were not all here the first time");
    assert_eq!(hits(&trace, true), 1.0 / 3.0);
    trace.requests[1].offset = 5 * 4096;
    assert_eq!(hits(&trace, false), 0.0);
    assert_eq!(hits(&trace, true), 1.0 / 3.0, "only the first block counts");
}

#[test]
fn a_wire_takes_its_time_and_a_late_stream_goes_on_later() {
    // 4 KiB at 1 Mbit/s are 32.768 ms; with 10 ms of round trip each of the three misses waits 42.768 ms.
    let link = Link::Wire { bits_per_s: 1_000_000, rtt_us: 10_000 };
    let row = judged(&pages(&[1, 2, 3]), Options { link, ..with_cache(10) }, Name::None);
    assert!((row.stall_s - 3.0 * 0.042768).abs() < 1e-9, "{}", row.stall_s);
}

#[test]
fn demand_goes_before_what_was_asked_for_ahead() {
    // A scan: the strides ask for four blocks ahead; then a jump, which must wait for one block on the wire at most.
    let mut numbers: Vec<u64> = (0..20).collect();
    numbers.push(1000);
    let trace = pages(&numbers);
    let link = Link::Wire { bits_per_s: 1_000_000, rtt_us: 0 };
    let options = Options { link, ..with_cache(1000) };
    let demand = Demand::new(&trace, None, false, false);
    let (mut contender, mut site) = Name::Stride.enter(&demand, options.link, 4096 * 1000, 0);
    let mut last = 0;
    for step in &demand.steps {
        let (hit, waited) = site.serve(step);
        contender.served(step, hit, &mut site);
        last = waited;
    }
    assert!(last <= 2 * 32_768, "{last}");
}

#[test]
fn waste_coverage_and_precision_add_up() {
    let trace = pages(&drawn(5000, 300));
    for name in [Name::StaticLoad, Name::Stride, Name::Association, Name::Foretide] {
        let demand = Demand::new(&trace, None, false, false);
        let (mut contender, mut site) = name.enter(&demand, Link::Instant, 40 * 4096, 1 << 20);
        for step in &demand.steps {
            let (hit, _) = site.serve(step);
            contender.served(step, hit, &mut site);
        }
        let account = site.close();
        let used = account.ahead_used * 4096;
        assert_eq!(account.ahead_bytes, used + account.wasted_bytes, "{}", name.text());
        assert!(account.covered_bytes <= account.read_bytes);
    }
}

#[test]
fn permuting_the_names_of_an_opaque_trace_changes_nothing() {
    let loops: Vec<u64> = (0..30).flat_map(|i| (0..100).map(move |n| n * 31 % 997 + (i % 3) * 5)).collect();
    let permuted: Vec<u64> = loops.iter().map(|n| n * 0x5BD1_E995 % (1 << 31)).collect();
    let options = Options { opaque: true, ..with_cache(60) };
    let strip = |row: Row| Row { cpu_us_per_request: 0.0, ..row };
    let ours = strip(judged(&pages(&loops), options, Name::Foretide));
    assert!(ours.hit_ratio > 0.5, "{ours:?}");
    assert_eq!(strip(judged(&pages(&permuted), options, Name::Foretide)), ours);
}

#[test]
fn uniform_random_reads_are_left_alone() {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let trace = pages(&(0..40_000).map(|_| next() % 100_000).collect::<Vec<_>>());
    let row = judged(&trace, with_cache(2000), Name::Foretide);
    let read = row.requests * 4096;
    assert!(row.wasted_bytes as f64 <= 0.01 * read as f64, "{} of {read} bytes wasted", row.wasted_bytes);
}

#[test]
fn a_model_that_is_charged_keeps_within_what_it_was_given() {
    let numbers: Vec<u64> = (0..20).flat_map(|_| drawn(3000, 20_000)).collect();
    let options = Options { charge_model: true, ..with_cache(2000) };
    let row = judged(&pages(&numbers), options, Name::Foretide);
    assert!(row.peak_bytes < 2000 * 4096 / 2, "{}", row.peak_bytes);
}

#[test]
fn the_picture_names_all_and_breaks_on_no_name() {
    let mut trace = pages(&drawn(500, 50));
    trace.path = "a/<b>&c".into();
    let report = evaluate(&trace, &with_cache(10)).unwrap();
    let svg = picture::picture(&report);
    let names: HashSet<&str> = Name::ALL.iter().map(|n| n.text()).collect();
    assert!(names.iter().all(|n| svg.contains(&format!(">{n}</text>"))));
    assert!(svg.contains("&lt;b&gt;&amp;c") && !svg.contains("<b>"));
    assert!(report.to_string().contains("foretide"));
}

#[test]
fn a_cache_of_no_block_is_refused() {
    let options = Options { cache: CacheSize::Bytes(100), ..Options::default() };
    let told = evaluate(&pages(&[1, 2]), &options).unwrap_err().to_string();
    assert!(told.contains("cache = 100"), "{told}");
}

#[test]
fn each_miss_has_one_reason_and_what_nobody_read_before_is_new() {
    let why = |numbers: &[u64], link| {
        let trace = Trace { numbers: Numbers::Opaque, ..pages(numbers) };
        let options = Options { link, ..with_cache(40) };
        let found = misses(&trace, &options).unwrap();
        let row = judged(&trace, options, Name::Foretide);
        let all = found.new + found.unnamed + found.soon + found.refused + found.late + found.gone;
        assert_eq!(all, ((1.0 - row.hit_ratio) * row.requests as f64).round() as u64, "{found:?}");
        found
    };
    let scattered = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let once: Vec<u64> = (0..300).map(scattered).collect();
    assert_eq!(why(&once, Link::Instant), Misses { requests: 300, new: 300, ..Misses::default() });
    let rounds: Vec<u64> = (0..20).flat_map(|_| once.clone()).collect();
    let instant = why(&rounds, Link::Instant);
    assert!(instant.new == 300 && instant.refused > 0 && instant.soon + instant.late == 0, "{instant:?}");
    let slow = why(&rounds, Link::Lead(16));
    assert!(slow.soon + slow.late > 0 && slow.new == 300, "{slow:?}");
}
