//! The forecaster of blocks: what it learns, what it forgets, what it may cost.

use super::*;

fn forecaster(memory_bytes: usize, addresses: bool) -> BlockForecaster {
    BlockForecaster::new(BlockSettings {
        block_bytes: 4096,
        addresses,
        memory_bytes,
        waste: 0.49,
        sources: Sources::ALL,
    })
}

/// Asks for these blocks and returns how many of the last `counted` had been proposed before, as if all stayed.
fn foreseen(model: &mut BlockForecaster, blocks: &[u64], counted: usize) -> usize {
    let mut told = std::collections::HashSet::new();
    let mut proposals = Vec::new();
    let mut foreseen = 0;
    for (i, block) in blocks.iter().enumerate() {
        let hit = told.remove(block);
        foreseen += usize::from(hit && i + counted >= blocks.len());
        model.observe(BlockRequest { offset: block * 4096, length: 4096, hit }, &mut proposals);
        for proposal in proposals.drain(..).filter(|p| !p.here) {
            assert!((0.0..=1.0).contains(&proposal.probability));
            told.insert(proposal.block);
            model.arrived(proposal.block);
        }
        // Nothing stays after its use, so that it has to be proposed anew.
        model.evicted(*block);
    }
    foreseen
}

fn scattered(i: u64) -> u64 {
    i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

#[test]
fn a_loop_is_known_from_its_third_round() {
    let blocks: Vec<u64> = (0..8).flat_map(|_| (0..500).map(scattered)).collect();
    assert!(foreseen(&mut forecaster(1 << 20, false), &blocks, 500) > 450);
}

#[test]
fn interleaved_runs_are_followed_though_no_block_was_seen_before() {
    let mut blocks = Vec::new();
    for i in 0..1000u64 {
        blocks.push(1_000_000 + i);
        blocks.push(5_000_000 + i);
        blocks.push(9_000_000 + 2 * i);
    }
    assert!(foreseen(&mut forecaster(1 << 20, true), &blocks, 600) > 500);
    assert_eq!(foreseen(&mut forecaster(1 << 20, false), &blocks, 600), 0, "names have no neighbours");
}

#[test]
fn fetches_that_take_long_are_asked_for_earlier() {
    const TAKES: usize = 20;
    let mut model = forecaster(1 << 20, false);
    let blocks: Vec<u64> = (0..30).flat_map(|_| (0..300).map(scattered)).collect();
    let (mut asked, mut proposals, mut ahead) = (std::collections::VecDeque::new(), Vec::new(), Vec::new());
    let mut here = std::collections::HashSet::new();
    for (i, block) in blocks.iter().enumerate() {
        while let Some((_, come)) = asked.pop_front_if(|(at, _): &mut (usize, u64)| *at + TAKES <= i) {
            here.insert(come);
            model.arrived(come);
        }
        let hit = here.remove(block);
        model.observe(BlockRequest { offset: block * 4096, length: 4096, hit }, &mut proposals);
        for proposal in proposals.drain(..).filter(|p| !p.here) {
            asked.push_back((i, proposal.block));
            let use_after = blocks[i + 1..].iter().position(|b| *b == proposal.block).map(|n| n + 1);
            ahead.extend(use_after.filter(|_| i > 7000));
        }
        model.evicted(*block);
    }
    ahead.sort_unstable();
    let early = ahead.get(ahead.len() / 10).copied().unwrap_or_default();
    assert!(ahead.len() > 1000 && early >= TAKES, "{} proposals, a tenth within {early} requests", ahead.len());
}

#[test]
fn k_memory_stays_within_its_bound_over_any_number_of_blocks() {
    let mut model = forecaster(1 << 20, true);
    let mut proposals = Vec::new();
    for i in 0..100_000u64 {
        model.observe(BlockRequest { offset: scattered(i) * 4096, length: 4096, hit: false }, &mut proposals);
        model.evicted(scattered(i));
        proposals.clear();
    }
    assert!(model.bytes() < 2 << 20, "{}", model.bytes());
}

#[test]
fn f_the_same_requests_give_the_same_proposals() {
    let told = || {
        let mut model = forecaster(1 << 18, true);
        let mut all = Vec::new();
        for i in 0..5000u64 {
            let block = if i % 3 == 0 { i } else { scattered(i % 400) };
            model.observe(BlockRequest { offset: block * 4096, length: 8192, hit: i % 2 == 0 }, &mut all);
            model.evicted(block);
        }
        all
    };
    assert_eq!(told(), told());
}

#[test]
fn an_id_that_is_given_anew_brings_nothing_of_its_former_block() {
    // Blocks come and go far beyond what is kept; then a loop of new ones must be learned as if it were the first.
    let mut model = forecaster(1 << 18, false);
    let strangers: Vec<u64> = (0..20_000).map(|i| scattered(i) + (1 << 30)).collect();
    foreseen(&mut model, &strangers, 0);
    let blocks: Vec<u64> = (0..10).flat_map(|_| (0..200).map(scattered)).collect();
    assert!(foreseen(&mut model, &blocks, 200) > 170);
}
