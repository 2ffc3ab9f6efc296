//! A site that mounts the data by itself: what is asked for there lies in the page cache when the status says READY, the kernel
//! taking it away is noticed, and no byte passes through Foretide.

#[allow(dead_code, reason = "a house without a mount")]
mod house;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use house::{House, eventually, free_port};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::Value;

const FILES: usize = 5;
const FILE_BYTES: usize = 700_001;
const SITES: &str = r#"
    [site.store]
    [site.gpu]
    cache = "1 GB"
    [[link]]
    from = "store"
    to = "gpu"
    rate = "1 Gbit/s"
    rtt = "1ms"
    [volume.data]
    at = "store"
"#;

/// Pages of a file in memory, by another way than the agent's.
fn pages(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    let mut present = [0u8; FILE_BYTES.div_ceil(4096)];
    // SAFETY: maps and looks at a mapping of our own, with one byte for each of its pages.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), FILE_BYTES, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        assert_eq!(libc::mincore(at, FILE_BYTES, present.as_mut_ptr()), 0);
        libc::munmap(at, FILE_BYTES);
    }
    present.iter().filter(|page| **page & 1 == 1).count()
}

fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

#[test]
fn what_is_asked_for_in_place_is_in_the_page_cache_when_it_is_ready() {
    // On a disk: what lies in memory alone cannot leave it.
    let control_port = free_port();
    let mut house = House::open(Path::new(env!("CARGO_TARGET_TMPDIR")), control_port, SITES);
    fs::create_dir_all(house.at("data/sub")).unwrap();
    let files: Vec<PathBuf> = (0..FILES).map(|n| house.at(&format!("data/sub/{n}"))).collect();
    for path in &files {
        let mut file = File::create(path).unwrap();
        file.write_all(&vec![1; FILE_BYTES]).unwrap();
        file.sync_all().unwrap();
        forget(path);
        assert_eq!(pages(path), 0);
    }
    let volumes = format!("data = \"{}\"\n", house.at("data").display());
    let source = format!("[source]\nlisten = \"127.0.0.1:{}\"\n[source.volumes]\n{volumes}", free_port());
    house.agent("store-1", "store", control_port, &source);
    house.agent(
        "gpu-1",
        "gpu",
        control_port,
        &format!("[in_place]\ncapacity = \"1 GB\"\n[in_place.volumes]\n{volumes}"),
    );

    house.foretide(&["warm", "ask", "data", "--site", "gpu", "--within", "10s"]).unwrap();
    let state = || {
        let told: Vec<Value> =
            serde_json::from_str(&house.foretide(&["warm", "list", "--json"]).unwrap_or_default()).unwrap_or_default();
        told.first().map(|w| (w["state"].clone(), w["resident_bytes"].as_u64()))
    };
    let ready = || state() == Some(("READY".into(), Some((FILES * FILE_BYTES) as u64)));
    eventually("it is ready", ready);
    for path in &files {
        assert_eq!(pages(path), FILE_BYTES.div_ceil(4096));
    }
    forget(&files[2]);
    assert_eq!(pages(&files[2]), 0);
    eventually("the kernel's taking is noticed", || !ready());
    eventually("and made good", || ready() && pages(&files[2]) > 0);
}
