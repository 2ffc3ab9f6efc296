//! Names, attributes, versions: what a program may count on.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foretide_mount::{Config, Numbers, Sinks};

use crate::rig::{bytes, cannot_mount, errno, eventually, on, rig, with};
use crate::source::Source;

#[test]
fn a_volume_is_a_directory_of_ordinary_files() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("a/b/c.txt", "hello");
    assert_eq!(fs::read(rig.at("a/b/c.txt")).unwrap(), b"hello");
    let top: Vec<_> = fs::read_dir(rig.point.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(top, ["data"]);
    let meta = fs::metadata(rig.at("a/b/c.txt")).unwrap();
    assert_eq!((meta.len(), meta.mtime(), meta.mode() & 0o7777), (5, 1_700_000_000, 0o644));
    assert!(fs::metadata(rig.at("a")).unwrap().is_dir());
}

#[test]
fn nothing_is_asked_before_somebody_looks_and_no_tree_is_walked() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    for directory in 0..50 {
        rig.source.put(&format!("d{directory}/sub/file"), "x");
    }
    assert_eq!(rig.source.lists.load(Ordering::Relaxed), 0);
    fs::read(rig.at("d7/sub/file")).unwrap();
    // The volume's root, d7 and d7/sub; and ahead of a walk that may follow, a bounded number of the 98 others.
    std::thread::sleep(Duration::from_millis(300));
    let asked = rig.source.lists.load(Ordering::Relaxed);
    assert!((3..=3 + 2 * 32).contains(&asked), "{asked}");
}

#[test]
fn a_walk_waits_for_a_few_round_trips_not_for_one_a_directory() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    for directory in 0..100 {
        rig.source.put(&format!("d{directory:02}/file"), "x");
        rig.source.put(&format!("d{directory:02}/sub/file"), "x");
    }
    rig.source.delay_ms.store(100, Ordering::Relaxed);
    let started = Instant::now();
    let files = walk(&rig.at(""));
    let took = started.elapsed();
    assert_eq!(files, 200);
    // 201 directories at 100 ms each, one after the other, would be 20 s.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn walk(at: &Path) -> usize {
    let entries = fs::read_dir(at).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.file_type().unwrap().is_dir() { walk(&e.path()) } else { 1 }).sum()
}

#[test]
fn what_is_foreseen_is_listed_without_a_question() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    (0..10).for_each(|i| rig.source.put(&format!("a/b/{i}"), "x"));
    rig.runtime.block_on(rig.mount.hints().foresee(&rig.source.volume, &crate::source::path("a/b")));
    let before = rig.source.lists.load(Ordering::Relaxed);
    rig.source.delay_ms.store(2000, Ordering::Relaxed);
    let started = Instant::now();
    assert_eq!(walk(&rig.at("")), 10);
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!(rig.source.lists.load(Ordering::Relaxed), before);
    // What cannot be foreseen is no error of anybody's.
    rig.runtime.block_on(rig.mount.hints().foresee(&rig.source.volume, &crate::source::path("none/at/all")));
}

#[test]
fn what_a_source_tells_is_seen_without_asking_and_an_open_handle_stays() {
    if cannot_mount() {
        return;
    }
    let source = Source::new("data");
    source.begin_to_tell();
    ["d/kept", "d/goes", "d/changes"].iter().for_each(|p| source.put(p, "old"));
    // No lease of this test's ends by itself.
    let rig = on(source, tempfile::tempdir().unwrap(), |c| c.lease_s = 3600.0);
    let names = || {
        let shown = fs::read_dir(rig.at("d")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = shown.collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["changes", "goes", "kept"]);
    assert_eq!(errno(fs::metadata(rig.at("d/comes"))), libc::ENOENT);
    let mut open = fs::File::open(rig.at("d/changes")).unwrap();
    let asked = rig.source.lists.load(Ordering::Relaxed);
    rig.source.put("d/comes", "new file");
    rig.source.put("d/changes", "new content");
    rig.source.remove("d/goes");
    ["d/comes", "d/changes", "d/goes"].iter().for_each(|p| rig.source.tell(p));
    eventually("the new name is seen", || fs::read(rig.at("d/comes")).is_ok_and(|c| c == b"new file"));
    eventually("the new content is seen", || fs::read(rig.at("d/changes")).is_ok_and(|c| c == b"new content"));
    eventually("the name that is gone is", || fs::metadata(rig.at("d/goes")).is_err());
    assert_eq!(names(), ["changes", "comes", "kept"]);
    assert_eq!(rig.source.lists.load(Ordering::Relaxed), asked, "nobody had to ask");
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "old", "one open handle, one version");
}

