//! Orders that PyTorch, Python and NumPy drew, in running runs: recognised, told on, taken back.

#[allow(dead_code, reason = "each file of tests plays some of its jobs")]
mod site;

use foretide_flow::Forecast;
use foretide_model::drawn::{By, Draw, Share, Step};
use foretide_model::{Config, Model};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use site::{Job, Site, names};

fn model() -> Model {
    Model::new(Config::default()).unwrap()
}

/// The orders of some epochs, seeded with `seed` and one more each time.
fn epochs(seed: u32, epochs: u32, files: u32) -> Vec<u32> {
    (0..epochs).flat_map(|epoch| Draw::first_of(seed + epoch).order(files)).collect()
}

fn told(forecast: &Forecast) -> Vec<u32> {
    let number = |path: String| path[10..15].parse().unwrap();
    forecast.reads.iter().map(|r| number(r.path.to_string())).collect()
}

/// Plays a run; what the forecaster of drawn orders said, after how many reads.
fn play(site: &mut Site, model: &mut Model, job: &Job, run: &str, at: f64) -> Vec<(usize, Forecast)> {
    let mut said = Vec::new();
    site.play(model, job, run, at, |seen, advice| {
        said.extend(advice.forecasts.iter().filter(|f| f.forecaster == "drawn").map(|f| (seen, f.clone())));
    });
    said
}

#[test]
fn an_epoch_is_told_in_exact_order_and_the_next_as_soon_as_two_were_seen() {
    let (mut site, mut model) = (Site::new(1200), model());
    let order = epochs(42, 3, 1200);
    let job = Job::of(&site, &order, 4);
    let said = play(&mut site, &mut model, &job, "r1", 0.0);
    let (seen, first) = &said[0];
    assert!(*seen <= 50, "after {seen}");
    let left = 1200 - seen;
    assert_eq!(told(first)[..left], order[*seen..1200]);
    assert!(first.reads[..left].iter().all(|r| r.probability > 0.8), "{:?}", first.reads[0]);
    assert!(first.reads.is_sorted_by_key(|r| r.window.p50));
    assert!(first.reason.contains("drawn by PyTorch, seed 42"), "{}", first.reason);
    let (seen, last) = said.iter().rfind(|(seen, _)| *seen < 2400).unwrap();
    assert!(*seen > 1250, "{seen}");
    assert_eq!(told(last), order[*seen..], "the rest of the second epoch and all of the third");
    assert_eq!(model.profile(&"w".into()).unwrap().drawn.as_deref(), Some("drawn by PyTorch, seed 42 + epoch"));
}

#[test]
fn the_next_run_is_told_before_it_starts_in_the_order_that_it_will_draw() {
    let (mut site, mut model) = (Site::new(300), model());
    let job = Job::of(&site, &epochs(7, 1, 300), 1);
    for run in 0..3 {
        play(&mut site, &mut model, &job, &format!("r{run}"), 40.0 * f64::from(run));
    }
    let advice = model.advise(names::at(110.0));
    let awaited = advice.forecasts.iter().chain(&site.last_awaited).rfind(|f| f.run.is_none()).unwrap();
    assert_eq!(told(awaited), epochs(7, 1, 300));
    assert!(awaited.reason.contains("each run begins as the last one"), "{}", awaited.reason);
}

#[test]
fn runs_that_share_an_epoch_go_on_where_the_last_one_stopped() {
    let (mut site, mut model) = (Site::new(4000), model());
    let order = epochs(1000, 2, 4000);
    let parts = [&order[..1500], &order[1500..3500], &order[3500..5500]];
    let mut said = Vec::new();
    for (run, part) in parts.iter().enumerate() {
        let job = Job::of(&site, part, 1);
        said = play(&mut site, &mut model, &job, &format!("r{run}"), 1000.0 * run as f64);
    }
    let (seen, first) = &said[0];
    assert!(*seen <= 50, "after {seen}");
    assert_eq!(told(first)[..500 - seen], order[3500 + seen..4000]);
    let (seen, last) = said.last().unwrap();
    assert!(*seen > 500, "in the next epoch, {seen}");
    assert_eq!(told(last)[..100], order[3500 + seen..3600 + seen]);
}

#[test]
fn h_an_order_that_is_left_is_taken_back() {
    let (mut site, mut model) = (Site::new(4000), model());
    let mut order = Draw::first_of(3).order(4000);
    order[500..].shuffle(&mut StdRng::seed_from_u64(5));
    let job = Job::of(&site, &order, 1);
    let said = play(&mut site, &mut model, &job, "r1", 0.0);
    assert!(said.iter().any(|(seen, _)| *seen < 500), "it is told at first");
    assert!(said.iter().all(|(seen, _)| *seen <= 500), "{:?}", said.iter().map(|s| s.0).collect::<Vec<_>>());
}

