//! Streams of block numbers: hit ratios, calibration, cost, and what each source adds.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::time::Instant;

use foretide_model::ModelError;
use foretide_model::blocks::{BlockForecaster, BlockRequest, BlockSettings, Proposal, Sources};
use foretide_model::evaluate::contender::{Name, Parts};
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{self, CacheSize, Misses, Options, Report, Row, evaluate_some};
use foretide_model::import::{Numbers, Trace, read_trace};

use crate::{Figure, Outcome, Table};

/// A block trace and what was set: hit ratios at a cache of 1 % and 10 %, with fetches that take no time and with
/// fetches that take 16 requests.
struct Set {
    file: &'static str,
    instant: [f64; 2],
    lead: [f64; 2],
}

const SETS: [Set; 5] = [
    Set { file: "arc/OLTP.lis.zst", instant: [0.51, 0.69], lead: [0.52, 0.70] },
    Set { file: "lirs/sprite.trace.gz", instant: [0.79, 0.93], lead: [0.29, 0.89] },
    Set { file: "lirs/multi2.trace.gz", instant: [0.73, 0.77], lead: [0.33, 0.75] },
    Set { file: "cloudphysics/cloudPhysicsIO.csv.zst", instant: [0.80, 0.84], lead: [0.65, 0.70] },
    Set { file: "arc/P6.lis.zst", instant: [0.79, 0.86], lead: [0.71, 0.83] },
];
const CACHES: [f64; 2] = [0.01, 0.1];
/// How long fetches take.
const LINKS: [Link; 2] = [Link::Instant, Link::Lead(16)];
/// Precision under which a hit ratio does not count.
const LEAST_PRECISION: f64 = 0.5;
/// Expected calibration error at most.
const MOST_ERROR: f64 = 0.05;
/// What an access may cost, and a block that is known.
const MOST_US: f64 = 2.0;
const MOST_BYTES: f64 = 200.0;
/// Rounds that are timed; the median counts.
const ROUNDS: usize = 5;
const KNOWN: [Name; 3] = [Name::None, Name::S3Fifo, Name::Association];

fn read(root: &Path) -> Result<Vec<Trace>, ModelError> {
    SETS.iter().map(|s| read_trace(&root.join(s.file), None, None)).collect()
}

fn name(trace: &Trace) -> String {
    let file = trace.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    file.split('.').next().unwrap_or_default().to_owned()
}

fn options(share: f64) -> Options {
    Options { cache: CacheSize::Share(share), first_only: true, ..Options::default() }
}

pub fn of(report: &Report, name: Name) -> Result<&Row, String> {
    report.rows.iter().find(|r| r.name == name.text()).ok_or_else(|| format!("{} did not play", name.text()))
}

fn best<'r>(report: &'r Report, names: &[Name]) -> Result<&'r Row, String> {
    let rows: Vec<&Row> = names.iter().map(|n| of(report, *n)).collect::<Result<_, _>>()?;
    rows.into_iter().max_by(|a, b| a.hit_ratio.total_cmp(&b.hit_ratio)).ok_or_else(|| "nobody played".into())
}

/// Hit ratios at two sizes of the cache, on each trace.
pub fn streams(table: &mut Table, root: &Path) -> Outcome {
    for (set, trace) in SETS.iter().zip(&read(root)?) {
        for (i, share) in CACHES.into_iter().enumerate() {
            let instant = ahead(table, trace, share, Link::Instant, set.instant[i])?;
            ahead(table, trace, share, Link::Lead(16), set.lead[i])?;
            charged(table, trace, share, &instant)?;
        }
    }
    Ok(())
}

fn ahead(table: &mut Table, trace: &Trace, share: f64, link: Link, bar: f64) -> Result<Report, String> {
    let work = format!("{} {:.0} %, {}", name(trace), 100.0 * share, how(link));
    let names = [&KNOWN[..], &[Name::Foretide]].concat();
    let report = evaluate_some(trace, &Options { link, ..options(share) }, &names).map_err(|e| e.to_string())?;
    let (ours, known) = (of(&report, Name::Foretide)?, best(&report, &KNOWN)?);
    let figure = Figure { ours: ours.hit_ratio, unit: "hit ratio", reference: known.hit_ratio, name: &known.name };
    table.row(&work, figure, bar, ours.hit_ratio >= bar && ours.byte_precision >= LEAST_PRECISION);
    let precision = Figure { ours: ours.byte_precision, unit: "precision", reference: 0.0, name: "-" };
    table.at_least(&work, precision, LEAST_PRECISION);
    Ok(report)
}

