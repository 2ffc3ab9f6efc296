//! What goes wrong: at the source, on the link, with the mount point, with the daemon itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use foretide_mount::{Config, Sinks, mount};

use crate::rig::{bytes, cannot_mount, errno, eventually, on, rig, with};
use crate::source::Source;

#[test]
fn a_source_that_is_gone_is_ehostunreach_and_what_is_cached_stays_readable_a() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| (c.lease_s, c.stale_retry_s) = (1.0, 1.0));
    let content = bytes(40_000, 1);
    rig.source.put("d/here", content.clone());
    rig.source.put("d/there", content.clone());
    assert!(fs::read(rig.at("d/here")).unwrap() == content);
    rig.source.faults.unreachable.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        // Beyond the lease: what was known is believed on.
        std::thread::sleep(Duration::from_millis(500));
        assert!(fs::read(rig.at("d/here")).unwrap() == content);
        assert_eq!(fs::read_dir(rig.at("d")).unwrap().count(), 2);
        assert_eq!(errno(File::open(rig.at("d/there"))), libc::EHOSTUNREACH);
    }
    rig.source.faults.unreachable.store(false, Ordering::Relaxed);
    assert_eq!(fs::read(rig.at("d/there")).unwrap(), content, "and it comes back by itself");
}

#[test]
fn a_source_that_was_never_seen_is_ehostunreach_too() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.faults.unreachable.store(true, Ordering::Relaxed);
    assert!(fs::metadata(rig.at("")).unwrap().is_dir(), "the volume is shown");
    assert_eq!(errno(fs::read_dir(rig.at("")).map(|_| ())), libc::EHOSTUNREACH);
    assert_eq!(errno(fs::read(rig.at("x"))), libc::EHOSTUNREACH);
}

#[test]
fn a_source_that_does_not_answer_is_etimedout_and_holds_nobody_else_up() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.answer_timeout_s = 1.0);
    rig.source.put("here", "x");
    rig.source.put("there", "y");
    fs::read(rig.at("here")).unwrap();
    rig.source.faults.silent.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(errno(File::open(rig.at("there"))), libc::ETIMEDOUT));
        }
        scope.spawn(|| (0..100).for_each(|_| assert_eq!(fs::read(rig.at("here")).unwrap(), b"x")));
    });
}

#[test]
fn a_file_that_changes_or_vanishes_while_it_is_read_is_estale_never_a_mixture_d() {
    if cannot_mount() {
        return;
    }
    for vanishes in [false, true] {
        let rig = with(|c| c.whole_file_bytes = 1000);
        let old = bytes(2 << 20, 2);
        rig.source.put("f", old.clone());
        let file = File::open(rig.at("f")).unwrap();
        let mut first = vec![0; 4096];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, old[..4096]);
        if vanishes {
            rig.source.remove("f");
        } else {
            rig.source.put("f", bytes(2 << 20, 3));
        }
        let rest = file.read_exact_at(&mut first, 1 << 20);
        assert_eq!(errno(rest), libc::ESTALE, "vanishes: {vanishes}");
        let again = fs::read(rig.at("f"));
        if vanishes {
            assert_eq!(errno(again), libc::ENOENT);
        } else {
            assert_eq!(again.unwrap(), bytes(2 << 20, 3), "the next open has the new version");
        }
    }
}

#[test]
fn an_answer_that_is_too_short_is_an_error_not_an_end_of_file_d() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.keeps.store(false, Ordering::Relaxed);
    rig.source.faults.short_reads.store(true, Ordering::Relaxed);
    rig.source.put("f", bytes(10_000, 4));
    assert!(fs::read(rig.at("f")).is_err());
}

#[test]
fn a_store_that_keeps_nothing_still_lets_files_be_read_a() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 50_000);
    rig.source.keeps.store(false, Ordering::Relaxed);
    let files = [("small", 30_000), ("large", 700_000)];
    files.iter().for_each(|(name, length)| rig.source.put(name, bytes(*length, 5)));
    for (name, length) in files {
        assert!(fs::read(rig.at(name)).unwrap() == bytes(length, 5), "{name}");
    }
}

#[test]
fn an_evicted_file_goes_on_being_read_by_who_has_it_open() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("f", bytes(300_000, 6));
    let mut file = File::open(rig.at("f")).unwrap();
    rig.source.evict_all();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes(300_000, 6));
}

#[test]
fn a_mount_point_in_use_is_one_clear_error() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    let (outcomes, _kept) = tokio::sync::mpsc::channel(1);
    let guard = rig.runtime.enter();
    let config = Config::at(rig.point.path(), vec![rig.source.volume.clone()]);
    let told = mount(config, rig.source.clone(), Sinks { outcomes, events: None }).map(|_| ()).unwrap_err().to_string();
    drop(guard);
    assert!(told.contains("in use by foretide") && told.contains("umount"), "{told}");
}

#[test]
fn unmounting_leaves_an_empty_directory_and_open_files_readable() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("f", bytes(100_000, 7));
    let file = File::open(rig.at("f")).unwrap();
    let (point, at) = (rig.point, rig.mount.path().to_owned());
    rig.mount.unmount().unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    let mut read = vec![0; 100_000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, bytes(100_000, 7));
    drop(point);
}

/// Not a test: the daemon that the next one kills. Serves one whole file until it dies.
#[test]
#[ignore = "started by the test of a killed daemon"]
fn daemon_to_be_killed() {
    let Some(point) = std::env::var_os("FORETIDE_TEST_POINT") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.enter();
    let source = Source::new("data");
    source.put("f", bytes(4 << 20, 8));
    source.bring("f");
    let (outcomes, _kept) = tokio::sync::mpsc::channel(16);
    let config = Config::at(point, vec![source.volume.clone()]);
    let _mount = mount(config, source, Sinks { outcomes, events: None }).unwrap();
    drop(guard);
    println!("mounted");
    std::thread::sleep(Duration::from_secs(120));
}

fn daemon(point: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["failures::daemon_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env("FORETIDE_TEST_POINT", point)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mounted = lines.map_while(Result::ok).any(|line| line.contains("mounted"));
    assert!(mounted, "the daemon did not mount");
    child
}

#[test]
fn a_killed_daemons_open_passthrough_file_goes_on_and_its_stale_mount_is_taken_away_at_the_next_start() {
    if cannot_mount() {
        return;
    }
    let point = tempfile::tempdir().unwrap();
    let mut child = daemon(point.path());
    let content = bytes(4 << 20, 8);
    let file = File::open(point.path().join("data/f")).unwrap();
    let mut some = vec![0; 4096];
    file.read_exact_at(&mut some, 0).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the mount is stale", || {
        fs::metadata(point.path().join("data")).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        let mut all = vec![0; content.len()];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, content, "an open passthrough file needs no daemon");
    }
    drop(file);
    let rig = on(Source::new("data"), point, |_| {});
    rig.source.put("f", "again");
    assert_eq!(fs::read(rig.at("f")).unwrap(), b"again");
}