#[test]
fn when_nothing_is_told_any_more_leases_serve_again() {
    if cannot_mount() {
        return;
    }
    let source = Source::new("data");
    source.begin_to_tell();
    source.put("d/f", "old");
    let rig = on(source, tempfile::tempdir().unwrap(), |c| (c.lease_s, c.told_lease_s) = (0.5, 3600.0));
    assert_eq!(fs::read(rig.at("d/f")).unwrap(), b"old");
    rig.source.stop_telling();
    rig.source.put("d/f", "newer");
    eventually("the change is seen when the lease has ended", || {
        fs::read(rig.at("d/f")).is_ok_and(|content| content == b"newer")
    });
}

#[test]
fn a_known_directory_costs_no_question_while_its_lease_lasts() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    (0..100).for_each(|i| rig.source.put(&format!("d/{i}"), "x"));
    assert_eq!(fs::read_dir(rig.at("d")).unwrap().count(), 100);
    let before = (rig.source.lists.load(Ordering::Relaxed), rig.source.stats.load(Ordering::Relaxed));
    (0..100).for_each(|i| assert_eq!(fs::metadata(rig.at(&format!("d/{i}"))).unwrap().len(), 1));
    assert_eq!(errno(fs::metadata(rig.at("d/none"))), libc::ENOENT);
    let after = (rig.source.lists.load(Ordering::Relaxed), rig.source.stats.load(Ordering::Relaxed));
    assert_eq!(before, after);
}

#[test]
fn names_that_are_not_utf8_long_names_and_deep_trees_work() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    let odd = b"caf\xe9 \xff%41";
    rig.source.put_bytes_name(odd, "odd");
    let long = "n".repeat(255);
    rig.source.put(&long, "long");
    let deep = vec!["d"; 200].join("/") + "/f";
    rig.source.put(&deep, "deep");
    assert_eq!(fs::read(rig.at("").join(OsStr::from_bytes(odd))).unwrap(), b"odd");
    assert_eq!(fs::read(rig.at(&long)).unwrap(), b"long");
    assert_eq!(fs::read(rig.at(&deep)).unwrap(), b"deep");
    let shown: Vec<_> = fs::read_dir(rig.at("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(shown.iter().any(|n| n.as_bytes() == odd), "{shown:?}");
    assert_eq!(errno(fs::metadata(rig.at(&"n".repeat(256)))), libc::ENAMETOOLONG);
}

#[test]
fn symlinks_are_shown_as_the_source_has_them_and_a_cycle_is_eloop() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("real/file", "through the link");
    rig.source.link("to", "real/file");
    rig.source.link("odd", "caf%E9");
    rig.source.link("x", "y");
    rig.source.link("y", "x");
    assert_eq!(fs::read(rig.at("to")).unwrap(), b"through the link");
    assert_eq!(fs::read_link(rig.at("odd")).unwrap().as_os_str().as_bytes(), b"caf\xe9");
    assert_eq!(fs::symlink_metadata(rig.at("odd")).unwrap().len(), 4);
    assert_eq!(errno(fs::read(rig.at("x"))), libc::ELOOP);
}

#[test]
fn hard_links_share_an_inode_number_and_survive_each_other() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 1.0);
    rig.source.put("one", "same");
    rig.source.hard_link("one", "two");
    let (one, two) = (fs::metadata(rig.at("one")).unwrap(), fs::metadata(rig.at("two")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    rig.source.remove("one");
    eventually("the removed name is gone", || fs::metadata(rig.at("one")).is_err());
    assert_eq!(fs::read(rig.at("two")).unwrap(), b"same");
}

#[test]
fn inode_numbers_are_the_same_after_a_restart() {
    if cannot_mount() {
        return;
    }
    let source = Source::new("data");
    source.put("a/b", "x");
    let numbers = |rig: &crate::rig::Rig| ["", "a", "a/b"].map(|p| fs::metadata(rig.at(p)).unwrap().ino());
    let first = on(source.clone(), tempfile::tempdir().unwrap(), |_| {});
    let before = numbers(&first);
    drop(first);
    let second = on(source, tempfile::tempdir().unwrap(), |_| {});
    assert_eq!(numbers(&second), before);
}

#[test]
fn permissions_are_the_sources_and_the_kernel_enforces_them() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put_mode("secret", "x", 0o600);
    rig.source.make_directory("closed", 0o700);
    rig.source.put("closed/file", "x");
    assert_eq!(fs::metadata(rig.at("secret")).unwrap().permissions().mode() & 0o7777, 0o600);
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    fs::set_permissions(rig.point.path(), fs::Permissions::from_mode(0o755)).ok();
    for hidden in ["secret", "closed/file"] {
        let told = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
            .arg(rig.at(hidden))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success() && said.contains("Permission denied"), "{hidden}: {said}");
    }
}

