//! What changes while everything runs: a volume is added, read, found, tagged and located; a border is drawn.

mod house;

use std::fs;
use std::path::Path;
use std::process::Command;

use house::{House, eventually};

fn can_mount() -> bool {
    let able = Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
    if !able {
        eprintln!("skipped: mounting needs /dev/fuse and root, nothing was tested");
    }
    able
}

#[test]
fn a_volume_that_is_added_is_read_found_tagged_and_located() {
    if !can_mount() {
        return;
    }
    let house = House::start(&std::env::temp_dir(), Path::new("/srv/none"), |port| port);
    fs::write(house.at("offered/set/sub/sample.bin"), "bytes of a sample").unwrap();
    let folder = house.at("offered/set").display().to_string();
    let added = house.foretide(&["volume", "add", "late", &folder, "--at", "storage", "--tag", "project=tides"]);
    assert!(added.as_ref().is_ok_and(|told| told.contains("served by storage-1")), "{added:?}");
    let file = house.at("mnt/late/sub/sample.bin");
    eventually("it is read through the mount", || fs::read(&file).is_ok_and(|read| read == b"bytes of a sample"));
    eventually("what was looked at is found by its volume's tag", || {
        house
            .foretide(&["find", "--tag", "project=tides", "--suffix", ".bin"])
            .is_ok_and(|f| f.contains("sub/sample.bin"))
    });
    house.foretide(&["tag", "late", "sub", "kind=raw"]).unwrap();
    assert!(house.foretide(&["find", "late", "--tag", "kind=raw"]).unwrap().contains("late:sub/sample.bin"));
    eventually("what was read is resident", || {
        house.foretide(&["where", "late", "sub/sample.bin"]).is_ok_and(|told| told.contains("17 of 17 bytes"))
    });
    let told = house.foretide(&["where", "late", "sub/sample.bin"]).unwrap();
    assert!(
        told.contains("kind=raw") && told.contains("project=tides") && told.contains("the source is here"),
        "{told}"
    );
    assert!(house.foretide(&["find", "late", "--at", "gpu"]).unwrap().contains("sample.bin"));

    fs::create_dir_all(house.at("offered/later/sub")).unwrap();
    fs::write(house.at("offered/later/sub/sample.bin"), "hidden by the first").unwrap();
    fs::write(house.at("offered/later/sub/further.bin"), "of the second").unwrap();
    let later = house.at("offered/later").display().to_string();
    house.foretide(&["volume", "add", "both", &folder, &later]).expect("one site's agent offers both");
    for (name, content) in [("sample.bin", "bytes of a sample"), ("further.bin", "of the second")] {
        let at = house.at("mnt/both/sub").join(name);
        eventually("one tree of two folders", || fs::read(&at).is_ok_and(|read| read == content.as_bytes()));
    }

    house.foretide(&["warm", "ask", "late", "nowhere/at/all", "--site", "gpu"]).unwrap();
    eventually("a warm-up of what is nowhere fails and says so", || {
        let told = house.foretide(&["warm", "list", "--json"]).unwrap_or_default();
        told.contains("FAILED") && told.contains("no files at /nowhere/at/all")
    });

    let taken = house.foretide(&["volume", "add", "late", &folder, "--at", "storage"]).unwrap_err();
    assert!(taken.contains("late") && taken.contains("another name"), "{taken}");
    let secret = house.at("secret").display().to_string();
    let kept = house.foretide(&["volume", "add", "kept", &secret, "--at", "storage"]).unwrap_err();
    assert!(kept.contains("source.offer"), "{kept}");

    fs::create_dir(house.at("mnt2")).unwrap();
    let (config, point) = (house.at("gpu-1.toml"), house.at("mnt2"));
    let mut second = Command::new(env!("CARGO_BIN_EXE_foretide"));
    let refused = second.args(["mount", "--config"]).arg(config).arg(&point).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("in use by another process"), "{told}");
    assert!(told.contains(&house.at("cache").display().to_string()), "it names the folder: {told}");
}

#[test]
fn promise_i_a_border_that_is_drawn_holds_at_once_for_what_is_there_already() {
    if !can_mount() {
        return;
    }
    let house = House::start(&std::env::temp_dir(), Path::new("/srv/none"), |port| port);
    fs::write(house.at("offered/set/sub/patient.dcm"), "kept by law").unwrap();
    fs::write(house.at("offered/set/open.txt"), "of no concern").unwrap();
    let folder = house.at("offered/set").display().to_string();
    house.foretide(&["volume", "add", "scans", &folder, "--at", "storage"]).unwrap();
    let (patient, open) = (house.at("mnt/scans/sub/patient.dcm"), house.at("mnt/scans/open.txt"));
    eventually("both are read", || fs::read(&patient).is_ok() && fs::read(&open).is_ok());
    let located = |path| house.foretide(&["where", "scans", path]).unwrap_or_default();
    eventually("both are resident", || {
        located("sub/patient.dcm").contains("11 of 11 bytes") && located("open.txt").contains("13 of 13 bytes")
    });

    house.reconfigure(
        "[[policy.rule]]\nname = \"stays-home\"\neffect = \"deny\"\npaths = \"sub/**\"\nsites = [\"gpu\"]\n",
    );
    let refused = || fs::read(&patient).is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    eventually("what was there is refused, though the kernel had it in memory", refused);
    eventually("it is not resident any more", || !located("sub/patient.dcm").contains("11 of 11 bytes"));
    assert_eq!(fs::read(&open).unwrap(), b"of no concern");
    let told = located("sub/patient.dcm");
    assert!(told.contains("stays-home"), "the rule is named: {told}");

    house.reconfigure("[[policy.rule]]\nname = \"stays-home\"\neffect = \"allow\"\n");
    let log = house.at("serve.log");
    eventually("a configuration that cannot be meant is told", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("what held before goes on holding"))
    });
    assert!(refused(), "and changes nothing");
}
