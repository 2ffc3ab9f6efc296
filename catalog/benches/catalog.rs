//! A catalog of ten million files in SQLite, asked what the API asks.
//!
//! Builds the catalog through its own trait (a listing per directory, as agents tell them), waits until the index of
//! names has followed, then asks each question many times with fresh arguments and prints the 99th percentile beside its
//! bar. The reference is the same question to `sqlite3`-plain tables without our indexes of names and without the
//! directories' sums: a scan of all files, run once, in the same file. What a path's look-up costs when nothing of the file
//! is in memory stands beside the disk itself: as many reads of 4 KiB anywhere in the same file, past the page cache.
//!
//! `FORETIDE_BENCH_FILES` sets the number of files; `target/bench/catalog.json` gets the rows. With `FORETIDE_BENCH_AT=FOLDER`
//! the catalog is kept there, and a run that was stopped is gone on with: ten million files take minutes to learn.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_catalog::*;
use foretide_flow::*;
use serde_json::json;

const FILES: u64 = 10_000_000;
const FILES_PER_DIRECTORY: u64 = 1_000;
/// Asked of each kind; the 99th percentile is then the worst but one or two.
const QUESTIONS: u64 = 200;

/// Numbers that look random and are the same every time.
fn mixed(n: u64) -> u64 {
    let z = (n.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn volume() -> VolumeId {
    VolumeId::new("data").expect("a name")
}

fn gpu() -> SiteId {
    SiteId::new("gpu").expect("a name")
}

/// Datasets of a hundred directories: `set-0012/shard-00034`.
fn directory(d: u64) -> String {
    format!("set-{:04}/shard-{:05}", d / 100, d)
}

/// Names such as `n01440764_4f2a91c3.jpeg`; one in a thousand is a `.parquet`.
fn name(n: u64) -> String {
    let kind = if mixed(n).is_multiple_of(1_000) { "parquet" } else { "jpeg" };
    format!("n{:08}_{:08x}.{kind}", n % 100_000_000, mixed(n) as u32)
}

/// 50 to 200 KB; one in a hundred thousand has a GB and more.
fn size(n: u64) -> u64 {
    if mixed(n + 7).is_multiple_of(100_000) { 1_000_000_000 + n } else { 50_000 + mixed(n) % 150_000 }
}

/// Changed over three years, a dataset at a time.
fn modified(n: u64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + (n / 100_000) as i64 * 900_000_000_000 + (mixed(n) % 900_000_000) as i64)
}

fn path(n: u64) -> FilePath {
    let text = format!("{}/{}", directory(n / FILES_PER_DIRECTORY), name(n));
    FilePath::parse(&text).expect("a path")
}

fn entry(at: FilePath, kind: EntryKind, size: u64, modified_at: Timestamp) -> Entry {
    let version = FileVersion(format!("{size}-{}", modified_at.0).into());
    Entry { path: at, kind, size, modified_at, mode: 0o644, uid: 1000, gid: 1000, links: 1, version }
}

fn listing(directory: &str, mut entries: Vec<Entry>) -> Listing {
    entries.sort_by(|a, b| a.path.name().cmp(b.path.name()));
    let directory = FilePath::parse(directory).expect("a path");
    Listing { volume: volume(), directory, seen_at: Timestamp(1), entries }
}

/// How long the files took that are learned, over all runs in one folder.
struct Stopwatch {
    kept_in: PathBuf,
    files: u64,
    spent: Duration,
}

impl Stopwatch {
    fn go_on(folder: &Path) -> Self {
        let kept_in = folder.join("learned.json");
        let kept: (u64, f64) =
            std::fs::read(&kept_in).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { kept_in, files: kept.0, spent: Duration::from_secs_f64(kept.1) }
    }

    fn add(&mut self, files: u64, spent: Duration) {
        self.files += files;
        self.spent += spent;
        let text = json!((self.files, self.spent.as_secs_f64())).to_string();
        std::fs::write(&self.kept_in, text).expect("room beside the catalog");
    }
}

/// Learns what is not learned yet; files a second over all runs.
async fn build(c: &Arc<dyn Catalog>, files: u64, folder: &Path) -> Result<f64> {
    let directories = files.div_ceil(FILES_PER_DIRECTORY);
    let below = |p: String| entry(FilePath::parse(&p).expect("a path"), EntryKind::Directory, 0, Timestamp(0));
    let sets = directories.div_ceil(100);
    if c.directory(&volume(), &FilePath::root()).await?.is_none() {
        for s in 0..sets {
            let shards = s * 100..directories.min((s + 1) * 100);
            c.put_listing(&listing(&format!("set-{s:04}"), shards.map(|d| below(directory(d))).collect())).await?;
        }
        // Last: it says that the others are there.
        c.put_listing(&listing("", (0..sets).map(|s| below(format!("set-{s:04}"))).collect())).await?;
    }
    let mut stopwatch = Stopwatch::go_on(folder);
    loop {
        let left = c.unlearned(&volume(), &FilePath::root(), limits::PAGE_ITEMS).await?;
        if left.is_empty() {
            break;
        }
        for shard in left {
            let number = String::from_utf8_lossy(shard.as_bytes()).rsplit('-').next().and_then(|n| n.parse().ok());
            let d: u64 = number.expect("only shards are not learned");
            let numbers = d * FILES_PER_DIRECTORY..files.min((d + 1) * FILES_PER_DIRECTORY);
            let entries: Vec<_> = numbers.map(|n| entry(path(n), EntryKind::File, size(n), modified(n))).collect();
            let (count, told) = (entries.len() as u64, listing(&directory(d), entries));
            let started = Instant::now();
            c.put_listing(&told).await?;
            stopwatch.add(count, started.elapsed());
        }
    }
    Ok(stopwatch.files as f64 / stopwatch.spent.as_secs_f64())
}

/// Tags on a few datasets, and a thousand files of each of a few directories at the GPU site.
async fn furnish(c: &Arc<dyn Catalog>, files: u64) -> Result<()> {
    for s in 0..20u64 {
        let at = FilePath::parse(&format!("set-{:04}", mixed(s) % (files / 100_000).max(1))).expect("a path");
        let tags = BTreeMap::from([("project".to_owned(), format!("p{s}"))]);
        c.put_tags(&volume(), &at, &tags).await?;
    }
    for sequence in 0..10u64 {
        let read = |i: u64| {
            let n = mixed(sequence * 1_000 + i) % files;
            Outcome::Read {
                run: None,
                process: 1,
                volume: volume(),
                path: path(n),
                at: Timestamp(1),
                bytes: size(n),
                prefetched_bytes: 0,
                waited_us: 0,
                found: foretide_flow::Found::Miss,
                lead_us: None,
            }
        };
        let batch = OutcomeBatch {
            node: NodeId::new("n1").expect("a name"),
            site: gpu(),
            sequence,
            outcomes: (0..1_000).map(read).collect(),
            census: Vec::new(),
            resident_bytes: 0,
            capacity_bytes: 0,
        };
        c.record_outcomes(&batch, Timestamp(1)).await?;
    }
    Ok(())
}

/// Waits until a search by name no longer looks at files one by one.
async fn indexed(file: &Path) -> f64 {
    let started = Instant::now();
    let url = format!("sqlite://{}", file.display());
    let pool = sqlx::SqlitePool::connect(&url).await.expect("the file opens");
    loop {
        let sql = "SELECT (SELECT value FROM counters WHERE name = 'names_indexed') >= (SELECT MAX(id) FROM files)";
        if sqlx::query_scalar::<_, Option<bool>>(sql).fetch_one(&pool).await.expect("it answers") == Some(true) {
            pool.close().await;
            return started.elapsed().as_secs_f64();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The 99th percentile of times.
fn percentile_99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// What the disk reads past the page cache: a whole page, aligned as it wants it.
#[repr(align(4096))]
struct DiskPage([u8; 4096]);

/// The 99th percentile of as many reads of a page anywhere in the file, past the page cache, milliseconds; none where
/// the file system has no such reads.
fn disk_p99(file: &Path) -> Option<f64> {
    let disk = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file).ok()?;
    let pages = disk.metadata().ok()?.len() / 4096;
    let mut page = Box::new(DiskPage([0; 4096]));
    let mut read = |i: u64| {
        let started = Instant::now();
        disk.read_exact_at(&mut page.0, mixed(i) % pages * 4096).ok()?;
        Some(started.elapsed().as_secs_f64() * 1e3)
    };
    (0..QUESTIONS).map(&mut read).collect::<Option<Vec<_>>>().map(percentile_99)
}

/// The kernel drops what it keeps of the file. What its connections keep stays: the upper levels of the indexes, soon.
fn forget_pages(file: &Path) {
    let file = std::fs::File::open(file).expect("it is there");
    file.sync_all().expect("the disk takes it");
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .expect("advice is taken");
}

/// The 99th percentile of the asking, milliseconds.
async fn p99<F: Future<Output = usize>>(what: &str, first: u64, ask: impl Fn(u64) -> F) -> f64 {
    let (mut times, mut answers) = (Vec::new(), 0);
    for i in 0..QUESTIONS {
        let started = Instant::now();
        answers += ask(mixed(first + i)).await;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    assert!(answers > 0, "{what}: {QUESTIONS} questions and not one answer: the bench asks for what is not there");
    percentile_99(times)
}

/// All pages until `limit` files are found or there are no more.
async fn search(c: &Arc<dyn Catalog>, query: &FileQuery, limit: usize) -> usize {
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = c.find_files(query, cursor.as_deref(), limit - found).await.expect("a search");
        found += page.items.len();
        cursor = page.next;
        if found >= limit || cursor.is_none() {
            return found;
        }
    }
}

/// The same search as a scan of all files, milliseconds.
async fn scan(file: &Path, condition: &str) -> f64 {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("the file opens");
    let sql = format!("SELECT COUNT(*) FROM files f NOT INDEXED WHERE {condition}");
    let started = Instant::now();
    sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.expect("it answers");
    let ms = started.elapsed().as_secs_f64() * 1e3;
    pool.close().await;
    ms
}

struct Row {
    work: &'static str,
    ours: f64,
    unit: &'static str,
    reference: Option<f64>,
    reference_name: &'static str,
    bar: f64,
    at_most: bool,
}

impl Row {
    fn holds(&self) -> bool {
        if self.at_most { self.ours <= self.bar } else { self.ours >= self.bar }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "work": self.work, "ours": self.ours, "unit": self.unit, "reference": self.reference,
            "reference_name": self.reference_name, "ratio": self.reference.map(|r| self.ours / r), "bar": self.bar,
            "holds": self.holds(),
        })
    }
}

const SCAN: &str = "ms, a scan of all files";
const DISK: &str = "ms p99, the disk's reads of 4 KiB";

fn below(work: &'static str, ours: f64, reference: Option<f64>, bar: f64) -> Row {
    Row { work, ours, unit: "ms p99", reference, reference_name: SCAN, bar, at_most: true }
}

async fn ask_all(c: &Arc<dyn Catalog>, file: &Path, files: u64) -> Vec<Row> {
    let q = FileQuery::default;
    let look_ups = |first: u64| {
        p99("look-up", first, |i| {
            let (c, n) = (c.clone(), i % files);
            async move { usize::from(c.entry(&volume(), &path(n)).await.expect("a look-up").is_some()) }
        })
    };
    let pages = |first: u64| {
        p99("prefix page", first, |i| {
            let (c, n) = (c.clone(), i % files);
            async move {
                let set = FilePath::parse(&directory(n / FILES_PER_DIRECTORY)[..8]).expect("a path");
                c.files_below(&volume(), &set, Some(&path(n)), 1_000).await.expect("a page").len()
            }
        })
    };
    let (look_up, page) = (look_ups(1_000).await, pages(2_000).await);
    let find = |what: &'static str, query: Box<dyn Fn(u64) -> FileQuery>| {
        let c = c.clone();
        async move {
            p99(what, 1_000, |i| {
                let (c, query) = (c.clone(), query(i));
                async move { search(&c, &query, 100).await }
            })
            .await
        }
    };
    let part = move |i: u64| FileQuery { name_part: Some(name(i % files)[9..18].into()), ..q() };
    let suffix = move |i: u64| FileQuery { suffix: Some(name(i % files)[14..].into()), ..q() };
    let large = move |i: u64| FileQuery { min_bytes: Some(1_000_000_000 + i % files / 2), ..q() };
    let aged = move |i: u64| {
        let from = modified(i % files);
        FileQuery { modified_from: Some(from), modified_before: Some(from + Duration::from_secs(1)), ..q() }
    };
    let tagged = move |i: u64| FileQuery {
        tags: BTreeMap::from([("project".to_owned(), format!("p{}", i % 20))]),
        suffix: Some(".jpeg".into()),
        ..q()
    };
    let here = move |_| FileQuery { resident_at: Some(gpu()), ..q() };
    let mut rows = vec![
        below("path look-up", look_up, None, 1.0),
        below("prefix page of 1,000", page, None, 5.0),
        below(
            "name part",
            find("part", Box::new(part)).await,
            Some(scan(file, "f.name LIKE '%_4f2a91c%'").await),
            100.0,
        ),
        below(
            "suffix",
            find("suffix", Box::new(suffix)).await,
            Some(scan(file, "f.name LIKE '%a91c.jpeg'").await),
            100.0,
        ),
        below("size", find("size", Box::new(large)).await, Some(scan(file, "f.size >= 1000000000").await), 100.0),
        below(
            "age",
            find("age", Box::new(aged)).await,
            Some(scan(file, "f.modified_at < 1700000000000001").await),
            100.0,
        ),
        below("tag", find("tag", Box::new(tagged)).await, None, 100.0),
        below("site where resident", find("site", Box::new(here)).await, None, 100.0),
    ];
    // Last, for they leave nothing in memory.
    let disk = disk_p99(file);
    let of_disk = |row: Row| Row { reference: disk, reference_name: DISK, ..row };
    forget_pages(file);
    rows.push(of_disk(below("path look-up, nothing of the file in memory", look_ups(3_000).await, None, 1.0)));
    forget_pages(file);
    rows.push(of_disk(below("prefix page, nothing of the file in memory", pages(4_000).await, None, 5.0)));
    rows
}

