//! Random calls against a catalog and the plain model; after each series everything that can be asked is compared.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use foretide_catalog::*;
use foretide_flow::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::values::*;

/// One call.
#[derive(Clone, Debug)]
enum Call {
    List(Listing),
    Tag(FilePath, BTreeMap<String, String>),
    Manifest(FilePath, Manifest),
    Shared(Vec<SharedFile>),
    Want(Vec<LearnRequest>, u8),
    Take(usize),
    Batch(AccessBatch),
    Profile(Profile),
    Forecasts(Vec<Forecast>),
    Withdraw(ForecastId),
    Plan(Plan),
    Assign(u64),
    Outcomes(OutcomeBatch),
    Ask(Box<Warmup>, Option<(&'static str, u8)>),
    Update(WarmupId, WarmupUpdate),
    Event(String),
}

const DIRECTORIES: [&str; 5] = ["", "a", "a-b", "a/b", "a/b/c"];
const FILES: [&str; 7] = ["f", "a/f", "a/g", "a-b/f", "a/b/f", "a/b/g", "a/b/c/f"];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(texts)
}

fn any_listing() -> impl Strategy<Value = Listing> {
    let names = prop::collection::btree_map(one_of(&["a", "a-b", "b", "c", "f", "g", "x%FF"]), 0u8..5, 0..6);
    (one_of(&DIRECTORIES), names, 0i64..20).prop_map(|(directory, names, seen_at)| {
        // A name keeps its kind, so that no two listings contradict each other; see the stories for those that do.
        let text = |(name, kind): (&str, u8)| match (name, kind) {
            ("a" | "a-b" | "b" | "c", _) => format!("{name}/"),
            (_, 0) => format!("{name}>to"),
            (_, size) => format!("{name}={size}"),
        };
        let names: Vec<_> = names.into_iter().map(text).collect();
        listing("data", directory, seen_at, &names.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

fn any_shared() -> impl Strategy<Value = Vec<SharedFile>> {
    let chunks = prop::collection::vec(0u8..4, 0..3);
    let file = (one_of(&FILES), one_of(&["v1", "v3", "v4"]), chunks);
    prop::collection::vec(file.prop_map(|(file, version, chunks)| shared(file, version, &chunks)), 0..3)
}

fn any_move() -> impl Strategy<Value = Move> {
    let cause = prop_oneof![Just(by_forecast()), Just(by_warmup("w0")), Just(by_warmup("w1"))];
    (0u8..6, one_of(&FILES), 0u64..3, 0i64..3, cause).prop_map(|(id, file, offset, start, cause)| Move {
        start_at: Timestamp(start),
        ..a_move(&format!("m{id}"), file, offset * 2, 2, cause)
    })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let refused = prop::collection::vec((one_of(&FILES), 0i64..3), 0..2);
    (0u8..30, 0i64..40, prop::collection::vec(any_move(), 0..5), refused).prop_map(|(id, made_at, moves, refused)| {
        let mut p = plan(&format!("p{id}"), made_at, moves);
        p.refused = refused.into_iter().map(|(file, hour)| refusal(file, hour * 3_600_000_000)).collect();
        p
    })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let found = prop::sample::select(&[Found::Unknown, Found::Hit, Found::Late, Found::Miss][..]);
    let run = prop::option::of(one_of(&["r0", "r1"]));
    prop_oneof![
        3 => (0u8..6, 0u64..5).prop_map(|(id, bytes)| moved(&format!("m{id}"), bytes)),
        1 => (0u8..6).prop_map(|id| Outcome::Failed { id: format!("m{id}").into(), at: Timestamp(3), why: "gone".into() }),
        3 => (run, one_of(&FILES), 0u64..6, found).prop_map(|(run, file, bytes, found)| read(run, file, bytes, found)),
        2 => (one_of(&FILES), 0u64..3).prop_map(|(file, wasted)| evicted(file, 2, wasted)),
        1 => one_of(&FILES).prop_map(|file| Outcome::Refused(refusal(file, 1))),
    ]
}

fn any_outcomes() -> impl Strategy<Value = OutcomeBatch> {
    let census = prop::collection::vec((0u8..2, 0u64..8), 0..2);
    (0u64..12, 0u8..2, prop::collection::vec(any_outcome(), 0..6), census).prop_map(|(sequence, n, events, census)| {
        let count =
            |(w, bytes)| Census { warmup: format!("w{w}").into(), resident_files: bytes, resident_bytes: bytes };
        OutcomeBatch {
            node: node(&format!("n{n}")),
            census: census.into_iter().map(count).collect(),
            resident_bytes: sequence,
            ..outcomes(sequence, events)
        }
    })
}

fn any_batch() -> impl Strategy<Value = AccessBatch> {
    let runs = || prop::collection::vec(0u8..3, 0..2);
    (0u64..9, runs(), runs()).prop_map(|(sequence, started, ended)| {
        let start = |r: u8| run_start(&format!("r{r}"), &format!("w{}", r % 2), i64::from(r));
        let end = |r: u8| RunEnd { run: format!("r{r}").into(), at: Timestamp(50) };
        batch(sequence, started.into_iter().map(start).collect(), ended.into_iter().map(end).collect())
    })
}

fn any_update() -> impl Strategy<Value = WarmupUpdate> {
    use WarmupState::*;
    let states: &[WarmupState] = &[Queued, Planned, Moving, Partial, Ready, Degraded, Failed, Cancelled, Expired];
    let state = prop::option::weighted(0.4, prop::sample::select(states));
    let required = prop::option::of((0u64..8, 0u64..3));
    let eta = prop::option::of(prop::option::of((0i64..9).prop_map(Timestamp)));
    (state, required, eta, prop::option::of(one_of(&["", "no room"]))).prop_map(|(state, required, eta, why)| {
        WarmupUpdate { state, required, eta, why: why.map(str::to_owned), ..WarmupUpdate::default() }
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    let tags = prop::collection::btree_map("[kl]", "[12]", 0..3);
    let versions = one_of(&["v3", "v4"]);
    let wishes = prop::collection::vec((one_of(&DIRECTORIES), any::<bool>()), 0..3).prop_map(|wishes| {
        let wish = |(d, recursive)| LearnRequest { volume: volume("data"), directory: path(d), recursive };
        wishes.into_iter().map(wish).collect()
    });
    let forecasts = prop::collection::vec((0u8..4, 0u8..2, 0i64..40, 0usize..3), 0..3).prop_map(|all| {
        all.into_iter().map(|(id, w, until, n)| forecast(&format!("f{id}"), &format!("w{w}"), until, n)).collect()
    });
    prop_oneof![
        6 => any_listing().prop_map(Call::List),
        1 => (one_of(&DIRECTORIES), tags).prop_map(|(d, tags)| Call::Tag(path(d), tags)),
        2 => (one_of(&FILES), versions, 0u32..9).prop_map(|(f, v, n)| Call::Manifest(path(f), manifest(v, &[n, 7]))),
        2 => any_shared().prop_map(Call::Shared),
        2 => (wishes, 0u8..4).prop_map(|(wishes, heat)| Call::Want(wishes, heat)),
        1 => (0usize..3).prop_map(Call::Take),
        2 => any_batch().prop_map(Call::Batch),
        1 => (0u8..3, 0i64..9).prop_map(|(w, at)| Call::Profile(profile(&format!("w{w}"), at))),
        1 => forecasts.prop_map(Call::Forecasts),
        1 => (0u8..4).prop_map(|id| Call::Withdraw(format!("f{id}").into())),
        4 => any_plan().prop_map(Call::Plan),
        2 => (0u64..30).prop_map(Call::Assign),
        5 => any_outcomes().prop_map(Call::Outcomes),
        2 => (0u8..3, prop::option::of((one_of(&["k1", "k2"]), 0u8..2)))
            .prop_map(|(w, key)| Call::Ask(Box::new(warmup(&format!("w{w}"), "gpu")), key)),
        3 => (0u8..3, any_update()).prop_map(|(w, update)| Call::Update(format!("w{w}").into(), update)),
        1 => "[a-c]".prop_map(Call::Event),
    ]
}

fn text(value: impl Debug) -> String {
    format!("{value:?}")
}

/// Makes a call at a moment; answers all that the catalog said to it.
async fn make(c: &Arc<dyn Catalog>, call: &Call, at: Timestamp) -> String {
    let v = volume("data");
    match call {
        Call::List(l) => text(c.put_listing(l).await),
        Call::Tag(p, tags) => text(c.put_tags(&v, p, tags).await),
        Call::Manifest(p, m) => text(c.put_manifest(&v, p, m).await),
        Call::Shared(files) => text(c.put_shared(files).await),
        Call::Want(wishes, heat) => text(c.want_learned(wishes, f64::from(*heat), at).await),
        Call::Take(n) => text(c.take_wishes(&[v], &node("n"), at, Duration::from_micros(5), *n).await),
        Call::Batch(b) => text(c.record_batch(b, &format!("{}.parquet", b.sequence), at).await),
        Call::Profile(p) => text(c.put_profile(p).await),
        Call::Forecasts(f) => text(c.put_forecasts(f).await),
        Call::Withdraw(id) => text(c.withdraw_forecasts(std::slice::from_ref(id), at).await),
        Call::Plan(p) => text(c.put_plan(p).await),
        Call::Assign(cursor) => text(c.assignment_since(&site("gpu"), *cursor).await),
        Call::Outcomes(b) => text(c.record_outcomes(b, at).await),
        Call::Ask(w, key) => text(c.put_warmup(w, key.map(|(k, h)| (k, [h; 32]))).await),
        Call::Update(id, update) => text(c.update_warmup(id, update, at).await),
        Call::Event(kind) => text(c.append_event(kind, &serde_json::json!({}), at).await),
    }
}

/// Everything that can be asked. Numbers of pages are left out: they only have to keep the order.
async fn all(c: &Arc<dyn Catalog>) -> Vec<String> {
    let v = volume("data");
    let mut told = Vec::new();
    for d in DIRECTORIES {
        let d = path(d);
        told.push(text(c.directory(&v, &d).await));
        told.push(text(c.files_below(&v, &d, None, 100).await));
        told.push(text(c.files_below(&v, &d, Some(&path("a/b/f")), 2).await));
        told.push(text(c.totals(&v, &d).await));
        told.push(text(c.unlearned(&v, &d, 100).await));
        told.push(text(c.tags(&v, &d).await));
        let below = FileQuery { volume: Some(v.clone()), below: Some(d), ..FileQuery::default() };
        told.push(text(search(c, &below).await));
    }
    for f in FILES {
        told.push(text(c.entry(&v, &path(f)).await));
        told.push(text(c.resident_sites(&v, &path(f)).await));
        told.push(text(c.denied_since(&v, &path(f), Timestamp(10)).await));
        for version in ["v3", "v4"] {
            told.push(text(c.manifest(&v, &path(f), &FileVersion(version.into())).await));
        }
    }
    let tag = FileQuery { tags: [("k".to_owned(), "1".to_owned())].into(), ..FileQuery::default() };
    let here = FileQuery { resident_at: Some(site("gpu")), min_bytes: Some(2), ..FileQuery::default() };
    for query in [tag, here, FileQuery { name_part: Some("F".into()), ..FileQuery::default() }] {
        told.push(text(search(c, &query).await));
    }
    told.push(text(c.shared(0, 100).await));
    told.push(text(c.losses().await));
    told.push(text(c.next_sequences(&node("n1")).await));
    told.push(text(c.lake_files(Timestamp(0), None).await.map(|p| p.items)));
    told.push(text(c.runs(&RunFilter::default(), None, 100).await.map(|p| p.items)));
    told.push(text(c.profiles(None, 100).await.map(|p| p.items)));
    for filter in
        [ForecastFilter::default(), ForecastFilter { holding_at: Some(Timestamp(20)), ..ForecastFilter::default() }]
    {
        told.push(text(c.forecasts(&filter, true, None, 100).await.map(|p| p.items)));
    }
    told.push(text(c.latest_plan().await));
    told.push(text(c.plans(None, 100).await.map(|p| p.items)));
    told.push(text(c.moves(&MoveFilter::default(), None, 100).await.map(|p| p.items)));
    told.push(text(c.running().await));
    told.push(text(c.resident(&site("gpu")).await));
    told.push(text(c.site_status(&site("gpu")).await));
    told.push(text(c.read_summaries(&ReadFilter::default(), None, 100).await.map(|p| p.items)));
    told.push(text(c.refusals(0, 100).await.map(|r| r.into_iter().map(|r| r.refusal).collect::<Vec<_>>())));
    told.push(text(c.warmups(&WarmupFilter::default(), None, 100).await.map(|p| p.items)));
    told.push(text(c.tagged(&volume("data")).await));
    for w in ["w0", "w1"] {
        told.push(text(c.census(&w.into()).await));
    }
    told.push(text(c.events_since(0, 100).await));
    told
}

async fn search(c: &Arc<dyn Catalog>, query: &FileQuery) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = c.find_files(query, cursor.as_deref(), 3).await.unwrap();
        found.extend(page.items.iter().map(text));
        cursor = page.next;
        if cursor.is_none() {
            found.sort();
            return found;
        }
    }
}

/// Runs `cases` series of calls.
pub fn compare<T>(runtime: &tokio::runtime::Runtime, cases: u32, fresh: impl Fn() -> (Arc<dyn Catalog>, T)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let calls = prop::collection::vec(any_call(), 1..60);
    let outcome = TestRunner::new(config).run(&calls, |calls| {
        let (real, _keep) = fresh();
        let model = in_memory();
        runtime.block_on(async {
            for (i, call) in calls.iter().enumerate() {
                let at = Timestamp(i as i64);
                prop_assert_eq!(make(&real, call, at).await, make(&model, call, at).await, "call {}: {:?}", i, call);
            }
            let (real, model) = (all(&real).await, all(&model).await);
            for (real, model) in real.iter().zip(&model) {
                prop_assert_eq!(real, model);
            }
            Ok(())
        })
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}
