//! Bytes: right, side by side, by every way of reading, in the mode that fits.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use foretide_flow::Priority;
use foretide_mount::Config;

use crate::rig::{bytes, cannot_mount, eventually, rig, with};

#[test]
fn a_whole_file_is_opened_by_passthrough_and_a_partial_one_through_the_cache() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 100_000);
    let (small, large) = (bytes(50_000, 1), bytes(900_000, 2));
    rig.source.put("small", small.clone());
    rig.source.put("large", large.clone());
    assert!(fs::read(rig.at("large")).unwrap() == large);
    assert_eq!(rig.mount.stats().opens_cached, 1, "not here, and too large to wait for");
    assert!(fs::read(rig.at("small")).unwrap() == small);
    eventually("closed", || rig.mount.stats().open_files == 0);
    assert!(fs::read(rig.at("large")).unwrap() == large);
    let stats = rig.mount.stats();
    // Without CAP_SYS_ADMIN in the first user namespace there is no passthrough: then both are cached.
    assert!(stats.opens_passthrough == 2 || stats.opens_cached == 3, "{stats:?}");
}

#[test]
fn an_inodes_mode_is_fixed_while_it_is_open() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 1000);
    let content = bytes(400_000, 3);
    rig.source.put("f", content.clone());
    let first = File::open(rig.at("f")).unwrap();
    rig.source.bring("f");
    // Whole by now, but open through the cache: a passthrough open beside it would be refused by the kernel.
    let mut second = Vec::new();
    File::open(rig.at("f")).unwrap().read_to_end(&mut second).unwrap();
    assert_eq!(second, content);
    let stats = rig.mount.stats();
    assert_eq!((stats.opens_cached, stats.opens_passthrough), (2, 0));
    drop(first);
    eventually("closed", || rig.mount.stats().open_files == 0);
    let opens: Vec<File> = (0..8).map(|_| File::open(rig.at("f")).unwrap()).collect();
    for open in &opens {
        let mut some = vec![0; 5000];
        open.read_exact_at(&mut some, 123_456).unwrap();
        assert_eq!(some, content[123_456..128_456]);
    }
}

#[test]
fn pages_are_kept_from_one_open_to_the_next() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.passthrough = false);
    rig.source.put("f", bytes(200_000, 4));
    let first = fs::read(rig.at("f")).unwrap();
    let reads = rig.mount.stats().reads;
    assert!(fs::read(rig.at("f")).unwrap() == first);
    assert_eq!(rig.mount.stats().reads, reads, "the kernel had every page");
}

#[test]
fn sixteen_readers_at_150_ms_wait_side_by_side() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    (0..32).for_each(|i| rig.source.put(&format!("d/{i}"), bytes(20_000, i)));
    fs::read_dir(rig.at("d")).unwrap().count();
    rig.source.delay_ms.store(150, Ordering::Relaxed);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..32u64 {
            let file = rig.at(&format!("d/{i}"));
            scope.spawn(move || assert_eq!(fs::read(file).unwrap(), bytes(20_000, i)));
        }
    });
    let one_after_the_other = 32.0 * 0.150;
    let took = started.elapsed().as_secs_f64();
    assert!(took < one_after_the_other / 4.0, "{took} s for 32 readers");
}

#[test]
fn many_readers_of_one_large_cold_file_get_the_right_bytes() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 1000);
    let content = bytes(3_000_000, 5);
    rig.source.put("f", content.clone());
    rig.source.delay_ms.store(5, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let (file, content) = (rig.at("f"), &content);
            scope.spawn(move || {
                let file = File::open(file).unwrap();
                for step in 0..40u64 {
                    let at = (reader * 7919 + step * 104_729) * 31 % 2_990_000;
                    let mut read = vec![0; 10_000];
                    file.read_exact_at(&mut read, at).unwrap();
                    assert_eq!(read, content[at as usize..at as usize + 10_000], "at {at}");
                }
            });
        }
    });
}