fn target() -> PathBuf {
    // target/release/deps/catalog-… -> target
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

#[tokio::main]
async fn main() {
    let files = std::env::var("FORETIDE_BENCH_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(FILES);
    let passing = tempfile::TempDir::with_prefix_in("catalog-bench-", std::env::temp_dir()).expect("a directory");
    let folder = std::env::var_os("FORETIDE_BENCH_AT").map_or_else(|| passing.path().to_owned(), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("FORETIDE_BENCH_AT can be made");
    let file = folder.join("catalog.db");
    let c = open_sqlite(&SqliteConfig::at(&file)).await.expect("a catalog");
    let per_second = build(&c, files, &folder).await.expect("the tree is told");
    furnish(&c, files).await.expect("tags and outcomes are told");
    let followed_s = indexed(&file).await;
    let mut rows = ask_all(&c, &file, files).await;
    rows.push(Row {
        work: "files learned per second, a directory of 1,000 at a time",
        ours: per_second,
        unit: "files/s",
        reference: None,
        reference_name: "",
        bar: 150_000.0,
        at_most: false,
    });
    let bytes = std::fs::metadata(&file).map_or(0, |m| m.len());
    println!(
        "{files} files, {} MB in one file; the index of names followed {followed_s:.0} s later",
        bytes / 1_000_000
    );
    println!("{:<56} {:>12} {:<8} {:>8}  {:<5}  beside", "work", "ours", "unit", "bar", "holds");
    for r in &rows {
        let beside = r.reference.map_or_else(String::new, |reference| format!("{reference:.1} {}", r.reference_name));
        println!("{:<56} {:>12.3} {:<8} {:>8}  {:<5}  {beside}", r.work, r.ours, r.unit, r.bar, r.holds());
    }
    let out = target().join("bench");
    std::fs::create_dir_all(&out).expect("target/bench");
    let report = json!({ "files": files, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() });
    std::fs::write(out.join("catalog.json"), format!("{report:#}")).expect("target/bench/catalog.json");
}
