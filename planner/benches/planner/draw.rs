//! Seeded instances, in our form and as the reference is told them.

use foretide_planner::assign::{Demand, Instance, Late};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Parts of extents are multiples of a chunk.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Sites with their links, and how an instance is told.
pub struct House {
    pub instance: Instance,
    /// Lists of ways, one for each site that takes.
    pub lists: u32,
    /// Bytes that all lanes carry in all slots.
    pub carried: f64,
    told: Value,
}

/// A quarter of the sites give, the others take, each over one to three links. What enters and leaves a site and what
/// its cache holds are limited.
pub fn house(rng: &mut ChaCha8Rng, sites: u32, slots: u16) -> House {
    let mut instance = Instance::new(slots, sites, CHUNK_BYTES);
    let sources = (sites / 4).max(1);
    let (mut lanes, mut ways_told, mut carried) = (Vec::new(), Vec::new(), 0.0);
    for to in sources..sites {
        let mut ways = Vec::new();
        for _ in 0..rng.random_range(1..=3u32) {
            let (from, rate) = (rng.random_range(0..sources), rng.random_range(2u64..40) << 28);
            let cost = [0.0, 0.02, 0.09][rng.random_range(0..3)] / 1e9;
            ways.push(instance.add_lane(from, to, rate, cost));
            lanes.push(json!([from, to, rate, cost]));
            carried += rate as f64 * f64::from(slots);
        }
        ways_told.push(json!(ways));
        instance.add_ways(ways);
    }
    let per_site = carried / f64::from(sites - sources);
    let (mut cache, mut egress, mut ingress) = (vec![0u64; sites as usize], vec![], vec![]);
    for site in 0..sites {
        let out = (carried / f64::from(slots) / f64::from(sources) * rng.random_range(0.5..1.5)) as u64;
        let inn = (per_site / f64::from(slots) * rng.random_range(0.6..2.0)) as u64;
        instance.limit_site(site, out, inn);
        egress.push(out);
        ingress.push(inn);
        if site >= sources {
            cache[site as usize] = (per_site * rng.random_range(0.1..0.6)) as u64;
            instance.set_cache(site, cache[site as usize]);
        }
    }
    let told = json!({"slots": slots, "lanes": lanes, "ways": ways_told, "cache": cache, "egress": egress,
        "ingress": ingress});
    House { instance, lists: sites - sources, carried, told }
}

/// An instance and what the reference must know of it.
pub struct Drawn {
    pub instance: Instance,
    pub told: Value,
}

/// Extents with a deadline and a last use, total bytes `load` times what the links into the sites carry.
pub fn draw(seed: u64, sites: u32, slots: u16, extents: usize, load: f64) -> Drawn {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let House { mut instance, lists, carried, mut told } = house(&mut rng, sites, slots);
    let mean = carried * load / extents as f64;
    for _ in 0..extents {
        let bytes = ((mean * rng.random_range(0.1f64..1.9)) as u64).max(1);
        let p: f64 = rng.random_range(0.1..1.0);
        let deadline = rng.random_range(0..slots);
        let last_use = (deadline + rng.random_range(0..slots / 4)).min(slots - 1);
        let stall_per_gb: f64 = 8.0 * rng.random_range(0.2f64..1.0).powi(2);
        instance.add(Demand {
            bytes,
            worth: p * stall_per_gb * bytes as f64 / 1e9 * rng.random_range(1.0..4.0) / 3.6,
            vain: (1.0 - p) as f32,
            ways: rng.random_range(0..lists),
            release: 0,
            deadline,
            late: [Late::default(); 2],
            last_use,
        });
    }
    let tell = |d: &Demand| {
        json!({"bytes": d.bytes, "worth": d.worth, "vain": d.vain, "ways": d.ways, "release": d.release,
            "deadline": d.deadline, "last_use": d.last_use})
    };
    told["demands"] = instance.demands().iter().map(tell).collect();
    Drawn { instance, told }
}
