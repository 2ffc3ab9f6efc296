//! What every catalog must do, told one by one. Each story starts with an empty catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foretide_catalog::*;
use foretide_flow::*;

use crate::values::*;

/// Every story by name, for stores that are costly to start: they tell all in one test.
macro_rules! stories {
    ($(async fn $name:ident($c:ident) $body:block)*) => {
        $(pub async fn $name($c: Arc<dyn Catalog>) $body)*

        /// All of them.
        pub const ALL: &[(&str, crate::stores::Story)] = &[$((stringify!($name), |c| Box::pin($name(c)))),*];
    };
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn names(files: &[Entry]) -> Vec<String> {
    files.iter().map(|e| e.path.to_string()).collect()
}

async fn found(c: &Arc<dyn Catalog>, query: FileQuery) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = c.find_files(&query, cursor.as_deref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        all.extend(page.items.iter().map(|f| format!("{}:{}", f.volume, f.entry.path)));
        cursor = page.next;
        if cursor.is_none() {
            all.sort();
            return all;
        }
    }
}

async fn tree(c: &Arc<dyn Catalog>) {
    for l in [
        listing("data", "", 1, &["train/", "readme=7", "train-2=9"]),
        listing("data", "train", 2, &["a/", "b/", "0001.jpg=10", "link>../readme", "x%FFy=3"]),
        listing("data", "train/a", 3, &["0002.jpg=20", "0003.JPG=30"]),
        listing("other", "", 4, &["0004.jpg=40"]),
    ] {
        c.put_listing(&l).await.unwrap();
    }
}

