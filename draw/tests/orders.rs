//! Orders that Python's and NumPy's generators drew (`orders.py` records them), drawn again.

use foretide_draw::{Drawer, Table, Way};

/// One seed's orders, one after the other by the same generator.
fn recorded() -> Vec<(Way, u32, Vec<Vec<u32>>)> {
    let way = |name: &str| match name {
        "python_shuffle" => Way::PythonShuffle,
        "python_sample" => Way::PythonSample,
        "numpy_shuffle" => Way::Numpy,
        "numpy_generator" => Way::NumpyGenerator,
        other => panic!("{other}"),
    };
    let order = |text: &str| text.split('\t').map(|n| n.parse().unwrap()).collect();
    let line = |line: &str| {
        let (head, orders) = line.split_once('|').unwrap();
        let [name, seed, _] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        (way(name), seed.parse().unwrap(), orders.split('|').map(order).collect())
    };
    include_str!("data/orders.txt").lines().map(line).collect()
}

#[test]
fn orders_that_other_generators_drew_are_drawn_again() {
    for (way, seed, orders) in recorded() {
        let mut drawer = Drawer::new(way, seed);
        for order in orders {
            let mut drawn: Vec<u32> = (0..order.len() as u32).collect();
            drawer.shuffle(&mut drawn);
            assert_eq!(drawn, order, "{way:?}, seed {seed}");
        }
    }
}

#[test]
fn a_table_settles_the_places_of_an_order_one_by_one_and_begins_anew() {
    for (way, seed, orders) in recorded() {
        let (order, n) = (&orders[0], orders[0].len() as u32);
        let mut table = Table::new(n);
        let [mut whole, mut part] = [seed, seed.wrapping_add(1)].map(|seed| Drawer::new(way, seed));
        let mut seen = 0;
        table.shuffle(&mut part, |_, _| {
            seen += 1;
            seen < 5
        });
        assert!(seen <= 5);
        assert!(table.shuffle(&mut whole, |place, number| order[place as usize] == number), "{way:?}, seed {seed}");
        assert_eq!(&table.order(way), order);
    }
}

#[test]
fn several_seeds_side_by_side_are_each_as_it_is_alone() {
    for way in [Way::Torch, Way::PythonShuffle, Way::PythonSample, Way::Numpy, Way::NumpyGenerator] {
        let seeds = [0, 7, u32::MAX, 1 << 20];
        for (mut drawer, seed) in Drawer::side_by_side(way, seeds).into_iter().zip(seeds) {
            let (mut one, mut other) = ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            drawer.shuffle(&mut one);
            Drawer::new(way, seed).shuffle(&mut other);
            assert_eq!(one, other, "{way:?}");
        }
    }
    let mut list: Vec<u32> = (0..50).collect();
    Drawer::new(Way::Torch, 1000).shuffle(&mut list);
    assert_eq!(list, foretide_draw::permutation(&mut foretide_draw::Twister::new(1000), 50));
}
