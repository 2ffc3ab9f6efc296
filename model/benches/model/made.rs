//! Made workloads: epochs in a fresh order, announced or not, a change of habit, and reads that nobody can foresee.

use std::path::Path;

use foretide_model::evaluate::contender::{Expectation, Name};
use foretide_model::evaluate::demand::Demand;
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{CacheSize, Options, Report, Row, evaluate_recurring, evaluate_some};
use foretide_model::foresight::Expected;
use foretide_model::import::{Format, Numbers, Request, RequestOp, Stream, Trace, TracedFile};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::blocks::of;
use crate::{Figure, Outcome, Table};

/// Files of a set, workers that read them side by side, files of a batch, and time that a worker takes for a file.
const FILES: usize = 2000;
const WORKERS: usize = 4;
const BATCH: usize = 16;
const FILE_US: i64 = 8000;

const WAN: Options = Options {
    cache: CacheSize::Share(0.2),
    link: Link::Wire { bits_per_s: 1_000_000_000, rtt_us: 150_000 },
    first_only: false,
    block_bytes: Some(64 << 10),
    charge_model: false,
    opaque: false,
};

/// Two sets of files of 50 to 200 kB, and a run that reads these files in this order: whole batches by turns, as loaders
/// with several workers do.
fn training(order: &[usize]) -> Trace {
    let size = |i: usize| 50_000 + (i as u64 * 7919) % 150_000;
    let file = |i: usize| {
        let set = if i < FILES { "old" } else { "new" };
        TracedFile { path: format!("{set}/img-{i:05}.jpg").into_bytes(), size: size(i) }
    };
    let mut requests = Vec::new();
    for (batch, files) in order.chunks(BATCH).enumerate() {
        let stream = (batch % WORKERS) as u32;
        for (i, f) in files.iter().enumerate() {
            let at_us = ((batch / WORKERS * BATCH + i) as i64) * FILE_US + i64::from(stream) * FILE_US / WORKERS as i64;
            let request = |op, length| Request { at_us, stream, file: *f as u32, op, offset: 0, length };
            requests.extend([request(RequestOp::Open, 0), request(RequestOp::Read, size(*f))]);
        }
    }
    requests.sort_by_key(|r| r.at_us);
    Trace {
        path: "made".into(),
        format: Format::Ours,
        timed: true,
        numbers: Numbers::Addresses,
        files: (0..2 * FILES).map(file).collect(),
        streams: (0..WORKERS as u32).map(|process| Stream { run: "r".into(), job: "j".into(), process }).collect(),
        requests,
        left_out: 0,
    }
}

/// Epochs over the files from `first` on, each in a fresh order.
fn shuffled(first: usize, epochs: usize, draw: &mut StdRng) -> Vec<usize> {
    let mut out = Vec::new();
    for _ in 0..epochs {
        let mut order: Vec<usize> = (first..first + FILES).collect();
        order.shuffle(draw);
        out.extend(order);
    }
    out
}

/// How ours does if it is told `order`, or nothing but which files there are.
fn told(trace: &Trace, options: &Options, order: Option<&[usize]>) -> Result<Report, Box<dyn std::error::Error>> {
    let expectation = |demand: &Demand<'_>| {
        let blocks = |file: &usize| {
            let place = demand.places[*file];
            place.base / demand.block_bytes..(place.base + place.size).div_ceil(demand.block_bytes)
        };
        let visits = order.unwrap_or_default().iter().flat_map(blocks).collect();
        let expected = Expected { visits, in_order: true, ..Expected::default() };
        vec![Expectation { run: "r".into(), from_us: i64::MAX, expected, files: (0..2 * FILES as u32).collect() }]
    };
    Ok(evaluate_recurring(trace, options, expectation)?)
}

fn ours(report: &Report) -> Result<&Row, String> {
    of(report, Name::Foretide)
}

/// See the module.
pub fn epochs(table: &mut Table, _root: &Path) -> Outcome {
    let mut draw = StdRng::seed_from_u64(5);
    announced(table, &shuffled(0, 3, &mut draw))?;
    unknown(table, &shuffled(0, 3, &mut draw))?;
    let mut changing = shuffled(0, 2, &mut draw);
    changing.extend(shuffled(FILES, 2, &mut draw));
    changed(table, &changing)?;
    random(table, &mut draw)
}

