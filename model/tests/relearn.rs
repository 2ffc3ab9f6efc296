//! The trace lake read again: what it teaches, and when a candidate takes the place of the model in use.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunStart, SiteId, Timestamp, VolumeId,
    WorkloadId,
};
use foretide_model::{Config, Model};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

/// A nightly run: the eight files of tonight's number and of the three before it.
fn night(n: u64) -> AccessBatch {
    let (node, site) = (NodeId::new("n").unwrap(), SiteId::new("gpu").unwrap());
    let start = 1_790_000_000.0 + 86_400.0 * n as f64;
    let run = format!("night-{n}");
    let mut accesses = Vec::new();
    for (i, day) in (n + 10 - 3..=n + 10).flat_map(|day| (0..8).map(move |part| (day, part))).enumerate() {
        for (op, length) in [(AccessOp::Open, 0), (AccessOp::Read, 100_000), (AccessOp::Close, 0)] {
            accesses.push(Access {
                at: Timestamp::from_secs_f64(start + 0.01 * i as f64),
                run: run.as_str().into(),
                process: 1,
                volume: VolumeId::new("data").unwrap(),
                path: FilePath::parse(&format!("sales/day-{}/part-{}.parquet", day.0, day.1)).unwrap(),
                op,
                offset: 0,
                length,
                blocked_us: 7,
                found: Found::Unknown,
            });
        }
    }
    let start_of = RunStart {
        run: run.as_str().into(),
        workload: "nightly".into(),
        command: "nightly #".into(),
        at: Timestamp::from_secs_f64(start),
        site: site.clone(),
        node: node.clone(),
        numbers: Vec::new(),
    };
    let ended = vec![RunEnd { run: run.as_str().into(), at: Timestamp::from_secs_f64(start + 60.0) }];
    AccessBatch { node, site, sequence: n, started: vec![start_of], accesses, ended, losses: Losses::default() }
}

/// The batch as a file of the lake.
fn write(folder: &Path, batch: &AccessBatch) -> PathBuf {
    let all = || batch.accesses.iter();
    let op = |op| match op {
        AccessOp::Open => 0,
        AccessOp::Create => 1,
        AccessOp::Read => 2,
        AccessOp::Fault => 3,
        AccessOp::Close => 4,
    };
    let columns: [(&str, ArrayRef); 9] = [
        ("at_us", Arc::new(Int64Array::from_iter_values(all().map(|a| a.at.0)))),
        ("run", Arc::new(StringArray::from_iter_values(all().map(|a| a.run.as_str())))),
        ("process", Arc::new(UInt32Array::from_iter_values(all().map(|a| a.process)))),
        ("volume", Arc::new(StringArray::from_iter_values(all().map(|a| a.volume.as_str())))),
        ("path", Arc::new(BinaryArray::from_iter_values(all().map(|a| a.path.as_bytes())))),
        ("op", Arc::new(UInt32Array::from_iter_values(all().map(|a| op(a.op))))),
        ("offset", Arc::new(UInt64Array::from_iter_values(all().map(|a| a.offset)))),
        ("length", Arc::new(UInt64Array::from_iter_values(all().map(|a| a.length)))),
        ("blocked_us", Arc::new(UInt32Array::from_iter_values(all().map(|a| a.blocked_us)))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let head = serde_json::json!({"started": batch.started, "ended": batch.ended});
    let pairs = Some(vec![KeyValue::new("foretide.batch".into(), head.to_string())]);
    let properties = WriterProperties::builder().set_key_value_metadata(pairs).build();
    let path = folder.join(format!("n-{:04}.parquet", 9999 - batch.sequence));
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    path
}

fn remembering(kept_runs: usize) -> Model {
    Model::new(Config { kept_runs, ..Config::default() }).unwrap()
}

#[test]
fn what_the_lake_holds_is_learned_as_if_it_had_just_been_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, mut learned) = (remembering(8), remembering(8));
    let nights: Vec<AccessBatch> = (0..6).map(night).collect();
    nights.iter().for_each(|batch| seen.observe(batch));
    // Names of files sort against time: the order is that of what is in them.
    let lake: Vec<PathBuf> = nights.iter().map(|batch| write(folder.path(), batch)).collect();
    let told = learned.learn_from_lake(&lake);
    assert_eq!((told.files, told.accesses, told.unusable.len()), (6, 6 * 96, 0));
    let id = WorkloadId::from("nightly");
    assert_eq!(learned.profile(&id), seen.profile(&id));
    assert_eq!(learned.profile(&id).unwrap().runs, 6);
}

#[test]
fn j_a_file_that_cannot_be_read_is_named_and_the_rest_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = vec![write(folder.path(), &night(0)), folder.path().join("cut.parquet")];
    let whole = std::fs::read(&lake[0]).unwrap();
    std::fs::write(&lake[1], &whole[..whole.len() / 2]).unwrap();
    lake.push(folder.path().join("none.parquet"));
    let mut model = remembering(8);
    let told = model.learn_from_lake(&lake);
    let names: Vec<&PathBuf> = told.unusable.iter().map(|(path, _)| path).collect();
    assert_eq!((told.files, names), (1, vec![&lake[1], &lake[2]]));
    assert_eq!(model.profile(&"nightly".into()).unwrap().runs, 1);
}

#[test]
fn a_candidate_takes_over_where_it_tells_the_newest_run_better_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let nights: Vec<AccessBatch> = (0..6).map(night).collect();
    let lake: Vec<PathBuf> = nights.iter().map(|batch| write(folder.path(), batch)).collect();
    // One that remembers a single run has no past to tell the newest from.
    let mut in_use = remembering(1);
    nights.iter().for_each(|batch| in_use.observe(batch));
    let now = Timestamp::from_secs_f64(1_790_000_000.0 + 86_400.0 * 7.0);
    let candidate = |lake: &[PathBuf], in_use: &Model| {
        Model::candidate(Config::default(), &in_use.snapshot().unwrap(), lake, now).unwrap().0
    };
    let trials = in_use.adopt(&candidate(&lake, &in_use));
    assert_eq!((trials.len(), trials[0].adopted, trials[0].runs), (1, true, (6, 1)));
    assert!(trials[0].worth.0.unwrap() > 0.5, "{trials:?}");
    // The same again is not better, and what is remembered from now on is as long as what was taken over.
    let again = in_use.adopt(&candidate(&lake, &in_use));
    assert!(!again[0].adopted && again[0].runs == (6, 6), "{again:?}");
    in_use.observe(&night(6));
    // A candidate that does not know the newest run is passed over.
    assert_eq!(in_use.adopt(&candidate(&lake, &in_use)), []);
}
