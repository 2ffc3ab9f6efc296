use super::*;

/// Seeds of each kind of foresight. A failing seed is printed and replays.
const SEEDS: u64 = 1_000;

fn run(scenario: &Scenario, foresight: Foresight, seed: u64) -> Report {
    simulate(scenario, foresight, seed).unwrap()
}

/// Promise H, and promises F, I, K on the way: over adversarial and random forecasts under link cuts, slow links,
/// lost agents, small caches and a rule revoked midway, nobody waits longer than without prefetch, waste keeps to its
/// budget, and every invariant holds.
#[test]
fn h_never_worse_than_off() {
    for seed in 0..SEEDS {
        let scenario = Scenario::draw(seed);
        let off = run(&scenario, Foresight::None, seed);
        let foresight = if seed % 2 == 0 { Foresight::Adversarial } else { Foresight::Random };
        let on = run(&scenario, foresight, seed);
        assert!(on.broken.is_empty(), "seed {seed}: {:?}", on.broken);
        assert_eq!(on.finished, off.finished, "seed {seed}");
        assert!(on.stall_s <= off.stall_s * 1.01 + 1e-3, "seed {seed}, {foresight:?}: {on:?}\n{off:?}\n{scenario:?}");
        assert!(on.wasted_bytes <= scenario.waste_limit_bytes(), "seed {seed}: {on:?}");
    }
}

#[test]
fn foresight_that_is_right_saves_most_of_the_waiting() {
    let (mut with, mut without) = (0.0, 0.0);
    for seed in 0..200 {
        let scenario = Scenario { faults: Faults::default(), ..Scenario::draw(seed) };
        let (off, on) = (run(&scenario, Foresight::None, seed), run(&scenario, Foresight::Right, seed));
        assert!(on.broken.is_empty(), "seed {seed}: {:?}", on.broken);
        with += on.stall_s;
        without += off.stall_s;
    }
    assert!(with < 0.6 * without, "{with:.1} s of {without:.1} s");
}

/// Promise F: a seed replays.
#[test]
fn f_a_seed_replays() {
    let scenario = Scenario::draw(42);
    assert_eq!(run(&scenario, Foresight::Random, 42), run(&scenario, Foresight::Random, 42));
}
