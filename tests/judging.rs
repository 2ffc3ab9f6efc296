//! `foretide evaluate --recurrence`: each option for the site at which a job's calendar is played is heard.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Files that each run of the job reads, in order, and the reads that each takes.
const FILES: u64 = 10;
const READS: u64 = 16;
const READ_BYTES: u64 = 64 << 10;
/// All of them.
const DATA_BYTES: u64 = FILES * READS * READ_BYTES;

/// A job that came three times, an hour apart, and read the same files whole.
fn job(folder: &Path) {
    let mut trace = String::from("time_s,run,job,host_pid,op,path,offset,length\n");
    let mut runs = String::from("run,job,start_s,exit_s,exit_code,start_utc,command\n");
    for run in 1..=3 {
        let start = 3600 * run;
        writeln!(runs, "r{run},fold,{start},{},0,x,fold data", start + 60).unwrap();
        let mut listing = String::new();
        for file in 0..FILES {
            writeln!(listing, "data/f{file},{},10", READS * READ_BYTES).unwrap();
            for read in 0..READS {
                let at = file * READS + read;
                let offset = read * READ_BYTES;
                writeln!(trace, "{start}.{at:06},r{run},fold,7,read,data/f{file},{offset},{READ_BYTES}").unwrap();
            }
        }
        fs::write(folder.join(format!("listing-r{run}.txt")), listing).unwrap();
    }
    fs::write(folder.join("trace.csv"), trace).unwrap();
    fs::write(folder.join("runs.csv"), runs).unwrap();
}

/// How the calendar was played with these options more.
fn played(folder: &Path, options: &[&str]) -> Value {
    let done = Command::new(env!("CARGO_BIN_EXE_foretide"))
        .args(["evaluate", "--json", "--recurrence"])
        .arg(folder)
        .args(options)
        .output()
        .expect("the binary runs");
    assert!(done.status.success(), "{options:?}: {}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).expect("one JSON document");
    assert_eq!(report["jobs"][0]["job"], "fold");
    report["jobs"][0]["season"].clone()
}

/// How long a site without forecasts waited, seconds.
fn waited(season: &Value) -> f64 {
    assert_eq!(season["rows"][0]["name"], "none");
    season["rows"][0]["stall_s"].as_f64().expect("a number")
}

#[test]
fn each_option_for_the_site_of_a_calendar_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    job(folder.path());
    let with = |options: &[&str]| played(folder.path(), options);

    let usual = with(&[]);
    assert_eq!(usual["link"], "1000 Mbit/s, 150 ms");
    assert_eq!(usual["cache_bytes"], DATA_BYTES / 5, "a fifth of the data");
    // Each read of each run is a round trip: a fifth of a loop is never what is read next.
    let round_trips = 3.0 * 0.150 * (FILES * READS) as f64;
    assert!((waited(&usual) / round_trips - 1.0).abs() < 0.05, "{} s of {round_trips}", waited(&usual));

    assert_eq!(with(&["--cache", "50%"])["cache_bytes"], DATA_BYTES / 2);
    let all = with(&["--cache", "1GB"]);
    assert_eq!(all["cache_bytes"], 1_000_000_000);
    assert!(waited(&all) < 0.4 * waited(&usual), "what is kept is fetched once: {} s", waited(&all));

    let slow = with(&["--rate", "10Mbit"]);
    assert_eq!(slow["link"], "10 Mbit/s, 150 ms");
    assert!(waited(&slow) > 1.2 * waited(&usual), "{} s", waited(&slow));

    let near = with(&["--rtt", "15ms"]);
    assert_eq!(near["link"], "1000 Mbit/s, 15 ms");
    assert!(waited(&near) < 0.2 * waited(&usual), "{} s", waited(&near));

    let instant = with(&["--instant"]);
    assert_eq!((instant["link"].as_str(), waited(&instant)), (Some("instant"), 0.0));

    // A block of two reads brings the second with the first.
    let wide = with(&["--block", "128KiB"]);
    assert!((waited(&wide) / waited(&usual) - 0.5).abs() < 0.05, "{} s", waited(&wide));

    let picture = folder.path().join("calendar.svg");
    with(&["--svg", picture.to_str().expect("a plain path")]);
    let drawn = fs::read_to_string(picture).expect("it was drawn");
    assert!(drawn.starts_with("<svg") && drawn.contains("fold, told from 2 runs"), "{drawn}");
}