#[test]
fn mmap_reads_the_same_bytes_cold_and_warm() {
    if cannot_mount() {
        return;
    }
    for whole_file_bytes in [1000, 10_000_000] {
        let rig = with(|c| c.whole_file_bytes = whole_file_bytes);
        let content = bytes(500_000, 6);
        rig.source.put("f", content.clone());
        for _ in 0..2 {
            let file = File::open(rig.at("f")).unwrap();
            // SAFETY: the mapping is as long as the file, read only, and unmapped after its last use.
            unsafe {
                let at = libc::mmap(
                    std::ptr::null_mut(),
                    content.len(),
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                );
                assert_ne!(at, libc::MAP_FAILED);
                assert_eq!(std::slice::from_raw_parts(at.cast::<u8>(), content.len()), content);
                libc::munmap(at, content.len());
            }
        }
    }
}

#[test]
fn a_read_at_the_end_is_short_and_beyond_it_empty() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 1000);
    rig.source.put("f", bytes(10_001, 7));
    rig.source.put("empty", "");
    let file = File::open(rig.at("f")).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(file.read_at(&mut buffer, 9_990).unwrap(), 11);
    assert_eq!(file.read_at(&mut buffer, 10_001).unwrap(), 0);
    assert_eq!(fs::read(rig.at("empty")).unwrap(), b"");
}

#[test]
fn a_sequential_reader_of_a_large_file_is_kept_ahead_of() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c: &mut Config| (c.whole_file_bytes, c.first_window_bytes) = (1000, 1 << 20));
    rig.source.put("f", bytes(8 << 20, 8));
    let mut file = File::open(rig.at("f")).unwrap();
    let mut part = vec![0; 4 << 20];
    file.read_exact(&mut part).unwrap();
    let wanted = rig.source.wanted();
    let furthest = wanted.iter().map(|(_, range, _)| range.end).max().unwrap();
    assert!(furthest > 5 << 20, "{wanted:?}");
    // Found by the demo: two readers of large files held up thirty readers of small ones for a second.
    assert!(wanted.iter().all(|(.., priority)| *priority > Priority::Demand), "{wanted:?}");
}

#[test]
fn what_a_move_brought_can_be_read_into_the_page_cache_beforehand() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("d/f", bytes(100_000, 9));
    fs::metadata(rig.at("d/f")).unwrap();
    let path = crate::source::path("d/f");
    let not_here = rig.mount.hints().warm_pages(&rig.source.volume, &path).unwrap_err();
    assert_eq!(not_here.kind(), std::io::ErrorKind::NotFound);
    rig.source.bring("d/f");
    rig.mount.hints().warm_pages(&rig.source.volume, &path).unwrap();
}

#[test]
fn silent_opens_read_right_bytes_and_warm_ones_cost_no_request() {
    if cannot_mount() {
        return;
    }
    let mut rig = with(|c| (c.opens, c.lease_s) = (foretide_mount::Opens::Silent, 1.0));
    let (old, new, large) = (bytes(60_000, 1), bytes(70_000, 2), bytes(9 << 20, 3));
    rig.source.put("f", old.clone());
    rig.source.put("large", large.clone());
    assert!(fs::read(rig.at("f")).unwrap() == old);
    assert!(fs::read(rig.at("large")).unwrap() == large);
    let stats = rig.mount.stats();
    assert_eq!((stats.opens_cached, stats.opens_passthrough), (0, 0));
    assert!(fs::read(rig.at("f")).unwrap() == old);
    assert_eq!(rig.mount.stats().reads, stats.reads, "the kernel had every page");
    let kept = File::open(rig.at("f")).unwrap();
    rig.source.put("f", new.clone());
    eventually("the new version is there", || fs::read(rig.at("f")).is_ok_and(|read| read == new));
    let mut first = vec![0; 1000];
    kept.read_exact_at(&mut first, 0).unwrap();
    assert!(first == old[..1000], "one version per handle (promise D)");
    let told =
        std::iter::from_fn(|| rig.events.try_recv().ok()).filter(|e| e.op == foretide_flow::AccessOp::Open).count();
    assert!(told >= 2, "the first read of a number counts as its open");
}