#[test]
fn h_an_order_of_another_generator_is_never_told_as_drawn() {
    let (mut site, mut model) = (Site::new(1200), model());
    let job = Job::shuffled(&site, 3, 4);
    for run in 0..2 {
        assert_eq!(play(&mut site, &mut model, &job, &format!("r{run}"), 100.0 * f64::from(run)), []);
        (0..200).for_each(|_| drop(model.advise(names::at(50.0 + 100.0 * f64::from(run)))));
    }
    assert_eq!(model.profile(&"w".into()).unwrap().drawn, None);
}

#[test]
fn k_a_large_seed_is_found_between_two_runs() {
    let (mut site, mut model) = (Site::new(300), model());
    let job = Job::of(&site, &epochs(100_000, 1, 300), 1);
    assert_eq!(play(&mut site, &mut model, &job, "r0", 0.0), []);
    let kept = model.snapshot().unwrap();
    let mut model = Model::restore(Config::default(), &kept).unwrap();
    (0..80).for_each(|_| drop(model.advise(names::at(5.0))));
    assert_eq!(model.profile(&"w".into()).unwrap().drawn.as_deref(), Some("drawn by PyTorch, seed 100000"));
    let said = play(&mut site, &mut model, &job, "r1", 1000.0);
    assert_eq!(said.first().map(|(seen, _)| *seen), Some(50));
}

#[test]
fn e_a_run_that_is_followed_is_followed_on_after_a_restart() {
    let (mut site, mut model) = (Site::new(1200), model());
    let job = Job::of(&site, &epochs(42, 1, 1200), 1);
    site.play_part(&mut model, &job, "r1", 0.0, 200);
    let mut again = Model::restore(Config::default(), &model.snapshot().unwrap()).unwrap();
    let drawn = |model: &mut Model| {
        let advice = model.advise(names::at(5.0));
        (advice.forecasts.iter().map(|f| f.forecaster.clone()).collect::<Vec<_>>(), advice)
    };
    let (told, told_again) = (drawn(&mut model), drawn(&mut again));
    assert_eq!(told.0, ["drawn"]);
    assert_eq!(told, told_again);
}

/// What a `DataLoader` takes whose seeds come from the program's generator, after the weights were drawn.
fn by_the_programs_generator(seed: u32, epochs: u64, files: u32) -> Vec<u32> {
    let first = Draw { skip: 14_381, ..Draw::first_by(By::Seed, seed) };
    (0..epochs).flat_map(|epoch| first.after(Step { skip: 4, ..Step::default() }, epoch).order(files)).collect()
}

#[test]
fn a_run_is_told_its_order_at_its_start_by_a_seed_that_no_run_had() {
    let (mut site, mut model) = (Site::new(1200), model());
    let seeded = |site: &Site, seed: u32| {
        let order = by_the_programs_generator(seed, 3, 1200);
        (Job::of(site, &order, 4).with(&[None, Some(seed), Some(4)]), order)
    };
    let (job, _) = seeded(&site, 11);
    assert_eq!(play(&mut site, &mut model, &job, "r0", 0.0), [], "nobody knows yet");
    (0..60).for_each(|_| drop(model.advise(names::at(5.0))));
    let words = "drawn by PyTorch, seeds from the program's generator of seed 11, from number 14381 on";
    assert_eq!(model.profile(&"w".into()).unwrap().drawn.as_deref(), Some(words));
    let (job, order) = seeded(&site, 7_000_018);
    let advice = site.begin(&mut model, &job, "r1", 1000.0);
    let [first] = &advice.forecasts[..] else { panic!("{:?}", advice.forecasts) };
    assert_eq!(told(first), order[..1200]);
    assert!(first.reads.is_sorted_by_key(|r| r.window.p50) && first.reads[0].window.p50 < names::at(1000.1));
    assert!(first.reason.contains("its seed follows number 2 of the command"), "{}", first.reason);
    let said = play(&mut site, &mut model, &job, "r1", 1000.0);
    let (seen, followed) = &said[0];
    assert_eq!(told(followed)[..100], order[*seen..seen + 100]);
    let (seen, last) = said.iter().rfind(|(seen, _)| *seen < 2400).unwrap();
    assert_eq!(told(last), order[*seen..], "the third epoch, too");
}

#[test]
fn k_a_run_whose_seed_takes_long_to_find_is_told_its_order_while_it_goes_on() {
    let (mut site, mut model) = (Site::new(4000), model());
    let order = by_the_programs_generator(11, 3, 4000);
    let job = Job::of(&site, &order, 4).with(&[None, Some(11), Some(4)]);
    let said = play(&mut site, &mut model, &job, "r0", 0.0);
    let (seen, first) = &said[0];
    assert!((300..4000).contains(seen), "in its first epoch, {seen}");
    assert_eq!(told(first)[..100], order[*seen..seen + 100]);
    let (seen, last) = said.iter().rfind(|(seen, _)| *seen < 8000).unwrap();
    assert_eq!(told(last)[..100], order[*seen..seen + 100], "in its second, {seen}");
    assert!(last.reads.len() > 8000 - seen, "and of the third");
    let profile = model.profile(&"w".into()).unwrap();
    assert!(profile.drawn.unwrap().ends_with("generator of seed 11, from number 14381 on"));
}

