//! `make bench-mount`: the mount beside native files on the same disk, in the same run; and over an emulated link beside
//! what the link itself allows.

mod origin;
mod table;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use foretide_mount::{Config, MountHandle, Opens, Sinks, mount};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use origin::{Site, content};
use table::{Row, in_turn, seconds, show};

const LARGE_BYTES: u64 = 1 << 30;
const PART_BYTES: u64 = 128 << 20;
const SMALL_BYTES: u64 = 100_000;
const SMALL_FILES: u64 = 1000;
const TREE_DIRECTORIES: u64 = 100;
const TREE_FILES: u64 = 500;
const RANDOM_READS: u64 = 20_000;
const RTT_MS: u64 = 150;
const LINK_BITS_PER_S: u64 = 1_000_000_000;

/// A mount, the same files beside it, and what keeps both alive.
struct Bench {
    mount: MountHandle,
    native: PathBuf,
    _outcomes: mpsc::Receiver<foretide_flow::Outcome>,
    _folder: tempfile::TempDir,
    _runtime: Runtime,
}

impl Bench {
    fn start(target: &Path, fill: impl FnOnce(&Site, &Path), change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir_in(target).expect("a folder under target");
        let [point, native, store] = ["mount", "native", "store"].map(|name| folder.path().join(name));
        [&point, &native].iter().for_each(|at| fs::create_dir(at).expect("a fresh folder"));
        let site = Site::new(&store);
        fill(&site, &native);
        drop_pages(&store);
        drop_pages(&native);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let (outcomes, kept) = mpsc::channel(1 << 17);
        let mut config = Config { lease_s: 3600.0, ..Config::at(point, vec![site.volume.clone()]) };
        change(&mut config);
        let guard = runtime.enter();
        let mount = mount(config, site, Sinks { outcomes, events: None }).unwrap_or_else(|e| panic!("{e}"));
        drop(guard);
        Self { mount, native, _outcomes: kept, _folder: folder, _runtime: runtime }
    }

    fn ours(&self, at: &str) -> PathBuf {
        self.mount.path().join("data").join(at)
    }
}

fn cached(site: &Site, native: &Path, at: &str, bytes: &[u8]) {
    site.put_cached(at, bytes);
    let copy = native.join(at);
    fs::create_dir_all(copy.parent().expect("below the folder")).expect("a folder");
    fs::write(copy, bytes).expect("room on the disk");
}

/// Both sides start from the disk and are then warmed by reading, so that their pages are of one kind. What the store
/// replaces meanwhile is none of the bench's files.
fn drop_pages(folder: &Path) {
    for entry in fs::read_dir(folder).expect("our own folder").map(|e| e.expect("an entry")) {
        if entry.file_type().expect("a type").is_dir() {
            drop_pages(&entry.path());
        } else if entry.metadata().is_ok_and(|m| m.len() > 4096)
            && let Ok(file) = File::open(entry.path())
        {
            file.sync_all().expect("the disk works");
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            nix::fcntl::posix_fadvise(&file, 0, 0, advice).expect("a plain file");
        }
    }
}

fn read_all(at: &Path, buffer: &mut [u8]) -> u64 {
    let mut file = File::open(at).expect("it is there");
    let mut total = 0;
    loop {
        match file.read(buffer).expect("it can be read") {
            0 => return total,
            read => total += read as u64,
        }
    }
}

fn read_small(folder: &Path, buffer: &mut [u8]) {
    for i in 0..SMALL_FILES {
        assert_eq!(read_all(&folder.join(format!("small/{i}")), buffer), SMALL_BYTES);
    }
}

fn read_at_random(at: &Path, size: u64) {
    let file = File::open(at).expect("it is there");
    let mut page = [0; 4096];
    let mut place = 1u64;
    for _ in 0..RANDOM_READS {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (place >> 33) % (size / 4096) * 4096;
        file.read_exact_at(&mut page, offset).expect("within the file");
    }
}

fn eight_readers(folder: &Path) {
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let at = folder.join(format!("part/{reader}"));
            scope.spawn(move || assert_eq!(read_all(&at, &mut vec![0; 1 << 20]), PART_BYTES / 8));
        }
    });
}

fn walk(at: &Path) -> u64 {
    let told = std::process::Command::new("find").arg(at).args(["-type", "f", "-size", "+0", "-print"]).output();
    told.expect("find runs").stdout.iter().filter(|b| **b == b'\n').count() as u64
}

