//! `foretide copy` from a folder: what arrives, what does not cross a second time, and what is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

fn copy(from: &Path, to: &Path) -> serde_json::Value {
    let done = Command::new(env!("CARGO_BIN_EXE_foretide")).arg("copy").arg(from).arg(to).arg("--json").output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn a_tree_arrives_whole_and_only_differences_cross_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (from.path(), to.path().join("new"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    let mut large = noise(1, 9_000_000);
    fs::write(from.join("a/large"), &large).unwrap();
    fs::write(from.join("a/b/small"), b"small").unwrap();
    fs::write(from.join("empty"), b"").unwrap();
    fs::set_permissions(from.join("a/b/small"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("a/large", from.join("link")).unwrap();

    let told = copy(from, &to);
    assert_eq!((told["files"].as_u64(), told["logical_bytes"].as_u64()), (Some(3), Some(9_000_005)));
    assert!(fs::read(to.join("a/large")).unwrap() == large && fs::read(to.join("a/b/small")).unwrap() == b"small");
    assert_eq!(fs::metadata(to.join("empty")).unwrap().len(), 0);
    assert_eq!(fs::metadata(to.join("a/b/small")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/large"));
    let names: Vec<_> = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "nothing is left over: {names:?}");

    let told = copy(from, &to);
    assert_eq!((told["files"].as_u64(), told["unchanged"].as_u64()), (Some(0), Some(3)));

    large[4_000_000..4_000_100].copy_from_slice(&noise(2, 100));
    fs::write(from.join("a/large"), &large).unwrap();
    let told = copy(from, &to);
    assert_eq!((told["files"].as_u64(), told["unchanged"].as_u64()), (Some(1), Some(2)));
    assert!(told["physical_bytes"].as_u64().unwrap() < 20_000 + 9_000_000 / 1000, "{told}");
    assert!(fs::read(to.join("a/large")).unwrap() == large);
}

#[test]
fn a_dry_run_says_what_would_be_copied_and_writes_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("one"), noise(3, 1000)).unwrap();
    let to = to.path().join("new");
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
    let told =
        command.arg("copy").arg(from.path()).arg(&to).args(["--dry-run", "--rate", "1 Gbit/s"]).output().unwrap();
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success() && words.contains("1 files, 0.000 GB would be copied"), "{told:?}");
    assert!(!to.exists());
    let mut paced = Command::new(env!("CARGO_BIN_EXE_foretide"));
    let refused = paced.args(["copy", "foretide://h:1/v", "/nowhere", "--rate", "1 Gbit/s"]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("source.rate"), "{words}");
}

#[test]
fn one_file_goes_into_the_folder_and_what_is_not_there_is_named() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("one"), b"one").unwrap();
    assert_eq!(copy(&from.path().join("one"), to.path())["files"].as_u64(), Some(1));
    assert_eq!(fs::read(to.path().join("one")).unwrap(), b"one");
    for (source, word) in [("/no/such/thing", "no/such"), ("foretide://nowhere", "host:port"), ("ftp://x/y", "s3://")] {
        let done = Command::new(env!("CARGO_BIN_EXE_foretide")).args(["copy", source]).arg(to.path()).output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && why.contains(word), "{source}: {why}");
    }
}
