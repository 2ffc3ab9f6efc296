//! Every read is told: as an outcome at the close, and as events while it happens.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use foretide_flow::{AccessOp, Found, Outcome};

use crate::rig::{bytes, cannot_mount, eventually, rig, with};

#[test]
fn a_hit_a_miss_and_what_the_prefetching_was_worth_are_told_at_the_close() {
    if cannot_mount() {
        return;
    }
    let mut rig = rig();
    rig.source.put("foreseen", bytes(70_000, 1));
    rig.source.put("not", bytes(30_000, 2));
    rig.source.bring("foreseen");
    rig.source.delay_ms.store(20, Ordering::Relaxed);
    fs::read(rig.at("foreseen")).unwrap();
    let Outcome::Read { process, path, bytes, prefetched_bytes, waited_us, found, lead_us, .. } = rig.outcome() else {
        panic!("no read")
    };
    assert_eq!((process, path.to_string().as_str()), (std::process::id(), "foreseen"));
    assert_eq!((bytes, prefetched_bytes, waited_us, found), (70_000, 70_000, 0, Found::Hit));
    assert!(lead_us.is_some());
    fs::read(rig.at("not")).unwrap();
    let Outcome::Read { bytes, prefetched_bytes, waited_us, found, lead_us, .. } = rig.outcome() else {
        panic!("no read")
    };
    assert_eq!((bytes, prefetched_bytes, found, lead_us), (30_000, 0, Found::Miss, None));
    assert!(waited_us >= 20_000, "{waited_us}");
}

#[test]
fn parts_of_a_file_count_as_parts() {
    if cannot_mount() {
        return;
    }
    let mut rig = with(|c| c.whole_file_bytes = 1000);
    rig.source.put("f", bytes(4 << 20, 3));
    let file = File::open(rig.at("f")).unwrap();
    let mut some = vec![0; 4096];
    file.read_exact_at(&mut some, 2 << 20).unwrap();
    file.read_exact_at(&mut some, 2 << 20).unwrap();
    drop(file);
    let Outcome::Read { bytes, found, .. } = rig.outcome() else { panic!("no read") };
    // The kernel reads ahead by at most 128 KiB around it.
    assert!((4096..=256 << 10).contains(&bytes), "{bytes}");
    assert_eq!(found, Found::Miss);
}

#[test]
fn as_the_collector_the_mount_tells_open_read_and_close_with_the_process() {
    if cannot_mount() {
        return;
    }
    let mut rig = rig();
    rig.source.put("f", bytes(50_000, 4));
    fs::read(rig.at("f")).unwrap();
    let mut told = Vec::new();
    eventually("open, read and close are told", || {
        while let Ok(event) = rig.events.try_recv() {
            told.push(event);
        }
        told.iter().any(|e| e.op == AccessOp::Close)
    });
    let ops: Vec<_> = told.iter().map(|e| e.op).collect();
    assert_eq!((ops.first(), ops.last()), (Some(&AccessOp::Open), Some(&AccessOp::Close)));
    let read: u64 = told.iter().filter(|e| e.op == AccessOp::Read).map(|e| e.length).sum();
    assert_eq!(read, 50_000);
    assert!(told.iter().all(|e| e.process == std::process::id() && e.path.to_string() == "f"), "{told:?}");
}

#[test]
fn observations_that_nobody_takes_are_counted_j() {
    if cannot_mount() {
        return;
    }
    let mut rig = rig();
    rig.source.put("f", "x");
    rig.outcomes.close();
    fs::read(rig.at("f")).unwrap();
    eventually("the loss is counted", || rig.mount.stats().observations_dropped > 0);
}
