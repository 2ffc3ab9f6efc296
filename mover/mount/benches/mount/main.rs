//! `make bench-mount`: the mount beside native files on the same disk, in the same run; and over a link of 150 ms and
//! 1 Gbit/s beside what the link itself allows. `target/bench/mount.json` gets the rows.
//!
//! `BENCH="--only small"` runs one part alone: `large`, `small`, `cold` or `tree`.

mod house;
mod link;
mod million;
mod table;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use foretide_flow::FilePath;
use foretide_mount::{MountHandle, Opens};

use house::House;
use million::{FILES_A_FOLDER, FOLDERS, folder_of};
use table::{Row, in_turn, median, seconds, show};

const LARGE_BYTES: u64 = 1 << 30;
const PART_BYTES: u64 = 128 << 20;
const SMALL_BYTES: u64 = 100_000;
const SMALL_FILES: u64 = 1000;
/// Nearly all of a warm read is copying, and how quick that is where the pages happen to lie decides more than all else,
/// natively too: so they are read in afresh so many times.
const PLACEMENTS: usize = 5;
const RANDOM_READS: u64 = 20_000;
const COLD_FILES: u64 = 20;
const COLD_LARGE_BYTES: u64 = 1_000_000_000;
const CHANGES: u64 = 10;
const RTT: Duration = Duration::from_millis(150);
const LINK_BITS_PER_S: u64 = 1_000_000_000;
const FAST: u64 = u64::MAX / 8;

/// What belongs together.
#[derive(Clone, Copy)]
enum Part {
    Large,
    Small,
    Cold,
    Tree,
}

type Rows = fn(&House, &mut Vec<Row>);

/// Each with a house of its own.
const PARTS: [(&str, Part, Rows); 4] = [
    ("large", Part::Large, large_rows),
    ("small", Part::Small, small_rows),
    ("cold", Part::Cold, cold_rows),
    ("tree", Part::Tree, tree_rows),
];

