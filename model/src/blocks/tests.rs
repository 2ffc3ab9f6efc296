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

#[test]
fn what_came_before_its_fetch_could_teaches_neither_yes_nor_no() {
    let mut model = forecaster(1 << 20, false);
    let id = model.admit(7);
    let features = std::array::from_fn(|i| i as u32);
    let said = Said { probability: 0.5, bin: 5 };
    let open = Verdict::open(id, features, said, true);
    let mut after = |verdict: Verdict| {
        model.learn(&verdict);
        model.gate.log_odds(&features)
    };
    let late = Verdict { came: true, ..open };
    let never = after(late);
    assert!(after(open) < never, "what never came is a no");
    let refused = after(late);
    assert!(after(Verdict { in_time: true, ..late }) > refused, "what came in time is a yes");
    assert_eq!(never, Gate::new(1 << 17).log_odds(&features), "a late one changed nothing");
}

#[test]
fn replay_looks_as_much_farther_as_fetches_take_long_and_blocks_stay() {
    let mut model = forecaster(1 << 20, false);
    let mut reach = |delay, stay| {
        (model.delay, model.stay) = (delay, stay);
        model.reach()
    };
    assert_eq!(reach(0.0, 1000.0), Reach::far(0, 0), "no farther than one by one");
    assert_eq!(reach(16.0, 1000.0), Reach::far(16, 32));
    assert_eq!(reach(16.0, 100.0), Reach::far(16, 9), "a quarter of the stay");
    assert_eq!(reach(16.0, 40.0), Reach::far(16, 0));
}

#[test]
fn b2_what_is_farther_off_than_one_by_one_is_proposed_where_fetches_take_long() {
    // Fetches take 16 requests: of a loop, the 16 after these are proposed one by one, and others up to 64 requests off.
    let blocks: Vec<u64> = (0..4).flat_map(|_| (0..300).map(scattered)).collect();
    let mut log = Log::new(4096);
    let mut objects = Objects::new(1000);
    for block in &blocks {
        let id = objects.known(*block).unwrap_or_else(|| objects.add(*block));
        let before = std::mem::replace(&mut objects.get_mut(id).last, log.next());
        log.push(id, before);
    }
    let now = log.next() - 1;
    let before = log.before(now).unwrap();
    let distances = |reach| -> Vec<u64> {
        let mut candidates = Candidates::default();
        replay::propose(&log, before, now, reach, &mut candidates);
        // The last of the loop prompts, so its ids are the distances less one.
        candidates.all().iter().map(|c| u64::from(c.id) + 1).collect()
    };
    assert_eq!(distances(Reach::far(0, 0)), (1..=16).collect::<Vec<_>>());
    let far = distances(Reach::far(16, 32));
    assert_eq!(far[..16], (16..32).collect::<Vec<_>>());
    assert_eq!(far[16..], [32, 34, 36, 38, 40, 42, 44, 46, 48, 51, 54, 57, 60, 63]);
    assert_eq!(distances(Reach::near(0)), (1..=4).collect::<Vec<_>>());
    assert_eq!(distances(Reach::near(2)), (2..6).collect::<Vec<_>>());
}

#[test]
fn after_a_block_that_lay_here_only_the_next_few_are_named() {
    let blocks: Vec<u64> = (0..3).flat_map(|_| (0..300).map(scattered)).collect();
    let named = |hit, ahead| {
        let sources = Sources { association: false, ..Sources::ALL };
        let mut model = BlockForecaster::new(BlockSettings { sources, ..forecaster(1 << 20, false).settings });
        let mut proposals = Vec::new();
        for block in &blocks {
            model.observe(BlockRequest { offset: block * 4096, length: 4096, hit: false }, &mut proposals);
            proposals.drain(..).filter(|p| !p.here).for_each(|p| model.arrived(p.block));
            model.evicted(*block);
        }
        let object = model.objects.known(blocks[0]).map(|id| model.objects.get_mut(id)).unwrap();
        object.whereabouts = if ahead { Whereabouts::Waiting } else { Whereabouts::Away };
        model.delay = 0.0;
        // Only what is not here is named.
        blocks[1..=16].iter().for_each(|block| model.evicted(*block));
        model.observe(BlockRequest { offset: blocks[0] * 4096, length: 4096, hit }, &mut proposals);
        let mut named: Vec<u64> = model.named().map(|(block, _)| block).collect();
        named.sort_unstable();
        let mut sequel = blocks[1..=named.len()].to_vec();
        sequel.sort_unstable();
        assert_eq!(named, sequel);
        named.len()
    };
    assert_eq!(named(false, false), 16, "a miss");
    assert_eq!(named(true, true), 16, "a block that was fetched ahead: what was foreseen goes on");
    assert_eq!(named(true, false), 4, "a block that simply lay here");
}
