//! Recorded jobs: all runs but the last are learned from, the last is told before it starts.

use std::path::PathBuf;

use foretide_model::evaluate::{CacheSize, Options};
use foretide_model::recurrence::{JobReport, Row, SITE, evaluate_recurrence, picture};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn data(job: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(job)
}

fn report(job: &str) -> JobReport {
    evaluate_recurrence(&data(job), &SITE, 1).unwrap().jobs.remove(0)
}

fn row<'r>(rows: &'r [Row], name: &str) -> &'r Row {
    rows.iter().find(|r| r.name == name).unwrap()
}

#[test]
fn the_baselines_are_what_others_measured() {
    let nightly = report("nightly-parquet");
    let (replay, template) = (row(&nightly.before, "replay"), row(&nightly.before, "template"));
    assert!((replay.byte_coverage - 0.792).abs() < 0.001 && (replay.byte_precision - 0.742).abs() < 0.001);
    assert!((template.byte_precision - 0.101).abs() < 0.001);
}

#[test]
fn a_moving_window_of_dates_is_told_better_than_by_replay_or_template() {
    let nightly = report("nightly-parquet");
    let ours = row(&nightly.before, "foretide");
    assert!(ours.byte_coverage >= 0.97 && ours.byte_precision >= 0.95, "{ours:?}");
}

#[test]
fn a_new_sample_beside_a_fixed_reference_is_told() {
    let ours = report("bwa-align");
    let ours = row(&ours.before, "foretide");
    assert!(ours.byte_coverage >= 0.97 && ours.byte_precision >= 0.95, "{ours:?}");
}

#[test]
fn the_newest_checkpoint_and_the_shards_that_pytorch_draws_next_are_told() {
    let report = report("resume-train");
    let ours = row(&report.before, "foretide");
    assert!(ours.byte_coverage >= 0.99 && ours.byte_precision >= 0.99, "{ours:?}");
    let why = "drawn by PyTorch, seed 1000 + epoch; the next run goes on in the file in which the last one stopped";
    assert!(report.reasons.iter().any(|reason| reason.contains(why)), "{:?}", report.reasons);
}

#[test]
fn a_calendar_is_played_at_the_site_that_is_asked_for_and_drawn() {
    let whole = Options { cache: CacheSize::Share(1.0), ..SITE };
    let report = evaluate_recurrence(&data("bwa-align"), &whole, 1).unwrap();
    let (asked, usual) = (report.jobs[0].season.as_ref().unwrap(), self::report("bwa-align").season.unwrap());
    assert!(asked.cache_bytes > 4 * usual.cache_bytes);
    assert!(asked.rows[2].stall_s < usual.rows[2].stall_s, "a larger cache waits less");
    let svg = picture::picture(&report);
    let names = ["align, told from 4 runs", ">replay<", ">foretide<", "oracle waits"];
    assert!(svg.starts_with("<svg") && names.iter().all(|name| svg.contains(name)), "{svg}");
}

#[test]
fn a_broken_trace_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let told = || evaluate_recurrence(dir.path(), &SITE, 1).unwrap_err().to_string();
    assert!(told().contains("no job with two runs"), "{}", told());
    std::fs::write(dir.path().join("runs.csv"), "run,job,start_s\nr1,j,yesterday,1,0,x,cmd\n").unwrap();
    assert!(told().contains("trace.csv"), "{}", told());
    std::fs::write(dir.path().join("trace.csv"), "time_s\n1.0,r1,j,7,read,a/b,0,10\n1.1,r1,j,7,read,a/b,zero,10\n")
        .unwrap();
    assert!(told().contains("trace.csv: line 3: offset is no number"), "{}", told());
    std::fs::write(dir.path().join("trace.csv"), "time_s\n1.0,r1,j,7,read,a/b,0,10\n").unwrap();
    assert!(told().contains("runs.csv: line 2: start_s is no number"), "{}", told());
}