/// With the model's own bytes taken from the cache: at 1 % never below LRU; at 10 % above the best that is known, whose
/// tables are not charged.
fn charged(table: &mut Table, trace: &Trace, share: f64, instant: &Report) -> Outcome {
    let report = evaluate_some(trace, &Options { charge_model: true, ..options(share) }, &[Name::Foretide])?;
    let ours = of(&report, Name::Foretide)?.hit_ratio;
    let reference = if share < 0.05 { of(instant, Name::None)? } else { best(instant, &KNOWN)? };
    let figure = Figure { ours, unit: "hit ratio", reference: reference.hit_ratio, name: &reference.name };
    table.at_least(&format!("{} {:.0} %, charged", name(trace), 100.0 * share), figure, reference.hit_ratio);
    Ok(())
}

fn forecaster(addresses: bool) -> BlockForecaster {
    BlockForecaster::new(BlockSettings {
        block_bytes: 4096,
        addresses,
        memory_bytes: 1 << 30,
        waste: 0.49,
        sources: Sources::ALL,
    })
}

/// Blocks that stay at one time where the forecaster is looked at alone.
const STAY: usize = 1000;

/// Blocks that are here, the oldest first: the plainest cache.
#[derive(Default)]
struct Here {
    in_order: VecDeque<u64>,
    all: HashSet<u64>,
}

impl Here {
    fn has(&self, block: u64) -> bool {
        self.all.contains(&block)
    }

    /// Takes one in; the oldest, which has to go for it, is appended to what happened.
    fn take(&mut self, block: u64, happened: &mut Vec<Event>) {
        if !self.all.insert(block) {
            return;
        }
        self.in_order.push_back(block);
        if self.in_order.len() > STAY
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.all.remove(&oldest);
            happened.push(Event::Evicted(oldest));
        }
    }

    /// What is proposed comes at once.
    fn take_all(&mut self, proposals: &mut Vec<Proposal>, happened: &mut Vec<Event>) {
        for p in proposals.drain(..).filter(|p| !p.here) {
            happened.push(Event::Arrived(p.block));
            self.take(p.block, happened);
        }
    }
}

/// What a forecaster of blocks is told.
#[derive(Clone, Copy)]
enum Event {
    Asked(BlockRequest),
    Arrived(u64),
    Evicted(u64),
}

impl Event {
    fn tell(self, model: &mut BlockForecaster, proposals: &mut Vec<Proposal>) {
        match self {
            Self::Asked(request) => model.observe(request, proposals),
            Self::Arrived(block) => model.arrived(block),
            Self::Evicted(block) => model.evicted(block),
        }
    }
}

/// Whether probabilities said in the second half of a trace were kept. What is fetched stays until [`STAY`] others were.
pub fn calibration(table: &mut Table, root: &Path) -> Outcome {
    for trace in &read(root)? {
        let mut model = forecaster(trace.numbers == Numbers::Addresses);
        let (mut asked, mut proposals, mut happened) = (Here::default(), Vec::new(), Vec::new());
        let mut halfway = model.calibration();
        for (i, r) in trace.requests.iter().enumerate() {
            if i == trace.requests.len() / 2 {
                halfway = model.calibration();
            }
            model.observe(BlockRequest { offset: r.offset, length: r.length, hit: true }, &mut proposals);
            model.evicted(r.offset / 4096);
            asked.take_all(&mut proposals, &mut happened);
            happened.drain(..).for_each(|event| event.tell(&mut model, &mut proposals));
        }
        let ours = model.calibration().since(&halfway).error();
        let figure = Figure { ours, unit: "ECE", reference: 0.0, name: "-" };
        table.at_most(&format!("{}, second half", name(trace)), figure, MOST_ERROR);
    }
    Ok(())
}

