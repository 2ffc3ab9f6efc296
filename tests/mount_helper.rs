//! `mount.foretide`, as mount(8) calls it, with a stand-in for the daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn mount(folder: &Path, daemon: &str, options: &[&str]) -> Output {
    let stand_in = folder.join("foretide");
    fs::write(&stand_in, format!("#!/bin/sh\n{daemon}\n")).unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mount/mount.foretide"))
        .arg("/etc/foretide/agent.toml")
        .arg(folder.join("mnt"))
        .args(options)
        .env("PATH", path)
        .env("FORETIDE_MOUNT_LOG", folder.join("log"))
        .env("FORETIDE_MOUNT_PATIENCE_S", "1")
        .output()
        .unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("mnt")).unwrap();
    folder
}

#[test]
fn a_daemon_that_ends_is_a_mount_failure_with_its_last_words() {
    let folder = folder();
    let done =
        mount(folder.path(), "echo first; echo \"foretide: $*: no such file\" >&2; exit 1", &["-o", "rw,_netdev"]);
    assert_eq!(done.status.code(), Some(32));
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("mount --config /etc/foretide/agent.toml") && told.contains("no such file"), "{told}");
    assert!(!told.contains("first"), "{told}");
}

#[test]
fn a_daemon_that_never_mounts_is_ended_and_said() {
    let folder = folder();
    let done = mount(folder.path(), &format!("echo $$ > {}/pid; exec sleep 600", folder.path().display()), &[]);
    assert_eq!(done.status.code(), Some(32));
    assert!(String::from_utf8_lossy(&done.stderr).contains("was not mounted within 1 s"));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let gone = || !Path::new("/proc").join(pid.trim()).join("fd").exists();
    (0..100).take_while(|_| !gone()).for_each(|_| std::thread::sleep(std::time::Duration::from_millis(20)));
    assert!(gone(), "it is left running");
}

#[test]
fn a_fake_mount_starts_nothing_and_a_call_without_arguments_is_told_the_usage() {
    let folder = folder();
    let done = mount(folder.path(), &format!("touch {}/started", folder.path().display()), &["-f"]);
    assert!(done.status.success() && !folder.path().join("started").exists());
    let bare = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mount/mount.foretide")).output().unwrap();
    assert!(!bare.status.success() && String::from_utf8_lossy(&bare.stderr).contains("usage"));
}
