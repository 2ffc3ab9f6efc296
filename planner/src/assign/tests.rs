use proptest::prelude::*;

use super::*;

/// One lane of 10 bytes a slot over two slots, a cache of `cache`.
fn small(cache: u64, demands: &[(u64, f64, u16)]) -> Instance {
    let mut i = Instance::new(2, 2, 1);
    let lane = i.add_lane(0, 1, 10, 0.0);
    i.set_cache(1, cache);
    let ways = i.add_ways(vec![lane]);
    for &(bytes, worth, deadline) in demands {
        i.add(Demand { bytes, worth, vain: 0.0, ways, release: 0, deadline, late: [Late::default(); 2], last_use: 1 });
    }
    i
}

#[test]
fn the_optimum_of_a_small_case_is_found_and_proved() {
    // 10 bytes of the first for 20, and of the second the 10 that fit for 10: 30 is best.
    let i = small(100, &[(10, 20.0, 0), (15, 15.0, 1)]);
    let a = i.priced(200);
    assert!((a.worth - 30.0).abs() < 1e-9, "{a:?}");
    assert!(a.gap() < 0.02, "{a:?}");
}

#[test]
fn rows_of_a_file_become_one_demand() {
    let row = |file, index, deadline| ChunkRow {
        file,
        index,
        bytes: 4,
        worth: 1.0,
        vain: 0.1,
        ways: 0,
        deadline,
        last_use: 5,
    };
    let d = group(&[row(1, 0, 3), row(1, 1, 3), row(1, 3, 3), row(2, 4, 3), row(2, 5, 4)]);
    assert_eq!(d.iter().map(|d| (d.bytes, d.deadline)).collect::<Vec<_>>(), [(8, 3), (4, 3), (4, 3), (4, 4)]);
}

prop_compose! {
    fn any_instance()(
        rates in proptest::collection::vec(0u64..40, 3),
        caches in proptest::collection::vec(0u64..150, 3),
        egress in 1u64..60,
        demands in proptest::collection::vec((1u64..30, 0.0f64..9.0, 0u32..3, [0u16..6, 0u16..6, 0u16..6, 0u16..6, 0u16..6], 0.0f32..1.0), 0..40),
        cost in 0.0f64..0.2,
    ) -> Instance {
        let mut i = Instance::new(6, 3, 2);
        let a = i.add_lane(0, 1, rates[0], cost);
        let b = i.add_lane(0, 2, rates[1], cost);
        let c = i.add_lane(2, 1, rates[2], 0.0);
        caches.iter().enumerate().for_each(|(s, c)| i.set_cache(s as u32, *c));
        i.limit_site(0, egress, u64::MAX >> 8);
        let ways = [i.add_ways(vec![a, c]), i.add_ways(vec![b]), i.add_ways(vec![c])];
        for (bytes, worth, w, mut slots, vain) in demands {
            slots.sort_unstable();
            let [release, deadline, later, latest, last_use] = slots;
            let late = [Late { deadline: later, part: 0.5 }, Late { deadline: latest, part: vain / 4.0 }];
            i.add(Demand { bytes, worth, vain, ways: ways[w as usize], release, deadline, late, last_use });
        }
        i
    }
}

proptest! {
    /// (b), (c): whatever is assigned, no resource is exceeded and no demand gets more than it asked for; and the
    /// bound holds for every assignment.
    #[test]
    fn assignments_fit_and_bounds_hold(i in any_instance()) {
        let priced = i.priced(60);
        for a in [i.greedy(), i.earliest_deadline(), priced.clone()] {
            prop_assert_eq!(i.excess_bytes(&a), 0);
            let mut got = vec![0u64; i.demands().len()];
            for p in &a.parts {
                let d = &i.demands()[p.demand as usize];
                got[p.demand as usize] += p.bytes;
                prop_assert!((d.release..=d.deadline.max(d.late[1].deadline)).contains(&p.slot));
            }
            prop_assert!(got.iter().zip(i.demands()).all(|(g, d)| *g <= d.bytes));
            prop_assert!(a.worth <= priced.bound + 1e-6, "{} > {}", a.worth, priced.bound);
        }
        let (mut later, mut plan, mut carried) = (i.clone(), priced.clone(), 0.0);
        for now in 1..=6 {
            carried += later.carry(&mut plan, now);
            prop_assert_eq!(later.excess_bytes(&plan), 0);
            plan = later.replan(&plan, &[]);
        }
        prop_assert!(plan.parts.is_empty() && (carried - priced.worth).abs() < 1e-6, "{} of {}", carried, priced.worth);
        let again = i.replan(&priced, &[]);
        prop_assert_eq!(&again.parts, &priced.parts, "nothing changed, nothing moves");
        let some: Vec<u32> = (0..i.demands().len() as u32).step_by(3).collect();
        prop_assert_eq!(i.excess_bytes(&i.replan(&priced, &some)), 0);
        prop_assert!(priced.worth >= i.greedy().worth);
        prop_assert_eq!(&priced, &i.priced(60));
    }
}