#[test]
fn owners_are_shown_as_who_they_are_here_where_a_map_says_so() {
    if cannot_mount() {
        return;
    }
    let rig = with(|config| {
        config.users = Numbers { named: vec![(1000, 5001)], others: Some(65534) };
        config.groups = Numbers { named: vec![(1000, 5002)], others: None };
    });
    for (name, owner) in [("hers", (1000, 1000)), ("his", (7, 7))] {
        rig.source.put_owned(name, "x", owner);
    }
    let owner = |name: &str| fs::metadata(rig.at(name)).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!((owner("hers"), owner("his")), ((5001, 5002), (65534, 7)));
    let (source, point) = (Source::new("data"), tempfile::TempDir::new().unwrap());
    let config = Config {
        users: Numbers { named: vec![(1, 2), (1, 3)], others: None },
        ..Config::at(point.path(), vec![source.volume.clone()])
    };
    let _inside = rig.runtime.enter();
    let sinks = Sinks { outcomes: tokio::sync::mpsc::channel(1).0, events: None };
    let told = foretide_mount::mount(config, source, sinks).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(told.contains("users.named") && told.contains("1 twice"), "{told}");
}

/// Python asks it of each file that it opens.
#[test]
fn no_file_is_a_terminal() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("d/file", "x");
    let file = fs::File::open(rig.at("d/file")).unwrap();
    assert!(!std::io::IsTerminal::is_terminal(&file));
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOTTY));
}

#[test]
fn everything_that_writes_is_erofs_b() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("d/file", "x");
    let file = rig.at("d/file");
    fs::read(&file).unwrap();
    assert_eq!(errno(fs::write(&file, "y")), libc::EROFS);
    assert_eq!(errno(fs::OpenOptions::new().append(true).open(&file)), libc::EROFS);
    assert_eq!(errno(fs::write(rig.at("d/new"), "y")), libc::EROFS);
    assert_eq!(errno(fs::create_dir(rig.at("d/dir"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(&file)), libc::EROFS);
    assert_eq!(errno(fs::remove_dir(rig.at("d"))), libc::EROFS);
    assert_eq!(errno(fs::rename(&file, rig.at("d/other"))), libc::EROFS);
    assert_eq!(errno(fs::hard_link(&file, rig.at("d/other"))), libc::EROFS);
    assert_eq!(errno(std::os::unix::fs::symlink("x", rig.at("d/other"))), libc::EROFS);
    assert_eq!(errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o600))), libc::EROFS);
    assert_eq!(errno(std::os::unix::fs::chown(&file, Some(1), None)), libc::EROFS);
    let opened = fs::File::open(&file).unwrap();
    assert_eq!(errno(opened.set_len(0)), libc::EINVAL, "a file that is open for reading only");
    assert_eq!(errno(opened.set_modified(std::time::SystemTime::now())), libc::EROFS);
}

#[test]
fn a_change_is_seen_at_the_next_open_after_the_lease_close_to_open() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 1.0);
    rig.source.put("f", "old");
    rig.source.put("gone", "x");
    assert_eq!(fs::read(rig.at("f")).unwrap(), b"old");
    rig.source.put("f", "newer");
    rig.source.put("born", "y");
    rig.source.remove("gone");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(fs::read(rig.at("f")).unwrap(), b"newer");
    assert_eq!(fs::metadata(rig.at("f")).unwrap().len(), 5);
    assert_eq!(fs::read(rig.at("born")).unwrap(), b"y");
    assert_eq!(errno(fs::metadata(rig.at("gone"))), libc::ENOENT);
    let shown: Vec<_> = fs::read_dir(rig.at("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(shown, ["born", "f"]);
}

#[test]
fn an_open_handle_sees_one_version_to_its_end_d() {
    if cannot_mount() {
        return;
    }
    for passthrough in [true, false] {
        let rig = with(|c| (c.lease_s, c.passthrough) = (1.0, passthrough));
        let (old, new) = (bytes(300_000, 1), bytes(200_000, 2));
        rig.source.put("f", old.clone());
        let mut handle = fs::File::open(rig.at("f")).unwrap();
        let mut read = vec![0; 1000];
        handle.read_exact(&mut read).unwrap();
        rig.source.put("f", new.clone());
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(fs::read(rig.at("f")).unwrap(), new, "a new open sees the new version");
        handle.read_to_end(&mut read).unwrap();
        assert_eq!(read, old, "passthrough: {passthrough}");
        assert_eq!(handle.metadata().unwrap().len(), old.len() as u64);
    }
}

#[test]
fn a_removed_file_stays_readable_for_who_has_it_open() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 1.0);
    rig.source.put("d/f", "still here");
    let handle = fs::File::open(rig.at("d/f")).unwrap();
    rig.source.remove("d");
    eventually("the name is gone", || fs::metadata(rig.at("d/f")).is_err());
    let mut read = [0; 10];
    handle.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"still here");
}

