//! Synthetic workloads against what is plainly so. The letters are those of model/README.md.

#[allow(dead_code, reason = "each file of tests plays some of its jobs")]
mod site;

use foretide_flow::{ExtentHabit, OrderHabit};
use foretide_model::{Config, Model};
use site::{Job, Site, names};

fn model() -> Model {
    Model::new(Config::default()).unwrap()
}

#[test]
fn a_cold_shuffled_run_is_recognised_within_50_files_and_the_rest_is_forecast() {
    let mut site = Site::new(4004);
    let mut model = model();
    let job = Job::shuffled(&site, 1, 16);
    let mut told_after = None;
    site.play(&mut model, &job, "r1", 0.0, |seen, advice| {
        if let Some(f) = advice.forecasts.iter().find(|f| f.forecaster == "remaining_set")
            && told_after.is_none()
        {
            told_after = Some((seen, f.reads.len(), f.reason.clone()));
        }
    });
    let (seen, reads, reason) = told_after.expect("a shuffled epoch is forecast");
    assert!(seen <= 50, "recognised after {seen} files");
    assert!(reads >= 3900, "{reads} reads");
    assert!(reason.contains("4 004 files under train read whole"), "{reason}");
}

#[test]
fn epochs_order_extents_and_readers_are_profiled() {
    let mut site = Site::new(400);
    let mut model = model();
    let job = Job::shuffled(&site, 3, 4);
    site.play(&mut model, &job, "r1", 0.0, |_, _| {});
    let profile = model.profile(&"w".into()).unwrap();
    assert_eq!((profile.files_per_epoch, profile.epochs_per_run), (400, 3.0));
    assert_eq!((profile.order, profile.extent), (OrderHabit::Shuffled, ExtentHabit::Whole));
    assert_eq!(profile.root.to_string(), "train");
    assert!((3.0..=6.0).contains(&profile.readers), "{}", profile.readers);
    assert_eq!(profile.bytes_per_epoch, site.bytes());
}

#[test]
fn from_the_second_epoch_on_all_files_are_expected_again() {
    let mut site = Site::new(1200);
    let mut model = model();
    let job = Job::shuffled(&site, 3, 4);
    let mut last = Vec::new();
    site.play(&mut model, &job, "r1", 0.0, |seen, advice| {
        if (1300..2400).contains(&seen) {
            last.extend(advice.forecasts.iter().map(|f| (f.reads.len(), f.forecaster.clone())));
        }
    });
    let (reads, forecaster) = last.iter().max().expect("forecasts in the second epoch");
    assert_eq!(forecaster, "remaining_set");
    assert!(*reads >= 1140, "{reads}");
}

#[test]
fn a_run_by_name_is_followed_as_a_sequence() {
    let mut site = Site::new(500);
    let mut model = model();
    let job = Job::by_name(&site, 2);
    let mut by = std::collections::BTreeMap::<String, usize>::new();
    let mut first_of_forecast = None;
    site.play(&mut model, &job, "r1", 0.0, |seen, advice| {
        for f in &advice.forecasts {
            *by.entry(f.forecaster.clone()).or_default() += 1;
            if f.forecaster == "sequence" {
                first_of_forecast = Some((seen, f.reads[0].path.clone(), f.reads.len()));
            }
        }
    });
    assert!(by.get("sequence").copied().unwrap_or(0) > 0, "{by:?}");
    assert_eq!(model.profile(&"w".into()).unwrap().order, OrderHabit::Sequential);
}

#[test]
fn h_draws_with_replacement_are_left_alone_once_they_repeat() {
    let mut site = Site::new(400);
    let mut model = model();
    let job = Job::drawn(&site, 1500, 4);
    let mut late = 0;
    site.play(&mut model, &job, "r1", 0.0, |seen, advice| {
        late += advice.forecasts.iter().filter(|_| seen > 200).count();
    });
    assert_eq!(late, 0, "uniform draws say nothing of what comes next");
    assert_eq!(model.profile(&"w".into()).unwrap().order, OrderHabit::Irregular);
}

#[test]
fn h_seeks_inside_one_large_file_are_left_alone() {
    let mut site = Site::new(1);
    let mut model = model();
    let job = Job::seeks(&site, 2000);
    let mut said = 0;
    for run in 0..3 {
        site.play(&mut model, &job, &format!("r{run}"), 100.0 * f64::from(run), |_, a| {
            said += a.forecasts.iter().filter(|f| f.run.is_some()).count()
        });
    }
    assert_eq!(said, 0);
    assert!(matches!(model.profile(&"w".into()).unwrap().extent, ExtentHabit::Partial { .. }));
}

#[test]
fn h_a_change_of_habit_in_mid_run_ends_the_forecast() {
    let mut site = Site::new(2000);
    let mut model = model();
    // A quarter of the directory at random, then other files one by one.
    let job = Job::changing(&site, 500);
    let mut standing = std::collections::BTreeMap::new();
    let mut after_change = None;
    site.play(&mut model, &job, "r1", 0.0, |seen, advice| {
        for id in &advice.withdrawn {
            standing.remove(id);
        }
        for f in &advice.forecasts {
            standing.retain(|_, (w, r)| !(*w == f.forecaster && *r == f.run));
            let stale = f.reads.iter().filter(|r| r.path.to_string().starts_with("train/")).count();
            standing.insert(f.id.clone(), (f.forecaster.clone(), f.run.clone()));
            if seen > 700 && stale > 0 {
                after_change = Some((seen, stale));
            }
        }
    });
    assert_eq!(after_change, None, "the abandoned directory was still forecast");
    let card = model.scorecard();
    assert!(card.iter().any(|r| r.forecaster == "remaining_set" && r.wasted_bytes > 0), "waste is shown: {card:?}");
}