/// A job whose runs read these pages of one file of 10,000.
fn runs(runs: &[&[u64]]) -> JobReport {
    let dir = tempfile::tempdir().unwrap();
    let mut trace = String::from("time_s,run,job,host_pid,op,path,offset,length\n");
    let mut table = String::from("run,job,start_s,exit_s,exit_code,start_utc,command\n");
    for (n, pages) in (1..).zip(runs) {
        let (run, at) = (format!("r{n}"), 4000 * n);
        for (i, page) in pages.iter().enumerate() {
            trace += &format!("{at}.{i:06},{run},j,7,read,data/f,{},4096\n", page * 4096);
        }
        std::fs::write(dir.path().join(format!("listing-{run}.txt")), "data/f,40960000,10\n").unwrap();
        table += &format!("{run},j,{at},{},0,x,cmd\n", at + 1000);
    }
    std::fs::write(dir.path().join("trace.csv"), trace).unwrap();
    std::fs::write(dir.path().join("runs.csv"), table).unwrap();
    evaluate_recurrence(dir.path(), &SITE, 1).unwrap().jobs.remove(0)
}

#[test]
fn places_that_were_drawn_once_are_no_evidence_and_a_stride_is() {
    let mut draw = StdRng::seed_from_u64(7);
    let mut drawn = || -> Vec<u64> { (0..1500).map(|_| draw.random_range(0..10_000)).collect() };
    let stride: Vec<u64> = (0..1500).map(|i| 6 * i).collect();
    let told = |report: &JobReport| row(&report.before, "foretide").told_bytes;
    let random = runs(&[&drawn(), &drawn()]);
    assert_eq!(told(&random), 0, "{random:?}");
    assert_eq!(told(&runs(&[&stride, &stride])), 1500 * 4096);
}

#[test]
fn bytes_that_one_run_read_twice_are_told_and_draws_are_not() {
    let mut draw = StdRng::seed_from_u64(9);
    // A few hundred pages are popular, and a third of all reads go to them.
    let mut popular = || -> Vec<u64> {
        let page = |draw: &mut StdRng| {
            if draw.random_range(0..3) == 0 { 31 * draw.random_range(0..300) } else { draw.random_range(0..10_000) }
        };
        (0..3000).map(|_| page(&mut draw)).collect()
    };
    let report = runs(&[&popular(), &popular(), &popular()]);
    let (ours, replay) = (row(&report.before, "foretide"), row(&report.before, "replay"));
    assert!(
        ours.byte_precision > replay.byte_precision + 0.1 && ours.byte_coverage > 0.1,
        "{ours:?} beside {replay:?}"
    );
    let mut drawn = || -> Vec<u64> { (0..3000).map(|_| draw.random_range(0..10_000)).collect() };
    let report = runs(&[&drawn(), &drawn(), &drawn()]);
    assert_eq!(row(&report.before, "foretide").told_bytes, 0, "{report:?}");
}

/// One execution as WfFormat tells it: a task that reads these files, of so many bytes each.
fn execution(inputs: &[(&str, u64)]) -> String {
    let names: Vec<String> = inputs.iter().map(|(name, _)| format!("{name:?}")).collect();
    let files: Vec<String> =
        inputs.iter().map(|(name, size)| format!(r#"{{"id":{name:?},"sizeInBytes":{size}}}"#)).collect();
    format!(
        r#"{{"name":"w","schemaVersion":"1.5","workflow":{{"specification":{{"tasks":[{{"id":"t","parents":[],"inputFiles":[{}],"outputFiles":[]}}],"files":[{}]}},"execution":{{"tasks":[{{"id":"t","runtimeInSeconds":3}}]}}}}}}"#,
        names.join(","),
        files.join(",")
    )
}

#[test]
fn a_workflow_finds_its_inputs_as_it_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    for (run, sizes) in [("w-1.json", [900, 100]), ("w-2.json", [300, 500])] {
        let inputs = [("tile_1.fits", sizes[0]), ("tile_2.fits", sizes[1])];
        std::fs::write(dir.path().join(run), execution(&inputs)).unwrap();
    }
    let report = evaluate_recurrence(dir.path(), &SITE, 1).unwrap().jobs.remove(0);
    let [replay, template] = ["replay", "template"].map(|name| row(&report.before, name));
    assert_eq!((replay.told_bytes, replay.byte_precision), (400, 1.0), "bytes that the run before read: {replay:?}");
    assert_eq!((template.told_bytes, template.byte_coverage, template.byte_precision), (800, 1.0, 1.0), "{template:?}");
}