/// The forecaster alone on the longest trace: time an access, and bytes a block that it knows. What was read and what was
/// fetched, which comes at once, stays until [`STAY`] others were. What the site then does is recorded in a first round
/// and told to a forecaster that knows nothing in each of those that are timed: a site's own work is none of the forecaster's.
pub fn cost(table: &mut Table, root: &Path) -> Outcome {
    let trace = read_trace(&root.join(SETS[0].file), None, None)?;
    let different: HashSet<u64> = trace.requests.iter().map(|r| r.offset).collect();
    let mut model = forecaster(false);
    let (mut used, mut asked, mut proposals) = (Here::default(), Here::default(), Vec::new());
    let mut happened = Vec::new();
    for r in &trace.requests {
        let block = r.offset / 4096;
        let hit = used.has(block) || asked.has(block);
        let first = happened.len();
        happened.push(Event::Asked(BlockRequest { offset: r.offset, length: r.length, hit }));
        happened[first].tell(&mut model, &mut proposals);
        if !hit {
            used.take(block, &mut happened);
        }
        asked.take_all(&mut proposals, &mut happened);
        happened[first + 1..].iter().for_each(|event| event.tell(&mut model, &mut proposals));
    }
    let bytes = model.bytes() as f64;
    let rounds = (0..ROUNDS).map(|_| {
        let mut model = forecaster(false);
        let began = Instant::now();
        for event in &happened {
            event.tell(&mut model, &mut proposals);
            proposals.clear();
        }
        began.elapsed().as_secs_f64() * 1e6 / trace.requests.len() as f64
    });
    let mut rounds: Vec<f64> = rounds.collect();
    rounds.sort_by(f64::total_cmp);
    let alone = "OLTP, the forecaster of blocks alone";
    let ours = rounds[ROUNDS / 2];
    table.at_most(alone, Figure { ours, unit: "us an access", reference: 0.0, name: "-" }, MOST_US);
    let ours = bytes / different.len() as f64;
    table.at_most("OLTP, tables", Figure { ours, unit: "bytes a block", reference: 0.0, name: "-" }, MOST_BYTES);
    Ok(())
}

/// What each source adds: the sum of the ten hit ratios without it and with it alone, where fetches take no time and where
/// they take 16 requests. A table to read, and no row.
pub fn ablation(_table: &mut Table, root: &Path) -> Outcome {
    let traces = read(root)?;
    let sums = |name: Name| -> Result<String, Box<dyn std::error::Error>> {
        let mut sums = [0.0; LINKS.len()];
        for (sum, link) in sums.iter_mut().zip(LINKS) {
            for trace in &traces {
                for share in CACHES {
                    let options = Options { link, ..options(share) };
                    *sum += of(&evaluate_some(trace, &options, &[name])?, name)?.hit_ratio;
                }
            }
        }
        Ok(format!("{:.2} {:.2}", sums[0], sums[1]))
    };
    println!(
        "sums of the ten hit ratios, instant and lead 16: none {}, S3-FIFO {}",
        sums(Name::None)?,
        sums(Name::S3Fifo)?
    );
    let parts = |name, sources| Name::Ours(name, Parts { sources, opened: false });
    let all = Sources::ALL;
    for (without, alone) in [
        (parts("no replay", Sources { replay: false, ..all }), Name::Ours("replay", Parts::REPLAY)),
        (parts("no rows", Sources { association: false, ..all }), Name::Ours("rows", Parts::ROWS)),
        (parts("no spatial", Sources { spatial: false, ..all }), Name::Ours("spatial", Parts::SPATIAL)),
    ] {
        println!("{:<12} {}   {:<12} {}", without.text(), sums(without)?, alone.text(), sums(alone)?);
    }
    println!("all {}", sums(Name::Foretide)?);
    Ok(())
}

/// Why ours misses, in shares of the requests: where to dig. A table to read, and no row.
pub fn misses(_table: &mut Table, root: &Path) -> Outcome {
    println!("{:<32} {:>6} {:>7} {:>6} {:>7} {:>6} {:>6}", "", "new", "unnamed", "soon", "refused", "late", "gone");
    for trace in &read(root)? {
        for link in LINKS {
            for share in CACHES {
                let m = evaluate::misses(trace, &Options { link, ..options(share) })?;
                let part = |n: u64| n as f64 / m.requests as f64;
                let Misses { new, unnamed, soon, refused, late, gone, .. } = m;
                let [new, unnamed, soon, refused, late, gone] = [new, unnamed, soon, refused, late, gone].map(part);
                let work = format!("{} {:.0} %, {}", name(trace), 100.0 * share, how(link));
                println!("{work:<32} {new:>6.3} {unnamed:>7.3} {soon:>6.3} {refused:>7.3} {late:>6.3} {gone:>6.3}");
            }
        }
    }
    Ok(())
}

fn how(link: Link) -> &'static str {
    if link == Link::Instant { "instant" } else { "lead 16" }
}