#[test]
fn a_small_file_that_changed_within_the_lease_is_opened_in_its_new_version() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("f", "old");
    assert_eq!(fs::metadata(rig.at("f")).unwrap().len(), 3);
    rig.source.put("f", "newer");
    // The open asks for bytes of the old version, is told that there is another, and opens that.
    assert_eq!(fs::read(rig.at("f")).unwrap(), b"newer");
}

#[test]
fn a_rename_at_the_source_is_one_name_gone_and_one_come() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 1.0);
    rig.source.put("a", "content");
    assert_eq!(fs::read(rig.at("a")).unwrap(), b"content");
    rig.source.rename("a", "b");
    eventually("the old name is gone", || fs::metadata(rig.at("a")).is_err());
    assert_eq!(fs::read(rig.at("b")).unwrap(), b"content");
}

#[test]
fn a_file_that_became_a_directory_is_one() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 1.0);
    rig.source.put("x", "file");
    assert_eq!(fs::read(rig.at("x")).unwrap(), b"file");
    rig.source.remove("x");
    rig.source.put("x/inner", "dir");
    eventually("the directory is there", || fs::read(rig.at("x/inner")).is_ok_and(|b| b == b"dir"));
}

#[test]
fn a_busy_directory_is_learned_again_before_anybody_waits_for_it() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.lease_s = 2.0);
    rig.source.put("d/f", "x");
    fs::read(rig.at("d/f")).unwrap();
    let before = rig.source.lists.load(Ordering::Relaxed);
    // Somebody goes on looking; the background keeps ahead of the lease.
    eventually("learned again", || {
        fs::metadata(rig.at("d/f")).unwrap();
        let _ = fs::metadata(rig.at("d/none"));
        rig.source.lists.load(Ordering::Relaxed) > before + 2
    });
}

#[test]
fn o_direct_and_extended_attributes_and_seeking_behave() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    let content = bytes(100_000, 3);
    rig.source.put("f", content.clone());
    for _ in 0..2 {
        let direct = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(rig.at("f")).unwrap();
        let layout = std::alloc::Layout::from_size_align(8192, 4096).unwrap();
        // SAFETY: the layout has a size, the memory is freed with the same layout, and the slice lives no longer.
        unsafe {
            let memory = std::alloc::alloc_zeroed(layout);
            let buffer = std::slice::from_raw_parts_mut(memory, 8192);
            direct.read_exact_at(buffer, 4096).unwrap();
            assert_eq!(buffer, &content[4096..12_288]);
            std::alloc::dealloc(memory, layout);
        }
        rig.source.bring("f");
    }
    let path = std::ffi::CString::new(rig.at("f").as_os_str().as_bytes()).unwrap();
    // SAFETY: path and name end in NUL, and a size of 0 asks for nothing to be written.
    let told = unsafe { libc::getxattr(path.as_ptr(), c"user.none".as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!((told, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EOPNOTSUPP)));
}

#[test]
fn a_change_that_is_pushed_is_seen_at_once_within_the_lease() {
    if cannot_mount() {
        return;
    }
    let rig = with(|c| c.whole_file_bytes = 0);
    rig.source.put("d/f", "old");
    rig.source.put("d/gone", "x");
    assert_eq!(fs::read(rig.at("d/f")).unwrap(), b"old");
    assert_eq!(errno(fs::metadata(rig.at("d/born"))), libc::ENOENT);
    let open = fs::File::open(rig.at("d/f")).unwrap();
    rig.source.put("d/f", "newer");
    rig.source.put("d/born", "y");
    rig.source.remove("d/gone");
    for name in ["d/f", "d/born", "d/gone"] {
        rig.mount.hints().changed(&rig.source.volume, &crate::source::path(name));
    }
    assert_eq!(fs::read(rig.at("d/f")).unwrap(), b"newer");
    assert_eq!(fs::read(rig.at("d/born")).unwrap(), b"y");
    assert_eq!(errno(fs::metadata(rig.at("d/gone"))), libc::ENOENT);
    let shown: Vec<_> = fs::read_dir(rig.at("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(shown, ["born", "f"]);
    let mut read = [0; 3];
    open.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"old", "who had it open has the old version (promise D)");
}