#[test]
fn a_workload_that_comes_back_is_forecast_before_it_starts() {
    let mut site = Site::new(600);
    let mut model = model();
    let job = Job::shuffled(&site, 2, 8);
    for run in 0..3 {
        site.play(&mut model, &job, &format!("r{run}"), 40.0 * f64::from(run), |_, _| {});
    }
    let now = names::at(40.0 * 2.0 + 30.0);
    let advice = model.advise(now);
    let all: Vec<_> = advice.forecasts.iter().chain(site.last_awaited.iter()).filter(|f| f.run.is_none()).collect();
    let forecast = all.last().expect("the next run is forecast");
    assert!(forecast.forecaster == "recurrence" || forecast.forecaster == "ranked");
    assert_eq!(forecast.reads.len(), 600);
    let first = forecast.reads[0].window;
    assert!(first.p10.0 >= names::at(115.0).0 && first.p10.0 <= names::at(125.0).0, "{first:?}");
    let calendar = model.profile(&"w".into()).unwrap().calendar;
    assert!((calendar.period_s.unwrap() - 40.0).abs() < 1.0 && calendar.confidence > 0.6, "{calendar:?}");
    assert!(forecast.reason.contains("comes back every 40"), "{}", forecast.reason);
}

#[test]
fn a_run_that_has_begun_is_forecast_from_its_past_at_once() {
    let mut site = Site::new(600);
    let mut model = model();
    let job = Job::shuffled(&site, 1, 8);
    for run in 0..2 {
        site.play(&mut model, &job, &format!("r{run}"), 1000.0 * f64::from(run), |_, _| {});
    }
    let mut at_once = None;
    site.play(&mut model, &job, "r9", 2345.0, |seen, advice| {
        if let Some(f) = advice.forecasts.iter().find(|f| f.run.is_some())
            && at_once.is_none()
        {
            at_once = Some((seen, f.reads.len()));
        }
    });
    let (seen, reads) = at_once.expect("a known workload is forecast");
    assert!(seen <= 50 && reads >= 540, "{seen} {reads}");
}

#[test]
fn f_the_same_inputs_give_the_same_answers() {
    let told = || {
        let mut site = Site::new(300);
        let mut model = model();
        let job = Job::shuffled(&site, 2, 4);
        let mut told = Vec::new();
        for run in 0..3 {
            site.play(&mut model, &job, &format!("r{run}"), 40.0 * f64::from(run), |_, a| told.push(a.clone()));
        }
        (told, model.snapshot().unwrap())
    };
    let (a, b) = (told(), told());
    assert_eq!(a.0, b.0);
    assert!(a.1 == b.1, "equal states have equal snapshots");
}

#[test]
fn e_a_restart_loses_nothing() {
    let mut site = Site::new(300);
    let mut model = model();
    let job = Job::shuffled(&site, 2, 4);
    site.play(&mut model, &job, "r0", 0.0, |_, _| {});
    site.play_part(&mut model, &job, "r1", 40.0, 100);
    let mut again = Model::restore(Config::default(), &model.snapshot().unwrap()).unwrap();
    assert!(model.snapshot().unwrap() == again.snapshot().unwrap());
    let now = names::at(47.0);
    let (told, told_again) = (model.advise(now), again.advise(now));
    assert_eq!((told.forecasts, told.profiles), (told_again.forecasts, told_again.profiles));
}

#[test]
fn e_a_damaged_snapshot_falls_back_to_the_one_before() {
    use foretide_model::{Loaded, ModelError};
    let dir = tempfile::tempdir().unwrap();
    let load = || Model::load(Config::default(), dir.path()).unwrap();
    assert!(matches!(load().1, Loaded::Nothing));
    let mut site = Site::new(50);
    let mut model = model();
    let job = Job::shuffled(&site, 1, 2);
    site.play(&mut model, &job, "r0", 0.0, |_, _| {});
    model.save(dir.path()).unwrap();
    site.play(&mut model, &job, "r1", 40.0, |_, _| {});
    model.save(dir.path()).unwrap();
    assert_eq!(load().0.profile(&"w".into()).unwrap().runs, 2);
    let newest = dir.path().join("model.snapshot");
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    let (model, loaded) = load();
    assert!(matches!(loaded, Loaded::Before(ModelError::Damaged { .. })));
    assert_eq!(model.profile(&"w".into()).unwrap().runs, 1);
    std::fs::write(&newest, &bytes[..100]).unwrap();
    std::fs::remove_file(dir.path().join("model.snapshot.before")).unwrap();
    let (model, loaded) = load();
    assert!(matches!(loaded, Loaded::Damaged(_)) && model.profile(&"w".into()).is_none());
}

#[test]
fn a_setting_that_cannot_be_meant_is_refused_by_name() {
    let told = Model::new(Config { mute_precision: 1.5, ..Config::default() }).err().unwrap().to_string();
    assert!(told.contains("mute_precision = 1.5") && told.contains("from 0 to 1"), "{told}");
}

#[test]
fn forecasting_4000_files_is_quick() {
    let mut site = Site::new(4004);
    let mut model = model();
    let job = Job::shuffled(&site, 1, 16);
    for run in 0..2 {
        site.play(&mut model, &job, &format!("r{run}"), 40.0 * f64::from(run), |_, _| {});
    }
    eprintln!("slowest advice {:?}, observing {:?} an access", site.slowest, site.observing / site.accesses.max(1));
}