/// Bytes that differ everywhere and are cheap to make.
fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8)).map(|w| (w + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut noise: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    noise.truncate(bytes as usize);
    noise
}

fn write(at: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(at.parent().expect("below the folder")).expect("a folder");
    fs::write(at, bytes).expect("room on the disk");
}

/// What the rows of a part read, in a fresh folder or in one that is kept.
fn fill(source: &Path, kept: &Path, part: Part) -> PathBuf {
    match part {
        Part::Large => {
            let large = noise(LARGE_BYTES, 1);
            write(source.join("large"), &large);
            for reader in 0..8u64 {
                let at = (reader * PART_BYTES / 8) as usize;
                write(source.join(format!("part/{reader}")), &large[at..at + PART_BYTES as usize / 8]);
            }
        }
        Part::Small => {
            (0..SMALL_FILES).for_each(|i| write(source.join(format!("small/{i}")), &noise(SMALL_BYTES, i << 20)));
        }
        Part::Cold => {
            (0..COLD_FILES).for_each(|i| write(source.join(format!("cold/{i}")), &noise(SMALL_BYTES, (i + 1) << 40)));
            write(source.join("cold-large"), &noise(COLD_LARGE_BYTES, 1 << 50));
        }
        Part::Tree => return million::make(kept),
    }
    source.to_owned()
}

/// A volume's files, as a mount shows them.
fn ours(mount: &MountHandle, at: &str) -> PathBuf {
    mount.path().join("data").join(at)
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

/// Looks at every name's attributes, too.
fn walk(at: &Path) -> u64 {
    let told = std::process::Command::new("find").arg(at).args(["-type", "f", "-size", "-9", "-print"]).output();
    told.expect("find runs").stdout.iter().filter(|b| **b == b'\n').count() as u64
}

fn against_native(work: &'static str, unit: &'static str, bar: f64, scale: f64, (ours, native): (f64, f64)) -> Row {
    let reference_name = "native files on the same disk";
    let ratio = native / ours;
    Row { work, ours: ours * scale, unit, reference: native * scale, reference_name, ratio, bar, at_least: true }
}

/// Rows of large files, by how their pages came into the page cache. What arrives over a link is written a chunk at a time,
/// and the kernel keeps it in smaller pieces of memory than what it reads from a disk: that alone makes copying slower.
const LARGE_ROWS: [[&str; 3]; 2] = [
    [
        "sequential read of a cached 1 GiB file, its pages read from the disk",
        "4 KiB random read, cached, its pages read from the disk",
        "eight readers at once, cached, their pages read from the disk",
    ],
    [
        "sequential read of a cached 1 GiB file, its pages as they arrived",
        "4 KiB random read, cached, its pages as they arrived",
        "eight readers at once, cached, their pages as they arrived",
    ],
];

/// Large files that are cached, warm, beside native ones. What is read once, without a delay, is cached.
fn large_rows(house: &House, rows: &mut Vec<Row>) {
    let mount = house.mount("large", |_| {});
    let mut buffer = vec![0; 1 << 20];
    let mut read_once = |folder: &Path| {
        assert_eq!(read_all(&folder.join("large"), &mut buffer), LARGE_BYTES);
        (0..8).for_each(|i| assert_eq!(read_all(&folder.join(format!("part/{i}")), &mut buffer), PART_BYTES / 8));
    };
    let (at, native) = (ours(&mount, ""), house.source.clone());
    read_once(&at);
    let [from_disk, arrived] = LARGE_ROWS;
    let as_they_arrived = beside_native(&at, &native, arrived);
    house.forget_pages();
    read_once(&at);
    read_once(&native);
    rows.extend(beside_native(&at, &native, from_disk));
    rows.extend(as_they_arrived);
    println!("large files: {}", requests(&mount));
}

fn beside_native(at: &Path, native: &Path, [sequential, random, eight]: [&'static str; 3]) -> [Row; 3] {
    let (mut buffer, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (large, native_large) = (at.join("large"), native.join("large"));
    let whole = |at: &Path, buffer: &mut [u8]| assert_eq!(read_all(at, buffer), LARGE_BYTES);
    let once = in_turn(7, || whole(&large, &mut buffer), || whole(&native_large, &mut other));
    let jumping = in_turn(7, || read_at_random(&large, LARGE_BYTES), || read_at_random(&native_large, LARGE_BYTES));
    let together = in_turn(9, || eight_readers(at), || eight_readers(native));
    [
        against_native(sequential, "s", 0.95, 1.0, once),
        against_native(random, "us", 0.9, 1e6 / RANDOM_READS as f64, jumping),
        against_native(eight, "s", 0.9, 1.0, together),
    ]
}

/// Small files, with opens that the kernel tells of and with opens that it does not.
fn small_rows(house: &House, rows: &mut Vec<Row>) {
    for (opens, work) in [
        (Opens::Told, "100 KB open+read+close, warm, opens told"),
        (Opens::Silent, "100 KB open+read+close, warm, opens silent"),
    ] {
        let mount = house.mount(&format!("{opens:?}"), |config| config.opens = opens);
        let (mut buffer, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let (at, native) = (ours(&mount, ""), house.source.clone());
        read_small(&at, &mut buffer);
        println!("small files, opens {opens:?}: {} to read them once", requests(&mount));
        let placed_anew = || {
            house.forget_pages();
            (0..SMALL_FILES).for_each(|i| house::forget(&at.join(format!("small/{i}"))));
            in_turn(3, || read_small(&at, &mut buffer), || read_small(&native, &mut other))
        };
        let times: (Vec<f64>, Vec<f64>) = std::iter::repeat_with(placed_anew).take(PLACEMENTS).unzip();
        rows.push(against_native(work, "us", 0.8, 1e6 / SMALL_FILES as f64, (median(times.0), median(times.1))));
        println!("small files, opens {opens:?}: {} in all", requests(&mount));
    }
}

fn requests(mount: &MountHandle) -> String {
    let s = mount.stats();
    let opens = format!("{} opens by passthrough, {} through the cache", s.opens_passthrough, s.opens_cached);
    format!("{} lookups, {} reads, {opens}", s.lookups, s.reads)
}

fn at_most(work: &'static str, ours: f64, unit: &'static str, reference: (f64, &'static str), bar: f64) -> Row {
    let (reference, reference_name) = reference;
    Row { work, ours, unit, reference, reference_name, ratio: ours / reference, bar, at_least: false }
}

/// Over the link, nothing cached.
fn cold_rows(house: &House, rows: &mut Vec<Row>) {
    house.link.shape(RTT, LINK_BITS_PER_S);
    let mount = house.mount("cold", |_| {});
    let rtt = RTT.as_secs_f64();
    assert_eq!(fs::read_dir(ours(&mount, "cold")).expect("it is there").count() as u64, COLD_FILES);
    let one = |i: u64| {
        let at = ours(&mount, &format!("cold/{i}"));
        seconds(|| assert_eq!(read_all(&at, &mut vec![0; 1 << 20]), SMALL_BYTES))
    };
    let small = median((0..COLD_FILES).map(one).collect());
    let work = "cold 100 KB file, its directory known, 150 ms";
    rows.push(at_most(work, small, "s", (rtt, "round trip of the link"), 1.15));
    let mut buffer = vec![0; 1 << 20];
    let large = seconds(|| assert_eq!(read_all(&ours(&mount, "cold-large"), &mut buffer), COLD_LARGE_BYTES));
    let floor = COLD_LARGE_BYTES as f64 * 8.0 / LINK_BITS_PER_S as f64;
    let work = "cold sequential read of 1 GB, 150 ms, 1 Gbit/s";
    rows.push(at_most(work, large, "s", (floor, "bytes / rate of the link"), 1.06));
    let seen = median((0..CHANGES).map(|i| seen_after(house, &mount, i)).collect());
    let work = "a change at the source is seen at the other site";
    rows.push(at_most(work, seen, "s", (rtt + 0.1, "round trip + 100 ms"), 1.0));
}

/// From the end of a write at the source until the mount shows it, seconds.
fn seen_after(house: &House, mount: &MountHandle, i: u64) -> f64 {
    let (there, here) = (house.source.join(format!("cold/{i}")), ours(mount, &format!("cold/{i}")));
    fs::write(there, noise(SMALL_BYTES + 1 + i, i)).expect("room on the disk");
    let written = Instant::now();
    while fs::metadata(&here).expect("it is there").len() != SMALL_BYTES + 1 + i {
        assert!(written.elapsed() < Duration::from_secs(60), "the change was never seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    written.elapsed().as_secs_f64()
}

/// A million files that nobody has looked at.
fn tree_rows(house: &House, rows: &mut Vec<Row>) {
    house.link.shape(RTT, LINK_BITS_PER_S);
    let mut mount = None;
    let first = seconds(|| {
        let mount = mount.insert(house.mount("tree", |_| {}));
        assert_eq!(read_all(&ours(mount, &million::deep()), &mut vec![0; 1 << 20]), million::DEEP_BYTES);
    });
    drop(mount);
    let work = "from mounting a volume of 1,000,000 files to a file five levels deep, 150 ms";
    rows.push(at_most(work, first, "s", (1.0, "bar"), 1.0));
    house.link.shape(Duration::ZERO, FAST);
    let mount = house.mount("known", |config| config.lease_s = 3600.0);
    let before = resident_mb();
    let files = (FOLDERS * FILES_A_FOLDER) as f64;
    let learned = files / seconds(|| house.runtime.block_on(learn_all(&mount, house)));
    let (names, grown) = (mount.names_memory_bytes() as f64 / 1e6, resident_mb() - before);
    rows.push(Row {
        work: "learning that tree in the background, no delay",
        ours: learned,
        unit: "files/s",
        reference: 150_000.0,
        reference_name: "bar",
        ratio: learned / 150_000.0,
        bar: 1.0,
        at_least: true,
    });
    rows.push(at_most("memory of the names of 1,000,000 known files", names, "MB", (300.0, "bar"), 1.0));
    rows.push(at_most("growth of the process while it learned them", grown, "MB", (300.0, "bar"), 1.0));
    let (at, native) = (ours(&mount, "tree"), house.source.join("tree"));
    let all = FOLDERS * FILES_A_FOLDER;
    let times = in_turn(3, || assert_eq!(walk(&at), all), || assert_eq!(walk(&native), all));
    rows.push(against_native("find -size over that tree, known", "s", 0.5, 1.0, times));
}

async fn learn_all(mount: &MountHandle, house: &House) {
    let hints = mount.hints();
    let folders: Vec<FilePath> = (0..FOLDERS).map(|n| FilePath::parse(&folder_of(n)).expect("a path")).collect();
    let all = folders.iter().map(|folder| hints.foresee(&house.volume, folder));
    futures::StreamExt::for_each_concurrent(futures::stream::iter(all), 8, |one| one).await;
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
    let only = std::env::args().skip_while(|a| a != "--only").nth(1);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut rows = Vec::new();
    for (name, part, run) in PARTS {
        if only.as_deref().is_none_or(|only| only == name) {
            let house = House::start(target, |source, kept| fill(source, kept, part));
            run(&house, &mut rows);
        }
    }
    let json = target.parent().map(|target| target.join("bench/mount.json"));
    // A part alone is no report.
    let all = show(&rows, json.filter(|_| only.is_none()).as_deref());
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
