//! What is particular to a file: death of the process, damage, strangers, newer versions.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use foretide_catalog::*;
use foretide_flow::*;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use tempfile::TempDir;

async fn open(path: &std::path::Path) -> Result<Arc<dyn Catalog>> {
    open_sqlite(&SqliteConfig::at(path)).await
}

fn setting(i: u64) -> (String, serde_json::Value) {
    (format!("n{}", i % 7), serde_json::json!(i))
}

/// The child of the next test: writes, and says what was acknowledged.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var("FORETIDE_TEST_CATALOG") else { return };
    let catalog = open(path.as_ref()).await.unwrap();
    let from = catalog.last_event().await.unwrap();
    for i in from + 1.. {
        let (name, value) = setting(i);
        catalog.put_setting(&name, &value).await.unwrap();
        assert_eq!(catalog.append_event("tick", &value, Timestamp(i as i64)).await.unwrap(), i);
        println!("\nacknowledged {i}");
    }
}

/// Promise E: what was acknowledged is there after `kill -9`, at whatever instruction it came; and nothing is half
/// there, nor there twice. On several threads: this one blocks while it listens to the child, and the index that follows
/// a catalog must be able to end its transaction meanwhile, or the child finds the file locked.
#[tokio::test(flavor = "multi_thread")]
async fn promise_e_kill_9_loses_nothing_that_was_acknowledged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("catalog.db");
    let mut total = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env("FORETIDE_TEST_CATALOG", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers =
            lines.map_while(std::io::Result::ok).filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok());
        let mut acknowledged = total;
        let mut numbers = numbers;
        for n in numbers.by_ref().take(20 + 13 * round as usize) {
            acknowledged = n;
        }
        child.kill().unwrap();
        // What it said before it died was acknowledged too.
        acknowledged = numbers.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let catalog = open(&path).await.unwrap();
        let last = catalog.last_event().await.unwrap();
        assert!(last >= acknowledged && last <= acknowledged + 1, "{acknowledged} were acknowledged, {last} are there");
        assert!(last > total, "the child wrote nothing");
        let kept = catalog.events_since(last.saturating_sub(500), 1_000).await.unwrap();
        assert!(kept.windows(2).all(|w| w[1].id == w[0].id + 1), "no event is missing or twice");
        let (name, value) = setting(last);
        let there = catalog.setting(&name).await.unwrap().unwrap();
        assert!(there == value || there.as_u64() == Some(last + 7) || there.as_u64() > value.as_u64());
        total = last;
    }
    println!("12 kills, {total} acknowledged writes, none lost");
}

async fn told(path: &std::path::Path) -> String {
    match open(path).await {
        Ok(_) => panic!("it opened"),
        Err(e) => e.to_string(),
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "not a database, but long enough to look like one ".repeat(100)).unwrap();
    let told = told(&path).await;
    assert!(
        told.contains("notes.txt") && told.contains("no SQLite database") && told.contains("another file"),
        "{told}"
    );
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"), "it was left as it is");
}

#[tokio::test]
async fn a_damaged_file_is_named_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("catalog.db");
    drop(open(&path).await.unwrap());
    // Connections close on threads of their own, and two that close at once both leave the log to the other: it is
    // emptied here.
    while std::fs::metadata(path.with_extension("db-wal")).is_ok_and(|m| m.len() > 0) {
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.unwrap();
        pool.close().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..].iter_mut().for_each(|b| *b ^= 0x5a);
    std::fs::write(&path, bytes).unwrap();
    let told = told(&path).await;
    assert!(told.contains("catalog.db") && told.contains("damaged") && told.contains("backup"), "{told}");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_named_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("catalog.db");
    drop(open(&path).await.unwrap());
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (999, 'from the future', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let told = told(&path).await;
    assert!(told.contains("catalog.db") && told.contains("version 999") && told.contains("newer foretide"), "{told}");
}

#[tokio::test]
async fn a_place_that_cannot_be_is_named_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    let missing = told(&directory.path().join("no/such/catalog.db")).await;
    assert!(missing.contains("there is no directory") && missing.contains("make it"), "{missing}");
    let is_directory = told(directory.path()).await;
    assert!(is_directory.contains("it is a directory"), "{is_directory}");
}