fn against_native(work: &'static str, unit: &'static str, bar: f64, scale: f64, (ours, native): (f64, f64)) -> Row {
    let reference_name = "native files on the same disk";
    let ratio = native / ours;
    Row { work, ours: ours * scale, unit, reference: native * scale, reference_name, ratio, bar, at_least: true }
}

/// What is cached, warm, beside native files.
fn warm_rows(target: &Path, rows: &mut Vec<Row>) {
    let large = content(0..LARGE_BYTES);
    let bench = Bench::start(
        target,
        |site, native| {
            cached(site, native, "large", &large);
            for reader in 0..8u64 {
                let at = (reader * PART_BYTES / 8) as usize;
                cached(site, native, &format!("part/{reader}"), &large[at..at + PART_BYTES as usize / 8]);
            }
            for i in 0..SMALL_FILES {
                let at = (i * 4096) as usize;
                cached(site, native, &format!("small/{i}"), &large[at..at + SMALL_BYTES as usize]);
            }
        },
        |_| {},
    );
    drop(large);
    let mut buffer = vec![0; 1 << 20];
    let mut other = buffer.clone();
    let (ours, native) = (bench.ours("large"), bench.native.join("large"));
    let whole = |at: &Path, buffer: &mut [u8]| assert_eq!(read_all(at, buffer), LARGE_BYTES);
    let times = in_turn(5, || whole(&ours, &mut buffer), || whole(&native, &mut other));
    rows.push(against_native("sequential read of a cached 1 GiB file", "s", 0.95, 1.0, times));
    let times = in_turn(5, || read_at_random(&ours, LARGE_BYTES), || read_at_random(&native, LARGE_BYTES));
    rows.push(against_native("4 KiB random read, cached", "us", 0.9, 1e6 / RANDOM_READS as f64, times));
    let (ours, native) = (bench.ours(""), bench.native.clone());
    let times = in_turn(7, || read_small(&ours, &mut buffer), || read_small(&native, &mut other));
    let per_file = 1e6 / SMALL_FILES as f64;
    rows.push(against_native("100 KB open+read+close, warm, opens told", "us", 0.8, per_file, times));
    let times = in_turn(7, || eight_readers(&ours), || eight_readers(&native));
    rows.push(against_native("eight readers at once, cached", "s", 0.9, 1.0, times));
    let stats = bench.mount.stats();
    println!("opens by passthrough: {}, through the cache: {}", stats.opens_passthrough, stats.opens_cached);
}