#[test]
fn what_a_run_does_before_its_first_read_is_not_told_as_reading() {
    let (mut site, mut model) = (Site::new(300), model());
    let job = Job::of(&site, &epochs(7, 1, 300), 1);
    for (run, at) in [("r0", 0.0), ("r1", 100.0)] {
        site.begin(&mut model, &job, run, at);
        play(&mut site, &mut model, &job, run, at + 5.0);
    }
    let advice = site.begin(&mut model, &job, "r2", 200.0);
    let reads = &advice.forecasts.last().unwrap().reads;
    assert_eq!(reads.len(), 300);
    let (first, last) = (reads[0].window, reads[299].window);
    assert!(first.p50 > names::at(204.9) && last.p50 < names::at(205.4), "{first:?} {last:?}");
}

#[test]
fn h_before_a_start_whose_seed_nobody_knows_no_order_is_told() {
    let (mut site, mut model) = (Site::new(300), model());
    for (run, seed) in [7, 9, 12].into_iter().enumerate() {
        let job = Job::of(&site, &epochs(seed, 1, 300), 1).with(&[Some(seed)]);
        play(&mut site, &mut model, &job, &format!("r{run}"), 40.0 * run as f64);
    }
    let advice = model.advise(names::at(110.0));
    let awaited = advice.forecasts.iter().chain(&site.last_awaited).rfind(|f| f.run.is_none()).unwrap();
    assert!(!awaited.reason.contains("drawn by PyTorch"), "{}", awaited.reason);
    let job = Job::of(&site, &epochs(30, 1, 300), 1).with(&[Some(30)]);
    let advice = site.begin(&mut model, &job, "r3", 120.0);
    assert_eq!(told(advice.forecasts.last().unwrap()), epochs(30, 1, 300));
}

#[test]
fn a_rank_of_a_distributed_training_is_told_its_own_files_in_order_and_those_of_the_next_epoch() {
    let (mut site, mut model) = (Site::new(2000), model());
    let first = Draw { share: Share { of: 4, first: 3, ranks: 1 }, ..Draw::first_of(0) };
    let step = Step { seed: 1, ..Step::default() };
    let order: Vec<u32> = (0..5).flat_map(|epoch| first.after(step, epoch).order(2000)).collect();
    let job = Job::of(&site, &order, 1);
    let said = play(&mut site, &mut model, &job, "r1", 0.0);
    let (seen, told_first) = &said[0];
    assert!(*seen <= 50, "after {seen}");
    assert_eq!(told(told_first)[..500 - seen], order[*seen..500]);
    assert!(told(told_first).len() < 600, "and no other ranks'");
    let (seen, last) = said.iter().rfind(|(seen, _)| (1000..2000).contains(seen)).unwrap();
    let left = 500 - seen % 500;
    assert_eq!(told(last)[..left + 500], order[*seen..seen + left + 500]);
    let words = "drawn by PyTorch, seed 0 + epoch, rank 3 of 4";
    assert_eq!(model.profile(&"w".into()).unwrap().drawn.as_deref(), Some(words));
    // On another node another rank.
    let other = Draw { share: Share { of: 4, first: 1, ranks: 1 }, ..first };
    let order: Vec<u32> = (0..5).flat_map(|epoch| other.after(step, epoch).order(2000)).collect();
    let job = Job::of(&site, &order, 1);
    site.play_part(&mut model, &job, "r2", 100.0, 1200);
    let mut again = Model::restore(Config::default(), &model.snapshot().unwrap()).unwrap();
    let (advice, again) = (model.advise(names::at(103.0)), again.advise(names::at(103.0)));
    assert_eq!(advice, again, "in the third epoch, and after a restart");
}

#[test]
fn a_list_that_python_shuffles_on_is_told_on() {
    let (mut site, mut model) = (Site::new(1200), model());
    let (first, step) = (Draw::first_by(By::Python, 42), Step { skip: 1, onto: 1, ..Step::default() });
    let order: Vec<u32> = (0..3).flat_map(|epoch| first.after(step, epoch).order(1200)).collect();
    let job = Job::of(&site, &order, 4);
    let said = play(&mut site, &mut model, &job, "r1", 0.0);
    let (seen, first) = &said[0];
    assert!(*seen <= 100, "after {seen}");
    assert_eq!(told(first)[..1200 - seen], order[*seen..1200]);
    let (seen, last) = said.iter().rfind(|(seen, _)| *seen < 2400).unwrap();
    assert!(*seen > 1250, "{seen}");
    assert_eq!(told(last), order[*seen..]);
}