#[tokio::test]
async fn a_database_server_that_is_not_there_is_named_without_its_password() {
    let config = PostgresConfig { url: "postgres://u:s3cret@127.0.0.1:1/db".into(), connections: 2 };
    let told = open_postgres(&config).await.err().unwrap().to_string();
    assert!(told.contains("127.0.0.1:1/db") && told.contains("is up") && !told.contains("s3cret"), "{told}");
}

/// Promise D: a snapshot whose bytes were damaged is passed over for the one before.
#[tokio::test]
async fn promise_d_a_damaged_model_is_passed_over() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("catalog.db");
    let catalog = open(&path).await.unwrap();
    for i in 1..=2u8 {
        catalog.put_model("gbm", &[i; 9], Timestamp(0)).await.unwrap();
    }
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query("UPDATE models SET bytes = x'0203' WHERE version = 2").execute(&pool).await.unwrap();
    assert_eq!(catalog.model("gbm").await.unwrap().map(|m| (m.version, m.bytes)), Some((1, vec![1; 9])));
}

/// A file of version 1 is brought up to date: its names are found by path and by their parts, and new ones get numbers
/// that no file had.
#[tokio::test]
async fn a_file_of_the_first_version_is_taken_over() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("catalog.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let first = include_str!("../migrations/sqlite/0001_catalog.sql").into_sql_str();
    let first = Migration::new(1, "catalog".into(), MigrationType::Simple, first, false);
    Migrator::with_migrations(vec![first]).run(&pool).await.unwrap();
    for sql in [
        "INSERT INTO directories (id, volume, path, seen_at, files, bytes, smallest, largest, oldest, newest)
            VALUES (1, 'data', CAST('train' AS BLOB), 5, 2, 30, 10, 20, 0, 0)",
        "INSERT INTO files VALUES (7, 1, CAST('moon.jpg' AS BLOB), 0, 10, 0, 420, 0, 0, 1, '10-0', NULL)",
        "INSERT INTO files VALUES (9, 1, CAST('half-moon.jpg' AS BLOB), 0, 20, 0, 420, 0, 0, 1, '20-0', NULL)",
        "INSERT INTO files VALUES (12, 1, CAST('gone' AS BLOB), 0, 20, 0, 420, 0, 0, 1, '20-0', NULL)",
        "DELETE FROM files WHERE id = 12",
        "INSERT INTO file_names (rowid, name) VALUES (7, 'moon.jpg'), (9, 'half-moon.jpg')",
        "INSERT INTO counters (name, value) VALUES ('names_indexed', 9)",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let catalog = open(&path).await.unwrap();
    let volume = VolumeId::new("data").unwrap();
    let train = FilePath::parse("train").unwrap();
    let named = |name: &str| train.join(name.as_bytes()).unwrap();
    assert_eq!(catalog.entry(&volume, &named("moon.jpg")).await.unwrap().unwrap().size, 10);
    let mut listing = catalog.directory(&volume, &train).await.unwrap().unwrap();
    let moons = async || {
        let query = FileQuery { suffix: Some("moon.jpg".into()), ..FileQuery::default() };
        let found = catalog.find_files(&query, None, 10).await.unwrap().items;
        found.iter().map(|f| f.entry.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(moons().await, ["train/moon.jpg", "train/half-moon.jpg"]);
    listing.seen_at = Timestamp(6);
    listing.entries.retain(|e| e.path != named("moon.jpg"));
    listing.entries.push(Entry { path: named("new-moon.jpg"), ..listing.entries[0].clone() });
    catalog.put_listing(&listing).await.unwrap();
    assert_eq!(moons().await, ["train/half-moon.jpg", "train/new-moon.jpg"]);
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let number: i64 = sqlx::query_scalar("SELECT MAX(id) FROM files").fetch_one(&pool).await.unwrap();
    assert_eq!(number, 13, "12 was a file's that is gone");
}