stories! {
    async fn a_directory_reads_back_as_it_was_listed(c) {
        let l = listing("data", "train", 2, &["a/", "link>../x", "x%FFy=3", "ü=4", "%25=5"]);
        assert_eq!(c.put_listing(&l).await.unwrap(), Changed { added: 5, ..Changed::default() });
        assert_eq!(c.directory(&volume("data"), &path("train")).await.unwrap(), Some(l.clone()));
        assert_eq!(c.directory(&volume("data"), &path("train/a")).await.unwrap(), None);
        assert_eq!(c.directory(&volume("other"), &path("train")).await.unwrap(), None);
        for e in &l.entries {
            assert_eq!(c.entry(&volume("data"), &e.path).await.unwrap().as_ref(), Some(e));
        }
        assert_eq!(c.entry(&volume("data"), &path("train/none")).await.unwrap(), None);
        assert_eq!(c.entry(&volume("data"), &FilePath::root()).await.unwrap(), None);
    }

    async fn a_listing_replaces_its_directory_and_says_what_changed(c) {
        tree(&c).await;
        let again = listing("data", "", 10, &["train/", "readme=8", "new=1"]);
        let changed = c.put_listing(&again).await.unwrap();
        assert_eq!(changed, Changed { added: 1, changed: 1, removed: 1 });
        assert!(c.directory(&volume("data"), &path("train/a")).await.unwrap().is_some());
        let older = listing("data", "", 9, &[]);
        assert_eq!(c.put_listing(&older).await.unwrap(), Changed::default());
        assert_eq!(c.directory(&volume("data"), &path("")).await.unwrap(), Some(again));
    }

    async fn a_directory_that_is_gone_takes_all_below_it(c) {
        tree(&c).await;
        let m = manifest("v10", &[10]);
        c.put_manifest(&volume("data"), &path("train/0001.jpg"), &m).await.unwrap();
        c.put_manifest(&volume("data"), &path("train-2"), &m).await.unwrap();
        c.record_outcomes(&outcomes(1, vec![read(None, "train/a/0002.jpg", 20, Found::Hit)]), Timestamp(1)).await.unwrap();
        assert_eq!(c.resident(&site("gpu")).await.unwrap().len(), 1);
        c.put_listing(&listing("data", "", 10, &["train-2=9"])).await.unwrap();
        assert!(c.directory(&volume("data"), &path("train")).await.unwrap().is_none());
        assert!(c.entry(&volume("data"), &path("train/a/0002.jpg")).await.unwrap().is_none());
        assert!(c.resident(&site("gpu")).await.unwrap().is_empty());
        assert_eq!(c.manifest(&volume("data"), &path("train/0001.jpg"), &m.version).await.unwrap(), None);
        assert_eq!(c.manifest(&volume("data"), &path("train-2"), &m.version).await.unwrap(), Some(m));
    }

    async fn a_directory_that_became_a_file_or_never_was_takes_all_below_it(c) {
        tree(&c).await;
        c.put_listing(&listing("data", "train", 10, &["a=5", "b/", "0001.jpg=10"])).await.unwrap();
        assert!(c.directory(&volume("data"), &path("train/a")).await.unwrap().is_none());
        assert_eq!(names(&c.files_below(&volume("data"), &path("train/a"), None, 9).await.unwrap()), ["train/a"]);
        for l in [listing("deep", "x/y", 1, &["f=1"]), listing("deep", "x-y", 1, &["f=1"]), listing("deep", "", 2, &["x=9", "x-y/"])] {
            c.put_listing(&l).await.unwrap();
        }
        assert!(c.directory(&volume("deep"), &path("x/y")).await.unwrap().is_none());
        assert!(c.directory(&volume("deep"), &path("x-y")).await.unwrap().is_some());
        assert_eq!(c.totals(&volume("deep"), &path("")).await.unwrap(), Totals { files: 2, bytes: 10, complete: true });
    }

    async fn a_file_of_another_version_loses_manifest_and_residency(c) {
        tree(&c).await;
        let m = manifest("v7", &[3, 4]);
        c.put_manifest(&volume("data"), &path("readme"), &m).await.unwrap();
        c.record_outcomes(&outcomes(1, vec![read(None, "readme", 7, Found::Miss)]), Timestamp(1)).await.unwrap();
        assert_eq!(c.resident_sites(&volume("data"), &path("readme")).await.unwrap()[0].1.bytes(), 7);
        c.put_listing(&listing("data", "", 10, &["train/", "readme=8", "train-2=9"])).await.unwrap();
        assert!(c.resident_sites(&volume("data"), &path("readme")).await.unwrap().is_empty());
        assert_eq!(c.manifest(&volume("data"), &path("readme"), &m.version).await.unwrap(), None);
    }

    async fn a_listing_that_cannot_be_is_refused_by_name(c) {
        let mut l = listing("data", "train", 1, &["a=1"]);
        l.entries.push(l.entries[0].clone());
        assert!(c.put_listing(&l).await.unwrap_err().to_string().contains("train/a comes twice"));
        let mut l = listing("data", "train", 1, &["a=1"]);
        l.directory = path("elsewhere");
        assert!(c.put_listing(&l).await.unwrap_err().to_string().contains("does not lie directly in it"));
    }

    async fn files_below_come_by_directory_and_name_page_by_page(c) {
        tree(&c).await;
        let (v, all) = (volume("data"), ["readme", "train-2", "train/0001.jpg", "train/x%FFy", "train/a/0002.jpg", "train/a/0003.JPG"]);
        let mut seen: Vec<Entry> = Vec::new();
        loop {
            let after = seen.last().map(|e| e.path.clone());
            let page = c.files_below(&v, &FilePath::root(), after.as_ref(), 2).await.unwrap();
            seen.extend(page.clone());
            if page.len() < 2 { break; }
        }
        assert_eq!(names(&seen), all);
        assert_eq!(names(&c.files_below(&v, &path("train"), None, 100).await.unwrap()), all[2..]);
        assert_eq!(names(&c.files_below(&v, &path("train/a"), None, 100).await.unwrap()), all[4..]);
        assert_eq!(names(&c.files_below(&v, &path("readme"), None, 100).await.unwrap()), ["readme"]);
        assert!(c.files_below(&v, &path("readme"), Some(&path("readme")), 100).await.unwrap().is_empty());
        assert!(c.files_below(&v, &path("train/link"), None, 100).await.unwrap().is_empty());
        assert!(c.files_below(&v, &path("tr"), None, 100).await.unwrap().is_empty());
    }

    async fn totals_say_whether_all_is_known(c) {
        tree(&c).await;
        let v = volume("data");
        let totals = |p: &str| { let (c, v, p) = (c.clone(), v.clone(), path(p)); async move { c.totals(&v, &p).await.unwrap() } };
        assert_eq!(totals("").await, Totals { files: 6, bytes: 79, complete: false });
        assert_eq!(totals("train/a").await, Totals { files: 2, bytes: 50, complete: true });
        assert_eq!(totals("readme").await, Totals { files: 1, bytes: 7, complete: true });
        assert_eq!(totals("nowhere").await, Totals { files: 0, bytes: 0, complete: false });
        assert_eq!(c.unlearned(&v, &path(""), 10).await.unwrap(), [path("train/b")]);
        assert_eq!(c.unlearned(&v, &path("nowhere"), 10).await.unwrap(), [path("nowhere")]);
        c.put_listing(&listing("data", "train/b", 5, &[])).await.unwrap();
        assert!(totals("").await.complete && c.unlearned(&v, &path(""), 10).await.unwrap().is_empty());
    }

    async fn files_are_found_by_every_condition(c) {
        tree(&c).await;
        c.put_tags(&volume("data"), &path("train"), &tags(&[("project", "moon"), ("tier", "hot")])).await.unwrap();
        c.put_tags(&volume("data"), &path("train/a"), &tags(&[("tier", "cold")])).await.unwrap();
        c.record_outcomes(&outcomes(1, vec![read(None, "train/0001.jpg", 10, Found::Hit)]), Timestamp(1)).await.unwrap();
        let q = FileQuery::default;
        let jpgs = ["data:train/0001.jpg", "data:train/a/0002.jpg", "data:train/a/0003.JPG", "other:0004.jpg"];
        assert_eq!(found(&c, FileQuery { suffix: Some(".Jpg".into()), ..q() }).await, jpgs);
        assert_eq!(found(&c, FileQuery { name_part: Some("003.j".into()), ..q() }).await, jpgs[2..3]);
        assert_eq!(found(&c, FileQuery { min_bytes: Some(10), max_bytes: Some(30), ..q() }).await, jpgs[..3]);
        let aged = FileQuery { modified_from: Some(Timestamp(20_000)), modified_before: Some(Timestamp(40_000)), ..q() };
        assert_eq!(found(&c, aged).await, jpgs[1..3]);
        assert_eq!(found(&c, FileQuery { tags: tags(&[("tier", "cold")]), ..q() }).await, jpgs[1..3]);
        let hot = FileQuery { tags: tags(&[("tier", "hot"), ("project", "moon")]), suffix: Some("jpg".into()), ..q() };
        assert_eq!(found(&c, hot).await, jpgs[..1]);
        assert_eq!(found(&c, FileQuery { resident_at: Some(site("gpu")), ..q() }).await, jpgs[..1]);
        assert_eq!(found(&c, FileQuery { resident_at: Some(site("mars")), ..q() }).await, Vec::<String>::new());
        let below = FileQuery { volume: Some(volume("data")), below: Some(path("train/a")), ..q() };
        assert_eq!(found(&c, below.clone()).await, jpgs[1..3]);
        assert_eq!(found(&c, FileQuery { min_bytes: Some(30), ..below }).await, jpgs[2..3]);
        assert_eq!(found(&c, FileQuery { volume: Some(volume("other")), ..q() }).await, jpgs[3..]);
        assert_eq!(found(&c, q()).await.len(), 7);
        let lost = FileQuery { below: Some(path("x")), ..q() };
        assert!(c.find_files(&lost, None, 1).await.unwrap_err().to_string().contains("name the volume"));
        assert!(c.find_files(&q(), Some("?"), 1).await.unwrap_err().to_string().contains("start without one"));
    }

    async fn the_nearest_tag_wins(c) {
        c.put_tags(&volume("data"), &path(""), &tags(&[("a", "1"), ("b", "1")])).await.unwrap();
        c.put_tags(&volume("data"), &path("x/y"), &tags(&[("b", "2")])).await.unwrap();
        assert_eq!(c.tags(&volume("data"), &path("x/y/z")).await.unwrap(), tags(&[("a", "1"), ("b", "2")]));
        c.put_tags(&volume("data"), &path("x/y"), &tags(&[])).await.unwrap();
        assert_eq!(c.tags(&volume("data"), &path("x/y/z")).await.unwrap(), tags(&[("a", "1"), ("b", "1")]));
        assert!(c.tags(&volume("other"), &path("x")).await.unwrap().is_empty());
    }

    async fn promise_k_a_file_keeps_its_last_manifests(c) {
        let (v, p) = (volume("data"), path("a"));
        let versions: Vec<_> = (0..6).map(|i| manifest(&format!("v{i}"), &vec![5; i])).collect();
        for m in &versions {
            c.put_manifest(&v, &p, m).await.unwrap();
        }
        for (i, m) in versions.iter().enumerate() {
            let kept = c.manifest(&v, &p, &m.version).await.unwrap();
            assert_eq!(kept.as_ref(), (i >= 6 - limits::MANIFESTS_PER_FILE).then_some(m));
        }
    }

    async fn what_files_share_is_told_anew_and_goes_with_the_file(c) {
        tree(&c).await;
        let told = |after: u64| { let c = c.clone(); async move { c.shared(after, 9).await.unwrap() } };
        let files = |told: &[SharedRecord]| told.iter().map(|r| r.file.clone()).collect::<Vec<_>>();
        let jpg = |version: &str, chunks: &[u8]| shared("train/0001.jpg", version, chunks);
        let mut news = c.changes(Topic::Shared);
        c.put_shared(&[jpg("v10", &[1, 2]), shared("readme", "v7", &[2])]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), news.changed()).await.expect("nobody was told").unwrap();
        let first = told(0).await;
        assert_eq!(files(&first), [jpg("v10", &[1, 2]), shared("readme", "v7", &[2])]);
        c.put_shared(&[jpg("v10", &[3])]).await.unwrap();
        assert_eq!(files(&told(first[1].id).await), [jpg("v10", &[3])], "only what is new");
        assert_eq!(files(&told(0).await), [shared("readme", "v7", &[2]), jpg("v10", &[3])], "in place of what was told");
        assert_eq!(told(told(0).await[1].id).await, []);

        // Told before the listing that shows it, and of a directory that nobody has listed yet.
        c.put_shared(&[shared("readme", "v8", &[2]), shared("train/b/x", "v1", &[2]), shared("train-2", "v8", &[2])]).await.unwrap();
        c.put_listing(&listing("data", "", 10, &["train/", "readme=8", "train-2=9"])).await.unwrap();
        let kept = [jpg("v10", &[3]), shared("readme", "v8", &[2]), shared("train/b/x", "v1", &[2])];
        assert_eq!(files(&told(0).await), kept, "train-2 is of another version");
        c.put_listing(&listing("data", "train/b", 11, &["y=1"])).await.unwrap();
        c.put_shared(&[jpg("v10", &[])]).await.unwrap();
        assert_eq!(files(&told(0).await), kept[1..2], "what is no longer there, and what shares nothing any more");
        c.put_shared(&[jpg("v10", &[1])]).await.unwrap();
        c.put_listing(&listing("data", "", 12, &["readme=8"])).await.unwrap();
        assert_eq!(files(&told(0).await), kept[1..2], "a directory that is gone takes all below it");
    }

    async fn promise_k_what_files_share_is_bounded_and_must_be_possible(c) {
        let mut many = shared("f", "v1", &[1]);
        many.chunks = (0..SharedFile::CHUNKS_MAX as u64).map(|n| SharedChunk { offset: n * 10, ..many.chunks[0] }).collect();
        let named = |n: usize| SharedFile { path: path(&format!("f{n}")), ..many.clone() };
        let fit = limits::SHARED_CHUNKS / SharedFile::CHUNKS_MAX;
        for n in 0..=fit {
            c.put_shared(&[named(n)]).await.unwrap();
        }
        let kept: Vec<_> = c.shared(0, 1000).await.unwrap().into_iter().map(|r| r.file.path.to_string()).collect();
        assert_eq!(kept, (1..=fit).map(|n| format!("f{n}")).collect::<Vec<_>>(), "the one told first has gone");
        let mut over = shared("g", "v1", &[1, 2]);
        over.chunks[1].offset = 9;
        assert!(c.put_shared(&[over]).await.unwrap_err().to_string().contains("lie over each other"));
        many.chunks.push(SharedChunk { offset: u64::MAX - 10, ..many.chunks[0] });
        assert!(c.put_shared(&[many]).await.unwrap_err().to_string().contains("tell the first ones"));
    }

    async fn wishes_are_taken_once_hottest_first_and_fulfilled_by_listings(c) {
        let wish = |dir: &str, recursive| LearnRequest { volume: volume("data"), directory: path(dir), recursive };
        c.want_learned(&[wish("cold", false), wish("deep", true)], 1.0, Timestamp(1)).await.unwrap();
        c.want_learned(&[wish("hot", false)], 5.0, Timestamp(2)).await.unwrap();
        let take = |node_name: &'static str, now: i64| {
            let c = c.clone();
            async move {
                let lease = Duration::from_micros(100);
                c.take_wishes(&[volume("data"), volume("z")], &node(node_name), Timestamp(now), lease, 2).await.unwrap()
            }
        };
        assert_eq!(take("n1", 10).await, [wish("hot", false), wish("cold", false)]);
        assert_eq!(take("n2", 11).await, [wish("deep", true)]);
        assert!(take("n2", 12).await.is_empty());
        c.put_listing(&listing("data", "hot", 20, &[])).await.unwrap();
        c.put_listing(&listing("data", "deep", 20, &["er/", "f=1"])).await.unwrap();
        assert_eq!(take("n2", 21).await, [wish("deep/er", true)]);
        assert_eq!(take("n3", 110).await, [wish("cold", false)]);
        assert!(c.take_wishes(&[], &node("n"), Timestamp(999), Duration::ZERO, 9).await.unwrap().is_empty());
    }

    async fn what_a_listing_denies_is_known_to_be_nowhere_and_no_longer_wished_for(c) {
        let data = volume("data");
        let nowhere = async |name: &str, since| c.denied_since(&data, &path(name), Timestamp(since)).await.unwrap();
        assert!(!nowhere("a/b/gone", 1).await, "nobody has looked");
        let wish = |dir: &str| LearnRequest { volume: volume("data"), directory: path(dir), recursive: true };
        c.want_learned(&[wish("a/b/gone"), wish("a/f"), wish("a/later")], 1.0, Timestamp(10)).await.unwrap();
        let take = async |now| {
            let lease = Duration::from_micros(100);
            c.take_wishes(&[volume("data")], &node("n"), Timestamp(now), lease, 9).await.unwrap()
        };
        c.put_listing(&listing("data", "a", 5, &["f=1"])).await.unwrap();
        assert_eq!(take(11).await.len(), 3, "it was listed before anybody wished for it");
        assert!(nowhere("a/b/gone", 5).await && !nowhere("a/b/gone", 6).await && !nowhere("a/f", 5).await);
        assert!(nowhere("a/f/below", 5).await, "below a file there is nothing");
        c.put_listing(&listing("data", "a", 20, &["f=1", "later/"])).await.unwrap();
        assert!(nowhere("a/b/gone", 11).await && !nowhere("a/later/more", 11).await);
        assert_eq!(take(200).await, [wish("a/later")]);
        assert_eq!(take(400).await, [wish("a/later")], "it is there, and waits for an agent that can list it");
    }

    async fn promise_e_a_batch_that_comes_twice_counts_once(c) {
        let ended = vec![RunEnd { run: "r2".into(), at: Timestamp(9) }];
        // What numbers a command line had is nobody's but the model's.
        let with_numbers = RunStart { numbers: vec![Some(7)], ..run_start("r1", "w1", 1) };
        let first = batch(3, vec![with_numbers, run_start("r2", "w1", 2)], ended);
        assert!(c.record_batch(&first, "a.parquet", Timestamp(1)).await.unwrap().new);
        assert!(!c.record_batch(&first, "again.parquet", Timestamp(2)).await.unwrap().new);
        assert!(c.record_batch(&batch(7, vec![], vec![]), "b.parquet", Timestamp(3)).await.unwrap().new);
        assert!(c.record_batch(&batch(5, vec![], vec![]), "c.parquet", Timestamp(4)).await.unwrap().new);
        let lost = c.losses().await.unwrap();
        assert_eq!((lost[0].batches, lost[0].missing_batches, lost[0].accesses), (3, 2, 3));
        assert_eq!(lost[0].losses, Losses { dropped_events: 6, unresolved: 9, summarised: 15 });
        assert_eq!(c.next_sequences(&node("n1")).await.unwrap(), NextSequences { accesses: 8, outcomes: 0 });
        assert_eq!(c.next_sequences(&node("n9")).await.unwrap(), NextSequences::default());
        assert_eq!(c.lake_files(Timestamp(2), None).await.unwrap().items, ["b.parquet", "c.parquet"]);
        let running = c.runs(&RunFilter { running: true, ..RunFilter::default() }, None, 10).await.unwrap().items;
        assert_eq!(running, [Run { start: run_start("r1", "w1", 1), ended_at: None }]);
        let page = c.runs(&RunFilter::default(), None, 1).await.unwrap();
        assert_eq!(page.items[0].ended_at, Some(Timestamp(9)));
        assert_eq!(c.runs(&RunFilter::default(), page.next, 1).await.unwrap().items, running);
    }

    async fn an_end_may_come_before_its_start(c) {
        c.record_batch(&batch(2, vec![], vec![RunEnd { run: "r".into(), at: Timestamp(9) }]), "b", Timestamp(1)).await.unwrap();
        c.record_batch(&batch(1, vec![run_start("r", "w", 1)], vec![]), "a", Timestamp(2)).await.unwrap();
        assert_eq!(c.runs(&RunFilter::default(), None, 9).await.unwrap().items[0].ended_at, Some(Timestamp(9)));
    }

    async fn agents_profiles_and_models_read_back(c) {
        c.put_agent(&agent("n2", 1)).await.unwrap();
        c.put_agent(&agent("n1", 1)).await.unwrap();
        c.put_agent(&agent("n2", 2)).await.unwrap();
        assert_eq!(c.agents().await.unwrap(), [agent("n1", 1), agent("n2", 2)]);
        for p in [profile("w1", 1), profile("w2", 2), profile("w1", 3)] {
            c.put_profile(&p).await.unwrap();
        }
        assert_eq!(c.profile(&"w1".into()).await.unwrap(), Some(profile("w1", 3)));
        assert_eq!(c.profiles(None, 9).await.unwrap().items, [profile("w1", 3), profile("w2", 2)]);
        for i in 0..5u8 {
            assert_eq!(c.put_model("gbm", &[i; 3], Timestamp(i.into())).await.unwrap(), u64::from(i) + 1);
        }
        let newest = ModelSnapshot { name: "gbm".into(), version: 5, at: Timestamp(4), bytes: vec![4; 3] };
        assert_eq!(c.model("gbm").await.unwrap(), Some(newest));
        assert_eq!(c.model("none").await.unwrap(), None);
    }

    async fn forecasts_are_replaced_withdrawn_and_expire(c) {
        c.put_forecasts(&[forecast("f1", "w1", 100, 2_000), forecast("f2", "w2", 50, 1)]).await.unwrap();
        c.put_forecasts(&[forecast("f1", "w1", 100, 3)]).await.unwrap();
        assert_eq!(c.forecast(&"f1".into()).await.unwrap(), Some(forecast("f1", "w1", 100, 3)));
        let holding = |at| ForecastFilter { holding_at: Some(Timestamp(at)), ..ForecastFilter::default() };
        let ids = |page: Page<Forecast>| page.items.iter().map(|f| f.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(c.forecasts(&holding(49), true, None, 9).await.unwrap()), ["f1", "f2"]);
        assert_eq!(ids(c.forecasts(&holding(50), true, None, 9).await.unwrap()), ["f1"]);
        c.withdraw_forecasts(&["f1".into(), "gone".into()], Timestamp(60)).await.unwrap();
        assert_eq!(ids(c.forecasts(&holding(60), true, None, 9).await.unwrap()), Vec::<String>::new());
        let all = c.forecasts(&ForecastFilter::default(), false, None, 1).await.unwrap();
        assert!(all.items[0].reads.is_empty() && all.next.is_some());
    }

    async fn a_plan_changes_only_what_differs(c) {
        let (a, b) = (a_move("a", "a", 0, 10, by_forecast()), a_move("b", "b", 0, 10, by_forecast()));
        let first = plan("p1", 10, vec![a.clone(), b.clone()]);
        assert_eq!(c.put_plan(&first).await.unwrap(), PlanChange { added: 2, ..PlanChange::default() });
        assert_eq!(c.put_plan(&first).await.unwrap(), PlanChange::default());
        let handed = c.assignment_since(&site("gpu"), 0).await.unwrap();
        assert_eq!(handed.run, [a.clone(), b.clone()]);
        assert_eq!(c.a_move(&"a".into()).await.unwrap().unwrap().state, MoveState::Running);
        assert_eq!(c.assignment_since(&site("gpu"), handed.cursor).await.unwrap(), MoveChanges { cursor: handed.cursor, ..MoveChanges::default() });
        let sooner = Move { start_at: Timestamp(50), ..a.clone() };
        let second = plan("p2", 20, vec![sooner.clone(), a_move("c", "c", 0, 5, by_forecast())]);
        assert_eq!(c.put_plan(&second).await.unwrap(), PlanChange { added: 1, changed: 1, cancelled: 1 });
        let next = c.assignment_since(&site("gpu"), handed.cursor).await.unwrap();
        assert_eq!(next.run, second.moves);
        assert_eq!(next.cancel, [MoveId::from("b")]);
        assert!(c.assignment_since(&site("store"), 0).await.unwrap().run.is_empty());
        let anew = c.assignment_since(&site("gpu"), 0).await.unwrap();
        assert_eq!((anew.run.len(), anew.cancel.len()), (2, 0));
        assert_eq!(c.latest_plan().await.unwrap(), Some(second.clone()));
        assert_eq!(c.plan(&"p1".into()).await.unwrap(), Some(first));
        let page = c.plans(None, 1).await.unwrap();
        assert_eq!((page.items[0].id.as_str(), page.items[0].moves, page.items[0].bytes), ("p2", 2, 15));
        assert_eq!(c.plans(page.next, 9).await.unwrap().items[0].id.as_str(), "p1");
        let twice = plan("p3", 30, vec![a.clone(), a]);
        assert!(c.put_plan(&twice).await.unwrap_err().to_string().contains("twice"));
    }

    async fn moves_end_as_outcomes_say_and_only_a_later_plan_revives_them(c) {
        let moves = || vec![a_move("a", "a", 0, 10, by_forecast()), a_move("b", "b", 5, 10, by_forecast())];
        c.put_plan(&plan("p1", 10, moves())).await.unwrap();
        let failed = Outcome::Failed { id: "b".into(), at: Timestamp(151), why: "source gone".into() };
        c.record_outcomes(&outcomes(1, vec![moved("a", 10), failed, moved("unknown", 1)]), Timestamp(160)).await.unwrap();
        let a = c.a_move(&"a".into()).await.unwrap().unwrap();
        assert_eq!((a.state, a.ended_at, a.wire_bytes), (MoveState::Done, Some(Timestamp(150)), Some(5)));
        let b = c.a_move(&"b".into()).await.unwrap().unwrap();
        assert_eq!((b.state, b.why.as_deref()), (MoveState::Failed, Some("source gone")));
        assert_eq!(c.put_plan(&plan("p2", 155, moves())).await.unwrap(), PlanChange::default());
        assert_eq!(c.put_plan(&plan("p3", 161, moves())).await.unwrap(), PlanChange { added: 2, ..PlanChange::default() });
        let filter = MoveFilter { states: vec![MoveState::Planned], workload: Some("w1".into()), to: Some(site("gpu")), ..MoveFilter::default() };
        assert_eq!(c.moves(&filter, None, 9).await.unwrap().items.len(), 2);
        let page = c.moves(&MoveFilter::default(), None, 1).await.unwrap();
        assert_eq!(page.items[0].mv.id.as_str(), "b");
        assert_eq!(c.moves(&MoveFilter::default(), page.next, 1).await.unwrap().items[0].mv.id.as_str(), "a");
    }

    async fn bytes_that_arrived_are_there_even_if_no_longer_wanted(c) {
        c.put_plan(&plan("p1", 10, vec![a_move("a", "a", 0, 10, by_forecast())])).await.unwrap();
        c.put_plan(&plan("p2", 20, vec![])).await.unwrap();
        assert_eq!(c.a_move(&"a".into()).await.unwrap().unwrap().state, MoveState::Cancelled);
        c.record_outcomes(&outcomes(1, vec![moved("a", 10)]), Timestamp(30)).await.unwrap();
        assert_eq!(c.a_move(&"a".into()).await.unwrap().unwrap().state, MoveState::Done);
        assert_eq!(c.resident(&site("gpu")).await.unwrap()[0].ranges, [(0, 10)]);
    }

    async fn residency_follows_moves_reads_and_evictions(c) {
        tree(&c).await;
        let parts = vec![a_move("1", "train/a/0002.jpg", 0, 5, by_forecast()), a_move("2", "train/a/0002.jpg", 5, 5, by_forecast())];
        c.put_plan(&plan("p", 1, parts)).await.unwrap();
        let events = vec![
            moved("2", 5),
            moved("1", 5),
            read(None, "readme", 6, Found::Late),
            read(None, "train-2", 9, Found::Miss),
            evicted("train-2", 9, 0),
        ];
        c.record_outcomes(&outcomes(1, events), Timestamp(1)).await.unwrap();
        let here = c.resident(&site("gpu")).await.unwrap();
        assert_eq!(here.len(), 1);
        assert_eq!((here[0].path.to_string().as_str(), &here[0].ranges[..]), ("train/a/0002.jpg", &[(0, 10)][..]));
        c.record_outcomes(&outcomes(2, vec![evicted("train/a/0002.jpg", 10, 4)]), Timestamp(2)).await.unwrap();
        assert!(c.resident(&site("gpu")).await.unwrap().is_empty());
        assert_eq!(c.site_status(&site("gpu")).await.unwrap().wasted_bytes, 4);
        c.record_outcomes(&outcomes(3, vec![read(None, "readme", 7, Found::Hit)]), Timestamp(3)).await.unwrap();
        c.forget_resident(&site("gpu")).await.unwrap();
        assert!(c.resident(&site("gpu")).await.unwrap().is_empty());
    }

    async fn reads_add_up_by_run_and_site(c) {
        let reads = vec![
            read(Some("r1"), "a", 10, Found::Hit),
            read(Some("r1"), "b", 20, Found::Miss),
            read(None, "c", 2, Found::Late),
        ];
        assert!(c.record_outcomes(&outcomes(1, reads.clone()), Timestamp(1)).await.unwrap().new);
        assert!(!c.record_outcomes(&outcomes(1, reads), Timestamp(1)).await.unwrap().new);
        let sums = c.read_summaries(&ReadFilter::default(), None, 9).await.unwrap().items;
        assert_eq!((sums.len(), sums[0].workload.as_str(), sums[0].started_at), (1, "unknown", Timestamp(170)));
        c.record_batch(&batch(1, vec![run_start("r1", "w1", 160)], vec![RunEnd { run: "r1".into(), at: Timestamp(190) }]), "f", Timestamp(2)).await.unwrap();
        c.record_outcomes(&outcomes(2, vec![read(Some("r1"), "c", 4, Found::Late)]), Timestamp(3)).await.unwrap();
        let sum = c.read_summaries(&ReadFilter { workload: Some("w1".into()), ..ReadFilter::default() }, None, 9).await.unwrap().items.remove(0);
        assert_eq!((sum.reads, sum.bytes, sum.prefetched_bytes, sum.hits, sum.late, sum.misses), (3, 34, 17, 1, 1, 1));
        assert_eq!((sum.started_at, sum.ended_at), (Timestamp(160), Some(Timestamp(190))));
        assert!((sum.waited_s - 0.0045).abs() < 1e-12);
        let status = c.site_status(&site("gpu")).await.unwrap();
        assert_eq!((status.read_bytes, status.hits, status.late, status.misses), (36, 1, 2, 1));
        assert_eq!((status.resident_bytes, status.capacity_bytes, status.reported_at), (50, 100, Some(Timestamp(3))));
        assert_eq!(c.site_status(&site("mars")).await.unwrap().reported_at, None);
    }

    async fn promise_i_each_refusal_is_kept_once_an_hour(c) {
        let hour = 3_600_000_000;
        let mut p = plan("p1", 1, vec![]);
        p.refused = vec![refusal("a", 1), refusal("a", 2), refusal("b", 1)];
        c.put_plan(&p).await.unwrap();
        c.record_outcomes(&outcomes(1, vec![Outcome::Refused(refusal("a", hour + 1))]), Timestamp(1)).await.unwrap();
        let all = c.refusals(0, 9).await.unwrap();
        assert_eq!(all.iter().map(|r| r.refusal.clone()).collect::<Vec<_>>(), [refusal("a", 1), refusal("b", 1), refusal("a", hour + 1)]);
        assert_eq!(c.refusals(all[1].id, 9).await.unwrap(), all[2..]);
    }

    async fn promise_c_a_warmup_is_ready_when_the_store_counted_it(c) {
        c.put_warmup(&warmup("w", "gpu"), None).await.unwrap();
        c.put_plan(&plan("p", 1, vec![a_move("m", "a", 0, 10, by_warmup("w"))])).await.unwrap();
        let state = || { let c = c.clone(); async move { c.warmup(&"w".into()).await.unwrap().unwrap() } };
        assert_eq!(state().await.state, WarmupState::Planned);
        c.record_outcomes(&outcomes(1, vec![moved("m", 10)]), Timestamp(2)).await.unwrap();
        assert_eq!(state().await.state, WarmupState::Moving);
        let lie = WarmupUpdate { state: Some(WarmupState::Ready), ..required(10, 1) };
        assert!(c.update_warmup(&"w".into(), &lie, Timestamp(3)).await.is_err());
        c.update_warmup(&"w".into(), &required(10, 1), Timestamp(3)).await.unwrap();
        c.record_outcomes(&counted(2, "w", 0, 9), Timestamp(4)).await.unwrap();
        assert_eq!((state().await.state, state().await.resident_bytes), (WarmupState::Moving, 9));
        let elsewhere = OutcomeBatch { site: site("mars"), node: node("m"), ..counted(1, "w", 1, 10) };
        c.record_outcomes(&elsewhere, Timestamp(4)).await.unwrap();
        assert_eq!(state().await.state, WarmupState::Moving);
        c.record_outcomes(&counted(3, "w", 1, 10), Timestamp(5)).await.unwrap();
        assert_eq!((state().await.state, state().await.ready_at), (WarmupState::Ready, Some(Timestamp(5))));
        c.record_outcomes(&counted(4, "w", 0, 4), Timestamp(6)).await.unwrap();
        let degraded = state().await;
        assert_eq!((degraded.state, degraded.resident_bytes), (WarmupState::Degraded, 4));
        assert!(degraded.why.unwrap().contains("4 of 10"));
        assert_eq!(c.census(&"w".into()).await.unwrap(), Some((0, 4)));
        c.record_outcomes(&counted(5, "w", 1, 10), Timestamp(7)).await.unwrap();
        assert_eq!((state().await.state, state().await.ready_at), (WarmupState::Ready, Some(Timestamp(5))));
    }

    async fn a_warmup_adds_up_what_its_moves_brought_and_why_they_failed(c) {
        c.put_warmup(&warmup("w", "gpu"), None).await.unwrap();
        let moves = ["m1", "m2", "m3"].map(|m| a_move(m, m, 0, 10, by_warmup("w")));
        c.put_plan(&plan("p", 1, moves.into())).await.unwrap();
        let failed = |id: &str| Outcome::Failed { id: id.into(), at: Timestamp(3), why: "link cut".into() };
        let batch = outcomes(1, vec![failed("m1"), moved("m2", 10), failed("m3")]);
        c.record_outcomes(&batch, Timestamp(4)).await.unwrap();
        c.record_outcomes(&batch, Timestamp(5)).await.unwrap();
        c.record_outcomes(&outcomes(2, vec![moved("m2", 10)]), Timestamp(6)).await.unwrap();
        let w = c.warmup(&"w".into()).await.unwrap().unwrap();
        assert_eq!((w.state, w.moved_bytes, w.wire_bytes), (WarmupState::Moving, 10, 5), "each move counts once");
        let known = MoveFailures { why: "link cut".into(), moves: 2, last_path: path("m3"), last_at: Timestamp(3) };
        assert_eq!(w.failures, [known]);
        let named = WarmupUpdate { eta: Some(Some(Timestamp(9))), plan: Some("p".into()), ..WarmupUpdate::default() };
        assert_eq!(c.update_warmup(&"w".into(), &named, Timestamp(7)).await.unwrap().plan, Some("p".into()));
    }

    async fn tags_are_listed_where_they_were_set(c) {
        c.put_tags(&volume("data"), &path("a"), &tags(&[("k", "1")])).await.unwrap();
        c.put_tags(&volume("other"), &path("b"), &tags(&[("k", "2")])).await.unwrap();
        assert_eq!(c.tagged(&volume("data")).await.unwrap(), [(path("a"), tags(&[("k", "1")]))].into());
        c.put_tags(&volume("data"), &path("a"), &tags(&[])).await.unwrap();
        assert_eq!(c.tagged(&volume("data")).await.unwrap(), BTreeMap::new());
    }

    async fn an_idempotency_key_makes_one_warmup(c) {
        let (key, hash) = ("k", [1; 32]);
        assert!(c.put_warmup(&warmup("w1", "gpu"), Some((key, hash))).await.unwrap().new);
        let again = c.put_warmup(&warmup("w2", "gpu"), Some((key, hash))).await.unwrap();
        assert!(!again.new && again.warmup.id.as_str() == "w1");
        let other = c.put_warmup(&warmup("w3", "gpu"), Some((key, [2; 32]))).await.unwrap_err();
        assert!(matches!(other, CatalogError::KeyReused { .. }));
        assert!(matches!(c.put_warmup(&warmup("w1", "gpu"), None).await.unwrap_err(), CatalogError::Refused { .. }));
        c.put_warmup(&warmup("w4", "store"), None).await.unwrap();
        let at = |s: &str| WarmupFilter { site: Some(site(s)), ..WarmupFilter::default() };
        assert_eq!(c.warmups(&at("store"), None, 9).await.unwrap().items, [warmup("w4", "store")]);
        let page = c.warmups(&WarmupFilter::default(), None, 1).await.unwrap();
        assert_eq!(page.items[0].id.as_str(), "w4");
        assert_eq!(c.warmups(&WarmupFilter::default(), page.next, 1).await.unwrap().items[0].id.as_str(), "w1");
    }

    async fn what_is_cancelled_stays_cancelled(c) {
        c.put_warmup(&warmup("w", "gpu"), None).await.unwrap();
        assert_eq!(c.cancel_warmup(&"w".into(), Timestamp(1)).await.unwrap().state, WarmupState::Cancelled);
        assert_eq!(c.cancel_warmup(&"w".into(), Timestamp(2)).await.unwrap().state, WarmupState::Cancelled);
        c.update_warmup(&"w".into(), &required(0, 0), Timestamp(3)).await.unwrap();
        c.record_outcomes(&counted(1, "w", 0, 0), Timestamp(4)).await.unwrap();
        assert_eq!(c.warmup(&"w".into()).await.unwrap().unwrap().state, WarmupState::Cancelled);
        let plan_again = WarmupUpdate { state: Some(WarmupState::Planned), ..WarmupUpdate::default() };
        assert!(c.update_warmup(&"w".into(), &plan_again, Timestamp(5)).await.unwrap_err().to_string().contains("does not follow"));
        assert!(matches!(c.cancel_warmup(&"none".into(), Timestamp(1)).await.unwrap_err(), CatalogError::NotFound { .. }));
    }

    async fn a_token_is_known_by_its_secret_until_it_expires(c) {
        let token = Token { name: "ci".into(), scope: "warm".into(), made_at: Timestamp(1), expires_at: Some(Timestamp(9)) };
        c.put_token(&token, "s3cret").await.unwrap();
        assert_eq!(c.token("s3cret", Timestamp(8)).await.unwrap(), Some(token.clone()));
        assert_eq!(c.token("s3cret", Timestamp(9)).await.unwrap(), None);
        assert_eq!(c.token("other", Timestamp(8)).await.unwrap(), None);
        assert!(c.put_token(&token, "x").await.is_err());
        assert!(c.put_token(&Token { name: "b".into(), ..token.clone() }, "s3cret").await.is_err());
        assert_eq!(c.tokens().await.unwrap(), [token]);
        assert!(c.revoke_token("ci").await.unwrap() && !c.revoke_token("ci").await.unwrap());
        assert_eq!(c.token("s3cret", Timestamp(8)).await.unwrap(), None);
    }

    async fn settings_events_and_audit_read_back(c) {
        assert!(!c.prefetch_off().await.unwrap());
        c.set_prefetch_off(true).await.unwrap();
        assert!(c.prefetch_off().await.unwrap());
        assert_eq!(c.last_event().await.unwrap(), 0);
        for i in 1..=3 {
            assert_eq!(c.append_event("plan", &serde_json::json!({"n": i}), Timestamp(i)).await.unwrap(), i as u64);
        }
        let late = c.events_since(1, 9).await.unwrap();
        assert_eq!(late.iter().map(|e| e.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((late[0].at, late[0].body["n"].as_i64()), (Timestamp(2), Some(2)));
        assert_eq!(c.last_event().await.unwrap(), 3);
        let entry = AuditEntry { at: Timestamp(1), who: "ci".into(), what: "warmup.cancel".into(), detail: serde_json::json!(["w"]) };
        let id = c.append_audit(&entry).await.unwrap();
        assert_eq!(c.audit(0, 9).await.unwrap(), [AuditRecord { id, entry }]);
        assert!(c.audit(id, 9).await.unwrap().is_empty());
    }

    async fn who_waits_is_woken_by_its_topic(c) {
        let mut plans = c.changes(Topic::Plans);
        let events = c.changes(Topic::Events);
        let waiting = tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(20), plans.changed()).await });
        c.put_plan(&plan("p", 1, vec![])).await.unwrap();
        waiting.await.unwrap().expect("the plan woke nobody").unwrap();
        assert!(!events.has_changed().unwrap());
    }

    async fn what_an_agent_gives_is_told_as_a_setting_and_its_signs_of_life_are_not(c) {
        let (mut settings, mut plans) = (c.changes(Topic::Settings), c.changes(Topic::Plans));
        let giving_less = |seen_at| Agent { volumes: Vec::new(), ..agent("n1", seen_at) };
        for (i, (agent, is_news)) in
            [(agent("n1", 1), true), (agent("n1", 2), false), (giving_less(3), true), (giving_less(4), false)]
                .into_iter()
                .enumerate()
        {
            c.put_agent(&agent).await.unwrap();
            // News comes in the order of its making: when the plan's is here, the agent's is.
            c.put_plan(&plan(&format!("p{i}"), 1, vec![])).await.unwrap();
            tokio::time::timeout(Duration::from_secs(20), plans.changed()).await.expect("the plan woke nobody").unwrap();
            assert_eq!(settings.has_changed().unwrap(), is_news, "{agent:?}");
            settings.mark_unchanged();
        }
    }

    async fn no_count_is_too_large_to_keep(c) {
        let huge = vec![moved("m", u64::MAX), moved("m", u64::MAX), evicted("a", u64::MAX, u64::MAX)];
        for sequence in 1..=3 {
            c.record_outcomes(&outcomes(sequence, huge.clone()), Timestamp(1)).await.unwrap();
        }
        assert!(c.site_status(&site("gpu")).await.unwrap().prefetched_bytes >= 1 << 53);
    }
}
