//! Orders that PyTorch drew, and orders that it did not.

use foretide_flow::{FilePath, VolumeId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

use super::ahead::{Past, ahead};
use super::*;
use crate::habit::Candidate;
use crate::shape::{Slot, shape};

const BYTES: u64 = 1000;

fn set() -> Set {
    let volume = VolumeId::new("v").unwrap();
    Set { volume, directory: FilePath::parse("d").unwrap(), kinds: [b"bin".to_vec()].into() }
}

fn files(count: u32) -> Vec<Candidate> {
    let path = |i: u32| FilePath::parse(&format!("d/{i:06}.bin")).unwrap();
    let key = |i: u32| crate::run::FileKey { volume: set().volume, path: path(i) };
    let modified_at = foretide_flow::Timestamp(0);
    (0..count).map(|i| Candidate { key: key(i), size: BYTES, modified_at }).collect()
}

/// A run that takes these files one after the other.
fn reading(taken: &[u32], files: u32) -> Reading {
    let (mut passes, mut visits) = (Passes::default(), vec![0; files as usize]);
    for file in taken {
        visits[*file as usize] += 1;
        passes.visit(*file, visits[*file as usize]);
    }
    let read = Stretch { bytes: taken.len() as u64 * BYTES, from: 0, to: BYTES };
    Reading { set: set(), files, passes: passes.as_slice().to_vec(), visits: taken.len() as u64, read }
}

fn thorough(taken: &[u32], files: u32, arguments: &[Slot], before: Option<&Recognised>) -> Option<Recognised> {
    recognise(&[reading(taken, files)], arguments, before, Effort::THOROUGH)
}

/// The orders of these epochs, seeded with `seed` and one more each time, one after the other.
fn epochs(seed: u32, epochs: u32, files: u32) -> Vec<u32> {
    (0..epochs).flat_map(|epoch| Draw::first_of(seed + epoch).order(files)).collect()
}

fn numbers(command: &str) -> Vec<Slot> {
    shape(command.as_bytes()).slots
}

/// What loaders side by side make of an order: each opens its batches one file after the other, none keeps step.
fn by_workers(order: &[u32], workers: usize, batch: usize) -> Vec<u32> {
    let mut draw = StdRng::seed_from_u64(3);
    let mut opened: Vec<(f64, u32)> = Vec::new();
    for worker in 0..workers {
        let mut at = 0.0;
        for file in order.chunks(batch).skip(worker).step_by(workers).flatten() {
            at += draw.random_range(0.8..1.2);
            opened.push((at, *file));
        }
    }
    opened.sort_by(|a, b| a.0.total_cmp(&b.0));
    opened.into_iter().map(|(_, file)| file).collect()
}

#[test]
fn runs_that_share_epochs_are_followed_from_one_to_the_next() {
    // Each goes on in the file in which the one before stopped.
    let all = epochs(1000, 2, 24);
    let parts = [&all[..8], &all[7..18], &all[17..24], &all[23..33]];
    let commands = ["300", "400", "250", "350"].map(numbers);
    let mut known: Vec<Recognised> = Vec::new();
    for (part, command) in parts.iter().zip(&commands) {
        let found = thorough(part, 24, command, known.last()).expect("it is recognised");
        assert!(found.believed(), "{found:?}");
        known.push(found);
    }
    assert_eq!(known[0].words(), "drawn by PyTorch, seed 1000");
    assert_eq!(known[3].words(), "drawn by PyTorch, seed 1000 + epoch");
    assert_eq!(known[3].ended().unwrap().draw, Draw::first_of(1001));
    let past: Vec<Past<'_>> =
        known.iter().zip(&commands).map(|(drawn, arguments)| Past { drawn: Some(drawn), arguments }).collect();
    let next = ahead(&past, &numbers("300")).unwrap();
    let there = files(24);
    let parts = next.parts(&there.iter().collect::<Vec<_>>(), &known[3]);
    let told: Vec<u32> = parts.iter().map(|part| part.file).collect();
    assert_eq!(told, all[32..32 + told.len()]);
    assert!((8..=9).contains(&told.len()), "as far as 300 steps read: {told:?}");
}

#[test]
fn a_file_that_is_added_changes_the_order_and_not_the_seed() {
    let first = thorough(&epochs(7, 1, 24)[..20], 24, &[], None).unwrap();
    let after: Vec<u32> =
        Draw::first_of(7).order(25)[19..].iter().chain(&Draw::first_of(8).order(25)[..9]).copied().collect();
    let second = thorough(&after, 25, &[], Some(&first)).unwrap();
    assert_eq!((second.began.draw, second.began.offset), (Draw::first_of(7), 19));
    assert_eq!(second.step, Some(Step { seed: 1, ..Step::default() }));
}

#[test]
fn loaders_that_take_files_out_of_turn_are_seen_through() {
    for (workers, batch) in [(1, 64), (4, 16), (4, 64)] {
        let order: Vec<u32> =
            (0..2).flat_map(|e| by_workers(&Draw::first_of(5 + e).order(3000), workers, batch)).collect();
        let found = thorough(&order, 3000, &[], None).expect("it is recognised");
        assert!(found.believed() && found.began.draw == Draw::first_of(5), "{workers} by {batch}: {found:?}");
        assert_eq!(found.step, Some(Step { seed: 1, ..Step::default() }), "{workers} by {batch}");
    }
}

#[derive(Deserialize)]
struct Loader {
    seed: u32,
    files: u32,
    before: u64,
    between: u64,
    epochs: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Loaders {
    cases: Vec<Loader>,
}

#[test]
fn epochs_that_a_programs_generator_seeds_are_told_from_the_next_seed_on() {
    let recorded: Loaders = serde_json::from_str(include_str!("../../tests/data/loaders.json")).unwrap();
    let mut known: Vec<(Recognised, u32)> = Vec::new();
    for Loader { seed, files, before, between, epochs } in &recorded.cases {
        let command = numbers(&format!("train --workers 4 --seed {seed}"));
        let found = thorough(&epochs.concat(), *files, &command, None).expect("it is recognised");
        let Draw { seed: by_seed, skip, by, .. } = found.began.draw;
        assert_eq!((by_seed, by), (*seed, By::Seed));
        assert!((*before..before + 8).contains(&skip), "{skip} after {before}");
        assert_eq!(found.step.map(|step| step.skip), Some(4 + between));
        known.push((found, *seed));
    }
    // The second case is the first with another seed: known before it starts.
    let command = numbers("train --workers 4 --seed 11");
    let past = [Past { drawn: Some(&known[0].0), arguments: &command }];
    let next = ahead(&past, &numbers("train --workers 2 --seed 18")).unwrap();
    assert_eq!(next.place.draw.order(300), recorded.cases[1].epochs[0]);
    assert_eq!(next.place.draw.after(next.step.unwrap(), 2).order(300), recorded.cases[1].epochs[2]);
}

#[test]
fn the_weights_of_a_larger_network_may_lie_between_a_seed_and_its_first_epoch() {
    let draw = Draw { skip: 1_700_000, ..Draw::first_by(By::Seed, 11) };
    let found = thorough(&draw.order(300), 300, &numbers("train --workers 4 --seed 11"), None).unwrap();
    assert_eq!((found.began.draw, found.believed()), (draw, true));
}

#[derive(Deserialize)]
struct Ranks {
    seed: u32,
    files: u32,
    of: u32,
    first: u32,
    ranks: u32,
    epochs: Vec<Vec<u32>>,
}

fn ranks() -> Vec<Ranks> {
    #[derive(Deserialize)]
    struct All {
        cases: Vec<Ranks>,
    }
    serde_json::from_str::<All>(include_str!("../../tests/data/ranks.json")).unwrap().cases
}

#[test]
fn what_ranks_of_a_distributed_training_take_is_recognised_and_told_on() {
    for Ranks { seed, files, of, first, ranks, epochs } in ranks() {
        let found = thorough(&epochs.concat(), files, &[], None).expect("it is recognised");
        let share = Share { of, first, ranks };
        let draw = Draw { share, ..Draw::first_of(seed) };
        assert!(found.believed() && found.began == Place { draw, offset: 0 }, "{share:?}: {found:?}");
        assert_eq!(found.step, Some(Step { seed: 1, ..Step::default() }), "{share:?}");
        let last = found.began.draw.after(found.step.unwrap(), epochs.len() as u64 - 1).order(files);
        let told = &epochs[epochs.len() - 1];
        assert_eq!(last[..told.len()], told[..], "{share:?}");
    }
    let case = &ranks()[1];
    let found = thorough(&case.epochs.concat(), case.files, &[], None).unwrap();
    assert_eq!(found.words(), "drawn by PyTorch, seed 42 + epoch, rank 7 of 8");
}

#[test]
fn a_rank_is_known_by_part_of_an_epoch_and_another_one_by_the_first() {
    let share = |first| Draw { share: Share { of: 8, first, ranks: 1 }, ..Draw::first_of(1234) };
    let found = thorough(&share(5).order(4000)[..40], 4000, &[], None).expect("it is recognised");
    assert!(found.believed() && found.began.draw == share(5), "{found:?}");
    let effort = Effort { seeds: 0, ..Effort::BRIEF };
    let sibling = recognise(&[reading(&share(2).order(4000)[..8], 4000)], &[], Some(&found), effort).unwrap();
    assert!(sibling.believed() && sibling.began.draw == share(2), "{sibling:?}");
    // Its loader has four workers, which keep no step.
    let taken = by_workers(&share(3).order(8000), 4, 16);
    let found = thorough(&taken, 8000, &[], None).expect("it is recognised");
    assert!(found.believed() && found.began.draw == share(3), "{found:?}");
}

#[test]
fn orders_of_pythons_and_numpys_generators_are_recognised_whatever_their_epochs_do() {
    for by in By::OTHERS {
        for step in Step::usual(by, 0) {
            let first = Draw::first_by(by, 2024);
            let all: Vec<u32> = (0..3).flat_map(|epoch| first.after(step, epoch).order(300)).collect();
            for files in [all.len(), 650] {
                let found = thorough(&all[..files], 300, &[], None).expect("it is recognised");
                assert!(found.believed() && found.began.draw == first, "{by:?}, {step:?}: {found:?}");
                assert_eq!(found.step, Some(step), "{by:?}");
            }
            // A tenth of an epoch, which such a generator draws last, and then a seed that is said.
            let found = thorough(&all[..30], 300, &[], None).expect("it is recognised");
            assert!(found.believed() && found.began.draw == first, "{by:?}: {found:?}");
        }
        let said = numbers("shuffle --seed 7654321");
        let order = Draw::first_by(by, 7_654_321).order(60);
        assert_eq!(thorough(&order, 60, &said, None).unwrap().began.draw.by, by);
        let order = by_workers(&Draw::first_by(by, 5).order(3000), 4, 16);
        assert!(thorough(&order, 3000, &[], None).is_some_and(|found| found.believed()), "{by:?} by workers");
    }
    let words = |by, step| {
        let all: Vec<u32> = (0..3).flat_map(|epoch| Draw::first_by(by, 7).after(step, epoch).order(50)).collect();
        thorough(&all, 50, &[], None).unwrap().words()
    };
    assert_eq!(words(By::Numpy, Step::default()), "drawn by NumPy, seed 7 in each epoch");
    let goes_on = Step { skip: 1, onto: 1, ..Step::default() };
    assert_eq!(
        words(By::Python, goes_on),
        "drawn by Python, one generator of seed 7, each epoch from the last one's order"
    );
}

#[test]
fn one_generator_that_goes_on_is_told_from_one_that_is_seeded_anew() {
    let steps = [2 * 99, 99, 0].map(|skip| Step { skip, ..Step::default() });
    for step in steps {
        let order: Vec<u32> = (0..3).flat_map(|e| Draw::first_of(12).after(step, e).order(100)).collect();
        assert_eq!(thorough(&order, 100, &[], None).unwrap().step, Some(step));
    }
}

#[test]
fn h_what_another_generator_shuffled_is_not_recognised() {
    let mut draw = StdRng::seed_from_u64(1);
    for (files, passes) in [(24, 1), (24, 3), (300, 2), (3000, 1)] {
        let mut shuffled = || {
            let mut order: Vec<u32> = (0..files).collect();
            order.shuffle(&mut draw);
            order
        };
        let taken: Vec<u32> = (0..passes).flat_map(|_| shuffled()).collect();
        let found = thorough(&taken, files, &numbers("train --seed 11"), None);
        assert!(!found.as_ref().is_some_and(Recognised::believed), "{found:?}");
    }
    let by_name: Vec<u32> = (0..300).collect();
    assert_eq!(thorough(&by_name, 300, &[], None), None);
}

#[test]
fn k_a_puzzle_is_solved_a_part_at_a_time_and_given_up_at_its_end() {
    let order = Draw::first_of(100_000).order(60);
    let mut puzzle = Puzzle::new(reading(&order, 60), &[]).unwrap();
    let mut parts = 0;
    let found = loop {
        parts += 1;
        if let Some(found) = puzzle.try_more(1 << 13) {
            break found.unwrap();
        }
    };
    assert_eq!(found.began.draw.seed, 100_000);
    // Those that are likelier come before, and take longer.
    assert!((14..60).contains(&parts), "{parts}");
    let mut order: Vec<u32> = (0..60).collect();
    order.shuffle(&mut StdRng::seed_from_u64(2));
    let mut puzzle = Puzzle::new(reading(&order, 60), &[]).unwrap();
    let found = (0..100).find_map(|_| puzzle.try_more(1 << 18)).expect("it ends");
    assert!(!found.as_ref().is_some_and(Recognised::believed), "{found:?}");
    assert!(Puzzle::new(reading(&[3, 1, 2], 60), &[]).is_none(), "too few");
}