/// The same small files with opens that the kernel does not tell of.
fn silent_rows(target: &Path, rows: &mut Vec<Row>) {
    let bytes = content(0..SMALL_FILES * 4096 + SMALL_BYTES);
    let fill = |site: &Site, native: &Path| {
        for i in 0..SMALL_FILES {
            let at = (i * 4096) as usize;
            cached(site, native, &format!("small/{i}"), &bytes[at..at + SMALL_BYTES as usize]);
        }
    };
    let bench = Bench::start(target, fill, |config| config.opens = Opens::Silent);
    let (ours, native) = (bench.ours(""), bench.native.clone());
    let (mut buffer, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let times = in_turn(7, || read_small(&ours, &mut buffer), || read_small(&native, &mut other));
    let per_file = 1e6 / SMALL_FILES as f64;
    rows.push(against_native("100 KB open+read+close, warm, opens silent", "us", 0.8, per_file, times));
}

/// A known tree, listed.
fn tree_rows(target: &Path, rows: &mut Vec<Row>) {
    let fill = |site: &Site, native: &Path| {
        for directory in 0..TREE_DIRECTORIES {
            fs::create_dir(native.join(format!("d{directory:03}"))).expect("a folder");
            for file in 0..TREE_FILES {
                let at = format!("d{directory:03}/train-{file:06}.jpg");
                fs::write(native.join(&at), "x").expect("room on the disk");
                site.put_cold(&at, 1);
            }
        }
    };
    let bench = Bench::start(target, fill, |_| {});
    let (ours, native) = (bench.ours(""), bench.native.clone());
    let all = TREE_DIRECTORIES * TREE_FILES;
    let times = in_turn(5, || assert_eq!(walk(&ours), all), || assert_eq!(walk(&native), all));
    rows.push(against_native("find -size over a known tree of 50,000 files", "s", 0.5, 1.0, times));
}

/// Over a link of 150 ms and 1 Gbit/s, nothing cached.
fn cold_rows(target: &Path, rows: &mut Vec<Row>) {
    let fill = |site: &Site, _: &Path| {
        site.put_cold("large", LARGE_BYTES);
        (0..20).for_each(|i| site.put_cold(&format!("small/{i}"), SMALL_BYTES));
        site.put_cold("a/b/c/d/deep", SMALL_BYTES);
        site.rtt_ms.store(RTT_MS, Ordering::Relaxed);
        site.bits_per_s.store(LINK_BITS_PER_S, Ordering::Relaxed);
    };
    let bench = Bench::start(target, fill, |_| {});
    let mut buffer = vec![0; 1 << 20];
    let rtt = RTT_MS as f64 / 1000.0;
    let deep = seconds(|| assert_eq!(read_all(&bench.ours("a/b/c/d/deep"), &mut buffer), SMALL_BYTES));
    let reference_name = "bar";
    rows.push(Row {
        work: "first file of an unknown volume, five levels deep, 150 ms",
        ours: deep,
        unit: "s",
        reference: 1.0,
        reference_name,
        ratio: deep,
        bar: 1.0,
        at_least: false,
    });
    fs::read_dir(bench.ours("small")).expect("it is there").count();
    let one = |i: u64| {
        let at = bench.ours(&format!("small/{i}"));
        seconds(|| assert_eq!(read_all(&at, &mut vec![0; 1 << 20]), SMALL_BYTES))
    };
    let small = table::median((0..20).map(one).collect());
    let reference_name = "round trip of the emulated link";
    let work = "cold 100 KB file, its directory known, 150 ms";
    rows.push(Row {
        work,
        ours: small,
        unit: "s",
        reference: rtt,
        reference_name,
        ratio: small / rtt,
        bar: 1.15,
        at_least: false,
    });
    let large = seconds(|| assert_eq!(read_all(&bench.ours("large"), &mut buffer), LARGE_BYTES));
    let floor = LARGE_BYTES as f64 * 8.0 / LINK_BITS_PER_S as f64;
    let reference_name = "bytes / rate of the emulated link";
    let work = "cold sequential read of 1 GiB, 150 ms, 1 Gbit/s";
    rows.push(Row {
        work,
        ours: large,
        unit: "s",
        reference: floor,
        reference_name,
        ratio: large / floor,
        bar: 1.06,
        at_least: false,
    });
}

/// A million names, learned by looking.
fn memory_row(target: &Path, rows: &mut Vec<Row>) {
    let fill = |site: &Site, _: &Path| {
        for directory in 0..1000 {
            (0..1000)
                .for_each(|f| site.put_cold(&format!("d{directory:04}/train-{directory:04}-{f:06}.jpg"), SMALL_BYTES));
        }
    };
    let bench = Bench::start(target, fill, |_| {});
    let before = resident_mb();
    let learned = seconds(|| {
        for directory in 0..1000 {
            assert_eq!(fs::read_dir(bench.ours(&format!("d{directory:04}"))).expect("it is there").count(), 1000);
        }
    });
    let mb = bench.mount.names_memory_bytes() as f64 / 1e6;
    println!(
        "1,000,000 names listed through the mount in {learned:.1} s; the process grew by {:.0} MB",
        resident_mb() - before
    );
    let work = "memory of the names of 1,000,000 known files";
    rows.push(Row {
        work,
        ours: mb,
        unit: "MB",
        reference: 300.0,
        reference_name: "bar",
        ratio: mb,
        bar: 300.0,
        at_least: false,
    });
}

fn resident_mb() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or_default();
    pages * 4096.0 / 1e6
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; there is nothing to test here.
    if std::env::args().any(|a| a == "--test") {
        return ExitCode::SUCCESS;
    }
    if !Path::new("/dev/fuse").exists() {
        eprintln!("bench-mount needs /dev/fuse: load the module with `modprobe fuse`");
        return ExitCode::FAILURE;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut rows = Vec::new();
    warm_rows(target, &mut rows);
    silent_rows(target, &mut rows);
    tree_rows(target, &mut rows);
    cold_rows(target, &mut rows);
    memory_row(target, &mut rows);
    let all = show(&rows, target.parent().unwrap_or(target));
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