/// The order is announced, as a list or by a seed: what the job's own sampler will give out.
fn announced(table: &mut Table, order: &[usize]) -> Outcome {
    let trace = training(order);
    let gap = |report: &Report| ours(report).map(|r| r.gap_closed.unwrap_or(0.0));
    let (announced, unannounced) = (told(&trace, &WAN, Some(order))?, told(&trace, &WAN, None)?);
    let figure =
        Figure { ours: gap(&announced)?, unit: "gap closed", reference: gap(&unannounced)?, name: "unannounced" };
    table.at_least("shuffled epochs, order announced", figure, 0.98);
    Ok(())
}

/// The order is not known, and the cache holds the set: bytes read from the second epoch on that were brought ahead.
fn unknown(table: &mut Table, order: &[usize]) -> Outcome {
    let options = Options { cache: CacheSize::Share(1.0), ..WAN };
    let coverage = |order: &[usize]| -> Result<f64, Box<dyn std::error::Error>> {
        Ok(ours(&told(&training(order), &options, None)?)?.byte_coverage)
    };
    let epochs = order.len() as f64 / FILES as f64;
    let from_second = (epochs * coverage(order)? - coverage(&order[..FILES])?) / (epochs - 1.0);
    let figure = Figure { ours: from_second, unit: "coverage", reference: 0.0, name: "none" };
    table.at_least("shuffled epochs, order unknown, from epoch 2", figure, 0.95);
    Ok(())
}

/// After two epochs over one set the run goes over to another: how well the first and the second epoch over the new one
/// are covered, beside the last over the old.
fn changed(table: &mut Table, order: &[usize]) -> Outcome {
    let options = Options { cache: CacheSize::Bytes(300_000_000), ..WAN };
    let rows: Vec<Row> = (1..=4)
        .map(|epochs| Ok(ours(&told(&training(&order[..epochs * FILES]), &options, None)?)?.clone()))
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    // The epochs are of one size but for a few bytes.
    let of_epoch = |i: usize| {
        let before = if i > 0 { i as f64 * rows[i - 1].byte_coverage } else { 0.0 };
        (i + 1) as f64 * rows[i].byte_coverage - before
    };
    let figure = |ours, unit| Figure { ours, unit, reference: of_epoch(1), name: "before" };
    table.at_least("a change of set, first epoch after it", figure(of_epoch(2), "coverage"), 0.90);
    table.at_least("a change of set, second epoch after it", figure(of_epoch(3), "coverage"), 0.95);
    let read_bytes: f64 = training(order).requests.iter().map(|r| r.length as f64).sum();
    let wasted = rows[3].wasted_bytes as f64 / read_bytes;
    let figure = Figure { ours: wasted, unit: "bytes in vain / read", reference: 0.0, name: "none" };
    table.at_most("a change of set, over all four epochs", figure, 0.05);
    Ok(())
}

/// Reads drawn uniformly at random.
fn random(table: &mut Table, draw: &mut StdRng) -> Outcome {
    let request = |i: i64, n: u64| Request {
        at_us: i * 2000,
        stream: 0,
        file: 0,
        op: RequestOp::Read,
        offset: n * 4096,
        length: 4096,
    };
    let trace = Trace {
        files: vec![TracedFile { path: b"device".to_vec(), size: 1 << 40 }],
        requests: (0..30_000).map(|i| request(i, draw.random_range(0..20_000))).collect(),
        ..training(&[])
    };
    let report = evaluate_some(&trace, &Options { block_bytes: None, ..WAN }, &[Name::None, Name::Foretide])?;
    let (none, ours) = (of(&report, Name::None)?, ours(&report)?);
    let wasted = ours.wasted_bytes as f64 / (4096.0 * ours.requests as f64);
    let figure = Figure { ours: wasted, unit: "bytes in vain / read", reference: 0.0, name: "none" };
    table.at_most("uniform random reads", figure, 0.01);
    let figure = Figure { ours: ours.stall_s, unit: "s waited", reference: none.stall_s, name: "none" };
    // Whatever a cache keeps, a draw hits as often as it holds a share of all: which policy is luckier is chance, of which
    // two deviations are allowed.
    let (requests, hit) = (none.requests as f64, none.hit_ratio);
    let chance_s = 2.0 * (requests * hit * (1.0 - hit)).sqrt() * none.stall_s / (requests * (1.0 - hit));
    table.at_most("uniform random reads", figure, none.stall_s + chance_s);
    Ok(())
}
