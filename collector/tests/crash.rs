//! A spool whose process is killed by `kill -9` while it writes: what it said to have is there, whole.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use foretide_collector::parquet;
use foretide_collector::spool::Spool;
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunId, SiteId, Timestamp, VolumeId,
};

/// Times that the writer is killed.
const KILLS: u64 = 8;
const SPOOL_BYTES: u64 = 64 << 20;

/// A batch that says in each access which one it is.
fn batch(sequence: u64) -> AccessBatch {
    let access = |i: u64| Access {
        at: Timestamp(sequence as i64),
        run: RunId::from("r"),
        process: 1,
        volume: VolumeId::new("v").unwrap(),
        path: FilePath::parse(&format!("f{i}")).unwrap(),
        op: AccessOp::Read,
        offset: sequence * i,
        length: i + 1,
        blocked_us: 0,
        found: Found::Hit,
    };
    AccessBatch {
        node: NodeId::new("n").unwrap(),
        site: SiteId::new("s").unwrap(),
        sequence,
        started: vec![],
        accesses: (0..500).map(access).collect(),
        ended: vec![],
        losses: Losses::default(),
    }
}

/// The process that is killed: pushes without end, and says each number once it is in. Not a test when run by itself.
#[test]
fn the_writer() {
    let Some(dir) = std::env::var_os("FORETIDE_TEST_DIR") else { return };
    let mut spool = Spool::open(Path::new(&dir), SPOOL_BYTES).unwrap();
    println!();
    loop {
        let number = spool.next_sequence();
        spool.push(&parquet::encode(&batch(number)).unwrap()).unwrap();
        println!("in {number}");
    }
}

#[test]
fn promise_e_nothing_that_was_put_in_is_lost_when_the_agent_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = 0;
    for kill in 1..=KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writer", "--nocapture"])
            .env("FORETIDE_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed after another number of batches each time, at any point of the next.
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut said = 0;
        while said < kill * 3 {
            let line = lines.next().unwrap().unwrap();
            if let Some(number) = line.strip_prefix("in ") {
                (known, said) = (number.parse().unwrap(), said + 1);
            }
        }
        writer.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            known = line.strip_prefix("in ").and_then(|n| n.parse().ok()).unwrap_or(known);
        }
        writer.wait().unwrap();
        let mut spool = Spool::open(dir.path(), SPOOL_BYTES).unwrap();
        let told: Vec<AccessBatch> =
            std::iter::from_fn(|| spool.take_next().unwrap()).map(|batch| batch.decode().unwrap()).collect();
        let last = told.last().map_or(0, |b| b.sequence);
        assert!(last == known || last == known + 1, "kill {kill}: {last} is there, {known} was said");
        assert!(told.iter().zip(1..).all(|(b, n)| *b == batch(n)), "kill {kill}");
        assert_eq!(spool.next_sequence(), last + 1);
    }
}
